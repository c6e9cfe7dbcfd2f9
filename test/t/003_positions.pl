# Positions at page and segment boundaries, on an idle primary.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('position');

# After a switch the insert position is behind the next segment's first page
# header, where no record ends; the standby stays at the segment's start.  Once in
# a while the server writes something by itself in between: then once more.
my ($target, $answer, $replayed);
foreach my $try (1 .. 5)
{
	($target) = $primary->safe_psql('postgres',
		'INSERT INTO t VALUES (1); SELECT pg_switch_wal(); SELECT pg_current_wal_insert_lsn()') =~ /(\S+)\z/;
	$answer = $standby->safe_psql('postgres', "SELECT lsn_wait('$target', 30000)");
	$replayed = $standby->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
	last if insert_lsn($primary) eq $target;
}
like($target, qr{/[0-9A-F]+000028\z}, 'the insert position is behind a long page header');
is($answer, 't', 'lsn_wait takes it for the boundary');
is($standby->safe_psql('postgres', "SELECT '$target'::pg_lsn - '$replayed'"),
	'40', 'while replay stands at the boundary');
is($standby->safe_psql('postgres', "SELECT lsn_replicated('$target')"), 't', 'lsn_replicated');
is($standby->safe_psql('postgres', "SELECT lsn_request_notification('$target'); SELECT lsn_await_notification()"),
	"\nt", 'lsn_await_notification');
is($primary->safe_psql('postgres', "SELECT lsn_wait('$target')"), 't', 'the primary knows it, too');

# A wait for it that began before
my $begun = session($standby);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
($target) = $primary->safe_psql('postgres',
	'INSERT INTO t VALUES (1); SELECT pg_switch_wal(); SELECT pg_current_wal_insert_lsn()') =~ /(\S+)\z/;
start_wait($begun, "SELECT lsn_wait('$target', 0)");
await_waiters($standby, 1);
resume($standby);
is(finish_wait($begun), 't', 'a wait that began before the switch was replayed');

# Every record that ends exactly at a page boundary: fill pages with messages
# whose length walks until one does.
my $at_boundary = $primary->safe_psql('postgres', <<'SQL');
CREATE FUNCTION end_at_page_boundary() RETURNS pg_lsn LANGUAGE plpgsql AS $$
DECLARE
	pos pg_lsn;
	room int;
	tries int := 0;
	page int := current_setting('wal_block_size')::int;
BEGIN
	FOR i IN 1 .. 10000 LOOP
		pos := pg_current_wal_insert_lsn();
		room := page - ((pos - '0/0')::bigint % page)::int;
		-- besides its text a message record takes 24 bytes of header, 5 of
		-- data header, 24 of its own and 1 of prefix
		IF room BETWEEN 400 AND 4000 THEN
			PERFORM pg_logical_emit_message(false, '', repeat('x', room - 54 - 8 * tries));
			tries := (tries + 1) % 8;
		ELSE
			PERFORM pg_logical_emit_message(false, '', repeat('x', 200));
		END IF;
		pos := pg_current_wal_insert_lsn();
		IF (pos - '0/0')::bigint % page = 24 THEN
			RETURN pos;
		END IF;
	END LOOP;
	RETURN NULL;
END $$;
SELECT end_at_page_boundary();
SQL
like($at_boundary, qr{/[0-9A-F]*[02468ACE]018\z}, 'a record that ends at a page boundary');
is($standby->safe_psql('postgres', "SELECT lsn_wait('$at_boundary', 30000)"), 't', 'lsn_wait takes it for the boundary');
is( $standby->safe_psql('postgres',
		"SELECT lsn_watch('$at_boundary'::pg_lsn - 24, 100) IS NULL OR pg_last_wal_replay_lsn() > '$at_boundary'"),
	't', 'lsn_watch is not misled by it');

$begun->quit;
$standby->stop;
$primary->stop;
done_testing();
