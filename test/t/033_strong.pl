# Strong reads under load: nobody sees on a standby what is older than what he has
# seen on the primary.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;
use Debugger;

my $primary = new_primary('primary');
$primary->safe_psql('postgres', 'CREATE TABLE rows (key int PRIMARY KEY, version bigint) WITH (fillfactor = 10); INSERT INTO rows SELECT i, 0 FROM generate_series(0, 4) i');
my $standby = add_standby($primary, 'standby');
my $cascaded = add_standby($standby, 'cascaded');
catch_up($primary, $cascaded);

my $strong = compile("$FindBin::RealBin/../clients/strong.c");
my $reads = 6 * many(16667);
my ($out, $err) = run_command([ $strong, 'strong', $reads, map { $_->connstr('postgres') } $primary, $standby, $cascaded ]);
is($err, '', 'no error');
is($out, "$reads reads, 0 stale", 'none is stale');

# A writer is stopped when its commit is visible and it can't have told.
my $session = session($primary);
my $version = 'SELECT version FROM rows WHERE key = 4';
foreach my $mode (lacks('gdb') ? () : qw(on off))
{
	my $debugger = debugger($session->query("SET synchronous_commit = $mode; SELECT pg_backend_pid()"));

	stop_behind($debugger, 'ProcArrayEndTransaction');
	start_wait($session, 'UPDATE rows SET version = version + 1 WHERE key = 4');
	told($debugger);
	my $seen = $primary->safe_psql('postgres', $version);
	foreach my $node ($standby, $cascaded)
	{
		is($node->safe_psql('postgres', "SET lsn_tracker.max_staleness = 0;\n$version"), $seen, "synchronous_commit = $mode: a writer is stopped: " . $node->name);
	}
	let_go($debugger);
	finish_wait($session);
}
$session->quit;
$_->stop foreach $cascaded, $standby, $primary;
done_testing();
