/*-------------------------------------------------------------------------
 *
 * bench.h
 *		What the workloads of the program "bench" share, and what they are: a
 *		file each, see bench.c.
 *
 * Times are in us.  Nothing here returns an error: what goes wrong ends the program.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_H
#define BENCH_H

#include "../client.h"

/* ---- results.c ---- */

typedef struct
{
	double	   *us;
	int			n;
	int			room;			/* see add_more() */
} Samples;

/* Room for so many; none yet.  It is never freed. */
extern Samples samples_for(int n);

/* There has to be room. */
extern void add(Samples *s, double us);

/* However many; the samples are {0} before the first */
extern void add_more(Samples *s, double us);

/* Of so many of them, from the first given on; the value below which a fraction of them lie */
extern double quantile(const Samples *s, int first, int n, double fraction);
extern double median(const Samples *s, int first, int n);
extern double mean(const Samples *s, int first, int n);

/* Print a line of results.  "more": further columns, each with a comma in front */
extern void row(const char *name, const char *contender, const Samples *s, const char *more);

/* Print what is to be reached, and whether it was: of medians, or of another statistic */
extern void target(const char *what, const Samples *s, const Samples *against, double limit);
extern void target_of(double (*statistic)(const Samples *, int, int),
					  const char *what, const Samples *s, const Samples *against, double limit);

/* The numbers in a file, one a line */
extern Samples samples_in(const char *path);

/* Say on a terminal how far the run is. */
extern void progress(const char *what, int done, int of);

/* User and system time of this process */
extern double client_cpu(void);

/* The same of a process of this machine, and of the server's at the other end */
extern double process_cpu(int pid);
extern double server_cpu(PGconn *conn);

/* ---- sessions.c ---- */

/* What has not returned after so many seconds was missed. */
#define LOST_AFTER 10

/*
 * A position behind a page header is never reported by a standby, and WAIT FOR
 * LSN times out on it.  Allow everybody what lsn_wait() does by itself.
 */
#define INSERT_LSN \
	"SELECT l - CASE WHEN (l - '0/0') % 16777216 = 40 THEN 40 WHEN (l - '0/0') % 8192 = 24 THEN 24 ELSE 0 END" \
	" FROM pg_current_wal_insert_lsn() l"

/* The sessions of main(); NULL if the workload has none there */
extern PGconn *primary;
extern PGconn *standby;

/* Of the operation in progress: its row, the position, what was read */
extern char id[32];
extern char lsn[64];
extern char answer[64];

/* As ask(), for a query that is not prepared */
extern void query(PGconn *conn, const char *sql, char *value, size_t size);

extern void expect(const char *what, const char *answer, const char *wanted);

/* Wait until a prepared query on the standby gives this answer, LOST_AFTER at most. */
extern void await_standby(const char *name, const char *param, const char *wanted);

/* Send a prepared statement with at most one parameter, in a pipeline. */
extern void send_prepared(PGconn *conn, const char *name, const char *param);
extern void sync_pipeline(PGconn *conn);

/*
 * Get the answers of a pipeline up to and with the next so many
 * synchronization points.  The last value goes to "value".
 */
extern void pipeline_answers(PGconn *conn, int syncs, char *value, size_t size);
extern void pipeline_mode(PGconn *conn, int on);

/* Write the row "id"; the caller has prepared "insert". */
extern void write_row(PGconn *conn);

/* The same on the primary, with its token to "lsn" */
extern void write_with_token(void);

/* The command that waits for "lsn"; it is valid until the next call. */
extern const char *wait_for_command(void);

/* ---- waiters.c ---- */

/* How a session waits */
enum
{
	LSN_WAIT,
	WAIT_FOR_LSN,
	NOBODY,
	KINDS
};

extern const char *const kind_names[KINDS];

/* What a round's sessions wait for */
typedef enum
{
	NEXT_RECORD,				/* the only one, as it streams in */
	ONE_POSITION,				/* one record among others */
	DIFFERENT_POSITIONS			/* a record each */
} Targets;

/* So many new sessions on the standby */
extern PGconn **waiting_sessions(int n, const char *standby_info);

/* Have one of them wait; this does not. */
extern void send_wait(PGconn *conn, int kind, long long position);

/* Wait until so many of the standby's sessions do; the caller has called waiting_sessions(). */
extern void await_waiting(int n);

/* Prepare what round_of_waiters() asks, but for "write", which is the caller's. */
extern void prepare_rounds(void);

/*
 * One round of so many sessions.  Unless it is about the next record, replay is
 * paused until everybody is in the queue and the WAL is there, so that the
 * startup process goes through it without waiting for anything.  Notes the times
 * from the beginning of the first target's redo to the first and to the last
 * return and, if asked for, to the redo of the second record behind the last
 * target: lsn_tracker wakes sessions at the beginning of the first.
 */
extern void round_of_waiters(PGconn **conns, int sessions, int kind, Targets targets,
							 Samples *first, Samples *last, Samples *startup);

/* ---- the workloads ---- */

extern void operations(const char *name, int rounds, const char *primary_info);
extern void wakeup(int rounds, const char *standby_info);
extern void crowd(int sessions, int rounds, const char *standby_info);
extern void load(int rounds);
extern void replayed(int rounds, const char *standby_info);
extern void strong(const char *name, int clients, int turns, const char *primary_info, const char *standby_info);
extern void hold(int sessions, int kind, const char *standby_info);

#endif							/* BENCH_H */
