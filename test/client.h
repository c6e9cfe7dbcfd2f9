/*-------------------------------------------------------------------------
 *
 * client.h
 *		What the client programs of demo/ and bench/ share.  Plain libpq; any
 *		unexpected answer ends the program with what the server said.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list		args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	exit(1);
}

/* Microseconds, from a clock that only goes forward */
static inline double
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static inline PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		die("could not connect: %s", PQerrorMessage(conn));
	return conn;
}

/* Check an answer; the caller clears it. */
static inline PGresult *
checked(PGconn *conn, PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die("%s", PQerrorMessage(conn));
	return res;
}

static inline void
run(PGconn *conn, const char *sql)
{
	PQclear(checked(conn, PQexec(conn, sql)));
}

static inline void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PQclear(checked(conn, PQprepare(conn, name, sql, 0, NULL)));
}

/* Run a prepared statement with at most one parameter; its only value goes to "value". */
static inline void
ask(PGconn *conn, const char *name, const char *param, char *value, size_t size)
{
	PGresult   *res = checked(conn, PQexecPrepared(conn, name, param ? 1 : 0, &param, NULL, NULL, 0));

	snprintf(value, size, "%s", PQntuples(res) > 0 ? PQgetvalue(res, 0, 0) : "");
	PQclear(res);
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* The value below which a fraction of the values lie; sorts them. */
static inline double
percentile(double *values, int n, double fraction)
{
	qsort(values, n, sizeof(double), compare_doubles);
	return values[(int) (fraction * (n - 1) + 0.5)];
}

#endif							/* CLIENT_H */
