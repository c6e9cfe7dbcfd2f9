# A target in the statement: SELECT ... FROM orders, lsn_require($1, $2) waits before
# it starts, reads what it waited for, and needs no other statement.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('target', 'max_standby_streaming_delay = -1', 'hot_standby_feedback = off', 'autovacuum = off');
my $never = 'FFFFFFFF/F0000000@1';
my $session = session($standby);
my ($out, $err);

$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE v AS SELECT generate_series(1, 1000) AS i;
CREATE FUNCTION requires() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN count(*) FROM v, lsn_require('0/1'); END $$;
CREATE FUNCTION sql_requires() RETURNS SETOF bigint LANGUAGE sql AS $$ SELECT count(*) FROM v, lsn_require('0/1') $$;
CREATE VIEW required AS SELECT count(*) FROM v, lsn_require('0/1');
SQL
catch_up($primary, $standby);
my $rows = 1000;

# TOKEN, LSN and XID stand for what has just been written, behind a VACUUM.
my %forms = (
	'token' => [ '', "SELECT count(*) FROM v, lsn_require('TOKEN', 20000)", '' ],
	'position' => [ '', "SELECT count(*) FROM v, lsn_require('LSN'::pg_lsn, 20000)", '' ],
	'lsn_wait' => [ '', "SELECT count(*) FROM v, lsn_wait('TOKEN', 20000) AS ok WHERE ok", '' ],
	'lsn_wait_xact' => [ '', "SELECT count(*) FROM v, lsn_wait_xact('XID', 20000) AS ok WHERE ok", '' ],
	'two' => [ '', "SELECT count(*) FROM lsn_wait_xact('XID', 20000), v, lsn_require('TOKEN', 20000)", '' ],
	'its column' => [ '', "SELECT count(*) FROM (SELECT r, i FROM v, lsn_require('TOKEN', 20000) AS r) x", '' ],
	'an outer join' => [ '', "SELECT count(*) FROM v LEFT JOIN lsn_require('TOKEN', 20000) AS r ON i > 0", '' ],
	'the other side of it' => [ '', "SELECT count(*) FROM lsn_require('TOKEN', 20000) AS r LEFT JOIN v ON true", '' ],
	'ROWS FROM' => [ '', "SELECT count(*) FROM v, ROWS FROM (lsn_wait('TOKEN', 20000), generate_series(1, 1)) AS r (ok, n) WHERE ok", '' ],
	'join' => [ '', "SELECT count(*) FROM lsn_wait('TOKEN', 20000) AS ok JOIN v ON ok LEFT JOIN pg_class ON oid = i", '' ],
	'subquery' => [ '', "SELECT count(*) FROM v WHERE (SELECT ok FROM lsn_wait('TOKEN', 20000) AS ok)", '' ],
	'CTE' => [ '', "WITH w AS MATERIALIZED (SELECT ok FROM lsn_wait('TOKEN', 20000) AS ok) SELECT count(*) FROM v, w WHERE ok", '' ],
	'UNION' => [ '', "SELECT sum(n) FROM (SELECT count(*) AS n FROM v UNION ALL SELECT 0 FROM lsn_require('TOKEN', 20000)) x", '' ],
	'a cast and an expression' => [ '', "SELECT count(*) FROM v, lsn_require(('LSN' || '\@' || (0 + 1))::text, 20000)", '' ],
	'block' => [ 'BEGIN; SELECT count(*) FROM v', "SELECT count(*) FROM v, lsn_require('TOKEN', 20000)", 'COMMIT' ],
	'savepoint' => [ 'BEGIN; SAVEPOINT a', "SELECT count(*) FROM v, lsn_require('TOKEN', 20000)", 'COMMIT' ],
	'REPEATABLE READ' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ', "SELECT count(*) FROM v, lsn_require('TOKEN', 20000)", 'COMMIT' ],
	'with a token that is owed' => [ "SET lsn_tracker.token = 'TOKEN'", "SELECT count(*) FROM v, lsn_require('LSN', 20000)", 'RESET lsn_tracker.token' ]);
