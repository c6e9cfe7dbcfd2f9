/*-------------------------------------------------------------------------
 *
 * catalog_query.c
 *		Queries that read nothing but the catalogs, by functions of the server.
 *
 * No bound is owed to them (freshness.c): so psql, monitors and whoever manages the
 * servers can look at a standby whose primary is dead.
 *
 * Whether a query is one is found out from its tree, when it is about to be planned: there
 * is a walker for that, and none for plans.  In doubt it is none.  Runs in a client's
 * session; no lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_largeobject.h"
#include "catalog/pg_largeobject_metadata.h"
#include "catalog/pg_namespace.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * Functions of the server that read what is no catalog: by SQL that they are given,
 * large objects, sequences, WAL, what has become of transactions; that export what has
 * been read; or that check a domain, which may do anything, itself or as a part.
 */
static const Oid reading_functions[] = {
	F_TABLE_TO_XML, F_QUERY_TO_XML, F_CURSOR_TO_XML,
	F_TABLE_TO_XML_AND_XMLSCHEMA, F_QUERY_TO_XML_AND_XMLSCHEMA,
	F_SCHEMA_TO_XML, F_SCHEMA_TO_XML_AND_XMLSCHEMA,
	F_DATABASE_TO_XML, F_DATABASE_TO_XML_AND_XMLSCHEMA,
	F_TS_STAT_TEXT, F_TS_STAT_TEXT_TEXT, F_TS_REWRITE_TSQUERY_TEXT,
	F_LO_OPEN, F_LOREAD, F_LO_LSEEK, F_LO_LSEEK64, F_LO_EXPORT,
	F_LO_GET_OID, F_LO_GET_OID_INT8_INT4,
	F_CURRTID2,
	F_PG_SEQUENCE_LAST_VALUE, F_PG_GET_SEQUENCE_DATA,
	F_PG_LOGICAL_SLOT_GET_CHANGES, F_PG_LOGICAL_SLOT_GET_BINARY_CHANGES,
	F_PG_LOGICAL_SLOT_PEEK_CHANGES, F_PG_LOGICAL_SLOT_PEEK_BINARY_CHANGES,
	F_PG_CURRENT_SNAPSHOT, F_TXID_CURRENT_SNAPSHOT, F_PG_XACT_STATUS, F_TXID_STATUS,
	F_PG_LAST_COMMITTED_XACT, F_PG_XACT_COMMIT_TIMESTAMP, F_PG_XACT_COMMIT_TIMESTAMP_ORIGIN,
	F_PG_EXPORT_SNAPSHOT,
	F_DOMAIN_IN, F_ARRAY_IN, F_RECORD_IN, F_RANGE_IN, F_MULTIRANGE_IN,
	F_DOMAIN_RECV, F_ARRAY_RECV, F_RECORD_RECV, F_RANGE_RECV, F_MULTIRANGE_RECV,
	F_PG_INPUT_IS_VALID, F_PG_INPUT_ERROR_INFO,
	F_HAS_LARGEOBJECT_PRIVILEGE_NAME_OID_TEXT, F_HAS_LARGEOBJECT_PRIVILEGE_OID_OID_TEXT,
	F_HAS_LARGEOBJECT_PRIVILEGE_OID_TEXT};

/*
 * Was an object made by initdb, in pg_catalog?  Of those whose number initdb has not fixed,
 * the namespace has to be asked for: a server that runs as a single process may give
 * the same numbers to a user's.
 */
static bool
IsServersOwn(Oid object, Oid (*namespace_of) (Oid))
{
	return object < FirstUnpinnedObjectId ||
		(object < FirstNormalObjectId && namespace_of(object) == PG_CATALOG_NAMESPACE);
}

static bool
IsReadingFunction(Oid function, void *context)
{
	if (!IsServersOwn(function, get_func_namespace))
		return true;
	for (int i = 0; i < (int) lengthof(reading_functions); i++)
	{
		if (function == reading_functions[i])
			return true;
	}
	return false;
}

