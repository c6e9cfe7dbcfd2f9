/*
 * link.pml
 *		Sessions that ask, and the worker that asks the primary for them.
 *
 * A model of the hand-over in src/primary_link.c.  Two sessions enter the queue with a
 * question; a third wants a fresh answer without waiting for it (RefreshAnswer()).
 * Neither taking nor releasing the queue's lock is taken for a full barrier here.
 *
 * Checked, when nothing goes on any more:
 *	answered	nobody waits for an answer for ever
 *	refreshed	behind who wants a fresh answer, the primary has been asked
 * and always
 *	fresh		nobody gets an answer from before the question
 */

#ifndef SESSIONS
#define SESSIONS 2
#endif

#define REFRESHER 2
#define LINK 3
#define PROCESSES 4

#define LOCK 0
#define BUSY 1
#define REFRESH 2
#define WORDS 3

#define STORED (buffered[0] + buffered[1] + buffered[2] + buffered[3])

#include "memory.pml"

/* under the lock: the time of the question; 0: none */
byte question[2];

byte clock = 1;
bool link_latch = false;
bool latch[2];
bool answered[2];
byte refresh_since = 0;
byte last_asked = 0;

inline lock(me)
{
	atomic { mem[LOCK] == 0 -> mem[LOCK] = 1 }
}

inline unlock(me)
{
	store(me, LOCK, 0)
}

/* WakeLink() */
inline wake_link(me)
{
#ifndef NO_BARRIER_IN_FRONT_OF_BUSY
	barrier(me);
#endif
	if
	:: READ(me, BUSY) == 0 -> atomic { DRAINED(me) -> link_latch = true }
	:: else
	fi
}

proctype session(byte me)
{
	byte since;

	atomic { since = clock; clock++ };
	lock(me);
	question[me] = since;
	unlock(me);
	wake_link(me);
end_asleep:
	latch[me]
}

proctype refresher()
{
	atomic { refresh_since = clock; clock++ };
	if
	:: READ(REFRESHER, REFRESH) == 0 ->
		store(REFRESHER, REFRESH, 1);
		wake_link(REFRESHER)
	:: else
	fi
}

inline hand_out(i)
{
	if
#ifdef ANSWERS_ALL
	:: question[i] != 0 ->
#else
	:: question[i] != 0 && question[i] <= asked_at ->
#endif
		assert(question[i] <= asked_at);
		question[i] = 0;
		answered[i] = true;
		latch[i] = true
	:: else
	fi
}

proctype link()
{
	byte asked_at;
	bool somebody, asking;

	do
	:: atomic { DRAINED(LINK) -> link_latch = false };
		if
		:: !asking ->
#ifdef LOOK_BEFORE_NOT_BUSY
			lock(LINK);
			somebody = question[0] + question[1] > 0;
			unlock(LINK);
			somebody = somebody || READ(LINK, REFRESH) == 1;
			store(LINK, BUSY, 0);
			barrier(LINK);
#else
			store(LINK, BUSY, 0);
#ifndef NO_BARRIER_BEHIND_NOT_BUSY
			barrier(LINK);
#endif
			lock(LINK);
			somebody = question[0] + question[1] > 0;
			unlock(LINK);
			somebody = somebody || READ(LINK, REFRESH) == 1;
#endif
			if
			:: somebody ->
				somebody = false;
				store(LINK, BUSY, 1);
				/* Ask() */
				store(LINK, REFRESH, 0);
#ifndef NO_BARRIER_BEHIND_REFRESH
				barrier(LINK);
#endif
				atomic { asked_at = clock; last_asked = clock; clock++ };
				asking = true
			:: else
			fi
		:: else
		fi;

end_asleep:
		if
		:: link_latch
		:: asking ->
			/* HandOutAnswer() */
			lock(LINK);
			hand_out(0);
			hand_out(1);
			unlock(LINK);
			asked_at = 0;
			asking = false
		fi
	od
}

active proctype check()
{
	timeout ->
	assert(answered[0]);
	assert(answered[1] || SESSIONS < 2);
	assert(last_asked > refresh_since)
}

init
{
	atomic {
		run link();
		run session(0);
#if SESSIONS > 1
		run session(1);
#endif
		run refresher()
	}
}
