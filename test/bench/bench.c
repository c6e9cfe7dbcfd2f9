/*-------------------------------------------------------------------------
 *
 * bench.c
 *		What test/bench/run measures from a client's side.
 *
 *		bench operation CASE ROUNDS PRIMARY STANDBY
 *		bench wakeup ROUNDS PRIMARY STANDBY
 *		bench crowd SESSIONS ROUNDS PRIMARY STANDBY
 *		bench load ROUNDS PRIMARY STANDBY
 *		bench replayed ROUNDS PRIMARY STANDBY
 *		bench hold SESSIONS lsn_wait|WAIT_FOR STANDBY
 *		bench row CASE CONTENDER FILE
 *		bench target WHAT LIMIT FILE AGAINST_FILE
 *
 * Whatever is compared is measured by turns.  The results are CSV lines:
 *
 *		row,CASE,CONTENDER,N,MEDIAN,P25,P75,P99[,...]	times in us
 *		target,WHAT,RATIO,LOWEST,HIGHEST,LIMIT
 *
 * RATIO is one of medians, or of means for CPU time, LOWEST and HIGHEST are the
 * same of each fifth of the run, LIMIT is what it is to reach at most.  The last
 * two forms make such lines of numbers that the shell has collected.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../client.h"

/*
 * What the primary may write by itself before the sessions wait, bytes: its
 * running transactions and a checkpoint.  It must reach no target.
 */
#define OWN_WAL 400

/* A record of the table "crowd" is larger than this, bytes. */
#define RECORD 56

/* What has not returned after so many seconds was missed. */
#define LOST_AFTER 10

/* Who waits for replay: the sessions of lsn_tracker and of WAIT FOR LSN */
#define COUNT_WAITING \
	"SELECT count(*) FROM pg_stat_activity" \
	" WHERE wait_event IN ('LsnWait', 'WaitForWalReplay') AND state = 'active'"

/*
 * A position behind a page header is never reported by a standby, and WAIT FOR
 * LSN times out on it.  Allow everybody what lsn_wait() does by itself.
 */
#define INSERT_LSN \
	"SELECT l - CASE WHEN (l - '0/0') % 16777216 = 40 THEN 40 WHEN (l - '0/0') % 8192 = 24 THEN 24 ELSE 0 END" \
	" FROM pg_current_wal_insert_lsn() l"

static PGconn *primary;
static PGconn *standby;

/* ---- results ---- */

typedef struct
{
	double	   *us;
	int			n;
} Samples;

static Samples
samples_for(int n)
{
	return (Samples){.us = calloc(n, sizeof(double))};
}

static void
add(Samples *s, double us)
{
	s->us[s->n++] = us;
}

/* The value below which a fraction of so many of them lie, from the first given on */
static double
quantile(const Samples *s, int first, int n, double fraction)
{
	double	   *copy = malloc(n * sizeof(double));
	double		result;

	memcpy(copy, s->us + first, n * sizeof(double));
	result = percentile(copy, n, fraction);
	free(copy);
	return result;
}

static double
median(const Samples *s, int first, int n)
{
	return quantile(s, first, n, 0.5);
}

static double
mean(const Samples *s, int first, int n)
{
	double		sum = 0;

	for (int i = first; i < first + n; i++)
		sum += s->us[i];
	return sum / n;
}

/* "more": further columns, each with a comma in front */
static void
row(const char *name, const char *contender, const Samples *s, const char *more)
{
	printf("row,%s,%s,%d,%.1f,%.1f,%.1f,%.1f%s\n", name, contender, s->n, median(s, 0, s->n),
		   quantile(s, 0, s->n, 0.25), quantile(s, 0, s->n, 0.75), quantile(s, 0, s->n, 0.99), more);
}

static void
target_of(double (*statistic) (const Samples *, int, int),
		  const char *what, const Samples *s, const Samples *against, double limit)
{
	int			parts = s->n < 5 || against->n < 5 ? 1 : 5;
	double		lowest = 0,
				highest = 0;

	for (int i = 0; i < parts; i++)
	{
		double		ratio = statistic(s, s->n * i / parts, s->n / parts) /
			statistic(against, against->n * i / parts, against->n / parts);

		lowest = i == 0 || ratio < lowest ? ratio : lowest;
		highest = i == 0 || ratio > highest ? ratio : highest;
	}
	printf("target,%s,%.3f,%.3f,%.3f,%.2f\n", what,
		   statistic(s, 0, s->n) / statistic(against, 0, against->n), lowest, highest, limit);
}

