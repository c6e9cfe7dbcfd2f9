/*-------------------------------------------------------------------------
 *
 * threads.c
 *		The queue alone, with threads as processes, for ThreadSanitizer.
 *
 * Includes src/waiters.c, in a copy whose variables are each thread's own, and has
 * small stand-ins for what that calls: locks, latches and what the server says of
 * replay.  The atomics are the compiler's, which the sanitizer knows.
 *
 * One thread is the startup process and does what src/replay.c does behind a record.
 * Since a wake-up that has been lost is made good by the next record, it stands still
 * from time to time, until nobody is due.  The worker is away in the first half, and
 * then comes and goes; the link hands out answers; one copies the queue; the
 * others are sessions and wait as src/wait.c does, for positions, tokens,
 * transactions and answers, and now and then give up.  There is no timer, so that it
 * can't hide a wake-up that has been lost.
 *
 * Usage: threads SECONDS SESSIONS SEED.  Status 1 if a session sleeps on although
 * its turn has come, or if anything is left of the sessions at the end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "compat.h"
#include "lsn_tracker.h"

#undef MyProcNumber
/* without the server's own */
#undef printf
#undef fprintf

/* The compiler's atomics, instead of the server's assembler */
#define pg_atomic_read_u32(p) __atomic_load_n(&(p)->value, __ATOMIC_RELAXED)
#define pg_atomic_read_u64(p) __atomic_load_n(&(p)->value, __ATOMIC_RELAXED)
#define pg_atomic_write_u32(p, v) __atomic_store_n(&(p)->value, v, __ATOMIC_RELAXED)
#define pg_atomic_write_u64(p, v) __atomic_store_n(&(p)->value, v, __ATOMIC_RELAXED)
#define pg_atomic_fetch_add_u32(p, v) __atomic_fetch_add(&(p)->value, v, __ATOMIC_SEQ_CST)
#define pg_atomic_fetch_sub_u32(p, v) __atomic_fetch_sub(&(p)->value, v, __ATOMIC_SEQ_CST)

/* Each process's own */
#define MyProcNumber my_number
#define MyProcPid my_number
#define MyLatch (&latches[my_number])
#undef CHECK_FOR_INTERRUPTS
#define CHECK_FOR_INTERRUPTS() ((void) 0)

#undef AmStartupProcess
#define AmStartupProcess() is_startup

static __thread int my_number;
static __thread bool is_startup = false;

static Latch *latches;

#include "waiters.c"

/* How long a session may sleep although its turn has come, s */
#define PATIENCE 10
#define N_XIDS 256

LsnTrackerState *tracker;
int			MaxBackends;

static int	n_sessions;
static pg_atomic_uint32 stop;
static pg_atomic_uint32 still;	/* nothing new begins */
static pthread_rwlock_t queue_lock = PTHREAD_RWLOCK_INITIALIZER;

/* One for each latch */
typedef struct Sleeper
{
	pthread_mutex_t mutex;
	pthread_cond_t set;
} Sleeper;

static Sleeper *sleepers;

/* What the server says of replay */
static pthread_mutex_t server = PTHREAD_MUTEX_INITIALIZER;
static XLogRecPtr server_replayed = 1;
static TimeLineID server_timeline = 1;
static bool xid_ended[N_XIDS];

static uint64 answered_since = 0;
static uint64 waits = 0;
static uint64 half_time;

/* ---- stand-ins ---- */

bool
LWLockAcquire(LWLock *lock, LWLockMode mode)
{
	if (mode == LW_SHARED)
		pthread_rwlock_rdlock(&queue_lock);
	else
		pthread_rwlock_wrlock(&queue_lock);
	return true;
}

bool
LWLockConditionalAcquire(LWLock *lock, LWLockMode mode)
{
	return pthread_rwlock_trywrlock(&queue_lock) == 0;
}

void
LWLockRelease(LWLock *lock)
{
	pthread_rwlock_unlock(&queue_lock);
}

/* What is counted for the statistics is not looked at here. */
void
CountEvent(LsnEvent event)
{
}

void
SetLatch(Latch *latch)
{
	int			i = latch - latches;

	pthread_mutex_lock(&sleepers[i].mutex);
	latch->is_set = true;
	pthread_cond_signal(&sleepers[i].set);
	pthread_mutex_unlock(&sleepers[i].mutex);
}

void
ResetLatch(Latch *latch)
{
	int			i = latch - latches;

	pthread_mutex_lock(&sleepers[i].mutex);
	latch->is_set = false;
	pthread_mutex_unlock(&sleepers[i].mutex);
}

