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
 * A statement that has not started to read has no need of its snapshot, and one
 * that consists of nothing but function calls has none while one of them waits.
 * Who refers to it:
 *
 *	- the stack of active snapshots, always;
 *	- a plain SELECT that is about to start: the QueryDesc (PortalStart());
 *	- one that runs: the executor's state as well (standard_ExecutorStart());
 *	- a utility command: the portal, as portalSnapshot and, if it returns rows,
 *	  as holdSnapshot (PortalRunUtility());
 *	- a function called by the fastpath protocol: nobody else;
 *	- REPEATABLE READ: snapmgr.c, for the rest of the transaction.
 *
 * All are released before the wait and filled again after it, in the same order
 * and under the same resource owner, the portal's, as the server did itself.
 *
 * If an error is raised in between, the places stay empty.  That is safe: the
 * portal is marked as failed, the executor is not shut down but dropped with its
 * memory, and the end of the transaction or subtransaction finds fewer active
 * snapshots than it would remove.
 *
 * Whose statement it is, the client's own or one that a function runs, can't be
 * read off the portal: a cursor of PL/pgSQL has a portal like any other.  But a
 * client's statement has the only active snapshot, and what runs inside another one
 * has another one's below its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * The statement's own snapshot has been let go of: see to the rest, and whether
 * another one is left.
 */
static void
LetGoOfTheRest(LetGo *held)
{
	/* catalog look-ups took one, and will take a new one */
	InvalidateCatalogSnapshot();

	/*
	 * The transaction's first statement: nothing has been read under the
	 * transaction's snapshot.  As at the end of a transaction, so that the
	 * next one that is asked for is taken anew, and serves the rest of it.
	 * Nothing but snapmgr.c may refer to it, or be registered beside it: what
	 * is would be let go of later, from where it is not any more.  Never on a
	 * primary, where a SERIALIZABLE one is known to predicate.c.
	 */
	if (IsolationUsesXactSnapshot() && !ActiveSnapshotSet() && IsFirstStatement(held->running) &&
		RecoveryInProgress() &&
		!XactHasExportedSnapshots() && ThereAreNoPriorRegisteredSnapshots())
	{
		Snapshot	snapshot = GetTransactionSnapshot();

		if (snapshot->regd_count == 1 && snapshot->active_count == 0)
			AtEOXact_Snapshot(false, true);
	}

	/* what matters to replay is our advertised xmin */
	if (ActiveSnapshotSet())
		held->holder = "The statement is run by another one (EXECUTE, a function, a procedure or a DO block), which holds a snapshot.";
	else if (!TransactionIdIsValid(MyProc->xmin))
		held->holder = NULL;
	else if (IsolationUsesXactSnapshot())
		held->holder = "The transaction's isolation level is REPEATABLE READ or SERIALIZABLE, and it has taken its snapshot already.";
	else
		held->holder = "Something else in this session holds a snapshot: an open cursor, a query whose rows have not all been fetched, or an exported snapshot.";
}

/*
 * Report a snapshot that could not be let go of: as an error, or as a warning.
 */
void
ReportHeld(int elevel, const char *holder)
{
	CountEvent(EVENT_REFUSED);
	ereport(elevel,
			(errcode(elevel >= ERROR ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE : ERRCODE_WARNING),
			 errmsg("cannot wait for replay while this session holds a snapshot"),
			 errdetail("%s", holder),
			 errhint("Wait as the first statement of a transaction, or in READ COMMITTED without open cursors. Call the function in a SELECT of its own, or in FROM with constants or parameters: SELECT ... FROM orders, lsn_require($1).")));
}

/*
 * Raise the error for that.
 */
void
RaiseHeld(const char *holder)
{
	ReportHeld(ERROR, holder);
}

/*
 * The query that calls the function directly, if that is a client's plain
 * SELECT; NULL if it is anything else.
 */
QueryDesc *
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
 * A function is called that is to wait: let go of every snapshot of this session,
 * so that it does not hold up replay.  Returns what TakeFreshSnapshot() needs
 * afterwards.  Raises an error if a snapshot can't be let go of, unless
 * lsn_tracker.allow_held_snapshot is on.
 *
 * That does not depend on whether the call would have to wait, or the same program
 * would fail by chance.
 */
