# The token of the session's own last commit: which commits change it, what
# the client is told without asking, and that it is never too small.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my $report = compile("$FindBin::RealBin/../clients/report.c");
my ($primary, $standby) = new_pair('commits', 'max_prepared_transactions = 5', 'wal_writer_delay = 1ms');

# A connection of the replication protocol that can write
{
	my $out = '';
	IPC::Run::run([ 'psql', '-XAtq', $primary->connstr('postgres') . ' replication=database' ], '<',
		\"INSERT INTO t VALUES (1);\nSHOW lsn_tracker.token;\n", '>', \$out);
	like($out, qr{^[0-9A-F]+/[0-9A-F]+\@1\n$}, 'a commit over a replication connection to a database');
}

$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE counter (n int);
INSERT INTO counter VALUES (0);
CREATE SEQUENCE s CACHE 1;
CREATE TABLE deferred (i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
INSERT INTO deferred VALUES (1);
CREATE PROCEDURE commits_inside() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3 LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP;
END $$;
CREATE FUNCTION catches() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t VALUES (1);
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	INSERT INTO t VALUES (2);
END $$;
CREATE TABLE page (filler text);
INSERT INTO page VALUES (repeat('x', 1500));
SQL
# so that no look into the catalogs finds anything to prune, which is WAL, too
$primary->safe_psql('postgres', 'VACUUM');

# Run query strings in one session; returns for each the last value, the
# SQLSTATE and what has been reported to the client.
sub reports
{
	my ($node, @sql) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ $report, $node->connstr('postgres') ], '<', \join('', map { "$_\n" } @sql), '>', \$out, '2>', \$err)
	  or die "report: $err";
	my @lines = map { [ split /\|/, $_, -1 ] } split /\n/, $out;
	@lines == @sql or die "not one answer for each query string: $out";
	return @lines;
}

