# Through a transaction-pooling PgBouncer, where each call may come from another of the pool's sessions: the lifecycle of
# runs, unprepared, and prepared where the pooler keeps clients' statements apart; stops; the calls that wait, each of
# which takes one of the pool's sessions for as long as it waits; and what becomes of that session when its client
# cancels or is killed, when the pooler is killed, and when the server restarts behind it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Pooler;
use RunCluster;
use Test::More;

plan(skip_all => 'there is no pgbouncer') unless defined pgbouncer();

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $SIZE = 3;
my $node = new_server('pooled', "ai_chat_run.reconcile_interval = 1h\nai_chat_run.lock_timeout = 1h");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN; SELECT ai_chat_run.grant_app_access('app')");
my $pool = start_pooler($node, default_pool_size => $SIZE);
open_sessions($pool, $SIZE);

# Where the role is "app" it is a session of the pool.
my $SESSIONS = "FROM pg_stat_activity WHERE usename = 'app'";
my $ASLEEP = "$SESSIONS AND state = 'active' AND wait_event_type = 'Extension'";

# wait_for_sleepers(N): until so many of the pool's sessions wait in a call of ours.
sub wait_for_sleepers
{
	my ($n) = @_;
	wait_until($node, 'postgres', "SELECT count(*) $ASLEEP", $n);
	return;
}

# begin_in_pool(N, RUNNER): begins a run of chat N; its id.
sub begin_in_pool
{
	my ($n, $runner) = @_;
	return app_call($pool, "SELECT ai_chat_run.begin_run('@{[chat($n)]}', '$WS', runner => '$runner')");
}

# start_waiter(CALL): a client of the pool that has sent it, and is asleep.
sub start_waiter
{
	my ($call) = @_;
	my $client = app_session($pool);
	my $n = $node->safe_psql('postgres', "SELECT count(*) $ASLEEP");

	start_call($client, $call);
	wait_for_sleepers($n + 1);
	return $client;
}

sub await_run
{
	my ($run) = @_;
	return "CALL ai_chat_run.await_run('$run', '$WS', '1 h')";
}

# ---- the lifecycle, call by call ----

my $client = app_session($pool);
my %pids = map { $client->query_safe('SELECT pg_backend_pid()') => 1 } 1 .. $SIZE;
is(keys %pids, $SIZE, 'each call of a client comes from another session');
my $run = $client->query_safe("SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS', runner => 'web-1')");
my $key = "'$run', '$WS'";
my @calls = (
	"SELECT outcome, run_id = '$run' FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS')" => 'busy|t',
	"SELECT ai_chat_run.record_step($key, 1)" => 'continue',
	"SELECT ai_chat_run.heartbeat($key)" => 'continue',
	"SELECT ai_chat_run.is_locally_active('$run')" => 't',
	"SELECT ai_chat_run.link_assistant_message($key, '$run')" => 't',
	"SELECT ai_chat_run.request_stop_for_chat('@{[chat(1)]}', '$WS') = '$run'" => 't',
	"SELECT ai_chat_run.heartbeat($key)" => 'stop',
	"SELECT ai_chat_run.record_step($key, 2)" => 'stop',
	"BEGIN; SELECT ai_chat_run.finalize_run($key, 'error'); ROLLBACK" => 'finalized',
	"BEGIN; SELECT ai_chat_run.finalize_run($key, 'aborted', 'stopped'); COMMIT" => 'finalized',
	"SELECT ai_chat_run.finalize_run($key, 'completed')" => 'already_finalized',
	"SELECT ai_chat_run.heartbeat($key)" => 'finalized',
	"SELECT status, error, step_count, runner FROM ai_chat_run.get_run($key)" => 'aborted|stopped|2|web-1',
	"SELECT id = '$run' FROM ai_chat_run.get_latest_for_chat('@{[chat(1)]}', '$WS')" => 't',
	"SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS', run_id => '$run')" => 'resumed');
while (my ($call, $expected) = splice @calls, 0, 2)
{
	is($client->query_safe($call), $expected, $call =~ s/\Q$run\E/(the run)/gr);
}

# ---- many clients on few sessions ----

