# Thousands of random cases: a write, and a read of it on the standby in a random way,
# beside other writers, VACUUM and DDL.  Each answer is checked to be of one snapshot,
# and of one that contains the write.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $cases = many(2000);
my $seed = $ENV{LSN_SEED} // 42;
srand($seed);

my ($primary, $standby) = new_pair('random', 'max_standby_streaming_delay = -1', 'hot_standby_feedback = off', "lsn_tracker.default_timeout = '60s'");

# Each transaction moves something between two tables, and notes by itself what they
# then hold: a snapshot that is not of one moment shows, and so does an old one.
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE a (id int PRIMARY KEY, n int) WITH (fillfactor = 50);
CREATE TABLE b (id int, n int) PARTITION BY LIST (id);
CREATE TABLE b0 PARTITION OF b FOR VALUES IN (0, 1, 2, 3, 4);
CREATE TABLE b1 PARTITION OF b FOR VALUES IN (5, 6, 7, 8, 9);
INSERT INTO a SELECT i, 0 FROM generate_series(0, 9) i;
INSERT INTO b SELECT i, 0 FROM generate_series(0, 9) i;
CREATE TABLE note (k bigserial PRIMARY KEY, sum_a bigint, sum_b bigint);
CREATE TABLE side (i int, j int);
CREATE VIEW sums AS SELECT (SELECT sum(n) FROM a) AS sum_a, (SELECT sum(n) FROM b) AS sum_b;
CREATE FUNCTION move(x int, y int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	k bigint;
BEGIN
	LOCK TABLE note IN SHARE ROW EXCLUSIVE MODE;
	UPDATE a SET n = n + x WHERE id = x;
	UPDATE b SET n = n - y WHERE id = y;
	INSERT INTO note (sum_a, sum_b) SELECT * FROM sums RETURNING note.k INTO k;
	RETURN k;
END $$;
-- the newest k that is seen, and whether all is of the moment when it was noted
CREATE FUNCTION check_sums() RETURNS text STABLE LANGUAGE sql AS $$
SELECT k || CASE WHEN (note.sum_a, note.sum_b) = (sums.sum_a, sums.sum_b) THEN ' one' ELSE ' torn' END
FROM note, sums ORDER BY k DESC LIMIT 1 $$;
SQL
catch_up($primary, $standby);
my $ask = "SELECT k || CASE WHEN (note.sum_a, note.sum_b) = (sums.sum_a, sums.sum_b) THEN ' one' ELSE ' torn' END FROM note, sums ORDER BY k DESC LIMIT 1";
my $ask_here = $ask =~ s/FROM note, sums/FROM note, sums, HERE/r;

# Others, at the same time
my ($writes, $ddl) = map { $primary->basedir . "/$_.sql" } qw(writes ddl);
append_to_file($writes, "\\set x random(0, 9)\n\\set y random(0, 9)\nSELECT move(:x, :y);\n\\sleep 5 ms\n");
append_to_file($ddl, join "\n", 'VACUUM a, b;', '\sleep 20 ms', 'ANALYZE a;', 'VACUUM note;', '\sleep 20 ms', 'ALTER TABLE side ADD COLUMN x int;', 'ALTER TABLE side DROP COLUMN x;',
	'CREATE OR REPLACE VIEW sums AS SELECT (SELECT sum(n) FROM a) AS sum_a, (SELECT sum(n) FROM b) AS sum_b;', '\sleep 20 ms', 'CREATE INDEX i ON note (sum_a);', 'DROP INDEX i;', 'TRUNCATE side;', '\sleep 20 ms',
	'CREATE TABLE b2 PARTITION OF b FOR VALUES IN (10);', 'DROP TABLE b2;', '');
my @others = map {
	IPC::Run::start([ 'pgbench', '-n', '-T', 1000, '-c', $_->[1], '-h', $primary->host, '-p', $primary->port, '-f', $_->[0], 'postgres' ], '>', \my $out, '2>&1')
} [ $writes, 2 ], [ $ddl, 1 ];

my @ways = (
	sub { "SET lsn_tracker.token = '$_[0]';\n$ask" },
	sub { "SELECT set_config('lsn_tracker.token', '$_[0]', false) IS NULL;\n$ask" },
	sub { "BEGIN;\nSET LOCAL lsn_tracker.token = '$_[0]';\n$ask;\nCOMMIT" },
	sub { "SET lsn_tracker.token = '$_[0]';\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT 1;\n$ask;\nCOMMIT" },
	sub { "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET lsn_tracker.token = '$_[0]';\n$ask;\nCOMMIT" },
	sub { "SET lsn_tracker.token = '$_[0]';\nSELECT check_sums()" },
	sub { "SET lsn_tracker.token = '$_[0]';\nPREPARE p AS $ask;\nEXECUTE p;\nDEALLOCATE p" },
	sub { "SET lsn_tracker.token = '$_[0]';\nEXECUTE kept" },
	sub { "SET lsn_tracker.token = '$_[0]';\nCOPY ($ask) TO STDOUT" },
	sub { "BEGIN;\nSET lsn_tracker.token = '$_[0]';\nDECLARE c CURSOR FOR $ask;\nFETCH c;\nCOMMIT" },
	sub { "BEGIN;\nSELECT 1;\nSAVEPOINT a;\nSET lsn_tracker.token = '$_[0]';\n$ask;\nRELEASE a;\nCOMMIT" },
	sub { $ask_here =~ s/HERE/lsn_require('$_[0]', 60000)/r },
	sub { $ask_here =~ s/HERE/lsn_wait('$_[0]', 60000)/r },
	sub { "SELECT CASE WHEN lsn_wait('$_[0]', 60000) THEN check_sums() END" },
	sub { "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT lsn_require('$_[0]', 60000);\n$ask;\nCOMMIT" });

my $writer = session($primary);
my $reader = session($standby);
finish_wait(start_wait($reader, "SET plan_cache_mode = force_generic_plan;\nPREPARE kept AS $ask"));
my ($right, $repeated, $wrong) = (0, 0, '');
for my $case (1 .. $cases)
{
	my ($k, $token) = split /\n/, finish_wait(start_wait($writer, "SELECT move(@{[int rand 10]}, @{[int rand 10]});\nSELECT lsn_last_commit()"));
	my $way = int rand @ways;
	my ($out, $err) = finish_wait(start_wait($reader, "\\set VERBOSITY verbose\n" . $ways[$way]->($token)));
	my ($seen, $whole) = $out =~ /(\d+) (one|torn)/;

	if ($err =~ /ERROR:  40001/)
	{
		$repeated++;
		finish_wait(start_wait($reader, 'ROLLBACK'));
	}
	elsif ($err eq '' && $seen && $seen >= $k && $whole eq 'one') { $right++ }
	else { $wrong .= "case $case, way $way: wrote $k, $token, read $out$err\n" }
	finish_wait(start_wait($reader, 'ROLLBACK;RESET lsn_tracker.token'));
}
is($wrong, '', "seed $seed: $right answers are right, $repeated were to be repeated");
cmp_ok($repeated, '<', $cases / 20, 'which is rare');
$_->kill_kill foreach @others;
$_->quit foreach $writer, $reader;
$standby->stop;
$primary->stop;
done_testing();
