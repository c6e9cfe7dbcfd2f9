# Versions that meet: SQL objects of another version than the library, on the way from
# each version to this one; a server of a pair without the library, as in a rolling
# restart, and promoted so; and the library taken away again.  Nothing of it crashes a
# server, stops replication, or makes a read wrong.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $version = slurp_file("$FindBin::RealBin/../../lsn_tracker.control") =~ /^default_version = '(.*)'$/m ? $1 : die;
my @older = qw(1.0 1.1);
my ($primary, $standby) = new_pair('versions', 'lsn_tracker.default_timeout = 60s', 'wal_level = logical');
my ($out, $err);

# Run SQL in a database; returns what it says, errors with their SQLSTATEs, too.
sub says
{
	my ($node, $dbname, $sql) = @_;
	my (undef, $o, $e) = $node->psql($dbname, "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);
	return $o . join '', $e =~ /(?:ERROR|FATAL|WARNING):  .*/g;
}

sub unhurt
{
	my ($name) = @_;
	foreach my $node ($primary, $standby)
	{
		unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC:|TRAP:|AddressSanitizer/, "$name: no crash: " . $node->name);
	}
	return;
}

#
# SQL objects: from each version to this
#
# What there is of them: definitions, and who may use them
my $objects = <<'SQL';
SELECT pg_describe_object(classid, objid, objsubid), pg_get_functiondef(p.oid), pg_get_viewdef(c.oid),
	coalesce(p.proacl, c.relacl), obj_description(objid, classid::regclass::name)
FROM pg_depend
	LEFT JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
	LEFT JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'lsn_tracker')
ORDER BY 1
SQL
# What the library's functions are called with, and what they return
my $symbols = <<'SQL';
SELECT prosrc, pg_get_function_arguments(p.oid) || ' -> ' || pg_get_function_result(p.oid)
FROM pg_proc p WHERE probin = '$libdir/lsn_tracker'
SQL
my %declared;
sub note_symbols
{
	my ($dbname, $of) = @_;
	foreach (split /\n/, $primary->safe_psql($dbname, $symbols))
	{
		my ($symbol, $declaration) = split /\|/, $_, 2;
		$declared{$symbol}{$declaration}{$of} = 1;
	}
	return;
}

foreach my $old (@older)
{
	$primary->safe_psql('postgres', "CREATE DATABASE \"from_$old\"");
	$primary->safe_psql("from_$old", "CREATE EXTENSION lsn_tracker VERSION '$old'; CREATE TABLE t (i int)");
	note_symbols("from_$old", $old);
}
note_symbols('postgres', $version);

# A library that gets more columns asked of it than it knows reads what is not there, so
# what is declared otherwise has to be another function of the library.  Once it was not:
# the columns that 1.1 added are passed by value, and no library but that of 1.0 lacks them.
delete $declared{lsn_waiters}{ (grep { $declared{lsn_waiters}{$_}{'1.0'} } keys %{ $declared{lsn_waiters} })[0] };
is_deeply([ grep { keys %{ $declared{$_} } != 1 } sort keys %declared ], [], "no function of the library is declared in two ways");

# All that each version has
my %calls = (
	'1.0' => [ 'lsn_wait(%s)', 'lsn_wait(%s, 0)', 'lsn_require(%s) IS NOT NULL', 'lsn_replicated(%s)', 'lsn_last_replay() >= %s', 'lsn_watch(%s - 1) >= %s',
		'lsn_request_notification(%s) IS NOT NULL', 'lsn_await_notification()', 'lsn_await_notification(0)' ],
	'1.1' => [ "lsn_wait('%s\@1')", "lsn_require('%s\@1', 0) IS NOT NULL", "lsn_replicated('%s\@1')", "lsn_watch('%s\@1', 1) IS DISTINCT FROM '0/0'", "lsn_request_notification('%s\@1') IS NOT NULL",
		'lsn_last_commit() IS NULL' ],
	$version => [ "coalesce(lsn_staleness(), '0') >= '0'", "lsn_eta(%s) >= '0'", "lsn_eta('%s\@1') >= '0'", '(SELECT count(*) FROM lsn_waiters()) = 0', '(SELECT count(*) FROM pg_stat_lsn_tracker) = 1',
		'(SELECT count(*) FROM pg_stat_lsn_tracker_waits) > 0', "pg_stat_lsn_tracker_reset()::text = ''" ]);

