/*-------------------------------------------------------------------------
 *
 * stats.c
 *		What has happened since the server was started, or the statistics were reset.
 *
 * Each process counts for itself, in a place of its own in shared memory that nobody else
 * writes (struct LsnCounters, by process number): without a lock or a locked instruction,
 * and no cache line goes from one processor to another, however many sessions are woken at
 * once.  Who reads sums up all places.  A place is kept when its process ends, and the next
 * one goes on counting there.  So nothing is set to zero, either: a reset notes the sums of that
 * moment, and they are subtracted from then on.
 *
 * Nothing is counted in the startup process: who was woken by it counts that (waiters.c).
 *
 * Runs in sessions and in the link's worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/float.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "lsn_tracker.h"

/* The limits of the histograms, microseconds; the last one is infinite */
static const uint32 bucket_limits[N_BUCKETS - 1] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
	1000000, 2500000, 5000000, 10000000, 30000000, 60000000};

/* This process writes here, and no other does */
static LsnCounters *
Mine(void)
{
	return &tracker->counters[MyProcNumber];
}

static inline void
Add(pg_atomic_uint64 *counter, uint64 n)
{
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + n);
}

/*
 * Something has happened.
 */
void
CountEvent(LsnEvent event)
{
	Add(&Mine()->events[event], 1);
}

/*
 * Something that is also measured has come to its end.
 */
void
CountTime(LsnMetric metric, uint64 ns)
{
	LsnCounters *mine = Mine();
	uint32		resets = pg_atomic_read_u32(&tracker->stats.resets);
	int			bucket = 0;

	while (bucket < N_BUCKETS - 1 && ns > bucket_limits[bucket] * UINT64CONST(1000))
		bucket++;
	Add(&mine->buckets[metric][bucket], 1);
	Add(&mine->time[metric], ns);

	/* a longest time can't be subtracted: those from before a reset are forgotten */
	if (pg_atomic_read_u32(&mine->longest_since) != resets)
	{
		for (int i = 0; i < N_METRICS; i++)
			pg_atomic_write_u64(&mine->longest[i], 0);
		/* who finds the number must not find an old time (model: told, SAID_BEFORE_WRITTEN) */
		pg_write_barrier();
		pg_atomic_write_u32(&mine->longest_since, resets);
	}
	if (ns > pg_atomic_read_u64(&mine->longest[metric]))
		pg_atomic_write_u64(&mine->longest[metric], ns);
}

/*
 * Sum up what all processes have counted since the server was started.
 */
static void
SumUp(LsnSums *sums)
{
	uint32		resets = pg_atomic_read_u32(&tracker->stats.resets);

	memset(sums, 0, sizeof(LsnSums));
	for (int i = 0; i < MaxBackends; i++)
	{
		LsnCounters *counters = &tracker->counters[i];
		bool		current = pg_atomic_read_u32(&counters->longest_since) == resets;

		/* CountTime()'s counterpart (model: told, READ_BEFORE_ASKED) */
		pg_read_barrier();
		for (int event = 0; event < N_EVENTS; event++)
			sums->events[event] += pg_atomic_read_u64(&counters->events[event]);
		for (int metric = 0; metric < N_METRICS; metric++)
		{
			sums->time[metric] += pg_atomic_read_u64(&counters->time[metric]);
			if (current)
				sums->longest[metric] = Max(sums->longest[metric], pg_atomic_read_u64(&counters->longest[metric]));
			for (int bucket = 0; bucket < N_BUCKETS; bucket++)
				sums->buckets[metric][bucket] += pg_atomic_read_u64(&counters->buckets[metric][bucket]);
		}
	}
}

/*
 * Session: what has happened since the last reset.
 */
void
ReadStats(LsnSums *sums)
{
	LsnStats   *shared = &tracker->stats;

	LWLockAcquire(tracker->lock, LW_SHARED);
	SumUp(sums);
	for (int event = 0; event < N_EVENTS; event++)
		sums->events[event] -= shared->at_reset.events[event];
	for (int metric = 0; metric < N_METRICS; metric++)
	{
		sums->time[metric] -= shared->at_reset.time[metric];
		for (int bucket = 0; bucket < N_BUCKETS; bucket++)
			sums->buckets[metric][bucket] -= shared->at_reset.buckets[metric][bucket];
	}
	sums->waiting = tracker->heap_size;
	sums->most_waiting = shared->most_waiting;
	sums->reset_at = shared->reset_at;
	ReleaseQueue();

	/* what was replayed already has taken no time, and is not measured */
	sums->buckets[METRIC_FUNCTION][0] += sums->events[EVENT_AT_ONCE_IN_FUNCTION];
	sums->buckets[METRIC_GATE][0] += sums->events[EVENT_AT_ONCE_AT_GATE];
}

/*
 * Session: begin anew.
 */
void
ResetStats(void)
{
	LsnStats   *shared = &tracker->stats;

	LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
	pg_atomic_fetch_add_u32(&shared->resets, 1);
	SumUp(&shared->at_reset);
	shared->most_waiting = tracker->heap_size;
	shared->reset_at = GetCurrentTimestamp();
	ReleaseQueue();
}

/*
 * The upper limit of a bucket in seconds
 */
double
BucketLimit(int bucket)
{
	return bucket == N_BUCKETS - 1 ? get_float8_infinity() : bucket_limits[bucket] / 1e6;
}
