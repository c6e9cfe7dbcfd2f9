/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The background worker.
 *
 * One process, started as soon as the server accepts connections, on a primary
 * as on a standby, and restarted a second after it died.  It sleeps on its
 * latch until it has something to do:
 *
 *	- the startup process has found more sessions due than it wakes itself, or
 *	  recovery has ended and everybody is due: wake them all;
 *	- somebody waits and the startup process does not tell what it replays
 *	  (NeedsPolling()): look every poll_interval, as long as somebody waits;
 *	- the configuration was reloaded: see whether a standby has anywhere to get
 *	  its WAL from, and whether all this has been switched off.
 *
 * Nothing depends on the worker alone.  While it is away, sessions wake one
 * another (waiters.c) and look for themselves (wait.c).
 *
 * It connects to no database, but it does connect: so it is seen in
 * pg_stat_activity and can be terminated from SQL like any other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "utils/guc.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * Have the postmaster run a worker of this library's.  To be called from _PG_init,
 * while shared_preload_libraries are loaded.
 */
void
RegisterOwnWorker(const char *name, const char *function, int flags)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = flags;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_name, name, BGW_MAXLEN);
	strlcpy(worker.bgw_type, name, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "lsn_tracker", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

void
RegisterWorker(void)
{
	RegisterOwnWorker("lsn_tracker", "LsnTrackerWorkerMain",
					  BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION);
}

static void
LeaveWork(int code, Datum arg)
{
	tracker->worker_latch = NULL;
}

/*
 * Say it once if the server is a standby that has nowhere to get WAL from, and
 * once when that is mended.  Whether it was said is in shared memory, so that
 * a restarted worker does not repeat it; nobody else uses it.
 */
static void
CheckReplicationConfigured(void)
{
	bool		unconfigured = RecoveryInProgress() &&
		(PrimaryConnInfo == NULL || PrimaryConnInfo[0] == '\0') &&
		(recoveryRestoreCommand == NULL || recoveryRestoreCommand[0] == '\0');

	if (unconfigured && !tracker->warned_unconfigured)
		ereport(WARNING,
				(errmsg("this server is a standby, but replication does not appear to be configured"),
				 errdetail("Neither primary_conninfo nor restore_command is set, so no new WAL will be replayed."),
				 errhint("Set one of them and reload the configuration.")));
	else if (!unconfigured && tracker->warned_unconfigured)
		ereport(LOG,
				(errmsg("replication is configured now")));
	tracker->warned_unconfigured = unconfigured;
}

void
LsnTrackerWorkerMain(Datum main_arg)
{
	uint32		wait_event;
	instr_time	last_look;

	INSTR_TIME_SET_ZERO(last_look);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	wait_event = WaitEventExtensionNew("LsnTrackerMain");

	before_shmem_exit(LeaveWork, (Datum) 0);
	tracker->worker_latch = MyLatch;
	NoteEnabledForWorker();
	CheckReplicationConfigured();

	for (;;)
	{
		long		timeout = -1;

		/*
		 * Before we look, or what happens after the look is lost.  Its full
		 * barrier also stands between showing our latch, above, and looking
		 * at the queue: without it, one who finds no latch to set could be
		 * overlooked by us, too, and sleep on (model: woken,
		 * WORKER_LOOKS_BEFORE_RESET, NO_BARRIER_BEHIND_SHOWING).
		 */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		/* not 0, which would mean that we are not to be restarted */
		if (ShutdownRequestPending)
			proc_exit(1);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			NoteEnabledForWorker();
			CheckReplicationConfigured();
		}

		/* not more often, however often sessions wake us */
		if (SomebodyWaits() && NeedsPolling())
		{
			instr_time	since;

			INSTR_TIME_SET_CURRENT(since);
			INSTR_TIME_SUBTRACT(since, last_look);
			timeout = poll_interval - (long) INSTR_TIME_GET_MILLISEC(since);
			if (timeout <= 0 || INSTR_TIME_IS_ZERO(last_look))
			{
				FollowReplay();
				INSTR_TIME_SET_CURRENT(last_look);
				timeout = poll_interval;
			}
		}
		AwaitPublication();
		while (WakeDueWaiters(true))
			CHECK_FOR_INTERRUPTS();

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, wait_event);
	}
}