LetGo
LetGoInFunction(FunctionCallInfo fcinfo)
{
	LetGo		held = {0};
	QueryDesc  *query = CallingSelect(fcinfo);

	if (IsolationUsesXactSnapshot() && !IsFirstStatement(true))
	{
		/* later reads would not see what we waited for, either */
		held.holder = "The transaction's isolation level is REPEATABLE READ or SERIALIZABLE, and it has taken its snapshot already.";
	}
	else if (query == NULL)
		held.holder = "The call does not come directly from a client's SELECT statement but from a function, a procedure, a DO block, EXPLAIN, COPY, VALUES or another command, which holds a snapshot.";
	else if (ReadsRelation(query->plannedstmt))
		held.holder = "The statement that calls the function also reads a table or another relation, for which it needs its snapshot.";
	else if (IsolationUsesXactSnapshot() && !RecoveryInProgress())
	{
		/* a primary has nothing newer; keep the transaction's, as it is */
	}
	else
	{
		held.query = query;
		held.running = true;
		PopActiveSnapshot();
		UnregisterSnapshot(query->estate->es_snapshot);
		query->estate->es_snapshot = InvalidSnapshot;
		UnregisterSnapshot(query->snapshot);
		query->snapshot = InvalidSnapshot;
		LetGoOfTheRest(&held);
	}

	if (held.holder && !allow_held_snapshot)
		RaiseHeld(held.holder);
	return held;
}

/*
 * A query is about to start: does it run inside of no other statement?
 */
bool
IsOutermostQuery(QueryDesc *query)
{
	bool		outermost;

	if (!ActiveSnapshotSet() || GetActiveSnapshot() != query->snapshot)
		return false;

	/* the query has it, too: it is still there when it is put back */
	PopActiveSnapshot();
	outermost = !ActiveSnapshotSet();
	PushActiveSnapshot(query->snapshot);
	return outermost;
}

/*
 * A query is about to start: is it a client's own plain SELECT?
 */
bool
IsClientsQuery(QueryDesc *query)
{
	Portal		portal = ActivePortal;

	/*
	 * Only in PortalStart() a portal is as this says.  What another library's
	 * hook runs then, in front of us, has another plan.
	 */
	if (portal == NULL || portal->strategy != PORTAL_ONE_SELECT ||
		portal->status != PORTAL_DEFINED || portal->queryDesc != NULL ||
		query->plannedstmt != linitial(portal->stmts))
		return false;

	return IsOutermostQuery(query);
}

/*
 * A client's query is about to start: let go of its snapshot.
 */
LetGo
LetGoBeforeQuery(QueryDesc *query)
{
	LetGo		held = {.query = query};

	PopActiveSnapshot();
	UnregisterSnapshot(query->snapshot);
	query->snapshot = InvalidSnapshot;
	LetGoOfTheRest(&held);
	return held;
}

/*
 * A utility command that reads is about to start: let go of its portal's snapshot.
 * Returns false, and has done nothing, if it is not a client's own.
 */
bool
LetGoBeforeUtility(LetGo *held)
{
	Portal		portal = ActivePortal;
	Snapshot	snapshot;

	if (portal == NULL || portal->portalSnapshot == NULL ||
		!ActiveSnapshotSet() || GetActiveSnapshot() != portal->portalSnapshot)
		return false;

	/* so that it is still there if it has to go back */
	snapshot = RegisterSnapshot(portal->portalSnapshot);
	PopActiveSnapshot();
	if (ActiveSnapshotSet())
	{
		PushActiveSnapshotWithLevel(snapshot, portal->createLevel);
		UnregisterSnapshot(snapshot);
		return false;
	}
	UnregisterSnapshot(snapshot);

	*held = (LetGo){.portal = portal, .hold = portal->holdSnapshot != NULL};
	portal->portalSnapshot = NULL;
	if (held->hold)
	{
		UnregisterSnapshot(portal->holdSnapshot);
		portal->holdSnapshot = NULL;
	}
	LetGoOfTheRest(held);
	return true;
}

/*
 * A function is called by the fastpath protocol: let go of its snapshot.
 */
LetGo
LetGoOfActive(void)
{
	LetGo		held = {.active = true};

	PopActiveSnapshot();
	LetGoOfTheRest(&held);
	return held;
}

/*
 * For a command that has no snapshot of its own.
 */
LetGo
LetGoWithoutStatement(void)
{
	LetGo		held = {0};

	LetGoOfTheRest(&held);
	return held;
}

/*
 * Give the statement a snapshot that contains what has been waited for.
 */
void
TakeFreshSnapshot(const LetGo *held)
{
	if (held->query)
	{
		QueryDesc  *query = held->query;

		/* to push it may make a copy, which is the one that all must share */
		PushActiveSnapshot(GetTransactionSnapshot());
		query->snapshot = RegisterSnapshot(GetActiveSnapshot());
		if (held->running)
			query->estate->es_snapshot = RegisterSnapshot(query->snapshot);
	}
	else if (held->portal)
	{
		Portal		portal = held->portal;
		Snapshot	snapshot = GetTransactionSnapshot();

		if (held->hold)
			portal->holdSnapshot = snapshot = RegisterSnapshot(snapshot);
		PushActiveSnapshotWithLevel(snapshot, portal->createLevel);
		portal->portalSnapshot = GetActiveSnapshot();
	}
	else if (held->active)
		PushActiveSnapshot(GetTransactionSnapshot());
}
