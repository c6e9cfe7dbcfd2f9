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
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

/* lsn_tracker.c: settings */
typedef enum WakeupMode
{
	WAKEUP_REDO,				/* the startup process wakes, after each record */
	WAKEUP_POLL					/* the worker looks, while somebody waits */
} WakeupMode;

extern int	default_timeout;	/* ms, 0: no limit */
extern bool enabled;
extern int	wakeup_mode;		/* WakeupMode */
extern int	poll_interval;		/* ms */
extern bool log_waits;
extern bool allow_held_snapshot;
extern bool report_commits;
extern bool track_reads;
extern bool fail_fast;
extern int	max_staleness;		/* ms, -1: no bound */

typedef enum OnTimeout
{
	ON_TIMEOUT_ERROR,
	ON_TIMEOUT_STALE			/* a statement reads all the same, with a warning */
} OnTimeout;

extern int	on_timeout;			/* OnTimeout */

/*
 * What a session waits for: a place in the WAL, the end of a transaction, or what the
 * primary answers when it is asked for its newest commit.
 */
typedef struct LsnTarget
{
	XLogRecPtr	lsn;			/* the end of the record that was asked for */
	XLogRecPtr	replay_to;		/* reached when replay is at or past this */
	TimeLineID	timeline;		/* of which lsn is a position; 0: of any */
	XLogRecPtr	flushed;		/* if valid: lsn was not, WAL was up to here */
	FullTransactionId xid;		/* if valid: this one, instead of the above */
	uint64		since;			/* if set: an answer to a question that was asked
								 * then or later; lsn 0: not there yet */
	bool		answer_only;	/* ... which is not waited for */
} LsnTarget;

/* How a wait came to be */
typedef enum WayIn
{
	IN_FUNCTION,				/* lsn_wait() and the others; SHOW lsn_tracker.newest_commit */
	AT_GATE						/* in front of a statement */
} WayIn;

/* shared_state.c: the shared memory */

/* A session's place in the queue; one for every possible backend. */
typedef struct LsnWaiter
{
	XLogRecPtr	wake_at;		/* woken when replay reaches this */
	LsnTarget	target;			/* what it waits for in the end */
	int			heap_index;		/* place in heap[], NOT_QUEUED if in none */
	int			next_in_chain;	/* of its xid_chains[], or of questions; or NOBODY */
	int			pid;
	Latch	   *latch;
	WayIn		way;			/* for who asks */
	Oid			role;
	uint64		since;			/* ns */
	int64		timeout;		/* ms, 0: no limit */
	int			woken_by;		/* LsnEvent: by whom it was taken out of the queue */
	volatile bool holds_locks;	/* may have to give way to replay, see locks.c */
} LsnWaiter;

#define NOT_QUEUED (-1)
#define NOBODY (-1)

/*
 * What a process has committed, see newest_commit.c; one for every possible backend.
 * Written at each commit, so each has a cache line for itself.
 */
typedef struct LsnCommitter
{
	pg_atomic_uint64 end;		/* of the last commit that others can see */
	pg_atomic_uint64 written;	/* the commit that is marked ends behind this */
	pg_atomic_uint32 committing;	/* the mark */
	pg_atomic_uint32 telling;	/* others' caches may not know of this commit yet */
	pg_atomic_uint32 finishing; /* runs its so manieth COMMIT PREPARED; 0: none */
	char		pad[PG_CACHE_LINE_SIZE - 2 * sizeof(pg_atomic_uint64) - 3 * sizeof(pg_atomic_uint32)];
} LsnCommitter;

#define MAX_RESTARTS 16

/* What the primary has answered, see staleness.c. */
typedef struct LsnAnswer
{
	uint64		asked_at;		/* ns */
	XLogRecPtr	lsn;
	TimeLineID	timeline;
} LsnAnswer;

#define MAX_ANSWERS 128

/*
 * The link to the primary, see primary_link.c.  All but the last three under the
 * lock of the queue.
 */
typedef struct LsnLink
{
	int			questions;		/* who waits for an answer: a chain, or NOBODY */
	LsnTarget	answer;			/* the newest */
	char		problem[256];	/* why there is no newer one; '': none is known */
	pg_atomic_uint32 refresh;	/* to be asked, although nobody waits for it */
	pg_atomic_uint32 busy;		/* the worker will look for questions by itself */
	Latch	   *volatile latch; /* NULL while the worker is away */
} LsnLink;

