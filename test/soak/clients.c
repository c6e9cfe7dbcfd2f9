/*-------------------------------------------------------------------------
 *
 * clients.c
 *		The clients of "make soak": they append to lists on the primary, read them
 *		on every server by every way in, and write down what they did.
 *
 *		clients DIRECTORY CLIENTS SEED POOLED CONNINFO...
 *
 * CONNINFO are the servers a, b, c, ...; whichever is the primary just now is
 * written to.  POOLED is that of a pool of standbys behind PgBouncer, or ''.  Each
 * client is a thread with a connection to each server, and a history of its own
 * in DIRECTORY; a further thread for each server looks at who waits there.
 * Understands on stdin: "pause" and "resume" (answered when all clients are idle,
 * or go on), "rest" (of writing: one write now and then, for which the others wait) and
 * "write", "count" (answered with how many reads and writes have been done), and the end
 * of the input, which ends it.
 *
 * A history's lines are sorted by their first column, the time of the end; times
 * are seconds of CLOCK_MONOTONIC, "-" is none:
 *
 *		end W begin client server pid key value outcome token xid
 *		end R begin client server pid way key token timeout bound outcome after list
 *		end H begin			nothing ran on this machine in the meantime
 *		at Q server pid target reached xmin vxid
 *
 * outcome: ok; timeout; error:SQLSTATE; broken (the connection, so who knows); hung
 * (no answer in PATIENCE).  timeout and bound are ms; after is the token that is
 * reported behind a read that moves it.  Q is a waiter and whether its target has been
 * replayed, and whether it holds an xmin and the lock on its virtual transaction.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "../client.h"

#define SERVERS 8
#define POOLED SERVERS			/* the place of the pool among the servers */
#define CLIENTS 256
#define KEYS 24					/* lists that are written to at the same time */
#define LENGTH 30				/* of a list; then another takes its place */
#define RECENT 256				/* tokens that are handed to others */
#define OLD 64					/* ... and those that are kept for long */
#define PATIENCE 60e6			/* us */
#define SAMPLE 200000			/* us between two looks at who waits */
#define DRIP 2.6e6				/* us between two writes when clients rest */
#define ANNOUNCED 30000			/* us before such a write is committed, its position is handed out */
#define STALL 300000			/* us; who sleeps 20 ms and longer than this was not run */

/* A position that somebody has been told of */
typedef struct
{
	char		token[64];
	char		xid[24];		/* '': it is that of a read */
	int			key;
} Target;

typedef struct
{
	PGconn	   *conn;
	double		next_try;		/* to connect */
} Session;

typedef struct
{
	int			id;
	pthread_t	thread;
	FILE	   *history;
	uint64_t	random;
	Session		sessions[SERVERS + 1];
	Target		own;			/* the last write */
	Target		carried;		/* what has been read, from server to server */
	long		values;
	atomic_long reads;
	atomic_long writes;
} Client;

/*
 * What is done for a read: in front of it, as a query string with the token and the
 * timeout in its places, and behind it; and in between the query that waits, if it is
 * not that which reads.  What the queries' parameters are: t(oken), p(osition), x(id),
 * m(s), k(ey).
 */
typedef struct
{
	const char *name;
	int			weight;
	const char *before;
	const char *wait;
	const char *wait_params;
	const char *read;
	const char *read_params;
	const char *behind;
	int			bounded;		/* takes no target but a bound */
} Way;

#define READ "SELECT array_to_string(v, ',') FROM lists WHERE k = $1"
#define TIMEOUT "SET lsn_tracker.default_timeout = %2$s; "
#define TOKEN "lsn_tracker.token = '%1$s'"
#define FORGET "RESET lsn_tracker.token"
#define LOCALLY "SET LOCAL lsn_tracker.default_timeout = %2$s; SET LOCAL " TOKEN

enum
{
	PLAIN,
	ON_PRIMARY,
	TRACKED,
	STALENESS,
	IN_POOL,
	XID,
	POSITION,
	STRONG,
	BOUNDED
};

