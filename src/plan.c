/*-------------------------------------------------------------------------
 *
 * plan.c
 *		Planning a statement anew that has waited in front of its start.
 *
 * Runs in a client's session; takes the locks that a statement takes.
 *
 * A statement is parsed and planned before it comes to the gate, and what is replayed
 * while it waits there, or while it was planned, may make its plan wrong: a
 * partition has been attached, a function replaced that was inlined, a policy changed.
 * Not all of that needs a lock which the statement holds.  Such a plan, under a fresh
 * snapshot, would be a wrong answer.  So if any catalog has changed since the
 * session's last command ended, the statement is parsed and planned anew from its
 * text, behind the wait; as if the client had sent it only now.
 *
 * That any has changed, the session learns with the invalidation messages that redo
 * of a commit sends before it releases the transaction's locks (xact_redo_commit()).
 * The server counts them (SharedInvalidMessageCounter), and looks up names in the same
 * way (RangeVarGetRelidExtended()).  It does not matter what they are about: ANALYZE
 * sends the same as ALTER.  A false alarm costs a plan, for a statement that is
 * owed something new.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "commands/defrem.h"
#include "commands/prepare.h"
#include "executor/executor.h"
#include "nodes/params.h"
#include "storage/sinval.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "lsn_tracker.h"

/* The server's count when the last command ended */
static uint64 known_messages = 0;

/*
 * A command of the client has ended, and nothing of the next one has been parsed.
 */
void
NoteCatalogs(void)
{
	known_messages = SharedInvalidMessageCounter;
}

/*
 * May a statement that has been parsed since then be out of date?
 */
bool
CatalogsHaveChanged(void)
{
	AcceptInvalidationMessages();
	return SharedInvalidMessageCounter != known_messages;
}

/* The statement's own part of what the client has sent */
static char *
TextOf(PlannedStmt *statement, const char *text)
{
	/* unknown, or all of it */
	if (statement->stmt_location < 0 || (statement->stmt_location == 0 && statement->stmt_len == 0))
		return pstrdup(text);
	text += statement->stmt_location;
	return statement->stmt_len > 0 ? pnstrdup(text, statement->stmt_len) : pstrdup(text);
}

static void
RaiseChanged(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("what the statement refers to has changed while it waited for replay"),
			 errhint("Repeat the statement.")));
}

/*
 * Parse and analyse the portal's statement anew; its text is given back in *text.
 * Under an active snapshot, in the portal's memory and with locks that belong where
 * the parser's do.
 */
static List *
Analyze(PlannedStmt *statement, ParamListInfo params, char **text)
{
	Portal		portal = ActivePortal;
	int			nparams = params ? params->numParams : 0;
	Oid		   *types = palloc(nparams * sizeof(Oid));
	RawStmt    *raw = NULL;

	for (int i = 0; i < nparams; i++)
		types[i] = params->params[i].ptype;
	*text = TextOf(statement, portal->sourceText);

	/* a named one may have been sent long ago, under other settings */
	if (portal->prepStmtName && portal->prepStmtName[0] != '\0')
	{
		PreparedStatement *prepared = FetchPreparedStatement(portal->prepStmtName, false);

		if (prepared)
			raw = copyObject(prepared->plansource->raw_parse_tree);
	}
	if (raw == NULL)
	{
		List	   *list = pg_parse_query(*text);

		if (list_length(list) != 1)
			RaiseChanged();
		raw = linitial_node(RawStmt, list);
	}
	return pg_analyze_and_rewrite_fixedparams(raw, *text, types, nparams, NULL);
}

/* Where PlanAnew() and AnalyzeAnew() work, and how to leave */
typedef struct Place
{
	MemoryContext context;
	ResourceOwner owner;
} Place;

static Place
EnterPortal(void)
{
	Place		caller = {CurrentMemoryContext, CurrentResourceOwner};

	MemoryContextSwitchTo(ActivePortal->portalContext);
	CurrentResourceOwner = CurTransactionResourceOwner;
	PushActiveSnapshot(GetTransactionSnapshot());
	return caller;
}

static void
LeavePortal(Place caller)
{
	/* the statement is not to run under these */
	PopActiveSnapshot();
	InvalidateCatalogSnapshot();
	CurrentResourceOwner = caller.owner;
	MemoryContextSwitchTo(caller.context);
}

/*
 * Is it still the result that the client has been told of?
 */
static bool
SameColumns(TupleDesc a, TupleDesc b)
{
	if (a->natts != b->natts)
		return false;
	for (int i = 0; i < a->natts; i++)
	{
		Form_pg_attribute att_a = TupleDescAttr(a, i);
		Form_pg_attribute att_b = TupleDescAttr(b, i);

		if (att_a->atttypid != att_b->atttypid || att_a->atttypmod != att_b->atttypmod)
			return false;
	}
	return true;
}

static bool
SameResult(PlannedStmt *a, PlannedStmt *b)
{
	return SameColumns(ExecCleanTypeFromTL(a->planTree->targetlist), ExecCleanTypeFromTL(b->planTree->targetlist));
}

/*
 * A client's query is about to start, and has let go of its snapshot: plan it anew.
 * Raises what is to be said about the statement by now, and 40001 if its result is no
 * longer what the client has been told.  Takes the locks that it needs.
 */
void
PlanAnew(QueryDesc *query)
{
	Portal		portal = ActivePortal;
	PlannedStmt *old = query->plannedstmt;
	PlannedStmt *new;
	char	   *text;
	List	   *queries;
	List	   *plans;
	Place		caller = EnterPortal();

	queries = Analyze(old, query->params, &text);
	plans = pg_plan_queries(queries, text, CURSOR_OPT_PARALLEL_OK, query->params);
	if (list_length(plans) != 1)
		RaiseChanged();
	new = linitial_node(PlannedStmt, plans);
	if (new->commandType != CMD_SELECT || new->hasModifyingCTE ||
		(portal->cplan != NULL && !SameResult(old, new)))
		RaiseChanged();

	new->queryId = old->queryId;
	new->stmt_location = old->stmt_location;
	new->stmt_len = old->stmt_len;
	query->plannedstmt = new;
	portal->stmts = plans;
	LeavePortal(caller);
}

/* The columns of CALL: those of the procedure's arguments for output, if it has any */
static bool
SameCallResult(Node *a, Node *b)
{
	TupleDesc	desc_a = CallStmtResultDesc(castNode(CallStmt, a));
	TupleDesc	desc_b = CallStmtResultDesc(castNode(CallStmt, b));

	return (desc_a == NULL) == (desc_b == NULL) && (desc_a == NULL || SameColumns(desc_a, desc_b));
}

/*
 * The same for a utility command that contains a query, which is planned later, or calls a
 * procedure.  Returns what is to be run instead.
 */
PlannedStmt *
AnalyzeAnew(PlannedStmt *statement, ParamListInfo params)
{
	PlannedStmt *new;
	char	   *text;
	List	   *queries;
	Place		caller = EnterPortal();

	queries = Analyze(statement, params, &text);
	if (list_length(queries) != 1 || linitial_node(Query, queries)->commandType != CMD_UTILITY)
		RaiseChanged();

	/* the original may be the plan cache's */
	new = makeNode(PlannedStmt);
	*new = *statement;
	new->utilityStmt = linitial_node(Query, queries)->utilityStmt;
	if (IsA(new->utilityStmt, CallStmt) && !SameCallResult(statement->utilityStmt, new->utilityStmt))
		RaiseChanged();
	LeavePortal(caller);
	return new;
}
