/*-------------------------------------------------------------------------
 *
 * waiters.c
 *		Sessions that wait, and rounds of them: from the redo of a record to the
 *		return of who waits for it.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>

#include "bench.h"

/*
 * What the primary may write by itself before the sessions wait, bytes: its
 * running transactions and a checkpoint.  It must reach no target.
 */
#define OWN_WAL 400

/* A record of the table "crowd" is larger than this, bytes. */
#define RECORD 56

/* Who waits for replay: the sessions of lsn_tracker and of WAIT FOR LSN */
#define COUNT_WAITING \
	"SELECT count(*) FROM pg_stat_activity" \
	" WHERE wait_event IN ('LsnWait', 'WaitForWalReplay') AND state = 'active'"

const char *const kind_names[KINDS] = {"lsn_wait", "WAIT FOR LSN", "nobody"};

void
send_wait(PGconn *conn, int kind, long long position)
{
	char		command[128];

	snprintf(command, sizeof(command), kind == LSN_WAIT ? "SELECT lsn_wait('%llX/%08llX', 0)" : "WAIT FOR LSN '%llX/%08llX'",
			 position >> 32, position & 0xFFFFFFFF);
	if (!PQsendQuery(conn, command) || PQflush(conn) != 0)
		die("%s", PQerrorMessage(conn));
}

void
prepare_rounds(void)
{
	prepare(standby, "began", "SELECT bench_redo_began('0/0'::pg_lsn + $1::numeric)");
	prepare(standby, "replayed", "SELECT pg_last_wal_replay_lsn() >= $1");
	prepare(standby, "received", "SELECT pg_last_wal_receive_lsn() >= $1");
	prepare(standby, "pause", "SELECT pg_wal_replay_pause()");
	prepare(standby, "pause_state", "SELECT pg_get_wal_replay_pause_state()");
	prepare(standby, "resume", "SELECT pg_wal_replay_resume()");
	prepare(primary, "position", "SELECT (" INSERT_LSN ") - '0/0'");
	prepare(primary, "lsn", INSERT_LSN);
}

PGconn **
waiting_sessions(int n, const char *standby_info)
{
	PGconn	  **conns = calloc(n, sizeof(PGconn *));

	for (int i = 0; i < n; i++)
		conns[i] = connect_to(standby_info);
	prepare(standby, "waiting", COUNT_WAITING);
	return conns;
}

void
await_waiting(int n)
{
	char		text[32];

	snprintf(text, sizeof(text), "%d", n);
	await_standby("waiting", NULL, text);
}

/* When the redo of the record with this position began; it has. */
static double
redo_began(long long position)
{
	char		text[32];

	snprintf(text, sizeof(text), "%lld", position);
	ask(standby, "began", text, answer, sizeof(answer));
	if (answer[0] == '\0')
		die("no record at %s has been replayed\n", text);
	return atof(answer);
}

void
round_of_waiters(PGconn **conns, int sessions, int kind, Targets targets,
				 Samples *first, Samples *last, Samples *startup)
{
	static struct pollfd *fds;
	int			waiting = kind == NOBODY ? 0 : sessions;
	int			distance = targets == DIFFERENT_POSITIONS ? RECORD : 0;
	long long	base;
	double		began,
				first_return = 0,
				last_return = 0,
				deadline;

	if (fds == NULL)
		fds = calloc(sessions, sizeof(struct pollfd));
	if (targets != NEXT_RECORD)
	{
		ask(standby, "pause", NULL, answer, sizeof(answer));
		await_standby("pause_state", NULL, "paused");
	}
	ask(primary, "position", NULL, answer, sizeof(answer));
	base = atoll(answer) + (targets == NEXT_RECORD ? 1 : OWN_WAL);
	for (int s = 0; s < waiting; s++)
	{
		send_wait(conns[s], kind, base + s * distance);
		fds[s] = (struct pollfd){.fd = PQsocket(conns[s]), .events = POLLIN};
	}
	await_waiting(waiting);
	ask(primary, "write", NULL, answer, sizeof(answer));
	if (targets != NEXT_RECORD)
	{
		ask(primary, "lsn", NULL, lsn, sizeof(lsn));
		await_standby("received", lsn, "t");
		ask(standby, "resume", NULL, answer, sizeof(answer));
	}

	deadline = now_us() + LOST_AFTER * 1e6;
	while (waiting > 0)
	{
		if (now_us() > deadline)
			die("missed: %d of %d sessions were not woken within %d s\n", waiting, sessions, LOST_AFTER);
		if (poll(fds, sessions, 100) < 0 && errno != EINTR)
			die("poll: %s\n", strerror(errno));
		for (int s = 0; s < sessions; s++)
		{
			PGresult   *res;

			if (!(fds[s].revents & POLLIN))
				continue;
			if (!PQconsumeInput(conns[s]))
				die("%s", PQerrorMessage(conns[s]));
			if (PQisBusy(conns[s]))
				continue;
			last_return = now_us();
			if (waiting-- == sessions)
				first_return = last_return;
			res = checked(conns[s], PQgetResult(conns[s]));
			expect("wait", PQgetvalue(res, 0, 0), kind == LSN_WAIT ? "t" : "success");
			PQclear(res);
			PQclear(PQgetResult(conns[s]));
			fds[s] = (struct pollfd){.fd = -1};
		}
	}
	if (targets != NEXT_RECORD)
		await_standby("replayed", lsn, "t");
	began = redo_began(base);
	if (kind != NOBODY)
	{
		add(first, first_return - began);
		add(last, last_return - began);
	}
	if (startup != NULL)
		add(startup, redo_began(base + (sessions - 1) * distance + 3 * RECORD) - began);
}
