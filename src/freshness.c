/*-------------------------------------------------------------------------
 *
 * freshness.c
 *		What a session is owed: lsn_tracker.token, and lsn_tracker.max_staleness.
 *
 * Runs in a client's session; no lock.
 *
 * The variable shows the newest position that the session knows of: that it has
 * set, has written itself (commit_position.c) or, with lsn_tracker.track_reads, has
 * read.  Setting it only records; the client's next statement waits for it (gate.c)
 * and raises what there is to raise.  So anything may set it: SET, set_config() with a
 * bound parameter, a role's configuration, a connection option, and a pooler that
 * carries it from one server to another and must not see its SET fail.
 *
 * The value is kept here, not in the variable.  It only moves up: what has been
 * written or read remains so when a transaction is rolled back, at the end of which
 * the server gives the variable the value from before.  It is forgotten when the
 * variable is set to '', and by RESET and DISCARD ALL: then the next client of a
 * pooled connection starts with nothing.
 *
 * Several tokens that are set before a statement are all owed to it, which comes to the
 * newest, and to the last if that can be lost all the same.  But one that has been waited for
 * in vain gives way to what has been set later, or is set next: it may be lost, and that SET
 * may be another client's, whom a pooler has given the connection.  To SET LOCAL it gives way
 * until the transaction ends.  What the session has written, read or reached itself is kept in
 * any case.
 *
 * What SET LOCAL has set, set_config() with is_local, and a function's SET clause, is owed until
 * the transaction ends, and shown until then.  It does not stand in for the session's, nor that
 * for it, if the older of the two can be lost all the same: then both are waited for.  If it
 * has been waited for, the session has read up to there, and knows it like any other position.
 * If not, because it is lost, say, nothing of it is left for whoever is given a pooled
 * connection next.
 *
 * How one tells an explicit setting from the server's restoring an old value: both
 * call the assign hook, only the former calls the check hook before.  That numbers
 * the values which it lets pass, and the assign hook heeds a number once.  A
 * RESET calls no check hook, and DISCARD ALL no hook at all if the variable was never
 * SET, so the commands are watched (gate.c).
 *
 * What a standby's statement has read is not beyond where replay is when it has its snapshot.
 * On a primary it is not that simple: SELECT FOR UPDATE, a conflict of an INSERT, or an
 * error tell of rows that are newer than the snapshot, and who commits is a moment late
 * in saying so (newest_commit.c).  So there it is only noted that something has been
 * read, and found out what that can be when the token is shown: the client is told it
 * behind the last of its statements.
 *
 * The variable is reported to the client (GUC_REPORT): the server sends it along with
 * ReadyForQuery if it was assigned to and what it shows has changed.  So when
 * the value has moved by itself the variable is assigned to (ReportToken()).
 *
 * A pooler (PgBouncer) sets it where what a client has differs from what the server showed
 * last, and takes for its client's whatever the server shows from then on, behind that SET
 * already.  Three things follow.  Of what is owed the last is shown: a newer one that has not
 * been waited for may be the client's before, and lost.  Who has set an older token than the
 * session knows, and reads, must be told what is shown although that has not changed: he has
 * read it, and does not know.  And what has been set is shown until it has been waited for,
 * even if something newer is known, unless that is of the same timeline, and so tells that the
 * other is there, if no crash has lost it: else a client who has the newer would not be set
 * apart, and wait for what is another's.
 *
 * The bound, lsn_tracker.max_staleness, is owed to each statement on a standby: it sees
 * everything that was committed on the primary so many ms before it began.  With 0, what
 * was committed until then.  That is a question to the primary (primary_link.c), and its
 * answer to be replayed.  A bound may have been met already by an answer to an earlier question
 * (staleness.c).  A REPEATABLE READ transaction is as fresh as its beginning.  A primary owes
 * no bound.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "tcop/pquery.h"
#include "utils/guc.h"

#include "compat.h"
#include "lsn_tracker.h"

#define TOKEN "lsn_tracker.token"

/* Is there something that the next statement has to wait for? */
bool		something_owed = false;

/* Is it a token?  If so, the newer one of what is set and what SET LOCAL has set; lsn 0: none */
bool		token_owed = false;
static LsnTarget owed;
static LsnTarget owed_locally;

/* Has SET LOCAL set something in this transaction, and what has given way to it?  lsn 0: none */
bool		set_locally = false;
static LsnTarget given_way;

