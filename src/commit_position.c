/*-------------------------------------------------------------------------
 *
 * commit_position.c
 *		The primary's side: where a session's own commits end.
 *
 * Runs at the end of each transaction, in client sessions, those over the replication
 * protocol among them; no lock.  Other processes only mark their commits, for those
 * who ask for the newest of all (newest_commit.c).
 *
 * The end of a commit's record is known only when the transaction has been
 * committed.  An error would then be a PANIC, so all that is done there is to keep
 * the position in plain variables.  It becomes text when lsn_tracker.token is shown,
 * which the server does when it is about to tell the client that it is ready:
 * to have it do so is prepared before the commit, where an error is only an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "compat.h"
#include "lsn_tracker.h"

/* The end of this session's last commit; lsn 0: none */
static LsnTarget last_commit;

/*
 * XactLastCommitEnd when we looked last.  It moves with each commit that wrote WAL,
 * with a transaction id or without; for COMMIT PREPARED it is the commit of the command
 * itself, whose last record is the prepared transaction's.  Each position is given
 * once, so a changed one is a new commit.
 */
static XLogRecPtr noted = InvalidXLogRecPtr;

/*
 * Remember a commit that has just ended.  Returns false if it was none that
 * somebody could have to wait for.
 */
static bool
NoteCommit(void)
{
	TransactionId xid = GetTopTransactionIdIfAny();

	noted = XactLastCommitEnd;

	/*
	 * A read can write WAL, too: it prunes pages, and with checksums it logs
	 * pages before it sets hint bits.  Nobody has to wait for that, least of
	 * all since such a commit is not flushed.  We can't tell it from other
	 * WAL without an id, but in a READ ONLY transaction it can be nothing
	 * else.
	 */
	if (XactReadOnly && !TransactionIdIsValid(xid))
		return false;

	last_commit = (LsnTarget){0};
	last_commit.lsn = last_commit.replay_to = XactLastCommitEnd;
	last_commit.timeline = GetWALInsertionTimeLine();

	/*
	 * A commit that is not flushed is lost if this server crashes.  Others are
	 * flushed before we are called: with an id, unless synchronous_commit is
	 * off.
	 */
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF || !TransactionIdIsValid(xid))
	{
		XLogRecPtr	flushed = GetFlushRecPtr(NULL);

		if (flushed < last_commit.lsn)
			last_commit.flushed = flushed;
	}
	return true;
}

/*
 * Every process, at the end of its transactions.
 */
static void
AtEndOfXact(XactEvent event, void *arg)
{
	static bool report_prepared = false;

	/*
	 * What SET LOCAL has set is not shown any more.  The server looks at the variable behind
	 * the transaction only if it has to restore its value, and ReportToken() or the end of a
	 * subtransaction may have done that.
	 */
	if (set_locally &&
		(event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE || event == XACT_EVENT_ABORT) &&
		ForgetLocalToken())
		ReportToken();

	if (event == XACT_EVENT_PRE_COMMIT)
	{
		TransactionId xid = GetTopTransactionIdIfAny();

		MarkCommitting(xid);

		/* will there be a commit record, or some other WAL? */
		report_prepared = (XactLastRecEnd != 0 || TransactionIdIsValid(xid)) &&
			MyProcPort != NULL && report_commits;
		if (report_prepared)
		{
			JudgeOwed();
			ReportToken();
		}
	}
	else if (event == XACT_EVENT_COMMIT)
	{
		MarkCommitted(GetTopTransactionIdIfAny());

		/* an implicit transaction's statement, too, has ended */
		NoteCatalogs();
		if (XactLastCommitEnd == noted || MyProcPort == NULL || !NoteCommit() || !report_commits)
			return;
		NoteKnown(&last_commit);

		/*
		 * NOTIFY gets its transaction id behind PRE_COMMIT, so a transaction
		 * that does nothing else is not recognized there.  This allocates some
		 * bytes of the transaction's memory, of which it has used next to
		 * nothing, and a copy of the text, for which a failure is only logged.
		 */
		if (!report_prepared)
			ReportToken();
	}
	else if (event == XACT_EVENT_ABORT)
	{
		MarkCommitted(InvalidTransactionId);
		NoteCatalogs();
	}
}

/*
 * The end of this session's last commit that wrote WAL, as a token; palloc'd.
 * NULL if there was none.
 */
char *
LastCommitToken(void)
{
	return XLogRecPtrIsInvalid(last_commit.lsn) ? NULL : TargetToText(&last_commit);
}

/*
 * The session is given to somebody else; see ForgetToken().
 */
void
ForgetLastCommit(void)
{
	last_commit = (LsnTarget){0};
}

/*
 * To be called from _PG_init; all sessions inherit it.
 */
void
InstallCommitPosition(void)
{
	RegisterXactCallback(AtEndOfXact, NULL);
}
