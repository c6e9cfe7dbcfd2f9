# Real clients: the programs in doc/languages.md, directly and through PgBouncer in
# transaction mode, and what arrives at a client there; and programs that know nothing
# but the token, and wait nowhere.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('languages');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $clients = "$FindBin::RealBin/../clients";
my $page = slurp_file("$FindBin::RealBin/../../doc/languages.md");

$primary->safe_psql('postgres', 'CREATE TABLE orders (id int)');
catch_up($primary, $standby);

# The examples, and how to run each
my ($no_python, $no_node) = map { lacks($_) } qw(python node);
my %suffix = (c => 'c', python => 'py', js => 'js');
my %run = (python => [ $ENV{PYTHON} ], js => ['node'], c => []);
my %program;
while ($page =~ /^```(c|python|js)\n(.*?)^```/msg)
{
	my ($language, $text) = ($1, $2);
	my $file = "$dir/example.$suffix{$language}";

	die "more than one example for $language" if $program{$language};
	append_to_file($file, $text);
	$program{$language} = [ @{ $run{$language} }, $language eq 'c' ? compile($file) : $file ];
}
is(join(' ', sort keys %program), 'c js python', 'there is an example for each language');
delete $program{python} if $no_python;
delete $program{js} if $no_node;

my @direct = map { uri($_->host, $_->port, 'postgres') } $primary, $standby;