/*
 * What of "owed" was set last, which is what is shown, and has that been waited for in vain?
 * lsn 0: nothing is owed, or a commit has it in its history.
 */
static LsnTarget set_last;
static bool set_last_in_vain = false;

/* Is what is shown to be reported behind the next read, even if it has not changed? */
static bool report_anyway = false;

/* A REPEATABLE READ transaction that had what the bound owes it when it began */
static LocalTransactionId bound_met_for = InvalidLocalTransactionId;
static int	bound_met;

/* The newest position that has been written, read or reached; lsn 0: none */
static LsnTarget newest;

/* Has something been read on this primary that it may not cover yet? */
static bool read_on_primary = false;

/* What the check hook hands to the assign hook */
typedef struct TokenSetting
{
	uint64		number;
	LsnTarget	target;			/* lsn 0: none */
} TokenSetting;

static uint64 last_number = 0;
static uint64 heeded = 0;
static bool reporting = false;

/*
 * Is a newer than b?  Of two timelines that with the larger number has begun later.
 * Where one is not known, positions are all there is.
 */
static bool
IsNewer(const LsnTarget *a, const LsnTarget *b)
{
	if (a->timeline != b->timeline && a->timeline != 0 && b->timeline != 0)
		return a->timeline > b->timeline;
	return a->lsn > b->lsn;
}

/*
 * The variable's check hook: is it a token?  Raises nothing, but the server does
 * for the caller if not.
 */
bool
CheckToken(char **newval, void **extra, GucSource source)
{
	TokenSetting *setting;
	LsnTarget	target = {0};

	if (reporting)
		return true;

	if (**newval != '\0' && !IsToken(*newval, &target))
	{
		GUC_check_errcode(ERRCODE_INVALID_TEXT_REPRESENTATION);
		GUC_check_errdetail("It is neither a position, like \"0/301DC08\", nor a token, like \"0/301DC08@1\".");
		return false;
	}

	/* the server frees it with free() or, from 16 on, guc_free() */
	setting = AllocateGucExtra(sizeof(TokenSetting));
	if (setting == NULL)
		return false;
	setting->number = ++last_number;
	setting->target = target;
	*extra = setting;
	return true;
}

/*
 * What becomes of one of the two when this is set as well.
 */
static void
Owe(LsnTarget *to, const LsnTarget *target)
{
	if (XLogRecPtrIsInvalid(to->lsn) || IsNewer(target, to))
		*to = *target;
	something_owed = token_owed = true;
}

/* Is that still owed which was set last, and no newer one? */
static bool
OwesSetLast(void)
{
	return owed.lsn == set_last.lsn && owed.timeline == set_last.timeline;
}

/* The session's is not owed any more. */
static void
DropOwed(void)
{
	owed = set_last = (LsnTarget){0};
	set_last_in_vain = false;
}

/* One of the two is not owed any more. */
static void
NoteWhatIsLeft(void)
{
	token_owed = !XLogRecPtrIsInvalid(owed.lsn) || !XLogRecPtrIsInvalid(owed_locally.lsn);
	something_owed = token_owed || max_staleness >= 0;
}

/* The server's record of the variable.  It is not there yet when that gets its first value. */
static struct config_generic *
Variable(void)
{
	static struct config_generic *variable = NULL;

	if (variable == NULL)
		variable = FindVariable(TOKEN);
	return variable;
}

/*
 * Is the variable being set until the end of the transaction, or of a function that has it in its
 * SET clause?  The server has noted that in front of the assign hook's call.
 */
static bool
IsBeingSetLocally(void)
{
	return IsTransactionState() && Variable()->stack && Variable()->stack->state != GUC_SET;
}

/* The variable's assign hook */
void
AssignToken(const char *newval, void *extra)
{
	TokenSetting *setting = extra;
	bool		locally;

	if (setting == NULL || setting->number <= heeded)
		return;
	heeded = setting->number;
	locally = IsBeingSetLocally();

	if (XLogRecPtrIsInvalid(setting->target.lsn))
	{
		if (locally)
			(void) ForgetLocalToken();
		else
			ForgetToken();
		return;
	}

	/* it is the client's still when the transaction has ended, but not behind another SET */
	if (!locally)
		given_way = (LsnTarget){0};
	else if (set_last_in_vain)
		given_way = owed;
	if (set_last_in_vain)
		DropOwed();

	/*
	 * Owed even if something newer is known: that can be of a later timeline,
	 * which does not contain this.
	 */
	if (locally)
	{
		set_locally = true;
		Owe(&owed_locally, &setting->target);
	}
	else
	{
		set_last = setting->target;
		Owe(&owed, &set_last);
		report_anyway = true;
	}
	WatchFastpath();
}

