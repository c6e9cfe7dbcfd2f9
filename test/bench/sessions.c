/*-------------------------------------------------------------------------
 *
 * sessions.c
 *		Questions to the servers, one at a time or in a pipeline, and the steps
 *		that workloads share.
 *
 *-------------------------------------------------------------------------
 */
#include "bench.h"

PGconn	   *primary;
PGconn	   *standby;

char		id[32];
char		lsn[64];
char		answer[64];

void
query(PGconn *conn, const char *sql, char *value, size_t size)
{
	PGresult   *res = checked(conn, PQexec(conn, sql));

	snprintf(value, size, "%s", PQntuples(res) > 0 ? PQgetvalue(res, 0, 0) : "");
	PQclear(res);
}

void
expect(const char *what, const char *answer, const char *wanted)
{
	if (strcmp(answer, wanted) != 0)
		die("%s: got \"%s\", not \"%s\"\n", what, answer, wanted);
}

void
send_prepared(PGconn *conn, const char *name, const char *param)
{
	if (!PQsendQueryPrepared(conn, name, param ? 1 : 0, &param, NULL, NULL, 0))
		die("%s", PQerrorMessage(conn));
}

void
sync_pipeline(PGconn *conn)
{
	if (!PQpipelineSync(conn))
		die("%s", PQerrorMessage(conn));
}

void
pipeline_answers(PGconn *conn, int syncs, char *value, size_t size)
{
	while (syncs > 0)
	{
		PGresult   *res = PQgetResult(conn);

		if (res == NULL)
			continue;
		if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
			syncs--;
		else if (PQntuples(checked(conn, res)) > 0)
			snprintf(value, size, "%s", PQgetvalue(res, 0, 0));
		PQclear(res);
	}
}

void
pipeline_mode(PGconn *conn, int on)
{
	if (!(on ? PQenterPipelineMode(conn) : PQexitPipelineMode(conn)))
		die("%s", PQerrorMessage(conn));
}

void
write_row(PGconn *conn)
{
	ask(conn, "insert", id, answer, sizeof(answer));
}

void
write_with_token(void)
{
	write_row(primary);
	snprintf(lsn, sizeof(lsn), "%s", PQparameterStatus(primary, "lsn_tracker.token"));
}

/* It takes no parameter, so there is nothing to prepare */
const char *
wait_for_command(void)
{
	static char command[128];

	snprintf(command, sizeof(command), "WAIT FOR LSN '%s' WITH (TIMEOUT '5s')", lsn);
	return command;
}

void
await_standby(const char *name, const char *param, const char *wanted)
{
	double		deadline = now_us() + LOST_AFTER * 1e6;

	do
	{
		ask(standby, name, param, answer, sizeof(answer));
		if (now_us() > deadline)
			die("%s: still \"%s\", not \"%s\"\n", name, answer, wanted);
	} while (strcmp(answer, wanted) != 0);
}
