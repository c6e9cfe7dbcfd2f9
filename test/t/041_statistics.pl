# What is counted and shown: each wait once, by the way it came and the way it ended; who waits,
# for what and since when, and who may see it.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('statistics');
my $monitor = session($standby);

# Start anew; returns a function that tells the columns of the view that are not 0 or NULL,
# of those that are counts.
sub counts
{
	my $json = $monitor->query("SELECT to_json(s) FROM pg_stat_lsn_tracker s");
	my %row = $json =~ /"(\w+)":(\d+)[,}]/g;

	delete @row{qw(last_replayed_tli waiting max_waiting)};
	delete $row{$_} foreach grep { /_time$|wakeups$/ || !$row{$_} } keys %row;
	return join ' ', map { "$_=$row{$_}" } sort keys %row;
}

sub reset_stats
{
	$monitor->query('SELECT pg_stat_lsn_tracker_reset()');
}

# Keep a process from doing anything, until it is told to go on (CONT).
sub stop_process
{
	my ($pid) = @_;

	kill 'STOP', $pid;
	sleep 0.001 until slurp_file("/proc/$pid/status") =~ /^State:\s+T/m;
}

# Run SQL, see what is counted then.
sub counted
{
	my ($sql, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	reset_stats();
	$standby->psql('postgres', $sql);
	is(counts(), $expected, $what);
}

$primary->safe_psql('postgres', <<'SQL');
CREATE FUNCTION waiters_of_1_0(OUT pid integer, OUT target pg_lsn) RETURNS SETOF record
AS '$libdir/lsn_tracker', 'lsn_waiters' LANGUAGE C;
CREATE FUNCTION waiters_of_1_1(OUT pid integer, OUT target pg_lsn, OUT timeline bigint, OUT xid xid8) RETURNS SETOF record
AS '$libdir/lsn_tracker', 'lsn_waiters' LANGUAGE C;
SQL
my $lsn = write_wal($primary);
my $token = write_token($primary);
catch_up($primary, $standby);
my $future = future_lsn($primary, 1_000_000);
my $count = 'SELECT count(*) FROM t;';

counted("SELECT lsn_wait('$lsn'); SELECT lsn_require('$lsn')", 'at_once=2 function_waits=2', 'functions, at once');
counted("SET lsn_tracker.token = '$token'; $count", 'at_once=1 gate_waits=1', 'a token, at once');
counted("SELECT count(*) FROM t, lsn_require('$lsn'); SELECT count(*) FROM t, lsn_require('$lsn')", 'at_once=2 gate_waits=2', 'FROM, at once');
counted("SELECT lsn_wait('$future', 10)", 'function_waits=1 slept=1 timed_out=1', 'timed out');
counted("SET lsn_tracker.default_timeout = 10; SET lsn_tracker.token = '$future'; $count", 'gate_waits=1 slept=1 timed_out=1',
	'timed out at the gate');
counted("SET statement_timeout = 50; SELECT lsn_wait('$future', 0)", 'cancelled=1 function_waits=1 slept=1', 'cancelled');
counted("SELECT lsn_wait('$lsn') FROM t", 'refused=1', 'refused');
counted("SET lsn_tracker.max_staleness = 0; $count", 'answers=1 gate_waits=1 questions=1 slept=1', 'a strong read');
counted("SET lsn_tracker.max_staleness = '1h'; $count $count $count", 'at_once=3 gate_waits=3', 'reads within a bound');

# Sessions that are woken, and how long that takes
reset_stats();
my @waiters = map { start_wait(session($standby), "SELECT lsn_wait('$future', 0)") } 1 .. 3;
await_waiters($standby, 3);
is($monitor->query('SELECT waiting, max_waiting FROM pg_stat_lsn_tracker'), '3|3', 'waiting now, and most at once');
$standby->poll_query_until('postgres', "SELECT min(now() - waitstart) > '20 ms' FROM lsn_waiters()") or die;
reach($primary, $future);
is(scalar finish_wait($_), 't', 'woken') foreach @waiters;
is(counts(), 'function_waits=3 slept=3', 'all are counted');
is($monitor->query('SELECT startup_wakeups + worker_wakeups + session_wakeups FROM pg_stat_lsn_tracker'), '3', 'each woken once');
is($monitor->query('SELECT wait_time >= 60 AND max_wait_time >= 20 AND max_wait_time < wait_time, waiting, max_waiting FROM pg_stat_lsn_tracker'),
	't|0|3', 'their time');
is($monitor->query("SELECT max(count), max(count) FILTER (WHERE bucket_le <= 0.01) FROM pg_stat_lsn_tracker_waits WHERE metric = 'function'"),
	'3|0', 'the histogram has them, and not below their time');
is($monitor->query("SELECT count FROM pg_stat_lsn_tracker_waits WHERE metric = 'function' AND bucket_le = 'Infinity'"), '3', 'all of them');

# At once is in the first bucket; each has those below it, too.
$waiters[0]->query("SELECT lsn_wait('$lsn')");
is($monitor->query("SELECT array_agg(count ORDER BY bucket_le) = array_agg(count ORDER BY count) AND min(count) = 1 AND max(count) = 4 FROM pg_stat_lsn_tracker_waits WHERE metric = 'function'"),
	't', 'cumulative, from those at once on');

# In the first bucket are those at once alone, and begun anew there are none.
is($monitor->query("SELECT count FROM pg_stat_lsn_tracker_waits WHERE metric = 'function' AND bucket_le = 0.01"), '1', 'the others took longer');
is($monitor->query("SELECT count FROM pg_stat_lsn_tracker_waits WHERE metric = 'function' AND bucket_le = 10"), '4', 'but not so long');

# A process that has gone has been counted, and its successor goes on.
my $pids = join ', ', map { $_->query('SELECT pg_backend_pid()') } @waiters;
$_->quit foreach @waiters;
$standby->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ($pids)") or die;
is(counts(), 'at_once=1 function_waits=4 slept=3', 'what has been counted outlives its session');

reset_stats();
is($monitor->query('SELECT wait_time, max_wait_time, max_waiting FROM pg_stat_lsn_tracker'), '0|0|0', 'reset: times, and most at once');

# By whom they are woken: 16 by the startup process (WAKE_BATCH), and while these are on their way
# nobody by it.  So the worker wakes the next one, or, should that be slow, who leaves the queue.
# Those who wait are stopped, or they might find out by themselves.
@waiters = map { session($standby) } 1 .. 17;
foreach my $case ([ 'worker', '16|1|0' ], [ 'session', '16|0|1' ])
{
	my ($by, $expected) = @$case;
	my @targets = map { future_lsn($primary, $_) } 20_000, 200_000;
	my @stopped = $by eq 'session' ? worker_pid($standby) : ();

	reset_stats();
	start_wait($waiters[$_], "SELECT lsn_wait('$targets[$_ == 16]', 0)") foreach 0 .. 16;
	await_waiters($standby, 17);
	unshift @stopped, split /\n/, $monitor->query('SELECT pid FROM lsn_waiters() ORDER BY target');
	stop_process($_) foreach @stopped;
	foreach my $target (@targets)
	{
		reach($primary, $target);
		# which is said behind the waking
		$standby->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$target'") or die 'not replayed';
	}
	if ($by eq 'session')
	{
		is($monitor->query('SELECT count(*) FROM lsn_waiters()'), '1', 'neither the startup process nor the worker wakes it');
		kill 'CONT', shift @stopped;
	}
	await_waiters($standby, 0);
	kill 'CONT', @stopped;
	is(join(' ', map { scalar finish_wait($_) } @waiters), join(' ', ('t') x 17), "woken, the last by: $by");
	is($monitor->query('SELECT startup_wakeups, worker_wakeups, session_wakeups FROM pg_stat_lsn_tracker'),
		$expected, 'and counted so');
}
$_->quit foreach @waiters;

# Replay
is($monitor->query('SELECT last_replayed_end_lsn = pg_last_wal_replay_lsn(), last_replayed_tli, pause_state FROM pg_stat_lsn_tracker'),
	't|1|not paused', 'where replay stands');
$monitor->query('SELECT lsn_staleness()');
is($monitor->query("SELECT staleness < '1 min', questions, answers, question_failures, question_time > 0 FROM pg_stat_lsn_tracker"),
	't|1|1|0|t', 'how old the data may be, and the questions that told it');
is($monitor->query('SELECT max_question_time = question_time FROM pg_stat_lsn_tracker'), 't',
	'one question: the longest');

# A question of which the answer takes its time, and one that is not answered
my $reader = session($standby);
$reader->query('SET lsn_tracker.max_staleness = 0');
foreach my $case ([ 'late', '2|2|0' ], [ 'never', '4|3|1' ])
{
	my ($answered, $expected) = @$case;
	my $sender = $primary->safe_psql('postgres',
		"SELECT pid FROM pg_stat_replication WHERE application_name = 'lsn_tracker'");
	my ($asked) = split /\|/, $monitor->query('SELECT questions + 1 FROM pg_stat_lsn_tracker');

	stop_process($sender);
	start_wait($reader, $count =~ s/;//r);
	$standby->poll_query_until('postgres', "SELECT questions = $asked FROM pg_stat_lsn_tracker") or die 'not asked';
	# so long it takes at least
	sleep 0.1 if $answered eq 'late';
	$primary->safe_psql('postgres', "SELECT pg_terminate_backend($sender)") if $answered eq 'never';
	kill 'CONT', $sender;
	is((finish_wait($reader))[1], '', "answered: $answered, and again if need be");
	is($monitor->query('SELECT questions, answers, question_failures FROM pg_stat_lsn_tracker'), $expected, 'counted');
	is($monitor->query(<<SQL), 't|t', 'the longest is that one');
SELECT max_question_time >= 100, max_question_time < question_time FROM pg_stat_lsn_tracker
SQL
}
reset_stats();
is($monitor->query('SELECT question_failures, question_time, max_question_time FROM pg_stat_lsn_tracker'),
	'0|0|0', 'reset, too');
$reader->quit;

# Who waits: since when, until when, for what.
$future = future_lsn($primary, 1_000_000);
my $waiter = start_wait(session($standby), "SELECT lsn_wait('$future', 100000)");
await_waiters($standby, 1);
is($monitor->query("SELECT target = '$future', timeline IS NULL, xid IS NULL, bytes_to_go = '$future' - pg_last_wal_replay_lsn(), deadline - waitstart, waitstart BETWEEN now() - interval '1 min' AND now(), eta IS NULL, way FROM lsn_waiters()"),
	't|t|t|t|00:01:40|t|t|function', 'a function that waits');
my $gate = session($standby);
$gate->query("SET lsn_tracker.default_timeout = 0; SET lsn_tracker.token = '$future\@1'");
start_wait($gate, $count);
await_waiters($standby, 2);
is($monitor->query("SELECT target = '$future', timeline, bytes_to_go = '$future' - pg_last_wal_replay_lsn(), deadline IS NULL, way FROM lsn_waiters() WHERE timeline IS NOT NULL"),
	't|1|t|t|gate', 'a statement that waits');

# As earlier versions of the SQL declare it
is($monitor->query("SELECT count(*), count(target) FROM waiters_of_1_0()"), '2|2', 'lsn_waiters() of 1.0');
is($monitor->query("SELECT count(*), count(target), count(timeline), count(xid) FROM waiters_of_1_1()"), '2|2|1|0', 'lsn_waiters() of 1.1');

# Only who may see everybody's statistics sees others' targets.
$primary->safe_psql('postgres', 'CREATE ROLE reader LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_monitor');
# of what the two wait for, nothing has come yet
$standby->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_roles WHERE rolname IN ('reader', 'watcher')") or die;
my $look = "SELECT count(pid), count(target), count(timeline), count(bytes_to_go), count(waitstart), count(way) FROM lsn_waiters()";
is($standby->safe_psql('postgres', "SET ROLE reader; $look"), '2|0|0|0|2|2', "others' targets");
is($standby->safe_psql('postgres', "SET ROLE watcher; $look"), '2|2|1|2|2|2', 'a member of pg_read_all_stats');
my $own = session($standby, extra_params => [ '-U', 'reader' ]);
start_wait($own, "SELECT lsn_wait('$future', 0)");
await_waiters($standby, 3);
is($standby->safe_psql('postgres', "SET ROLE reader; $look"), '3|1|0|1|3|3', 'its own it does see');
like(sqlstate($standby, 'SET ROLE reader; SELECT pg_stat_lsn_tracker_reset()'), qr/^42501/, 'reset is not for everybody');
reach($primary, $future);
is(scalar finish_wait($_), 't', 'done') foreach $waiter, $own;
finish_wait($gate);
$_->quit foreach $waiter, $own, $gate;

# A cancelled wait that gives way, and the end of recovery
$primary->safe_psql('postgres', 'CREATE TABLE wanted (i int)');
catch_up($primary, $standby);
$waiter = session($standby);

# Replay that is told to pause while a session keeps a lock from it does so later.
$waiter->query('BEGIN; SELECT count(*) FROM wanted');
$primary->safe_psql('postgres', 'BEGIN; LOCK TABLE wanted; COMMIT');
await_conflict($standby, 'relation');
$monitor->query('SELECT pg_wal_replay_pause()');
is($monitor->query('SELECT pause_state FROM pg_stat_lsn_tracker'), 'pause requested', 'told to pause');
$waiter->query('ROLLBACK');
$standby->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'") or die 'not paused';
is($monitor->query('SELECT pause_state FROM pg_stat_lsn_tracker'), 'paused', 'paused');
resume($standby);
is($monitor->query('SELECT pause_state FROM pg_stat_lsn_tracker'), 'not paused', 'and not any more');

reset_stats();
$waiter->query('BEGIN; SELECT count(*) FROM wanted');
start_wait($waiter, "SELECT lsn_wait('FFFFFFFF/0', 0)");
await_waiters($standby, 1);
$primary->safe_psql('postgres', 'DROP TABLE wanted');
like((finish_wait($waiter))[1], qr/gives way/, 'gives way');
is(counts(), 'function_waits=1 gave_way=1 slept=1', 'counted');
$waiter->query('ROLLBACK');
start_wait($waiter, "SELECT lsn_wait('FFFFFFFF/0', 0)");
await_waiters($standby, 1);
reset_stats();
$primary->stop;
$standby->promote;
like((finish_wait($waiter))[1], qr/recovery ended/, 'recovery ends');
is(counts(), 'function_waits=1 recovery_ended=1 slept=1', 'counted');
is($monitor->query('SELECT last_replayed_end_lsn IS NULL, last_replayed_tli IS NULL, pause_state IS NULL, replay_rate IS NULL, staleness FROM pg_stat_lsn_tracker'),
	't|t|t|t|00:00:00', 'a primary');

$_->quit foreach $waiter, $monitor;

# A write that is lost
my $second = add_standby($standby, 'statistics_second');
catch_up($standby, $second);
$monitor = session($second);
reset_stats();
like(sqlstate($second, "SELECT lsn_wait('F0/0\@1')"), qr/^40000/, 'lost');
is(counts(), 'at_once=1 function_waits=1 lost=1', 'counted');

$monitor->quit;
$second->stop;
$standby->stop;
done_testing();
