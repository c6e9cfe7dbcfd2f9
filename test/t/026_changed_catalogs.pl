# What a statement waits for changes what its names mean, in ways that no lock of the statement
# hinders: schemas change places, a function is dropped and made again.  The statement has been
# analysed or planned by then, and must mean what they mean now.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use Debugger;
use LsnPair;

my ($primary, $standby) = new_pair('catalogs', "lsn_tracker.default_timeout = '60s'", 'lsn_tracker.track_reads = on');
$primary->safe_psql('postgres', <<'SQL');
CREATE SCHEMA live;
CREATE SCHEMA new;
CREATE TABLE live.t AS SELECT 'old' AS i;
CREATE TABLE new.t AS SELECT 'new' AS i UNION ALL SELECT 'new';
CREATE PROCEDURE live.p(INOUT a text) LANGUAGE plpgsql AS $$ BEGIN a := 'old'; END $$;
CREATE PROCEDURE new.p(INOUT a text) LANGUAGE plpgsql AS $$ BEGIN a := 'new'; END $$;
CREATE FUNCTION g() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'old' $$;
CREATE TABLE parts (i text) PARTITION BY LIST (i);
CREATE TABLE apart AS SELECT 'new' AS i;
SQL
my $change = <<'SQL';
BEGIN;
ALTER SCHEMA live RENAME TO old;
ALTER SCHEMA new RENAME TO live;
DROP FUNCTION g();
CREATE FUNCTION g() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'new' $$;
ALTER TABLE parts ATTACH PARTITION apart FOR VALUES IN ('new');
COMMIT;
SQL
my $back = <<'SQL';
BEGIN;
ALTER SCHEMA live RENAME TO new;
ALTER SCHEMA old RENAME TO live;
CREATE OR REPLACE FUNCTION g() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'old' $$;
ALTER TABLE parts DETACH PARTITION apart;
COMMIT;
SQL

# In front of the token; the statement; what it says
my %ways = (
	'SELECT' => [ '', 'SELECT i FROM live.t LIMIT 1', 'new' ],
	'SELECT of a partition' => [ '', 'SELECT i FROM parts', 'new' ],
	'SELECT of a function' => [ '', 'SELECT g()', 'new' ],
	'EXECUTE' => [ 'PREPARE p AS SELECT i FROM live.t LIMIT 1', 'EXECUTE p', 'new' ],
	'COPY' => [ '', 'COPY (SELECT i FROM live.t LIMIT 1) TO STDOUT', 'new' ],
	'DECLARE CURSOR' => [ 'BEGIN', "DECLARE c CURSOR FOR SELECT i || g() FROM live.t;\nFETCH c;\nCOMMIT", 'newnew' ],
	'DECLARE CURSOR WITH HOLD' => [ '', "DECLARE c CURSOR WITH HOLD FOR SELECT i || g() FROM live.t;\nFETCH c;\nCLOSE c", 'newnew' ],
	'EXPLAIN ANALYZE' => [ '', "EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, SUMMARY OFF) SELECT i FROM live.t", qr/actual rows=2/ ],
	'CALL' => [ '', 'CALL live.p(NULL)', 'new' ]);

sub said
{
	my ($where, $way, $session) = @_;
	my ($out, $err) = finish_wait($session);
	my $right = $ways{$way}[2];

	$session->quit;
	ref $right ? like($out, $right, "$where: $way") : is($out, $right, "$where: $way");
	unlike($err, qr/ERROR/, "$where: $way: no error");
	return;
}

# On a standby, while replay is paused in front of it
catch_up($primary, $standby);
my %sessions = map { $_ => session($standby) } keys %ways;
$sessions{$_}->query_safe($ways{$_}[0]) foreach grep { $ways{$_}[0] } keys %ways;
pause($standby);
my $token = (split /\n/, $primary->safe_psql('postgres', "$change\nSHOW lsn_tracker.token"))[-1];
start_wait($sessions{$_}, "SET lsn_tracker.token = '$token';\n$ways{$_}[1]") foreach keys %ways;
await_waiters($standby, scalar keys %ways);
resume($standby);
said('standby', $_, $sessions{$_}) foreach sort keys %ways;

# On the primary, while the commit waits for a synchronous standby, and a standby has shown it
$primary->safe_psql('postgres', $back);
catch_up($primary, $standby);
$primary->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$primary->reload;
$primary->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'nobody') or die 'no reload';
%sessions = map { $_ => session($primary) } keys %ways;
$sessions{$_}->query_safe($ways{$_}[0]) foreach grep { $ways{$_}[0] } keys %ways;
my $changing = start_wait(session($primary), $change);
$standby->poll_query_until('postgres', "SELECT to_regnamespace('old') IS NOT NULL") or die 'the standby does not show it';
$token = (split /\n/, $standby->safe_psql('postgres', "TABLE t;\nSHOW lsn_tracker.token"))[-1];
start_wait($sessions{$_}, "SET lsn_tracker.token = '$token';\n$ways{$_}[1]") foreach keys %ways;
$primary->poll_query_until('postgres', "SELECT count(*) = ${\scalar keys %ways} FROM pg_stat_activity WHERE query ~ 'live|parts|EXECUTE|g\\(\\)' AND state = 'active' AND backend_type = 'client backend' AND wait_event IS DISTINCT FROM 'SyncRep' AND pid <> pg_backend_pid()")
  or die 'they do not wait';
$primary->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = ''");
$primary->reload;
finish_wait($changing);
$changing->quit;
said('primary', $_, $sessions{$_}) foreach sort keys %ways;

# Nor while the committer has not yet told the others' caches of what is visible already
SKIP:
{
	skip 'no gdb', 2 if lacks('gdb');
	$primary->safe_psql('postgres', $back);
	catch_up($primary, $standby);
	my $reader = session($primary);
	is($reader->query('SELECT count(*) FROM live.t'), 1, 'the old one');
	$changing = session($primary);
	my $debugger = debugger($changing->query('SELECT pg_backend_pid()'));
	stop_at($debugger, 'AtEOXact_Inval');
	start_wait($changing, $change);
	told($debugger);
	$standby->poll_query_until('postgres', "SELECT to_regnamespace('old') IS NOT NULL") or die 'the standby does not show it';
	$token = (split /\n/, $standby->safe_psql('postgres', "TABLE t;\nSHOW lsn_tracker.token"))[-1];
	start_wait($reader, "SET lsn_tracker.token = '$token';\nSELECT count(*) FROM live.t");
	$primary->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event IN ('Extension', 'LsnVisible') AND backend_type = 'client backend'")
	  or die 'it does not wait';
	let_go($debugger);
	finish_wait($changing);
	is((finish_wait($reader))[0], 2, 'told: reads the new one');
	$_->quit foreach $reader, $changing;
}

$_->stop foreach $standby, $primary;
done_testing();