/* Returns false if the time, in ms, has passed. */
static bool
SleepOnLatch(Latch *latch, long ms)
{
	int			i = latch - latches;
	struct timespec until;
	bool		set;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000)
	{
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&sleepers[i].mutex);
	while (!latch->is_set &&
		   pthread_cond_timedwait(&sleepers[i].set, &sleepers[i].mutex, &until) == 0)
		;
	set = latch->is_set;
	pthread_mutex_unlock(&sleepers[i].mutex);
	return set;
}

XLogRecPtr
GetXLogReplayRecPtr(TimeLineID *timeline)
{
	XLogRecPtr	replayed;

	pthread_mutex_lock(&server);
	replayed = server_replayed;
	if (timeline)
		*timeline = server_timeline;
	pthread_mutex_unlock(&server);
	return replayed;
}

bool
XactHasEnded(FullTransactionId xid)
{
	bool		ended;

	pthread_mutex_lock(&server);
	ended = xid_ended[XidFromFullTransactionId(xid) % N_XIDS];
	pthread_mutex_unlock(&server);
	return ended;
}

bool
IsQuestion(const LsnTarget *target)
{
	return target->since != 0 && XLogRecPtrIsInvalid(target->lsn);
}

/* Under the lock, as those of staleness.c */
void
NoteAnswer(uint64 asked_at, const LsnTarget *target)
{
	answered_since = asked_at;
}

uint64
AnsweredSince(void)
{
	return answered_since;
}

bool
FindAnswer(uint64 since, LsnTarget *target)
{
	if (answered_since < since)
		return false;
	target->lsn = tracker->link.answer.lsn;
	target->replay_to = tracker->link.answer.replay_to;
	target->timeline = tracker->link.answer.timeline;
	return true;
}

void *
palloc(Size size)
{
	return malloc(size);
}

void
pfree(void *pointer)
{
	free(pointer);
}

uint64
Now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64) now.tv_sec * 1000 * MS + now.tv_nsec;
}

/*
 * Not sched_yield(): after so many turns the sanitizer has forgotten what this thread
 * did before, and a race with it has no function's name that could be suppressed.
 */
static void
PauseBriefly(void)
{
	struct timespec pause = {0, 20000};

	nanosleep(&pause, NULL);
}

/* ---- what the processes do ---- */

static void
Publish(XLogRecPtr replayed)
{
	pg_atomic_write_u64(&tracker->replayed, replayed);
	pg_memory_barrier();
}

static void
WakeWhoIsDue(void)
{
	if (WakeDueWaiters(false))
		WakeWorker();
}

/*
 * Replay stands still: whoever is due has to be woken by those that are on their way.
 * Nobody else comes who would do it by chance.
 */
static void
StandStill(void)
{
	uint64		until = Now() + PATIENCE * 1000 * MS;

	pg_atomic_write_u32(&still, 1);
	while (SomebodyDue() && !pg_atomic_read_u32(&stop))
	{
		if (Now() > until)
		{
			fprintf(stderr, "somebody is due and nobody wakes him: %u on their way\n",
					pg_atomic_read_u32(&tracker->on_their_way));
			exit(1);
		}
		PauseBriefly();
	}
	pg_atomic_write_u32(&still, 0);
}

static void
AwaitMotion(void)
{
	while (pg_atomic_read_u32(&still) && !pg_atomic_read_u32(&stop))
		PauseBriefly();
}

/* TrackedRedo() and its like */
static void *
Startup(void *seed)
{
	unsigned int random = *(unsigned int *) seed;
	XLogRecPtr	record = 1;

	is_startup = true;
	my_number = n_sessions;
	while (!pg_atomic_read_u32(&stop))
	{
		bool		new_timeline = rand_r(&random) % 500 == 0;
		TransactionId xid = rand_r(&random) % N_XIDS;
		bool		due;

		record++;
		pthread_mutex_lock(&server);
		xid_ended[xid] = true;
		pthread_mutex_unlock(&server);
		Publish(record);
		due = pg_atomic_read_u64(&tracker->smallest_target) <= record;
		if (new_timeline)
		{
			pg_atomic_write_u64(&tracker->xacts_look_again, record);
			pg_atomic_write_u64(&tracker->tokens_look_again, record);
			due = true;
		}
		if (pg_atomic_read_u32(&tracker->xact_waiters) > 0 &&
			BringXactWaitersForward(xid, 0, NULL, record))
			due = true;
		pthread_mutex_lock(&server);
		server_replayed = record;
		if (new_timeline)
			server_timeline++;
		pthread_mutex_unlock(&server);
		if (due)
			WakeWhoIsDue();
		if (rand_r(&random) % 4 == 0)
			sched_yield();
		if (rand_r(&random) % 20 == 0)
			StandStill();
	}
	Publish(REPLAY_ENDED);
	(void) WakeDueWaiters(false);
	PromptDueWaiters(true);
	return NULL;
}

