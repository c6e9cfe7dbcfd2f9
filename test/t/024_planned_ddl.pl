# What the primary does to the tables of a statement that has been analysed or planned and
# has not come to the gate yet: replay meets it there, with its locks and a snapshot.  In
# the gate it gives way like any other, so it answers right; and replay waits for it no
# longer than it takes to get there.  To be repeated (40001) are those that hold an earlier
# statement's locks and, where no delay is allowed, whoever the server meets and cancels.
#
# t/020_gate_ddl.pl is about statements that have come there before.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnDdl;
use LsnPair;

my $library = PostgreSQL::Test::Utils::tempdir() . '/stand_still.so';
my $log = `$ENV{MODULE_CC} -o '$library' '$FindBin::RealBin/../other/stand_still.c' 2>&1`;
die "could not compile the other library: $log" if $?;

# Where it stands when replay meets it.  In front of the token; the statement.  Utility
# commands plan behind the gate.
my $rows = 'SELECT i FROM d UNION ALL SELECT i FROM w UNION ALL SELECT i FROM parts';
my %ways = (
	'SELECT' => [ 'parsed planned', '', $ask ],
	'SELECT, first of a block' => [ 'parsed planned', 'BEGIN', $ask ],
	'SELECT, behind a read of the same' => [ 'parsed planned', "BEGIN;\n$ask", $ask ],
	'SELECT, first of REPEATABLE READ' => [ 'parsed planned', 'BEGIN ISOLATION LEVEL REPEATABLE READ', $ask ],
	'SELECT, in a savepoint' => [ 'parsed planned', "BEGIN;\nSAVEPOINT a", $ask ],
	'SELECT, with a target' => [ 'parsed planned', '', "$ask FROM lsn_require('TOKEN', 0)" ],
	'EXECUTE' => [ 'parsed', "PREPARE p AS $ask", 'EXECUTE p' ],
	'COPY' => [ 'parsed', '', "COPY ($ask) TO STDOUT" ],
	'DECLARE CURSOR' => [ 'parsed', 'BEGIN', "DECLARE c CURSOR FOR $ask;\nFETCH c" ],
	'DECLARE CURSOR WITH HOLD' => [ 'parsed', '', "DECLARE c CURSOR WITH HOLD FOR $ask;\nFETCH c" ],
	'EXPLAIN ANALYZE' => [ 'parsed', '', "EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, SUMMARY OFF) $rows" ],
	'CALL' => [ 'parsed', '', 'CALL answer(NULL)' ],
	'DO' => [ 'parsed', '', "DO \$\$ BEGIN PERFORM set_config('my.answer', ($ask), false); END \$\$;\nSHOW my.answer" ]);
my %prepared = map { $_ => "options='-c plan_cache_mode=force_custom_plan -c stand_still.at=$_'" } qw(parsed planned);
my $owner = 'SET SESSION AUTHORIZATION owner';

