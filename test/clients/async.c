/*-------------------------------------------------------------------------
 *
 * async.c
 *		Commits with synchronous_commit = off on the primary, and reads each
 *		write on the standby behind the commit's reported token.
 *
 * Prints how many rounds there were, how many reads were stale, and in how
 * many rounds pg_current_wal_lsn(), asked for after the commit, was before it.
 *
 *-------------------------------------------------------------------------
 */
#include "../client.h"

static unsigned long long
lsn_number(const char *text)
{
	unsigned	hi;
	unsigned	lo;

	if (sscanf(text, "%X/%X", &hi, &lo) != 2)
		die("not a position: \"%s\"\n", text);
	return (unsigned long long) hi << 32 | lo;
}

int
main(int argc, char **argv)
{
	PGconn	   *primary;
	PGconn	   *standby;
	int			rounds;
	int			stale = 0;
	int			trapped = 0;
	char		value[64];

	if (argc != 4)
		die("usage: async PRIMARY STANDBY ROUNDS\n");
	primary = connect_to(argv[1]);
	standby = connect_to(argv[2]);
	rounds = atoi(argv[3]);
	run(primary, "SET synchronous_commit = off");
	prepare(primary, "write", "UPDATE counter SET n = n + 1");
	prepare(primary, "trap", "SELECT pg_current_wal_lsn()");
	prepare(standby, "wait", "SELECT lsn_wait($1, 0)");
	prepare(standby, "read", "SELECT n FROM counter");

	for (int i = 1; i <= rounds; i++)
	{
		const char *token;

		ask(primary, "write", NULL, value, sizeof(value));
		token = PQparameterStatus(primary, "lsn_tracker.token");
		if (token == NULL)
			die("no token was reported\n");
		ask(primary, "trap", NULL, value, sizeof(value));
		trapped += lsn_number(value) < lsn_number(token);

		ask(standby, "wait", token, value, sizeof(value));
		if (strcmp(value, "t") != 0)
			die("the wait for %s answered %s\n", token, value);
		ask(standby, "read", NULL, value, sizeof(value));
		stale += atoi(value) < i;
	}
	printf("%d rounds, %d stale, %d trapped\n", rounds, stale, trapped);
	PQfinish(primary);
	PQfinish(standby);
	return 0;
}
