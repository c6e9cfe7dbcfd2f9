# HAProxy with the examples in doc/: readers are given standbys whose data is not too
# old, whoever lags, and the primary if all do.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

plan skip_all => 'no HAProxy' if lacks('haproxy');
my $examples = "$FindBin::RealBin/../../doc/examples";
my $dir = PostgreSQL::Test::Utils::tempdir();
my @tcp = ("listen_addresses = '127.0.0.1'", 'hot_standby_feedback = off');
my $primary = new_primary('primary', @tcp);
my @standbys = map { add_standby($primary, $_, @tcp, "cluster_name = '$_'") } qw(standby1 standby2);
my $port = PostgreSQL::Test::Cluster::get_free_port();

$primary->safe_psql('postgres', 'CREATE ROLE monitor LOGIN');
catch_up($primary, $_) foreach @standbys;

# the examples as they are, but for places
my $config = slurp_file("$examples/haproxy.cfg");
$config =~ s/127.0.0.1:5001/127.0.0.1:$port/ or die;
$config =~ s/127.0.0.1:5432/127.0.0.1:${\$standbys[0]->port}/ or die;
$config =~ s/127.0.0.1:5433/127.0.0.1:${\$standbys[1]->port}/ or die;
$config =~ s/127.0.0.1:5434/127.0.0.1:${\$primary->port}/ or die;
# HAProxy gives checks an environment of their own; a server that checks itself (make
# check-debug) has a psql that does, too
append_to_file("$dir/lsn-check", "#!/bin/sh\nASAN_OPTIONS='" . ($ENV{ASAN_OPTIONS} // '') . "' exec $examples/lsn-check \"\$@\"\n");
chmod 0755, "$dir/lsn-check";
$config =~ s{/usr/local/bin/lsn-check}{$dir/lsn-check} or die;
$config =~ s{external-check path "}{$&$ENV{PATH}:} or die;
append_to_file("$dir/haproxy.cfg", $config);

my $haproxy = IPC::Run::start([ 'haproxy', '-db', '-f', "$dir/haproxy.cfg" ], '>', "$dir/log", '2>&1');

# Who answers readers, of so many
sub servers
{
	my %servers;
	for (1 .. 8)
	{
		my ($out, $err);
		IPC::Run::run([ 'psql', '-XAtq', '-d', "host=127.0.0.1 port=$port dbname=postgres user=monitor", '-c', 'SHOW cluster_name' ], '>', \$out, '2>', \$err) or return 'nobody';
		chomp $out;
		$servers{$out} = 1;
	}
	return join ' ', sort keys %servers;
}

sub become
{
	my ($expected, $name) = @_;
	my $servers = '';
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	usleep(100_000) while ($servers = servers()) ne $expected && time < $until;
	is($servers, $expected, $name);
	return;
}

become('standby1 standby2', 'both standbys are read from');
pause($standbys[0]);
write_wal($primary);
become('standby2', 'one whose replay stands still is not');
pause($standbys[1]);
write_wal($primary);
become('primary', 'if both do, the primary is');
resume($_) foreach @standbys;
become('standby1 standby2', 'and the standbys again');
$primary->stop('immediate');
become('nobody', 'without the primary nobody knows how old the data is');
$primary->start;
become('standby1 standby2', 'until it is back');

$haproxy->kill_kill;
$_->stop foreach @standbys, $primary;
done_testing();
