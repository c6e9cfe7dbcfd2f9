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
 *	- time is up, by the monotonic clock; or will be, with lsn_tracker.fail_fast;
 *	- it has been switched off: an error;
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

/*
 * How long before its time is up a session looks how fast replay is, ms; at half of the
 * time if that is later.
 */
#define BEFORE_TIMEOUT_MS 500

/* With lsn_tracker.fail_fast, how often a session looks whether it can still succeed, ms */
#define HOPE_LOOK_MS 500

/* Why the last wait was given up before its time; NULL: it was not */
static const char *hopeless;

/* This session has seen that replay was here; lsn 0: it has not looked. */
static LsnTarget known = {0};

static double
ElapsedMs(instr_time start)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, start);
	return INSTR_TIME_GET_MILLISEC(elapsed);
}

/* Of two times to sleep (ms, -1: no limit), the shorter one. */
static long
Sooner(long a, long b)
{
	if (a < 0)
		return b;
	return b < 0 ? a : Min(a, b);
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
	 * among them would be called lost (model: told, READ_BEFORE_ASKED).
	 */
	ended = pg_atomic_read_u64(&tracker->replayed) == REPLAY_ENDED ||
		!RecoveryInProgress();
	pg_read_barrier();
	outlook->ask_again = false;

	/*
	 * Who wants what the primary has: on its successor it is here; and where it
	 * has been asked later, and that has been replayed.
	 */
	if (target->since != 0 &&
		(ended || (!target->answer_only && FreshSince() >= target->since)))
		return true;
	if (IsQuestion(target))
	{
		outlook->wake_at = LAST_TARGET;
		outlook->replayed = 0;
		return false;
	}

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
	outlook->ask_again = target->since != 0 && IsLost(target, timeline);
	comparable = !outlook->ask_again && InHistory(target, timeline);

	if (comparable && replayed >= target->replay_to)
	{
		known.lsn = replayed;
		known.timeline = timeline;
		return true;
	}
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

/*
 * Up to where this session has seen that all is replayed: it remains so.  Of less than
 * all that has been.
 */
LsnTarget
KnownReplayed(void)
{
	return known;
}

/*
 * Is the target, if that is a position, not beyond such a one?
 */
bool
IsBehind(const LsnTarget *target, const LsnTarget *replayed)
{
	return target->replay_to <= replayed->lsn &&
		(target->timeline == 0 || target->timeline == replayed->timeline) &&
		XLogRecPtrIsInvalid(target->flushed) && !FullTransactionIdIsValid(target->xid);
}

/*
 * Has lsn_tracker.enabled been set to off?  This session's own value may be an older one in
 * mid-wait.
 */
bool
IsSwitchedOff(void)
{
	return !enabled || pg_atomic_read_u32(&tracker->off_for_startup) != 0 ||
		pg_atomic_read_u32(&tracker->off_for_worker) != 0;
}

/*
 * Report that nobody can wait, as an error or as a warning.
 */
void
ReportSwitchedOff(int elevel)
{
	ereport(elevel,
			(errcode(elevel >= ERROR ? ERRCODE_NOT_FRESH : ERRCODE_WARNING),
			 errmsg("lsn_tracker is switched off on this standby"),
			 errdetail("\"lsn_tracker.enabled\" is off, so that nobody can wait for replay here."),
			 errhint("Read on the primary or on another standby.")));
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
			timeout = Sooner(timeout, watch->look_ms);
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
 * between, and we would sleep on a judgement by the old timeline (model: woken,
 * READ_ANEW).
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
SleepUntilReached(const LsnTarget *target, int64 timeout, instr_time start, WayIn way)
{
	LsnWaiter  *me = &tracker->waiters[MyProcNumber];
	ClientWatch watch = {.events = WL_SOCKET_READABLE};
	double		next_look = DeadlockTimeout;
	double		next_sample = timeout - Min(timeout / 2, BEFORE_TIMEOUT_MS);
	LsnTarget	answer;

	/* Not a client's session, or the kernel can't report a closed socket. */
	if (MyProcPort == NULL || FeBeWaitSet == NULL || !WaitEventSetCanReportClosed())
		watch.events = 0;

	/* what others can ask about us; nobody looks before we are in the queue */
	me->way = way;
	me->role = MyProc->roleId;
	me->since = Now();
	me->timeout = timeout;

	TakeSample();
	StepAside();

	for (;;)
	{
		Outlook		outlook;
		double		elapsed;
		long		sleep_ms = -1;

		/*
		 * Reset first, then look: what becomes true after the look sets the
		 * latch again.  The other way round that wake-up would be lost (model:
		 * replays, LOOK_BEFORE_RESET).
		 */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (IsSwitchedOff())
			ReportSwitchedOff(ERROR);

		if (IsQuestion(target) && AnswerTo(target, &answer))
		{
			if (answer.answer_only)
				return true;
			target = &answer;
		}
		if (TargetReached(target, &outlook))
			return true;
		if (outlook.ask_again)
		{
			/* nothing of the client's has been lost */
			answer = Question(Now());
			target = &answer;
			continue;
		}

		elapsed = ElapsedMs(start);
		if (timeout > 0)
		{
			if (elapsed >= timeout)
				return false;
			if (fail_fast && !IsQuestion(target))
				hopeless = WhyHopeless(target, outlook.wake_at == target->replay_to, timeout - elapsed);
			/* it may have come so far, and been paused then, since we have looked */
			if (hopeless && TargetReached(target, &outlook))
			{
				hopeless = NULL;
				return true;
			}
			if (hopeless)
				return false;
			if (elapsed >= next_sample)
			{
				/* so that the error can tell how fast replay is */
				TakeSample();
				next_sample = timeout;
			}
			sleep_ms = (long) Min(ceil(next_sample - elapsed), INT_MAX);
		}

		if (AppliedButNotPublished(target, &outlook))
		{
			/* the startup process sets no latch then; let it run */
			(void) sched_yield();
			continue;
		}

		GiveWayToReplay();

		if (!InQueue(target, outlook.wake_at))
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
			if (IsQuestion(target))
				WakeLink();
			continue;
		}

		if (fail_fast && timeout > 0)
			sleep_ms = Sooner(sleep_ms, HOPE_LOOK_MS);
		/* If only the worker looks, then we do, too, in case it is away. */
		if (NeedsPolling())
			sleep_ms = Sooner(sleep_ms, OWN_LOOK_MS);
		sleep_ms = Sooner(sleep_ms, LookForDeadlock(elapsed, &next_look));

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
	WayIn		way;
	instr_time	start;
	bool		slept;
} InterruptedWait;

static void
CountWait(const InterruptedWait *wait)
{
	bool		at_gate = wait->way == AT_GATE;

	if (wait->slept)
	{
		CountEvent(at_gate ? EVENT_SLEPT_AT_GATE : EVENT_SLEPT_IN_FUNCTION);
		CountTime(at_gate ? METRIC_GATE : METRIC_FUNCTION, ElapsedMs(wait->start) * MS);
	}
	else
		CountEvent(at_gate ? EVENT_AT_ONCE_AT_GATE : EVENT_AT_ONCE_IN_FUNCTION);
}

/* What to count if a wait has ended by the error that is being handled */
static LsnEvent
KindOfError(void)
{
	switch (geterrcode())
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
			return EVENT_LOST;
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
			return EVENT_RECOVERY_ENDED;
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
			return EVENT_GAVE_WAY;
		case ERRCODE_NOT_FRESH:
			return EVENT_REFUSED;
		default:
			return EVENT_CANCELLED;
	}
}

static void
AfterInterruptedWait(int code, Datum arg)
{
	InterruptedWait *wait = (InterruptedWait *) DatumGetPointer(arg);

	StepBackByError();
	RemoveWaiter();
	LogWait(wait->target, "was interrupted", wait->start);
	CountWait(wait);
	/* if the process exits, there is no error any more to look at */
	CountEvent(code == 0 ? KindOfError() : EVENT_CANCELLED);
}

/*
 * TargetReached(), when a wait begins.  What that raises is counted.
 */
static bool
ReachedAtOnce(const InterruptedWait *wait)
{
	Outlook		outlook;
	bool		reached;

	PG_TRY();
	{
		/* not only if it has to sleep: that would depend on chance */
		if (IsSwitchedOff())
			ReportSwitchedOff(ERROR);
		reached = TargetReached(wait->target, &outlook);
	}
	PG_CATCH();
	{
		CountWait(wait);
		CountEvent(KindOfError());
		PG_RE_THROW();
	}
	PG_END_TRY();
	return reached;
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
WaitForReplay(const LsnTarget *target, int64 timeout, WayIn way)
{
	InterruptedWait wait = {.target = target, .way = way};
	bool		reached;

	INSTR_TIME_SET_CURRENT(wait.start);
	hopeless = NULL;

	reached = ReachedAtOnce(&wait);
	if (!reached)
	{
		wait.slept = true;
		PG_ENSURE_ERROR_CLEANUP(AfterInterruptedWait, PointerGetDatum(&wait));
		{
			reached = SleepUntilReached(target, timeout, wait.start, way);
		}
		PG_END_ENSURE_ERROR_CLEANUP(AfterInterruptedWait, PointerGetDatum(&wait));
		StepBack();
		RemoveWaiter();
	}

	CountWait(&wait);
	if (reached)
		LogWait(target, "succeeded", wait.start);
	else
	{
		CountEvent(hopeless ? EVENT_FAILED_FAST : EVENT_TIMED_OUT);
		LogWait(target, hopeless ? "was given up" : "timed out", wait.start);
	}
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
	{
		bool		reached = TargetReached(target, &outlook);

		/* as in Await(): what is known to be replayed must have been heard of */
		AcceptInvalidationMessages();
		return reached;
	}
	CheckTargetOnPrimary(target);
	return true;
}

/*
 * The same, after having waited for it on a standby: at most "timeout" ms (0: no
 * limit), then false.  The caller should hold no snapshot.
 */
bool
Await(const LsnTarget *target, int64 timeout, WayIn way)
{
	if (RecoveryInProgress())
	{
		bool		reached = WaitForReplay(target, timeout, way);

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

/*
 * How far replay is from a target, and how long it needs; sentences for the user.
 */
static const char *
HowFar(const LsnTarget *target)
{
	LsnSample	now;
	double		rate = ReplayRate(&now);
	double		seconds;
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "Replay has reached " LSN_FORMAT, LSN_FORMAT_ARGS(now.replayed));
	if (IsLost(target, now.timeline) || !InHistory(target, now.timeline))
	{
		appendStringInfo(&text, " on timeline %u, whose history does not contain timeline %u.",
						 now.timeline, target->timeline);
		return text.data;
	}

	appendStringInfo(&text, ", %llu bytes to go", (unsigned long long) BytesToGo(target, &now));
	if (target->replay_to > Max(now.received, now.replayed))
		appendStringInfo(&text, ", of which %llu have not been received",
						 (unsigned long long) (target->replay_to - Max(now.received, now.replayed)));
	seconds = SecondsToGo(target, &now, rate);
	if (seconds >= 0)
		appendStringInfo(&text, ". At the rate of the last minute, %.0f bytes per second, that takes %.1f seconds.",
						 rate, seconds);
	else if (rate > 0)
		appendStringInfo(&text, ". The rate of the last minute was %.0f bytes per second; how long it takes is not known.", rate);
	else
		appendStringInfoString(&text, ". How long it takes is not known.");
	return text.data;
}

/* Why replay has not come further; a sentence for the user. */
static const char *
WhyBehind(const LsnTarget *target)
{
	TimeLineID	timeline;

	(void) GetXLogReplayRecPtr(&timeline);
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
		return "WAL replay is paused: resume it with pg_wal_replay_resume().";
	if (recovery_min_apply_delay > 0)
		return "Replay is delayed on purpose by recovery_min_apply_delay.";
	if (!WalRcvRunning())
		return "No WAL receiver is running: check primary_conninfo, the primary, and the server log.";
	if (IsLost(target, timeline) || !InHistory(target, timeline))
		return "Another server has been promoted: see that this one follows it.";
	return "Replay is behind the primary: try again, or allow a longer timeout.";
}

/*
 * Report that a target was not replayed within "timeout" ms, or could not be: as an error, or
 * as a warning.  It is that of the last wait.
 */
void
ReportTimeout(int elevel, const LsnTarget *target, int64 timeout)
{
	LsnTarget	answer;

	if (IsQuestion(target))
	{
		if (!AnswerTo(target, &answer))
		{
			ReportUnanswered(elevel, timeout);
			return;
		}
		target = &answer;
	}

	ereport(elevel,
			(errcode(elevel >= ERROR ? ERRCODE_NOT_FRESH : ERRCODE_WARNING),
			 hopeless ?
				 errmsg("replay of %s cannot be reached within %lld ms",
						TargetToText(target), (long long) timeout) :
				 errmsg("timed out after %lld ms while waiting for replay of %s",
						(long long) timeout, TargetToText(target)),
			 errdetail("%s", HowFar(target)),
			 errhint("%s", hopeless ? hopeless : WhyBehind(target))));
}

/*
 * Raise the error for that.
 */
void
RaiseTimeout(const LsnTarget *target, int64 timeout)
{
	ReportTimeout(ERROR, target, timeout);
}