# Each example writes, waits and reads; replay is held up in between, so that
# nothing but a wait can make it read its write.
sub run_example
{
	my ($language, $name, @uris) = @_;
	my ($out, $err) = ('', '');
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	$primary->safe_psql('postgres', 'TRUNCATE orders');
	catch_up($primary, $standby);
	pause($standby);
	my $program = IPC::Run::start([ @{ $program{$language} }, @uris ], '<', '/dev/null', '>', \$out, '2>', \$err);
	while ($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()') == 0)
	{
		$program->pump_nb;
		usleep(50_000);
		next if $program->pumpable && time < $until;
		die "$name does not wait: $out$err";
	}
	my ($target, $timeline) = split /\|/, $standby->safe_psql('postgres', 'SELECT target, timeline FROM lsn_waiters()');
	is($timeline, '1', "$name: waits for a token");
	is($primary->safe_psql('postgres', "SELECT '$target'::pg_lsn <= pg_current_wal_insert_lsn()"), 't', "$name: of this primary");
	resume($standby);
	ok($program->finish, "$name: ends well") or diag($out . $err);
	is($out, "1\n", "$name: reads its write") or diag($err);
	return;
}
run_example($_, $_, @direct) foreach sort keys %program;

# The token alone.  The standby lags behind each commit, so that whoever does not wait
# is stale, as those are who have no token; for them it stands, where a program takes
# longer to start.
my $user = getpwuid($>);
my $rounds = 10;
$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = '20ms'");
$standby->reload;
$standby->poll_query_until('postgres', "SELECT current_setting('recovery_min_apply_delay') = '20ms'") or die 'no delay';

my %rounds = (
	psycopg2 => [ $ENV{PYTHON}, "$clients/rounds.py", 'psycopg2' ],
	psycopg => [ $ENV{PYTHON}, "$clients/rounds.py", 'psycopg' ],
	'node-postgres' => [ 'node', "$clients/rounds.js" ]);
delete @rounds{qw(psycopg2 psycopg)} if $no_python;
delete $rounds{'node-postgres'} if $no_node;
foreach my $driver (sort keys %rounds)
{
	$primary->safe_psql('postgres', 'TRUNCATE orders');
	catch_up($primary, $standby);
	my ($out, $err);
	ok(IPC::Run::run([ @{ $rounds{$driver} }, @direct, $rounds ], '<', '/dev/null', '>', \$out, '2>', \$err), "$driver: ends well") or diag($out . $err);
	my %stale = $out =~ /^(\w+): $rounds reads, (\d+) stale$/mg;
	cmp_ok(delete $stale{nothing}, '>', 0, "$driver: stale without the token");
	is_deeply(\%stale, { map { $_ => 0 } qw(set_config set_literal in_transaction repeatable_read option) }, "$driver: never with it") or diag($out . $err);
}

# psql, which says what it is told
sub psql
{
	my ($connection, @commands) = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XAtq', $connection, map { ('-c', $_) } @commands ], '<', '/dev/null', '>', \$out, '2>', \$err) or die $err;
	chomp $out;
	return $out;
}
my %psql = (
	'no token' => sub { psql($direct[1], $_[1]) },
	'SET' => sub { psql($direct[1], "SET lsn_tracker.token = '$_[0]'", $_[1]) },
	'an option' => sub { psql("$direct[1]&options=-c%20lsn_tracker.token%3D$_[0]", $_[1]) },
	'PGOPTIONS' => sub { local $ENV{PGOPTIONS} = "-c lsn_tracker.token=$_[0]"; psql($direct[1], $_[1]) });
my $last = 1000;
foreach my $way (sort keys %psql)
{
	my $stale = 0;
	pause($standby) if $way eq 'no token';
	for (1 .. $rounds)
	{
		$last++;
		my $token = psql($direct[0], "INSERT INTO orders VALUES ($last)", 'SHOW lsn_tracker.token');
		$stale += $psql{$way}->($token, "SELECT count(*) FROM orders WHERE id = $last") == 0;
	}
	resume($standby) if $way eq 'no token';
	cmp_ok($stale, $way eq 'no token' ? '>' : '==', 0, "psql, $way: $stale of $rounds reads are stale");
}

# pgbench -S.  It does not look at what it reads; so that is a view of its table which
# fails if the last write that the session was told to expect is not there.
command_ok([ 'pgbench', '-i', '-q', '-h', $primary->host, '-p', $primary->port, 'postgres' ], 'pgbench -i');
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE written AS SELECT 0 AS n;
ALTER TABLE pgbench_accounts RENAME TO accounts;
-- immutable, so that it is called when the statement is planned, as it comes to the gate
CREATE FUNCTION expected() RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT current_setting('my.expected')::int $$;
CREATE VIEW pgbench_accounts AS
SELECT aid, abalance / (n >= expected())::int AS abalance FROM accounts, written;
SQL
catch_up($primary, $standby);
my $written = 0;
my $write = sub {
	return "my.expected=" . ++$written, 'lsn_tracker.token=' . $primary->safe_psql('postgres', "UPDATE written SET n = $written;\nSHOW lsn_tracker.token");
};
my $start_pgbench = sub {
	my (@options) = @_;
	my %run = (out => '');
	$run{run} = IPC::Run::start([ 'pgbench', '-n', '-S', @options, '-c', 2, '-h', $standby->host, '-p', $standby->port, 'postgres' ], '>', \$run{out}, '2>&1');
	return \%run;
};

# Told by a connection option, it waits with the first statement of each connection.
foreach my $protocol (qw(simple extended prepared))
{
	for my $round (0 .. 4)
	{
		pause($standby) if $round == 0;
		local $ENV{PGOPTIONS} = join ' ', map { "-c $_" } $write->();
		$ENV{PGOPTIONS} =~ s/ -c lsn_tracker.*// if $round == 0;
		my $run = $start_pgbench->('-M', $protocol, '-C', '-t', 5);
		$run->{run}->finish;
		resume($standby) if $round == 0;
		like($run->{out}, $round == 0 ? qr/ERROR:  division by zero/ : qr/actually processed: 10\/10\b/, "pgbench -S -C, $protocol protocol, " . ($round == 0 ? 'no token' : "round $round"));
	}
}

# By the standby's configuration, which is changed with each write, all sessions wait
# again and again, with statements that they have prepared long ago.  What to expect
# is told of a statement that has been bound already, too, and must not reach it.
$standby->append_conf('postgresql.conf', "include 'token.conf'");
my $tell = sub {
	my $file = $standby->data_dir . '/token.conf';
	unlink "$file.new";
	append_to_file("$file.new", join '', map { s/=(.*)/='$1'/r . "\n" } @_);
	rename "$file.new", $file or die $!;
	$standby->reload;
};
foreach my $told (0, 1)
{
	pause($standby) if !$told;
	$tell->('my.expected=0');
	local $ENV{PGOPTIONS} = '-c plan_cache_mode=force_custom_plan';
	my @runs = map { $start_pgbench->('-M', $_, '-T', 2) } qw(simple extended prepared);
	my $writes = 0;
	do
	{
		my ($expected, $token) = $write->();
		$tell->($token, $expected) if $told;
		$tell->($expected) if !$told;
		$writes++;
		$_->{run}->pump_nb foreach grep { $_->{run}->pumpable } @runs;
	} while grep { $_->{run}->pumpable } @runs;
	$_->{run}->finish foreach @runs;
	resume($standby) if !$told;
	my $out = join '', map { $_->{out} } @runs;
	my $processed = 0;
	$processed += $_ foreach $out =~ /actually processed: (\d+)/g;
	like($out, $told ? qr/\A(?!.*ERROR:)/s : qr/ERROR:  division by zero/, "pgbench -S, told of $writes writes, " . ($told ? 'with' : 'without') . " their tokens: $processed reads");
	cmp_ok($writes, '>', 2, 'again and again') if $told;
}
$standby->adjust_conf('postgresql.conf', 'include', undef);

# PgBouncer, with one server connection for each of the two servers
if (lacks('pgbouncer'))
{
	done_testing();
	exit;
}
start_bouncer({ primary => "host=${\$primary->host} port=${\$primary->port}", standby => "host=${\$standby->host} port=${\$standby->port}" }, 'default_pool_size = 1');
run_example($_, "$_ through PgBouncer", map { pooled($_) } qw(primary standby)) foreach sort keys %program;

# Clients that share the one server connection
sub ask_well
{
	my ($client, $sql) = @_;
	my ($value, $sqlstate, $reported) = ask($client, $sql);
	is($sqlstate, '', "PgBouncer: no error: $sql");
	return ($value, $reported);
}

my ($one, $two) = map { report_client(pooled('primary')) } 1 .. 2;
my $backend = (ask_well($one, 'SELECT pg_backend_pid()'))[0];
is((ask_well($two, 'SELECT pg_backend_pid()'))[0], $backend, 'PgBouncer: both clients get the same server session');

my (undef, $first) = ask_well($one, 'INSERT INTO orders VALUES (1)');
like($first, qr/\@1$/, 'PgBouncer: a commit is reported to its client');
my (undef, $second) = ask_well($two, 'INSERT INTO orders VALUES (2)');
like($second, qr/\@1$/, 'PgBouncer: another commit is reported to its own');
isnt($second, $first, 'PgBouncer: the two are different');
my ($function, $kept) = ask_well($one, 'BEGIN READ ONLY; SELECT lsn_last_commit(); COMMIT');
is($kept, $first, 'PgBouncer: the first client still has its own');
is($function, $second, 'PgBouncer: lsn_last_commit() is of the server session, whoever used it last');
my ($xid) = ask_well($one, 'INSERT INTO orders VALUES (3) RETURNING pg_current_xact_id()');
is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid', 0);\nSELECT count(*) FROM orders WHERE id = 3"),
	"t\n1", 'PgBouncer: a transaction id does without the report');

$_->{run}->finish foreach $one, $two;
stop_bouncer();
$standby->stop;
$primary->stop;
done_testing();
