/*-------------------------------------------------------------------------
 *
 * primary_link.c
 *		The link to the primary: a standby asks for its newest commit.
 *
 * One question serves all who came before it was sent.  A session enters the queue with
 * a question (waiters.c): the time from which on the primary has to be asked.  A worker
 * of its own asks, one question at a time, and gives the answer to all whose
 * time is not later than that at which it asked.  A question that was sent before I
 * came is not for me: what I must see may have been committed behind it (model: fresh,
 * ANSWERS_ALL).  All times are this machine's (CLOCK_BOOTTIME, which goes on while it is
 * suspended).
 *
 * The address may be that of another cluster by now: the first question is for the
 * system identifier.
 *
 * The worker is a client of this server's upstream, and asks by SHOW
 * lsn_tracker.newest_commit (newest_commit.c): over the replication protocol, so that
 * primary_conninfo is enough, without another user, password or line in pg_hba.conf.
 * It connects when somebody asks, and closes a connection that nobody has used for a
 * minute.  If there is nobody, it sleeps, until the end of recovery, with which it ends
 * (where the startup process does not tell that, it looks once a minute).  An upstream that
 * is a standby asks its own.
 *
 * libpq blocks while it looks up a name.  So the worker has nothing else to do, and
 * connects to no database: who does takes part in ProcSignal barriers, for which
 * replay waits (DROP DATABASE).  It is not in pg_stat_activity, therefore.
 *
 * That no question is overlooked:
 *
 *		session							worker
 *		enter the queue					busy := 0
 *		(full barrier)					(full barrier)
 *		read busy, set the latch		look for questions
 *
 * Without one of the barriers the session could find the worker busy and the worker
 * no question, and both sleep (model: answered, LOOK_BEFORE_NOT_BUSY; refreshed,
 * NO_BARRIER_BEHIND_NOT_BUSY, NO_BARRIER_IN_FRONT_OF_BUSY).
 *
 * The connection string has a password in it, perhaps.  libpq's messages have parts of it
 * if libpq understands the string in another way than was meant: those about the string
 * itself, and, of a URI with an @ or a / in the password, those with a host or port.  They are
 * not passed on.  The others tell hosts, ports and paths: in the server's log, and in
 * errors for members of pg_read_all_stats.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_authid.h"
#include "common/hashfn.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "lsn_tracker.h"

#define QUESTION "SHOW lsn_tracker.newest_commit"
/* Over the replication protocol, and over an ordinary connection */
#define IDENTIFY "IDENTIFY_SYSTEM"
#define IDENTIFY_BY_SQL "SELECT system_identifier FROM pg_catalog.pg_control_system()"

/*
 * How long to wait for a connection, and for an answer; an upstream may hang.  One that
 * asks its own upstream says earlier that it has got none.
 */
#define PATIENCE (10000 * MS)
/* How long to wait for a connection if there is another host; longer with each failure */
#define HOST_PATIENCE (3000 * MS)
#define RELAY_PATIENCE (5000 * MS)
/* How long to keep a connection that nobody uses */
#define KEEP (60000 * MS)
/* How long to wait after a failure, at first and at most */
#define MIN_PAUSE (100 * MS)
#define MAX_PAUSE (5000 * MS)

/* The worker's connection */
typedef enum LinkState
{
	LINK_CLOSED,
	LINK_CONNECTING,
	LINK_IDENTIFYING,			/* has asked for the system identifier */
	LINK_IDLE,
	LINK_ASKING
} LinkState;

char	   *primary_conninfo;

static LinkState state = LINK_CLOSED;
static PGconn *conn = NULL;
static PostgresPollingStatusType polling;
static WaitEventSet *events = NULL; /* once it is connected */
static char *conninfo = NULL;	/* what it was made from */
static int	n_hosts = 1;			/* how many it names */
static int	first_host = 0;		/* which of them is tried first */
static uint32 logged[8];		/* what was logged of each, hashed */
static bool by_replication;		/* it speaks the replication protocol */
static uint64 deadline;			/* for what it does, or keep it until then */
static uint64 asked_at;			/* the question that is on its way */
static uint64 pause_until = 0;
static uint64 pause_ns = MIN_PAUSE;
static uint32 wait_event;

