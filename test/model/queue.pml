/*
 * queue.pml
 *		The queue: sessions, the startup process, its timer and the worker.
 *
 * A model of src/waiters.c, src/replay.c, src/wait.c and src/worker.c; what is
 * called there as here does the same.  What is under the queue's lock only (at[])
 * needs no buffer; what others read without the lock has one.  The batch is one
 * session, a record's end is its number.
 *
 * Checked, when nothing goes on any more:
 *	woken		nobody sleeps whose turn it is
 *	leftover	when all have left, nothing is left of them
 * and always
 *	bounded		the startup process wakes a batch at most, takes no more turns than
 *				there are reasons for, and gets to the end of the WAL, whoever is
 *				stopped, and wherever
 *	ends		no run goes on for ever (with -DNP), so that the others are reached
 *
 * The worker, the timer and the sessions on their way stand in for one another.  So
 * that no one hides what another fails to do, each is also left alone:
 *	WORKER		0: is away; 1: is there; 2: comes in the middle
 *	POLL		the startup process does not tell, the worker looks
 *	LINK		session 0 asks, and is answered
 *	TIMER		0: never fires
 *	STUCK		a session that does not wake up when it is woken
 *	CANCELS		a session that may leave at any time
 *	PAUSE		replay may pause behind any record
 *	STOP		a session may stop for good wherever it is, also with the lock
 *	PROMOTION	redo ends behind the last record
 *	PUT_OFF		wake-ups are put off also while the worker is away
 *	ASLEEP		all sleep already when it begins
 *	BOUNDED		count what the startup process does
 * and who waits for what:
 *	K0 K1 K2	LSN, TOKEN, XACT or QUESTION
 *	T0 T1 T2	the position; that of a token is on the first timeline
 *	RECORDS TIMELINE_AT XACT_AT		the WAL
 */

#ifndef SESSIONS
#define SESSIONS 2
#endif
#ifndef WORKER
#define WORKER 0
#endif
#ifndef TIMER
#define TIMER 0
#endif
#ifndef STUCK
#define STUCK 99
#endif
#ifndef CANCELS
#define CANCELS 99
#endif
#ifndef RECORDS
#define RECORDS 1
#endif
#ifndef TIMELINE_AT
#define TIMELINE_AT 99
#endif
#ifndef XACT_AT
#define XACT_AT 99
#endif
#ifndef K0
#define K0 LSN
#endif
#ifndef K1
#define K1 LSN
#endif
#ifndef K2
#define K2 LSN
#endif
#ifndef T0
#define T0 1
#endif
#ifndef T1
#define T1 1
#endif
#ifndef T2
#define T2 1
#endif

#define LSN 0
#define TOKEN 1
#define XACT 2
#define QUESTION 3

#define BATCH 1

#define AT_ONCE 0
#define LAST_TARGET 249
#define REPLAY_ENDED 250
#define NOBODY_WAITS 250
#define NOT_QUEUED 251

#define IN_STARTUP SESSIONS
#define IN_WORKER (SESSIONS + 1)
#define IN_LINK (SESSIONS + 2)
#ifdef LINK
#define PROCESSES (SESSIONS + 3)
#else
#define PROCESSES (SESSIONS + 2)
#endif

#define LOCK 0
#define REPLAYED 1
#define SMALLEST 2
#define TOKENS_SAID 3					/* tokens_look_again */
#define TOKENS_TOLD 4					/* tokens_looked_again */
#define XACTS_SAID 5
#define XACTS_TOLD 6
#define WORKER_LATCH 7
#define XACT_ENDED 8
#define PLACE 9							/* of each: heap_index and wake_at in one */
#define WORDS (PLACE + SESSIONS)

#if PROCESSES == 4
#define STORED (buffered[0] + buffered[1] + buffered[2] + buffered[3])
#else
#define STORED (buffered[0] + buffered[1] + buffered[2] + buffered[3] + buffered[4])
#endif

#ifdef PUT_OFF
#define ALWAYS_PUT_OFF true
#else
#define ALWAYS_PUT_OFF false
#endif

#include "memory.pml"

/* under the lock */
byte at[SESSIONS];

/* Has the question been answered? */
bool handed = false;

