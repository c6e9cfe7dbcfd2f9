/*-------------------------------------------------------------------------
 *
 * views.c
 *		What people and monitors look at: who waits, and the statistics.
 *
 * Runs in a client's session.  Together with functions.c, the only file that knows SQL's
 * calling conventions.  The columns are explained in doc/reference.md.
 *
 * lsn_waiters() has got other columns with each version.  The library does not know which
 * version of the SQL calls it: so each that needs more of the library has a name of its own
 * here, and an older library, which does not have that, says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/xid8.h"

#include "compat.h"
#include "lsn_tracker.h"

PG_FUNCTION_INFO_V1(lsn_waiters);
PG_FUNCTION_INFO_V1(lsn_waiters_1_2);
PG_FUNCTION_INFO_V1(lsn_eta);
PG_FUNCTION_INFO_V1(lsn_eta_token);
PG_FUNCTION_INFO_V1(pg_stat_get_lsn_tracker);
PG_FUNCTION_INFO_V1(pg_stat_get_lsn_tracker_waits);
PG_FUNCTION_INFO_V1(pg_stat_lsn_tracker_reset);

/* For how long an answer of the primary tells how old the data is, if nobody asks again */
#define ANSWERS_LAST (60000 * MS)

static Interval *
MakeInterval(double seconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = (TimeOffset) Min(rint(seconds * USECS_PER_SEC), 1e18);
	return interval;
}

