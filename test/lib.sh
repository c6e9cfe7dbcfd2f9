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

# What does building and testing take that is not here?  Debian's packages of it.
missing_tools() {
	local v
	printf '#include <stdio.h>\n' | gcc -fsyntax-only -x c - 2>/dev/null || say gcc libc6-dev
	have make || say make
	have perl prove || say perl
	perl -MIPC::Run -e 1 2>/dev/null || say libipc-run-perl
	[ -n "$(server_lacks)" ] || return 0
	# The server and its development files in one go, so that they match.
	v=$(server_version)
	say libpq-dev "postgresql${v:+-$v}" "postgresql-server-dev-${v:-all}"
}

# What does the server lack that PG_CONFIG leads to?
server_lacks() {
	local pgxs
	pgxs=$("$PG_CONFIG" --pgxs 2>/dev/null) || { say "$PG_CONFIG"; return; }
	[ -x "$("$PG_CONFIG" --bindir)/postgres" ] || say "the server itself"
	[ -e "$pgxs" ] || say "the makefiles for extensions"
	[ -e "$(dirname "$pgxs")/../test/perl/PostgreSQL/Test/Cluster.pm" ] || say "PostgreSQL::Test::Cluster (configure --enable-tap-tests)"
	have gcc || return 0
	printf '#include "postgres.h"\n' |
		gcc -I"$("$PG_CONFIG" --includedir-server)" -fsyntax-only -x c - 2>/dev/null || say "postgres.h"
	printf '#include <libpq-fe.h>\n' |
		gcc -I"$("$PG_CONFIG" --includedir)" -fsyntax-only -x c - 2>/dev/null || say "libpq-fe.h"
}

# The clients whose examples the tests run, and the debugger: what is not here?
# Debian's packages of it.  With NODE_MODULES, npm has done its work already.
missing_clients() {
	find_python >/dev/null || say python3-psycopg2 python3-psycopg
	# there may be another one than Debian's
	have node || say nodejs
	[ -n "${NODE_MODULES:-}" ] || have npm || say npm ca-certificates
	have pgbouncer || [ -x /usr/sbin/pgbouncer ] || say pgbouncer
	have haproxy || [ -x /usr/sbin/haproxy ] || say haproxy
	have gdb || say gdb
	have patroni etcd curl || say patroni etcd-server python3-etcd curl
	have prometheus prometheus-postgres-exporter || say prometheus prometheus-postgres-exporter
	[ -e "$("$PG_CONFIG" --pkglibdir)/repmgr.so" ] || repmgr_package "$("$PG_CONFIG" --bindir)"
}

# Debian's package of repmgr; nothing if it has none for the server, whose library it is: forky
# has none at all, and sid one for an older server than experimental's.  Argument: where
# the server's programs are.
repmgr_package() {
	case $1 in
		/usr/lib/postgresql/15/bin) say postgresql-15-repmgr ;;
		/usr/lib/postgresql/17/bin) say postgresql-17-repmgr ;;
	esac
}

# The python that has psycopg2 and psycopg: Debian's packages belong to Debian's
# python.
find_python() {
	local python
	for python in python3 /usr/bin/python3; do
		"$python" -c 'import psycopg2, psycopg' 2>/dev/null && { say "$python"; return; }
	done
	return 1
}

# The server's major version; empty if there is none.
server_version() {
	[ ! -x "$("$PG_CONFIG" --bindir 2>/dev/null)/postgres" ] || "$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'
}

# apt-get install, with what it says going to a file unless it fails.  Says why,
# and returns false, if that can't be done.
apt_install() {
	local log="$WORK/apt.log"
	have apt-get || { say "Missing, and this is no Debian to install them: $*" >&2; return 1; }
	# before sudo's questions, and what it says, go to the file
	as_root true || { say "Missing, and not installed for want of a superuser's rights: $*" >&2; return 1; }
	say "Installing what is missing (apt-get): $*"
	as_root apt-get update >"$log" 2>&1 || { cat "$log" >&2; say "apt-get update failed" >&2; return 1; }
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1 ||
		{ tail -n 30 "$log" >&2; say "apt-get install failed: $*" >&2; return 1; }
	hash -r
}

# Have everything here that building and testing take; and with WANT_CLIENTS the
# clients, as far as they can be had.
get_tools() {
	local missing
	read -ra missing -d '' <<<"$(missing_tools)" || true
	if [ "${#missing[@]}" -gt 0 ]; then
		case $("$PG_CONFIG" --bindir 2>/dev/null) in
			'' | /usr/lib/postgresql/*) ;;
			*) [ -z "$(server_lacks)" ] || die "the server that $PG_CONFIG leads to is not complete: $(server_lacks | paste -sd ';')" ;;
		esac
		apt_install "${missing[@]}" || exit 1
		[ -z "$(missing_tools)" ] || die "the packages are installed, but $PG_CONFIG still does not lead to a complete server: $(server_lacks | paste -sd ';')"
	fi
	[ -n "${WANT_CLIENTS:-}" ] || return 0
	read -ra missing -d '' <<<"$(missing_clients)" || true
	[ "${#missing[@]}" = 0 ] || apt_install "${missing[@]}" || say "Tests that take these are skipped."
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
		have sudo || { say "this takes a superuser's rights: run it as root, or install sudo" >&2; return 1; }
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

# The sources of each version before this, as its last commit in git's history has them, to
# test/older/VERSION in a copy of the tree.  Nothing where there is no history.  Arguments: the
# tree, the copy.
copy_older() {
	local script version commit
	for script in "$1"/lsn_tracker--*--*.sql; do
		version=${script##*/lsn_tracker--}
		version=${version%%--*}
		commit=$(git -C "$1" log -1 --format=%H -S"default_version = '$version'" -- lsn_tracker.control 2>/dev/null) &&
			commit=$(git -C "$1" rev-parse -q --verify "$commit^") || continue
		mkdir -p "$2/test/older/$version"
		git -C "$1" archive "$commit" src | tar -x -C "$2/test/older/$version"
	done
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
	make -C "$WORK/src" -j"$(nproc)" with_llvm=no DESTDIR="$root" install >"$log" 2>&1 || { cat "$log" >&2; die "the build failed"; }
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
	# a file system in it, which only test/soak has
	[ -z "${SMALL:-}" ] || as_root umount "$SMALL" || true
	if [ -n "${KEEP_WORK:-}" ]; then
		say "Kept: $WORK"
	else
		rm -rf "$WORK"
	fi
	exit $status
}

# Get the packages that Node.js clients take, as the directory $1 lists them, unless
# the caller has them already.  Sets NODE_MODULES.  Says why not, and returns false, if
# that can't be done.
node_modules() {
	[ -z "${NODE_MODULES:-}" ] || return 0
	have node npm || return 1
	cp -R "$1" "$WORK/node"
	(cd "$WORK/node" && npm ci --prefer-offline --no-audit --no-fund >"$WORK/npm.log" 2>&1) ||
		{ cat "$WORK/npm.log" >&2; say "npm could not install the Node.js client." >&2; return 1; }
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
	get_tools
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

# Compile a client.  Arguments: result, sources.
compile_client() {
	local result=$1
	shift
	# shellcheck disable=SC2046
	$(client_cc) -o "$result" "$@" $(client_libs)
}
