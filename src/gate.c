/*-------------------------------------------------------------------------
 *
 * gate.c
 *		The gate in front of a client's statements: who is owed something waits
 *		there, before the statement reads anything.
 *
 * Runs in a client's session; takes no lock of ours.  What is owed is freshness.c's
 * business, how a snapshot is let go of snapshot.c's, the waiting wait.c's.  Here is
 * decided which statements wait, and where:
 *
 *	- a plain SELECT: in ExecutorStart, by whatever protocol;
 *	- EXECUTE, DECLARE CURSOR, COPY TO, EXPLAIN ANALYZE, CALL and DO: in
 *	  ProcessUtility, before they plan or start anything;
 *	- a function call of the fastpath protocol, by which libpq reads large objects:
 *	  when the function is about to be executed;
 *	- BEGIN and SET TRANSACTION that begin a REPEATABLE READ transaction: behind the
 *	  command, which takes no snapshot; the one that the transaction then takes
 *	  is fresh, and it waits once for its whole life.
 *
 * A plain SELECT that reads nothing but catalogs does not wait for a bound.  One that only sets
 * variables does not wait at all: for who can't reach a token it may be the only
 * way to set another one.
 *
 * Once for each command of the client: what functions run does not wait, nor what
 * these commands run in turn (utility_depth, and see snapshot.c).  On a primary
 * there is nothing to replay, but the same statements, and those that write, find out
 * whether what is owed is there.  With lsn_tracker.track_reads the token may be of a read on
 * a standby, which has shown a commit that is not visible on the primary yet: then
 * it waits for that, and the statement gets a fresh snapshot.  Not in a REPEATABLE READ
 * transaction that has one.
 *
 * A session that is owed nothing pays for some comparisons.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaccess.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "replication/walsender.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "lsn_tracker.h"

static ExecutorStart_hook_type next_ExecutorStart = NULL;
static ExecutorRun_hook_type next_ExecutorRun = NULL;
static ProcessUtility_hook_type next_ProcessUtility = NULL;
static object_access_hook_type next_object_access = NULL;

/* How many utility commands we are inside */
static int	utility_depth = 0;

/*
 * In a transaction that has one snapshot for all: how many statements it has begun; 2: or more.
 */
static LocalTransactionId counted_transaction = InvalidLocalTransactionId;
static int	statements;

/* The transaction that has last taken over the snapshot of another one */
static LocalTransactionId importing_transaction = InvalidLocalTransactionId;

static void
CountStatement(void)
{
	if (counted_transaction != MyLocalTransactionId)
	{
		counted_transaction = MyLocalTransactionId;
		statements = 0;
	}
	statements = Min(statements + 1, 2);
}

/*
 * In a REPEATABLE READ or SERIALIZABLE transaction: has no statement begun but the
 * one that asks, if it has passed the gate?  One that has failed there does not
 * count.
 */
bool
IsFirstStatement(bool passed)
{
	return counted_transaction != MyLocalTransactionId ? !passed : statements == (passed ? 1 : 0);
}

/*
 * The transaction in which the last query was started, or a command left locks
 * behind.
 */
static LocalTransactionId used_transaction = InvalidLocalTransactionId;

static bool
UsesImportedSnapshot(void)
{
	return importing_transaction == MyLocalTransactionId;
}

/*
 * Is this session owed something, and one of those that wait for it?
 */
static inline bool
HasToWait(void)
{
	return unlikely(something_owed) && utility_depth == 0 &&
		MyProcPort != NULL && !am_walsender && !UsesImportedSnapshot();
}

/* The user has called no function of ours: say what the error is about. */
static void
SayWhatFor(void *arg)
{
	errcontext("waiting for %s in front of a statement", (const char *) arg);
}

/*
 * Wait for a target, until "timeout" ms (0: no limit) have passed; then an error, or
 * with lsn_tracker.on_timeout = stale a warning, and false.  The same at once (55000) if
 * something else in the session holds a snapshot and there is something to wait for.
 * Raises what Await() raises.
 */
