/*-------------------------------------------------------------------------
 *
 * min_lsn.c
 *		SET lsn_tracker.min_lsn: waiting in a command that takes no snapshot.
 *
 * Runs in a client's session.  SET is one of the few commands for which the
 * server takes no snapshot, also in a REPEATABLE READ or SERIALIZABLE
 * transaction, whose one snapshot is then taken by the statement that follows.
 * So it can wait where a function cannot.
 *
 * The wait must not hide in other ways to set a variable: whoever finds a
 * value in SHOW may rely on it having been waited for.  The SET command alone
 * waits; the check hook refuses all the others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xlog.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/guc.h"

#include "lsn_tracker.h"

#define MIN_LSN "lsn_tracker.min_lsn"

static ProcessUtility_hook_type next_ProcessUtility = NULL;

/* Is a SET command, which has waited, about to set the variable? */
static bool in_set_command = false;

/*
 * The variable's check hook.  "" is no minimum, so nothing to wait for.  A
 * parallel worker gets the value for which its leader has waited.
 */
bool
CheckMinLsn(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0' || in_set_command || InitializingParallelWorker)
		return true;

	GUC_check_errcode(ERRCODE_CANT_CHANGE_RUNTIME_PARAM);
	GUC_check_errmsg("parameter \"%s\" can only be set with a SET command: \"%s\"", MIN_LSN, *newval);
	GUC_check_errdetail("Setting it waits for replay, which a configuration file, a connection option, ALTER ROLE or DATABASE, a function's SET clause and set_config() cannot.");
	GUC_check_errhint("Use SET or SET LOCAL in the session that reads, or call lsn_require().");
	return false;
}

/*
 * Wait for a token; time-out is lsn_tracker.default_timeout.  Raises all that
 * lsn_require() raises.
 */
static void
RequireToken(const char *token)
{
	LsnTarget	target = TokenToTarget(token);

	CheckNoSnapshotHeld();

	if (!RecoveryInProgress())
		CheckTargetOnPrimary(&target);
	else if (!WaitForReplay(&target, default_timeout))
		RaiseTimeout(&target, default_timeout);
}

static void
WatchSet(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
		 ProcessUtilityContext context, ParamListInfo params,
		 QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = next_ProcessUtility ? next_ProcessUtility : standard_ProcessUtility;
	VariableSetStmt *set = (VariableSetStmt *) pstmt->utilityStmt;
	char	   *token;

	if (!IsA(set, VariableSetStmt) || set->kind != VAR_SET_VALUE ||
		pg_strcasecmp(set->name, MIN_LSN) != 0)
	{
		next(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		return;
	}

	token = ExtractSetVariableArgs(set);
	if (token[0] != '\0')
		RequireToken(token);

	in_set_command = true;
	PG_TRY();
	{
		next(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_FINALLY();
	{
		in_set_command = false;
	}
	PG_END_TRY();
}

/*
 * To be called from _PG_init; all sessions inherit it.
 */
void
InstallMinLsn(void)
{
	next_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = WatchSet;
}