/*
 * May a user have made this type?  If it is a domain, or has one in it, its check may
 * read anything.
 */
static bool
IsUsersType(Oid type)
{
	return type >= FirstNormalObjectId;
}

static bool
EntryReadsMore(RangeTblEntry *rte)
{
	ListCell   *lc;
	ListCell   *type;

	switch (rte->rtekind)
	{
		case RTE_RELATION:
			/* anybody's table may inherit from a catalog */
			return !IsServersOwn(rte->relid, get_rel_namespace) || (rte->inh && has_subclass(rte->relid)) ||
				rte->relid == LargeObjectRelationId || rte->relid == LargeObjectMetadataRelationId;
		case RTE_FUNCTION:
			foreach(lc, rte->functions)
			{
				foreach(type, lfirst_node(RangeTblFunction, lc)->funccoltypes)
				{
					if (IsUsersType(lfirst_oid(type)))
						return true;
				}
			}
			return false;
		case RTE_TABLEFUNC:
		case RTE_NAMEDTUPLESTORE:
			return true;
		default:
			return false;
	}
}

/* Is there anything in this tree that reads more than catalogs, or may do so? */
static bool
ReadsMore(Node *node, void *context)
{
	if (node == NULL)
		return false;

	switch (nodeTag(node))
	{
		case T_Query:
			{
				Query	   *query = (Query *) node;
				ListCell   *lc;

				if (query->commandType != CMD_SELECT)
					return true;
				foreach(lc, query->rtable)
				{
					if (EntryReadsMore(lfirst_node(RangeTblEntry, lc)))
						return true;
				}
				return query_tree_walker(query, ReadsMore, context, QTW_EXAMINE_SORTGROUP);
			}
		case T_SetOperationStmt:
			/* the server's walker leaves these out */
			if (ReadsMore((Node *) ((SetOperationStmt *) node)->groupClauses, context))
				return true;
			break;
		case T_SortGroupClause:
			{
				SortGroupClause *sort = (SortGroupClause *) node;

				/* anybody's operators may be those of a builtin type */
				return IsReadingFunction(get_opcode(sort->eqop), NULL) ||
					(OidIsValid(sort->sortop) && IsReadingFunction(get_opcode(sort->sortop), NULL));
			}
		case T_Const:
			return IsUsersType(((Const *) node)->consttype);
		case T_Param:
			return IsUsersType(((Param *) node)->paramtype);
		case T_FuncExpr:
		case T_CoerceToDomain:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ArrayExpr:
		case T_RowExpr:
			if (IsUsersType(exprType(node)))
				return true;
			break;
		case T_SQLValueFunction:
		case T_Var:
			return false;
		default:
			if (IsJsonExpression(node))
				return true;
			break;
	}
	return check_functions_in_node(node, IsReadingFunction, NULL) ||
		expression_tree_walker(node, ReadsMore, context);
}

/*
 * Does a query, which is about to be planned, read only catalogs?
 */
bool
ReadsOnlyCatalogs(Query *query)
{
	return !ReadsMore((Node *) query, NULL);
}

/*
 * A plan: have it known by IsCatalogPlan(), also when it is copied, whether it is that of such
 * a query.  The mark is InvalidOid among the relations that the plan depends on, where the server
 * looks only for those that have changed.  In the range table EXPLAIN would count it, and
 * then print whose columns are whose.
 *
 * To be called for each plan: the planner takes any constant of type oid or regclass for such a
 * relation, 0, too (fix_expr_common() in setrefs.c).
 */
void
MarkPlan(PlannedStmt *plan, bool reads_only_catalogs)
{
	while (list_member_oid(plan->relationOids, InvalidOid))
		plan->relationOids = list_delete_oid(plan->relationOids, InvalidOid);
	if (reads_only_catalogs)
		plan->relationOids = lappend_oid(plan->relationOids, InvalidOid);
}

/*
 * Is this the plan of such a query?
 */
bool
IsCatalogPlan(PlannedStmt *plan)
{
	return list_member_oid(plan->relationOids, InvalidOid);
}
