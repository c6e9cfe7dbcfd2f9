# What "make soak" does to the servers while the clients work on them.
#
#	nemesis.pl DIRECTORY SECONDS CLIENTS SEED MODE FAULTS
#
# In DIRECTORY are "clients" and "delay", the programs; the servers, a to d, and the
# history go there.  a begins as the primary, b and c are its standbys, d is one of c.
# Every connection from a standby to its upstream goes through a relay of its own
# (test/bench/delay.c), which can be slow, stand still or be cut.  In the environment:
# SMALL, a file system that can be filled, for d's WAL; CLOCK, the library that
# sets clocks; POOLER, PgBouncer if it can track the token; each '' if there is none.
#
# Faults are done one or two at a time, by turns of a shuffled deck of all kinds.  After
# each everything is healed, the standbys have to catch up, and then there is peace for
# a moment, in which nothing may fail.  What is done is written down for check.py:
#
#	at N stop SERVER, at N go SERVER	something there has been stopped, goes on
#	at N primary_down SERVER	it is about to go down, or has just gone
#	at N peace, at N unrest		nothing is broken; that is over
#	at N leftover SERVER what	sessions that are idle have left that behind
#	at N unrecovered SERVER		it did not catch up
#	at N crashed SERVER what	by itself
#	at N fault what				and everything else, for people

use strict;
use warnings;
use File::Path qw(rmtree);
use IO::Handle;
use IPC::Run;
use List::Util qw(first min shuffle);
use POSIX qw(setpgid);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime usleep);

my ($dir, $seconds, $n_clients, $seed, $mode, $faults) = @ARGV;
my $user = getpwuid($>);
my $port = 5432;
my $patience = 90;
my $start = clock_gettime(CLOCK_MONOTONIC);
my %server = map { $_ => { name => $_, dir => "$dir/pair/$_", log => "$dir/pair/$_.log", set => {} } } qw(a b c d);
my %injected;
my (%relay, %clients, %bouncer);

srand($seed);
STDOUT->autoflush;
mkdir $_ or die "$_: $!" foreach map { "$dir/$_" } qw(pair archive history socket net), map { "socket/$_" } keys %server;
open my $history, '>', "$dir/history/nemesis" or die $!;
$history->autoflush;

sub now { return clock_gettime(CLOCK_MONOTONIC) }
sub note { printf $history "%.6f N %s\n", now(), join ' ', @_; return; }

sub wait_for
{
	my ($limit, $what) = @_;
	my $until = now() + $limit;
	while (now() < $until)
	{
		my $is = $what->();
		return $is if $is;
		usleep(50000);
	}
	return;
}

# ---- servers ----

sub run
{
	my (@command) = @_;
	open my $log, '>>', "$dir/history/nemesis.log" or die $!;
	print $log "@command\n";
	close $log;
	return IPC::Run::run(\@command, '<', '/dev/null', '>>', "$dir/history/nemesis.log", '2>&1');
}

