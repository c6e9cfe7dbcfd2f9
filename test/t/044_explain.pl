# EXPLAIN (ANALYZE) and the log show how long a statement has waited at the gate.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('explain');
my $session = session($standby);
my $in_output = $standby->pg_version >= 18;
my $explain = 'EXPLAIN (ANALYZE, COSTS off) SELECT count(*) FROM t';

# What it says of a wait: in the output or, where the server has no place for that, in a
# NOTICE
sub said
{
	my ($out, $err) = @_;
	my ($ms) = $in_output ? $out =~ /^Replay Wait Time: ([\d.]+) ms$/m : $err =~ /NOTICE:  waited ([\d.]+) ms for replay in front of the statement/;
	return $ms;
}

is(said(finish_wait(start_wait($session, $explain))), undef, 'nothing owed, nothing said');
$session->query('SET lsn_tracker.log_waits = on; SET lsn_tracker.default_timeout = 0');

foreach my $command ($explain, "PREPARE p AS SELECT count(*) FROM t;\nEXPLAIN (ANALYZE) EXECUTE p")
{
	my $future = future_lsn($primary);
	my $offset = -s $standby->logfile;

	$session->query("SET lsn_tracker.token = '$future'");
	start_wait($session, $command);
	$standby->poll_query_until('postgres', "SELECT count(*) = 1 FROM lsn_waiters() WHERE now() - waitstart > '100 ms'") or die;
	reach($primary, $future);
	my $ms = said(finish_wait($session));
	cmp_ok($ms, '>=', 100, "as long as it has waited: $command");
	like(slurp_file($standby->logfile, $offset),
		qr/wait for replay of $future succeeded after \d{3,}\.\d{3} ms.*CONTEXT:  waiting for lsn_tracker.token in front of a statement.*STATEMENT:  EXPLAIN/s,
		'and in the log');
	is(said(finish_wait(start_wait($session, $explain))), undef, 'not the next one');
}

# It is not forgotten where there was nothing to wait for.
my $token = write_token($primary);
catch_up($primary, $standby);
$session->query("SET lsn_tracker.token = '$token'");
cmp_ok(said(finish_wait(start_wait($session, $explain))), '>=', 0, 'at once');

SKIP:
{
	skip 'the output has no place for it', 1 unless $in_output;
	$session->query("SET lsn_tracker.token = '$token'");
	my $json = finish_wait(start_wait($session, 'EXPLAIN (ANALYZE, FORMAT json) SELECT count(*) FROM t'));
	like($json, qr/"Replay Wait Time": [\d.]+/, 'JSON');
}

# EXPLAIN without ANALYZE does not wait.
$session->query("SET lsn_tracker.token = 'F0/0'");
unlike((finish_wait(start_wait($session, 'EXPLAIN SELECT count(*) FROM t')))[0], qr/Replay/, 'not run: no wait');
$session->query('RESET lsn_tracker.token');

$session->quit;
$standby->stop;
$primary->stop;
done_testing();
