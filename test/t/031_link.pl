# The link to the primary: SHOW lsn_tracker.newest_commit on standbys, its
# connection, and what happens to that.

use strict;
use warnings;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use FindBin;
use lib $FindBin::RealBin;
use Debugger;
use LsnPair;

my $show = 'SHOW lsn_tracker.newest_commit';
my $primary = new_primary('primary', 'log_replication_commands = on', 'lsn_tracker.default_timeout = 0');
$primary->safe_psql('postgres', "CREATE ROLE asker LOGIN REPLICATION PASSWORD 'right secret'");
my $standby = add_standby($primary, 'standby', 'log_replication_commands = on');
my $cascaded = add_standby($standby, 'cascaded');
catch_up($primary, $cascaded);

sub newest
{
	my ($node) = @_;
	return $node->safe_psql('postgres', $show, timeout => $PostgreSQL::Test::Utils::timeout_default);
}

# The connections of a standby's link, where it asks
sub links
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE application_name = 'lsn_tracker'");
}

sub questions
{
	my ($node) = @_;
	return scalar(() = slurp_file($node->logfile) =~ /received replication command: SHOW lsn_tracker/g);
}

# Ask, and expect to be refused in time, and for this reason, at last
sub refused
{
	my ($node, $like, $name, %opt) = @_;
	my $timeout = $opt{timeout} // 1000;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;
	my $what = qr/ERROR:  55L01: timed out after $timeout ms while asking the primary.*DETAIL:  The upstream server has not told it: $like/s;
	my ($err, $timed_out);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	do
	{
		(undef, undef, $err) = $node->psql('postgres',
			"\\set VERBOSITY verbose\n" . ($opt{first} // '') . "SET lsn_tracker.default_timeout = $timeout;\n$show",
			on_error_stop => 0, timeout => $PostgreSQL::Test::Utils::timeout_default, timed_out => \$timed_out);
	} until ($err =~ $what || time > $until);
	like($err, $what, $name);
	return;
}

# Have it ask another server.
sub ask_at
{
	my ($node, $conninfo) = @_;
	$node->append_conf('postgresql.conf', "lsn_tracker.primary_conninfo = '$conninfo'");
	$node->reload;
	return;
}

# until it answers
sub answers
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# the first after a start is everything that is written
	newest($primary);
	my $token = write_token($primary);
	is(newest($node), $token, $name);
	return;
}

sub is_gone
{
	my ($pid, $name) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	usleep(100_000) while -e "/proc/$pid" && time < $until;
	ok(!-e "/proc/$pid", $name);
	return;
}

# So many strong readers at once, who must find so many rows, or fail
my $readers = 200;

