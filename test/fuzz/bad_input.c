/*-------------------------------------------------------------------------
 *
 * bad_input.c
 *		Generated tokens, targets, timeouts and settings, by every way in.
 *
 * Each input is a statement or a short transaction of its own; a batch of them goes
 * to the server in one round trip (libpq's pipeline).  Each has to be answered, or
 * refused with one of a list of codes.  The server's memory contexts, and the memory
 * of the whole process, must not grow behind the first tenth.
 *
 * Some inputs are settings that new connections find: in their options, in the catalogs, in
 * a configuration file.  Whatever is stored there, the connection must come.
 *
 * Usage: bad_input INPUTS SEED SERVER PRIMARY NAME.  The latter two are the server that
 * can be written to, which may be the same; and a database and a role that nobody else
 * uses, and who has "t" and "f()".  Prints how many inputs came by which way and how many
 * were refused with which code.
 *
 *-------------------------------------------------------------------------
 */
#include "../client.h"

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#define BATCH 100
/* How many inputs make one connection that finds another */
#define CONNECT_EVERY 500
/* How long what was stored may take to get there, us */
#define PATIENCE 60e6
/* How much a session may grow behind the first tenth, bytes */
#define CONTEXTS_MAY_GROW (256 * 1024)
#define PROCESS_MAY_GROW (64 * 1024 * 1024)

/* An error that says what is wrong with the input, or that it was not fresh in time */
static const char *const allowed[] = {
	"08P01",					/* a binary parameter that ends too early */
	"22003",					/* a number out of range */
	"22021",					/* bytes that are no text */
	"22023",					/* no token, a timeline that is not known, no such setting */
	"22P02",					/* not a pg_lsn, xid8, bigint */
	"22P03",					/* nor in binary form */
	"40000",					/* lost in a failover, or rolled back */
	"55P02",					/* a setting that is not for sessions */
	"55000",					/* no notification requested */
	"55L01",					/* not fresh enough in time */
	"57014",					/* no limit, but statement_timeout */
};

#define N_ALLOWED (sizeof(allowed) / sizeof(allowed[0]))

typedef enum Kind
{
	TEXT,						/* a token, as text */
	LSN,
	XID,
	NOTHING
} Kind;

typedef struct Way
{
	const char *name;
	const char *sql[3];			/* one statement, or several */
	Kind		kind;			/* of $1 */
	bool		timeout;		/* has one as the next parameter */
	unsigned int type;			/* of $1 */
} Way;

#define TEXT_TYPE 25
#define BIGINT_TYPE 20
#define LSN_TYPE 3220
#define XID_TYPE 5069