/* May the user see what this role waits for? */
static bool
MaySee(Oid role)
{
	return has_privs_of_role(GetUserId(), role) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

/* The columns of lsn_waiters(): those of 1.0 are the first two, those of 1.1 the first four */
enum
{
	WAITER_PID,
	WAITER_TARGET,
	WAITER_TIMELINE,
	WAITER_XID,
	WAITER_BYTES_TO_GO,
	WAITER_WAITSTART,
	WAITER_DEADLINE,
	WAITER_ETA,
	WAITER_WAY,
	N_WAITER_COLUMNS
};

/*
 * The part of a row that tells what is waited for, of a waiter who is to be seen.
 */
static void
DescribeTarget(const LsnTarget *target, const LsnSample *now, double rate, Datum *values, bool *nulls)
{
	double		seconds;

	if (FullTransactionIdIsValid(target->xid))
	{
		values[WAITER_XID] = FullTransactionIdGetDatum(target->xid);
		nulls[WAITER_XID] = false;
		return;
	}
	if (IsQuestion(target))
		return;

	values[WAITER_TARGET] = LSNGetDatum(target->lsn);
	nulls[WAITER_TARGET] = false;
	if (target->timeline != 0)
	{
		values[WAITER_TIMELINE] = Int64GetDatum(target->timeline);
		nulls[WAITER_TIMELINE] = false;
		/* another timeline's can't be compared without its history */
		if (target->timeline != now->timeline)
			return;
	}
	values[WAITER_BYTES_TO_GO] = Int64GetDatum(Min(BytesToGo(target, now), PG_INT64_MAX));
	nulls[WAITER_BYTES_TO_GO] = false;
	seconds = SecondsToGo(target, now, rate);
	if (seconds >= 0)
	{
		values[WAITER_ETA] = IntervalPGetDatum(MakeInterval(seconds));
		nulls[WAITER_ETA] = false;
	}
}

static Datum
Waiters(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LsnWaiter  *waiters;
	LsnSample	now = {0};
	double		rate = 0;
	TimestampTz clock = GetCurrentTimestamp();
	uint64		ns = Now();
	int			n;

	CheckPreloaded();
	InitMaterializedSRF(fcinfo, 0);

	if (RecoveryInProgress())
		rate = ReplayRate(&now);
	waiters = palloc(MaxBackends * sizeof(LsnWaiter));
	n = CopyWaiters(waiters);
	for (int i = 0; i < n; i++)
	{
		LsnWaiter  *waiter = &waiters[i];
		TimestampTz start = clock - ((int64) (ns - waiter->since)) / 1000;
		Datum		values[N_WAITER_COLUMNS];
		bool		nulls[N_WAITER_COLUMNS];

		memset(nulls, true, sizeof(nulls));
		values[WAITER_PID] = Int32GetDatum(waiter->pid);
		nulls[WAITER_PID] = false;
		values[WAITER_WAITSTART] = TimestampTzGetDatum(start);
		nulls[WAITER_WAITSTART] = false;
		if (waiter->timeout > 0 && waiter->timeout < (END_TIMESTAMP - start) / 1000)
		{
			values[WAITER_DEADLINE] = TimestampTzGetDatum(start + waiter->timeout * 1000);
			nulls[WAITER_DEADLINE] = false;
		}
		values[WAITER_WAY] = CStringGetTextDatum(waiter->way == AT_GATE ? "gate" : "function");
		nulls[WAITER_WAY] = false;
		if (MaySee(waiter->role))
			DescribeTarget(&waiter->target, &now, rate, values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Of 1.0 and 1.1: the result has as many columns as the SQL declares */
Datum
lsn_waiters(PG_FUNCTION_ARGS)
{
	return Waiters(fcinfo);
}

Datum
lsn_waiters_1_2(PG_FUNCTION_ARGS)
{
	return Waiters(fcinfo);
}

/*
 * In what time a target will have been replayed; NULL: not known.  Waits for nothing.
 */
static Datum
Eta(FunctionCallInfo fcinfo, LsnTarget target)
{
	double		seconds = 0;

	/* raises what there is to raise */
	if (!IsReached(&target))
	{
		LsnSample	now;
		double		rate = ReplayRate(&now);

		if (!InHistory(&target, now.timeline))
			PG_RETURN_NULL();
		seconds = SecondsToGo(&target, &now, rate);
		if (seconds < 0)
			PG_RETURN_NULL();
	}
	PG_RETURN_INTERVAL_P(MakeInterval(seconds));
}

Datum
lsn_eta(PG_FUNCTION_ARGS)
{
	CheckPreloaded();
	return Eta(fcinfo, LsnToTarget(PG_GETARG_LSN(0)));
}

Datum
lsn_eta_token(PG_FUNCTION_ARGS)
{
	CheckPreloaded();
	return Eta(fcinfo, TokenToTarget(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

static const char *
PauseState(void)
{
	switch (GetRecoveryPauseState())
	{
		case RECOVERY_NOT_PAUSED:
			return "not paused";
		case RECOVERY_PAUSE_REQUESTED:
			return "pause requested";
		case RECOVERY_PAUSED:
			return "paused";
	}
	return NULL;
}

/*
 * How old the data may be at most, seconds; -1: not known.  Asks nobody.
 */
static double
KnownStaleness(void)
{
	bool		in_trouble;
	uint64		answered = AnsweredSince();
	uint64		since;
	uint64		now;

	LookAtAnswers();
	/* before the clock is read: it may move on */
	since = FreshSince();
	now = Now();
	LWLockAcquire(tracker->lock, LW_SHARED);
	in_trouble = tracker->link.problem[0] != '\0';
	ReleaseQueue();

	/* while nobody asks, the number grows, and means nothing */
	if (since == 0 || (!in_trouble && answered + ANSWERS_LAST < now))
		return -1;
	return (now - since) / 1e9;
}

/* A column, and the next one */
typedef struct Row
{
	int			n;
	Datum		values[32];
	bool		nulls[32];
} Row;

static void
AddValue(Row *row, Datum value)
{
	Assert(row->n < (int) lengthof(row->values));
	row->values[row->n] = value;
	row->nulls[row->n++] = false;
}

static void
AddNull(Row *row)
{
	Assert(row->n < (int) lengthof(row->values));
	row->nulls[row->n++] = true;
}

static void
AddTime(Row *row, uint64 ns)
{
	AddValue(row, Float8GetDatum(ns / 1e6));
}

/* What is known of replay, on a standby */
static void
AddReplay(Row *row)
{
	LsnSample	now;
	double		rate = ReplayRate(&now);
	double		staleness = KnownStaleness();

	AddValue(row, LSNGetDatum(now.replayed));
	AddValue(row, Int32GetDatum(now.timeline));
	AddValue(row, CStringGetTextDatum(PauseState()));
	if (rate > 0)
		AddValue(row, Float8GetDatum(rate));
	else
		AddNull(row);
	if (staleness >= 0)
		AddValue(row, IntervalPGetDatum(MakeInterval(staleness)));
	else
		AddNull(row);
}

Datum
pg_stat_get_lsn_tracker(PG_FUNCTION_ARGS)
{
	static const LsnEvent outcomes[] = {
		EVENT_TIMED_OUT, EVENT_FAILED_FAST, EVENT_LOST, EVENT_RECOVERY_ENDED, EVENT_CANCELLED, EVENT_GAVE_WAY, EVENT_REFUSED};
	static const LsnEvent wakeups[] = {EVENT_WOKEN_BY_STARTUP, EVENT_WOKEN_BY_WORKER, EVENT_WOKEN_BY_SESSION};
	static const LsnEvent questions[] = {EVENT_ASKED, EVENT_ANSWERED, EVENT_UNANSWERED};
	TupleDesc	tupdesc;
	LsnSums		sums;
	const uint64 *events = sums.events;
	Row			row = {0};

	CheckPreloaded();
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	ReadStats(&sums);

	AddValue(&row, Int64GetDatum(events[EVENT_AT_ONCE_IN_FUNCTION] + events[EVENT_SLEPT_IN_FUNCTION]));
	AddValue(&row, Int64GetDatum(events[EVENT_AT_ONCE_AT_GATE] + events[EVENT_SLEPT_AT_GATE]));
	AddValue(&row, Int64GetDatum(events[EVENT_AT_ONCE_IN_FUNCTION] + events[EVENT_AT_ONCE_AT_GATE]));
	AddValue(&row, Int64GetDatum(events[EVENT_SLEPT_IN_FUNCTION] + events[EVENT_SLEPT_AT_GATE]));
	for (int i = 0; i < (int) lengthof(outcomes); i++)
		AddValue(&row, Int64GetDatum(events[outcomes[i]]));
	AddTime(&row, sums.time[METRIC_FUNCTION] + sums.time[METRIC_GATE]);
	AddTime(&row, Max(sums.longest[METRIC_FUNCTION], sums.longest[METRIC_GATE]));
	AddValue(&row, Int32GetDatum(sums.waiting));
	AddValue(&row, Int32GetDatum(sums.most_waiting));
	for (int i = 0; i < (int) lengthof(wakeups); i++)
		AddValue(&row, Int64GetDatum(events[wakeups[i]]));
	for (int i = 0; i < (int) lengthof(questions); i++)
		AddValue(&row, Int64GetDatum(events[questions[i]]));
	AddTime(&row, sums.time[METRIC_QUESTION]);
	AddTime(&row, sums.longest[METRIC_QUESTION]);
	if (RecoveryInProgress())
		AddReplay(&row);
	else
	{
		/* as lsn_staleness() says */
		for (int i = 0; i < 4; i++)
			AddNull(&row);
		AddValue(&row, IntervalPGetDatum(MakeInterval(0)));
	}
	AddValue(&row, TimestampTzGetDatum(sums.reset_at));

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), row.values, row.nulls)));
}

/*
 * The histograms, in the form that Prometheus has them: each bucket has those below it, too.
 */
Datum
pg_stat_get_lsn_tracker_waits(PG_FUNCTION_ARGS)
{
	static const char *const names[N_METRICS] = {"function", "gate", "question"};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LsnSums		sums;

	CheckPreloaded();
	InitMaterializedSRF(fcinfo, 0);
	ReadStats(&sums);
	for (int metric = 0; metric < N_METRICS; metric++)
	{
		uint64		count = 0;

		for (int bucket = 0; bucket < N_BUCKETS; bucket++)
		{
			Datum		values[3];
			bool		nulls[3] = {false, false, false};

			count += sums.buckets[metric][bucket];
			values[0] = CStringGetTextDatum(names[metric]);
			values[1] = Float8GetDatum(BucketLimit(bucket));
			values[2] = Int64GetDatum(count);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}

/* Who may call it is said in SQL */
Datum
pg_stat_lsn_tracker_reset(PG_FUNCTION_ARGS)
{
	CheckPreloaded();
	ResetStats();
	PG_RETURN_VOID();
}
