/*-------------------------------------------------------------------------
 *
 * replay.c
 *		Learning that a record has been replayed: the startup process's side,
 *		and what the worker does instead of it in poll mode.
 *
 * WatchRedo() puts a function of ours in front of each resource manager's
 * redo function.  It runs in the startup process, once for each WAL record,
 * right after the record has been applied: a commit is then visible to new
 * snapshots.  It publishes the record's end and looks whether anybody waits
 * for that; if so it wakes them when it is called the next time, a moment
 * later (WakeSoon() says why).  Two resource managers get a function that does
 * more: behind a record that can change the timeline, those who wait for a
 * token judge it again; behind the end of a transaction, those who wait for it
 * are woken.
 *
 * An error here would take the server down, and time spent here delays
 * replay.  So this code raises nothing, allocates nothing, takes the queue's
 * lock only if it is free, and does a bounded amount of work: at most one
 * batch of wake-ups (waiters.c) and one for the worker, which goes on.  At a
 * change of timeline it also visits the queue's entries once, in memory.
 *
 * How no wake-up is lost.  A session and the startup process each write one
 * word and then read the other's:
 *
 *		session							startup process
 *		smallest_target := its target	replayed := end of the record
 *		(full barrier)					(full barrier)
 *		read replayed					read smallest_target
 *
 * With a full barrier on both sides, at least one of the two sees what the
 * other wrote: either the session finds its target replayed and does not go
 * to sleep, or the startup process finds the session and wakes it.  Without
 * one of the barriers both reads can come before both writes, and the session
 * sleeps on although its record has been replayed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sched.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogrecovery.h"
#include "access/xlogutils.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/standbydefs.h"
#include "utils/timeout.h"

#include "lsn_tracker.h"

/*
 * For how long a wake-up is put off at most, if nothing calls us in between, or
 * left to others, ms; and how long it takes at most until they are helped again.
 */
#define TIMER_MS 10
#define MAX_TIMER_MS 100

/* What was in RmgrTable, and in the WAL reader, before us. */
static void (*server_redo[RM_MAX_ID + 1]) (XLogReaderState *record);
static void (*server_cleanup) (void);
static XLogPageReadCB server_page_read;

/* Startup process: the reader of WAL, once a record has been replayed */
static XLogReaderState *last_reader;

/* Startup process: is somebody due who has not been woken yet? */
static bool wake_put_off = false;

/* Startup process: its timer, and for how long it was started */
static TimeoutId timer;
static volatile int timer_ms;

static void TrackedRedo(XLogReaderState *record);
static void TrackedXLogRedo(XLogReaderState *record);
static void TrackedXactRedo(XLogReaderState *record);
static void TrackedStandbyRedo(XLogReaderState *record);
static void TrackedCleanup(void);

/* What the table has of ours; of TrackedCleanup, that is at RM_XLOG_ID. */
static bool redo_wrapped[RM_MAX_ID + 1];
static bool cleanup_wrapped = false;

static bool
IsOurs(void (*redo) (XLogReaderState *record))
{
	return redo == TrackedRedo || redo == TrackedXLogRedo ||
		redo == TrackedXactRedo || redo == TrackedStandbyRedo;
}

/*
 * Postmaster, when shared memory goes, before it makes it anew after a crash: put
 * back what was in the table, where no other library has come on top of us.  If it
 * looks what is there when it is called again, like us, it then finds what it left,
 * and does not take us for somebody new.
 */
static void
UnwatchRedo(int code, Datum arg)
{
	for (int rmid = 0; rmid <= RM_MAX_ID; rmid++)
	{
		if (redo_wrapped[rmid] && IsOurs(RmgrTable[rmid].rm_redo))
		{
			RmgrTable[rmid].rm_redo = server_redo[rmid];
			redo_wrapped[rmid] = false;
		}
	}
	if (cleanup_wrapped && RmgrTable[RM_XLOG_ID].rm_cleanup == TrackedCleanup)
	{
		RmgrTable[RM_XLOG_ID].rm_cleanup = server_cleanup;
		cleanup_wrapped = false;
	}
}

/*
 * Have every replayed record pass through TrackedRedo, and the end of redo
 * through TrackedCleanup.  Runs in the postmaster, after all resource managers
 * have been registered; the startup process inherits the table.
 *
 * After a crash the postmaster comes here again.  Where we are in the table still,
 * below another library's function, we must not go on top of that as well: it
 * would call us, and we it, without end.
 */