static void
target(const char *what, const Samples *s, const Samples *against, double limit)
{
	target_of(median, what, s, against, limit);
}

/* The numbers in a file, one a line */
static Samples
samples_in(const char *path)
{
	Samples		s = samples_for(10000);
	FILE	   *file = fopen(path, "r");
	double		value;

	while (file != NULL && s.n < 10000 && fscanf(file, "%lf", &value) == 1)
		add(&s, value);
	if (s.n == 0)
		die("%s: no numbers\n", path);
	fclose(file);
	return s;
}

static void
progress(const char *what, int done, int of)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r  %s: %d of %d\033[K%s", what, done, of, done == of ? "\r\033[K" : "");
}

/* User and system time of this process, us */
static double
client_cpu(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

/* The same of the server's process at the other end, which is on this machine */
static double
server_cpu(PGconn *conn)
{
	char		path[64];
	FILE	   *file;
	double		ns;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", PQbackendPID(conn));
	file = fopen(path, "r");
	if (file == NULL || fscanf(file, "%lf", &ns) != 1)
		die("%s: cannot be read\n", path);
	fclose(file);
	return ns / 1000;
}

/* ---- questions ---- */

/* As ask(), for a query that is not prepared */
static void
query(PGconn *conn, const char *sql, char *value, size_t size)
{
	PGresult   *res = checked(conn, PQexec(conn, sql));

	snprintf(value, size, "%s", PQntuples(res) > 0 ? PQgetvalue(res, 0, 0) : "");
	PQclear(res);
}

static void
expect(const char *what, const char *answer, const char *wanted)
{
	if (strcmp(answer, wanted) != 0)
		die("%s: got \"%s\", not \"%s\"\n", what, answer, wanted);
}

static void
send_prepared(PGconn *conn, const char *name, const char *param)
{
	if (!PQsendQueryPrepared(conn, name, param ? 1 : 0, &param, NULL, NULL, 0))
		die("%s", PQerrorMessage(conn));
}

static void
sync_pipeline(PGconn *conn)
{
	if (!PQpipelineSync(conn))
		die("%s", PQerrorMessage(conn));
}

/*
 * Get the answers of a pipeline up to and with the next so many
 * synchronization points.  The last value goes to "value".
 */
static void
pipeline_answers(PGconn *conn, int syncs, char *value, size_t size)
{
	while (syncs > 0)
	{
		PGresult   *res = PQgetResult(conn);

		if (res == NULL)
			continue;
		if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
			syncs--;
		else if (PQntuples(checked(conn, res)) > 0)
			snprintf(value, size, "%s", PQgetvalue(res, 0, 0));
		PQclear(res);
	}
}

static void
pipeline_mode(PGconn *conn, int on)
{
	if (!(on ? PQenterPipelineMode(conn) : PQexitPipelineMode(conn)))
		die("%s", PQerrorMessage(conn));
}

/* ---- 1: read your writes, end to end ---- */

static PGconn *primary_remote_apply;

/* Of the operation in progress: its row, the position, what was read */
static char id[32];
static char lsn[64];
static char answer[64];

static void
write_row(PGconn *conn)
{
	ask(conn, "insert", id, answer, sizeof(answer));
}

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
write_with_token(void)
{
	write_row(primary);
	snprintf(lsn, sizeof(lsn), "%s", PQparameterStatus(primary, "lsn_tracker.token"));
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

static void
op_lsn_wait(void)
{
	const char *params[] = {lsn, id};
	PGresult   *res;

	write_with_token();
	res = checked(standby, PQexecPrepared(standby, "wait_and_read", 2, params, NULL, NULL, 0));
	snprintf(answer, sizeof(answer), "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
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

/* It takes no parameter, so there is nothing to prepare */
static const char *
wait_for_command(void)
{
	static char command[128];

	snprintf(command, sizeof(command), "WAIT FOR LSN '%s' WITH (TIMEOUT '5s')", lsn);
	return command;
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
	REQUIRE,
	WAIT_FOR,
	TIGHT_POLL,
	BEST,
	WAIT_FOR_BEST
};

static Contender contenders[] = {
	[ORDINARY] = {"lsn_wait and read in one SELECT", op_lsn_wait, "2", 1},
	[REQUIRE] = {"lsn_require", op_lsn_require, "3", 1},
	[WAIT_FOR] = {"WAIT FOR LSN", op_wait_for, "4", 1},
	[TIGHT_POLL] = {"tight poll", op_tight_poll, "4+", 1},
	[BEST] = {"lsn_require pipelined", op_lsn_require_pipelined, "2", 1},
	[WAIT_FOR_BEST] = {"WAIT FOR LSN pipelined", op_wait_for_pipelined, "2", 1},
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

static void
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
	snprintf(what, sizeof(what), "operation %s: lsn_require / WAIT FOR LSN; both pipelined", name);
	target(what, &contenders[BEST].time, &contenders[WAIT_FOR_BEST].time, 1.00);
	snprintf(what, sizeof(what), "operation %s: lsn_wait / tight poll", name);
	target(what, &contenders[ORDINARY].time, &contenders[TIGHT_POLL].time, 1.05);
	snprintf(what, sizeof(what), "operation %s: CPU of client and session; lsn_wait / tight poll", name);
	target_of(mean, what, &contenders[ORDINARY].cpu, &contenders[TIGHT_POLL].cpu, 0.10);
}

/* ---- 2 and 3: from the redo of a record to the return of who waits for it ---- */

enum
{
	LSN_WAIT,
	WAIT_FOR_LSN,
	NOBODY,
	KINDS
};

static const char *const kind_names[KINDS] = {"lsn_wait", "WAIT FOR LSN", "nobody"};

/* Wait until a query on the standby gives this answer */
static void
await_standby(const char *name, const char *param, const char *wanted)
{
	double		deadline = now_us() + LOST_AFTER * 1e6;

	do
	{
		ask(standby, name, param, answer, sizeof(answer));
		if (now_us() > deadline)
			die("%s: still \"%s\", not \"%s\"\n", name, answer, wanted);
	} while (strcmp(answer, wanted) != 0);
}

/* The same protocol for both, so that what is compared is the wait. */
static void
send_wait(PGconn *conn, int kind, long long position)
{
	char		command[128];

	snprintf(command, sizeof(command), kind == LSN_WAIT ? "SELECT lsn_wait('%llX/%08llX', 0)" : "WAIT FOR LSN '%llX/%08llX'",
			 position >> 32, position & 0xFFFFFFFF);
	if (!PQsendQuery(conn, command) || PQflush(conn) != 0)
		die("%s", PQerrorMessage(conn));
}

/* Prepare what the sessions of the next two workloads ask. */
static void
prepare_waiting(void)
{
	prepare(standby, "waiting", COUNT_WAITING);
	prepare(standby, "began", "SELECT bench_redo_began('0/0'::pg_lsn + $1::numeric)");
	prepare(standby, "replayed", "SELECT pg_last_wal_replay_lsn() >= $1");
	prepare(standby, "received", "SELECT pg_last_wal_receive_lsn() >= $1");
	prepare(standby, "pause", "SELECT pg_wal_replay_pause()");
	prepare(standby, "pause_state", "SELECT pg_get_wal_replay_pause_state()");
	prepare(standby, "resume", "SELECT pg_wal_replay_resume()");
	prepare(primary, "position", "SELECT (" INSERT_LSN ") - '0/0'");
	prepare(primary, "lsn", INSERT_LSN);
}

static PGconn **
waiting_sessions(int n, const char *standby_info)
{
	PGconn	  **conns = calloc(n, sizeof(PGconn *));

	for (int i = 0; i < n; i++)
		conns[i] = connect_to(standby_info);
	return conns;
}

static double
redo_began(long long position)
{
	char		text[32];

	snprintf(text, sizeof(text), "%lld", position);
	ask(standby, "began", text, answer, sizeof(answer));
	if (answer[0] == '\0')
		die("no record at %s has been replayed\n", text);
	return atof(answer);
}

/* What a round's sessions wait for */
typedef enum
{
	NEXT_RECORD,				/* the only one, as it streams in */
	ONE_POSITION,				/* one record among others */
	DIFFERENT_POSITIONS			/* a record each */
} Targets;

/*
 * One round of so many sessions.  Unless it is about the next record, replay is
 * paused until everybody is in the queue and the WAL is there, so that the
 * startup process goes through it without waiting for anything.  Notes the times
 * from the beginning of the first target's redo to the first and to the last
 * return and, if asked for, to the redo of the second record behind the last
 * target: lsn_tracker wakes sessions at the beginning of the first.
 */
static void
round_of_waiters(PGconn **conns, int sessions, int kind, Targets targets,
				 Samples *first, Samples *last, Samples *startup)
{
	static struct pollfd *fds;
	int			waiting = kind == NOBODY ? 0 : sessions;
	int			distance = targets == DIFFERENT_POSITIONS ? RECORD : 0;
	char		text[32];
	long long	base;
	double		began,
				first_return = 0,
				last_return = 0,
				deadline;

	if (fds == NULL)
		fds = calloc(sessions, sizeof(struct pollfd));
	if (targets != NEXT_RECORD)
	{
		ask(standby, "pause", NULL, answer, sizeof(answer));
		await_standby("pause_state", NULL, "paused");
	}
	ask(primary, "position", NULL, answer, sizeof(answer));
	base = atoll(answer) + (targets == NEXT_RECORD ? 1 : OWN_WAL);
	for (int s = 0; s < waiting; s++)
	{
		send_wait(conns[s], kind, base + s * distance);
		fds[s] = (struct pollfd){.fd = PQsocket(conns[s]), .events = POLLIN};
	}
	snprintf(text, sizeof(text), "%d", waiting);
	await_standby("waiting", NULL, text);
	ask(primary, "write", NULL, answer, sizeof(answer));
	if (targets != NEXT_RECORD)
	{
		ask(primary, "lsn", NULL, lsn, sizeof(lsn));
		await_standby("received", lsn, "t");
		ask(standby, "resume", NULL, answer, sizeof(answer));
	}

	deadline = now_us() + LOST_AFTER * 1e6;
	while (waiting > 0)
	{
		if (now_us() > deadline)
			die("missed: %d of %d sessions were not woken within %d s\n", waiting, sessions, LOST_AFTER);
		if (poll(fds, sessions, 100) < 0 && errno != EINTR)
			die("poll: %s\n", strerror(errno));
		for (int s = 0; s < sessions; s++)
		{
			PGresult   *res;

			if (!(fds[s].revents & POLLIN))
				continue;
			if (!PQconsumeInput(conns[s]))
				die("%s", PQerrorMessage(conns[s]));
			if (PQisBusy(conns[s]))
				continue;
			last_return = now_us();
			if (waiting-- == sessions)
				first_return = last_return;
			res = checked(conns[s], PQgetResult(conns[s]));
			expect("wait", PQgetvalue(res, 0, 0), kind == LSN_WAIT ? "t" : "success");
			PQclear(res);
			PQclear(PQgetResult(conns[s]));
			fds[s] = (struct pollfd){.fd = -1};
		}
	}
	if (targets != NEXT_RECORD)
		await_standby("replayed", lsn, "t");
	began = redo_began(base);
	if (kind != NOBODY)
	{
		add(first, first_return - began);
		add(last, last_return - began);
	}
	if (startup != NULL)
		add(startup, redo_began(base + (sessions - 1) * distance + 3 * RECORD) - began);
}

static void
wakeup(int rounds, const char *standby_info)
{
	PGconn	  **conns = waiting_sessions(1, standby_info);
	Samples		first[2],
				last[2];

	prepare_waiting();
	prepare(primary, "write", "SELECT pg_logical_emit_message(false, 'bench', '', true)");
	for (int k = 0; k < 2; k++)
	{
		first[k] = samples_for(rounds);
		last[k] = samples_for(rounds);
	}
	for (int r = 0; r < rounds; r++)
	{
		for (int i = 0; i < 2; i++)
		{
			int			k = (i + r) % 2;

			round_of_waiters(conns, 1, k, NEXT_RECORD, &first[k], &last[k], NULL);
		}
		progress("wake-up", r + 1, rounds);
	}
	for (int k = 0; k < 2; k++)
		row("redo to return", kind_names[k], &last[k], "");
	target("wake-up: lsn_wait / WAIT FOR LSN", &last[LSN_WAIT], &last[WAIT_FOR_LSN], 1.00);
}

static void
crowd(int sessions, int rounds, const char *standby_info)
{
	PGconn	  **conns = waiting_sessions(sessions, standby_info);
	char		write[128];

	prepare_waiting();
	snprintf(write, sizeof(write), "INSERT INTO crowd SELECT generate_series(1, %d)", sessions + 20);
	prepare(primary, "write", write);
	for (Targets targets = ONE_POSITION; targets <= DIFFERENT_POSITIONS; targets++)
	{
		Samples		first[KINDS];
		Samples		last[KINDS];
		Samples		startup[KINDS];
		char		name[64];
		char		what[128];

		const char *positions = targets == ONE_POSITION ? "one position" : "different positions";

		snprintf(name, sizeof(name), "%d,%s", sessions, positions);
		for (int k = 0; k < KINDS; k++)
		{
			first[k] = samples_for(rounds);
			last[k] = samples_for(rounds);
			startup[k] = samples_for(rounds);
		}
		for (int r = 0; r < rounds; r++)
		{
			for (int i = 0; i < KINDS; i++)
			{
				/* each comes as often behind the other as behind nobody */
				int			k = i == NOBODY ? NOBODY : (i + r) % NOBODY;

				round_of_waiters(conns, sessions, k, targets, &first[k], &last[k], &startup[k]);
			}
			progress(name, r + 1, rounds);
		}
		for (int k = 0; k < KINDS; k++)
		{
			if (k != NOBODY)
			{
				row(name, kind_names[k], &first[k], ",first return");
				row(name, kind_names[k], &last[k], ",last return");
			}
			row(name, kind_names[k], &startup[k], ",startup process");
		}
		snprintf(what, sizeof(what), "crowd of %d; %s: last return; lsn_wait / WAIT FOR LSN", sessions, positions);
		target(what, &last[LSN_WAIT], &last[WAIT_FOR_LSN], 1.00);
		if (sessions >= 1000)
		{
			double		nobody = median(&startup[NOBODY], 0, rounds);

			/* held up: what it takes longer than with nobody waiting */
			for (int r = 0; r < rounds; r++)
			{
				startup[LSN_WAIT].us[r] -= nobody;
				startup[WAIT_FOR_LSN].us[r] -= nobody;
			}
			snprintf(what, sizeof(what), "crowd of %d; %s: startup process held up; lsn_wait / WAIT FOR LSN", sessions, positions);
			target(what, &startup[LSN_WAIT], &startup[WAIT_FOR_LSN], 0.25);
		}
	}
}

/* ---- 4: what else is written does not matter ---- */

static void
load(int rounds)
{
	Samples		times[] = {samples_for(rounds), samples_for(rounds), samples_for(rounds)};

	prepare(primary, "insert", "INSERT INTO bench VALUES ($1)");
	prepare(primary, "lsn", INSERT_LSN);
	prepare(standby, "require", "SELECT lsn_require($1, 60000)");
	for (int r = 0; r < rounds; r++)
	{
		for (int i = 0; i < 3; i++)
		{
			int			k = (i + r) % 3;
			double		start;

			snprintf(id, sizeof(id), "%d", r);
			write_with_token();
			start = now_us();
			if (k != 0)
				ask(primary, "lsn", NULL, lsn, sizeof(lsn));
			if (k != 2)
				ask(standby, "require", lsn, answer, sizeof(answer));
			else
				run(standby, wait_for_command());
			add(&times[k], now_us() - start);
		}
		progress("load", r + 1, rounds);
	}
	row("others commit at full speed", "own commit's token; lsn_require", &times[0], "");
	row("others commit at full speed", "insert position; lsn_require", &times[1], "");
	row("others commit at full speed", "insert position; WAIT FOR LSN", &times[2], "");
	target("load: wait for the own commit's token / for the insert position", &times[0], &times[1], 0.80);
}

/* ---- 7: nothing to wait for ---- */

#define CALLS 200

static void
replayed(int rounds)
{
	static const char *const names[] = {"one", "text", "pg_lsn", "wait_for"};
	static const char *const labels[] = {"SELECT 1", "lsn_wait(text)", "lsn_wait(pg_lsn)", "WAIT FOR LSN"};
	Samples		s[4];
	char		command[128];

	query(primary, "SELECT pg_switch_wal()", lsn, sizeof(lsn));
	prepare(standby, "replayed", "SELECT pg_last_wal_replay_lsn() >= $1");
	await_standby("replayed", lsn, "t");
	prepare(standby, "one", "SELECT 1");
	prepare(standby, "text", "SELECT lsn_wait($1::text, 5000)");
	prepare(standby, "pg_lsn", "SELECT lsn_wait($1::pg_lsn, 5000)");
	/* once for one position is all that can be prepared of it */
	snprintf(command, sizeof(command), "WAIT FOR LSN '%s' WITH (TIMEOUT '5s')", lsn);
	prepare(standby, "wait_for", command);
	for (int i = 0; i < 4; i++)
		s[i] = samples_for(rounds);
	for (int r = 0; r < rounds; r++)
	{
		for (int i = 0; i < 4; i++)
		{
			int			k = (i + r) % 4;
			double		start = now_us();

			for (int n = 0; n < CALLS; n++)
				ask(standby, names[k], k == 1 || k == 2 ? lsn : NULL, answer, sizeof(answer));
			add(&s[k], (now_us() - start) / CALLS);
		}
		progress("already replayed", r + 1, rounds);
	}
	for (int i = 0; i < 4; i++)
	{
		char		rate[32];

		snprintf(rate, sizeof(rate), ",%.0f", 1e6 / median(&s[i], 0, s[i].n));
		row("already replayed; us a call", labels[i], &s[i], rate);
	}
	/* 0.97 of the calls a second */
	target("already replayed: time of lsn_wait(pg_lsn) / SELECT 1", &s[2], &s[0], 1 / 0.97);
	target("already replayed: time of lsn_wait(text) / SELECT 1", &s[1], &s[0], 1 / 0.97);
	target("already replayed: time of lsn_wait(text) / WAIT FOR LSN", &s[1], &s[3], 1.00);
}

/* ---- sessions that wait far ahead, for 5 and 6 ---- */

static void
hold(int sessions, int kind, const char *standby_info)
{
	PGconn	  **conns = waiting_sessions(sessions, standby_info);
	char		text[32];

	prepare(standby, "waiting", COUNT_WAITING);
	/* 4 PB ahead, a MB apart */
	for (int s = 0; s < sessions; s++)
		send_wait(conns[s], kind, (1LL << 52) + s * (1LL << 20));
	snprintf(text, sizeof(text), "%d", sessions);
	await_standby("waiting", NULL, text);
	printf("ready");
	for (int s = 0; s < sessions; s++)
		printf(" %d", PQbackendPID(conns[s]));
	puts("");
	fflush(stdout);
	/* until whoever started this wants no more of it, or is gone */
	while (getchar() != EOF)
		;
}

int
main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	int			n = argc > 2 ? atoi(argv[2]) : 0;
	const char *standby_info = argv[argc - 1];

	if (argc == 5 && strcmp(what, "hold") == 0)
	{
		standby = connect_to(standby_info);
		hold(n, strcmp(argv[3], "lsn_wait") == 0 ? LSN_WAIT : WAIT_FOR_LSN, standby_info);
		return 0;
	}
	if (argc == 5 && strcmp(what, "row") == 0)
	{
		Samples		s = samples_in(argv[4]);

		row(argv[2], argv[3], &s, "");
		return 0;
	}
	if (argc == 6 && strcmp(what, "target") == 0)
	{
		Samples		s = samples_in(argv[4]);
		Samples		against = samples_in(argv[5]);

		target(argv[2], &s, &against, atof(argv[3]));
		return 0;
	}
	if (argc < 5)
		die("bench: too few arguments, see bench.c\n");
	primary = connect_to(argv[argc - 2]);
	standby = connect_to(standby_info);
	if (strcmp(what, "operation") == 0)
		operations(argv[2], atoi(argv[3]), argv[4]);
	else if (strcmp(what, "wakeup") == 0)
		wakeup(n, standby_info);
	else if (strcmp(what, "crowd") == 0)
		crowd(n, atoi(argv[3]), standby_info);
	else if (strcmp(what, "load") == 0)
		load(n);
	else if (strcmp(what, "replayed") == 0)
		replayed(n);
	else
		die("bench: unknown: %s\n", what);
	return 0;
}
