# lsn_tracker.newest_commit: never before a commit that somebody can have seen,
# and not behind it without need.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;
use Debugger;

my $gdb = !lacks('gdb');
my $show = 'SHOW lsn_tracker.newest_commit';
my $node = new_primary('primary', 'max_prepared_transactions = 3', 'checkpoint_timeout = 1h');
$node->safe_psql('postgres', 'CREATE ROLE r LOGIN');
my $standby = add_standby($node, 'standby', 'max_prepared_transactions = 3');

sub newest { return $node->safe_psql('postgres', $show) }

# a write of its own session, and its token
sub lsn { my ($token) = @_; return $token =~ s/[@~].*//r }

# Compare two positions, as the server does.  The insert position may be behind the header
# of a page, on which nothing is yet: no answer is.
sub at_least
{
	my ($is, $least, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $node->safe_psql('postgres',
			"SELECT '${\lsn($is)}'::pg_lsn >= l - "
			  . "CASE WHEN (l - '0/0') % (16 << 20) = 40 THEN 40 WHEN (l - '0/0') % 8192 = 24 THEN 24 ELSE 0 END "
			  . "FROM CAST('${\lsn($least)}' AS pg_lsn) l"),
		't', $name)
	  or diag("$is, $least");
	return;
}

sub flushed { return $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()') }

# WAL of a transaction that has not committed: no answer needs it.
my $writer = session($node);

sub unseen_wal
{
	$writer->query_safe('INSERT INTO t VALUES (2)');
	return insert_lsn($node);
}
$writer->query_safe('BEGIN');

# Over any connection
write_wal($node);
my $all = insert_lsn($node);
at_least(newest(), $all, 'the first answer after a start: everything');
my $token = write_token($node);
unseen_wal();
is(newest(), $token, 'the newest commit, not what is not committed');
is(newest(), $token, 'and again');
my ($ret, $out, $err) = $node->psql('postgres', $show, replication => 'true');
is($out, $token, 'over a connection of the replication protocol');
is($node->safe_psql('postgres', "SET ROLE r; $show"), $token, 'anybody may ask');

# Nobody asks by looking at all settings, and nobody can set it.
is( $node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name = 'lsn_tracker.newest_commit'"),
	0, 'not in pg_settings');
unlike($node->safe_psql('postgres', 'SHOW ALL'), qr/lsn_tracker.newest_commit/, 'nor in SHOW ALL');
like(sqlstate($node, "SET lsn_tracker.newest_commit = '0/1'"), qr/^55P02/, 'not to be set');
is($node->safe_psql('postgres', "SELECT current_setting('lsn_tracker.newest_commit')"), '', 'only SHOW asks');
is($node->safe_psql('postgres', "RESET ALL; DISCARD ALL; $show"), $token, 'nor reset');

# Whatever commits
foreach my $case (
	[ 'an asynchronous commit', 'SET synchronous_commit = off', 'INSERT INTO t VALUES (1)' ],
	[ 'DDL', 'SET synchronous_commit = on', 'CREATE TABLE u (i int)' ],
	[ 'a procedure', 'SET synchronous_commit = on', 'DO $$BEGIN INSERT INTO t VALUES (1); COMMIT; END$$' ],
	[ 'subtransactions', 'SET synchronous_commit = on', 'BEGIN; SAVEPOINT a; INSERT INTO t VALUES (1); RELEASE a; COMMIT' ],
	[ 'NOTIFY', 'SET synchronous_commit = on', 'NOTIFY n' ])
{
	my ($name, $set, $sql) = @$case;
	my $before = unseen_wal();
	my $last = $node->safe_psql('postgres', "$set;\n$sql;\nSELECT lsn_last_commit()");

	at_least($last, $before, "$name is new");
	unseen_wal();
	is(newest(), lsn($last) . '@1', "$name: its end");
	at_least(flushed(), $last, "$name: flushed");
}

# What does not commit
$token = newest();
$node->safe_psql('postgres', $_)
  foreach 'BEGIN; INSERT INTO t VALUES (1); ROLLBACK', 'SELECT count(*) FROM t', 'BEGIN; INSERT INTO t SELECT 1; SAVEPOINT a; ABORT';
$node->psql('postgres', 'INSERT INTO t VALUES (1/0)');
is(newest(), $token, 'what has not committed is not there');

# A commit that is visible, whose session is stopped before it can tell.
foreach my $case (
	grep { $gdb }[ 'a commit', 'INSERT INTO t VALUES (%d)', 'ProcArrayEndTransaction', 1 ],
	[ 'a transaction that gets its id late', "SELECT pg_notify('n', '%d')", 'ProcArrayEndTransaction', 0 ])
{
	my ($name, $sql, $function, $visible) = @$case;
	my $session = session($node);
	my $debugger = debugger($session->query('SELECT pg_backend_pid()'));
	my $before = newest();

	stop_behind($debugger, $function);
	start_wait($session, sprintf($sql, 77));
	told($debugger);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t WHERE i = 77'), 1, "$name: is visible") if $visible;
	$all = insert_lsn($node);
	my $answer = newest();
	at_least($answer, $all, "$name: everything is the answer");
	at_least(flushed(), $answer, "$name: flushed");

	let_go($debugger);
	finish_wait($session);
	unseen_wal();
	my $own = $session->query('SELECT lsn_last_commit()');
	is(newest(), $own, "$name: its end, once it can tell");
	$session->quit;
}

# One that is about to commit, and still runs: nobody can have seen it.
if ($gdb)
{
	my $session = session($node);
	my $debugger = debugger($session->query('SELECT pg_backend_pid()'));
	my $before = newest();

	stop_at($debugger, 'ProcArrayEndTransaction');
	start_wait($session, 'INSERT INTO t VALUES (78)');
	told($debugger);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t WHERE i = 78'), 0, 'not visible yet');
	is(newest(), $before, 'it is not in the answer');
	let_go($debugger);
	finish_wait($session);
	isnt(newest(), $before, 'now it is');
	$session->quit;
}

# A commit that fails when it has begun leaves nothing behind.
{
	my ($one, $other) = (session($node), session($node));
	$_->query_safe('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t') foreach $one, $other;
	$_->query_safe('INSERT INTO t VALUES (79)') foreach $one, $other;
	$one->query_safe('COMMIT');
	my $before = newest();
	my (undef, $error) = finish_wait(start_wait($other, 'COMMIT'));
	like($error, qr/could not serialize access/, 'a commit that fails');
	unseen_wal();
	is(newest(), $before, 'is none, and not taken for one later');
	$_->quit foreach $one, $other;
}

# Prepared transactions
sub prepare
{
	my ($name) = @_;
	$node->safe_psql('postgres', "BEGIN; INSERT INTO t VALUES (80); PREPARE TRANSACTION '$name'");
	return;
}

my $count = 'SELECT count(*) FROM t WHERE i = 80';
prepare('known');
newest();
my $before = newest();
my $unseen = unseen_wal();
is(newest(), $before, 'a prepared transaction: the newest commit, once it is known');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'known'");

# Committed by a session that is stopped before the commit of its own.
my $seen = 0;
foreach my $case (grep { $gdb }[ 'known', 1, 0 ], [ 'replaced', 1, 1 ], [ 'unknown', 0, 0 ])
{
	my ($name, $known, $replace) = @$case;
	my $session = session($node);
	my $debugger = debugger($session->query('SELECT pg_backend_pid()'));

	prepare($name);
	newest() if $known;
	stop_at($debugger, 'CommitTransactionCommand');
	start_wait($session, "COMMIT PREPARED '$name'");
	told($debugger);
	is($node->safe_psql('postgres', $count), ++$seen, "$name: a prepared transaction is visible");
	prepare('other') if $replace;
	$all = insert_lsn($node);
	at_least(newest(), $all, "$name: everything");
	$before = newest();
	unseen_wal();
	is(newest(), $before, "$name: and no more, later");
	let_go($debugger);
	finish_wait($session);
	$session->quit;
	$node->safe_psql('postgres', "ROLLBACK PREPARED 'other'") if $replace;
}
newest();
$token = write_token($node);
unseen_wal();
is(newest(), $token, 'nothing prepared any more: the newest commit');

# After a crash and after a promotion nothing has been noted, but there is something to see.
$writer->quit;
prepare('b');
$token = write_token($node);
$node->stop('immediate');
$node->start;
at_least(newest(), $token, 'after a crash');
$node->safe_psql('postgres', "COMMIT PREPARED 'b'");
$all = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
at_least(newest(), $all, 'a prepared transaction that has survived it');
$token = write_token($node);
is(newest(), $token, 'and its next commit');

catch_up($node, $standby);
$token = write_token($node);
$node->stop;
$standby->promote;
$node = $standby;
like(newest(), qr/\@2$/, 'a promoted standby, on its timeline');
at_least(newest(), $token, 'what it had replayed');
$token = write_token($node);
is(newest(), $token, 'its own commit');
$node->stop;
done_testing();
