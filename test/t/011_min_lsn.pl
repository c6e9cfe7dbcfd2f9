# SET lsn_tracker.min_lsn on a standby: it waits where a function cannot.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $report = compile("$FindBin::RealBin/../clients/report.c");
my ($primary, $standby) = new_pair('min_lsn', 'max_standby_streaming_delay = 1h');
my ($out, $err);

$primary->safe_psql('postgres', "CREATE TABLE v AS SELECT generate_series(1, 1000) AS i;\nDELETE FROM t");
catch_up($primary, $standby);
$primary->safe_psql('postgres', 'DELETE FROM t');

# Pause replay, have a session wait behind what is about to be written, a
# VACUUM among it; returns the session and how many rows it must see.
my $rows = 0;
sub wait_behind_vacuum
{
	my ($name, $sql) = @_;
	my $session = session($standby);

	pause($standby);
	$primary->safe_psql('postgres', 'UPDATE v SET i = i + 1');
	$primary->safe_psql('postgres', 'VACUUM v');
	my $token = write_token($primary);
	$rows++;
	start_wait($session, $sql =~ s/TOKEN/$token/gr);
	await_waiters($standby, 1);
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_activity a, lsn_waiters() w WHERE a.pid = w.pid AND backend_xmin IS NULL'),
		'1', "$name: holds no snapshot while it waits");
	resume($standby);
	($out, $err) = finish_wait($session);
	is($err, '', "$name: no error");
	return ($session, $token);
}

my ($session, $token) = wait_behind_vacuum('SET LOCAL in REPEATABLE READ', <<'SQL');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL lsn_tracker.min_lsn = 'TOKEN';
SELECT count(*) FROM t;
SHOW lsn_tracker.min_lsn;
COMMIT;
SHOW lsn_tracker.min_lsn
SQL
is($out, "$rows\n$token", 'SET LOCAL in REPEATABLE READ: sees the write; SHOW tells the token; nothing is left of it');
$session->quit;

($session, $token) = wait_behind_vacuum('SET in REPEATABLE READ READ ONLY', <<'SQL');
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET lsn_tracker.min_lsn = 'TOKEN';
SELECT count(*) FROM t;
COMMIT;
SHOW lsn_tracker.min_lsn
SQL
is($out, "$rows\n$token", 'SET in REPEATABLE READ READ ONLY: sees the write; SHOW tells the last one');
$session->quit;

($session, $token) = wait_behind_vacuum('SET outside a transaction', "SET lsn_tracker.min_lsn = 'TOKEN';\nSELECT count(*) FROM t");
is($out, $rows, 'SET outside a transaction: sees the write');
$session->quit;

# Start a client that sends each line as one query string (psql would split it).
# From a file: nobody feeds the client while we look at the server.
sub start_report
{
	my ($line) = @_;
	my $script = $standby->basedir . '/report.sql';

	open my $file, '>', $script or die $!;
	print $file "$line\n";
	close $file;
	return IPC::Run::start([ $report, $standby->connstr('postgres') ], '<', $script, '>', \$out, '2>', \$err);
}

# One query string
pause($standby);
$token = write_token($primary);
$rows++;
my $one = start_report("SET lsn_tracker.min_lsn = '$token'; SELECT count(*) FROM t");
await_waiters($standby, 1);
resume($standby);
$one->finish;
is($out, "$rows||\n", 'SET and SELECT in one query string: sees the write');

# What the statement in front has read of the catalogs is let go of.
IPC::Run::run([ $report, $standby->connstr('postgres') ],
	'<', \"SELECT to_regclass('no.such'), count(*) FROM t; SET lsn_tracker.min_lsn = '$token'; SELECT count(*) FROM t\n", '>', \$out, '2>', \$err) or die $err;
is($out, "$rows||\n", 'a read, SET and SELECT in one query string');

# Pipelined, without waiting for the answer to SET
pause($standby);
$token = write_token($primary);
$rows++;
$one = start_report("pipeline: SET lsn_tracker.min_lsn = '$token' ;; SELECT count(*) FROM t");
await_waiters($standby, 1);
resume($standby);
$one->finish;
is($out, "$rows||\n", 'SET and SELECT in a pipeline: sees the write');

# Time-outs: what follows is not run, and the variable keeps its value.
pause($standby);
$token = write_token($primary);
$rows++;
my $before = insert_lsn($primary);
my $strings = join '', map { "$_\n" }
  "SET lsn_tracker.default_timeout = 50",
  "SET lsn_tracker.min_lsn = '0/1'",
  "SET lsn_tracker.min_lsn = '$token'; SELECT 'run'",
  "pipeline: SET lsn_tracker.min_lsn = '$token' ;; SELECT 'run'",
  "SHOW lsn_tracker.min_lsn",
  "BEGIN ISOLATION LEVEL REPEATABLE READ",
  "SET LOCAL lsn_tracker.min_lsn = '$token'",
  "SELECT 'run'",
  "ROLLBACK",
  "SHOW lsn_tracker.min_lsn";
