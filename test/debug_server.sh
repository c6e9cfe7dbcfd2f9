# A server built from Debian's source package with assertions and with gcc's
# address sanitizer, and its source tree.  The extension is built with the sanitizer
# for undefined behaviour, too; the server would take twice as long with it, and its own
# behaviour is not what is tested here.
#
# Sourced after test/lib.sh and test/roots.sh.  The build is kept in $CACHE/debug;
# remove that directory to have it made again.
DEBUG_CFLAGS='-O2 -g -fno-omit-frame-pointer -fsanitize=address'

# The server's makefiles do less when another make calls them.
unset MAKELEVEL MAKEFLAGS MFLAGS

# Leaks are not looked for: the server leaves its memory to the end of the
# process on purpose.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:disable_coredump=0
export UBSAN_OPTIONS=print_stacktrace=1

# Get the source package $2 of the Debian release $3 to the directory $1: with a list
# of sources of our own, the machine's apt need not offer them.
get_source() {
	local apt="$1/apt" get
	mkdir -p "$apt/lists/partial"
	say "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $3 main" >"$apt/sources.list"
	get=(apt-get -q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$apt/lists"
		-o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=)
	"${get[@]}" update && (cd "$1" && "${get[@]}" source "$2")
}

build_server() {
	local log="$debug/build.log" step
	say "Building PostgreSQL $version with assertions and sanitizers (once; minutes) ..."
	have bison flex dpkg-source && [ -e /usr/include/zlib.h ] || apt_install bison flex dpkg-dev zlib1g-dev
	rm -rf "$debug"
	mkdir -p "$debug"
	# shellcheck disable=SC1091
	get_source "$debug" "postgresql-$version" "$(. /etc/os-release && say "$VERSION_CODENAME")" >"$log" 2>&1 || { cat "$log" >&2; die "Debian's source package of postgresql-$version could not be had"; }
	mv "$debug/postgresql-$version"-*/ "$debug/source"
	own "$debug"
	# Debian's source installs over the packaged server unless the prefix
	# contains "pgsql"
	cd "$debug/source"
	for step in \
		"./configure --prefix=$debug/pgsql --enable-cassert --enable-debug --enable-tap-tests --without-readline --without-icu" \
		"make -s -j$(nproc)" \
		"make -s install" \
		"make -s -j$(nproc) -C contrib" \
		"make -s -C contrib install" \
		"make -s -C src/test/perl install" \
		"make -s -C src/test/regress" \
		"make -s -C src/test/isolation install"; do
		say "  ${step%% --prefix*}"
		# shellcheck disable=SC2086
		as_user env CFLAGS="$DEBUG_CFLAGS" \
			$step >>"$log" 2>&1 || { tail -n 30 "$log" >&2; die "building the server failed: $step"; }
	done
	cd "$OLDPWD"
	say "$DEBUG_CFLAGS" >"$debug/built"
}

# Have the server, and lead PG_CONFIG to it.  Sets DEBUG_SOURCE, its source tree.
debug_server() {
	# the server's own configure asks for what its tests take
	WANT_CLIENTS=1
	get_tools
	version=$(server_version)
	debug=$CACHE/debug/$version
	# one that is left from another time may have been built in another way
	[ "$(cat "$debug/built" 2>/dev/null)" = "$DEBUG_CFLAGS" ] || build_server
	DEBUG_SOURCE=$debug/source
	export PG_CONFIG="$debug/pgsql/bin/pg_config"
	# what PGXS adds to the server's own
	export COPT='-fsanitize=undefined -fno-sanitize-recover=all'
}
