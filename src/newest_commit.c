/*-------------------------------------------------------------------------
 *
 * newest_commit.c
 *		The primary's side of strong reads: where the newest commit ends that
 *		anybody can have seen.
 *
 * Standbys ask for it by SHOW lsn_tracker.newest_commit, over a connection of the
 * replication protocol (primary_link.c), and anybody may.  The answer is a token.  Not the
 * insert position, where there is another way: under load that lies in WAL which is not
 * flushed yet, and a standby would wait for it.
 *
 * Every process that commits, at its commit, without a lock: it writes to a cache line
 * of its own.  Reading them all is left to who asks.
 *
 * A commit becomes visible (ProcArrayEndTransaction()) a moment before we are
 * called.  So who is about to commit marks itself, with its transaction's id, then
 * notes the end of its commit, then takes the mark away.  Who asks reads the mark
 * first:
 *
 *	- none: what that process has committed is noted;
 *	- the transaction still runs: nobody has seen it;
 *	- neither: it may be visible, and its end is not known.  Then the answer is
 *	  the insert position, behind everything that anybody has seen.
 *
 * A transaction without an id is marked, too: NOTIFY gets one only after that, and
 * other libraries may write at this point.
 *
 * Not so COMMIT PREPARED: it makes the other transaction visible long before its own
 * commit.  But a prepared transaction has a process's entry of its own, where its id
 * stays.  Whoever asks looks whether it is one that he has not seen there before, or
 * that does not run any more, and if so answers with the insert position; once,
 * since he then notes that everything up to there counts as seen.
 *
 * The same answer is what a session on the primary can have read, for
 * lsn_tracker.track_reads (freshness.c).
 *
 * A standby that is fast shows a commit before its primary does: the record is flushed, sent
 * and replayed while the process that commits is not done, least of all if it waits for
 * a synchronous standby.  Who has read it there, and comes to the primary with the token,
 * waits until nobody is left who is marked and may have written his commit before that
 * position (AwaitVisible()).  Nor who has not told the others' catalog caches of it, which
 * the server does behind making it visible (CommitTransaction()): with a snapshot that shows
 * new catalogs, he who waits would look names up in the old ones, and not know that he has
 * to analyse his statement anew (plan.c).
 *
 * Nothing is noted yet after a start, a crash or a promotion, although there is
 * something to see: the first answer is the insert position, and noted as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/s_lock.h"

#include "compat.h"
#include "lsn_tracker.h"

/* A mark: not about to commit; about to, without an id yet; else the id */
#define NOT_COMMITTING InvalidTransactionId
#define WITHOUT_ID BootstrapTransactionId

/* How long to look at a mark until it is taken for one that stays */
#define LOOKS 200

/* That a prepared transaction has ended, and up to there everything is noted */
#define ENDED ((uint64) 1 << 32)

/* Does the client's command ask for it? */
bool		newest_commit_asked = false;

/*
 * Any process: it is about to run COMMIT PREPARED, whose commit is not its own
 * transaction's.
 */
void
MarkFinishing(void)
{
	static uint32 n = 0;

	if (++n == 0)
		n = 1;
	pg_atomic_write_u32(&tracker->committers[MyProcNumber].finishing, n);
}

/*
 * Any process: its transaction is about to commit (PRE_COMMIT).  "xid" is the
 * transaction's, if it has one.
 */
void
MarkCommitting(TransactionId xid)
{
	LsnCommitter *me = &tracker->committers[MyProcNumber];

	pg_atomic_write_u64(&me->written, XactLastRecEnd);
	/* who finds the mark must find that: with an older one he waits for a later commit, too */
	pg_write_barrier();

	/*
	 * Seen before the commit is: that is made visible under a lock, and so is
	 * an id given out.  Without the mark a commit could be missed that is visible
	 * and not noted (model: newest, visible, NO_MARK).
	 */
	pg_atomic_write_u32(&me->committing, TransactionIdIsValid(xid) ? xid : WITHOUT_ID);
}

/* The transaction's memory is freed, behind the sending of its invalidation messages. */
static void
MarkTold(void *arg)
{
	pg_atomic_write_u32(&tracker->committers[MyProcNumber].telling, InvalidTransactionId);
}

/*
 * Any process: its transaction has ended, and others see it if it has committed (COMMIT,
 * ABORT).  Raises nothing.  "xid" is invalid as well if it was rolled back.
 */