# What versions have is there for a server that has replayed a target; or is not, but that
# is said.
sub calls
{
	my ($name, $node, $dbname, $target, $expected, @versions) = @_;
	my @bad;

	foreach my $call (map { @{ $calls{$_} } } @versions)
	{
		next if $node == $primary && $call =~ /lsn_last_replay|lsn_watch|notification/;
		my $sql = "SELECT $call";
		$sql =~ s/'%s/'$target/g;
		$sql =~ s/%s/'$target'::pg_lsn/g;
		$sql = "SELECT lsn_request_notification('$target'::pg_lsn);\n$sql" if $sql =~ /await/;
		my $says = says($node, $dbname, $sql);
		push @bad, "$sql: $says" if $says !~ $expected;
	}
	is(join("\n", @bad), '', "$name: calls of @versions: " . $node->name);
	return;
}
my $works = qr/^\n?t\z/;

# With the library of this one
foreach my $old (@older)
{
	my $dbname = "from_$old";
	my $target = insert_lsn($primary);

	catch_up($primary, $standby);
	calls("SQL of $old", $_, $dbname, $target, $works, grep { $_ le $old } sort keys %calls) foreach $primary, $standby;
	is(says($primary, $dbname, 'SELECT lsn_last_replay(); SELECT count(*) FROM lsn_waiters()'), "\n0", "SQL of $old: primary");
	my $xid = $primary->safe_psql('postgres', 'INSERT INTO t VALUES (1) RETURNING pg_current_xact_id()');
	is(says($standby, $dbname, "SELECT lsn_wait_xact('$xid')"), 't', "SQL of $old: a transaction") if $old ge '1.1';
}

# The update comes to a standby on which sessions use what it replaces.
foreach my $old (@older)
{
	my $dbname = "from_$old";
	my $future = future_lsn($primary, 2_000_000);
	my @waiting = map { my $s = $standby->background_psql($dbname, on_error_stop => 0); start_wait($s, $_) } "SELECT lsn_wait('$future')",
	  "SET lsn_tracker.token = '$future\@1';\nSELECT count(*) FROM t",
	  "SET lsn_tracker.token = '$future\@1';\n\\set VERBOSITY verbose\nSELECT count(pid) FROM lsn_waiters()";
	my $prepared = $standby->background_psql($dbname, on_error_stop => 0);

	await_waiters($standby, 3);
	$prepared->query('PREPARE w AS SELECT count(pid) FROM lsn_waiters()');
	is($prepared->query('EXECUTE w'), 3, "SQL of $old: who waits");
	is($standby->safe_psql($dbname, "SELECT count(*) FROM lsn_waiters() WHERE target = '$future'" . ($old ge '1.1' ? ' AND xid IS NULL' : '')), 3, "SQL of $old: and for what");
	is($standby->safe_psql($dbname, 'SELECT count(timeline) FROM lsn_waiters()'), 2, "SQL of $old: and on which timeline") if $old ge '1.1';

	$primary->safe_psql($dbname, 'ALTER EXTENSION lsn_tracker UPDATE; INSERT INTO t VALUES (1)');
	is($primary->safe_psql($dbname, $objects), $primary->safe_psql('postgres', $objects), "from $old: what a new installation has");
	like(says($primary, $dbname, "ALTER EXTENSION lsn_tracker UPDATE TO '$old'"), qr/^ERROR:  22023: .*no update path/, "and not back to $old");
	catch_up($primary, $standby);
	is($prepared->query('EXECUTE w'), 3, "from $old: what was prepared before");
	is($standby->safe_psql($dbname, 'SELECT count(*) FROM lsn_waiters() WHERE waitstart IS NOT NULL'), 3, "from $old: the standby has it, too");
	reach($primary, $future);
	is(scalar finish_wait($waiting[0]), 't', "from $old: who waited in the meantime, in a function");
	is(scalar finish_wait($waiting[1]), '1', "from $old: at the gate");
	# what it was parsed with is no more
	like(join('', finish_wait($waiting[2])), qr/^\d\z/, "from $old: at the gate, with a function that was replaced");
	$_->quit foreach @waiting, $prepared;
}
unhurt('SQL objects');

