# lsn_tracker.track_reads over a primary and its standbys: whoever carries the token from one
# to the next never goes back in time, in whatever direction.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;
use Debugger;

my $primary = new_primary('primary', 'max_prepared_transactions = 3', 'checkpoint_timeout = 1h');
$primary->safe_psql('postgres', 'CREATE TABLE rows (key int PRIMARY KEY, version bigint) WITH (fillfactor = 10); INSERT INTO rows SELECT i, 0 FROM generate_series(0, 4) i');
my $standby = add_standby($primary, 'standby', 'max_prepared_transactions = 3');
my $cascaded = add_standby($standby, 'cascaded', 'max_prepared_transactions = 3');
catch_up($primary, $cascaded);

# Clients that know what has been reported to them
my %client = map { $_->name => report_client($_->connstr('postgres')) } $primary, $standby;
my ($here, $there) = @client{qw(primary standby)};
ask($_, 'SET lsn_tracker.track_reads = on') foreach $here, $there;

# The position of a token
sub lsn { my ($token) = @_; return $token =~ s/[@~].*//r }

sub covers
{
	my ($token, $end, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($primary->safe_psql('postgres', "SELECT '${\lsn($token)}'::pg_lsn >= '${\lsn($end)}'::pg_lsn"), 't', $name) or diag("$token, $end");
	return;
}

# Many at once, who read where chance leads them
my $reads = 30000;
my ($out, $err) = run_command([ compile("$FindBin::RealBin/../clients/strong.c"), 'pool', $reads, map { $_->connstr('postgres') } $primary, $standby, $cascaded ]);
is($err, '', 'no error');
is($out, "$reads reads, 0 stale", 'none goes back in time');

# From the primary to a standby.  A read moves the token to the newest commit, if somebody
# else's; and is reported in a transaction, too.
my $end = write_token($primary);
my (undef, undef, $token) = ask($here, 'SELECT count(*) FROM t');
covers($token, $end, 'the newest commit is what a read on the primary has seen');
$end = write_token($primary);
ask($here, 'BEGIN');
(undef, undef, $token) = ask($here, 'SELECT count(*) FROM t');
covers($token, $end, 'in a transaction as well');
(undef, undef, $token) = ask($here, 'ROLLBACK');
covers($token, $end, 'that is rolled back');
(undef, undef, $token) = ask($here, 'RESET lsn_tracker.token');
is($token, '', 'and forgotten');
(undef, undef, $token) = ask($here, 'SHOW lsn_tracker.track_reads');
is($token, '', 'what reads nothing does not move it');
(undef, undef, $token) = ask($here, "SELECT current_setting('lsn_tracker.token')");
covers($token, $end, 'a read that shows it');
$end = write_token($primary);
(undef, undef, $token) = ask($here, "COPY t TO '/dev/null'");
covers($token, $end, 'COPY');
$end = write_token($primary);
(undef, undef, $token) = ask($here, 'SELECT 1 / (count(*) - count(*)) FROM t');
covers($token, $end, 'a read that fails');

# Large objects: libpq reads them by function calls of the protocol, without a query but that
# for the functions, once.
my $lobject = $primary->basedir . '/lobject.py';
append_to_file($lobject, <<'PY');
import sys, psycopg2
connection = psycopg2.connect(sys.argv[1])
with connection.cursor() as cursor:
    cursor.execute("SET lsn_tracker.track_reads = on")
connection.lobject(4711, "rb").read()
connection.commit()
print("ready", flush=True)
sys.stdin.readline()
text = connection.lobject(4711, "rb").read().decode()
print(text, connection.info.parameter_status("lsn_tracker.token"))
PY
$primary->safe_psql('postgres', "SELECT lo_from_bytea(4711, 'x')");
catch_up($primary, $standby);
foreach my $node (lacks('python') ? () : ($primary, $standby))
{
	my $text = $node->name =~ s/(.).*/$1/r;
	my ($in, $out) = ('', '');
	my $reader = IPC::Run::start([ $ENV{PYTHON}, $lobject, $node->connstr('postgres') ], '<', \$in, '>', \$out);

	$reader->pump until $out =~ /ready/;
	$end = $primary->safe_psql('postgres', "SELECT lo_put(4711, 0, '$text');\nSELECT lsn_last_commit()") =~ s/^\n//r;
	$standby->safe_psql('postgres', "SELECT lsn_require('$end')");
	$in = "\n";
	$reader->finish;
	(undef, my $read, $token) = split /\s+/, $out;
	is($read, $text, 'a large object: ' . $node->name);
	covers($token, $end, 'is covered by the token');
}

# A commit that is not flushed
$end = $primary->safe_psql('postgres', "SET synchronous_commit = off;\nINSERT INTO t VALUES (1);\nSELECT lsn_last_commit()");
(undef, undef, $token) = ask($here, 'SELECT count(*) FROM t');
is(lsn($token), lsn($end), 'a commit that may not be flushed');
is($standby->safe_psql('postgres', "SET lsn_tracker.token = '$token';\nSELECT count(*) FROM t"), $primary->safe_psql('postgres', 'SELECT count(*) FROM t'),
	'and is read on the standby');

# A writer is stopped when its commit is visible and it can't have told.
my $session = session($primary);
my $version = 'SELECT version FROM rows WHERE key = 4';
foreach my $mode (qw(on off))
{
	my $debugger = debugger($session->query("SET synchronous_commit = $mode; SELECT pg_backend_pid()"));

	stop_behind($debugger, 'ProcArrayEndTransaction');
	start_wait($session, 'UPDATE rows SET version = version + 1 WHERE key = 4');
	told($debugger);
	(my $seen, undef, $token) = ask($here, $version);
	is($primary->safe_psql('postgres', $version), $seen, "synchronous_commit = $mode: a writer is stopped behind its commit");
	is($_->safe_psql('postgres', "SET lsn_tracker.token = '$token';\n$version"), $seen, "what has been read there is read on " . $_->name)
	  foreach $standby, $cascaded;
	let_go($debugger);
	finish_wait($session);
}

# What is read is newer than the snapshot: by waiting for a row's writer.
my $row = 10;
foreach my $case (
	[ 'a row that has been deleted', 'DELETE FROM rows WHERE key = %d', 'SELECT key FROM rows WHERE key = %d FOR UPDATE', '' ],
	[ 'a cursor', 'DELETE FROM rows WHERE key = %d', 'FETCH c', '' ],
	[ 'a row that is there', 'INSERT INTO rows VALUES (%d)', 'INSERT INTO rows VALUES (%d) ON CONFLICT DO NOTHING', '' ],
	[ 'an error', 'INSERT INTO rows VALUES (%d)', 'INSERT INTO rows VALUES (%d)', '23505' ],
	[ 'COPY', 'INSERT INTO rows VALUES (%d)', 'COPY rows (key) FROM STDIN', '23505' ])
{
	my ($name, $write, $read, $sqlstate) = @$case;
	# report.c copies this one
	my $key = $name eq 'COPY' ? 1 : $row++;
	my $writer = session($primary);

	$primary->safe_psql('postgres', $write =~ /DELETE/ ? "INSERT INTO rows VALUES ($key)" : "DELETE FROM rows WHERE key = $key");
	ask($here, "BEGIN; DECLARE c CURSOR FOR SELECT key FROM rows WHERE key = $key FOR UPDATE") if $read eq 'FETCH c';
	$writer->query_safe('BEGIN; ' . sprintf($write, $key));
	start_asking($here, sprintf($read, $key));
	$primary->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_locks WHERE NOT granted') or die 'nobody waits for the row';
	$writer->query_safe('COMMIT');
	(undef, my $state, $token) = answer($here);
	is($state, $sqlstate, "$name: " . ($sqlstate eq '' ? 'no error' : $sqlstate));
	covers($token, scalar $writer->query('SELECT lsn_last_commit()'), "$name: the token covers who has written it");
	$writer->quit;
	ask($here, 'ROLLBACK') if $read eq 'FETCH c';
}

# From a standby to the primary, where the commit is not visible yet: its writer is stopped
# before that.
sub waits_for_visibility
{
	return $primary->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event IN ('Extension', 'LsnVisible') AND backend_type = 'client backend'");
}
my $count = 'SELECT count(*) FROM rows WHERE key = %d';
$row = 100;
foreach my $case (
	[ 'a query', 'INSERT INTO rows VALUES (%d)', $count, 1 ],
	[ 'a command that writes', 'INSERT INTO rows VALUES (%d)', 'DELETE FROM rows WHERE key = %d RETURNING 1', 1 ],
	[ 'EXECUTE', 'INSERT INTO rows VALUES (%d)', 'EXECUTE p (%d)', 1 ],
	[ 'BEGIN', 'INSERT INTO rows VALUES (%d)', "BEGIN ISOLATION LEVEL REPEATABLE READ; $count; COMMIT", 1 ],
	[ 'a prepared transaction', "COMMIT PREPARED 'p'", $count, 1 ])
{
	my ($name, $write, $read, $expected) = @$case;
	my $key = $row++;
	my $debugger = debugger($session->query('SELECT pg_backend_pid()'));
	my $reader = session($primary);

	$primary->safe_psql('postgres', "BEGIN; INSERT INTO rows VALUES ($key); PREPARE TRANSACTION 'p'") if $write =~ /PREPARED/;
	$reader->query_safe("SET lsn_tracker.track_reads = on; SET lsn_tracker.default_timeout = 0; PREPARE p AS SELECT count(*) FROM rows WHERE key = \$1");
	my $early = write_token($primary);
	stop_at($debugger, $write =~ /PREPARED/ ? 'ProcArrayRemove' : 'ProcArrayEndTransaction');
	start_wait($session, sprintf($write, $key));
	told($debugger);
	$standby->poll_query_until('postgres', sprintf("SELECT (%s) = 1", sprintf($count, $key))) or die 'not replayed';
	(my $seen, undef, $token) = ask($there, sprintf($count, $key));
	is($seen, 1, "$name: a standby shows a commit");
	is($primary->safe_psql('postgres', sprintf($count, $key)), 0, 'that is not visible on the primary');

	if ($name eq 'a query')
	{
		my $set = "SET lsn_tracker.track_reads = on;\nSET lsn_tracker.default_timeout = 300";
		$err = sqlstate($primary, "$set;\nSET lsn_tracker.token = '$token';\n" . sprintf($count, $key));
		like($err, qr/^55L01: timed out after 300 ms while waiting for the commits up to \Q$token\E to become visible/, 'who has seen it is refused in time');
		(undef, $out, $err) = $primary->psql('postgres', "$set;\nSET lsn_tracker.on_timeout = stale;\nSET lsn_tracker.token = '$token';\n" . sprintf($count, $key));
		is($out, 0, 'or reads all the same');
		like($err, qr/WARNING:  timed out after 300 ms/, 'with a warning');
		is($primary->safe_psql('postgres', "$set;\nSET lsn_tracker.token = '$early';\n" . sprintf($count, $key)), 0, 'who has seen only what is older does not wait');
		is($primary->safe_psql('postgres', "SET lsn_tracker.token = '$token';\n" . sprintf($count, $key)), 0, 'nor who does not track his reads');
	}

	start_wait($reader, "SET lsn_tracker.token = '$token'; " . sprintf($read, $key));
	waits_for_visibility() or die 'it does not wait';
	let_go($debugger);
	finish_wait($session);
	is((split /\n/, finish_wait($reader))[0], $expected, "$name: it waits, and reads it");
	$reader->quit;
}

# A COMMIT PREPARED that fails in a transaction which goes on, is not waited for.
$session->query($_) foreach 'BEGIN', 'SAVEPOINT s', "COMMIT PREPARED 'none'", 'ROLLBACK TO s';
is($primary->safe_psql('postgres', "SET lsn_tracker.track_reads = on;\nSET lsn_tracker.token = '${\write_token($primary)}';\nSELECT 'reads'"), 'reads', 'a COMMIT PREPARED that has failed');
$session->quit;
$_->{run}->finish foreach $here, $there;
$_->stop foreach $cascaded, $standby, $primary;
done_testing();
