# An answer of the primary that is handed out in the worst moment: the link has looked
# at the timeline, then that changes, and all whom it concerns are told before the
# answer is there.  Debuggers hold the link's worker there.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;
use Debugger;

my $a = new_primary('a');
my $b = add_standby($a, 'b');
# nobody looks by himself
my $c = add_standby($a, 'c', 'deadlock_timeout = 1h');
my $count = 'SELECT count(*) FROM t';

catch_up($a, $_) foreach $b, $c;
my $kept = $a->safe_psql('postgres', $count);

# C asks A, and neither C nor B gets what A writes: far beyond what B will write.
have_ask($c, $a);
# B, which is promoted, last: who follows must not be ahead of it
cut_off($_) foreach $c, $b;
$a->safe_psql('postgres', 'SELECT pg_switch_wal()') && write_wal($a) for 1 .. 3;

# The link has the answer, and has looked where replay is.
my $link = debugger(link_worker($c));
stop_at($link, 'HandOutAnswer');
my $reader = start_wait(session($c), "SET lsn_tracker.default_timeout = '60s'; SET lsn_tracker.max_staleness = 0; $count");
told($link);
stop_at($link, 'LWLockAcquire');
told($link);

# B is promoted and C follows; the queue is told.
$b->promote;
write_wal($b);
have_ask($c, undef);
follow($c, $b);
$c->poll_query_until('postgres', "SELECT count(*) = $kept + 1 FROM t") or die 'not followed';
my $tell = session($c);
start_wait($tell, q(SELECT lsn_wait('F/0', 1)));
is(scalar finish_wait($tell), 'f', 'whoever was to be told has been told');

let_go($link);
my $start = time;
is(scalar finish_wait($reader), $kept + 1, 'who gets the answer sees that it is lost, and asks again');
cmp_ok(time - $start, '<', 50, 'and does not sleep until its time is up');

$_->quit foreach $reader, $tell;
$_->stop foreach $c, $b, $a;
done_testing();
