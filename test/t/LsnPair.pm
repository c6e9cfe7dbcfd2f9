# What the TAP tests share: a primary with a standby, sessions that wait, and
# ways to see what the tracker holds.

package LsnPair;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_primary add_standby new_pair insert_lsn write_wal write_token write_clean_up await_conflict catch_up cut_off follow pause resume sqlstate compile future_lsn reach
  start_wait finish_wait await_waiters waiting_pid worker_pid session);

# Start a primary with the extension.  Further arguments: configuration lines.
sub new_primary
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	# a standby keeps up with what it gets, however busy the machine is
	$node->append_conf('postgresql.conf', <<CONF);
shared_preload_libraries = 'lsn_tracker'
max_connections = 400
autovacuum = off
wal_receiver_status_interval = 1
wal_retrieve_retry_interval = 100ms
@{[ join "\n", @conf ]}
CONF
	$node->start;
	$node->safe_psql('postgres',
		'CREATE EXTENSION lsn_tracker; CREATE TABLE t (i int)');
	return $node;
}

# Start a standby of a server (which may be a standby itself).
sub add_standby
{
	my ($upstream, $name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $backup = "for_$name";

	$upstream->backup($backup);
	$node->init_from_backup($upstream, $backup, has_streaming => 1);
	$node->append_conf('postgresql.conf', join("\n", @conf, ''));
	$node->start;
	return $node;
}

# Both; returns them once the standby knows the extension.
sub new_pair
{
	my ($name, @conf) = @_;
	my $primary = new_primary("${name}_primary", @conf);
	my $standby = add_standby($primary, "${name}_standby");

	catch_up($primary, $standby);
	return ($primary, $standby);
}

sub insert_lsn
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
}

# Commit something; returns a position that covers it.
sub write_wal
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		'INSERT INTO t VALUES (1); SELECT pg_current_wal_insert_lsn()');
}

# Commit something; returns the commit's token.
sub write_token
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		"INSERT INTO t VALUES (1);\nSELECT lsn_last_commit()");
}

# WAL that removes row versions which a snapshot taken before it still needs, of
# a table of which every row was updated; returns a position behind it.
sub write_clean_up
{
	my ($node, $table) = @_;
	$node->safe_psql('postgres', "UPDATE $table SET i = i + 1");
	$node->safe_psql('postgres', "VACUUM $table");
	return write_wal($node);
}

# Wait until replay stands and waits for a session: for its snapshot, or with
# 'relation' for its lock.
sub await_conflict
{
	my ($node, $what) = @_;
	$what //= 'RecoveryConflictSnapshot';
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = '$what'")
	  or die "replay did not come to wait for: $what";
	return;
}

# Take a standby's WAL source away; returns once it has gone.
sub cut_off
{
	my ($node) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = ''");
	$node->reload;
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver')
	  or die 'the WAL receiver did not stop';
	return;
}

# Have a standby stream from another server from now on.
sub follow
{
	my ($node, $upstream) = @_;
	my $conninfo = $upstream->connstr;

	$conninfo =~ s/'/''/g;
	$node->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = '$conninfo'");
	$node->reload;
	return;
}

# Pause and resume replay.
sub pause
{
	my ($node) = @_;
	$node->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	$node->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'")
	  or die 'replay was not paused';
	return;
}

sub resume
{
	my ($node) = @_;

	# done, even if what is replayed next cancels the statement
	$node->psql('postgres', 'SELECT pg_wal_replay_resume()');
	$node->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'not paused'")
	  or die 'replay was not resumed';
	return;
}

# Compile a C client that uses libpq; returns the program.
sub compile
{
	my ($source) = @_;
	my $program = PostgreSQL::Test::Utils::tempdir() . '/client';
	my $log = `$ENV{CLIENT_CC} -o '$program' '$source' $ENV{CLIENT_LIBS} 2>&1`;

	die "could not compile $source: $log" if $?;
	return $program;
}

# Run SQL that fails; returns its SQLSTATE and message, '' if it did not fail.
sub sqlstate
{
	my ($node, $sql) = @_;
	my ($ret, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);
	return $err =~ /(?:ERROR|FATAL):  (\w{5}: .*)/ ? $1 : '';
}

# Wait, without the extension, until the standby has replayed everything.  By a
# write of its own: behind a segment switch the insert position is one that no
# standby reports.
sub catch_up
{
	my ($primary, $standby) = @_;
	my $lsn = write_wal($primary);

	$standby->poll_query_until('postgres',
		"SELECT pg_last_wal_replay_lsn() >= '$lsn'")
	  or die "the standby did not catch up";
	return;
}

# A position beyond anything written so far, and so far off that what a server
# writes by itself (checkpoints, running transactions) does not reach it.
sub future_lsn
{
	my ($node, $distance) = @_;
	$distance //= 20000;
	return $node->safe_psql('postgres',
		"SELECT pg_current_wal_insert_lsn() + $distance");
}

# Commit a row, and then write WAL up to there: whoever waits for that position
# finds the row.
sub reach
{
	my ($node, $lsn) = @_;
	$node->safe_psql('postgres', <<SQL);
INSERT INTO t VALUES (1);
SELECT pg_logical_emit_message(true, '', repeat('x', greatest(0, '$lsn' - pg_current_wal_insert_lsn())::int));
SQL
	return;
}

# A psql session that survives errors.
sub session
{
	my ($node, %opt) = @_;
	return $node->background_psql('postgres', on_error_stop => 0, %opt);
}

# Send SQL to a session without awaiting its answer.
sub start_wait
{
	my ($session, $sql) = @_;
	$session->{stdin} .= "$sql;\n\\echo <done>\n\\warn <done>\n";
	$session->{run}->pump_nb;
	return $session;
}

# Await the answer to start_wait(); returns stdout and stderr, trimmed.
sub finish_wait
{
	my ($session) = @_;
	my @result;

	$session->{run}->pump
	  until $session->{stdout} =~ /<done>/ && $session->{stderr} =~ /<done>/;
	foreach my $stream (qw(stdout stderr))
	{
		my $text = $session->{$stream};
		$text =~ s/<done>\n?//;
		$text =~ s/\s+\z//;
		$session->{$stream} = '';
		push @result, $text;
	}
	return wantarray ? @result : $result[0];
}

# Wait until so many sessions are in the queue, no fewer and no more.
sub await_waiters
{
	my ($node, $n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->poll_query_until('postgres',
		"SELECT count(*) = $n FROM lsn_waiters()")
	  or die "there never were $n waiters";
	return;
}

# The one session that waits
sub waiting_pid
{
	my ($node) = @_;
	await_waiters($node, 1);
	return $node->safe_psql('postgres', 'SELECT pid FROM lsn_waiters()');
}

sub worker_pid
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'lsn_tracker'");
}

1;
