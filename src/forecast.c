/*-------------------------------------------------------------------------
 *
 * forecast.c
 *		How fast WAL is replayed, and when a target will be reached.
 *
 * Runs in sessions.  The startup process tells how far it has come anyway, and does
 * nothing for this.  Sessions take samples: what they see of replay at a moment, at most
 * two a second, when they begin to sleep, a moment before their time is up, and when they
 * ask for a forecast.  If nobody does any of this there are no samples, and no forecast.
 *
 * From one sample to the next, replay has gone at full speed only if it was never short
 * of WAL.  That is so if the WAL receiver had more at the first than replay has done at the
 * second.  Other pairs tell how fast the primary writes, not how fast this server replays,
 * and count for nothing: nor do those in which replay was paused or delayed on purpose.  So
 * while the primary is idle, and where WAL comes from an archive, there is no rate rather than
 * a wrong one.
 *
 * With lsn_tracker.fail_fast a wait ends as soon as it can't succeed in time (WhyHopeless()).
 * That must not be said of one that would have.  So it takes what does not change by itself
 * (replay is paused, and there is nobody to receive WAL from) as it is; and of what does, the
 * best that has been seen: the samples also tell how fast replay was at its fastest since the
 * server was started, and answers of the primary how old a commit can be.
 *
 * The samples are under a lock of their own.  Who takes one does not wait for that: there
 * is one then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "replication/walreceiver.h"
#include "storage/spin.h"

#include "compat.h"
#include "lsn_tracker.h"

/* How far apart samples are that are kept */
#define SAMPLE_DISTANCE (500 * MS)
/* And how far at least, for the rate between them to mean anything */
#define MIN_DISTANCE (50 * MS)
/* For how long they tell how fast replay is */
#define SAMPLES_LAST (60000 * MS)

/*
 * To judge by how fast replay has been at its fastest: between samples that were not further
 * apart, since longer times level out what is faster; after so much of it has been seen; how
 * many times as fast it may become; and how many segments may be empty but for their
 * beginning (pg_switch_wal()), and take no time.
 */
#define FASTEST_DISTANCE (2000 * MS)
#define FASTEST_MEASURED (10000 * MS)
#define FASTER 2
#define EMPTY_SEGMENTS 4

/* How far apart samples are at most to tell what has been in between, without a receiver */
#define SAMPLES_CONNECT (10000 * MS)

/* How far the two servers' clocks are apart, and a commit is late to be visible, at most */
#define CLOCK_TOLERANCE (10000 * MS)

/*
 * See how replay stands.
 */
static LsnSample
LookAtReplay(void)
{
	LsnSample	sample = {0};

	/* in this order: at the time of the sample, that much had been received at least */
	SpinLockAcquire(&WalRcv->mutex);
	sample.received = WalRcv->flushedUpto;
	sample.no_receiver = WalRcv->walRcvState == WALRCV_STOPPED;
	SpinLockRelease(&WalRcv->mutex);
	sample.replayed = GetXLogReplayRecPtr(&sample.timeline);
	/* in this order: what ends in between counts as being applied still */
	sample.applying = GetCurrentReplayRecPtr(NULL) > sample.replayed;
	sample.at = Now();
	sample.unhindered = recovery_min_apply_delay <= 0 && GetRecoveryPauseState() == RECOVERY_NOT_PAUSED;
	return sample;
}

/*
 * How many bytes have been replayed from one sample to a later one, if replay has gone at
 * full speed in between; 0 if it has not, or that is not known.
 */
static uint64
ReplayedBetween(const LsnSample *earlier, const LsnSample *later)
{
	if (!earlier->unhindered || !later->unhindered || earlier->timeline != later->timeline ||
		earlier->received <= later->replayed)
		return 0;
	return later->replayed - earlier->replayed;
}

/*
 * Keep a sample, unless there is one that is hardly older.  The caller holds the lock.
 */
static void
KeepSample(const LsnSample *sample)
{
	LsnForecast *shared = &tracker->forecast;

	if (shared->n > 0)
	{
		const LsnSample *last = &shared->samples[shared->n - 1];
		uint64		ns = sample->at - last->at;
		uint64		replayed = ReplayedBetween(last, sample);

		if (ns < SAMPLE_DISTANCE)
			return;
		if (replayed > 0 && ns <= FASTEST_DISTANCE)
		{
			shared->fastest = Max(shared->fastest, replayed / (ns / 1e9));
			shared->measured += ns;
		}
	}
	if (shared->n == MAX_SAMPLES)
		memmove(shared->samples, shared->samples + 1, --shared->n * sizeof(LsnSample));
	shared->samples[shared->n++] = *sample;
	pg_atomic_write_u64(&shared->sampled_at, sample->at);
}

/*
 * Session on a standby: it is a good time to take a sample.
 */
void
TakeSample(void)
{
	LsnSample	sample;

	/* in a crowd, all but one see that and go on */
	if (pg_atomic_read_u64(&tracker->forecast.sampled_at) + SAMPLE_DISTANCE > Now())
		return;
	if (LWLockConditionalAcquire(tracker->forecast.lock, LW_EXCLUSIVE))
	{
		sample = LookAtReplay();
		KeepSample(&sample);
		LWLockRelease(tracker->forecast.lock);
	}
}

/*
 * Session on a standby: how fast WAL has been replayed lately, while there was some to
 * replay, bytes per second; 0: not known.  Also tells how replay stands, and keeps that as a
 * sample.
 */
