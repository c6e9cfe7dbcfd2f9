/*
 * locks.pml
 *		A session that sleeps with a lock on a relation, and replay that needs it.
 *
 * A model of the two hand-overs of src/locks.c: the mark and the announcement, and the
 * virtual transaction that comes back.  The barriers in ResetLatch() are not relied on.
 *
 * Checked, when nothing goes on any more:
 *	replays		the startup process has got the lock
 */

#define IN_SESSION 0
#define IN_STARTUP 1
#define PROCESSES 2

#define WANTED 0						/* wanted_relation */
#define MARK 1							/* holds_locks */
#define HOLDERS 2						/* lock_holders */
#define VXID 3							/* the lock on the virtual transaction */
#define WORDS 4

#define STORED (buffered[0] + buffered[1])

#include "memory.pml"

bool relation_locked = true;
bool latch = false;
bool startup_latch = false;
bool cancelled = false;
bool replayed = false;

proctype session()
{
	bool wanted, aside;

	/* StepAside() */
	store(IN_SESSION, VXID, 0);
#ifdef COUNTED_BEFORE_MARKED
	atomic { DRAINED(IN_SESSION) -> mem[HOLDERS] = 1 };
#endif
	store(IN_SESSION, MARK, 1);
#ifdef NO_BARRIER_BEHIND_MARK
	store(IN_SESSION, HOLDERS, 1);
#elif !defined(COUNTED_BEFORE_MARKED)
	atomic { DRAINED(IN_SESSION) -> mem[HOLDERS] = 1 };
#endif

	do
	::
#ifndef LOOK_BEFORE_RESET
		latch = false;
#endif
		/* GiveWayToReplay() */
		if
		:: READ(IN_SESSION, WANTED) != 0 -> relation_locked = false; break
		:: else
		fi;
#ifdef LOOK_BEFORE_RESET
		latch = false;
#endif
end_asleep:
		if
		:: latch
#ifdef REACHED
		/* what it waits for is replayed, or its time is up */
		:: true -> break
#endif
		fi
	od;

	/* StepBack() */
	store(IN_SESSION, MARK, 0);
	atomic { DRAINED(IN_SESSION) -> mem[HOLDERS] = 0 };
#ifdef LOOK_BEFORE_BACK
	wanted = READ(IN_SESSION, WANTED) != 0;
#endif
	store(IN_SESSION, VXID, 1);
#ifndef NO_BARRIER_BEHIND_BACK
	barrier(IN_SESSION);
#endif
#ifndef LOOK_BEFORE_BACK
	wanted = READ(IN_SESSION, WANTED) != 0;
#endif
#ifndef NO_WORD_TO_REPLAY
	if
	:: wanted -> atomic { DRAINED(IN_SESSION) -> startup_latch = true }
	:: else
	fi;
#endif

	/* the transaction goes on, and keeps its lock until replay cancels it */
end_idle:
	cancelled -> relation_locked = false
}

proctype startup()
{
	/* Announce() */
#ifdef NO_BARRIER_BEHIND_ANNOUNCEMENT
	store(IN_STARTUP, WANTED, 1);
#else
	atomic { DRAINED(IN_STARTUP) -> mem[WANTED] = 1 };
#endif
	if
	:: READ(IN_STARTUP, HOLDERS) > 0 ->
		if
		:: READ(IN_STARTUP, MARK) == 1 -> atomic { DRAINED(IN_STARTUP) -> latch = true }
		:: else
		fi
	:: else
	fi;

	/* the server: waits for the lock; whoever is there with it is cancelled */
	do
	:: !relation_locked -> break
	:: else ->
		startup_latch = false;
		if
		:: READ(IN_STARTUP, VXID) == 1 -> cancelled = true; !relation_locked
		:: else ->
end_asleep:
			startup_latch || !relation_locked
		fi
	od;
	replayed = true;

	/* WithdrawAnnouncement() */
	store(IN_STARTUP, WANTED, 0)
}

active proctype check()
{
	timeout ->
	assert(replayed)
}

init
{
	atomic {
		mem[VXID] = 1;
		run session();
		run startup()
	}
}