/*
 * Session: what the primary answers when it is asked at "since" (ns, Now()) or later.  A target
 * to wait for, until this server has replayed the answer.
 */
LsnTarget
Question(uint64 since)
{
	return (LsnTarget){.since = since};
}

/* Is it such a target, and not answered yet? */
bool
IsQuestion(const LsnTarget *target)
{
	return target->since != 0 && XLogRecPtrIsInvalid(target->lsn);
}

/*
 * Session, in the queue with a question: have the worker ask.  Startup process, when
 * recovery has ended: have it end.
 */
void
WakeLink(void)
{
	Latch	   *latch = tracker->link.latch;

	/* see the top of this file */
	pg_memory_barrier();
	if (latch && pg_atomic_read_u32(&tracker->link.busy) == 0)
		SetLatch(latch);
}

/*
 * Session: have the worker ask, although nobody waits for the answer.
 */
void
RefreshAnswer(void)
{
	if (pg_atomic_read_u32(&tracker->link.refresh) == 0)
	{
		pg_atomic_write_u32(&tracker->link.refresh, 1);
		WakeLink();
	}
}

/*
 * Report that a question has not been answered within "timeout" ms: as an error, or as a
 * warning.  In a transaction, since roles are looked up.
 */
void
ReportUnanswered(int elevel, int64 timeout)
{
	char		problem[sizeof(tracker->link.problem)];

	LWLockAcquire(tracker->lock, LW_SHARED);
	strlcpy(problem, tracker->link.problem, sizeof(problem));
	ReleaseQueue();
	if (tracker->link.latch == NULL)
		strlcpy(problem, "the background worker that asks is not running", sizeof(problem));
	else if (problem[0] == '\0')
		strlcpy(problem, "no answer yet", sizeof(problem));
	else if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		strlcpy(problem, "see this server's log", sizeof(problem));

	ereport(elevel,
			(errcode(elevel >= ERROR ? ERRCODE_NOT_FRESH : ERRCODE_WARNING),
			 errmsg("timed out after %lld ms while asking the primary for its newest commit", (long long) timeout),
			 errdetail("The upstream server has not told it: %s.", problem),
			 errhint("Read on the primary, or see that this server can connect to its upstream.")));
}

/*
 * Session on a standby: ask, and return the answer, a position with its timeline.
 * Raises 55L01 if there is none in time.
 */
LsnTarget
AskPrimary(void)
{
	LsnTarget	question = Question(Now());
	LsnTarget	answer;
	int64		timeout = default_timeout;

	question.answer_only = true;
	if (am_walsender && (timeout == 0 || timeout > (int64) (RELAY_PATIENCE / MS)))
		timeout = RELAY_PATIENCE / MS;
	if (!Await(&question, timeout, IN_FUNCTION))
		ReportUnanswered(ERROR, timeout);
	if (!AnswerTo(&question, &answer))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery has ended"),
				 errdetail("This server has been promoted."),
				 errhint("Ask again.")));
	return answer;
}

void
RegisterLink(void)
{
	/* not BGWORKER_BACKEND_DATABASE_CONNECTION, see the top of this file */
	RegisterOwnWorker("lsn_tracker link", "LsnTrackerLinkMain", BGWORKER_SHMEM_ACCESS);
}

static void
Disconnect(void)
{
	if (events)
		FreeWaitEventSet(events);
	events = NULL;
	if (conn)
	{
		PQfinish(conn);
		ReleaseExternalFD();
	}
	conn = NULL;
	state = LINK_CLOSED;
}

/*
 * The question can't be asked, or has not been answered: tell those who ask, and try
 * again, with the next host; a little later once all have been tried.
 */