static bool
WaitFor(const LetGo *held, const LsnTarget *target, int64 timeout)
{
	int			elevel = on_timeout == ON_TIMEOUT_STALE ? WARNING : ERROR;

	/* else Await() says so */
	if (elevel == WARNING && RecoveryInProgress() && IsSwitchedOff())
	{
		CountEvent(EVENT_REFUSED);
		ReportSwitchedOff(WARNING);
		return false;
	}

	/*
	 * A transaction's old snapshot is of no use even if there is nothing to
	 * wait for any more.  A cursor's does not hinder a new one.
	 */
	if (held->holder && !allow_held_snapshot && RecoveryInProgress())
	{
		LsnTarget	answer = *target;

		/* the question itself does not depend on replay */
		if (IsQuestion(target) && !IsolationUsesXactSnapshot())
		{
			answer.answer_only = true;
			if (!Await(&answer, timeout, AT_GATE))
			{
				ReportTimeout(elevel, target, timeout);
				return false;
			}
			/* none without a time-out: recovery has ended */
			if (!AnswerTo(&answer, &answer))
				return true;
			answer.answer_only = false;
		}
		if (IsolationUsesXactSnapshot() || !IsReached(&answer))
		{
			ReportHeld(elevel, held->holder);
			return false;
		}
		return true;
	}

	if (!Await(target, timeout, AT_GATE))
	{
		ReportTimeout(elevel, target, timeout);
		return false;
	}
	if (track_reads && !RecoveryInProgress() && !AwaitVisible(target->replay_to, timeout))
	{
		ereport(elevel,
				(errcode(elevel >= ERROR ? ERRCODE_NOT_FRESH : ERRCODE_WARNING),
				 errmsg("timed out after %lld ms while waiting for the commits up to %s to become visible",
						(long long) timeout, TargetToText(target)),
				 errdetail("This server is a primary. A transaction has not ended its commit, and a standby may show it already."),
				 errhint("Check whether commits wait for a synchronous standby.")));
		return false;
	}
	return true;
}

/*
 * Primary: may what is owed have to become visible first, behind the snapshot that the
 * statement has?
 */
static bool
WaitsForVisibility(void)
{
	return token_owed && track_reads && !IsolationUsesXactSnapshot();
}

/* Is it set_config() of constants or parameters? */
static bool
SetsVariable(Node *expr)
{
	ListCell   *lc;

	if (!IsA(expr, FuncExpr) || ((FuncExpr *) expr)->funcid != F_SET_CONFIG)
		return false;
	foreach(lc, ((FuncExpr *) expr)->args)
	{
		Node	   *arg = lfirst(lc);

		while (IsA(arg, RelabelType))
			arg = (Node *) ((RelabelType *) arg)->arg;
		if (!IsA(arg, Const) && !(IsA(arg, Param) && ((Param *) arg)->paramkind == PARAM_EXTERN))
			return false;
	}
	return true;
}

/* Is it a plan of SELECT set_config(...), and nothing else? */
static bool
OnlySetsVariables(PlannedStmt *plan)
{
	Plan	   *top = plan->planTree;
	ListCell   *lc;

	/* planned from nothing: no FROM, no condition, no subquery */
	if (!IsA(top, Result) || top->lefttree || ((Result *) top)->resconstantqual || plan->subplans != NIL)
		return false;
	foreach(lc, top->targetlist)
	{
		if (!SetsVariable((Node *) lfirst_node(TargetEntry, lc)->expr))
			return false;
	}
	return top->targetlist != NIL;
}

/*
 * The token that is owed; returns whether it has been reached, or is read all the same and
 * has given way to another one.
 */
