/*-------------------------------------------------------------------------
 *
 * locks.c
 *		Out of replay's way: the locks that a waiting session holds.
 *
 * Replay waits for two kinds of locks, and must never wait for a session that
 * waits for replay.
 *
 * The lock on its virtual transaction.  A record that removes row versions is
 * judged once: the startup process collects the virtual transactions that have
 * an old snapshot at that moment, and then waits for these transactions to end,
 * whatever becomes of their snapshots (ResolveRecoveryConflictWithVirtualXIDs()
 * in standby.c).  Who was collected while it was parsed and planned, or in an
 * earlier statement of its transaction, has no snapshot any more when it sleeps
 * here, and is waited for all the same.  So it gives the lock up for the sleep;
 * to the startup process it has ended then (VirtualXactLock() in lock.c).
 *
 * It has the lock again before it can take another snapshot.  That snapshot is
 * no danger to the record for which the session had been collected: all
 * transactions whose row versions that removes had ended, and their ends had been
 * replayed, when it was judged, so no snapshot taken since needs them.  It is in
 * danger from later records, if the lock is missing: these would not wait for
 * it, and remove what it is about to read.
 *
 * Locks on relations.  Earlier statements of the transaction have left them,
 * or LOCK TABLE has taken them.  When the primary locks a relation exclusively
 * (DDL, and the truncation by VACUUM), replay has to do so, too
 * (XLOG_STANDBY_LOCK).  It would cancel the holders at
 * max_standby_streaming_delay, but it takes those without a lock on their virtual
 * transaction for gone, and sleeps until the lock is released.  So it announces
 * which relation it is about to lock, and who sleeps with a lock on that releases
 * it, if it has been taken for a statement that has not started and is planned
 * anew later (plan.c), or else ends his wait with an error.  The startup process
 * announces it in front of the record's redo; in poll mode it is left alone, and
 * whoever looks on its behalf sees that it waits.
 *
 * What has been taken for such a statement is what the transaction did not hold
 * when its last command ended.  During recovery, sessions take note of that behind each
 * command of a block.
 *
 *		session							startup process
 *		mark itself as a holder			announce the relation
 *		(full barrier)					(full barrier)
 *		read the announcement			read the marks, set latches
 *
 * With a full barrier on both sides, at least one of the two sees what the
 * other wrote.  Without one of them the session sleeps on, and replay waits for it
 * for as long as that (model: replays, NO_BARRIER_BEHIND_MARK,
 * NO_BARRIER_BEHIND_ANNOUNCEMENT).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat.h"
#include "lsn_tracker.h"

/* Announcements are a database's id and a relation's, or one of these. */
#define NO_RELATION UINT64CONST(0)
#define SOME_RELATIONS PG_UINT64_MAX

/* The server does not say where its auxiliary processes begin. */
#define FIRST_AUXILIARY_PROC MaxBackends

/* Has this session given up the lock on its virtual transaction? */
static bool aside = false;

/* Relations, as in announcements */
typedef struct Relations
{
	uint64	   *items;
	int			n;
	int			size;
} Relations;

/*
 * Those on which this session held a lock when the last command of this transaction
 * ended, if somebody has taken note.
 */
static Relations noted = {0};
static LocalTransactionId noted_in = InvalidLocalTransactionId;

/* May what is new since then be released, and has it been? */
static bool may_release = false;
static bool released = false;

static void NoteReleased(void);
static void AfterRelease(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg);

static uint64
Announcement(Oid database, Oid relation)
{
	return ((uint64) database << 32) | relation;
}

/*
 * The startup process, NULL if there is none.  Of the auxiliary processes it alone
 * holds the lock on a virtual transaction, as owner of all the others that it takes.
 * Without a lock: it may have gone by the time that we use the answer, but its place
 * in shared memory is there, and all that is done to it there is to wake it.
 */
PGPROC *
FindStartupProcess(void)
{
	for (int i = 0; i < NUM_AUXILIARY_PROCS; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[FIRST_AUXILIARY_PROC + i];

		if (LocalTransactionIdIsValid(proc->fpLocalTransactionId))
			return proc;
	}
	return NULL;
}

/*
 * Session: if replay waits for a virtual transaction, it may be ours.  It asks from
 * time to time, and naps up to a second in between: end the nap.  A signal
 * does, a latch does not; this one means nothing by itself and is sent to all
 * kinds of processes by the server.
 */
