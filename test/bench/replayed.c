/*-------------------------------------------------------------------------
 *
 * replayed.c
 *		7: nothing to wait for.
 *
 *-------------------------------------------------------------------------
 */
#include "bench.h"

#define CALLS 200

static const char *const params[] = {"4711", lsn};

typedef struct
{
	const char *name;
	const char *sql;
	int			first_param;
	int			nparams;
	PGconn	   *conn;			/* of its own: who has never waited pays less */
	Samples		time;			/* of a call */
	Samples		cpu;			/* of the session, a call */
} Contender;

/* for the targets */
enum
{
	ONE = 0,
	TEXT,
	PG_LSN,
	WAIT_FOR,
	READ,
	READ_IN_FROM
};

#define READ_ACCOUNT(from) "SELECT abalance FROM pgbench_accounts" from " WHERE aid = $1"

static Contender contenders[] = {
	[ONE] = {"SELECT 1", "SELECT 1", 0, 0},
	[TEXT] = {"lsn_wait(text)", "SELECT lsn_wait($1::text, 5000)", 1, 1},
	[PG_LSN] = {"lsn_wait(pg_lsn)", "SELECT lsn_wait($1::pg_lsn, 5000)", 1, 1},
	/* wait_for_command(): once for one position is all that can be prepared of it */
	[WAIT_FOR] = {"WAIT FOR LSN", NULL, 0, 0},
	[READ] = {"read", READ_ACCOUNT(""), 0, 1},
	[READ_IN_FROM] = {"read with lsn_require in FROM", READ_ACCOUNT(", lsn_require($2)"), 0, 2},
	{"read with any function in FROM", READ_ACCOUNT(", pg_stat_clear_snapshot()"), 0, 1},
};

#define CONTENDERS ((int) (sizeof(contenders) / sizeof(contenders[0])))

void
replayed(int rounds, const char *standby_info)
{
	query(primary, "SELECT pg_switch_wal()", lsn, sizeof(lsn));
	prepare(standby, "replayed", "SELECT pg_last_wal_replay_lsn() >= $1");
	await_standby("replayed", lsn, "t");
	for (int i = 0; i < CONTENDERS; i++)
	{
		Contender  *c = &contenders[i];

		c->conn = connect_to(standby_info);
		prepare(c->conn, "", c->sql != NULL ? c->sql : wait_for_command());
		c->time = samples_for(rounds);
		c->cpu = samples_for(rounds);
	}
	for (int r = 0; r < rounds; r++)
	{
		for (int i = 0; i < CONTENDERS; i++)
		{
			Contender  *c = &contenders[(i + r) % CONTENDERS];
			double		cpu = server_cpu(c->conn);
			double		start = now_us();

			for (int n = 0; n < CALLS; n++)
				PQclear(checked(c->conn, PQexecPrepared(c->conn, "", c->nparams, params + c->first_param, NULL, NULL, 0)));
			add(&c->time, (now_us() - start) / CALLS);
			add(&c->cpu, (server_cpu(c->conn) - cpu) / CALLS);
		}
		progress("already replayed", r + 1, rounds);
	}
	for (int i = 0; i < CONTENDERS; i++)
	{
		Contender  *c = &contenders[i];
		char		more[64];

		snprintf(more, sizeof(more), ",%.0f,%.1f", 1e6 / median(&c->time, 0, rounds), median(&c->cpu, 0, rounds));
		row("already replayed; us a call", c->name, &c->time, more);
	}
	/* 0.97 and 0.95 of the calls a second */
	target("already replayed: time of lsn_wait(pg_lsn) / SELECT 1", &contenders[PG_LSN].time, &contenders[ONE].time, 1 / 0.97);
	target("already replayed: time of lsn_wait(text) / SELECT 1", &contenders[TEXT].time, &contenders[ONE].time, 1 / 0.97);
	target("already replayed: time of lsn_wait(text) / WAIT FOR LSN", &contenders[TEXT].time, &contenders[WAIT_FOR].time, 1.00);
	target("already replayed: time of a read with lsn_require in FROM / of the read", &contenders[READ_IN_FROM].time, &contenders[READ].time, 1 / 0.95);
}