# SQL objects of a version to come, which a primary with that library has made (this one
# has to be told a lie for it): a server says what it lacks.
$primary->safe_psql('postgres', <<'SQL');
CREATE FUNCTION tomorrow() RETURNS interval AS '$libdir/lsn_tracker', 'lsn_staleness' LANGUAGE C;
CREATE VIEW tomorrows AS SELECT tomorrow();
SET allow_system_table_mods = on;
UPDATE pg_proc SET prosrc = 'lsn_tomorrow' WHERE proname = 'tomorrow';
SQL
catch_up($primary, $standby);
foreach my $node ($primary, $standby)
{
	like(says($node, 'postgres', "SELECT $_"), qr/^ERROR:  42883: could not find function "lsn_tomorrow" in file/, 'SQL of a version to come: ' . $node->name . ": $_") foreach 'tomorrow()', '* FROM tomorrows';
}
like(says($primary, 'postgres', q{CREATE FUNCTION f() RETURNS int AS '$libdir/lsn_tracker', 'lsn_tomorrow' LANGUAGE C}), qr/^ERROR:  42883: /, 'and is not installed where the library is older');

# Which library a server has loaded
SKIP:
{
	skip 'servers before 18 do not tell', 2 if $primary->pg_version < 18;
	is($_->safe_psql('postgres', "SELECT version FROM pg_get_loaded_modules() WHERE module_name = 'lsn_tracker'"), $version, 'the version of the library: ' . $_->name) foreach $primary, $standby;
}

# Who may create objects in a database may have it there, and gets no more than anybody.
$primary->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE DATABASE owned OWNER owner');
is(says($primary, 'owned', "SET ROLE owner; CREATE EXTENSION lsn_tracker VERSION '1.0'; ALTER EXTENSION lsn_tracker UPDATE; SELECT lsn_wait('0/1')"), 't', 'an owner installs and updates it');
is($primary->safe_psql('owned', $objects), $primary->safe_psql('postgres', $objects), 'as a superuser does');
like(says($primary, 'owned', "SET ROLE owner; $_"), qr/^ERROR:  42501: /, "but may not: $_")
  foreach 'SELECT pg_stat_lsn_tracker_reset()', 'GRANT EXECUTE ON FUNCTION pg_stat_lsn_tracker_reset() TO owner', 'SET lsn_tracker.log_waits = on',
  q{CREATE OR REPLACE FUNCTION lsn_wait(target text, timeout bigint DEFAULT NULL) RETURNS boolean LANGUAGE sql AS 'SELECT true'};
is(says($primary, 'owned', 'SET ROLE owner; DROP EXTENSION lsn_tracker'), '', 'and removes it');

#
# The library: rolling restarts
#
my $newest = 'SET lsn_tracker.max_staleness = 0; SELECT count(*) FROM t';

# What has been written: counted on the primary
sub rows { return $primary->safe_psql('postgres', 'SELECT count(*) FROM t') }

# Restart a node with the library or without.
sub preload
{
	my ($node, $library) = @_;
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', $library ? "'lsn_tracker'" : "''");
	$node->restart;
	return;
}

# A row more, which the standby has.
sub one_more
{
	my $here = $primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_current_wal_insert_lsn()');
	$standby->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$here'") or die 'the standby does not follow';
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'), rows(), 'the standby follows');
	return $here;
}