# What a query string, or several, must do to the token: "new", or "same".
my @cases = (
	[ 'autocommit', 'new', 'INSERT INTO t VALUES (1)' ],
	[ 'a read-only transaction', 'same', 'SELECT 1' ],
	[ 'explicit transaction', 'new', 'BEGIN', 'INSERT INTO t VALUES (1)', 'COMMIT' ],
	[ 'ROLLBACK', 'same', 'BEGIN', 'INSERT INTO t VALUES (1)', 'ROLLBACK' ],
	[ 'an error', 'same', 'INSERT INTO t VALUES (1/(SELECT 0))' ],
	[ 'an error in a transaction, COMMIT', 'same', 'BEGIN', 'INSERT INTO t VALUES (1)', 'SELECT 1/0', 'COMMIT' ],
	[ 'an error at the commit', 'same', 'INSERT INTO deferred VALUES (1)' ],
	[ 'an empty transaction', 'same', 'BEGIN', 'COMMIT' ],
	[ 'SET', 'same', 'SET work_mem = 1000' ],
	[ 'DISCARD ALL', 'forgotten', 'DISCARD ALL' ],
	[ 'an empty query string', 'same', '' ],
	[ 'several statements in one string', 'new', 'INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); SELECT 3' ],
	[ 'several, the last one fails', 'same', 'INSERT INTO t VALUES (1); SELECT 1/0' ],
	[ 'a commit inside the string, then an error', 'new', 'BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1/0' ],
	[ 'two commits inside the string', 'new', 'BEGIN; INSERT INTO t VALUES (1); COMMIT; BEGIN; INSERT INTO t VALUES (2); COMMIT' ],
	[ 'pipeline', 'new', 'pipeline: INSERT INTO t VALUES (1) ;; SELECT 1' ],
	[ 'pipeline with explicit transactions', 'new', 'pipeline: BEGIN ;; INSERT INTO t VALUES (1) ;; COMMIT ;; BEGIN ;; INSERT INTO t VALUES (1) ;; COMMIT' ],
	[ 'pipeline, failed', 'same', 'pipeline: INSERT INTO t VALUES (1) ;; SELECT 1/0 ;; INSERT INTO t VALUES (1)' ],
	[ 'pipeline, read only', 'same', 'pipeline: SELECT 1 ;; SELECT 2' ],
	[ 'SET synchronous_commit', 'same', 'SET synchronous_commit = off' ],
	[ 'asynchronous commit', 'new', 'INSERT INTO t VALUES (1)' ],
	[ 'RESET synchronous_commit', 'same', 'RESET synchronous_commit' ],
	[ 'savepoints', 'new', 'BEGIN', 'SAVEPOINT a', 'INSERT INTO t VALUES (1)', 'ROLLBACK TO a', 'INSERT INTO t VALUES (1)', 'RELEASE a', 'COMMIT' ],
	[ 'a savepoint that was all', 'new', 'BEGIN', 'SAVEPOINT a', 'INSERT INTO t VALUES (1)', 'RELEASE a', 'COMMIT' ],
	[ 'a caught exception', 'new', 'SELECT catches()' ],
	[ 'COPY', 'new', 'COPY t FROM STDIN' ],
	[ 'PREPARE TRANSACTION', 'same', 'BEGIN', 'INSERT INTO t VALUES (1)', q{PREPARE TRANSACTION 'p'} ],
	[ 'COMMIT PREPARED', 'new', q{COMMIT PREPARED 'p'} ],
	[ 'COMMIT AND CHAIN, the chained one rolled back', 'new', 'BEGIN', 'INSERT INTO t VALUES (1)', 'COMMIT AND CHAIN', 'INSERT INTO t VALUES (1)', 'ROLLBACK' ],
	[ 'nothing committed but the chain', 'same', 'BEGIN', 'COMMIT AND CHAIN', 'INSERT INTO t VALUES (1)', 'ROLLBACK' ],
	[ 'the chained transaction committed', 'new', 'BEGIN', 'COMMIT AND CHAIN', 'INSERT INTO t VALUES (1)', 'COMMIT' ],
	[ 'a procedure that commits inside', 'new', 'CALL commits_inside()' ],
	[ 'DO that commits inside and fails then', 'new', 'DO $$ BEGIN INSERT INTO t VALUES (1); COMMIT; RAISE division_by_zero; END $$' ],
	[ 'nextval', 'new', q{SELECT nextval('s')} ],
	[ 'setval', 'new', q{SELECT setval('s', 1)} ],
	[ 'WAL without a transaction id', 'new', q{SELECT pg_logical_emit_message(false, 'x', 'y')} ],
	[ 'transactional message', 'new', q{SELECT pg_logical_emit_message(true, 'x', 'y')} ],
	[ 'a transaction id alone', 'new', 'SELECT pg_current_xact_id()' ],
	[ 'NOTIFY alone', 'new', 'NOTIFY n' ],
	[ 'LISTEN', 'same', 'LISTEN n' ],
	[ 'pg_notify', 'new', q{SELECT pg_notify('n', 'x')} ],
	[ 'VACUUM', 'new', 'VACUUM t' ],
	[ 'a page full of old row versions', 'new', (q{UPDATE page SET filler = repeat('y', 1500)}) x 4 ],
	[ 'READ ONLY transaction that prunes it', 'same', 'BEGIN READ ONLY', 'SELECT count(*) FROM page', 'COMMIT' ],
	[ 'the read behind it', 'same', 'SELECT 1' ],
	[ 'CREATE TABLE AS', 'new', 'CREATE TABLE as_table AS SELECT 1' ],
	[ 'DROP', 'new', 'DROP TABLE as_table' ],
	[ 'temporary table', 'new', 'CREATE TEMP TABLE temp (i int) ON COMMIT DELETE ROWS' ],
	[ 'the reporting switched off', 'off', 'SET lsn_tracker.report_commits = off' ],
	[ 'commit while off', 'off new', 'INSERT INTO t VALUES (1)' ],
	[ 'switched on again', 'off', 'SET lsn_tracker.report_commits = on' ],
	[ 'the next commit', 'new', 'INSERT INTO t VALUES (1)' ]);

