# The programs of doc/clients, as they stand: sessions of an application write on the
# primary, are redirected, and read on a standby that lags behind each commit.
#
# A page's blocks that name a file are written to a directory of its own; there a small
# driver (drivers/) calls what they define, as it is told: "write SESSION ID", "read
# SESSION ID".  A session is what the framework takes for one: a cookie jar, if it has
# them.  Without a token a session must neither wait nor see anything, whatever others
# have set on the connections of the same pool.  CLIENTS names those to test, all if it
# is empty.

use strict;
use warnings;
use File::Copy;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use FindBin;
use LsnPair;

my $top = "$FindBin::RealBin/../..";
my $rounds = 200;

# The page of each, if that is not called like it; how it is built, if it has to be, and
# run, where the page's files are; what of another page it needs; its version; and whether it
# takes the newest token of its pool for its own.
my $jars = join ':', '.', map { "/usr/share/java/$_.jar" } qw(postgresql HikariCP slf4j-api slf4j-simple);
sub python { return [ 'python3', '-c', "from importlib.metadata import version; print(version('$_[0]'))" ] }
sub npm { return [ 'node', '-p', "require(process.env.NODE_PATH + '/$_[0]/package.json').version" ] }
sub gem { return [ 'ruby', '-e', "puts Gem::Specification.find_by_name('$_[0]').version" ] }
sub debian { return [ 'dpkg-query', '-f', '${Version}', '-W', $_[0] ] }
my %clients = (
	psycopg => { run => [ 'python3', 'drive_psycopg.py' ], version => python('psycopg') },
	django => { run => [ 'python3', 'drive_django.py' ], version => python('django') },
	sqlalchemy => { run => [ 'python3', 'drive_sqlalchemy.py' ], version => python('sqlalchemy') },
	'sqlalchemy-asyncpg' => { page => 'sqlalchemy', run => [ 'python3', 'drive_sqlalchemy_async.py' ], version => python('sqlalchemy') },
	'node-postgres' => { run => [ 'node', 'drive_node-postgres.js' ], version => npm('pg') },
	'postgres-js' => { newest => 1, run => [ 'node', 'drive_postgres-js.js' ], version => npm('postgres') },
	drizzle => { newest => 1, run => [ 'node', 'drive_drizzle.js' ], needs => { 'postgres-js' => 'tokens.js' }, version => npm('drizzle-orm') },
	prisma => { newest => 1, build => 'ln -s $NODE_PATH node_modules && PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 node $NODE_PATH/prisma/build/index.js generate --schema schema.prisma', run => [ 'node', 'drive_prisma.js' ], needs => { 'postgres-js' => 'tokens.js' }, version => npm('@prisma/client') },
	jdbc => { build => "javac -cp $jars *.java", run => [ 'java', '-cp', $jars, 'Drive' ], version => debian('libpostgresql-jdbc-java') },
	pgx => { build => 'GO111MODULE=off GOPATH=/usr/share/gocode go build -o client .', run => [ 'sh', '-c', 'exec ./client "$@"', 'client' ], version => debian('golang-github-jackc-pgx-v5-dev') },
	'ruby-pg' => { run => [ 'ruby', 'drive_ruby-pg.rb' ], version => gem('pg') },
	rails => { run => [ 'ruby', 'drive_rails.rb' ], version => gem('railties') },
	'php-pgsql' => { page => 'php', run => [ 'php', 'drive_php.php', 'pgsql' ], version => [ 'php', '-r', 'echo PHP_VERSION;' ] },
	'php-pdo' => { page => 'php', run => [ 'php', 'drive_php.php', 'pdo' ], version => [ 'php', '-r', 'echo PHP_VERSION;' ] });
my @names = grep { $clients{$_} or die "no client: $_" } split ' ', $ENV{CLIENTS} || join ' ', sort keys %clients;

