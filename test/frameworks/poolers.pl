# Poolers between a client and a standby that lags: what is written through them is
# read at once, by a token or a role's setting; and what one client is owed is not owed
# to the next on the same server connection.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use FindBin;
use LsnPair;

my $top = "$FindBin::RealBin/../..";
my $rounds = 200;
my $user = getpwuid($>);
my @tcp = ("listen_addresses = '127.0.0.1'", "lsn_tracker.default_timeout = '180s'");

my $primary = new_primary('primary', @tcp, "cluster_name = 'primary'");
my $standby = add_standby($primary, 'standby', "cluster_name = 'standby'", "recovery_min_apply_delay = '20ms'");
$primary->safe_psql('postgres', <<SQL);
CREATE TABLE orders (id int);
CREATE ROLE monitor LOGIN;
CREATE ROLE strong LOGIN;
ALTER ROLE strong SET lsn_tracker.max_staleness = 0;
GRANT ALL ON orders TO strong;
SQL
# Pgpool-II does not pool connections to the database postgres
$primary->safe_psql('template1', 'CREATE DATABASE shop TEMPLATE postgres');
catch_up($primary, $standby);

# doc/poolers.md says what this is
my %listed = slurp_file("$top/doc/poolers.md") =~ /^\| ([\w-]+)[^|]* \| ([\d.]+) \|/mg;
foreach my $pooler (qw(PgBouncer Pgpool-II))
{
	my $program = $pooler eq 'PgBouncer' ? 'pgbouncer' : 'pgpool';
	my ($version) = `$program --version 2>&1` =~ /(\d+\.\d+)/ or die "no version of $program";
	my ($major) = $listed{$pooler} =~ /^(\d+)\./;
	like($version, qr/^$major\./, "$pooler: $version is what the table says");
	diag("$pooler is $version, doc/poolers.md has $listed{$pooler}") if $version ne $listed{$pooler};
}

# One writes an order, and returns what it was told then.
my $id = 0;
sub write_order
{
	my ($client, $prepared) = @_;

	$id++;
	my (undef, $failed, $token) = ask($client, $prepared ? "execute: $id" : "INSERT INTO orders VALUES ($id)");
	die "could not write: $failed" if $failed;
	return $token;
}

sub order { return "SELECT count(*) || ' ' || current_setting('cluster_name') FROM orders WHERE id = $id" }
sub set { return "SET lsn_tracker.token = '$_[0]'" }

# One writes, another (or the same) reads at once, again and again, with the token of the
# write or without; every read is the standby's.  Returns how many missed the write.
sub stale
{
	my ($writer, $reader, $what, %opt) = @_;
	my ($stale, $other) = (0, 0);

	for (1 .. $rounds)
	{
		my $token = write_order($writer, $opt{prepared});
		(ask($reader, set($token)))[1] and die 'could not set it' if $opt{token};
		my ($answer, $failed) = ask($reader, order());
		$stale++ if $answer eq '0 standby';
		$other++ if $answer !~ /^[01] standby$/ || $failed;
	}
	is($other, 0, "$what: the standby answers all reads");
	return $stale;
}

# While replay is paused, a read waits.
sub waits
{
	my ($writer, $reader, $what, %opt) = @_;

	pause($standby);
	my $token = write_order($writer);
	ask($reader, set($token)) if $opt{token};
	start_asking($reader, order());
	await_waiters($standby, 1);
	resume($standby);
	is((answer($reader))[0], '1 standby', "$what: waits, and sees the write");
	return;
}

# One is owed a token that is not replayed, and ends if it is told to; the next, on the
# same server connection, neither waits nor is told of it.
sub not_owed
{
	my ($writer, $reader, $next, $what, %opt) = @_;
	my $which = 'SELECT pg_backend_pid() FROM orders LIMIT 1';
	my ($pid) = ask($reader, $which);

	pause($standby);
	ask($reader, set(write_order($writer)));
	$reader->{run}->finish if $opt{ends};
	my $client = $next->();
	is(join('|', ask($client, order())), '0 standby||', "$what: the next client is owed nothing");
	resume($standby);
	is((ask($client, $which))[0], $pid, "$what: on the same connection");
	return $client;
}