static void
Fail(const char *problem)
{
	char	   *line = pnstrdup(problem, strcspn(problem, "\n"));
	uint32		hash = hash_bytes((unsigned char *) line, strlen(line));
	uint32	   *last = &logged[first_host % lengthof(logged)];

	CountEvent(EVENT_UNANSWERED);
	Disconnect();
	LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
	strlcpy(tracker->link.problem, line, sizeof(tracker->link.problem));
	ReleaseQueue();
	pg_atomic_write_u32(&tracker->link.refresh, 0);

	if (*last != hash)
		ereport(LOG,
				(errmsg("could not ask the upstream server for the newest commit: %s", line)));
	*last = hash;
	first_host = (first_host + 1) % n_hosts;
	if (first_host == 0)
	{
		pause_until = Now() + pause_ns;
		pause_ns = Min(2 * pause_ns, MAX_PAUSE);
	}
}

/*
 * The upstream does what it should, or shall be another: what was wrong is forgotten.
 */
static void
ForgetProblems(void)
{
	pause_until = 0;
	pause_ns = MIN_PAUSE;
	memset(logged, 0, sizeof(logged));
}

/* What to connect to; NULL: nothing is known */
static const char *
ConfiguredConninfo(void)
{
	if (primary_conninfo[0] != '\0')
		return primary_conninfo;
	if (PrimaryConnInfo && PrimaryConnInfo[0] != '\0')
		return PrimaryConnInfo;
	return NULL;
}

/*
 * What libpq says of the connection, but see the top of this file
 */
static const char *
ConnectionProblem(void)
{
	if (strstr(conninfo, "://") && strchr(conninfo, '@'))
		return "connection failed (libpq's message is left out: there may be a part of the URI's password in it)";
	return PQerrorMessage(conn);
}

/* An option's value; NULL or empty: not set */
static const char *
OptionValue(PQconninfoOption *options, const char *keyword)
{
	while (strcmp(options->keyword, keyword) != 0)
		options++;
	return options->val;
}

/* A list with commas, from its item first_host on, and then the others */
static const char *
RotateList(const char *list)
{
	for (int i = 0; list && i < first_host; i++)
	{
		const char *comma = strchr(list, ',');

		if (comma == NULL)
			break;				/* one for all hosts */
		list = psprintf("%s,%.*s", comma + 1, (int) (comma - list), list);
	}
	return list;
}

/*
 * Begin to connect.
 *
 * libpq passes by a host to which it can't connect, but not one that accepts a
 * connection and says nothing: so each attempt begins with another.
 */
static void
Connect(void)
{
	const char *configured = ConfiguredConninfo();
	PQconninfoOption *options;
	char	   *error = NULL;

	/* what comes first is a default, what comes last is not to be changed */
	const char *keywords[] = {
		"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
		"dbname", "application_name", "host", "hostaddr", "port", "replication", "dbname", NULL};
	const char *values[] = {
		"5", "2", "3", "2000",
		configured, "lsn_tracker", NULL, NULL, NULL, "true", "replication", NULL};
	const int	host = 6;
	const int	replication = 9;
	const char *hosts;

	if (configured == NULL)
	{
		Fail("neither primary_conninfo nor lsn_tracker.primary_conninfo is set");
		return;
	}
	if (conninfo)
		pfree(conninfo);
	conninfo = MemoryContextStrdup(TopMemoryContext, configured);

	/* its messages can have a part of the password in them */
	options = PQconninfoParse(conninfo, &error);
	PQfreemem(error);
	if (options == NULL)
	{
		Fail("the connection string is not valid");
		return;
	}
	for (int i = host; i < replication; i++)
		values[i] = RotateList(OptionValue(options, keywords[i]));
	hosts = values[host + 1] ? values[host + 1] : values[host];
	n_hosts = 1;
	for (const char *p = hosts; p && *p; p++)
		n_hosts += *p == ',';

	/* or an ordinary connection of one's own choice */
	by_replication = primary_conninfo[0] == '\0' || OptionValue(options, "replication");
	if (primary_conninfo[0] != '\0')
		keywords[replication] = NULL;

	if (!AcquireExternalFD())
	{
		PQconninfoFree(options);
		Fail("too many open files");
		return;
	}
	conn = PQconnectStartParams(keywords, values, true);
	PQconninfoFree(options);
	if (conn == NULL)
	{
		ReleaseExternalFD();
		Fail("out of memory");
		return;
	}
	if (PQstatus(conn) == CONNECTION_BAD)
	{
		Fail(ConnectionProblem());
		return;
	}
	state = LINK_CONNECTING;
	polling = PGRES_POLLING_WRITING;
	deadline = Now() + (n_hosts > 1 ? Min(HOST_PATIENCE + 2 * pause_ns, PATIENCE) : PATIENCE);
}

