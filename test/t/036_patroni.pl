# Three nodes run by Patroni, and HAProxy in front of them, with the examples in doc/, and
# PgBouncer in front of that: reads by a token and strong ones are right through a switchover
# and a failover, and readers are not given what is too old.

use strict;
use warnings;
use File::Basename;
use IO::Socket::UNIX;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

foreach my $program (qw(patroni etcd curl haproxy python))
{
	plan skip_all => "no $program" if lacks($program);
}

my $examples = "$FindBin::RealBin/../../doc/examples";
my $dir = PostgreSQL::Test::Utils::tempdir();
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
my ($postgres, $rest, $etcd, $etcd_peer, $write, $read) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 6;
my $patience = 2 * $PostgreSQL::Test::Utils::timeout_default;
my $bin = dirname(`which postgres`);
my %run;

# A program that runs until the end of the test, or until it is killed.  Its input is at its
# end: a session that waits for a synchronous standby when the postmaster dies goes on to read
# from there, and would keep the shared memory from the next server.
sub start
{
	my ($name, @command) = @_;
	$run{$name} = IPC::Run::start(\@command, '<', '/dev/null', '>>', "$dir/$name.log", '2>&1');
	return;
}

# as the examples say it, but for places
sub example
{
	my ($name, $as, @more) = @_;
	my $text = slurp_file("$examples/$name");

	foreach my $replacement (
		[ qr/10\.0\.0\.9/, '127.0.0.1' ], [ qr/10\.0\.0\.(?=\d)/, '127.0.0.' ], [ qr/\b5432\b/, $postgres ], [ qr/\b8008\b/, $rest ],
		[ qr/\b2379\b/, $etcd ], [ qr/\b5000\b/, $write ], [ qr/\b5001\b/, $read ], [ qr{/usr/local/bin/(?=lsn)}, "$dir/" ], @more)
	{
		my ($is, $becomes) = @$replacement;
		$text =~ s/$is/$becomes/g;
	}
	append_to_file("$dir/$as", $text);
	return;
}

start('etcd', 'etcd', '--data-dir', "$dir/etcd", '--listen-client-urls', "http://127.0.0.1:$etcd", '--advertise-client-urls', "http://127.0.0.1:$etcd",
	'--listen-peer-urls', "http://127.0.0.1:$etcd_peer", '--initial-advertise-peer-urls', "http://127.0.0.1:$etcd_peer",
	'--initial-cluster', "default=http://127.0.0.1:$etcd_peer");

my @nodes = (1 .. 3);
foreach my $node (@nodes)
{
	mkdir "$sockets/$node";
	example('patroni.yml', "node$node.yml", [ qr/name: node1/, "name: node$node" ], [ qr/127\.0\.0\.1:(?=$postgres|$rest)/, "127.0.0.$node:" ],
		[ qr{/var/lib/postgresql/shop}, "$dir/node$node" ], [ qr{/usr/lib/postgresql/15/bin}, $bin ], [ qr{/var/run/postgresql}, "$sockets/$node" ]);
}
sub start_node { my ($node) = @_; start("node$node", 'patroni', "$dir/node$node.yml"); return; }

# What Patroni says of a node, if anything
sub patroni
{
	my ($node, $path) = @_;
	return `curl -sf -m 5 http://127.0.0.$node:$rest/$path`;
}

# SQL on a server, or by HAProxy; undef if that fails
sub sql
{
	my ($host, $port, $sql) = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XAtq', '-d', "host=$host port=$port user=postgres dbname=postgres connect_timeout=5", '-c', $sql ], '>', \$out, '2>', \$err) or return;
	chomp $out;
	return $out;
}

sub await
{
	my ($what, $condition) = @_;
	my $until = time + $patience;

	until ($condition->())
	{
		if (time > $until)
		{
			diag(map { "$_: " . substr(slurp_file("$dir/$_.log"), -3000) } keys %run);
			die "in vain: $what";
		}
		usleep(200_000);
	}
	pass($what);
	return;
}

