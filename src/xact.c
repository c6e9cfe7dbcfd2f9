/*-------------------------------------------------------------------------
 *
 * xact.c
 *		What has become of a transaction, by its id.
 *
 * Runs in the asking session.  Takes the server's own locks for the time of
 * the look-up, none of ours.  The method is that of pg_xact_status().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "storage/procarray.h"

#include "compat.h"
#include "lsn_tracker.h"

/*
 * On a standby: how much of the transaction has been replayed.  On a primary:
 * its state.  The id may be a subtransaction's.
 *
 * Raises 40000 if it was rolled back (or its server crashed before it
 * committed), and 22023 if it ended so long ago that the server has forgotten
 * how.
 *
 * XACT_COMMITTED means that every snapshot taken from now on contains it: the
 * commit record's redo removes the transaction from the running ones as its
 * last step, and while it is among them it is not looked up.
 */
XactState
GetXactState(FullTransactionId full_xid)
{
	TransactionId xid = XidFromFullTransactionId(full_xid);
	FullTransactionId next;
	uint64		oldest;
	bool		running;
	bool		committed;

	/* what initdb itself wrote */
	if (!TransactionIdIsNormal(xid))
		return XACT_COMMITTED;

	/*
	 * A larger one than any that replay has met, or on a primary than any
	 * that was given away.  Replay moves this before it counts the
	 * transaction among the running ones; in between it is taken for running
	 * since it is behind the latest completed one
	 * (TransactionIdIsInProgress()).
	 */
	next = ReadNextFullTransactionId();
	if (!FullTransactionIdPrecedes(full_xid, next))
		return XACT_UNSEEN;

	/* so that the status is not removed between the check and the look-up */
	LWLockAcquire(XactTruncationLock, LW_SHARED);
	oldest = U64FromFullTransactionId(next) -
		(uint32) (XidFromFullTransactionId(next) - TransamVariables->oldestClogXid);
	if (U64FromFullTransactionId(full_xid) < oldest)
	{
		LWLockRelease(XactTruncationLock);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("transaction " UINT64_FORMAT " is too old",
						U64FromFullTransactionId(full_xid)),
				 errdetail("This server knows what became of transactions from " UINT64_FORMAT " on.",
						   oldest),
				 errhint("It ended long ago, and that has been replayed: there is nothing to wait for.")));
	}
	running = TransactionIdIsInProgress(xid);
	committed = !running && TransactionIdDidCommit(xid);
	LWLockRelease(XactTruncationLock);

	if (running)
		return XACT_RUNNING;
	if (!committed)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK),
				 errmsg("transaction " UINT64_FORMAT " was rolled back",
						U64FromFullTransactionId(full_xid)),
				 errhint("Nothing that it wrote will ever be visible; repeat it if it should be.")));
	return XACT_COMMITTED;
}

/*
 * Standby: has the transaction ended, one way or the other?  May say so of one that
 * is too old to be known, but raises no error for it.
 */
bool
XactHasEnded(FullTransactionId xid)
{
	return FullTransactionIdPrecedes(xid, ReadNextFullTransactionId()) &&
		!TransactionIdIsInProgress(XidFromFullTransactionId(xid));
}
