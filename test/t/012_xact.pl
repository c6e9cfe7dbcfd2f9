# lsn_wait_xact(): waiting for a transaction that is known by its id.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("xact_$mode", "lsn_tracker.wakeup = $mode", 'max_prepared_transactions = 10');
	my $writer = session($primary);
	my ($out, $err);

	my $write = sub {
		my ($sql) = @_;
		($out, $err) = finish_wait(start_wait($writer, $sql));
		die "$sql: $err" if $err ne '';
		return $out;
	};
	# What it writes goes to the standby although it is not committed.
	my $ship = sub {
		catch_up($primary, $standby);
	};
	my $waits = sub {
		my ($xid, $timeout) = @_;
		return start_wait(session($standby), "\\set VERBOSITY verbose\nSELECT lsn_wait_xact('$xid', " . ($timeout // 0) . ')');
	};
	my $ends = sub {
		my ($waiter) = @_;
		my ($out, $err) = finish_wait($waiter);
		$waiter->quit;
		return $out . $err;
	};
	my $sees = sub {
		my ($i) = @_;
		return $standby->safe_psql('postgres', "SELECT count(*) FROM t WHERE i = $i");
	};

	# Committed
	my $xid = $write->('INSERT INTO t VALUES (10) RETURNING pg_current_xact_id()');
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid', 0);\nSELECT count(*) FROM t WHERE i = 10"), "t\n1",
		"$mode: committed");
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid', 0)"), 't', "$mode: and still so");

	# Not yet seen by the standby
	pause($standby);
	$xid = $write->('INSERT INTO t VALUES (20) RETURNING pg_current_xact_id()');
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid', 50)"), 'f', "$mode: not seen yet: times out");
	my $waiter = $waits->($xid);
	await_waiters($standby, 1);
	is($standby->safe_psql('postgres', 'SELECT target IS NULL, timeline IS NULL, xid FROM lsn_waiters()'),
		"t|t|$xid", "$mode: the queue shows the id");
	resume($standby);
	is($ends->($waiter), 't', "$mode: not seen yet, then committed");
	is($sees->(20), '1', "$mode: visible");

	# In progress, with others that come and go
	$xid = $write->("BEGIN;\nINSERT INTO t VALUES (30) RETURNING pg_current_xact_id()");
	$ship->();
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid', 50)"), 'f', "$mode: in progress: times out");
	$waiter = $waits->($xid);
	await_waiters($standby, 1);
	$ship->() for 1 .. 3;
	await_waiters($standby, 1);
	$write->('COMMIT');
	is($ends->($waiter), 't', "$mode: in progress, then committed");
	is($sees->(30), '1', "$mode: visible");

	# Nobody is woken by what does not concern him.
	{
		my @tokens = map { start_wait(session($standby), "SELECT lsn_wait('FFFFFFFF/0\@1', 100000)") } 1 .. 10;
		$xid = $write->("BEGIN;\nINSERT INTO t VALUES (35) RETURNING pg_current_xact_id()");
		$ship->();
		$waiter = $waits->($xid);
		await_waiters($standby, 11);
		my @pids = split /\n/, $standby->safe_psql('postgres', 'SELECT pid FROM lsn_waiters() ORDER BY xid');
		my $wakings = sub {
			my $n = 0;
			$n += slurp_file("/proc/$_/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die foreach @_;
			return $n;
		};
		my ($before, $before_xact) = ($wakings->(@pids), $wakings->($pids[0]));
		my $start = time;
		$ship->() for 1 .. 10;
		# in poll mode each looks for itself once a second
		my $few = 2 + ($mode eq 'poll' ? int(time - $start) : 0);
		cmp_ok($wakings->(@pids) - $before, '<=', $few * @pids, "$mode: others that wait for something sleep on");
		cmp_ok($wakings->($pids[0]) - $before_xact, '<=', $few, "$mode: and so does who waits for a transaction");
		$write->('COMMIT');
		is($ends->($waiter), 't', "$mode: until that commits");
		$standby->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM lsn_waiters()');
		finish_wait($_), $_->quit foreach @tokens;
	}

	# At once, and not when it looks for itself
	my @took;
	for (1 .. 5)
	{
		$xid = $write->("BEGIN;\nINSERT INTO t VALUES (36) RETURNING pg_current_xact_id()");
		$ship->();
		$waiter = $waits->($xid);
		await_waiters($standby, 1);
		$write->('COMMIT');
		my $start = time;
		is(scalar finish_wait($waiter), 't', "$mode: committed");
		push @took, time - $start;
		$waiter->quit;
	}
	# the second of five, so that what this machine holds up does not count
	cmp_ok((sort { $a <=> $b } @took)[1], '<', 0.25 * patience(), "$mode: and said so at once: @took s");

	# Rolled back
	$xid = $write->("BEGIN;\nINSERT INTO t VALUES (40) RETURNING pg_current_xact_id()");
	$ship->();
	$waiter = $waits->($xid);
	await_waiters($standby, 1);
	$write->('ROLLBACK');
	$ship->();
	like($ends->($waiter), qr/40000: transaction $xid was rolled back/, "$mode: in progress, then rolled back");
	like(sqlstate($standby, "SELECT lsn_wait_xact('$xid', 0)"), qr/^40000: transaction $xid was rolled back/, "$mode: rolled back");

	# Prepared and then committed; and rolled back
	foreach my $end (qw(COMMIT ROLLBACK))
	{
		$xid = $write->("BEGIN;\nINSERT INTO t VALUES (50) RETURNING pg_current_xact_id();\nPREPARE TRANSACTION 'p'");
		$ship->();
		is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$xid', 50)"), 'f', "$mode: prepared: times out");
		$waiter = $waits->($xid);
		await_waiters($standby, 1);
		$write->("$end PREPARED 'p'");
		$ship->();
		like($ends->($waiter), $end eq 'COMMIT' ? qr/^t$/ : qr/40000: transaction $xid was rolled back/, "$mode: prepared, then $end");
	}
	is($sees->(50), '1', "$mode: the committed one is visible");

	# Subtransactions.  A row tells its xmin, the 32 bits of the id.
	$write->("BEGIN;\nSAVEPOINT a;\nINSERT INTO t VALUES (60)");
	my $sub = $write->('SELECT xmin FROM t WHERE i = 60');
	$write->("RELEASE a;\nSAVEPOINT b;\nINSERT INTO t VALUES (61)");
	my $undone = $write->('SELECT xmin FROM t WHERE i = 61');
	my $top = $write->('SELECT pg_current_xact_id()');
	isnt($sub, $top, "$mode: a subtransaction has an id of its own");
	$ship->();
	my $of_sub = $waits->($sub);
	my $of_undone = $waits->($undone);
	my $of_top = $waits->($top);
	await_waiters($standby, 3);
	$write->('ROLLBACK TO b');
	$ship->();
	like($ends->($of_undone), qr/40000: transaction $undone was rolled back/, "$mode: subtransaction rolled back alone");
	await_waiters($standby, 2);
	$write->('COMMIT');
	is($ends->($of_sub), 't', "$mode: subtransaction, committed with its transaction");
	is($ends->($of_top), 't', "$mode: the transaction itself");
	is($sees->(60) . $sees->(61), '10', "$mode: the one is visible, the other is not");
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('$sub', 0)"), 't', "$mode: subtransaction, afterwards");

	# More subtransactions than the standby keeps one by one
	$write->("BEGIN;\nINSERT INTO t VALUES (70)");
	$write->("SAVEPOINT s$_;\nINSERT INTO t VALUES (71)") for 1 .. 100;
	my ($first, $last) = split /\|/, $write->('SELECT min(xmin::text::int), max(xmin::text::int) FROM t WHERE i = 71');
	$primary->safe_psql('postgres', 'CHECKPOINT');
	$ship->();
	$of_sub = $waits->($first);
	my $of_last = $waits->($last);
	await_waiters($standby, 2);
	$write->('COMMIT');
	is($ends->($of_sub) . $ends->($of_last), 'tt', "$mode: overflowed subtransactions");

	# Many waiters: each for his own transaction, committed in another order;
	# some share one.
	my @writers = map { session($primary) } 1 .. 12;
	my @xids = map { scalar finish_wait(start_wait($_, "BEGIN;\nINSERT INTO t VALUES (80) RETURNING pg_current_xact_id()")) } @writers;
	$ship->();
	my @waiters = map { $waits->($_) } (@xids, @xids);
	await_waiters($standby, 24);
	foreach my $i (7, 3, 11, 0, 1, 2, 10, 9, 8, 4, 5, 6)
	{
		finish_wait(start_wait($writers[$i], 'COMMIT'));
		is($ends->($waiters[$i]) . $ends->($waiters[ $i + 12 ]), 'tt', "$mode: transaction $i of 12");
	}
	await_waiters($standby, 0);
	$_->quit foreach @writers;

	# Bad ids
	like(sqlstate($standby, "SELECT lsn_wait_xact('0')"), qr/^22023: no transaction has the id 0/, "$mode: 0");
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('2'), lsn_wait_xact('1')"), 't|t', "$mode: the system's own");
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('9223372036854775807', 20)"), 'f', "$mode: never assigned: not seen, times out");
	is($standby->safe_psql('postgres', "SELECT lsn_wait_xact('18446744073709551615', 20)"), 'f', "$mode: the largest of all, likewise");

	# The primary crashes with a transaction in progress.
	$xid = $write->("BEGIN;\nINSERT INTO t VALUES (90) RETURNING pg_current_xact_id()");
	$ship->();
	$waiter = $waits->($xid);
	await_waiters($standby, 1);
	$primary->stop('immediate');
	$primary->start;
	like($ends->($waiter), qr/40000: transaction $xid was rolled back/, "$mode: a crash of the primary rolls back");

	# The standby is promoted with a transaction in progress, and one unseen.
	$writer = session($primary);
	$xid = $write->("BEGIN;\nINSERT INTO t VALUES (91) RETURNING pg_current_xact_id()");
	$ship->();
	my $never = $xid + 1000;
	$waiter = $waits->($xid);
	my $unseen = $waits->($never);
	await_waiters($standby, 2);
	$standby->promote;
	like($ends->($waiter), qr/55000: recovery ended before transaction $xid was replayed|40000: transaction $xid was rolled back/, "$mode: promoted while in progress");
	like($ends->($unseen), qr/55000: recovery ended before transaction $never was replayed/, "$mode: promoted before it was seen");
	like(sqlstate($standby, "SELECT lsn_wait_xact('$xid')"), qr/^40000: transaction $xid was rolled back/, "$mode: on the new primary it is rolled back");
	like(sqlstate($standby, "SELECT lsn_wait_xact('$never')"), qr/^22023: transaction $never has not begun/, "$mode: and the other never was");
	await_waiters($standby, 0);
	$standby->stop;
	$primary->stop;
}

# An id so old that its status has been removed.  The ids' counter is moved
# forward by two million, and what is older frozen and forgotten.
my ($primary, $standby) = new_pair('xact_old', 'autovacuum_freeze_max_age = 100000', 'vacuum_freeze_min_age = 0');
my $old = $primary->safe_psql('postgres', 'INSERT INTO t VALUES (1) RETURNING pg_current_xact_id()');
$primary->stop;
$standby->stop;
my $next = (int($old / 1048576) + 2) * 1048576;
command_ok([ 'pg_resetwal', '-x', $next, $primary->data_dir ], 'the counter moved forward');
# the status page of the new ids has to be there
my $page = sprintf '%s/pg_xact/%04X', $primary->data_dir, $next / 1048576;
open my $file, '>', $page or die "$page: $!";
print $file "\0" x 262144;
close $file;
chown((stat $primary->data_dir)[ 4, 5 ], $page);
$primary->start;
write_wal($primary);
$primary->safe_psql($_, 'VACUUM FREEZE') foreach qw(postgres template1);
$primary->safe_psql('postgres', 'ALTER DATABASE template0 ALLOW_CONNECTIONS true');
$primary->safe_psql('template0', 'VACUUM FREEZE');
$primary->safe_psql('postgres', 'CHECKPOINT');
my $fresh = add_standby($primary, 'xact_old_fresh');
my $young = $primary->safe_psql('postgres', 'INSERT INTO t VALUES (2) RETURNING pg_current_xact_id()');
catch_up($primary, $fresh);
foreach my $node ($primary, $fresh)
{
	like(sqlstate($node, "SELECT lsn_wait_xact('$old', 10)"), qr/^22023: transaction $old is too old/, 'too old: on ' . $node->name);
	is($node->safe_psql('postgres', "SELECT lsn_wait_xact('$young', 10)"), 't', 'young enough: on ' . $node->name);
}
$fresh->stop;
$primary->stop;

done_testing();
