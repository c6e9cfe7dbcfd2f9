# lsn_tracker.token: the many ways to set it, and what waits for it and what not.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $report = compile("$FindBin::RealBin/../clients/report.c");
my ($primary, $standby) = new_pair('token', 'max_standby_streaming_delay = -1', 'hot_standby_feedback = off', "lsn_tracker.default_timeout = '60s'", 'max_prepared_transactions = 1');
my $never = 'FFFFFFFF/F0000000@1';
my ($out, $err);

$primary->safe_psql('postgres', <<'SQL');
DELETE FROM t;
CREATE TABLE v AS SELECT generate_series(1, 1000) AS i;
CREATE ROLE reader LOGIN;
GRANT SELECT ON t TO reader;
CREATE FUNCTION sets_inside(token text) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
DECLARE
	n bigint := 0;
	r record;
BEGIN
	PERFORM set_config('lsn_tracker.token', token, false);
	FOR r IN SELECT 1 FROM v LOOP n := n + 1; END LOOP;
	RETURN n;
END $$;
CREATE FUNCTION forgets() RETURNS int LANGUAGE sql SET lsn_tracker.token = '' AS 'SELECT 1';
CREATE FUNCTION one(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT i); END';
CREATE FUNCTION has_clause() RETURNS bigint LANGUAGE sql SET lsn_tracker.token = 'FFFFFFFF/F0000000@1' AS 'SELECT count(*) FROM t';
SQL
catch_up($primary, $standby);
my $rows = $primary->safe_psql('postgres', 'SELECT count(*) FROM t');

# Write a row while replay is paused; have somebody wait for it and go on.  Returns
# what he said.
sub waits
{
	my ($start, $finish) = @_;
	pause($standby);
	my $token = write_token($primary);
	$rows++;
	my $client = $start->($token);
	await_waiters($standby, 1);
	resume($standby);
	return $finish->($client);
}

