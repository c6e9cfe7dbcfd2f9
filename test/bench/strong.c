/*-------------------------------------------------------------------------
 *
 * strong.c
 *		9: strong and bounded reads, by so many clients at once.
 *
 * One process is all clients: each sends its next statement when the last one is
 * answered.  The contenders have connections of their own, and read by turns, for a
 * fraction of a second each.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <sys/epoll.h>

#include "bench.h"

/* How long a contender's turn lasts before it counts, and then; us */
#define WARM_UP 50e3
#define TURN 250e3

/* As many as pgbench -i makes */
#define ACCOUNTS 100000

#define READ_ACCOUNT "SELECT abalance FROM pgbench_accounts WHERE aid = $1"

/* Which of a client's connections */
enum
{
	STANDBY,
	PRIMARY
};

/* A statement, and where: prepared, or "wait" */
typedef struct
{
	const char *name;
	int			on;
} Step;

typedef struct
{
	PGconn	   *conns[2];		/* NULL if it needs none there */
	int			step;			/* the one that is not answered yet; -1: none */
	double		began;			/* the first of them */
} Client;

typedef struct
{
	const char *name;
	const char *setting;		/* of the session on the standby, or NULL */
	Step		steps[3];
	Client	   *clients;
	int			epoll;
	Samples		time;			/* from one read to the next, of all clients; a turn each */
	Samples		cpu;			/* of the primary, for 1,000 reads; a turn each */
	Samples		latency;		/* the median in each turn: what a read takes its client */
	Samples		latencies;		/* of each read */
} Contender;

/* for the targets */
enum
{
	EVENTUAL = 0,
	STRONG,
	BOUNDED,
	ON_PRIMARY,
	BY_HAND,
	ROUND_TRIP
};

static Contender contenders[] = {
	[EVENTUAL] = {"eventual", NULL, {{"read", STANDBY}}},
	[STRONG] = {"strong", "SET lsn_tracker.max_staleness = 0", {{"read", STANDBY}}},
	[BOUNDED] = {"bounded by 200 ms", "SET lsn_tracker.max_staleness = 200", {{"read", STANDBY}}},
	[ON_PRIMARY] = {"on the primary", NULL, {{"read", PRIMARY}}},
	[BY_HAND] = {"position; WAIT FOR LSN; read", NULL, {{"lsn", PRIMARY}, {"wait", STANDBY}, {"read", STANDBY}}},
	/* what nobody who asks the primary can do without; of one client only */
	[ROUND_TRIP] = {"SELECT 1 on the primary", NULL, {{"one", PRIMARY}}},
};

#define CONTENDERS ((int) (sizeof(contenders) / sizeof(contenders[0])))

/* The processes of the primary */
static int	primary_pids[4000];
static int	n_primary_pids;

static void
find_primary_processes(void)
{
	PGresult   *res = checked(primary, PQexec(primary, "SELECT pid FROM pg_stat_activity"));

	n_primary_pids = PQntuples(res);
	if (n_primary_pids > (int) (sizeof(primary_pids) / sizeof(primary_pids[0])))
		die("the primary has too many processes\n");
	for (int i = 0; i < n_primary_pids; i++)
		primary_pids[i] = atoi(PQgetvalue(res, i, 0));
	PQclear(res);
}

static double
primary_cpu(void)
{
	double		us = 0;

	for (int i = 0; i < n_primary_pids; i++)
		us += process_cpu(primary_pids[i]);
	return us;
}

static void
connect_client(Contender *c, Client *client, int number, const char *const infos[])
{
	client->step = -1;
	for (int i = 0; i < (int) (sizeof(c->steps) / sizeof(c->steps[0])) && c->steps[i].name; i++)
	{
		int			on = c->steps[i].on;
		struct epoll_event event = {.events = EPOLLIN, .data.u32 = number * 2 + on};
		PGconn	   *conn;

		if (client->conns[on])
			continue;
		conn = client->conns[on] = connect_to(infos[on]);
		if (on == STANDBY && c->setting)
			run(conn, c->setting);
		prepare(conn, "read", READ_ACCOUNT);
		prepare(conn, "lsn", INSERT_LSN);
		prepare(conn, "one", "SELECT 1");
		if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, PQsocket(conn), &event) != 0)
			die("epoll_ctl: %s\n", strerror(errno));
	}
}

/* Send the client's statement. */
static void
send_step(Contender *c, Client *client)
{
	const Step *step = &c->steps[client->step];
	PGconn	   *conn = client->conns[step->on];

	if (strcmp(step->name, "wait") != 0)
	{
		snprintf(id, sizeof(id), "%ld", 1 + random() % ACCOUNTS);
		send_prepared(conn, step->name, strcmp(step->name, "read") == 0 ? id : NULL);
	}
	else if (!PQsendQuery(conn, wait_for_command()))
		die("%s", PQerrorMessage(conn));
}

static void
begin_read(Contender *c, Client *client)
{
	client->step = 0;
	client->began = now_us();
	send_step(c, client);
}

/*
 * Something has come on one of the client's connections.  Returns whether that was
 * the answer to its last statement.
 */
static int
receive(Contender *c, Client *client, int on)
{
	PGconn	   *conn = client->conns[on];
	PGresult   *res;

	if (!PQconsumeInput(conn))
		die("%s", PQerrorMessage(conn));
	if (client->step < 0 || c->steps[client->step].on != on || PQisBusy(conn))
		return 0;
	res = checked(conn, PQgetResult(conn));
	if (strcmp(c->steps[client->step].name, "lsn") == 0)
		snprintf(lsn, sizeof(lsn), "%s", PQgetvalue(res, 0, 0));
	else if (strcmp(c->steps[client->step].name, "wait") == 0)
		expect("wait", PQgetvalue(res, 0, 0), "success");
	PQclear(res);
	PQclear(PQgetResult(conn));
	client->step++;
	if (client->step < (int) (sizeof(c->steps) / sizeof(c->steps[0])) && c->steps[client->step].name)
	{
		send_step(c, client);
		return 0;
	}
	client->step = -1;
	return 1;
}

