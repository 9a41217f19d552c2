# What is bound to a session, behind a PgBouncer: the setting ai_chat_run.runner, and an attached runner. A
# session-pooling one gives each client a session for as long as it is connected, and cleans it up for the next. A
# transaction-pooling one lends the session for a transaction only: there the runner is an argument, and nobody can
# attach, which this test shows by what becomes of those who do.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Pooler;
use RunCluster;
use Test::More;

plan(skip_all => 'there is no pgbouncer') unless defined pgbouncer();

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $departed = 'aborted Run aborted: its runner has departed.';
my $replaced = 'aborted Run interrupted by a restart of its runner.';
my $ALICE = '00000000-0000-4000-a000-000000000001';
my $BOB = '00000000-0000-4000-a000-000000000002';
my $node = new_server('sessions', <<~CONF);
	ai_chat_run.boot_sweep = grace
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1ms
	CONF
$node->safe_psql('postgres', "CREATE ROLE app LOGIN; SELECT ai_chat_run.grant_app_access('app')");

sub begin_sql
{
	my ($n) = @_;
	return "SELECT ai_chat_run.begin_run('@{[chat($n)]}', '$WS')";
}

# runner_of(N): that of the latest run of chat N.
sub runner_of
{
	my ($n) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT coalesce(runner, 'none') FROM ai_chat_run.get_latest_for_chat('@{[chat($n)]}', '$WS')
		SQL
}

# begin_of(RUNNER, N): begins a run of chat N that this runner executes.
sub begin_of
{
	my ($runner, $n) = @_;
	return $node->safe_psql('postgres',
		"SELECT ai_chat_run.begin_run('@{[chat($n)]}', '$WS', runner => '$runner')");
}

sub attach
{
	my ($runner, $incarnation) = @_;
	return "SELECT ai_chat_run.attach_runner('$runner', '$incarnation')";
}

# attached(): the runners of active runs that a session has attached.
sub attached
{
	return $node->safe_psql('postgres',
		"SELECT string_agg(runner, ' ' ORDER BY runner) FROM ai_chat_run.active_runs WHERE attached");
}

sub wait_status
{
	my ($n, $expected) = @_;
	wait_until($node, 'postgres', <<~SQL, $expected);
		SELECT status || coalesce(' ' || error, '') FROM ai_chat_run.get_latest_for_chat('@{[chat($n)]}', '$WS')
		SQL
	return;
}

# clients_gone(POOLER): waits until the pooler has noticed that all clients have left.
sub clients_gone
{
	my ($pooler) = @_;
	wait_console($pooler, 'SHOW CLIENTS', sub { $_[0]{user} eq 'app' }, 0);
	return;
}

# ---- session pooling: a client has a session, which is cleaned up for the next ----

my $pool = start_pooler($node, pool_mode => 'session', default_pool_size => 1);
my $client = app_session($pool);
my $pid = $client->query_safe('SELECT pg_backend_pid()');
$client->query_safe("SET ai_chat_run.runner = 'web-1'");
is($client->query_safe(attach('web-1', $ALICE)), 0, 'session pooling: a client attaches');
$client->query_safe(begin_sql(1));
is(runner_of(1), 'web-1', 'its setting is its own');
is(attached(), 'web-1', 'and it is attached');
$client->quit;
wait_status(1, $departed);
pass('a client that leaves has departed');
is(app_call($pool, 'SELECT pg_backend_pid()'), $pid, 'though the session lives on');
app_call($pool, begin_sql(2));
is(runner_of(2), 'none', 'its settings do not');

# The end of a client that waits is that of its session.
$client = app_session($pool);
$client->query_safe(attach('web-1', $ALICE));
begin_of('web-1', 1);
start_call($client, "CALL ai_chat_run.await_stops('web-1', '{}', '1 h')");
wait_asleep($node, $pid);
kill_client($client);
wait_status(1, $departed);
pass('so has one that is killed while it waits');

# Named statements need nothing of the pooler here.
$pool->pgbench('-n -U app -c 1 -t 20 -M prepared', 0, [qr{processed: 20/20\n}], [qr/^$/], 'prepared statements',
	{ session_turn => <<~SQL });
	SELECT ai_chat_run.begin_run('@{[chat(3)]}', '$WS') AS run \\gset
	SELECT 1 / (ai_chat_run.heartbeat(:run, '$WS') = 'continue')::int;
	SELECT 1 / (ai_chat_run.finalize_run(:run, '$WS', 'completed') = 'finalized')::int;
	CALL ai_chat_run.await_run(:run, '$WS', '1 h', NULL, NULL);
	SQL