# The clients read on one standby, and another will be promoted.
my $primary = new_primary('primary', "listen_addresses = '127.0.0.1'");
my ($standby, $heir) = map { add_standby($primary, $_) } qw(standby heir);
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE orders (id int);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER nothing BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.id = 0) EXECUTE FUNCTION nothing();
SQL
$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = '20ms'\nlsn_tracker.log_waits = on\nlsn_tracker.default_timeout = '180s'");
$standby->reload;
catch_up($primary, $standby);

# What programs connect with
sub tcp_uri
{
	my ($node) = @_;
	return 'postgresql://' . getpwuid($>) . "\@127.0.0.1:${\$node->port}/postgres";
}
@ENV{qw(PRIMARY STANDBY)} = map { tcp_uri($_) } $primary, $standby;
@ENV{qw(PRIMARY_PORT STANDBY_PORT)} = map { $_->port } $primary, $standby;
$ENV{PGUSER} = getpwuid($>);

# Write a page's files, or one of them, to a directory.  Where the page has 0 as the
# bound, it can be another.
sub unpack_page
{
	my ($dir, $name, $bound, $only) = @_;
	my $page = slurp_file("$top/doc/clients/$name.md");
	my $files = 0;

	while ($page =~ /^```\w+ (\S+)\n(.*?)^```/msg)
	{
		my ($file, $text) = ($1, $2);
		next if $only && $file ne $only;
		$text =~ s{(max_staleness(?:%3D|\W+))0}{$1$bound}g;
		append_to_file("$dir/$file", $text);
		$files++;
	}
	die "nothing in $name.md" unless $files;
	return;
}

