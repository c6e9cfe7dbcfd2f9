/*-------------------------------------------------------------------------
 *
 * demo.c
 *		An application that writes on the primary and reads on the standby.
 *
 *		demo PRIMARY STANDBY ROUNDS plain|lsn_wait
 *
 * Each round inserts a row on the primary and counts the rows on the standby,
 * right away or behind a lsn_wait().  Prints how many reads missed the write,
 * and what the waits cost.
 *
 *-------------------------------------------------------------------------
 */
#include <unistd.h>

#include "../client.h"

/* The token of this connection's last commit, which came with its answer. */
static const char *
last_commit(PGconn *primary)
{
	const char *token = PQparameterStatus(primary, "lsn_tracker.token");

	if (token == NULL || token[0] == '\0')
		die("the primary reports no commits: is lsn_tracker preloaded there?\n");
	return token;
}

int
main(int argc, char **argv)
{
	PGconn	   *primary,
			   *standby;
	char		answer[32];
	int			rounds,
				waits,
				stale = 0;
	double	   *cost;

	if (argc != 5)
		die("usage: demo PRIMARY STANDBY ROUNDS plain|lsn_wait\n");
	primary = connect_to(argv[1]);
	standby = connect_to(argv[2]);
	rounds = atoi(argv[3]);
	waits = strcmp(argv[4], "lsn_wait") == 0;
	cost = calloc(rounds, sizeof(double));

	run(primary, "TRUNCATE orders");
	prepare(primary, "insert", "INSERT INTO orders VALUES ($1)");
	prepare(standby, "wait", "SELECT lsn_wait($1, 5000)");
	prepare(standby, "read", "SELECT count(*) FROM orders");

	/* the first read must see the empty table, whatever it is to show */
	ask(standby, "wait", last_commit(primary), answer, sizeof(answer));

	for (int i = 1; i <= rounds; i++)
	{
		char		number[16];

		snprintf(number, sizeof(number), "%d", i);
		ask(primary, "insert", number, answer, sizeof(answer));

		if (waits)
		{
			double		start = now_us();

			ask(standby, "wait", last_commit(primary), answer, sizeof(answer));
			cost[i - 1] = now_us() - start;
			if (strcmp(answer, "t") != 0)
				die("lsn_wait() timed out for %s\n", last_commit(primary));
		}

		ask(standby, "read", NULL, answer, sizeof(answer));
		if (atoi(answer) != i)
			stale++;

		if (isatty(STDOUT_FILENO) && (i % 10 == 0 || i == rounds))
		{
			printf("\r  %d of %d", i, rounds);
			fflush(stdout);
		}
	}
	if (isatty(STDOUT_FILENO))
		printf("\r");

	printf("  %d writes, each read on the standby %s: %d stale reads (%.0f %%)\n",
		   rounds, waits ? "behind lsn_wait()" : "at once", stale, 100.0 * stale / rounds);
	if (waits)
		printf("  cost of the wait (the token came with the commit): median %.2f ms, p99 %.2f ms\n",
			   percentile(cost, rounds, 0.5) / 1000, percentile(cost, rounds, 0.99) / 1000);
	PQfinish(primary);
	PQfinish(standby);
	/* what the demonstration claims must be so */
	return waits && stale > 0;
}
