# Prometheus with the examples in doc/: its exporter reads the views, the numbers come in, and
# each alert fires when what it is about is done to a standby.

use strict;
use warnings;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use FindBin;
use lib $FindBin::RealBin;
use LsnPair;

foreach my $program (qw(prometheus promtool prometheus-postgres-exporter))
{
	plan skip_all => "no $program" if lacks($program);
}

my $examples = "$FindBin::RealBin/../../doc/examples";
my $dir = PostgreSQL::Test::Utils::tempdir();
my %port = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(exporter prometheus);
my ($primary, $standby) = new_pair('pair', "lsn_tracker.default_timeout = '300s'");

command_ok([ 'promtool', 'check', 'rules', "$examples/prometheus-rules.yaml" ], 'the rules are rules');
command_ok([ 'promtool', 'test', 'rules', "$examples/prometheus-rules-test.yaml" ],
	'and fire when they are to, and not before');

# The same, for who does not have so much time
my $rules = slurp_file("$examples/prometheus-rules.yaml");
is($rules =~ s/for: \w+/for: 1s/g + $rules =~ s/staleness_seconds > 60/staleness_seconds > 2/, 5,
	'four times and an age are less here');
append_to_file("$dir/rules.yaml", $rules);

append_to_file("$dir/prometheus.yml", <<YAML);
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$dir/rules.yaml"]
scrape_configs:
  - job_name: lsn_tracker
    static_configs: [{targets: ["127.0.0.1:$port{exporter}"]}]
YAML
my @running = map { my ($name, @command) = @$_; IPC::Run::start(\@command, '<', '/dev/null', '>', "$dir/$name.log", '2>&1') } (
	[ 'exporter', 'env', 'DATA_SOURCE_NAME=' . uri($standby->host, $standby->port, 'postgres'), 'prometheus-postgres-exporter',
		'--disable-default-metrics', '--disable-settings-metrics',
		"--extend.query-path=$examples/prometheus-queries.yaml", "--web.listen-address=127.0.0.1:$port{exporter}" ],
	[ 'prometheus', 'prometheus', "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/data", "--web.listen-address=127.0.0.1:$port{prometheus}" ]);
END { local $?; $_->kill_kill foreach @running }

# What Prometheus says, as data; undef: nothing yet
sub prometheus
{
	my ($path) = @_;
	my $answer = HTTP::Tiny->new->get("http://127.0.0.1:$port{prometheus}/api/v1/$path");

	return $answer->{success} ? decode_json($answer->{content})->{data} : undef;
}

# The series that an expression has now
sub series
{
	my ($expression) = @_;
	my $data = prometheus('query?query=' . $expression =~ s/[^\w.-]/sprintf '%%%02X', ord $&/ger);

	return $data ? @{ $data->{result} } : ();
}

# The value of an expression that has one; '' if not
sub value
{
	my ($first) = series(@_);

	return $first ? $first->{value}[1] : '';
}

sub alerts
{
	my $data = prometheus('alerts');

	return join ' ', sort map { "$_->{labels}{alertname} $_->{state}" } $data ? @{ $data->{alerts} } : ();
}

# Wait until it is so.
sub become
{
	my ($what, $expected, $name) = @_;
	my $is = '';
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	until (($is = $what->()) eq $expected || time > $until)
	{
		usleep(200_000);
	}
	is($is, $expected, $name) or diag(map { slurp_file("$dir/$_.log") } qw(exporter prometheus));
	return;
}

$standby->safe_psql('postgres', "SELECT lsn_wait('" . write_wal($primary) . "')");
become(sub { value('lsn_tracker_function_waits') }, 1, 'a wait is counted');
become(sub { value("lsn_tracker_$_") }, 0, "none: $_") foreach qw(waiting lost timed_out question_failures questions);
become(\&alerts, '', 'no alert');

pause($standby);
my $session = session($standby);
start_wait($session, "SELECT lsn_wait('" . write_wal($primary) . "')");
await_waiters($standby, 1);
become(sub { value('lsn_tracker_waiting') }, 1, 'it is seen that a session waits');
become(\&alerts, 'LsnTrackerReplayPaused firing', 'an alert');
# its "for" is a second
resume($standby);
is(finish_wait($session), 't', 'the session');
become(\&alerts, '', 'the alert ends');

# What the view says is a histogram there.
sub bucket { return "$_->{metric}{metric}|$_->{metric}{le}|$_->{value}[1]" }
my $view = $standby->safe_psql('postgres', 'TABLE pg_stat_lsn_tracker_waits') =~ s/Infinity/+Inf/gr;
become(sub { join "\n", sort map { bucket() } series('lsn_tracker_waits_bucket') },
	join("\n", sort split /\n/, $view), 'the buckets');
is(value('histogram_quantile(0.99, lsn_tracker_waits_bucket{metric="function"}) > bool 1'), 1,
	'a quantile: one has waited for a second');

# What fires from now on does so for minutes.
my $xid = $primary->safe_psql('postgres', 'BEGIN; SELECT pg_current_xact_id(); ROLLBACK');
catch_up($primary, $standby);
like(sqlstate($standby, "SELECT lsn_wait_xact('$xid')"), qr/^40000/, 'a write that has been rolled back');
become(\&alerts, 'LsnTrackerWritesLost firing', 'lost');

$standby->safe_psql('postgres', "SELECT lsn_wait('F0/0', 1);" x 60);
become(\&alerts, 'LsnTrackerTimeouts firing LsnTrackerWritesLost firing', 'time-outs');

$standby->safe_psql('postgres', 'SELECT lsn_staleness()');
$primary->stop;
$standby->safe_psql('postgres', 'SELECT lsn_staleness()');
become(\&alerts, join(' ', map { "LsnTracker$_ firing" } qw(PrimaryDoesNotAnswer Stale Timeouts WritesLost)),
	'nobody to ask');

$session->quit;
$_->signal('TERM') foreach @running;
$_->finish foreach @running;
@running = ();
$standby->stop;
done_testing();