double
ReplayRate(LsnSample *now)
{
	LsnForecast *shared = &tracker->forecast;
	uint64		bytes = 0;
	uint64		ns = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	*now = LookAtReplay();
	for (int i = 0; i < shared->n; i++)
	{
		const LsnSample *earlier = &shared->samples[i];
		const LsnSample *later = i + 1 < shared->n ? &shared->samples[i + 1] : now;
		uint64		replayed = ReplayedBetween(earlier, later);

		if (replayed == 0 || later->at < earlier->at + MIN_DISTANCE || later->at + SAMPLES_LAST < now->at)
			continue;
		bytes += replayed;
		ns += later->at - earlier->at;
	}
	KeepSample(now);
	LWLockRelease(shared->lock);
	return ns == 0 ? 0 : bytes / (ns / 1e9);
}

/*
 * How many bytes are to be replayed until a position is reached
 */
uint64
BytesToGo(const LsnTarget *target, const LsnSample *now)
{
	return target->replay_to > now->replayed ? target->replay_to - now->replayed : 0;
}

/*
 * In how many seconds a position will have been reached, at that rate; -1: that can't
 * be told.  That it is of this server's history is the caller's business.
 *
 * If less than half of what is missing is here, it depends on the primary and the
 * network.
 */
double
SecondsToGo(const LsnTarget *target, const LsnSample *now, double rate)
{
	uint64		to_go = BytesToGo(target, now);

	if (to_go == 0)
		return 0;
	if (rate == 0 || !now->unhindered ||
		now->received < now->replayed || now->received - now->replayed < to_go / 2)
		return -1;
	return to_go / rate;
}

/*
 * For how long has there been no WAL receiver, and nothing been replayed, as far as the
 * samples tell?  The caller holds the lock.
 */
static uint64
StandsWithoutReceiver(const LsnSample *now)
{
	const LsnForecast *shared = &tracker->forecast;
	uint64		since = now->at;

	if (!now->no_receiver)
		return 0;
	for (int i = shared->n - 1; i >= 0; i--)
	{
		const LsnSample *sample = &shared->samples[i];

		if (!sample->no_receiver || sample->replayed != now->replayed || sample->at + SAMPLES_CONNECT < since)
			break;
		since = sample->at;
	}
	return now->at - since;
}

/*
 * Has the WAL receiver been away for longer than the server needs to try again?  It tries
 * only when it has nothing left to replay: not while it applies a record, or waits in there
 * for a session's lock or snapshot, or for the time of a commit.
 */
static bool
NobodySendsWal(const LsnTarget *target, const LsnSample *now)
{
	bool		configured = PrimaryConnInfo && PrimaryConnInfo[0] != '\0';
	uint64		patience = 1000 * MS + (configured ? wal_retrieve_retry_interval * MS : 0);

	return now->unhindered && !now->applying &&
		target->replay_to > Max(now->received, now->replayed) &&
		(recoveryRestoreCommand == NULL || recoveryRestoreCommand[0] == '\0') &&
		StandsWithoutReceiver(now) >= patience;
}

/*
 * Will a commit that ends at the target be replayed after "left" ms only, because of
 * recovery_min_apply_delay?  That counts from the commit, so it is to be known that the
 * commit is not older.  Who asks has the primary asked, for those who come later.
 */
static bool
IsDelayedBeyond(const LsnTarget *target, double left)
{
	uint64		after;

	/* other positions need not be those of commits, which alone are delayed */
	if (recovery_min_apply_delay <= 0 || target->timeline == 0 || target->since != 0 || track_reads)
		return false;
	after = CommittedAfter(target);
	RefreshAnswer();
	return after != 0 &&
		after + recovery_min_apply_delay * MS > Now() + CLOCK_TOLERANCE + (uint64) (left * MS);
}

/*
 * Is a target, with the fastest replay that has been seen, further away than "left" ms?  The
 * caller holds the lock.
 */
static bool
IsTooFar(const LsnTarget *target, const LsnSample *now, double left)
{
	const LsnForecast *shared = &tracker->forecast;

	/* what has been measured over half a second tells nothing about shorter times */
	return shared->measured >= FASTEST_MEASURED &&
		BytesToGo(target, now) > FASTER * shared->fastest * Max(left, 1000) / 1000 +
			EMPTY_SEGMENTS * (double) wal_segment_size;
}

/*
 * Session on a standby: can a target that has not been reached be replayed in the next
 * "left" ms?  If not, why, a sentence for the user; else NULL.  "comparable": it is a position of
 * this server's history.
 */
const char *
WhyHopeless(const LsnTarget *target, bool comparable, double left)
{
	LsnForecast *shared = &tracker->forecast;
	LsnSample	now;
	bool		delayed = comparable && IsDelayedBeyond(target, left);
	const char *why = NULL;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	now = LookAtReplay();
	KeepSample(&now);
	if (GetRecoveryPauseState() == RECOVERY_PAUSED)
		why = "WAL replay is paused: resume it with pg_wal_replay_resume().";
	else if (!comparable)
		why = NULL;
	else if (NobodySendsWal(target, &now))
		why = "No WAL receiver is running: check primary_conninfo, the primary, and the server log.";
	else if (delayed)
		why = "Replay is delayed on purpose by recovery_min_apply_delay, for longer than the timeout.";
	else if (IsTooFar(target, &now, left))
		why = "Replay is too far behind: even as fast as it has ever been it would not come so far in time.";
	LWLockRelease(shared->lock);
	return why;
}