# Without the library, its settings are there all the same, and mean nothing.
$primary->safe_psql('postgres', 'ALTER ROLE owner SET lsn_tracker.max_staleness = 0; GRANT SELECT ON t TO owner');
catch_up($primary, $standby);
preload($_, 0) foreach $standby, $primary;
one_more();
foreach my $node ($primary, $standby)
{
	is(says($node, 'postgres', "SET lsn_tracker.token = 'FF/0\@1'; SELECT count(*) FROM t"), rows(), 'no library: a token is not waited for: ' . $node->name);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t', extra_params => [ '-U', 'owner' ]), rows(), "no library: a role's setting: " . $node->name);
	like(says($node, 'postgres', "SELECT $_"), qr/^ERROR:  55000: lsn_tracker must be loaded/, 'no library: ' . $node->name . ": $_")
	  foreach "lsn_wait('0/1')", 'lsn_last_commit()', "lsn_eta('0/1')", 'lsn_staleness()', '* FROM lsn_waiters()', '* FROM pg_stat_lsn_tracker', '* FROM pg_stat_lsn_tracker_waits', 'pg_stat_lsn_tracker_reset()';
}

# The standby first.
$primary->safe_psql('postgres', 'CREATE ROLE early LOGIN; GRANT SELECT ON t TO early; ALTER ROLE early SET lsn_tracker.tomorrow = 1');
preload($standby, 1);
my $here = one_more();

# Settings of a version to come: whoever has them by the role can connect.
(undef, $out, $err) = $standby->psql('postgres', 'SELECT count(*) FROM t', extra_params => [ '-U', 'early' ]);
is($out, rows(), "a setting to come, a role's");
like($err, qr/^WARNING:  invalid configuration parameter name "lsn_tracker.tomorrow"/m, 'with a warning');
like(says($standby, 'postgres', 'SET lsn_tracker.tomorrow = 1'), qr/^ERROR:  42602: /, 'a setting to come, SET');
{
	local $ENV{PGOPTIONS} = '-c lsn_tracker.tomorrow=1';
	# by the command line: psql does not come to read its input
	IPC::Run::run([ 'psql', '-XAtq', '-c', 'SELECT 1', $standby->connstr('postgres') ], '2>', \$err);
	like($err, qr/FATAL:  invalid configuration parameter name "lsn_tracker.tomorrow"/, "a setting to come, a connection's");
}