static const Way ways[] = {
	[PLAIN] = {"plain", 8, .read = READ, .read_params = "k"},
	[ON_PRIMARY] = {"primary", 6, .read = READ, .read_params = "k"},
	[TRACKED] = {"tracked", 12, "SET lsn_tracker.track_reads = on; " TIMEOUT "SET " TOKEN, .read = READ, .read_params = "k",
				 .behind = FORGET "; RESET lsn_tracker.track_reads"},
	[STALENESS] = {"staleness", 3, NULL, "SELECT extract(epoch FROM lsn_staleness()) * 1000", "", READ, "k", .bounded = 1},
	[IN_POOL] = {"pooled", 10, .read = READ, .read_params = "k"},
	[XID] = {"xid", 6, NULL, "SELECT lsn_wait_xact($1, $2)", "tm", READ, "k"},
	[POSITION] = {"pg_lsn", 6, NULL, "SELECT lsn_wait($1::pg_lsn, $2)", "tm", READ, "k"},
	[STRONG] = {"strong", 14, TIMEOUT "SET lsn_tracker.max_staleness = 0", .read = READ, .read_params = "k",
				.behind = "RESET lsn_tracker.max_staleness", .bounded = 1},
	[BOUNDED] = {"bounded", 8, TIMEOUT "SET lsn_tracker.max_staleness = %3$s", .read = READ, .read_params = "k",
				 .behind = "RESET lsn_tracker.max_staleness", .bounded = 1},
	{"wait", 6, NULL, "SELECT lsn_wait($1::text, $2)", "tm", READ, "k"},
	{"require", 6, NULL, "SELECT lsn_require($1::text, $2)", "tm", READ, "k"},
	{"from", 8, .read = "SELECT array_to_string(v, ',') FROM lists, lsn_require($1::text, $2) WHERE k = $3", .read_params = "tmk"},
	{"set", 8, TIMEOUT "SET " TOKEN, .read = READ, .read_params = "k", .behind = FORGET},
	{"set_local", 6, "BEGIN; " LOCALLY, .read = READ, .read_params = "k", .behind = "COMMIT; " FORGET},
	{"repeatable", 6, "BEGIN ISOLATION LEVEL REPEATABLE READ; " LOCALLY, .read = READ, .read_params = "k", .behind = "COMMIT; " FORGET},
	/* with a lock that replay may want */
	{"locks", 3, "BEGIN; SELECT count(*) FROM side; " LOCALLY, .read = READ, .read_params = "k", .behind = "COMMIT; " FORGET},
	{"notify", 6, "SELECT lsn_request_notification('%1$s')", "SELECT lsn_await_notification($1)", "m", READ, "k"},
};

#define WAYS ((int) (sizeof(ways) / sizeof(ways[0])))
#define READS(client) (atomic_load(&(client)->reads))

static const char *const timeouts[] = {"20", "200", "200", "2000", "2000", "2000", "2000", "8000"};
static const char *const bounds[] = {"50", "200", "1000", "5000"};

static const char *directory;
static const char *conninfo[SERVERS + 1];
static int	servers;
static Client clients[CLIENTS];
static int	n_clients;
static atomic_int keys[KEYS];
static atomic_int next_key;
static int	total_weight;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* All below under the lock */
static Target recent[RECENT];
static Target old[OLD];
static long handed;				/* how many tokens there were */
static long kept;				/* how many of them as old ones */
static int	pausing;
static int	idle;				/* clients that do nothing because of that */

static atomic_int resting;
static atomic_int ending;

/* xorshift64 */
static unsigned
any(Client *c, unsigned n)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return (c->random >> 32) % n;
}

static void
sleep_us(unsigned us)
{
	usleep(us);
}

static FILE *
open_history(const char *name, int number)
{
	char		path[1024];
	FILE	   *history;

	snprintf(path, sizeof(path), "%s/%s.%d", directory, name, number);
	history = fopen(path, "w");
	if (history == NULL)
		die("%s: %s\n", path, strerror(errno));
	setvbuf(history, NULL, _IOFBF, 1 << 18);
	return history;
}

