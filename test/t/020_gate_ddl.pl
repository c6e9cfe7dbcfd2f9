# What the primary does to the tables of a statement that waits at the gate: the right
# answer all the same, or the error that the primary gives, at once, whatever delay is
# allowed; and replay does not wait for it.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use List::Util qw(max);
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

# What is done, and what the statement then says: the answer of the primary, or an
# error.  40001 is right for those that hold an earlier statement's lock.
my %changes = (
	'VACUUM' => "UPDATE d SET i = i + 1;\nVACUUM d",
	'VACUUM that truncates' => "DELETE FROM d WHERE i > 10;\nVACUUM d",
	'VACUUM FULL' => 'VACUUM FULL d',
	'ANALYZE' => 'ANALYZE d',
	'TRUNCATE' => "TRUNCATE d;\nINSERT INTO d VALUES (1)",
	'ADD COLUMN' => 'ALTER TABLE d ADD COLUMN x int DEFAULT 7',
	'ALTER TYPE' => 'ALTER TABLE d ALTER COLUMN l TYPE numeric USING l * 1.5',
	'DROP COLUMN' => 'ALTER TABLE d DROP COLUMN k',
	'DROP INDEX' => 'DROP INDEX d_i',
	'CREATE INDEX' => 'CREATE INDEX ON d (j)',
	'REINDEX' => 'REINDEX INDEX d_i',
	'DROP TABLE' => 'DROP TABLE d CASCADE',
	'a policy' => "CREATE POLICY p ON d USING (i > 100);\nALTER TABLE d ENABLE ROW LEVEL SECURITY;\nALTER TABLE d FORCE ROW LEVEL SECURITY",
	'a view' => 'CREATE OR REPLACE VIEW w AS SELECT i, j FROM d WHERE i < 50',
	'a partition attached' => 'ALTER TABLE parts ATTACH PARTITION apart FOR VALUES FROM (1000) TO (2000)',
	'a partition detached' => 'ALTER TABLE parts DETACH PARTITION part',
	'a child' => "CREATE TABLE child () INHERITS (d);\nINSERT INTO child VALUES (1, 1, 1)",
	'a function' => q{CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 2'},
	'a constraint' => 'ALTER TABLE d ADD CHECK (i >= 0)');

my $ask = "SELECT (SELECT count(*) FROM d), (SELECT sum(l)::text FROM d), (SELECT sum(i) FROM d WHERE i BETWEEN 5 AND 500), (SELECT count(*) FROM w), (SELECT count(*) FROM parts), f()";
my $make = <<'SQL';
DROP TABLE IF EXISTS d, parts, apart, part, child CASCADE;
CREATE TABLE d (i int, j int, k int, l int);
INSERT INTO d SELECT i, i, i, i FROM generate_series(1, 1000) i;
CREATE INDEX d_i ON d (i);
CREATE VIEW w AS SELECT i, j FROM d;
CREATE TABLE parts (i int) PARTITION BY RANGE (i);
CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE apart (i int);
INSERT INTO part SELECT generate_series(0, 99);
INSERT INTO apart SELECT generate_series(1000, 1009);
CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
SQL

# The ways to ask, and whether the answer has to be the primary's, or may be 40001
my %ways = (
	'SELECT' => [ '', $ask, '', 'right' ],
	'SELECT, first of a block' => [ 'BEGIN', $ask, 'COMMIT', 'right' ],
	'SELECT, first of REPEATABLE READ' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ', $ask, 'COMMIT', 'right' ],
	'SELECT, in a savepoint' => [ "BEGIN;\nSAVEPOINT a", $ask, 'COMMIT', 'right' ],
	'SELECT, behind a read of the same' => [ "BEGIN;\n$ask", $ask, 'COMMIT', 'or 40001' ],
	'EXECUTE' => [ "PREPARE p AS $ask", 'EXECUTE p', 'DEALLOCATE p', 'right' ],
	'COPY' => [ '', "COPY ($ask) TO STDOUT (DELIMITER '|', NULL '')", '', 'right' ],
	'DECLARE CURSOR' => [ 'BEGIN', "DECLARE c CURSOR FOR $ask;\nFETCH c", 'COMMIT', 'right' ],
	'DECLARE CURSOR WITH HOLD' => [ '', "DECLARE c CURSOR WITH HOLD FOR $ask;\nFETCH c", 'CLOSE c', 'right' ]);

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("ddl_$mode", "lsn_tracker.wakeup = $mode", 'hot_standby_feedback = off', 'autovacuum = off', "lsn_tracker.default_timeout = '60s'", 'restart_after_crash = off');
	my $owner = 'SET SESSION AUTHORIZATION owner';

	# a superuser would not see the policy
	$primary->safe_psql('postgres', 'CREATE ROLE owner LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO owner');
	foreach my $delay ($mode eq 'redo' ? (-1, 0) : (-1))
	{
		$standby->safe_psql('postgres', "ALTER SYSTEM SET max_standby_streaming_delay = $delay");
		$standby->reload;
		foreach my $change (sort keys %changes)
		{
			$primary->safe_psql('postgres', "$owner;\n$make");
			catch_up($primary, $standby);

			my @names = sort keys %ways;
			my %session = map { $_ => session($standby) } @names;
			finish_wait(start_wait($session{$_}, "$owner;\n$ways{$_}[0]")) foreach @names;
			pause($standby);
			$primary->safe_psql('postgres', "$owner;\n$changes{$change}");
			my $token = $primary->safe_psql('postgres', "INSERT INTO t VALUES (1);\nSELECT lsn_last_commit()");
			my ($ret, $right, $wrong) = $primary->psql('postgres', "$owner;\n$ask");
			my ($error) = $wrong =~ /ERROR:  (.*)/;
			start_wait($session{$_}, "SET lsn_tracker.token = '$token';\n\\set VERBOSITY verbose\n$ways{$_}[1]") foreach @names;
			await_waiters($standby, scalar @names);
			my $start = time;
			resume($standby);
			foreach my $name (@names)
			{
				my ($out, $err) = finish_wait($session{$name});
				my $took = time - $start;
				my $is_right = $error ? $err =~ /\Q$error\E/ : $out eq $right && $err eq '';
				my $conflict = $ways{$name}[3] ne 'right' && $err =~ /ERROR:  40001: .*\n(?:.*\n)*HINT:  Repeat/;

				ok($is_right || $conflict, "$mode, delay $delay, $change: $name" . ($conflict ? ' (to be repeated)' : '')) or diag("$out|$err, right: $right$wrong");
				cmp_ok($took, '<', 5, 'in time') if $took >= 1;
				finish_wait(start_wait($session{$name}, 'ROLLBACK'));
				$session{$name}->quit;
			}
			await_waiters($standby, 0);
			is($standby->safe_psql('postgres', "SELECT lsn_wait('$token')"), 't', "$mode, delay $delay, $change: replayed");
		}
	}

	# Locks that others count on are held on: the wait gives way instead.
	foreach my $lock ('SELECT pg_advisory_xact_lock(5)', 'LOCK TABLE t IN ROW EXCLUSIVE MODE', 'SELECT count(*) FROM t')
	{
		$primary->safe_psql('postgres', "$owner;\n$make");
		catch_up($primary, $standby);
		my $session = session($standby);
		finish_wait(start_wait($session, "BEGIN;\n$lock"));
		pause($standby);
		$primary->safe_psql('postgres', "$owner;\nTRUNCATE d");
		my $token = write_token($primary);
		start_wait($session, "SET lsn_tracker.token = '$token';\n\\set VERBOSITY verbose\nSELECT count(*) FROM d");
		await_waiters($standby, 1);
		resume($standby);
		like((finish_wait($session))[1], qr/ERROR:  40001: the wait for replay gives way/, "$mode: behind $lock");
		$session->quit;
	}
	$standby->stop;
	$primary->stop;
}

done_testing();