/* What is counted, see stats.c */
typedef enum LsnEvent
{
	EVENT_AT_ONCE_IN_FUNCTION,		/* a wait that has not slept */
	EVENT_AT_ONCE_AT_GATE,
	EVENT_SLEPT_IN_FUNCTION,
	EVENT_SLEPT_AT_GATE,
	EVENT_TIMED_OUT,
	EVENT_FAILED_FAST,			/* given up before its time was up */
	EVENT_LOST,
	EVENT_RECOVERY_ENDED,
	EVENT_CANCELLED,
	EVENT_GAVE_WAY,					/* to a lock that replay needs */
	EVENT_REFUSED,					/* a snapshot is held */
	EVENT_WOKEN_BY_STARTUP,
	EVENT_WOKEN_BY_WORKER,
	EVENT_WOKEN_BY_SESSION,
	EVENT_ASKED,						/* the primary */
	EVENT_ANSWERED,
	EVENT_UNANSWERED,
	N_EVENTS
} LsnEvent;

/* What is measured */
typedef enum LsnMetric
{
	METRIC_FUNCTION,			/* how long waits have lasted, as WayIn */
	METRIC_GATE,
	METRIC_QUESTION,			/* until the primary has answered */
	N_METRICS
} LsnMetric;

#define N_BUCKETS 19

/* What a process has counted, in cache lines of its own */
typedef struct LsnCounters
{
	pg_atomic_uint64 events[N_EVENTS];
	pg_atomic_uint64 buckets[N_METRICS][N_BUCKETS];
	pg_atomic_uint64 time[N_METRICS];	/* ns */
	pg_atomic_uint64 longest[N_METRICS];	/* ns */
	pg_atomic_uint32 longest_since; /* so many resets */
	char		pad[PG_CACHE_LINE_SIZE];
} LsnCounters;

/* What all of them have */
typedef struct LsnSums
{
	uint64		events[N_EVENTS];
	uint64		buckets[N_METRICS][N_BUCKETS];
	uint64		time[N_METRICS];
	uint64		longest[N_METRICS];
	int			waiting;
	int			most_waiting;
	TimestampTz reset_at;
} LsnSums;

/* Under the lock of the queue, but for what is atomic */
typedef struct LsnStats
{
	pg_atomic_uint32 resets;
	LsnSums		at_reset;
	int			most_waiting;	/* most at once since then */
	TimestampTz reset_at;
} LsnStats;

/* What a session has seen of replay, see forecast.c */
typedef struct LsnSample
{
	uint64		at;				/* ns */
	XLogRecPtr	replayed;
	TimeLineID	timeline;
	bool		unhindered;		/* neither paused nor delayed on purpose */
	XLogRecPtr	received;		/* by the WAL receiver, and flushed */
	bool		no_receiver;
	bool		applying;		/* is a record being applied, or in the way of sessions? */
} LsnSample;

#define MAX_SAMPLES 128

/* How fast WAL is replayed.  Under a lock of its own. */
typedef struct LsnForecast
{
	LWLock	   *lock;
	pg_atomic_uint64 sampled_at;	/* when the last sample was taken; also read without */
	int			n;
	LsnSample	samples[MAX_SAMPLES];	/* oldest first */
	double		fastest;		/* ever, bytes per second */
	uint64		measured;		/* for how long that has been looked for, ns */
} LsnForecast;

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

	/*
	 * The newest commit, see newest_commit.c: what each process has committed,
	 * what has been seen in the entries of prepared transactions, and up to where
	 * everything counts as seen (0: nothing yet).  Only on a primary.
	 */
	LsnCommitter *committers;	/* by process number */
	pg_atomic_uint64 *prepared_seen;
	pg_atomic_uint64 all_noted;

	LsnLink		link;

	/*
	 * How old the data may be, see staleness.c.  Written under the lock of the
	 * queue.
	 */
	int			n_answers;
	LsnAnswer	answers[MAX_ANSWERS];	/* those not replayed yet, oldest first */
	pg_atomic_uint64 answered_since;	/* when the newest was asked, ns */
	pg_atomic_uint64 fresh_since;	/* when the newest was that has been replayed */

	/*
	 * Is lsn_tracker.enabled off?  As the startup process and the worker have read it, each
	 * for itself: so none writes an older value over the other's.
	 */
	pg_atomic_uint32 off_for_startup;
	pg_atomic_uint32 off_for_worker;

	LsnForecast forecast;
	LsnStats	stats;
	LsnCounters *counters;		/* by process number */

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
extern void AssignEnabled(bool newval, void *extra);
extern void NoteEnabledForWorker(void);

