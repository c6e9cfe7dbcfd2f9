/*-------------------------------------------------------------------------
 *
 * hold.c
 *		Sessions that wait far ahead, while the shell measures something, for 5
 *		and 6.
 *
 *-------------------------------------------------------------------------
 */
#include "bench.h"

void
hold(int sessions, int kind, const char *standby_info)
{
	PGconn	  **conns = waiting_sessions(sessions, standby_info);

	/* 4 PB ahead, a MB apart */
	for (int s = 0; s < sessions; s++)
		send_wait(conns[s], kind, (1LL << 52) + s * (1LL << 20));
	await_waiting(sessions);
	printf("ready");
	for (int s = 0; s < sessions; s++)
		printf(" %d", PQbackendPID(conns[s]));
	puts("");
	fflush(stdout);
	/* until whoever started this wants no more of it, or is gone */
	while (getchar() != EOF)
		;
}
