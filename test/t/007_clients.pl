# The extended protocol: prepared statements and bound parameters; and together
# with extensions that hook into the executor, loaded before and after.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $hooks = "compute_query_id = on
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_verbose = on
auto_explain.log_nested_statements = on
pg_stat_statements.track = all
pg_stat_statements.track_planning = on";

my %preloads = (
	alone => 'lsn_tracker',
	before => 'lsn_tracker, pg_stat_statements, auto_explain',
	after => 'pg_stat_statements, auto_explain, lsn_tracker');

my $contrib = !grep { lacks($_) } qw(pg_stat_statements.so auto_explain.so);

foreach my $order ($contrib ? sort keys %preloads : 'alone')
{
	my ($primary, $standby) = new_pair("client_$order",
		"shared_preload_libraries = '$preloads{$order}'",
		'max_standby_streaming_delay = 1h',
		$order eq 'alone' ? '' : $hooks);

	$primary->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements') if $order ne 'alone';
	$primary->safe_psql('postgres', 'CREATE TABLE v AS SELECT generate_series(1, 1000) AS i');
	my $here = write_wal($primary);

	# pgbench binds its variables as parameters in these two modes
	foreach my $protocol (qw(extended prepared))
	{
		my $script = $standby->basedir . "/$protocol.sql";
		append_to_file($script, <<'SQL');
SELECT lsn_wait(:lsn, :timeout);
SELECT lsn_require(:lsn, :timeout);
SELECT CASE WHEN lsn_wait(:lsn, :timeout) THEN count(g) END FROM generate_series(1, 10) g;
BEGIN;
SELECT lsn_wait(:lsn, :timeout);
SELECT count(*) FROM t;
SELECT lsn_wait(:lsn, :timeout);
COMMIT;
SELECT set_config('lsn_tracker.token', :lsn, false);
SELECT count(*) FROM t;
RESET lsn_tracker.token;
SQL
		my $by_itself = $standby->basedir . "/$protocol.itself.sql";
		append_to_file($by_itself, <<'SQL');
BEGIN;
SELECT set_config('lsn_tracker.token', :lsn, true);
SELECT count(*) AS n FROM v WHERE i > :timeout \gset
SELECT 1 / CASE WHEN :n = :rows THEN 1 ELSE 0 END;
COMMIT;
SQL
		command_like(
			[ 'pgbench', '-n', '-c', 4, '-t', 50, '-M', $protocol, '-D', "lsn=$here", '-D', 'timeout=5000',
				'-h', $standby->host, '-p', $standby->port, '-f', $script, 'postgres' ],
			qr/number of transactions actually processed: 200\/200/,
			"$order: $protocol protocol");

		# and a wait that sleeps, past a clean-up record
		pause($standby);
		$primary->safe_psql('postgres', 'UPDATE v SET i = i + 1');
		$primary->safe_psql('postgres', 'VACUUM v');
		my $rows = $primary->safe_psql('postgres', 'INSERT INTO v VALUES (1); SELECT count(*) FROM v');
		my $target = write_wal($primary);
		my $sleeping = IPC::Run::start(
			[ 'pgbench', '-n', '-c', 10, '-t', 1, '-M', $protocol, '-D', "lsn=$target", '-D', 'timeout=0',
				'-h', $standby->host, '-p', $standby->port, '-f', $script, 'postgres' ],
			'>', \my $out, '2>', \my $err);
		await_waiters($standby, 10);
		my $reading = IPC::Run::start(
			[ 'pgbench', '-n', '-c', 10, '-t', 1, '-M', $protocol, '-D', "lsn=$target", '-D', 'timeout=0', '-D', "rows=$rows",
				'-h', $standby->host, '-p', $standby->port, '-f', $by_itself, 'postgres' ],
			'>', \$out, '2>', \my $errors);
		await_waiters($standby, 20);
		is( $standby->safe_psql('postgres',
				'SELECT count(*) FROM pg_stat_activity a, lsn_waiters() w WHERE a.pid = w.pid AND backend_xmin IS NULL'),
			'20',
			"$order: $protocol protocol, waiters hold no snapshot");
		resume($standby);
		ok($sleeping->finish, "$order: $protocol protocol, woken") or diag($err);
		ok($reading->finish, "$order: $protocol protocol, a read that waits by itself") or diag($errors);
	}

	if ($order ne 'alone')
	{
		is( $standby->safe_psql('postgres', q{SELECT calls > 0 AND rows = calls FROM pg_stat_statements WHERE query = 'SELECT lsn_require($1, $2)'}),
			't', "$order: pg_stat_statements counts it");
		like(slurp_file($standby->logfile), qr/Query Text: SELECT lsn_require\(\$1, \$2\);/, "$order: auto_explain logs it");
	}
	is($standby->safe_psql('postgres', 'SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts'), '0', "$order: nothing was cancelled");
	$standby->stop;
	$primary->stop;
}

done_testing();