foreach my $form (sort keys %forms)
{
	my ($begin, $statement, $end) = @{ $forms{$form} };

	pause($standby);
	write_clean_up($primary, 'v');
	my ($xid, $token) = split /\n/, $primary->safe_psql('postgres', "INSERT INTO v VALUES (10000000 + $rows * 1000) RETURNING pg_current_xact_id();\nSELECT lsn_last_commit()");
	my $lsn = $token =~ s/@.*//r;
	s/TOKEN/$token/g, s/LSN/$lsn/g, s/XID/$xid/g foreach $begin, $statement;
	$rows++;
	finish_wait(start_wait($session, $begin =~ s/; /;\n/r)) if $begin;
	start_wait($session, $statement);
	my $pid = waiting_pid($standby);
	is($standby->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', "$form: waits without xmin");
	resume($standby);
	($out, $err) = finish_wait($session);
	is("$out$err", $rows, "$form: reads what it waited for");
	finish_wait(start_wait($session, $end)) if $end;
}
is($standby->safe_psql('postgres', 'SELECT sum(confl_snapshot + confl_lock) FROM pg_stat_database_conflicts'), '0', 'nothing was cancelled');

# Bound parameters, and plans that are made once
my $lsn = insert_lsn($primary);
catch_up($primary, $standby);
foreach my $mode (qw(force_generic_plan force_custom_plan))
{
	foreach my $protocol (qw(extended prepared))
	{
		my $script = $standby->basedir . "/$protocol.sql";
		append_to_file($script, "SELECT count(*) AS n FROM v, lsn_require(:lsn, :timeout) \\gset\nSELECT count(*) AS m FROM v, lsn_wait(:lsn, :timeout) AS ok WHERE ok \\gset\nSELECT 1 / CASE WHEN :n = :rows AND :m = :rows THEN 1 ELSE 0 END;\n") unless -e $script;
		local $ENV{PGOPTIONS} = "-c plan_cache_mode=$mode";
		foreach my $node ($primary, $standby)
		{
			command_like([ 'pgbench', '-n', '-c', 4, '-t', 50, '-M', $protocol, '-D', "lsn=$lsn", '-D', 'timeout=5000', '-D', "rows=$rows",
					'-h', $node->host, '-p', $node->port, '-f', $script, 'postgres' ],
				qr/number of transactions actually processed: 200\/200/, "$mode, $protocol, " . $node->name);
		}
	}
}

# Time-outs: once, and what follows from it
my $start = time;
is($standby->safe_psql('postgres', "SELECT ok, count(*) FROM v, lsn_wait('$never', 300) AS ok GROUP BY ok"), "f|$rows", 'lsn_wait: false after a time-out, for each row');
cmp_ok(time - $start, '<', 30, 'and has waited once');
like(sqlstate($standby, "SELECT count(*) FROM v, lsn_require('$never', 50)"), qr/^55L01: timed out after 50 ms/, 'lsn_require raises');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM v, lsn_wait(NULL::text) AS ok WHERE ok IS NULL'), $rows, 'NULL is not waited for');
like(sqlstate($standby, "SELECT count(*) FROM v, lsn_require('x')"), qr/^22P02/, 'no token');
like(sqlstate($standby, "SELECT count(*) FROM v, lsn_require('0/1', -1)"), qr/^22023/, 'no timeout');

# A transaction's statements do not take one another's answers.
start_wait($session, "BEGIN;\nSELECT ok FROM v, lsn_wait('$never', 50) AS ok LIMIT 1;\nSELECT ok FROM v, lsn_wait('0/1', 50) AS ok LIMIT 1;\nSELECT ok FROM v, lsn_wait('$never', 50) AS ok LIMIT 1;\nCOMMIT");
is(join(' ', split /\n/, finish_wait($session)), 'f t f', 'each statement has its own');

# Refused where it can't be known before: with a hint at this form, on every call
foreach my $node ($standby, $primary)
{
	foreach my $sql ("SELECT count(*) FROM v WHERE lsn_wait('0/1')", "SELECT lsn_wait('0/1') FROM v", "SELECT count(*) FROM v, lsn_require((SELECT min('0/1'::text) FROM v))",
		"SELECT count(*) FROM v, LATERAL lsn_wait('0/' || i) AS ok", "SELECT count(*) FROM v, lsn_require(CASE WHEN random() < 2 THEN '0/1' END)",
		"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT count(*) FROM v, lsn_require('0/1')",
		# also where the session knows that there is nothing to wait for
		"SELECT lsn_wait('0/1'); BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT count(*) FROM v, lsn_require('0/1')",
		"SELECT lsn_wait('0/1'); BEGIN; DECLARE c CURSOR FOR SELECT i FROM v; SELECT count(*) FROM v, lsn_require('0/1')",
		"BEGIN; DECLARE c CURSOR FOR SELECT i FROM v; SELECT count(*) FROM v, lsn_require('0/1')")
	{
		my (undef, undef, $e) = $node->psql('postgres', $sql =~ s/; /;\n/gr);
		like($e, qr/cannot wait for replay while this session holds a snapshot.*HINT:  .*FROM orders, lsn_require\(\$1\)/s, $node->name . ": refused: $sql");
	}
}

# The plan of lsn_require() is that of the statement without it, also in parallel.
my $parallel = 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off';
my @plans = map { $standby->safe_psql('postgres', "$parallel;\nEXPLAIN (COSTS OFF) SELECT count(*) FROM v$_") } '', ", lsn_require('$lsn'::pg_lsn)", ", lsn_require('$lsn\@1', 1000)";
like($plans[0], qr/Parallel Seq Scan/, 'a parallel plan');
is($plans[$_], $plans[0], 'with lsn_require(), too') foreach 1, 2;
is($standby->safe_psql('postgres', "$parallel;\nSELECT count(*) FROM v, lsn_require('$lsn')"), $rows, 'which works');
like($standby->safe_psql('postgres', "EXPLAIN (VERBOSE) SELECT * FROM v, lsn_require('$never', 50)"), qr/Seq Scan/, 'EXPLAIN does not wait for it');
is($standby->safe_psql('postgres', "SELECT * FROM v, lsn_require('$lsn') AS r ORDER BY i LIMIT 1"), $standby->safe_psql('postgres', 'SELECT min(i) FROM v') . '|', 'and its column is empty');

# Nor can the planner drop it, together with the place where it stands.
foreach my $sql ("WITH w AS (SELECT FROM lsn_require('$never', 50)) SELECT count(*) FROM v", "SELECT count(*) FROM v LEFT JOIN (SELECT DISTINCT 1 AS i FROM lsn_require('$never', 50)) x USING (i)",
	"SELECT i FROM v UNION ALL SELECT 1 FROM lsn_require('$never', 50) WHERE false", "SELECT count(*) FROM v WHERE true OR EXISTS (SELECT FROM lsn_require('$never', 50))",
	"SELECT count(*) FROM v WHERE i IN (SELECT 1 FROM (SELECT FROM lsn_require('$never', 50)) x)")
{
	like(sqlstate($standby, $sql), qr/^55L01: timed out after 50 ms/, "waited for: $sql");
}

# Where the gate does not wait, a statement that has none in its plan is refused all the same.
foreach my $node ($standby, $primary)
{
	foreach my $sql ("PREPARE p AS SELECT count(*) FROM v, lsn_require('0/1'); EXECUTE p", "BEGIN; DECLARE c CURSOR FOR SELECT count(*) FROM v, lsn_require('0/1'); FETCH c",
		"COPY (SELECT count(*) FROM v, lsn_require('0/1')) TO STDOUT", "EXPLAIN (ANALYZE) SELECT count(*) FROM v, lsn_require('0/1')",
		'SELECT requires()', 'SELECT sql_requires()', 'SELECT count(*) FROM v, sql_requires()')
	{
		my (undef, undef, $e) = $node->psql('postgres', $sql =~ s/; /;\n/gr);
		like($e, qr/cannot wait for replay while this session holds a snapshot/, $node->name . ": refused: $sql");
		like($node->safe_psql('postgres', "SET lsn_tracker.allow_held_snapshot = on;\n" . $sql =~ s/; /;\n/gr), qr/^(?:$rows\z|Aggregate)/, $node->name . ": allowed: $sql");
	}
}
like(sqlstate($primary, "CREATE TABLE c AS SELECT i FROM v, lsn_require('0/1')"), qr/^55000/, 'nor in CREATE TABLE AS');
is($primary->safe_psql('postgres', "BEGIN;\nCREATE OR REPLACE FUNCTION lsn_require(target text, timeout bigint DEFAULT NULL) RETURNS void LANGUAGE sql AS 'SELECT';\nPREPARE p AS SELECT count(*) FROM v, lsn_require('0/1');\nEXECUTE p;\nROLLBACK"),
	$rows, 'one of another kind is another function');
my (undef, undef, $replaced) = $primary->psql('postgres', <<'SQL', on_error_stop => 0);
PREPARE p AS SELECT count(*) FROM v, lsn_require('0/1');
EXECUTE p;
BEGIN;
CREATE OR REPLACE FUNCTION lsn_require(target text, timeout bigint DEFAULT NULL) RETURNS void LANGUAGE sql AS 'SELECT 1/0';
EXECUTE p;
ROLLBACK;
SQL
like($replaced, qr/cannot wait.*division by zero/s, 'a plan is made anew when the function is replaced');
$primary->safe_psql('postgres', 'REVOKE EXECUTE ON FUNCTION lsn_require(text, bigint) FROM PUBLIC; CREATE ROLE anybody; GRANT SELECT ON v TO anybody');
like(sqlstate($primary, "SET ROLE anybody;\nSELECT count(*) FROM v, lsn_require('0/1')"), qr/^42501: permission denied for function lsn_require/, 'its privileges count');
is($primary->safe_psql('postgres', "SET ROLE anybody;\nSELECT count(*) FROM v, lsn_require('0/1'::pg_lsn)"), $rows, 'and those of the other');

# A view that requires something, and a function
is($standby->safe_psql('postgres', 'SELECT * FROM required'), $rows, 'in a view');
like(sqlstate($standby, "DO \$\$ BEGIN PERFORM count(*) FROM v, lsn_require('0/1'); END \$\$"), qr/^55000/, 'not in a DO block');

$session->quit;
$standby->stop;
$primary->stop;
done_testing();
