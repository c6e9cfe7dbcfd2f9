# A change of timeline that is published in the worst moment: a session has read the
# old timeline and not judged yet, others have told all whom it concerns to look
# again, and then the new one is published.  Debuggers hold the processes there.

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

plan skip_all => 'no gdb' if lacks('gdb');
my $a = new_primary('a');
my $b = add_standby($a, 'b');
my $c = add_standby($b, 'c');
my $token = '0/1@2';

catch_up($a, $c);

# A session is about to enter the queue.
my $session = session($c);
my $waiting = debugger($session->query('SELECT pg_backend_pid()'));
stop_at($waiting, 'AddWaiter');
start_wait($session, "SELECT lsn_wait('$token', 0)");
told($waiting);

# Replay is told of the change and has not said so yet.
my $replaying = debugger($c->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"));
stop_at($replaying, 'GetRecoveryPauseState');
$a->stop('immediate');
$b->promote;
told($replaying);
is($c->safe_psql('postgres', "SELECT lsn_replicated('$token')"), 'f', 'the new timeline is not there yet');

# Another one tells all whom it concerns.
is($c->safe_psql('postgres', "SELECT lsn_wait('$token', 1)"), 'f', 'another session, in between');

# The session has entered the queue and read the old timeline; now the new one is
# published, and then it judges.
stop_at($waiting, 'InHistory');
told($waiting);
let_go($replaying);
ok($c->poll_query_until('postgres', "SELECT lsn_replicated('$token')"), 'the new timeline is there');
let_go($waiting);

# Whatever else sets its latch would have it look again, some time: not that late.
my $start = time;
is(scalar finish_wait($session), 't', 'the session answers');
cmp_ok(time - $start, '<', 3, 'and has not slept on');

$session->quit;
$_->stop foreach $b, $c;
done_testing();