static void
EndNapOfReplay(void)
{
	PGPROC	   *startup = FindStartupProcess();
	int			pid = startup ? startup->pid : 0;

	if (pid != 0 &&
		(startup->wait_event_info == WAIT_EVENT_RECOVERY_CONFLICT_SNAPSHOT ||
		 startup->wait_event_info == WAIT_EVENT_RECOVERY_CONFLICT_TABLESPACE))
		(void) kill(pid, SIGUSR1);
}

/*
 * Session: hear of the release of locks.  Sessions that neither wait nor leave locks
 * behind do not pay for it.  May fail for lack of memory.
 */
static void
HearOfRelease(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterResourceReleaseCallback(AfterRelease, NULL);
		registered = true;
	}
}

/*
 * Session: get out of replay's way, in order to sleep.  The caller must see to it
 * that StepBack() or StepBackByError() is called on every way out.  Does nothing for a session that
 * holds a snapshot: replay has to wait for that, and may cancel it.
 */
void
StepAside(void)
{
	LsnWaiter  *me = &tracker->waiters[MyProcNumber];

	Assert(!aside);
	if (TransactionIdIsValid(MyProc->xmin))
		return;

	HearOfRelease();
	/* releases nothing but this; the transaction goes on under the same id */
	VirtualXactLockTableCleanup();
	aside = true;
	EndNapOfReplay();

	if (HoldsLocks())
	{
		me->latch = MyLatch;
		/*
		 * Who sees the mark must see the latch, which is NULL at first (model: told,
		 * SAID_BEFORE_WRITTEN).
		 */
		pg_write_barrier();
		me->holds_locks = true;
		/*
		 * A full barrier, too; see the top of this file.  Behind the mark, which
		 * nobody looks for while nobody is counted (model: replays,
		 * COUNTED_BEFORE_MARKED).
		 */
		pg_atomic_fetch_add_u32(&tracker->lock_holders, 1);
	}
}

/*
 * Session: it does not sleep any more, so nobody has to wake it for a lock.
 */
static void
Unmark(void)
{
	LsnWaiter  *me = &tracker->waiters[MyProcNumber];

	if (me->holds_locks)
	{
		me->holds_locks = false;
		pg_atomic_fetch_sub_u32(&tracker->lock_holders, 1);
	}
}

/*
 * Session: be in replay's way again where it is in the wrong.
 *
 * If replay has seen us without our virtual transaction, it sleeps until the
 * relation's lock is released, whatever delay is allowed.  If we may still hold
 * that, let it look again, and treat us as any other session.  Whether there is
 * anything to look for is read after the lock is taken: what is announced later
 * finds us with it (model: replays, LOOK_BEFORE_BACK, NO_BARRIER_BEHIND_BACK,
 * NO_WORD_TO_REPLAY).
 */
static void
LockVirtualXactAgain(bool holds_locks)
{
	VirtualTransactionId vxid;

	/* the danger from which the lock protects a snapshot, see above */
	Assert(!TransactionIdIsValid(MyProc->xmin));
	GET_VXID_FROM_PGPROC(vxid, *MyProc);
	VirtualXactLockTableInsert(vxid);
	aside = false;

	pg_memory_barrier();
	if (holds_locks &&
		(wakeup_mode == WAKEUP_POLL ||
		 pg_atomic_read_u64(&tracker->wanted_relation) != NO_RELATION))
	{
		PGPROC	   *startup = FindStartupProcess();

		if (startup)
			SetLatch(&startup->procLatch);
	}
}

/*
 * Session: the wait has come to an end.  Does nothing if StepAside() did nothing.
 */
void
StepBack(void)
{
	bool		holds_locks = tracker->waiters[MyProcNumber].holds_locks;

	Unmark();
	if (aside)
		LockVirtualXactAgain(holds_locks);
}

/*
 * The same if the wait has ended by an error, or if the process exits.  The lock
 * on the virtual transaction has to wait for AfterRelease().
 */
void
StepBackByError(void)
{
	Unmark();
}

/*
 * Session: a transaction or subtransaction has been rolled back, and what was
 * locked in it has been released.
 *
 * Not earlier: replay, which still waits for a relation's lock, would see us with
 * our virtual transaction, and where no delay is allowed end the session for what
 * it is about to release.  Nor later: what comes next may take a snapshot.
 */
static void
AfterRelease(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	if (isCommit || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;

	if (!isTopLevel)
		NoteReleased();
	if (!aside)
		return;
	if (isTopLevel)
		aside = false;			/* the virtual transaction has ended */
	else
		LockVirtualXactAgain(true);
}

/* Does this session hold a lock on the relation, of whatever mode? */
static bool
HoldsLockOn(Oid database, Oid relation)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, database, relation);
	/* the strongest that the server allows during recovery comes last */
	for (LOCKMODE mode = AccessShareLock; mode <= RowExclusiveLock; mode++)
	{
		if (LockHeldByMe(&tag, mode, false))
			return true;
	}
	return false;
}

