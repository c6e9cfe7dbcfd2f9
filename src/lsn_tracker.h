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

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "executor/execdesc.h"
#include "fmgr.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lockdefs.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/portal.h"

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
extern bool report_commits;
extern bool track_reads;

/* What a session waits for: a place in the WAL, or the end of a transaction. */
typedef struct LsnTarget
{
	XLogRecPtr	lsn;			/* the end of the record that was asked for */
	XLogRecPtr	replay_to;		/* reached when replay is at or past this */
	TimeLineID	timeline;		/* of which lsn is a position; 0: of any */
	XLogRecPtr	flushed;		/* if valid: lsn was not, WAL was up to here */
	FullTransactionId xid;		/* if valid: this one, instead of the above */
} LsnTarget;

/* shared_state.c: the shared memory */

/* A session's place in the queue; one for every possible backend. */
typedef struct LsnWaiter
{
	XLogRecPtr	wake_at;		/* woken when replay reaches this */
	LsnTarget	target;			/* what it waits for in the end */
	int			heap_index;		/* place in heap[], NOT_QUEUED if in none */
	int			next_of_xid;	/* in the chain of its xid_chains[], or NOBODY */
	int			pid;
	Latch	   *latch;
	volatile bool holds_locks;	/* may have to give way to replay, see locks.c */
} LsnWaiter;

#define NOT_QUEUED (-1)
#define NOBODY (-1)

#define MAX_RESTARTS 16

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

	/*
	 * The end of the last record behind which a position alone does not tell
	 * who is due.  All who wait for a token are to look again, since it may
	 * have changed the timeline; or all who wait for a transaction, since it
	 * ended one and the queue was busy.  The second of each pair says up to
	 * where they have been told to.  Written by whoever follows replay and,
	 * under the lock, by whoever tells them.
	 */
	pg_atomic_uint64 tokens_look_again;
	pg_atomic_uint64 tokens_looked_again;
	pg_atomic_uint64 xacts_look_again;
	pg_atomic_uint64 xacts_looked_again;

	/*
	 * Where the primary began to write WAL again after a restart, the last few
	 * in turn; see token.c.  Written by the startup process, which counts each
	 * after it has written it.
	 */
	pg_atomic_uint64 restarts[MAX_RESTARTS];
	pg_atomic_uint32 n_restarts;

	pg_atomic_uint32 xact_waiters;	/* how many wait for a transaction */

	/*
	 * How many have been taken out of the queue by others and have not left it
	 * yet; see waiters.c.  In a crowd, everybody writes this: not into the line
	 * from which everybody reads the words above.
	 */
	char		pad3[PG_CACHE_LINE_SIZE];
	pg_atomic_uint32 on_their_way;

	/*
	 * Which relation replay is about to lock, and how many sleep with locks of
	 * their own; see locks.c.  Touched when replay meets DDL, and by sessions
	 * that hold locks.
	 */
	pg_atomic_uint64 wanted_relation;
	pg_atomic_uint32 lock_holders;

	LWLock	   *lock;			/* protects the queue: waiters[], heap[],
								 * xid_chains[] */
	Latch	   *volatile worker_latch;	/* NULL while the worker is away */
	bool		warned_unconfigured;	/* the worker's own, see worker.c */

	int			heap_size;
	LsnWaiter **heap;			/* binary heap, smallest wake_at first */
	int			n_xid_chains;	/* a power of two */
	volatile int *xid_chains;	/* by low bits of the xid: a waiter's number */
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
extern void AwaitPublication(void);
extern XLogRecPtr TrackedReplayPosition(void);
extern bool NeedsPolling(void);

/* waiters.c: the queue */
extern void AddWaiter(const LsnTarget *target, XLogRecPtr wake_at);
extern bool InQueue(XLogRecPtr wake_at);
extern void RemoveWaiter(void);
extern bool SomebodyWaits(void);
extern void WakeWorker(void);
extern bool WakeDueWaiters(bool is_worker);
extern bool BringXactWaitersForward(TransactionId xid, int nsubxids, const TransactionId *subxids,
									XLogRecPtr record_end);
extern bool SomebodyDue(void);
extern void BringEndedXactsForward(void);
extern void PromptDueWaiters(bool everybody);
extern int	CopyWaiters(LsnWaiter *copy);

/* token.c: reading, writing and judging tokens */
extern LsnTarget LsnToTarget(XLogRecPtr lsn);
extern bool IsToken(const char *token, LsnTarget *target);
extern LsnTarget TokenToTarget(const char *token);
extern LsnTarget XactToTarget(FullTransactionId xid);
extern char *TargetToText(const LsnTarget *target);
extern bool InHistory(const LsnTarget *target, TimeLineID current);
extern void NoteRestart(XLogRecPtr lsn);
extern void RaiseLost(const LsnTarget *target, TimeLineID current, XLogRecPtr left_at);

