# Together with another library that wraps the redo functions, before it and after
# it: waits work, also after crash restarts, at which both come by again.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $wrapper = PostgreSQL::Test::Utils::tempdir() . '/redo_wrapper.so';
my $log = `$ENV{MODULE_CC} -o '$wrapper' '$FindBin::RealBin/../other/redo_wrapper.c' 2>&1`;
die "could not compile the other library: $log" if $?;

my %preloads = (before => "lsn_tracker, $wrapper", after => "$wrapper, lsn_tracker");
foreach my $order (sort keys %preloads)
{
	my ($primary, $standby) = new_pair("wrapped_$order", "shared_preload_libraries = '$preloads{$order}'",
		'restart_after_crash = on');

	foreach my $crash (0 .. 2)
	{
		if ($crash)
		{
			my $victim = session($standby);
			my $pid = $victim->query('SELECT pg_backend_pid()');
			my $started = $standby->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

			restart_by_crash($standby, $pid);
			$victim->{run}->kill_kill;
			ok($standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_stat_wal_receiver'),
				"$order: back after crash $crash") or last;
			is($standby->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, "$order: the same postmaster");
		}
		my $target = future_lsn($primary);
		my $waiter = start_wait(session($standby), "SELECT lsn_wait('$target', 0)");
		await_waiters($standby, 1);
		reach($primary, $target);
		is(scalar finish_wait($waiter), 't', "$order: woken, after $crash crashes");
		$waiter->quit;
	}
	my $wrapped = () = slurp_file($standby->logfile) =~ /redo_wrapper: wrapped/g;
	is($wrapped, 3, "$order: the other library was there each time");

	# The end of redo comes through, too.
	my $waiter = start_wait(session($standby), "SELECT lsn_wait('FFFFFFFF/0', 0)");
	await_waiters($standby, 1);
	$primary->stop;
	$standby->promote;
	like((finish_wait($waiter))[1], qr/recovery ended before/, "$order: promotion ends a wait");
	$waiter->quit;
	$standby->stop;
}

done_testing();