static bool
WaitForToken(const LetGo *held, int64 timeout)
{
	bool		goes_on;

	PG_TRY();
	{
		goes_on = WaitFor(held, OwedTarget(), timeout);
		if (goes_on)
			OwedIsMet();
		/* hindered by a lock or a cursor, it is to be tried again */
		else if (held->holder == NULL)
			goes_on = OwedInVain();
	}
	PG_CATCH();
	{
		switch (geterrcode())
		{
			case ERRCODE_TRANSACTION_ROLLBACK:
			case ERRCODE_NOT_FRESH:
			case ERRCODE_QUERY_CANCELED:
			case ERRCODE_INVALID_PARAMETER_VALUE:
				(void) OwedInVain();
				break;
			default:
				break;
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	return goes_on;
}

/*
 * Wait for what is owed, without a snapshot, at most lsn_tracker.default_timeout: the
 * token, and with "bound" also the bound.  Raises what WaitFor() raises.
 */
static void
WaitForOwed(const LetGo *held, bool bound)
{
	ErrorContextCallback context = {.previous = error_context_stack, .callback = SayWhatFor};
	int64		timeout = default_timeout;
	bool		goes_on = true;

	error_context_stack = &context;
	while (token_owed && goes_on)
	{
		uint64		start = Now();

		context.arg = "lsn_tracker.token";
		goes_on = WaitForToken(held, timeout);
		if (timeout > 0)
			timeout = Max(1, timeout - (int64) ((Now() - start) / MS));
	}
	if (bound && RecoveryInProgress() && BoundOwed())
	{
		LsnTarget	question = BoundTarget();

		context.arg = "lsn_tracker.max_staleness";
		if (WithinBound(&question) && !(held->holder && IsolationUsesXactSnapshot()))
		{
			CountEvent(EVENT_AT_ONCE_AT_GATE);
			BoundIsMet();
		}
		else
		{
			/* if not in time, it may read all the same, and the transaction's others */
			(void) WaitFor(held, &question, timeout);
			BoundIsMet();
		}
	}
	error_context_stack = context.previous;
}

/*
 * Wait for what is owed, if it is, and for the targets of a query, if it has any.
 * Returns whether the locks that were taken for the statement have been released.
 */
static bool
WaitForAll(const LetGo *held, bool owed, bool bound, QueryDesc *query)
{
	volatile bool released = false;

	/* whatever else holds a snapshot may count on its locks */
	if (held->holder == NULL)
		AllowRelease(used_transaction != MyLocalTransactionId);
	PG_TRY();
	{
		if (owed)
			WaitForOwed(held, bound);
		if (query)
			AwaitStatementTargets(query);
	}
	PG_FINALLY();
	{
		released = EndRelease();
	}
	PG_END_TRY();
	return released;
}

/*
 * A query is about to start in a session that is owed something, or that calls
 * functions which may be ours.
 */
static void
WaitBeforeQuery(QueryDesc *query)
{
	/* before arguments are evaluated, which may look, behind the snapshot */
	LsnTarget	known = KnownReplayed();
	bool		owed = something_owed && !UsesImportedSnapshot() && !OnlySetsVariables(query->plannedstmt);
	bool		bound = owed && !IsCatalogPlan(query->plannedstmt);
	bool		clients = IsClientsQuery(query);
	bool		targets = clients && FindStatementTargets(query);
	bool		released;
	LetGo		held = {0};

	/* on a primary any query will do */
	if (owed && !RecoveryInProgress())
	{
		bool		replaced = WaitsForVisibility() && IsOutermostQuery(query);

		if (replaced)
			held = LetGoBeforeQuery(query);
		WaitForOwed(&held, true);
		if (replaced)
		{
			/* a commit that was awaited may have changed tables */
			if (clients && CatalogsHaveChanged())
				PlanAnew(query);
			TakeFreshSnapshot(&held);
		}
		owed = false;
	}
	if (!clients)
		RefuseStatementTargets(query);
	if (owed && clients && !token_owed)
	{
		owed = bound && BoundOwed();
		if (owed && WithinBoundBefore() && !CatalogsHaveChanged())
		{
			CountEvent(EVENT_AT_ONCE_AT_GATE);
			owed = false;
		}
	}
	if (!clients || !(owed || targets))
		return;

	/*
	 * Nothing to wait for, and nothing newer to read: we came to know before the
	 * snapshot was taken.  Not if there is another one that has to be
	 * refused each time, since this would depend on chance.
	 */
	if (!owed && !IsolationUsesXactSnapshot() && ThereAreNoPriorRegisteredSnapshots() &&
		AreTargetsKnown(query, &known) && !CatalogsHaveChanged())
	{
		CountEvent(EVENT_AT_ONCE_AT_GATE);
		return;
	}

	/* a primary has nothing newer than the transaction's snapshot */
	if (!RecoveryInProgress() && IsolationUsesXactSnapshot())
	{
		if (!IsFirstStatement(false) && !allow_held_snapshot)
			RaiseHeld("The transaction's isolation level is REPEATABLE READ or SERIALIZABLE, and it has taken its snapshot already.");
		AwaitStatementTargets(query);
		return;
	}

	held = LetGoBeforeQuery(query);
	/* not only if it has to wait, or the same program would fail by chance */
	if (targets && held.holder && !allow_held_snapshot)
		RaiseHeld(held.holder);

	released = WaitForAll(&held, owed, bound, targets ? query : NULL);
	if (released || CatalogsHaveChanged())
		PlanAnew(query);
	TakeFreshSnapshot(&held);
}

static void
GateExecutorStart(QueryDesc *query, int eflags)
{
	/* the functions of extensions are among what a plan depends on */
	if (unlikely(something_owed || query->plannedstmt->invalItems != NIL) &&
		utility_depth == 0 && MyProcPort != NULL && !am_walsender)
		WaitBeforeQuery(query);
	else if (unlikely(query->plannedstmt->invalItems != NIL) && !(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		RefuseStatementTargets(query);
	/* what is owed nothing does not use up the first place either */
	if (unlikely(IsolationUsesXactSnapshot()) && !OnlySetsVariables(query->plannedstmt) &&
		!(max_staleness >= 0 && IsCatalogPlan(query->plannedstmt)))
		CountStatement();
	if (unlikely(track_reads) && MyProcPort != NULL)
		NoteRead();
	used_transaction = MyLocalTransactionId;

	if (next_ExecutorStart)
		next_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/*
 * A query has fetched rows.  Not when it ends: a portal may be closed behind the
 * parsing of the next statement, whose locks are to be told from its.
 */
static void
GateExecutorRun(EXECUTOR_RUN_PARAMS)
{
	/* rows of a cursor that locks them are newer than its snapshot */
	if (unlikely(track_reads) && MyProcPort != NULL && !RecoveryInProgress())
		NoteRead();

	if (next_ExecutorRun)
		next_ExecutorRun(EXECUTOR_RUN_ARGS);
	else
		standard_ExecutorRun(EXECUTOR_RUN_ARGS);

	if (unlikely(IsTransactionBlock()) && ActivePortal && ActivePortal->queryDesc == query)
		NoteLocks();
}

/* Does EXPLAIN have the option ANALYZE? */
static bool
ExplainsByRunning(ExplainStmt *explain)
{
	bool		analyze = false;
	ListCell   *lc;

	foreach(lc, explain->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "analyze") == 0)
			analyze = defGetBoolean(option);
	}
	return analyze;
}

/*
 * Does a utility command read, on a standby?
 */
static bool
Reads(Node *command)
{
	switch (nodeTag(command))
	{
		case T_ExecuteStmt:
		case T_DeclareCursorStmt:
		case T_CallStmt:
		case T_DoStmt:
			return true;
		case T_CopyStmt:
			return !((CopyStmt *) command)->is_from;
		case T_ExplainStmt:
			return ExplainsByRunning((ExplainStmt *) command);
		default:
			return false;
	}
}

/*
 * Does a command begin a transaction, or say how it is to be?
 */
static bool
BeginsTransaction(Node *command)
{
	if (IsA(command, TransactionStmt))
	{
		TransactionStmt *transaction = (TransactionStmt *) command;

		return transaction->kind == TRANS_STMT_BEGIN || transaction->kind == TRANS_STMT_START;
	}
	if (IsA(command, VariableSetStmt))
	{
		VariableSetStmt *set = (VariableSetStmt *) command;

		return set->kind == VAR_SET_MULTI && strcmp(set->name, "TRANSACTION") == 0;
	}
	return false;
}

static bool
ImportsSnapshot(Node *command)
{
	VariableSetStmt *set = (VariableSetStmt *) command;

	return IsA(command, VariableSetStmt) && set->kind == VAR_SET_MULTI &&
		strcmp(set->name, "TRANSACTION SNAPSHOT") == 0;
}

/*
 * Does a command reset the token, alone or with others?
 */
static bool
ResetsToken(Node *command)
{
	if (IsA(command, DiscardStmt))
		return ((DiscardStmt *) command)->target == DISCARD_ALL;
	if (IsA(command, VariableSetStmt))
	{
		VariableSetStmt *set = (VariableSetStmt *) command;

		return set->kind == VAR_RESET_ALL ||
			((set->kind == VAR_RESET || set->kind == VAR_SET_DEFAULT) &&
			 pg_strcasecmp(set->name, "lsn_tracker.token") == 0);
	}
	return false;
}

/*
 * Is it SHOW lsn_tracker.newest_commit?  Others also look at the variable, in order to list all.
 */
static bool
AsksForNewestCommit(Node *command)
{
	return IsA(command, VariableShowStmt) &&
		pg_strcasecmp(((VariableShowStmt *) command)->name, "lsn_tracker.newest_commit") == 0;
}

static bool
CommitsPrepared(Node *command)
{
	return IsA(command, TransactionStmt) && ((TransactionStmt *) command)->kind == TRANS_STMT_COMMIT_PREPARED;
}

/* Run a utility command, and know that one is run. */
static void
RunUtility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
		   ProcessUtilityContext context, ParamListInfo params,
		   QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = next_ProcessUtility ? next_ProcessUtility : standard_ProcessUtility;

	utility_depth++;
	newest_commit_asked = AsksForNewestCommit(pstmt->utilityStmt);
	/* in a transaction block it fails, and behind a savepoint that may go on for long */
	if (CommitsPrepared(pstmt->utilityStmt) && !IsTransactionBlock())
		MarkFinishing();
	PG_TRY();
	{
		next(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_FINALLY();
	{
		utility_depth--;
		newest_commit_asked = false;
	}
	PG_END_TRY();
}

static void
GateProcessUtility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				   ProcessUtilityContext context, ParamListInfo params,
				   QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *command = pstmt->utilityStmt;
	LetGo		held = {0};

	/* the tree may be gone behind the command */
	bool		begins = BeginsTransaction(command);
	bool		imports = ImportsSnapshot(command);
	bool		resets = ResetsToken(command);
	bool		locally = IsA(command, VariableSetStmt) && ((VariableSetStmt *) command)->is_local;

	if (Reads(command))
	{
		double		waited = -1;

		if (HasToWait())
		{
			if (!RecoveryInProgress() && !WaitsForVisibility())
				WaitForOwed(&held, true);
			else if (LetGoBeforeUtility(&held))
			{
				uint64		start = Now();

				bool		released = WaitForAll(&held, true, true, NULL);

				/* of these, some have been analysed in front of the wait */
				if ((released || CatalogsHaveChanged()) &&
					(IsA(command, ExplainStmt) || IsA(command, DeclareCursorStmt) || IsA(command, CallStmt)))
				{
					pstmt = AnalyzeAnew(pstmt, params);
					readOnlyTree = false;
				}
				TakeFreshSnapshot(&held);
				waited = (Now() - start) / 1e6;
			}
			else if (context == PROCESS_UTILITY_TOPLEVEL)
			{
				/* rather than stale, should another library have its hands in it */
				RaiseHeld("The command holds a snapshot that cannot be replaced.");
			}
		}
		if (IsA(command, ExplainStmt))
			NoteExplainWait(waited);
		if (IsolationUsesXactSnapshot())
			CountStatement();
	}
	/* COPY FROM may tell of rows that are there */
	if (unlikely(track_reads) && MyProcPort != NULL && (Reads(command) || IsA(command, CopyStmt)))
		NoteRead();

	RunUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

	/* not if the command came too late to begin anything */
	if (begins && HasToWait() && IsolationUsesXactSnapshot() && IsFirstStatement(false))
	{
		held = LetGoWithoutStatement();
		WaitForOwed(&held, true);
	}
	if (imports)
	{
		CountStatement();
		importing_transaction = MyLocalTransactionId;
	}
	if (resets && locally)
		(void) ForgetLocalToken();
	else if (resets)
	{
		ForgetToken();
		ForgetNotification();
		ReportToken();
	}
	if (utility_depth == 0)
	{
		NoteCatalogs();
		if (IsTransactionBlock())
		{
			WatchFastpath();
			NoteLocks();
		}
		if (HoldsLocks())
			used_transaction = MyLocalTransactionId;
	}
}

/*
 * A function is about to be executed, or something else happens to an object.
 *
 * Is it a call of the fastpath protocol (HandleFunctionRequest() in fastpath.c)?  These
 * run outside of any portal, and not for a query; functions that the planner calls
 * do so for one.
 */
static void
GateObjectAccess(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (next_object_access)
		next_object_access(access, classId, objectId, subId, arg);

	if (access != OAT_FUNCTION_EXECUTE || ActivePortal != NULL || debug_query_string != NULL ||
		!ActiveSnapshotSet())
		return;

	/* it may leave locks behind, and we don't hear of its end */
	used_transaction = MyLocalTransactionId;
	ForgetLocks();
	if (HasToWait())
	{
		LetGo		held = {0};

		if (!RecoveryInProgress() && !WaitsForVisibility())
			WaitForOwed(&held, true);
		else
		{
			held = LetGoOfActive();
			WaitForOwed(&held, true);
			TakeFreshSnapshot(&held);
		}
	}
	if (IsolationUsesXactSnapshot())
		CountStatement();
	if (track_reads && MyProcPort != NULL)
		NoteRead();
}

/*
 * Watch calls of the fastpath protocol from now on.  Only in sessions where they matter,
 * since the server tells of every function in every query: those that are owed
 * something, or are in a transaction in which they may be later, or track what they
 * read.
 */
void
WatchFastpath(void)
{
	static bool watching = false;

	if (!watching)
	{
		next_object_access = object_access_hook;
		object_access_hook = GateObjectAccess;
		watching = true;
	}
}

/*
 * To be called from _PG_init; all sessions inherit it.
 */
void
InstallGate(void)
{
	next_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = GateExecutorStart;
	next_ExecutorRun = ExecutorRun_hook;
	ExecutorRun_hook = GateExecutorRun;
	next_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = GateProcessUtility;
}
