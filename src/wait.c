/*-------------------------------------------------------------------------
 *
 * wait.c
 *		The sleep loop and its outcomes.
 *
 * Runs in the waiting session, which holds no snapshot (snapshot.c has seen to
 * that) and no lock of ours.  The order is always the same: enter the queue,
 * check again, sleep on the process latch, leave the queue.  Checking again
 * after entering is what makes it safe; replay.c explains why.
 *
 * A wait ends when
 *	- the target is replayed: woken by the startup process, the worker, or a
 *	  session that was woken before;
 *	- recovery ends without reaching it: everybody is woken, an error;
 *	- time is up, by the monotonic clock;
 *	- the session is cancelled or terminated (an interrupt sets the latch), its
 *	  client disconnects (the socket is watched along with the latch), or the
 *	  postmaster dies.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>
#include <sched.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "replication/walreceiver.h"
#include "storage/ipc.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * How often a session looks for itself where it depends on the worker to poll,
 * ms.  About as long as it takes until a worker that died is back.
 */
#define OWN_LOOK_MS 1000

static double
ElapsedMs(instr_time start)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, start);
	return INSTR_TIME_GET_MILLISEC(elapsed);
}

/*
 * The end of the record that a target stands for.
 *
 * A record that ends exactly at a page boundary is given by the insert
 * position (pg_current_wal_insert_lsn()) as ending behind the next page's
 * header, while replay says that it ends at the boundary.  No record can end
 * exactly behind a header, so such a target can only mean the boundary.
 */
XLogRecPtr
TargetRecordEnd(XLogRecPtr target)
{
	if (XLogSegmentOffset(target, wal_segment_size) == SizeOfXLogLongPHD)
		return target - SizeOfXLogLongPHD;
	if (target % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return target - SizeOfXLogShortPHD;
	return target;
}

/*
 * On a primary, whose own WAL contains every position up to where it inserts,
 * there is nothing to wait for: raise an error if the target lies beyond.
 */
void
CheckTargetOnPrimary(XLogRecPtr target)
{
	XLogRecPtr	insert = GetXLogInsertRecPtr();

	if (target > insert)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("target " LSN_FORMAT " is beyond the WAL of this server",
						LSN_FORMAT_ARGS(target)),
				 errdetail("This server is a primary and has inserted WAL up to " LSN_FORMAT ".",
						   LSN_FORMAT_ARGS(insert)),
				 errhint("The position comes from another server, or from WAL that a failover or a restore has lost.")));
}

/*
 * On a server that is in recovery, or was when the caller looked: has it
 * replayed everything up to the target?  Raises an error if it has not and
 * never will, because recovery has ended.
 */
bool
TargetReplayed(XLogRecPtr target)
{
	bool		ended;
	XLogRecPtr	replayed;

	/*
	 * First whether recovery has ended, then how far it came.  The other way
	 * round, the last records could be replayed between the two and a target
	 * among them would be called lost.
	 */
	ended = pg_atomic_read_u64(&tracker->replayed) == REPLAY_ENDED ||
		!RecoveryInProgress();
	pg_read_barrier();
	replayed = GetXLogReplayRecPtr(NULL);

	if (replayed >= target)
		return true;
	if (ended)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery ended before " LSN_FORMAT " was replayed",
						LSN_FORMAT_ARGS(target)),
				 errdetail("Recovery ended at " LSN_FORMAT ": this server has been promoted.",
						   LSN_FORMAT_ARGS(replayed)),
				 errhint("What lies beyond is not on this server. Check whether the write survived the failover, and repeat it if not.")));
	return false;
}

/*
 * Sleep until the latch is set, the timeout (ms, -1: none) has passed, or the
 * client is gone; the caller's CHECK_FOR_INTERRUPTS() ends the session then.
 */
static void
SleepOnLatch(long timeout)
{
	static uint32 wait_event = 0;
	WaitEvent	events[FeBeWaitSetNEvents];
	int			nevents;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("LsnWait");

	/* Not a client's session, or the kernel can't report a closed socket. */
	if (MyProcPort == NULL || FeBeWaitSet == NULL || !WaitEventSetCanReportClosed())
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, wait_event);
		return;
	}

	/*
	 * The session's own set has our latch, the postmaster and the client's
	 * socket in it.  All who wait on the socket say each time for what, so
	 * nothing has to be put back (see pq_check_connection()).
	 */
	ModifyWaitEvent(FeBeWaitSet, FeBeWaitSetSocketPos, WL_SOCKET_CLOSED, NULL);
	nevents = WaitEventSetWait(FeBeWaitSet, timeout, events, lengthof(events), wait_event);
	for (int i = 0; i < nevents; i++)
	{
		if (events[i].events & WL_POSTMASTER_DEATH)
			proc_exit(1);
		if (events[i].events & WL_SOCKET_CLOSED)
		{
			ClientConnectionLost = true;
			InterruptPending = true;
		}
	}
}