# Each on one of few chats, so that they meet: a chat's slot is had by one of them at a time, who alone ends the run. Who
# waited for another's run here would take a session that the other needs.
my $turn = <<~SQL;
	\\set n random(11, 14)
	SELECT outcome, run_id
	FROM ai_chat_run.try_begin_run(('00000000-0000-4000-8000-' || lpad(:n::text, 12, '0'))::uuid, '$WS') \\gset
	SELECT 1 / (ai_chat_run.record_step(:run_id, '$WS', 1) IN ('continue', 'finalized'))::int;
	SELECT 1 / CASE WHEN :outcome = 'busy' THEN 1
		ELSE (ai_chat_run.finalize_run(:run_id, '$WS', 'completed') = 'finalized')::int END;
	CALL ai_chat_run.await_run(:run_id, '$WS', CASE WHEN :outcome = 'busy' THEN interval '0' ELSE '1 h' END, NULL, NULL);
	SQL

# take_turns(MODE): so many that each client meets the others.
sub take_turns
{
	my ($mode) = @_;
	$node->safe_psql('postgres', "TRUNCATE $RUNS; SELECT ai_chat_run.stats_reset()");
	$pool->pgbench("-n -U app -c 8 -j 2 -t 25 -M $mode", 0, [qr{processed: 200/200\n}], [qr/^$/],
		"8 clients of $SIZE sessions, $mode", { "turn_$mode" => $turn });
	is($node->safe_psql('postgres', <<~SQL), 't|t|t', "$mode: every run that began was ended, once");
		SELECT begun = (SELECT count(*) FROM $RUNS WHERE status = 'succeeded' AND step_count = 1), begun = finalized_succeeded,
			begun + rejected = 200
		FROM ai_chat_run.stats WHERE datname = 'postgres'
		SQL
	return;
}

take_turns('extended');
SKIP:
{
	skip('this pgbouncer cannot share sessions among clients with named statements', 1) unless knows_statements();
	take_turns('prepared');
}

# ---- a stop, and who waits for it ----

# The list is complete whenever one asks, through whatever session.
my @run = map { begin_in_pool($_, 'web-1') } 21 .. 23;
my $waiter = start_waiter("CALL ai_chat_run.await_stops('web-1', '{}', '1 h')");
is($client->query_safe("SELECT ai_chat_run.request_stop('$run[0]', '$WS')"), 't', 'a stop');
is(answer($waiter), "{$run[0]}", 'the client that waits for stops is told');
is($client->query_safe("SELECT ai_chat_run.request_stop('$run[1]', '$WS')"), 't', 'a stop while nobody waits');
is($waiter->query_safe("CALL ai_chat_run.await_stops('web-1', '{$run[0]}', '1 h')"), "{$run[1]}",
	'the next call is told, though its session is another one');
start_call($waiter, "CALL ai_chat_run.await_stop('$run[2]', '$WS', '1 h')");
wait_for_sleepers(1);
is($client->query_safe("SELECT ai_chat_run.request_stop('$run[2]', '$WS')"), 't', 'a stop of one run');
is(answer($waiter), 'stop', 'the client that waits for this one is told');

start_call($waiter, await_run($run[0]));
wait_for_sleepers(1);
is($client->query_safe("SELECT ai_chat_run.finalize_run('$run[0]', '$WS', 'aborted', 'stopped')"), 'finalized', 'an end');
is(answer($waiter), 'aborted|stopped', 'the client that waits for the end is told');

# A claim is the session's; nobody else has that session before the call is over.
$run = begin_in_pool(24, 'web-1');
start_call($waiter, "CALL ai_chat_run.supersede_run('@{[chat(24)]}', '$run', '$WS', timeout => '1 h')");
wait_for_sleepers(1);
is($client->query_safe("SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(24)]}', '$WS')"), 'busy',
	'a chat whose run is being superseded is busy')
  for 1 .. $SIZE;
is($client->query_safe("SELECT ai_chat_run.finalize_run('$run', '$WS', 'aborted')"), 'finalized', 'its run ends');
like(answer($waiter), qr/^superseded\|/, 'the next one is the one who waited');
is($client->query_safe("SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(24)]}', '$WS')"), 'busy', 'and is active')
  for 1 .. $SIZE;

# The refusal of a wait inside a transaction block leaves the session as it was.
$run = begin_in_pool(25, 'web-1');
$waiter->query("\\set VERBOSITY sqlstate\nBEGIN; " . await_run($run));
like($waiter->{stderr}, qr/ERROR:  25001$/, 'no wait inside a transaction block');
$waiter->{stderr} = '';
$waiter->query_safe("ROLLBACK;\n\\set VERBOSITY default");
is($client->query_safe("SELECT ai_chat_run.heartbeat('$run', '$WS')"), 'continue', 'all sessions go on') for 1 .. $SIZE;

