/*-------------------------------------------------------------------------
 *
 * crowd.c
 *		3: many sessions that wait for one position, or for one each.
 *
 *-------------------------------------------------------------------------
 */
#include "bench.h"

void
crowd(int sessions, int rounds, const char *standby_info)
{
	PGconn	  **conns = waiting_sessions(sessions, standby_info);
	char		write[128];

	prepare_rounds();
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