/* only changed by atomic read-modify-writes, or with full barriers */
byte on_their_way = 0;
byte xact_waiters = 0;
bool latch[SESSIONS];
bool worker_woken = false;
byte server_replayed = 0;
byte server_timeline = 1;

bool timer_runs = false;

/* for what is checked only */
bool gone[SESSIONS];
bool asleep[SESSIONS];
bool at_the_end = false;
bool replay_paused = false;
byte reasons = 0;						/* sessions that have come or gone: to take another turn */
byte signals = 0;						/* system calls to wake a session */

#define KIND(i) (i == 0 -> K0 : (i == 1 -> K1 : K2))
#define TARGET(i) (i == 0 -> T0 : (i == 1 -> T1 : T2))

#define HAS_TIMELINE(i) (KIND(i) == TOKEN || (KIND(i) == QUESTION && handed))

#define MIN2 (at[0] < at[1] -> at[0] : at[1])
#if SESSIONS == 2
#define MIN MIN2
#else
#define MIN (MIN2 < at[2] -> MIN2 : at[2])
#endif
#define FIRST (MIN == NOT_QUEUED -> NOBODY_WAITS : MIN)

#define TOKENS_PENDING(me) (READ(me, TOKENS_SAID) > READ(me, TOKENS_TOLD))
#define XACTS_PENDING(me) (READ(me, XACTS_SAID) > READ(me, XACTS_TOLD))

#ifdef STOP
#define may_stop(me) if :: me < SESSIONS -> false :: true fi
#else
#define may_stop(me) skip
#endif

inline lock(me)
{
	DRAINED(me) && mem[LOCK] == 0 -> mem[LOCK] = 1;
	may_stop(me)
}

inline unlock(me)
{
	store(me, LOCK, 0)
}

/* SetLatch() has full barriers in it. */
inline set_latch(me, whose)
{
	DRAINED(me);
#ifdef BOUNDED
	if
	:: me == IN_STARTUP && asleep[whose] && !latch[whose] -> signals++
	:: else
	fi;
#endif
	latch[whose] = true
}

/* ---- waiters.c ---- */

inline publish_smallest(me)
{
	first = FIRST;
	store(me, SMALLEST, first);
	first = 0
}

inline somebody_due(me)
{
	atomic {
		smallest = READ(me, SMALLEST);
		due = TOKENS_PENDING(me) || XACTS_PENDING(me)
	};
	atomic {
		due = due || (smallest != NOBODY_WAITS && smallest <= READ(me, REPLAYED));
		smallest = 0
	}
}

inline bring_forward(me, i, condition)
{
	if
	:: at[i] != NOT_QUEUED && at[i] != AT_ONCE && (condition) ->
		at[i] = AT_ONCE;
		store(me, PLACE + i, AT_ONCE)
	:: else
	fi
}

inline handle_look_again(me)
{
	/* TakeUp(), twice */
	said = READ(me, TOKENS_SAID);
	if
	:: said > READ(me, TOKENS_TOLD) ->
		tokens = true;
		store(me, TOKENS_TOLD, said)
	:: else
	fi;
	said = READ(me, XACTS_SAID);
	if
	:: said > READ(me, XACTS_TOLD) ->
		xacts = true;
		store(me, XACTS_TOLD, said)
	:: else
	fi;
	said = 0;

	if
	:: tokens || xacts ->
		bring_forward(me, 0, (K0 == XACT && xacts) || (HAS_TIMELINE(0) && tokens));
		bring_forward(me, 1, (K1 == XACT && xacts) || (HAS_TIMELINE(1) && tokens));
#if SESSIONS > 2
		bring_forward(me, 2, (K2 == XACT && xacts) || (HAS_TIMELINE(2) && tokens));
#endif
		publish_smallest(me);
		tokens = false;
		xacts = false
	:: else
	fi
}

inline count_on_their_way(me)
{
	DRAINED(me) -> on_their_way++
}

/* "woken", which the caller has chosen */
inline take_out(me)
{
	at[woken] = NOT_QUEUED;
	store(me, PLACE + woken, NOT_QUEUED);
	if
	:: KIND(woken) == XACT -> DRAINED(me) -> xact_waiters--
	:: else
	fi
}

