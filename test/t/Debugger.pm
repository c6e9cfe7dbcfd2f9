# A debugger that holds a server's process in the moment that a test is about.

package Debugger;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(debugger order told stop_at stop_behind let_go);

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

# The same, when it comes back from there.
sub stop_behind
{
	my ($debugger, $function) = @_;
	order($debugger, 'delete', "break $function");
	told($debugger);
	order($debugger, 'continue', 'finish');
	return;
}

sub let_go
{
	my ($debugger) = @_;
	$debugger->{in} .= "detach\nquit\n";
	$debugger->{run}->finish;
	return;
}

1;
