# Together with another library that has hooks where ours are, preloaded before ours
# and after it: each statement waits all the same, the other's hooks are called as
# often as without a wait, and what they raise leaves nothing behind.
#
# Which snapshot they see.  Of two ExecutorStart or ProcessUtility hooks, the one
# installed last is called first.  So a library preloaded after ours sees a statement as
# it has come, with the snapshot from before the wait, and the fresh one only on its way
# out; one preloaded before ours is called behind the gate, and sees the fresh one only.
# Ours for calls of the fastpath protocol is installed by the session, and calls the others
# first.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $hooks = PostgreSQL::Test::Utils::tempdir() . '/hooks.so';
my $log = `$ENV{MODULE_CC} -o '$hooks' '$FindBin::RealBin/../other/hooks.c' 2>&1`;
die "could not compile the other library: $log" if $?;

# In front of the token; the statement; how to end.
my %kinds = (
	'SELECT' => [ '', 'SELECT count(*) FROM v', '' ],
	'SELECT in a block' => [ "BEGIN;\nSELECT 1", 'SELECT count(*) FROM v', 'COMMIT' ],
	'REPEATABLE READ' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM v', 'COMMIT' ],
	'function' => [ '', 'SELECT in_loop()', '' ],
	'target' => [ '', "SELECT count(*) FROM v, lsn_require('TOKEN', 0)", '' ],
	'EXECUTE' => [ 'PREPARE p AS SELECT count(*) FROM v', 'EXECUTE p', 'DEALLOCATE p' ],
	'DECLARE CURSOR' => [ 'BEGIN', "DECLARE c CURSOR FOR SELECT count(*) FROM v;\nFETCH c", 'COMMIT' ],
	'COPY' => [ '', 'COPY (SELECT count(*) FROM v) TO STDOUT', '' ],
	'EXPLAIN ANALYZE' => [ '', 'EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, SUMMARY OFF) SELECT * FROM v', '' ],
	'DO' => [ '', 'DO $$ BEGIN RAISE NOTICE \'% rows\', (SELECT count(*) FROM v); END $$', '' ],
	'CALL' => [ '', 'CALL in_procedure(NULL)', '' ],
	'fastpath' => [ '', '\lo_export OBJECT FILE', '' ]);

my $session;
sub run_sql { return finish_wait(start_wait($session, $_[0])); }

# Calls of the other's hooks, in order, and the same with whether each sees a transaction.
sub calls
{
	my ($err) = @_;
	return [ $err =~ /NOTICE:  other: (\w+, \w+), \d+$/mg ];
}
sub sees
{
	my ($err, $hook, $xid) = @_;
	return join ' ', map { $_ > $xid ? 'fresh' : 'old' } $err =~ /NOTICE:  other: $hook, (\d+)$/mg;
}