# A client that sends each line as one query string (psql would split it).  From a
# file: nobody feeds it while we look at the server.
sub start_report
{
	my ($lines, $connstr) = @_;
	my $script = $standby->basedir . '/report.sql';

	open my $file, '>', $script or die $!;
	print $file "$lines\n";
	close $file;
	return IPC::Run::start([ $report, $connstr // $standby->connstr('postgres') ], '<', $script, '>', \$out, '2>', \$err);
}
my $finish_report = sub { $_[0]->finish or die $err; return $out =~ s/\|[^|]*\n/\n/gr; };

my $session = session($standby);
my $finish_session = sub { my ($o, $e) = finish_wait($session); return "$o$e"; };

is(waits(sub { start_report("SET lsn_tracker.token = '$_[0]'; SELECT count(*) FROM t") }, $finish_report), "$rows|\n", 'one query string');
is(waits(sub { start_report("SELECT to_regclass('no.such'), count(*) FROM t; SET lsn_tracker.token = '$_[0]'; SELECT count(*) FROM t") }, $finish_report),
	"$rows|\n", 'one query string that has read before');
is(waits(sub { start_report("pipeline: SET lsn_tracker.token = '$_[0]' ;; SELECT count(*) FROM t") }, $finish_report), "$rows|\n", 'a pipeline');
is(waits(sub { start_report("pipeline: SELECT count(*) FROM t ;; SELECT set_config('lsn_tracker.token', '$_[0]', false) ;; SELECT count(*) FROM t") }, $finish_report),
	"$rows|\n", 'a pipeline that has read before');
is(waits(sub { start_wait($session, "SELECT set_config('lsn_tracker.token', '$_[0]', false) IS NULL;\nSELECT count(*) FROM t") }, $finish_session),
	"f\n$rows", 'set_config()');
is(waits(sub { start_wait($session, "BEGIN;\nSELECT set_config('lsn_tracker.token', '$_[0]', true) IS NULL;\nSELECT count(*) FROM t;\nCOMMIT") }, $finish_session),
	"f\n$rows", 'set_config(), local');
is(waits(sub { start_wait($session, "BEGIN;\nSET lsn_tracker.token = '$_[0]';\nROLLBACK;\nSELECT count(*) FROM t") }, sub { (finish_wait($session))[0] }),
	$rows, 'SET that is rolled back: recorded all the same');
is(waits(sub { start_wait($session, "BEGIN;\nSAVEPOINT s;\nSET LOCAL lsn_tracker.token = '$_[0]';\nROLLBACK TO s;\nSELECT count(*) FROM t;\nROLLBACK") }, sub { (finish_wait($session))[0] }),
	$rows, 'SET LOCAL that is rolled back within its transaction, too');
is(waits(sub { start_report('SELECT count(*) FROM t', $standby->connstr('postgres') . " options='-c lsn_tracker.token=$_[0]'") }, $finish_report),
	"$rows|\n", 'connection option');
is(waits(sub { start_wait($session, "SELECT sets_inside('$_[0]') IN (SELECT count(*) FROM v);\nSELECT count(*) FROM t") }, $finish_session),
	"t\n$rows", 'set within a function: the statement goes on, its cursor does not wait, the next statement does');

# A role's configuration is replicated.
my $first = write_token($primary);
$primary->safe_psql('postgres', "ALTER ROLE reader SET lsn_tracker.token = '$first'");
$rows++;
catch_up($primary, $standby);
$rows++;
is($standby->safe_psql('postgres', "SHOW lsn_tracker.token;\nSELECT count(*) FROM t", connstr => $standby->connstr('postgres') . ' user=reader'),
	"$first\n$rows", 'a role that is owed something');

# A configuration file, also on a primary
my $ahead = $primary->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() + 1000000 || '\@1'");
$_->append_conf('postgresql.conf', "lsn_tracker.token = '$ahead'"), $_->reload foreach $primary, $standby;
$standby->poll_query_until('postgres', 'SHOW lsn_tracker.token', $ahead) or die;
like(sqlstate($primary, 'SELECT 1'), qr/^22023: target \Q$ahead\E is beyond the WAL/, 'configuration file, primary');
like(sqlstate($standby, "SET lsn_tracker.default_timeout = 20;\nSELECT 1"), qr/^55L01: timed out after 20 ms/, 'configuration file, standby');
$_->append_conf('postgresql.conf', "lsn_tracker.token = ''"), $_->reload foreach $primary, $standby;
$standby->poll_query_until('postgres', 'SHOW lsn_tracker.token', '') or die;

# What does not read passes, and so does what functions run.
(undef, undef, $err) = $standby->psql('postgres', <<SQL, on_error_stop => 0);
SET lsn_tracker.default_timeout = 50;
BEGIN;
DECLARE c CURSOR FOR SELECT i FROM t;
SET lsn_tracker.token = '$never';
SHOW lsn_tracker.token;
FETCH 1 FROM c;
CLOSE c;
PREPARE p AS SELECT 1;
DEALLOCATE p;
SET work_mem = '1MB';
EXPLAIN SELECT * FROM t;
SAVEPOINT s;
ROLLBACK TO s;
LOCK TABLE t IN ROW EXCLUSIVE MODE;
COMMIT;
DISCARD PLANS;
SELECT 'raised';
SELECT 'and again';
DISCARD ALL;
SELECT count(*) FROM t;
SQL
my $n = () = $err =~ /ERROR:  timed out after 50 ms while waiting for replay of \Q$never\E/g;
is($n, 2, 'only what reads raises, each time, until it is forgotten') or diag($err);
unlike($err =~ s/ERROR:  timed out//gr, qr/ERROR/, 'and nothing else');
like($err, qr/CONTEXT:  waiting for lsn_tracker.token in front of a statement/, 'with what it was waiting for');

# SET LOCAL is owed until its transaction ends.  What could not be waited for leaves nothing
# to the next client of the connection.
foreach my $how ("SET LOCAL lsn_tracker.token = '$never'", "SELECT set_config('lsn_tracker.token', '$never', true) IS NULL")
{
	foreach my $read ('SELECT 1;', 'SAVEPOINT s; SELECT 1;', '')
	{
		foreach my $end ('COMMIT', 'ROLLBACK')
		{
			my $case = "$how; $read $end";
			(undef, $out, $err) = $standby->psql('postgres',
				"SET lsn_tracker.default_timeout = 50;\nBEGIN;\n$how;\nSHOW lsn_tracker.token;\n$read\n$end;\nSHOW lsn_tracker.token;\nSELECT 'goes on'",
				on_error_stop => 0);
			like($out, qr/^\Q$never\E\n\ngoes on\z/m, $case);
			is(() = $err =~ /ERROR:  timed out after 50 ms/g, $read ? 1 : 0, "$case: waited for within the transaction");
		}
	}
}

# What is owed to the session is owed still, whichever is set last; and what SET LOCAL has
# had waited for, the session has read.
my $little = $primary->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() + 1000000 || '\@1'");
(undef, $out, $err) = $standby->psql('postgres', <<SQL, on_error_stop => 0);
SET lsn_tracker.default_timeout = 50;
BEGIN;
SET lsn_tracker.token = '$little';
SET LOCAL lsn_tracker.token = '$never';
SELECT 1;
COMMIT;
SELECT 2;
SHOW lsn_tracker.token;
BEGIN;
SET LOCAL lsn_tracker.token = '$little';
SET lsn_tracker.token = '$never';
COMMIT;
SELECT 3;
SHOW lsn_tracker.token;
RESET lsn_tracker.token;
BEGIN;
SET LOCAL lsn_tracker.token = '$first';
SELECT 'read';
COMMIT;
SHOW lsn_tracker.token;
SQL
is($out, "$little\n$never\nread\n$first", 'SET and SET LOCAL in one transaction: what is shown');
is_deeply([ $err =~ /replay of (\S+?@\d+)/g ], [ $never, $little, $never ], 'and owed');

# What has been waited for in vain gives way to what has been set later, or is set next, which
# may be the token of another client of the connection; but not before, nor does what the
# session has read.
(undef, $out, $err) = $standby->psql('postgres', <<SQL, on_error_stop => 0);
SET lsn_tracker.default_timeout = 50;
SET lsn_tracker.token = '$never';
SET lsn_tracker.token = '$little';
SHOW lsn_tracker.token;
SELECT 1;
SHOW lsn_tracker.token;
SELECT 2;
SHOW lsn_tracker.token;
SET lsn_tracker.token = '$first';
SHOW lsn_tracker.token;
SELECT 'read';
SET lsn_tracker.token = '$little';
BEGIN;
SET LOCAL lsn_tracker.token = '$never';
SELECT 3;
ROLLBACK;
SET lsn_tracker.token = '0/1';
SHOW lsn_tracker.token;
SELECT 4;
SET lsn_tracker.token = '$never';
SELECT 5;
SET lsn_tracker.token = '0/1';
SHOW lsn_tracker.token;
SELECT 'goes on';
BEGIN;
DECLARE c CURSOR FOR SELECT 1;
SET lsn_tracker.token = '$never';
SET lsn_tracker.token = '$little';
SELECT 'hindered by the cursor';
ROLLBACK;
SELECT 6;
RESET lsn_tracker.token;
SET lsn_tracker.token = '$first';
SET lsn_tracker.token = '0/1';
SHOW lsn_tracker.token;
SELECT 'both';
SHOW lsn_tracker.token;
SQL
# 19 writes all the digits
is($out =~ s{^0/0+1$}{0/1}mr, "$little\n$little\n$little\n$first\nread\n$first\n$first\ngoes on\n0/1\nboth\n$first",
	'waited for in vain: what is shown');
is_deeply([ $err =~ /replay of (\S+?@\d+)/g ], [ $never, $little, $never, $little, $never, $never ], 'and owed');
like($err, qr/ERROR:  (?!timed out)/, 'an open cursor is an error of its own');
(undef, $out, $err) = $primary->psql('postgres', <<SQL, on_error_stop => 0);
INSERT INTO t VALUES (1);
SELECT lsn_last_commit();
SET lsn_tracker.token = '$never';
SELECT 1;
SET lsn_tracker.token = '0/1';
SHOW lsn_tracker.token;
SQL
$rows++;
like($out, qr/^(\S+)\n\1\z/, 'nor does what it has written');
like($err, qr/ERROR:.*\Q$never\E/, 'which it was, in vain');

# So it is with PREPARE TRANSACTION.
(undef, $out, $err) = $primary->psql('postgres', <<SQL, on_error_stop => 0);
BEGIN;
SET LOCAL lsn_tracker.token = '$never';
PREPARE TRANSACTION 'p';
SELECT 'goes on';
ROLLBACK PREPARED 'p';
SQL
is("$out$err", 'goes on', 'PREPARE TRANSACTION');

# A SELECT that only sets variables does not wait: where SET can't be had it is the only way
# to be rid of a token.
(undef, $out, $err) = $standby->psql('postgres', <<SQL, on_error_stop => 0);
SET lsn_tracker.default_timeout = 50;
SET lsn_tracker.token = '$never';
SELECT set_config('work_mem', '1MB', false), set_config('application_name', 'a', false);
SELECT set_config('work_mem', '2MB', false), 2;
SELECT set_config('work_mem', '2MB', false) WHERE random() < 2;
SELECT set_config('work_mem', relname, false) FROM pg_class;
SELECT set_config('lsn_tracker.token', '$first', false);
SELECT set_config('lsn_tracker.token', '', false);
SELECT 'goes on';
SQL
is($out, "1MB|a\n$first\n\ngoes on", 'set_config() alone does not wait');
is(() = $err =~ /ERROR:  timed out after 50 ms/g, 3, 'with something else it does');

# has_clause() is owed something that never comes; but that concerns the next statement of the
# transaction, and nobody else.
(undef, $out, $err) = $standby->psql('postgres', "SET lsn_tracker.default_timeout = 50;\nBEGIN;\nSELECT has_clause();\nSELECT 1;\nROLLBACK;\nSELECT has_clause();\nSELECT 'goes on'", on_error_stop => 0);
is($out, "$rows\n$rows\ngoes on", 'a function with a SET clause');
is(() = $err =~ /timed out after 50 ms/g, 1, 'the next statement');

# What forgets a token locally does so until its end, too.
(undef, $out, $err) = $standby->psql('postgres', <<SQL, on_error_stop => 0);
SET lsn_tracker.default_timeout = 50;
SET lsn_tracker.token = '$never';
BEGIN;
SET LOCAL lsn_tracker.token = '';
SELECT 1;
ROLLBACK;
BEGIN;
SET LOCAL lsn_tracker.token TO DEFAULT;
COMMIT;
SELECT forgets();
SHOW lsn_tracker.token;
SELECT 2;
RESET lsn_tracker.token;
BEGIN;
SET LOCAL lsn_tracker.token = '$never';
SET LOCAL lsn_tracker.token TO DEFAULT;
SELECT 3;
COMMIT;
SQL
is($out, "$never\n3", q(SET LOCAL '', and TO DEFAULT));
is(() = $err =~ /ERROR:  timed out after 50 ms/g, 3, 'is still owed');

# The client is told that it is not shown any more, whatever has become of the variable meanwhile.
my $told = report_client($standby->connstr('postgres'));
pause($standby);
my $local = "SET LOCAL lsn_tracker.token = '$never'";
ask($told, 'SET lsn_tracker.default_timeout = 1');
my $shown = (ask($told, 'SET lsn_tracker.track_reads = on; SELECT 1'))[2];
foreach my $case (
	[ 'shown behind a read', $local, "SELECT set_config('work_mem', '1MB', true)", 'COMMIT' ],
	[ 'rolled back', 'SAVEPOINT s', $local, 'ROLLBACK TO s', 'COMMIT' ],
	[ 'rolled back twice', 'SAVEPOINT s', $local, 'ROLLBACK TO s', 'ROLLBACK' ],
	[ 'in vain', 'SAVEPOINT s', $local, 'SELECT 1', 'ROLLBACK TO s', 'COMMIT' ],
	[ 'read all the same', 'SET LOCAL lsn_tracker.on_timeout = stale', $local, 'SELECT 1', 'COMMIT' ],
	[ 'TO DEFAULT', $local, 'SET LOCAL lsn_tracker.token TO DEFAULT' ])
{
	my ($name, @sql) = @$case;
	my @reports = map { (ask($told, $_))[2] } 'BEGIN', @sql;
	ask($told, 'ROLLBACK');
	is(join(' ', $reports[-2], $reports[-1]), "$never $shown", "SET LOCAL, $name: shown, and not any more");
}
$told->{run}->finish;
resume($standby);

# What was waited for in vain gives way to SET LOCAL as well, until the transaction ends.
(undef, $out, $err) = $standby->psql('postgres', <<SQL, on_error_stop => 0);
SET lsn_tracker.default_timeout = 50;
SET lsn_tracker.token = '$never';
SELECT 1;
BEGIN;
SET LOCAL lsn_tracker.token = '$first';
SELECT 'read';
SELECT 'both';
COMMIT;
SHOW lsn_tracker.token;
SELECT 2;
BEGIN;
SET LOCAL lsn_tracker.token = '$first';
SET lsn_tracker.token = '0/1';
COMMIT;
SELECT 'goes on';
SQL
is($out, "read\nboth\n$never\ngoes on", 'SET LOCAL behind what was waited for in vain');
is(() = $err =~ /ERROR:  timed out after 50 ms/g, 2, 'is still owed');

# Hindered by a cursor, also if it is read all the same, is not in vain.
(undef, $out, $err) = $standby->psql('postgres', <<SQL, on_error_stop => 0);
SET lsn_tracker.default_timeout = 50;
SET lsn_tracker.on_timeout = stale;
BEGIN;
DECLARE c CURSOR FOR SELECT 1;
SET lsn_tracker.token = '$never';
SET lsn_tracker.token = '$first';
SELECT 'stale';
ROLLBACK;
SET lsn_tracker.on_timeout = error;
SELECT 1;
SQL
is($out, 'stale', 'hindered by a cursor');
like($err, qr/ERROR:  timed out .* \Q$never\E/, 'is owed still');

# set_config() may be the first statement of a REPEATABLE READ transaction: it binds a parameter.
like(waits(sub { start_wait($session, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT set_config('lsn_tracker.token', '$_[0]', true);\nSELECT count(*) FROM t;\nCOMMIT") }, sub { (finish_wait($session))[0] }),
	qr/^\S+\n$rows\z/, 'set_config() as the first statement of REPEATABLE READ');
# However many statements a transaction has run, it has a snapshot of its own.
is(sqlstate($standby, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(one(i)) FROM generate_series(1, 1000001) i;\nSET LOCAL lsn_tracker.token = '$never';\nSELECT count(*) FROM t") =~ s/:.*//r,
	'55000', 'a million statements');

# Beside an open cursor: refused only if it would have to wait, and then fresh.
my $token = write_token($primary);
$rows++;
catch_up($primary, $standby);
$rows++;
start_wait($session, "BEGIN;\nDECLARE c CURSOR FOR SELECT count(*) FROM t;\nSET lsn_tracker.token = '$token';\nSELECT count(*) FROM t;\nFETCH c;\nCOMMIT");
is($finish_session->(), "$rows\n$rows", 'an open cursor does not hinder who need not wait');
start_wait($session, "BEGIN;\nDECLARE c CURSOR FOR SELECT count(*) FROM t;\nSET lsn_tracker.token = '$never';\n\\set VERBOSITY verbose\nSELECT count(*) FROM t;\nROLLBACK;\nRESET lsn_tracker.token");
like($finish_session->(), qr/ERROR:  55000: cannot wait for replay while this session holds a snapshot\nDETAIL:  Something else .* open cursor/, 'but who would have to');

# REPEATABLE READ: the snapshot is taken; what is owed then can't be had.
start_wait($session, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT 1;\nSET lsn_tracker.token = '$token';\nSELECT count(*) FROM t;\nROLLBACK;\nRESET lsn_tracker.token");
like($finish_session->(), qr/ERROR:  55000: cannot wait for replay while this session holds a snapshot\nDETAIL:  The transaction's isolation level is REPEATABLE READ/,
	'behind the first read in REPEATABLE READ, also when it has been replayed');

# On a primary it is there; nothing stands in the way.
is($primary->safe_psql('postgres', "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT 1;\nSET lsn_tracker.token = '$token';\nDECLARE c CURSOR FOR SELECT 1;\nSELECT 2;\nCOMMIT"),
	"1\n2", 'on a primary, behind the first read in REPEATABLE READ');

# A transaction that has read keeps its snapshot, whatever is said about it then.
start_wait($session, "RESET lsn_tracker.token;\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM t");
my $counted = $finish_session->();
$token = write_token($primary);
$rows++;
catch_up($primary, $standby);
$rows++;
foreach my $late ('SET TRANSACTION READ ONLY', 'BEGIN')
{
	start_wait($session, "SET lsn_tracker.token = '$token';\n$late;\nRESET lsn_tracker.token;\nSELECT count(*) FROM t");
	is((finish_wait($session))[0], $counted, "$late behind a read: the same snapshot");
}
finish_wait(start_wait($session, 'COMMIT'));

# What else has a snapshot registered is in the way, and no more than that: a large
# object that has been opened, by the same statement or before.
my $object = $primary->safe_psql('postgres', "SELECT lo_from_bytea(0, 'x')");
catch_up($primary, $standby);
$rows++;
foreach my $node ($primary, $standby)
{
	my ($o, $e);
	foreach my $sql ("SELECT lo_open($object, 262144), lsn_wait('0/1')", "SELECT lo_open($object, 262144);\nSELECT lsn_wait('0/1')")
	{
		(undef, $o, $e) = $node->psql('postgres', "BEGIN ISOLATION LEVEL REPEATABLE READ;\n$sql;\nCOMMIT");
		unlike($e, qr/server closed|terminat/, $node->name . ": $sql");
	}
}
is($primary->safe_psql('postgres', join ";\n", ("BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT lsn_wait('0/1');\nSELECT count(*) > 0 FROM v;\nCOMMIT",
		"BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT count(*) > 0 FROM v, lsn_require('0/1');\nCOMMIT") x 2,
		"SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock'") =~ s/.*\n//sr, '0', 'SERIALIZABLE on a primary: nothing is left of it');

# One snapshot for the whole transaction, whatever came in between
pause($standby);
$token = write_clean_up($primary, 'v');
$rows++;
start_wait($session, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET lsn_tracker.token = '$token';\nSELECT sum(i) FROM v;\nSELECT pg_sleep(0.3);\nSELECT sum(i) FROM v;\nCOMMIT");
await_waiters($standby, 1);
resume($standby);
catch_up($primary, $standby);
$rows++;
my $sum = $primary->safe_psql('postgres', 'SELECT sum(i) FROM v');
$primary->safe_psql('postgres', 'UPDATE v SET i = i + 1');
is($finish_session->(), "$sum\n\n$sum", 'REPEATABLE READ: the same rows again');

# Exported and imported snapshots
start_wait($session, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT pg_export_snapshot()");
my ($snapshot) = $finish_session->() =~ /(\S+-\S+-\d+)/ or die;
catch_up($primary, $standby);
$rows++;
my $importer = session($standby);
start_wait($importer, "SET lsn_tracker.default_timeout = 50;\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nSET TRANSACTION SNAPSHOT '$snapshot';\nSET lsn_tracker.token = '$never';\nSELECT count(*) FROM t;\nCOMMIT;\nSELECT 1");
($out, $err) = finish_wait($importer);
is($out, $rows - 1, 'an imported snapshot is left alone');
like($err, qr/\AERROR:  timed out|psql.*ERROR:  timed out/, 'until the transaction ends');
start_wait($session, "SELECT count(*) FROM t;\nCOMMIT");
is($finish_session->(), $rows - 1, 'and so is the one who exported it');
$importer->quit;
my $target = write_token($primary);
$rows++;
local $ENV{PGOPTIONS} = "-c lsn_tracker.token=$target";
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
command_ok([ 'pg_dump', '-Fd', '-j', 2, '-f', $dump, '-d', $standby->connstr('postgres') ], 'a parallel dump of a standby that is owed something');
delete $ENV{PGOPTIONS};

# Parallel workers show the same.
start_wait($session, <<SQL);
SET lsn_tracker.token = '$target';
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET debug_parallel_query = on;
SET force_parallel_mode = on;
EXPLAIN (COSTS OFF) SELECT count(*) FROM t;
SELECT count(*) FROM t;
SELECT DISTINCT current_setting('lsn_tracker.token') FROM t;
RESET ALL
SQL
($out, $err) = finish_wait($session);
like($out, qr/Workers Planned.*\n$rows\n\Q$target\E$/s, 'parallel query');

# Reads are tracked: each statement's snapshot, and reported.
sub reports
{
	my ($node, @sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $report, $node->connstr('postgres') ], '<', \join('', map { "$_\n" } @sql), '>', \$out, '2>', \$err) or die $err;
	return map { (split /\|/, $_, -1)[2] } split /\n/, $out;
}
# the server writes WAL by itself now and then
pause($standby);
my $position = $standby->safe_psql('postgres', "SELECT pg_last_wal_replay_lsn() || '\@1'");
is($standby->safe_psql('postgres', "SET lsn_tracker.track_reads = on;\nCOPY t TO '/dev/null';\nSHOW lsn_tracker.token"), $position, 'COPY reads, too');
my @reported = reports($standby, 'SELECT 1', 'SET lsn_tracker.track_reads = on', 'SELECT count(*) FROM t', 'BEGIN', 'SELECT 1', 'ROLLBACK', 'RESET lsn_tracker.token', 'SELECT no_such_column');
is(join(' ', @reported), join(' ', '', '', ($position) x 4, '', ''), 'reads are reported where they are tracked, also in a transaction that is rolled back, and forgotten');
$token = write_token($primary);
my @two = map { session($standby) } 1 .. 2;
start_wait($_, 'SET lsn_tracker.track_reads = on;SHOW lsn_tracker.token') foreach @two;
finish_wait($_) foreach @two;
start_wait($two[0], 'SELECT 1;SHOW lsn_tracker.token');
is((split /\n/, finish_wait($two[0]))[-1], $position, 'no further than what has been replayed');
resume($standby);
$standby->safe_psql('postgres', "SELECT lsn_wait('$token')");
start_wait($two[0], 'SELECT 1;SHOW lsn_tracker.token');
my ($read) = (split /\n/, finish_wait($two[0]))[-1] =~ /^(\S+)\@1$/;
is($standby->safe_psql('postgres', "SELECT '$read' >= split_part('$token', '\@', 1)::pg_lsn"), 't', 'and as far as that');
start_wait($two[1], 'SHOW lsn_tracker.token');
is(scalar finish_wait($two[1]), '', 'each session has its own');
$_->quit foreach @two;

# Large objects: libpq reads them by function calls of the protocol, without a query.
my $lobject = $standby->basedir . '/lobject.py';
append_to_file($lobject, <<'PY');
import sys, psycopg2
connection = psycopg2.connect(sys.argv[1])
connection.set_session(isolation_level=sys.argv[4])
cursor = connection.cursor()
cursor.execute("SET lsn_tracker.token = '%s'" % sys.argv[3])
print(connection.lobject(int(sys.argv[2]), "rb").read().decode())
connection.rollback()
PY
my $oid = $primary->safe_psql('postgres', "SELECT lo_from_bytea(0, 'old')");
catch_up($primary, $standby);
$rows++;
foreach my $level (lacks('python') ? () : ('READ COMMITTED', 'REPEATABLE READ'))
{
	is(waits(sub {
			my $written = $primary->safe_psql('postgres', "SELECT lo_put($oid, 0, '$level');\nSELECT lsn_last_commit()") =~ s/^\n//r;
			return IPC::Run::start([ $ENV{PYTHON}, $lobject, $standby->connstr('postgres'), $oid, $written, $level ], '>', \$out, '2>', \$err);
		}, sub { $_[0]->finish or die $err; return $out; }),
		"$level\n", "$level: a large object");
}

# Interrupted at the gate, in each way: nothing is left.
my %ways = (
	'cancel' => sub { $standby->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM lsn_waiters()') },
	'statement_timeout' => sub { },
	'terminate' => sub { $standby->safe_psql('postgres', 'SELECT pg_terminate_backend(pid, 10000) FROM lsn_waiters()') },
	'disconnect' => sub { $_[0]->{run}->kill_kill });
foreach my $way (sort keys %ways)
{
	foreach my $statement ('SELECT count(*) FROM t', 'DECLARE c CURSOR FOR SELECT 1', 'COPY (SELECT 1) TO STDOUT', 'EXPLAIN ANALYZE SELECT 1', "DO \$\$ BEGIN PERFORM 1; END \$\$", 'EXECUTE p', 'BEGIN ISOLATION LEVEL REPEATABLE READ')
	{
		foreach my $begin ($statement =~ /^BEGIN/ ? '' : ("BEGIN;\nSAVEPOINT a;\n", "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSAVEPOINT a;\n", $statement =~ /^DECLARE/ ? () : ''))
		{
			my $victim = session($standby);
			my $timeout = $way eq 'statement_timeout' ? "SET statement_timeout = 100;\n" : '';

			start_wait($victim, "PREPARE p AS SELECT 1;\n${begin}SET lsn_tracker.token = '$never';\n$timeout$statement");
			await_waiters($standby, 1) if $way ne 'statement_timeout';
			$ways{$way}->($victim);
			if ($way =~ /cancel|timeout/)
			{
				($out, $err) = finish_wait($victim);
				my $fails = $err =~ /ERROR:  canceling statement/;
				start_wait($victim, ($begin ? "ROLLBACK TO a;\n" : '') . "RESET lsn_tracker.token;\nRESET statement_timeout;\nSELECT count(*) FROM t;\n" . ($begin ? 'COMMIT' : 'SELECT 1'));
				my ($o, $e) = finish_wait($victim);
				ok($fails && $o =~ /^\d+/ && $e eq '', "$way, $statement, " . ($begin =~ s/\n/ /gr) . ': and works on') or diag("$err $o $e");
			}
			await_waiters($standby, 0);
			$way =~ /cancel|timeout/ ? $victim->quit : $victim->{run}->finish;
		}
	}
}
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.pid <> pg_backend_pid() AND backend_type = 'client backend' AND l.mode = 'AccessShareLock'"),
	'0', 'no lock is left');

# Promotion ends it, too.
my $at_gate = session($standby);
start_wait($at_gate, "SET lsn_tracker.token = '$never';\n\\set VERBOSITY verbose\nSELECT 1");
await_waiters($standby, 1);
$primary->stop;
$standby->promote;
like((finish_wait($at_gate))[1], qr/40000: the write at \Q$never\E has been lost/, 'promotion: lost');
$_->quit foreach $at_gate, $session;
$standby->stop;
done_testing();
