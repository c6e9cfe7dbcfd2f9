/*-------------------------------------------------------------------------
 *
 * bench.c
 *		What test/bench/run measures from a client's side.
 *
 *		bench latency PRIMARY STANDBY ROUNDS
 *		bench crowd PRIMARY STANDBY SESSIONS ROUNDS same|different
 *
 * latency: one client writes on the primary, then waits on the standby, by
 * turns with lsn_wait() and by asking for pg_last_wal_replay_lsn() over and
 * over.  Time runs from the commit's return to the wait's.
 *
 * crowd: so many sessions wait for one position, or for as many different
 * ones; all of them are in the queue when the write happens.  If one has not
 * returned LOST_AFTER seconds later it was missed, and the program fails.
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

#define LOST_AFTER 5

static void
progress(const char *what, int done, int of)
{
	if (isatty(STDERR_FILENO) && (done % 50 == 0 || done == of))
		fprintf(stderr, "\r  %s: %d of %d%s", what, done, of, done == of ? "\r\033[K" : "");
}

/* User and system time of this process, us */
static double
cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

/*
 * Commit a row and learn the position, in one round trip: two transactions in
 * a pipeline.  Returns when the commit's answer arrived.
 */
static double
write_row(PGconn *primary, char *lsn, size_t size)
{
	double		committed = 0;
	int			syncs = 0;

	if (!PQsendQueryPrepared(primary, "insert", 0, NULL, NULL, NULL, 0) ||
		!PQpipelineSync(primary) ||
		!PQsendQueryPrepared(primary, "lsn", 0, NULL, NULL, NULL, 0) ||
		!PQpipelineSync(primary))
		die("%s", PQerrorMessage(primary));

	while (syncs < 2)
	{
		PGresult   *res = PQgetResult(primary);

		if (res == NULL)
			continue;
		if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
		{
			if (syncs++ == 0)
				committed = now_us();
		}
		else if (PQntuples(checked(primary, res)) > 0)
			snprintf(lsn, size, "%s", PQgetvalue(res, 0, 0));
		PQclear(res);
	}
	return committed;
}

static void
latency(PGconn *primary, PGconn *standby, int rounds)
{
	double	   *wait = calloc(rounds, sizeof(double));
	double	   *poll = calloc(rounds, sizeof(double));
	double		wait_cpu = 0,
				poll_cpu = 0,
				wait_p50,
				poll_p50;
	char		lsn[32],
				answer[32];

	prepare(primary, "insert", "INSERT INTO bench VALUES (1)");

	/*
	 * A position behind a page header is never reported by a standby: on an
	 * idle primary the polling client would not come to an end.  Allow it
	 * what lsn_wait() does by itself.
	 */
	prepare(primary, "lsn",
			"SELECT l - CASE WHEN (l - '0/0') % 8192 = 24 THEN 24 ELSE 0 END FROM pg_current_wal_insert_lsn() l");
	prepare(standby, "wait", "SELECT lsn_wait($1, 5000)");
	prepare(standby, "poll", "SELECT pg_last_wal_replay_lsn() >= $1");
	if (!PQenterPipelineMode(primary))
		die("no pipeline mode\n");

	for (int i = 0; i < 2 * rounds; i++)
	{
		double		committed = write_row(primary, lsn, sizeof(lsn));
		double		cpu = cpu_us();

		if (i % 2 == 0)
		{
			ask(standby, "wait", lsn, answer, sizeof(answer));
			wait[i / 2] = now_us() - committed;
			wait_cpu += cpu_us() - cpu;
			if (strcmp(answer, "t") != 0)
				die("lsn_wait() timed out for %s\n", lsn);
		}
		else
		{
			do
				ask(standby, "poll", lsn, answer, sizeof(answer));
			while (strcmp(answer, "t") != 0);
			poll[i / 2] = now_us() - committed;
			poll_cpu += cpu_us() - cpu;
		}
		progress("latency", i + 1, 2 * rounds);
	}

	wait_p50 = percentile(wait, rounds, 0.5);
	poll_p50 = percentile(poll, rounds, 0.5);
	printf("  %-12s %12s %12s %12s\n", "", "median us", "p99 us", "client CPU us");
	printf("  %-12s %12.0f %12.0f %12.0f\n", "lsn_wait", wait_p50, percentile(wait, rounds, 0.99), wait_cpu / rounds);
	printf("  %-12s %12.0f %12.0f %12.0f\n", "tight poll", poll_p50, percentile(poll, rounds, 0.99), poll_cpu / rounds);
	printf("  median ratio %.3f (to reach: at most 1.10)\n", wait_p50 / poll_p50);
}