# Before and after each case: what the function says, and the insert position.
my @probe = map { "BEGIN READ ONLY; SELECT $_; COMMIT" } qw(lsn_last_commit() pg_current_wal_insert_lsn());
my @sql = map { my ($name, $expected, @strings) = @$_; (@strings, @probe) } @cases;
my @answers = reports($primary, @probe, @sql);
my (@before) = splice @answers, 0, 2;

is($before[0][0], '', 'no commit yet: lsn_last_commit() is NULL');
is($before[0][2], '', 'no commit yet: an empty report at the start of the session');

my %number;
sub number
{
	my ($token) = @_;
	my ($hi, $lo) = $token =~ m{^([0-9A-F]+)/([0-9A-F]+)(?:\@1(?:~\S+)?)?$} or die "not a token: $token";
	return hex($hi) << 32 | hex($lo);
}

my ($token, $reported, $insert) = ('', '', number($before[1][0]));
foreach my $case (@cases)
{
	my ($name, $expected, @strings) = @$case;
	my @results = splice @answers, 0, @strings + 2;
	my ($now, $end) = ($results[-2][0], number($results[-1][0]));
	# known as soon as the answer has come, before anything is asked
	my $report = $results[ $#strings ][2];

	if ($expected =~ /new/)
	{
		isnt($now, $token, "$name: a new token");
		# 24 or 40 bytes of page header may be in front of the insert position
		ok(number($now) > $insert && number($now) <= $end, "$name: behind what was there before, not beyond the end")
		  or diag("$now is not between $before[1][0] and $results[-1][0]");
	}
	elsif ($expected eq 'forgotten')
	{
		is($now, '', "$name: the token is forgotten");
	}
	else
	{
		is($now, $token, "$name: the token does not change");
		cmp_ok($end, '>', $insert, "$name: although it writes WAL") if $name =~ /prunes/;
	}
	is($report, $expected =~ /off/ ? $reported : $now, "$name: " . ($expected =~ /off/ ? 'not reported' : 'reported'));
	($token, $reported, $insert) = ($now, $report, $end);
}

# A standby commits nothing.
my @there = reports($standby, 'SELECT 1', 'BEGIN', 'SELECT count(*) FROM t', 'COMMIT', 'SELECT lsn_last_commit()');
is(join(',', map { $_->[2] } @there), ',,,,', 'a standby reports nothing');
is($there[-1][0], '', 'lsn_last_commit() is NULL on a standby');

# Several sessions at once: each has its own commits.
my @two = map { session($primary) } 1 .. 2;
my @tokens = map { start_wait($_, 'INSERT INTO t VALUES (1)'); finish_wait($_); start_wait($_, 'SELECT lsn_last_commit()'); scalar finish_wait($_) } @two;
isnt($tokens[0], $tokens[1], 'sessions have different tokens');
start_wait($two[0], 'SELECT lsn_last_commit()');
is(scalar(finish_wait($two[0])), $tokens[0], 'another session\'s commit does not change it');
$_->quit foreach @two;

# The trap: after an asynchronous commit pg_current_wal_lsn() is before it.
my ($out, $err);
my $rounds = 3000;
IPC::Run::run([ compile("$FindBin::RealBin/../clients/async.c"), $primary->connstr('postgres'), $standby->connstr('postgres'), $rounds ],
	'>', \$out, '2>', \$err) or die "async: $err";
like($out, qr/^$rounds rounds, 0 stale, (\d+) trapped$/, 'asynchronous commits: never stale behind the token');
my ($trapped) = $out =~ /(\d+) trapped/;
cmp_ok($trapped, '>', $rounds / 10, 'asynchronous commits: the trap was there');
note($out);

# Through a restart and a promotion the token is of the right timeline.
$standby->promote;
is((reports($standby, 'INSERT INTO t VALUES (1)'))[0][2] =~ s/.*@//r, '2', 'a promoted standby reports its timeline');

$standby->stop;
$primary->stop;
done_testing();