/* ---- connections ---- */

static void
disconnect(Session *s)
{
	PQfinish(s->conn);
	s->conn = NULL;
}

/* The connection, made anew if it is broken and it is time for that */
static int
connected(Session *s, int server)
{
	if (s->conn == NULL && now_us() >= s->next_try)
	{
		s->conn = PQconnectdb(conninfo[server]);
		if (PQstatus(s->conn) != CONNECTION_OK)
		{
			disconnect(s);
			s->next_try = now_us() + 200000;
		}
	}
	return s->conn != NULL;
}

static int
is_primary(Session *s)
{
	const char *standby = PQparameterStatus(s->conn, "in_hot_standby");

	return standby && strcmp(standby, "off") == 0;
}

/*
 * Run a query string, or with parameters a query.  Returns the first error, or else the
 * last result; NULL if there was no answer in time.
 */
static PGresult *
ask_in_time(PGconn *conn, const char *sql, int n_params, const char *const *params)
{
	double		until = now_us() + PATIENCE;
	PGresult   *res = NULL;

	if (n_params < 0 ? !PQsendQuery(conn, sql) : !PQsendQueryParams(conn, sql, n_params, NULL, params, NULL, NULL, 0))
		return PQmakeEmptyPGresult(conn, PGRES_FATAL_ERROR);
	for (;;)
	{
		PGresult   *next;

		while (PQisBusy(conn))
		{
			struct pollfd fd = {.fd = PQsocket(conn), .events = POLLIN};
			double		left = until - now_us();

			if (left <= 0)
			{
				PQclear(res);
				return NULL;
			}
			if (poll(&fd, 1, left / 1000 + 1) > 0 && !PQconsumeInput(conn))
				break;
		}
		next = PQgetResult(conn);
		if (next == NULL)
			return res;
		if (res && PQresultStatus(res) == PGRES_FATAL_ERROR)
			PQclear(next);
		else
		{
			PQclear(res);
			res = next;
		}
	}
}

/* What has come of it */
static const char *
outcome_of(PGconn *conn, PGresult *res, char *buffer, size_t size)
{
	const char *sqlstate;

	if (res == NULL)
		return "hung";
	if (PQstatus(conn) != CONNECTION_OK)
		return "broken";
	if (PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK)
		return "ok";
	sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	if (sqlstate && strcmp(sqlstate, "55L01") == 0)
		return "timeout";
	snprintf(buffer, size, "error:%s", sqlstate ? sqlstate : "?");
	return buffer;
}

/* ---- tokens ---- */

static void
hand_out(const Target *target)
{
	pthread_mutex_lock(&lock);
	recent[handed++ % RECENT] = *target;
	if (handed % 1000 == 0)
		old[kept++ % OLD] = *target;
	pthread_mutex_unlock(&lock);
}

/* The primary has gone: perhaps with what it has acknowledged last. */
static void
keep_last(Client *c)
{
	pthread_mutex_lock(&lock);
	old[kept++ % OLD] = c->own;
	old[kept++ % OLD] = recent[any(c, RECENT)];
	pthread_mutex_unlock(&lock);
}

/* One's own last write; one of others; an old one.  '': there is none yet. */
static Target
choose_target(Client *c)
{
	unsigned	n = any(c, 20);
	Target		target;

	if (n < 8 && c->own.token[0] != '\0' && !atomic_load(&resting))
		return c->own;
	pthread_mutex_lock(&lock);
	/* when writes are rare, the newest */
	if (n < 15 && atomic_load(&resting) && handed > 0)
		target = recent[(handed - 1) % RECENT];
	else
		target = n >= 18 ? old[any(c, OLD)] : recent[any(c, RECENT)];
	pthread_mutex_unlock(&lock);
	return target;
}

/* ---- operations ---- */

/*
 * Hand out what a transaction will have written when it is committed: its id, and as its
 * position the first byte of what comes next.
 */