/*
 * Wait in the queue.  Returns true once the target is replayed, false when
 * "timeout" ms (0: no limit) have passed since "start".  The caller takes us
 * out of the queue.
 */
static bool
SleepUntilReplayed(XLogRecPtr target, int64 timeout, instr_time start)
{
	AddWaiter(target);

	/*
	 * The worker sleeps as long as nobody waits.  If it is to look at the
	 * server's state on our behalf, it must know that somebody does.
	 */
	if (NeedsPolling())
		WakeWorker();

	for (;;)
	{
		double		remaining = 0;
		long		sleep_ms = -1;

		/*
		 * Reset first, then look: what becomes true after the look sets the
		 * latch again.  The other way round that wake-up would be lost.
		 */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		if (TargetReplayed(target))
			return true;

		if (timeout > 0)
		{
			remaining = timeout - ElapsedMs(start);
			if (remaining <= 0)
				return false;
			sleep_ms = (long) Min(ceil(remaining), INT_MAX);
		}

		if (pg_atomic_read_u64(&tracker->replayed) >= target)
		{
			/*
			 * The record has been applied, and the startup process is a few
			 * instructions away from saying so in pg_last_wal_replay_lsn().
			 * It sets no latch then; let it run instead of sleeping.
			 */
			(void) sched_yield();
			continue;
		}

		/* If only the worker looks, then we do, too, in case it is away. */
		if (NeedsPolling())
			sleep_ms = sleep_ms < 0 ? OWN_LOOK_MS : Min(sleep_ms, OWN_LOOK_MS);

		SleepOnLatch(sleep_ms);
	}
}

static void
LogWait(XLogRecPtr target, const char *outcome, instr_time start)
{
	if (log_waits)
		ereport(LOG,
				(errmsg("wait for replay of " LSN_FORMAT " %s after %.3f ms",
						LSN_FORMAT_ARGS(target), outcome, ElapsedMs(start))));
}

/* What the way out by an error needs to know */
typedef struct InterruptedWait
{
	XLogRecPtr	target;
	instr_time	start;
} InterruptedWait;

static void
AfterInterruptedWait(int code, Datum arg)
{
	InterruptedWait *wait = (InterruptedWait *) DatumGetPointer(arg);

	RemoveWaiter();
	LogWait(wait->target, "was interrupted", wait->start);
}

/*
 * Wait until the server has replayed everything up to the target.
 *
 * Returns true when it has: every snapshot taken from now on contains it, and
 * pg_last_wal_replay_lsn() is at or past it.  Returns false when "timeout" ms
 * (0: no limit) have passed first.  Raises an error if recovery ends, or has
 * ended, before the target, and on cancel, termination and disconnect.
 *
 * The caller should hold no snapshot: replay may have to wait for it.
 */
bool
WaitForReplay(XLogRecPtr target, int64 timeout)
{
	InterruptedWait wait;
	bool		reached;

	INSTR_TIME_SET_CURRENT(wait.start);
	wait.target = target;

	reached = TargetReplayed(target);
	if (!reached)
	{
		PG_ENSURE_ERROR_CLEANUP(AfterInterruptedWait, PointerGetDatum(&wait));
		{
			reached = SleepUntilReplayed(target, timeout, wait.start);
		}
		PG_END_ENSURE_ERROR_CLEANUP(AfterInterruptedWait, PointerGetDatum(&wait));
		RemoveWaiter();
	}

	LogWait(target, reached ? "succeeded" : "timed out", wait.start);
	return reached;
}

/* Why replay has not come further; a sentence for the user. */
static const char *
WhyBehind(void)
{
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
		return "WAL replay is paused: resume it with pg_wal_replay_resume().";
	if (recovery_min_apply_delay > 0)
		return "Replay is delayed on purpose by recovery_min_apply_delay.";
	if (!WalRcvRunning())
		return "No WAL receiver is running: check primary_conninfo, the primary, and the server log.";
	return "Replay is behind the primary: try again, or allow a longer timeout.";
}

/*
 * Raise the error for a target that was not replayed within "timeout" ms.
 */
void
RaiseTimeout(XLogRecPtr target, int64 timeout)
{
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);

	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("timed out after %lld ms while waiting for replay of " LSN_FORMAT,
					(long long) timeout, LSN_FORMAT_ARGS(target)),
			 errdetail("Replay has reached " LSN_FORMAT ", %llu bytes to go.",
					   LSN_FORMAT_ARGS(replayed),
					   (unsigned long long) (target > replayed ? target - replayed : 0)),
			 errhint("%s", WhyBehind())));
}
