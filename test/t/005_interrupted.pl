# However a wait is interrupted, nothing of it is left in the queue.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $never = 'FFFFFFFF/0';

# A client that speaks the protocol without libpq, which would not send a query
# while another one runs.
sub raw_client
{
	my ($node, $over) = @_;
	my $client = ($over // 'unix') eq 'unix' ? IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) :
	  IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port);
	die "connect: $!" if !$client;
	my $startup = pack('N', 196608) . join("\0", 'user', scalar(getpwuid($>)), 'database', 'postgres', '') . "\0";

	$client->syswrite(pack('N', 4 + length $startup) . $startup);
	raw_answer($client);
	return $client;
}

sub raw_query
{
	my ($client, $sql) = @_;
	$client->syswrite('Q' . pack('N', 5 + length $sql) . "$sql\0");
	return;
}

# Everything up to the server being ready for a query
sub raw_answer
{
	my ($client) = @_;
	my ($all, $type) = ('', '');

	while ($type ne 'Z')
	{
		$client->read(my $head, 5) == 5 or die 'the connection was closed';
		($type, my $length) = unpack 'aN', $head;
		$client->read(my $body, $length - 4) == $length - 4 or die 'the connection was closed';
		$all .= $head . $body;
	}
	return $all;
}

# CPU time of a process, in clock ticks
sub cpu_ticks
{
	my ($pid) = @_;
	my @stat = split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //sr;
	return $stat[11] + $stat[12];
}

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("interrupted_$mode", "lsn_tracker.wakeup = $mode", "listen_addresses = '127.0.0.1'");
	my $session = session($standby);
	my ($out, $err);

	foreach my $begin ('', 'BEGIN; SELECT 1;', 'BEGIN; SAVEPOINT a; SELECT 1; SAVEPOINT b;')
	{
		my $where = $begin =~ /SAVEPOINT/ ? 'in a savepoint' : $begin ? 'in a transaction' : 'alone';

		# cancel
		$session->query($begin) if $begin;
		start_wait($session, "SELECT lsn_wait('$never', 0)");
		my $pid = waiting_pid($standby);
		$standby->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
		($out, $err) = finish_wait($session);
		like($err, qr/canceling statement due to user request/, "$mode, $where: cancelled");
		await_waiters($standby, 0);
		if ($begin =~ /SAVEPOINT/)
		{
			$session->query('ROLLBACK TO b');
			is($session->query("SELECT lsn_wait('0/1')"), 't', "$mode, $where: usable after ROLLBACK TO");
			is($session->query("RELEASE a; SELECT lsn_wait('0/1'); SELECT count(*) >= 0 FROM t"),
				"t\nt", "$mode, $where: usable after RELEASE");
		}
		$session->query('ROLLBACK') if $begin;

		# statement_timeout
		$session->query($begin) if $begin;
		$session->query("SET statement_timeout = 50");
		($out, $err) = finish_wait(start_wait($session, "SELECT lsn_wait('$never', 0)"));
		like($err, qr/canceling statement due to statement timeout/, "$mode, $where: statement_timeout");
		await_waiters($standby, 0);
		$session->query('ROLLBACK') if $begin;
		$session->query("RESET statement_timeout");

		# our own time-out, in a transaction that goes on
		$session->query($begin) if $begin;
		is($session->query("SELECT lsn_wait('$never', 20)"), 'f', "$mode, $where: timed out");
		is($session->query("SELECT lsn_wait('0/1')"), 't', "$mode, $where: usable after it");
		$session->query('COMMIT') if $begin;

		# terminate
		my $victim = session($standby);
		$victim->query($begin) if $begin;
		start_wait($victim, "SELECT lsn_wait('$never', 0)");
		$pid = waiting_pid($standby);
		$standby->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 30000)");
		await_waiters($standby, 0);
		$victim->{run}->finish;
		like($victim->{stderr}, qr/terminating connection due to administrator command/, "$mode, $where: terminated");

		# disconnect: psql is killed, the server notices at once
		$victim = session($standby);
		$victim->query($begin) if $begin;
		start_wait($victim, "SELECT lsn_wait('$never', 0)");
		$pid = waiting_pid($standby);
		$victim->{run}->kill_kill;
		await_waiters($standby, 0);
		$standby->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid")
		  or die 'the session did not end';
		pass("$mode, $where: client disconnected");
	}

	my $target = future_lsn($primary);
	start_wait($session, "SELECT lsn_wait('$target', 0)");
	await_waiters($standby, 1);
	reach($primary, $target);
	is(finish_wait($session), 't', "$mode: still waits and wakes");

	# Thousands of them, from many sessions at once, cancelled in all stages:
	# statement_timeout strikes while they enter, sleep and leave.
	my $ok = $standby->basedir . '/timed_out.sql';
	append_to_file($ok, <<SQL);
