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
 * lsn_require() answers nothing, so the plan can do without it: a join with a function
 * costs a quick statement a fifth of its time, and the planner all thoughts of parallel
 * workers.  So it is taken out of the statement before that is planned: a constant stands
 * in its place, which the planner makes vanish, and the call itself is kept in an entry
 * of the plan's range table to which no node of the plan refers.  Whatever starts such a
 * plan passes ExecutorStart, where the gate waits or refuses; nothing else would.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat.h"
#include "lsn_tracker.h"

/* What a statement has been found to wait for, and what came of it */
typedef struct StatementTarget
{
	QueryDesc  *query;
	FuncExpr   *function;		/* in its plan, as it was before the wait */
	WaitCall	call;
	bool		reached;
} StatementTarget;

/* Of the running transaction: in its memory, and nothing of an earlier one's */
static List *targets = NIL;
static LocalTransactionId targets_of = InvalidLocalTransactionId;

static planner_hook_type next_planner = NULL;

/* Does an expression depend on more than constants and bound parameters? */
static bool
DependsOnRows(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) || IsA(node, SubLink) || IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) ||
		(IsA(node, Param) && ((Param *) node)->paramkind != PARAM_EXTERN))
		return true;
	return expression_tree_walker(node, DependsOnRows, context);
}

/*
 * Find the value of an argument, in the caller's memory.  Returns false if it
 * can't be known before the statement starts.  Raises the errors of the functions in it.
 */
static bool
EvaluateArgument(Node *argument, ParamListInfo params, NullableDatum *value)
{
	ExprContext *econtext;
	ExprState  *state;
	ResourceOwner owner = CurrentResourceOwner;

	/* most are one of these, and need none of the executor's machinery */
	if (IsA(argument, Const))
	{
		value->value = ((Const *) argument)->constvalue;
		value->isnull = ((Const *) argument)->constisnull;
		return true;
	}
	if (IsA(argument, Param) && params && params->paramFetch == NULL)
	{
		Param	   *param = (Param *) argument;

		if (param->paramkind == PARAM_EXTERN && param->paramid <= params->numParams &&
			params->params[param->paramid - 1].ptype == param->paramtype)
		{
			value->value = params->params[param->paramid - 1].value;
			value->isnull = params->params[param->paramid - 1].isnull;
			return true;
		}
	}
	if (DependsOnRows(argument, NULL) || contain_volatile_functions(argument))
		return false;

	econtext = CreateStandaloneExprContext();
	econtext->ecxt_param_list_info = params;
	state = ExecInitExprWithParams((Expr *) argument, params);
	/* what it locks is released like the rest of what the statement has locked */
	CurrentResourceOwner = CurTransactionResourceOwner;
	/* not in the context's own memory, which goes with it */
	value->value = ExecEvalExpr(state, econtext, &value->isnull);
	CurrentResourceOwner = owner;
	FreeExprContext(econtext, true);
	return true;
}

/*
 * A function in FROM is one that waits: add what it is to wait for.  Returns false if that
 * can't be known before the statement starts.  Raises the errors of the function for
 * arguments that are none.
 */
static bool
AddTarget(QueryDesc *query, FuncExpr *call, PGFunction function)
{
	LOCAL_FCINFO(fcinfo, 2);
	ListCell   *lc;
	int			n = 0;
	StatementTarget *target;
	WaitCall	wait;
	MemoryContext caller;

	InitFunctionCallInfoData(*fcinfo, NULL, list_length(call->args), call->inputcollid, NULL, NULL);
	foreach(lc, call->args)
	{
		if (!EvaluateArgument(lfirst(lc), query->params, &fcinfo->args[n++]))
			return false;
	}
	if (!ReadWaitCall(fcinfo, function, &wait))
		return true;

	caller = MemoryContextSwitchTo(TopTransactionContext);
	target = palloc0(sizeof(StatementTarget));
	target->query = query;
	target->function = call;
	target->call = wait;
	targets = lappend(targets, target);
	MemoryContextSwitchTo(caller);
	return true;
}

/*
 * Does an expression in FROM call one of the functions that wait?  Returns the function,
 * or NULL.
 */
static PGFunction
CalledWaitFunction(Node *expression)
{
	FuncExpr   *call = (FuncExpr *) expression;
	FmgrInfo	flinfo;

	/* nothing of the server's own, nor with arguments that it can't have */
	if (!IsA(expression, FuncExpr) || call->funcid < FirstNormalObjectId || list_length(call->args) > 2)
		return NULL;
	fmgr_info(call->funcid, &flinfo);
	return IsWaitFunction(flinfo.fn_addr) ? flinfo.fn_addr : NULL;
}

static List *CallsTakenOut(PlannedStmt *plan);

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
				Node	   *call = lfirst_node(RangeTblFunction, lc)->funcexpr;
				PGFunction	function = CalledWaitFunction(call);

				/* if not, it will be refused when it is called */
				if (function)
					(void) AddTarget(query, (FuncExpr *) call, function);
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
	foreach(lc, CallsTakenOut(query->plannedstmt))
	{
		FuncExpr   *call = (FuncExpr *) lfirst_node(RangeTblFunction, lc)->funcexpr;

		/* need not be looked up: which of the two it is, its arguments tell */
		if (!AddTarget(query, call, exprType(linitial(call->args)) == PG_LSNOID ? lsn_require : lsn_require_token))
			elog(ERROR, "the arguments of lsn_require() can't be evaluated any more");
	}
	return list_length(targets) > before;
}

