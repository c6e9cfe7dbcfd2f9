/*-------------------------------------------------------------------------
 *
 * functions.c
 *		The SQL-callable functions.
 *
 * Run in a client's session.  Each reads its arguments and hands on; this and views.c
 * are the only files that know SQL's calling conventions.  What the functions
 * answer is said in lsn_tracker--*.sql, beside each of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "lsn_tracker.h"

PG_FUNCTION_INFO_V1(lsn_wait);
PG_FUNCTION_INFO_V1(lsn_wait_token);
PG_FUNCTION_INFO_V1(lsn_require);
PG_FUNCTION_INFO_V1(lsn_require_token);
PG_FUNCTION_INFO_V1(lsn_replicated);
PG_FUNCTION_INFO_V1(lsn_replicated_token);
PG_FUNCTION_INFO_V1(lsn_last_replay);
PG_FUNCTION_INFO_V1(lsn_watch);
PG_FUNCTION_INFO_V1(lsn_watch_token);
PG_FUNCTION_INFO_V1(lsn_request_notification);
PG_FUNCTION_INFO_V1(lsn_request_notification_token);
PG_FUNCTION_INFO_V1(lsn_await_notification);
PG_FUNCTION_INFO_V1(lsn_wait_xact);
PG_FUNCTION_INFO_V1(lsn_last_commit);
PG_FUNCTION_INFO_V1(lsn_staleness);

/*
 * What lsn_request_notification() asked for.  The session's own, so it outlives
 * transactions.
 */
static bool notification_requested = false;
static LsnTarget notification_target;

/*
 * DISCARD ALL or RESET: a pooled connection's next client has requested nothing.
 */
void
ForgetNotification(void)
{
	notification_requested = false;
}

/*
 * Raise an error unless the library has been preloaded.
 */
void
CheckPreloaded(void)
{
	if (tracker == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lsn_tracker must be loaded via \"shared_preload_libraries\""),
				 errhint("Add lsn_tracker to \"shared_preload_libraries\" in the configuration of every server of the cluster, and restart it.")));
}

/*
 * A timeout argument in ms; NULL stands for lsn_tracker.default_timeout.
 */
static int64
TimeoutArg(FunctionCallInfo fcinfo, int argno)
{
	int64		timeout;

	if (PG_ARGISNULL(argno))
		return default_timeout;

	timeout = PG_GETARG_INT64(argno);
	if (timeout < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative: %lld", (long long) timeout),
				 errhint("Give milliseconds, 0 for no limit, or NULL for lsn_tracker.default_timeout.")));
	return timeout;
}

/* The first argument, a pg_lsn or a token; it must not be NULL. */
static LsnTarget
LsnArg(FunctionCallInfo fcinfo)
{
	return LsnToTarget(PG_GETARG_LSN(0));
}

static LsnTarget
TokenArg(FunctionCallInfo fcinfo)
{
	return TokenToTarget(text_to_cstring(PG_GETARG_TEXT_PP(0)));
}

/*
 * The functions that take either exist twice in SQL; here is what the two have
 * in common.  get_target is one of the above.
 */
typedef LsnTarget GetTarget(FunctionCallInfo fcinfo);

/*
 * Is this one of the functions that can also stand in FROM (statement_target.c)?
 */
bool
IsWaitFunction(PGFunction function)
{
	return function == lsn_wait || function == lsn_wait_token ||
		function == lsn_require || function == lsn_require_token ||
		function == lsn_wait_xact;
}

/*
 * Read the arguments of one of these.  Returns false if the answer is NULL; raises
 * the errors for arguments that are none.
 */
bool
ReadWaitCall(FunctionCallInfo fcinfo, PGFunction function, WaitCall *call)
{
	CheckPreloaded();
	if (PG_ARGISNULL(0))
		return false;

	call->required = function == lsn_require || function == lsn_require_token;
	if (function == lsn_wait_xact)
		call->target = XactToTarget(PG_GETARG_FULLTRANSACTIONID(0));
	else if (function == lsn_wait || function == lsn_require)
		call->target = LsnArg(fcinfo);
	else
		call->target = TokenArg(fcinfo);
	call->timeout = TimeoutArg(fcinfo, 1);
	return true;
}

/*
 * Wait as the function does.  Returns false if it timed out and may.
 */
bool
RunWaitCall(const WaitCall *call, WayIn way)
{
	bool		reached = Await(&call->target, call->timeout, way);

	if (!reached && call->required)
		RaiseTimeout(&call->target, call->timeout);
	return reached;
}

/*
 * Wait for replay without a snapshot, and take a fresh one behind it, whatever
 * the outcome: the statement goes on.  On a primary there is nothing to wait
 * for, but the caller's snapshot is treated the same, so that a program that
 * runs there does not fail only once it runs on a standby.
 */
static bool
WaitWithoutSnapshot(FunctionCallInfo fcinfo, const WaitCall *call)
{
	LetGo		held = LetGoInFunction(fcinfo);
	bool		reached = RunWaitCall(call, IN_FUNCTION);

	TakeFreshSnapshot(&held);
	return reached;
}

