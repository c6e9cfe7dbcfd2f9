/*-------------------------------------------------------------------------
 *
 * slow_replay.c
 *		Replay that is as slow as one wants it: a nap before each record.
 *
 * slow_replay.nap is how long that is, in microseconds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "fmgr.h"
#include "storage/ipc.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static int	nap;
static shmem_startup_hook_type next_startup = NULL;
static void (*wrapped[RM_MAX_ID + 1])(XLogReaderState *record);

static void
SlowRedo(XLogReaderState *record)
{
	if (nap > 0)
		pg_usleep(nap);
	wrapped[XLogRecGetRmid(record)](record);
}

static void
Wrap(void)
{
	if (next_startup)
		next_startup();
	for (int rmid = 0; rmid <= RM_MAX_ID; rmid++)
	{
		if (RmgrTable[rmid].rm_name == NULL)
			continue;
		wrapped[rmid] = RmgrTable[rmid].rm_redo;
		RmgrTable[rmid].rm_redo = SlowRedo;
	}
}

void
_PG_init(void)
{
	DefineCustomIntVariable("slow_replay.nap", "Microseconds before each record.", NULL,
							&nap, 0, 0, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	next_startup = shmem_startup_hook;
	shmem_startup_hook = Wrap;
}
