/*-------------------------------------------------------------------------
 *
 * statement_target.c
 *		A target in the statement: SELECT ... FROM orders, lsn_require($1, $2).
 *
 * Runs in a client's session; no lock.
 *
 * A function that is called while a statement reads a table can't wait: the
 * statement needs its snapshot by then.  But if the function stands in FROM, and its
 * arguments are constants or bound parameters, it is known what it is to wait for
 * before the statement starts.  So the gate waits for it (gate.c), gives the statement
 * a fresh snapshot, and the function, when it is called in the plan, finds here
 * what came of that, and answers alike: without waiting again, also if it had timed
 * out.
 *
 * The functions in FROM are the plan's FunctionScan nodes.  Where in the plan they
 * stand does not matter, also if that place is never reached: who writes such a
 * statement asks for it as a whole to be fresh.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "lsn_tracker.h"

/* What a statement has been found to wait for, and what came of it */
typedef struct StatementTarget
{
	QueryDesc  *query;
	WaitCall	call;
	bool		reached;
} StatementTarget;

/* Of the running transaction: in its memory, and nothing of an earlier one's */
static List *targets = NIL;
static LocalTransactionId targets_of = InvalidLocalTransactionId;

/* Does an expression depend on nothing but constants and bound parameters? */
static bool
DependsOnRows(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) || IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) ||
		(IsA(node, Param) && ((Param *) node)->paramkind != PARAM_EXTERN))
		return true;
	return expression_tree_walker(node, DependsOnRows, context);
}

/*
 * If a function in FROM is one that waits, add what it is to wait for.  Raises the
 * errors of the function for arguments that are none.
 */
static void
AddTarget(QueryDesc *query, FuncExpr *function)
{
	FmgrInfo	flinfo;
	LOCAL_FCINFO(fcinfo, 2);
	ExprContext *econtext;
	ListCell   *lc;
	int			n = 0;
	StatementTarget *target;
	WaitCall	call;
	MemoryContext caller;

	/* nothing of the server's own, nor with arguments that it can't have */
	if (function->funcid < FirstNormalObjectId || list_length(function->args) > 2)
		return;
	fmgr_info(function->funcid, &flinfo);
	if (!IsWaitFunction(flinfo.fn_addr) ||
		DependsOnRows((Node *) function->args, NULL) ||
		contain_volatile_functions((Node *) function->args))
		return;

	econtext = CreateStandaloneExprContext();
	econtext->ecxt_param_list_info = query->params;
	InitFunctionCallInfoData(*fcinfo, &flinfo, list_length(function->args), function->inputcollid, NULL, NULL);
	foreach(lc, function->args)
	{
		ExprState  *state = ExecInitExprWithParams(lfirst(lc), query->params);

		fcinfo->args[n].value = ExecEvalExprSwitchContext(state, econtext, &fcinfo->args[n].isnull);
		n++;
	}
	if (ReadWaitCall(fcinfo, flinfo.fn_addr, &call))
	{
		caller = MemoryContextSwitchTo(TopTransactionContext);
		target = palloc0(sizeof(StatementTarget));
		target->query = query;
		target->call = call;
		targets = lappend(targets, target);
		MemoryContextSwitchTo(caller);
	}
	FreeExprContext(econtext, true);
}

static void
AddTargetsOfPlan(QueryDesc *query, Plan *plan)
{
	List	   *children = NIL;
	ListCell   *lc;

	if (plan == NULL)
		return;
	check_stack_depth();

	AddTargetsOfPlan(query, plan->lefttree);
	AddTargetsOfPlan(query, plan->righttree);
	switch (nodeTag(plan))
	{
		case T_FunctionScan:
			foreach(lc, ((FunctionScan *) plan)->functions)
			{
				RangeTblFunction *function = lfirst_node(RangeTblFunction, lc);

				if (IsA(function->funcexpr, FuncExpr))
					AddTarget(query, (FuncExpr *) function->funcexpr);
			}
			break;
		case T_SubqueryScan:
			AddTargetsOfPlan(query, ((SubqueryScan *) plan)->subplan);
			break;
		case T_Append:
			children = ((Append *) plan)->appendplans;
			break;
		case T_MergeAppend:
			children = ((MergeAppend *) plan)->mergeplans;
			break;
		case T_CustomScan:
			children = ((CustomScan *) plan)->custom_plans;
			break;
		default:
			break;
	}
	foreach(lc, children)
		AddTargetsOfPlan(query, lfirst(lc));
}

/*
 * A query is about to start: see whether functions in its FROM are to wait.  Returns
 * whether there are any.  To be called with the query's snapshot still active.
 */
bool
FindStatementTargets(QueryDesc *query)
{
	ListCell   *lc;
	int			before;

	if (targets_of != MyLocalTransactionId)
	{
		targets = NIL;
		targets_of = MyLocalTransactionId;
	}

	/* of an earlier query that was in the same place */
	foreach(lc, targets)
	{
		StatementTarget *target = lfirst(lc);

		if (target->query == query)
		{
			targets = foreach_delete_current(targets, lc);
			pfree(target);
		}
	}

	before = list_length(targets);
	AddTargetsOfPlan(query, query->plannedstmt->planTree);
	foreach(lc, query->plannedstmt->subplans)
		AddTargetsOfPlan(query, lfirst(lc));
	return list_length(targets) > before;
}

/*
 * Wait for what FindStatementTargets() has found.  Raises the errors of the functions.
 */
void
AwaitStatementTargets(QueryDesc *query)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		StatementTarget *target = lfirst(lc);

		if (target->query == query)
			target->reached = RunWaitCall(&target->call);
	}
}

static bool
SameCall(const WaitCall *a, const WaitCall *b)
{
	return a->required == b->required && a->timeout == b->timeout &&
		a->target.lsn == b->target.lsn && a->target.timeline == b->target.timeline &&
		a->target.flushed == b->target.flushed &&
		U64FromFullTransactionId(a->target.xid) == U64FromFullTransactionId(b->target.xid);
}

/*
 * A function is called in a query (NULL: in none that the gate knows): has the gate waited for it?  Then *reached tells
 * whether it had success.
 */
bool
WasStatementTarget(const QueryDesc *query, const WaitCall *call, bool *reached)
{
	ListCell   *lc;

	if (query == NULL || targets_of != MyLocalTransactionId)
		return false;
	foreach(lc, targets)
	{
		StatementTarget *target = lfirst(lc);

		if (target->query == query && SameCall(&target->call, call))
		{
			*reached = target->reached;
			return true;
		}
	}
	return false;
}