/* xact.c: what has become of a transaction */
typedef enum XactState
{
	XACT_UNSEEN,				/* this server has not heard of it yet */
	XACT_RUNNING,				/* in progress, or prepared */
	XACT_COMMITTED				/* and visible to snapshots taken from now on */
} XactState;

extern XactState GetXactState(FullTransactionId xid);
extern bool XactHasEnded(FullTransactionId xid);

/* wait.c: the sleep loop and its outcomes */

/*
 * Not fresh enough in time: of the class "object not in prerequisite state", with
 * a code of our own, so that a client can tell it from a cancel and from a
 * statement_timeout (57014) and ask the primary instead.
 */
#define ERRCODE_NOT_FRESH MAKE_SQLSTATE('5', '5', 'L', '0', '1')

/* What a look at replay has told of a target that is not reached */
typedef struct Outlook
{
	XLogRecPtr	wake_at;		/* until replay is here, no other look is worth it */
	XLogRecPtr	replayed;		/* where replay was; 0 if that was not asked for */
} Outlook;

extern bool TargetReached(const LsnTarget *target, Outlook *outlook);
extern bool IsReached(const LsnTarget *target);
extern bool Await(const LsnTarget *target, int64 timeout);
extern void RaiseTimeout(const LsnTarget *target, int64 timeout);

/* locks.c: out of replay's way */
extern void StepAside(void);
extern void StepBack(void);
extern void StepBackByError(void);
extern void GiveWayToReplay(void);
extern void AllowRelease(bool allow);
extern bool LocksWereReleased(void);
extern void AnnounceLocks(const xl_standby_lock *locks, int nlocks);
extern void WithdrawAnnouncement(void);
extern void LookForLockRequest(void);

/* snapshot.c: letting go of a snapshot and taking a fresh one */

/* What has been let go of; all NULL: nothing */
typedef struct LetGo
{
	QueryDesc  *query;			/* this query's snapshot */
	bool		running;		/* ... which the executor has, too */
	Portal		portal;			/* or this portal's, for a utility command */
	bool		hold;			/* ... which has it registered */
	bool		active;			/* or one that is only active */
	const char *holder;			/* what still holds one, NULL if nothing */
} LetGo;

extern QueryDesc *CallingSelect(FunctionCallInfo fcinfo);
extern bool IsClientsQuery(QueryDesc *query);
extern LetGo LetGoInFunction(FunctionCallInfo fcinfo);
extern LetGo LetGoBeforeQuery(QueryDesc *query);
extern bool LetGoBeforeUtility(LetGo *held);
extern LetGo LetGoOfActive(void);
extern LetGo LetGoWithoutStatement(void);
extern void RaiseHeld(const char *holder);
extern void TakeFreshSnapshot(const LetGo *held);

/* gate.c: statements that wait before they start */
extern bool IsFirstStatement(bool passed);
extern void InstallGate(void);

/* plan.c: planning a statement anew */
extern void NoteCatalogs(void);
extern bool CatalogsHaveChanged(void);
extern void PlanAnew(QueryDesc *query);
extern PlannedStmt *AnalyzeAnew(PlannedStmt *statement, ParamListInfo params);

/* functions.c: the SQL-callable functions */

/* A call of a function that waits */
typedef struct WaitCall
{
	bool		required;		/* to time out is an error */
	LsnTarget	target;
	int64		timeout;		/* ms, 0: no limit */
} WaitCall;

extern bool IsWaitFunction(PGFunction function);
extern bool ReadWaitCall(FunctionCallInfo fcinfo, PGFunction function, WaitCall *call);
extern bool RunWaitCall(const WaitCall *call);
extern void ForgetNotification(void);

/* statement_target.c: targets in a statement's FROM */
extern bool FindStatementTargets(QueryDesc *query);
extern void AwaitStatementTargets(QueryDesc *query);
extern bool WasStatementTarget(const QueryDesc *query, const WaitCall *call, bool *reached);

/* freshness.c: what a session is owed */
extern bool something_owed;

extern bool CheckToken(char **newval, void **extra, GucSource source);
extern void AssignToken(const char *newval, void *extra);
extern const char *ShowToken(void);
extern void ReportToken(void);
extern void NoteKnown(const LsnTarget *target);
extern void NoteRead(void);
extern void ForgetToken(void);
extern const LsnTarget *OwedTarget(void);
extern void OwedIsMet(void);

/* commit_position.c: where a session's own commits end */
extern char *LastCommitToken(void);
extern void ForgetLastCommit(void);
extern void InstallCommitPosition(void);

/* worker.c: the background worker */
extern void RegisterWorker(void);
extern PGDLLEXPORT void LsnTrackerWorkerMain(Datum main_arg);

#endif							/* LSN_TRACKER_H */