/*
 * Has all that FindStatementTargets() has found been replayed, as far as "known"
 * (KnownReplayed()) tells?
 */
bool
AreTargetsKnown(QueryDesc *query, const LsnTarget *known)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		StatementTarget *target = lfirst(lc);

		if (target->query == query && !(target->reached = IsBehind(&target->call.target, known)))
			return false;
	}
	return true;
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
			target->reached = RunWaitCall(&target->call, AT_GATE);
	}
}

/* Calls that have been taken out of a query */
typedef struct CallsOut
{
	List	   *calls;			/* planned, in the form that a range table has them */
	List	   *dependencies;	/* what they depend on */
} CallsOut;

/*
 * Of a query that is to be planned: take the calls of lsn_require() out of its FROM
 * whose arguments are known before it starts, wherever they stand in it.  The planner
 * may drop such a place.
 */
static bool
TakeCallsOut(Node *node, CallsOut *out)
{
	Query	   *query = (Query *) node;
	List	   *relations = NIL;	/* none */
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, TakeCallsOut, out);
	if (query->commandType != CMD_SELECT)
		return false;

	/* most queries have none of these, and are not walked through */
	foreach(lc, query->cteList)
		(void) TakeCallsOut(lfirst_node(CommonTableExpr, lc)->ctequery, out);
	if (query->hasSubLinks)
		(void) query_tree_walker(query, TakeCallsOut, out, QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		RangeTblFunction *in_from;
		FuncExpr   *call;

		if (rte->rtekind == RTE_SUBQUERY)
			(void) TakeCallsOut((Node *) rte->subquery, out);
		if (rte->rtekind != RTE_FUNCTION || rte->funcordinality || list_length(rte->functions) != 1)
			continue;
		in_from = linitial_node(RangeTblFunction, rte->functions);
		call = (FuncExpr *) in_from->funcexpr;
		if (!CalledWaitFunction((Node *) call) || call->funcresulttype != VOIDOID ||
			DependsOnRows((Node *) call->args, NULL) ||
			contain_volatile_functions((Node *) call->args))
			continue;
		/* as where the planner puts a function's body in place of its call */
		if (!MayExecute(call->funcid))
			continue;

		in_from->funcexpr = (Node *) makeConst(VOIDOID, -1, InvalidOid, sizeof(int32), (Datum) 0, false, true);
		in_from = copyObject(in_from);
		in_from->funcexpr = (Node *) expression_planner_with_deps((Expr *) call, &relations, &out->dependencies);
		out->calls = lappend(out->calls, in_from);
	}
	return false;
}

static PlannedStmt *
PlanWithoutCalls(PLANNER_PARAMS)
{
	CallsOut	out = {NIL, NIL};
	bool		only_catalogs = max_staleness >= 0 && ReadsOnlyCatalogs(query);
	PlannedStmt *plan;

	(void) TakeCallsOut((Node *) query, &out);

	plan = next_planner ? next_planner(PLANNER_ARGS) : standard_planner(PLANNER_ARGS);
	if (out.calls != NIL)
	{
		RangeTblEntry *rte = makeNode(RangeTblEntry);

		rte->rtekind = RTE_RESULT;
		rte->eref = makeAlias("lsn_require", NIL);
		rte->functions = out.calls;
		plan->rtable = lappend(plan->rtable, rte);
		plan->invalItems = list_concat(plan->invalItems, out.dependencies);
	}
	MarkPlan(plan, only_catalogs);
	return plan;
}

/*
 * The calls that have been taken out of a plan, or NIL.
 */
static List *
CallsTakenOut(PlannedStmt *plan)
{
	ListCell   *lc;

	foreach(lc, plan->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		/* the server leaves nothing in such an entry */
		if (rte->rtekind == RTE_RESULT && rte->functions != NIL)
			return rte->functions;
	}
	return NIL;
}

/*
 * A query starts in front of which the gate does not wait: raise an error if functions
 * have been taken out of it, which would raise it themselves; or wait for them, with whatever
 * snapshots are held, if lsn_tracker.allow_held_snapshot is on.
 */
void
RefuseStatementTargets(QueryDesc *query)
{
	if (CallsTakenOut(query->plannedstmt) == NIL)
		return;
	if (!allow_held_snapshot)
		RaiseHeld("The statement does not come directly from a client but from a function, a procedure, a DO block, a cursor or another command, which holds a snapshot.");
	if (FindStatementTargets(query))
		AwaitStatementTargets(query);
}

/*
 * To be called from _PG_init; all sessions inherit it.
 */
void
InstallPlanner(void)
{
	next_planner = planner_hook;
	planner_hook = PlanWithoutCalls;
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
 * A function is called in a query: has the gate waited for it?  Then *reached tells whether
 * it had success.  It is known by its place in the plan or, if that has been made anew behind
 * the wait, by what it waits for; "call" is NULL as long as that has not been read.
 */
bool
WasStatementTarget(const QueryDesc *query, const Node *function, const WaitCall *call, bool *reached)
{
	ListCell   *lc;

	if (targets_of != MyLocalTransactionId)
		return false;
	foreach(lc, targets)
	{
		StatementTarget *target = lfirst(lc);

		if (target->query == query &&
			(call ? SameCall(&target->call, call) : (const Node *) target->function == function))
		{
			*reached = target->reached;
			return true;
		}
	}
	return false;
}