# Make a client's directory; returns that.
sub set_up
{
	my ($name, $bound) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $client = $clients{$name};

	unpack_page($dir, $client->{page} // $name, $bound);
	unpack_page($dir, $_, $bound, $client->{needs}{$_}) foreach keys %{ $client->{needs} };
	my ($driver) = grep { /^drive/ } @{ $client->{run} }, "drive_$name.*";
	copy($_, $dir) or die "$_: $!" foreach glob("$FindBin::RealBin/drivers/$driver"), glob("$FindBin::RealBin/drivers/drive.*");
	if (my $build = $client->{build})
	{
		my $log = `cd '$dir' && { $build; } 2>&1`;
		die "could not build $name: $log" if $?;
	}
	return $dir;
}

# Start a client; further arguments are the driver's.
sub start_client
{
	my ($dir, $name, @arguments) = @_;
	my %client = (name => $name, in => '', out => '', err => '');

	$client{timeout} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$client{run} = IPC::Run::start([ @{ $clients{$name}{run} }, @arguments ],
		'<', \$client{in}, '>', \$client{out}, '2>', \$client{err}, $client{timeout}, init => sub { chdir $dir or die $! });
	return \%client;
}

sub start_request
{
	my ($client, $command) = @_;
	$client->{timeout}->start;
	$client->{in} .= "$command\n";
	$client->{run}->pump_nb;
	return;
}

# The answer: "ok", the number of rows, or "error SQLSTATE"
sub response
{
	my ($client) = @_;
	until ($client->{out} =~ /\n/)
	{
		$client->{run}->pumpable or die "$client->{name} has ended: $client->{err}";
		$client->{run}->pump;
	}
	my ($line, $rest) = split /\n/, $client->{out}, 2;
	$client->{out} = $rest;
	return $line;
}

sub request
{
	my ($client, $command) = @_;
	start_request($client, $command);
	return response($client);
}

# While replay is paused, one writes and the other reads: that waits, and sees it.
# First, with pause, what may happen in between.
my $id = 0;
sub waits
{
	my ($client, $reader, $what, $between) = @_;

	$id++;
	pause($standby);
	is(request($client, "write writer $id"), 'ok', "$what: writes");
	$between->() if $between;
	start_request($client, "read $reader $id");
	await_waiters($standby, 1);
	resume($standby);
	is(response($client), '1', "$what: the read waits, and sees the write");
	return;
}

# Write, and read at once, again and again
sub none_stale
{
	my ($client, $reader, $what) = @_;
	my ($stale, $failed, $offset) = (0, 0, -s $standby->logfile);

	for (1 .. $rounds)
	{
		$id++;
		$failed++ if request($client, "write writer $id") ne 'ok';
		my $rows = request($client, "read $reader $id");
		$stale++ if $rows eq '0';
		$failed++ if $rows !~ /^[01]$/;
	}
	my $waited = () = slurp_file($standby->logfile, $offset) =~ /LOG:  wait for replay of /g;
	is($stale, 0, "$what: none of $rounds reads is stale");
	is($failed, 0, "$what: none fails") or diag($client->{err});
	cmp_ok($waited, '>', 0, "$what: $waited have waited");
	return;
}

# A session that uses the primary, and writes nothing there, on a connection that has told of
# another's commit: that is not its own.
sub not_its_own
{
	my ($client, $what) = @_;
	my $own = $id;
	my $waits = 0;

	pause($standby);
	$id++;
	is(request($client, "write other $id"), 'ok', "$what: another session writes");
	is(request($client, 'write writer 0'), 'ok', "$what: this one writes nothing");
	start_request($client, "read writer $own");
	until ($client->{out} =~ /\n/ || $waits)
	{
		$client->{run}->pump_nb;
		$waits = $standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()');
	}
	is($waits, 0, "$what: nor does it wait for the other's commit");
	resume($standby);
	is(response($client), '1', "$what: and sees its own");
	return;
}

sub end_client
{
	my ($client) = @_;
	ok($client->{run}->finish, "$client->{name}: ends well") or diag($client->{err});
	return;
}

# The table has them all, and no other.  Debian's versions move on: a smaller step is only
# said.
my %listed = slurp_file("$top/doc/clients.md") =~ /^\| \[([\w-]+)\]\S* \| ([\d.]+) \|/mg;
is(join(' ', sort keys %listed), join(' ', sort keys %clients), 'doc/clients.md lists what is tested');
foreach my $name (@names)
{
	IPC::Run::run($clients{$name}{version}, '>', \my $version) or die "no version of $name";
	chomp $version;
	like($version, qr/^${\$listed{$name} =~ s{\..*}{}r}\./, "$name: $version is what the table says");
	diag("$name is $version, doc/clients.md has $listed{$name}") if index("$version.", "$listed{$name}.") != 0;
}

my %running;
foreach my $name (@names)
{
	my $dir = set_up($name, 0);
	my $client = start_client($dir, $name);

	# Something to wait for goes before the page's own write.
	waits($client, 'writer', "$name, token", sub {
			is(request($client, "read other $id"), '0', "$name, token: another session neither waits nor sees the write");
	});
	is(request($client, "read other $id"), '1', "$name, token: replayed, it does");
	none_stale($client, 'writer', "$name, token");
	waits($client, 'writer', "$name, a use of the primary that writes nothing", sub { is(request($client, 'write writer 0'), 'ok', "$name: writes nothing") });
	not_its_own($client, "$name, token") unless $clients{$name}{newest};
	$running{$name} = $client;

	$client = start_client($dir, $name, 'bound');
	waits($client, 'other', "$name, strong");
	none_stale($client, 'other', "$name, strong");
	end_client($client);

	$client = start_client(set_up($name, 200), $name, 'bound');
	waits($client, 'other', "$name, bounded", sub { usleep(300_000) });
	end_client($client);
}

# A failover that loses what each has written last
cut_off($_) foreach $standby, $heir;
$id++;
is(request($running{$_}, "write writer $id"), 'ok', "$_: writes what will be lost") foreach @names;
$primary->stop('immediate');
$heir->promote;
follow($standby, $heir);
catch_up($heir, $standby);
foreach my $name (@names)
{
	is(request($running{$name}, "read other $id"), '0', "$name, failover: without a token the write is missing");
	is(request($running{$name}, "read writer $id"), 'error 40000', "$name, failover: with it, it is reported as lost");
	is(request($running{$name}, "read other $id"), '0', "$name, failover: to its own session only");
	end_client($running{$name});
}

$standby->stop;
$heir->stop;
done_testing();
