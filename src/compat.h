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
#include "libpq/libpq.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 190000
#include "nodes/miscnodes.h"
#endif

#if PG_VERSION_NUM < 150000
#error "lsn_tracker needs PostgreSQL 15 or later"
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
 * Does this session hold any lock, but for the one on its virtual transaction?
 * The locks are in MyProc's fast-path slots, or in its lists of those in the
 * shared table.  16 made other lists of these, 18 several groups of the slots.
 *
 * Without a lock, since only the session itself takes and releases its locks.
 * But others may move one from the slots to the lists, where they enter it first:
 * so the slots are looked at first, too.
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
#if PG_VERSION_NUM < 160000
		if (!SHMQueueEmpty(&MyProc->myProcLocks[i]))
			return true;
#else
		if (!dlist_is_empty(&MyProc->myProcLocks[i]))
			return true;
#endif
	}
	return false;
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
