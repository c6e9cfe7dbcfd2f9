# A change of timeline that is published in the worst moment: a session has read the
# old timeline and not judged yet, others have told all whom it concerns to look
# again, and then the new one is published.  Debuggers hold the processes there.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

# A debugger on a process; it goes on when it is told to.
sub debugger
{
	my ($pid) = @_;
	my %debugger = (in => '', out => '');

	$debugger{run} = IPC::Run::start([ 'gdb', '-q', '-nx', '-p', $pid ], '<', \$debugger{in}, '>', \$debugger{out}, '2>&1',
		IPC::Run::timer($PostgreSQL::Test::Utils::timeout_default));
	order(\%debugger, 'set pagination off', 'set confirm off', 'handle SIGUSR1 SIGUSR2 SIGALRM SIGURG nostop noprint pass');
	told(\%debugger);
	return \%debugger;
}

# Have it do something; told() waits until it has.
sub order
{
	my ($debugger, @commands) = @_;
	$debugger->{in} .= join("\n", @commands, 'echo <done>\\n', '');
	$debugger->{run}->pump_nb;
	return;
}

sub told
{
	my ($debugger) = @_;
	until ($debugger->{out} =~ s/.*<done>//s)
	{
		die "gdb: $debugger->{out}" if $debugger->{run}->{TIMERS}[0]->is_expired;
		$debugger->{run}->pump;
	}
	return;
}

# Stop the process when it comes to a function, any of several calls of it.
sub stop_at
{
	my ($debugger, $function) = @_;
	order($debugger, 'delete', "break $function");
	told($debugger);
	order($debugger, 'continue');
	return;
}

sub let_go
{
	my ($debugger) = @_;
	$debugger->{in} .= "detach\nquit\n";
	$debugger->{run}->finish;
	return;
}

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