void
WatchRedo(void)
{
	for (int rmid = 0; rmid <= RM_MAX_ID; rmid++)
	{
		RmgrData   *rmgr = &RmgrTable[rmid];

		if (rmgr->rm_name == NULL || redo_wrapped[rmid])
			continue;
		redo_wrapped[rmid] = true;
		server_redo[rmid] = rmgr->rm_redo;
		if (rmid == RM_XLOG_ID)
			rmgr->rm_redo = TrackedXLogRedo;
		else if (rmid == RM_XACT_ID)
			rmgr->rm_redo = TrackedXactRedo;
		else if (rmid == RM_STANDBY_ID)
			rmgr->rm_redo = TrackedStandbyRedo;
		else
			rmgr->rm_redo = TrackedRedo;
	}

	/* each clean-up function is called once, at the end: one is enough */
	if (!cleanup_wrapped)
	{
		cleanup_wrapped = true;
		server_cleanup = RmgrTable[RM_XLOG_ID].rm_cleanup;
		RmgrTable[RM_XLOG_ID].rm_cleanup = TrackedCleanup;
	}

	on_shmem_exit(UnwatchRedo, (Datum) 0);
}

/*
 * Write down how far replay has come.  Full barrier: what the caller reads
 * next (whom this makes due) is read after the position is visible to others.
 * See the top of this file for what is lost without it (model: woken,
 * NO_BARRIER_BEHIND_PUBLISHING).
 *
 * Only the process that follows replay may call this: the startup process, or
 * instead of it the worker (poll mode, and once recovery is over).
 */
static inline void
PublishReplayed(XLogRecPtr replayed)
{
	pg_atomic_write_u64(&tracker->replayed, replayed);
	pg_memory_barrier();
}

/*
 * Signal handler: some are due, and have been left to others, or put off, for as
 * long as that.  Sets latches and the timer, and takes no lock.
 */
static void
HelpByTimer(void)
{
	if (!SomebodyDue())
		return;

	WakeWorker();
	PromptDueWaiters(false);

	/* in case that those are slow, too; less and less often */
	timer_ms = Min(2 * timer_ms, MAX_TIMER_MS);
	enable_timeout_after(timer, timer_ms);
}

/*
 * Start the timer, unless it runs.  It is not stopped when it turns out to be
 * needless, so that one serves all wake-ups of that time.  Starting it allocates
 * nothing; the server does it in this process for its own timers.  (It also stops
 * all of them behind a conflict.  Whoever is due then is found by the redo that
 * comes to its end.)
 */
static void
StartTimer(void)
{
	static bool registered = false;

	if (!registered)
	{
		/*
		 * Raises an error only if other libraries have used up all ten places
		 * that there are in this process.
		 */
		timer = RegisterTimeout(USER_TIMEOUT, HelpByTimer);
		registered = true;
	}
	if (!get_timeout_active(timer))
	{
		timer_ms = TIMER_MS;
		enable_timeout_after(timer, timer_ms);
	}
}

/*
 * Who is left to others is left to all of them (model: woken, NO_WORD_TO_WORKER,
 * NO_TIMER_FOR_THE_LEFT).
 */
static void
WakeWhoIsDue(void)
{
	if (WakeDueWaiters(false))
	{
		WakeWorker();
		StartTimer();
	}
}

/* Do what was put off, if anything was. */
static inline void
WakeNow(void)
{
	if (unlikely(wake_put_off))
	{
		wake_put_off = false;
		WakeWhoIsDue();
	}
}

/* In front of the WAL reader's page_read */
static int
TrackedPageRead(XLogReaderState *reader, XLogRecPtr page, int length, XLogRecPtr record, char *buffer)
{
	WakeNow();
	return server_page_read(reader, page, length, record, buffer);
}

/*
 * Startup process: somebody is due, now that a record has been applied.
 *
 * That it has been replayed is said by the server only after we have returned,
 * and no session may answer before that.  Woken here, a session often takes
 * the CPU from us, and then waits until we get it back.  So we put it off until
 * we are called the next time, a few instructions later: in front of the next
 * record or, if there is none yet, in front of the reading of more WAL.
 *
 * In between the server looks whether it is to pause, or to delay the next
 * record.  If that is known already we do not put it off.  In case that it
 * becomes known right then, or that a recovery target is reached at which
 * replay pauses, the timer helps (model: woken, NO_TIMER_FOR_THE_PUT_OFF,
 * NO_WAKE_BEFORE_READING).
 */