static void *
Worker(void *seed)
{
	unsigned int random = *(unsigned int *) seed;

	my_number = n_sessions + 1;
	while (!pg_atomic_read_u32(&stop) && Now() < half_time)
		(void) SleepOnLatch(MyLatch, 100);
	while (!pg_atomic_read_u32(&stop))
	{
		/* away half of the time */
		tracker->worker_latch = MyLatch;
		for (int i = rand_r(&random) % 200; i > 0 && !pg_atomic_read_u32(&stop); i--)
		{
			ResetLatch(MyLatch);
			while (WakeDueWaiters(true))
				;
			(void) SleepOnLatch(MyLatch, 1);
		}
		tracker->worker_latch = NULL;
		(void) SleepOnLatch(MyLatch, rand_r(&random) % 200);
	}
	while (WakeDueWaiters(true))
		;
	return NULL;
}

static void *
LinkWorker(void *seed)
{
	unsigned int random = *(unsigned int *) seed;
	LsnWaiter  *copy = malloc(MaxBackends * sizeof(LsnWaiter));

	my_number = n_sessions + 2;
	while (!pg_atomic_read_u32(&stop))
	{
		uint64		asked_at = Now();
		LsnTarget	answer = {0};

		AwaitMotion();
		answer.lsn = answer.replay_to = GetXLogReplayRecPtr(&answer.timeline) + rand_r(&random) % 100;
		if (SomebodyAsks())
			HandOutAnswer(asked_at, &answer);
		(void) CopyWaiters(copy);
		/* as the worker in poll mode: it held the lock, so it has to look */
		BringEndedXactsForward();
		while (WakeDueWaiters(true))
			;
		sched_yield();
	}
	free(copy);
	return NULL;
}

/* TargetReached(), for what is of interest here; *wake_at as in Outlook */
static bool
Reached(const LsnTarget *target, XLogRecPtr *wake_at, XLogRecPtr *seen)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed;

	*wake_at = LAST_TARGET;
	*seen = 0;
	if (pg_atomic_read_u64(&tracker->replayed) == REPLAY_ENDED)
		return true;
	if (FullTransactionIdIsValid(target->xid))
		return XactHasEnded(target->xid);
	if (IsQuestion(target))
		return false;
	replayed = GetXLogReplayRecPtr(&timeline);
	*wake_at = target->replay_to;
	*seen = replayed;
	/* or lost, in another way */
	return replayed >= target->replay_to || (target->timeline != 0 && target->timeline != timeline);
}

static LsnTarget
NewTarget(unsigned int *random)
{
	LsnTarget	target = {0};
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);

	switch (rand_r(random) % 4)
	{
		case 0:
			target.lsn = target.replay_to = replayed + rand_r(random) % 50;
			break;
		case 1:
			/* of a timeline that ends before it is reached, mostly */
			target.lsn = target.replay_to = replayed + rand_r(random) % 2000;
			target.timeline = timeline;
			break;
		case 2:
			target.xid = FullTransactionIdFromU64(FirstNormalTransactionId + rand_r(random) % (N_XIDS - FirstNormalTransactionId));
			pthread_mutex_lock(&server);
			xid_ended[XidFromFullTransactionId(target.xid)] = false;
			pthread_mutex_unlock(&server);
			break;
		default:
			target.since = Now();
	}
	return target;
}

typedef struct SessionArg
{
	int			number;
	unsigned int seed;
} SessionArg;