static void
crowd(PGconn *primary, const char *standby_info, int sessions, int rounds, int different)
{
	PGconn	  **conns = calloc(sessions, sizeof(PGconn *));
	struct pollfd *fds = calloc(sessions, sizeof(struct pollfd));
	PGconn	   *control = connect_to(standby_info);
	double	   *first = calloc(rounds, sizeof(double));
	double	   *last = calloc(rounds, sizeof(double));
	long		woken = 0;
	char		write[128],
				answer[32];

	/* one record of 64 bytes or so for each session */
	snprintf(write, sizeof(write), "INSERT INTO bench SELECT generate_series(1, %d)", sessions);
	prepare(primary, "write", write);
	prepare(primary, "lsn", "SELECT pg_current_wal_insert_lsn() - '0/0'");
	prepare(control, "waiting", "SELECT count(*) FROM lsn_waiters()");
	for (int s = 0; s < sessions; s++)
	{
		conns[s] = connect_to(standby_info);
		prepare(conns[s], "wait", "SELECT lsn_wait('0/0'::pg_lsn + $1::numeric, 0)");
		fds[s].fd = PQsocket(conns[s]);
	}

	for (int r = 0; r < rounds; r++)
	{
		double		start,
					deadline;
		long long	base;
		int			waiting = sessions;

		ask(primary, "lsn", NULL, answer, sizeof(answer));
		base = atoll(answer);
		for (int s = 0; s < sessions; s++)
		{
			char		target[32];
			const char *param = target;

			snprintf(target, sizeof(target), "%lld", base + OWN_WAL + (different ? s * 56 : 0));
			if (!PQsendQueryPrepared(conns[s], "wait", 1, &param, NULL, NULL, 0) ||
				PQflush(conns[s]) != 0)
				die("%s", PQerrorMessage(conns[s]));
			fds[s].events = POLLIN;
		}
		deadline = now_us() + LOST_AFTER * 1e6;
		do
		{
			ask(control, "waiting", NULL, answer, sizeof(answer));
			if (now_us() > deadline)
				die("round %d: %s sessions wait, not %d\n", r, answer, sessions);
		} while (atoi(answer) != sessions);

		ask(primary, "write", NULL, answer, sizeof(answer));
		start = now_us();
		deadline = start + LOST_AFTER * 1e6;
		while (waiting > 0 && now_us() < deadline)
		{
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
				res = checked(conns[s], PQgetResult(conns[s]));
				if (strcmp(PQgetvalue(res, 0, 0), "t") != 0)
					die("session %d got %s\n", s, PQgetvalue(res, 0, 0));
				PQclear(res);
				PQclear(PQgetResult(conns[s]));
				fds[s].events = fds[s].revents = 0;
				if (waiting-- == sessions)
					first[r] = now_us() - start;
				woken++;
			}
		}
		last[r] = now_us() - start;
		if (waiting > 0)
			die("round %d: missed: %d of %d sessions were not woken within %d s\n",
				r, waiting, sessions, LOST_AFTER);
		progress(different ? "different positions" : "one position", r + 1, rounds);
	}

	printf("  %-20s %6d rounds: %ld woken, none missed; first return after commit: median %.2f ms; last: median %.2f ms, p99 %.2f ms\n",
		   different ? "different positions" : "one position", rounds, woken,
		   percentile(first, rounds, 0.5) / 1000,
		   percentile(last, rounds, 0.5) / 1000, percentile(last, rounds, 0.99) / 1000);
}

int
main(int argc, char **argv)
{
	PGconn	   *primary;

	if (argc < 5)
		die("usage: bench latency PRIMARY STANDBY ROUNDS\n"
			"       bench crowd PRIMARY STANDBY SESSIONS ROUNDS same|different\n");
	primary = connect_to(argv[2]);
	if (strcmp(argv[1], "latency") == 0)
		latency(primary, connect_to(argv[3]), atoi(argv[4]));
	else if (strcmp(argv[1], "crowd") == 0 && argc == 7)
		crowd(primary, argv[3], atoi(argv[4]), atoi(argv[5]), strcmp(argv[6], "different") == 0);
	else
		die("bench: unknown call\n");
	return 0;
}