# ---- no session is left for the one whom all wait for ----

@run = map { begin_in_pool($_, 'web-2') } 31 .. 30 + $SIZE;
my @waiters = map { start_waiter(await_run($_)) } @run;
start_call($client, "SELECT ai_chat_run.finalize_run('$run[0]', '$WS', 'completed')");
wait_console($pool, 'SHOW POOLS', sub { $_[0]{user} eq 'app' && $_[0]{cl_waiting} == 1 }, 1);
is(runs($node, 'postgres', 31), '31 running', 'with as many waiting as there are sessions, nobody gets through');
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run[1]', '$WS', 'completed')"), 'finalized',
	'but for who does not come through the pool');
is(answer($waiters[1]), 'succeeded|', 'one of them returns');
is(answer($client), 'finalized', 'and makes room');
is(answer($waiters[0]), 'succeeded|', 'for the next');

# ---- a client that cancels, and one that is killed ----

# The third waiter still waits. Its session stays with the pool when it cancels.
my $pid = $node->safe_psql('postgres', "SELECT pid $ASLEEP");
$waiters[2]{run}->signal('INT');
like(last_words($waiters[2]), qr/ERROR:  canceling statement due to user request/, 'a cancel goes through the pool');
wait_for_sleepers(0);
is($node->safe_psql('postgres', "SELECT count(*) $SESSIONS AND pid = $pid"), 1, 'the session stays');
is($client->query_safe("SELECT ai_chat_run.heartbeat('$run[2]', '$WS')"), 'continue', 'and is of use') for 1 .. $SIZE;

for my $call (await_run($run[2]), "CALL ai_chat_run.supersede_run('@{[chat(33)]}', '$run[2]', '$WS', timeout => '1 h')")
{
	my ($name) = $call =~ /(\w+_run)\(/;
	$waiter = start_waiter($call);
	$pid = $node->safe_psql('postgres', "SELECT pid $ASLEEP");
	kill_client($waiter);
	wait_until($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
	pass("$name: the session of a client that is killed ends");
}
is($client->query_safe("SELECT ai_chat_run.finalize_run('$run[2]', '$WS', 'completed')"), 'finalized', 'and holds nothing');
is($client->query_safe("SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(33)]}', '$WS')"), 'began', 'nor the slot');
open_sessions($pool, $SIZE);

# ---- a restart of the server behind the pool ----

$run = begin_in_pool(41, 'web-4');
my $decided = begin_in_pool(42, 'web-4');
my $rows = $node->background_psql('postgres');
$rows->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
is(app_call($pool, <<~SQL), 'deferred', 'a finalization is deferred');
	BEGIN; SET LOCAL ai_chat_run.lock_timeout = '10ms';
	SELECT ai_chat_run.finalize_run('$decided', '$WS', 'completed'); COMMIT
	SQL
$node->restart;
abandon($rows);
wait_until($node, 'postgres', "SELECT boot_sweep_done_at IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'postgres'");
is($client->query_safe("SELECT ai_chat_run.heartbeat('$run', '$WS')"), 'finalized',
	'a client that has stayed with the pool is told of the boot sweep');
is(runs($node, 'postgres', 41, 42), "41 aborted Run interrupted by a server restart.\n42 succeeded", 'which was right');
is($client->query_safe("SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(41)]}', '$WS')"), 'began', 'and goes on');

# ---- the pooler is killed ----

open_sessions($pool, $SIZE);
$run = begin_in_pool(51, 'web-5');
$waiter = start_waiter(await_run($run));
kill_pooler($pool);
wait_until($node, 'postgres', "SELECT count(*) $SESSIONS", 0);
pass('its sessions end, the one that waits, too');
is($node->safe_psql('postgres', "SELECT ai_chat_run.heartbeat('$run', '$WS')"), 'continue', 'its runs go on');
$pool = start_pooler($node);
is(app_call($pool, "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'finalized', 'through the next pooler');
abandon($_) for $waiter, $client;
$_->quit for @waiters[ 0, 1 ];
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
$node->stop;
done_testing();
