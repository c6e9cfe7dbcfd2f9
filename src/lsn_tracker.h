/*-------------------------------------------------------------------------
 *
 * lsn_tracker.h
 *		Who owns what in lsn_tracker.
 *
 * One block for each source file; the comment above a function's definition
 * tells its contract.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LSN_TRACKER_H
#define LSN_TRACKER_H

#include "access/xlogdefs.h"
#include "executor/execdesc.h"
#include "fmgr.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/* lsn_tracker.c: settings */
typedef enum WakeupMode
{
	WAKEUP_REDO,				/* the startup process wakes, after each record */
	WAKEUP_POLL					/* the worker looks, while somebody waits */
} WakeupMode;

extern int	default_timeout;	/* ms, 0: no limit */
extern int	wakeup_mode;		/* WakeupMode */
extern int	poll_interval;		/* ms */
extern bool log_waits;
extern bool allow_held_snapshot;

/* shared_state.c: the shared memory */

/* A session's place in the queue; one for every possible backend. */
typedef struct LsnWaiter
{
	XLogRecPtr	target;			/* woken when replay reaches this */
	int			heap_index;		/* place in heap[], NOT_QUEUED if in none */
	int			pid;
	Latch	   *latch;
} LsnWaiter;

#define NOT_QUEUED (-1)

typedef struct LsnTrackerState
{
	/*
	 * How far replay has come, written by whoever follows it: the startup
	 * process after each record, or the worker in poll mode.  0 until the
	 * first record, REPLAY_ENDED once there will be no further record.  Has a
	 * cache line for itself: it is written once a record, and the startup
	 * process must not lose its line to sessions that work on the queue.
	 */
	pg_atomic_uint64 replayed;
	char		pad1[PG_CACHE_LINE_SIZE - sizeof(pg_atomic_uint64)];

	/*
	 * The smallest target in the queue, NOBODY_WAITS if it is empty.  Written
	 * under the lock, read without it.  Its own line too: read once a record.
	 */
	pg_atomic_uint64 smallest_target;
	char		pad2[PG_CACHE_LINE_SIZE - sizeof(pg_atomic_uint64)];

	LWLock	   *lock;			/* protects the queue: waiters[], heap[] */
	Latch	   *volatile worker_latch;	/* NULL while the worker is away */
	bool		warned_unconfigured;	/* the worker's own, see worker.c */

	int			heap_size;
	LsnWaiter **heap;			/* binary heap, smallest target first */
	LsnWaiter	waiters[FLEXIBLE_ARRAY_MEMBER]; /* by process number */
} LsnTrackerState;

/* No WAL record can end at or behind these, so they are free to mean more. */
#define REPLAY_ENDED	PG_UINT64_MAX
#define NOBODY_WAITS	PG_UINT64_MAX
#define LAST_TARGET		(PG_UINT64_MAX - 1)

extern LsnTrackerState *tracker;

extern void InstallSharedState(void);

/* replay.c: how far replay has come */
extern void WatchRedo(void);
extern void FollowReplay(void);
extern XLogRecPtr TrackedReplayPosition(void);
extern bool NeedsPolling(void);

/* waiters.c: the queue */
extern void AddWaiter(XLogRecPtr target);
extern void RemoveWaiter(void);
extern bool SomebodyWaits(void);
extern bool WakeDueWaiters(bool wait_for_lock);
extern int	CopyWaiters(LsnWaiter *copy);

/* wait.c: the sleep loop and its outcomes */
extern XLogRecPtr TargetRecordEnd(XLogRecPtr target);
extern void CheckTargetOnPrimary(XLogRecPtr target);
extern bool TargetReplayed(XLogRecPtr target);
extern bool WaitForReplay(XLogRecPtr target, int64 timeout);
extern void RaiseTimeout(XLogRecPtr target, int64 timeout);

/* snapshot.c: letting go of a snapshot and taking a fresh one */
extern QueryDesc *LetGoOfSnapshot(FunctionCallInfo fcinfo);
extern void TakeFreshSnapshot(QueryDesc *query);

/* worker.c: the background worker */
extern void RegisterWorker(void);
extern void WakeWorker(void);
extern PGDLLEXPORT void LsnTrackerWorkerMain(Datum main_arg);

#endif							/* LSN_TRACKER_H */
