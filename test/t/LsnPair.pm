# What the TAP tests share: a primary with a standby, sessions that wait, PgBouncer,
# and ways to see what the tracker holds.

package LsnPair;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use IPC::Run;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(lacks not_tested new_primary add_standby new_pair slow_pair slow_down write_messages insert_lsn write_wal write_token write_clean_up await_conflict catch_up cut_off follow have_ask pause resume sqlstate compile future_lsn reach
  start_wait finish_wait await_waiters waiting_pid worker_pid link_worker stop_link session
  uri start_bouncer stop_bouncer pooled report_client ask start_asking answer many patience restart_by_crash);

# What a test dies of goes to its log only; test/check says it at its end.
INIT
{
	# newer servers' modules have one
	my $next = $SIG{__DIE__};

	$SIG{__DIE__} = sub {
		append_to_file("$ENV{TESTDIR}/died", "  $FindBin::Script: $_[0]") if defined $^S && !$^S;
		$next->(@_) if $next;
	};
}

# What test/check says at its end that a test has not tested, and why
sub not_tested
{
	my ($why) = @_;

	append_to_file("$ENV{TESTDIR}/not_tested", "  $FindBin::Script: $why\n");
	return;
}

# Is this not here, which a test takes: a program, a library of the server's (.so), python with
# its drivers, node with its, a PgBouncer that carries tokens?
sub lacks
{
	my ($what) = @_;
	my $here =
	    $what eq 'python' ? $ENV{PYTHON}
	  : $what eq 'node' ? $ENV{NODE_PATH}
	  : $what eq 'PgBouncer 1.20' ? `pgbouncer --version 2>&1` =~ /PgBouncer 1\.(\d+)/ && $1 >= 20
	  : $what =~ /\.so$/ ? -e (`pg_config --pkglibdir` =~ s/\n//r) . "/$what"
	  : grep { -x "$_/$what" } split /:/, $ENV{PATH};

	# a Debian has the PgBouncer of its own time
	my $why = (grep { $what eq $_ } $ENV{NOT_PACKAGED} // (), 'PgBouncer 1.20') ? ', of which Debian has no package for this server' : '';
	not_tested("no $what$why") if !$here;
	return !$here;
}

# A server with assertions and sanitizers, which takes several times as long
my $is_debug = `pg_config --configure` =~ /--enable-cassert/;

# How many of so many tries, where more of them only make it likelier that a fault is met
sub many
{
	my ($n) = @_;
	return $is_debug ? int($n * 0.4) : $n;
}

# How many times as long as on a machine of its own may something take here, with what runs
# beside it?
sub patience
{
	my ($load) = split / /, slurp_file('/proc/loadavg');
	return max(1, $load / `nproc`) * ($is_debug ? 4 : 1);
}

# What initdb is told, for the primaries to come
our @initdb_options;

# Start a primary with the extension.  Further arguments: configuration lines.
sub new_primary
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1, extra => \@initdb_options);
	# a standby keeps up with what it gets, however busy the machine is; and gets it, whatever
	# checkpoint comes (of a backup, say) while it is behind
	$node->append_conf('postgresql.conf', <<CONF);
shared_preload_libraries = 'lsn_tracker'
max_connections = 400
autovacuum = off
wal_keep_size = 1GB
wal_receiver_status_interval = 1
wal_retrieve_retry_interval = 100ms
@{[ join "\n", @conf ]}
CONF
	$node->start;
	$node->safe_psql('postgres',
		'CREATE EXTENSION lsn_tracker; CREATE TABLE t (i int)');
	return $node;
}

