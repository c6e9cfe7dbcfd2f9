# Tokens across failovers.  A is the primary of B and C; B is promoted while A
# has commits that B never got; C follows B, and is promoted in turn.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use File::Copy;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

# the LSN of a token
sub lsn_of { my ($token) = @_; return $token =~ s/@.*//r; }

# So many sessions that wait for the same; returns how to end it.
sub crowd
{
	my ($node, $n, $sql) = @_;
	my $script = $node->basedir . '/crowd.sql';
	my %crowd = (out => '', err => '');

	open my $file, '>', $script or die $!;
	print $file "$sql;\n";
	close $file;
	$crowd{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $n, '-t', 1, '-h', $node->host, '-p', $node->port, '-f', $script, 'postgres' ],
		'>', \$crowd{out}, '2>', \$crowd{err});
	return \%crowd;
}

foreach my $mode (qw(redo poll))
{
	my $a = new_primary("${mode}_a", "lsn_tracker.wakeup = $mode");
	my $b = add_standby($a, "${mode}_b");
	my $c = add_standby($a, "${mode}_c");

	# one that will be promoted on its own, much later
	$a->backup('d');

	my $kept = write_token($a);
	like($kept, qr{^[0-9A-F]+/[0-9A-F]+\@1$}, "$mode: a token of timeline 1");
	foreach my $node ($b, $c)
	{
		is($node->safe_psql('postgres', "SELECT lsn_wait('$kept', 0)"), 't', "$mode: a token is waited for");
		catch_up($a, $node);
	}

	# B and C miss what A writes now.
	# B, which is promoted, last: who follows must not be ahead of it
	cut_off($_) foreach $c, $b;
	my $lost = write_token($a);
	my $end = $b->safe_psql('postgres', "SELECT pg_last_wal_replay_lsn() || '\@1'");

	my %wait = (
		c_lost => start_wait(session($c), "SELECT lsn_wait('$lost', 0)"),
		c_plain => start_wait(session($c), "SELECT lsn_wait('${\lsn_of($lost)}'::pg_lsn, 0)"),
		b_lost => start_wait(session($b), "\\set VERBOSITY verbose\nSELECT lsn_wait('$lost', 0)"),
		b_watch => start_wait(session($b), "\\set VERBOSITY verbose\nSELECT lsn_watch('$end', 0)"),
		b_plain => start_wait(session($b), "\\set VERBOSITY verbose\nSELECT lsn_wait('${\lsn_of($lost)}'::pg_lsn, 0)"),
		b_token => start_wait(session($b), "\\set VERBOSITY verbose\nSET lsn_tracker.default_timeout = 0;\nSET lsn_tracker.token = '$lost';\nSELECT 1"));
	await_waiters($b, 4);
	is( $b->safe_psql('postgres', 'SELECT DISTINCT timeline FROM lsn_waiters() ORDER BY 1'),
		"1\n", "$mode: the queue shows tokens' timelines");

	$a->stop('immediate');
	$b->promote;

	my ($out, $err) = finish_wait($wait{b_lost});
	like($err, qr/40000: the write at \Q$lost\E has been lost in a failover/, "$mode: lost by the promotion of this server in mid-wait");
	($out, $err) = finish_wait($wait{b_plain});
	like($err, qr/55000: recovery ended before/, "$mode: a plain LSN only knows that recovery ended");
	($out, $err) = finish_wait($wait{b_watch});
	like($err, qr/55000: recovery ended before \Q$end\E was replayed/, "$mode: nothing was lost at the end of what was replayed");
	($out, $err) = finish_wait($wait{b_token});
	like($err, qr/40000: the write at \Q$lost\E has been lost/, "$mode: a read that waits by itself, as well");

	# On the new primary
	my $new = write_token($b);
	reach($b, lsn_of($lost));
	my $later = write_token($b);
	like($new, qr/\@2$/, "$mode: a token of timeline 2");
	is($b->safe_psql('postgres', "SELECT lsn_wait('$kept'), lsn_replicated('$kept'), lsn_wait('$new')"),
		't|t|t', "$mode: what survived is on the new primary");
	foreach my $sql ("SELECT lsn_wait('$lost')", "SELECT lsn_require('$lost')", "SELECT lsn_replicated('$lost')",
		"SELECT lsn_request_notification('$lost')", "SET lsn_tracker.token = '$lost';\nSELECT 1", "SET lsn_tracker.token = '$lost';\nINSERT INTO t VALUES (1)",
		# a newer one does not tell that it is there
		"SET lsn_tracker.token = '$lost';\nBEGIN;\nSET LOCAL lsn_tracker.token = '$new';\nSELECT 1",
		"SET lsn_tracker.token = '$new';\nBEGIN;\nSET LOCAL lsn_tracker.token = '$lost';\nSELECT 1",
		"SET lsn_tracker.token = '$new';\nSET lsn_tracker.token = '$lost';\nSELECT 1",
		"SET lsn_tracker.token = '$new';\nSET lsn_tracker.token = '$lost';\nBEGIN;\nSET LOCAL lsn_tracker.token = '$new';\nSELECT 1")
	{
		like(sqlstate($b, $sql), qr/^40000: the write at \Q$lost\E has been lost in a failover/, "$mode: $sql on the new primary");
	}

	# It is shown until another one is set, whatever the session gets to know: a pooler must not
	# take the session for one that has the newer.  What survived is not.
	my $told = report_client($b->connstr('postgres'));
	ask($told, 'SET lsn_tracker.track_reads = on');
	like((ask($told, 'SELECT 1'))[2], qr/\@2/, "$mode: what it has read");
	foreach my $sql ("SET lsn_tracker.token = '$lost'", ';', "SELECT set_config('work_mem', '1MB', true)", 'SELECT 1', 'EXPLAIN SELECT 1', 'CREATE TABLE made (i int)', 'SELECT 1')
	{
		my (undef, $state, $shown) = ask($told, $sql);
		is("$state $shown", ($sql eq 'SELECT 1' ? '40000' : '') . " $lost", "$mode: $sql: what is shown");
	}
	is((ask($told, "SET lsn_tracker.token = '$kept'"))[2], $kept, "$mode: what survived is shown");
	like((ask($told, 'DROP TABLE made'))[2], qr/\@2$/, "$mode: until a commit");
	ask($told, "SET lsn_tracker.token = '$kept'");
	like((ask($told, 'SELECT 1'))[2], qr/\@2/, "$mode: or a read");
	ask($told, 'RESET lsn_tracker.track_reads');
	ask($told, "SET lsn_tracker.token = '$kept'");
	like((ask($told, 'SELECT 1'))[2], qr/\@2/, "$mode: also where reads are not tracked");
	$told->{run}->finish;

	# Nor does a position without a timeline.
	$told = report_client($b->connstr('postgres'));
	my $plain = lsn_of($later);
	my @shown = map { join ' ', (ask($told, $_))[1, 2] } "SET lsn_tracker.token = '$plain'", 'SELECT 1',
	  "SET lsn_tracker.token = '$lost'", ';', "SET lsn_tracker.token = '$plain'", 'SELECT 1';
	is(join(',', @shown), join(',', map { " $_" } ($plain) x 2, ($lost) x 2, ($plain) x 2), "$mode: what is shown");
	$told->{run}->finish;
	is($b->safe_psql('postgres', "SELECT lsn_wait('${\lsn_of($lost)}'::pg_lsn), lsn_wait('${\lsn_of($lost)}')"),
		't|t', "$mode: the wrong yes: without its timeline the lost write's LSN is answered with true");
	like(sqlstate($b, "SELECT lsn_wait('0/1\@3')"), qr/^22023: target 0\/0*1\@3 is of a timeline that this server does not know/,
		"$mode: a primary does not know later timelines");

	# C has not followed yet: it knows timeline 1 only.
	is($c->safe_psql('postgres', "SELECT lsn_wait('$new', 50), lsn_replicated('$new'), lsn_replicated('0/1\@2')"),
		'f|f|f', "$mode: not known yet: no yes, however small the LSN");
	like(sqlstate($c, "SELECT lsn_require('$new', 50)"), qr/^55L01: timed out after 50 ms while waiting for replay of \Q$new/,
		"$mode: not known yet: a time-out says so");
	my (undef, undef, $stderr) = $c->psql('postgres', "SELECT lsn_require('0/1\@2', 50)");
	like($stderr, qr/on timeline 1, whose history does not contain timeline 2/, "$mode: and why");
	is($c->safe_psql('postgres', "SELECT lsn_wait('$kept', 50), lsn_replicated('$lost')"), 't|f', "$mode: on the old timeline");
	$wait{c_new} = start_wait(session($c), "SELECT lsn_wait('$new', 0)");
	$wait{c_small} = start_wait(session($c), "SELECT lsn_wait('0/1\@2', 0)");
	$wait{c_watch} = start_wait(session($c), "SELECT lsn_watch('$new', 0) > '${\lsn_of($new)}'::pg_lsn");
	my $many = crowd($c, 30, "SELECT lsn_wait('$new', 0)");
	await_waiters($c, 35);
	# in redo mode the worker is not needed for any of this
	my $worker = worker_pid($c);
	kill 'STOP', $worker if $mode eq 'redo';

	# a session that has read the history of timeline 1
	my $old_session = session($c);
	is(scalar finish_wait(start_wait($old_session, "SELECT lsn_replicated('0/1\@2')")), 'f', "$mode: a session on timeline 1");

	follow($c, $b);
	($out, $err) = finish_wait($wait{c_new});
	is("$out$err", 't', "$mode: a wait for a token of timeline 2, begun on timeline 1");
	($out, $err) = finish_wait($wait{c_small});
	is("$out$err", 't', "$mode: likewise if only the timeline was missing");
	($out, $err) = finish_wait($wait{c_watch});
	is("$out$err", 't', "$mode: likewise lsn_watch");
	($out, $err) = finish_wait($wait{c_lost});
	like($err, qr/the write at \Q$lost\E has been lost in a failover.*history left timeline 1 at/s,
		"$mode: a wait for a lost token, begun before the switch");
	($out, $err) = finish_wait($wait{c_plain});
	is("$out$err", 't', "$mode: the wrong yes again, of a plain LSN");
	ok($many->{run}->finish, "$mode: so is a crowd") or diag($many->{err});
	kill 'CONT', $worker if $mode eq 'redo';

	is($c->safe_psql('postgres', "SELECT lsn_wait('$kept', 0), lsn_wait('$later', 0), lsn_wait('$new', 0)"),
		't|t|t', "$mode: what survived is on the standby that follows");
	like(sqlstate($c, "SELECT lsn_wait('$lost', 0)"), qr/^40000: the write at \Q$lost/, "$mode: what did not is lost there");
	like(sqlstate($c, "SELECT lsn_replicated('$lost')"), qr/^40000/, "$mode: lsn_replicated says it, too");
	# also behind a newer one that is read all the same
	like(sqlstate($c, "SET lsn_tracker.default_timeout = 50;\nSET lsn_tracker.on_timeout = stale;\nSET lsn_tracker.token = 'FFFFFFFF/0\@2';\nSET lsn_tracker.token = '$lost';\nSELECT 1"),
		qr/^40000: the write at \Q$lost/, "$mode: behind one that is read all the same");
	await_waiters($c, 0);

	# What tells it, is a file.  One that can't be read is an error each time, and
	# no longer one once it is mended.
	my $history = $c->data_dir . '/pg_wal/00000002.history';
	my $text = slurp_file($history);
	my $reads = session($c);
	my $ask = "\\set VERBOSITY verbose\nSELECT lsn_replicated('$kept')";
	my %damage = (
		'58P01: could not open' => sub { },
		'42501: could not open' => sub { append_to_file($history, $text); chmod 0, $history },
		'is empty' => sub { append_to_file($history, "# nothing here\n\n") },
		'XX001: .* is damaged.*"1\t0/30"' => sub { append_to_file($history, "1\t0/30") },
		'XX001: .* is damaged.*"once upon' => sub { append_to_file($history, "once upon a time\n") },
		'XX001: .* is damaged.*"2' => sub { append_to_file($history, "2\t0/3000000\tafter itself\n") });
	foreach my $error (sort keys %damage)
	{
		chmod 0600, $history;
		unlink $history;
		$damage{$error}->();
		($out, $err) = finish_wait(start_wait($reads, $ask));
		like($err, qr/ERROR: .*$error/s, "$mode: history file: $error");
	}
	chmod 0600, $history;
	unlink $history;
	append_to_file($history, $text);
	is(finish_wait(start_wait($reads, $ask)), 't', "$mode: the same session, with the file in place");
	$reads->quit;

	is(scalar finish_wait(start_wait($old_session, "SELECT lsn_replicated('$kept'), lsn_replicated('$new')")), 't|t',
		"$mode: the same session on timeline 2");

	# Once more: C takes over from B.
	catch_up($b, $c);
	$b->stop;
	$c->promote;
	my $third = write_token($c);
	like($third, qr/\@3$/, "$mode: a token of timeline 3");
	is(scalar finish_wait(start_wait($old_session, "SELECT lsn_wait('$kept'), lsn_wait('$later'), lsn_wait('$third')")), 't|t|t',
		"$mode: the same session on timeline 3, a primary by now");
	$old_session->quit;
	is($c->safe_psql('postgres', "SELECT lsn_wait('$kept'), lsn_wait('$later'), lsn_wait('$third')"),
		't|t|t', "$mode: tokens of two timelines ago");
	like(sqlstate($c, "SELECT lsn_wait('$lost')"), qr/^40000/, "$mode: and what was lost then");

	# The old primary comes back by itself: a token of timeline 2 is not its own.
	$a->start;
	is($a->safe_psql('postgres', "SELECT lsn_wait('$lost')"), 't', "$mode: the old primary has what the others lost");
	like(sqlstate($a, "SELECT lsn_wait('$new')"), qr/^22023: target \Q$new\E is of a timeline that this server does not know/,
		"$mode: but nothing of timeline 2");

	# A server beside that line: it knows that 2 is taken, but never was on it.
	my $d = PostgreSQL::Test::Cluster->new("${mode}_d");
	$d->init_from_backup($a, 'd', has_streaming => 1);
	copy($c->data_dir . '/pg_wal/00000002.history', $d->data_dir . '/pg_wal/00000002.history') or die $!;
	chown((stat $d->data_dir)[ 4, 5 ], $d->data_dir . '/pg_wal/00000002.history');
	$d->append_conf('postgresql.conf', "primary_conninfo = ''\nrecovery_target_timeline = 'current'");
	$d->start;
	$d->promote;
	my $beside = write_token($d);
	like($beside, qr/\@3$/, "$mode: another timeline 3, from timeline 1");
	like(sqlstate($d, "SELECT lsn_wait('$new')"), qr/^40000: the write at \Q$new\E has been lost/,
		"$mode: a timeline that can no longer become an ancestor");

	$_->quit foreach values %wait;
	$_->stop foreach $a, $c, $d;
}

done_testing();
