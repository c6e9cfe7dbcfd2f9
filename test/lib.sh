# What test/check, test/demo/run and test/bench/run share: getting the tools,
# a private installation, an unprivileged user, and a primary with a standby.
#
# Sourced by bash, with "set -euo pipefail" and the top of the tree as working
# directory.  begin() sets WORK, a scratch directory that is removed at exit, and
# goes to a copy of the tree in it.

PG_CONFIG=${PG_CONFIG:-pg_config}

say() { printf '%s\n' "$*"; }
die() { printf 'lsn_tracker: %s\n' "$*" >&2; exit 1; }

have() {
	local command
	for command; do command -v "$command" >/dev/null || return 1; done
}

# Is everything here that building and testing take?
have_tools() {
	local pgxs
	pgxs=$("$PG_CONFIG" --pgxs 2>/dev/null) || return 1
	have gcc make perl prove &&
		perl -MIPC::Run -e 1 2>/dev/null &&
		[ -x "$("$PG_CONFIG" --bindir)/postgres" ] &&
		[ -e "$pgxs" ] &&
		[ -e "$(dirname "$pgxs")/../test/perl/PostgreSQL/Test/Cluster.pm" ] &&
		printf '#include "postgres.h"\n#include "libpq/libpq.h"\n' |
			gcc -I"$("$PG_CONFIG" --includedir-server)" -fsyntax-only -x c - 2>/dev/null &&
		printf '#include <libpq-fe.h>\n' |
			gcc -I"$("$PG_CONFIG" --includedir)" -fsyntax-only -x c - 2>/dev/null
}

# Are the clients there whose examples the tests run?
have_clients() {
	find_python >/dev/null && have node npm && { have pgbouncer || [ -x /usr/sbin/pgbouncer ]; }
}

# The python that has psycopg2: Debian's package belongs to Debian's python.
find_python() {
	local python
	for python in python3 /usr/bin/python3; do
		"$python" -c 'import psycopg2' 2>/dev/null && { say "$python"; return; }
	done
	return 1
}

# The server version to install: the one that is there, else Debian's own.
debian_version() {
	if [ -x "$("$PG_CONFIG" --bindir 2>/dev/null)/postgres" ]; then
		"$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'
	else
		apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p'
	fi
}

install_tools() {
	local sudo= log="$WORK/apt.log" v clients=()
	command -v apt-get >/dev/null ||
		die "tools are missing and this is no Debian: install a PostgreSQL server (15 or later) with its development files, the GSSAPI headers, gcc, make, and perl with IPC::Run; for the tests also node, npm, psycopg2 and pgbouncer"
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || die "tools are missing: run this as root, or install sudo"
		sudo="sudo"
	fi
	say "Installing what is missing (apt-get) ..."
	export DEBIAN_FRONTEND=noninteractive
	$sudo apt-get update >"$log" 2>&1 || { cat "$log" >&2; die "apt-get update failed"; }
	v=$(debian_version)
	[ -n "$v" ] || die "Debian offers no package named postgresql"
	if [ -n "${WANT_CLIENTS:-}" ]; then
		clients=(python3-psycopg2 pgbouncer)
		# there may be another one than Debian's
		have node npm || clients+=(nodejs npm ca-certificates)
	fi
	# The server and its development files in one go, so that they match.
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		gcc libc6-dev make perl libipc-run-perl libpq-dev libkrb5-dev \
		"postgresql-$v" "postgresql-server-dev-$v" "${clients[@]}" >>"$log" 2>&1 ||
		{ tail -n 30 "$log" >&2; die "apt-get install failed"; }
	hash -r
	have_tools || die "the packages are installed, but $PG_CONFIG still does not lead to a complete server"
	[ -z "${WANT_CLIENTS:-}" ] || have_clients || die "the packages are installed, but a client is still missing: node, npm, pgbouncer, or python3 with psycopg2"
}

# The server refuses to run as root.  Everything below $WORK belongs to the
# user that runs it.
if [ "$(id -u)" = 0 ]; then
	RUN_USER=nobody
	as_user() { setpriv --reuid="$RUN_USER" --regid="$(id -g "$RUN_USER")" --clear-groups env HOME="$WORK" "$@"; }
	own() { chown -R "$RUN_USER" "$@"; }
else
	RUN_USER=$(id -un)
	as_user() { env HOME="$WORK" "$@"; }
	own() { :; }
fi

