/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Differences between the server versions that lsn_tracker builds on.
 *
 * The only place that tests PG_VERSION_NUM.  Everything here has the shape of
 * the newest server's interface, so that dropping an old version means
 * deleting lines here and nowhere else.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LSN_TRACKER_COMPAT_H
#define LSN_TRACKER_COMPAT_H

/*
 * The server was built with GSSAPI, whose headers need not be here: its header of
 * the client's connection is made to have the same layout without.
 */
#undef ENABLE_GSS

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 190000
#include "nodes/miscnodes.h"
#endif

/* 18 lets extensions add to what EXPLAIN says. */
#if PG_VERSION_NUM >= 180000
#include "commands/explain.h"
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#define HAVE_EXPLAIN_HOOK
#endif

#if PG_VERSION_NUM < 150000
#error "lsn_tracker needs PostgreSQL 15 or later"
#endif

/* Since 18 a library can say its name and version. */
#if PG_VERSION_NUM < 180000
#define PG_MODULE_MAGIC_EXT(...) PG_MODULE_MAGIC
#endif

/* 17 numbers processes by ProcNumber; before, the PGPROC carried the number. */
#if PG_VERSION_NUM < 170000
#define MyProcNumber (MyProc->pgprocno)
#endif

/* 17 gathered the parts of a virtual transaction's id. */
#if PG_VERSION_NUM < 170000
#define MyLocalTransactionId (MyProc->lxid)
#else
#define MyLocalTransactionId (MyProc->vxid.lxid)
#endif

/* 17 renamed the shared struct with the transaction counters. */
#if PG_VERSION_NUM < 170000
#define TransamVariables ShmemVariableCache
#endif

/* 17 lets extensions name wait events; before, all of them are "Extension". */
#if PG_VERSION_NUM < 170000
#define WaitEventExtensionNew(name) PG_WAIT_EXTENSION
#endif

/* 19 pads the second half of an LSN with zeros; say it like the server does. */
#if PG_VERSION_NUM < 190000
#define LSN_FORMAT "%X/%X"
#else
#define LSN_FORMAT "%X/%08X"
#endif

/* 17 also asks for stronger locks than the one named. */
#if PG_VERSION_NUM < 170000
#define LockHeldByMe(tag, mode, orstronger) LockHeldByMe(tag, mode)
#endif

/*
 * Which modes of a lock this session holds in one of its fast-path slots: three
 * bits.  18 made several groups of the slots.
 */
#if PG_VERSION_NUM < 180000
#define FastPathLockSlotsPerBackend() FP_LOCK_SLOTS_PER_BACKEND
#define FastPathLockBits(slot) ((MyProc->fpLockBits >> (3 * (slot))) & 7)
#else
#define FastPathLockBits(slot) \
	((MyProc->fpLockBits[(slot) / FP_LOCK_SLOTS_PER_GROUP] >> (3 * ((slot) % FP_LOCK_SLOTS_PER_GROUP))) & 7)
#endif

/*
 * The session's locks in one part of the shared table, one after the other.  16
 * made other lists of them.  To know whether there is a first one no lock is needed.
 */
static inline PROCLOCK *
NextProcLock(int partition, PROCLOCK *previous)
{
#if PG_VERSION_NUM < 160000
	SHM_QUEUE  *list = &MyProc->myProcLocks[partition];

	return (PROCLOCK *) SHMQueueNext(list, previous ? &previous->procLink : list, offsetof(PROCLOCK, procLink));
#else
	dlist_head *list = &MyProc->myProcLocks[partition];

	if (previous == NULL)
		return dlist_is_empty(list) ? NULL : dlist_head_element(PROCLOCK, procLink, list);
	return dlist_has_next(list, &previous->procLink) ?
		dlist_container(PROCLOCK, procLink, dlist_next_node(list, &previous->procLink)) :
		NULL;
#endif
}

/*
 * Does this session hold any lock, but for the one on its virtual transaction?
 * The locks are in MyProc's fast-path slots, or in its lists of those in the
 * shared table.
 *
 * Without a lock, since only the session itself takes and releases its locks.
 * But others may move one from the slots to the lists, where they enter it first:
 * so the slots are looked at first, too (model: found, SECOND_PLACE_FIRST).
 */