/* the first of the queue */
inline take_out_first(me)
{
	if
	:: at[0] == FIRST -> woken = 0
	:: at[1] == FIRST -> woken = 1
#if SESSIONS > 2
	:: at[2] == FIRST -> woken = 2
#endif
	fi;
	n++;
#ifndef COUNT_AFTER_OUT
	count_on_their_way(me);
#endif
	take_out(me);
#ifdef COUNT_AFTER_OUT
	count_on_their_way(me);
#endif
#ifdef UNBOUNDED_BATCH
	set_latch(me, woken);
#endif
	publish_smallest(me)
}

/* leaves: more */
inline wake_due_waiters(me, is_worker)
{
#ifndef NO_BARRIER_BEFORE_LOOK
	barrier(me);
#endif
	do
	:: somebody_due(me);
#ifdef BOUNDED
		if
		:: due && me == IN_STARTUP -> turns++; assert(turns <= 1 + reasons)
		:: else
		fi;
#endif
		atomic {
			if
			:: !due -> more = false; break
#ifdef WORKER_HEEDS_COUNT
			:: due && is_worker && on_their_way >= BATCH -> more = false; break
			:: due && is_worker && on_their_way < BATCH -> lock(me)
#else
			:: due && is_worker -> lock(me)
#endif
			:: due && !is_worker && on_their_way >= BATCH -> more = true; break
#ifdef STARTUP_AWAITS_LOCK
			:: due && !is_worker && on_their_way < BATCH -> lock(me)
#else
			:: due && !is_worker && on_their_way < BATCH -> skip;
				if
				:: lock(me)
				:: READ(me, LOCK) != 0 -> more = true; break
				fi
#endif
			fi;
			due = false;
			handle_look_again(me)
		};
		do
#ifdef UNBOUNDED_BATCH
		:: atomic { FIRST <= READ(me, REPLAYED) && FIRST != NOBODY_WAITS -> take_out_first(me) }
#else
		:: atomic { n < BATCH && FIRST <= READ(me, REPLAYED) && FIRST != NOBODY_WAITS -> take_out_first(me) }
#endif
		:: else -> break
		od;
		unlock(me);
		may_stop(me);
		if
		:: atomic {
			n > 0 ->
			set_latch(me, woken);
			woken = 0;
#ifdef BOUNDED
			assert(signals <= BATCH);
#endif
		}
		:: else
		fi;

#ifndef NO_BARRIER_BEFORE_NEXT_TURN
		barrier(me);
#endif
		if
#ifdef NO_NEXT_TURN
		:: true ->
#elif defined(NO_NEXT_TURN_IF_WOKEN)
		:: n > 0 ->
#else
		:: n > 0 && on_their_way > 0 ->
#endif
			n = 0;
			somebody_due(me);
			more = due;
			break
		:: else -> n = 0
		fi
	od;
	atomic {
		turns = 0;
		due = false
	}
}

/* The caller holds the lock, or has seen that it is not in the queue. */
inline leave_queue(me)
{
	if
	:: at[me] != NOT_QUEUED ->
		woken = me;
		take_out(me);
		woken = 0;
		publish_smallest(me)
	:: at[me] == NOT_QUEUED && entered ->
		DRAINED(me) ->
		assert(on_their_way > 0);
		on_their_way--;
#ifdef BOUNDED
		reasons++
#endif
	:: at[me] == NOT_QUEUED && !entered
	fi;
	entered = false
}

inline add_waiter(me)
{
	atomic {
		lock(me);
#ifdef STAY_ON_COUNT
		if
		:: at[me] != NOT_QUEUED -> leave_queue(me)
		:: else
		fi;
#else
		leave_queue(me);
#endif
		entered = true;
		at[me] = wake_at;
		store(me, PLACE + me, wake_at);
		if
		:: KIND(me) == XACT -> DRAINED(me) -> xact_waiters++
		:: else
		fi;
		publish_smallest(me);
#ifdef BOUNDED
		reasons++;
#endif
		unlock(me)
	};
#ifndef NO_LOOK_BEHIND_LOCK
	wake_due_waiters(me, false)
#endif
}

