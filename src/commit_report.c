/*-------------------------------------------------------------------------
 *
 * commit_report.c
 *		The primary's side: telling the client the end of its own last commit.
 *
 * Runs in client sessions, those over the replication protocol among them, at the
 * end of each commit; no lock.
 *
 * lsn_tracker.last_commit is a read-only variable that the server reports
 * (GUC_REPORT): when it has been set, the server sends its value in a
 * ParameterStatus message just before the next ReadyForQuery, if it differs
 * from what was sent last.  So each client has the token of its commit along
 * with the answer to the commit.
 *
 * The callback runs when the transaction has been committed.  An error would
 * then be a PANIC, so nothing here can fail: the token is kept in plain
 * variables, it becomes text only when the variable is shown, and setting the
 * variable "to its default", of which there is none, is what marks it for
 * sending without allocating anything (set_config_option() copies neither a
 * missing value nor, for PGC_S_DEFAULT, the old one; and it logs instead of
 * raising errors for that source).
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

static XLogRecPtr last_commit = InvalidXLogRecPtr;
static TimeLineID last_commit_timeline = 0;
static XLogRecPtr last_commit_flushed = InvalidXLogRecPtr;	/* valid if that is not */

static void
AfterCommit(XactEvent event, void *arg)
{
	static XLogRecPtr seen = InvalidXLogRecPtr;

	/*
	 * XactLastCommitEnd moves with each commit that wrote WAL, with a
	 * transaction id or without; for COMMIT PREPARED it is the commit of the
	 * command itself, whose last record is the prepared transaction's.  Each
	 * position is given once, so a changed one is a new commit.
	 */
	if (event != XACT_EVENT_COMMIT || MyProcPort == NULL ||
		XactLastCommitEnd == seen)
		return;
	seen = XactLastCommitEnd;

	/*
	 * A read can write WAL, too: it prunes pages, and with checksums it logs
	 * pages before it sets hint bits.  Nobody has to wait for that, least of
	 * all since such a commit is not flushed.  We can't tell it from other
	 * WAL without an id, but in a READ ONLY transaction it can be nothing
	 * else.
	 */
	if (XactReadOnly && !TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;

	last_commit = XactLastCommitEnd;
	last_commit_timeline = GetWALInsertionTimeLine();

	/*
	 * A commit that is not flushed is lost if this server crashes.  Others are
	 * flushed before we are called: with an id, unless synchronous_commit is
	 * off.
	 */
	last_commit_flushed = InvalidXLogRecPtr;
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF ||
		!TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		XLogRecPtr	flushed = GetFlushRecPtr(NULL);

		if (flushed < last_commit)
			last_commit_flushed = flushed;
	}

	if (report_commits)
		(void) set_config_option("lsn_tracker.last_commit", NULL,
								 PGC_INTERNAL, PGC_S_DEFAULT,
								 GUC_ACTION_SET, true, 0, false);
}

/*
 * The end of this session's last commit that wrote WAL, as a token; palloc'd.
 * NULL if there was none.
 */
char *
LastCommitToken(void)
{
	LsnTarget	target = {0};

	if (XLogRecPtrIsInvalid(last_commit))
		return NULL;
	target.lsn = last_commit;
	target.timeline = last_commit_timeline;
	target.flushed = last_commit_flushed;
	return TargetToText(&target);
}

/* What SHOW and the report to the client say. */
const char *
ShowLastCommit(void)
{
	char	   *token = LastCommitToken();

	return token ? token : "";
}

/*
 * To be called from _PG_init; all sessions inherit it.
 */
void
InstallCommitReports(void)
{
	RegisterXactCallback(AfterCommit, NULL);
}
