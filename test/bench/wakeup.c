/*-------------------------------------------------------------------------
 *
 * wakeup.c
 *		2: one waiter, by turns with lsn_wait() and WAIT FOR LSN.
 *
 *-------------------------------------------------------------------------
 */
#include "bench.h"

void
wakeup(int rounds, const char *standby_info)
{
	PGconn	  **conns = waiting_sessions(1, standby_info);
	Samples		first[2],
				last[2];

	prepare_rounds();
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
