/*-------------------------------------------------------------------------
 *
 * waiters.c
 *		The queue: sessions that wait, ordered by when to wake them.
 *
 * A binary heap in shared memory, under tracker->lock (LW_EXCLUSIVE to change
 * it).  Adding, removing and taking the smallest cost O(log n) in the worst
 * case; a pairing heap's remove can touch every entry, and the startup process
 * must not be held up for as long as that.
 *
 * Used by waiting sessions, the startup process and the worker.  The startup
 * process never waits for the lock: it takes it only if it is free (model: bounded,
 * STARTUP_AWAITS_LOCK).  That it may give up is made good by one rule:
 *
 *		Whoever has held the lock looks, after letting go of it, whether
 *		anybody is due, and wakes a batch (model: woken, NO_LOOK_BEHIND_LOCK).
 *
 * The startup process publishes the position and then fails to get the lock;
 * the holder lets go of the lock and then reads the position.  Both sides have
 * a full barrier in between, so the holder cannot miss it.
 *
 * Nor does the startup process wake a crowd.  A batch is bounded and may leave
 * others behind; and while as many sessions as that were woken and have not
 * left yet (on_their_way), it wakes nobody: the last of them look whether
 * anybody is due when they leave (RemoveWaiter).  A session first takes itself
 * off the count and then reads the position (model: woken,
 * OFF_COUNT_BEHIND_LOOK, NO_LOOK_ON_LEAVING), the startup process publishes the
 * position and then reads the count, again with a full barrier on both sides.
 * So as long as anybody is due there is somebody on the way to wake him.  The
 * worker is called as well whenever the startup process leaves somebody behind:
 * it wakes a crowd faster, and it does not have to wait for sessions that are
 * slow.
 *
 * A position alone does not tell everybody's turn.  Who waits for a token must
 * judge again when the timeline changes, and who waits for a transaction when
 * that one ends.  They are brought to the front of the queue then, due at
 * once; if they still have to wait, they enter it again.  Those who wait for a
 * transaction are found by its id in chains; who waits for an answer of the primary,
 * in another one.  If the startup process can't get the lock to do so, it writes down
 * that all such sessions are to look again (xacts_look_again, tokens_look_again), and
 * the rule above applies (model: woken, NOT_SAID_IF_BUSY).
 *
 * All that rests on others who run: the worker, or one of the sessions on their
 * way.  If all of them are stopped, the startup process's timer sets the latches
 * of those who are due, whom it leaves in the queue (PromptDueWaiters).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"
#include "miscadmin.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * How many sessions one call wakes at most.  Each costs the caller a system
 * call, and the caller may be the startup process.  A crowd of ten returns later
 * with less, a crowd of a hundred with more (test/bench, 2 cores).  (model: bounded,
 * UNBOUNDED_BATCH)
 */
#define WAKE_BATCH 16

/* Comes before every position, so that replay has always reached it. */
#define AT_ONCE ((XLogRecPtr) 0)

/* Has this session entered the queue, and not left it by itself since? */
static bool entered = false;

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
 * Put a waiter where it belongs, beginning at its own or a free place.  First
 * towards the root, past those to be woken later, then away from it, past those
 * to be woken earlier; at most one of the two moves anything.
 */
static void
Sift(int index, LsnWaiter *waiter)
{
	LsnWaiter **heap = tracker->heap;
	int			child;

	while (index > 0 && heap[(index - 1) / 2]->wake_at > waiter->wake_at)
	{
		PlaceAt(index, heap[(index - 1) / 2]);
		index = (index - 1) / 2;
	}
	while ((child = 2 * index + 1) < tracker->heap_size)
	{
		if (child + 1 < tracker->heap_size &&
			heap[child + 1]->wake_at < heap[child]->wake_at)
			child++;
		if (heap[child]->wake_at >= waiter->wake_at)
			break;
		PlaceAt(index, heap[child]);
		index = child;
	}
	PlaceAt(index, waiter);
}

static bool
AwaitsXact(const LsnWaiter *waiter)
{
	return FullTransactionIdIsValid(waiter->target.xid);
}

/*
 * Ask the worker to look at the queue.  Called by the startup process and by
 * sessions; raises no error, waits for nothing.  Does nothing while the worker
 * is away: it looks by itself when it comes back.
 */
void
WakeWorker(void)
{
	/* read once: the worker may leave between a test and a use */
	Latch	   *latch = tracker->worker_latch;

	if (latch)
		SetLatch(latch);
}

