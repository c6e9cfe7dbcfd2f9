# The examples of README.md and doc/ do what these say: each block of SQL runs on the node
# that its first line names, and each "-- => answer" is the answer.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

my ($primary, $standby) = new_pair('readme');
my $top = "$FindBin::RealBin/../..";
my $pages = join "\n", map { slurp_file($_) } "$top/README.md", sort glob "$top/doc/*.md";
my $session = session($standby);
my $checked = 0;
my $lsn;

$primary->safe_psql('postgres', 'CREATE TABLE orders (id int); CREATE ROLE app; CREATE ROLE report');
# also those that belong to an item of a list
while ($pages =~ s/^( *)```sql\n(.*?)^\1```\n//ms)
{
	my $block = $2 =~ s/^$1//mgr;

	$block =~ s/^-- (primary|standby)\n// or die "no node named in: $block";
	if ($1 eq 'primary')
	{
		$primary->safe_psql('postgres', $block);
		# where they make up a position, the real one
		$lsn = insert_lsn($primary);
		# a function is looked up in front of the statement's wait
		catch_up($primary, $standby);
		next;
	}
	foreach my $line (split /\n/, $block)
	{
		my ($sql, $answer) = $line =~ /^(.*;)\s*(?:-- => (.*))?$/ or die "cannot read: $line";
		$answer //= '';
		s{0/301DC08}{$lsn}g foreach $sql, $answer;
		my ($out, $err) = finish_wait(start_wait($session, $sql));
		is($err, '', "no error: $sql");
		is($out, $answer, "answer: $sql");
		$checked++;
	}
}
cmp_ok($checked, '>=', 30, 'there are examples');
# but for the extension, which is there already
unlike($pages, qr/^ {2,}(?:ALTER|CALL|CREATE(?! EXTENSION)|DROP|INSERT|RESET|SELECT|SET|SHOW|UPDATE) .*;/m, 'and none that is not run');

$session->quit;
$standby->stop;
$primary->stop;
done_testing();