inline remove_waiter(me)
{
#ifdef OFF_COUNT_BEHIND_LOOK
	if
	:: READ(me, PLACE + me) == NOT_QUEUED -> wake_due_waiters(me, false)
	:: else
	fi;
#endif
	if
	:: READ(me, PLACE + me) != NOT_QUEUED ->
		atomic {
			lock(me);
			leave_queue(me);
			unlock(me)
		}
#ifdef OFF_COUNT_BEHIND_LOOK
		wake_due_waiters(me, false)
#endif
	:: else -> atomic { leave_queue(me) }
	fi;
#if !defined(OFF_COUNT_BEHIND_LOOK) && !defined(NO_LOOK_ON_LEAVING)
	wake_due_waiters(me, false)
#endif
}

/* ---- wait.c ---- */

inline wake_worker(me)
{
#ifdef NO_WORD_TO_WORKER
	skip
#else
	if
	:: READ(me, WORKER_LATCH) != 0 -> atomic { DRAINED(me) -> worker_woken = true }
	:: else
	fi
#endif
}

proctype session(byte me)
{
	byte wake_at, replayed, smallest, first, turns, n, woken, said;
	bool due, more, tokens, xacts, entered, reached, ended;

#ifdef ASLEEP
	entered = true;
	wake_at = at[me];
	goto end_asleep;
#endif
	do
	:: atomic { DRAINED(me) -> latch[me] = false };
		/* TargetReached() */
		ended = READ(me, REPLAYED) == REPLAY_ENDED;
		atomic {
			if
			:: KIND(me) == XACT -> reached = ended || mem[XACT_ENDED] == 1; wake_at = LAST_TARGET; replayed = 0
			:: KIND(me) == QUESTION && !handed -> reached = ended; wake_at = LAST_TARGET; replayed = 0
			:: else ->
				reached = ended || server_replayed >= TARGET(me) ||
					(HAS_TIMELINE(me) && server_timeline != 1);
				wake_at = TARGET(me);
				replayed = server_replayed
			fi;
			ended = false
		};
		if
		:: reached -> break
		:: me == CANCELS -> break
		:: !reached
		fi;

#ifdef READ_ANEW
		replayed = server_replayed;
#endif
		if
		/* AppliedButNotPublished(): let the startup process run, until it has */
		:: READ(me, REPLAYED) >= wake_at ||
			(HAS_TIMELINE(me) && READ(me, TOKENS_SAID) > replayed) ->
			server_replayed != replayed || READ(me, REPLAYED) == REPLAY_ENDED
		:: else ->
			if
			:: READ(me, PLACE + me) != wake_at ->
				add_waiter(me);
#ifdef POLL
				wake_worker(me);
#endif
#ifdef NO_LOOK_AFTER_ENTERING
				asleep[me] = true;
				goto end_asleep
#endif
			:: atomic { READ(me, PLACE + me) == wake_at -> asleep[me] = true };
end_asleep:
				if
				:: atomic { latch[me] && me != STUCK -> asleep[me] = false }
				:: me == CANCELS && me != STUCK -> asleep[me] = false; break
				fi
			fi
		fi
	od;
	remove_waiter(me);
	gone[me] = true
}

/* ---- replay.c ---- */

inline wake_who_is_due()
{
#ifdef BOUNDED
	atomic { reasons = 0; signals = 0 };
#endif
	wake_due_waiters(IN_STARTUP, false);
	if
	:: more ->
		wake_worker(IN_STARTUP);
#ifndef NO_TIMER_FOR_THE_LEFT
		timer_runs = true
#endif
	:: else
	fi
}

inline wake_now()
{
	if
	:: put_off -> put_off = false; wake_who_is_due()
	:: else
	fi
}

inline wake_soon()
{
	if
	:: READ(IN_STARTUP, WORKER_LATCH) == 0 && !ALWAYS_PUT_OFF -> wake_who_is_due()
	:: else ->
		put_off = true;
#ifndef NO_TIMER_FOR_THE_PUT_OFF
		timer_runs = true
#endif
	fi
}

