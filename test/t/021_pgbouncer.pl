# A pool of standbys behind PgBouncer in transaction mode, which carries the token
# from one server connection to the next: clients that know nothing of tokens read
# monotonically, whichever standby they are given, and read what they have written.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

foreach my $program ('pgbouncer', 'PgBouncer 1.20')
{
	plan skip_all => "no $program" if lacks($program);
}

my $dir = PostgreSQL::Test::Utils::tempdir();
my $report = compile("$FindBin::RealBin/../clients/report.c");
my $primary = new_primary('primary', 'hot_standby_feedback = off', "lsn_tracker.default_timeout = '20s'", 'synchronous_commit = on');
my $clients = 6;
my $reads = 400;

$primary->safe_psql('postgres', 'CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); CREATE TABLE written (client int, n int)');

# Two standbys at the same port, since PgBouncer knows one for all hosts of a
# database; the second one lags.
my @standbys;
foreach my $lag ('0', '50ms')
{
	my $name = 'standby' . @standbys;
	my $node = PostgreSQL::Test::Cluster->new($name, @standbys ? (port => $standbys[0]->port) : ());
	my $sockets = PostgreSQL::Test::Utils::tempdir_short();

	$node->{_host} = $sockets;
	$primary->backup($name);
	$node->init_from_backup($primary, $name, has_streaming => 1);
	$node->append_conf('postgresql.conf', "unix_socket_directories = '$sockets'\ncluster_name = '$name'\nrecovery_min_apply_delay = '$lag'\nlsn_tracker.track_reads = on");
	$node->start;
	push @standbys, $node;
}

sub start_pools
{
	start_bouncer({
			primary => "host=${\$primary->host} port=${\$primary->port} pool_size=2",
			standbys => "host=${\join ',', map { $_->host } @standbys} port=${\$standbys[0]->port} pool_size=4" },
		'server_round_robin = 1', 'max_client_conn = 200', @_);
	return;
}

# Clients that read the counter again and again while it is counted up.  Returns how
# many reads went back in time, how many failed, and how often which standby was read.
sub read_all
{
	my (@runs, %servers);
	my ($back, $failed) = (0, 0);
	my $counting = IPC::Run::start([ 'pgbench', '-n', '-c', 1, '-T', 1000, '-R', 300, '-h', $primary->host, '-p', $primary->port, '-f', "$dir/count.sql", 'postgres' ],
		'>', \my $ignored, '2>&1');
	for my $i (1 .. $clients)
	{
		my %run;
		$run{run} = IPC::Run::start([ $report, pooled('standbys') ], '<', "$dir/reads.sql", '>', \$run{out}, '2>', \$run{err});
		push @runs, \%run;
	}
	foreach my $run (@runs)
	{
		$run->{run}->finish or die $run->{err};
		my $last = 0;
		my @lines = split /\n/, $run->{out};
		is(scalar @lines, $reads, 'every read is answered');
		foreach my $line (@lines)
		{
			my ($value, $sqlstate) = split /\|/, $line;
			my ($n, $server) = split / /, $value;
			$failed++, next if $sqlstate ne '';
			$back++ if $n < $last;
			$last = $n;
			$servers{$server}++;
		}
	}
	$counting->kill_kill;
	return ($back, $failed, \%servers);
}
append_to_file("$dir/count.sql", "UPDATE counter SET n = n + 1;\n");
append_to_file("$dir/reads.sql", "SELECT n || ' ' || current_setting('cluster_name') FROM counter\n" x $reads);

# What there is to prevent: without the token, clients go back in time.
start_pools();
my ($back, $failed, $servers) = read_all();
cmp_ok($back, '>', 0, "without the token: $back reads went back in time");
stop_bouncer();

start_pools('track_extra_parameters = lsn_tracker.token');
($back, $failed, $servers) = read_all();
is($back, 0, 'with it: none');
is($failed, 0, 'and none failed');
is(join(' ', sort keys %$servers), 'standby0 standby1', 'both standbys were read') or diag(explain($servers));
note("$_: $servers->{$_} reads") foreach sort keys %$servers;

# Who has something older than the server connection has shown another, and reads there, is
# told what he has read, although the server shows nothing new.
my $older = write_token($primary) =~ s/^\n//r;
write_wal($primary);
catch_up($primary, $_) foreach @standbys;
my $newer = report_client(pooled('standbys'));
foreach my $round (1 .. 5)
{
	my $client = report_client(pooled('standbys'));
	is((ask($client, "SET lsn_tracker.token = '$older'"))[2], $older, 'what it has');
	# on each connection
	ask($newer, 'SELECT n FROM counter') for 1 .. 8;
	isnt((ask($client, 'SELECT n FROM counter'))[2], $older, 'what it has read');
	$client->{run}->finish;
}
$newer->{run}->finish;

# A client that has nothing starts with nothing, whoever used the connection before.
my ($one, $two) = map { report_client(pooled('primary')) } 1 .. 2;
my $token = (ask($one, 'INSERT INTO written VALUES (1, 1)'))[2];
like($token, qr/\@1$/, 'a commit is reported to its client');
is((ask($two, 'SELECT 1'))[2], '', 'and not to another, who has none');
my @again = map { (ask($one, 'SELECT 1'))[2] } 1 .. 5;
is(join(' ', @again), join(' ', ($token) x 5), 'its client keeps it');

# Handed to a connection of the other pool once, it stays with that.
my $reader = report_client(pooled('standbys'));
is((ask($reader, "SET lsn_tracker.token = '$token'"))[1], '', 'set once');
my $missed = grep { (ask($reader, 'SELECT count(*) FROM written WHERE client = 1'))[0] ne '1' } 1 .. 50;
is($missed, 0, 'reads its write on each standby');