# Start a standby of a server (which may be a standby itself).
sub add_standby
{
	my ($upstream, $name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $backup = "for_$name";

	$upstream->backup($backup);
	$node->init_from_backup($upstream, $backup, has_streaming => 1);
	$node->append_conf('postgresql.conf', join("\n", @conf, ''));
	$node->start;
	return $node;
}

# Both; returns them once the standby knows the extension.
sub new_pair
{
	my ($name, @conf) = @_;
	my $primary = new_primary("${name}_primary", @conf);
	my $standby = add_standby($primary, "${name}_standby");

	catch_up($primary, $standby);
	return ($primary, $standby);
}

# The same, with a standby that can be told to replay slowly (other/slow_replay.c).
# Further arguments: configuration lines.
sub slow_pair
{
	my ($name, @conf) = @_;
	my $library = PostgreSQL::Test::Utils::tempdir() . '/slow_replay.so';
	my $log = `$ENV{MODULE_CC} -o '$library' '$FindBin::RealBin/../other/slow_replay.c' 2>&1`;

	die "could not compile slow_replay.c: $log" if $?;
	return new_pair($name, "shared_preload_libraries = 'lsn_tracker, $library'", 'max_wal_size = 8GB', 'wal_keep_size = 2GB', @conf);
}

# How long it naps before each record, in microseconds; returns once sessions know.
sub slow_down
{
	my ($node, $nap) = @_;

	$node->append_conf('postgresql.conf', "slow_replay.nap = $nap");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('slow_replay.nap') = '$nap'")
	  or die 'no reload';
	return;
}

# Write so many records of 8 kB, which cost nothing to replay; returns a position behind.
sub write_messages
{
	my ($node, $n) = @_;
	$node->safe_psql('postgres',
		"SELECT count(pg_logical_emit_message(false, '', repeat('x', 8000))) FROM generate_series(1, $n)");
	return write_wal($node);
}

sub insert_lsn
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
}

# Commit something; returns a position that covers it.
sub write_wal
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		'INSERT INTO t VALUES (1); SELECT pg_current_wal_insert_lsn()');
}

# Commit something; returns the commit's token.
sub write_token
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		"INSERT INTO t VALUES (1);\nSELECT lsn_last_commit()");
}

# WAL that removes row versions which a snapshot taken before it still needs, of
# a table of which every row was updated; returns a position behind it.
sub write_clean_up
{
	my ($node, $table) = @_;
	$node->safe_psql('postgres', "UPDATE $table SET i = i + 1");
	$node->safe_psql('postgres', "VACUUM $table");
	return write_wal($node);
}

