# lsn_tracker, a PGXS extension
#
#	make, make install, make installcheck	as with every extension
#	make check		build, and test on throw-away servers
#	make check-debug	the same on a server built with assertions and sanitizers
#	make check-suites	the server's own tests on that server, the library preloaded: nothing
#				may change; or SUITES="recovery regress+gate", see test/suites
#	make check-versions	the same on each supported server, or VERSIONS="17 19"
#	make check-clients	the programs of doc/clients, in the clients that they are for,
#				or CLIENTS="django rails"
#	make check-packages	build and test the Debian packages; VERSIONS as above
#	make check-threads	the queue alone, with threads, under ThreadSanitizer
#	make fuzz		bad input by every way in, on the server of check-debug; N, SEED
#	make lint		warnings as errors, cppcheck, shellcheck, formatting
#	make model		check the model of the queue, and that nothing in it can be left out
#	make dist		the archive for PGXN, of what is committed
#	make demo		show what it does on a throw-away primary and standby
#	make bench		measure it; QUICK=1 for a first look
#	make soak		believe nothing: clients read in every way beside faults of every
#				kind, and what they saw is checked; SECONDS, CLIENTS, SEED, MODE,
#				FAULTS=0 for none, VERSION=18 as check-versions does
#
# All but the first line and dist run as root or as a user with sudo, need
# nothing installed on a Debian machine, and leave the installed server alone.

MODULE_big = lsn_tracker
OBJS = \
	src/catalog_query.o \
	src/commit_position.o \
	src/deadlock.o \
	src/explain.o \
	src/forecast.o \
	src/freshness.o \
	src/functions.o \
	src/gate.o \
	src/locks.o \
	src/lsn_tracker.o \
	src/newest_commit.o \
	src/plan.o \
	src/primary_link.o \
	src/replay.o \
	src/shared_state.o \
	src/snapshot.o \
	src/staleness.o \
	src/stats.o \
	src/statement_target.o \
	src/token.o \
	src/views.o \
	src/wait.o \
	src/waiters.o \
	src/worker.o \
	src/xact.o

# The one version number.  PGXN and the packages have three numbers; make lint
# compares what can't be taken from here.
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'$$/\1/p" $(dir $(firstword $(MAKEFILE_LIST)))lsn_tracker.control)

# standbys are clients of their primaries
PG_CPPFLAGS = -I$(libpq_srcdir) -DLSN_TRACKER_VERSION='"$(EXTVERSION)"'
SHLIB_LINK_INTERNAL = $(libpq)

EXTENSION = lsn_tracker
DATA = lsn_tracker--1.0.sql lsn_tracker--1.0--1.1.sql lsn_tracker--1.1--1.2.sql
PGFILEDESC = "lsn_tracker - read your writes on standbys"
REGRESS = lsn_tracker statistics tokens

PG_CONFIG ?= pg_config
export PG_CONFIG

# Not together with PGXS: it has a "check" of its own, which only says that it
# can't, and it need not be installed yet.
OWN_GOALS = check check-clients check-debug check-packages check-suites check-threads check-versions dist fuzz lint model demo bench soak
ifneq ($(filter $(OWN_GOALS),$(MAKECMDGOALS)),)

check:
	@test/check
check-clients:
	@test/frameworks/run $(CLIENTS)
check-debug:
	@test/debug
check-suites:
	@test/suites $(SUITES)
check-versions:
	@test/versions $(VERSIONS)
check-packages:
	@test/packages $(VERSIONS)
check-threads:
	@test/threads/run
dist:
	git archive --format=zip --prefix=lsn_tracker-$(EXTVERSION).0/ -o lsn_tracker-$(EXTVERSION).0.zip HEAD
fuzz:
	@N='$(N)' SEED='$(SEED)' test/fuzz/run
lint:
	@test/lint
model:
	@test/model/run
demo:
	@KEEP='$(KEEP)' test/demo/run
bench:
	@QUICK='$(QUICK)' test/bench/run
soak:
	@test/soak/run '$(SECONDS)' '$(CLIENTS)' '$(SEED)' '$(MODE)' '$(FAULTS)' '$(VERSION)'

.PHONY: $(OWN_GOALS)

else

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(wildcard $(PGXS)),)
$(error $(PG_CONFIG) leads to no server development files; install them (Debian: postgresql-server-dev-NN) or give PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)

$(OBJS): src/lsn_tracker.h src/compat.h
src/lsn_tracker.o: lsn_tracker.control

endif