static void
announce(Client *c, const Target *target, const char *xid, const char *insert_lsn)
{
	Target		announced = *target;
	const char *timeline = strchr(c->own.token, '@');
	unsigned	high,
				low;

	if (timeline == NULL || sscanf(insert_lsn, "%X/%X", &high, &low) != 2)
		return;
	snprintf(announced.token, sizeof(announced.token), "%X/%X%.*s", high, low + 1, (int) strcspn(timeline, "~"), timeline);
	snprintf(announced.xid, sizeof(announced.xid), "%s", xid);
	hand_out(&announced);
}

/* Append a value to a list; slowly: others know before it is committed. */
static void
append(Client *c, int slowly)
{
	static const char sql[] =
		"INSERT INTO lists VALUES ($1, ARRAY[$2]::int[])"
		" ON CONFLICT (k) DO UPDATE SET v = lists.v || excluded.v"
		" RETURNING pg_current_xact_id(), cardinality(v), pg_current_wal_insert_lsn()";
	unsigned	place = any(c, KEYS);
	int			server = any(c, servers);
	Session    *s = NULL;
	int			key = atomic_load(&keys[place]);
	Target		target = {.key = key};
	long		value;
	char		key_text[16],
				value_text[24],
				buffer[32];
	const char *params[] = {key_text, value_text};
	const char *outcome,
			   *token;
	PGresult   *res;
	double		begin,
				end;

	for (int i = 0; i < servers; i++)
	{
		server = (server + 1) % servers;
		s = &c->sessions[server];
		if (connected(s, server) && is_primary(s))
			break;
		s = NULL;
	}
	if (s == NULL)
	{
		sleep_us(5000);
		return;
	}

	value = ++c->values * CLIENTS + c->id;
	snprintf(key_text, sizeof(key_text), "%d", target.key);
	snprintf(value_text, sizeof(value_text), "%ld", value);
	begin = now_us();
	if (slowly)
		PQclear(ask_in_time(s->conn, "BEGIN", -1, NULL));
	res = ask_in_time(s->conn, sql, 2, params);
	outcome = outcome_of(s->conn, res, buffer, sizeof(buffer));
	if (slowly && strcmp(outcome, "ok") == 0)
	{
		PGresult   *commit;

		announce(c, &target, PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 2));
		sleep_us(ANNOUNCED);
		commit = ask_in_time(s->conn, "COMMIT", -1, NULL);
		outcome = outcome_of(s->conn, commit, buffer, sizeof(buffer));
		PQclear(commit);
	}
	else if (slowly && PQtransactionStatus(s->conn) == PQTRANS_INERROR)
		PQclear(ask_in_time(s->conn, "ROLLBACK", -1, NULL));
	end = now_us();
	token = PQparameterStatus(s->conn, "lsn_tracker.token");
	if (strcmp(outcome, "ok") == 0)
	{
		snprintf(target.token, sizeof(target.token), "%s", token ? token : "");
		snprintf(target.xid, sizeof(target.xid), "%s", PQgetvalue(res, 0, 0));
		if (atoi(PQgetvalue(res, 0, 1)) >= LENGTH)
			atomic_compare_exchange_strong(&keys[place], &key, atomic_fetch_add(&next_key, 1));
		c->own = target;
		hand_out(&target);
	}
	fprintf(c->history, "%.6f W %.6f %d %c %d %d %ld %s %s %s\n", end / 1e6, begin / 1e6, c->id, 'a' + server,
			PQbackendPID(s->conn), target.key, value, outcome,
			target.token[0] != '\0' ? target.token : "-", target.xid[0] != '\0' ? target.xid : "-");
	PQclear(res);
	if (strcmp(outcome, "broken") == 0 || strcmp(outcome, "hung") == 0)
	{
		disconnect(s);
		keep_last(c);
	}
	atomic_fetch_add(&c->writes, 1);
}