# The answer to a query, undef if there is none within some seconds
sub ask
{
	my ($s, $sql, $limit) = @_;
	my ($out, $err);
	IPC::Run::run([ 'timeout', $limit // 10, 'psql', '-XAtq', '-d', "host=$dir/socket/$s->{name} port=$port user=$user dbname=postgres application_name=nemesis", '-c', $sql ],
		'<', '/dev/null', '>', \$out, '2>', \$err)
	  or return;
	chomp $out;
	return $out;
}

# A session that stays
sub session
{
	my ($s) = @_;
	my %session = (in => '', out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', "host=$dir/socket/$s->{name} port=$port user=$user dbname=postgres connect_timeout=5" ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# Have it do something that returns a row.
sub tell_session
{
	my ($session, $sql) = @_;
	$session->{out} = '';
	$session->{in} .= "$sql;\n";
	$session->{run}->pump until $session->{out} =~ /\n/ || $session->{err} ne '';
	return;
}

sub end_session
{
	my ($session) = @_;
	$session->{in} .= "\\q\n";
	# another fault may have ended it
	eval { $session->{run}->finish };
	return;
}

sub primary { return first { !$_->{upstream} } values %server }
sub standbys { return grep { $_->{upstream} } map { $server{$_} } sort keys %server }
sub any { return $_[ int rand @_ ] }

sub postmaster
{
	my ($s) = @_;
	open my $file, '<', "$s->{dir}/postmaster.pid" or return;
	my $pid = <$file>;
	close $file;
	return $pid && $pid =~ /^(\d+)/ && kill(0, $1) ? $1 : undef;
}

# Its processes whose title begins like this, a pattern
sub processes
{
	my ($s, $title) = @_;
	my $postmaster = postmaster($s) or return;
	return $postmaster if $title eq 'postmaster';
	return grep { slurp("/proc/$_/cmdline") =~ /^postgres: \w: $title/ } split ' ', slurp("/proc/$postmaster/task/$postmaster/children");
}

sub slurp
{
	my ($path) = @_;
	local $/;
	open my $file, '<', $path or return '';
	my $text = <$file>;
	close $file;
	return $text // '';
}

# Write its configuration, with these settings changed, and have it reload.
sub configure
{
	my ($s, %set) = @_;
	%{ $s->{set} } = (%{ $s->{set} }, %set);
	open my $file, '>', "$s->{dir}/postgresql.conf" or die $!;
	print $file <<CONF, map { "$_ = '$s->{set}{$_}'\n" } sort keys %{ $s->{set} };
shared_preload_libraries = 'lsn_tracker'
lsn_tracker.wakeup = $mode
listen_addresses = ''
unix_socket_directories = '$dir/socket/$s->{name}'
port = $port
cluster_name = '$s->{name}'
max_connections = 300
fsync = off
wal_log_hints = on
wal_keep_size = '32MB'
max_wal_size = '64MB'
min_wal_size = '32MB'
checkpoint_timeout = '30s'
autovacuum_naptime = '1s'
wal_sender_timeout = '4s'
wal_receiver_timeout = '4s'
wal_receiver_status_interval = '1s'
wal_retrieve_retry_interval = '200ms'
log_recovery_conflict_waits = on
archive_mode = on
archive_command = 'cp "%p" "$dir/archive/%f.$s->{name}" && mv "$dir/archive/%f.$s->{name}" "$dir/archive/%f"'
restore_command = 'cp "$dir/archive/%f" "%p" 2>/dev/null'
log_line_prefix = '%m [%p] %q%a '
log_min_error_statement = panic
CONF
	close $file;
	run('pg_ctl', '-D', $s->{dir}, 'reload') if postmaster($s);
	return;
}

sub start_server
{
	my ($s, %env) = @_;
	local %ENV = (%ENV, %env);
	my $started = run('pg_ctl', '-D', $s->{dir}, '-l', $s->{log}, '-w', '-t', $patience, 'start');
	# sessions of a postmaster that was killed may have gone on until now
	note('primary_down', $s->{name}) unless $s->{upstream};
	return $started;
}

sub stop_server
{
	my ($s, $how) = @_;
	my $primary = !$s->{upstream};
	note('primary_down', $s->{name}) if $primary;
	# another fault may have stopped some, who would not end
	kill 'CONT', processes($s, 'postmaster'), processes($s, '');
	run('pg_ctl', '-D', $s->{dir}, '-m', $how, '-w', '-t', $patience, 'stop') if postmaster($s);
	# what a killed one has left
	wait_for($patience, sub { !postmaster($s) });
	note('primary_down', $s->{name}) if $primary;
	return;
}

# The end of all its processes at once
sub kill_server
{
	my ($s) = @_;
	note('primary_down', $s->{name}) unless $s->{upstream};
	kill 'KILL', processes($s, 'postmaster'), processes($s, '');
	wait_for($patience, sub { !postmaster($s) });
	note('primary_down', $s->{name}) unless $s->{upstream};
	return;
}

# Have it run and answer, whatever has happened to it.
sub revive
{
	my ($s) = @_;
	return wait_for($patience, sub {
		postmaster($s) or start_server($s) or return;
		return defined ask($s, 'SELECT 1', 5);
	});
}

# ---- the network ----

# The relay by which one reaches another, us slow
sub relay
{
	my ($s, $upstream, $us) = @_;
	my $name = "$s->{name}$upstream->{name}";
	my $socket = "$dir/net/$name/.s.PGSQL.$port";

	cut_relay($name);
	mkdir "$dir/net/$name";
	unlink $socket;
	my $pid = open(my $out, '-|') // die $!;
	if ($pid == 0)
	{
		setpgid(0, 0);
		# the clients' input, for one, would never end
		POSIX::close($_) foreach 3 .. 255;
		open STDERR, '>>', "$dir/history/nemesis.log" or die $!;
		exec "$dir/delay", $socket, "$dir/socket/$upstream->{name}/.s.PGSQL.$port", $us or die $!;
	}
	<$out> // die 'no relay';
	$relay{$name} = { pid => $pid, out => $out };
	return;
}

sub cut_relay
{
	my ($name) = @_;
	my $relay = delete $relay{$name} or return;
	kill $_, -$relay->{pid} foreach qw(TERM CONT);
	close $relay->{out};
	return;
}

sub follow
{
	my ($s, $upstream) = @_;
	relay($s, $upstream, 0) unless $relay{"$s->{name}$upstream->{name}"};
	$s->{upstream} = $upstream;
	configure($s, primary_conninfo => "host=$dir/net/$s->{name}$upstream->{name} port=$port user=$user application_name=$s->{name}");
	return;
}

# ---- standbys, new and again ----

sub become_standby
{
	my ($s, $upstream) = @_;
	my $auto = "$s->{dir}/postgresql.auto.conf";
	unlink $auto;
	foreach my $name ($auto, "$s->{dir}/standby.signal")
	{
		open my $file, '>', $name or die "$name: $!";
		close $file;
	}
	follow($s, $upstream);
	return start_server($s);
}

sub base_backup
{
	my ($s, $upstream) = @_;
	my @small = $ENV{SMALL} && $s->{name} eq 'd' ? ('--waldir', "$ENV{SMALL}/wal") : ();
	stop_server($s, 'immediate') if -e $s->{dir};
	# its connection may time out on a busy machine
	wait_for($patience, sub {
		rmtree($_) foreach $s->{dir}, @small ? $small[1] : ();
		run('pg_basebackup', '-D', $s->{dir}, '-h', "$dir/socket/$upstream->{name}", '-p', $port, '-U', $user, '-c', 'fast', '-s', 1, '--no-sync', @small);
	}) or die "no base backup of $upstream->{name} for $s->{name}\n";
	return become_standby($s, $upstream);
}

sub rewind
{
	my ($s, $source) = @_;
	stop_server($s, 'fast');
	# before 16, pg_rewind knows its timeline from that
	ask($source, 'CHECKPOINT', 60);
	unlink "$s->{dir}/standby.signal";
	return run('pg_rewind', '-D', $s->{dir}, '--source-server', "host=$dir/socket/$source->{name} port=$port user=$user dbname=postgres", '-c', '--no-sync')
	  && become_standby($s, $source);
}

sub come_back
{
	my ($s, $source) = @_;
	my $how = any('rewind', 'base backup');
	$injected{"old primary by $how"}++;
	($how eq 'rewind' && rewind($s, $source)) || base_backup($s, $source);
	return $how;
}

# Everything runs again, and the standbys have caught up.
sub recover
{
	my $primary = primary();
	revive($primary) or do { note('unrecovered', $primary->{name}); die "the primary is gone for good\n" };
	# a fault that was not possible may have begun
	ask($_, 'SELECT pg_wal_replay_resume()') foreach standbys();
	my $lsn = ask($primary, 'SELECT pg_current_wal_insert_lsn()') // return;
	foreach my $s (standbys())
	{
		# and answer strong reads: their link may still wait for its next attempt
		next if wait_for($patience, sub {
			postmaster($s) or start_server($s) or return;
			(ask($s, "SET lsn_tracker.max_staleness = 0; SELECT pg_last_wal_replay_lsn() >= '$lsn' AND count(*) >= 0 FROM side") // '') eq 't';
		});
		note('unrecovered', $s->{name}, ask($s, 'SELECT pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(), pg_get_wal_replay_pause_state()') // 'no answer');
		say_progress("$s->{name} DID NOT RECOVER");
		base_backup($s, $primary);
	}
	# nobody goes back so far
	unlink grep { !/history/ && time - ((stat)[9] // time) > 300 } glob "$dir/archive/*";
	return;
}

# ---- clients ----

sub command
{
	my ($word) = @_;
	$clients{out} = '';
	$clients{in} .= "$word\n";
	$clients{run}->pump until $clients{out} =~ /\n/;
	chomp $clients{out};
	return $clients{out};
}

my $last = { time => $start, reads => 0 };

sub say_progress
{
	my ($what) = @_;
	my ($reads, $writes) = split ' ', command('count');
	my $now = now();
	printf "%5d s %9d reads (%5d/s) %8d writes  %s\n", $now - $start, $reads, ($reads - $last->{reads}) / ($now - $last->{time} + 0.001), $writes, $what;
	$last = { time => $now, reads => $reads };
	return;
}

# While the clients do nothing, nothing of them may be left.
sub look_for_leftovers
{
	my %kinds = (
		queue => 'SELECT count(*) FROM lsn_waiters()',
		xmin => "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'soak' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR state <> 'idle')",
		locks => "SELECT count(*) FROM pg_locks JOIN pg_stat_activity a USING (pid) WHERE application_name = 'soak'");

	command('pause');
	foreach my $s (values %server)
	{
		foreach my $kind (sort keys %kinds)
		{
			my $n;
			wait_for(10, sub { ($n = ask($s, $kinds{$kind})) eq '0' }) or note('leftover', $s->{name}, $kind, $n);
		}
	}
	command('resume');
	return;
}

# ---- faults: each does something and returns what, and how to heal it ----

# Stop processes; they go on when healed.
sub stopped
{
	my ($s, @pids) = @_;
	@pids or die "nobody to stop\n";
	note('stop', $s->{name});
	kill 'STOP', @pids;
	return sub { kill 'CONT', @pids; note('go', $s->{name}) };
}

# Whatever waits for replay there, once it is paused and somebody does; the nearest first
sub waiters
{
	my ($s) = @_;
	my $sql = 'SELECT pid FROM lsn_waiters() WHERE target IS NOT NULL ORDER BY target';
	ask($s, 'SELECT pg_wal_replay_pause()') // die "no answer\n";
	wait_for(2, sub { (split /\n/, ask($s, $sql) // '') > 4 });
	return split /\n/, ask($s, $sql) // '';
}

# What a signal can be sent to: a pattern for its title
my %titles = (worker => 'lsn_tracker[\s\0]*$', link => 'lsn_tracker link');

sub servers_of
{
	my ($which) = @_;
	my @upstreams = map { $_->{upstream} } standbys();
	return $which eq 'primary' ? primary() : $which eq 'standby' ? standbys() :
	  $which eq 'upstream' ? @upstreams : $which eq 'cascade' ? grep { $_->{upstream} } @upstreams : values %server;
}

# Send a signal to what is called so on one of these servers.
sub signal_fault
{
	my ($signal, $name, $on) = @_;
	return sub {
		my $s = any(servers_of($on)) // die "no such server\n";
		my @pids = $name eq 'waiter' ? waiters($s) : processes($s, $titles{$name} // $name);
		my $primary = !$s->{upstream} && $signal ne 'STOP';
		my $heal;
		@pids or die "no $name\n";
		@pids = any(@pids) if $name eq 'walsender' || ($name eq 'waiter' && rand() < 0.5);
		# killing any process takes the server down
		note('primary_down', $s->{name}) if $primary;
		if ($signal eq 'STOP') { $heal = stopped($s, @pids) }
		else { kill $signal, @pids }
		# those of them who are still there are woken
		ask($s, 'SELECT pg_wal_replay_resume()') if $name eq 'waiter';
		return ("$signal $name of $s->{name}", sub {
			$heal->() if $heal;
			# of the postmaster: it waits for its clients
			stop_server($s, 'fast') if $name eq 'postmaster' && $signal eq 'TERM';
			note('primary_down', $s->{name}) if $primary;
			revive($s);
		});
	};
}

sub cascading_walsender_fault
{
	# failovers tend to leave no cascade
	if (!servers_of('cascade'))
	{
		my ($s, $upstream) = shuffle standbys();
		follow($s, $upstream);
		wait_for(5, sub { processes($upstream, 'walsender') });
	}
	return signal_fault('KILL', 'walsender', 'cascade')->();
}

sub standby { return any(standbys()) }

# Send a signal to sessions that are on their way: replay, which was paused, has reached
# what they wait for.  Either at once, while they are woken and leave, or they were
# stopped before, and go on when they are off the queue and have the signal.
sub woken_fault
{
	my ($signal) = @_;
	return sub {
		my $s = standby();
		my @pids = waiters($s) or die "nobody waits\n";
		my $resume = 'SELECT pg_wal_replay_resume()';
		my $how = 'at once';
		my $off = 0;
		@pids = @pids[ 0 .. min($#pids, int rand 16) ];
		if (rand() < 0.5)
		{
			my $go = stopped($s, @pids);
			my $sql = 'SELECT count(*) FROM lsn_waiters() WHERE pid IN (' . join(', ', @pids) . ')';
			my $queued = ask($s, $sql, 2) // 0;
			ask($s, $resume);
			wait_for(2, sub { ($off = $queued - (ask($s, $sql, 2) // $queued)) > 0 });
			kill $signal, @pids;
			$go->();
			$how = "stopped, $off of them off the queue";
		}
		else
		{
			my $session = session($s);
			tell_session($session, $resume);
			kill $signal, @pids;
			end_session($session);
		}
		return ("$signal " . @pids . " woken of $s->{name}, $how", sub { revive($s) });
	};
}

sub setting_fault
{
	my ($setting, $value, $reset) = @_;
	return sub {
		my $s = standby();
		configure($s, $setting => $value);
		return ("$setting = $value on $s->{name}", sub { configure($s, $setting => $reset) });
	};
}

sub restart_fault
{
	my ($how, $on) = @_;
	return sub {
		my $s = $on eq 'primary' ? primary() : standby();
		my $last = $how;
		if ($how eq 'smart')
		{
			# it waits for its clients
			note('primary_down', $s->{name}) if $on eq 'primary';
			kill 'TERM', processes($s, 'postmaster');
			usleep(1e6 * rand 3);
			$last = 'fast';
		}
		stop_server($s, $last);
		usleep(1e6 * rand 1);
		revive($s);
		return ("restart of $s->{name}", sub { });
	};
}

sub sql_fault
{
	my (@statements) = @_;
	return sub {
		my $sql = any(@statements);
		foreach (1 .. 3)
		{
			ask(primary(), "SET lock_timeout = '2s'; $_") foreach split /; /, $sql;
		}
		return ($sql, sub { });
	};
}

# Somebody reads on a standby, and is in the way of what the primary does.
sub reader_fault
{
	my ($begin, $sql) = @_;
	return sub {
		my $s = standby();
		my $reader = session($s);
		tell_session($reader, "BEGIN ISOLATION LEVEL $begin; SELECT count(*) FROM lists");
		ask(primary(), "SET lock_timeout = '2s'; $_") foreach split /; /, $sql;
		return ("a reader on $s->{name}, and $sql", sub { end_session($reader) });
	};
}

sub relay_fault
{
	my ($how) = @_;
	return sub {
		my $s = standby();
		my $upstream = $s->{upstream};
		my $name = "$s->{name}$upstream->{name}";
		my $us = int(10 ** (3 + rand 2));
		relay($s, $upstream, $how eq 'slow' ? $us : 0) if $how ne 'still';
		my $relay = $relay{$name} // die "no relay\n";
		kill 'STOP', -$relay->{pid} if $how eq 'still';
		return ("network between $s->{name} and $upstream->{name}: $how", sub {
			# a failover meanwhile has cut it for good, or made another
			return if ($relay{$name} // 0) != $relay;
			kill 'CONT', -$relay->{pid} if $how eq 'still';
			relay($s, $upstream, 0) if $how eq 'slow';
		}, $how eq 'still' ? 7 : 3);
	};
}

sub pause_fault
{
	my $s = standby();
	ask($s, 'SELECT pg_wal_replay_pause()') // die "no answer\n";
	return ("pause $s->{name}", sub { revive($s); ask($s, 'SELECT pg_wal_replay_resume()') });
}

# A crash of the primary while what it commits is not flushed
sub unflushed_fault
{
	my $s = primary();
	configure($s, synchronous_commit => 'off', wal_writer_delay => '10s');
	usleep(2e5 + 5e5 * rand);
	kill_server($s);
	configure($s, synchronous_commit => 'on', wal_writer_delay => '200ms');
	revive($s);
	return ("$s->{name} crashes with commits that are not flushed", sub { });
}

# How to heal a standby that streams from nobody.  Meanwhile it may have been promoted, or
# have got another upstream.
sub follow_again
{
	my ($s) = @_;
	return sub { follow($s, $s->{upstream}) if $s->{upstream} };
}

sub receiver_fault
{
	my $s = standby();
	configure($s, primary_conninfo => '');
	return ("no WAL receiver on $s->{name}", follow_again($s));
}

sub archive_fault
{
	my $s = standby();
	configure($s, primary_conninfo => '');
	foreach (1 .. 4)
	{
		ask(primary(), 'SELECT pg_switch_wal()');
		usleep(500000);
	}
	return ("only the archive for $s->{name}", follow_again($s));
}

sub cascade_fault
{
	my $s = standby();
	my $from = $s->{upstream}{name};
	# anything that does not come from it
	my @others = grep {
		my $up = $_;
		$up = $up->{upstream} while $up && $up != $s;
		!$up && $_->{name} ne $from;
	} map { $server{$_} } sort keys %server;
	@others or die "no other upstream\n";
	my $to = any(@others);
	follow($s, $to);
	return ("$s->{name} follows $to->{name}, not $from", sub { });
}

# It stops at some position; resuming would promote it.
sub recovery_target_fault
{
	my $s = standby();
	my $lsn = ask(primary(), 'SELECT pg_current_wal_insert_lsn() + ' . int rand 200000) // die "no answer\n";
	configure($s, recovery_target_lsn => $lsn, recovery_target_action => 'pause');
	stop_server($s, 'fast');
	start_server($s);
	return ("$s->{name} pauses at its recovery target $lsn", sub {
		configure($s, recovery_target_lsn => '', recovery_target_action => 'pause');
		stop_server($s, 'fast');
		revive($s);
	});
}

sub full_disk_fault
{
	my $s = $server{d};
	$s->{upstream} && $ENV{SMALL} or die "no small file system, or the primary is there\n";
	run('dd', 'if=/dev/zero', "of=$ENV{SMALL}/full", 'bs=64k');
	return ('the disk for the WAL of d is full', sub { unlink "$ENV{SMALL}/full"; revive($s) }, 6);
}

# Its clock jumps; no other does.
sub clock_fault
{
	my $s = standby();
	my $file = "$dir/clock";
	my $set = sub { open my $f, '>', "$file.new" or die $!; print $f "$_[0]\n"; close $f; rename "$file.new", $file };
	$ENV{CLOCK} or die "no libfaketime\n";
	$set->('+0');
	stop_server($s, 'fast');
	start_server($s, LD_PRELOAD => $ENV{CLOCK}, FAKETIME_TIMESTAMP_FILE => $file, FAKETIME_CACHE_DURATION => 1, DONT_FAKE_MONOTONIC => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1)
	  or die "did not start with another clock\n";
	foreach my $step (shuffle '+3600', '-3600', '+86400', '-1')
	{
		$set->($step);
		usleep(1200000);
	}
	return ("clock steps on $s->{name}", sub { stop_server($s, 'fast'); revive($s) });
}

sub promotion_fault
{
	my $old = primary();
	my $how = any('fast', 'immediate', 'kill', 'frozen');
	my $position = 'SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - \'0/0\'';

	# what it writes from now on may get to nobody
	if (rand() < 0.6)
	{
		cut_relay("$_->{name}$old->{name}") foreach standbys();
		usleep(1e6 * rand);
	}
	if ($how eq 'frozen')
	{
		note('stop', $old->{name});
		kill 'STOP', processes($old, 'postmaster'), processes($old, '');
		usleep(1e6 * rand 2);
	}
	if ($how eq 'kill' || $how eq 'frozen') { kill_server($old) }
	else { stop_server($old, $how) }
	note('go', $old->{name}) if $how eq 'frozen';
	my %at = map { $_->{name} => ask($_, $position) // 0 } standbys();
	# who has its last answer may not have read it until now
	note('primary_down', $old->{name});
	my ($furthest) = sort { $at{$b} <=> $at{$a} } keys %at;
	my $new = $server{ rand() < 0.6 ? $furthest : any(keys %at) };
	# another fault may have stopped it
	kill 'CONT', processes($new, 'startup');
	run('pg_ctl', '-D', $new->{dir}, '-w', '-t', $patience, 'promote') or die "$new->{name} is not promoted\n";
	$new->{upstream} = undef;
	configure($new, primary_conninfo => '');
	my ($history) = sort { $b cmp $a } glob "$new->{dir}/pg_wal/*.history";
	my ($high, $low) = slurp($history) =~ m{\t([0-9A-F]+)/([0-9A-F]+)\t[^\n]*\n*\z} or die "no history of $new->{name}\n";
	my $left_at = hex($high) * 2**32 + hex($low);
	foreach my $s (standbys())
	{
		next if $s == $new || $s == $old;
		# who has more than the new primary can't follow it
		if ((ask($s, $position) // 2**63) > $left_at) { come_back($s, $new) }
		elsif ($s->{upstream} == $old) { follow($s, $new) }
	}
	my $back = come_back($old, $new);
	return ("$how end of $old->{name}; $new->{name} is promoted; $old->{name} comes back by $back", sub { });
}

my @deck = (
	pause => \&pause_fault,
	pause => \&pause_fault,
	(map { ('crash with unflushed commits' => \&unflushed_fault) } 1 .. 2),
	'STOP waiter' => signal_fault('STOP', 'waiter', 'standby'),
	(map { my $name = $_; map { ("$_ $name" => signal_fault($_, $name, 'standby')) } qw(STOP KILL TERM) } qw(startup walreceiver worker link waiter)),
	(map { ("$_ walsender" => signal_fault($_, 'walsender', 'upstream')) } qw(STOP TERM)),
	'KILL walsender' => signal_fault('KILL', 'walsender', 'primary'),
	'KILL cascading walsender' => \&cascading_walsender_fault,
	(map { ("$_ woken" => woken_fault($_), "$_ primary worker" => signal_fault($_, 'worker', 'primary')) } qw(KILL TERM)),
	(map { ("$_ postmaster" => signal_fault($_, 'postmaster', 'standby')) } qw(STOP KILL TERM)),
	'STOP primary postmaster' => signal_fault('STOP', 'postmaster', 'primary'),
	'KILL primary postmaster' => signal_fault('KILL', 'postmaster', 'primary'),
	'STOP checkpointer' => signal_fault('STOP', 'checkpointer', 'any'),
	(map { ("$_ restart" => restart_fault($_, 'standby'), "$_ restart of the primary" => restart_fault($_, 'primary')) } qw(smart fast immediate)),
	'cut network' => relay_fault('cut'),
	'slow network' => relay_fault('slow'),
	'partition' => relay_fault('still'),
	'partition' => relay_fault('still'),
	'no WAL receiver' => \&receiver_fault,
	'archive only' => \&archive_fault,
	'other upstream' => \&cascade_fault,
	'other upstream' => \&cascade_fault,
	'recovery target' => \&recovery_target_fault,
	'full disk' => \&full_disk_fault,
	'clock steps' => \&clock_fault,
	'apply delay' => setting_fault('recovery_min_apply_delay', '300ms', '0'),
	'held snapshot' => reader_fault('REPEATABLE READ', 'UPDATE lists SET v = v; VACUUM lists'),
	'held lock' => reader_fault('READ COMMITTED', 'ALTER TABLE lists ADD COLUMN more int; ALTER TABLE lists DROP COLUMN more'),
	vacuum => sql_fault('VACUUM lists; VACUUM FULL side', 'VACUUM FULL lists', 'VACUUM (FREEZE, ANALYZE) lists'),
	DDL => sql_fault('ALTER TABLE lists ADD COLUMN more int; ALTER TABLE lists DROP COLUMN more', 'CREATE INDEX more ON lists (cardinality(v)); DROP INDEX more', 'ALTER TABLE side ADD more int; ALTER TABLE side DROP more'),
	truncation => sql_fault('TRUNCATE side; INSERT INTO side SELECT generate_series(1, 1000); DELETE FROM side; VACUUM side'),
	'WAL switch' => sql_fault('SELECT pg_switch_wal()', 'CHECKPOINT', 'CREATE DATABASE other; DROP DATABASE other'));

# ---- the run ----

sub create
{
	my $a = $server{a};
	run('initdb', '-D', $a->{dir}, '-U', $user, '-A', 'trust', '--no-sync', '--wal-segsize=1') or die 'no initdb';
	configure($a);
	start_server($a) or die 'a does not start';
	ask($a, $_) // die "not done: $_" foreach 'CREATE EXTENSION lsn_tracker', 'CREATE TABLE lists (k int PRIMARY KEY, v int[] NOT NULL) WITH (fillfactor = 50)', 'CREATE TABLE side (i int)';
	base_backup($server{b}, $a) or die 'no b';
	base_backup($server{c}, $a) or die 'no c';
	base_backup($server{d}, $server{c}) or die 'no d';
	recover();
	return;
}

sub start_clients
{
	my @conninfo = map { "host=$dir/socket/$_ port=$port user=$user dbname=postgres application_name=soak connect_timeout=2 options='-c lock_timeout=500'" } sort keys %server;
	my $pooled = '';
	if ($ENV{POOLER})
	{
		open my $ini, '>', "$dir/pgbouncer.ini" or die $!;
		print $ini <<INI;
[databases]
pool = dbname=postgres user=$user host=@{[ join ',', map { "$dir/socket/$_" } sort keys %server ]} port=$port pool_size=12 connect_query='SET lsn_tracker.track_reads = on'
[pgbouncer]
listen_addr =
unix_socket_dir = $dir/net
listen_port = $port
auth_type = any
pool_mode = transaction
server_round_robin = 1
max_client_conn = 400
server_login_retry = 1
track_extra_parameters = lsn_tracker.token
INI
		close $ini;
		$bouncer{run} = IPC::Run::start([ $ENV{POOLER}, "$dir/pgbouncer.ini" ], '<', '/dev/null', '>>', "$dir/history/pgbouncer.log", '2>&1');
		$pooled = "host=$dir/net port=$port user=$user dbname=pool connect_timeout=2";
	}
	%clients = (in => '', out => '');
	$clients{run} = IPC::Run::start([ "$dir/clients", "$dir/history", $n_clients, $seed, $pooled, @conninfo ], '<', \$clients{in}, '>', \$clients{out}, '2>>', "$dir/history/clients.log");
	return;
}

# One or two faults of the deck; returns what is left of it.
sub do_faults
{
	my (@deck) = @_;
	my (@heal, @done);
	my $hold = 0.3 + rand 2;
	foreach (1 .. (rand() < 0.35 ? 2 : 1))
	{
		my $card = shift @deck or last;
		my ($kind, $fault) = @$card;
		note('fault', $kind);
		my ($what, $heal, $longest) = eval { $fault->() };
		if (!defined $what)
		{
			chomp(my $why = $@);
			push @done, "($kind: $why)";
			note('not', $kind, $why);
			next;
		}
		note('did', $what);
		$injected{$kind}++;
		push @done, $what;
		push @heal, $heal;
		$hold = rand $longest if $longest;
		# alone what changes who is who
		last if $kind =~ /promotion|upstream|restart|primary|crash/;
	}
	usleep(1e6 * $hold);
	$_->() foreach @heal;
	recover();
	say_progress(join '; ', @done);
	return @deck;
}

sub final
{
	my ($s) = @_;
	return ask($s, "SELECT k || ' ' || array_to_string(v, ',') FROM lists ORDER BY k", 300) // die "no end of $s->{name}\n";
}

sub write_final
{
	my ($name, $text) = @_;
	open my $file, '>', "$dir/history/$name" or die $!;
	print $file "$text\n" if $text ne '';
	close $file;
	return;
}

$SIG{INT} = $SIG{TERM} = sub { exit 1 };
# one of its sessions has ended; not IGNORE, which they would inherit
$SIG{PIPE} = sub { };
END
{
	my $status = $?;
	foreach my $run (grep { $_ } $clients{run}, $bouncer{run}) { $run->kill_kill }
	cut_relay($_) foreach keys %relay;
	$? = $status;
}

create();
start_clients();
my $until = now() + $seconds;
my ($rounds, $cards) = (0, 0);
my @left;
say_progress("seed $seed, $mode mode, $n_clients clients");
if (!$faults)
{
	note('peace');
	while (now() < $until)
	{
		usleep(5e6);
		say_progress('no faults');
	}
	note('unrest');
}
while (now() < $until)
{
	# in some of them hardly anybody writes: behind the last record nothing makes up for a
	# lost wake-up
	my $rest = rand() < 0.25;
	note('peace');
	usleep(1e6 * (0.2 + rand 0.5));
	command('rest') if $rest;
	usleep(6e6) if $rest;
	note('unrest');
	command('write') if $rest;
	if (!@left)
	{
		my @cards;
		for (my $i = 0; $i < @deck; $i += 2) { push @cards, [ @deck[ $i, $i + 1 ] ] }
		# a failover is among every few
		@left = map { (++$cards % 5 == 0 ? [ promotion => \&promotion_fault ] : (), $_) } shuffle @cards;
	}
	@left = do_faults(@left);
	look_for_leftovers() if ++$rounds % 10 == 0;
}
look_for_leftovers();
say_progress('the end');
$clients{run}->finish or die "the clients failed\n";
recover();
write_final('final', final(primary()));
write_final("final.$_->{name}", final($_)) foreach standbys();

# What no fault explains: signals that nobody sent (a postmaster whose session is killed
# sends 3 to all it has, also to a restore_command), failed assertions
foreach my $s (values %server)
{
	my %crashes;
	my $log = slurp($s->{log});
	$crashes{$1}++ while $log =~ /(terminated by signal (?!3\b|9\b|15\b)\d+|TRAP: [^\n]*|PANIC: (?![^\n]*No space left)[^\n]*|ERROR: AddressSanitizer[^\n]*|runtime error: [^\n]*)/g;
	note('crashed', $s->{name}, $_) foreach sort keys %crashes;
}
foreach my $s (standbys(), primary()) { stop_server($s, 'fast') }

print "\nFaults: ", join(', ', map { "$_ $injected{$_}" } sort keys %injected), "\n\n";