sub start_readers
{
	my ($node, $rows) = @_;
	my $script = $node->basedir . "/readers.$rows.sql";
	my %crowd = (out => '', err => '');

	append_to_file($script, "SET lsn_tracker.max_staleness = 0;\nSELECT 1 / (count(*) = $rows)::int FROM t;\n");
	$crowd{run} = IPC::Run::start([ 'pgbench', '-n', '-c', $readers, '-t', 1, '-h', $node->host, '-p', $node->port, '-f', $script, 'postgres' ],
		'>', \$crowd{out}, '2>', \$crowd{err}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%crowd;
}

sub finish_readers
{
	my ($crowd, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$crowd->{run}->finish;
	like($crowd->{out}, qr/number of transactions actually processed: $readers\/$readers/, $name) or diag($crowd->{err});
	return;
}

# Where recovery ends, the worker does; where the startup process does not tell, within a minute.
my %ended;
foreach my $mode (qw(redo poll))
{
	my $promoted = add_standby($primary, "promoted_$mode", "lsn_tracker.wakeup = $mode");

	catch_up($primary, $promoted);
	$ended{$mode} = link_worker($promoted);
	$promoted->promote;
	is_gone($ended{$mode}, 'promotion ends the worker') if $mode eq 'redo';
}

# Nobody asks: there is no connection, and the worker sleeps.
sub wakings
{
	return slurp_file('/proc/' . link_worker($standby) . '/status') =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die;
}
my $slept = wakings();
for (1 .. 5)
{
	my $lsn = write_wal($primary);
	$standby->safe_psql('postgres', "SET lsn_tracker.token = '$lsn';\nSELECT count(*) FROM t");
}
is(wakings(), $slept, 'nobody asks: the worker sleeps');
is(links($primary), '', 'and there is no connection');
answers($standby, 'a standby tells what its primary answers');
is(questions($primary), 1, 'by one question');
answers($cascaded, 'and so does a cascaded one');
is(questions($standby), 1, 'which asks its own upstream');
is(questions($primary), 2, 'which asks the primary');
my ($ret, $out) = $cascaded->psql('postgres', $show, replication => 'true');
is($out, newest($primary), 'over a connection of the replication protocol');
like(links($primary), qr/^\d+$/, 'over one connection, that stays');
is($primary->safe_psql('postgres', "SELECT state FROM pg_stat_replication WHERE application_name = 'lsn_tracker'"),
	'startup', 'shown in pg_stat_replication');

# A question that is on its way serves nobody who came behind it; the next one all.
my $link = links($primary);
my $before = questions($primary);
kill 'STOP', $link;
my $first = start_wait(session($standby), $show);
await_waiters($standby, 1);
my @others = map { start_wait(session($standby), $show) } 1 .. 20;
await_waiters($standby, 21);
my $token = write_token($primary);
kill 'CONT', $link;
finish_wait($first);
is(join(' ', map { scalar finish_wait($_) } @others), join(' ', ($token) x @others), 'all who asked later have the later answer');
is(questions($primary) - $before, 2, 'by one question');
$_->quit foreach $first, @others;

# However many.  It is the worker that is stopped, and does not see how long they take to come.
my $rows = $primary->safe_psql('postgres', 'SELECT count(*) FROM t');
my $stopped = stop_link($standby);
my $crowd = start_readers($standby, $rows + 1);
await_waiters($standby, $readers);
write_wal($primary);
$before = questions($primary);
kill 'CONT', $stopped;
finish_readers($crowd, "$readers readers have the answer");
is(questions($primary) - $before, 1, 'by one question');

# An upstream that hangs: refused in time, and given up later.
$link = links($primary);
kill 'STOP', $link;
refused($standby, 'no answer yet', 'an upstream that hangs');
my $session = start_wait(session($standby), $show);
is(scalar finish_wait($session), newest($primary), 'is asked by another connection, after a while');
isnt(links($primary), $link, 'a new one');
kill 'CONT', $link;
is_gone($link, 'and the old one ends');
$session->quit;

# A connection cut in mid-question
$link = links($primary);
kill 'STOP', $link;
$session = start_wait(session($standby), $show);
await_waiters($standby, 1);
$primary->safe_psql('postgres', "SELECT pg_terminate_backend($link)");
kill 'CONT', $link;
is(scalar finish_wait($session), newest($primary), 'a connection that is cut');

# The worker is killed while many ask, and its question is on its way.
$stopped = stop_link($standby);
$crowd = start_readers($standby, $rows + 2);
await_waiters($standby, $readers);
$link = links($primary);
kill 'STOP', $link;
$slept = wakings();
kill 'CONT', $stopped;
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
usleep(10_000) while wakings() == $slept && time < $until;
write_wal($primary);
kill 'TERM', $stopped;
is_gone($stopped, 'the worker is killed while many ask');
finish_readers($crowd, "$readers readers have the answer to another question");
kill 'CONT', $link;

# Replay waits for nothing that blocks the worker, as a name look-up does.
$primary->safe_psql('postgres', 'CREATE DATABASE dropped');
my $worker = link_worker($standby);
kill 'STOP', $worker;
$primary->safe_psql('postgres', 'DROP DATABASE dropped');
catch_up($primary, $standby);
pass('DROP DATABASE is replayed while the worker is blocked');
kill 'CONT', $worker;

# Who waits can be cancelled, and terminated.
$link = links($primary);
kill 'STOP', $link;
start_wait($session, $show);
my $pid = waiting_pid($standby);
$standby->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
like((finish_wait($session))[1], qr/canceling statement/, 'cancelled');
kill 'CONT', $link;
$session->quit;

# The primary is restarted, and away.
$primary->restart;
answers($standby, 'a primary that has been restarted');
$primary->stop;
refused($standby, 'connection to server .* failed', 'a primary that is away');
refused($cascaded, 'timed out after .* \\(The upstream server has not told it: ', 'as a cascaded standby tells it', timeout => 8000);
$primary->start;
answers($cascaded, 'and back');

# An upstream without the library
my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init_from_backup($primary, 'for_standby', has_streaming => 1);
$bare->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$bare->start;
my $own = $cascaded->safe_psql('postgres', 'SHOW primary_conninfo');
follow($cascaded, $bare);
refused($cascaded, 'lsn_tracker is not in its shared_preload_libraries', 'an upstream without the library');

$bare->append_conf('postgresql.conf', "lsn_tracker.newest_commit = '0/0\@1'");
$bare->reload;
refused($cascaded, 'its answer is not a token', 'nothing is no position');

# Another cluster, at the address of one's own
my $other = new_primary('other');
follow($cascaded, $other);
refused($cascaded, 'it is of another cluster', 'an upstream of another cluster');
follow($cascaded, $primary);
ask_at($cascaded, $other->connstr('postgres') =~ s/'/''/gr);
refused($cascaded, 'it is of another cluster', 'over an ordinary connection, too');
$other->stop;
refused($cascaded, 'connection to server .* failed', 'why is shown');
refused($cascaded, "see this server's log", 'but not to everybody', first => "SET ROLE asker;\n");
{
	local $ENV{PGOPTIONS} = '-c lsn_tracker.default_timeout=1000';
	my (undef, undef, $err) = $cascaded->psql('postgres', $show, replication => 'true', extra_params => [ '-U', 'asker' ]);
	like($err, qr/DETAIL:  .*: see this server's log\./, 'nor over the replication protocol');
}
refused($cascaded, 'connection to server .* failed', 'to who may see it', first => "SET ROLE pg_monitor;\n");

# One of several hosts hangs
my $hung = IO::Socket::INET->new(Listen => 100, LocalAddr => '127.0.0.1') or die $!;
ask_at($cascaded, 'host=127.0.0.1 port=' . $hung->sockport);
refused($cascaded, 'no answer yet', 'what was wrong with another one is not said');
ask_at($cascaded, "host=127.0.0.1,${\$primary->host} dbname=postgres port=${\$hung->sockport},${\$primary->port}");
answers($cascaded, 'of two hosts, one that hangs is passed by');
ask_at($cascaded, '');

# A new upstream is followed, and a missing one
follow($cascaded, $primary);
answers($cascaded, 'another upstream');
# it closes its own if it has not asked for a minute
answers($standby, 'and the other standby');
is(scalar(split / /, links($primary)), 2, 'both ask the primary');
cut_off($cascaded);
refused($cascaded, 'neither primary_conninfo nor', 'no upstream');

# A connection of one's own, and passwords
my $hba = $primary->data_dir . '/pg_hba.conf';
my $rules = slurp_file($hba);
open my $file, '>', $hba or die $!;
print $file "local all asker scram-sha-256\n$rules";
close $file;
$primary->reload;
foreach my $case (
	[ 'a wrong password', "password=''wrong secret''", 'connection to server .* failed: FATAL:  password authentication failed' ],
	[ 'a connection string that is none', 'password=wrong secret', 'the connection string is not valid' ],
	[ 'a password that looks like a port', 'postgresql://asker:secret/word@localhost/postgres', "connection failed .libpq's message is left out" ],
	[ 'the right password', "password=''right secret''", undef ])
{
	my ($name, $password, $problem) = @$case;
	my $conninfo = $password =~ m!://! ? $password : "host=${\$primary->host} port=${\$primary->port} user=asker dbname=postgres $password";

	$cascaded->append_conf('postgresql.conf', "lsn_tracker.primary_conninfo = '$conninfo'");
	# the server logs what a reload changes
	$cascaded->restart;
	if ($problem)
	{
		refused($cascaded, $problem, $name);
	}
	else
	{
		answers($cascaded, $name);
		is($primary->safe_psql('postgres', "SELECT datname, backend_type FROM pg_stat_activity WHERE usename = 'asker'"),
			'postgres|client backend', 'over an ordinary connection');
	}
}
unlike(slurp_file($cascaded->logfile), qr/secret/, 'no password in the log');
is($cascaded->safe_psql('postgres', "SET ROLE asker; SELECT count(*) FROM pg_settings WHERE setting LIKE '%secret%'"), 0, 'nor in a view');
like(slurp_file($cascaded->logfile), qr/could not ask the upstream server for the newest commit: the connection string/, 'but what is wrong');

# Promoted, it answers itself.  Its worker had a connection.
$session = session($cascaded);
$worker = link_worker($cascaded);
$cascaded->promote;
is_gone($worker, 'promotion ends a worker with a connection');
like(scalar finish_wait(start_wait($session, $show)), qr/\@2$/, 'a promoted standby answers for itself');
$session->quit;

# Unused for a minute, which we let pass at once, the connection is closed.
answers($standby, 'one that has not asked for a while');
isnt(links($primary), '', 'over a connection');
if (!lacks('gdb'))
{
	my $clock = debugger(link_worker($standby));
	order($clock, "set var 'primary_link.c'::deadline = 0");
	told($clock);
	let_go($clock);
	$standby->reload;
	ok( $primary->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'lsn_tracker' AND backend_type = 'walsender'"),
		'that nobody uses: it is closed');
	answers($standby, 'and opened again');
}

is_gone($ended{poll}, 'promotion ends the worker, in poll mode within a minute');
$_->stop foreach $cascaded, $bare, $standby, $primary;
done_testing();