/* The newer one of two, of which lsn 0 is none */
static const LsnTarget *
NewerOf(const LsnTarget *a, const LsnTarget *b)
{
	return XLogRecPtrIsInvalid(b->lsn) || (!XLogRecPtrIsInvalid(a->lsn) && IsNewer(a, b)) ? a : b;
}

/* Can this be lost although that, which is newer, or none, is there? */
static bool
IsApart(const LsnTarget *target, const LsnTarget *newer)
{
	XLogRecPtr	at;

	if (target->timeline == 0 || XLogRecPtrIsInvalid(newer->lsn))
		return false;
	return target->timeline != newer->timeline || IsLostInCrash(target, &at);
}

static bool
IsOwedApart(void)
{
	return IsApart(&set_last, &newest);
}

static const char *
NewestText(void)
{
	const LsnTarget *target = NewerOf(&set_last, &owed_locally);

	if (!IsOwedApart())
		target = NewerOf(&newest, target);
	return XLogRecPtrIsInvalid(target->lsn) ? "" : TargetToText(target);
}

/*
 * What SHOW and the report to the client say.
 */
const char *
ShowToken(void)
{
	if (read_on_primary)
	{
		LsnTarget	target = ReadUntilNow();

		NoteKnown(&target);
		/* a statement that shows the token may go on to read */
		if (ActivePortal == NULL)
			read_on_primary = false;
	}
	return NewestText();
}

/*
 * Have the variable sent to the client, if what it shows has changed.  The value
 * assigned is what parallel workers are given to show.  Raises nothing but for lack
 * of memory.
 */
void
ReportToken(void)
{
	reporting = true;
	PG_TRY();
	{
		(void) set_config_option(TOKEN, NewestText(), PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SET, true, LOG, false);
	}
	PG_FINALLY();
	{
		/* or the session would not heed what is set from now on */
		reporting = false;
	}
	PG_END_TRY();
}

/*
 * The session has written this, or read up to there.
 */
void
NoteKnown(const LsnTarget *target)
{
	if (XLogRecPtrIsInvalid(newest.lsn) || IsNewer(target, &newest))
		newest = *target;
}

/*
 * With lsn_tracker.track_reads: a statement has taken its snapshot, or is about to read
 * more.  What a standby's snapshot shows is not beyond the record that is being replayed: a
 * commit is visible before GetXLogReplayRecPtr() says so.  For a primary see the top of
 * this file.
 */
void
NoteRead(void)
{
	if (RecoveryInProgress())
	{
		LsnTarget	target;
		TimeLineID	timeline;

		target = LsnToTarget(GetCurrentReplayRecPtr(&timeline));
		target.timeline = timeline;
		NoteKnown(&target);
	}
	else if (read_on_primary && !report_anyway)
		return;
	else
		read_on_primary = true;

	/* the server sets nothing then; the statement around this one has done it */
	if (IsInParallelMode())
		return;
	if (report_anyway)
		ForgetReported(Variable());
	report_anyway = false;
	ReportToken();
}

/*
 * RESET, DISCARD ALL, or set to ''.
 */
void
ForgetToken(void)
{
	newest = (LsnTarget){0};
	read_on_primary = false;
	DropOwed();
	owed_locally = given_way = (LsnTarget){0};
	NoteWhatIsLeft();
	ForgetLastCommit();
}

/*
 * The transaction ends, or SET LOCAL sets ''.  Returns whether there was one.  Raises nothing.
 */
bool
ForgetLocalToken(void)
{
	set_locally = false;
	if (XLogRecPtrIsInvalid(owed_locally.lsn) && XLogRecPtrIsInvalid(given_way.lsn))
		return false;
	owed_locally = (LsnTarget){0};
	if (!XLogRecPtrIsInvalid(given_way.lsn))
	{
		owed = set_last = given_way;
		set_last_in_vain = true;
		given_way = (LsnTarget){0};
	}
	NoteWhatIsLeft();
	return true;
}

