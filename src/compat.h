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

#include "access/transam.h"
#include "storage/proc.h"
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
