# lsn_tracker.enabled, switched off and on without a restart: who waits is told, who comes later as
# well, replay does nothing for anybody; and then all is as before.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $off = qr/lsn_tracker is switched off on this standby/;

# Switch it; returns once new sessions and those who sleep know.
sub switch
{
	my ($node, $value) = @_;
	my $refused = $value eq 'off' ? '55L01' : '';

	$node->safe_psql('postgres', "ALTER SYSTEM SET lsn_tracker.enabled = $value");
	$node->reload;
	foreach (1 .. 600)
	{
		return if substr(sqlstate($node, "SELECT lsn_wait('0/1')"), 0, 5) eq $refused;
		select undef, undef, undef, 0.1;
	}
	die "it was not switched $value";
}

foreach my $mode ('redo', 'poll')
{
	my ($primary, $standby) = new_pair("enabled_$mode", "lsn_tracker.wakeup = $mode");
	my $future = future_lsn($primary);
	my $count = 'SELECT count(*) FROM t';

	# those who sleep: in a function, at the gate, for an answer, beside a lock
	my @sleepers = map { session($standby) } 1 .. 3;
	start_wait($sleepers[0], "SELECT lsn_wait('$future', 0)");
	$sleepers[1]->query("SET lsn_tracker.default_timeout = 0; SET lsn_tracker.token = '$future'");
	start_wait($sleepers[1], $count);
	$sleepers[2]->query("BEGIN; $count");
	start_wait($sleepers[2], "SELECT lsn_wait_xact('1000000', 0)");
	await_waiters($standby, 3);
	switch($standby, 'off');
	like((finish_wait($_))[1], $off, "$mode: who sleeps is told") foreach @sleepers;
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', "$mode: nobody waits");
	$sleepers[2]->query('ROLLBACK');

	# who comes later, whether there is anything to wait for or not
	catch_up($primary, $standby);
	like(sqlstate($standby, $_), qr/^55L01: $off/, "$mode: refused: $_")
	  foreach "SELECT lsn_wait('0/1')", "SELECT lsn_require('$future', 10)", "SELECT count(*) FROM t, lsn_require('0/1')",
	  "SET lsn_tracker.token = '0/1'; $count", "SET lsn_tracker.max_staleness = 0; $count", 'SELECT lsn_staleness()', 'SELECT lsn_watch(NULL)';
	is(sqlstate($standby, "SELECT lsn_replicated('0/1'), lsn_last_replay(); SET lsn_tracker.max_staleness = 0; SELECT 1 FROM pg_class"), '',
		"$mode: what does not wait, works");
	my ($ret, $out, $err) = $standby->psql('postgres', "SET lsn_tracker.on_timeout = stale; SET lsn_tracker.max_staleness = 0; $count");
	like($err, qr/WARNING:  $off/, "$mode: or reads all the same, with a warning");
	like($out, qr/^\d+$/, "$mode: and an answer");
	is($standby->safe_psql('postgres', 'SELECT refused > 0 FROM pg_stat_lsn_tracker'), 't', "$mode: counted");

	# Replay goes on, and nothing of ours with it: where it stands is told by the server.
	my $before = $standby->safe_psql('postgres', 'SELECT lsn_last_replay()');
	my $lsn = write_wal($primary);
	$standby->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$lsn'") or die;
	is($standby->safe_psql('postgres', "SELECT lsn_last_replay() >= '$lsn'"), 't', "$mode: replay goes on");

	# On again
	switch($standby, 'on');
	$future = future_lsn($primary);
	start_wait($sleepers[0], "SELECT lsn_wait('$future', 0)");
	await_waiters($standby, 1);
	reach($primary, $future);
	is(scalar finish_wait($sleepers[0]), 't', "$mode: on again: woken");
	my $token = write_token($primary);
	is($standby->safe_psql('postgres', "SET lsn_tracker.token = '$token'; $count"), $primary->safe_psql('postgres', $count), "$mode: and the gate");
	is($standby->safe_psql('postgres', "SET lsn_tracker.max_staleness = 0; $count"), $primary->safe_psql('postgres', $count), "$mode: strong reads");

	# Switched off when it is promoted: a primary like any other
	switch($standby, 'off');
	$primary->stop;
	$standby->promote;
	is($standby->safe_psql('postgres', "SELECT lsn_wait('$lsn')"), 't', "$mode: promoted meanwhile: nothing to wait for");
	$_->quit foreach @sleepers;
	$standby->stop;
}

# Started with it off, and switched on then: as if it had always been
my ($primary, $standby) = new_pair('enabled_start', 'lsn_tracker.enabled = off', 'max_standby_streaming_delay = -1');
like(sqlstate($standby, "SELECT lsn_wait('0/1')"), qr/^55L01: $off/, 'off from the start');
switch($standby, 'on');
my $future = future_lsn($primary);
my $sleeper = start_wait(session($standby), "SELECT lsn_wait('$future', 0)");
await_waiters($standby, 1);
reach($primary, $future);
is(scalar finish_wait($sleeper), 't', 'on: woken');

# Who sleeps is told by whoever comes to know: the reload itself wakes him before that.
foreach my $teller ('startup', 'lsn_tracker')
{
	my %pid = map { $_ => $standby->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = '$_'") } 'startup', 'lsn_tracker';

	start_wait($sleeper, "SELECT lsn_wait('F0/0', 0)");
	await_waiters($standby, 1);
	kill 'STOP', values %pid;
	$standby->safe_psql('postgres', 'ALTER SYSTEM SET lsn_tracker.enabled = off');
	$standby->reload;
	$standby->poll_query_until('postgres', 'SHOW lsn_tracker.enabled', 'off') or die;
	$standby->safe_psql('postgres', 'SELECT pg_sleep(0.3)');
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '1', "before the $teller process knows, he sleeps");
	my $start = time;
	kill 'CONT', $pid{$teller};
	like((finish_wait($sleeper))[1], $off, 'then he is told');
	# timers of the server have him look in the end
	cmp_ok(time - $start, '<', 5, 'and at once');
	kill 'CONT', values %pid;
	switch($standby, 'on');
}

# While replay waits for somebody it does not read the configuration: the worker tells.
my $reader = session($standby);
$reader->query('BEGIN; SELECT count(*) FROM t');
$primary->safe_psql('postgres', 'TRUNCATE t');
await_conflict($standby, 'relation');
start_wait($sleeper, "SELECT lsn_wait('F0/0', 0)");
await_waiters($standby, 1);
switch($standby, 'off');
like((finish_wait($sleeper))[1], $off, 'told, although replay waits for a session');
$reader->query('ROLLBACK');
$_->quit foreach $sleeper, $reader;
$standby->stop;
$primary->stop;
done_testing();