/* A connection to read by; NULL if there is none just now. */
static Session *
choose_server(Client *c, int way, int *server)
{
	if (way == IN_POOL)
	{
		*server = POOLED;
		return connected(&c->sessions[POOLED], POOLED) ? &c->sessions[POOLED] : NULL;
	}
	for (int i = 0; i < 2 * servers; i++)
	{
		*server = any(c, servers);
		if (connected(&c->sessions[*server], *server) &&
			((way == TRACKED && !atomic_load(&resting)) || is_primary(&c->sessions[*server]) == (way == ON_PRIMARY)))
			return &c->sessions[*server];
	}
	return NULL;
}

static void
read_list(Client *c, int w)
{
	const Way  *way = &ways[w];
	const char *timeout = timeouts[any(c, sizeof(timeouts) / sizeof(timeouts[0]))];
	const char *bound = "-";
	const char *outcome = "ok";
	Target		target = {0};
	Target		after = {0};
	PGresult   *res = NULL;
	Session    *s;
	int			server,
				key,
				pid;
	char		position[64],
				key_text[16],
				buffer[32],
				age[32];
	const char *given = "-";	/* of the target */
	const char *queries[2] = {way->wait, way->read};
	const char *all_params[2] = {way->wait_params, way->read_params};
	double		begin,
				end;

	s = choose_server(c, w, &server);
	if (s == NULL)
	{
		sleep_us(5000);
		return;
	}
	if (w == STRONG)
		bound = "0";
	else if (w == BOUNDED)
		bound = bounds[any(c, sizeof(bounds) / sizeof(bounds[0]))];
	if (w == STALENESS)
		timeout = "1000";		/* the function's own */
	else if (w == TRACKED)
	{
		/* a new beginning now and then, with what somebody else has */
		if (c->carried.token[0] == '\0' || any(c, 40) == 0)
			c->carried = choose_target(c);
		target = c->carried;
	}
	else if (w == IN_POOL)
	{
		/* it is the server's session that keeps it; whose, does the pooler know */
		const char *token = PQparameterStatus(s->conn, "lsn_tracker.token");

		snprintf(target.token, sizeof(target.token), "%s", token ? token : "");
		timeout = "5000";
	}
	else if (!way->bounded && w != PLAIN && w != ON_PRIMARY)
	{
		target = choose_target(c);
		if (target.token[0] == '\0' || (w == XID && target.xid[0] == '\0'))
			return;
	}
	/* what one has written or heard of, or whatever is written to just now */
	key = target.key != 0 && any(c, 10) < 7 ? target.key : atomic_load(&keys[any(c, KEYS)]);
	snprintf(key_text, sizeof(key_text), "%d", key);
	snprintf(position, sizeof(position), "%.*s", (int) strcspn(target.token, "@"), target.token);
	if (target.token[0] != '\0')
		given = w == XID ? target.xid : target.token;
	if (w == POSITION)
		given = position;

	if (way->before)
	{
		char		sql[512];

		snprintf(sql, sizeof(sql), way->before, target.token, timeout, bound);
		res = ask_in_time(s->conn, sql, -1, NULL);
		outcome = outcome_of(s->conn, res, buffer, sizeof(buffer));
	}
	pid = PQbackendPID(s->conn);
	begin = now_us();
	for (int i = 0; i < 2 && strcmp(outcome, "ok") == 0; i++)
	{
		const char *params[3];
		int			n_params = 0;

		if (queries[i] == NULL)
			continue;
		for (const char *p = all_params[i]; *p != '\0'; p++)
		{
			switch (*p)
			{
				case 'm':
					params[n_params++] = timeout;
					break;
				case 'k':
					params[n_params++] = key_text;
					break;
				default:
					params[n_params++] = given;
			}
		}
		PQclear(res);
		res = ask_in_time(s->conn, queries[i], n_params, params);
		outcome = outcome_of(s->conn, res, buffer, sizeof(buffer));
		if (i == 0 && strcmp(outcome, "ok") == 0)
		{
			if (strcmp(PQgetvalue(res, 0, 0), "f") == 0 || (w == STALENESS && PQgetisnull(res, 0, 0)))
				outcome = "timeout";
			else if (w == STALENESS)
			{
				snprintf(age, sizeof(age), "%s", PQgetvalue(res, 0, 0));
				bound = age;
			}
		}
	}
	end = now_us();

	if (w == TRACKED || w == IN_POOL)
	{
		const char *token = PQparameterStatus(s->conn, "lsn_tracker.token");

		if (strcmp(outcome, "ok") == 0)
		{
			after.key = key;
			snprintf(after.token, sizeof(after.token), "%s", token ? token : "");
			if (after.token[0] != '\0')
				hand_out(&after);
		}
		/* what is lost is lost for ever */
		if (w == TRACKED && strncmp(outcome, "error", 5) == 0)
			c->carried.token[0] = '\0';
		else if (w == TRACKED && after.token[0] != '\0')
			c->carried = after;
	}
	fprintf(c->history, "%.6f R %.6f %d %c %d %s %d %s %s %s %s %s %s\n", end / 1e6, begin / 1e6, c->id,
			server == POOLED ? '?' : 'a' + server, pid, way->name, key,
			given, timeout, bound, outcome, after.token[0] != '\0' ? after.token : "-",
			strcmp(outcome, "ok") == 0 && PQntuples(res) > 0 ? PQgetvalue(res, 0, 0) : "-");
	PQclear(res);
	atomic_fetch_add(&c->reads, 1);

	if (strcmp(outcome, "broken") == 0 || strcmp(outcome, "hung") == 0)
	{
		disconnect(s);
		return;
	}
	/* COMMIT is a ROLLBACK then; neither forgets what has been set */
	if (way->behind)
		PQclear(ask_in_time(s->conn, way->behind, -1, NULL));
	/* a pooled client that can't go on with its token starts anew */
	if (w == IN_POOL && strncmp(outcome, "error", 5) == 0)
		PQclear(ask_in_time(s->conn, "SET lsn_tracker.token = ''", -1, NULL));
	if (PQstatus(s->conn) != CONNECTION_OK)
		disconnect(s);
}

