# A waiter is out of replay's way: with its virtual transaction, which replay has
# met with a snapshot before, and with the locks of earlier statements.  And it is
# in the way again as soon as it has a snapshot.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use List::Util qw(min);
use Test::More;
use Time::HiRes qw(time usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

# nothing is cancelled here: replay waits for as long as a session makes it
my @conf = ('max_standby_streaming_delay = -1', 'hot_standby_feedback = off', 'autovacuum = off');

# Release the advisory lock on which a session stands still with its snapshot.
my $gate;
sub shut { finish_wait(start_wait($gate, 'SELECT pg_advisory_lock(1)')); return; }
sub open_gate { finish_wait(start_wait($gate, 'SELECT pg_advisory_unlock(1)')); return; }

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("locks_$mode", "lsn_tracker.wakeup = $mode", @conf);
	my $session = session($standby);
	my ($out, $err);

	$gate = session($standby);
	$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE v AS SELECT generate_series(1, 1000) AS i;
CREATE TABLE w AS SELECT generate_series(1, 1000) AS i;
-- immutable, so that it is called by the planner, which holds a snapshot
CREATE FUNCTION planned(target text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_lock(1); PERFORM pg_advisory_unlock(1); RETURN target; END $$;
SQL
	catch_up($primary, $standby);

	# The conflict meets an earlier statement of the block, or the statement
	# itself while it is planned: only the wait is what replay then stands for.
	my $block = 'BEGIN; SELECT count(*) FROM pg_advisory_lock(1); SELECT pg_advisory_unlock(1)';
	my %met = (
		'a block, behind a statement' => [ $block, "SELECT lsn_wait('TARGET', 20000)", 'COMMIT' ],
		'a savepoint, behind a statement' =>
		  [ "$block; SAVEPOINT s", "SELECT lsn_wait('TARGET', 20000)", 'RELEASE s; COMMIT' ],
		'a statement that is planned' => [ '', "SELECT lsn_wait(planned('TARGET'), 20000)", '' ],
		'the gate, behind a statement' =>
		  [ "SET lsn_tracker.default_timeout = '20s'; $block", "SET LOCAL lsn_tracker.token = 'TARGET'; SELECT true", 'COMMIT; RESET ALL' ],
		'the gate, planned' =>
		  [ "SET lsn_tracker.default_timeout = '20s'", "SET lsn_tracker.token = 'TARGET'; SELECT planned('x') IS NOT NULL", 'RESET ALL' ]);
	foreach my $how (sort keys %met)
	{
		my ($begin, $wait, $end) = @{ $met{$how} };

		pause($standby);
		my $target = write_clean_up($primary, 'v');
		$wait =~ s/TARGET/$target/;
		shut();
		# all at once: no answer comes before the gate is open
		start_wait($session, join(";\n", grep { $_ ne '' } $begin, $wait));
		$standby->poll_query_until('postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'") or die 'nobody at the gate';
		resume($standby);
		await_conflict($standby);
		open_gate();
		($out, $err) = finish_wait($session);
		like($out, qr/^t\z/m, "$mode, $how: replay goes on") or diag($err);
		finish_wait(start_wait($session, $end)) if $end ne '';
	}

	# Replay that has been waiting for a while naps for a second at a time; it is
	# woken from that.  Once of five times will do: this machine may hold it up.
	my $quickest = 1000;
	foreach my $try (1 .. 5)
	{
		pause($standby);
		my $target = write_clean_up($primary, 'v');
		shut();
		start_wait($session, "BEGIN;\nSELECT pg_advisory_lock(1);\nSELECT pg_advisory_unlock(1);\nSELECT lsn_wait('$target', 20000)");
		$standby->poll_query_until('postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'") or die 'nobody at the gate';
		resume($standby);
		await_conflict($standby);
		my $met = time;
		await_conflict($standby) while time < $met + 1.2;
		my $start = time;
		open_gate();
		like(scalar finish_wait($session), qr/^t\z/m, "$mode, behind a long statement: replay goes on");
		$quickest = min($quickest, time - $start);
		finish_wait(start_wait($session, 'COMMIT'));
		last if $quickest < 0.6;
	}
	cmp_ok($quickest, '<', 0.6 * patience(), "$mode, behind a long statement: at once");

	# A snapshot taken behind a wait, however that ended, holds replay up, and
	# its rows stay.
	my $never = 'FFFFFFFF/0';
	my %ended = (
		'success' => "SELECT lsn_wait('TARGET', 0)",
		'time-out' => "SELECT lsn_wait('$never', 50)",
		'error, in a savepoint' => "SAVEPOINT s; SELECT lsn_require('$never', 50); ROLLBACK TO s",
		'statement_timeout, in a savepoint' =>
		  "SAVEPOINT s; SET LOCAL statement_timeout = 50; SELECT lsn_wait('$never', 0); ROLLBACK TO s",
		'cancel, in nested savepoints' => "SAVEPOINT s; SAVEPOINT t; SELECT lsn_wait('$never', 0); ROLLBACK TO s",
		'the gate' => "SAVEPOINT s; SET LOCAL lsn_tracker.default_timeout = 50; SET LOCAL lsn_tracker.token = '$never'; SELECT 1; ROLLBACK TO s; RESET lsn_tracker.token",
		'an error caught by the client in no savepoint' => "SELECT lsn_require('$never', 50); ROLLBACK; BEGIN");
	foreach my $how (sort keys %ended)
	{
		my $sql = $ended{$how};

		pause($standby);
		my $target = write_wal($primary);
		$sql =~ s/TARGET/$target/;
		start_wait($session, "BEGIN;\n" . $sql =~ s/; /;\n/gr);
		await_waiters($standby, 1) if $how =~ /success|cancel/;
		resume($standby);
		$standby->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM lsn_waiters()') if $how =~ /cancel/;
		finish_wait($session);
		await_waiters($standby, 0);
		catch_up($primary, $standby);

		my $rows = $primary->safe_psql('postgres', 'SELECT sum(i) FROM v');
		finish_wait(start_wait($session, 'DECLARE c CURSOR FOR SELECT i FROM v'));
		write_clean_up($primary, 'v');
		await_conflict($standby);
		my @fetched = split /\n/, finish_wait(start_wait($session, 'FETCH ALL FROM c'));
		my $sum = 0;
		$sum += $_ foreach @fetched;
		is($sum, $rows, "$mode, behind $how: a snapshot holds replay up");
		finish_wait(start_wait($session, 'ROLLBACK'));
		catch_up($primary, $standby);
	}

	# What the primary locks exclusively while a transaction that has read it
	# waits: the wait ends with an error at once, whatever delay is allowed.
	$quickest = 1000;
	foreach my $delay ('-1', '0')
	{
		$standby->safe_psql('postgres', "ALTER SYSTEM SET max_standby_streaming_delay = $delay");
		$standby->reload;
		my %locked = (
			'ADD COLUMN' => [ 'SELECT count(*) FROM w', 'ALTER TABLE w ADD COLUMN j int; ALTER TABLE w DROP COLUMN j' ],
			'TRUNCATE' => [ 'SELECT count(*) FROM w', 'TRUNCATE w; INSERT INTO w VALUES (1)' ],
			'VACUUM that truncates' => [ 'SELECT count(*) FROM w', "DELETE FROM w;\nVACUUM w;\nINSERT INTO w SELECT generate_series(1, 1000)" ],
			'LOCK TABLE' => [ 'LOCK TABLE w IN ROW EXCLUSIVE MODE', 'ALTER TABLE w ADD COLUMN j int; ALTER TABLE w DROP COLUMN j' ],
			'in a savepoint' => [ 'SAVEPOINT s; SELECT count(*) FROM w', 'TRUNCATE w; INSERT INTO w VALUES (1)' ]);
		foreach my $what (sort keys %locked)
		{
			my ($read, $ddl) = @{ $locked{$what} };

			# one that holds other locks is left alone
			my $other = session($standby);

			finish_wait(start_wait($session, "BEGIN; $read"));
			finish_wait(start_wait($other, 'BEGIN; SELECT count(*) FROM v'));
			pause($standby);
			$primary->safe_psql('postgres', $ddl);
			my $target = write_wal($primary);
			start_wait($_, "\\set VERBOSITY verbose\nSELECT lsn_wait('$target', 0)") foreach $session, $other;
			await_waiters($standby, 2);
			my $start = time;
			resume($standby);
			($out, $err) = finish_wait($session);
			$quickest = min($quickest, time - $start);
			like($err, qr/ERROR:  40001: the wait for replay gives way .*\nDETAIL:  .* relation \d+ .*\nHINT:  Repeat the transaction/,
				"$mode, delay $delay, $what: gives way");
			($out, $err) = finish_wait($other);
			is("$out$err", 't', "$mode, delay $delay, $what: another waiter with locks is not concerned");
			finish_wait(start_wait($_, 'ROLLBACK')) foreach $session, $other;
			is(finish_wait(start_wait($session, "SELECT lsn_wait('$target', 20000), count(*) > 0 FROM lsn_waiters()")),
				't|f', "$mode, delay $delay, $what: works again") ;
			$other->quit;
		}
	}

	# of ten, so that one that this machine holds up does not count
	cmp_ok($quickest, '<', 0.5 * patience(), "$mode: and replay does not wait for long");

	# An error in a savepoint does not release what was locked outside it: then
	# the session is one like any other, and ended as the server does it.
	finish_wait(start_wait($session, 'BEGIN; SELECT count(*) FROM w'));
	pause($standby);
	$primary->safe_psql('postgres', 'TRUNCATE w');
	my $target = write_wal($primary);
	start_wait($session, "SAVEPOINT s; SELECT lsn_wait('$target', 0)");
	await_waiters($standby, 1);
	resume($standby);
	($out, $err) = finish_wait($session);
	like($err, qr/gives way to a lock/, "$mode: a lock from outside the savepoint");
	is($standby->safe_psql('postgres', "SELECT lsn_wait('$target', 20000)"), 't', "$mode: replay is not held up by what is left");
	$session->{run}->finish;

	# Nor does a wait release anything that times out, if it has not given way before.
	my $worker = worker_pid($standby);
	$session = session($standby);
	finish_wait(start_wait($session, 'BEGIN; SELECT count(*) FROM w'));
	pause($standby);
	kill 'STOP', $worker;
	$primary->safe_psql('postgres', 'TRUNCATE w');
	$target = write_wal($primary);
	start_wait($session, "SELECT lsn_wait('$target', @{[ $mode eq 'redo' ? 20000 : 2000 ]})");
	await_waiters($standby, 1);
	resume($standby);
	($out, $err) = finish_wait($session);
	like("$out$err", $mode eq 'redo' ? qr/gives way to a lock/ : qr/^f\z|conflict with recovery|gives way to a lock/, "$mode: a lock, and a wait that is short");
	is($standby->safe_psql('postgres', "SELECT lsn_wait('$target', 20000)"), 't', "$mode: replay is not held up behind it");
	kill 'CONT', $worker;
	$session->{run}->kill_kill;

	# Replay waits for one who waits for a lock of the waiter: the waiter's wait
	# ends, since nothing else would end it.
	$standby->safe_psql('postgres', "ALTER SYSTEM SET max_standby_streaming_delay = -1; ALTER SYSTEM SET deadlock_timeout = '300ms'");
	$standby->reload;
	my $reads = 'BEGIN; SELECT count(*) FROM w';
	my $lock = 'SELECT pg_advisory_lock(7)';
	my %circle = (
		'a lock' => [ [ $reads, $lock ] ],
		'a lock, by way of another' => [ [ $reads, 'SELECT pg_advisory_lock(8)' ], [ 'SELECT pg_advisory_lock(8)', $lock ] ],
		'a lock, by way of one who queues' => [ [ $reads, 'SELECT pg_advisory_lock_shared(6)' ], [ '', 'SELECT pg_advisory_lock(6)' ] ],
		'a snapshot' => [ [ 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM v', $lock ] ],
		'no circle' => [ [ $reads, '' ], [ 'SELECT 1', $lock ] ]);
	foreach my $what (sort keys %circle)
	{
		foreach my $wait ("SELECT lsn_wait('TARGET', 0)", "SET lsn_tracker.default_timeout = 0; SET lsn_tracker.token = 'TARGET'; SELECT true")
		{
			my @others = map { [ session($standby), @$_ ] } @{ $circle{$what} };
			my $sleeping = 0;
			$session = session($standby);
			finish_wait(start_wait($session, "BEGIN; $lock; SELECT pg_advisory_lock_shared(6)"));
			finish_wait(start_wait($_->[0], $_->[1])) foreach @others;
			my ($pid) = finish_wait(start_wait($others[0][0], 'SELECT pg_backend_pid()'));
			# the one who is waited for first, and one after the other
			foreach my $other (reverse @others)
			{
				next if $other->[2] eq '';
				start_wait($other->[0], $other->[2]);
				$sleeping++;
				$standby->poll_query_until('postgres', "SELECT count(*) = $sleeping FROM pg_stat_activity WHERE wait_event = 'advisory'") or die 'nobody waits';
			}
			my $target = $what =~ /snapshot/ ? write_clean_up($primary, 'v') : do { $primary->safe_psql('postgres', 'TRUNCATE w'); write_wal($primary) };
			start_wait($session, "\\set VERBOSITY verbose\n" . $wait =~ s/TARGET/$target/r);
			if ($what eq 'no circle')
			{
				# looked at more than once by then
				usleep(1_000_000);
				finish_wait(start_wait($others[0][0], 'COMMIT'));
			}
			($out, $err) = finish_wait($session);
			if ($what eq 'no circle')
			{
				is("$out$err", 't', "$mode, no circle: goes on");
			}
			else
			{
				like($err, qr/ERROR:  40P01: deadlock detected .*\nDETAIL:  Replay waits for process $pid, .*\nHINT:  Do not wait/,
					"$mode, replay waits for $what: dead-lock");
			}
			$session->quit;
			foreach my $other (reverse @others)
			{
				finish_wait($other->[0]) if $other->[2] ne '';
				$other->[0]->quit;
			}
			is($standby->safe_psql('postgres', "SELECT lsn_wait('$target', 20000)"), 't', "$mode, $what: replay goes on");
		}
	}
	$gate->quit;
	$standby->stop;
	$primary->stop;
}

# Beside rows that are updated all the time, with the window held open in which a
# statement is planned: replay meets a waiter there again and again, and no wait
# takes long all the same.
{
	my ($primary, $standby) = new_pair('hot_rows', @conf);
	my $waits = many(20000);
	my $clients = 20;
	my ($write, $wait) = map { $standby->basedir . "/$_.sql" } qw(write wait);
	my ($out, $err);

	$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE hot (id int PRIMARY KEY, i int) WITH (fillfactor = 50);
INSERT INTO hot SELECT generate_series(1, 10), 0;
CREATE FUNCTION slowly(target text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.002); RETURN target; END $$;
SQL
	catch_up($primary, $standby);
	append_to_file($write, "\\set id random(1, 10)\nUPDATE hot SET i = i + 1 WHERE id = :id;\n");
	append_to_file($wait, "SELECT pg_last_wal_replay_lsn() + (random() * 5000)::int AS target \\gset\nSELECT lsn_require(slowly(':target'), 5000);\n");
	my $writers = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-T', 1000, '-h', $primary->host, '-p', $primary->port, '-f', $write, 'postgres' ],
		'>', \my $ignored, '2>&1');
	# ms; who is held up for good gives up after 5 s
	my $limit = int(min(4000, 500 * patience()));
	my $met = 0;
	my $slow;
	# Who stands in replay's way holds up all who wait; a busy machine does now one of them,
	# now another.  Another round if it was all: then it may have been the machine that
	# stood still.
	foreach my $round (1 .. 3)
	{
		my $waiters = IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-t', $waits / $clients, '-L', $limit,
				'-h', $standby->host, '-p', $standby->port, '-f', $wait, 'postgres' ],
			'>', \$out, '2>', \$err);
		do
		{
			$met ||= $standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryConflictSnapshot'");
			usleep(50000);
			$waiters->pump_nb;
		} while $waiters->pumpable;
		ok($waiters->finish, 'beside hot rows: every wait ends well') or diag($err);
		$slow = $out =~ m{above the \S+ ms latency limit: (\d+)/$waits } ? $1 : $waits;
		last if $slow < $clients;
		diag("round $round: $slow of $waits waits took longer than $limit ms");
	}
	cmp_ok($slow, '<', $clients, "beside hot rows: of $waits waits $slow took longer than $limit ms");
	is($met, '1', 'and replay was seen waiting for a session');
	$writers->kill_kill;
	$standby->stop;
	$primary->stop;
}

done_testing();