/* Which chain has those who wait for this transaction */
static volatile int *
ChainOf(TransactionId xid)
{
	return &tracker->xid_chains[xid & (tracker->n_xid_chains - 1)];
}

/* Which chain a waiter belongs to; NULL: none */
static volatile int *
ChainOfWaiter(const LsnWaiter *waiter)
{
	if (AwaitsXact(waiter))
		return ChainOf(XidFromFullTransactionId(waiter->target.xid));
	return IsQuestion(&waiter->target) ? &tracker->link.questions : NULL;
}

/* Link a waiter into its chain, if there is one. */
static void
Link(LsnWaiter *waiter)
{
	volatile int *chain = ChainOfWaiter(waiter);

	if (chain == NULL)
		return;
	waiter->next_in_chain = *chain;
	*chain = waiter - tracker->waiters;
	if (AwaitsXact(waiter))
		pg_atomic_fetch_add_u32(&tracker->xact_waiters, 1);
}

static void
Unlink(LsnWaiter *waiter)
{
	volatile int *link = ChainOfWaiter(waiter);

	if (link == NULL)
		return;
	while (*link != waiter - tracker->waiters)
		link = &tracker->waiters[*link].next_in_chain;
	*link = waiter->next_in_chain;
	if (AwaitsXact(waiter))
		pg_atomic_fetch_sub_u32(&tracker->xact_waiters, 1);
}

/* Take a waiter out of the queue; the heap's last one fills its gap. */
static void
TakeOut(LsnWaiter *waiter)
{
	int			gap = waiter->heap_index;
	LsnWaiter  *last = tracker->heap[--tracker->heap_size];

	waiter->heap_index = NOT_QUEUED;
	if (last != waiter)
		Sift(gap, last);
	Unlink(waiter);
}

static void
PublishSmallestTarget(void)
{
	pg_atomic_write_u64(&tracker->smallest_target,
						tracker->heap_size > 0 ? tracker->heap[0]->wake_at : NOBODY_WAITS);
}

/* Has it not been told yet to all whom it concerns that they look again? */
static bool
TokensPending(void)
{
	return pg_atomic_read_u64(&tracker->tokens_look_again) >
		pg_atomic_read_u64(&tracker->tokens_looked_again);
}

static bool
XactsPending(void)
{
	return pg_atomic_read_u64(&tracker->xacts_look_again) >
		pg_atomic_read_u64(&tracker->xacts_looked_again);
}

/*
 * Is there anybody whom to wake?  Without the lock.
 */
bool
SomebodyDue(void)
{
	XLogRecPtr	smallest = pg_atomic_read_u64(&tracker->smallest_target);

	if (TokensPending() || XactsPending())
		return true;
	return smallest != NOBODY_WAITS &&
		smallest <= pg_atomic_read_u64(&tracker->replayed);
}

/*
 * Write down that what was said to here has been told; returns whether there was
 * anything to tell.  The caller tells it then: so whatever was said by now is told.
 */
static bool
TakeUp(pg_atomic_uint64 *look_again, pg_atomic_uint64 *looked_again)
{
	uint64		said = pg_atomic_read_u64(look_again);

	if (said <= pg_atomic_read_u64(looked_again))
		return false;
	pg_atomic_write_u64(looked_again, said);
	return true;
}

/*
 * If all who wait for a token or a transaction are to look again, bring them to
 * the front.  The caller holds the lock.
 */
static void
HandleLookAgain(void)
{
	bool		tokens = TakeUp(&tracker->tokens_look_again, &tracker->tokens_looked_again);
	bool		xacts = TakeUp(&tracker->xacts_look_again, &tracker->xacts_looked_again);

	if (!tokens && !xacts)
		return;

	/* towards the root only: what comes there has been seen already */
	for (int i = 0; i < tracker->heap_size; i++)
	{
		LsnWaiter  *waiter = tracker->heap[i];

		if (AwaitsXact(waiter) ? xacts : (tokens && waiter->target.timeline != 0))
		{
			waiter->wake_at = AT_ONCE;
			Sift(i, waiter);
		}
	}
	PublishSmallestTarget();
}

/*
 * Let go of the lock and keep the rule at the top of this file.
 */
void
ReleaseQueue(void)
{
	LWLockRelease(tracker->lock);
	(void) WakeDueWaiters(false);
}