# The node that is the primary, with both others streaming from it, one of them
# synchronously, as Patroni knows: it would promote no other
sub primary
{
	foreach my $node (@nodes)
	{
		patroni($node, 'primary') or next;
		my $standbys = sql("127.0.0.$node", $postgres, "SELECT count(*) || ' ' || count(*) FILTER (WHERE sync_state = 'sync') FROM pg_stat_replication WHERE state = 'streaming'");
		return $node if defined $standbys && $standbys eq '2 1' && patroni($node, 'cluster') =~ /"sync_standby"/;
	}
	return 0;
}

# Which nodes HAProxy takes for standbys to read from
sub fresh
{
	my ($stats) = ('');
	my $socket = IO::Socket::UNIX->new(Peer => "$sockets/haproxy") or return '';

	print $socket "show stat\n";
	$stats .= $_ while <$socket>;
	return join ' ', $stats =~ /^standbys,node(\d),(?:[^,]*,){15}UP/mg;
}

# and whom readers are given
sub read_from
{
	my %servers;
	for (1 .. 10)
	{
		my $server = sql('127.0.0.1', $read, 'SELECT host(inet_server_addr())') // '-';
		$servers{ $server =~ s/.*\.//r } = 1;
	}
	return join ' ', sort keys %servers;
}

sub others { my ($node) = @_; return join ' ', grep { $_ != $node } @nodes; }

await('etcd is there', sub { `curl -sf -m 5 http://127.0.0.1:$etcd/health` =~ /true/ });
start_node($_) foreach @nodes;
await('a primary and two standbys', \&primary);
my $primary = primary();
sql("127.0.0.$primary", $postgres, 'CREATE EXTENSION lsn_tracker; CREATE ROLE monitor LOGIN; CREATE TABLE written (writer int, n bigint, PRIMARY KEY (writer, n))');

# HAProxy gives checks an environment of their own.  A busy machine is late with everything.
example('lsn-check-patroni', 'lsn-check-patroni');
example('lsn-check', 'lsn-check', [ qr/500 ms/, '5 s' ], [ qr/connect_timeout=2/, 'connect_timeout=20' ],
	[ qr/^answer=/m, "export ASAN_OPTIONS='" . ($ENV{ASAN_OPTIONS} // '') . "'\nanswer=" ]);
chmod 0755, "$dir/lsn-check", "$dir/lsn-check-patroni";
example('patroni-haproxy.cfg', 'haproxy.cfg', [ qr{external-check path "}, "external-check path \"$ENV{PATH}:" ],
	[ qr/timeout check 4s/, 'timeout check 30s' ], [ qr/check inter 2s/, 'check inter 10s' ], [ qr{^global\n}m, "global\n\tstats socket $sockets/haproxy\n" ]);
start('haproxy', 'haproxy', '-db', '-f', "$dir/haproxy.cfg");
await('both standbys are fresh', sub { fresh() eq others($primary) });
await('readers are given them', sub { read_from() eq others($primary) });
await('and writers the primary', sub { (sql('127.0.0.1', $write, 'SELECT host(inet_server_addr())') // '') eq "127.0.0.$primary" });

# Somebody writes and reads, all the time.  Strong reads, by a setting of the session, come by
# HAProxy itself; writes and reads by a token have PgBouncer in between, so that each statement
# may be on another server than the last.
my ($writers, $strong) = map { "host=127.0.0.1 port=$_ user=postgres dbname=postgres" } $write, $read;
my $token = $strong;
if (!grep { lacks($_) } 'pgbouncer', 'PgBouncer 1.20')
{
	start_bouncer({ map { $_->[0] => "host=127.0.0.1 port=$_->[1] user=postgres pool_size=4" } [ write => $write ], [ read => $read ] },
		'track_extra_parameters = lsn_tracker.token', 'server_round_robin = 1', 'server_login_retry = 1', 'server_lifetime = 5');
	($writers, $token) = map { pooled($_) =~ s{^postgresql:///(\w+)\?}{dbname=$1 }r =~ tr/&/ /r } qw(write read);
}
my %load = (in => '', out => '', err => '');
# its four strong readers are given the first of these, those with tokens the last
$load{run} = IPC::Run::start([ $ENV{PYTHON}, "$FindBin::RealBin/../clients/failover.py", $writers, ($strong) x 4, ($token) x 4 ],
	'<', \$load{in}, '>', \$load{out}, '2>', \$load{err});

sub so_far
{
	my %so_far;
	$load{out} = '';
	$load{in} .= "\n";
	$load{run}->pump until $load{out} =~ /\n/;
	$so_far{$1} = $2 while $load{out} =~ /(\w+)=(\d+)/g;
	return %so_far;
}

# until there are more of each
sub goes_on
{
	my ($when) = @_;
	my %before = so_far();
	await("writes and reads go on $when", sub { my %now = so_far(); !grep { $now{$_} < $before{$_} + 50 } qw(writes strong token) });
	return;
}
goes_on('at first');

# A standby that does not keep up.  Its startup process stands still: a pause of replay Patroni
# would end by itself.
my @stopped;
sub stop_replay
{
	my ($node) = @_;
	my $startup = sql("127.0.0.$node", $postgres, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");

	kill 'STOP', $startup or die "no startup process on node $node";
	push @stopped, $startup;
	return;
}
my ($slow, $other) = split / /, others($primary);
stop_replay($slow);
await('a standby whose replay stands still is not fresh', sub { fresh() eq $other });
await('readers are given the other one', sub { read_from() eq $other });
goes_on('there');
stop_replay($other);
await('none is fresh', sub { fresh() eq '' });
await('readers are given the primary', sub { read_from() eq $primary });
goes_on('there');
kill 'CONT', splice @stopped;
await('they are again', sub { fresh() eq others($primary) });

# One that Patroni keeps from readers
my $tagged = slurp_file("$dir/node$slow.yml") =~ s/noloadbalance: false/noloadbalance: true/r;
unlink "$dir/node$slow.yml";
append_to_file("$dir/node$slow.yml", $tagged);
$run{"node$slow"}->signal('HUP');
await('a standby with the tag noloadbalance is not read from', sub { fresh() eq $other });
unlink "$dir/node$slow.yml";
append_to_file("$dir/node$slow.yml", $tagged =~ s/noloadbalance: true/noloadbalance: false/r);
$run{"node$slow"}->signal('HUP');
await('without it, it is', sub { fresh() eq others($primary) });

# The primary is given to another node, in good order.
system_or_bail('patronictl', '-c', "$dir/node1.yml", 'switchover', '--force');
await('a switchover', sub { my $now = primary(); $now && $now != $primary });
$primary = primary();
goes_on('after the switchover');
await('the new standbys are fresh', sub { fresh() eq others($primary) });

# The primary's machine fails.
my $dead = $primary;
my ($postmaster) = slurp_file("$dir/node$dead/postmaster.pid") =~ /^(\d+)/;
$run{"node$dead"}->signal("KILL");
kill 'KILL', $postmaster;
await('a failover', sub { grep { $_ != $dead && patroni($_, 'primary') } @nodes });
goes_on('after the failover');
start_node($dead);
await('the dead one is back, as a standby', sub { my $now = primary(); $now && $now != $dead });
$primary = primary();
await('and fresh', sub { fresh() eq others($primary) });
goes_on('at last');

$load{out} = '';
$load{run}->finish;
like($load{out}, qr/wrong=0\n\z/, 'no read was wrong: ' . ($load{out} =~ s/\n//gr)) or diag($load{err});
is($load{err}, '', 'and none was lost');
foreach my $node (@nodes)
{
	is(sql("127.0.0.$node", $postgres, "SET lsn_tracker.max_staleness = 0; SELECT count(*) FROM written"), sql('127.0.0.1', $write, 'SELECT count(*) FROM written'),
		"node $node has all there is");
}

END
{
	my $status = $?;

	# Patroni stops its server when it ends
	kill 'CONT', @stopped;
	foreach my $name (grep { exists $run{$_} } map({ "node$_" } 1 .. 3), 'haproxy', 'etcd')
	{
		$run{$name}->signal('TERM');
		eval { $run{$name}->finish };
	}
	$? = $status;
}
done_testing();
