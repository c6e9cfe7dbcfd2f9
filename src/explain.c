/*-------------------------------------------------------------------------
 *
 * explain.c
 *		EXPLAIN (ANALYZE) says how long the statement has waited at the gate.
 *
 * Runs in a client's session.  The gate waits in front of the whole command, before the
 * statement is planned, so neither "Planning Time" nor "Execution Time" contains it.
 * Where the server lets libraries add to the output (from 18 on), it is a line there; before,
 * a NOTICE.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "lsn_tracker.h"

#ifdef HAVE_EXPLAIN_HOOK

/* What the EXPLAIN that is about to run has waited, ms; -1: there was nothing to wait for */
static double waited = -1;

static explain_per_plan_hook_type next_per_plan = NULL;

static void
ExplainGateWait(PlannedStmt *plan, IntoClause *into, ExplainState *es, const char *text,
				ParamListInfo params, QueryEnvironment *env)
{
	if (next_per_plan)
		next_per_plan(plan, into, es, text, params, env);
	if (es->analyze && waited >= 0)
		ExplainPropertyFloat("Replay Wait Time", "ms", waited, 3, es);
}

/*
 * An EXPLAIN (ANALYZE) has passed the gate, and waited so many ms there; -1: it was owed
 * nothing.
 */
void
NoteExplainWait(double ms)
{
	waited = ms;
}

/*
 * To be called from _PG_init; all sessions inherit it.
 */
void
InstallExplain(void)
{
	next_per_plan = explain_per_plan_hook;
	explain_per_plan_hook = ExplainGateWait;
}

#else

void
NoteExplainWait(double ms)
{
	if (ms >= 0)
		ereport(NOTICE,
				(errmsg("waited %.3f ms for replay in front of the statement", ms)));
}

void
InstallExplain(void)
{
}

#endif
