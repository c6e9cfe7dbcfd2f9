/*-------------------------------------------------------------------------
 *
 * token.c
 *		Reading, writing and judging tokens: positions that know their timeline.
 *
 * Runs in the waiting session, without any lock.
 *
 * A token is LSN@timeline, where the timeline is the one that the primary
 * wrote on.  A failover starts a new timeline, at the point up to which the
 * promoted standby had replayed the old one.  What the old primary wrote
 * behind that point is lost, although the new primary's WAL soon has other
 * records at the same LSN: a plain LSN cannot tell the two from one another.
 *
 * A crash is no failover: the timeline stays.  But what the primary had not
 * flushed, commits with synchronous_commit = off, is lost, and their positions are
 * written over.  So the token of such a commit also tells up to where WAL was flushed
 * when it was made: LSN@timeline~flushed.  When the primary is started again it
 * first writes a record that tells so, at or behind that position and before the
 * lost one, and whoever replays it remembers where (NoteRestart).  All that it wrote
 * since lies behind that record, and so does what it has flushed by then.  Remembered are a
 * few restarts, by a server that follows each record (not in poll mode), for
 * as long as it runs: a token that survives more than that is compared as a
 * position.
 *
 * The history of a server's timeline (its ancestors, and where each was left)
 * stands in a file in pg_wal that the server writes when it is promoted and
 * fetches before it follows a promotion.  A timeline's history never changes,
 * so each session reads the file once for each timeline that it meets, and
 * needs nothing shared for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "nodes/pg_list.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * The target that a plain LSN stands for.
 *
 * A record that ends exactly at a page boundary is given by the insert
 * position (pg_current_wal_insert_lsn()) as ending behind the next page's
 * header, while replay says that it ends at the boundary.  No record can end
 * exactly behind a header, so such a target can only mean the boundary.
 */
LsnTarget
LsnToTarget(XLogRecPtr lsn)
{
	LsnTarget	target = {0};

	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		lsn -= SizeOfXLogLongPHD;
	else if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		lsn -= SizeOfXLogShortPHD;

	target.lsn = target.replay_to = lsn;
	return target;
}

/*
 * The target that a transaction's id stands for.  Raises 22023 if no
 * transaction can have it.
 */
LsnTarget
XactToTarget(FullTransactionId xid)
{
	LsnTarget	target = {0};

	if (!FullTransactionIdIsValid(xid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no transaction has the id " UINT64_FORMAT,
						U64FromFullTransactionId(xid)),
				 errhint("Give the answer of pg_current_xact_id(), asked for in the writing transaction.")));

	target.xid = xid;
	return target;
}

/*
 * Startup process: the primary's WAL begins anew here, after a crash or a shutdown.
 */
void
NoteRestart(XLogRecPtr lsn)
{
	uint32		n = pg_atomic_read_u32(&tracker->n_restarts);

	pg_atomic_write_u64(&tracker->restarts[n % MAX_RESTARTS], lsn);
	/* whoever sees it counted must see it (model: told, SAID_BEFORE_WRITTEN) */
	pg_write_barrier();
	pg_atomic_write_u32(&tracker->n_restarts, n + 1);
}

/*
 * Had the target's commit not been flushed when the primary was restarted?  Then *at is where.
 * For targets that are positions in this server's history.  Raises nothing.
 *
 * The caller has read the position of replay: a restart before that has been noted
 * by then, and is seen, since the server publishes the position under a lock.
 */
bool
IsLostInCrash(const LsnTarget *target, XLogRecPtr *at)
{
	uint32		n;

	if (XLogRecPtrIsInvalid(target->flushed))
		return false;

	n = Min(pg_atomic_read_u32(&tracker->n_restarts), MAX_RESTARTS);
	/*
	 * NoteRestart()'s counterpart: what is counted must be read, and not what was there
	 * before (model: told, READ_BEFORE_ASKED).
	 */
	pg_read_barrier();
	for (uint32 i = 0; i < n; i++)
	{
		*at = pg_atomic_read_u64(&tracker->restarts[i]);
		if (target->flushed <= *at && *at < target->lsn)
			return true;
	}
	return false;
}

/* Raise 40000 if so. */
static void
CheckNotLostInCrash(const LsnTarget *target)
{
	XLogRecPtr	at;

	if (IsLostInCrash(target, &at))
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK),
				 errmsg("the write at %s has been lost in a crash of the primary", TargetToText(target)),
				 errdetail("It was not flushed when it was committed, and the primary has been started again at " LSN_FORMAT ".",
						   LSN_FORMAT_ARGS(at)),
				 errhint("Repeat the write. Commits with synchronous_commit = on are not lost so.")));
}

