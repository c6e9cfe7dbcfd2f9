# Prometheus with the examples in doc/: its exporter reads the views, the numbers come in,
# and an alert fires while sessions wait and replay is paused.

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

append_to_file("$dir/prometheus.yml", <<YAML);
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$examples/prometheus-rules.yaml"]
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

# The value of an expression that has one; '' if not
sub value
{
	my ($expression) = @_;
	my $data = prometheus('query?query=' . $expression =~ s/[^\w.-]/sprintf '%%%02X', ord $&/ger);

	return $data && @{ $data->{result} } ? $data->{result}[0]{value}[1] : '';
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
become(sub { value('lsn_tracker_waiting') }, 0, 'nobody waits');
become(sub { value('lsn_tracker_waits_bucket{metric="function",le="+Inf"}') }, 1, 'and is in the histogram');
become(\&alerts, '', 'no alert');

pause($standby);
my $session = session($standby);
start_wait($session, "SELECT lsn_wait('" . write_wal($primary) . "')");
await_waiters($standby, 1);
become(sub { value('lsn_tracker_waiting') }, 1, 'it is seen that a session waits');
become(\&alerts, 'LsnTrackerReplayPaused firing', 'an alert');
resume($standby);
is(finish_wait($session), 't', 'the session');
become(\&alerts, '', 'the alert ends');

$session->quit;
$_->signal('TERM') foreach @running;
$_->finish foreach @running;
@running = ();
$standby->stop;
$primary->stop;
done_testing();
