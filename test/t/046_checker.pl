# The checker of "make soak" (../soak/check.py) on histories that somebody made up: one
# with nothing wrong in it passes, and each property is found to be violated where a
# violation has been planted.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

plan skip_all => 'no python' if lacks('python');

my $checker = "$FindBin::RealBin/../soak/check.py";
my $n = 0;

# Check a history; returns the exit status, and what was found to be violated and allowed.
sub check
{
	my ($final, $history, %more) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir() . '/history' . $n++;

	mkdir $dir or die $!;
	append_to_file("$dir/final", $final);
	append_to_file("$dir/final.b", $more{b} // $final);
	# several files, as the clients' are
	my @lines = grep { /\S/ } split /\n/, $history;
	append_to_file("$dir/client." . ($_ % 2), "$lines[$_]\n") foreach 0 .. $#lines;
	append_to_file("$dir/client.$_", '') foreach 0, 1;
	IPC::Run::run([ $ENV{PYTHON}, $checker, $dir ], '>', \my $out, '2>', \my $err);
	my $status = $? >> 8;
	diag($err) if $err ne '';
	my ($allowed) = $out =~ /\nAllowed:(.*)/s;
	return ($status, join('; ', $out =~ /^VIOLATED +(.*?)(?:: [\d,]+)?$/mg), $allowed, $out);
}

# One with all that is right: two keys, writes with tokens, reads in every way, a
# failover that loses a write and a crash that loses one that was not flushed.
my $final = "1 10,11,12\n2 20,21,22\n";
my $right = <<'HISTORY';
0.900000 N peace -
1.100000 W 1.000000 0 a 100 1 10 ok 0/10@1 700
1.200000 W 1.110000 1 a 101 2 20 ok 0/20@1 701
1.300000 R 1.210000 0 b 200 wait 1 0/10@1 2000 - ok - 10
1.310000 R 1.220000 1 b 201 set 1 0/10@1 2000 - ok - 10
1.320000 R 1.220000 1 b 201 from 1 0/20@1 2000 - ok - 10
1.350000 R 1.330000 1 c 202 tracked 2 0/20@1 2000 - ok 0/21@1 20
1.400000 N unrest -
1.450000 W 1.410000 0 a 100 1 11 ok 0/30@1 702
1.500000 R 1.460000 1 b 201 tracked 1 0/21@1 2000 - ok 0/31@1 10,11
1.520000 R 1.510000 0 c 210 strong 1 - 2000 0 ok - 10,11
1.530000 R 1.521000 0 a 110 primary 1 - 2000 - ok - 10,11
1.600000 R 1.540000 0 c 210 bounded 1 - 2000 1000 ok - 10
1.610000 R 1.600000 0 c 210 staleness 1 - 1000 200.5 ok - 10
1.700000 W 1.620000 1 a 101 2 21 broken - -
1.720000 R 1.710000 0 c 210 plain 2 - 200 - ok - 20,21
2.000000 W 1.900000 0 a 100 1 99 ok 0/40@1 703
2.050000 R 2.010000 0 b 200 wait 1 0/40@1 2000 - ok - 10,11,99
2.055000 W 2.020000 0 a 100 2 98 error:40001 - -
2.060000 R 2.030000 0 b 200 strong 1 - 2000 0 ok - 10,11,99
2.100000 N primary_down a
2.200000 N primary_down a
2.400000 R 2.300000 0 c 210 wait 1 0/40@1 2000 - error:40000 - -
2.500000 R 2.410000 0 c 210 pg_lsn 1 0/40 2000 - ok - 10,11
2.600000 R 2.510000 0 c 210 strong 1 - 2000 0 ok - 10,11
2.700000 W 2.610000 0 b 300 1 12 ok 0/50@2 704
4.700000 R 2.700000 1 c 202 require 1 0/50@2 2000 - timeout - -
4.800000 W 4.710000 1 b 301 2 97 ok 0/60@2~0/51 705
4.810000 N primary_down b
4.900000 N primary_down b
5.000000 R 4.910000 1 c 202 wait 2 0/60@2~0/51 2000 - ok - 20,21
5.100000 W 5.010000 1 b 301 2 22 ok 0/70@2 706
5.200000 Q c 202 0/70 0 0 0
5.400000 Q c 202 0/70 1 0 0
6.000000 N stop c
9.900000 N go c
10.000000 R 5.900000 1 c 202 wait 2 0/70@2 200 - timeout - -
12.000000 H 10.500000
HISTORY

my ($status, $violated, $allowed, $out) = check($final, $right);
is($violated, '', 'nothing is wrong');
is($status, 0, 'so it passes') or diag($out);
like($allowed, qr/ 1 $_/, "met, and allowed: $_") foreach 'unacknowledged commits that have survived', 'unflushed writes, lost in a crash, that were answered yes',
  'positions and ids, which know no timeline, of lost writes that were answered yes';
like($allowed, qr/ 2 acknowledged writes that a failover or crash has lost/, 'and counted');
like($out, qr/^pg_lsn +1 +0 +0 +0 +0$/m, 'reads are counted by way');

# What is planted: the property, and lines in addition, or [those that a pattern of the
# right history becomes], or what the servers hold.
my @planted = (
	[ 'read your writes by token', '1.500001 R 1.460000 0 b 200 wait 1 0/30@1 2000 - ok - 10' ],
	[ 'read your writes by token', '1.500001 R 1.460000 0 b 200 xid 1 702 2000 - ok - 10' ],
	[ 'read your writes by token', '1.500001 R 1.460000 0 b 200 pg_lsn 1 0/30 2000 - ok - 10' ],
	# nothing at all, and by the token of a later write to another list
	[ 'read your writes by token', '1.500001 R 1.460000 0 b 200 from 1 0/30@1 2000 - ok - -' ],
	[ 'read your writes by token', '1.500001 R 1.460000 0 b 200 set 2 0/30@1 2000 - ok - -' ],
	[ 'writes follow reads (a token handed to another client)', '1.500001 R 1.460000 1 c 202 set_local 1 0/30@1 2000 - ok - 10' ],
	[ 'writes follow reads (a token handed to another client)', '1.600001 R 1.540000 0 c 200 require 1 0/31@1 2000 - ok - 10' ],
	[ 'monotonic reads across servers', '1.600001 R 1.540000 1 c 200 tracked 1 0/31@1 2000 - ok - 10' ],
	# what the read before the read had seen, and a pool's, whose server is unknown
	[ 'monotonic reads across servers', '1.600001 R 1.540000 1 c 200 tracked 2 0/31@1 2000 - ok - -' ],
	[ 'monotonic reads across servers', '1.600001 R 1.540000 1 ? 200 pooled 1 0/31@1 5000 - ok - -' ],
	[ 'strong reads per key in real time', '1.521000 R 1.460000 1 c 202 strong 1 - 2000 0 ok - 10' ],
	# one that is lost later; and one not acknowledged but seen on the primary
	[ 'strong reads per key in real time', '2.061000 R 2.030000 1 c 202 strong 1 - 2000 0 ok - 10,11' ],
	[ 'strong reads per key in real time', "1.730000 R 1.720000 1 a 102 primary 2 - 20 - ok - 20,21\n1.741000 R 1.731000 1 c 202 strong 2 - 20 0 ok - 20" ],
	[ 'reads on the primary per key in real time', '1.521000 R 1.460000 1 a 202 primary 1 - 2000 - ok - 10' ],
	[ 'bounded reads are not older than their bound', '1.921000 R 1.800000 1 c 202 bounded 1 - 2000 200 ok - 10' ],
	[ 'staleness is never understated', '1.921000 R 1.800000 1 c 202 staleness 1 - 1000 200.5 ok - 10' ],
	[ 'a lost write is never answered yes', '2.511000 R 2.411000 1 c 202 wait 1 0/40@1 2000 - ok - 10,11' ],
	# before the crash
	[ 'a lost write is never answered yes', [ qr/4\.[89]\d+ N primary_down b/, '5.009000 N primary_down b' ] ],
	[ 'a surviving write is never called lost', '2.511000 R 2.411000 1 c 202 wait 1 0/30@1 2000 - error:40000 - -' ],
	[ 'a surviving write is never called lost', '2.511000 R 2.411000 1 c 202 xid 1 702 2000 - error:40000 - -' ],
	[ 'no wait beyond its timeout', '8.511000 R 2.411000 1 b 202 wait 1 0/40@1 2000 - error:40000 - -' ],
	[ 'no wait beyond its timeout', '62.511000 R 2.411000 1 b 202 plain 1 - 2000 - hung - -' ],
	# stopped for shorter than that
	[ 'no wait beyond its timeout', [ qr/9\.900000 N go/, '6.100000 N go' ] ],
	[ 'no time-out before its time', '2.911000 R 2.411000 1 b 202 wait 1 0/40@1 2000 - timeout - -' ],
	# another has seen it; or its own server says so
	[ 'none sleeps although its target is replayed', "3.000000 R 2.990000 0 b 200 plain 1 - 20 - ok - 10,11,12\n8.100000 R 2.800000 1 b 201 wait 1 0/50\@2 8000 - ok - 10,11,12" ],
	[ 'none sleeps although its target is replayed', join "\n", map { sprintf '%.6f Q b 202 0/70 1 0 0', 13 + $_ / 5 } 0 .. 20 ],
	[ 'waiters hold neither xmin nor virtual transaction', join "\n", map { sprintf '%.6f Q b 202 0/70 0 1 0', 13 + $_ / 5 } 0 .. 10 ],
	[ 'waiters hold neither xmin nor virtual transaction', join "\n", map { sprintf '%.6f Q b 202 0/70 0 0 1', 13 + $_ / 5 } 0 .. 10 ],
	[ 'nothing is left over', '14.000000 N leftover b locks 1' ],
	# a connection that has worked meanwhile; others may have been broken before
	[ 'nothing fails while nothing is broken', '1.311000 R 1.220000 1 b 201 set 1 0/10@1 2000 - broken - -' ],
	[ 'nothing fails while nothing is broken', '1.311000 R 1.220000 1 b 201 set 1 0/10@1 2000 - error:55000 - -' ],
	[ 'nothing fails while nothing is broken', "0.010000 N peace -\n3.200000 R 1.150000 0 b 200 strong 1 - 2000 0 timeout - -", [ qr/.* (?:peace|unrest|H) .*/, '' ] ],
	[ 'every server recovers', '14.000000 N unrecovered b 0/50' ],
	[ 'no unexpected error', '14.000000 R 13.000000 1 b 201 set 1 0/70@2 2000 - error:XX000 - -' ],
	[ 'no unexpected error', '14.000000 R 13.000000 1 b 201 strong 1 - 2000 0 error:40000 - -' ],
	[ 'no unexpected error', '14.000000 N crashed b terminated by signal 11' ],
	[ 'no acknowledged write is lost without a failover or crash', '14.000000 W 13.000000 1 b 301 2 96 ok 0/80@2 707' ],
	# not a beginning of the list; twice; of nobody; of one that was rolled back
	[ 'lists are what was appended, once and in order', '14.000000 R 13.000000 1 c 201 plain 1 - 2000 - ok - 11,10' ],
	[ 'lists are what was appended, once and in order', '14.000000 R 13.000000 1 c 201 plain 1 - 2000 - ok - 10,11,99,99' ],
	[ 'lists are what was appended, once and in order', '14.000000 R 13.000000 1 c 201 plain 1 - 2000 - ok - 10,11,1000' ],
	[ 'lists are what was appended, once and in order', '14.000000 R 13.000000 1 c 201 plain 2 - 2000 - ok - 20,21,98' ],
	[ 'lists are what was appended, once and in order', '14.000000 W 13.000000 1 b 301 2 22 error:40001 - -' ],
	[ 'all servers hold the same in the end', '', undef, "1 10,11\n2 20,21,22\n" ]);

foreach my $plant (@planted)
{
	my ($property, $lines, $change, $on_b) = @$plant;
	my $history = $right;

	($lines, $change) = ('', $lines) if ref $lines;
	$history =~ s/$change->[0]/$change->[1]/g if $change;
	# sorted, as each file is
	$history = join "\n", sort { ($a =~ /^(\S+)/)[0] <=> ($b =~ /^(\S+)/)[0] } grep { /\S/ } split /\n/, "$history\n$lines";
	($status, $violated, $allowed, $out) = check($final, $history, defined $on_b ? (b => $on_b) : ());
	is("$status: $violated", "1: $property", 'planted: ' . ($lines ne '' ? $lines =~ s/\n.*//sr : $property)) or diag($out);
}

# As many as a long run has: one pass, and little memory
my $long = PostgreSQL::Test::Utils::tempdir() . '/long';
mkdir $long or die $!;
open my $file, '>', "$long/client.0" or die $!;
print $file join '', map { sprintf "%.6f R %.6f 0 b 200 wait 1 0/10\@1 2000 - ok - 10\n", 2 + $_ / 1000, 2 + ($_ - 1) / 1000 } 1 .. 100000;
close $file;
append_to_file("$long/client.1", "1.100000 W 1.000000 0 a 100 1 10 ok 0/10\@1 700\n");
append_to_file("$long/final", "1 10\n");
IPC::Run::run([ $ENV{PYTHON}, $checker, $long ], '>', \$out) or fail('100,000 reads');
like($out, qr/^100,000 reads checked/m, '100,000 reads');

done_testing();