# Build, and install into a copy of the server's own tree: the programs find
# their libraries and shared files relative to where they are, so neither the
# installed server nor the machine is touched.  Sets INSTALL_BIN.
private_install() {
	local root="$WORK/install" dir log="$WORK/build.log"
	say "Building for $("$PG_CONFIG" --version) ..."
	mkdir -p "$WORK/src"
	cp -R README.md Makefile ./*.control ./*.sql src sql expected test "$WORK/src/"
	# objects that were built for another server must not be taken over
	make -C "$WORK/src" clean >/dev/null
	for dir in --pkglibdir --sharedir; do
		dir=$("$PG_CONFIG" "$dir")
		mkdir -p "$root$dir"
		cp -Rs "$dir/." "$root$dir/"
	done
	INSTALL_BIN=$root$("$PG_CONFIG" --bindir)
	mkdir -p "$INSTALL_BIN"
	cp -RL "$("$PG_CONFIG" --bindir)/." "$INSTALL_BIN/"
	make -C "$WORK/src" with_llvm=no DESTDIR="$root" install >"$log" 2>&1 || { cat "$log" >&2; die "the build failed"; }
	if grep -q 'warning:' "$log"; then
		grep -A 5 'warning:' "$log" >&2
		die "the compiler warns"
	fi
	own "$WORK"
	export PATH="$INSTALL_BIN:$PATH"
}

# Stops every server that was started below $WORK, and removes $WORK.
clean_up() {
	local status=$? pidfile
	trap '' INT TERM
	for pidfile in "$WORK"/pair/*/postmaster.pid; do
		[ -e "$pidfile" ] && as_user pg_ctl -D "$(dirname "$pidfile")" -m immediate -w stop >/dev/null 2>&1 || true
	done
	if [ -n "${KEEP_WORK:-}" ]; then
		say "Kept: $WORK"
	else
		rm -rf "$WORK"
	fi
	exit $status
}

begin() {
	umask 022
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/lsn_tracker.XXXXXX")
	chmod 755 "$WORK"
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	{ have_tools && { [ -z "${WANT_CLIENTS:-}" ] || have_clients; }; } || install_tools
	# the private installation has one of its own, and comes first in PATH
	PG_CONFIG=$(command -v "$PG_CONFIG")
	private_install
	# the unprivileged user may not be allowed to look into the tree itself
	cd "$WORK/src"
}

# A port on which nothing listens on the loopback interface.
free_port() {
	perl -MIO::Socket::INET -e '
		my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1", LocalPort => 0)
			or die "no free port: $!\n";
		print $s->sockport'
}

# Start a primary and a streaming standby with the library preloaded, in
# $WORK/pair.  Arguments: lines for both servers' configuration.  Sets SOCKETS,
# PRIMARY_PORT and STANDBY_PORT.
start_pair() {
	local pair="$WORK/pair" line
	SOCKETS=$pair
	PRIMARY_PORT=$(free_port)
	STANDBY_PORT=$(free_port)
	mkdir "$pair"
	own "$pair"
	as_user initdb -D "$pair/primary" -U postgres -A trust --no-sync >"$WORK/initdb.log" || { cat "$WORK/initdb.log" >&2; die "initdb failed"; }
	{
		say "listen_addresses = ''"
		say "unix_socket_directories = '$pair'"
		say "shared_preload_libraries = 'lsn_tracker'"
		for line in "$@"; do say "$line"; done
	} >>"$pair/primary/postgresql.conf"
	start_server primary "$PRIMARY_PORT"
	as_user pg_basebackup -h "$pair" -p "$PRIMARY_PORT" -U postgres -D "$pair/standby" -R -c fast --no-sync
	start_server standby "$STANDBY_PORT"
	on_primary "CREATE EXTENSION lsn_tracker" >/dev/null
	await_standby "SELECT count(*) = 1 FROM pg_extension WHERE extname = 'lsn_tracker'"
}

# Wait until a query on the standby answers true, a minute at most.
await_standby() {
	local i
	for i in $(seq 600); do
		[ "$(on_standby "$1")" = t ] && return
		sleep 0.1
	done
	die "the standby did not come so far: $1"
}

# Start one of them.  Arguments: its name, its port.
start_server() {
	as_user pg_ctl -D "$WORK/pair/$1" -o "-p $2" -l "$WORK/pair/$1.log" -w start >/dev/null ||
		{ cat "$WORK/pair/$1.log" >&2; die "the $1 did not start"; }
}

on_primary() { psql -h "$SOCKETS" -p "$PRIMARY_PORT" -U postgres -d postgres -XAtq -v ON_ERROR_STOP=1 -c "$1"; }
on_standby() { psql -h "$SOCKETS" -p "$STANDBY_PORT" -U postgres -d postgres -XAtq -v ON_ERROR_STOP=1 -c "$1"; }

# How client programs that use libpq are compiled, and linked.
client_cc() {
	say "gcc -O2 -Wall -Wextra -Werror -I$("$PG_CONFIG" --includedir)"
}
client_libs() {
	say "-L$("$PG_CONFIG" --libdir) -Wl,-rpath,$("$PG_CONFIG" --libdir) -lpq -lm"
}

# Compile one.  Arguments: source, result.
compile_client() {
	# shellcheck disable=SC2046
	$(client_cc) -o "$2" "$1" $(client_libs)
}
