/*
 * commit.pml
 *		Processes that commit on a primary, and who asks for the newest commit there.
 *
 * A model of src/newest_commit.c: the mark, the end of the commit and the transaction's
 * id, which are read without a lock; the entries of prepared transactions (-DPREPARED);
 * and the wait for a commit to become visible (-DAWAIT).  A position in WAL is the
 * number of the commit that ends there.
 *
 * A read or write barrier that is left out is the two accesses in the other order: the
 * store buffers alone keep the order of stores, and loads are never early in them.
 *
 * Checked, always:
 *	newest		the answer is not before what somebody had seen when it was asked for
 *	visible		who has waited for a commit finds it visible, and has been told of it;
 *			the latter not of a transaction that gets its id behind the mark (NOTIFY)
 */

#define COMMITTER 0
#define ASKER 1						/* and one behind it */
#define PROCESSES 3

#define MARK 0						/* committing */
#define END 1						/* end */
#define RUNNING 2					/* proc->xid */
#define PREPARED_ID 3					/* proc->xid of the prepared one's entry */
#define PREPARED_SEEN 4					/* prepared_seen */
#define NOTED 5						/* all_noted */
#define LOCK 6						/* TwoPhaseStateLock */
#define TELLING 7					/* telling */
#define WORDS 8

#define STORED (buffered[0] + buffered[1] + buffered[2])

#include "memory.pml"

#define COMMITS 2
#define WITHOUT_ID 9
#define ENDED 10

byte wal = 0;						/* where it ends */
byte seen = 0;						/* the newest commit that is visible */
byte told = 0;						/* and that caches have been told of */
byte prepared_runs = 0;					/* TransactionIdIsInProgress() */

#ifdef PREPARED

/* PREPARE TRANSACTION and COMMIT PREPARED, twice, in the same entry */
proctype committer()
{
	byte id;

	for (id : 1 .. COMMITS) {
		atomic { DRAINED(COMMITTER) && mem[LOCK] == 0 -> mem[LOCK] = 1 };
		/* the entry is wiped first */
		store(COMMITTER, PREPARED_ID, 0);
		store(COMMITTER, PREPARED_ID, id);
		atomic { DRAINED(COMMITTER) -> prepared_runs = id; mem[LOCK] = 0 };

		atomic { DRAINED(COMMITTER) -> wal = id };
		/* its id stays where it is */
		atomic { DRAINED(COMMITTER) -> prepared_runs = 0; seen = id }
	}
}

/* NoteEverything(): compare-and-exchange */
inline note_everything(me)
{
	atomic {
		DRAINED(me) ->
		if
		:: mem[NOTED] < wal -> mem[NOTED] = wal
		:: else
		fi
	}
}

proctype asker(byte me)
{
	byte had_seen, last, now, answer;

	atomic { DRAINED(me) -> had_seen = seen };
#ifdef NOTED_READ_BEFORE_SEEN
	answer = READ(me, NOTED);
#endif
	/* NotePrepared() */
	last = READ(me, PREPARED_SEEN);
#ifndef NO_LOCK_ON_ENTRIES
	atomic { DRAINED(me) && mem[LOCK] == 0 -> mem[LOCK] = 1 };
#endif
	now = READ(me, PREPARED_ID);
#ifndef NO_LOCK_ON_ENTRIES
	atomic { DRAINED(me) -> mem[LOCK] = 0 };
#endif
	if
	:: now != 0 && last == now + ENDED
	:: else ->
		if
		:: now != 0 && prepared_runs != now -> now = now + ENDED
		:: else
		fi;
		if
		:: last == now
		:: else ->
#ifdef SEEN_BEFORE_NOTED
			store(me, PREPARED_SEEN, now);
			note_everything(me)
#else
			note_everything(me);
			store(me, PREPARED_SEEN, now)
#endif
		fi
	fi;
#ifndef NOTED_READ_BEFORE_SEEN
	answer = READ(me, NOTED);
#endif
	assert(answer >= had_seen)				/* newest */
}

#else

bool without_id[COMMITS];

proctype committer()
{
	byte id, mark;

	for (id : 1 .. COMMITS) {
		if
		:: atomic { DRAINED(COMMITTER) -> mem[RUNNING] = id }; mark = id
		:: mark = WITHOUT_ID; without_id[id - 1] = true
		fi;
		/* MarkCommitting() */
#ifndef NO_MARK
		store(COMMITTER, MARK, mark);
#endif
		/* ids are given out under a lock, WAL is written under one */
		if
		:: mark == WITHOUT_ID -> atomic { DRAINED(COMMITTER) -> mem[RUNNING] = id }
		:: else
		fi;
		atomic { DRAINED(COMMITTER) -> wal = id };
		/* ProcArrayEndTransaction() */
		atomic { DRAINED(COMMITTER) -> mem[RUNNING] = 0; seen = id };
		/* MarkCommitted() */
#ifdef UNMARKED_BEFORE_NOTED
		store(COMMITTER, MARK, 0);
#endif
		store(COMMITTER, END, id);
		store(COMMITTER, TELLING, id);
#ifndef UNMARKED_BEFORE_NOTED
		store(COMMITTER, MARK, 0);
#endif
		/* the invalidation messages, under a lock */
		atomic { DRAINED(COMMITTER) -> told = id };
		/* MarkTold() */
		store(COMMITTER, TELLING, 0)
	}
}

proctype asker(byte me)
{
	byte mark, running, target;
#ifdef AWAIT
	byte first;

	/* from a standby, which has replayed the record */
	atomic { wal > 0 -> target = wal };
	/* AwaitVisible(), InvisibleCommit() */
	do
	::
		mark = READ(me, MARK);
		if
		:: mark == 0 && READ(me, END) <= target -> running = READ(me, TELLING)
		:: mark == 0 && READ(me, END) > target -> running = 0
		:: mark == WITHOUT_ID -> running = READ(me, RUNNING)
		:: else -> running = mark
		fi;
		if
		:: first == 0 -> first = running
		:: else
		fi;
		if
		:: running == 0 || running != first -> break
		:: else
		fi
	od;
	assert(seen >= target && (told >= target || without_id[target - 1]))	/* visible */
#else
	byte end;
	bool known;

	atomic { DRAINED(me) -> target = seen };
	/* ReadCommitter() */
	do
	::
#ifdef END_READ_BEFORE_MARK
		end = READ(me, END);
#endif
		/* in either order */
		if
		:: mark = READ(me, MARK); running = READ(me, RUNNING)
		:: running = READ(me, RUNNING); mark = READ(me, MARK)
		fi;
		if
		:: mark == 0 -> known = true
		:: else ->
#ifdef MARKED_IS_UNSEEN
			known = true
#else
			known = (mark == WITHOUT_ID -> running != 0 : running == mark)
#endif
		fi;
		if
		:: known -> break
		/* it does not look for ever */
		:: !known -> break
		:: !known
		fi
	od;
#ifndef END_READ_BEFORE_MARK
	end = READ(me, END);
#endif
	assert((known -> end : wal) >= target)			/* newest */
#endif
}

#endif

init
{
	atomic {
		run committer();
		run asker(ASKER);
		run asker(ASKER + 1)
	}
}
