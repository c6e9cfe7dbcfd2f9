# Debian systems of other releases, for testing on the servers they ship: a
# directory tree each, made with debootstrap and kept in $CACHE between runs.
#
# Sourced after test/lib.sh.  What runs in a root runs in namespaces of its own:
# its mounts and whatever it leaves running vanish with it.

ALL_VERSIONS="15 17 18 19"

# Which Debian has which server.  experimental is an addition to sid.
suite_of() {
	case $1 in
		15) say bookworm ;;
		17) say trixie ;;
		18) say forky ;;
		19) say experimental ;;
		*) return 1 ;;
	esac
}

# The mirror that this machine's apt uses.
mirror() {
	local uri
	uri=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 2>/dev/null | sed -n 's/^Debian Debian //p' | head -n 1)
	say "${uri:-http://deb.debian.org/debian/}"
}

# Run a command with the root $1 ready for use.  init's part, collecting
# orphans, is the first bash's.
with_root() {
	# shellcheck disable=SC2016
	as_root unshare --mount --pid --fork bash -c '
		mount -t proc proc "$1/proc" && mkdir -p "$1/dev/shm" && mount -t tmpfs shm "$1/dev/shm" || exit
		shift
		"$@"
		exit $?' bash "$@"
}

# Run a command in the root $1 as its superuser, without this machine's
# environment.
in_root() {
	local root=$1
	shift
	with_root "$root" chroot "$root" \
		env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" "$@"
}

# Get a root of a server version in which nothing is installed yet but the
# smallest Debian.  Sets ROOT, which stays as it is: install in a copy.  Says why
# not, and returns false, if that can't be done.  Argument: the version.
clean_root() {
	local suite base mirror
	suite=$(suite_of "$1") || { say "there is no Debian with PostgreSQL $1 (known: $ALL_VERSIONS)"; return 1; }
	ROOT=$CACHE/roots/$suite.clean
	[ ! -d "$ROOT" ] || return 0
	base=$suite
	[ "$suite" != experimental ] || base=sid
	mirror=$(mirror)
	say "Making a Debian $suite in $ROOT ..."
	as_root mkdir -p "$CACHE/roots"
	as_root rm -rf "$ROOT.new"
	# debootstrap may be older than the suite; they are all made alike
	as_root debootstrap --variant=minbase --include=ca-certificates "$base" "$ROOT.new" "$mirror" /usr/share/debootstrap/scripts/sid \
		>"$WORK/debootstrap.log" 2>&1 || { tail -n 5 "$WORK/debootstrap.log"; return 1; }
	{
		say "deb $mirror $base main"
		case $suite in
			experimental) say "deb $mirror experimental main" ;;
			bookworm | trixie) say "deb ${mirror%/}-security $suite-security main" ;;
		esac
	} | as_root tee "$ROOT.new/etc/apt/sources.list" >/dev/null
	# the server is all that is wanted from experimental
	printf 'Package: src:postgresql-%s\nPin: release a=experimental\nPin-Priority: 500\n' "$1" |
		as_root tee "$ROOT.new/etc/apt/preferences.d/server" >/dev/null
	# mirrors of the moving suites may lag; a test is no place to insist
	say 'Acquire::Check-Valid-Until "false";' | as_root tee "$ROOT.new/etc/apt/apt.conf.d/99test" >/dev/null
	# packages must not start servers here
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$ROOT.new/usr/sbin/policy-rc.d" >/dev/null
	as_root chmod +x "$ROOT.new/usr/sbin/policy-rc.d"
	as_root mv "$ROOT.new" "$ROOT"
}

# Get a root of a server version for a purpose of its own, made from the clean
# one and kept, with these packages in it, up to date.  Sets ROOT.  Says why not,
# and returns false, if that can't be done.  Arguments: the version, the purpose,
# packages.
root_with() {
	local purpose=$2
	clean_root "$1" || return
	if [ ! -d "${ROOT%.clean}.$purpose" ]; then
		as_root rm -rf "${ROOT%.clean}.$purpose.new"
		as_root cp -a "$ROOT" "${ROOT%.clean}.$purpose.new"
		as_root mv "${ROOT%.clean}.$purpose.new" "${ROOT%.clean}.$purpose"
	fi
	ROOT=${ROOT%.clean}.$purpose
	shift 2
	say "Installing what it takes in $ROOT ..."
	{
		in_root "$ROOT" apt-get update &&
			in_root "$ROOT" apt-get install -y --no-install-recommends "$@"
	} >"$WORK/install.log" 2>&1 || { tail -n 20 "$WORK/install.log"; return 1; }
	in_root "$ROOT" apt-get clean
}

# Run make with these arguments on a server version, in its root for tests.  Sets ROOT;
# the tree is in $ROOT/src.  Says why not, and returns false, if that can't be done.
# Arguments: the version, make's.
make_in_root() {
	local version=$1
	shift
	have debootstrap unshare || apt_install debootstrap util-linux || return
	# shellcheck disable=SC2046
	root_with "$version" test make gcc libc6-dev perl libipc-run-perl libpq-dev \
		python3-psycopg2 python3-psycopg pgbouncer haproxy patroni etcd-server python3-etcd curl prometheus prometheus-postgres-exporter nodejs gdb libfaketime "postgresql-$version" "postgresql-server-dev-$version" \
		$(repmgr_package "/usr/lib/postgresql/$version/bin") || return
	as_root rm -rf "$ROOT/src"
	copy_tree "$WORK/tree.$version"
	copy_older . "$WORK/tree.$version"
	[ -z "${NODE_MODULES:-}" ] || cp -R "$NODE_MODULES" "$WORK/tree.$version/node_modules"
	as_root mv "$WORK/tree.$version" "$ROOT/src"
	# what takes no packages of Node.js has none there
	in_root "$ROOT" env ${CI:+CI=$CI} ${WITHOUT_PROGRAMS:+WITHOUT_PROGRAMS=$WITHOUT_PROGRAMS} NODE_MODULES=/src/node_modules PG_CONFIG="/usr/lib/postgresql/$version/bin/pg_config" make -C /src "$@"
}
