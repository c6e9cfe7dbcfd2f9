# Hundreds of sessions that wait at once: all are woken, none is missed.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $sessions = 250;

# Sessions that each wait several times, without a limit: one lost wake-up and
# pgbench never ends.  Targets are relative to a position that is not yet
# written; :client_id is the session's number.
sub start_crowd
{
	my ($node, $name, @targets) = @_;
	my $script = $node->basedir . "/$name.sql";
	my %crowd = (out => '', err => '');

	append_to_file($script, join '', map { "SELECT lsn_require($_, 0);\n" } @targets);
	$crowd{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $sessions, '-t', 1, '-h', $node->host, '-p', $node->port, '-f', $script, 'postgres' ],
		'>', \$crowd{out}, '2>', \$crowd{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%crowd;
}

sub finish_crowd
{
	my ($crowd, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($crowd->{run}->finish, $what) or diag($crowd->{err});
	like($crowd->{out}, qr/number of transactions actually processed: $sessions\/$sessions/, "$what: all of them");
	return;
}

# Sessions that wait for what never comes, and a promotion that ends all of them.
sub promote_crowd
{
	my ($primary, $standby, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $crowd = start_crowd($standby, 'promotion', "'FFFFFFFF/FFFFFFFF'");

	await_waiters($standby, $sessions);
	$primary->stop;
	$standby->promote;
	ok(!$crowd->{run}->finish, "$what: promotion ends all waits");
	my $ended = () = $crowd->{err} =~ /recovery ended before FFFFFFFF\/FFFFFFFF was replayed/g;
	is($ended, $sessions, "$what: each with the reason");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', "$what: nobody is left");
	$standby->stop;
	return;
}

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("crowd_$mode", "lsn_tracker.wakeup = $mode");

	# one position for all
	my $target = future_lsn($primary);
	my $crowd = start_crowd($standby, 'same', "'$target'");
	await_waiters($standby, $sessions);
	reach($primary, $target);
	finish_crowd($crowd, "$mode: one position");
	await_waiters($standby, 0);

	# as many positions as sessions, entered in random order, reached one by one
	# and several at once
	$target = future_lsn($primary);
	$crowd = start_crowd($standby, 'different', "'$target'::pg_lsn + ((:client_id * 7919) % $sessions) * 50");
	await_waiters($standby, $sessions);
	reach($primary, $target);
	my $halfway = $primary->safe_psql('postgres', "SELECT '$target'::pg_lsn + @{[ $sessions * 25 ]}");
	until ($primary->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() >= '$halfway'") eq 't')
	{
		write_wal($primary);
	}
	catch_up($primary, $standby);
	my $replayed = $standby->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
	ok($standby->poll_query_until('postgres', "SELECT count(*) = 0 FROM lsn_waiters() WHERE target <= '$replayed'"),
		"$mode: those reached are woken");
	cmp_ok($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '>', 0, "$mode: the others wait on");
	$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(1, 1000)');
	finish_crowd($crowd, "$mode: as many positions as sessions");

	# the same again and again, while records arrive at full speed
	$target = future_lsn($primary);
	$crowd = start_crowd($standby, 'stream',
		map { "'$target'::pg_lsn + $_ * 20000 + :client_id * @{[ $_ % 2 ]}" } (1 .. 40));
	await_waiters($standby, $sessions);
	$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(1, 20000)');
	finish_crowd($crowd, "$mode: in a stream of records");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', "$mode: the queue is empty");

	promote_crowd($primary, $standby, $mode);
}

# A crowd while the worker does nothing (stopped, so that it is not replaced):
# the sessions wake one another.
my ($primary, $standby) = new_pair('stopped_worker');
my $worker = worker_pid($standby);
my $target = future_lsn($primary);
my $crowd = start_crowd($standby, 'stopped_worker', "'$target'");
await_waiters($standby, $sessions);
kill 'STOP', $worker;
reach($primary, $target);
finish_crowd($crowd, 'worker stopped');
kill 'CONT', $worker;
$standby->stop;
$primary->stop;

# Sessions that were woken and do not come to leave the queue: the startup
# process leaves the others to them, but the worker does not; and if that is stopped
# as well, the startup process helps after a while, without another record.
foreach my $stop_worker (0, 1)
{
	my $what = 'sessions ' . ($stop_worker ? 'and worker ' : '') . 'stopped';
	my ($primary, $standby) = new_pair("stopped_$stop_worker");
	my $target = future_lsn($primary);
	my $later = $primary->safe_psql('postgres', "SELECT '$target'::pg_lsn + 20000");
	my @stopped = map { start_wait(session($standby), "SELECT lsn_wait('$target', 0)") } 1 .. 40;

	await_waiters($standby, scalar @stopped);
	my @pids = split /\n/, $standby->safe_psql('postgres', 'SELECT pid FROM lsn_waiters()');
	my $waiter = start_wait(session($standby), "SELECT lsn_wait('$later', 0)");
	my $never = start_wait(session($standby), "SELECT lsn_wait('FFFFFFFF/0', 0)");
	await_waiters($standby, @stopped + 2);
	kill 'STOP', @pids, $stop_worker ? worker_pid($standby) : ();
	reach($primary, $later);
	is(finish_wait($waiter), 't', "$what: another one is woken");
	if ($stop_worker)
	{
		my $token = write_token($primary);
		is($standby->safe_psql('postgres', "SELECT lsn_wait('$token', 20000)"), 't', "$what: and so is the next");
	}
	kill 'CONT', @pids;
	is(join(' ', map { scalar finish_wait($_) } @stopped), join(' ', map { 't' } @stopped), "$what: they return as well");

	# at promotion everybody is due at once, and these come first
	start_wait($_, "SELECT lsn_wait('F0/0', 0)") foreach @stopped;
	await_waiters($standby, @stopped + 1);
	kill 'STOP', @pids;
	$primary->stop;
	# from 19 on the end of a promotion waits for each session
	$standby->safe_psql('postgres', 'SELECT pg_promote(false)');
	like((finish_wait($never))[1], qr/recovery ended/, "$what: promotion ends a wait");
	kill 'CONT', @pids, $stop_worker ? worker_pid($standby) : ();
	like((finish_wait($_))[1], qr/recovery ended/, "$what: also of those") foreach @stopped;
	$_->quit foreach (@stopped, $waiter, $never);
	$standby->stop;
}

# The same where there never is a worker, with a promotion at the end.
foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("no_worker_$mode", "lsn_tracker.wakeup = $mode", 'max_worker_processes = 0');

	is(worker_pid($standby), '', "$mode, no worker: there is none");
	my $target = future_lsn($primary);
	my $crowd = start_crowd($standby, "no_worker_$mode", "'$target'");
	await_waiters($standby, $sessions);
	reach($primary, $target);
	finish_crowd($crowd, "$mode, no worker: one position");

	$target = future_lsn($primary);
	$crowd = start_crowd($standby, "no_worker_${mode}_different", "'$target'::pg_lsn + :client_id * 50");
	await_waiters($standby, $sessions);
	reach($primary, $target);
	$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(1, 1000)');
	finish_crowd($crowd, "$mode, no worker: as many positions as sessions");
	promote_crowd($primary, $standby, "$mode, no worker");
}

done_testing();