# What is said by a primary, or behind a wait: the answer, and the error
sub said
{
	my ($way, $out, $err) = @_;
	my ($error) = $err =~ /ERROR:  (.*)/;
	return ('', $error) if $error;
	return ($way eq 'EXPLAIN ANALYZE' ? $out =~ /actual rows=(\d+)/ : (split /\n/, $out)[-1] // '', '');
}

# What a session says.  Where no delay is allowed, the server cancels a statement again and
# again until its locks are gone; what comes between the error and the client's next
# command ends the session.  In its place there is a new one then.
my $ended = 0;
sub finish
{
	my ($node, $session) = @_;
	my @said = eval { finish_wait($$session) };

	return @said unless $@;
	my ($out, $err) = ($$session->{stdout}, $$session->{stderr});
	die "$@\n$err" unless $err =~ /connection to server was lost/;
	$$session->{run}->finish;
	$ended++;
	$$session = session($node);
	return ($out, $err);
}

sub new_client
{
	my ($node, $where) = @_;
	return report_client($node->connstr('postgres') . " $prepared{$where}");
}

my ($primary, $standby) = new_pair('planned', "shared_preload_libraries = 'lsn_tracker, $library'", 'hot_standby_feedback = off', 'autovacuum = off',
	"lsn_tracker.default_timeout = '60s'", 'restart_after_crash = off');
$primary->safe_psql('postgres', 'CREATE ROLE owner LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO owner');
$primary->safe_psql('postgres', "CREATE PROCEDURE answer(INOUT a text) LANGUAGE plpgsql AS \$\$ BEGIN a := ($ask); END \$\$");
my $gate = session($standby);
my @took;
my $met = 0;

foreach my $delay (-1, 0)
{
	$standby->safe_psql('postgres', "ALTER SYSTEM SET max_standby_streaming_delay = $delay");
	$standby->reload;

	# For each, a way and a place.  Without a delay, the server ends sessions that it meets
	# in a savepoint.
	my @all = map { my $way = $_; map { [ $way, $_ ] } split / /, $ways{$way}[0] } grep { $delay || !/savepoint/ } sort keys %ways;
	my %session = map { $_ => session($standby) } @all;
	my %client = map { $_ => new_client($standby, $_) } sort keys %prepared;

	foreach my $change (sort keys %changes)
	{
		$primary->safe_psql('postgres', "$owner;\n$make");
		catch_up($primary, $standby);
		finish_wait(start_wait($session{$_}, "\\set VERBOSITY verbose\n$owner;\n$ways{$_->[0]}[1]")) foreach @all;
		foreach my $client (values %client)
		{
			ask($client, $_) foreach $owner, "prepare: $ask_with";
		}
		pause($standby);
		$primary->safe_psql('postgres', "$owner;\n$changes{$change}");
		my %right;
		foreach my $way ('SELECT', 'EXPLAIN ANALYZE')
		{
			my ($ret, $out, $err) = $primary->psql('postgres', "\\set VERBOSITY verbose\n$owner;\n$ways{$way}[2]");
			$right{$way} = [ said($way, $out, $err) ];
		}

		# last, since to read on the primary may remove row versions: that is not to meet
		# who has answered already
		my $token = write_token($primary);

		# all are on their way, and stand still, but for the statement that was analysed
		# when it was prepared: that waits at the gate
		ask($_, "SET lsn_tracker.token = '$token'") foreach values %client;
		finish_wait(start_wait($gate, 'SELECT pg_advisory_lock(1)'));
		foreach my $i (@all)
		{
			my $statement = $ways{$i->[0]}[2];
			my $owed = $statement =~ s/TOKEN/$token/ ? '' : "SET lsn_tracker.token = '$token';\n";
			start_wait($session{$i}, "${owed}SET stand_still.at = '$i->[1]';\n$statement");
		}
		foreach my $client (values %client)
		{
			start_asking($client, 'execute: 500');
		}
		my $n = @all + 1;
		$standby->poll_query_until('postgres', "SELECT count(*) = $n FROM pg_stat_activity WHERE wait_event = 'advisory'") or die 'they do not stand still';

		# replay meets them, or passes by
		resume($standby);
		$standby->poll_query_until('postgres', <<SQL) or die 'replay neither came through nor to wait';
SELECT lsn_replicated('$token') OR count(*) > 0 FROM pg_stat_activity
WHERE backend_type = 'startup' AND (wait_event LIKE 'RecoveryConflict%' OR wait_event_type = 'Lock')
SQL
		$met += $standby->safe_psql('postgres', "SELECT NOT lsn_replicated('$token')") eq 't';
		my $start = time;
		finish_wait(start_wait($gate, 'SELECT pg_advisory_unlock(1)'));

		my $check = sub {
			my ($name, $out, $error, $right) = @_;
			my $repeat = $error =~ /^40001/ && ($delay == 0 || $name =~ /behind a read/) ? ' (to be repeated)' : '';

			push @took, time - $start;
			ok($repeat || ($out eq $right->[0] && $error eq $right->[1]), "delay $delay, $change: $name$repeat") or diag("$out|$error, right: @$right");
			cmp_ok($took[-1], '<', 30, 'in time') if $took[-1] >= 1;
		};
		foreach my $i (@all)
		{
			$check->("$i->[0], $i->[1]", said($i->[0], finish($standby, \$session{$i})), $right{ $i->[0] } // $right{SELECT});
			start_wait($session{$i}, "ROLLBACK;\nDISCARD ALL");
			finish($standby, \$session{$i});
		}
		foreach my $where (sort keys %client)
		{
			my ($out, $sqlstate) = answer($client{$where});
			$check->("prepared, $where", $out, $sqlstate, [ $right{SELECT}[0], substr($right{SELECT}[1], 0, 5) ]);
			($out, $sqlstate) = ask($client{$where}, 'DISCARD ALL');
			next if $sqlstate eq '';
			$ended++;
			$client{$where}{run}->finish;
			$client{$where} = new_client($standby, $where);
		}
		await_waiters($standby, 0);
		is($standby->safe_psql('postgres', "SELECT lsn_wait('$token')"), 't', "delay $delay, $change: replayed");
	}
	$_->quit foreach values %session;
	$_->{run}->finish foreach values %client;
}
cmp_ok($met, '>', 10, 'replay came to wait for them');
is(scalar(() = slurp_file($standby->logfile) =~ /FATAL:  terminating connection due to conflict with recovery/g),
	$ended, "sessions end for that and nothing else: $ended");
my @sorted = sort { $a <=> $b } @took;
cmp_ok($sorted[ $#sorted / 2 ], '<', patience(), 'half of them within a second');
note("the slowest took $sorted[-1] s");

$gate->quit;
$standby->stop;
$primary->stop;
done_testing();