/* waiters.c: the queue */
extern void AddWaiter(const LsnTarget *target, XLogRecPtr wake_at);
extern bool InQueue(const LsnTarget *target, XLogRecPtr wake_at);
extern void RemoveWaiter(void);
extern bool SomebodyWaits(void);
extern void WakeWorker(void);
extern bool WakeDueWaiters(bool is_worker);
extern void ReleaseQueue(void);
extern bool BringXactWaitersForward(TransactionId xid, int nsubxids, const TransactionId *subxids,
									XLogRecPtr record_end);
extern bool SomebodyDue(void);
extern void BringEndedXactsForward(void);
extern bool SomebodyAsks(void);
extern void HandOutAnswer(uint64 asked_at, const LsnTarget *answer);
extern bool AnswerTo(const LsnTarget *question, LsnTarget *answer);
extern void PromptDueWaiters(bool everybody);
extern void PromptEverybody(void);
extern int	CopyWaiters(LsnWaiter *copy);

/* token.c: reading, writing and judging tokens */
extern LsnTarget LsnToTarget(XLogRecPtr lsn);
extern bool IsToken(const char *token, LsnTarget *target);
extern LsnTarget TokenToTarget(const char *token);
extern LsnTarget XactToTarget(FullTransactionId xid);
extern char *TargetToText(const LsnTarget *target);
extern bool InHistory(const LsnTarget *target, TimeLineID current);
extern bool IsLost(const LsnTarget *target, TimeLineID current);
extern bool IsLostInCrash(const LsnTarget *target, XLogRecPtr *at);
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
	bool		ask_again;		/* the answer has been lost in a failover */
} Outlook;

extern bool TargetReached(const LsnTarget *target, Outlook *outlook);
extern LsnTarget KnownReplayed(void);
extern bool IsBehind(const LsnTarget *target, const LsnTarget *replayed);
extern bool IsReached(const LsnTarget *target);
extern bool IsSwitchedOff(void);
extern void ReportSwitchedOff(int elevel);
extern bool Await(const LsnTarget *target, int64 timeout, WayIn way);
extern void RaiseTimeout(const LsnTarget *target, int64 timeout);
extern void ReportTimeout(int elevel, const LsnTarget *target, int64 timeout);

/* locks.c: out of replay's way */
extern void StepAside(void);
extern void StepBack(void);
extern void StepBackByError(void);
extern void GiveWayToReplay(void);
extern void NoteLocks(void);
extern void ForgetLocks(void);
extern void AllowRelease(bool first);
extern bool EndRelease(void);
extern void AnnounceLocks(const xl_standby_lock *locks, int nlocks);
extern void WithdrawAnnouncement(void);
extern void LookForLockRequest(void);
extern PGPROC *FindStartupProcess(void);

/* deadlock.c: replay that waits, by way of others, for one who waits for it */
extern long LookForDeadlock(double elapsed, double *next_look);

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
extern bool IsOutermostQuery(QueryDesc *query);
extern bool IsClientsQuery(QueryDesc *query);
extern LetGo LetGoInFunction(FunctionCallInfo fcinfo);
extern LetGo LetGoBeforeQuery(QueryDesc *query);
extern bool LetGoBeforeUtility(LetGo *held);
extern LetGo LetGoOfActive(void);
extern LetGo LetGoWithoutStatement(void);
extern void ReportHeld(int elevel, const char *holder);
extern void RaiseHeld(const char *holder);
extern void TakeFreshSnapshot(const LetGo *held);

/* gate.c: statements that wait before they start */
extern bool IsFirstStatement(bool passed);
extern void WatchFastpath(void);
extern void InstallGate(void);

/* explain.c: what EXPLAIN says of the gate */
extern void NoteExplainWait(double ms);
extern void InstallExplain(void);

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

