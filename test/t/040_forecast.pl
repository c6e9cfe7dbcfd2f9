# How far replay is behind and how long it will take: in errors, where it is true, and
# nothing where it can't be known.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = slow_pair('forecast');
my $rate = qr/At the rate of the last minute, (\d+) bytes per second, that takes ([\d.]+) seconds\./;

# The DETAIL of a wait that times out
sub detail
{
	my ($sql, $before) = @_;
	my (undef, undef, $err) = $standby->psql('postgres', ($before // '') . "\n$sql");
	my ($detail) = $err =~ /DETAIL:  (.*)/ or die "no detail: $err";
	return $detail;
}

# Nothing written, nothing to replay: no rate, whatever has been waited for.
is($standby->safe_psql('postgres', 'SELECT replay_rate IS NULL FROM pg_stat_lsn_tracker'), 't', 'no rate in the view');
my $future = future_lsn($primary, 100_000_000);
detail("SELECT lsn_require('$future', 300)") for 1 .. 2;
my $detail = detail("SELECT lsn_require('$future', 1000)");
like($detail, qr/, (\d+) bytes to go, of which (\d+) have not been received\. How long it takes is not known\.$/, 'idle: no number');

# Nor while the primary writes less than could be replayed: that rate is the primary's.
my $writer = session($primary);
start_wait($writer, "DO \$\$ BEGIN FOR i IN 1 .. 40 LOOP INSERT INTO t VALUES (i); COMMIT; PERFORM pg_sleep(0.05); END LOOP; END \$\$");
$detail = detail("SELECT lsn_require('$future', 1500)");
like($detail, qr/have not been received\. How long it takes is not known\.$/, 'a slow primary: no number');
finish_wait($writer);

# Slow replay, of much that has been received.
slow_down($standby, 3000);
my $target = write_messages($primary, 12000);
$standby->poll_query_until('postgres', "SELECT pg_last_wal_receive_lsn() >= '$target'") or die 'not received';

my $from = $standby->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
my $start = time;
$detail = detail("SELECT lsn_require('$target', 3000)");
my $real = $standby->safe_psql('postgres', "SELECT pg_last_wal_replay_lsn() - '$from'") / (time - $start);
like($detail, qr/bytes to go\. $rate$/, 'a rate, and how long it takes');
my ($to_go) = $detail =~ /, (\d+) bytes to go/;
my ($bytes, $seconds) = $detail =~ $rate;
cmp_ok($bytes, '>', $real / 3, "the rate is that of replay ($bytes, measured $real)");
cmp_ok($bytes, '<', $real * 3, 'and not more');
cmp_ok(abs($seconds - $to_go / $bytes), '<', 0.2, 'and the time what follows from it');

# The same where one can look without an error: the rate, and who waits how long still.
my $waiter = session($standby);
my $near = $standby->safe_psql('postgres',
	'SELECT pg_last_wal_replay_lsn() + (2 * replay_rate)::numeric FROM pg_stat_lsn_tracker');
start_wait($waiter, "SELECT lsn_wait('$near', 0)");
await_waiters($standby, 1);
$start = time;
my ($viewed, $eta, $to_near, $same) = split /\|/, $standby->safe_psql('postgres', <<SQL);
SELECT replay_rate, extract(epoch FROM eta), bytes_to_go, abs(extract(epoch FROM eta - lsn_eta(target))) < 0.5
FROM pg_stat_lsn_tracker, lsn_waiters()
SQL
cmp_ok($viewed, '>', $real / 3, "the view's rate is that of replay ($viewed)");
cmp_ok($viewed, '<', $real * 3, 'and not more');
cmp_ok(abs($eta - $to_near / $viewed), '<', 0.5, "the waiter's time is what follows from it");
is($same, 't', 'and lsn_eta() says so, too');
is(scalar finish_wait($waiter), 't', 'it is there');
my $took = time - $start;
cmp_ok($took, '>', $eta / 3, "in the time that was said ($took s, said $eta)");
cmp_ok($took, '<', $eta * 3 + 1, 'or about that');

# In front of a statement, too, and where the primary has been asked.
foreach my $owed ("SET lsn_tracker.token = '$target';", 'SET lsn_tracker.max_staleness = 0;')
{
	$detail = detail('SELECT count(*) FROM t', "SET lsn_tracker.default_timeout = 1000; $owed");
	like($detail, qr/bytes to go\. $rate$/, "a statement that is owed something: $owed");
}

# What has not been received depends on others.
$future = $standby->safe_psql('postgres', "SELECT '$target'::pg_lsn + 1000000000");
$detail = detail("SELECT lsn_require('$future', 600)");
like($detail, qr/have not been received\. The rate of the last minute was \d+ bytes per second; how long it takes is not known\.$/,
	'not received');

# Nor is it known while replay is paused.
pause($standby);
$detail = detail("SELECT lsn_require('$target', 600)");
like($detail, qr/bytes to go\. The rate of the last minute was \d+ bytes per second; how long it takes is not known\.$/, 'paused');
start_wait($waiter, "SELECT lsn_wait('$target', 0)");
await_waiters($standby, 1);
is($standby->safe_psql('postgres', <<SQL), 't|t|t', 'paused: who waits can not be told');
SELECT eta IS NULL, bytes_to_go = '$target' - pg_last_wal_replay_lsn(), replay_rate > 0
FROM lsn_waiters(), pg_stat_lsn_tracker
SQL
resume($standby);

$writer->quit;
$standby->stop('immediate');
$primary->stop('immediate');
done_testing();
