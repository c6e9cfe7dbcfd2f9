/*
 * words.pml
 *		Two words that are read without a lock.
 *
 * What several places of src/ rest on: one process writes a word and then another one that
 * says so (a flag, a number, a place in the queue), who reads goes the other way; or it
 * moves something from one place to another (-DMOVE), and who looks for it begins with
 * the first place.
 *
 * A barrier that is left out is the two accesses in the other order, as in commit.pml.
 *
 * Checked, always:
 *	told		who reads that a word is there reads that word
 *	found		what is moved is found in one of its places, or both
 */

#define WRITER 0
#define READER 1
#define PROCESSES 2

#define WORD 0
#define SAYS_SO 1
#define FIRST 0						/* the two places */
#define SECOND 1
#define WORDS 2

#define STORED (buffered[0] + buffered[1])

#include "memory.pml"

proctype writer()
{
#ifdef MOVE
	store(WRITER, SECOND, 1);
	store(WRITER, FIRST, 0)
#elif defined(SAID_BEFORE_WRITTEN)
	store(WRITER, SAYS_SO, 1);
	store(WRITER, WORD, 1)
#else
	store(WRITER, WORD, 1);
	store(WRITER, SAYS_SO, 1)
#endif
}

proctype reader()
{
#ifdef MOVE
	bool first, second;

#ifdef SECOND_PLACE_FIRST
	second = READ(READER, SECOND);
#endif
	first = READ(READER, FIRST);
#ifndef SECOND_PLACE_FIRST
	second = READ(READER, SECOND);
#endif
	assert(first || second)					/* found */
#else
	bool word, says_so;

#ifdef READ_BEFORE_ASKED
	word = READ(READER, WORD);
#endif
	says_so = READ(READER, SAYS_SO);
#ifndef READ_BEFORE_ASKED
	word = READ(READER, WORD);
#endif
	assert(!says_so || word)				/* told */
#endif
}

init
{
	atomic {
#ifdef MOVE
		mem[FIRST] = 1;
#endif
		run writer();
		run reader()
	}
}