# A pooler that is told not to clean up.
kill_pooler($pool);
$pool = start_pooler($node, pool_mode => 'session', default_pool_size => 1, server_reset_query => '');
app_call($pool, attach('web-1', $ALICE));
begin_of('web-1', 4);
clients_gone($pool);
is(attached(), 'web-1', 'without server_reset_query a client that has left is still attached');
kill_pooler($pool);
wait_status(4, $departed);
pass('until the session ends');

# ---- transaction pooling: the setting ----

$pool = start_pooler($node, default_pool_size => 2);
open_sessions($pool, 2);
$client = app_session($pool);
my $other = app_session($pool);
$client->query_safe("SET ai_chat_run.runner = 'web-1'");
$client->query_safe(begin_sql(11));
$other->query_safe(begin_sql(12));
is(runner_of(11), 'none', 'transaction pooling: a setting is not the client\'s');
is(runner_of(12), 'web-1', 'but of whoever gets that session');
$client->query_safe("BEGIN; SET LOCAL ai_chat_run.runner = 'web-2'; @{[begin_sql(13)]}; COMMIT");
is(runner_of(13), 'web-2', 'SET LOCAL holds for its transaction');
$client->query_safe("SELECT ai_chat_run.begin_run('@{[chat(14)]}', '$WS', runner => 'web-3')");
is(runner_of(14), 'web-3', 'an argument for its call');

# The one who cannot be given the runner, nor called in a transaction block.
my $call = "CALL ai_chat_run.supersede_run('@{[chat(15)]}', '@{[chat(15)]}', '$WS')";
my $err;
$pool->psql('postgres', "\\set VERBOSITY sqlstate\nBEGIN; SET LOCAL ai_chat_run.runner = 'web-4'; $call; COMMIT",
	stderr => \$err, extra_params => [ '-U', 'app' ]);
like($err, qr/ERROR:  25001$/, 'supersede_run after SET LOCAL');
$node->safe_psql('postgres', "ALTER ROLE app SET ai_chat_run.runner = 'web-5'");
$_->quit for $client, $other;
kill_pooler($pool);
$pool = start_pooler($node);
like(app_call($pool, $call), qr/^began\|/, 'supersede_run');
is(runner_of(15), 'web-5', 'takes the runner that its role has for all its sessions');
$node->safe_psql('postgres', "ALTER ROLE app RESET ai_chat_run.runner");

# ---- transaction pooling: who attaches all the same ----

# The name is bound to a session of the pool: nobody notices when the client is gone, and a second process is not
# told that the name is taken, but takes the runs for those of its predecessor.
kill_pooler($pool);
$pool = start_pooler($node, default_pool_size => 1);
is(app_call($pool, attach('web-6', $ALICE)), 0, 'a client attaches and leaves');
clients_gone($pool);
begin_of('web-6', 16);
is(attached(), 'web-6', 'the runner is attached without a client');
is(app_call($pool, attach('web-6', $BOB)), 1, 'another process of that name is let in');
is(runs($node, 'postgres', 16), "16 $replaced", 'and ends the runs of the first');

# When the pooler closes a session, as it does now and then, a runner that lives has departed.
$client = app_session($pool);
$client->query_safe(attach('web-7', $ALICE));
begin_of('web-7', 17);
console($pool, 'RECONNECT');
wait_status(17, $departed);
pass('a session that the pooler closes takes the runs of a living client along');
is($client->query_safe('SELECT 1'), 1, 'which has noticed nothing');
$client->quit;

# With a clean-up after each transaction it is gone as soon as it is made; all other calls do not mind.
kill_pooler($pool);
$pool = start_pooler($node, server_reset_query_always => 1);
app_call($pool, <<~SQL);
	BEGIN; @{[attach('web-8', $ALICE)]};
	SELECT ai_chat_run.begin_run('@{[chat(18)]}', '$WS', runner => 'web-8'); COMMIT
	SQL
wait_status(18, $departed);
pass('server_reset_query_always ends an attachment with its transaction');
$pool->pgbench('-n -U app -c 2 -t 20 -M extended', 0, [qr{processed: 40/40\n}], [qr/^$/], 'with a clean-up after each transaction',
	{ reset_turn => <<~SQL });
	SELECT ai_chat_run.begin_run(gen_random_uuid(), '$WS') AS run \\gset
	SELECT 1 / (ai_chat_run.heartbeat(:run, '$WS') = 'continue')::int;
	SELECT 1 / (ai_chat_run.finalize_run(:run, '$WS', 'completed') = 'finalized')::int;
	SQL
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
$node->stop;
done_testing();
