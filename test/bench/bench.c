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
 *		bench strong CASE CLIENTS TURNS PRIMARY STANDBY
 *		bench hold SESSIONS lsn_wait|WAIT_FOR STANDBY
 *		bench row CASE CONTENDER FILE
 *		bench target WHAT LIMIT FILE AGAINST_FILE
 *
 * Each workload is in the file of its name, what they share in bench.h.  Whatever
 * is compared is measured by turns.  The results are CSV lines:
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
#include "bench.h"

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
		replayed(n, standby_info);
	else if (argc == 7 && strcmp(what, "strong") == 0)
		strong(argv[2], atoi(argv[3]), atoi(argv[4]), argv[5], standby_info);
	else
		die("bench: unknown: %s\n", what);
	return 0;
}
