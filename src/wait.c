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
 *	- the target turns out to be lost in a failover, or rolled back: an error.
 *	  Who waits for a token is woken whenever the timeline may have changed;
 *	  who waits for a transaction, when that one ends;
 *	- time is up, by the monotonic clock;
 *	- the session is cancelled or terminated (an interrupt sets the latch), its
 *	  client disconnects (the socket is watched along with the latch), or the
 *	  postmaster dies.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>
#include <poll.h>
#include <sched.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "replication/walreceiver.h"
#include "storage/ipc.h"
#include "utils/inval.h"

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

/* The part of CheckTargetOnPrimary() that is about transactions. */
static void
CheckXactOnPrimary(const LsnTarget *target)
{
	XactState	state = GetXactState(target->xid);

	if (state == XACT_RUNNING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is still in progress", TargetToText(target)),
				 errdetail("This server is a primary, where there is no replay to wait for."),
				 errhint("Ask once the commit has returned.")));
	if (state == XACT_UNSEEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has not begun", TargetToText(target)),
				 errdetail("This server is a primary and has assigned ids up to " UINT64_FORMAT ".",
						   U64FromFullTransactionId(ReadNextFullTransactionId()) - 1),
				 errhint("The id comes from another server, or from WAL that a failover or a restore has lost.")));
}

/*
 * On a primary, whose own WAL contains every position up to where it inserts,
 * there is nothing to wait for: raise an error if the target is not there.
 * That is 22023 for what lies beyond this server's WAL or on a timeline that
 * it does not know, 40000 for what a failover or a rollback has undone, and
 * 55000 for a transaction that is still in progress.
 */
static void
CheckTargetOnPrimary(const LsnTarget *target)
{
	TimeLineID	timeline = GetWALInsertionTimeLine();
	XLogRecPtr	insert;

	if (FullTransactionIdIsValid(target->xid))
	{
		CheckXactOnPrimary(target);
		return;
	}

	if (!InHistory(target, timeline))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("target %s is of a timeline that this server does not know", TargetToText(target)),
				 errdetail("This server is a primary on timeline %u.", timeline),
				 errhint("Another server has been promoted. Connect to the current primary or one of its standbys.")));

	insert = GetXLogInsertRecPtr();
	if (target->lsn > insert)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("target %s is beyond the WAL of this server", TargetToText(target)),
				 errdetail("This server is a primary and has inserted WAL up to " LSN_FORMAT ".",
						   LSN_FORMAT_ARGS(insert)),
				 errhint("The position comes from another server, or from WAL that a failover or a restore has lost.")));
}

/* Recovery ended at "replayed", and the target was not reached. */
static void
RaiseRecoveryEnded(const LsnTarget *target, XLogRecPtr replayed)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("recovery ended before %s was replayed", TargetToText(target)),
			 errdetail("Recovery ended at " LSN_FORMAT ": this server has been promoted.",
					   LSN_FORMAT_ARGS(replayed)),
			 errhint("What lies beyond is not on this server. Check whether the write survived the failover, and repeat it if not.")));
}

/*
 * On a server that is in recovery, or was when the caller looked: has it
 * replayed what is waited for?  If not, *outlook tells for which position to
 * queue until it is worth to ask again.  Raises an error if it has not and
 * never will: recovery has ended (55000), or the write was lost in a failover
 * or rolled back (40000).
 */
bool
TargetReached(const LsnTarget *target, Outlook *outlook)
{
	bool		ended;
	bool		comparable;
	XLogRecPtr	replayed;
	TimeLineID	timeline;

	/*
	 * First whether recovery has ended, then how far it came.  The other way
	 * round, the last records could be replayed between the two and a target
	 * among them would be called lost.
	 */
	ended = pg_atomic_read_u64(&tracker->replayed) == REPLAY_ENDED ||
		!RecoveryInProgress();
	pg_read_barrier();

	if (FullTransactionIdIsValid(target->xid))
	{
		if (GetXactState(target->xid) == XACT_COMMITTED)
			return true;
		if (ended)
			RaiseRecoveryEnded(target, GetXLogReplayRecPtr(NULL));
		outlook->wake_at = LAST_TARGET;
		outlook->replayed = 0;
		return false;
	}

	/* both in one: a position is to be judged on the timeline that it is of */
	replayed = GetXLogReplayRecPtr(&timeline);
	comparable = InHistory(target, timeline);

	if (comparable && replayed >= target->replay_to)
		return true;
	if (ended)
	{
		/* the new timeline, if it has a number yet, begins where we stand */
		if (target->timeline == timeline && target->lsn > replayed)
			RaiseLost(target, timeline, replayed);
		RaiseRecoveryEnded(target, replayed);
	}

	/* a change of timeline wakes as well */
	outlook->wake_at = comparable ? target->replay_to : LAST_TARGET;
	outlook->replayed = replayed;
	return false;
}

/* How a session that sleeps watches its client */
typedef struct ClientWatch
{
	uint32		events;			/* what for, in the session's own set; 0: not there */
	long		look_ms;		/* until it looks by itself, then */
} ClientWatch;

