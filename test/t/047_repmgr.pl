# Three nodes run by repmgr, with the examples in doc/; clients find the primary and the
# standbys by libpq's target_session_attrs.  Reads by a token and strong ones are right through a
# switchover and a failover; of a write that the failover lost, all nodes say so.

use strict;
use warnings;
use File::Basename;
use File::stat;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

# its programs come with its library
foreach my $what (qw(repmgr.so python))
{
	plan skip_all => "no $what" if lacks($what);
}

my $examples = "$FindBin::RealBin/../../doc/examples";
my $dir = PostgreSQL::Test::Utils::tempdir();
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $patience = 2 * $PostgreSQL::Test::Utils::timeout_default;
my $logs = "$PostgreSQL::Test::Utils::log_path/047_repmgr";
my $bin = dirname(`which postgres`);
my $began = int time;
my @nodes = (1 .. 3);
my (%daemon, @stopped);

sub others { my ($node) = @_; return grep { $_ != $node } @nodes; }

sub script
{
	my ($name, $text) = @_;
	append_to_file("$dir/$name", $text);
	chmod 0755, "$dir/$name";
	return;
}

# What systemctl is to the example.  What differs between nodes is on the command line: a clone
# or a rewound node has the configuration of another.
script('ctl', <<SH);
#!/bin/sh
exec pg_ctl -D "$dir/node\$1" -l "${logs}_node\$1.log" -w -t $patience -m fast -o "-c listen_addresses=127.0.0.\$1 -c port=$port -c unix_socket_directories=$sockets/\$1 -c cluster_name=node\$1" "\$2"
SH

# A switchover runs repmgr on the other nodes by ssh; here they are all on this machine.
mkdir "$dir/bin";
script('bin/ssh', <<'SH');
#!/bin/sh
while getopts o:q option; do :; done
shift "$OPTIND"
exec sh -c "$*"
SH
$ENV{PATH} = "$dir/bin:$ENV{PATH}";

