/*
 * memory.pml
 *		Shared memory behind store buffers (TSO), for the models in this directory.
 *
 * What a process stores goes into a buffer of its own, first in, first out, and
 * from there to the memory at any later time.  Its own loads see its own stores
 * at once.  A full barrier waits until the buffer is empty; so does an atomic
 * read-modify-write, which then works on the memory itself.
 *
 * A release of the queue's lock is only a store here, behind those made under it.
 * (The server's is a full barrier; that is not relied on.)
 *
 * Before: PROCESSES, how many have a buffer, and WORDS, how many words there are.
 */

#define DEPTH 4

byte mem[WORDS];
byte buffered[PROCESSES];				/* how many stores are in the buffer */
byte address[PROCESSES * DEPTH];			/* where to, oldest first */
byte content[PROCESSES * DEPTH];			/* and what */

#define LATER(me, k, w) (buffered[me] > k && address[(me) * DEPTH + k] == w)

/* the newest own store, or else what is in memory */
#define READ(me, w) \
	(LATER(me, 3, w) -> content[(me) * DEPTH + 3] : \
	(LATER(me, 2, w) -> content[(me) * DEPTH + 2] : \
	(LATER(me, 1, w) -> content[(me) * DEPTH + 1] : \
	(LATER(me, 0, w) -> content[(me) * DEPTH] : mem[w]))))

#define DRAINED(me) (buffered[me] == 0)

inline store(me, w, v)
{
	atomic {
		buffered[me] < DEPTH ->
		address[(me) * DEPTH + buffered[me]] = w;
		content[(me) * DEPTH + buffered[me]] = v;
		buffered[me]++
	}
}

inline barrier(me)
{
	DRAINED(me)
}

/* Moves the oldest store of some process to the memory. */
active proctype memory()
{
	byte p;

end_nothing_to_store:
	do
	:: atomic {
		STORED > 0 ->
		if
		:: buffered[0] > 0 -> p = 0
#if PROCESSES > 1
		:: buffered[1] > 0 -> p = 1
#endif
#if PROCESSES > 2
		:: buffered[2] > 0 -> p = 2
#endif
#if PROCESSES > 3
		:: buffered[3] > 0 -> p = 3
#endif
#if PROCESSES > 4
		:: buffered[4] > 0 -> p = 4
#endif
		fi;
		mem[address[p * DEPTH]] = content[p * DEPTH];
		address[p * DEPTH] = address[p * DEPTH + 1];
		content[p * DEPTH] = content[p * DEPTH + 1];
		address[p * DEPTH + 1] = address[p * DEPTH + 2];
		content[p * DEPTH + 1] = content[p * DEPTH + 2];
		address[p * DEPTH + 2] = address[p * DEPTH + 3];
		content[p * DEPTH + 2] = content[p * DEPTH + 3];
		address[p * DEPTH + 3] = 0;
		content[p * DEPTH + 3] = 0;
		buffered[p]--;
		p = 0
	}
	od
}
