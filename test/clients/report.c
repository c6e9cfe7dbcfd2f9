/*-------------------------------------------------------------------------
 *
 * report.c
 *		Runs SQL from stdin, one query string a line, and prints for each what
 *		the client knows afterwards: the last value returned, the SQLSTATE if it
 *		failed (08003 if there is no connection any more), and the last reported
 *		lsn_tracker.token.
 *
 * "pipeline: A ;; B" sends A and B in pipeline mode with one sync.  "prepare: A"
 * prepares A, and "execute: B" executes that with B as its one parameter.  COPY FROM
 * STDIN gets one row, "1".
 *
 *-------------------------------------------------------------------------
 */
#include "../client.h"

static char value[1024];
static char sqlstate[6];

static void
take_results(PGconn *conn, int pipelined)
{
	PGresult   *res;
	int			ended = 0;

	while (!ended)
	{
		res = PQgetResult(conn);
		if (res == NULL)
		{
			/* between the statements of a pipeline, unless it is cut; the end of anything else */
			ended = !pipelined || PQstatus(conn) == CONNECTION_BAD;
			continue;
		}
		switch (PQresultStatus(res))
		{
			case PGRES_TUPLES_OK:
				snprintf(value, sizeof(value), "%s", PQntuples(res) > 0 ? PQgetvalue(res, 0, 0) : "");
				break;
			case PGRES_COPY_IN:
				if (PQputCopyData(conn, "1\n", 2) != 1 || PQputCopyEnd(conn, NULL) != 1)
					die("COPY failed: %s", PQerrorMessage(conn));
				break;
			case PGRES_PIPELINE_SYNC:
				ended = 1;
				break;
			case PGRES_FATAL_ERROR:
				/* the server may end the connection behind it */
				if (sqlstate[0] == '\0')
					snprintf(sqlstate, sizeof(sqlstate), "%s", PQresultErrorField(res, PG_DIAG_SQLSTATE));
				break;
			case PGRES_COMMAND_OK:
			case PGRES_EMPTY_QUERY:
			case PGRES_PIPELINE_ABORTED:
				break;
			default:
				die("unexpected answer: %s", PQresStatus(PQresultStatus(res)));
		}
		PQclear(res);
	}
}

/* Send a line, if it is not a pipeline's. */
static int
send_line(PGconn *conn, const char *line)
{
	static const char prepare[] = "prepare: ";
	static const char execute[] = "execute: ";
	const char *param = line + strlen(execute);

	if (strncmp(line, prepare, strlen(prepare)) == 0)
		return PQsendPrepare(conn, "prepared", line + strlen(prepare), 0, NULL);
	if (strncmp(line, execute, strlen(execute)) == 0)
		return PQsendQueryPrepared(conn, "prepared", 1, &param, NULL, NULL, 0);
	return PQsendQuery(conn, line);
}

/* Run a line, and take what is answered. */
static void
run_line(PGconn *conn, char *line)
{
	static const char pipeline[] = "pipeline: ";
	int			pipelined = strncmp(line, pipeline, strlen(pipeline)) == 0;
	char	   *sql = line + (pipelined ? strlen(pipeline) : 0);

	value[0] = sqlstate[0] = '\0';
	if (PQstatus(conn) == CONNECTION_BAD)
	{
		snprintf(sqlstate, sizeof(sqlstate), "08003");
		return;
	}
	if (pipelined && !PQenterPipelineMode(conn))
		die("no pipeline: %s", PQerrorMessage(conn));
	while (pipelined && sql)
	{
		char	   *next = strstr(sql, " ;; ");

		if (next)
			*next = '\0';
		if (!PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0))
			die("could not send: %s", PQerrorMessage(conn));
		sql = next ? next + strlen(" ;; ") : NULL;
	}
	if (pipelined ? !PQpipelineSync(conn) : !send_line(conn, sql))
		die("could not send: %s", PQerrorMessage(conn));
	take_results(conn, pipelined);
	if (pipelined && !PQexitPipelineMode(conn))
		die("still in the pipeline: %s", PQerrorMessage(conn));
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;
	char		line[8192];

	if (argc != 2)
		die("usage: report CONNINFO <sql\n");
	conn = connect_to(argv[1]);

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		const char *report;

		line[strcspn(line, "\n")] = '\0';
		run_line(conn, line);
		report = PQparameterStatus(conn, "lsn_tracker.token");
		printf("%s|%s|%s\n", value, sqlstate, report ? report : "(none)");
		fflush(stdout);
	}
	PQfinish(conn);
	return 0;
}
