/*-------------------------------------------------------------------------
 *
 * operation.c
 *		1: read your writes, end to end.
 *
 *-------------------------------------------------------------------------
 */
#include <unistd.h>

#include "bench.h"

static PGconn *primary_remote_apply;

static void
read_row(PGconn *conn)
{
	ask(conn, "read", id, answer, sizeof(answer));
}

static void
write_and_ask(void)
{
	write_row(primary);
	ask(primary, "lsn", NULL, lsn, sizeof(lsn));
}

/* The same in one round trip; two transactions, since the position has to be that after the commit */
static void
write_and_ask_pipelined(void)
{
	pipeline_mode(primary, 1);
	send_prepared(primary, "insert", id);
	sync_pipeline(primary);
	send_prepared(primary, "lsn", NULL);
	sync_pipeline(primary);
	pipeline_answers(primary, 2, lsn, sizeof(lsn));
	pipeline_mode(primary, 0);
}

static void
op_primary(void)
{
	write_row(primary);
	read_row(primary);
}

static void
op_primary_pipelined(void)
{
	pipeline_mode(primary, 1);
	send_prepared(primary, "insert", id);
	sync_pipeline(primary);
	send_prepared(primary, "read", id);
	sync_pipeline(primary);
	pipeline_answers(primary, 2, answer, sizeof(answer));
	pipeline_mode(primary, 0);
}

static void
op_remote_apply(void)
{
	write_row(primary_remote_apply);
	read_row(standby);
}

