# Each function on a real standby: answers, time-outs and what they say.

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
	my ($primary, $standby) =
	  new_pair($mode, "lsn_tracker.wakeup = $mode", "wal_consistency_checking = 'all'");
	my ($out, $err, $ret);

	is($standby->safe_psql('postgres', 'SHOW lsn_tracker.wakeup'),
		$mode, "$mode: mode");

	# A wait that begins before the write, and ends with it.
	my $target = future_lsn($primary);
	my $waiter = start_wait(session($standby), "SELECT lsn_wait('$target', 0)");
	await_waiters($standby, 1);
	is($standby->safe_psql('postgres', 'SELECT target FROM lsn_waiters()'),
		$target, "$mode: lsn_waiters() shows the target");
	is( $standby->safe_psql('postgres',
			'SELECT count(*) FROM pg_stat_activity a, lsn_waiters() w WHERE a.pid = w.pid'
		),
		'1',
		"$mode: and the session");
	is( $standby->safe_psql('postgres',
			'SELECT wait_event_type || \':\' || wait_event FROM pg_stat_activity a, lsn_waiters() w WHERE a.pid = w.pid'
		),
		$standby->pg_version >= 17 ? 'Extension:LsnWait' : 'Extension:Extension',
		"$mode: wait event");
	reach($primary, $target);
	is(finish_wait($waiter), 't', "$mode: woken by the write");
	await_waiters($standby, 0);
	$waiter->quit;

	# Writes, each read at once: never stale.
	my $reader = session($standby);
	my $writer = session($primary);
	$primary->safe_psql('postgres', 'CREATE TABLE c (n int)');
	my $stale = 0;
	for my $n (1 .. 300)
	{
		my $lsn = $writer->query(
			"INSERT INTO c VALUES ($n); SELECT split_part(lsn_last_commit(), '\@', 1)");
		my ($seen, $replayed) = split /\n/,
		  $reader->query(
			"SELECT lsn_wait('$lsn'); SELECT max(n), pg_last_wal_replay_lsn() >= '$lsn' FROM c"
		  ) =~ s/^t\n//r;
		$stale++ if ($seen // '') ne "$n|t";
	}
	is($stale, 0, "$mode: 300 reads of the own write, none stale");

	# A true means that the server itself says so, too.  The tracker knows a
	# little earlier; the more so with a consistency check behind each record.
	$primary->safe_psql('postgres', 'CREATE TABLE wide (t text)');
	my $early = 0;
	for my $n (1 .. 50)
	{
		my $lsn = future_lsn($primary, 5000);
		start_wait($reader, "SELECT lsn_wait('$lsn', 0) AND pg_last_wal_replay_lsn() >= '$lsn'");
		await_waiters($standby, 1);
		$writer->query("INSERT INTO wide SELECT repeat('x', 1000) FROM generate_series(1, 20)");
		$early++ if finish_wait($reader) ne 't';
	}
	is($early, 0, "$mode: 50 answers, none before pg_last_wal_replay_lsn()");
	$writer->quit;

	# The same statement's remainder gets a fresh snapshot.
	$primary->safe_psql('postgres', <<SQL);
CREATE FUNCTION rows() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM t';
CREATE FUNCTION rows_plpgsql() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(*) FROM t); END';
SQL
	catch_up($primary, $standby);
	my $before = $standby->safe_psql('postgres', 'SELECT count(*) FROM t');
	$target = future_lsn($primary);
	start_wait($reader,
		"SELECT CASE WHEN lsn_wait('$target') THEN rows() - $before END, rows_plpgsql() - $before"
	);
	await_waiters($standby, 1);
	reach($primary, $target);
	is(finish_wait($reader), '1|1', "$mode: the rest of the statement sees the write");

	# Replay paused: time-outs.
	pause($standby);
	my $replayed = $standby->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
	$target = write_wal($primary);
	my $start = time;
	is($reader->query("SELECT lsn_wait('$target', 300)"), 'f', "$mode: lsn_wait times out");
	cmp_ok(time - $start, '>=', 0.3, "$mode: not too early");
	is($reader->query("SELECT lsn_replicated('$target')"), 'f', "$mode: lsn_replicated says no");
	is($reader->query("SELECT lsn_replicated('$replayed')"), 't', "$mode: lsn_replicated says yes");
	is($reader->query("SELECT lsn_watch('$replayed', 10) IS NULL"), 't', "$mode: lsn_watch times out");
	is($reader->query("SELECT lsn_watch(NULL, 10)"), $replayed, "$mode: lsn_watch without a start");
	is($reader->query('SELECT lsn_last_replay()'), $replayed, "$mode: lsn_last_replay");
	is($reader->query("SET lsn_tracker.default_timeout = 10; SELECT lsn_wait('$target')"),
		'f', "$mode: default_timeout");
	is($reader->query("SELECT lsn_wait('$target', NULL)"), 'f', "$mode: default_timeout for NULL");
	is($reader->query("SELECT lsn_wait('FFFFFFFF/FFFFFFFF', 10)"), 'f', "$mode: the largest target");
	is($reader->query("SELECT lsn_watch('FFFFFFFF/FFFFFFFF', 10) IS NULL"),
		't', "$mode: past the largest target");

	($ret, $out, $err) = $standby->psql('postgres',
		"\\set VERBOSITY verbose\nSELECT lsn_require('$target', 10)");
	my $behind = $primary->safe_psql('postgres', "SELECT '$target' - '$replayed'::pg_lsn");
	like($err, qr/ERROR:  55L01: timed out after 10 ms while waiting for replay of $target/,
		"$mode: lsn_require raises");
	like($err, qr/DETAIL:  Replay has reached $replayed, $behind bytes to go/, "$mode: says how far");
	like($err, qr/HINT:  WAL replay is paused/, "$mode: says why: paused");
	($ret, $out, $err) = $standby->psql('postgres',
		"SELECT lsn_require('$target', 10)\\; SELECT 'not run'");
	unlike($out, qr/not run/, "$mode: and what follows is not run");

	# Ask now, wait later.
	$reader->query("SELECT lsn_request_notification('$target')");
	is($reader->query('SELECT lsn_await_notification(10)'), 'f', "$mode: await times out");
	start_wait($reader, 'SELECT lsn_await_notification()');
	await_waiters($standby, 1);
	resume($standby);
	is(finish_wait($reader), 't', "$mode: the request outlived it and is answered");
	$reader->query("SELECT lsn_request_notification('FFFFFFFF/FFFFFFFF')");
	$reader->query("SELECT lsn_request_notification('$target')");
	is($reader->query('SELECT lsn_await_notification()'), 't', "$mode: a later request replaces it");
	$reader->query('SELECT lsn_await_notification()');
	like($reader->{stderr}, qr/no notification has been requested/, "$mode: a request is used up");
	$reader->{stderr} = '';

	# Watching: each position is past the one before.
	my $position = $reader->query('SELECT lsn_watch(NULL)');
	for my $n (1 .. 3)
	{
		start_wait($reader, "SELECT lsn_watch('$position', 0)");
		write_wal($primary);
		my $next = finish_wait($reader);
		is($standby->safe_psql('postgres', "SELECT '$next' > '$position'::pg_lsn"),
			't', "$mode: lsn_watch $n");
		$position = $next;
	}
	$reader->quit;

	# Why replay is behind.
	$target = insert_lsn($primary);
	$standby->safe_psql('postgres', "SELECT lsn_wait('$target')");
	$target = future_lsn($primary, 1000000);
	($ret, $out, $err) = $standby->psql('postgres', "SELECT lsn_require('$target', 10)");
	like($err, qr/HINT:  Replay is behind the primary/, "$mode: says why: just behind");
	$standby->append_conf('postgresql.conf', 'recovery_min_apply_delay = 1h');
	$standby->reload;
	$standby->poll_query_until('postgres', "SELECT current_setting('recovery_min_apply_delay') = '1h'")
	  or die 'no reload';
	($ret, $out, $err) = $standby->psql('postgres', "SELECT lsn_require('$target', 10)");
	like($err, qr/HINT:  Replay is delayed on purpose/, "$mode: says why: delayed");
	$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = 0\nprimary_conninfo = ''");
	$standby->reload;
	$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver')
	  or die 'the WAL receiver did not stop';
	($ret, $out, $err) = $standby->psql('postgres', "SELECT lsn_require('$target', 10)");
	like($err, qr/HINT:  No WAL receiver is running/, "$mode: says why: no WAL receiver");

	# The log.
	my $offset = -s $standby->logfile;
	$standby->psql('postgres',
		"SET lsn_tracker.log_waits = on; SELECT lsn_wait('0/1'); SELECT lsn_wait('$target', 10); SET statement_timeout = 20; SELECT lsn_wait('$target', 0)"
	);
	my $log = slurp_file($standby->logfile, $offset);
	like($log, qr{wait for replay of 0/0*1 succeeded after \d+\.\d{3} ms}, "$mode: log_waits: success");
	like($log, qr{wait for replay of $target timed out after \d+\.\d{3} ms}, "$mode: log_waits: time-out");
	like($log, qr{wait for replay of $target was interrupted after \d+\.\d{3} ms}, "$mode: log_waits: interrupted");

	$standby->stop;
	$primary->stop;
}

# Not preloaded: the functions say what to do.
my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
$plain->safe_psql('postgres', 'CREATE EXTENSION lsn_tracker');
foreach my $call ("lsn_wait('0/1')", "lsn_require('0/1')", "lsn_replicated('0/1')", 'lsn_last_replay()',
	'lsn_watch(NULL)', "lsn_request_notification('0/1')", 'lsn_await_notification()', '* FROM lsn_waiters()')
{
	my ($ret, $out, $err) = $plain->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($err, qr/55000: lsn_tracker must be loaded via "shared_preload_libraries".*HINT:  Add lsn_tracker/s,
		"not preloaded: $call");
}
$plain->stop;

done_testing();
