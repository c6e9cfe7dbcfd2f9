# The read waits by itself: with lsn_tracker.token set, each kind of statement waits
# before it starts, holding up nothing, and answers with a fresh snapshot.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $never = 'FFFFFFFF/F0000000@1';

# psql answers in several lines; what a statement shows at last
sub last_line { my ($out) = @_; return (split /\n/, $out)[-1] // ''; }

# How each kind of statement counts the rows of a view.  In front of the SET that
# demands the token, the statement itself, and how to end.
my %kinds = (
	'SELECT' => [ '', 'SELECT count(*) FROM v', '' ],
	'SELECT in a block' => [ 'BEGIN; SELECT 1', 'SELECT count(*) FROM v', 'COMMIT' ],
	'SELECT in a block that has read the table' => [ 'BEGIN; SELECT count(*) FROM v', 'SELECT count(*) FROM v', 'COMMIT' ],
	'SELECT in a savepoint' => [ 'BEGIN; SELECT 1; SAVEPOINT a', 'SELECT count(*) FROM v', 'RELEASE a; COMMIT' ],
	'several statements in a string' => [ '', 'SELECT 1\; SELECT count(*) FROM v', '' ],
	'join, CTE, subquery' => [ '', 'WITH a AS (SELECT * FROM v) SELECT count(*) FROM a JOIN v USING (i) WHERE i IN (SELECT i FROM v)', '' ],
	'partitions' => [ '', 'SELECT count(*) FROM parts', '' ],
	'view' => [ '', 'SELECT count(*) FROM seen', '' ],
	'parallel query' => [ 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0', 'SELECT count(*) FROM v', 'RESET ALL' ],
	'foreign table' => [ '', 'SELECT count(*) FROM far', '' ],
	'function, stable SQL' => [ '', 'SELECT in_sql()', '' ],
	'function, stable PL/pgSQL with a FOR loop' => [ '', 'SELECT in_loop()', '' ],
	'function, volatile' => [ '', 'SELECT in_volatile()', '' ],
	'EXECUTE' => [ 'PREPARE p AS SELECT count(*) FROM v', 'EXECUTE p', 'DEALLOCATE p' ],
	'EXECUTE, generic plan' => [ 'SET plan_cache_mode = force_generic_plan; PREPARE p(int) AS SELECT count(*) FROM v WHERE i > $1', 'EXECUTE p(0)', 'DEALLOCATE p; RESET ALL' ],
	'EXECUTE, custom plan' => [ 'SET plan_cache_mode = force_custom_plan; PREPARE p(int) AS SELECT count(*) FROM v WHERE i > $1', 'EXECUTE p(0)', 'DEALLOCATE p; RESET ALL' ],
	'DECLARE CURSOR' => [ 'BEGIN', "DECLARE c CURSOR FOR SELECT count(*) FROM v;\nFETCH c", 'COMMIT' ],
	'DECLARE CURSOR WITH HOLD' => [ '', "DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM v;\nFETCH c", 'CLOSE c' ],
	'COPY query' => [ '', 'COPY (SELECT count(*) FROM v) TO STDOUT', '' ],
	'EXPLAIN ANALYZE' => [ '', 'EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, SUMMARY OFF) SELECT * FROM v', '' ],
	'DO' => [ '', "DO \$\$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM v; PERFORM set_config('my.n', n::text, false); END \$\$;\nSHOW my.n", '' ],
	'CALL' => [ '', 'CALL in_procedure(NULL)', '' ],
	'REPEATABLE READ, first statement' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM v', 'COMMIT' ],
	'REPEATABLE READ, first in a savepoint' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a', 'SELECT count(*) FROM v', 'COMMIT' ],
	'REPEATABLE READ, EXECUTE' => [ 'PREPARE p AS SELECT count(*) FROM v; BEGIN ISOLATION LEVEL REPEATABLE READ', 'EXECUTE p', 'COMMIT; DEALLOCATE p' ],
	'REPEATABLE READ, DECLARE CURSOR' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ', "DECLARE c CURSOR FOR SELECT count(*) FROM v;\nFETCH c", 'COMMIT' ],
	'REPEATABLE READ, COPY' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'COPY (SELECT count(*) FROM v) TO STDOUT', 'COMMIT' ],
	'REPEATABLE READ without a block' => [ "SET default_transaction_isolation = 'repeatable read'", 'SELECT count(*) FROM v', 'RESET ALL' ],
	'BEGIN of REPEATABLE READ' => [ '', "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM v", 'COMMIT' ],
	'BEGIN, SET TRANSACTION' => [ '', "BEGIN;\nSET TRANSACTION ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM v", 'COMMIT' ]);

# a foreign table, where there is the module
my $far = '';
if (lacks('postgres_fdw.so'))
{
	delete $kinds{'foreign table'};
}
else
{
	$far = <<'SQL';
CREATE EXTENSION postgres_fdw;
CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER here;
CREATE FOREIGN TABLE far (i int) SERVER here OPTIONS (table_name 'v');
SQL
}

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("gate_$mode", "lsn_tracker.wakeup = $mode", 'max_standby_streaming_delay = -1', 'hot_standby_feedback = off', 'autovacuum = off', "lsn_tracker.default_timeout = '60s'");
	my $session = session($standby);
	my ($out, $err);

	$primary->safe_psql('postgres', <<SQL);
CREATE TABLE v AS SELECT generate_series(1, 1000) AS i;
CREATE TABLE parts (i int) PARTITION BY RANGE (i);
CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (500);
CREATE TABLE part2 PARTITION OF parts FOR VALUES FROM (500) TO (100000000);
INSERT INTO parts SELECT i FROM v;
CREATE VIEW seen AS SELECT i FROM v;
CREATE FUNCTION in_sql() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM v';
CREATE FUNCTION in_volatile() RETURNS bigint VOLATILE LANGUAGE plpgsql AS \$\$ BEGIN RETURN (SELECT count(*) FROM v); END \$\$;
CREATE FUNCTION in_loop() RETURNS bigint STABLE LANGUAGE plpgsql AS
\$\$ DECLARE n bigint := 0; r record; BEGIN FOR r IN SELECT i FROM v LOOP n := n + 1; END LOOP; RETURN n; END \$\$;
CREATE PROCEDURE in_procedure(INOUT n bigint) LANGUAGE plpgsql AS
\$\$ DECLARE r record; BEGIN n := 0; COMMIT; FOR r IN SELECT i FROM v LOOP n := n + 1; END LOOP; END \$\$;
SQL
	$primary->safe_psql('postgres', sprintf($far, $standby->host, $standby->port)) if $far;
	catch_up($primary, $standby);

	my $rows = 1000;
	foreach my $kind (sort keys %kinds)
	{
		my ($begin, $statement, $end) = @{ $kinds{$kind} };

		finish_wait(start_wait($session, $begin =~ s/; /;\n/gr)) if $begin;

		# The clean-up of what the statement's own snapshot, if it kept it, would
		# have needed, and behind it a row more.
		pause($standby);
		$primary->safe_psql('postgres', "UPDATE v SET i = i + 1;\nUPDATE parts SET i = i + 1;");
		$primary->safe_psql('postgres', 'VACUUM v, parts');
		my $token = $primary->safe_psql('postgres', "INSERT INTO v VALUES (1000000 + $rows * 1000); INSERT INTO parts VALUES (1000000 + $rows * 1000);\nSELECT lsn_last_commit()");
		$rows++;
		start_wait($session, "SET lsn_tracker.token = '$token';\n$statement");
		my $pid = waiting_pid($standby);
		is($standby->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', "$mode, $kind: waits without xmin");
		resume($standby);
		($out, $err) = finish_wait($session);
		# what 044_explain.pl is about
		$err =~ s/^psql\S* NOTICE:  00000: waited [\d.]+ ms for replay.*\nLOCATION: .*$//m if $kind eq 'EXPLAIN ANALYZE';
		my $answer = $kind eq 'EXPLAIN ANALYZE' ? ($out =~ /actual rows=(\d+)/ ? $1 : '') : last_line($out);
		is("$answer$err", $rows, "$mode, $kind: answers with what it waited for");
		finish_wait(start_wait($session, $end =~ s/; /;\n/gr)) if $end;
		finish_wait(start_wait($session, 'RESET lsn_tracker.token'));
		await_waiters($standby, 0);

		# What it can't get is an error, and leaves a session that works and that
		# replay respects.
		finish_wait(start_wait($session, $begin =~ s/; /;\n/gr)) if $begin;
		start_wait($session, "SET lsn_tracker.default_timeout = 50;\nSET lsn_tracker.token = '$never';\n\\set VERBOSITY verbose\n$statement");
		($out, $err) = finish_wait($session);
		like($err, qr/ERROR:  55L01: timed out after 50 ms while waiting for replay of \Q$never/, "$mode, $kind: raises what there is to raise");
		finish_wait(start_wait($session, "ROLLBACK;\nRESET ALL;\nDEALLOCATE ALL"));
		await_waiters($standby, 0);
		is($standby->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', "$mode, $kind: no xmin is left");
	}
	is($standby->safe_psql('postgres', 'SELECT sum(confl_snapshot + confl_lock) FROM pg_stat_database_conflicts'), '0', "$mode: nothing was cancelled");

	$session->quit;
	$standby->stop;
	$primary->stop;
}

done_testing();
