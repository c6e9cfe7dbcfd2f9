# lsn_tracker.max_staleness: reads on standbys that are as fresh as the primary,
# or not older than a bound.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $primary = new_primary('primary', 'log_replication_commands = on');
my $standby = add_standby($primary, 'standby');
my $cascaded = add_standby($standby, 'cascaded');
$primary->safe_psql('postgres', <<'SQL');
CREATE FUNCTION reads(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) > 0 FROM t); END $$;
CREATE TABLE heir () INHERITS (pg_catalog.pg_description);
CREATE DOMAIN checked AS int CHECK (reads(VALUE));
CREATE TYPE has_checked AS (c checked);
CREATE SEQUENCE s;
CREATE FUNCTION less(int, int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN reads($1) AND $1 < $2; END';
CREATE OPERATOR <^ (LEFTARG = int, RIGHTARG = int, FUNCTION = less);
CREATE OPERATOR CLASS less FOR TYPE int USING btree AS OPERATOR 1 <^, OPERATOR 3 =, FUNCTION 1 btint4cmp(int, int);
CREATE FUNCTION same(json, json) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN reads(1) AND $1::text = $2::text; END';
CREATE FUNCTION hash(json) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT hashtext($1::text)';
CREATE OPERATOR = (LEFTARG = json, RIGHTARG = json, FUNCTION = same, HASHES);
CREATE OPERATOR CLASS same DEFAULT FOR TYPE json USING hash AS OPERATOR 1 =, FUNCTION 1 hash(json);
SQL
catch_up($primary, $cascaded);

my $count = 'SELECT count(*) FROM t';
my ($answer, $error, $token);
my $rows = $primary->safe_psql('postgres', $count);

sub add_row { $primary->safe_psql('postgres', 'INSERT INTO t VALUES (1)'); return ++$rows; }

sub questions
{
	return scalar(() = slurp_file($primary->logfile) =~ /received replication command: SHOW lsn_tracker/g);
}

# SQL in a session of its own, with settings
sub run
{
	my ($node, $set, $sql) = @_;
	my (undef, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$set;\n$sql", on_error_stop => 0);
	return ($out, $err);
}

# Strong: a statement waits for what was committed before it, whatever it is.
my $strong = 'SET lsn_tracker.max_staleness = 0';
is((run($standby, 'SET lsn_tracker.max_staleness = -1', $count))[0], $rows, 'no bound');
is(questions(), 0, 'and no question');
foreach my $node ($standby, $cascaded)
{
	my $name = $node->name;
	my $session = session($node);

	$session->query_safe("$strong; PREPARE p AS $count; SET lsn_tracker.default_timeout = 0");
	foreach my $sql ($count, "EXECUTE p", "COPY ($count) TO STDOUT", "BEGIN; DECLARE c CURSOR FOR $count; FETCH c; COMMIT",
		"BEGIN ISOLATION LEVEL REPEATABLE READ; $count; COMMIT", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ; $count")
	{
		pause($node);
		$rows = add_row();
		start_wait($session, $sql);
		await_waiters($node, 1);
		# what comes behind its beginning is not waited for
		resume($node);
		is(scalar finish_wait($session), $rows, "$name: strong: $sql");
	}
	$session->quit;
}

# One that is stopped in between by nothing that replay has to do
my $session = session($standby);
$session->query_safe($strong);
pause($standby);
my $lsn = write_clean_up($primary, 't');
$rows++;
start_wait($session, $count);
await_waiters($standby, 1);
resume($standby);
is(scalar finish_wait($session), $rows, 'replay is not held up by who waits');

# A transaction in REPEATABLE READ is as fresh as its beginning.
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $then = $session->query($count);
is($then, $rows, 'REPEATABLE READ');
$rows = add_row();
catch_up($primary, $standby);
$rows++;
is($session->query($count), $then, 'REPEATABLE READ: as fresh as its beginning');
$session->query_safe('COMMIT');
is($session->query($count), $rows, 'and then the next');
($answer, $error) = run($standby, 'SELECT 1', "BEGIN ISOLATION LEVEL REPEATABLE READ;\n$count;\n$strong;\n$count");
like($error, qr/ERROR:  55000: cannot wait for replay/, 'asked for too late: an error, not something stale');

# An open cursor: what is replayed already can be read beside it.
($answer, $error) = run($standby, $strong, "BEGIN;\nDECLARE c CURSOR FOR SELECT 1;\n$count;\nCOMMIT");
is($answer, $rows, 'beside an open cursor');

# If there is something to replay first, it can't; nor can a transaction that has its snapshot.
my %begin = (
	'beside an open cursor' => "BEGIN;\nDECLARE c CURSOR FOR SELECT 1",
	'in a REPEATABLE READ transaction' => "BEGIN ISOLATION LEVEL REPEATABLE READ;\n$count");
pause($standby);
$then = $rows;
$rows = add_row();
$token = $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
foreach my $name (sort keys %begin)
{
	foreach my $set ($strong, "SET lsn_tracker.token = '$token'")
	{
		(undef, $error) = run($standby, $begin{$name}, "$set;\n$count");
		like($error, qr/ERROR:  55000: cannot wait for replay while this session holds a snapshot/, "$set $name");
		($answer, $error) = run($standby, $begin{$name}, "SET lsn_tracker.on_timeout = stale;\n$set;\n$count;\nCOPY ($count) TO STDOUT");
		like($answer, qr/^$then\n$then\z/m, "$set $name: reads all the same");
		like($error, qr/WARNING:  01000: cannot wait for replay while this session holds a snapshot/, 'with a warning');
		unlike($error, qr/ERROR/, 'and no error');
	}
}
resume($standby);
$session->quit;

# Statements that look at the catalogs are owed nothing: nobody answers.
my $begin = questions();
my $link = stop_link($standby);
my $impatient = "$strong;\nSET lsn_tracker.default_timeout = 300";
foreach my $sql (
	'SELECT 1', 'SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn() IS NULL', 'SELECT count(*) > 0 FROM pg_class',
	"SELECT relkind, count(DISTINCT relname), row_number() OVER (ORDER BY relkind USING >) FROM pg_class GROUP BY relkind UNION SELECT 'x', 1, 2 ORDER BY 3", 'TABLE pg_stat_activity',
	"SELECT 1 WHERE ':funcid' = '2924'", 'SHOW lsn_tracker.max_staleness', 'BEGIN; COMMIT', 'VALUES (1)', 'SELECT * FROM pg_stat_replication',
	"SELECT set_config('a.b', 'c', false)", 'SELECT count(*) FROM pg_settings, pg_locks, pg_database')
{
	# a token that is owed, and reached, brings no bound with it
	foreach my $set ($impatient, "$impatient;\nSET lsn_tracker.token = '0/1'")
	{
		($answer, $error) = run($standby, $set, $sql);
		is($error, '', "looks at the catalogs: $set $sql");
	}
}
is((run($standby, $impatient, "EXPLAIN (COSTS off) $_"))[0], (run($standby, 'RESET lsn_tracker.max_staleness', "EXPLAIN (COSTS off) $_"))[0], "and is planned the same: $_")
	for ('SELECT i % 3 FROM generate_series(1, 9) i ORDER BY 1', 'SELECT relname FROM pg_class ORDER BY 1');
($answer, $error) = run($standby, $impatient, '\\d t');
like($answer, qr/i\|integer/, 'and \\d');
$primary->safe_psql('postgres', "SELECT 1");
foreach my $sql (
	$count, 'SELECT 1 FROM t', 'SELECT 1 FROM t WHERE i::oid <> 0', "SELECT 1 FROM t WHERE i::oid <> '-'::regclass", 'SELECT 1 FROM pg_description',
	"SELECT array_in('{5}', 'checked'::regtype, -1)", 'EXPLAIN ANALYZE SELECT 1 FROM t', "SELECT query_to_xml('SELECT 1', true, true, '')", "SELECT lo_get(1)",
	'SELECT 1 FROM pg_largeobject', "SELECT word FROM ts_stat('SELECT ''a''::tsvector')", 'SELECT lsn_replicated(\'0/1\')',
	'SELECT 5::checked', "SELECT '{5}'::checked[]", "SELECT * FROM json_to_record('{\"a\": 5}') AS x(a checked)", "SELECT json_populate_record(NULL::has_checked, '{\"c\": 5}')",
	"SELECT domain_in('5', 'checked'::regtype, -1)", 'SELECT ROW(5)::has_checked', 'TABLE pg_sequences', 'SELECT pg_export_snapshot()', 'SELECT pg_last_committed_xact()',
	'SELECT i FROM generate_series(1, 3) i ORDER BY i USING <^', 'SELECT array_agg(i ORDER BY i USING <^) FROM generate_series(1, 3) i',
	'SELECT DISTINCT to_json(i) FROM generate_series(1, 3) i', 'SELECT to_json(1) UNION SELECT to_json(1)',
	"SELECT (SELECT count(*) FROM t)", "WITH x AS MATERIALIZED ($count) SELECT * FROM x", 'DO $$BEGIN END$$', 'BEGIN ISOLATION LEVEL REPEATABLE READ')
{
	($answer, $error) = run($standby, $impatient, $sql);
	like($error, qr/ERROR:  55L01: timed out after \d+ ms while asking the primary/, "reads: $sql");
}
like($error, qr/DETAIL:  The upstream server has not told it: .*CONTEXT:  waiting for lsn_tracker.max_staleness in front of a statement/s, 'and says why');

# stale: reads all the same.
($answer, $error) = run($standby, "$impatient;\nSET lsn_tracker.on_timeout = stale", $count);
is($answer, $rows, 'reads all the same');
like($error, qr/WARNING:  01000: timed out after 300 ms while asking the primary/, 'with a warning');
kill 'CONT', $link;

# Replay that is behind
pause($standby);
$then = $rows;
$rows = add_row();
my $start = time;
($answer, $error) = run($standby, $impatient, $count);
like($error, qr/ERROR:  55L01: timed out after 300 ms while waiting for replay of .*DETAIL:  Replay has reached .* bytes to go.*HINT:  WAL replay is paused/s,
	'replay is behind');
($answer, $error) = run($standby, "$impatient;\nSET lsn_tracker.on_timeout = stale", $count);
is($answer, $then, 'stale data');
like($error, qr/WARNING:  01000: timed out after 300 ms while waiting for replay of/, 'with a warning');

($answer, $error) = run($standby, "$impatient;\nSET lsn_tracker.on_timeout = stale", "BEGIN ISOLATION LEVEL REPEATABLE READ;\n$count;\n$count;\nCOMMIT");
is($answer, "$then\n$then", 'in REPEATABLE READ, too');
unlike($error, qr/ERROR/, 'with a warning');

# A stronger bound in a transaction that has begun under a weaker one
($answer, $error) = run($standby, "$impatient;\nSET lsn_tracker.max_staleness = '1h'", "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET LOCAL lsn_tracker.max_staleness = 0;\n$count");
like($error, qr/ERROR:  55L01: timed out after 300 ms while waiting for replay of/, 'a stronger bound');
is($answer, '', 'is not met by the weaker one');

# A token and a bound, both
$token = write_token($primary);
$rows++;
$session = session($standby);
start_wait($session, "$strong; SET lsn_tracker.token = '$token'; $count");
await_waiters($standby, 1);
resume($standby);
is(scalar finish_wait($session), $rows, 'a token and a bound');
$session->quit;

# By role, database and connection
$primary->safe_psql('postgres', 'CREATE ROLE report LOGIN; GRANT SELECT ON t TO report; ALTER ROLE report SET lsn_tracker.max_staleness = 0');
catch_up($primary, $standby);
$rows++;
pause($standby);
$rows = add_row();
$session = $standby->background_psql('postgres', extra_params => [ '-U', 'report' ]);
start_wait($session, $count);
await_waiters($standby, 1);
resume($standby);
is(scalar finish_wait($session), $rows, 'by a role');
$session->quit;

# How old the data may be
my $staleness = 'SELECT extract(epoch FROM lsn_staleness()) * 1000';
is($primary->safe_psql('postgres', $staleness) + 0, 0, 'lsn_staleness: a primary');
ok($standby->poll_query_until('postgres', "SELECT ($staleness) < 1000"), 'a standby that keeps up');
cmp_ok($standby->safe_psql('postgres', $staleness), '>=', 0, 'in milliseconds');
pause($standby);
add_row();
my $old = time;
$standby->safe_psql('postgres', $staleness);
my $least = 1000 * (time - $old);
my $is = $standby->safe_psql('postgres', $staleness);
cmp_ok($is, '>=', $least, 'replay stands: as old as that');
resume($standby);
cmp_ok($standby->safe_psql('postgres', $staleness), '<', $is, 'it goes on');
my $unasked = add_standby($primary, 'unasked', "lsn_tracker.primary_conninfo = 'host=/nowhere'");
is($unasked->safe_psql('postgres', $staleness), '', 'one that cannot ask does not know');
# longer than this machine has been up
($answer, $error) = run($unasked, "SET lsn_tracker.default_timeout = 300;\nSET lsn_tracker.max_staleness = '24d'", $count);
like($error, qr/ERROR:  55L01: timed out after 300 ms while asking the primary/, 'nor does a long bound let it pass');
$unasked->stop;

# On a primary there is nothing to wait for, and nobody asks.
is((run($primary, $strong, $count))[0], $rows, 'on a primary');

# Bounded: replay is delayed.
my $delayed = add_standby($primary, 'delayed', "recovery_min_apply_delay = '2s'");
$delayed->poll_query_until('postgres', "SELECT count(*) = $rows FROM t") or die 'the delayed standby is not there';
my $heart = start_wait(session($primary), 'CREATE TABLE heart AS SELECT clock_timestamp() AS beat');
finish_wait($heart);
$heart->quit;
my $beat = $primary->basedir . '/beat.sql';
append_to_file($beat, "UPDATE heart SET beat = clock_timestamp();\n\\sleep 20 ms\n");
my %beats = (out => '', err => '');
$beats{run} = IPC::Run::start([ 'pgbench', '-n', '-T', 600, '-h', $primary->host, '-p', $primary->port, '-f', $beat, 'postgres' ],
	'>', \$beats{out}, '2>', \$beats{err});
$delayed->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_class WHERE relname = 'heart'") or die 'no heart';
my $age = 'SELECT extract(epoch FROM clock_timestamp() - beat) * 1000 FROM heart';

$start = time;
($answer, $error) = run($delayed, "SET lsn_tracker.max_staleness = 500;\nSET lsn_tracker.default_timeout = 1000", $age);
like($error, qr/55L01: timed out after 1000 ms while waiting for replay/, 'a bound of 500 ms is refused');
cmp_ok(time - $start, '<', 2 * patience(), 'in time');

$session = session($delayed);
$session->query_safe("SET lsn_tracker.max_staleness = '5s'");
$session->query_safe($age);
my ($slow, $oldest, $n) = (0, 0, 0);
my $until = time + 8;
while (time < $until)
{
	$start = time;
	$is = $session->query($age);
	my $took = 1000 * (time - $start);
	# of the beginning
	$oldest = $is - $took if $is - $took > $oldest;
	$slow++ if $took > 1000;
	$n++;
	usleep(5000);
}
cmp_ok($oldest, '<', 5000, "a bound of 5 s is kept, by $n reads");
cmp_ok($oldest, '>', 1900, 'of data that is old');
# replay is 2 s behind: it would wait each time; this machine may hold one up
cmp_ok($slow, '<=', $n / 10, 'and does not wait');
$session->quit;

# The bound holds while replay does not go on at all.
pause($delayed);
$session = session($delayed);
$session->query_safe("SET lsn_tracker.max_staleness = '3s'; SET lsn_tracker.default_timeout = 100");
my $refused = 0;
$oldest = 0;
$until = time + 4;
while (time < $until)
{
	$start = time;
	my ($is, $err) = finish_wait(start_wait($session, $age));
	$refused++ if $err =~ /timed out/;
	$oldest = $is - 1000 * (time - $start) if $is ne '' && $is - 1000 * (time - $start) > $oldest;
	usleep(5000);
}
cmp_ok($oldest, '<', 3000, 'replay stands: nothing older than the bound is read');
cmp_ok($refused, '>', 3, 'but refused');
resume($delayed);
$session->quit;
$beats{run}->signal('TERM');
$beats{run}->finish;

# An idle primary: a bound passes, with few questions.
catch_up($primary, $standby);
$rows++;
$session = session($standby);
$session->query_safe("SET lsn_tracker.max_staleness = '2s'; $count");
$begin = questions();
$until = time + 3;
$n = 0;
while (time < $until)
{
	is($session->query($count), $rows, 'idle') if $n == 0;
	$session->query($count);
	$n++;
}
$n = questions() - $begin;
cmp_ok($n, '<=', 6, "an idle primary is asked $n times in 3 s for a bound of 2 s");
cmp_ok($n, '>=', 2, 'but is asked');
$session->quit;

$_->stop foreach $delayed, $cascaded, $standby, $primary;
done_testing();