proctype startup()
{
	byte record, smallest, first, turns, n, woken, said, found;
	bool due, more, tokens, xacts, put_off;

	do
	:: record < RECORDS ->
		record++;
		wake_now();
		if
		:: record == XACT_AT -> store(IN_STARTUP, XACT_ENDED, 1)
		:: record != XACT_AT
		fi;
#ifdef XACT_WAITERS_BEFORE_PUBLISHING
		found = xact_waiters;
#endif
#ifndef POLL
		store(IN_STARTUP, REPLAYED, record);
#endif
#ifndef NO_BARRIER_BEHIND_PUBLISHING
		barrier(IN_STARTUP);
#endif
		if
		:: READ(IN_STARTUP, SMALLEST) <= READ(IN_STARTUP, REPLAYED) -> wake_soon()
		:: else
		fi;

		if
		:: record == TIMELINE_AT ->
			store(IN_STARTUP, XACTS_SAID, record);
			store(IN_STARTUP, TOKENS_SAID, record);
			wake_soon()
		:: else
		fi;
		if
		:: record == XACT_AT ->
#ifndef XACT_WAITERS_BEFORE_PUBLISHING
			found = xact_waiters;
#endif
			if
			:: found > 0 ->
				/* BringXactWaitersForward() */
				if
				:: atomic {
					lock(IN_STARTUP);
					bring_forward(IN_STARTUP, 0, K0 == XACT);
					bring_forward(IN_STARTUP, 1, K1 == XACT);
#if SESSIONS > 2
					bring_forward(IN_STARTUP, 2, K2 == XACT);
#endif
					publish_smallest(IN_STARTUP);
					unlock(IN_STARTUP)
				}
				:: READ(IN_STARTUP, LOCK) != 0 ->
#ifdef NOT_SAID_IF_BUSY
					skip
#else
					store(IN_STARTUP, XACTS_SAID, record)
#endif
				fi;
				wake_soon()
			:: else
			fi;
			found = 0
		:: else
		fi;

		/* the server says what has been replayed, under a spinlock */
		atomic {
			DRAINED(IN_STARTUP) ->
			server_replayed = record;
			if
			:: record == TIMELINE_AT -> server_timeline = 2
			:: else
			fi
		};
#ifdef PAUSE
		if
		:: replay_paused = true; break
		:: true
		fi;
#endif

		/* the next record is there, or more WAL has to be read */
		if
		:: record < RECORDS
#ifdef NO_WAKE_BEFORE_READING
		:: true
#else
		:: true -> wake_now()
#endif
		fi
	:: else -> break
	od;

#ifdef PROMOTION
	/* TrackedCleanup() */
	store(IN_STARTUP, REPLAYED, REPLAY_ENDED);
	barrier(IN_STARTUP);
	wake_due_waiters(IN_STARTUP, false);
	if
	:: more -> wake_worker(IN_STARTUP)
	:: else
	fi;
	timer_runs = false;
#ifndef NO_PROMPT_AT_END
	if :: atomic { READ(IN_STARTUP, PLACE) != NOT_QUEUED -> set_latch(IN_STARTUP, 0) } :: else fi;
	if :: atomic { READ(IN_STARTUP, PLACE + 1) != NOT_QUEUED -> set_latch(IN_STARTUP, 1) } :: else fi;
#if SESSIONS > 2
	if :: atomic { READ(IN_STARTUP, PLACE + 2) != NOT_QUEUED -> set_latch(IN_STARTUP, 2) } :: else fi;
#endif
#endif
#endif
	at_the_end = true
}

/*
 * HelpByTimer() and PromptDueWaiters(), in the startup process, as often as it makes
 * a difference.
 */
#define PROMPTED(i) (READ(IN_STARTUP, PLACE + i) != NOT_QUEUED && \
	(READ(IN_STARTUP, PLACE + i) <= READ(IN_STARTUP, REPLAYED) || \
	 (KIND(i) == XACT -> XACTS_PENDING(IN_STARTUP) : TOKENS_PENDING(IN_STARTUP))))

proctype timer()
{
end_idle:
	do
	:: atomic { timer_runs && DRAINED(IN_STARTUP) && PROMPTED(0) && !latch[0] -> latch[0] = true }
	:: atomic { timer_runs && DRAINED(IN_STARTUP) && PROMPTED(1) && !latch[1] -> latch[1] = true }
#if SESSIONS > 2
	:: atomic { timer_runs && DRAINED(IN_STARTUP) && PROMPTED(2) && !latch[2] -> latch[2] = true }
#endif
	od
}

/* ---- worker.c ---- */