static Datum
Wait(FunctionCallInfo fcinfo, PGFunction function)
{
	WaitCall	call = {0};
	QueryDesc  *query = CallingSelect(fcinfo);
	bool		reached;

	if (query && WasStatementTarget(query, fcinfo->flinfo->fn_expr, NULL, &reached))
		PG_RETURN_BOOL(reached);
	if (!ReadWaitCall(fcinfo, function, &call))
		PG_RETURN_NULL();
	if (query == NULL || !WasStatementTarget(query, NULL, &call, &reached))
		reached = WaitWithoutSnapshot(fcinfo, &call);
	PG_RETURN_BOOL(reached);
}

Datum
lsn_wait(PG_FUNCTION_ARGS)
{
	return Wait(fcinfo, lsn_wait);
}

Datum
lsn_wait_token(PG_FUNCTION_ARGS)
{
	return Wait(fcinfo, lsn_wait_token);
}

/* These return void, which any value stands for. */
Datum
lsn_require(PG_FUNCTION_ARGS)
{
	return Wait(fcinfo, lsn_require);
}

Datum
lsn_require_token(PG_FUNCTION_ARGS)
{
	return Wait(fcinfo, lsn_require_token);
}

Datum
lsn_wait_xact(PG_FUNCTION_ARGS)
{
	return Wait(fcinfo, lsn_wait_xact);
}

static Datum
Replicated(FunctionCallInfo fcinfo, GetTarget *get_target)
{
	LsnTarget	target;

	CheckPreloaded();
	target = get_target(fcinfo);
	PG_RETURN_BOOL(IsReached(&target));
}

Datum
lsn_replicated(PG_FUNCTION_ARGS)
{
	return Replicated(fcinfo, LsnArg);
}

Datum
lsn_replicated_token(PG_FUNCTION_ARGS)
{
	return Replicated(fcinfo, TokenArg);
}

Datum
lsn_last_replay(PG_FUNCTION_ARGS)
{
	CheckPreloaded();
	if (!RecoveryInProgress())
		PG_RETURN_NULL();
	PG_RETURN_LSN(TrackedReplayPosition());
}

static Datum
Watch(FunctionCallInfo fcinfo, GetTarget *get_target)
{
	WaitCall	call = {0};

	CheckPreloaded();
	call.timeout = TimeoutArg(fcinfo, 1);
	if (!RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is not in progress"),
				 errhint("lsn_watch() follows replay on a standby; a primary replays nothing.")));

	/* "past from" is "at or past the next byte"; there is none past the last */
	if (!PG_ARGISNULL(0))
	{
		call.target = get_target(fcinfo);
		call.target.replay_to = Min(call.target.lsn, LAST_TARGET) + 1;
	}

	if (!WaitWithoutSnapshot(fcinfo, &call))
		PG_RETURN_NULL();
	PG_RETURN_LSN(TrackedReplayPosition());
}

Datum
lsn_watch(PG_FUNCTION_ARGS)
{
	return Watch(fcinfo, LsnArg);
}

Datum
lsn_watch_token(PG_FUNCTION_ARGS)
{
	return Watch(fcinfo, TokenArg);
}

static Datum
RequestNotification(FunctionCallInfo fcinfo, GetTarget *get_target)
{
	LsnTarget	target;

	CheckPreloaded();
	target = get_target(fcinfo);
	if (!RecoveryInProgress())
		(void) IsReached(&target);

	notification_target = target;
	notification_requested = true;
	PG_RETURN_VOID();
}

Datum
lsn_request_notification(PG_FUNCTION_ARGS)
{
	return RequestNotification(fcinfo, LsnArg);
}

Datum
lsn_request_notification_token(PG_FUNCTION_ARGS)
{
	return RequestNotification(fcinfo, TokenArg);
}

Datum
lsn_await_notification(PG_FUNCTION_ARGS)
{
	WaitCall	call = {0};

	CheckPreloaded();
	call.timeout = TimeoutArg(fcinfo, 0);
	if (!notification_requested)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no notification has been requested in this session"),
				 errhint("Call lsn_request_notification() first; a request is used up once it has been answered with true.")));

	call.target = notification_target;
	if (!WaitWithoutSnapshot(fcinfo, &call))
		PG_RETURN_BOOL(false);
	notification_requested = false;
	PG_RETURN_BOOL(true);
}

Datum
lsn_last_commit(PG_FUNCTION_ARGS)
{
	char	   *token;

	CheckPreloaded();
	token = LastCommitToken();
	if (token == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(token));
}

/* For how long lsn_staleness() waits for an answer that has been replayed, ms */
#define STALENESS_PATIENCE 1000

Datum
lsn_staleness(PG_FUNCTION_ARGS)
{
	LetGo		held;
	LsnTarget	question;
	Interval   *age = palloc0(sizeof(Interval));

	CheckPreloaded();
	held = LetGoInFunction(fcinfo);
	if (RecoveryInProgress())
	{
		question = Question(Now());
		(void) Await(&question, STALENESS_PATIENCE, IN_FUNCTION);
	}
	TakeFreshSnapshot(&held);

	/* it may have been promoted meanwhile */
	if (RecoveryInProgress())
	{
		uint64		since;

		LookAtAnswers();
		/* before the clock is read: it may move on */
		since = FreshSince();
		if (since == 0)
			PG_RETURN_NULL();
		age->time = (Now() - since) / 1000;
	}
	PG_RETURN_INTERVAL_P(age);
}
