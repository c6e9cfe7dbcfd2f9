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
 * Once for each command of the client: what functions run does not wait, nor what
 * these commands run in turn (utility_depth, and see snapshot.c).  On a primary
 * there is nothing to wait for, but the same statements find out whether what
 * is owed is there.
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
static ProcessUtility_hook_type next_ProcessUtility = NULL;
static object_access_hook_type next_object_access = NULL;

/* How many utility commands we are inside */
static int	utility_depth = 0;

/*
 * In a transaction that has one snapshot for all: how many statements it has begun,
 * or MANY if it uses the snapshot of another one.
 */
static LocalTransactionId counted_transaction = InvalidLocalTransactionId;
static int	statements;

#define MANY 1000000

static void
CountStatements(int n)
{
	if (counted_transaction != MyLocalTransactionId)
	{
		counted_transaction = MyLocalTransactionId;
		statements = 0;
	}
	statements = Min(statements + n, MANY);
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
	return counted_transaction == MyLocalTransactionId && statements >= MANY;
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
	errcontext("waiting for lsn_tracker.token in front of a statement");
}

/*
 * Wait for what is owed, without a snapshot.  Raises what Await() raises, 55L01
 * when lsn_tracker.default_timeout has passed, and 55000 if something else in the
 * session holds a snapshot and there is something to wait for.
 */
static void
WaitForOwed(const LetGo *held)
{
	const LsnTarget *target = OwedTarget();
	ErrorContextCallback context = {.previous = error_context_stack, .callback = SayWhatFor};

	error_context_stack = &context;

	/*
	 * A transaction's old snapshot is of no use even if there is nothing to
	 * wait for any more.  A cursor's does not hinder a new one.
	 */
	if (held->holder && !allow_held_snapshot &&
		(IsolationUsesXactSnapshot() || !IsReached(target)))
		RaiseHeld(held->holder);

	if (!Await(target, default_timeout))
		RaiseTimeout(target, default_timeout);
	error_context_stack = context.previous;
	OwedIsMet();
}

/*
 * Wait for what is owed, if it is, and for the targets of a query, if it has any.
 * Returns whether the locks that were taken for the statement have been released.
 */
static bool
WaitForAll(const LetGo *held, bool owed, QueryDesc *query)
{
	volatile bool released = false;

	/*
	 * Locks of this statement alone can be released; those of earlier ones
	 * can't be told from them, nor may be.
	 */
	AllowRelease(held->holder == NULL && used_transaction != MyLocalTransactionId);
	PG_TRY();
	{
		if (owed)
			WaitForOwed(held);
		if (query)
			AwaitStatementTargets(query);
		released = LocksWereReleased();
	}
	PG_FINALLY();
	{
		AllowRelease(false);
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
	bool		owed = something_owed && !UsesImportedSnapshot();
	bool		clients = IsClientsQuery(query);
	bool		targets = clients && FindStatementTargets(query);
	bool		released;
	LetGo		held = {0};

	/* on a primary nothing is waited for: any query will do, as it is */
	if (owed && !RecoveryInProgress())
	{
		WaitForOwed(&held);
		owed = false;
	}
	if (!clients || !(owed || targets))
		return;

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

	released = WaitForAll(&held, owed, targets ? query : NULL);
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
	if (unlikely(IsolationUsesXactSnapshot()))
		CountStatements(1);
	if (unlikely(track_reads) && MyProcPort != NULL && RecoveryInProgress())
		NoteRead();
	used_transaction = MyLocalTransactionId;

	if (next_ExecutorStart)
		next_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
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

/* Run a utility command, and know that one is run. */
static void
RunUtility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
		   ProcessUtilityContext context, ParamListInfo params,
		   QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = next_ProcessUtility ? next_ProcessUtility : standard_ProcessUtility;

	utility_depth++;
	PG_TRY();
	{
		next(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_FINALLY();
	{
		utility_depth--;
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

	if (Reads(command))
	{
		if (HasToWait())
		{
			if (!RecoveryInProgress())
				WaitForOwed(&held);
			else if (LetGoBeforeUtility(&held))
			{
				/* of these, EXPLAIN and DECLARE CURSOR have locked something */
				if (WaitForAll(&held, true, NULL) &&
					(IsA(command, ExplainStmt) || IsA(command, DeclareCursorStmt)))
				{
					pstmt = AnalyzeAnew(pstmt, params);
					readOnlyTree = false;
				}
				TakeFreshSnapshot(&held);
			}
			else if (context == PROCESS_UTILITY_TOPLEVEL)
			{
				/* rather than stale, should another library have its hands in it */
				RaiseHeld("The command holds a snapshot that cannot be replaced.");
			}
		}
		if (IsolationUsesXactSnapshot())
			CountStatements(1);
		if (unlikely(track_reads) && MyProcPort != NULL && RecoveryInProgress())
			NoteRead();
	}

	RunUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

	/* not if the command came too late to begin anything */
	if (begins && HasToWait() && IsolationUsesXactSnapshot() && IsFirstStatement(false))
	{
		held = LetGoWithoutStatement();
		WaitForOwed(&held);
	}
	if (imports)
		CountStatements(MANY);
	if (resets)
	{
		ForgetToken();
		ForgetNotification();
		ReportToken();
	}
	if (utility_depth == 0)
	{
		NoteCatalogs();
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
	if (HasToWait())
	{
		LetGo		held = {0};

		if (!RecoveryInProgress())
			WaitForOwed(&held);
		else
		{
			held = LetGoOfActive();
			WaitForOwed(&held);
			TakeFreshSnapshot(&held);
		}
	}
	if (IsolationUsesXactSnapshot())
		CountStatements(1);
}

/*
 * To be called from _PG_init; all sessions inherit it.
 */
void
InstallGate(void)
{
	next_object_access = object_access_hook;
	object_access_hook = GateObjectAccess;
	next_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = GateExecutorStart;
	next_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = GateProcessUtility;
}
