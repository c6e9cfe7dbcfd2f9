# A crowd of waiters that hold locks, in blocks, while DDL on their tables is replayed: each
# reads what it waited for, some in another try (40001), replay is not held up, and
# nothing is left behind.

use strict;
use warnings;
use IPC::Run;
use List::Util qw(min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $clients = 120;
my $tables = 20;
my $rounds = 3;

# Each has locks of its own: on what it is about to read, on something else, both, or by
# LOCK TABLE; or only those of the statement that waits.  All then stand still, with what
# they have left.
my $script = <<'SQL';
\set k 1 + :client_id % :tables
\set other 1 + (:client_id + 7) % :tables
\set kind :client_id / :tables
BEGIN;
\if :kind = 0
SELECT count(*) FROM d:k;
\elif :kind = 1
SELECT count(*) FROM quiet;
\elif :kind = 2
SELECT count(*) FROM d:k, d:other;
\elif :kind = 3
LOCK TABLE d:k IN ROW EXCLUSIVE MODE;
\elif :kind = 4
SAVEPOINT a;
\endif
SET LOCAL lsn_tracker.token = ':token@:timeline';
SELECT count(*) AS n, sum(i) AS sum FROM d:k \gset
SELECT 1 / (:n = :rows AND :sum = :right)::int;
COMMIT;
SELECT pg_advisory_lock_shared(1);
SQL

# What is done to the tables, in turn.  50 rows are left of 100.
my @changes = (
	'TRUNCATE d; INSERT INTO d SELECT generate_series(1, 50)',
	"ALTER TABLE d ADD COLUMN j int DEFAULT 3;\nDELETE FROM d WHERE i > 50",
	"DELETE FROM d WHERE i > 50;\nVACUUM d",
	"DROP INDEX d_i;\nDELETE FROM d WHERE i > 50",
	"DELETE FROM d WHERE i > 50;\nVACUUM FULL d",
	"ALTER TABLE d ALTER COLUMN i TYPE bigint;\nDELETE FROM d WHERE i > 50;\nCREATE INDEX ON d (i)");

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("crowd_$mode", "lsn_tracker.wakeup = $mode", 'max_standby_streaming_delay = -1', 'hot_standby_feedback = off', 'autovacuum = off',
		"lsn_tracker.default_timeout = '60s'");
	my $file = $standby->basedir . '/script.sql';
	my $gate = session($standby);
	my $clock = session($standby);
	my (@replayed, @answered);

	append_to_file($file, $script);
	$primary->safe_psql('postgres', 'CREATE TABLE quiet (i int)');
	for my $round (1 .. $rounds)
	{
		$primary->safe_psql('postgres', join ";\n", map { "DROP TABLE IF EXISTS d$_;\nCREATE TABLE d$_ AS SELECT generate_series(1, 100) AS i;\nCREATE INDEX d${_}_i ON d$_ (i)" } 1 .. $tables);
		catch_up($primary, $standby);
		pause($standby);
		finish_wait(start_wait($gate, 'SELECT pg_advisory_lock(1)'));
		$primary->safe_psql('postgres', join ";\n", map { my $k = $_; $changes[ ($k + $round) % @changes ] =~ s/\bd(_i)?\b/"d$k" . ($1 \/\/ '')/ger } 1 .. $tables);
		my ($token, $timeline) = split /@/, write_token($primary);
		my $pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-t', 1, '--max-tries', 100, '-D', "token=$token", '-D', "timeline=$timeline",
				'-D', "tables=$tables", '-D', 'rows=50', '-D', 'right=1275', '-h', $standby->host, '-p', $standby->port, '-f', $file, 'postgres' ],
			'>', \my $out, '2>', \my $err);
		await_waiters($standby, $clients);
		start_wait($clock, "SELECT lsn_wait('$token', 0)");
		await_waiters($standby, $clients + 1);
		is($standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_activity a JOIN lsn_waiters() USING (pid) WHERE backend_xmin IS NULL'),
			$clients + 1, "$mode: none has a snapshot");
		cmp_ok($standby->safe_psql('postgres', "SELECT count(DISTINCT pid) FROM pg_locks WHERE mode <> 'AccessExclusiveLock' AND relation::regclass::text ~ '^d[0-9]+\$'"),
			'>=', $clients, "$mode: all have locks on tables that are changed");

		my $start = time;
		$standby->psql('postgres', 'SELECT pg_wal_replay_resume()');
		is(scalar finish_wait($clock), 't', "$mode: replay goes on");
		push @replayed, time - $start;
		until ($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'") == $clients)
		{
			$pgbench->pump_nb;
			die "pgbench: $err" if time > $start + $PostgreSQL::Test::Utils::timeout_default;
		}
		push @answered, time - $start;

		is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', "$mode: nobody waits any more");
		is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND pid <> pg_backend_pid()"), '0', "$mode: no lock is left");
		finish_wait(start_wait($gate, 'SELECT pg_advisory_unlock(1)'));
		ok($pgbench->finish, "$mode: all end well") or diag($err);
		like($out, qr{actually processed: $clients/$clients\b}, "$mode: all have read what they waited for");
		like($out, qr/number of failed transactions: 0 /, "$mode: none in vain");
		my ($repeated) = $out =~ /number of transactions retried: (\d+)/;
		cmp_ok($repeated, '<=', $clients * 4 / 6, "$mode: only who held locks of earlier statements has had to repeat: $repeated");
		cmp_ok($answered[-1], '<', 10 * patience(), 'in time');
	}

	# of several, so that one that this machine holds up does not count
	cmp_ok(min(@replayed), '<', patience(), "$mode: replay is not held up: @replayed s");
	cmp_ok(min(@answered), '<', 2 * patience(), "$mode: nor are the answers: @answered s");
	$_->quit foreach $gate, $clock;
	$standby->stop;
	$primary->stop;
}

done_testing();