void
MarkCommitted(TransactionId xid)
{
	static MemoryContextCallback callback = {.func = MarkTold};
	LsnCommitter *me = &tracker->committers[MyProcNumber];

	/* nobody can see what has none */
	if (TransactionIdIsValid(xid))
	{
		pg_atomic_write_u64(&me->end, XactLastCommitEnd);
		pg_atomic_write_u32(&me->telling, xid);
		MemoryContextRegisterResetCallback(TopTransactionContext, &callback);
	}
	/* who finds no mark must find the others (model: newest, visible, UNMARKED_BEFORE_NOTED) */
	pg_write_barrier();
	pg_atomic_write_u32(&me->committing, NOT_COMMITTING);
	pg_atomic_write_u32(&me->finishing, 0);
}

/*
 * Read the end of the newest commit of a process.  Returns false if it may have made
 * one visible that is not noted yet.
 */
static bool
ReadCommitter(int number, XLogRecPtr *end)
{
	LsnCommitter *committer = &tracker->committers[number];
	volatile PGPROC *proc = &ProcGlobal->allProcs[number];
	bool		known = false;

	for (int i = 0; i < LOOKS && !known; i++)
	{
		TransactionId mark = pg_atomic_read_u32(&committer->committing);

		if (mark == NOT_COMMITTING)
			known = true;
		else
		{
			TransactionId running = proc->xid;

			/*
			 * Who has the mark's id runs: nobody has seen his commit, and his
			 * earlier ones are noted.  In whichever order the two were read: no
			 * commit of that id was visible when we were asked (model: newest,
			 * MARKED_IS_UNSEEN).
			 */
			known = mark == WITHOUT_ID ? TransactionIdIsValid(running) : running == mark;
		}
		/* it is a matter of some instructions, if the process is running */
		if (!known)
			SPIN_DELAY();
	}
	/*
	 * The mark first: what was noted before it went must be read (model: newest,
	 * END_READ_BEFORE_MARK).
	 */
	pg_read_barrier();
	*end = pg_atomic_read_u64(&committer->end);
	return known;
}

/*
 * Primary: where everything ends that has been written.  Never behind a page's header,
 * which no standby has replayed, and no flush can reach, until more is written.
 */
static XLogRecPtr
EndOfWal(void)
{
	return LsnToTarget(GetXLogInsertRecPtr()).lsn;
}

/*
 * Everything that is written by now counts as seen from now on.
 */
static void
NoteEverything(void)
{
	XLogRecPtr	end = EndOfWal();
	uint64		noted = pg_atomic_read_u64(&tracker->all_noted);

	while (noted < end && !pg_atomic_compare_exchange_u64(&tracker->all_noted, &noted, end))
		;
}

/*
 * Look at the entries of prepared transactions.  Where there has been one since
 * somebody looked last which others can have committed, everything counts as seen.
 */
static void
NotePrepared(void)
{
	for (int i = 0; i < max_prepared_xacts; i++)
	{
		volatile PGPROC *proc = &ProcGlobal->allProcs[ProcGlobal->allProcCount + i];
		TransactionId xid;
		uint64		last = pg_atomic_read_u64(&tracker->prepared_seen[i]);
		uint64		now;

		/*
		 * Under it the next one is entered.  Without it we could look in the
		 * moment when the last one's id is wiped out, and find nothing new (model:
		 * newest, NO_LOCK_ON_ENTRIES).
		 */
		LWLockAcquire(TwoPhaseStateLock, LW_SHARED);
		now = xid = proc->xid;
		LWLockRelease(TwoPhaseStateLock);

		if (last == (xid | ENDED))
			continue;
		if (TransactionIdIsValid(xid) && !TransactionIdIsInProgress(xid))
			now |= ENDED;
		if (last == now)
			continue;

		/* in this order: who finds it seen must find it noted (model: newest, SEEN_BEFORE_NOTED) */
		NoteEverything();
		pg_write_barrier();
		pg_atomic_write_u64(&tracker->prepared_seen[i], now);
	}
	/*
	 * Who has found an entry seen must not read what was noted from before that (model:
	 * newest, NOTED_READ_BEFORE_SEEN).
	 */
	pg_read_barrier();
}

/*
 * Primary: where the newest commit ends that anybody can have seen, or been told of,
 * when this is called; or some place behind it.
 */
