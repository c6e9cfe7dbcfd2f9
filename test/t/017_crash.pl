# A crash of the primary, which is no failover: the timeline stays.  What was
# committed and not flushed is lost, and its place in the WAL written over.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

sub pid_of
{
	my ($node, $type) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = '$type'");
}

# Nobody flushes WAL by himself from now on, but the sessions that commit so.
sub hold_back_wal
{
	my ($node) = @_;
	my @pids = map { pid_of($node, $_) } 'walwriter', 'background writer', 'checkpointer';

	kill 'STOP', @pids;
	return @pids;
}

# The postmaster takes the death of a process for a crash and, as the tests have
# it, does not start again by itself.
sub crash
{
	my ($node, @pids) = @_;
	my $postmaster = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/ ? $1 : die;

	kill 'KILL', @pids;
	for (my $i = 0; -e "/proc/$postmaster" && $i < 1800; $i++)
	{
		select undef, undef, undef, 0.1;
	}
	$node->_update_pid(0);
	$node->start;
	return;
}

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("crash_$mode", "lsn_tracker.wakeup = $mode", 'synchronous_commit = off');
	my $session = session($primary);
	my ($out, $err);

	# Committed, reported, not flushed
	$primary->safe_psql('postgres', 'CREATE TABLE kept (i int); CREATE TABLE lost (i int)');
	my $kept = $primary->safe_psql('postgres', "SET synchronous_commit = on; INSERT INTO kept VALUES (1);\nSELECT lsn_last_commit()");
	like($kept, qr/^[^~]*\@1$/, "$mode: a commit that is flushed has a plain token");
	catch_up($primary, $standby);
	my @held = hold_back_wal($primary);
	my $lost = finish_wait(start_wait($session, "INSERT INTO lost VALUES (1);\nSELECT lsn_last_commit()"));
	like($lost, qr/^\S+\@1~\S+$/, "$mode: one that is not tells so");
	my $reported = session($primary);
	my $waiting = start_wait(session($standby), "\\set VERBOSITY verbose\nSELECT lsn_wait('$lost', 0)");
	await_waiters($standby, 1);

	# and a transaction that had not committed
	my $xid = finish_wait(start_wait($session, "BEGIN; INSERT INTO lost VALUES (2) RETURNING pg_current_xact_id()"));
	crash($primary, @held);
	$_->{run}->kill_kill foreach $session, $reported;

	my ($lsn) = $lost =~ /^(.*)@/;
	my $again;
	do
	{
		$again = $primary->safe_psql('postgres', "INSERT INTO kept VALUES (2) RETURNING pg_current_xact_id()");
	} while $again < $xid;
	is($again, $xid, "$mode: the id is given out again");
	reach($primary, $lsn);
	catch_up($primary, $standby);
	is($_->safe_psql('postgres', 'SELECT count(*) FROM lost'), '0', $_->name . ': the write is lost') foreach $primary, $standby;

	# What is known of it: by a server that follows each record, that the commit
	# was not flushed; by no one, which transaction is meant.
	if ($mode eq 'redo')
	{
		($out, $err) = finish_wait($waiting);
		like($err, qr/ERROR:  40000: the write at \Q$lost\E has been lost in a crash of the primary\nDETAIL:  .*not flushed .*started again at .*\nHINT:  Repeat/,
			"$mode: a wait begun before the crash ends when the primary is back");
		foreach my $node ($primary, $standby)
		{
			like(sqlstate($node, "SELECT lsn_wait('$lost')"), qr/^40000: the write at \Q$lost\E has been lost in a crash/, $node->name . ': lost');
			like(sqlstate($node, "SELECT lsn_replicated('$lost')"), qr/^40000: .*lost in a crash/, $node->name . ': lost, without waiting');

			# shown like what a failover has lost
			my $told = report_client($node->connstr('postgres'));
			ask($told, 'SET lsn_tracker.track_reads = on; SELECT 1');
			my @shown = map { (ask($told, $_))[2] } "SET lsn_tracker.token = '$lost'", "SELECT set_config('work_mem', '1MB', true)", 'SELECT 1';
			is(join(' ', @shown), "$lost $lost $lost", $node->name . ': shown, although something newer is known');
			$told->{run}->finish;
		}
	}
	else
	{
		is(finish_wait($waiting), 't', "$mode: as documented, a wrong yes");
		is($standby->safe_psql('postgres', "SELECT lsn_wait('$lost')"), 't', "$mode: afterwards, too");
	}
	is($standby->safe_psql('postgres', "SELECT lsn_wait('$lsn')"), 't', "$mode: a position that is no token: as documented, a wrong yes");
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid')"), 't', "$mode: a transaction's id: as documented, a wrong yes");
	is($standby->safe_psql('postgres', "SELECT lsn_wait('$kept')"), 't', "$mode: what was flushed is not lost");
	$waiting->quit;

	# Commits that are flushed in the end, and servers that are shut down in order
	$session = session($primary);
	my $late = finish_wait(start_wait($session, "INSERT INTO kept VALUES (3);\nSELECT lsn_last_commit()"));
	$session->quit;
	my $then = write_token($primary);
	$primary->restart;
	my $last = write_token($primary);
	catch_up($primary, $standby);
	foreach my $node ($primary, $standby)
	{
		is($node->safe_psql('postgres', "SELECT lsn_wait('$_', 20000)"), 't', "$mode, " . $node->name . ": not lost in a restart: $_")
		  foreach $late, $then, $last;
	}

	# Many commits, and a crash among them: what is lost is known, and nothing else.
	if ($mode eq 'redo')
	{
		my $known = 0;
		foreach my $round (1 .. 6)
		{
			# with few behind, the last page may be as far as WAL was flushed
			my $n = 200 + ($round % 2 ? 5 : 200);
			my @held;
			my @tokens;
			$session = session($primary);
			for my $i (1 .. $n)
			{
				@held = hold_back_wal($primary) if $i == 201;
				push @tokens, scalar finish_wait(start_wait($session, "INSERT INTO lost VALUES ($round * 1000 + $i);\nSELECT lsn_last_commit()"));
			}
			crash($primary, @held);
			$session->{run}->kill_kill;
			reach($primary, $tokens[-1] =~ /^(.*)@/);
			catch_up($primary, $standby);
			foreach my $node ($primary, $standby)
			{
				my %there = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', "SELECT i FROM lost WHERE i > $round * 1000");
				my $asks = session($node);
				my ($right, $wrong) = (0, '');
				for my $i (1 .. $n)
				{
					my ($out, $err) = finish_wait(start_wait($asks, "SELECT lsn_replicated('$tokens[$i - 1]')"));
					my $fits = $there{ $round * 1000 + $i } ? $out eq 't' : $err =~ /lost in a crash/;
					$fits ? $right++ : ($wrong .= "$i $tokens[$i - 1]: $out$err\n");
				}
				is($right, $n, $node->name . ", round $round: " . ($n - keys %there) . " of $n are lost, and known to be") or diag($wrong);
				$known += $n - keys %there;
				$asks->quit;
			}
		}
		cmp_ok($known, '>', 0, 'some were lost');
	}
	$primary->stop;

	# Behind a failover, too, a commit that has not waited does not answer for it.
	if ($mode eq 'redo')
	{
		$standby->promote;
		my $told = report_client($standby->connstr('postgres'));
		like((ask($told, 'SET lsn_tracker.track_reads = on; SELECT 1'))[2], qr/\@2/, 'promoted: what it has read');
		my @said = map { join ' ', (ask($told, $_))[1, 2] } "SET lsn_tracker.token = '$lost'", 'CREATE TABLE made (i int)', 'SELECT 1';
		is(join(', ', @said), " $lost,  $lost, 40000 $lost", 'promoted: lost, whatever is committed');
		$told->{run}->finish;
	}
	$standby->stop;
}

done_testing();