# Wait until replay stands and waits for a session: for its snapshot, or with
# 'relation' for its lock.
sub await_conflict
{
	my ($node, $what) = @_;
	$what //= 'RecoveryConflictSnapshot';
	becomes_true($node,
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = '$what'")
	  or die "replay did not come to wait for: $what";
	return;
}

# Take a standby's WAL source away; returns once it has gone.
sub cut_off
{
	my ($node) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = ''");
	$node->reload;
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver')
	  or die 'the WAL receiver did not stop';
	return;
}

# Have a standby stream from another server from now on.
sub follow
{
	my ($node, $upstream) = @_;
	return set_conninfo($node, 'primary_conninfo', $upstream->connstr);
}

# Have it ask another one, whatever it replays; undef: as it streams.
sub have_ask
{
	my ($node, $upstream) = @_;
	return set_conninfo($node, 'lsn_tracker.primary_conninfo', $upstream ? $upstream->connstr('postgres') : '');
}

sub set_conninfo
{
	my ($node, $setting, $conninfo) = @_;

	$conninfo =~ s/'/''/g;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = '$conninfo'");
	$node->reload;
	return;
}

# Kill a process of a server that then starts again by itself; returns once it has.
sub restart_by_crash
{
	my ($node, $pid) = @_;
	my $startup = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");

	kill 'KILL', $pid;
	# It takes a moment to notice.  poll_query_until would die with a psql that has been
	# refused before it was given its query.
	becomes_true($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'startup' AND pid <> $startup")
	  or die 'no restart';
	return;
}

# Pause and resume replay.
sub pause
{
	my ($node) = @_;
	$node->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	becomes_true($node, "SELECT pg_get_wal_replay_pause_state() = 'paused'")
	  or die 'replay was not paused';
	return;
}

sub resume
{
	my ($node) = @_;

	# done, even if what is replayed next cancels the statement
	$node->psql('postgres', 'SELECT pg_wal_replay_resume()');
	becomes_true($node, "SELECT pg_get_wal_replay_pause_state() = 'not paused'")
	  or die 'replay was not resumed';
	return;
}

# Compile a C client that uses libpq; returns the program.
sub compile
{
	my ($source) = @_;
	my $program = PostgreSQL::Test::Utils::tempdir() . '/client';
	my $log = `$ENV{CLIENT_CC} -o '$program' '$source' $ENV{CLIENT_LIBS} 2>&1`;

	die "could not compile $source: $log" if $?;
	return $program;
}

# Run SQL that fails; returns its SQLSTATE and message, '' if it did not fail.
sub sqlstate
{
	my ($node, $sql) = @_;
	my ($ret, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);
	return $err =~ /(?:ERROR|FATAL):  (\w{5}: .*)/ ? $1 : '';
}

# Wait, without the extension, until the standby has replayed everything.  By a
# write of its own: behind a segment switch the insert position is one that no
# standby reports.
sub catch_up
{
	my ($primary, $standby) = @_;
	my $lsn = write_wal($primary);

	becomes_true($standby, "SELECT pg_last_wal_replay_lsn() >= '$lsn'")
	  or die "the standby did not catch up";
	return;
}

# A position beyond anything written so far, and so far off that what a server
# writes by itself (checkpoints, running transactions) does not reach it.
sub future_lsn
{
	my ($node, $distance) = @_;
	$distance //= 20000;
	return $node->safe_psql('postgres',
		"SELECT pg_current_wal_insert_lsn() + $distance");
}

# Commit a row, and then write WAL up to there: whoever waits for that position
# finds the row.
sub reach
{
	my ($node, $lsn) = @_;
	$node->safe_psql('postgres', <<SQL);
INSERT INTO t VALUES (1);
SELECT pg_logical_emit_message(true, '', repeat('x', greatest(0, '$lsn' - pg_current_wal_insert_lsn())::int));
SQL
	return;
}

# A psql session that survives errors.
sub session
{
	my ($node, %opt) = @_;
	return $node->background_psql('postgres', on_error_stop => 0, %opt);
}

# Send SQL to a session without awaiting its answer; it has as long for that as any
# session for its first.
sub start_wait
{
	my ($session, $sql) = @_;
	$session->{timeout}->start;
	$session->{stdin} .= "$sql;\n\\echo <done>\n\\warn <done>\n";
	$session->{run}->pump_nb;
	return $session;
}

# Await the answer to start_wait(); returns stdout and stderr, trimmed.
sub finish_wait
{
	my ($session) = @_;
	my @result;

	$session->{run}->pump
	  until $session->{stdout} =~ /<done>\n/ && $session->{stderr} =~ /<done>\n/;
	foreach my $stream (qw(stdout stderr))
	{
		my $text = $session->{$stream};
		$text =~ s/<done>\n//;
		$text =~ s/\s+\z//;
		$session->{$stream} = '';
		push @result, $text;
	}
	return wantarray ? @result : $result[0];
}

# Sessions that ask servers again and again, by the server's name: a psql each time is
# half of what a test costs.
my %asking;

# Ask until the answer is true; returns whether it came to that.
sub becomes_true
{
	my ($node, $sql) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;
	my $name = $node->name;

	while (time < $until)
	{
		# a server that has been started again, or is about to start, has lost it
		my $answer = eval { finish_wait(start_wait($asking{$name} //= session($node), $sql)) };
		return 1 if ($answer // '') eq 't';
		delete $asking{$name} unless defined $answer;
		usleep(defined $answer ? 10000 : 100000);
	}
	return 0;
}

# Wait until so many sessions are in the queue, no fewer and no more.
sub await_waiters
{
	my ($node, $n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	becomes_true($node, "SELECT count(*) = $n FROM lsn_waiters()")
	  or die "there never were $n waiters";
	return;
}

# The one session that waits
sub waiting_pid
{
	my ($node) = @_;
	await_waiters($node, 1);
	return $node->safe_psql('postgres', 'SELECT pid FROM lsn_waiters()');
}

sub worker_pid
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'lsn_tracker'");
}

# The worker that asks the primary, a child of the postmaster; it is not in pg_stat_activity
sub link_worker
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	foreach my $dir (glob '/proc/[0-9]*')
	{
		# which may have ended
		my ($status, $title) = map { my $file = "$dir/$_"; eval { slurp_file($file) } // '' } qw(status cmdline);

		return $dir =~ s!/proc/!!r if $title =~ /lsn_tracker link/ && $status =~ /^PPid:\s+$postmaster$/m;
	}
	die 'there is no worker';
}

# Stop it while it sleeps: whatever is asked is not answered, until it is told to go on.
sub stop_link
{
	my ($node) = @_;
	my $pid = link_worker($node);

	kill 'STOP', $pid;
	select undef, undef, undef, 0.001 until slurp_file("/proc/$pid/status") =~ /^State:\s+T/m;
	return $pid;
}

# What any client can connect with
sub uri
{
	my ($host, $port, $dbname) = @_;
	return "postgresql:///$dbname?host=$host&port=$port&user=" . getpwuid($>);
}

# The one PgBouncer that runs, in transaction mode
my %bouncer;

# Start it.  Arguments: for each database's name, to which servers its connections go,
# as PgBouncer wants it said; settings, a line each.
sub start_bouncer
{
	my ($databases, @settings) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $user = getpwuid($>);
	my $any = (sort keys %$databases)[0];

	%bouncer = (dir => $dir, port => PostgreSQL::Test::Cluster::get_free_port(), log => "$PostgreSQL::Test::Utils::log_path/$FindBin::Script.pgbouncer");
	append_to_file("$dir/pgbouncer.ini", <<INI);
[databases]
@{[ join "\n", map { "$_ = dbname=postgres user=$user $databases->{$_}" } sort keys %$databases ]}
[pgbouncer]
listen_addr =
listen_port = $bouncer{port}
unix_socket_dir = $dir
auth_type = any
pool_mode = transaction
@{[ join "\n", @settings ]}
INI
	$bouncer{run} = IPC::Run::start([ 'pgbouncer', "$dir/pgbouncer.ini" ], '<', '/dev/null', '>>', $bouncer{log}, '2>&1');
	until (IPC::Run::run([ 'psql', '-XAt', '-c', 'SELECT 1', pooled($any) ], '>', \my $out, '2>', \my $err))
	{
		die "PgBouncer did not start: " . slurp_file($bouncer{log}) unless $bouncer{run}->pumpable;
		$bouncer{run}->pump_nb;
		select undef, undef, undef, 0.05;
	}
	return;
}

# A connection to one of its databases
sub pooled
{
	my ($dbname) = @_;
	return uri($bouncer{dir}, $bouncer{port}, $dbname);
}

sub stop_bouncer
{
	$bouncer{run}->signal('TERM');
	$bouncer{run}->finish;
	%bouncer = ();
	return;
}
END
{
	local $?;
	foreach my $session (values %asking)
	{
		# or its server has gone
		eval { $session->quit };
	}
	# left running by a test that died; it has a log
	$bouncer{run}->kill_kill if $bouncer{run};
}

# A client that says what has been reported to it (clients/report.c); ends when its
# {run} is finished.
my $report;
sub report_client
{
	my ($connection) = @_;
	my %client = (in => '', out => '');

	$report //= compile("$FindBin::RealBin/../clients/report.c");
	$client{run} = IPC::Run::start([ $report, $connection ], '<', \$client{in}, '>', \$client{out});
	return \%client;
}

# Run SQL there, and more that it understands; start_asking() does not await the answer.
# Returns the value, the SQLSTATE and the last report.
sub start_asking
{
	my ($client, $sql) = @_;
	$client->{in} .= "$sql\n";
	$client->{run}->pump_nb;
	return;
}

sub ask
{
	my ($client, $sql) = @_;
	start_asking($client, $sql);
	return answer($client);
}

sub answer
{
	my ($client) = @_;
	$client->{run}->pump until $client->{out} =~ /\n/;
	my @answer = split /\|/, $client->{out} =~ s/\n//r, -1;
	$client->{out} = '';
	return @answer;
}

1;
