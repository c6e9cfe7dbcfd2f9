/*
 * Many look at rows, on one server after another: whoever sees what is older than what he has
 * seen, says so.  Others write the rows.
 *
 *		strong strong|pool READS PRIMARY STANDBY...
 *
 * "strong": on the primary and then, with max_staleness = 0, on a standby.  "pool": on
 * any server, with track_reads; the token that one has reported is set on the next.
 *
 * Prints how many reads there were that could be stale, and how many were.
 */
#include <libpq-fe.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS 4
#define READERS 6
#define SERVERS 8

static PGconn *
Connect(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	return conn;
}

/* Run SQL and return its only number, or 0 if it is a command. */
static long
Number(PGconn *conn, const char *sql)
{
	PGresult   *res = PQexec(conn, sql);
	long		number = 0;

	if (PQresultStatus(res) == PGRES_TUPLES_OK)
		number = atol(PQgetvalue(res, 0, 0));
	else if (PQresultStatus(res) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	PQclear(res);
	return number;
}

static void
Write(const char *primary, int key)
{
	PGconn	   *conn = Connect(primary);
	char		sql[100];

	Number(conn, key % 2 ? "SET synchronous_commit = off" : "SET synchronous_commit = on");
	snprintf(sql, sizeof(sql), "UPDATE rows SET version = version + 1 WHERE key = %d", key);
	for (;;)
		Number(conn, sql);
}

static void
ConnectAll(PGconn **conns, int nservers, char **servers, const char *setting)
{
	for (int i = 0; i < nservers; i++)
	{
		conns[i] = Connect(servers[i]);
		Number(conns[i], setting);
		Number(conns[i], "SET lsn_tracker.default_timeout = '60s'");
	}
}

/* The first server is the primary.  Returns how many were stale. */
static int
ReadStrongly(int reads, int nservers, char **servers)
{
	PGconn	   *conns[SERVERS];
	int			stale = 0;

	ConnectAll(conns, nservers, servers, "SET lsn_tracker.max_staleness = 0");
	for (int i = 0; i < reads; i++)
	{
		char		sql[100];
		long		seen;

		snprintf(sql, sizeof(sql), "SELECT version FROM rows WHERE key = %d", (int) (random() % KEYS));
		seen = Number(conns[0], sql);
		if (Number(conns[1 + i % (nservers - 1)], sql) < seen)
			stale++;
	}
	return stale;
}

static int
ReadFromPool(int reads, int nservers, char **servers)
{
	PGconn	   *conns[SERVERS];
	long		seen[KEYS] = {0};
	char		token[100] = "";
	int			stale = 0;

	ConnectAll(conns, nservers, servers, "SET lsn_tracker.track_reads = on");
	for (int i = 0; i < reads; i++)
	{
		PGconn	   *conn = conns[random() % nservers];
		int			key = random() % KEYS;
		char		sql[200];
		long		version;

		snprintf(sql, sizeof(sql), "SET lsn_tracker.token = '%s'", token);
		Number(conn, sql);
		snprintf(sql, sizeof(sql), "SELECT version FROM rows WHERE key = %d", key);
		version = Number(conn, sql);
		if (version < seen[key])
			stale++;
		else
			seen[key] = version;
		snprintf(token, sizeof(token), "%s", PQparameterStatus(conn, "lsn_tracker.token"));
	}
	return stale;
}

int
main(int argc, char **argv)
{
	pid_t		writers[KEYS];
	int			strongly = argc > 1 && strcmp(argv[1], "strong") == 0;
	int			reads = argc > 2 ? atoi(argv[2]) / READERS : 0;
	int			pipes[2];
	long		stale = 0;

	if (argc < 5 || argc > 3 + SERVERS || pipe(pipes) != 0)
		return 1;
	for (int i = 0; i < KEYS; i++)
	{
		if ((writers[i] = fork()) == 0)
			Write(argv[3], i);
	}
	for (int i = 0; i < READERS; i++)
	{
		if (fork() == 0)
		{
			int			n;

			srandom(i);
			n = (strongly ? ReadStrongly : ReadFromPool) (reads, argc - 3, argv + 3);
			return write(pipes[1], &n, sizeof(n)) == sizeof(n) ? 0 : 1;
		}
	}
	close(pipes[1]);
	for (int i = 0; i < READERS; i++)
	{
		int			n;

		/* one that fails writes nothing */
		if (wait(&n) < 0 || n != 0 || read(pipes[0], &n, sizeof(n)) != sizeof(n))
		{
			stale = -1;
			break;
		}
		stale += n;
	}
	for (int i = 0; i < KEYS; i++)
		kill(writers[i], SIGTERM);
	printf("%d reads, %ld stale\n", reads * READERS, stale);
	return 0;
}