static void
IgnoreNotice(void *arg, const PGresult *res)
{
}

/*
 * The socket is ready for the next step of connecting.
 */
static void
ConnectFurther(void)
{
	polling = PQconnectPoll(conn);
	if (polling == PGRES_POLLING_FAILED)
		Fail(ConnectionProblem());
	else if (polling == PGRES_POLLING_OK)
	{
		PQsetNoticeReceiver(conn, IgnoreNotice, NULL);
		events = CreateWaitEventSet(NULL, 3);
		AddWaitEventToSet(events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		AddWaitEventToSet(events, WL_SOCKET_READABLE, PQsocket(conn), NULL, NULL);
		if (PQsendQuery(conn, by_replication ? IDENTIFY : IDENTIFY_BY_SQL))
			state = LINK_IDENTIFYING;
		else
			Fail(ConnectionProblem());
	}
}

static void
Ask(void)
{
	/*
	 * In this order: who does not find it taken away has come before the question
	 * (model: refreshed, NO_BARRIER_BEHIND_REFRESH).
	 */
	pg_atomic_write_u32(&tracker->link.refresh, 0);
	pg_memory_barrier();
	asked_at = Now();
	if (!PQsendQuery(conn, QUESTION))
	{
		Fail(ConnectionProblem());
		return;
	}
	state = LINK_ASKING;
	deadline = asked_at + PATIENCE;
	CountEvent(EVENT_ASKED);
}

/*
 * What to say of an answer that is none
 */
static const char *
WhyNoAnswer(const PGresult *res)
{
	const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);

	/* undefined_object */
	if (code && strcmp(code, "42704") == 0)
		return "lsn_tracker is not in its shared_preload_libraries, or of a version that is too old";
	if (message == NULL)
		return ConnectionProblem();
	return detail ? psprintf("%s (%s)", message, detail) : message;
}

/*
 * The upstream has said which cluster it is of, or an error.
 */
static void
TakeIdentity(PGresult *res)
{
	if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
		Fail(WhyNoAnswer(res));
	else if (strtou64(PQgetvalue(res, 0, 0), NULL, 10) != GetSystemIdentifier())
		Fail("it is of another cluster");
	else
	{
		state = LINK_IDLE;
		deadline = Now() + KEEP;
	}
}

/*
 * The answer, or an error, is there: see which.
 */
static void
TakeAnswer(PGresult *res)
{
	LsnTarget	answer;
	TimeLineID	timeline;

	(void) GetXLogReplayRecPtr(&timeline);
	if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1 || PQnfields(res) != 1)
		Fail(WhyNoAnswer(res));
	else if (!IsToken(PQgetvalue(res, 0, 0), &answer) || answer.timeline == 0 || XLogRecPtrIsInvalid(answer.lsn))
		Fail("its answer is not a token");
	else if (answer.timeline < timeline)
	{
		/* has been succeeded by another, and does not know it */
		Fail(psprintf("it is on timeline %u, and this server on %u", answer.timeline, timeline));
	}
	else
	{
		state = LINK_IDLE;
		deadline = Now() + KEEP;
		ForgetProblems();
		/* who gets it finds it counted */
		CountEvent(EVENT_ANSWERED);
		CountTime(METRIC_QUESTION, Now() - asked_at);
		HandOutAnswer(asked_at, &answer);
	}
}

/*
 * Something has come from the upstream.
 */