static LsnTarget
NewestVisible(void)
{
	LsnTarget	newest = {.timeline = GetWALInsertionTimeLine()};
	bool		known = true;

	NotePrepared();
	for (int i = 0; i < MaxBackends; i++)
	{
		XLogRecPtr	end;

		known = ReadCommitter(i, &end) && known;
		newest.lsn = Max(newest.lsn, end);
	}
	if (pg_atomic_read_u64(&tracker->all_noted) == 0)
		NoteEverything();
	newest.lsn = Max(newest.lsn, pg_atomic_read_u64(&tracker->all_noted));
	if (!known)
		newest.lsn = Max(newest.lsn, EndOfWal());
	newest.replay_to = newest.lsn;
	return newest;
}

/*
 * The same, and it is flushed: a standby gets nothing else, and asynchronous commits are
 * not.  Raises the errors of XLogFlush().
 */
static LsnTarget
NewestCommit(void)
{
	LsnTarget	newest = NewestVisible();

	XLogFlush(newest.lsn);
	return newest;
}

/*
 * Primary: what this session can have read until now, as a token.  Not flushed for that,
 * which would take each read as long as a commit; so, like the token of an asynchronous
 * commit, it tells up to where WAL was.
 */
LsnTarget
ReadUntilNow(void)
{
	LsnTarget	newest = NewestVisible();
	XLogRecPtr	flushed = GetFlushRecPtr(NULL);

	if (flushed < newest.lsn)
	{
		newest.flushed = flushed;
		/* nor left to chance: behind all commits, nobody else may flush it for long */
		XLogSetAsyncXactLSN(newest.lsn);
	}
	return newest;
}

/*
 * May a process have written a commit that ends at or before this position, and is not
 * visible yet, or not known to the others' caches?  Returns 0 if not, else what tells the
 * commit from another one.
 */
static uint64
InvisibleCommit(int number, XLogRecPtr lsn)
{
	LsnCommitter *committer = &tracker->committers[number];
	volatile PGPROC *proc = &ProcGlobal->allProcs[number];
	uint32		finishing = pg_atomic_read_u32(&committer->finishing);
	TransactionId mark = pg_atomic_read_u32(&committer->committing);

	/* any prepared transaction */
	if (finishing != 0)
		return ((uint64) 1 << 32) | finishing;
	/* MarkCommitting()'s counterpart, and MarkCommitted()'s */
	pg_read_barrier();
	if (mark == NOT_COMMITTING)
		return pg_atomic_read_u64(&committer->end) <= lsn ? pg_atomic_read_u32(&committer->telling) : 0;
	if (pg_atomic_read_u64(&committer->written) >= lsn)
		return 0;
	/* not only as long as it runs: behind that, it has to tell; not known where the id came late */
	return mark == WITHOUT_ID ? proc->xid : mark;
}

/*
 * Primary: wait until every commit that ends at or before this position is visible to
 * snapshots taken from now on, at most "timeout" ms (0: no limit), then false.
 *
 * As a rule somebody's flush is all that is waited for, and who has not come that far
 * yet when this begins is not.  So we look again every ms: to be woken would cost
 * each commit a full barrier, for the sake of a few who ask.
 */
bool
AwaitVisible(XLogRecPtr lsn, int64 timeout)
{
	static uint32 wait_event = 0;
	uint64		start = Now();

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("LsnVisible");
	for (int i = 0; i < MaxBackends; i++)
	{
		uint64		commit = i == MyProcNumber ? 0 : InvisibleCommit(i, lsn);

		while (commit != 0 && InvisibleCommit(i, lsn) == commit)
		{
			if (timeout > 0 && Now() - start >= timeout * MS)
				return false;
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1, wait_event);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	/* what has been told must be found */
	pg_read_barrier();
	return true;
}

/*
 * The variable's show hook.  A standby asks its own upstream, and so on up to the
 * primary.
 */
const char *
ShowNewestCommit(void)
{
	LsnTarget	newest;

	/*
	 * Not for pg_settings, which before 16 looks at each variable, shown or not; nor
	 * when SHOW only wants the column's name.  Over the replication protocol
	 * SHOW is a command of that.
	 */
	if (!newest_commit_asked && !am_walsender)
		return "";
	newest = RecoveryInProgress() ? AskPrimary() : NewestCommit();
	return TargetToText(&newest);
}