static void
WakeSoon(XLogReaderState *reader)
{
	if (tracker->worker_latch == NULL || recovery_min_apply_delay > 0 ||
		GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
	{
		WakeWhoIsDue();
		return;
	}

	if (reader->routine.page_read != TrackedPageRead)
	{
		server_page_read = reader->routine.page_read;
		reader->routine.page_read = TrackedPageRead;
	}

	wake_put_off = true;
	StartTimer();
}

/*
 * The assign hook of lsn_tracker.enabled.  Only the startup process, which reads the
 * configuration between two records, follows it here.  Off: nothing of ours is done for the
 * records to come, so nobody may wait for them.  Whoever sleeps is told, and ends his wait with
 * an error; who comes later finds it written down.
 *
 * On again, the position is an old one until the next record has been replayed.  Sessions
 * judge by the server's own, and wait for positions behind that.
 */
void
AssignEnabled(bool newval, void *extra)
{
	if (tracker == NULL || !AmStartupProcess())
		return;
	pg_atomic_write_u32(&tracker->off_for_startup, !newval);
	if (!newval)
	{
		wake_put_off = false;
		PromptEverybody();
	}
}

/*
 * The worker has read the configuration.  It tells sleepers as well: the startup process
 * may not come to it, if it waits for one of them.
 */
void
NoteEnabledForWorker(void)
{
	pg_atomic_write_u32(&tracker->off_for_worker, !enabled);
	if (!enabled)
		PromptEverybody();
}

/*
 * Startup process: apply a record, then publish that it has been applied.
 */
static void
TrackedRedo(XLogReaderState *record)
{
	if (unlikely(!enabled))
	{
		server_redo[XLogRecGetRmid(record)](record);
		return;
	}

	WakeNow();

	server_redo[XLogRecGetRmid(record)] (record);

	PublishReplayed(record->EndRecPtr);
	last_reader = record;

	if (unlikely(pg_atomic_read_u64(&tracker->smallest_target) <= record->EndRecPtr))
		WakeSoon(record);
}

/*
 * The same for the records among which are those that change the timeline
 * (ApplyWalRecord() in xlogrecovery.c).
 */
static void
TrackedXLogRedo(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;

	/*
	 * What a primary writes first when it is started again; the second, where
	 * the crash has left the beginning of a record.  Before it is published:
	 * who finds it replayed must find it noted.  Also while lsn_tracker.enabled is
	 * off: later, a lost write would be taken for a replayed one.
	 */
	if (info == XLOG_CHECKPOINT_SHUTDOWN || info == XLOG_OVERWRITE_CONTRECORD)
		NoteRestart(record->ReadRecPtr);

	TrackedRedo(record);

	/*
	 * Whether the timeline did change need not be known here: the two come
	 * rarely.  They also end what a crash of the primary left in progress.
	 */
	if (enabled && (info == XLOG_CHECKPOINT_SHUTDOWN || info == XLOG_END_OF_RECOVERY))
	{
		pg_atomic_write_u64(&tracker->xacts_look_again, record->EndRecPtr);
		pg_atomic_write_u64(&tracker->tokens_look_again, record->EndRecPtr);
		WakeSoon(record);
	}
}

/*
 * The same for the records among which are the ends of transactions.
 */
static void
TrackedXactRedo(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record);
	TransactionId xid = XLogRecGetXid(record);
	int			nsubxids;
	TransactionId *subxids;

	TrackedRedo(record);

	/*
	 * Behind TrackedRedo's full barrier: a session first counts itself and
	 * then looks at the transaction's state, we the other way round.  See the
	 * top of this file for what is lost without it (model: woken,
	 * XACT_WAITERS_BEFORE_PUBLISHING).
	 */
	if (likely(pg_atomic_read_u32(&tracker->xact_waiters) == 0) || !enabled)
		return;

	switch (info & XLOG_XACT_OPMASK)
	{
		case XLOG_XACT_COMMIT:
		case XLOG_XACT_COMMIT_PREPARED:
			{
				xl_xact_parsed_commit parsed;

				ParseCommitRecord(info, (xl_xact_commit *) XLogRecGetData(record), &parsed);
				if (TransactionIdIsValid(parsed.twophase_xid))
					xid = parsed.twophase_xid;
				nsubxids = parsed.nsubxacts;
				subxids = parsed.subxacts;
				break;
			}
		case XLOG_XACT_ABORT:
		case XLOG_XACT_ABORT_PREPARED:
			{
				xl_xact_parsed_abort parsed;

				ParseAbortRecord(info, (xl_xact_abort *) XLogRecGetData(record), &parsed);
				if (TransactionIdIsValid(parsed.twophase_xid))
					xid = parsed.twophase_xid;
				nsubxids = parsed.nsubxacts;
				subxids = parsed.subxacts;
				break;
			}
		default:
			return;
	}
	if (BringXactWaitersForward(xid, nsubxids, subxids, record->EndRecPtr))
		WakeSoon(record);
}