IPC::Run::run([ $report, $standby->connstr('postgres') ], '<', \$strings, '>', \$out, '2>', \$err) or die $err;
is($out, "||\n||\n|55L01|\n|55L01|\n0/1||\n||\n|55L01|\n|25P02|\n||\n0/1||\n", 'time-outs raise, what follows is not run, the old value stays');
(undef, undef, $err) = $standby->psql('postgres', "SET lsn_tracker.default_timeout = 20;\nSET lsn_tracker.min_lsn = '$token'");
like($err, qr/timed out after 20 ms while waiting for replay of \Q$token\E.*bytes to go.*HINT:  WAL replay is paused/s, 'the message says why');

# Refused under a snapshot, also when there would be nothing to wait for
$token = '0/1@1';
like(sqlstate($standby, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t; SET LOCAL lsn_tracker.min_lsn = '$token'"),
	qr/^55000: cannot wait for replay while this session holds a snapshot/, 'not behind the first read in REPEATABLE READ');
like(sqlstate($standby, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT lsn_wait('$token')"),
	qr/^55000: cannot wait for replay while this session holds a snapshot/, 'the function is refused as before');
like(sqlstate($standby, "DO \$\$ BEGIN SET lsn_tracker.min_lsn = '$token'; END \$\$"),
	qr/^55000/, 'not in DO');

# Interrupted
$token = write_token($primary);
$rows++;
$session = session($standby);
start_wait($session, "SET lsn_tracker.default_timeout = 0;\nSET lsn_tracker.min_lsn = '$token'");
my $pid = waiting_pid($standby);
$standby->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
($out, $err) = finish_wait($session);
like($err, qr/canceling statement due to user request/, 'cancelled');
await_waiters($standby, 0);
start_wait($session, 'SHOW lsn_tracker.min_lsn');
is(finish_wait($session), '', 'cancelled: not set');
resume($standby);
catch_up($primary, $standby);
$rows++;

# In a procedure or a DO block no snapshot is held behind a COMMIT: there it waits.
pause($standby);
my $behind = write_clean_up($primary, 't');
start_wait($session, "DO \$\$ BEGIN PERFORM 1 FROM t; COMMIT; SET lsn_tracker.min_lsn = '$behind'; END \$\$;\nSHOW lsn_tracker.min_lsn");
await_waiters($standby, 1);
resume($standby);
($out, $err) = finish_wait($session);
is("$out$err", $behind, 'SET behind a COMMIT in a DO block waits');
$rows = $primary->safe_psql('postgres', 'SELECT count(*) FROM t');

# Parallel workers take over the value without waiting.
start_wait($session, <<SQL);
SET lsn_tracker.min_lsn = '$token';
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET debug_parallel_query = on;
SET force_parallel_mode = on;
EXPLAIN (COSTS OFF) SELECT count(*) FROM t;
SELECT count(*) FROM t;
SHOW lsn_tracker.min_lsn
SQL
($out, $err) = finish_wait($session);
like($out, qr/Workers Planned.*\n$rows\n\Q$token\E$/s, 'parallel query in a session that has set it');
$session->quit;

# In a configuration file, in a role's settings from before, and as a
# connection option: refused, and said so.
$standby->append_conf('postgresql.conf', "lsn_tracker.min_lsn = '0/1'");
my $offset = -s $standby->logfile;
$standby->reload;
$standby->wait_for_log(qr/parameter "lsn_tracker.min_lsn" can only be set with a SET command: "0\/1"/, $offset);
is($standby->safe_psql('postgres', 'SHOW lsn_tracker.min_lsn'), '', 'configuration file, reload: refused in the log');
$offset = -s $standby->logfile;
$standby->restart;
is($standby->safe_psql('postgres', 'SHOW lsn_tracker.min_lsn'), '', 'configuration file, start: the server starts without it');
like(substr(slurp_file($standby->logfile), $offset), qr/parameter "lsn_tracker.min_lsn" can only be set with a SET command/, 'configuration file, start: said in the log');

my ($ret, undef, $connect) = $standby->psql('postgres', 'SELECT 1', connstr => $standby->connstr('postgres') . " options='-c lsn_tracker.min_lsn=0/1'");
isnt($ret, 0, 'connection option: refused');
like($connect, qr/parameter "lsn_tracker.min_lsn" can only be set with a SET command/, 'connection option: says so');

$standby->stop;
$primary->stop;
done_testing();