/*
 * Read a token, or an LSN as text.  Raises nothing: NULL if it is one, else what to
 * say of its timeline, or "" if it has no such form at all.
 */
static const char *
ReadToken(const char *token, LsnTarget *target)
{
	const char *at = strchr(token, '@');
	const char *digit;
	uint64		timeline = 0;
	XLogRecPtr	lsn;

	if (!ReadLsn(at ? pnstrdup(token, at - token) : token, &lsn))
		return "";
	*target = LsnToTarget(lsn);
	if (at == NULL)
		return NULL;

	/* not strtoul(), which takes blanks, signs and other bases */
	if (!isdigit((unsigned char) at[1]))
		return "";
	for (digit = at + 1; *digit && *digit != '~'; digit++)
	{
		if (!isdigit((unsigned char) *digit))
			return "";
		if (timeline <= PG_UINT32_MAX)
			timeline = timeline * 10 + (*digit - '0');
	}
	if (*digit == '~' &&
		(!ReadLsn(digit + 1, &target->flushed) || target->flushed >= lsn))
		return "";
	if (timeline == 0 || timeline > PG_UINT32_MAX)
		return "Timelines are numbered from 1 to 4294967295.";
	target->timeline = (TimeLineID) timeline;
	return NULL;
}

/*
 * The same for those who raise errors by themselves.
 */
bool
IsToken(const char *token, LsnTarget *target)
{
	return ReadToken(token, target) == NULL;
}

/*
 * The target that a token, or an LSN as text, stands for.  Raises 22P02 if it
 * is neither, and 22023 if its timeline is not one.
 */
LsnTarget
TokenToTarget(const char *token)
{
	LsnTarget	target;
	const char *problem = ReadToken(token, &target);

	if (problem && problem[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for a position or token: \"%s\"", token),
				 errhint("A position looks like \"0/301DC08\", a token like \"0/301DC08@1\": the position and, in decimal, its timeline; some end in \"~\" and another position.")));
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeline out of range in token \"%s\"", token),
				 errhint("%s", problem)));
	return target;
}

/*
 * A target as the user would write it, for messages; palloc'd.
 */
char *
TargetToText(const LsnTarget *target)
{
	if (IsQuestion(target))
		return pstrdup("the primary's newest commit");
	if (FullTransactionIdIsValid(target->xid))
		return psprintf("transaction " UINT64_FORMAT, U64FromFullTransactionId(target->xid));
	if (!XLogRecPtrIsInvalid(target->flushed))
		return psprintf(LSN_FORMAT "@%u~" LSN_FORMAT, LSN_FORMAT_ARGS(target->lsn), target->timeline,
						LSN_FORMAT_ARGS(target->flushed));
	if (target->timeline != 0)
		return psprintf(LSN_FORMAT "@%u", LSN_FORMAT_ARGS(target->lsn), target->timeline);
	return psprintf(LSN_FORMAT, LSN_FORMAT_ARGS(target->lsn));
}

/*
 * Raise the error for a token whose write is not part of this server's
 * history and never will be: the server is on timeline "current", and left the
 * token's at "left_at" (InvalidXLogRecPtr: it never was on it).
 */
void
RaiseLost(const LsnTarget *target, TimeLineID current, XLogRecPtr left_at)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_ROLLBACK),
			 errmsg("the write at %s has been lost in a failover", TargetToText(target)),
			 XLogRecPtrIsInvalid(left_at) ?
				 errdetail("This server is on timeline %u, whose history does not contain timeline %u.",
						   current, target->timeline) :
				 errdetail("This server's history left timeline %u at " LSN_FORMAT ".",
						   target->timeline, LSN_FORMAT_ARGS(left_at)),
			 errhint("Repeat the write on the current primary.")));
}

/*
 * Read a line of a history file: an ancestor, where it was left, and why.  Returns
 * false if it is no such line.  The server is content with less at its end; we are
 * not, since half a line could name another place.
 */
static bool
ReadAncestor(const char *line, TimeLineHistoryEntry *ancestor)
{
	uint32		high;
	uint32		low;
	int			length = 0;

	if (sscanf(line, "%u\t%X/%X%n", &ancestor->tli, &high, &low, &length) != 3 ||
		!isspace((unsigned char) line[length]) || strchr(line, '\n') == NULL)
		return false;
	ancestor->end = ((uint64) high << 32) | low;
	return true;
}

/*
 * The ancestors of a timeline, newest first, as a List of TimeLineHistoryEntry.
 * Raises an error if the file is missing, can't be read or is damaged: 58P01, 42501
 * or XX001.
 *
 * The format is that of the server's readTimeLineHistory() (timeline.c).  Which we
 * can't use: it ends the session if a file is unreadable, and takes it for one
 * without ancestors if it is missing.
 */
