/*-------------------------------------------------------------------------
 *
 * deadlock.c
 *		Replay that waits, by way of others, for a session that waits for replay.
 *
 * Replay waits for some session, for its lock on a relation or for its snapshot,
 * and that waits for a lock of ours, during recovery an advisory one.  It would end at
 * max_standby_streaming_delay, and where that is -1 never: the server's deadlock
 * detector sees neither that replay waits for a snapshot nor that we wait for replay.
 *
 * So who sleeps with locks looks every deadlock_timeout, and ends its own wait with
 * an error.  As in the server, it is the one who waits who looks: nobody has to be
 * told, and it does not matter whether the worker is there.  Another than in the
 * server, the circle may be closed by one who does not look, so one look is not
 * enough.
 *
 * Runs in a client's session; takes the locks of the server's lock table, shared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"

#include "compat.h"
#include "lsn_tracker.h"

/* Does anybody wait for a lock of this session? */
static bool
SomebodyWaitsForUs(void)
{
	bool		found = false;

	/* not in the fast-path slots: whoever has to wait moves a lock out of there */
	for (int i = 0; i < NUM_LOCK_PARTITIONS && !found; i++)
	{
		if (NextProcLock(i, NULL) == NULL)
			continue;
		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
		for (PROCLOCK *lock = NextProcLock(i, NULL); lock && !found; lock = NextProcLock(i, lock))
			found = lock->tag.myLock->waitMask != 0;
		LWLockRelease(LockHashPartitionLockByIndex(i));
	}
	return found;
}

/* Does "waiter" wait for what "other" holds, or has asked for before? */
static bool
WaitsFor(const LockInstanceData *waiter, const LockInstanceData *other)
{
	LOCKMASK	conflicts;

	if (waiter->waitLockMode == NoLock || waiter->leaderPid == other->leaderPid ||
		memcmp(&waiter->locktag, &other->locktag, sizeof(LOCKTAG)) != 0)
		return false;

	conflicts = GetLockTagsMethodTable(&waiter->locktag)->conflictTab[waiter->waitLockMode];
	return (conflicts & other->holdMask) != 0 ||
		(other->waitLockMode != NoLock && other->waitStart < waiter->waitStart &&
		 (conflicts & LOCKBIT_ON(other->waitLockMode)) != 0);
}

/*
 * Does replay wait for this process's snapshot?  While it waits for snapshots it does
 * so for the oldest, of those who are in the same database; if that is not the one
 * where the record is from, this is wrong, and somebody else's transaction has been
 * holding up replay for as long.
 */
static bool
HoldsUpReplay(int pid, const PGPROC *startup)
{
	TransactionId oldest = InvalidTransactionId;
	TransactionId its = InvalidTransactionId;

	if (startup->wait_event_info != WAIT_EVENT_RECOVERY_CONFLICT_SNAPSHOT)
		return false;

	/* without a lock: the next look will see what this has missed */
	for (int i = 0; i < MaxBackends; i++)
	{
		volatile PGPROC *proc = &ProcGlobal->allProcs[i];
		TransactionId xmin = proc->xmin;

		if (proc->databaseId != MyDatabaseId || !TransactionIdIsNormal(xmin))
			continue;
		if (!TransactionIdIsValid(oldest) || TransactionIdPrecedes(xmin, oldest))
			oldest = xmin;
		if (proc->pid == pid)
			its = xmin;
	}
	return TransactionIdIsValid(its) && its == oldest;
}

/*
 * Does replay wait for a session that waits for this one, or for one that does?  Returns
 * the process id of that session, or 0.
 */
static int
FindDeadlock(void)
{
	LockData   *data = GetLockStatusData();
	PGPROC	   *startup = FindStartupProcess();
	int		   *blocked = palloc((data->nelements + 1) * sizeof(int));
	int			n = 0;
	int			found = 0;

	/* everybody who waits for us, from us on */
	blocked[n++] = MyProcPid;
	for (int next = 0; startup && next < n && found == 0; next++)
	{
		if (next > 0 && HoldsUpReplay(blocked[next], startup))
			found = blocked[next];

		for (int i = 0; i < data->nelements && found == 0; i++)
		{
			for (int j = 0; j < data->nelements && data->locks[i].leaderPid == blocked[next] && found == 0; j++)
			{
				int			pid = data->locks[j].leaderPid;
				bool		known = false;

				if (!WaitsFor(&data->locks[j], &data->locks[i]))
					continue;
				if (data->locks[j].pid == startup->pid)
					found = blocked[next];
				for (int k = 0; k < n; k++)
					known |= blocked[k] == pid;
				if (!known)
					blocked[n++] = pid;
			}
		}
	}
	pfree(blocked);
	pfree(data->locks);
	pfree(data);
	return found;
}

/*
 * Session, between StepAside() and StepBack(): raise 40P01 if replay waits, by way of
 * others, for a lock of this session.  "elapsed" is how long the wait has taken, in
 * ms; nothing is done before that is *next_look, which begins at deadlock_timeout.
 * Returns in how many ms to call again, -1 for never.
 */
long
LookForDeadlock(double elapsed, double *next_look)
{
	if (!tracker->waiters[MyProcNumber].holds_locks)
		return -1;

	if (elapsed >= *next_look)
	{
		int			pid = SomebodyWaitsForUs() ? FindDeadlock() : 0;

		if (pid != 0)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
					 errmsg("deadlock detected while waiting for replay"),
					 errdetail("Replay waits for process %d, which waits, or waits for one that does, for a lock that process %d holds, this one.",
							   pid, MyProcPid),
					 errhint("Do not wait for replay while holding locks that other sessions wait for, advisory locks above all.")));
		*next_look = elapsed + DeadlockTimeout;
	}
	return (long) (*next_look - elapsed) + 1;
}
