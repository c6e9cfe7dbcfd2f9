# lsn_tracker.fail_fast: a wait that can't succeed ends at once and says why; never one that would
# have made it, in many cases at random beside replay of changing speed.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use List::Util qw(shuffle);
use Test::More;
use Time::HiRes qw(time sleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

# the small segments let it judge by the distance early
@LsnPair::initdb_options = ('--wal-segsize=1');
my ($primary, $standby) = slow_pair('fail_fast', 'wal_sender_timeout = 0', 'max_standby_streaming_delay = -1', 'max_standby_archive_delay = -1');
my $fast = 'SET lsn_tracker.fail_fast = on;';

# Run SQL; returns how long it took, what it answered, and its error in one line
sub run
{
	my ($sql) = @_;
	my $start = time;
	my (undef, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\n$fast $sql", on_error_stop => 0);
	return (time - $start, $out, $err =~ s/\n/ /gr);
}

# It has no hope, and says so long before its time is up.
sub hopeless
{
	my ($sql, $why, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($seconds, undef, $err) = run($sql);
	like($err, qr/ERROR:  55L01: replay of .* cannot be reached within 1000000 ms.*DETAIL:  Replay has reached .*HINT:  $why/, $what);
}

my $count = 'SELECT count(*) FROM t';
my $future = future_lsn($primary, 1_000_000);

# Nothing is wrong, so there is hope.
my (undef, $out, $err) = run("SELECT lsn_require('$future', 300)");
like($err, qr/55L01: timed out after 300 ms/, 'nothing is wrong: waits');

# Paused
pause($standby);
hopeless("SELECT lsn_require('$future', 1000000)", 'WAL replay is paused', 'paused');
hopeless("SET lsn_tracker.default_timeout = 1000000; SET lsn_tracker.token = '$future'; $count", 'WAL replay is paused', 'paused, at the gate');
hopeless("SELECT count(*) FROM t, lsn_require('$future', 1000000)", 'WAL replay is paused', 'paused, in FROM');
write_wal($primary);
hopeless("SET lsn_tracker.default_timeout = 1000000; SET lsn_tracker.max_staleness = 0; $count", 'WAL replay is paused', 'paused, a strong read');
is((run("SELECT lsn_wait('$future', 1000000)"))[1], 'f', 'lsn_wait: false');
is((run("SELECT lsn_wait_xact('1000000', 1000000)"))[1], 'f', 'lsn_wait_xact: false');
is((run("SELECT lsn_wait(pg_last_wal_replay_lsn(), 1000000)"))[1], 't', 'what has been replayed, has');
(undef, $out, $err) = run("SET lsn_tracker.on_timeout = stale; SET lsn_tracker.default_timeout = 1000000; SET lsn_tracker.token = '$future'; $count");
like("$out $err", qr/^\d+ .*WARNING:  01000: replay of .* cannot be reached/, 'stale: reads all the same');
(undef, $out, $err) = $standby->psql('postgres', "SELECT lsn_require('$future', 300)");
like($err, qr/timed out after 300 ms/, 'off: waits');
is($standby->safe_psql('postgres', 'SELECT failed_fast > 5 FROM pg_stat_lsn_tracker'), 't', 'counted');

# without a limit there is always hope
my $session = session($standby);
$session->query($fast);
start_wait($session, "SELECT lsn_wait('$future', 0)");
await_waiters($standby, 1);
resume($standby);
reach($primary, $future);
is(scalar finish_wait($session), 't', 'no limit: waits until replay is resumed');

# paused in mid-wait
start_wait($session, "SELECT lsn_require('F0/0', 1000000)");
await_waiters($standby, 1);
pause($standby);
like((finish_wait($session))[1], qr/cannot be reached.*is paused/s, 'paused in mid-wait');
resume($standby);

# Delayed on purpose: hopeless if it is known that the commit is not older than that.
my $old = write_token($primary);
catch_up($primary, $standby);
$standby->append_conf('postgresql.conf', 'recovery_min_apply_delay = 1h');
$standby->reload;
$standby->poll_query_until('postgres', "SELECT current_setting('recovery_min_apply_delay') = '1h'") or die;
catch_up_by_others();
$standby->safe_psql('postgres', 'SELECT lsn_staleness()');
my $token = write_token($primary);
hopeless("SET lsn_tracker.default_timeout = 1000000; SET lsn_tracker.token = '$token'; $count", 'Replay is delayed on purpose', 'delayed');
my ($position) = split /@/, $token;
like((run("SELECT lsn_require('$position', 300)"))[2], qr/timed out after 300 ms/, 'a plain position may be no commit');
$standby->append_conf('postgresql.conf', 'recovery_min_apply_delay = 0');
$standby->reload;
is(run_until_true("SELECT lsn_wait('$token', 100000)"), 't', 'not delayed any more');

# Nobody sends WAL: not what is here already, but the rest.
slow_down($standby, 1000);
my $here = write_messages($primary, 3000);
$standby->poll_query_until('postgres', "SELECT pg_last_wal_receive_lsn() >= '$here'") or die 'not received';
cut_off($standby);
is((run("SELECT lsn_wait('$here', 1000000)"))[1], 't', 'no WAL receiver: what is here is replayed');
hopeless("SELECT lsn_require('F0/0', 1000000)", 'No WAL receiver is running', 'no WAL receiver: what is not here');
follow($standby, $primary);
$token = write_token($primary);
is((run("SELECT lsn_wait('$token', 1000000)"))[1], 't', 'back again');

# Nor while replay is held up by a session: only when it has nothing to do it has WAL sent again.
my $holder = session($standby);
$holder->query('BEGIN; SELECT count(*) FROM t');
$primary->safe_psql('postgres', 'BEGIN; LOCK TABLE t; COMMIT');
await_conflict($standby, 'relation');
$primary->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM pg_stat_replication');
$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die 'the WAL receiver did not stop';
$token = write_token($primary);
like((run("SELECT lsn_require('$token', 5000)"))[2], qr/55L01: timed out after 5000 ms/, 'no WAL receiver, held up by a session: waits');
start_wait($session, "SELECT lsn_wait('$token', 1000000)");
await_waiters($standby, 1);
$holder->query('ROLLBACK');
is(scalar finish_wait($session), 't', 'and makes it');

# Too far.  First it has to be seen how fast replay is.
my @naps = (1000, 1500, 2000, 3000, 4000);
my $end = write_messages($primary, 40000);
$standby->poll_query_until('postgres', "SELECT pg_last_wal_receive_lsn() >= '$end'") or die 'not received';
my $waited = 0;
$waited++ while $waited < 20 && (run("SELECT lsn_require('$end', 3000)"))[2] =~ /timed out after 3000 ms/;
cmp_ok($waited, '<', 20, "it is known how fast replay is after $waited waits");
hopeless("SELECT lsn_require('F000/0', 1000000)", 'Replay is too far behind', 'too far');
my ($err_of_far) = (run("SELECT lsn_require('$end', 10)"))[2];
like($err_of_far, qr/cannot be reached within 10 ms.*bytes to go\. At the rate of the last minute, \d+ bytes per second, that takes [\d.]+ seconds/, 'and how far');
is($standby->safe_psql('postgres', "SELECT lsn_eta('$end') BETWEEN '2 s' AND '10 min'"), 't', 'lsn_eta()');
is($standby->safe_psql('postgres', "SELECT lsn_eta('F000/0') IS NULL, lsn_eta('0/1')"), 't|00:00:00', 'lsn_eta(): not known, and replayed');

# At random: so many sessions wait for something near or far for a short or a long time, while
# something happens to the standby.  Of each that has been given up, see where replay is when its
# time is up.
my $cases = $ENV{FAIL_FAST_CASES} // 1000;
my @sessions = map { session($standby) } 1 .. 16;
my ($monitor, $writer) = (session($standby), session($primary));
my %reasons = (
	'WAL replay is paused' => 'paused',
	'No WAL receiver' => 'no receiver',
	'Replay is delayed' => 'delayed',
	'Replay is too far' => 'too far');
my ($early, $replayed, @given_up, %seen) = (0);
$_->query($fast) foreach @sessions;

sub number
{
	my ($high, $low) = split m{/}, shift;
	return (hex($high) << 32) + hex($low);
}
my $number_of_end = number($end);

sub seen
{
	my $n = 0;
	$n += $seen{$_} // 0 foreach @_;
	return $n;
}

# From small to large, all magnitudes alike
sub up_to { return int exp rand log shift }

# What happens: each of these in its turn, for a while; then it is put right again.  A verdict that
# depends on it holds for as long as that; each has its name.
my ($undo, $next) = (undef, 0);
my (%lasts, @to_come);

sub happen
{
	my ($goes_on, @events) = @_;

	return if time < $next || !$undo && !$goes_on;
	if ($undo)
	{
		$undo->();
		$undo = undef;
		$next = time + rand 0.5;
		return;
	}
	@to_come = shuffle(@events) if !@to_come;
	my ($name, $longest, $do, $put_right) = @{ shift @to_come };
	my $times = [ time, 'inf' ];
	push @{ $lasts{$name} }, $times;
	$do->();
	$undo = sub { $put_right->(); $times->[1] = time };
	$next = time + rand $longest;
	return;
}

# The times for which a state has lasted, if only in part, between two moments
sub lasted
{
	my ($name, $from, $to) = @_;
	return grep { $_->[0] <= $to && $_->[1] >= $from } @{ $lasts{$name} // [] };
}

sub too_early
{
	my ($case, $what) = @_;
	$early++;
	diag("$what: given up as $case->{verdict}, target $case->{target}, replayed $replayed, timeout $case->{timeout}");
}

sub look
{
	$replayed = number($monitor->query('SELECT pg_last_wal_replay_lsn()'));
	my $now = time;
	foreach my $case (grep { $_->{deadline} <= $now && $_->{target} <= $replayed } @given_up)
	{
		# unless the test itself has put that right
		next if grep { $_->[1] <= $now } lasted($case->{verdict}, $case->{start}, $now);
		too_early($case, 'would have made it');
	}
	@given_up = grep { $_->{deadline} > $now } @given_up;
}

# How a case has ended
sub judge
{
	my ($case, $err) = @_;
	my ($reason) = $err =~ /cannot be reached .*HINT:  (@{[ join '|', keys %reasons ]})/s;

	$case->{verdict} = $err eq '' ? 'reached' : $reason ? $reasons{$reason} : $err =~ /timed out/ ? 'timed out' : $err;
	$seen{ $case->{verdict} }++;
	return if !$reason;
	push @given_up, $case;
	too_early($case, 'it is not so')
	  if $case->{verdict} =~ /paused|no receiver/ && !lasted($case->{verdict}, $case->{start}, time);
}

# Cases, until there are enough.  Each is a target, as SQL has it and as a number, and a
# time-out, up to the longest.
sub run_cases
{
	my ($enough, $longest, $target, @events) = @_;
	my @running;
	my $goes_on = 1;

	@to_come = ();
	look();
	while ($goes_on || @given_up || grep { $_ } @running)
	{
		$goes_on &&= !$enough->();
		happen($goes_on, @events);
		foreach my $i (0 .. $#sessions)
		{
			my $session = $sessions[$i];
			if ($running[$i])
			{
				$session->{run}->pump_nb;
				next unless $session->{stdout} =~ /<done>/ && $session->{stderr} =~ /<done>/;
				judge($running[$i], (finish_wait($session))[1]);
				$running[$i] = undef;
			}
			next if !$goes_on;
			my ($sql, $number) = $target->();
			my $timeout = 10 + up_to($longest);
			my $start = time;
			$running[$i] = { timeout => $timeout, target => $number, start => $start, deadline => $start + $timeout / 1000 };
			start_wait($session, ('SELECT', "$count,")[ rand 2 ] . " lsn_require($sql, $timeout)");
		}
		look();
		sleep 0.005;
	}
	$undo->() if $undo;
	$undo = undef;
	diag(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
}

my @pause = ('paused', 0.3,
	sub { $monitor->query('SELECT pg_wal_replay_pause()') },
	sub { $monitor->query('SELECT pg_wal_replay_resume()') });
my @speed = ('speed', 1, sub {
		$standby->append_conf('postgresql.conf', 'slow_replay.nap = ' . $naps[ rand @naps ]);
		$standby->reload;
	}, sub { });

# Far behind, with a speed that changes and pauses
run_cases(sub { seen(keys %seen) >= $cases || $replayed > $number_of_end - 20_000_000 }, 3000,
	sub {
		my $target = $replayed + up_to(200_000_000);
		$target = $number_of_end if $target > $number_of_end;
		return (sprintf("'%X/%X'::pg_lsn", $target >> 32, $target & 0xffffffff), $target);
	}, \@speed, \@speed, \@speed, \@pause);
cmp_ok($seen{'too far'}, '>=', 50, 'some were given up as too far');

# Beside a primary that writes, and a standby that loses it; or has its connection taken away, which
# it comes back from by itself, also while a session keeps a lock from replay
slow_down($standby, 0);
$primary->safe_psql('postgres', 'CREATE TABLE held (i int)');
catch_up($primary, $standby);
my @written;

# Commit something, not more often than so; returns what there is, the newest last
sub commits
{
	return @written if @written && $written[-1]{at} > time - 0.01;
	my $size = up_to(20_000);
	$writer->query("SELECT pg_logical_emit_message(false, '', repeat('x', $size))");
	my $token = $writer->query('INSERT INTO t VALUES (1); SELECT lsn_last_commit()');
	push @written, { at => time, sql => "'$token'", number => number($token =~ s/@.*//r) };
	return @written;
}

sub fresh
{
	my $newest = (commits())[-1];
	return ($newest->{sql}, $newest->{number}) if rand 3 > 1;
	my $ahead = $newest->{number} + up_to(200_000);
	return (sprintf("'%X/%X'::pg_lsn", $ahead >> 32, $ahead & 0xffffffff), $ahead);
}

sub lose_connection
{
	$primary->safe_psql('postgres', <<SQL);
SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name <> 'lsn_tracker'
SQL
}

my $until = time + $PostgreSQL::Test::Utils::timeout_default;
my $has_been = sub { seen('no receiver') >= 20 && !grep { @{ $lasts{$_} // [] } < 2 } qw(held connection) };
run_cases(sub { seen(keys %seen) >= 2 * $cases && $has_been->() || time > $until }, 4000, \&fresh, \@pause,
	[ 'no receiver', 3, sub { cut_off($standby) }, sub {
			follow($standby, $primary);
			$standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_stat_wal_receiver') or die 'no WAL receiver';
		} ],
	[ 'connection', 0.5, \&lose_connection, sub { } ],
	[ 'held', 2, sub {
			$holder->query('BEGIN; SELECT count(*) FROM held');
			$primary->safe_psql('postgres', 'BEGIN; LOCK TABLE held; COMMIT');
			await_conflict($standby, 'relation');
			lose_connection();
		}, sub { $holder->query('ROLLBACK') } ]);
cmp_ok($seen{'no receiver'}, '>=', 20, 'some for want of a WAL receiver');
cmp_ok($seen{paused}, '>=', 20, 'some since replay was paused');

# With a delay, for commits of any age
$standby->append_conf('postgresql.conf', 'recovery_min_apply_delay = 11s');
$standby->reload;
$standby->poll_query_until('postgres', "SELECT current_setting('recovery_min_apply_delay') = '11s'") or die;
my ($delayed_since, $made_it) = (time, $seen{reached});
$until = time + $PostgreSQL::Test::Utils::timeout_default;
@written = ();
$has_been = sub { seen('delayed') >= 100 && $seen{reached} >= $made_it + 3 };
run_cases(sub { time > $delayed_since + 13 && $has_been->() || time > $until }, 2000, sub {
		my @commits = commits();
		$standby->safe_psql('postgres', 'SELECT lsn_staleness()') if @commits == 1;
		@commits = ((grep { $_->{number} > $replayed } @commits), $commits[-1]);
		# those that it is about to replay are few, and matter
		my $commit = $commits[ rand(2) < 1 ? -1 : @commits * rand() ** 3 ];
		return ($commit->{sql}, $commit->{number});
	}, [ 'nothing', 1, sub { }, sub { } ]);
cmp_ok($seen{delayed}, '>=', 100, 'some since replay is delayed');
cmp_ok($seen{reached}, '>=', $made_it + 3, 'and not those whose time comes');

is($early, 0, 'none was given up that would have made it, and none for what was not so');
cmp_ok(seen(keys %seen), '>=', 2 * $cases, 'of so many');
cmp_ok($seen{reached}, '>=', 500, 'many made it');
cmp_ok($seen{'timed out'}, '>=', 100, 'and some did not, and could not know it');
is(join(', ', sort keys %seen), 'delayed, no receiver, paused, reached, timed out, too far', 'and nothing else');

$standby->stop('immediate');
$primary->stop('immediate');
done_testing();

# All commits made so far are replayed, and what comes is not
sub catch_up_by_others
{
	is((run("SELECT lsn_wait('$old', 100000)"))[1], 't', 'replayed before');
}

# The configuration is read by replay a moment after the session
sub run_until_true
{
	my ($sql) = @_;
	foreach (1 .. 100)
	{
		my $out = (run($sql))[1];
		return $out if $out eq 't';
		sleep 0.1;
	}
	return 'never';
}
