/*-------------------------------------------------------------------------
 *
 * bench_probe.c
 *		When the redo of each record began: the instant that the benchmark
 *		measures wake-ups from, and how long the startup process takes from one
 *		record to another.
 *
 * A library for the benchmark alone.  It is preloaded behind lsn_tracker, so
 * its function is the outer one of the two: what it notes lies before anything
 * that lsn_tracker, or the server after redo, does about the record.
 *
 * The startup process writes a ring of the last records, without a lock: a
 * reader asks only about WAL that is replayed and after which nothing else
 * comes, so what it reads stands still.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/pg_lsn.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_redo_began);

#define RING 16384

typedef struct Probe
{
	pg_atomic_uint64 records;	/* noted so far */
	struct
	{
		XLogRecPtr	end;
		double		began;		/* us, the monotonic clock */
	}			ring[RING];
} Probe;

static Probe *probe;
static void (*server_redo[RM_MAX_ID + 1]) (XLogReaderState *record);
static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;

void		_PG_init(void);

static void
ProbedRedo(XLogReaderState *record)
{
	uint64		n = pg_atomic_read_u64(&probe->records);
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	probe->ring[n % RING].end = record->EndRecPtr;
	probe->ring[n % RING].began = t.tv_sec * 1e6 + t.tv_nsec / 1e3;
	/* the entry is complete before it is counted */
	pg_write_barrier();
	pg_atomic_write_u64(&probe->records, n + 1);
	server_redo[XLogRecGetRmid(record)] (record);
}

static void
RequestProbe(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(sizeof(Probe));
}

static void
CreateProbe(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	probe = ShmemInitStruct("bench_probe", sizeof(Probe), &found);
	if (!found)
		pg_atomic_init_u64(&probe->records, 0);
	LWLockRelease(AddinShmemInitLock);

	for (int rmid = 0; rmid <= RM_MAX_ID; rmid++)
		if (RmgrTable[rmid].rm_redo && RmgrTable[rmid].rm_redo != ProbedRedo)
		{
			server_redo[rmid] = RmgrTable[rmid].rm_redo;
			RmgrTable[rmid].rm_redo = ProbedRedo;
		}
}

/*
 * When the redo of the first record that ends at this position or behind it
 * began: us of the monotonic clock, NULL if that record has not come yet.  An
 * error if it came too long ago.
 */
Datum
bench_redo_began(PG_FUNCTION_ARGS)
{
	XLogRecPtr	lsn = PG_GETARG_LSN(0);
	uint64		records = pg_atomic_read_u64(&probe->records);

	/* what is read below was written before it was counted */
	pg_read_barrier();
	for (uint64 n = records > RING ? records - RING : 0; n < records; n++)
		if (probe->ring[n % RING].end >= lsn)
		{
			if (n + RING == records)
				elog(ERROR, "the record at %X/%X is no longer known", LSN_FORMAT_ARGS(lsn));
			PG_RETURN_FLOAT8(probe->ring[n % RING].began);
		}
	PG_RETURN_NULL();
}

void
_PG_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = RequestProbe;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = CreateProbe;
}