/* Wait and read by a prepared statement that does both. */
static void
read_at(const char *name)
{
	const char *params[] = {lsn, id};
	PGresult   *res = checked(standby, PQexecPrepared(standby, name, 2, params, NULL, NULL, 0));

	snprintf(answer, sizeof(answer), "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
}

static void
op_lsn_wait(void)
{
	write_with_token();
	read_at("wait_and_read");
}

static void
op_in_from(void)
{
	write_with_token();
	read_at("read_at");
}

/* The read itself knows nothing of the token: so does a pooler, or a driver, for any program. */
static void
op_set_token(void)
{
	char		command[256];

	write_with_token();
	snprintf(command, sizeof(command), "SET lsn_tracker.token = '%s'; SELECT count(*) FROM bench WHERE id = %s", lsn, id);
	query(standby, command, answer, sizeof(answer));
}

static void
op_lsn_require(void)
{
	write_with_token();
	ask(standby, "require", lsn, answer, sizeof(answer));
	read_row(standby);
}

static void
op_lsn_require_pipelined(void)
{
	write_with_token();
	pipeline_mode(standby, 1);
	send_prepared(standby, "require", lsn);
	send_prepared(standby, "read", id);
	sync_pipeline(standby);
	pipeline_answers(standby, 1, answer, sizeof(answer));
	pipeline_mode(standby, 0);
}

static void
op_wait_for(void)
{
	write_and_ask();
	run(standby, wait_for_command());
	read_row(standby);
}

static void
op_wait_for_pipelined(void)
{
	write_and_ask_pipelined();
	pipeline_mode(standby, 1);
	if (!PQsendQueryParams(standby, wait_for_command(), 0, NULL, NULL, NULL, NULL, 0))
		die("%s", PQerrorMessage(standby));
	send_prepared(standby, "read", id);
	sync_pipeline(standby);
	pipeline_answers(standby, 1, answer, sizeof(answer));
	pipeline_mode(standby, 0);
}

static void
poll_and_read(int pause_ms)
{
	for (;;)
	{
		ask(standby, "poll", lsn, answer, sizeof(answer));
		if (strcmp(answer, "t") == 0)
			break;
		usleep(pause_ms * 1000);
	}
	read_row(standby);
}

static void
op_tight_poll(void)
{
	write_and_ask();
	poll_and_read(0);
}

/* Asks and reads together; what was read counts if the answer before it was yes */
static void
op_tight_poll_pipelined(void)
{
	char		replayed[8] = "";

	write_and_ask_pipelined();
	pipeline_mode(standby, 1);
	do
	{
		PGresult   *res;

		send_prepared(standby, "poll", lsn);
		send_prepared(standby, "read", id);
		sync_pipeline(standby);
		res = checked(standby, PQgetResult(standby));
		snprintf(replayed, sizeof(replayed), "%s", PQgetvalue(res, 0, 0));
		PQclear(res);
		PQclear(PQgetResult(standby));
		pipeline_answers(standby, 1, answer, sizeof(answer));
	} while (strcmp(replayed, "t") != 0);
	pipeline_mode(standby, 0);
}

static void
op_poll_1(void)
{
	write_and_ask();
	poll_and_read(1);
}

static void
op_poll_10(void)
{
	write_and_ask();
	poll_and_read(10);
}

static void
op_poll_50(void)
{
	write_and_ask();
	poll_and_read(50);
}

static void
op_loop(void)
{
	write_and_ask();
	ask(standby, "loop", lsn, answer, sizeof(answer));
	read_row(standby);
}

static void
op_write_alone(void)
{
	write_row(primary);
}

static void
op_ask_one(void)
{
	ask(standby, "one", NULL, answer, sizeof(answer));
}

typedef struct
{
	const char *name;
	void		(*operation) (void);
	const char *trips;			/* round trips that it takes at least */
	int			every;			/* slow ones are run in every so many rounds */
	Samples		time;
	Samples		client_cpu;
	Samples		server_cpu;		/* of the standby's session */
	Samples		cpu;			/* of both */
} Contender;

/* for the targets */
enum
{
	ORDINARY = 0,
	IN_FROM,
	REQUIRE,
	WAIT_FOR,
	TIGHT_POLL,
	BEST,
	WAIT_FOR_BEST
};

static Contender contenders[] = {
	[ORDINARY] = {"lsn_wait and read in one SELECT", op_lsn_wait, "2", 1},
	[IN_FROM] = {"read with lsn_require in FROM", op_in_from, "2", 1},
	[REQUIRE] = {"lsn_require", op_lsn_require, "3", 1},
	[WAIT_FOR] = {"WAIT FOR LSN", op_wait_for, "4", 1},
	[TIGHT_POLL] = {"tight poll", op_tight_poll, "4+", 1},
	[BEST] = {"lsn_require pipelined", op_lsn_require_pipelined, "2", 1},
	[WAIT_FOR_BEST] = {"WAIT FOR LSN pipelined", op_wait_for_pipelined, "2", 1},
	{"SET of the token; read", op_set_token, "2", 1},
	{"tight poll pipelined", op_tight_poll_pipelined, "2+", 1},
	{"poll every 1 ms", op_poll_1, "4+", 2},
	{"poll every 10 ms", op_poll_10, "4+", 10},
	{"poll every 50 ms", op_poll_50, "4+", 20},
	{"loop with pg_sleep(0.05)", op_loop, "4", 20},
	{"remote_apply", op_remote_apply, "2", 1},
	{"primary", op_primary, "2", 1},
	{"primary pipelined", op_primary_pipelined, "1", 1},
};

#define CONTENDERS ((int) (sizeof(contenders) / sizeof(contenders[0])))

/* What nothing that writes and asks can do without */
static Contender floors[] = {
	{.name = "the write alone", .operation = op_write_alone, .trips = "1"},
	{.name = "a prepared SELECT 1", .operation = op_ask_one, .trips = "1"},
};

#define FLOORS ((int) (sizeof(floors) / sizeof(floors[0])))

static void
measure(Contender *c)
{
	double		client = client_cpu();
	double		server = server_cpu(standby);
	double		start = now_us();

	c->operation();
	add(&c->time, now_us() - start);
	client = client_cpu() - client;
	server = server_cpu(standby) - server;
	add(&c->client_cpu, client);
	add(&c->server_cpu, server);
	add(&c->cpu, client + server);
}

static void
operation_row(const char *name, const Contender *c)
{
	char		more[64];

	/* CPU may be counted in ticks: only the sum is exact */
	snprintf(more, sizeof(more), ",%s,%.1f,%.1f", c->trips,
			 mean(&c->client_cpu, 0, c->client_cpu.n), mean(&c->server_cpu, 0, c->server_cpu.n));
	row(name, c->name, &c->time, more);
}

void
operations(const char *name, int rounds, const char *primary_info)
{

	char		what[128];
	long		first;

	query(primary, "SELECT coalesce(max(id) + 1, 0) FROM bench", answer, sizeof(answer));
	first = atol(answer);
	primary_remote_apply = connect_to(primary_info);
	run(primary_remote_apply, "SET synchronous_commit = remote_apply");
	prepare(primary_remote_apply, "insert", "INSERT INTO bench VALUES ($1)");
	prepare(primary, "insert", "INSERT INTO bench VALUES ($1)");
	prepare(primary, "lsn", INSERT_LSN);
	prepare(primary, "read", "SELECT count(*) FROM bench WHERE id = $1");
	prepare(standby, "read", "SELECT count(*) FROM bench WHERE id = $1");
	prepare(standby, "require", "SELECT lsn_require($1, 5000)");
	prepare(standby, "wait_and_read", "SELECT CASE WHEN lsn_wait($1, 5000) THEN bench_read($2) END");
	prepare(standby, "read_at", "SELECT count(*) FROM bench, lsn_require($1, 5000) WHERE id = $2");
	prepare(standby, "poll", "SELECT pg_last_wal_replay_lsn() >= $1");
	prepare(standby, "loop", "SELECT bench_loop($1)");
	prepare(standby, "one", "SELECT 1");
	for (int i = 0; i < CONTENDERS + FLOORS; i++)
	{
		Contender  *c = i < CONTENDERS ? &contenders[i] : &floors[i - CONTENDERS];

		c->time = samples_for(rounds);
		c->client_cpu = samples_for(rounds);
		c->server_cpu = samples_for(rounds);
		c->cpu = samples_for(rounds);
	}

	for (int r = 0; r < rounds; r++)
	{
		for (int i = 0; i < CONTENDERS; i++)
		{
			/* each time another one begins */
			Contender  *c = &contenders[(i + r) % CONTENDERS];

			if (r % c->every != 0)
				continue;
			snprintf(id, sizeof(id), "%ld", first++);
			measure(c);
			if (strcmp(answer, "1") != 0)
			{
				char		state[128];

				query(standby, "SELECT 'received ' || pg_last_wal_receive_lsn() || ', replayed ' || pg_last_wal_replay_lsn()",
					  state, sizeof(state));
				die("%s: read \"%s\", not \"1\", having waited for %s; now the standby has %s\n",
					c->name, answer, lsn, state);
			}
		}
		for (int i = 0; i < FLOORS; i++)
		{
			snprintf(id, sizeof(id), "%ld", first++);
			measure(&floors[i]);
		}
		progress(name, r + 1, rounds);
	}

	for (int i = 0; i < CONTENDERS; i++)
		operation_row(name, &contenders[i]);
	for (int i = 0; i < FLOORS; i++)
		operation_row(name, &floors[i]);
	snprintf(what, sizeof(what), "operation %s: lsn_wait / WAIT FOR LSN as an ordinary client writes it", name);
	target(what, &contenders[ORDINARY].time, &contenders[WAIT_FOR].time, 0.67);
	/* two round trips instead of four: without a delay of the network there is no such target */
	if (atof(name) > 0)
	{
		snprintf(what, sizeof(what), "operation %s: read with lsn_require in FROM / WAIT FOR LSN as an ordinary client writes it", name);
		target(what, &contenders[IN_FROM].time, &contenders[WAIT_FOR].time, 0.52);
	}
	snprintf(what, sizeof(what), "operation %s: lsn_require / WAIT FOR LSN; both pipelined", name);
	target(what, &contenders[BEST].time, &contenders[WAIT_FOR_BEST].time, 1.00);
	snprintf(what, sizeof(what), "operation %s: lsn_wait / tight poll", name);
	target(what, &contenders[ORDINARY].time, &contenders[TIGHT_POLL].time, 1.05);
	snprintf(what, sizeof(what), "operation %s: CPU of client and session; lsn_wait / tight poll", name);
	target_of(mean, what, &contenders[ORDINARY].cpu, &contenders[TIGHT_POLL].cpu, 0.10);
}
