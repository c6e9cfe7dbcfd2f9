/*-------------------------------------------------------------------------
 *
 * load.c
 *		4: what else is written does not matter.
 *
 *-------------------------------------------------------------------------
 */
#include "bench.h"

void
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