# as the example says it, but for places
foreach my $node (@nodes)
{
	my $text = slurp_file("$examples/repmgr.conf");

	foreach my $replacement (
		[ qr/node_id = 1/, "node_id = $node" ], [ qr/node1/, "node$node" ], [ qr/10\.0\.0\.1/, "127.0.0.$node" ], [ qr/\b5432\b/, $port ],
		[ qr{/var/lib/postgresql/15/main}, "$dir/node$node" ], [ qr{/usr/lib/postgresql/15/bin}, $bin ], [ qr{/usr/bin/repmgr}, "$bin/repmgr" ],
		[ qr{/etc/repmgr\.conf}, "$dir/repmgr$node.conf" ], [ qr/sudo systemctl (\w+) postgresql\@15-main/, "$dir/ctl $node " ])
	{
		my ($is, $becomes) = @$replacement;
		$text =~ s{$is}{$becomes . ($1 // '')}ge or die "nothing like $is in the example";
	}
	append_to_file("$dir/repmgr$node.conf", $text);
	mkdir "$sockets/$node";
}

sub conninfo
{
	my ($hosts, @more) = @_;
	return join ' ', 'host=' . join(',', map { "127.0.0.$_" } @$hosts), "port=$port user=postgres connect_timeout=5", @more;
}

# SQL, each statement a transaction of its own, in one session; start_sql() does not await
# the end.  finish_sql() returns what there is to read, or the SQLSTATE.
sub start_sql
{
	my ($conninfo, @sql) = @_;
	my %session = (out => '', err => '');

	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=sqlstate', '-d', $conninfo, map { ('-c', $_) } @sql ],
		'<', '/dev/null', '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

sub finish_sql
{
	my ($session) = @_;

	$session->{run}->finish;
	return $session->{err} =~ /ERROR:  (\w{5})/ ? $1 : $session->{err} || $session->{out} =~ s/\n\z//r;
}

sub sql
{
	my ($node, @sql) = @_;
	# a busy machine is late with everything
	return finish_sql(start_sql(conninfo([$node], "dbname=postgres options='-c lsn_tracker.default_timeout=${patience}s'"), @sql));
}

# repmgr itself, on a node
sub repmgr
{
	my ($node, @command) = @_;

	IPC::Run::run([ "$bin/repmgr", '-f', "$dir/repmgr$node.conf", @command ], '<', '/dev/null', '>>', "${logs}_repmgr$node.log", '2>&1') and return;
	logs();
	die "repmgr @command on node $node failed";
}

sub start_daemon
{
	my ($node) = @_;
	$daemon{$node} = IPC::Run::start([ "$bin/repmgrd", '-f', "$dir/repmgr$node.conf", '--daemonize=false', '--no-pid-file' ],
		'<', '/dev/null', '>>', "${logs}_repmgrd$node.log", '2>&1');
	return;
}

sub logs
{
	diag(map { "$_: " . substr(slurp_file($_), -3000) } glob "${logs}_*.log");
	return;
}

sub await
{
	my ($what, $condition) = @_;
	my $until = time + $patience;

	until ($condition->())
	{
		if (time > $until)
		{
			logs();
			die "in vain: $what";
		}
		usleep(200_000);
	}
	pass($what);
	return;
}

sub streaming_from
{
	my ($node) = @_;
	return sql($node, "SELECT string_agg(application_name, ' ' ORDER BY application_name) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'");
}

# The node that is the primary, with both others streaming from it, and repmgrd there looking
# at it and ready to act
sub primary
{
	foreach my $node (@nodes)
	{
		sql($node, 'SELECT pg_is_in_recovery()') eq 'f' or next;
		next if streaming_from($node) ne join ' ', map { "node$_" } others($node);
		return $node if 2 == grep {
			finish_sql(start_sql(conninfo([$_], 'dbname=repmgr'), "SELECT repmgr.get_upstream_node_id() = $node AND repmgr.get_upstream_last_seen() BETWEEN 0 AND 3 AND NOT repmgr.repmgrd_is_paused()")) eq 't'
		} others($node);
	}
	return 0;
}

# Set up the primary.  Nobody waits for standbys that are not there yet; repmgr itself never does.
system_or_bail('initdb', '-D', "$dir/node1", '-U', 'postgres', '-A', 'trust', '--no-sync');
append_to_file("$dir/node1/postgresql.conf", slurp_file("$examples/repmgr-postgresql.conf"));
append_to_file("$dir/node1/pg_hba.conf", "host all,replication all 127.0.0.0/8 trust\n");
system_or_bail("$dir/ctl", 1, 'start');
is(finish_sql(start_sql(conninfo([1], "dbname=postgres options='-c synchronous_commit=local'"), 'CREATE ROLE repmgr SUPERUSER LOGIN', 'CREATE DATABASE repmgr OWNER repmgr')), '', 'a primary');
repmgr(1, qw(primary register));

# and the standbys
foreach my $node (2, 3)
{
	repmgr($node, qw(-h 127.0.0.1 -U repmgr -d repmgr -p), $port, qw(standby clone --fast-checkpoint));
	system_or_bail("$dir/ctl", $node, 'start');
	await("node $node streams", sub { streaming_from(1) =~ /node$node/ });
	repmgr($node, qw(standby register));
}
start_daemon($_) foreach @nodes;
await('a primary and two standbys', \&primary);
my $primary = primary();
is(sql($primary, 'CREATE EXTENSION lsn_tracker', 'CREATE TABLE written (writer int, n bigint, PRIMARY KEY (writer, n))', 'CREATE TABLE marks (mark text)'), '', 'the extension');

# Whom clients are given
sub writers { return conninfo(\@nodes, 'dbname=postgres target_session_attrs=primary'); }
sub readers { return map { conninfo([ $_, others($_) ], 'dbname=postgres target_session_attrs=prefer-standby') } @nodes; }

sub given
{
	my %servers = map { finish_sql(start_sql($_, "SELECT replace(current_setting('cluster_name'), 'node', '')")) => 1 } @_;
	return join ' ', sort keys %servers;
}

# Somebody writes and reads, all the time.
my %load = (in => '', out => '', err => '');
$load{run} = IPC::Run::start([ $ENV{PYTHON}, "$FindBin::RealBin/../clients/failover.py", writers(), readers() ], '<', \$load{in}, '>', \$load{out}, '2>', \$load{err});

# until there are more of each
sub so_far
{
	my %so_far;
	$load{out} = '';
	$load{in} .= "\n";
	$load{run}->pump until $load{out} =~ /\n/;
	$so_far{$1} = $2 while $load{out} =~ /(\w+)=(\d+)/g;
	return %so_far;
}

sub goes_on
{
	my ($when, @standbys) = @_;
	my %before = so_far();
	await("writes and reads go on $when", sub { my %now = so_far(); !grep { $now{$_} < $before{$_} + 50 } qw(writes strong token) });
	is(given(writers()), $primary, 'writers are given the primary');
	is(given(readers()), join(' ', @standbys), 'readers the standbys');
	return;
}

# A write of which all nodes will be asked; returns its token.
sub mark
{
	my ($mark, @settings) = @_;
	return sql($primary, @settings, "INSERT INTO marks VALUES ('$mark')", 'SELECT lsn_last_commit()');
}
sub see { my ($mark) = @_; return "SELECT count(*) FROM marks WHERE mark = '$mark'"; }
sub by_token { my ($token) = @_; return "SET lsn_tracker.token = '$token'"; }

# what was written before, and is everywhere
my %tokens;
sub tokens_are_good
{
	my ($when, @where) = @_;

	foreach my $node (@where)
	{
		is(join(' ', map { sql($node, by_token($tokens{$_}), see($_)) } sort keys %tokens), join(' ', map { 1 } keys %tokens), "$when node $node has what tokens tell: " . join(', ', sort keys %tokens));
	}
	return;
}
$tokens{'at first'} = mark('at first');
goes_on('at first', others($primary));
tokens_are_good('at first', @nodes);

# A standby that does not replay: who reads there waits.
my ($slow) = others($primary);
sql($slow, 'SELECT pg_wal_replay_pause()');
await('replay is paused', sub { sql($slow, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' });
$tokens{'in a pause'} = mark('in a pause');
is(sql($slow, see('in a pause')), 0, 'a plain read there is stale');
my @waiting = map { start_sql(conninfo([$slow], 'dbname=postgres application_name=waiting'), 'SET lsn_tracker.default_timeout = 0', $_, see('in a pause')) }
  by_token($tokens{'in a pause'}), 'SET lsn_tracker.max_staleness = 0';
sub waiting { my ($node) = @_; return sql($node, "SELECT count(*) FROM lsn_waiters() JOIN pg_stat_activity USING (pid) WHERE application_name = 'waiting'"); }
await('by a token and a strong one wait', sub { waiting($slow) == 2 });
sql($slow, 'SELECT pg_wal_replay_resume()');
is(join(' ', map { finish_sql($_) } @waiting), '1 1', 'and are right when it is resumed');

# The primary is given to another node, in good order.
my ($next) = others($primary);
repmgr($next, qw(standby switchover --siblings-follow));
await('a switchover', sub { primary() == $next });
$primary = $next;
goes_on('after the switchover', others($primary));
$tokens{'after the switchover'} = mark('after the switchover');
tokens_are_good('after the switchover', @nodes);

# The primary's machine fails, and takes a write with it which had not been sent to anybody
# yet, and whose client had not wanted to wait for that.
sub is_stopped { my ($pid) = @_; return slurp_file("/proc/$pid/status") =~ /^State:\s+T/m; }
my ($postmaster) = slurp_file("$dir/node$primary/postmaster.pid") =~ /^(\d+)/;
push @stopped, split /\n/, sql($primary, "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'");
kill 'STOP', @stopped;
await('nothing is sent any more', sub { 2 == grep { is_stopped($_) } @stopped });
my $lost = mark('lost', 'SET synchronous_commit = local');
my ($lost_lsn) = $lost =~ /(.*)@/;
is(sql($primary, by_token($lost), see('lost')), 1, 'a write that no standby has got');
@waiting = map { start_sql(conninfo([$_], 'dbname=postgres application_name=waiting'), "SELECT lsn_wait('$lost', 0)") } others($primary);
await('it is waited for', sub { !grep { waiting($_) != 1 } others($primary) });
my @children = map { m!(\d+)! } grep { (eval { slurp_file($_) } // '') =~ /^PPid:\s+$postmaster$/m } glob '/proc/[0-9]*/status';
kill 'KILL', $postmaster, splice @stopped;

my $dead = $primary;
await('a failover', sub { ($primary) = grep { sql($_, 'SELECT pg_is_in_recovery()') eq 'f' } others($dead); $primary });
my ($follower) = grep { $_ != $primary } others($dead);
await('the other standby follows', sub { streaming_from($primary) eq "node$follower" });
my %answer = map { $_ => finish_sql(shift @waiting) } others($dead);
# where it was waited for when recovery ended, that is what is said (doc/operating.md)
like($answer{$primary}, qr/^(?:55000|40000)$/, 'who waited for the lost write on the new primary is told');
is($answer{$follower}, '40000', 'and on the other');

# not for the position is it lost: that is reached
await('the position of the lost write is written over', sub { sql($primary, "SELECT pg_logical_emit_message(true, '', repeat('x', 100000))", "SELECT pg_current_wal_insert_lsn() > '$lost_lsn'") =~ /\nt\z/ });
$tokens{'after the failover'} = mark('after the failover');
goes_on('after the failover', $follower);
sub is_lost
{
	my (@where) = @_;

	foreach my $node (@where)
	{
		is(sql($node, by_token($lost), see('lost')), '40000', "node $node says that the write is lost");
		is(sql($node, "SELECT lsn_wait('$lost', 0)"), '40000', 'to who waits for it, too');
		is(sql($node, "SELECT lsn_replicated('$lost')"), '40000', 'or asks');
		is(sql($node, 'SET lsn_tracker.max_staleness = 0', see('lost')), 0, 'and it is');
	}
	return;
}
tokens_are_good('after the failover', $primary, $follower);
is_lost($primary, $follower);

# The dead one is rewound, and comes back as a standby, once nothing of the old server runs.
# pg_rewind before 16 learns of the new timeline by a checkpoint.
await('the old primary has ended', sub { !grep { -e "/proc/$_" } @children });
sql($primary, 'CHECKPOINT');
repmgr($dead, '-d', conninfo([$primary], 'dbname=repmgr') =~ s/postgres/repmgr/r, qw(node rejoin --force-rewind));
await('the dead one is back, as a standby', sub { primary() == $primary });
goes_on('at last', others($primary));
tokens_are_good('at last', @nodes);
is_lost($dead);

$load{out} = '';
$load{run}->finish;
like($load{out}, qr/wrong=0\n\z/, 'no read was wrong: ' . ($load{out} =~ s/\n//gr)) or diag($load{err});
is($load{err}, '', 'and none was lost');
foreach my $node (@nodes)
{
	is(sql($node, 'SET lsn_tracker.max_staleness = 0', 'SELECT count(*) FROM written'), sql($primary, 'SELECT count(*) FROM written'), "node $node has all there is");
}

END
{
	my $status = $?;

	kill 'CONT', @stopped;
	foreach my $run (values %daemon)
	{
		$run->signal('TERM');
		eval { $run->finish };
	}
	foreach my $node (grep { -e "$dir/node$_/postmaster.pid" } $dir ? @nodes : ())
	{
		system 'pg_ctl', '-D', "$dir/node$node", '-m', 'immediate', 'stop';
	}
	# repmgr's log of a switchover has no other place
	unlink grep { -O $_ && stat($_)->mtime >= $began } glob '/tmp/node-rejoin.*.log' if $dir;
	$? = $status;
}
done_testing();
