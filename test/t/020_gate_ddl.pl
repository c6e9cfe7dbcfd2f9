# What the primary does to the tables of a statement that waits at the gate: the right
# answer all the same, or the error that the primary gives, at once, whatever delay is
# allowed; and replay does not wait for it.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use List::Util qw(max);
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnDdl;
use LsnPair;

# The ways to ask, and whether the answer has to be the primary's, or may be 40001, as
# it is right for those that hold an earlier statement's lock.
my %ways = (
	'SELECT' => [ '', $ask, 'right' ],
	'SELECT, first of a block' => [ 'BEGIN', $ask, 'right' ],
	'SELECT, first of REPEATABLE READ' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ', $ask, 'right' ],
	'SELECT, in a savepoint' => [ "BEGIN;\nSAVEPOINT a", $ask, 'right' ],
	'SELECT, behind a read of the same' => [ "BEGIN;\n$ask", $ask, 'or 40001' ],
	'SELECT, behind a read of another' => [ "BEGIN;\nSELECT count(*) FROM t", $ask, 'right' ],
	'DECLARE CURSOR, behind a read of another' => [ "BEGIN;\nSELECT count(*) FROM t", "DECLARE c CURSOR FOR $ask;\nFETCH c", 'right' ],
	'SELECT, behind a savepoint with a read of the same' => [ "BEGIN;\nSAVEPOINT a;\n$ask;\nROLLBACK TO a", $ask, 'right' ],
	'EXECUTE' => [ "PREPARE p AS $ask", 'EXECUTE p', 'right' ],
	(map { ("EXECUTE, $_ plan" => [ "SET plan_cache_mode = force_${_}_plan;\nPREPARE p(int) AS $ask_with;\nEXECUTE p(500)", 'EXECUTE p(500)', 'right' ]) } qw(generic custom)),
	'COPY' => [ '', "COPY ($ask) TO STDOUT", 'right' ],
	'DECLARE CURSOR' => [ 'BEGIN', "DECLARE c CURSOR FOR $ask;\nFETCH c", 'right' ],
	'DECLARE CURSOR WITH HOLD' => [ '', "DECLARE c CURSOR WITH HOLD FOR $ask;\nFETCH c", 'right' ]);

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("ddl_$mode", "lsn_tracker.wakeup = $mode", 'hot_standby_feedback = off', 'autovacuum = off', "lsn_tracker.default_timeout = '60s'", 'restart_after_crash = off');
	my $owner = 'SET SESSION AUTHORIZATION owner';

	# a superuser would not see the policy
	$primary->safe_psql('postgres', 'CREATE ROLE owner LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO owner; GRANT SELECT ON t TO owner');
	my @names = sort keys %ways;
	my %session = map { $_ => session($standby) } @names;

	# statements that the protocol has prepared
	my %prepared = map { $_ => report_client($standby->connstr('postgres') . " options='-c plan_cache_mode=force_${_}_plan'") } qw(generic custom);
	foreach my $delay ($mode eq 'redo' ? (-1, 0) : (-1))
	{
		$standby->safe_psql('postgres', "ALTER SYSTEM SET max_standby_streaming_delay = $delay");
		$standby->reload;
		foreach my $change (sort keys %changes)
		{
			$primary->safe_psql('postgres', "$owner;\n$make");
			catch_up($primary, $standby);

			finish_wait(start_wait($session{$_}, "$owner;\n$ways{$_}[0]")) foreach @names;
			foreach my $client (values %prepared)
			{
				ask($client, $_) foreach $owner, "prepare: $ask_with", 'execute: 500';
			}
			pause($standby);
			$primary->safe_psql('postgres', "$owner;\n$changes{$change}");
			my $token = $primary->safe_psql('postgres', "INSERT INTO t VALUES (1);\nSELECT lsn_last_commit()");
			my ($ret, $right, $wrong) = $primary->psql('postgres', "\\set VERBOSITY verbose\n$owner;\n$ask");
			my ($error) = $wrong =~ /ERROR:  (.*)/;
			start_wait($session{$_}, "SET lsn_tracker.token = '$token';\n\\set VERBOSITY verbose\n$ways{$_}[1]") foreach @names;
			foreach my $client (values %prepared)
			{
				ask($client, "SET lsn_tracker.token = '$token'");
				start_asking($client, 'execute: 500');
			}
			await_waiters($standby, @names + keys %prepared);
			my $start = time;
			resume($standby);
			foreach my $name (@names)
			{
				my ($out, $err) = finish_wait($session{$name});
				my $took = time - $start;
				my $is_right = $error ? $err =~ /\Q$error\E/ : $out eq $right && $err eq '';
				my $conflict = $ways{$name}[2] ne 'right' && $err =~ /ERROR:  40001: .*\n(?:.*\n)*HINT:  Repeat/;

				ok($is_right || $conflict, "$mode, delay $delay, $change: $name" . ($conflict ? ' (to be repeated)' : '')) or diag("$out|$err, right: $right$wrong");
				cmp_ok($took, '<', 30, 'in time') if $took >= 1;
				finish_wait(start_wait($session{$name}, "ROLLBACK;\nDISCARD ALL"));
			}
			foreach my $plan (sort keys %prepared)
			{
				my ($out, $sqlstate) = answer($prepared{$plan});

				is("$out$sqlstate", $error ? substr($error, 0, 5) : $right, "$mode, delay $delay, $change: prepared, $plan plan");
				cmp_ok(time - $start, '<', 30, 'in time') if time - $start >= 1;
				ask($prepared{$plan}, 'DISCARD ALL');
			}
			await_waiters($standby, 0);
			is($standby->safe_psql('postgres', "SELECT lsn_wait('$token')"), 't', "$mode, delay $delay, $change: replayed");
		}
	}

	$_->quit foreach values %session;
	$_->{run}->finish foreach values %prepared;

	# Locks of earlier statements are held on.  If replay needs one of them, the wait
	# gives way; if it needs the statement's own, that is released, and they are not.
	my %earlier = (
		'SELECT pg_advisory_xact_lock(5)' => [ 'right', 'advisory' ],
		'LOCK TABLE t IN ROW EXCLUSIVE MODE' => [ 'right', 't' ],
		'SELECT count(*) FROM t' => [ 'right', 't' ],
		"PREPARE q AS SELECT count(*) FROM t;\nEXECUTE q" => [ 'right', 't' ],
		"SAVEPOINT a;\nSELECT count(*) FROM t;\nRELEASE a" => [ 'right', 't' ],
		'LOCK TABLE d IN ROW EXCLUSIVE MODE' => [ '40001' ],
		'SELECT count(*) FROM d' => [ '40001' ],
		"DECLARE c CURSOR FOR SELECT count(*) FROM d;\nFETCH ALL FROM c;\nCLOSE c" => [ '40001' ],
		"SAVEPOINT a;\nSELECT count(*) FROM d;\nROLLBACK TO a" => [ 'right' ],
		"SAVEPOINT a;\nSELECT count(*) FROM d;\nSAVEPOINT b;\nSELECT nothing;\nROLLBACK TO b" => [ '40001' ]);
	foreach my $earlier (sort keys %earlier)
	{
		my ($says, $held) = @{ $earlier{$earlier} };
		my $what = $earlier =~ s/\n/ /gr;

		$primary->safe_psql('postgres', "$owner;\n$make");
		catch_up($primary, $standby);
		my $session = session($standby);
		finish_wait(start_wait($session, "BEGIN;\n$earlier"));
		pause($standby);
		$primary->safe_psql('postgres', "$owner;\nTRUNCATE d");
		my $token = write_token($primary);
		# no SET, behind which note would be taken as well
		start_wait($session, "\\set VERBOSITY verbose\nSELECT count(*) FROM d, lsn_require('$token', 60000)");
		await_waiters($standby, 1);
		resume($standby);
		my ($out, $err) = finish_wait($session);
		if ($says eq 'right')
		{
			is("$out$err", '0', "$mode, behind $what: the right answer");
			is($standby->safe_psql('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE locktype = '$held' OR relation = to_regclass('$held')"),
				't', "$mode, behind $what: which is held on") if $held;
		}
		else
		{
			like($err, qr/ERROR:  40001: the wait for replay gives way/, "$mode, behind $what: gives way");
		}
		$session->quit;
	}
	$standby->stop;
	$primary->stop;
}

done_testing();