static List *
ReadHistory(TimeLineID timeline)
{
	char		path[MAXPGPATH];
	char		line[MAXPGPATH];
	List	   *history = NIL;
	XLogRecPtr	begin = InvalidXLogRecPtr;
	TimeLineID	last = 0;
	FILE	   *file;
	const char *help = "Copy the file into this server's pg_wal directory, from the archive or from another server of the cluster.";

	TLHistoryFilePath(path, timeline);
	file = AllocateFile(path, "r");
	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open the history of timeline %u, file \"%s\": %m", timeline, path),
				 errhint("%s", help)));

	while (fgets(line, sizeof(line), file) != NULL)
	{
		TimeLineHistoryEntry *ancestor;
		const char *text = line + strspn(line, " \t\n");

		if (*text == '\0' || *text == '#')
			continue;

		ancestor = palloc(sizeof(TimeLineHistoryEntry));
		if (!ReadAncestor(text, ancestor) || ancestor->tli <= last || ancestor->tli >= timeline)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the history of timeline %u, file \"%s\", is damaged", timeline, path),
					 errdetail("This should be an ancestor and where it was left: \"%s\".",
							   pnstrdup(text, strcspn(text, "\n"))),
					 errhint("%s", help)));
		ancestor->begin = begin;
		begin = ancestor->end;
		last = ancestor->tli;
		history = lcons(ancestor, history);
	}
	if (ferror(file))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the history of timeline %u, file \"%s\": %m", timeline, path)));
	FreeFile(file);

	/* each timeline but the first has begun as the child of another */
	if (history == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the history of timeline %u, file \"%s\", is empty", timeline, path),
				 errhint("%s", help)));
	return history;
}

/*
 * The same, read once for each timeline that the session meets.
 */
static List *
HistoryOf(TimeLineID timeline)
{
	static MemoryContext context = NULL;
	static TimeLineID cached_timeline = 0;
	static List *history = NIL;
	MemoryContext caller;

	if (cached_timeline == timeline)
		return history;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "lsn_tracker timeline history",
										ALLOCSET_SMALL_SIZES);

	/* first forgotten, then read: an error leaves nothing half there */
	cached_timeline = 0;
	MemoryContextReset(context);
	caller = MemoryContextSwitchTo(context);
	history = ReadHistory(timeline);
	MemoryContextSwitchTo(caller);
	cached_timeline = timeline;
	return history;
}

/* What the history of a server says of a position that knows its timeline */
typedef enum Judgement
{
	NOT_KNOWN_YET,
	IN_HISTORY,
	LOST
} Judgement;

/*
 * If it is lost, *left_at is where the target's timeline was left, or
 * InvalidXLogRecPtr if this server never was on it.  Raises the errors of
 * ReadHistory().
 */
static Judgement
Judge(const LsnTarget *target, TimeLineID current, XLogRecPtr *left_at)
{
	List	   *history;

	if (target->timeline == 0 || target->timeline == current)
		return IN_HISTORY;

	/*
	 * Each promotion gets a larger number than all timelines known to the
	 * promoted server.  So a larger one is no ancestor, and may be followed
	 * later; a smaller one that is no ancestor cannot become one.
	 */
	if (target->timeline > current)
		return NOT_KNOWN_YET;
	history = HistoryOf(current);
	*left_at = InvalidXLogRecPtr;
	if (!tliInHistory(target->timeline, history))
		return LOST;
	*left_at = tliSwitchPoint(target->timeline, history, NULL);
	return target->lsn > *left_at ? LOST : IN_HISTORY;
}

/*
 * On a server that is on timeline "current": is the target's position part of
 * its history?  Then it is enough to compare positions.  Returns false if that
 * is not known yet: a server that has not followed a promotion does not know
 * the timelines behind it.  Raises 40000 if it never will be, and the errors of
 * ReadHistory().
 */
bool
InHistory(const LsnTarget *target, TimeLineID current)
{
	XLogRecPtr	left_at;

	switch (Judge(target, current, &left_at))
	{
		case NOT_KNOWN_YET:
			return false;
		case LOST:
			RaiseLost(target, current, left_at);
			break;
		case IN_HISTORY:
			break;
	}
	CheckNotLostInCrash(target);
	return true;
}

/*
 * Has a failover lost it?  Raises no error but those of ReadHistory().
 */
bool
IsLost(const LsnTarget *target, TimeLineID current)
{
	XLogRecPtr	left_at;

	return Judge(target, current, &left_at) == LOST;
}