# Positions are waited for; the primary answers no questions, and says why.
is(says($standby, 'postgres', "SELECT lsn_wait('$here')"), 't', 'standby first: a position');
pause($standby);
$here = $primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_current_wal_insert_lsn()');
my $waiter = start_wait(session($standby), "SET lsn_tracker.token = '$here';\nSELECT count(*) FROM t");
await_waiters($standby, 1);
resume($standby);
is(scalar finish_wait($waiter), rows(), 'standby first: at the gate');
$waiter->quit;
is(says($primary, 'postgres', 'INSERT INTO t VALUES (1); SHOW lsn_tracker.token'), 'ERROR:  42704: unrecognized configuration parameter "lsn_tracker.token"', 'standby first: the primary has no tokens');
catch_up($primary, $standby);
# once the primary has been asked in vain
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
do
{
	(undef, undef, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSET lsn_tracker.default_timeout = 1000; $newest", on_error_stop => 0);
} until $err =~ /shared_preload/ || time > $until;
like($err, qr/ERROR:  55L01: .*lsn_tracker is not in its shared_preload_libraries/s, 'standby first: a strong read says what is missing');
like(says($standby, 'postgres', "SET lsn_tracker.default_timeout = 1000; SET lsn_tracker.on_timeout = stale; $newest"), qr/^${\rows()}WARNING:  01000: /, 'standby first: or reads what is there');

# Then the primary: the standby notices by itself.
preload($primary, 1);
one_more();
my $token = write_token($primary) =~ s/^\n//r;
is(says($standby, 'postgres', "SET lsn_tracker.token = '$token'; SELECT count(*) FROM t"), rows(), 'then the primary: a token');
is(says($standby, 'postgres', $newest), rows(), 'then the primary: a strong read');

# The other way round
preload($standby, 0);
one_more();
$token = write_token($primary) =~ s/^\n//r;
like($token, qr/\@1$/, 'only the primary: has tokens');
is($primary->safe_psql('postgres', $newest), rows(), 'only the primary: reads');
$primary->wait_for_catchup($standby);
is(says($standby, 'postgres', "SET lsn_tracker.token = '$token'; SELECT count(*) FROM t"), rows(), 'only the primary: the standby waits for nothing');

# Promoted without the library, and followed by a standby that has it
$primary->stop;
$standby->promote;
my $old = $primary;
$primary = $standby;
$standby = add_standby($primary, 'versions_third', "shared_preload_libraries = 'lsn_tracker'");
one_more();
is(says($standby, 'postgres', "SELECT lsn_wait('$token')"), 't', 'promoted without the library: a token of the old timeline');
preload($primary, 1);
one_more();
$token = write_token($primary) =~ s/^\n//r;
like($token, qr/\@2$/, 'and tokens of the new one, once it has the library');
is(says($standby, 'postgres', "SET lsn_tracker.token = '$token'; $newest"), rows(), 'which a standby knows');

#
# Removal, under those who wait
#
my $future = future_lsn($primary, 2_000_000);
my @waiting = map { start_wait(session($standby), $_) } "SELECT lsn_wait('$future')", "SET lsn_tracker.token = '$future\@2';\nSELECT count(*) FROM t";
await_waiters($standby, 2);
$primary->safe_psql('postgres', 'DROP VIEW tomorrows; DROP FUNCTION tomorrow(); DROP EXTENSION lsn_tracker');
catch_up($primary, $standby);
like(says($standby, 'postgres', "SELECT lsn_wait('$token')"), qr/^ERROR:  42883: /, 'removed: no function');
is($standby->safe_psql("from_$older[0]", 'SELECT count(*) FROM lsn_waiters()'), 2, 'and those who wait, wait on');
reach($primary, $future);
is(scalar finish_wait($waiting[0]), 't', 'removed: whoever waited, in a function');
is(scalar finish_wait($waiting[1]), rows(), 'removed: at the gate');
$_->quit foreach @waiting;
is(says($standby, 'postgres', $newest), rows(), 'removed: what is a setting does without');
preload($standby, 0);
one_more();
preload($primary, 0);
one_more();
is($_->safe_psql('postgres', 'SELECT count(*) FROM t', extra_params => [ '-U', 'owner' ]), rows(), 'removed: settings that were left: ' . $_->name) foreach $primary, $standby;

# and back, to an older version's objects
preload($_, 1) foreach $standby, $primary;
$primary->safe_psql('postgres', "CREATE EXTENSION lsn_tracker VERSION '1.0'");
$here = one_more();
is(says($standby, 'postgres', "SELECT lsn_wait('$here'); $newest"), "t\n" . rows(), 'and back, to 1.0');

unhurt('rolling restarts');
($primary, $standby) = ($old, $primary);
unhurt('rolling restarts');
$_->stop foreach grep { $_->{_pid} } $primary, $standby;

#
# The library: an older one
#

# Compile it from what git's history has of it (lib.sh: copy_older); returns in which directory
# it is.
sub older_library
{
	my ($old) = @_;
	my $sources = "$FindBin::RealBin/../older/$old/src";
	my $dir = PostgreSQL::Test::Utils::tempdir();

	not_tested("no library of $old: no git history, and no package of it"), return if !-d $sources;
	# the headers of a server that knows GSSAPI want it, and that of 1.0 wants them
	mkdir "$dir/gssapi";
	append_to_file("$dir/gssapi/gssapi.h", "typedef void *gss_ctx_id_t, *gss_cred_id_t, *gss_name_t;\ntypedef struct { size_t length; void *value; } gss_buffer_desc;\n");
	append_to_file("$dir/gssapi/gssapi_ext.h", '');
	my $log = `$ENV{MODULE_CC} -Wno-error -I '$dir' -o '$dir/lsn_tracker.so' '$sources'/*.c 2>&1`;
	return $dir if !$?;
	not_tested("no library of $old: it does not compile for this server");
	diag($log);
	return;
}

foreach my $old (@older)
{
  SKIP:
	{
		my $dir = older_library($old) or skip "no library of $old", 1;
		my %has;

		# In one database SQL objects of this version, in the other the older ones.  Dynamic
		# loading knows a loaded library by its file, and $libdir has the newer one, so
		# functions have to look for it where shared_preload_libraries does.
		($primary, $standby) = new_pair("library_$old" =~ s/\W//gr, q{dynamic_library_path = '$libdir'});
		$primary->safe_psql('postgres', 'CREATE DATABASE older');
		$primary->safe_psql('older', "CREATE EXTENSION lsn_tracker VERSION '$old'");
		$primary->safe_psql($_, q{UPDATE pg_proc SET probin = 'lsn_tracker' WHERE probin = '$libdir/lsn_tracker'}) foreach qw(postgres older);
		catch_up($primary, $standby);
		$has{ $_->name } = $version foreach $primary, $standby;

		# back from this version and up again, standby first; up, primary first
		foreach my $step ([ $standby, $old ], [ $primary, $old ], [ $standby, $version ], [ $primary, $version ],
			[ $standby, $old ], [ $primary, $old ], [ $primary, $version ], [ $standby, $version ])
		{
			my ($node, $library) = @$step;
			$node->adjust_conf('postgresql.conf', 'dynamic_library_path', $library eq $old ? "'$dir:\$libdir'" : q{'$libdir'});
			$node->restart;
			$has{ $node->name } = $library;

			my $name = "library of $has{$primary->name}, the standby's of $has{$standby->name}";
			my $target = one_more();
			foreach my $node ($primary, $standby)
			{
				calls("$name, SQL of $old", $node, 'older', $target, $works, grep { $_ le $old } sort keys %calls);
				is(says($node, 'older', 'SELECT count(*) FROM lsn_waiters()'), '0', "$name, SQL of $old: " . $node->name . ': who waits');
				calls($name, $node, 'postgres', $target, $works, grep { $_ le $has{ $node->name } } sort keys %calls);
				calls($name, $node, 'postgres', $target, qr/^ERROR:  42883: could not find function "\w+" in file/m, grep { $_ gt $has{ $node->name } } sort keys %calls);
				like(says($node, 'postgres', 'SET lsn_tracker.max_staleness = 0'), $has{ $node->name } eq $version ? qr/^\z/ : qr/^ERROR:  42602: /, "$name: " . $node->name . ': a new setting');
			}
			like(says($primary, 'postgres', q{CREATE FUNCTION f() RETURNS interval AS 'lsn_tracker', 'lsn_staleness' LANGUAGE C; DROP FUNCTION f()}),
				$has{ $primary->name } eq $version ? qr/^\z/ : qr/^ERROR:  42883: /, "$name: a new function");

			my $future = future_lsn($primary);
			my $waiter = start_wait(session($standby), "SELECT lsn_wait('$future'::pg_lsn, 0)");
			$standby->poll_query_until('older', 'SELECT count(*) = 1 FROM lsn_waiters()') or die 'nobody waits';
			like(says($standby, 'postgres', 'SELECT * FROM lsn_waiters()'), $has{ $standby->name } eq $version ? qr/^\d+\|/ : qr/^ERROR:  42883: /, "$name: who waits, as the new version tells it");
			reach($primary, $future);
			is(scalar finish_wait($waiter), 't', "$name: and gets there");
			$waiter->quit;
			if (!grep { $_ lt '1.1' } values %has)
			{
				my $token = write_token($primary) =~ s/^\n//r;
				is(says($standby, 'postgres', "SET lsn_tracker.token = '$token'; SELECT count(*) FROM t"), rows(), "$name: a token");
			}
			next if $has{ $standby->name } ne $version;
			my $expected = $has{ $primary->name } eq $version ? qr/^${\rows()}\n?\z/ : qr/ERROR:  55L01: .*lsn_tracker is not .* or of a version that is too old/s;
			$until = time + $PostgreSQL::Test::Utils::timeout_default;
			do
			{
				(undef, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSET lsn_tracker.default_timeout = 1000; $newest", on_error_stop => 0);
			} until "$out$err" =~ $expected || time > $until;
			like("$out$err", $expected, "$name: a strong read");
		}
		unhurt("libraries of $old and $version");
		$_->stop foreach $standby, $primary;
	}
}
done_testing();
