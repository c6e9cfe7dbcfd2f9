/*-------------------------------------------------------------------------
 *
 * hooks.c
 *		Another library with hooks in the executor, in utility commands and in
 *		front of functions.
 *
 * What it does is set by other.mode.  "say": a NOTICE on the way in and out,
 * with the first transaction that the statement's snapshot does not see, 0 if there is
 * none.  "fail on the way in", "fail on the way out": an error.  In ExecutorStart
 * alone, "query" and "read-only query": run one of its own; "register" and "push": hold
 * on to the snapshot while the statement starts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static char *mode;
static bool in_query = false;
static ExecutorStart_hook_type next_ExecutorStart = NULL;
static ProcessUtility_hook_type next_ProcessUtility = NULL;
static object_access_hook_type next_object_access = NULL;

static void
Pass(const char *where, bool out, Snapshot snapshot)
{
	const char *way = out ? "out" : "in";

	if (MyProcPort == NULL || in_query)
		return;
	if (strcmp(mode, "say") == 0)
		ereport(NOTICE, (errmsg("other: %s, %s, %u", where, way, snapshot ? snapshot->xmax : 0)));
	if (strcmp(mode, psprintf("fail on the way %s", way)) == 0)
		ereport(ERROR, (errmsg("other: %s fails on the way %s", where, way)));
}

static Snapshot
Active(void)
{
	return ActiveSnapshotSet() ? GetActiveSnapshot() : NULL;
}

static bool
Has(const char *wanted)
{
	return MyProcPort != NULL && !in_query && strcmp(mode, wanted) == 0;
}

/* As a library does that keeps its rules in a table */
static void
RunQuery(bool read_only)
{
	in_query = true;
	PG_TRY();
	{
		if (read_only)
		{
			DirectFunctionCall1(pg_advisory_lock_shared_int8, Int64GetDatum(1));
			DirectFunctionCall1(pg_advisory_unlock_shared_int8, Int64GetDatum(1));
		}
		SPI_connect();
		SPI_execute("SELECT count(*) FROM t", read_only, 0);
		SPI_finish();
	}
	PG_FINALLY();
	{
		in_query = false;
	}
	PG_END_TRY();
}

static void
OtherExecutorStart(QueryDesc *query, int eflags)
{
	Snapshot	registered = NULL;
	bool		pushed = Has("push");

	Pass("ExecutorStart", false, query->snapshot);
	if (Has("query") || Has("read-only query"))
		RunQuery(Has("read-only query"));
	if (Has("register"))
		registered = RegisterSnapshot(GetActiveSnapshot());
	if (pushed)
		PushActiveSnapshot(GetActiveSnapshot());

	if (next_ExecutorStart)
		next_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);

	if (pushed)
		PopActiveSnapshot();
	if (registered)
		UnregisterSnapshot(registered);
	Pass("ExecutorStart", true, query->snapshot);
}

static void
OtherProcessUtility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
					ProcessUtilityContext context, ParamListInfo params,
					QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	/* so that it can be told to stop */
	bool		passes = IsA(pstmt->utilityStmt, VariableSetStmt) || IsA(pstmt->utilityStmt, TransactionStmt);

	if (!passes)
		Pass("ProcessUtility", false, Active());
	if (next_ProcessUtility)
		next_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	if (!passes)
		Pass("ProcessUtility", true, Active());
}

static void
OtherObjectAccess(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (next_object_access)
		next_object_access(access, classId, objectId, subId, arg);

	/* those of the fastpath protocol */
	if (access == OAT_FUNCTION_EXECUTE && ActivePortal == NULL && debug_query_string == NULL)
		Pass("function", false, Active());
}

void
_PG_init(void)
{
	DefineCustomStringVariable("other.mode", "What the hooks do.", NULL, &mode, "", PGC_USERSET, 0, NULL, NULL, NULL);
	next_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = OtherExecutorStart;
	next_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = OtherProcessUtility;
	next_object_access = object_access_hook;
	object_access_hook = OtherObjectAccess;
}