my %preloads = ('before ours' => "$hooks, lsn_tracker", 'after ours' => "lsn_tracker, $hooks");
foreach my $order (sort keys %preloads)
{
	my $after = $order eq 'after ours';
	my ($primary, $standby) = new_pair($after ? 'after' : 'before', "shared_preload_libraries = '$preloads{$order}'",
		'max_standby_streaming_delay = -1', 'hot_standby_feedback = off', 'autovacuum = off', "lsn_tracker.default_timeout = '60s'");
	my $file = PostgreSQL::Test::Utils::tempdir() . '/object';
	my $object = $primary->safe_psql('postgres', <<'SQL');
CREATE TABLE v AS SELECT generate_series(1, 1000) AS i;
CREATE FUNCTION in_loop() RETURNS bigint STABLE LANGUAGE plpgsql AS
$$ DECLARE n bigint := 0; r record; BEGIN FOR r IN SELECT i FROM v LOOP n := n + 1; END LOOP; RETURN n; END $$;
CREATE PROCEDURE in_procedure(INOUT n bigint) LANGUAGE plpgsql AS
$$ BEGIN COMMIT; n := (SELECT count(*) FROM v); END $$;
SELECT lo_from_bytea(0, '1000');
SQL
	catch_up($primary, $standby);
	$session = session($standby);
	my ($pid) = run_sql('SELECT pg_backend_pid()');

	# Write behind a clean-up, with replay paused; returns the transaction and its token.
	my $rows = 1000;
	my $write = sub {
		pause($standby);
		$primary->safe_psql('postgres', 'UPDATE v SET i = i + 1');
		$primary->safe_psql('postgres', 'VACUUM v');
		$rows++;
		return split /\n/, $primary->safe_psql('postgres',
			"BEGIN;\nINSERT INTO v VALUES (1000000 + $rows * 1000);\nSELECT lo_put($object, 0, '$rows');\nSELECT pg_current_xact_id();\nCOMMIT;\nSELECT lsn_last_commit()") =~ s/^\n//r;
	};
	my $prepare = sub {
		my ($begin, $statement, $end) = map { $_ // '' } @_;
		$statement =~ s/OBJECT FILE/$object $file/;
		return ($begin, $statement, $end);
	};
	my $answer = sub {
		my ($kind, $out, $err) = @_;
		return slurp_file($file) if $kind eq 'fastpath';
		return $err =~ /(\d+) rows/ ? $1 : '' if $kind eq 'DO';
		return $out =~ /actual rows=(\d+)/ ? $1 : '' if $kind eq 'EXPLAIN ANALYZE';
		return (split /\n/, $out)[-1] // '';
	};

	foreach my $kind (sort keys %kinds)
	{
		my ($begin, $statement, $end) = $prepare->(@{ $kinds{$kind} });

		# what it does where nothing is owed; psql's first look at a large object is
		# another
		run_sql($statement) if $kind eq 'fastpath';
		run_sql($begin) if $begin;
		run_sql("SET other.mode = 'say'");
		my (undef, $usual) = run_sql($statement =~ s/TOKEN/0\/1/r);
		run_sql("RESET other.mode");
		run_sql($end) if $end;

		run_sql($begin) if $begin;
		my ($xid, $token) = $write->();
		my $owed = $statement =~ s/TOKEN/$token/ ? '' : "SET lsn_tracker.token = '$token';\n";
		start_wait($session, "SET other.mode = 'say';\n$owed$statement");
		is(waiting_pid($standby), $pid, "$order, $kind: waits");
		is($standby->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', "$order, $kind: without xmin");
		resume($standby);
		my ($out, $err) = finish_wait($session);
		is($answer->($kind, $out, $err), $rows, "$order, $kind: answers with what it waited for") or diag("$out|$err");
		is_deeply(calls($err), calls($usual), "$order, $kind: the hooks are called as without a wait") or diag($err);
		cmp_ok(scalar @{ calls($err) }, '>', 0, "$order, $kind: which they are");

		my ($first) = $err =~ /other: (\w+), in/;
		my $sees = sees($err, "$first, in", $xid);
		if ($first eq 'function')
		{
			is((split / /, $sees)[0], 'old', "$order, $kind: a function's first call");
		}
		else
		{
			is((split / /, $sees)[0], $after ? 'old' : 'fresh', "$order, $kind: $first, on its way in");
			is((split / /, sees($err, 'ExecutorStart, out', $xid))[0], 'fresh', "$order, $kind: ExecutorStart, on its way out");
		}
		run_sql('RESET other.mode');
		run_sql($end) if $end;
		run_sql('RESET lsn_tracker.token');

		# What it raises, while something is owed
		foreach my $way ($kind eq 'fastpath' ? ('in') : ('in', 'out'))
		{
			run_sql($begin) if $begin;
			my (undef, $token) = $write->();
			my $owing = $statement =~ /TOKEN/ ? $statement =~ s/TOKEN/$token/r : "SET lsn_tracker.token = '$token';\n$statement";
			start_wait($session, "SET other.mode = 'fail on the way $way';\n$owing");
			# one that fails in front of the gate does not get there
			await_waiters($standby, 1) unless $way eq 'in' && ($kind eq 'fastpath' || $after);
			resume($standby);
			($out, $err) = finish_wait($session);
			like($err, qr/ERROR:  other: \w+ fails on the way $way/, "$order, $kind: an error on the way $way");
			run_sql('ROLLBACK');
			run_sql('RESET other.mode');
			is($standby->safe_psql('postgres', "SELECT (SELECT count(*) FROM lsn_waiters()), (SELECT count(*) FROM pg_locks WHERE pid = $pid), backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"),
				'0|0|t', "$order, $kind: leaves neither a place in the queue, nor a lock, nor xmin");
			is(scalar run_sql("BEGIN;\nSELECT count(*) FROM v;\nSELECT string_agg(locktype || ' ' || mode, ',') FROM pg_locks WHERE pid = $pid AND locktype = 'virtualxid';\nCOMMIT"),
				"$rows\nvirtualxid ExclusiveLock", "$order, $kind: the session reads what it is owed, and has its virtual transaction");
			run_sql("RESET lsn_tracker.token;\nDEALLOCATE ALL");
		}
	}

	# A snapshot that it holds while the statement starts is in the way, in front of the
	# gate, and that is said.  A query that it runs there is not.
	foreach my $mode ('query', 'register', 'read-only query')
	{
		my (undef, $token) = $write->();
		my $waits = $mode =~ /query/ || !$after;
		start_wait($session, "SET other.mode = '$mode';\nSET lsn_tracker.token = '$token';\nSELECT count(*) FROM v");
		await_waiters($standby, 1) if $waits;
		resume($standby) if $waits;
		my ($out, $err) = finish_wait($session);
		resume($standby) if !$waits;
		like("$out|$err", $waits ? qr/^$rows\|\z/ : qr/^\|.*ERROR:  cannot wait for replay while this session holds a snapshot/, "$order: $mode");
		run_sql("RESET other.mode;\nRESET lsn_tracker.token");
		catch_up($primary, $standby);
	}

	# The target is reached after the statement's snapshot was taken, and before the
	# other's query runs.
	pause($standby);
	my $token = $primary->safe_psql('postgres', "INSERT INTO v VALUES (-1);\nSELECT lsn_last_commit()");
	my $expected = $primary->safe_psql('postgres', 'SELECT count(*) FROM v');
	my $gate = session($standby);
	finish_wait(start_wait($gate, 'SELECT pg_advisory_lock(1)'));
	start_wait($session, "SET other.mode = 'read-only query';\nSET lsn_tracker.token = '$token';\nSELECT count(*) FROM v");
	# behind ours nothing is in front of the gate
	if ($after)
	{
		$standby->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'") or die 'nobody at the lock';
	}
	else
	{
		await_waiters($standby, 1);
	}
	resume($standby);
	is($standby->safe_psql('postgres', "SELECT lsn_wait('$token')"), 't', 'reached');
	finish_wait(start_wait($gate, 'SELECT pg_advisory_unlock(1)'));
	is(scalar finish_wait($session), $expected, "$order: reached in front of a read-only query");
	run_sql("RESET other.mode;\nRESET lsn_tracker.token");
	$gate->quit;

	is($standby->safe_psql('postgres', 'SELECT sum(confl_snapshot + confl_lock) FROM pg_stat_database_conflicts'), '0', "$order: nothing was cancelled");
	$session->quit;
	$standby->stop;
	$primary->stop;
}

done_testing();