static bool
Contains(const Relations *relations, uint64 relation)
{
	for (int i = 0; i < relations->n; i++)
	{
		if (relations->items[i] == relation)
			return true;
	}
	return false;
}

static void
Add(Relations *relations, uint64 relation)
{
	if (relations->n == relations->size)
	{
		int			size = relations->size + 64;

		if (relations->items == NULL)
			relations->items = MemoryContextAlloc(TopMemoryContext, size * sizeof(uint64));
		else
			relations->items = repalloc(relations->items, size * sizeof(uint64));
		relations->size = size;
	}
	relations->items[relations->n++] = relation;
}

/*
 * Read which relations this session has locked; one may be there twice.  As in
 * HoldsLocks(), and with the lock on a part of the shared table, since others may move
 * a lock into it.
 */
static void
ReadLocks(Relations *relations)
{
	relations->n = 0;
	for (int i = 0; i < FastPathLockSlotsPerBackend(); i++)
	{
		if (FastPathLockBits(i) != 0)
			Add(relations, Announcement(MyDatabaseId, MyProc->fpRelId[i]));
	}
	/*
	 * Or a lock that is moved in between could be seen in neither place (model: found,
	 * SECOND_PLACE_FIRST).
	 */
	pg_read_barrier();
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		if (NextProcLock(i, NULL) == NULL)
			continue;
		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
		for (PROCLOCK *lock = NextProcLock(i, NULL); lock; lock = NextProcLock(i, lock))
		{
			LOCKTAG    *tag = &lock->tag.myLock->tag;

			if (tag->locktag_type == LOCKTAG_RELATION && lock->holdMask != 0)
				Add(relations, Announcement(tag->locktag_field1, tag->locktag_field2));
		}
		LWLockRelease(LockHashPartitionLockByIndex(i));
	}
}

/*
 * Session: a command of the client has ended, and what is locked now remains so.  May
 * fail for lack of memory.
 */
void
NoteLocks(void)
{
	if (!RecoveryInProgress())
		return;
	HearOfRelease();
	noted_in = InvalidLocalTransactionId;
	ReadLocks(&noted);
	noted_in = MyLocalTransactionId;
}

/*
 * A subtransaction has been rolled back, and may have released some of what is noted.
 * Allocates nothing.
 */
static void
NoteReleased(void)
{
	int			kept = 0;

	for (int i = 0; i < noted.n; i++)
	{
		if (HoldsLockOn(noted.items[i] >> 32, (Oid) noted.items[i]))
			noted.items[kept++] = noted.items[i];
	}
	noted.n = kept;
}

/*
 * Session: something takes locks of whose end we shall not hear.
 */
void
ForgetLocks(void)
{
	noted_in = InvalidLocalTransactionId;
}

/*
 * Session: a wait begins in front of a statement, so that locks which have been taken
 * since the transaction's last command have been taken for that, and may be
 * released.  "first": there was no such command.
 */
void
AllowRelease(bool first)
{
	if (first)
		noted.n = 0;
	may_release = first || noted_in == MyLocalTransactionId;
	released = false;
}

/*
 * Session: that wait has ended.  Returns whether it has released anything.
 */
bool
EndRelease(void)
{
	bool		result = released;

	may_release = released = false;
	return result;
}

/*
 * Release what has been locked since the transaction's last command.  Then nothing
 * of this session uses the relation: whatever does so holds a snapshot, and then
 * nothing is released.
 */
static void
ReleaseNewLocks(void)
{
	static Relations held = {0};
	ResourceOwner owner = CurrentResourceOwner;

	ReadLocks(&held);

	/* the parser's locks, and the planner's, are the transaction's */
	CurrentResourceOwner = CurTransactionResourceOwner;
	for (int i = 0; i < held.n; i++)
	{
		LOCKTAG		tag;

		if (Contains(&noted, held.items[i]))
			continue;
		SET_LOCKTAG_RELATION(tag, held.items[i] >> 32, (Oid) held.items[i]);
		for (LOCKMODE mode = AccessShareLock; mode <= RowExclusiveLock; mode++)
		{
			while (LockHeldByMe(&tag, mode, false) && LockRelease(&tag, mode, false))
				released = true;
		}
	}
	CurrentResourceOwner = owner;
}