# PgBouncer, with one connection to each server
foreach my $mode (qw(transaction session))
{
	my $session = $mode eq 'session';
	my $at = sub { return "host=${\$_[0]->host} port=${\$_[0]->port} pool_size=1" };
	my $what = "PgBouncer, $mode mode";

	start_bouncer({ primary => $at->($primary), standby => $at->($standby), strong => $at->($standby) . ' user=strong' },
		"pool_mode = $mode", $session ? () : ('track_extra_parameters = lsn_tracker.token'));
	my ($writer, $reader, $strong) = map { report_client(pooled($_)) } qw(primary standby strong);

	cmp_ok(stale($writer, $reader, "$what, nothing"), '>', 0, "$what: without a token, reads are stale");
	is(stale($writer, $reader, "$what, token", token => 1), 0, "$what: with it, none of $rounds is");
	waits($writer, $reader, "$what, token", token => 1);
	is(stale($writer, $strong, "$what, strong"), 0, "$what, strong: none of $rounds is stale");
	waits($writer, $strong, "$what, strong");
	my $next = not_owed($writer, $reader, sub { report_client(pooled('standby')) }, $what, ends => $session);
	$_->{run}->finish foreach $writer, $strong, $next, $session ? () : $reader;
	stop_bouncer();
}

# Pgpool-II by the example in doc/, as it is but for places, with one process: each
# client is given the server connections of the one before.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $config = slurp_file("$top/doc/examples/pgpool.conf");
$config =~ s/\b9999\b/$port/ or die;
$config =~ s/\b5432\b/${\$primary->port}/ or die;
$config =~ s/\b5433\b/${\$standby->port}/ or die;
$config =~ s{/run/postgresql}{$sockets}g or die;
append_to_file("$dir/pgpool.conf", "$config\nnum_init_children = 1\nwork_dir = '$dir'\n");
append_to_file("$dir/empty", '');
my $pgpool = IPC::Run::start([ 'pgpool', '-n', '-D', '-f', "$dir/pgpool.conf", '-F', "$dir/empty", '-a', "$dir/empty" ], '<', '/dev/null', '>', "$dir/log", '2>&1');

sub pgpool_uri { return "postgresql://$_[0]\@127.0.0.1:$port/shop" }
until (IPC::Run::run([ 'psql', '-XAt', '-c', 'SELECT 1', pgpool_uri($user) ], '>', \my $out, '2>', \my $err))
{
	die 'Pgpool-II did not start: ' . slurp_file("$dir/log") unless $pgpool->pumpable;
	usleep(50_000);
}

my $client = report_client(pgpool_uri($user));
cmp_ok(stale($client, $client, 'Pgpool-II, nothing'), '>', 0, 'Pgpool-II: without a token, reads are stale');
is(stale($client, $client, 'Pgpool-II, token', token => 1), 0, "Pgpool-II: with it, none of $rounds is");
ask($client, 'prepare: INSERT INTO orders VALUES ($1)');
is(stale($client, $client, 'Pgpool-II, prepared', token => 1, prepared => 1), 0, "Pgpool-II: nor if the write is prepared");
waits($client, $client, 'Pgpool-II, token', token => 1);
my $token = write_order($client);
is((ask($client, "SELECT current_setting('cluster_name') FROM lsn_require('$token')"))[0], 'primary', 'Pgpool-II: what calls lsn_require() is sent to the primary');
$client = not_owed($client, $client, sub { report_client(pgpool_uri($user)) }, 'Pgpool-II', ends => 1);
$client->{run}->finish;

$client = report_client(pgpool_uri('strong'));
is(stale($client, $client, 'Pgpool-II, strong'), 0, "Pgpool-II, strong: none of $rounds is stale");
waits($client, $client, 'Pgpool-II, strong');
$client->{run}->finish;

$pgpool->signal('INT');
$pgpool->finish;

$standby->stop;
$primary->stop;
done_testing();

# left running by a test that died
END
{
	local $?;
	if ($pgpool && $pgpool->pumpable)
	{
		diag(slurp_file("$dir/log"));
		$pgpool->signal('INT');
		$pgpool->finish;
	}
}