# A wait that times out is the client's own error, and its connection lives on.
is((ask($reader, 'SET lsn_tracker.token = \'FFFFFFFF/0@1\''))[1], '', 'what never comes');
is((ask($reader, 'BEGIN; SET LOCAL lsn_tracker.default_timeout = 50; SELECT 1; COMMIT'))[1], '55L01', 'times out');
is((ask($reader, 'ROLLBACK'))[1], '', 'the connection lives on');
is((ask($reader, 'SET lsn_tracker.token = \'\''))[1], '', 'forgotten');
is((ask($reader, 'SELECT count(*) FROM written'))[0], '1', 'and works');
my $other = report_client(pooled('standbys'));
is((ask($other, 'SELECT count(*) FROM written'))[0], '1', 'so do others of the pool');

# What one client waits for in vain, on whichever server connection, is no other's who is
# given that connection.
my $in_vain = 'BEGIN; SET LOCAL lsn_tracker.default_timeout = 1; SELECT 1; COMMIT';
my $count = 'BEGIN; SET LOCAL lsn_tracker.default_timeout = 200; SELECT count(*) FROM written; COMMIT';

sub aside
{
	my ($client, $sql) = @_;
	my @answer = ask($client, $sql);
	ask($client, 'ROLLBACK') if $answer[1] ne '';
	return join '|', @answer;
}
ask($other, "SET lsn_tracker.token = '$token'");
my @others;
foreach my $round (0 .. 20)
{
	my $sets = "SET lsn_tracker.token = 'FFFFFFFF/0\@1';" x ($round == 0);
	like(aside($reader, $in_vain =~ s/(?=SELECT)/$sets/r), qr/\|55L01\|/, 'in vain');
	push @others, aside($other, $count);
}
# which a read may move: the server writes WAL by itself now and then
my $own = qr/^1\|\|(?!FFFFFFFF)\S+\@1$/;
is(join(' ', grep { !/$own/ } @others), '', 'another client reads, and keeps its own');

# Nor has its client forgotten it behind a transaction that had its own.
is((ask($reader, "BEGIN; SET LOCAL lsn_tracker.token = '$token'; COMMIT"))[1], '', 'a transaction with its own');
like(aside($reader, $in_vain), qr/\|55L01\|/, 'and in vain again');

# If that was set, and has not been waited for there, the other is told once.
ask($reader, "SET lsn_tracker.token = 'FFFFFFFF/0\@1'");
@others = grep { !/$own/ } map { aside($other, $count) } 1 .. 20;
like(join(' ', @others), qr/^(?:\|55L01\|\S+)?\z/, 'not waited for yet');

$_->{run}->finish foreach $one, $two, $reader, $other;
stop_bouncer();

# What a failover has lost fails the reads of its client, and of nobody else who is given
# the server connection behind it, although its client had no read fail there.
my $kept = write_token($primary) =~ s/^\n//r;
catch_up($primary, $standbys[0]);
cut_off($standbys[0]);
my $lost = write_token($primary) =~ s/^\n//r;
$standbys[0]->promote;
my $new = write_token($standbys[0]) =~ s/^\n//r;
write_wal($standbys[0]);
start_bouncer({ new => "host=${\$standbys[0]->host} port=${\$standbys[0]->port} pool_size=1" }, 'track_extra_parameters = lsn_tracker.token');
my ($loser, $third) = map { report_client(pooled('new')) } 1 .. 2;
my $known = qr/^1\|\|\S+\@2\b/;
like(join('|', ask($third, 'SELECT 1')), $known, 'what it has read on the promoted standby');
foreach my $sql ("SET lsn_tracker.token = '$lost'", ';', "SELECT set_config('work_mem', '1MB', true)", 'BEGIN; ROLLBACK', 'SELECT 1', ';')
{
	my (undef, $state, $shown) = ask($loser, $sql);
	is("$state $shown", ($sql eq 'SELECT 1' ? '40000' : '') . " $lost", "lost: $sql");
	like(join('|', ask($third, 'SELECT 1')), $known, 'another client reads');
}

# Nor does what another has set, and not read, stand in front of it.
ask($third, "SET lsn_tracker.token = '$_'") foreach '', $new;
is(join('|', (ask($loser, ';'))[1, 2]), "|$lost", 'behind one that has set a newer, and not read: kept');
ask($third, ';');
is(join('|', (ask($loser, 'SELECT 1'))[1, 2]), "40000|$lost", 'and lost');

# Nor is one that has not been waited for taken for that of the next client, who has an older
# that is there; and he is told of what he has committed.
my $last = report_client(pooled('new'));
foreach my $sql (';', "SELECT set_config('work_mem', '1MB', true)", 'CREATE TABLE made (i int)')
{
	ask($third, "SET lsn_tracker.token = '$_'") foreach '', $kept;
	ask($loser, "SET lsn_tracker.token = '$_'") foreach '', $lost;
	my $told = (ask($third, $sql))[2];
	like($told, qr/\@2/, 'a commit is told') if $sql =~ /CREATE/;
	# a third one is given it as well
	ask($last, "SET lsn_tracker.token = ''");
	like(join('|', ask($third, 'SELECT 1')), $known, "another client reads, behind $sql");
}
ask($third, 'DROP TABLE made');
$_->{run}->finish foreach $loser, $third, $last;
stop_bouncer();
$_->stop foreach @standbys, $primary;
done_testing();
