# What happens to a wait when servers and processes come and go.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

# A test that dies must not leave a stopped postmaster behind.  This runs before
# the end block that stops the servers.
my $postmaster;
END { kill 'CONT', $postmaster if $postmaster }

# Wait until a query answers true, through a session that is open already.
sub sleep_until
{
	my ($session, $query) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $session->query($query) eq 't';
		usleep(100_000);
	}
	die "timed out waiting for: $query";
}

foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("servers_$mode", "lsn_tracker.wakeup = $mode");
	my $cascaded = add_standby($standby, "servers_${mode}_cascaded");
	my ($out, $err);

	# A cascaded standby
	my $target = future_lsn($primary);
	my $waiter = start_wait(session($cascaded), "SELECT lsn_wait('$target', 0)");
	await_waiters($cascaded, 1);
	reach($primary, $target);
	is(finish_wait($waiter), 't', "$mode: cascaded standby");

	# Replay paused and resumed
	pause($cascaded);
	$target = write_wal($primary);
	start_wait($waiter, "SELECT lsn_wait('$target', 0)");
	await_waiters($cascaded, 1);
	resume($cascaded);
	is(finish_wait($waiter), 't', "$mode: replay paused and resumed");

	# WAL receiver stopped and restarted
	my $conninfo = $standby->safe_psql('postgres', 'SHOW primary_conninfo');
	$standby->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = ''");
	$standby->reload;
	$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver')
	  or die 'the WAL receiver did not stop';
	$target = write_wal($primary);
	start_wait($waiter, "SELECT lsn_wait('$target', 0)");
	await_waiters($cascaded, 1);
	my $direct = start_wait(session($standby), "SELECT lsn_wait('$target', 0)");
	await_waiters($standby, 1);
	$standby->safe_psql('postgres', 'ALTER SYSTEM RESET primary_conninfo');
	$standby->reload;
	is(finish_wait($direct), 't', "$mode: WAL receiver stopped and restarted");
	is(finish_wait($waiter), 't', "$mode: on the cascaded standby, too");

	# Primary restarted
	$target = future_lsn($primary);
	start_wait($direct, "SELECT lsn_wait('$target', 0)");
	await_waiters($standby, 1);
	$primary->restart;
	reach($primary, $target);
	is(finish_wait($direct), 't', "$mode: primary restarted in mid-wait");

	# The worker terminated in mid-wait.  The postmaster is stopped meanwhile, so
	# that it can't start another one: waits that had begun, and new ones, work
	# without it.
	my $other = session($standby);
	my $worker = worker_pid($standby);
	$postmaster = (split /\n/, slurp_file($standby->data_dir . '/postmaster.pid'))[0];
	$direct->query("SET statement_timeout = '20s'");
	$target = future_lsn($primary);
	start_wait($direct, "SELECT lsn_wait('$target', 0)");
	await_waiters($standby, 1);
	kill 'STOP', $postmaster;
	$other->query("SELECT pg_terminate_backend($worker)");
	sleep_until($other, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $worker");
	reach($primary, $target);
	is(finish_wait($direct), 't', "$mode: a wait that had begun ends without it");
	$target = future_lsn($primary);
	start_wait($direct, "SELECT lsn_wait('$target', 0)");
	sleep_until($other, 'SELECT count(*) = 1 FROM lsn_waiters()');
	reach($primary, $target);
	is(finish_wait($direct), 't', "$mode: a new wait ends without it");

	# It comes back, and nobody who waited meanwhile is lost.
	$direct->query('RESET statement_timeout');
	$target = future_lsn($primary);
	start_wait($direct, "SELECT lsn_wait('$target', 0)");
	sleep_until($other, 'SELECT count(*) = 1 FROM lsn_waiters()');
	kill 'CONT', $postmaster;
	undef $postmaster;
	$standby->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'lsn_tracker' AND pid <> $worker")
	  or die 'the worker did not come back';
	await_waiters($standby, 1);
	reach($primary, $target);
	is(finish_wait($direct), 't', "$mode: a wait from meanwhile ends with it");
	$other->quit;

	# Standby restarted in mid-wait
	start_wait($direct, "SELECT lsn_wait('FFFFFFFF/FFFFFFFF', 0)");
	await_waiters($standby, 1);
	$standby->stop('fast');
	$direct->{run}->finish;
	like($direct->{stderr}, qr/terminating connection due to administrator command/, "$mode: shutdown ends a wait");
	$target = write_wal($primary);
	$standby->start;
	is($standby->safe_psql('postgres', "SELECT lsn_wait('$target', 30000)"), 't', "$mode: standby restarted");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', "$mode: and its queue is empty");

	# Promotion: what was received before is replayed, and a waiter for it gets
	# its yes; a waiter for more learns where recovery ended.
	pause($standby);
	$target = write_wal($primary);
	$standby->poll_query_until('postgres', "SELECT pg_last_wal_receive_lsn() >= '$target'")
	  or die 'not received';
	my $beyond = future_lsn($primary, 1000000);
	my $reached = start_wait(session($standby), "SELECT lsn_wait('$target', 0)");
	my $lost = start_wait(session($standby), "\\set VERBOSITY verbose\nSELECT lsn_wait('$beyond', 0)");
	my $watch = start_wait(session($standby), "SELECT lsn_watch('$beyond', 0)");
	my $await = start_wait(session($standby),
		"SELECT lsn_request_notification('$beyond')\\; SELECT lsn_await_notification(0)");
	await_waiters($standby, 4);
	$primary->stop;
	$standby->promote;
	is((finish_wait($reached))[0], 't', "$mode: promotion, target reached by it");
	($out, $err) = finish_wait($lost);
	like($err, qr/ERROR:  55000: recovery ended before $beyond was replayed\nDETAIL:  Recovery ended at [0-9A-F]+\/[0-9A-F]+: this server has been promoted\.\nHINT/,
		"$mode: promotion, target not reached");
	($out, $err) = finish_wait($watch);
	like($err, qr/recovery ended before/, "$mode: promotion ends lsn_watch");
	($out, $err) = finish_wait($await);
	like($err, qr/recovery ended before/, "$mode: promotion ends lsn_await_notification");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', "$mode: nobody is left in the queue");
	is($lost->query("SELECT lsn_wait('$target')"), 't', "$mode: the session is usable and answers as a primary");
	is($standby->safe_psql('postgres', 'SELECT lsn_last_replay() IS NULL'), 't', "$mode: which replays nothing");

	# What the README says of failovers: a position knows no timeline.
	reach($standby, $beyond);
	is($lost->query("SELECT lsn_wait('$beyond')"), 't', "$mode: the new primary takes a lost position for its own");

	# The cascaded standby follows it to the new timeline.
	$target = write_wal($standby);
	is($cascaded->safe_psql('postgres', "SELECT lsn_wait('$target', 30000)"), 't', "$mode: cascaded standby after the promotion");

	$_->quit foreach ($waiter, $reached, $lost, $watch, $await);
	$cascaded->stop;
	$standby->stop;
}