/*
 * Take answers until this time; each client whose read is answered begins another.  With 0,
 * until all reads are answered, and none begins another.  Returns how many were
 * answered; with their times in "latencies", if asked for.
 */
static int
take_answers(Contender *c, int clients, double until, Samples *latencies)
{
	int			reads = 0;

	for (;;)
	{
		struct epoll_event events[64];
		int			n;

		if (until > 0 ? now_us() >= until : reads == clients)
			return reads;
		n = epoll_wait(c->epoll, events, 64, LOST_AFTER * 1000);
		if (n == 0)
			die("%s: no answer within %d s\n", c->name, LOST_AFTER);
		for (int i = 0; i < n; i++)
		{
			Client	   *client = &c->clients[events[i].data.u32 / 2];

			if (!receive(c, client, events[i].data.u32 % 2))
				continue;
			reads++;
			if (latencies)
				add_more(latencies, now_us() - client->began);
			if (until > 0)
				begin_read(c, client);
		}
	}
}

static void
take_turn(Contender *c, int clients)
{
	double		start,
				cpu;
	int			before = c->latencies.n;
	int			reads;

	for (int i = 0; i < clients; i++)
		begin_read(c, &c->clients[i]);
	(void) take_answers(c, clients, now_us() + WARM_UP, NULL);
	find_primary_processes();
	cpu = primary_cpu();
	start = now_us();
	reads = take_answers(c, clients, start + TURN, &c->latencies);
	if (reads == 0)
		die("%s: no read in %.0f ms\n", c->name, TURN / 1000);
	add(&c->time, (now_us() - start) / reads);
	add(&c->latency, median(&c->latencies, before, reads));
	add(&c->cpu, (primary_cpu() - cpu) / reads * 1000);
	(void) take_answers(c, clients, 0, NULL);
}

/* An eventual read and a round trip together; turn by turn */
static Samples
one_round_trip_more(int turns)
{
	Samples		sum = samples_for(turns);

	for (int i = 0; i < turns; i++)
		add(&sum, contenders[EVENTUAL].latency.us[i] + contenders[ROUND_TRIP].latency.us[i]);
	return sum;
}

void
strong(const char *name, int clients, int turns, const char *primary_info, const char *standby_info)
{
	const char *const infos[] = {[STANDBY] = standby_info, [PRIMARY] = primary_info};
	int			n = clients == 1 ? CONTENDERS : ROUND_TRIP;
	Contender  *is = &contenders[STRONG];
	Contender  *eventual = &contenders[EVENTUAL];
	Contender  *by_hand = &contenders[BY_HAND];
	int			idle = strcmp(name, "idle") == 0;
	int			far = atof(name) > 0;
	char		what[128];

	for (int i = 0; i < n; i++)
	{
		Contender  *c = &contenders[i];

		c->clients = calloc(clients, sizeof(Client));
		c->epoll = epoll_create1(0);
		for (int k = 0; k < clients; k++)
			connect_client(c, &c->clients[k], k, infos);
		c->time = samples_for(turns);
		c->latency = samples_for(turns);
		c->cpu = samples_for(turns);
	}
	for (int t = 0; t < turns; t++)
	{
		/* each time another one begins */
		for (int i = 0; i < n; i++)
			take_turn(&contenders[(i + t) % n], clients);
		progress(name, t + 1, turns);
	}

	for (int i = 0; i < n; i++)
	{
		Contender  *c = &contenders[i];
		char		of[64];
		char		more[128];

		snprintf(of, sizeof(of), "%s,%d", name, clients);
		snprintf(more, sizeof(more), ",%.0f,%.1f,%.1f,%.0f", 1e6 / median(&c->time, 0, turns), median(&c->latency, 0, turns),
				 quantile(&c->latencies, 0, c->latencies.n, 0.99), median(&c->cpu, 0, turns));
		row(of, c->name, &c->time, more);
	}

	if (clients == 1 && idle)
		target("reads; idle; 1 client: latency of a strong one / of an eventual one", &is->latency, &eventual->latency, 2.5);
	if (clients == 1 && far)
	{
		Samples		sum = one_round_trip_more(turns);

		snprintf(what, sizeof(what), "reads; %s; 1 client: latency of a strong one / of an eventual one and a round trip", name);
		target(what, &is->latency, &sum, 1.05);
	}
	if (clients == 1 && (idle || far))
	{
		snprintf(what, sizeof(what), "reads; %s; 1 client: latency of a strong one / by hand", name);
		target(what, &is->latency, &by_hand->latency, 1.00);
	}
	if (clients == 32)
	{
		/* 0.80, 0.70 and 0.97 of the reads a second */
		snprintf(what, sizeof(what), "reads; %s; 32 clients: time of a strong one / of an eventual one", name);
		target(what, &is->time, &eventual->time, idle ? 1 / 0.80 : 1 / 0.70);
		snprintf(what, sizeof(what), "reads; %s; 32 clients: time of one within its bound / of an eventual one", name);
		target(what, &contenders[BOUNDED].time, &eventual->time, 1 / 0.97);
	}
	if (clients == 100 && idle)
		target("reads; idle; 100 clients: time of a strong one / by hand", &is->time, &by_hand->time, 1 / 3.0);
	if (clients == 200 && idle)
		target("reads; idle; 200 clients: CPU of the primary for strong ones / for its own", &is->cpu, &contenders[ON_PRIMARY].cpu, 0.05);
}