/* ---- threads ---- */

static int
choose_way(Client *c)
{
	int			n = any(c, total_weight);

	for (int i = 0;; i++)
	{
		n -= ways[i].weight;
		if (n >= 0)
			continue;
		/* reads write hint bits there, and who has missed his record is woken by those */
		if (i == ON_PRIMARY && atomic_load(&resting))
			return PLAIN;
		return i == IN_POOL && conninfo[POOLED] == NULL ? PLAIN : i;
	}
}

static void *
run_client(void *arg)
{
	Client	   *c = arg;
	double		last_write = 0;

	while (!atomic_load(&ending))
	{
		pthread_mutex_lock(&lock);
		if (pausing)
		{
			idle++;
			pthread_cond_broadcast(&changed);
			while (pausing)
				pthread_cond_wait(&changed, &lock);
			idle--;
			pthread_cond_broadcast(&changed);
		}
		pthread_mutex_unlock(&lock);

		if (atomic_load(&resting) ? c->id == 0 && now_us() > last_write + DRIP : any(c, 8) == 0)
		{
			append(c, atomic_load(&resting));
			last_write = now_us();
		}
		else
			read_list(c, choose_way(c));
	}
	for (int i = 0; i <= SERVERS; i++)
		disconnect(&c->sessions[i]);
	fclose(c->history);
	return NULL;
}

/* Who waits on this server */
static void *
look_at_waiters(void *arg)
{
	static const char sql[] =
		"SELECT pid, coalesce(target::text, xid::text, 'answer'),"
		" coalesce(target <= pg_last_wal_replay_lsn(), false)::int, (backend_xmin IS NOT NULL)::int,"
		" (EXISTS (SELECT FROM pg_locks l WHERE l.pid = w.pid AND locktype = 'virtualxid' AND mode = 'ExclusiveLock'))::int"
		" FROM lsn_waiters() w JOIN pg_stat_activity USING (pid)";
	int			server = *(int *) arg;
	Session		s = {0};
	FILE	   *history = open_history("waiters", server);

	while (!atomic_load(&ending))
	{
		PGresult   *res;
		double		at;

		sleep_us(SAMPLE);
		if (!connected(&s, server))
			continue;
		res = ask_in_time(s.conn, sql, 0, NULL);
		at = now_us();
		for (int i = 0; res && i < PQntuples(res); i++)
			fprintf(history, "%.6f Q %c %s %s %s %s %s\n", at / 1e6, 'a' + server,
					PQgetvalue(res, i, 0), PQgetvalue(res, i, 1), PQgetvalue(res, i, 2),
					PQgetvalue(res, i, 3), PQgetvalue(res, i, 4));
		if (res == NULL || PQstatus(s.conn) != CONNECTION_OK)
			disconnect(&s);
		PQclear(res);
	}
	disconnect(&s);
	fclose(history);
	return NULL;
}

