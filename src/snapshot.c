/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		Letting go of a statement's snapshot before a wait, and taking a fresh
 *		one after it.
 *
 * Runs in the waiting session.  A statement runs under a snapshot, whose xmin
 * keeps row versions from being removed.  If the WAL before the target removes
 * such row versions (VACUUM), replay waits for the snapshot to go away, while
 * its owner waits for replay: a dead-lock that only
 * max_standby_streaming_delay ends, by cancelling the wait.
 *
 * A statement that consists of nothing but function calls has no need of its
 * snapshot while one of the functions waits.  For a plain SELECT three places
 * refer to it: the stack of active snapshots (pushed by PortalRunSelect()),
 * the QueryDesc, and the executor's state.  All three are released before the
 * wait and filled again after it, in the same order and under the same
 * resource owner, the portal's, as the server did itself: PortalStart(),
 * standard_ExecutorStart() and PortalRunSelect() in pquery.c and execMain.c.
 *
 * If an error is raised in between, the three places stay empty.  That is
 * safe: the portal is marked as failed, the executor is not shut down but
 * dropped with its memory, and the end of the transaction or subtransaction
 * finds fewer active snapshots than it would remove.
 *
 * All other callers are refused.  To them belongs everything whose snapshots
 * we can't see or must not touch; the refusal does not depend on whether the
 * call would have had to wait, or the same program would fail by chance.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "lsn_tracker.h"

/*
 * The query that calls the function directly, if that is a client's plain
 * SELECT; NULL if it is anything else.
 */
static QueryDesc *
CallingSelect(FunctionCallInfo fcinfo)
{
	Portal		portal = ActivePortal;
	QueryDesc  *query;

	if (portal == NULL || portal->strategy != PORTAL_ONE_SELECT)
		return NULL;
	query = portal->queryDesc;
	if (query == NULL || query->estate == NULL)
		return NULL;

	/*
	 * The executor looks up the functions that its query calls in the query's
	 * own memory context.  In a function, procedure or trigger the caller is
	 * another executor (or none), with another context, even though the
	 * portal is still the client's.
	 */
	if (fcinfo->flinfo == NULL ||
		fcinfo->flinfo->fn_mcxt != query->estate->es_query_cxt)
		return NULL;

	/* What we are about to release must be what is there. */
	if (!ActiveSnapshotSet() ||
		GetActiveSnapshot() != query->snapshot ||
		query->estate->es_snapshot != query->snapshot)
		return NULL;

	return query;
}

/*
 * A view is in the list of relations, too, before 16: for its privileges.  What it
 * reads is there by itself.
 */
static bool
ReadsRelation(PlannedStmt *plan)
{
	ListCell   *lc;

	foreach(lc, plan->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relkind != RELKIND_VIEW)
			return true;
	}
	return false;
}

/*
 * Let go of every snapshot of this session, so that it does not hold up replay.
 *
 * "fcinfo" is that of the SQL function that wants to wait.  Returns what
 * TakeFreshSnapshot() needs afterwards.  Raises an error if a snapshot can't be
 * let go of, unless lsn_tracker.allow_held_snapshot is on.
 */
QueryDesc *
LetGoOfSnapshot(FunctionCallInfo fcinfo)
{
	QueryDesc  *query = CallingSelect(fcinfo);
	const char *holder = NULL;

	if (IsolationUsesXactSnapshot())
	{
		/* later reads would not see what we waited for, either */
		holder = "The transaction's isolation level is REPEATABLE READ or SERIALIZABLE: one snapshot serves the whole transaction.";
		query = NULL;
	}
	else if (query == NULL)
		holder = "The call does not come directly from a client's SELECT statement but from a function, a procedure, a DO block, EXPLAIN, COPY, VALUES or another command, which holds a snapshot.";
	else if (ReadsRelation(query->plannedstmt))
	{
		holder = "The statement that calls the function also reads a table or another relation, for which it needs its snapshot.";
		query = NULL;
	}
	else
	{
		PopActiveSnapshot();
		UnregisterSnapshot(query->estate->es_snapshot);
		query->estate->es_snapshot = InvalidSnapshot;
		UnregisterSnapshot(query->snapshot);
		query->snapshot = InvalidSnapshot;

		/* catalog look-ups took one, and will take a new one */
		InvalidateCatalogSnapshot();

		/* what matters to replay is our advertised xmin */
		if (ActiveSnapshotSet())
			holder = "The statement is run by another one (EXECUTE, a function, a procedure or a DO block), which holds a snapshot.";
		else if (TransactionIdIsValid(MyProc->xmin))
			holder = "Something else in this session holds a snapshot: an open cursor, a query whose rows have not all been fetched, or an exported snapshot.";
	}

	if (holder && !allow_held_snapshot)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for replay while this session holds a snapshot"),
				 errdetail("%s", holder),
				 errhint("Call the function in a SELECT statement of its own, outside a transaction block or in a READ COMMITTED transaction without open cursors. SET LOCAL lsn_tracker.min_lsn as the first statement waits in any transaction.")));

	return query;
}

/*
 * For a command that has no snapshot of its own: raise an error if the session
 * holds one all the same, unless lsn_tracker.allow_held_snapshot is on.
 */
void
CheckNoSnapshotHeld(void)
{
	const char *holder;

	InvalidateCatalogSnapshot();
	if (ActiveSnapshotSet())
		holder = "The command comes from a function, a procedure or a DO block, which holds a snapshot.";
	else if (!TransactionIdIsValid(MyProc->xmin))
		return;
	else if (IsolationUsesXactSnapshot())
		holder = "The transaction's isolation level is REPEATABLE READ or SERIALIZABLE, and it has taken its snapshot already.";
	else
		holder = "Something else in this session holds one: an open cursor, a query whose rows have not all been fetched, or an exported snapshot.";

	if (!allow_held_snapshot)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for replay while this session holds a snapshot"),
				 errdetail("%s", holder),
				 errhint("Set lsn_tracker.min_lsn outside a transaction, or as the first statement of one.")));
}

/*
 * Give the rest of the statement a snapshot that contains what has been waited
 * for.  "query" is what LetGoOfSnapshot() returned; nothing to do if NULL.
 */
void
TakeFreshSnapshot(QueryDesc *query)
{
	if (query == NULL)
		return;

	query->snapshot = RegisterSnapshot(GetTransactionSnapshot());
	query->estate->es_snapshot = RegisterSnapshot(query->snapshot);
	PushActiveSnapshot(query->snapshot);
}