/*
 * Take this session out of the queue, or off the count of those who have been
 * taken out by others.  The caller holds the lock, or has seen that it is not
 * in the queue: only a session enters itself, so it stays out then.
 */
static void
LeaveQueue(void)
{
	LsnWaiter  *me = MyWaiter();

	if (me->heap_index != NOT_QUEUED)
	{
		TakeOut(me);
		PublishSmallestTarget();
	}
	else if (entered)
	{
		/*
		 * Full barrier: whoever leaves others to us because of the count has
		 * published the position that we look at next.
		 */
		pg_atomic_fetch_sub_u32(&tracker->on_their_way, 1);
		CountEvent(me->woken_by);
	}
	entered = false;
}

/*
 * Enter this session into the queue, or give it another place there.  Its
 * latch will be set once replay has reached wake_at, or has ended; if it waits
 * for a token or a transaction, also when something happened that could decide
 * it.  It is no longer in the queue then.  The caller must look at the state
 * again before it sleeps (model: woken, NO_LOOK_AFTER_ENTERING), and must have arranged for
 * RemoveWaiter() to be called on every way out.
 */
void
AddWaiter(const LsnTarget *target, XLogRecPtr wake_at)
{
	LsnWaiter  *me = MyWaiter();

	LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
	/* or we would stay on the count (model: woken, STAY_ON_COUNT) */
	LeaveQueue();
	entered = true;
	me->target = *target;
	me->wake_at = Min(wake_at, LAST_TARGET);
	me->pid = MyProcPid;
	me->latch = MyLatch;
	/*
	 * PromptDueWaiters() reads without the lock: not the place before the latch (model:
	 * told, SAID_BEFORE_WRITTEN).
	 */
	pg_write_barrier();
	Sift(tracker->heap_size++, me);
	Link(me);
	PublishSmallestTarget();
	tracker->stats.most_waiting = Max(tracker->stats.most_waiting, tracker->heap_size);

	/*
	 * The release and the barrier that WakeDueWaiters() begins with stand
	 * between writing our target and reading the position, as replay.c asks.
	 */
	ReleaseQueue();
}

/*
 * Is this session in the queue, at that place, and with that question if it is one?  A
 * question that is asked again has the same place as one that was answered, but who is
 * not in the chain of questions gets no answer.  Without the lock: if somebody
 * takes us out just now, our latch is set behind it.
 */
bool
InQueue(const LsnTarget *target, XLogRecPtr wake_at)
{
	LsnWaiter  *me = MyWaiter();

	return me->heap_index != NOT_QUEUED && me->wake_at == Min(wake_at, LAST_TARGET) &&
		me->target.since == target->since;
}

/*
 * Take this session out of the queue, if it still is in it, and wake others
 * that are due.  May be called while an error or the process's exit is
 * handled; raises none.
 */