/* The statements whose text the input is part of have a %s for it. */
static const Way ways[] = {
	{"lsn_wait(text)", {"SELECT lsn_wait($1, $2)"}, TEXT, true, TEXT_TYPE},
	{"lsn_require(text)", {"SELECT lsn_require($1, $2)"}, TEXT, true, TEXT_TYPE},
	{"lsn_replicated(text)", {"SELECT lsn_replicated($1)"}, TEXT, false, TEXT_TYPE},
	{"lsn_eta(text)", {"SELECT lsn_eta($1)"}, TEXT, false, TEXT_TYPE},
	{"lsn_eta(pg_lsn)", {"SELECT lsn_eta($1)"}, LSN, false, LSN_TYPE},
	{"lsn_watch(text)", {"SELECT lsn_watch($1, $2)"}, TEXT, true, TEXT_TYPE},
	{"lsn_request_notification(text)", {"SELECT lsn_request_notification($1)"}, TEXT, false, TEXT_TYPE},
	{"lsn_await_notification", {"SELECT lsn_await_notification($1)"}, NOTHING, true, BIGINT_TYPE},
	{"lsn_wait(pg_lsn)", {"SELECT lsn_wait($1, $2)"}, LSN, true, LSN_TYPE},
	{"lsn_require(pg_lsn)", {"SELECT lsn_require($1, $2)"}, LSN, true, LSN_TYPE},
	{"lsn_replicated(pg_lsn)", {"SELECT lsn_replicated($1)"}, LSN, false, LSN_TYPE},
	{"lsn_watch(pg_lsn)", {"SELECT lsn_watch($1, $2)"}, LSN, true, LSN_TYPE},
	{"lsn_request_notification(pg_lsn)", {"SELECT lsn_request_notification($1)"}, LSN, false, LSN_TYPE},
	{"lsn_wait_xact", {"SELECT lsn_wait_xact($1, $2)"}, XID, true, XID_TYPE},
	{"FROM t, lsn_require(text)", {"SELECT count(*) FROM t, lsn_require($1, $2)"}, TEXT, true, TEXT_TYPE},
	{"FROM t, lsn_wait(pg_lsn)", {"SELECT count(*) FROM t, lsn_wait($1, $2) AS w WHERE w"}, LSN, true, LSN_TYPE},
	{"FROM t, lsn_wait_xact", {"SELECT count(*) FROM t, lsn_wait_xact($1, $2) AS w WHERE w"}, XID, true, XID_TYPE},
	{"literal", {"SELECT lsn_wait(%s::text, 1)"}, TEXT, false, 0},
	{"literal pg_lsn", {"SELECT count(*) FROM t, lsn_require(%s::pg_lsn, 1)"}, LSN, false, 0},
	{"set_config(token)", {"SELECT set_config('lsn_tracker.token', $1, false)", "SELECT count(*) FROM t"}, TEXT, false, TEXT_TYPE},
	{"set_config(token, local)", {"BEGIN", "SELECT set_config('lsn_tracker.token', $1, true)", "SELECT count(*) FROM t"}, TEXT, false, TEXT_TYPE},
	{"SET token", {"SET lsn_tracker.token = %s", "SELECT count(*) FROM t"}, TEXT, false, 0},
	{"SET LOCAL token", {"BEGIN", "SET LOCAL lsn_tracker.token = %s", "SELECT count(*) FROM t"}, TEXT, false, 0},
	{"set_config(max_staleness)", {"SELECT set_config('lsn_tracker.max_staleness', $1, false)", "SELECT count(*) FROM t"}, NOTHING, false, TEXT_TYPE},
	{"SET LOCAL max_staleness", {"BEGIN", "SET LOCAL lsn_tracker.max_staleness = %s", "SELECT count(*) FROM t"}, NOTHING, false, 0},
	{"set_config(default_timeout)", {"SELECT set_config('lsn_tracker.default_timeout', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(on_timeout)", {"SELECT set_config('lsn_tracker.on_timeout', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(track_reads)", {"SELECT set_config('lsn_tracker.track_reads', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(report_commits)", {"SELECT set_config('lsn_tracker.report_commits', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(allow_held_snapshot)", {"SELECT set_config('lsn_tracker.allow_held_snapshot', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(fail_fast)", {"SELECT set_config('lsn_tracker.fail_fast', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(log_waits)", {"SELECT set_config('lsn_tracker.log_waits', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(enabled)", {"SELECT set_config('lsn_tracker.enabled', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(wakeup)", {"SELECT set_config('lsn_tracker.wakeup', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(poll_interval)", {"SELECT set_config('lsn_tracker.poll_interval', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(newest_commit)", {"SELECT set_config('lsn_tracker.newest_commit', $1, false)"}, NOTHING, false, TEXT_TYPE},
	{"set_config(primary_conninfo)", {"SELECT set_config('lsn_tracker.primary_conninfo', $1, false)"}, NOTHING, false, TEXT_TYPE},
};

#define N_WAYS ((int) (sizeof(ways) / sizeof(ways[0])))

static const char *const settings[] = {
	"token",
	"max_staleness",
	"default_timeout",
	"on_timeout",
	"track_reads",
	"report_commits",
	"allow_held_snapshot",
	"fail_fast",
	"log_waits",
	"enabled",
	"wakeup",
	"poll_interval",
	"newest_commit",
	"primary_conninfo",
};

#define N_SETTINGS (sizeof(settings) / sizeof(settings[0]))

typedef enum Place
{
	OPTIONS,					/* of the connection */
	CATALOG,					/* of the primary */
	CONFIGURATION,				/* of the server itself */
	CONFIGURATION_FILE			/* written by hand */
} Place;

/*
 * How a setting is stored for new connections, and how that is undone.  %1$s is the
 * setting, %2$s in "store" the input as a literal, %3$s is NAME.
 */
typedef struct Stored
{
	const char *name;
	Place		place;
	const char *store;
	const char *undo;
} Stored;

#define FUNCTION "CREATE OR REPLACE FUNCTION f() RETURNS bigint LANGUAGE sql "
#define BODY "AS 'SELECT count(*) FROM t'"

static const Stored stored[] = {
	{"connection options", OPTIONS, NULL, NULL},
	{"ALTER ROLE SET", CATALOG, "ALTER ROLE %3$s SET lsn_tracker.%1$s = %2$s", "ALTER ROLE %3$s RESET ALL"},
	{"ALTER DATABASE SET", CATALOG, "ALTER DATABASE %3$s SET lsn_tracker.%1$s = %2$s", "ALTER DATABASE %3$s RESET ALL"},
	{"ALTER ROLE IN DATABASE SET", CATALOG, "ALTER ROLE %3$s IN DATABASE %3$s SET lsn_tracker.%1$s = %2$s",
	 "ALTER ROLE %3$s IN DATABASE %3$s RESET ALL"},
	/* as if a version that took it had stored it */
	{"pg_db_role_setting", CATALOG, "INSERT INTO pg_db_role_setting VALUES (0, '%3$s'::regrole, ARRAY['lsn_tracker.%1$s=' || %2$s])",
	 "ALTER ROLE %3$s RESET ALL"},
	{"CREATE FUNCTION SET", CATALOG, FUNCTION "SET lsn_tracker.%1$s = %2$s " BODY, FUNCTION BODY},
	{"pg_proc.proconfig", CATALOG, "UPDATE pg_proc SET proconfig = ARRAY['lsn_tracker.%1$s=' || %2$s] WHERE proname = 'f'", FUNCTION BODY},
	{"ALTER SYSTEM", CONFIGURATION, "ALTER SYSTEM SET lsn_tracker.%1$s = %2$s", "ALTER SYSTEM RESET lsn_tracker.%1$s"},
	{"configuration file", CONFIGURATION_FILE, NULL, NULL},
};

#define N_STORED ((int) (sizeof(stored) / sizeof(stored[0])))

static long sent[N_WAYS];
static long sent_stored[N_STORED];
static long sent_setting[N_SETTINGS];

static uint64_t state;
static uint64_t replayed;		/* a position that is there */
static long refused[N_ALLOWED];
static long answered;
static long not_connected;

/* splitmix64: the same on every machine */
static uint64_t
draw(uint64_t below)
{
	uint64_t	z = (state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % below;
}

static uint64_t
draw_number(void)
{
	uint64_t	bits = draw(64) + 1;
	uint64_t	high = draw(UINT64_C(1) << 32);

	return ((high << 32) | draw(UINT64_C(1) << 32)) >> (64 - bits);
}

static uint64_t
draw_position(void)
{
	if (draw(4) == 0)
		return draw_number();
	return replayed - draw(2000000) + draw(50);
}

/* Change some bytes, anywhere. */
static void
damage(char *text, size_t size)
{
	for (uint64_t n = draw(4); n > 0; n--)
	{
		size_t		length = strlen(text);
		size_t		at = draw(length + 1);
		static const char likely[] = "0123456789abcdefABCDEFxX/@~+-.,:;'\"\\ \t\n%ms";

		switch (draw(5))
		{
			case 0:
				if (at < length)
					memmove(text + at, text + at + 1, length - at);
				break;
			case 1:
				if (length + 2 < size)
				{
					memmove(text + at + 1, text + at, length - at + 1);
					text[at] = likely[draw(sizeof(likely) - 1)];
				}
				break;
			case 2:
				if (at < length)
					text[at] = (char) (1 + draw(255));
				break;
			case 3:
				if (2 * length + 1 < size)
				{
					memcpy(text + length, text, length);
					text[2 * length] = '\0';
				}
				break;
			default:
				text[at] = '\0';
		}
	}
}

static void
draw_text(char *text, size_t size, Kind kind)
{
	uint64_t	a = draw_position();
	uint64_t	b = draw_position();

	switch (kind)
	{
		case TEXT:
		case LSN:
			switch (kind == LSN ? 0 : draw(4))
			{
				case 0:
					snprintf(text, size, "%X/%X", (unsigned) (a >> 32), (unsigned) a);
					break;
				case 1:
					snprintf(text, size, "%X/%X@%llu", (unsigned) (a >> 32), (unsigned) a, (unsigned long long) (draw(2) ? 1 : draw_number()));
					break;
				case 2:
					snprintf(text, size, "%X/%X@%u~%X/%X", (unsigned) (a >> 32), (unsigned) a, (unsigned) draw(3),
							 (unsigned) (b >> 32), (unsigned) b);
					break;
				default:
					snprintf(text, size, "%llx/%llx@%lld", (unsigned long long) draw_number(), (unsigned long long) a, (long long) draw_number());
			}
			break;
		case XID:
			snprintf(text, size, "%llu", (unsigned long long) (draw(2) ? draw(900) : draw_number()));
			break;
		case NOTHING:
			{
				static const char *const words[] = {"on", "off", "error", "stale", "-1", "0", "1", "5ms", "1min", "1e3", "0x10", "2147483647", "2147483648", "''", "NaN", "default", "1.5s", "host=x port=y"};

				if (draw(3))
					snprintf(text, size, "%s", words[draw(sizeof(words) / sizeof(words[0]))]);
				else
					snprintf(text, size, "%lld", (long long) draw_number());
			}
	}
	if (draw(200) == 0)
	{
		/* long */
		size_t		length = draw(size - 1);

		memset(text, "0f/@~1 "[draw(7)], length);
		text[length] = '\0';
	}
	if (draw(3) == 0)
		damage(text, size);
}

static const char *
draw_timeout(char *text, size_t size)
{
	/* few of those that may be long: only statement_timeout ends them */
	switch (draw(500))
	{
		case 0:
			return NULL;
		case 1:
			snprintf(text, size, "%lld", (long long) draw_number());
			break;
		case 2:
			snprintf(text, size, "-%lld", (long long) draw_number());
			break;
		case 3:
			draw_text(text, size, NOTHING);
			break;
		default:
			snprintf(text, size, "%d", 1 + (int) draw(2));
	}
	return text;
}

static void
note_code(const char *way, const char *code, const char *message)
{
	for (size_t i = 0; code && i < N_ALLOWED; i++)
	{
		if (strcmp(code, allowed[i]) == 0)
		{
			refused[i]++;
			return;
		}
	}
	die("%s: %s", way, message);
}

static void
must(PGconn *conn, int ok)
{
	if (!ok)
		die("could not send: %s", PQerrorMessage(conn));
}

/* Is there something to be cleaned up behind it, so that the next one starts anew? */
static bool
leaves_something(const Way *way)
{
	return strstr(way->name, "set_config") || strstr(way->name, "SET ");
}

/* Send one input. */
static void
send_input(PGconn *conn, const Way *way)
{
	char		text[8192];
	char		timeout[8192];
	char		sql[20000];
	unsigned char bytes[16];

	draw_text(text, sizeof(text), way->kind);
	sent[way - ways]++;
	for (int n = 0; n < 3 && way->sql[n]; n++)
	{
		const char *statement = way->sql[n];
		const char *values[2];
		unsigned int types[2] = {way->type, BIGINT_TYPE};
		int			lengths[2] = {0};
		int			formats[2] = {0};
		int			n_params = 0;

		if (strstr(statement, "%s"))
		{
			char	   *literal = PQescapeLiteral(conn, text, strlen(text));

			/* what libpq does not take for text at all can't be quoted */
			if (literal == NULL)
				literal = PQescapeLiteral(conn, "?", 1);
			snprintf(sql, sizeof(sql), statement, literal);
			statement = sql;
			PQfreemem(literal);
		}
		if (strstr(way->sql[n], "$1") && !(way->kind == NOTHING && way->timeout))
		{
			values[n_params] = draw(50) ? text : NULL;
			if ((way->kind == LSN || way->kind == XID) && draw(4) == 0)
			{
				uint64_t	number = way->kind == LSN ? draw_position() : draw_number();

				for (int i = 0; i < 16; i++)
					bytes[i] = i < 8 ? (unsigned char) (number >> (56 - 8 * i)) : (unsigned char) draw(256);
				values[n_params] = (char *) bytes;
				formats[n_params] = 1;
				lengths[n_params] = draw(4) ? 8 : (int) draw(17);
			}
			n_params++;
		}
		if (way->timeout)
		{
			types[n_params] = BIGINT_TYPE;
			values[n_params++] = draw_timeout(timeout, sizeof(timeout));
		}
		must(conn, PQsendQueryParams(conn, statement, n_params, types, values, lengths, formats, (int) draw(2)));
	}
	must(conn, PQpipelineSync(conn));
	if (leaves_something(way))
	{
		must(conn, PQsendQueryParams(conn, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0));
		must(conn, PQpipelineSync(conn));
		must(conn, PQsendQueryParams(conn, "RESET ALL", 0, NULL, NULL, NULL, NULL, 0));
		must(conn, PQpipelineSync(conn));
	}
}

/* Take the answers to one input. */
static void
take_answers(PGconn *conn, const Way *way)
{
	int			syncs = 0;
	bool		failed = false;

	while (syncs < (leaves_something(way) ? 3 : 1))
	{
		PGresult   *res = PQgetResult(conn);

		if (res == NULL)
		{
			if (PQstatus(conn) != CONNECTION_OK)
				die("%s: the connection is gone: %s", way->name, PQerrorMessage(conn));
			continue;
		}
		switch (PQresultStatus(res))
		{
			case PGRES_PIPELINE_SYNC:
				if (syncs++ == 0 && !failed)
					answered++;
				break;
			case PGRES_FATAL_ERROR:
				if (syncs > 0)
					die("%s: behind it: %s", way->name, PQresultErrorMessage(res));
				note_code(way->name, PQresultErrorField(res, PG_DIAG_SQLSTATE), PQresultErrorMessage(res));
				failed = true;
				break;
			default:
				break;
		}
		PQclear(res);
	}
}

static void
ignore(void *arg, const PGresult *res)
{
	(void) arg;
	(void) res;
}

/* What a query answers, to be freed */
static char *
value_of(PGconn *conn, const char *sql)
{
	PGresult   *res = checked(conn, PQexec(conn, sql));
	char	   *value = strdup(PQgetvalue(res, 0, 0));

	PQclear(res);
	return value;
}

/* Wait until a query answers yes. */
static void
await(PGconn *conn, const char *sql)
{
	double		until = now_us() + PATIENCE;
	bool		yes = false;

	while (!yes)
	{
		char	   *value = value_of(conn, sql);

		yes = strcmp(value, "t") == 0;
		free(value);
		if (!yes && now_us() > until)
			die("not in time: %s\n", sql);
		if (!yes)
			usleep(1000);
	}
}

/* Run a statement that may be refused; is it done? */
static bool
done(PGconn *conn, const char *way, const char *sql)
{
	PGresult   *res = PQexec(conn, sql);
	bool		failed = PQresultStatus(res) == PGRES_FATAL_ERROR;

	if (failed)
		note_code(way, PQresultErrorField(res, PG_DIAG_SQLSTATE), PQresultErrorMessage(res));
	PQclear(res);
	return !failed;
}

/* Have the server replay what has been done on the primary, unless it is that. */
static void
catch_up(PGconn *conn, PGconn *primary)
{
	char		query[256];
	char	   *lsn = value_of(primary, "SELECT pg_current_wal_flush_lsn()");

	snprintf(query, sizeof(query), "SELECT coalesce(pg_last_wal_replay_lsn() >= '%s', true)", lsn);
	free(lsn);
	await(conn, query);
}

/* Have the server read its configuration: the postmaster does so before its sessions. */
static void
reload(PGconn *conn)
{
	char		query[256];
	char	   *before = value_of(conn, "SELECT pg_conf_load_time()");

	snprintf(query, sizeof(query), "SELECT pg_conf_load_time() > '%s'", before);
	free(before);
	run(conn, "SELECT pg_reload_conf()");
	await(conn, query);
}

/* Write the file of its own that the configuration includes: the setting, or none. */
static void
write_configuration(PGconn *conn, const char *name, const char *setting, const char *text)
{
	char	   *directory = value_of(conn, "SHOW data_directory");
	char		path[1024];
	char		new_path[1040];
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/%s.conf", directory, name);
	snprintf(new_path, sizeof(new_path), "%s.new", path);
	free(directory);
	file = fopen(new_path, "w");
	if (file == NULL)
		die("could not write %s\n", new_path);
	if (setting)
	{
		fprintf(file, "lsn_tracker.%s = '", setting);
		for (const char *p = text; *p; p++)
			fprintf(file, "\\%03o", (unsigned char) *p);
		fprintf(file, "'\n");
	}
	fclose(file);
	/* somebody else may have it read just now */
	if (rename(new_path, path) != 0)
		die("could not write %s\n", path);
}

/* Make a new connection, whose statements may be refused.  Only its options may refuse it. */
static void
connect_anew(const char *conninfo, const Stored *way, const char *options)
{
	static const char *const refusals[] = {
		"invalid value for parameter",
		"is outside the valid range",
		"requires a Boolean value",
		"cannot be changed",
		"invalid command-line argument",
		"invalid byte sequence",
	};
	static const char *const statements[] = {"SELECT count(*) FROM t", "SELECT f()"};
	const char *keywords[] = {"dbname", "options", NULL};
	const char *values[] = {conninfo, options, NULL};
	PGconn	   *conn = PQconnectdbParams(keywords, values, 1);

	if (PQstatus(conn) != CONNECTION_OK)
	{
		bool		clear = false;

		for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
			clear |= strstr(PQerrorMessage(conn), refusals[i]) != NULL;
		if (way->place != OPTIONS || !clear)
			die("%s: %s", way->name, PQerrorMessage(conn));
		not_connected++;
		PQfinish(conn);
		return;
	}
	PQsetNoticeReceiver(conn, ignore, NULL);
	for (int i = 0; i < 2; i++)
		answered += done(conn, way->name, statements[i]);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s: the connection is gone: %s", way->name, PQerrorMessage(conn));
	PQfinish(conn);
}

/* An input that a new connection finds, and nobody after it. */
static void
send_stored(PGconn *conn, PGconn *primary, const char *server, const char *name, int w)
{
	const Stored *way = &stored[w];
	/* the first of them is the token, and more often than others */
	int			s = draw(3) ? (int) draw(N_SETTINGS) : 0;
	char		text[8192];
	char		sql[20000];
	char		conninfo[1024];
	char		options[20000] = "-c statement_timeout=1000 -c client_min_messages=error";
	char	   *literal;
	bool		is_stored = true;

	draw_text(text, sizeof(text), s == 0 ? TEXT : NOTHING);
	/* longer ones do not fit in the start-up packet */
	text[1000] = '\0';
	literal = PQescapeLiteral(primary, text, strlen(text));
	if (literal == NULL)
		literal = PQescapeLiteral(primary, "?", 1);
	sent_stored[w]++;
	sent_setting[s]++;

	switch (way->place)
	{
		case OPTIONS:
			{
				size_t		length = strlen(options);

				length += snprintf(options + length, sizeof(options) - length, " -c lsn_tracker.%s=", settings[s]);
				for (char *p = text; *p; p++)
				{
					if (strchr(" \t\n\r\f\v\\", *p))
						options[length++] = '\\';
					options[length++] = *p;
				}
				options[length] = '\0';
			}
			break;
		case CATALOG:
		case CONFIGURATION:
			snprintf(sql, sizeof(sql), way->store, settings[s], literal, name);
			is_stored = done(way->place == CATALOG ? primary : conn, way->name, sql);
			break;
		case CONFIGURATION_FILE:
			write_configuration(conn, name, settings[s], text);
	}
	PQfreemem(literal);
	if (!is_stored)
		return;
	if (way->place == CATALOG)
		catch_up(conn, primary);
	else if (way->place != OPTIONS)
		reload(conn);

	snprintf(conninfo, sizeof(conninfo), "%s user=%s dbname=%s", server, name, name);
	connect_anew(conninfo, way, options);

	if (way->undo)
	{
		snprintf(sql, sizeof(sql), way->undo, settings[s], "", name);
		run(way->place == CATALOG ? primary : conn, sql);
	}
	if (way->place == CONFIGURATION_FILE)
		write_configuration(conn, name, NULL, NULL);
	if (way->place == CATALOG)
		catch_up(conn, primary);
	else if (way->place != OPTIONS)
		reload(conn);
}

/* What the server's process has: in its memory contexts, and in all */
static void
measure(PGconn *conn, long *contexts, long *process)
{
	PGresult   *res;
	char		path[64];
	FILE	   *file;
	long		pages = 0;

	run(conn, "SET statement_timeout = 0");
	res = checked(conn, PQexec(conn, "SELECT sum(used_bytes), pg_backend_pid() FROM pg_backend_memory_contexts"));
	run(conn, "RESET statement_timeout");
	*contexts = atol(PQgetvalue(res, 0, 0));
	snprintf(path, sizeof(path), "/proc/%s/statm", PQgetvalue(res, 0, 1));
	PQclear(res);
	file = fopen(path, "r");
	if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1)
		die("could not read %s\n", path);
	fclose(file);
	*process = pages * sysconf(_SC_PAGESIZE);
}

static PGconn *
begin(const char *conninfo)
{
	PGconn	   *conn = connect_to(conninfo);
	PGresult   *res;

	run(conn, "SET statement_timeout = 0");
	res = checked(conn, PQexec(conn, "SELECT coalesce(pg_last_wal_replay_lsn(), pg_current_wal_insert_lsn()) - '0/0'"));

	replayed = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
	PQclear(res);
	run(conn, "RESET statement_timeout");
	return conn;
}

int
main(int argc, char **argv)
{
	long		inputs;
	long		done = 0;
	long		contexts_before = 0;
	long		process_before = 0;
	long		contexts;
	long		process;
	double		start = now_us();
	PGconn	   *conn;
	PGconn	   *primary;
	char		conninfo[1024];
	long		n_stored = 0;

	if (argc != 6)
		die("usage: bad_input INPUTS SEED SERVER PRIMARY NAME\n");
	inputs = atol(argv[1]);
	state = strtoull(argv[2], NULL, 10);
	conn = begin(argv[3]);
	PQsetNoticeReceiver(conn, ignore, NULL);
	snprintf(conninfo, sizeof(conninfo), "%s dbname=%s", argv[4], argv[5]);
	primary = connect_to(conninfo);
	PQsetNoticeReceiver(primary, ignore, NULL);

	while (done < inputs)
	{
		const Way  *batch[BATCH];

		if (PQenterPipelineMode(conn) != 1)
			die("no pipeline: %s", PQerrorMessage(conn));
		for (int i = 0; i < BATCH; i++)
		{
			batch[i] = &ways[draw(N_WAYS)];
			send_input(conn, batch[i]);
		}
		for (int i = 0; i < BATCH; i++)
			take_answers(conn, batch[i]);
		if (PQexitPipelineMode(conn) != 1)
			die("the pipeline is not empty: %s", PQerrorMessage(conn));
		done += BATCH;

		if (done % CONNECT_EVERY == 0)
			send_stored(conn, primary, argv[3], argv[5], (int) (n_stored++ % N_STORED));
		if (contexts_before == 0 && done >= inputs / 10)
			measure(conn, &contexts_before, &process_before);
		if (done % (inputs >= 1000 ? inputs / 20 / BATCH * BATCH + BATCH : inputs) == 0)
		{
			measure(conn, &contexts, &process);
			printf("%ld inputs, %.0f a second, memory contexts %ld kB, process %ld kB\n",
				   done, done / (now_us() - start) * 1e6, contexts / 1024, process / 1024);
			fflush(stdout);
		}
	}
	measure(conn, &contexts, &process);
	PQfinish(conn);
	PQfinish(primary);

	for (int i = 0; i < N_WAYS; i++)
		printf("%10ld  %s\n", sent[i], ways[i].name);
	for (int i = 0; i < N_STORED; i++)
		printf("%10ld  new connections: %s\n", sent_stored[i], stored[i].name);
	for (size_t i = 0; i < N_SETTINGS; i++)
		printf("%10ld  of them with %s\n", sent_setting[i], settings[i]);
	printf("%10ld  connections refused for their options\n", not_connected);
	printf("%10ld  answered\n", answered);
	for (size_t i = 0; i < N_ALLOWED; i++)
		printf("%10ld  %s\n", refused[i], allowed[i]);
	if (contexts - contexts_before > CONTEXTS_MAY_GROW || process - process_before > PROCESS_MAY_GROW)
		die("the session has grown: memory contexts from %ld to %ld bytes, the process from %ld to %ld\n",
			contexts_before, contexts, process_before, process);
	return 0;
}
