# lsn_tracker, a PGXS extension
#
#	make, make install, make installcheck	as with every extension
#	make check		build, and test on throw-away servers
#	make check-debug	the same on a server built with assertions and sanitizers
#	make check-versions	the same on each supported server, or VERSIONS="17 19"
#	make check-packages	build and test the Debian packages; VERSIONS as above
#	make lint		warnings as errors, cppcheck, shellcheck, formatting
#	make dist		the archive for PGXN, of what is committed
#	make demo		show what it does on a throw-away primary and standby
#	make bench		measure it; QUICK=1 for a first look
#
# All but the first line and dist run as root or as a user with sudo, need
# nothing installed on a Debian machine, and leave the installed server alone.

MODULE_big = lsn_tracker
OBJS = \
	src/commit_position.o \
	src/freshness.o \
	src/functions.o \
	src/gate.o \
	src/locks.o \
	src/lsn_tracker.o \
	src/plan.o \
	src/replay.o \
	src/shared_state.o \
	src/snapshot.o \
	src/statement_target.o \
	src/token.o \
	src/wait.o \
	src/waiters.o \
	src/worker.o \
	src/xact.o

EXTENSION = lsn_tracker
DATA = lsn_tracker--1.0.sql lsn_tracker--1.0--1.1.sql
PGFILEDESC = "lsn_tracker - read your writes on standbys"
REGRESS = lsn_tracker tokens

PG_CONFIG ?= pg_config
export PG_CONFIG

# Not together with PGXS: it has a "check" of its own, which only says that it
# can't, and it need not be installed yet.
OWN_GOALS = check check-debug check-packages check-versions dist lint demo bench
ifneq ($(filter $(OWN_GOALS),$(MAKECMDGOALS)),)

# as PGXN has it: three numbers
DISTVERSION = $(shell sed -n 's/^ *"version": "\(.*\)",$$/\1/p' META.json | head -n 1)

check:
	@test/check
check-debug:
	@test/debug
check-versions:
	@test/versions $(VERSIONS)
check-packages:
	@test/packages $(VERSIONS)
dist:
	git archive --format=zip --prefix=lsn_tracker-$(DISTVERSION)/ -o lsn_tracker-$(DISTVERSION).zip HEAD
lint:
	@test/lint
demo:
	@KEEP='$(KEEP)' test/demo/run
bench:
	@QUICK='$(QUICK)' test/bench/run

.PHONY: $(OWN_GOALS)

else

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(wildcard $(PGXS)),)
$(error $(PG_CONFIG) leads to no server development files; install them (Debian: postgresql-server-dev-NN) or give PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)

$(OBJS): src/lsn_tracker.h src/compat.h

endif
