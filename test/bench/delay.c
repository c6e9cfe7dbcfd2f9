/*-------------------------------------------------------------------------
 *
 * delay.c
 *		A network with a delay, between clients and a server.
 *
 *		delay SOCKET SERVERS_SOCKET MICROSECONDS
 *
 * Passes on what comes in on each connection to SOCKET, either way, so many
 * microseconds after it came; what follows is not held up by it.  One process
 * for each connection.  Says "ready" once it listens.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../client.h"

/* Chunks on their way in one direction; the sender waits if there are more. */
#define CHUNKS 64

typedef struct
{
	int			from;
	int			to;
	unsigned	first;			/* the oldest chunk */
	unsigned	next;			/* where the next one goes */
	struct
	{
		double		due;
		ssize_t		size;
		char		bytes[16384];
	}			chunk[CHUNKS];
} Direction;

static int
unix_socket(const char *path, int (*open) (int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			s = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (s < 0 || open(s, (struct sockaddr *) &address, sizeof(address)) != 0)
		die("%s: %s\n", path, strerror(errno));
	return s;
}

static void
deliver(Direction *d)
{
	while (d->first != d->next && d->chunk[d->first % CHUNKS].due <= now_us())
	{
		const char *bytes = d->chunk[d->first % CHUNKS].bytes;
		ssize_t		left = d->chunk[d->first % CHUNKS].size;

		while (left > 0)
		{
			ssize_t		sent = write(d->to, bytes, left);

			if (sent < 0)
				exit(0);		/* the other side has gone */
			bytes += sent;
			left -= sent;
		}
		d->first++;
	}
}

static void
relay(int client, int server, double delay)
{
	static Direction directions[2];

	directions[0] = (Direction){.from = client, .to = server};
	directions[1] = (Direction){.from = server, .to = client};
	for (;;)
	{
		struct pollfd fds[2];
		double		due = 0;
		struct timespec timeout;

		for (int i = 0; i < 2; i++)
		{
			Direction  *d = &directions[i];

			deliver(d);
			fds[i] = (struct pollfd){.fd = d->next - d->first < CHUNKS ? d->from : -1, .events = POLLIN};
			if (d->first != d->next && (due == 0 || d->chunk[d->first % CHUNKS].due < due))
				due = d->chunk[d->first % CHUNKS].due;
		}
		if (due != 0)
		{
			double		left = due - now_us();

			if (left < 0)
				left = 0;
			timeout = (struct timespec){.tv_sec = left / 1e6, .tv_nsec = left * 1e3 - (long) (left / 1e6) * 1e9};
		}
		if (ppoll(fds, 2, due != 0 ? &timeout : NULL, NULL) < 0 && errno != EINTR)
			die("ppoll: %s\n", strerror(errno));
		for (int i = 0; i < 2; i++)
		{
			Direction  *d = &directions[i];

			if (fds[i].fd >= 0 && fds[i].revents != 0)
			{
				d->chunk[d->next % CHUNKS].size = read(d->from, d->chunk[d->next % CHUNKS].bytes, sizeof(d->chunk[0].bytes));
				if (d->chunk[d->next % CHUNKS].size <= 0)
					exit(0);
				d->chunk[d->next++ % CHUNKS].due = now_us() + delay;
			}
		}
	}
}

int
main(int argc, char **argv)
{
	int			listening;

	if (argc != 4)
		die("usage: delay SOCKET SERVERS_SOCKET MICROSECONDS\n");
	signal(SIGCHLD, SIG_IGN);
	/* the kernel may round timers up by 50 us otherwise */
	prctl(PR_SET_TIMERSLACK, 1);
	listening = unix_socket(argv[1], bind);
	if (chmod(argv[1], 0777) != 0 || listen(listening, 100) != 0)
		die("%s: %s\n", argv[1], strerror(errno));
	puts("ready");
	fflush(stdout);
	for (;;)
	{
		int			client = accept(listening, NULL, NULL);

		if (client < 0)
			die("accept: %s\n", strerror(errno));
		if (fork() == 0)
		{
			prctl(PR_SET_PDEATHSIG, SIGTERM);
			prctl(PR_SET_TIMERSLACK, 1);
			relay(client, unix_socket(argv[2], connect), atof(argv[3]));
		}
		close(client);
	}
}