static void *
Session(void *arg)
{
	unsigned int random;

	my_number = ((SessionArg *) arg)->number;
	random = my_number + ((SessionArg *) arg)->seed;
	while (!pg_atomic_read_u32(&stop))
	{
		LsnTarget	target;
		LsnTarget	answer;
		bool		gives_up = rand_r(&random) % 8 == 0;

		AwaitMotion();
		target = NewTarget(&random);

		for (;;)
		{
			XLogRecPtr	wake_at;
			XLogRecPtr	seen;

			ResetLatch(MyLatch);
			if (IsQuestion(&target) && AnswerTo(&target, &answer))
				target = answer;
			if (Reached(&target, &wake_at, &seen))
				break;
			if (pg_atomic_read_u64(&tracker->replayed) >= wake_at ||
				(target.timeline != 0 && pg_atomic_read_u64(&tracker->tokens_look_again) > seen))
			{
				sched_yield();
				continue;
			}
			if (!InQueue(&target, wake_at))
			{
				AddWaiter(&target, wake_at);
				continue;
			}
			if (SleepOnLatch(MyLatch, gives_up ? 1 : PATIENCE * 1000))
				continue;
			if (gives_up)
			{
				/* who leaves wakes others */
				if (pg_atomic_read_u32(&still))
					continue;
				break;
			}
			/* with an answer, it is its turn once that has been replayed */
			if (IsQuestion(&target) && AnswerTo(&target, &answer))
				target = answer;
			if (Reached(&target, &wake_at, &seen))
			{
				fprintf(stderr, "session %d sleeps although its turn has come: position %llu, timeline %u, transaction %llu, question %llu\n",
						my_number, (unsigned long long) target.replay_to, target.timeline,
						(unsigned long long) U64FromFullTransactionId(target.xid), (unsigned long long) target.since);
				exit(1);
			}
		}
		RemoveWaiter();
		__atomic_fetch_add(&waits, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	int			seconds = atoi(argv[1]);
	unsigned int seed = atoi(argv[3]);
	pthread_t  *threads;
	pthread_condattr_t by_monotonic;
	int			n_threads = 0;
	SessionArg *args;

	n_sessions = atoi(argv[2]);
	MaxBackends = n_sessions + 3;
	latches = calloc(MaxBackends, sizeof(Latch));
	sleepers = calloc(MaxBackends, sizeof(Sleeper));
	threads = calloc(MaxBackends, sizeof(pthread_t));
	args = calloc(n_sessions, sizeof(SessionArg));
	tracker = calloc(1, sizeof(LsnTrackerState) + MaxBackends * sizeof(LsnWaiter));
	tracker->heap = calloc(MaxBackends, sizeof(LsnWaiter *));
	tracker->n_xid_chains = 16;
	tracker->xid_chains = calloc(16, sizeof(int));
	for (int i = 0; i < 16; i++)
		tracker->xid_chains[i] = NOBODY;
	/* a step of the clock would end all sleeps */
	pthread_condattr_init(&by_monotonic);
	pthread_condattr_setclock(&by_monotonic, CLOCK_MONOTONIC);
	for (int i = 0; i < MaxBackends; i++)
	{
		pthread_mutex_init(&sleepers[i].mutex, NULL);
		pthread_cond_init(&sleepers[i].set, &by_monotonic);
		tracker->waiters[i].heap_index = NOT_QUEUED;
	}
	tracker->link.questions = NOBODY;
	pg_atomic_write_u64(&tracker->smallest_target, NOBODY_WAITS);
	pg_atomic_write_u64(&tracker->replayed, 1);

	half_time = Now() + seconds * 500 * MS;
	pthread_create(&threads[n_threads++], NULL, Startup, &seed);
	pthread_create(&threads[n_threads++], NULL, Worker, &seed);
	pthread_create(&threads[n_threads++], NULL, LinkWorker, &seed);
	for (int i = 0; i < n_sessions; i++)
	{
		args[i].number = i;
		args[i].seed = seed;
		pthread_create(&threads[n_threads++], NULL, Session, &args[i]);
	}
	for (int i = 1; i <= seconds; i++)
	{
		struct timespec second = {1, 0};

		nanosleep(&second, NULL);
		if (i % 10 == 0)
		{
			printf("%d s: %llu waits, %llu records\n", i,
				   (unsigned long long) __atomic_load_n(&waits, __ATOMIC_RELAXED),
				   (unsigned long long) pg_atomic_read_u64(&tracker->replayed));
			fflush(stdout);
		}
	}
	pg_atomic_write_u32(&stop, 1);
	for (int i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);

	if (tracker->heap_size != 0 || tracker->link.questions != NOBODY ||
		pg_atomic_read_u64(&tracker->smallest_target) != NOBODY_WAITS ||
		pg_atomic_read_u32(&tracker->on_their_way) != 0 ||
		pg_atomic_read_u32(&tracker->xact_waiters) != 0)
	{
		fprintf(stderr, "left in the queue: %d, on their way: %u, for transactions: %u\n",
				tracker->heap_size, pg_atomic_read_u32(&tracker->on_their_way), pg_atomic_read_u32(&tracker->xact_waiters));
		return 1;
	}
	printf("%llu waits, nobody was late, nothing is left\n", (unsigned long long) waits);
	return 0;
}
