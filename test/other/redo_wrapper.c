/*-------------------------------------------------------------------------
 *
 * redo_wrapper.c
 *		Another library that wraps the resource managers' redo functions.
 *
 * It does so each time that shared memory is made, around whatever it finds
 * there but itself: the simplest way, and a trap for two that do the same.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "fmgr.h"
#include "storage/ipc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static shmem_startup_hook_type next_startup = NULL;
static void (*wrapped[RM_MAX_ID + 1])(XLogReaderState *record);

static void
Redo(XLogReaderState *record)
{
	wrapped[XLogRecGetRmid(record)](record);
}

static void
Wrap(void)
{
	if (next_startup)
		next_startup();
	for (int rmid = 0; rmid <= RM_MAX_ID; rmid++)
	{
		if (RmgrTable[rmid].rm_name == NULL || RmgrTable[rmid].rm_redo == Redo)
			continue;
		wrapped[rmid] = RmgrTable[rmid].rm_redo;
		RmgrTable[rmid].rm_redo = Redo;
	}
	elog(LOG, "redo_wrapper: wrapped");
}

void
_PG_init(void)
{
	next_startup = shmem_startup_hook;
	shmem_startup_hook = Wrap;
}