/*
 * The same for the records among which are those that lock relations, as the
 * primary did: sessions that wait with a lock on one get out of the way.
 */
static void
TrackedStandbyRedo(XLogReaderState *record)
{
	xl_standby_locks *locks = (xl_standby_locks *) XLogRecGetData(record);
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;

	/* before sessions can read there is nobody to say it to */
	if (info != XLOG_STANDBY_LOCK || !InHotStandby || !enabled)
	{
		TrackedRedo(record);
		return;
	}

	AnnounceLocks(locks->locks, locks->nlocks);
	TrackedRedo(record);
	WithdrawAnnouncement();
}

/*
 * Startup process: redo is over (promotion, or the end of a crash recovery).
 * Nobody's target will be replayed any more, so everybody is due; the worker
 * sees to it.
 */
static void
TrackedCleanup(void)
{
	XLogRecPtr	replayed = pg_atomic_read_u64(&tracker->replayed);

	if (server_cleanup)
		server_cleanup();

	/*
	 * From here on this server writes WAL itself: behind the last record or, if
	 * there is only the beginning of another one, behind that (ReadRecord() in
	 * xlogrecovery.c).  Before anybody asks it as a primary.  A recovery target
	 * may have come before any record.
	 */
	if (last_reader)
		NoteRestart(Max(replayed, last_reader->missingContrecPtr));

	PublishReplayed(REPLAY_ENDED);
	if (WakeDueWaiters(false))
		WakeWorker();
	/* and the link, which has nobody to ask any more */
	WakeLink();

	/*
	 * Our timer leaves with us: nobody is left to others who may be slow (model:
	 * woken, NO_PROMPT_AT_END).
	 */
	PromptDueWaiters(true);
}

/*
 * Worker: do what the startup process does above, where it does not.  Called
 * while somebody waits and NeedsPolling().
 */
void
FollowReplay(void)
{
	static TimeLineID last_timeline = 0;

	if (!RecoveryInProgress())
		PublishReplayed(REPLAY_ENDED);
	else if (wakeup_mode == WAKEUP_POLL)
	{
		TimeLineID	timeline;
		XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);

		if (timeline != last_timeline)
			pg_atomic_write_u64(&tracker->tokens_look_again, replayed);
		last_timeline = timeline;

		PublishReplayed(replayed);
		if (pg_atomic_read_u32(&tracker->xact_waiters) > 0)
			BringEndedXactsForward();
		LookForLockRequest();
	}

	/* else the startup process publishes; only the end is left to the worker */
}

/*
 * Worker: let the startup process say in pg_last_wal_replay_lsn(), too, what it
 * has said to us; it is a few instructions away from that.  If a crowd were
 * woken before, each session of it would wait for that by itself (wait.c), and
 * take the CPU that the startup process needs to get there.
 */
void
AwaitPublication(void)
{
	XLogRecPtr	replayed = pg_atomic_read_u64(&tracker->replayed);

	while (replayed != REPLAY_ENDED && GetXLogReplayRecPtr(NULL) < replayed)
	{
		CHECK_FOR_INTERRUPTS();
		(void) sched_yield();
	}
}

/*
 * The position up to which the tracker knows that WAL has been replayed.  The
 * server's own word where the tracker does not follow each record (poll mode),
 * has seen no record since the server started, or has seen the last one.
 */
XLogRecPtr
TrackedReplayPosition(void)
{
	XLogRecPtr	replayed = pg_atomic_read_u64(&tracker->replayed);

	if (wakeup_mode == WAKEUP_POLL || replayed == 0 || replayed == REPLAY_ENDED)
		return GetXLogReplayRecPtr(NULL);
	/* the server's own is further if we have been switched off */
	return Max(replayed, GetXLogReplayRecPtr(NULL));
}

/*
 * Must somebody look at the server's state from time to time, because the
 * startup process does not tell?  That is so in poll mode; and until the first
 * record has been replayed, since a promotion without any record to replay
 * does not call the resource managers' clean-up functions.
 */
bool
NeedsPolling(void)
{
	return wakeup_mode == WAKEUP_POLL ||
		pg_atomic_read_u64(&tracker->replayed) == 0;
}
