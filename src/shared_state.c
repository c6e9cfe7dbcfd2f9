/*-------------------------------------------------------------------------
 *
 * shared_state.c
 *		The one shared-memory struct: its size and its creation.
 *
 * Runs in the postmaster, at server start and again after a crash, before any
 * other process exists: no lock is needed.  The layout, and which lock
 * protects what, is in lsn_tracker.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "lsn_tracker.h"

LsnTrackerState *tracker = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
HeapOffset(void)
{
	return MAXALIGN(add_size(offsetof(LsnTrackerState, waiters),
							 mul_size(MaxBackends, sizeof(LsnWaiter))));
}

static Size
XidChainsOffset(void)
{
	return add_size(HeapOffset(), mul_size(MaxBackends, sizeof(LsnWaiter *)));
}

/* So many that most chains have one member when everybody waits. */
static int
NumXidChains(void)
{
	return pg_nextpower2_32(MaxBackends);
}

static Size
CommittersOffset(void)
{
	return CACHELINEALIGN(add_size(XidChainsOffset(), mul_size(NumXidChains(), sizeof(int))));
}

static Size
PreparedSeenOffset(void)
{
	return add_size(CommittersOffset(), mul_size(MaxBackends, sizeof(LsnCommitter)));
}

static Size
CountersOffset(void)
{
	return CACHELINEALIGN(add_size(PreparedSeenOffset(), mul_size(max_prepared_xacts, sizeof(pg_atomic_uint64))));
}

static Size
SharedStateSize(void)
{
	return add_size(CountersOffset(), mul_size(MaxBackends, sizeof(LsnCounters)));
}

static void
RequestSharedState(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(SharedStateSize());
	RequestNamedLWLockTranche("lsn_tracker", 2);
}

static void
InitCounters(LsnCounters *counters)
{
	for (int event = 0; event < N_EVENTS; event++)
		pg_atomic_init_u64(&counters->events[event], 0);
	for (int metric = 0; metric < N_METRICS; metric++)
	{
		for (int bucket = 0; bucket < N_BUCKETS; bucket++)
			pg_atomic_init_u64(&counters->buckets[metric][bucket], 0);
		pg_atomic_init_u64(&counters->time[metric], 0);
		pg_atomic_init_u64(&counters->longest[metric], 0);
	}
	pg_atomic_init_u32(&counters->longest_since, 0);
}

static void
CreateSharedState(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	tracker = ShmemInitStruct("lsn_tracker", SharedStateSize(), &found);
	if (!found)
	{
		memset(tracker, 0, SharedStateSize());
		pg_atomic_init_u64(&tracker->replayed, 0);
		pg_atomic_init_u64(&tracker->smallest_target, NOBODY_WAITS);
		for (int i = 0; i < MAX_RESTARTS; i++)
			pg_atomic_init_u64(&tracker->restarts[i], 0);
		pg_atomic_init_u32(&tracker->n_restarts, 0);
		pg_atomic_init_u64(&tracker->tokens_look_again, 0);
		pg_atomic_init_u64(&tracker->tokens_looked_again, 0);
		pg_atomic_init_u64(&tracker->xacts_look_again, 0);
		pg_atomic_init_u64(&tracker->xacts_looked_again, 0);
		pg_atomic_init_u32(&tracker->xact_waiters, 0);
		pg_atomic_init_u32(&tracker->on_their_way, 0);
		pg_atomic_init_u64(&tracker->wanted_relation, 0);
		pg_atomic_init_u32(&tracker->lock_holders, 0);
		tracker->link.questions = NOBODY;
		pg_atomic_init_u32(&tracker->link.refresh, 0);
		pg_atomic_init_u32(&tracker->link.busy, 0);
		pg_atomic_init_u64(&tracker->answered_since, 0);
		pg_atomic_init_u64(&tracker->fresh_since, 0);
		pg_atomic_init_u32(&tracker->off_for_startup, !enabled);
		pg_atomic_init_u32(&tracker->off_for_worker, !enabled);
		pg_atomic_init_u64(&tracker->forecast.sampled_at, 0);
		tracker->lock = &GetNamedLWLockTranche("lsn_tracker")[0].lock;
		tracker->forecast.lock = &GetNamedLWLockTranche("lsn_tracker")[1].lock;
		tracker->heap = (LsnWaiter **) ((char *) tracker + HeapOffset());
		for (int i = 0; i < MaxBackends; i++)
			tracker->waiters[i].heap_index = NOT_QUEUED;
		tracker->n_xid_chains = NumXidChains();
		tracker->xid_chains = (int *) ((char *) tracker + XidChainsOffset());
		for (int i = 0; i < tracker->n_xid_chains; i++)
			tracker->xid_chains[i] = NOBODY;
		tracker->committers = (LsnCommitter *) ((char *) tracker + CommittersOffset());
		for (int i = 0; i < MaxBackends; i++)
		{
			pg_atomic_init_u64(&tracker->committers[i].end, 0);
			pg_atomic_init_u64(&tracker->committers[i].written, 0);
			pg_atomic_init_u32(&tracker->committers[i].committing, InvalidTransactionId);
			pg_atomic_init_u32(&tracker->committers[i].telling, InvalidTransactionId);
			pg_atomic_init_u32(&tracker->committers[i].finishing, 0);
		}
		tracker->prepared_seen = (pg_atomic_uint64 *) ((char *) tracker + PreparedSeenOffset());
		for (int i = 0; i < max_prepared_xacts; i++)
			pg_atomic_init_u64(&tracker->prepared_seen[i], 0);
		pg_atomic_init_u64(&tracker->all_noted, 0);
		tracker->counters = (LsnCounters *) ((char *) tracker + CountersOffset());
		for (int i = 0; i < MaxBackends; i++)
			InitCounters(&tracker->counters[i]);
		pg_atomic_init_u32(&tracker->stats.resets, 0);
		tracker->stats.reset_at = GetCurrentTimestamp();
	}
	LWLockRelease(AddinShmemInitLock);

	/*
	 * Only now: every library that brings resource managers has registered
	 * them in its _PG_init, so none of their entries is missed.
	 */
	if (wakeup_mode == WAKEUP_REDO)
		WatchRedo();
}

/*
 * Ask for the shared memory and have it created.  To be called from _PG_init,
 * while shared_preload_libraries are loaded.
 */
void
InstallSharedState(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = RequestSharedState;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = CreateSharedState;
}
