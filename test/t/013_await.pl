# await_run, await_stop and await_stops across sessions: who waits holds nothing and runs no query, is woken by whatever
# settles the run or stops it, however that is written, and ends at once when he is cancelled, terminated or left alone.
# Timeouts are of an hour, so that nothing here ends by itself.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('await', <<~CONF);
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.finalize_retry_base = 0
	max_connections = 100
	CONF
my $named = $node->safe_psql('postgres', 'SHOW server_version_num') >= 170000;

# run_id(N): ids of our choice, so that it is the same each time whose wake-ups are others'.
sub run_id
{
	my ($n) = @_;
	return sprintf '00000000-0000-7000-a000-%012d', $n;
}

# begin_as(N, RUNNER): begins run N of chat N.
sub begin_as
{
	my ($n, $runner) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT ai_chat_run.begin_run('@{[chat($n)]}', '$WS', run_id => '@{[run_id($n)]}', runner => '$runner')
		SQL
}

sub finalize
{
	my ($run, $status) = @_;
	return $node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', '$status')");
}

sub await_run
{
	my ($run) = @_;
	return "CALL ai_chat_run.await_run('$run', '$WS', '1 h')";
}

sub await_stop
{
	my ($run) = @_;
	return "CALL ai_chat_run.await_stop('$run', '$WS', '1 h')";
}

sub await_stops
{
	my ($runner, @seen) = @_;
	return "CALL ai_chat_run.await_stops('$runner', '{" . join(',', @seen) . "}', '1 h')";
}

# ---- who waits holds nothing and does nothing ----

my %waiter;
my $run = begin_as(1, 'web-1');
for (
	[ AiChatRunAwaitRun => await_run($run) ],
	[ AiChatRunAwaitStop => await_stop($run) ],
	[ AiChatRunAwaitStops => await_stops('web-1') ])
{
	my ($event, $call) = @$_;
	$waiter{$event} = [ start_waiting($node, 'postgres', $call) ];
}

# state(EVENT): what the session of that waiter holds, and the number of its transaction.
sub state
{
	my ($event) = @_;
	my $pid = $waiter{$event}[1];
	return split / /, $node->safe_psql('postgres', <<~SQL);
		SELECT concat_ws(' ', coalesce(a.wait_event, '-'), coalesce(a.backend_xid::text, '-'),
			coalesce(a.backend_xmin::text, '-'), string_agg(l.locktype || '=' || l.virtualxid, ','),
			max(l.virtualtransaction))
		FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE pid = $pid
		GROUP BY a.wait_event, a.backend_xid, a.backend_xmin
		SQL
}

my %number;
for my $event (sort keys %waiter)
{
	my ($name, $xid, $xmin, $locks, $number) = state($event);
	is($name, $named ? $event : 'Extension', "$event: the wait has its name");
	is("$xid $xmin", '- -', "$event: no transaction id and no snapshot");
	is($locks, "virtualxid=$number", "$event: no lock but the one on itself");
	$number{$event} = $number;
}

# Each look is a transaction of its own, with the next number.
for (11 .. 14)
{
	my $other = begin_as($_, "other-$_");
	$node->safe_psql('postgres', <<~SQL);
		SELECT ai_chat_run.record_step('$other', '$WS', 1), ai_chat_run.heartbeat('$other', '$WS');
		SELECT ai_chat_run.request_stop('$other', '$WS');
		SELECT ai_chat_run.finalize_run('$other', '$WS', 'aborted');
		VACUUM $RUNS;
		SQL
}
$node->safe_psql('postgres', "SELECT ai_chat_run.record_step('$run', '$WS', 1), ai_chat_run.heartbeat('$run', '$WS')");
is((state($_))[4], $number{$_}, "$_: no look while other things happen") for sort keys %waiter;

is($node->safe_psql('postgres', "SELECT ai_chat_run.request_stop('$run', '$WS')"), 't', 'a stop is requested');
is(answer($waiter{AiChatRunAwaitStop}[0]), 'stop', 'await_stop returns');
is(answer($waiter{AiChatRunAwaitStops}[0]), "{$run}", 'await_stops returns');
is(finalize($run, 'aborted'), 'finalized', 'the run is finalized');
is(answer($waiter{AiChatRunAwaitRun}[0]), 'aborted|', 'await_run returns');
$waiter{$_}[0]->quit for sort keys %waiter;

# ---- many waiters ----

# Each in a psql of its own; all are woken by one commit.
$run = begin_run($node, 'postgres', 2);
my @many = map {
	my $out = '';
	{
		out => \$out,
		psql => IPC::Run::start(
			[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', await_run($run) ],
			'>', \$out, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default))
	}
} 1 .. 50;
wait_until($node, 'postgres', <<~SQL, 50);
	SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL ai_chat_run.await_run%' AND wait_event_type = 'Extension'
	SQL
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'error', 'model error')"), 'finalized',
	'a run that 50 sessions wait for is finalized');
$_->{psql}->finish for @many;
is(join('', map { ${ $_->{out} } } @many), "failed|model error\n" x 50, 'all of them return');

