# A promotion that the runners outlive. With boot_sweep = grace the new primary keeps the runs whose runners have called it,
# or have attached again as the incarnation that the old primary knew, be that in a session that was connected to the
# standby already. Calls that the standby refused, and those to the old primary, do not count. The others are aborted when
# the grace is over, which begins with the promotion, however long the standby has been up.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $replaced = 'aborted Run interrupted by a restart of its runner.';
my %incarnation = map { $_ => "00000000-0000-4000-b000-00000000000$_" } 1 .. 4;
my $primary = new_server('primary', <<~CONF, allows_streaming => 1, extra => ['--wal-segsize=1']);
	ai_chat_run.boot_sweep = grace
	ai_chat_run.boot_grace = 1h
	ai_chat_run.runner_grace = 1h
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	max_connections = 20
	CONF
$primary->backup('base');
my ($standby, $later) = map { PostgreSQL::Test::Cluster->new($_) } 'standby', 'later';
$_->init_from_backup($primary, 'base', has_streaming => 1) for $standby, $later;

# By what retention deletes we see that a worker has been there.
$standby->append_conf('postgresql.conf', 'ai_chat_run.retention = 1d');
$later->append_conf('postgresql.conf', 'ai_chat_run.boot_grace = 1s');
$_->start for $standby, $later;

# attach(SESSION, RUNNER NUMBER, INCARNATION NUMBER): how many runs that aborts.
sub attach
{
	my ($session, $runner, $incarnation) = @_;
	return $session->query("SELECT ai_chat_run.attach_runner('web-$runner', '$incarnation{$incarnation}')");
}

# ---- the old primary ----

# Runs 1 to 3 are of attached runners, the others of none.
my @old = map { $primary->background_psql('postgres') } 1 .. 3;
is(attach($old[ $_ - 1 ], $_, $_), 0, "runner $_ attaches") for 1 .. 3;
my %run = map { $_ => begin_run($primary, 'postgres', $_) } 4 .. 9;
$run{$_} = $primary->safe_psql('postgres',
	sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => 'web-%d')), chat($_), $WS, $_)
  for 1 .. 3;
is($primary->safe_psql('postgres', "SELECT ai_chat_run.$_"), 'continue', 'a runner calls the old primary')
  for "heartbeat('$run{6}', '$WS')", "record_step('$run{7}', '$WS', 1)";
my $client = $primary->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run{8}' FOR UPDATE");
is($primary->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run{8}', '$WS', 'completed')"), 'deferred',
	'a finalization is deferred');
add_ended_run($primary, 'postgres', 99, '2 days');
$primary->wait_for_catchup($_) for $standby, $later;

# ---- the standby ----

is($standby->safe_psql('postgres', 'SELECT count(*), bool_or(attached) FROM ai_chat_run.active_runs'), '9|f',
	'the standby has the runs, and nobody attached');
my $early = $standby->background_psql('postgres', on_error_stop => 0);
is($early->query_safe("SELECT status FROM ai_chat_run.get_run('$run{1}', '$WS')"), 'running', 'an early session looks');
for my $call (
	"attach_runner('web-1', '$incarnation{1}')",
	"attach_runner('web-3', '$incarnation{3}')",
	"heartbeat('$run{9}', '$WS')",
	"record_step('$run{9}', '$WS', 1)")
{
	$early->query("SELECT ai_chat_run.$call");
	like($early->{stderr}, qr/ERROR:  cannot execute \w+\(\) in a read-only transaction/,
		"an early session calls in vain: $call");
	$early->{stderr} = '';
}
$primary->stop('immediate');
abandon($_) for $client, @old;

# ---- the new primary, while the grace lasts ----

my $life = log_end($standby);
$standby->promote;
wait_until($standby, 'postgres', "SELECT count(*) FROM $RUNS WHERE chat_id = '@{[chat(99)]}'", 0);
is(runs($standby, 'postgres'), join("\n", (map { "$_ running" } 1 .. 7), '8 succeeded', '9 running'),
	'runs are left alone while the grace lasts; what was deferred is not');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM ai_chat_run.health() WHERE NOT ok'), 0,
	'which health() finds all right');

# Runner 1 comes back in its early session, 2 was started anew; of the others two call.
is(attach($early, 1, 1), 0, 'the same incarnation attaches');
my $anew = $standby->background_psql('postgres');
is(attach($anew, 2, 4), 1, 'another incarnation attaches');
is($standby->safe_psql('postgres', "SELECT ai_chat_run.$_"), 'continue', 'a runner calls the new primary')
  for "heartbeat('$run{4}', '$WS')", "record_step('$run{5}', '$WS', 1)";
begin_run($standby, 'postgres', 10);
is($standby->safe_psql('postgres', <<~SQL), "1|t\n3|f\n4|t\n5|t\n6|f\n7|f\n9|f\n10|t", 'of whom it has heard');
	SELECT ltrim(right(chat_id::text, 12), '0'), ai_chat_run.is_locally_active(id)
	FROM $RUNS WHERE status = 'running' ORDER BY chat_id
	SQL

# ---- when it is over ----

set_conf($standby, 'ai_chat_run.boot_grace' => '1ms');
$standby->reload;
wait_swept($standby, $life, 'postgres');
is(swept_lines($standby, $life), 'postgres: 4', 'the others are aborted when the grace is over');
is(runs($standby, 'postgres'), <<~RUNS =~ s/\n\z//r, 'and those whose runners have come are kept');
	1 running
	2 $replaced
	3 $swept
	4 running
	5 running
	6 $swept
	7 $swept
	8 succeeded
	9 $swept
	10 running
	RUNS
is($early->query_safe("SELECT ai_chat_run.heartbeat('$run{1}', '$WS')"), 'continue', 'the early runner goes on');
$_->quit for $early, $anew;
$standby->stop('immediate');

# ---- a standby that has been up for longer than the grace ----

wait_until($later, 'postgres', "SELECT clock_timestamp() - pg_postmaster_start_time() > '1 s'");
is(swept_lines($later, 0), '', 'no boot sweep before promotion');
my $before = $later->safe_psql('postgres', 'SELECT clock_timestamp()');
$later->promote;
wait_swept($later, 0, 'postgres');
is(swept_lines($later, 0), 'postgres: 8', 'the boot sweep comes by itself');
is($later->safe_psql('postgres', <<~SQL), 't', 'when the grace has passed since promotion');
	SELECT min(finished_at) >= timestamptz '$before' + interval '1 s' FROM $RUNS WHERE status = 'aborted'
	SQL
is(runs($later, 'postgres', 1 .. 9), join("\n", (map { "$_ $swept" } 1 .. 7), '8 succeeded', "9 $swept"),
	'nobody has called');
$later->stop('immediate');
done_testing();