/*
 * The token that the next statement has to wait for; only if token_owed.
 */
const LsnTarget *
OwedTarget(void)
{
	return NewerOf(&owed, &owed_locally);
}

/*
 * It has been waited for, and was not reached.  Returns whether it has given way to what was set
 * behind it.
 */
bool
OwedInVain(void)
{
	bool		gives_way;

	if (OwedTarget() != &owed)
		return false;
	gives_way = !OwesSetLast();
	if (gives_way)
	{
		owed = set_last;
		NoteWhatIsLeft();
	}
	else
		set_last_in_vain = true;
	/* or a pooler takes the other for what its client has set */
	ReportToken();
	return gives_way;
}

/*
 * It has been waited for.  Another one may be owed still: the session's or the transaction's, or
 * what was set behind it.
 */
void
OwedIsMet(void)
{
	bool		hidden = IsOwedApart() || !OwesSetLast();
	bool		local = OwedTarget() == &owed_locally;
	LsnTarget	met = *OwedTarget();

	NoteKnown(&met);
	if (!local || !IsApart(&owed, &met))
	{
		if (!OwesSetLast() && IsApart(&set_last, &met))
			owed = set_last;
		else
			DropOwed();
	}
	if (local || !IsApart(&owed_locally, &met))
		owed_locally = (LsnTarget){0};
	NoteWhatIsLeft();
	/* something newer may be shown */
	if (hidden)
		ReportToken();
}

/*
 * Primary: the session is about to commit, not having waited.  What the commit has in its
 * history is not owed any more; the other, which is lost, remains shown.  Raises the errors
 * of ReadHistory().
 */
void
JudgeOwed(void)
{
	TimeLineID	current;
	XLogRecPtr	at;

	if (set_last.timeline == 0)
		return;
	current = GetWALInsertionTimeLine();
	if (set_last.timeline >= current || IsLost(&set_last, current) || IsLostInCrash(&set_last, &at))
		return;
	if (OwesSetLast())
		OwedIsMet();
	else
		set_last = (LsnTarget){0};
}

/* The assign hook of lsn_tracker.max_staleness */
void
AssignMaxStaleness(int newval, void *extra)
{
	something_owed = token_owed || newval >= 0;
	if (something_owed)
		WatchFastpath();
}

/* The assign hook of lsn_tracker.track_reads */
void
AssignTrackReads(bool newval, void *extra)
{
	if (newval)
		WatchFastpath();
}

/*
 * Standby: is there a bound, and has it not been met once and for all?
 */
bool
BoundOwed(void)
{
	return max_staleness >= 0 &&
		!(IsolationUsesXactSnapshot() && bound_met_for == MyLocalTransactionId && bound_met <= max_staleness);
}

/*
 * Standby, a statement has taken its snapshot: had the bound been met before?  Then there is
 * nothing to wait for, nor another snapshot to take.  It has if that was found in front of
 * an earlier statement; what is found now may have come since.
 *
 * When half of the bound has passed, asks the primary again for those who come later, and waits for
 * nothing.
 */
bool
WithinBoundBefore(void)
{
	static uint64 seen = 0;
	uint64		bound = max_staleness * MS;
	uint64		now;
	bool		within;

	if (max_staleness == 0 || IsolationUsesXactSnapshot())
		return false;
	now = Now();
	within = seen != 0 && seen + bound >= now;
	if (AnsweredSince() + bound / 2 < now)
		RefreshAnswer();
	if (seen + bound / 2 < now)
		LookAtAnswers();
	seen = FreshSince();
	return within;
}

/*
 * What a statement that begins now has to wait for by the bound.
 */
LsnTarget
BoundTarget(void)
{
	uint64		now = Now();
	uint64		bound = max_staleness * MS;

	/* 0 would be no question */
	return Question(now > bound ? now - bound : 1);
}

/*
 * Is there nothing to wait for, if a snapshot is taken from now on?
 */
bool
WithinBound(const LsnTarget *question)
{
	if (max_staleness == 0)
		return false;
	if (FreshSince() < question->since)
		LookAtAnswers();
	return FreshSince() >= question->since;
}

/*
 * It has been waited for, and the snapshot that is taken next is as fresh.
 */
void
BoundIsMet(void)
{
	bound_met_for = MyLocalTransactionId;
	bound_met = max_staleness;
}