extern void CheckPreloaded(void);
extern PGDLLEXPORT Datum lsn_require(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum lsn_require_token(PG_FUNCTION_ARGS);
extern bool IsWaitFunction(PGFunction function);
extern bool ReadWaitCall(FunctionCallInfo fcinfo, PGFunction function, WaitCall *call);
extern bool RunWaitCall(const WaitCall *call, WayIn way);
extern void ForgetNotification(void);

/* statement_target.c: targets in a statement's FROM */
extern bool FindStatementTargets(QueryDesc *query);
extern bool AreTargetsKnown(QueryDesc *query, const LsnTarget *known);
extern void AwaitStatementTargets(QueryDesc *query);
extern void RefuseStatementTargets(QueryDesc *query);
extern void InstallPlanner(void);
extern bool WasStatementTarget(const QueryDesc *query, const Node *function, const WaitCall *call, bool *reached);

/* catalog_query.c: queries that read nothing but the catalogs */
extern bool ReadsOnlyCatalogs(Query *query);
extern void MarkPlan(PlannedStmt *plan, bool reads_only_catalogs);
extern bool IsCatalogPlan(PlannedStmt *plan);

/* freshness.c: what a session is owed */
extern bool something_owed;
extern bool token_owed;
extern bool set_locally;

extern bool CheckToken(char **newval, void **extra, GucSource source);
extern void AssignToken(const char *newval, void *extra);
extern const char *ShowToken(void);
extern void ReportToken(void);
extern void NoteKnown(const LsnTarget *target);
extern void NoteRead(void);
extern void ForgetToken(void);
extern bool ForgetLocalToken(void);
extern const LsnTarget *OwedTarget(void);
extern void OwedIsMet(void);
extern bool OwedInVain(void);
extern void JudgeOwed(void);
extern void AssignMaxStaleness(int newval, void *extra);
extern void AssignTrackReads(bool newval, void *extra);
extern bool BoundOwed(void);
extern bool WithinBoundBefore(void);
extern LsnTarget BoundTarget(void);
extern bool WithinBound(const LsnTarget *question);
extern void BoundIsMet(void);

/* commit_position.c: where a session's own commits end */
extern char *LastCommitToken(void);
extern void ForgetLastCommit(void);
extern void InstallCommitPosition(void);

/* newest_commit.c: the newest commit that anybody can have seen */
extern bool newest_commit_asked;

extern const char *ShowNewestCommit(void);
extern LsnTarget ReadUntilNow(void);
extern bool AwaitVisible(XLogRecPtr lsn, int64 timeout);
extern void MarkFinishing(void);
extern void MarkCommitting(TransactionId xid);
extern void MarkCommitted(TransactionId xid);

/* staleness.c: how old this standby's data may be */
#define MS UINT64CONST(1000000) /* in ns */

extern uint64 Now(void);
extern uint64 FreshSince(void);
extern uint64 AnsweredSince(void);
extern void LookAtAnswers(void);
extern void NoteAnswer(uint64 asked_at, const LsnTarget *target);
extern bool FindAnswer(uint64 since, LsnTarget *target);
extern uint64 CommittedAfter(const LsnTarget *target);

/* forecast.c: how fast replay is, and when it will have come to a target */
extern void TakeSample(void);
extern double ReplayRate(LsnSample *now);
extern const char *WhyHopeless(const LsnTarget *target, bool comparable, double left);
extern uint64 BytesToGo(const LsnTarget *target, const LsnSample *now);
extern double SecondsToGo(const LsnTarget *target, const LsnSample *now, double rate);

/* stats.c: what has happened */
extern void CountEvent(LsnEvent event);
extern void CountTime(LsnMetric metric, uint64 ns);
extern void ReadStats(LsnSums *sums);
extern void ResetStats(void);
extern double BucketLimit(int bucket);

/* primary_link.c: asking the primary */
extern char *primary_conninfo;	/* '': the server's own */

extern LsnTarget Question(uint64 since);
extern bool IsQuestion(const LsnTarget *target);
extern void WakeLink(void);
extern void RefreshAnswer(void);
extern void ReportUnanswered(int elevel, int64 timeout);
extern LsnTarget AskPrimary(void);
extern void RegisterLink(void);
extern PGDLLEXPORT void LsnTrackerLinkMain(Datum main_arg);

/* worker.c: the background worker */
extern void RegisterOwnWorker(const char *name, const char *function, int flags);
extern void RegisterWorker(void);
extern PGDLLEXPORT void LsnTrackerWorkerMain(Datum main_arg);

#endif							/* LSN_TRACKER_H */