# ---- what ends a wait before its time ----

$run = begin_run($node, 'postgres', 3);
my @call = (await_run($run), await_stop($run), await_stops('web-3'));
for my $call (@call)
{
	my ($name) = $call =~ /(await_\w+)/;
	my ($session, $pid) = start_waiting($node, 'postgres', $call);
	is($node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)"), 't', "$name: a cancel");
	is(answer($session), 'ERROR: canceling statement due to user request', "$name: ends the wait");
	$session->query_safe("SET statement_timeout = '10ms'");
	start_call($session, $call);
	is(answer($session), 'ERROR: canceling statement due to statement timeout', "$name: statement_timeout");
	$session->query_safe('RESET statement_timeout');
	start_call($session, $call);
	wait_asleep($node, $pid);
	is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"), 't', "$name: the session is terminated");
	like(last_words($session), qr/FATAL:  terminating connection due to administrator command/, "$name: ends the wait");

	# The server notices a dead client though its session is busy.
	($session, $pid) = start_waiting($node, 'postgres', $call);
	kill_client($session);
	wait_until($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
	pass("$name: a client is killed");
}

# ---- what wakes: commits of others, however they come about ----

# A finalization in a prepared transaction counts when it is committed.
sub prepare
{
	my ($gid, $statement) = @_;
	$node->safe_psql('postgres', "BEGIN; $statement; PREPARE TRANSACTION '$gid'");
	return;
}

prepare('end', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
my ($session) = start_waiting($node, 'postgres', await_run($run));
$node->safe_psql('postgres', "COMMIT PREPARED 'end'");
is(answer($session), 'succeeded|', 'COMMIT PREPARED of a finalization');

# A deferral is none before it is applied. This one is so by the worker, which learns of it by COMMIT PREPARED.
$run = begin_run($node, 'postgres', 4);
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
prepare('deferral', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
$client->query_safe('ROLLBACK');
start_call($session, await_run($run));
$node->safe_psql('postgres', "COMMIT PREPARED 'deferral'");
is(answer($session), 'succeeded|', 'COMMIT PREPARED of a deferral');

$run = begin_run($node, 'postgres', 5);
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
start_call($session, await_run($run));
is(finalize($run, 'error'), 'deferred', 'a client has the row');
$client->query_safe('COMMIT');
is(answer($session), 'failed|', 'the worker applies the deferral');

# Subtransactions and rolled-back ones.
$run = begin_run($node, 'postgres', 6);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
start_call($session, await_run($run));
wait_asleep($node, $pid);
$node->safe_psql('postgres', <<~SQL);
	BEGIN; SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed'); ROLLBACK;
	BEGIN; SAVEPOINT s; SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed'); ROLLBACK TO s;
	SAVEPOINT s; SELECT ai_chat_run.finalize_run('$run', '$WS', 'error', 'model error'); RELEASE s; COMMIT;
	SQL
is(answer($session), 'failed|model error', 'a subtransaction');

# Whoever writes the table himself, and the calls of operators.
my %settled = (
	"UPDATE $RUNS SET status = 'failed', error = 'e', finished_at = now() WHERE id = :run" => 'failed|e',
	"DELETE FROM $RUNS WHERE id = :run" => 'not_found|',
	"TRUNCATE $RUNS" => 'not_found|',
	'SELECT ai_chat_run.sweep_runs()' => 'aborted|Run aborted by an operator.');
for (sort keys %settled)
{
	$run = begin_run($node, 'postgres', 7);
	start_call($session, await_run($run));
	wait_asleep($node, $pid);
	$node->safe_psql('postgres', s/:run/'$run'/r);
	is(answer($session), $settled{$_}, $_);
}

# What happens while the session looks is not missed: one ends and begins runs as fast as it can, and another waits for
# each.
$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE public.turns (n int PRIMARY KEY, run uuid);
	CREATE PROCEDURE public.take_turns() LANGUAGE plpgsql AS \$\$
	DECLARE run uuid;
	BEGIN
		FOR n IN 1 .. 200 LOOP
			run := ai_chat_run.begin_run('@{[chat(8)]}', '$WS');
			INSERT INTO public.turns VALUES (n, run);
			COMMIT;
			PERFORM ai_chat_run.finalize_run(run, '$WS', 'completed');
			COMMIT;
		END LOOP;
	END \$\$;
	CREATE PROCEDURE public.follow() LANGUAGE plpgsql AS \$\$
	DECLARE turn uuid; status text; error text;
	BEGIN
		FOR i IN 1 .. 200 LOOP
			LOOP
				SELECT t.run INTO turn FROM public.turns t WHERE t.n = i;
				EXIT WHEN FOUND;
				COMMIT;
			END LOOP;
			CALL ai_chat_run.await_run(turn, '$WS', '1 h', status, error);
			IF status <> 'succeeded' THEN RAISE 'turn % is %', i, status; END IF;
		END LOOP;
	END \$\$;
	SQL
start_call($session, 'CALL public.follow()');
$node->safe_psql('postgres', 'CALL public.take_turns()');
is(answer($session), '', 'no end is missed');

# ---- a stop ----

# It is told at once though the row cannot be written, and whatever becomes of the transaction.
$run = begin_as(9, 'web-9');
my ($one) = start_waiting($node, 'postgres', await_stop($run));
my ($all) = start_waiting($node, 'postgres', await_stops('web-9'));
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
my $err;
is($node->psql('postgres', "BEGIN; SELECT ai_chat_run.request_stop('$run', '$WS'); ROLLBACK", stderr => \$err), 0,
	'a stop is requested while a client has the row');
like($err, qr/WARNING:  could not record the stop of run $run: /, 'that it is not recorded is told');
is(answer($one), 'stop', 'await_stop is told');
is(answer($all), "{$run}", 'await_stops is told');
$client->query_safe('COMMIT');
finalize($run, 'aborted');

# The same when nobody has looked at the row for long; the end of a prepared transaction makes it so.
$run = begin_as(10, 'web-9');
$node->safe_psql('postgres', 'CREATE TABLE public.unrelated (n int)');
prepare('unrelated', 'INSERT INTO public.unrelated VALUES (1)');
$node->safe_psql('postgres', "COMMIT PREPARED 'unrelated'");
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
start_call($all, await_stops('web-9'));
$node->psql('postgres', "SELECT ai_chat_run.request_stop('$run', '$WS')");
is(answer($all), "{$run}", 'await_stops is told also of a run that was not looked at for long');
$client->query_safe('COMMIT');
finalize($run, 'aborted');

# However it comes to be requested.
$run = begin_as(15, 'web-15');
start_call($one, await_stop($run));
start_call($all, await_stops('web-15'));
$node->safe_psql('postgres', "UPDATE $RUNS SET stop_requested_at = now() WHERE id = '$run'");
is(answer($one), 'stop', 'an UPDATE of an application: await_stop is told');
is(answer($all), "{$run}", 'an UPDATE of an application: await_stops is told');
finalize($run, 'aborted');
$run = begin_as(16, 'web-15');
start_call($one, await_stop($run));
start_call($all, await_stops('web-15'));
prepare('stop', "UPDATE $RUNS SET stop_requested_at = now() WHERE id = '$run'");
$node->safe_psql('postgres', "COMMIT PREPARED 'stop'");
is(answer($one), 'stop', 'COMMIT PREPARED: await_stop is told');
is(answer($all), "{$run}", 'COMMIT PREPARED: await_stops is told');

# Who waits for the stop of a run is told of its end, too.
$run = begin_as(17, 'web-17');
start_call($one, await_stop($run));
finalize($run, 'completed');
is(answer($one), 'finalized', 'await_stop is told of the end');

# ---- through a pooler: each call comes from another session ----

my @run = map { begin_as($_, 'pooled') } 21 .. 24;
is($node->safe_psql('postgres', "SELECT ai_chat_run.request_stop('$run[0]', '$WS')"), 't', 'a stop before the call');
is($node->safe_psql('postgres', await_stops('pooled')), "{$run[0]}", 'the first session is told');
my ($pooled) = start_waiting($node, 'postgres', await_stops('pooled', $run[0]));
$node->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.request_stop('$run[2]', '$WS'), ai_chat_run.request_stop('$run[0]', '$WS');
	SQL
is(answer($pooled), "{$run[2]}", 'the second of what the first was not');
$pooled->quit;

# Between two calls nobody listens.
$node->safe_psql('postgres', "SELECT ai_chat_run.request_stop('$run[1]', '$WS')");
finalize($run[0], 'aborted');
is($node->safe_psql('postgres', await_stops('pooled', @run[ 0, 2 ])), "{$run[1]}", 'the third of what came in between');
is($node->safe_psql('postgres', await_stops('pooled')), '{' . join(',', sort @run[ 1, 2 ]) . '}',
	'who has seen nothing is told of all that are active');
is($node->safe_psql('postgres', "CALL ai_chat_run.await_stops('pooled', '{" . join(',', @run[ 1, 2 ]) . "}', '0 s')"),
	'', 'and who has seen all, of none');

# ---- the server goes down ----

$_->quit for $session, $one, $all, $client;
sub waiting_sessions
{
	return map { (start_waiting($node, 'postgres', $_))[0] } await_run($run[3]), await_stop($run[3]), await_stops('web-3');
}

my @waiting = waiting_sessions();
ok($node->stop('fast', fail_ok => 1), 'a fast shutdown does not wait for them');
like(last_words($_), qr/FATAL:  terminating connection due to administrator command/, 'they are told') for @waiting;

# The next server cannot start before all processes of the one before have ended.
$node->append_conf('postgresql.conf', 'ai_chat_run.boot_sweep = off');
$node->start;
@waiting = waiting_sessions();
$node->kill9;
last_words($_) for @waiting;
start_again($node);
pass('kill -9 of the server');
$node->stop;
done_testing();