# A standby that pauses right behind the record that somebody waits for
foreach my $mode (qw(redo poll))
{
	my ($primary, $standby) = new_pair("pause_$mode", "lsn_tracker.wakeup = $mode");
	my $writer = session($primary);
	my $xid = $writer->query('BEGIN; INSERT INTO t VALUES (1) RETURNING pg_current_xact_id()');

	$xid =~ s/\D//g;
	$standby->append_conf('postgresql.conf', "recovery_target_xid = '$xid'\nrecovery_target_action = pause");
	$standby->restart;
	my $waiter = start_wait(session($standby), "SELECT lsn_wait_xact('$xid', 0)");
	await_waiters($standby, 1);
	$writer->query('COMMIT');
	is(finish_wait($waiter), 't', "$mode: recovery target at which replay pauses");
	ok($standby->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'"), "$mode: it does");
	$_->quit foreach ($writer, $waiter);
	$standby->stop;
	$primary->stop;
}

# A promotion without a single record to replay: the server then calls no
# resource manager at all.  A clean shutdown leaves nothing to replay.
my $alone = new_primary('alone');
my $warned = qr/WARNING:  this server is a standby, but replication does not appear to be configured/;
$alone->stop;
$alone->set_standby_mode;
$alone->start;
my $beyond = $alone->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn() + 1000000');
my $waiter = start_wait(session($alone), "SELECT lsn_wait('$beyond', 0)");
await_waiters($alone, 1);

# It is a standby that has nowhere to get its WAL from: one warning, also when
# the worker restarts or the configuration is reloaded; and it goes on by itself
# once that is mended.
$alone->wait_for_log($warned);
my $worker = worker_pid($alone);
$alone->safe_psql('postgres', "SELECT pg_terminate_backend($worker, 30000)");
$alone->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'lsn_tracker' AND pid <> $worker")
  or die 'the worker did not come back';
$alone->reload;
$alone->append_conf('postgresql.conf', "restore_command = 'false'");
$alone->reload;
$alone->wait_for_log(qr/LOG:  replication is configured now/);
my $warnings = () = slurp_file($alone->logfile) =~ /$warned/g;
is($warnings, 1, 'an unconfigured standby is warned about once');
$alone->append_conf('postgresql.conf', "restore_command = ''");
$alone->reload;
$alone->poll_query_until('postgres', "SELECT current_setting('restore_command') = ''") or die 'no reload';
ok($alone->wait_for_log(qr/replication is configured now.*$warned/s), 'and again if it happens again');

$alone->promote;
my ($out, $err) = finish_wait($waiter);
like($err, qr/recovery ended before $beyond was replayed/, 'a promotion without any record to replay ends a wait');
$waiter->quit;
$alone->stop;

# Recovery that ends before it has replayed any record, at a target
my $source = new_primary('source', 'wal_keep_size = 100MB');
$source->stop;
mkdir $source->backup_dir;
system('cp', '-a', $source->data_dir, $source->backup_dir . '/cold') == 0 or die 'no copy';
$source->start;
$source->safe_psql('postgres', "INSERT INTO t VALUES (1);\nSELECT pg_switch_wal()");
my $archive = $source->data_dir . '/pg_wal';
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($source, 'cold');
append_to_file($restored->data_dir . '/recovery.signal', '');
$restored->append_conf('postgresql.conf', "restore_command = 'cp $archive/%f %p'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'");
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery did not end';
is($restored->safe_psql('postgres', "INSERT INTO t VALUES (1);\nSELECT lsn_wait(lsn_last_commit())"), 't', 'recovery that ends before the first record');
$_->stop foreach $restored, $source;

# A crash of a session: all of shared memory is made anew.
my ($primary, $standby) = new_pair('crash', 'restart_after_crash = on');
my $target = future_lsn($primary);
$waiter = start_wait(session($standby), "SELECT lsn_wait('$target', 0)");
my $pid = waiting_pid($standby);
restart_by_crash($standby, $pid);
$waiter->{run}->finish;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM lsn_waiters()'), '0', 'crash of a waiter: the queue is empty');
$target = write_wal($primary);
is($standby->safe_psql('postgres', "SELECT lsn_wait('$target', 30000)"), 't', 'and the startup process tells again');
$standby->stop;
$primary->stop;

done_testing();