static void
Receive(void)
{
	static PGresult *last = NULL;

	if (!PQconsumeInput(conn))
	{
		/* while nobody asks, it does not matter */
		if (state == LINK_IDLE)
			Disconnect();
		else
			Fail(ConnectionProblem());
		return;
	}

	/* until there is no more, or libpq would not take the next question */
	while ((state == LINK_IDENTIFYING || state == LINK_ASKING) && !PQisBusy(conn))
	{
		PGresult   *res = PQgetResult(conn);

		if (res == NULL && state == LINK_IDENTIFYING)
			TakeIdentity(last);
		else if (res == NULL)
			TakeAnswer(last);
		PQclear(last);
		last = res;
	}
}

/*
 * Do what there is to do.  Returns for how long there is nothing then, ms; -1: for
 * ever.
 */
static long
Work(void)
{
	uint64		now = Now();
	uint64		until;

	if ((state == LINK_CONNECTING || state == LINK_IDENTIFYING) && now >= deadline)
		Fail("no connection in time");
	else if (state == LINK_ASKING && now >= deadline)
		Fail("no answer in time");

	if (state == LINK_CLOSED || state == LINK_IDLE)
	{
		/* see the top of this file */
		pg_atomic_write_u32(&tracker->link.busy, 0);
		pg_memory_barrier();
		if (SomebodyAsks() || pg_atomic_read_u32(&tracker->link.refresh) != 0)
		{
			pg_atomic_write_u32(&tracker->link.busy, 1);
			if (state == LINK_IDLE)
				Ask();
			else if (now >= pause_until)
				Connect();
		}
		else if (state == LINK_CLOSED || now >= deadline)
		{
			if (state != LINK_CLOSED)
				Disconnect();
			/* recovery may end, and nobody tell */
			return NeedsPolling() ? (long) (KEEP / MS) : -1;
		}
	}

	until = state == LINK_CLOSED ? pause_until : deadline;
	return until > now ? (long) ((until - now) / MS) + 1 : 0;
}

/*
 * Sleep until there is something to do, and take what comes from the upstream.
 */
static void
Sleep(long timeout)
{
	int			wanted = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0);

	if (state == LINK_CLOSED)
		(void) WaitLatch(MyLatch, wanted, timeout, wait_event);
	else if (state == LINK_CONNECTING)
	{
		/* which socket it is may change */
		int			ready = polling == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;

		if (WaitLatchOrSocket(MyLatch, wanted | ready, PQsocket(conn), timeout, wait_event) & ready)
			ConnectFurther();
	}
	else
	{
		WaitEvent	event;

		if (WaitEventSetWait(events, timeout, &event, 1, wait_event) == 1 &&
			(event.events & WL_SOCKET_READABLE))
			Receive();
	}
}

static void
LeaveWork(int code, Datum arg)
{
	tracker->link.latch = NULL;
	Disconnect();
}

void
LsnTrackerLinkMain(Datum main_arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	wait_event = WaitEventExtensionNew("LsnTrackerLink");
	context = AllocSetContextCreate(TopMemoryContext, "lsn_tracker link", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	before_shmem_exit(LeaveWork, (Datum) 0);
	tracker->link.latch = MyLatch;

	for (;;)
	{
		MemoryContextReset(context);
		/* before we look, or what happens after the look is lost */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		/* not 0, which would mean that we are not to be restarted */
		if (ShutdownRequestPending)
			proc_exit(1);
		/* a primary has nobody to ask, and does not become a standby */
		if (pg_atomic_read_u64(&tracker->replayed) == REPLAY_ENDED || !RecoveryInProgress())
			proc_exit(0);
		if (ConfigReloadPending)
		{
			const char *configured;

			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			configured = ConfiguredConninfo();
			if (conninfo == NULL || configured == NULL || strcmp(conninfo, configured) != 0)
			{
				Disconnect();
				ForgetProblems();
				n_hosts = 1;
				first_host = 0;
				LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
				tracker->link.problem[0] = '\0';
				ReleaseQueue();
			}
		}

		Sleep(Work());
	}
}
