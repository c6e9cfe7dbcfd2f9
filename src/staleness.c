/*-------------------------------------------------------------------------
 *
 * staleness.c
 *		How old this standby's data may be: what the primary has answered, and when
 *		it was asked.
 *
 * When the primary is asked at a time t and answers with the position p, everything that
 * was committed before t ends at or before p.  So a standby that has replayed p has it
 * all: what it shows is at most as old as the time since t.  That is true also while the
 * primary writes nothing, and reads no clock but this machine's.
 *
 * Kept are the last answers that have not been replayed yet, under the queue's lock;
 * and, in an atomic, when the newest was asked that has been (fresh_since).  If replay is
 * far behind, answers come faster than they are replayed: then only some are kept, at
 * distances that grow with how far it is behind.  The age is overstated by that, never
 * understated.
 *
 * Runs in sessions and in the link's worker, which brings the answers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xlogrecovery.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * This machine's time in ns.  Goes on while the machine is suspended, and does not jump.
 */
uint64
Now(void)
{
	struct timespec now;

#ifdef CLOCK_BOOTTIME
	clock_gettime(CLOCK_BOOTTIME, &now);
#else
	clock_gettime(CLOCK_MONOTONIC, &now);
#endif
	return (uint64) now.tv_sec * 1000 * MS + now.tv_nsec;
}

/*
 * Everything that was committed on the primary before this time has been replayed, ns;
 * 0: not known.  It may be known better, see LookAtAnswers().
 */
uint64
FreshSince(void)
{
	return pg_atomic_read_u64(&tracker->fresh_since);
}

/* When was the last question asked that has been answered?  0: none. */
uint64
AnsweredSince(void)
{
	return pg_atomic_read_u64(&tracker->answered_since);
}

/* The caller holds the lock exclusively. */
static void
DropAnswers(int n)
{
	tracker->n_answers -= n;
	memmove(tracker->answers, tracker->answers + n, tracker->n_answers * sizeof(LsnAnswer));
}

/*
 * See which answers have been replayed.  The caller holds the lock exclusively.
 */
static void
DropReplayed(void)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);
	int			n = 0;

	/*
	 * An older timeline's position can't be compared any more: it may be one that
	 * a failover has lost.  A later one's can't be yet.
	 */
	while (n < tracker->n_answers)
	{
		LsnAnswer  *answer = &tracker->answers[n];

		if (answer->timeline > timeline || (answer->timeline == timeline && answer->lsn > replayed))
			break;
		if (answer->timeline == timeline)
			pg_atomic_write_u64(&tracker->fresh_since, answer->asked_at);
		n++;
	}
	if (n > 0)
		DropAnswers(n);
}

/*
 * The same, for sessions.
 */
void
LookAtAnswers(void)
{
	LWLockAcquire(tracker->lock, LW_EXCLUSIVE);
	DropReplayed();
	ReleaseQueue();
}

/*
 * The link's worker: an answer has come.  The caller holds the lock exclusively.
 */
void
NoteAnswer(uint64 asked_at, const LsnTarget *target)
{
	LsnAnswer  *answers = tracker->answers;
	LsnAnswer	answer = {.asked_at = asked_at, .lsn = target->replay_to, .timeline = target->timeline};
	int			n;

	DropReplayed();
	n = tracker->n_answers;

	/*
	 * The one before stays for good if it is far enough from the one before that.
	 * Else the new one takes its place: who would be served by it is served by
	 * this, a little later.
	 */
	if (n >= 2)
	{
		uint64		distance = answers[n - 1].asked_at - answers[n - 2].asked_at;

		if (distance < (asked_at - answers[0].asked_at) / (MAX_ANSWERS / 2))
			n--;
	}
	if (n == MAX_ANSWERS)
	{
		/* every second one, but for the newest */
		for (int i = 0; 2 * i + 1 < n; i++)
			answers[i] = answers[2 * i + 1];
		n /= 2;
	}
	answers[n] = answer;
	tracker->n_answers = n + 1;
	pg_atomic_write_u64(&tracker->answered_since, asked_at);
	DropReplayed();
}

/*
 * Find the oldest answer to a question that was asked at "since" or later, and has not been
 * replayed yet.  Returns false if there is none.  The caller holds the lock.
 */
bool
FindAnswer(uint64 since, LsnTarget *target)
{
	for (int i = 0; i < tracker->n_answers; i++)
	{
		LsnAnswer  *answer = &tracker->answers[i];

		if (answer->asked_at >= since)
		{
			target->lsn = target->replay_to = answer->lsn;
			target->timeline = answer->timeline;
			return true;
		}
	}
	return false;
}

/*
 * Session: a commit that ends at the target, and that has not been replayed, can't have been
 * made earlier than this, ns: the primary was asked then, and what it answered lies
 * before it.  0: not known.
 */
uint64
CommittedAfter(const LsnTarget *target)
{
	uint64		after = FreshSince();

	LWLockAcquire(tracker->lock, LW_SHARED);
	for (int i = 0; i < tracker->n_answers; i++)
	{
		LsnAnswer  *answer = &tracker->answers[i];

		if (answer->timeline == target->timeline && answer->lsn < target->lsn)
			after = answer->asked_at;
	}
	ReleaseQueue();
	return after;
}