\\set ms random(1, 5)
SELECT lsn_wait('$never', :ms);
SELECT lsn_wait(pg_last_wal_replay_lsn() + :ms, :ms);
SQL
	my ($cancelled, $answers) = (0, '');
	my $script = $standby->basedir . '/cancelled.sql';
	append_to_file($script,
		join '', map { "SET statement_timeout = @{[1 + $_ % 5]};\nSELECT lsn_wait('$never', 0);\n" } (1 .. 300));
	my @runs;
	for my $n (1 .. 10)
	{
		# files, not pipes, which would make them take turns
		my %run = (out => "$script.out.$n", err => "$script.err.$n");
		$run{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $standby->connstr('postgres'), '-f', $script ],
			'>', $run{out}, '2>', $run{err});
		push @runs, \%run;
	}
	# meanwhile others time out, and records are replayed
	my $busy = IPC::Run::start(
		[ 'pgbench', '-n', '-c', '10', '-t', '50', '-h', $standby->host, '-p', $standby->port, '-f', $ok, 'postgres' ],
		'>', \my $bout, '2>', \my $berr);
	write_wal($primary) for (1 .. 20);
	foreach my $run (@runs)
	{
		$run->{run}->finish;
		$cancelled += () = slurp_file($run->{err}) =~ /canceling statement due to statement timeout/g;
		$answers .= slurp_file($run->{out});
	}
	ok($busy->finish, "$mode: waits that time out in between");
	# on a busy machine a SET is cancelled now and then, too
	cmp_ok($cancelled, '>=', 3000, "$mode: 3000 waits were cancelled");
	is($answers, '', "$mode: none was answered");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', "$mode: the queue is empty");
	$target = future_lsn($primary);
	start_wait($session, "SELECT lsn_wait('$target', 0)");
	await_waiters($standby, 1);
	reach($primary, $target);
	is(finish_wait($session), 't', "$mode: and waits still work");

	# A client that sends its next query while it waits: the session sleeps all
	# the same, answers both, and notices when the client goes.
	my $client = raw_client($standby);
	$target = future_lsn($primary);
	raw_query($client, "SELECT lsn_wait('$target', 0)");
	my $pid = waiting_pid($standby);
	raw_query($client, "SELECT 'the next'");
	my $cpu = cpu_ticks($pid);
	$standby->safe_psql('postgres', 'SELECT pg_sleep(0.5)');
	cmp_ok(cpu_ticks($pid) - $cpu, '<', 20, "$mode: a query behind the wait does not keep the session busy");
	reach($primary, $target);
	like(raw_answer($client), qr/\0\0\0\x01t/, "$mode: the wait is answered");
	like(raw_answer($client), qr/the next/, "$mode: and so is the next query");
	raw_query($client, "SELECT lsn_wait('$never', 0)");
	await_waiters($standby, 1);
	raw_query($client, "SELECT 'never seen'");
	close $client;
	await_waiters($standby, 0);
	ok($standby->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"),
		"$mode: client disconnected behind a query that it had sent");

	# A client that sends its query and then the end of its input, and one that is
	# gone: the first gets its answer, the session of the second ends.  From another
	# machine the two look alike.
	foreach my $over (qw(unix tcp))
	{
		$client = raw_client($standby, $over);
		$target = future_lsn($primary);
		raw_query($client, "SELECT lsn_wait('$target', 0)");
		await_waiters($standby, 1);
		$client->shutdown(1);
		$pid = waiting_pid($standby);
		$cpu = cpu_ticks($pid);
		$standby->safe_psql('postgres', 'SELECT pg_sleep(0.5)');
		cmp_ok(cpu_ticks($pid) - $cpu, '<', 20, "$mode, $over: half a connection does not keep the session busy");
		await_waiters($standby, 1);
		reach($primary, $target);
		like(raw_answer($client), qr/\0\0\0\x01t/, "$mode, $over: and is answered");
		close $client;

		foreach my $half (0, 1)
		{
			$client = raw_client($standby, $over);
			raw_query($client, "SELECT lsn_wait('$never', 0)");
			$pid = waiting_pid($standby);
			if ($half)
			{
				$client->shutdown(1);
				$standby->safe_psql('postgres', 'SELECT pg_sleep(0.1)');
			}
			close $client;
			await_waiters($standby, 0);
			ok($standby->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"),
				"$mode, $over: disconnected, " . ($half ? 'one direction after the other' : 'both directions'));
		}
	}

	$session->quit;
	$standby->stop;
	$primary->stop;
}

done_testing();