static inline bool
HoldsLocks(void)
{
#if PG_VERSION_NUM < 180000
	if (MyProc->fpLockBits != 0)
		return true;
#else
	for (int i = 0; i < FastPathLockGroupsPerBackend; i++)
	{
		if (MyProc->fpLockBits[i] != 0)
			return true;
	}
#endif
	pg_read_barrier();
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		if (NextProcLock(i, NULL) != NULL)
			return true;
	}
	return false;
}

/* 18 took a parameter away from the executor's hook. */
#if PG_VERSION_NUM < 180000
#define EXECUTOR_RUN_PARAMS QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define EXECUTOR_RUN_ARGS query, direction, count, execute_once
#else
#define EXECUTOR_RUN_PARAMS QueryDesc *query, ScanDirection direction, uint64 count
#define EXECUTOR_RUN_ARGS query, direction, count
#endif

/* 19 tells the planner's hook for which EXPLAIN it plans. */
#if PG_VERSION_NUM < 190000
#define PLANNER_PARAMS Query *query, const char *text, int options, ParamListInfo params
#define PLANNER_ARGS query, text, options, params
#else
#define PLANNER_PARAMS Query *query, const char *text, int options, ParamListInfo params, ExplainState *explain
#define PLANNER_ARGS query, text, options, params, explain
#endif

/* 16 has functions that try a type's input, 18 others that look at sequences and large objects. */
#ifndef F_PG_INPUT_IS_VALID
#define F_PG_INPUT_IS_VALID InvalidOid
#define F_PG_INPUT_ERROR_INFO InvalidOid
#endif
#ifndef F_PG_GET_SEQUENCE_DATA
#define F_PG_GET_SEQUENCE_DATA InvalidOid
#endif
#ifndef F_HAS_LARGEOBJECT_PRIVILEGE_OID_TEXT
#define F_HAS_LARGEOBJECT_PRIVILEGE_NAME_OID_TEXT InvalidOid
#define F_HAS_LARGEOBJECT_PRIVILEGE_OID_OID_TEXT InvalidOid
#define F_HAS_LARGEOBJECT_PRIVILEGE_OID_TEXT InvalidOid
#endif

/* 16 asks for all kinds of objects in the same way. */
static inline bool
MayExecute(Oid function)
{
#if PG_VERSION_NUM < 160000
	return pg_proc_aclcheck(function, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
#else
	return object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/* From 16 on, and more of it from 17 on, SQL/JSON has nodes, which convert to any type. */
static inline bool
IsJsonExpression(Node *node)
{
#if PG_VERSION_NUM < 160000
	return false;
#elif PG_VERSION_NUM < 170000
	return IsA(node, JsonConstructorExpr);
#else
	return IsA(node, JsonConstructorExpr) || IsA(node, JsonExpr);
#endif
}

/* 16 has functions of its own for what its variables point to. */
static inline void *
AllocateGucExtra(size_t size)
{
#if PG_VERSION_NUM < 160000
	return malloc(size);
#else
	return guc_malloc(LOG, size);
#endif
}

/* The server's record of a variable, which exists.  16 lets extensions ask for it. */
static inline struct config_generic *
FindVariable(const char *name)
{
#if PG_VERSION_NUM < 160000
	struct config_generic **variable = get_guc_variables();

	while (strcmp((*variable)->name, name) != 0)
		variable++;
	return *variable;
#else
	return find_option(name, false, false, ERROR);
#endif
}

/* Forget what the client was told of a variable, so that it is told again. */
static inline void
ForgetReported(struct config_generic *variable)
{
#if PG_VERSION_NUM < 160000
	free(variable->last_reported);
#else
	guc_free(variable->last_reported);
#endif
	variable->last_reported = NULL;
}

/* 17 has resource owners clean up; nobody does for a process that has one set for good. */
#if PG_VERSION_NUM < 170000
#define CreateWaitEventSet(owner, n) CreateWaitEventSet(TopMemoryContext, n)
#endif

/* Read an LSN; false if it is none.  19 reports errors in a node. */
static inline bool
ReadLsn(const char *text, XLogRecPtr *lsn)
{
#if PG_VERSION_NUM < 190000
	bool		failed = false;

	*lsn = pg_lsn_in_internal(text, &failed);
	return !failed;
#else
	ErrorSaveContext context = {T_ErrorSaveContext};

	*lsn = pg_lsn_in_safe(text, (Node *) &context);
	return !context.error_occurred;
#endif
}

#endif							/* LSN_TRACKER_COMPAT_H */
