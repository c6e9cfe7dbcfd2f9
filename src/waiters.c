/*-------------------------------------------------------------------------
 *
 * waiters.c
 *		The queue: sessions that wait for replay, ordered by their target.
 *
 * A binary heap in shared memory, under tracker->lock (LW_EXCLUSIVE to change
 * it).  Adding, removing and taking the smallest cost O(log n) in the worst
 * case; a pairing heap's remove can touch every entry, and the startup process
 * must not be held up for as long as that.
 *
 * Used by waiting sessions, the startup process and the worker.  The startup
 * process never waits for the lock: it takes it only if it is free.  That it
 * may give up is made good by one rule:
 *
 *		Whoever has held the lock looks, after letting go of it, whether
 *		anybody is due, and wakes a batch.
 *
 * The startup process publishes the position and then fails to get the lock;
 * the holder lets go of the lock and then reads the position.  Both sides have
 * a full barrier in between, so the holder cannot miss it.  And since a batch
 * is bounded and may leave others behind, a session that has been woken looks
 * again on its way out (RemoveWaiter): as long as anybody is due there is
 * somebody on the way to wake him, also while the worker is away.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * How many sessions one call wakes at most.  Each costs the caller a system
 * call, and the caller may be the startup process.
 */
#define WAKE_BATCH 8

static LsnWaiter *
MyWaiter(void)
{
	Assert(MyProcNumber >= 0 && MyProcNumber < MaxBackends);
	return &tracker->waiters[MyProcNumber];
}

static void
PlaceAt(int index, LsnWaiter *waiter)
{
	tracker->heap[index] = waiter;
	waiter->heap_index = index;
}

/*
 * Put a waiter where it belongs, beginning at a free place.  First towards the
 * root, past larger targets, then away from it, past smaller ones; at most one
 * of the two moves anything.
 */
static void
Sift(int index, LsnWaiter *waiter)
{
	LsnWaiter **heap = tracker->heap;
	int			child;

	while (index > 0 && heap[(index - 1) / 2]->target > waiter->target)
	{
		PlaceAt(index, heap[(index - 1) / 2]);
		index = (index - 1) / 2;
	}
	while ((child = 2 * index + 1) < tracker->heap_size)
	{
		if (child + 1 < tracker->heap_size &&
			heap[child + 1]->target < heap[child]->target)
			child++;
		if (heap[child]->target >= waiter->target)
			break;
		PlaceAt(index, heap[child]);
		index = child;
	}
	PlaceAt(index, waiter);
}

/* Take a waiter out of the heap; the last one fills the gap. */
static void
TakeOut(LsnWaiter *waiter)
{
	int			gap = waiter->heap_index;
	LsnWaiter  *last = tracker->heap[--tracker->heap_size];

	waiter->heap_index = NOT_QUEUED;
	if (last != waiter)
		Sift(gap, last);
}

static void
PublishSmallestTarget(void)
{
	pg_atomic_write_u64(&tracker->smallest_target,
						tracker->heap_size > 0 ? tracker->heap[0]->target : NOBODY_WAITS);
}

static bool
SomebodyDue(void)
{
	XLogRecPtr	smallest = pg_atomic_read_u64(&tracker->smallest_target);

	return smallest != NOBODY_WAITS &&
		smallest <= pg_atomic_read_u64(&tracker->replayed);
}

/*
 * Let go of the lock and keep the rule at the top of this file.
 */
static void
ReleaseQueue(void)
{
	LWLockRelease(tracker->lock);
	(void) WakeDueWaiters(false);
}

/*
 * Enter this session into the queue.  Its latch will be set once replay has
 * reached the target, or has ended.  The caller must look at the position
 * again before it sleeps, and must have arranged for RemoveWaiter() to be
 * called on every way out.
 */
void
AddWaiter(XLogRecPtr target)
{
	LsnWaiter  *me = MyWaiter();

	LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
	Assert(me->heap_index == NOT_QUEUED);
	me->target = Min(target, LAST_TARGET);
	me->pid = MyProcPid;
	me->latch = MyLatch;
	Sift(tracker->heap_size++, me);
	PublishSmallestTarget();

	/*
	 * The release and the barrier that WakeDueWaiters() begins with stand
	 * between writing our target and reading the position, as replay.c asks.
	 */
	ReleaseQueue();
}

/*
 * Take this session out of the queue, if it still is in it, and wake others
 * that are due.  May be called while an error or the process's exit is
 * handled; raises none.
 */
void
RemoveWaiter(void)
{
	LsnWaiter  *me = MyWaiter();

	/*
	 * Looking without the lock is safe: only we enter ourselves, so if
	 * somebody took us out we stay out.
	 */
	if (me->heap_index != NOT_QUEUED)
	{
		LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
		if (me->heap_index != NOT_QUEUED)
		{
			TakeOut(me);
			PublishSmallestTarget();
		}
		LWLockRelease(tracker->lock);
	}
	(void) WakeDueWaiters(false);
}

/* Is the queue not empty?  Without the lock. */
bool
SomebodyWaits(void)
{
	return pg_atomic_read_u64(&tracker->smallest_target) != NOBODY_WAITS;
}

/*
 * Take sessions whose targets have been replayed out of the queue and set
 * their latches, at most WAKE_BATCH of them.
 *
 * Returns true if more are due.  With wait_for_lock false it never waits; if
 * the lock is busy it does nothing, and its holder does the waking instead.
 * Raises no error and allocates nothing.
 */
bool
WakeDueWaiters(bool wait_for_lock)
{
	Latch	   *latches[WAKE_BATCH];
	int			n;

	/*
	 * The caller has just published a position, changed the queue or released
	 * the lock.  Without the barrier we could read the other side's word from
	 * before that; see the top of this file and of replay.c.
	 */
	pg_memory_barrier();

	do
	{
		n = 0;
		if (!SomebodyDue())
			return false;

		if (wait_for_lock)
			LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
		else if (!LWLockConditionalAcquire(tracker->lock, LW_EXCLUSIVE))
			return true;

		while (n < WAKE_BATCH && SomebodyDue())
		{
			LsnWaiter  *waiter = tracker->heap[0];

			latches[n++] = waiter->latch;
			TakeOut(waiter);
			PublishSmallestTarget();
		}
		LWLockRelease(tracker->lock);

		/*
		 * Not under the lock: setting a latch is a system call.  The sessions
		 * may be gone by now or wait for something else; a latch is never
		 * freed, and everybody who waits on one expects to be woken for
		 * nothing.
		 */
		for (int i = 0; i < n; i++)
			SetLatch(latches[i]);

		/* We held the lock, so look again; the barrier is as above. */
		pg_memory_barrier();

		/*
		 * Those whom we have woken will look for whoever became due while we
		 * held the lock and others gave up on it.  If others had been faster
		 * and we have woken nobody, then nobody will: look once more.  In the
		 * startup process this ends at once, since no other moves the
		 * position: only a session that enters the queue with a target
		 * already replayed could be due then.
		 */
	} while (n == 0);

	return SomebodyDue();
}

/*
 * Copy the queue, in no particular order.  "copy" must have room for
 * MaxBackends entries.  Returns how many there are.
 */
int
CopyWaiters(LsnWaiter *copy)
{
	int			n;

	LWLockAcquire(tracker->lock, LW_SHARED);
	n = tracker->heap_size;
	for (int i = 0; i < n; i++)
		copy[i] = *tracker->heap[i];
	ReleaseQueue();
	return n;
}
