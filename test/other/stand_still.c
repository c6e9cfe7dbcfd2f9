/*-------------------------------------------------------------------------
 *
 * stand_still.c
 *		Holds a client's statement in a moment that is too short to be met.
 *
 * With stand_still.at = "parsed" or "planned", once it has been analysed or planned a
 * statement waits until advisory lock 1 is free.  It has its locks and a snapshot then, and
 * has not come to the executor.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "optimizer/planner.h"
#include "parser/analyze.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static char *at;
static post_parse_analyze_hook_type next_analyze = NULL;
static planner_hook_type next_planner = NULL;

static void
StandStill(const char *here)
{
	if (MyProcPort == NULL || strcmp(at, here) != 0)
		return;
	DirectFunctionCall1(pg_advisory_lock_shared_int8, Int64GetDatum(1));
	DirectFunctionCall1(pg_advisory_unlock_shared_int8, Int64GetDatum(1));
}

/* 19 has changed what both hooks are given. */
#if PG_VERSION_NUM >= 190000
#define JUMBLE const JumbleState
#define EXPLAIN_PARAM , ExplainState *es
#define EXPLAIN_ARG , es
#else
#define JUMBLE JumbleState
#define EXPLAIN_PARAM
#define EXPLAIN_ARG
#endif

static void
Analyzed(ParseState *pstate, Query *query, JUMBLE *jstate)
{
	if (next_analyze)
		next_analyze(pstate, query, jstate);
	StandStill("parsed");
}

static PlannedStmt *
Planned(Query *parse, const char *query_string, int cursor_options, ParamListInfo params EXPLAIN_PARAM)
{
	planner_hook_type next = next_planner ? next_planner : standard_planner;
	PlannedStmt *plan = next(parse, query_string, cursor_options, params EXPLAIN_ARG);

	StandStill("planned");
	return plan;
}

void
_PG_init(void)
{
	DefineCustomStringVariable("stand_still.at", "Where statements stand still.", NULL, &at, "", PGC_USERSET, 0, NULL, NULL, NULL);
	next_analyze = post_parse_analyze_hook;
	post_parse_analyze_hook = Analyzed;
	next_planner = planner_hook;
	planner_hook = Planned;
}
