/*-------------------------------------------------------------------------
 *
 * freshness.c
 *		What a session is owed: lsn_tracker.token.
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
 * How one tells an explicit setting from the server's restoring an old value: both
 * call the assign hook, only the former calls the check hook before.  That numbers
 * the values which it lets pass, and the assign hook heeds a number once.  A
 * RESET calls no check hook, and DISCARD ALL no hook at all if the variable was never
 * SET, so the commands are watched (gate.c).
 *
 * The variable is reported to the client (GUC_REPORT): the server sends it along with
 * ReadyForQuery if it was assigned to and what it shows has changed.  So when
 * the value has moved by itself the variable is assigned to (ReportToken()).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "utils/guc.h"

#include "compat.h"
#include "lsn_tracker.h"

#define TOKEN "lsn_tracker.token"

/* Is there something that the next statement has to wait for? */
bool		something_owed = false;

/* If so, for this. */
static LsnTarget owed;

/* The newest position known; lsn 0: none */
static LsnTarget newest;

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

/* The variable's assign hook */
void
AssignToken(const char *newval, void *extra)
{
	TokenSetting *setting = extra;

	if (setting == NULL || setting->number <= heeded)
		return;
	heeded = setting->number;

	if (XLogRecPtrIsInvalid(setting->target.lsn))
	{
		ForgetToken();
		return;
	}

	/*
	 * Owed even if something newer is known: that can be of a later timeline,
	 * which does not contain this.
	 */
	if (!something_owed || IsNewer(&setting->target, &owed))
		owed = setting->target;
	something_owed = true;
	NoteKnown(&setting->target);
}

/*
 * What SHOW and the report to the client say.
 */
const char *
ShowToken(void)
{
	return XLogRecPtrIsInvalid(newest.lsn) ? "" : TargetToText(&newest);
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
		(void) set_config_option(TOKEN, ShowToken(), PGC_USERSET, PGC_S_SESSION,
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
 * The session has set or written this, or read up to there.
 */
void
NoteKnown(const LsnTarget *target)
{
	if (XLogRecPtrIsInvalid(newest.lsn) || IsNewer(target, &newest))
		newest = *target;
}

/*
 * Standby, with lsn_tracker.track_reads: a statement has taken its snapshot.  What
 * that shows is not beyond the record that is being replayed: a commit is visible
 * before GetXLogReplayRecPtr() says so.
 */
void
NoteRead(void)
{
	LsnTarget	target;
	TimeLineID	timeline;

	target = LsnToTarget(GetCurrentReplayRecPtr(&timeline));
	target.timeline = timeline;
	NoteKnown(&target);

	/* the server sets nothing then; the statement around this one has done it */
	if (!IsInParallelMode())
		ReportToken();
}

/*
 * RESET, DISCARD ALL, or set to ''.
 */
void
ForgetToken(void)
{
	newest = (LsnTarget){0};
	something_owed = false;
	ForgetLastCommit();
}

/*
 * What the next statement has to wait for; only if something_owed.
 */
const LsnTarget *
OwedTarget(void)
{
	return &owed;
}

/* It has been waited for. */
void
OwedIsMet(void)
{
	something_owed = false;
}