proctype worker()
{
	byte smallest, first, turns, n, woken, said;
	bool due, more, tokens, xacts;
#ifdef POLL
	byte followed;
	bool polls;
#endif

	store(IN_WORKER, WORKER_LATCH, 1);
	do
	::
#ifndef WORKER_LOOKS_BEFORE_RESET
		atomic {
#ifndef NO_BARRIER_BEHIND_SHOWING
			DRAINED(IN_WORKER) ->
#endif
			worker_woken = false
		};
#endif
#ifdef POLL
		/* look, from time to time, only while somebody waits */
		polls = READ(IN_WORKER, SMALLEST) != NOBODY_WAITS;
		if
		:: polls ->
			followed = server_replayed;
			store(IN_WORKER, REPLAYED, followed);
			barrier(IN_WORKER)
		:: else
		fi;
#endif
		/* AwaitPublication() */
		READ(IN_WORKER, REPLAYED) == REPLAY_ENDED || server_replayed >= READ(IN_WORKER, REPLAYED);
		do
		:: wake_due_waiters(IN_WORKER, true);
			if
			:: more
			:: else -> break
			fi
		od;
#ifdef WORKER_LOOKS_BEFORE_RESET
		atomic { DRAINED(IN_WORKER) -> worker_woken = false };
#endif
end_asleep:
#ifdef POLL
		worker_woken || (polls && server_replayed != followed)
#else
		worker_woken
#endif
	od
}

/* ---- primary_link.c, HandOutAnswer() ---- */

#ifdef LINK
/* the answer to session 0: its target, on the first timeline */
proctype link()
{
	byte smallest, first, turns, n, woken, said, replayed, place;
	bool due, more, tokens, xacts, at_once;

	at[0] != NOT_QUEUED && KIND(0) == QUESTION;
	atomic {
		at_once = server_timeline != 1 || T0 <= server_replayed;
		replayed = server_replayed
	};
	atomic {
		lock(IN_LINK);
#ifndef ANSWER_JUDGED_BEFORE_LOCK
		at_once = at_once || READ(IN_LINK, TOKENS_SAID) > replayed;
#endif
		handed = true;
		if
		:: at[0] != NOT_QUEUED ->
			place = (at_once -> AT_ONCE : T0);
			at[0] = place;
			store(IN_LINK, PLACE, place);
			publish_smallest(IN_LINK)
		:: else
		fi;
		unlock(IN_LINK)
	};
	do
	:: wake_due_waiters(IN_LINK, true);
		if
		:: more
		:: else -> break
		fi
	od
}
#endif

/* ---- what is checked ---- */

/* Has it left, or is there nothing yet for which to wake it? */
#define NOT_LATE(i) (gone[i] || i == STUCK || \
	(mem[REPLAYED] != REPLAY_ENDED && \
	 (KIND(i) == XACT -> mem[XACT_ENDED] == 0 : \
	  (KIND(i) == QUESTION && !handed) || \
	  (server_replayed < TARGET(i) && (!HAS_TIMELINE(i) || server_timeline == 1)))))

#if SESSIONS == 2
#define NOBODY_LATE (NOT_LATE(0) && NOT_LATE(1))
#define ALL_GONE (gone[0] && gone[1])
#else
#define NOBODY_LATE (NOT_LATE(0) && NOT_LATE(1) && NOT_LATE(2))
#define ALL_GONE (gone[0] && gone[1] && gone[2])
#endif

active proctype check()
{
	bool woken, no_leftover;

	timeout ->
	assert(at_the_end);
#ifndef STOP
	woken = NOBODY_LATE;
	assert(woken);
	no_leftover = !ALL_GONE || (on_their_way == 0 && xact_waiters == 0 &&
		mem[SMALLEST] == NOBODY_WAITS && mem[LOCK] == 0);
	assert(no_leftover)
#endif
}

init
{
	byte i;

	atomic {
		for (i : 0 .. SESSIONS - 1) {
#ifdef ASLEEP
			at[i] = (KIND(i) == XACT -> LAST_TARGET : TARGET(i));
			asleep[i] = true;
			if
			:: KIND(i) == XACT -> xact_waiters++
			:: else
			fi;
#else
			at[i] = NOT_QUEUED;
#endif
			mem[PLACE + i] = at[i];
			run session(i)
		}
		i = 0;
		mem[SMALLEST] = FIRST;
		run startup();
#ifdef LINK
		run link();
#endif
#if TIMER
		run timer();
#endif
#if WORKER == 1
		mem[WORKER_LATCH] = 1;
#endif
#if WORKER
		run worker()
#endif
	}
}