void
RemoveWaiter(void)
{
	if (MyWaiter()->heap_index != NOT_QUEUED)
	{
		LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
		LeaveQueue();
		LWLockRelease(tracker->lock);
	}
	else
		LeaveQueue();
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
 * Returns true if more are due.  For all but the worker: does nothing if the
 * lock is busy or a batch of sessions that were woken is still on its way, since
 * these do the waking then; never waits, raises no error and allocates nothing.
 */
bool
WakeDueWaiters(bool is_worker)
{
	Latch	   *latches[WAKE_BATCH];
	LsnEvent	waker = AmStartupProcess() ? EVENT_WOKEN_BY_STARTUP : EVENT_WOKEN_BY_SESSION;
	int			n;

	if (is_worker)
		waker = EVENT_WOKEN_BY_WORKER;

	/*
	 * The caller has just published a position, changed the queue or released
	 * the lock.  Without the barrier we could read the other side's word from
	 * before that; see the top of this file and of replay.c (model: woken,
	 * NO_BARRIER_BEFORE_LOOK).
	 */
	pg_memory_barrier();

	do
	{
		n = 0;
		if (!SomebodyDue())
			return false;

		/* the worker does not leave it to others (model: woken, WORKER_HEEDS_COUNT) */
		if (is_worker)
			LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
		else if (pg_atomic_read_u32(&tracker->on_their_way) >= WAKE_BATCH)
			return true;
		else if (!LWLockConditionalAcquire(tracker->lock, LW_EXCLUSIVE))
			return true;

		HandleLookAgain();
		while (n < WAKE_BATCH && tracker->heap_size > 0 &&
			   tracker->heap[0]->wake_at <= pg_atomic_read_u64(&tracker->replayed))
		{
			LsnWaiter  *waiter = tracker->heap[0];

			latches[n++] = waiter->latch;

			/*
			 * Counted before it is out, which the full barrier ensures: it
			 * takes itself off the count once it finds itself out (model:
			 * counted, COUNT_AFTER_OUT).
			 */
			pg_atomic_fetch_add_u32(&tracker->on_their_way, 1);
			waiter->woken_by = waker;
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

		/* As above; we held the lock (model: woken, NO_BARRIER_BEFORE_NEXT_TURN). */
		pg_memory_barrier();

		/*
		 * Those whom we have woken will look for whoever became due while we
		 * held the lock and others gave up on it.  If others had been faster
		 * and we have woken nobody, then nobody will: look once more.  Nor if
		 * all of them were awake and have left before we let go of the lock:
		 * they have given up on it.  In the startup process this ends soon,
		 * since no other moves the position: there is another turn only for
		 * sessions that have come or gone meanwhile, and only the last wakes any
		 * that sleep (model: woken, NO_NEXT_TURN, NO_NEXT_TURN_IF_WOKEN; bounded).
		 */
	} while (n == 0 || pg_atomic_read_u32(&tracker->on_their_way) == 0);

	return SomebodyDue();
}

/*
 * Bring to the front whoever waits for one of these transactions.  The caller
 * holds the lock.
 */
static void
BringForward(TransactionId xid)
{
	for (int i = *ChainOf(xid); i != NOBODY; i = tracker->waiters[i].next_in_chain)
	{
		LsnWaiter  *waiter = &tracker->waiters[i];

		if (XidFromFullTransactionId(waiter->target.xid) == xid)
		{
			waiter->wake_at = AT_ONCE;
			Sift(waiter->heap_index, waiter);
		}
	}
}

/*
 * Startup process: a transaction and its subtransactions have ended with the
 * record that ends at record_end, and that has been published.  Make due whoever
 * waits for one of them.  Returns true if anybody may be; the caller must see to
 * it that WakeDueWaiters() is called then, for we have held the lock.  Never
 * waits, raises no error and allocates nothing; a transaction for which nobody
 * waits costs a look at its chain.
 */
bool
BringXactWaitersForward(TransactionId xid, int nsubxids, const TransactionId *subxids,
						XLogRecPtr record_end)
{
	bool		found = *ChainOf(xid) != NOBODY;

	for (int i = 0; i < nsubxids && !found; i++)
		found = *ChainOf(subxids[i]) != NOBODY;
	if (!found)
		return false;

	if (LWLockConditionalAcquire(tracker->lock, LW_EXCLUSIVE))
	{
		BringForward(xid);
		for (int i = 0; i < nsubxids; i++)
			BringForward(subxids[i]);
		PublishSmallestTarget();
		LWLockRelease(tracker->lock);
	}
	else
	{
		/* as for a change of timeline: whoever holds the lock tells them all */
		pg_atomic_write_u64(&tracker->xacts_look_again, record_end);
	}
	return true;
}

/*
 * Worker, in poll mode: nobody tells it which transactions have ended.  Make due
 * whoever waits for one that has, as the startup process does.  The caller must call
 * WakeDueWaiters() then, for we have held the lock.  May raise an error of the
 * server's look-up.
 */
void
BringEndedXactsForward(void)
{
	LsnWaiter  *waiters = palloc(MaxBackends * sizeof(LsnWaiter));
	int			n = CopyWaiters(waiters);

	for (int i = 0; i < n; i++)
	{
		if (AwaitsXact(&waiters[i]) && XactHasEnded(waiters[i].target.xid))
			(void) BringXactWaitersForward(XidFromFullTransactionId(waiters[i].target.xid), 0, NULL,
										   pg_atomic_read_u64(&tracker->replayed));
	}
	pfree(waiters);
}

/*
 * Does anybody wait for an answer of the primary?
 */
bool
SomebodyAsks(void)
{
	bool		somebody;

	LWLockAcquire(tracker->lock, LW_SHARED);
	somebody = tracker->link.questions != NOBODY;
	ReleaseQueue();
	return somebody;
}

/*
 * The link's worker: the primary has answered a question that was asked at asked_at.
 * Give the answer to all who may have it, and a place in the queue with it, so that
 * they are woken once it has been replayed, and not before.
 */
void
HandOutAnswer(uint64 asked_at, const LsnTarget *answer)
{
	LsnLink    *shared = &tracker->link;
	volatile int *link = &shared->questions;
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);
	bool		at_once;

	/* where no record has been replayed yet, nobody is woken by a position */
	at_once = answer->timeline != timeline || answer->replay_to <= replayed;

	LWLockAcquire(tracker->lock, LW_EXCLUSIVE);

	/*
	 * Or the timeline has changed since we looked, or is about to, and who waits
	 * for a token has been told already: not those with a question, which has no
	 * timeline.  They would sleep on until replay is where the answer would have been
	 * (model: woken, ANSWER_JUDGED_BEFORE_LOCK).
	 */
	if (pg_atomic_read_u64(&tracker->tokens_look_again) > replayed)
		at_once = true;

	NoteAnswer(asked_at, answer);
	shared->answer = *answer;
	shared->problem[0] = '\0';
	while (*link != NOBODY)
	{
		LsnWaiter  *waiter = &tracker->waiters[*link];
		LsnTarget  *target = &waiter->target;

		if (target->since > asked_at)
		{
			/* came behind the question */
			link = &waiter->next_in_chain;
			continue;
		}
		*link = waiter->next_in_chain;
		target->lsn = answer->lsn;
		target->replay_to = answer->replay_to;
		target->timeline = answer->timeline;
		waiter->wake_at = at_once || target->answer_only ? AT_ONCE : answer->replay_to;
		Sift(waiter->heap_index, waiter);
	}
	PublishSmallestTarget();
	LWLockRelease(tracker->lock);

	while (WakeDueWaiters(true))
		CHECK_FOR_INTERRUPTS();
}

/*
 * Session: has a question been answered?  Either the answer has been handed to us, in
 * the queue, or it came before we were there.  Also false if an answer has come and
 * been replayed (FreshSince()), unless only that is asked for.
 */
bool
AnswerTo(const LsnTarget *question, LsnTarget *answer)
{
	const LsnTarget *handed = &MyWaiter()->target;
	bool		found = true;

	*answer = *question;
	LWLockAcquire(tracker->lock, LW_SHARED);
	if (handed->since == question->since && !IsQuestion(handed))
		*answer = *handed;
	else if (question->answer_only && AnsweredSince() >= question->since)
	{
		answer->lsn = answer->replay_to = tracker->link.answer.lsn;
		answer->timeline = tracker->link.answer.timeline;
	}
	else
		found = FindAnswer(question->since, answer);
	ReleaseQueue();
	return found;
}

/*
 * Startup process, also in its signal handler: set the latches of some who are
 * due, a batch of them, others each time; or of everybody.  They stay in the queue,
 * and leave it by themselves.  Without the lock, which the interrupted code may be
 * about to take: what is read may have changed by then, and a latch be set for
 * nothing.
 */
void
PromptDueWaiters(bool everybody)
{
	static int	next = 0;
	XLogRecPtr	replayed = pg_atomic_read_u64(&tracker->replayed);
	bool		tokens = TokensPending();
	bool		xacts = XactsPending();
	int			prompted = 0;

	for (int i = 0; i < MaxBackends && (everybody || prompted < WAKE_BATCH); i++)
	{
		LsnWaiter  *waiter = &tracker->waiters[next];

		next = (next + 1) % MaxBackends;
		if (waiter->heap_index != NOT_QUEUED &&
			(waiter->wake_at <= replayed || (AwaitsXact(waiter) ? xacts : tokens)))
		{
			/*
			 * AddWaiter()'s counterpart: the latch must not be one from before the
			 * place (model: told, READ_BEFORE_ASKED).
			 */
			pg_read_barrier();
			SetLatch(waiter->latch);
			prompted++;
		}
	}
}

/*
 * Startup process and worker: something concerns all who sleep.  Full barrier: whoever is not
 * in the queue yet will find what the caller has written.  Waits for nothing, as above.
 */
void
PromptEverybody(void)
{
	pg_memory_barrier();
	for (int i = 0; i < MaxBackends; i++)
	{
		LsnWaiter  *waiter = &tracker->waiters[i];

		if (waiter->heap_index != NOT_QUEUED)
		{
			/* as above */
			pg_read_barrier();
			SetLatch(waiter->latch);
		}
	}
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
