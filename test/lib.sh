# What the scripts in this directory share: getting the tools, a private
# installation, an unprivileged user, and a primary with a standby.
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
		printf '#include "postgres.h"\n' |
			gcc -I"$("$PG_CONFIG" --includedir-server)" -fsyntax-only -x c - 2>/dev/null &&
		printf '#include <libpq-fe.h>\n' |
			gcc -I"$("$PG_CONFIG" --includedir)" -fsyntax-only -x c - 2>/dev/null
}

# Are the clients there whose examples the tests run, and the debugger?  With NODE_MODULES, npm has
# done its work already.
have_clients() {
	find_python >/dev/null && have node gdb && { [ -n "${NODE_MODULES:-}" ] || have npm; } &&
		{ have pgbouncer || [ -x /usr/sbin/pgbouncer ]; }
}

# The python that has psycopg2: Debian's package belongs to Debian's python.
find_python() {
	local python
	for python in python3 /usr/bin/python3; do
		"$python" -c 'import psycopg2' 2>/dev/null && { say "$python"; return; }
	done
	return 1
}

# The server's major version; empty if there is none.
server_version() {
	[ ! -x "$("$PG_CONFIG" --bindir 2>/dev/null)/postgres" ] || "$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'
}

# apt-get install, with what it says going to a file unless it fails.
apt_install() {
	local log="$WORK/apt.log"
	command -v apt-get >/dev/null || die "missing, and this is no Debian to install them: $*"
	say "Installing what is missing (apt-get) ..."
	as_root apt-get update >"$log" 2>&1 || { cat "$log" >&2; die "apt-get update failed"; }
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1 ||
		{ tail -n 30 "$log" >&2; die "apt-get install failed"; }
	hash -r
}

install_tools() {
	local v clients=()
	command -v apt-get >/dev/null ||
		die "tools are missing and this is no Debian: install a PostgreSQL server (15 or later) with its development files, gcc, make, and perl with IPC::Run; for the tests also node, npm, psycopg2, pgbouncer and gdb"
	v=$(server_version)
	if [ -n "${WANT_CLIENTS:-}" ]; then
		clients=(python3-psycopg2 pgbouncer gdb)
		# there may be another one than Debian's
		if [ -n "${NODE_MODULES:-}" ]; then
			have node || clients+=(nodejs)
		else
			have node npm || clients+=(nodejs npm ca-certificates)
		fi
	fi
	# The server and its development files in one go, so that they match.
	apt_install gcc libc6-dev make perl libipc-run-perl libpq-dev \
		"postgresql${v:+-$v}" "postgresql-server-dev-${v:-all}" "${clients[@]}"
	have_tools || die "the packages are installed, but $PG_CONFIG still does not lead to a complete server"
	[ -z "${WANT_CLIENTS:-}" ] || have_clients || die "the packages are installed, but something is still missing: node, npm, pgbouncer, gdb, or python3 with psycopg2"
}

# The server refuses to run as root.  Everything below $WORK belongs to the
# user that runs it.  What takes long to make and is kept between runs is below
# $CACHE, which that user can read.
if [ "$(id -u)" = 0 ]; then
	RUN_USER=nobody
	CACHE=/var/cache/lsn_tracker
	as_root() { "$@"; }
	as_user() { setpriv --reuid="$RUN_USER" --regid="$(id -g "$RUN_USER")" --clear-groups env HOME="$WORK" "$@"; }
	own() { chown -R "$RUN_USER" "$@"; }
else
	RUN_USER=$(id -un)
	CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lsn_tracker
	as_root() {
		have sudo || die "this takes a superuser's rights: run it as root, or install sudo"
		sudo "$@"
	}
	as_user() { env HOME="$WORK" "$@"; }
	own() { :; }
fi

# Copy the sources, all that git would, to a new directory $1.
copy_tree() {
	mkdir -p "$1"
	tar -c --exclude-vcs --exclude-ignore=.gitignore . | tar -x -C "$1"
}

# Build, and install into a copy of the server's own tree: the programs find
# their libraries and shared files relative to where they are, so neither the
# installed server nor the machine is touched.  Sets INSTALL_BIN.
private_install() {
	local root="$WORK/install" dir log="$WORK/build.log"
	say "Building for $("$PG_CONFIG" --version) ..."
	copy_tree "$WORK/src"
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

# Get the packages that the Node.js client takes, unless the caller has them
# already.  Sets NODE_MODULES.
node_modules() {
	[ -z "${NODE_MODULES:-}" ] || return 0
	cp -R test/clients "$WORK/node"
	(cd "$WORK/node" && npm ci --prefer-offline --no-audit --no-fund >"$WORK/npm.log" 2>&1) ||
		{ cat "$WORK/npm.log" >&2; die "npm could not install the Node.js client"; }
	NODE_MODULES=$WORK/node/node_modules
	own "$WORK/node"
}

# A scratch directory.
make_work() {
	umask 022
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/lsn_tracker.XXXXXX")
	chmod 755 "$WORK"
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

begin() {
	make_work
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

# How client programs that use libpq are compiled, and linked.  A libpq that was
# built with sanitizers needs programs that were, too.
client_cc() {
	say "gcc -O2 -Wall -Wextra -Werror $("$PG_CONFIG" --cflags | grep -o -e '-fsanitize=[^ ]*' | xargs) -I$("$PG_CONFIG" --includedir)"
}
client_libs() {
	say "-L$("$PG_CONFIG" --libdir) -Wl,-rpath,$("$PG_CONFIG" --libdir) -lpq -lm"
}

# How another server library is compiled.
module_cc() {
	say "gcc -O2 -Wall -Werror -fPIC -shared $("$PG_CONFIG" --cflags | grep -o -e '-fsanitize=[^ ]*' | xargs) -I$("$PG_CONFIG" --includedir-server)"
}

# Compile a client.  Arguments: source, result.
compile_client() {
	# shellcheck disable=SC2046
	$(client_cc) -o "$2" "$1" $(client_libs)
}