/* Is a lock of this session what replay is about to wait for? */
static bool
IsInTheWay(uint64 wanted)
{
	if (wanted == SOME_RELATIONS)
		return HoldsLocks();
	return wanted != NO_RELATION && HoldsLockOn(wanted >> 32, (Oid) wanted);
}

/*
 * Session, between StepAside() and StepBack(): if replay is about to lock a relation
 * on which this session holds a lock, release that, or raise 40001.  To be called
 * each time that the latch was set.
 */
void
GiveWayToReplay(void)
{
	uint64		wanted;

	if (!tracker->waiters[MyProcNumber].holds_locks)
		return;

	/* the worker looks, too, but it may be away */
	if (wakeup_mode == WAKEUP_POLL)
		LookForLockRequest();

	wanted = pg_atomic_read_u64(&tracker->wanted_relation);
	if (!IsInTheWay(wanted))
		return;
	if (may_release)
	{
		ReleaseNewLocks();
		if (!IsInTheWay(wanted))
			return;
	}

	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the wait for replay gives way to a lock that replay needs"),
			 wanted == SOME_RELATIONS ?
				 errdetail("Replay is about to lock several relations exclusively, and this transaction holds locks.") :
				 errdetail("Replay is about to lock relation %u of database %u exclusively, on which this transaction holds a lock.",
						   (Oid) wanted, (Oid) (wanted >> 32)),
			 errhint("Repeat the transaction. One that waits before it reads holds no such lock.")));
}

/* ---- startup process, and who looks on its behalf ---- */

/*
 * Say which relation replay is about to lock, and wake whoever sleeps with locks.
 * Looks at each place in the queue once, and raises, allocates and waits for
 * nothing: runs in the startup process.
 */
static void
Announce(uint64 wanted)
{
	/*
	 * A full barrier, too; see the top of this file for what is lost without
	 * it.  Who came after the same was announced has seen it.
	 */
	if (pg_atomic_exchange_u64(&tracker->wanted_relation, wanted) == wanted)
		return;
	if (pg_atomic_read_u32(&tracker->lock_holders) == 0)
		return;
	for (int i = 0; i < MaxBackends; i++)
	{
		LsnWaiter  *waiter = &tracker->waiters[i];

		if (waiter->holds_locks)
		{
			/*
			 * StepAside()'s counterpart: the latch must not be one from before the mark
			 * (model: told, READ_BEFORE_ASKED).
			 */
			pg_read_barrier();
			SetLatch(waiter->latch);
		}
	}
}

/*
 * Startup process: these locks are about to be taken.  Those that it holds
 * already, on behalf of whatever transaction, are of no interest: the primary
 * repeats all that are held at every checkpoint.
 */
void
AnnounceLocks(const xl_standby_lock *locks, int nlocks)
{
	uint64		wanted = NO_RELATION;

	for (int i = 0; i < nlocks && wanted != SOME_RELATIONS; i++)
	{
		LOCKTAG		tag;

		SET_LOCKTAG_RELATION(tag, locks[i].dbOid, locks[i].relOid);
		if (LockHeldByMe(&tag, AccessExclusiveLock, false))
			continue;

		/* several at once are too rare to be told apart */
		wanted = wanted == NO_RELATION ? Announcement(locks[i].dbOid, locks[i].relOid) : SOME_RELATIONS;
	}
	if (wanted != NO_RELATION)
		Announce(wanted);
}

/* Replay has what it asked for. */
void
WithdrawAnnouncement(void)
{
	pg_atomic_write_u64(&tracker->wanted_relation, NO_RELATION);
}

/*
 * In poll mode, the worker (or a session, which can't know whether there is
 * one): see whether the startup process waits for a lock, and do what it would
 * do.  During recovery nobody else can ask for such a lock.
 */
void
LookForLockRequest(void)
{
	bool		found = false;
	LockData   *data;

	if (pg_atomic_read_u32(&tracker->lock_holders) == 0)
		return;

	data = GetLockStatusData();
	for (int i = 0; i < data->nelements; i++)
	{
		LockInstanceData *lock = &data->locks[i];

		if (lock->waitLockMode == AccessExclusiveLock &&
			lock->locktag.locktag_type == LOCKTAG_RELATION)
		{
			Announce(Announcement(lock->locktag.locktag_field1, lock->locktag.locktag_field2));
			found = true;
		}
	}
	pfree(data->locks);
	pfree(data);
	if (!found)
		WithdrawAnnouncement();
}