/* Does this machine stand still? */
static void *
look_at_machine(void *arg)
{
	FILE	   *history = open_history("machine", 0);

	(void) arg;
	while (!atomic_load(&ending))
	{
		double		begin = now_us();

		sleep_us(20000);
		if (now_us() - begin > STALL)
			fprintf(history, "%.6f H %.6f\n", now_us() / 1e6, begin / 1e6);
	}
	fclose(history);
	return NULL;
}

static void
await_idle(int n)
{
	pthread_mutex_lock(&lock);
	pausing = n > 0;
	pthread_cond_broadcast(&changed);
	while (idle != n)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void
start(pthread_t *thread, void *(*function) (void *), void *arg)
{
	int			error = pthread_create(thread, NULL, function, arg);

	if (error != 0)
		die("no further thread: %s\n", strerror(error));
}

int
main(int argc, char **argv)
{
	static int	numbers[SERVERS];
	pthread_t	others[SERVERS + 1];
	char		line[64];

	if (argc < 6 || argc > 5 + SERVERS)
		die("usage: clients DIRECTORY CLIENTS SEED POOLED CONNINFO...\n");
	directory = argv[1];
	n_clients = atoi(argv[2]);
	if (n_clients < 1 || n_clients > CLIENTS)
		die("from 1 to %d clients\n", CLIENTS);
	if (argv[4][0] != '\0')
		conninfo[POOLED] = argv[4];
	servers = argc - 5;
	for (int i = 0; i < servers; i++)
	{
		conninfo[i] = argv[5 + i];
		numbers[i] = i;
	}
	for (int i = 0; i < KEYS; i++)
		atomic_store(&keys[i], i + 1);
	atomic_store(&next_key, KEYS + 1);
	for (int i = 0; i < WAYS; i++)
		total_weight += ways[i].weight;

	for (int i = 0; i < n_clients; i++)
	{
		Client	   *c = &clients[i];

		c->id = i;
		c->random = (uint64_t) atoll(argv[3]) * 1000003 + i * 7919 + 88172645463325252u;
		c->history = open_history("client", i);
	}
	start(&others[SERVERS], look_at_machine, NULL);
	for (int i = 0; i < servers; i++)
		start(&others[i], look_at_waiters, &numbers[i]);
	for (int i = 0; i < n_clients; i++)
		start(&clients[i].thread, run_client, &clients[i]);

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		if (strcmp(line, "pause\n") == 0)
			await_idle(n_clients);
		else if (strcmp(line, "resume\n") == 0)
			await_idle(0);
		else if (strcmp(line, "rest\n") == 0)
			atomic_store(&resting, 1);
		else if (strcmp(line, "write\n") == 0)
			atomic_store(&resting, 0);
		else
		{
			long		reads = 0,
						writes = 0;

			for (int i = 0; i < n_clients; i++)
			{
				reads += READS(&clients[i]);
				writes += atomic_load(&clients[i].writes);
			}
			printf("%ld %ld\n", reads, writes);
			fflush(stdout);
			continue;
		}
		puts("done");
		fflush(stdout);
	}

	atomic_store(&ending, 1);
	await_idle(0);
	for (int i = 0; i < n_clients; i++)
		pthread_join(clients[i].thread, NULL);
	for (int i = 0; i < servers; i++)
		pthread_join(others[i], NULL);
	pthread_join(others[SERVERS], NULL);
	return 0;
}
