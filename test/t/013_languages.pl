# Real clients: the programs in README.md, directly and through PgBouncer in
# transaction mode, and what arrives at a client there.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('languages');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $readme = slurp_file("$FindBin::RealBin/../../README.md");

$primary->safe_psql('postgres', 'CREATE TABLE orders (id int)');
catch_up($primary, $standby);

# The examples, and how to run each
my %suffix = (c => 'c', python => 'py', js => 'js');
my %run = (python => [ $ENV{PYTHON} ], js => ['node'], c => []);
my %program;
while ($readme =~ /^```(c|python|js)\n(.*?)^```/msg)
{
	my ($language, $text) = ($1, $2);
	my $file = "$dir/example.$suffix{$language}";

	die "more than one example for $language" if $program{$language};
	append_to_file($file, $text);
	$program{$language} = [ @{ $run{$language} }, $language eq 'c' ? compile($file) : $file ];
}
is(join(' ', sort keys %program), 'c js python', 'README.md has an example for each language');

sub uri
{
	my ($host, $port, $dbname) = @_;
	return "postgresql:///$dbname?host=$host&port=$port&user=" . getpwuid($>);
}
my @direct = map { uri($_->host, $_->port, 'postgres') } $primary, $standby;

# Each example writes, waits and reads; replay is held up in between, so that
# nothing but a wait can make it read its write.
sub run_example
{
	my ($language, $name, @uris) = @_;
	my ($out, $err);

	$primary->safe_psql('postgres', 'TRUNCATE orders');
	catch_up($primary, $standby);
	pause($standby);
	my $program = IPC::Run::start([ @{ $program{$language} }, @uris ], '<', '/dev/null', '>', \$out, '2>', \$err);
	await_waiters($standby, 1);
	my ($target, $timeline) = split /\|/, $standby->safe_psql('postgres', 'SELECT target, timeline FROM lsn_waiters()');
	is($timeline, '1', "$name: waits for a token");
	is($primary->safe_psql('postgres', "SELECT '$target'::pg_lsn <= pg_current_wal_insert_lsn()"), 't', "$name: of this primary");
	resume($standby);
	ok($program->finish, "$name: ends well") or diag($err);
	is($out, "1\n", "$name: reads its write");
	return;
}
run_example($_, $_, @direct) foreach sort keys %program;

# PgBouncer, with one server connection for each of the two servers
my $bouncer_port = PostgreSQL::Test::Cluster::get_free_port();
append_to_file("$dir/pgbouncer.ini", <<INI);
[databases]
primary = host=${\$primary->host} port=${\$primary->port} dbname=postgres user=${\scalar getpwuid($>)}
standby = host=${\$standby->host} port=${\$standby->port} dbname=postgres user=${\scalar getpwuid($>)}
[pgbouncer]
listen_addr =
listen_port = $bouncer_port
unix_socket_dir = $dir
auth_type = any
pool_mode = transaction
default_pool_size = 1
INI
my $bouncer_log = '';
my $bouncer = IPC::Run::start([ 'pgbouncer', "$dir/pgbouncer.ini" ], '<', '/dev/null', '>', \$bouncer_log, '2>', \$bouncer_log);
END { local $?; $bouncer->kill_kill if $bouncer }
my @pooled = map { uri($dir, $bouncer_port, $_) } qw(primary standby);
$primary->poll_query_until('postgres', 'SELECT true', 't', connstr => "host=$dir port=$bouncer_port dbname=primary")
  or die 'PgBouncer did not start';
run_example($_, "$_ through PgBouncer", @pooled) foreach sort keys %program;

# Clients that share the one server connection
my $report = compile("$FindBin::RealBin/../clients/report.c");

sub client
{
	my %client = (in => '', out => '');
	$client{run} = IPC::Run::start([ $report, $pooled[0] ], '<', \$client{in}, '>', \$client{out});
	return \%client;
}

# Run SQL; returns the value and what has been reported to this client.
sub ask
{
	my ($client, $sql) = @_;
	$client->{in} .= "$sql\n";
	$client->{run}->pump until $client->{out} =~ /\n/;
	my ($value, $sqlstate, $reported) = split /\|/, $client->{out} =~ s/\n//r;
	$client->{out} = '';
	is($sqlstate, '', "PgBouncer: no error: $sql");
	return ($value, $reported);
}

my ($one, $two) = (client(), client());
my $backend = (ask($one, 'SELECT pg_backend_pid()'))[0];
is((ask($two, 'SELECT pg_backend_pid()'))[0], $backend, 'PgBouncer: both clients get the same server session');

my (undef, $first) = ask($one, 'INSERT INTO orders VALUES (1)');
like($first, qr/\@1$/, 'PgBouncer: a commit is reported to its client');
my (undef, $second) = ask($two, 'INSERT INTO orders VALUES (2)');
like($second, qr/\@1$/, 'PgBouncer: another commit is reported to its own');
isnt($second, $first, 'PgBouncer: the two are different');
my ($function, $kept) = ask($one, 'BEGIN READ ONLY; SELECT lsn_last_commit(); COMMIT');
is($kept, $first, 'PgBouncer: the first client still has its own');
is($function, $second, 'PgBouncer: lsn_last_commit() is of the server session, whoever used it last');
my ($xid) = ask($one, 'INSERT INTO orders VALUES (3) RETURNING pg_current_xact_id()');
is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid', 0);\nSELECT count(*) FROM orders WHERE id = 3"),
	"t\n1", 'PgBouncer: a transaction id does without the report');

$_->{run}->finish foreach $one, $two;
$bouncer->signal('TERM');
$bouncer->finish;
undef $bouncer;
$standby->stop;
$primary->stop;
done_testing();