static void
ClientIsGone(void)
{
	ClientConnectionLost = true;
	InterruptPending = true;
}

/*
 * The client will send nothing more.  Either it has closed the connection, or it
 * has only shut down its own direction and still wants its answer: who sends a query
 * and then the end of input does so.  The kernel knows by itself only of a local
 * connection.  From another machine it is told when it sends something, so send what
 * every client takes at any time, and changes nothing.
 */
static void
ProbeClient(void)
{
	StringInfoData message;

	pq_beginmessage(&message, 'S');
	pq_sendstring(&message, "in_hot_standby");
	pq_sendstring(&message, GetConfigOption("in_hot_standby", false, false));
	pq_endmessage(&message);
	(void) pq_flush_if_writable();
}

/*
 * Has the connection been closed in both directions, or broken?  Does not wait.
 */
static bool
ConnectionIsDead(void)
{
	struct pollfd client = {.fd = MyProcPort->sock};

	return poll(&client, 1, 0) > 0 && (client.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/*
 * Sleep until the latch is set, the timeout (ms, -1: none) has passed, or the
 * client is gone; the caller's CHECK_FOR_INTERRUPTS() ends the session then.
 *
 * At the beginning of a wait the client's socket is watched for WL_SOCKET_READABLE.
 * That is what an idle session watches it for, so as a rule nothing has to be
 * registered with the kernel before the wait and after it.  A closed connection is
 * readable as well; so is one whose client has sent its next query already, and then
 * it is watched for WL_SOCKET_CLOSED.  That remains so if only one direction is
 * closed, and is of no use then: we look ourselves, at once and then less and less
 * often.
 */
static void
SleepOnLatch(long timeout, ClientWatch *watch)
{
	static uint32 wait_event = 0;
	WaitEvent	events[FeBeWaitSetNEvents];
	int			nevents;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("LsnWait");

	if (watch->events == 0)
	{
		if (watch->look_ms > 0)
		{
			if (ConnectionIsDead())
			{
				ClientIsGone();
				return;
			}
			timeout = timeout < 0 ? watch->look_ms : Min(timeout, watch->look_ms);
			watch->look_ms = Min(2 * watch->look_ms, OWN_LOOK_MS);
		}
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
	ModifyWaitEvent(FeBeWaitSet, FeBeWaitSetSocketPos, watch->events, NULL);
	nevents = WaitEventSetWait(FeBeWaitSet, timeout, events, lengthof(events), wait_event);
	for (int i = 0; i < nevents; i++)
	{
		if (events[i].events & WL_POSTMASTER_DEATH)
			proc_exit(1);
		if (events[i].events & WL_SOCKET_READABLE)
			watch->events = WL_SOCKET_CLOSED;
		if (events[i].events & WL_SOCKET_CLOSED)
		{
			if (ConnectionIsDead())
				ClientIsGone();
			else
			{
				ProbeClient();
				watch->events = 0;
				watch->look_ms = 1;
			}
		}
	}
}

/*
 * Has the startup process applied the record that we wait for, but was a few
 * instructions away from saying so in pg_last_wal_replay_lsn(), and on which
 * timeline?
 *
 * The outlook is that of the look that found the target not reached.  The position
 * must not be read anew here: the startup process may have come to say so in
 * between, and we would sleep on a judgement by the old timeline.
 */
static bool
AppliedButNotPublished(const LsnTarget *target, const Outlook *outlook)
{
	if (pg_atomic_read_u64(&tracker->replayed) >= outlook->wake_at)
		return true;
	return target->timeline != 0 &&
		pg_atomic_read_u64(&tracker->tokens_look_again) > outlook->replayed;
}

/*
 * Wait in the queue.  Returns true once the target is replayed, false when
 * "timeout" ms (0: no limit) have passed since "start".  The caller takes us
 * out of the queue.
 */
static bool
SleepUntilReached(const LsnTarget *target, int64 timeout, instr_time start)
{
	ClientWatch watch = {.events = WL_SOCKET_READABLE};

	/* Not a client's session, or the kernel can't report a closed socket. */
	if (MyProcPort == NULL || FeBeWaitSet == NULL || !WaitEventSetCanReportClosed())
		watch.events = 0;

	StepAside();

	for (;;)
	{
		Outlook		outlook;
		double		remaining = 0;
		long		sleep_ms = -1;

		/*
		 * Reset first, then look: what becomes true after the look sets the
		 * latch again.  The other way round that wake-up would be lost.
		 */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		if (TargetReached(target, &outlook))
			return true;

		if (timeout > 0)
		{
			remaining = timeout - ElapsedMs(start);
			if (remaining <= 0)
				return false;
			sleep_ms = (long) Min(ceil(remaining), INT_MAX);
		}

		if (AppliedButNotPublished(target, &outlook))
		{
			/* the startup process sets no latch then; let it run */
			(void) sched_yield();
			continue;
		}

		GiveWayToReplay();

		if (!InQueue(outlook.wake_at))
		{
			/* enter the queue and look again before going to sleep */
			AddWaiter(target, outlook.wake_at);

			/*
			 * The worker sleeps as long as nobody waits.  If it is to look at
			 * the server's state on our behalf, it must know that somebody
			 * does.
			 */
			if (NeedsPolling())
				WakeWorker();
			continue;
		}

		/* If only the worker looks, then we do, too, in case it is away. */
		if (NeedsPolling())
			sleep_ms = sleep_ms < 0 ? OWN_LOOK_MS : Min(sleep_ms, OWN_LOOK_MS);

		SleepOnLatch(sleep_ms, &watch);
	}
}

static void
LogWait(const LsnTarget *target, const char *outcome, instr_time start)
{
	if (log_waits)
		ereport(LOG,
				(errmsg("wait for replay of %s %s after %.3f ms",
						TargetToText(target), outcome, ElapsedMs(start))));
}

/* What the way out by an error needs to know */
typedef struct InterruptedWait
{
	const LsnTarget *target;
	instr_time	start;
} InterruptedWait;

static void
AfterInterruptedWait(int code, Datum arg)
{
	InterruptedWait *wait = (InterruptedWait *) DatumGetPointer(arg);

	StepBackByError();
	RemoveWaiter();
	LogWait(wait->target, "was interrupted", wait->start);
}

/*
 * Wait until the server has replayed everything up to the target.
 *
 * Returns true when it has: every snapshot taken from now on contains it, and
 * pg_last_wal_replay_lsn() is at or past a target that is a position.  Returns
 * false when "timeout" ms (0: no limit) have passed first.  Raises the errors
 * of TargetReached(), and those of cancel, termination and disconnect.
 *
 * The caller should hold no snapshot: replay may have to wait for it.
 */
static bool
WaitForReplay(const LsnTarget *target, int64 timeout)
{
	InterruptedWait wait;
	Outlook		outlook;
	bool		reached;

	INSTR_TIME_SET_CURRENT(wait.start);
	wait.target = target;

	reached = TargetReached(target, &outlook);
	if (!reached)
	{
		PG_ENSURE_ERROR_CLEANUP(AfterInterruptedWait, PointerGetDatum(&wait));
		{
			reached = SleepUntilReached(target, timeout, wait.start);
		}
		PG_END_ENSURE_ERROR_CLEANUP(AfterInterruptedWait, PointerGetDatum(&wait));
		StepBack();
		RemoveWaiter();
	}

	LogWait(target, reached ? "succeeded" : "timed out", wait.start);
	return reached;
}

/*
 * Is what is asked for on this server?  Does not wait.  On a standby true when it
 * has been replayed; on a primary true, or an error.  Raises the errors of
 * TargetReached() and CheckTargetOnPrimary().
 */
bool
IsReached(const LsnTarget *target)
{
	Outlook		outlook;

	if (RecoveryInProgress())
		return TargetReached(target, &outlook);
	CheckTargetOnPrimary(target);
	return true;
}

/*
 * The same, after having waited for it on a standby: at most "timeout" ms (0: no
 * limit), then false.  The caller should hold no snapshot.
 */
bool
Await(const LsnTarget *target, int64 timeout)
{
	if (RecoveryInProgress())
	{
		bool		reached = WaitForReplay(target, timeout);

		/*
		 * What comes next may use what the session has cached: it must hear
		 * now what has become of that, as it hears it with each lock.
		 */
		AcceptInvalidationMessages();
		return reached;
	}
	CheckTargetOnPrimary(target);
	return true;
}

/* Why replay has not come further; a sentence for the user. */
static const char *
WhyBehind(bool comparable)
{
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
		return "WAL replay is paused: resume it with pg_wal_replay_resume().";
	if (recovery_min_apply_delay > 0)
		return "Replay is delayed on purpose by recovery_min_apply_delay.";
	if (!WalRcvRunning())
		return "No WAL receiver is running: check primary_conninfo, the primary, and the server log.";
	if (!comparable)
		return "Another server has been promoted: see that this one follows it.";
	return "Replay is behind the primary: try again, or allow a longer timeout.";
}

/*
 * Raise the error for a target that was not replayed within "timeout" ms.
 */
void
RaiseTimeout(const LsnTarget *target, int64 timeout)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);
	bool		comparable = InHistory(target, timeline);

	ereport(ERROR,
			(errcode(ERRCODE_NOT_FRESH),
			 errmsg("timed out after %lld ms while waiting for replay of %s",
					(long long) timeout, TargetToText(target)),
			 comparable ?
				 errdetail("Replay has reached " LSN_FORMAT ", %llu bytes to go.",
						   LSN_FORMAT_ARGS(replayed),
						   (unsigned long long) (target->lsn > replayed ? target->lsn - replayed : 0)) :
				 errdetail("Replay has reached " LSN_FORMAT " on timeline %u, whose history does not contain timeline %u.",
						   LSN_FORMAT_ARGS(replayed), timeline, target->timeline),
			 errhint("%s", WhyBehind(comparable))));
}
