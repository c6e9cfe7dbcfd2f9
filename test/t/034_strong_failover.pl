# Strong reads across failovers: an answer that is lost is asked for again.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $count = 'SELECT count(*) FROM t';
my $strong = 'SET lsn_tracker.max_staleness = 0; SET lsn_tracker.default_timeout = 0';

foreach my $mode (qw(redo poll))
{
	my $a = new_primary("${mode}_a", "lsn_tracker.wakeup = $mode");
	my $b = add_standby($a, "${mode}_b");
	my $c = add_standby($a, "${mode}_c");
	my $d = add_standby($c, "${mode}_d");

	catch_up($a, $_) foreach $b, $d;
	my $kept = $a->safe_psql('postgres', $count);
	is($_->safe_psql('postgres', "$strong; $count"), $kept, "$mode: before: " . $_->name) foreach $b, $c, $d;

	# B and C don't get what A writes, but are told that it is there.
	have_ask($_, $a) foreach $b, $c;
	# B, which is promoted, last: who follows must not be ahead of it
	cut_off($_) foreach $c, $b;
	write_wal($a) for 1 .. 10;
	my %reader = map { $_->name => start_wait(session($_), "$strong; $count") } $b, $c, $d;
	await_waiters($_, 1) foreach $b, $c, $d;
	foreach my $node ($b, $c, $d)
	{
		# answered, and waiting for the position
		$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM lsn_waiters() WHERE target IS NOT NULL") or die 'not answered';
	}

	# B is promoted, and is the primary then: it has all there is.
	$b->promote;
	is(scalar finish_wait($reader{$b->name}), $kept, "$mode: who waits on the promoted server reads what it has");
	write_wal($b);
	$kept++;

	# C follows, D with it.  The old primary goes on, and does not know.
	follow($c, $b);
	$_->poll_query_until('postgres', "SELECT count(*) = $kept FROM t") or die 'not followed' foreach $c, $d;
	my (undef, undef, $err) = $c->psql('postgres', "SET lsn_tracker.max_staleness = 0; SET lsn_tracker.default_timeout = 1000;\n$count", on_error_stop => 0);
	like($err, qr/timed out after 1000 ms while asking the primary.*it is on timeline 1, and this server on 2/s,
		"$mode: what the old primary says does not count");
	await_waiters($_, 1) foreach $c, $d;
	have_ask($c, undef);
	is(scalar finish_wait($reader{$_->name}), $kept, "$mode: who waited for what is lost reads what is there: " . $_->name) foreach $c, $d;
	is($_->safe_psql('postgres', "$strong; $count"), $kept, "$mode: and the next read: " . $_->name) foreach $c, $d;

	# The other old one is promoted in turn, while somebody waits for an answer.
	$b->stop('immediate');
	my $asks = start_wait(session($d), "$strong; $count");
	await_waiters($d, 1);
	my $asks_c = start_wait(session($c), "$strong; $count");
	await_waiters($c, 1);
	$c->promote;
	is(scalar finish_wait($asks_c), $kept, "$mode: without an answer");
	is(scalar finish_wait($asks), $kept, "$mode: and its standby asks it");

	$_->quit foreach values %reader, $asks, $asks_c;
	$_->stop foreach $d, $c, $a;
}
done_testing();
