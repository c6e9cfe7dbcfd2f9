# A waiter holds no snapshot: it does not hold up the replay it waits for.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('snapshot', 'max_standby_streaming_delay = 1h',
	'max_standby_archive_delay = 1h', 'hot_standby_feedback = off');

sub conflicts
{
	return $standby->safe_psql('postgres',
		'SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts');
}

$primary->safe_psql('postgres',
	'CREATE TABLE v AS SELECT generate_series(1, 1000) AS i');
catch_up($primary, $standby);

my $session = session($standby);

# For each way to call it: the wait begins, then the clean-up is replayed.
my %calls = (
	'statement of its own' => [ '', "lsn_wait('TARGET', 0)", '' ],
	'transaction block' => [ 'BEGIN; SELECT 1;', "lsn_wait('TARGET', 0)", 'COMMIT' ],
	'first statement in REPEATABLE READ' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ;', "lsn_wait('TARGET', 0)", 'COMMIT' ],
	'first statement in REPEATABLE READ, in a savepoint' => [ 'BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a;', "lsn_require('TARGET', 0) IS NOT NULL", 'COMMIT' ],
	'savepoint' => [ 'BEGIN; SAVEPOINT a; SELECT 1; SAVEPOINT b;', "lsn_wait('TARGET', 0)", 'COMMIT' ],
	'second call in a statement' => [ '', "lsn_wait('0/1') AND lsn_wait('TARGET', 0)", '' ],
	'several rows' => [ '', "bool_and(lsn_wait('TARGET', 0)) FROM generate_series(1, 3)", '' ],
	'behind a catalog look-up' => [ '', "to_regclass('no_such_relation') IS NULL AND lsn_wait('TARGET', 0)", '' ],
	'lsn_require' => [ '', "lsn_require('TARGET', 0) IS NOT NULL", '' ],
	'lsn_watch' => [ '', "lsn_watch('TARGET'::pg_lsn - 1, 0) >= 'TARGET'", '' ],
	'lsn_await_notification' =>
	  [ "SELECT lsn_request_notification('TARGET');", 'lsn_await_notification(0)', '' ]);
foreach my $how (sort keys %calls)
{
	my ($begin, $call, $end) = @{ $calls{$how} };

	pause($standby);
	my $target = write_clean_up($primary, 'v');
	s/TARGET/$target/g foreach ($begin, $call);
	$session->query($begin) if $begin;
	start_wait($session, "SELECT $call");
	my $pid = waiting_pid($standby);
	is( $standby->safe_psql('postgres',
			"SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = $pid"),
		't', "$how: backend_xmin of the waiting session is NULL");
	resume($standby);
	is((finish_wait($session))[0], 't', "$how: true, past the clean-up record");
	$session->query($end) if $end;
}
is(conflicts(), '0', 'nothing was cancelled');

# What that is worth: with a snapshot held, the same wait gets nowhere until its
# time is up, since replay waits for the waiter.
pause($standby);
my $target = write_clean_up($primary, 'v');
start_wait($session,
	"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SET LOCAL lsn_tracker.allow_held_snapshot = on; SELECT lsn_wait('$target', 3000); COMMIT"
);
await_waiters($standby, 1);
resume($standby);
is((finish_wait($session))[0], "1\nf", 'allow_held_snapshot: the wait holds up replay');
is($session->query("SELECT lsn_wait('$target')"), 't', 'and replay goes on once the snapshot is gone');

# Each way of holding a snapshot is refused, at once although nothing had to be
# waited for, and the session is usable afterwards.
$primary->safe_psql('postgres', <<'SQL');
CREATE FUNCTION in_plpgsql(l pg_lsn) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN lsn_wait(l); END $$;
CREATE FUNCTION in_stable(l pg_lsn) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN lsn_wait(l); END $$;
CREATE FUNCTION in_sql(l pg_lsn) RETURNS boolean LANGUAGE sql AS $$ SELECT 1; SELECT lsn_wait(l) $$;
CREATE FUNCTION lazily() RETURNS SETOF int LANGUAGE sql VOLATILE AS $$ SELECT i FROM v LIMIT 3 $$;
SQL
catch_up($primary, $standby);
my %held = (
	'REPEATABLE READ, in use' => [ "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT lsn_wait('0/1')", 'REPEATABLE READ or SERIALIZABLE' ],
	'reads a relation' => [ "SELECT lsn_wait('0/1') FROM v", 'also reads a table' ],
	'reads a relation in a subquery' => [ "SELECT lsn_wait('0/1'), (SELECT max(i) FROM v)", 'also reads a table' ],
	'open cursor' => [ "BEGIN; DECLARE c CURSOR FOR SELECT i FROM v; SELECT lsn_wait('0/1')", 'open cursor' ],
	'a function that is still returning rows' => [ "SELECT lazily(), lsn_wait('0/1')", 'have not all been fetched' ],
	'EXECUTE' => [ "PREPARE p AS SELECT lsn_wait('0/1'); EXECUTE p", 'EXECUTE' ],
	'EXPLAIN ANALYZE' => [ "EXPLAIN ANALYZE SELECT lsn_wait('0/1')", 'EXPLAIN' ],
	'COPY' => [ "COPY (SELECT lsn_wait('0/1')) TO STDOUT", 'another command' ],
	'DO block' => [ "DO 'BEGIN PERFORM lsn_wait(''0/1''); END'", 'DO block' ],
	'PL/pgSQL function' => [ "SELECT in_plpgsql('0/1')", 'from a function' ],
	'stable PL/pgSQL function' => [ "SELECT in_stable('0/1')", 'from a function' ],
	'SQL function' => [ "SELECT in_sql('0/1')", 'from a function' ]);
foreach my $how (sort keys %held)
{
	my ($sql, $why) = @{ $held{$how} };
	my (undef, $err) = finish_wait(start_wait($session, "\\set VERBOSITY verbose\n$sql"));

	like($err, qr/ERROR:  55000: cannot wait for replay while this session holds a snapshot\nDETAIL:  .*\Q$why\E.*\nHINT:  Wait as the first statement/,
		"refused: $how");
	finish_wait(start_wait($session, 'ROLLBACK; DEALLOCATE ALL'));
	my $lsn = write_wal($primary);
	is($session->query("SELECT lsn_wait('$lsn')"), 't', "usable after: $how");
}
is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', 'the queue is empty');

# A query of the extended protocol whose rows have not all been fetched is held
# open like a cursor; psql's FETCH_COUNT declares one.
my (undef, undef, $err) = $standby->psql('postgres', "\\set FETCH_COUNT 1\nSELECT lsn_wait('0/1') FROM generate_series(1, 3)");
is($err, '', 'the function itself can be called through a cursor');

$session->quit;
$standby->stop;
$primary->stop;
done_testing();
