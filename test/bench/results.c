/*-------------------------------------------------------------------------
 *
 * results.c
 *		What was measured, and the lines that it becomes.
 *
 *-------------------------------------------------------------------------
 */
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"

Samples
samples_for(int n)
{
	return (Samples){.us = calloc(n, sizeof(double))};
}

void
add(Samples *s, double us)
{
	s->us[s->n++] = us;
}

void
add_more(Samples *s, double us)
{
	if (s->n == s->room)
	{
		s->room = s->room > 0 ? 2 * s->room : 1024;
		s->us = realloc(s->us, s->room * sizeof(double));
	}
	add(s, us);
}

double
quantile(const Samples *s, int first, int n, double fraction)
{
	double	   *copy = malloc(n * sizeof(double));
	double		result;

	memcpy(copy, s->us + first, n * sizeof(double));
	result = percentile(copy, n, fraction);
	free(copy);
	return result;
}

double
median(const Samples *s, int first, int n)
{
	return quantile(s, first, n, 0.5);
}

double
mean(const Samples *s, int first, int n)
{
	double		sum = 0;

	for (int i = first; i < first + n; i++)
		sum += s->us[i];
	return sum / n;
}

void
row(const char *name, const char *contender, const Samples *s, const char *more)
{
	printf("row,%s,%s,%d,%.1f,%.1f,%.1f,%.1f%s\n", name, contender, s->n, median(s, 0, s->n),
		   quantile(s, 0, s->n, 0.25), quantile(s, 0, s->n, 0.75), quantile(s, 0, s->n, 0.99), more);
}

void
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
	printf("target,%s,%.4f,%.3f,%.3f,%.5g\n", what,
		   statistic(s, 0, s->n) / statistic(against, 0, against->n), lowest, highest, limit);
}

void
target(const char *what, const Samples *s, const Samples *against, double limit)
{
	target_of(median, what, s, against, limit);
}

Samples
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

void
progress(const char *what, int done, int of)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r  %s: %d of %d\033[K%s", what, done, of, done == of ? "\r\033[K" : "");
}

double
client_cpu(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

double
server_cpu(PGconn *conn)
{
	return process_cpu(PQbackendPID(conn));
}

double
process_cpu(int pid)
{
	char		path[64];
	FILE	   *file;
	double		ns;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	file = fopen(path, "r");
	if (file == NULL || fscanf(file, "%lf", &ns) != 1)
		die("%s: cannot be read\n", path);
	fclose(file);
	return ns / 1000;
}
