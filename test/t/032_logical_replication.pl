# The run table as a target of logical replication, on a server that has the extension, too. What arrives is the truth of
# another server and is written as it comes: none of our triggers refuses it or hears of it. So a copy wakes nobody who
# waits there, and what shared memory believes of it may be old. Settings that keep the copy as it is are boot_sweep = off
# and stale_after = 0; the defaults abort copies of runs that live on, which the next change that arrives mends. Whoever
# begins a run in the copy may stop the replication, until he ends it. With all three tables published, the subscriber can
# take over: the next server start there is a server start like any other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $silent = 'aborted Run aborted: its runner has been silent for too long.';
my $ALICE = '00000000-0000-4000-b000-00000000000a';
my $publisher = new_server('publisher', <<~CONF, allows_streaming => 'logical', extra => ['--wal-segsize=1']);
	ai_chat_run.stale_after = 0
	ai_chat_run.runner_grace = 1h
	max_connections = 20
	CONF
my $subscriber = new_server('subscriber', <<~CONF);
	ai_chat_run.boot_sweep = off
	ai_chat_run.stale_after = 0
	CONF
my $long = ($ENV{CHAOS} // '') eq 'full';

sub publish
{
	my ($statement) = @_;
	return $publisher->safe_psql('postgres', $statement);
}

sub copy
{
	my ($query) = @_;
	return $subscriber->safe_psql('postgres', $query);
}

# arrive(): until the copy has all that was committed so far.
sub arrive
{
	$publisher->wait_for_catchup('copy');
	return;
}

# contents(NODE): all rows, as they are.
sub contents
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT r FROM $RUNS r ORDER BY id");
}

sub is_the_same
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	arrive();
	is(contents($subscriber), contents($publisher), "$what: the copy is the same");
	return;
}

# restart_subscriber(NAME => VALUE...): with these settings. Afterwards a worker has been there.
sub restart_subscriber
{
	my (%settings) = @_;
	set_conf($subscriber, %settings) if %settings;
	$subscriber->restart;
	wait_until($subscriber, 'postgres',
		"SELECT boot_sweep_done_at IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'postgres'");
	return;
}

# errors_since(OFFSET): those of processes that serve no client, as the one does that applies what arrives.
sub errors_since
{
	my ($offset) = @_;
	return join "\n", log_since($subscriber, $offset) =~ /\] (ERROR: .*)/g;
}

# step(N): the next step of each run, which reaches the copies, too.
sub step
{
	my ($n) = @_;
	publish("SELECT ai_chat_run.record_step(id, workspace_id, $n) FROM $RUNS WHERE status = 'running'");
	return;
}

sub error_of
{
	my ($statement) = @_;
	my $err;
	$subscriber->psql('postgres', "\\set VERBOSITY sqlstate\n$statement;", stderr => \$err);
	return $err =~ s/.*ERROR:  //sr;
}

# ---- the first copy ----

my %run = map { $_ => begin_run($publisher, 'postgres', $_) } 1 .. 6;
publish("SELECT ai_chat_run.finalize_run('$run{1}', '$WS', 'error', 'model error')");
publish("CREATE PUBLICATION runs FOR TABLE $RUNS");
copy(sprintf q(CREATE SUBSCRIPTION copy CONNECTION '%s dbname=postgres' PUBLICATION runs), $publisher->connstr);
$subscriber->wait_for_subscription_sync($publisher, 'copy');
is_the_same('active and ended runs');

# ---- what the publisher does ----

publish(<<~SQL);
	SELECT ai_chat_run.record_step('$run{2}', '$WS', 3);
	SELECT ai_chat_run.request_stop('$run{2}', '$WS');
	SELECT ai_chat_run.finalize_run('$run{2}', '$WS', 'aborted');
	SELECT ai_chat_run.begin_run('@{[chat(2)]}', '$WS');
	CALL ai_chat_run.supersede_run('@{[chat(3)]}', '$run{3}', '$WS', timeout => '0 s', force => true);
	SELECT ai_chat_run.link_assistant_message('$run{1}', '$WS', gen_random_uuid());
	SELECT ai_chat_run.begin_run('@{[chat(7)]}', '$WS');
	BEGIN;
	SELECT ai_chat_run.finalize_run('$run{6}', '$WS', 'completed'), ai_chat_run.begin_run('@{[chat(6)]}', '$WS');
	COMMIT;
	DELETE FROM $RUNS WHERE chat_id = '@{[chat(7)]}';
	SQL
is_the_same('a slot that passes from run to run');
is(copy(<<~SQL), 'busy', 'it keeps the gate');
	SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(4)]}', '$WS')
	SQL
is(error_of("UPDATE $RUNS SET status = 'running', finished_at = NULL WHERE id = '$run{1}'"), 'RN410',
	'and ended runs ended, against those who write there');

# ---- who waits there, and what is believed there ----

# Nobody tells of what arrives. That it has arrived is seen by whoever looks, so at the end of each wait.
my ($waiter, $pid) = start_waiting($subscriber, 'postgres', "CALL ai_chat_run.await_run('$run{4}', '$WS', '1 h')");
is(copy("SELECT ai_chat_run.heartbeat('$run{4}', '$WS')"), 'continue', 'a call to the copy of a run');
publish("SELECT ai_chat_run.finalize_run('$run{4}', '$WS', 'completed')");
arrive();
is(copy(<<~SQL), "succeeded|\nfinalized\nsucceeded\nfinalized", 'whoever looks at the row sees its end');
	CALL ai_chat_run.await_run('$run{4}', '$WS', '0 s');
	CALL ai_chat_run.await_stop('$run{4}', '$WS', '0 s');
	SELECT status FROM ai_chat_run.get_run('$run{4}', '$WS');
	SELECT ai_chat_run.record_step('$run{4}', '$WS', 1);
	SQL
wait_asleep($subscriber, $pid);
pass('who waits is not woken by what arrives');

# Where it has looked at the row itself it believes that for a minute.
wait_until($subscriber, 'postgres', "SELECT ai_chat_run.heartbeat('$run{4}', '$WS')", 'finalized') if $long;
copy(<<~SQL);
	BEGIN; SELECT ai_chat_run.begin_run('@{[chat(8)]}', '$WS'); PREPARE TRANSACTION 'wakes all';
	COMMIT PREPARED 'wakes all';
	DELETE FROM $RUNS WHERE chat_id = '@{[chat(8)]}';
	SQL
is(answer($waiter), 'succeeded|', 'but sees it when he looks for another reason');
is(copy("SELECT ai_chat_run.heartbeat('$run{4}', '$WS')"), 'finalized', 'so does a runner');
$waiter->quit;

# ---- a restart of the subscriber, with settings that suit a copy ----

# By its row run 5 has been silent for a year; its runner sends heartbeats, which write nothing.
publish("UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE id = '$run{5}'");
is(publish("SELECT ai_chat_run.heartbeat('$run{5}', '$WS')"), 'continue', 'a runner calls the publisher');
arrive();
restart_subscriber();
is_the_same('a restart with boot_sweep = off and stale_after = 0');

# ---- with settings that do not ----

my $life = log_end($subscriber);
change_conf($subscriber, 'ai_chat_run.stale_after' => '1ms', 'ai_chat_run.reconcile_interval' => '100ms');
wait_until($subscriber, 'postgres', "SELECT count(*) FROM $RUNS WHERE finished_at IS NULL", 0);
is(runs($subscriber, 'postgres', 5), "5 $silent", 'with stale_after the copies of runs are aborted for their silence');
is(runs($publisher, 'postgres', 5), '5 running', 'though the runs themselves are not');
change_conf($subscriber, 'ai_chat_run.stale_after' => '0', 'ai_chat_run.reconcile_interval' => '1h');

# What arrives next for such a run is the whole row: by that an ended one is reopened, which no trigger refuses.
step(8);
is_the_same('after the next step of each run');
restart_subscriber('ai_chat_run.boot_sweep' => 'on');
is(swept_lines($subscriber, $life), 'postgres: 4', 'with boot_sweep = on the copies are aborted at a restart');
is(runs($subscriber, 'postgres', 5), "5 $swept", 'as if their runners had died');
is(runs($publisher, 'postgres', 5), '5 running', 'though they have not');
publish("SELECT ai_chat_run.finalize_run('$run{5}', '$WS', 'completed')");
step(9);
is_the_same('after the end of one and the next step of the others');
is(errors_since($life), '', 'nothing of that was an error');

# ---- who writes there ----

# The copies are aborted once more, and somebody takes a slot that looks free.
restart_subscriber();
my $intruder = begin_run($subscriber, 'postgres', 6);
change_conf($subscriber, 'ai_chat_run.boot_sweep' => 'off');
$life = log_end($subscriber);
step(10);
$subscriber->wait_for_log(
	qr/\] ERROR:  (?:duplicate key value|conflict detected).*\n?.*ai_chat_runs_one_active_per_chat/, $life);
is(runs($publisher, 'postgres', 6), "6 succeeded\n6 running", 'a run that was begun in the copy stops the replication');
copy("SELECT ai_chat_run.finalize_run('$intruder', '$WS', 'aborted')");
copy("DELETE FROM $RUNS WHERE id = '$intruder'");
is_the_same('when it has ended it goes on');

# ---- all tables, for the subscriber to take over ----

publish('ALTER PUBLICATION runs ADD TABLE ai_chat_run.deferred_finalizations, ai_chat_run.runners');
copy('ALTER SUBSCRIPTION copy REFRESH PUBLICATION');
$subscriber->wait_for_subscription_sync($publisher, 'copy');
my $alice = $publisher->background_psql('postgres');
$alice->query_safe("SELECT ai_chat_run.attach_runner('web-1', '$ALICE')");
my $begin = "SELECT ai_chat_run.begin_run('%s', '$WS', runner => '%s')";
$run{10} = publish(sprintf $begin, chat(10), 'web-1');
$run{11} = publish(sprintf $begin, chat(11), 'web-2');
@run{ 12, 13 } = map { publish(sprintf $begin, chat($_), 'web-2') } 12, 13;
my $client = $publisher->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id IN ('$run{12}', '$run{13}') FOR UPDATE");
is(publish("SELECT ai_chat_run.finalize_run('$run{12}', '$WS', 'error', 'model error')"), 'deferred',
	'a finalization is deferred');
is_the_same('runs of runners');
is(copy('SELECT run_id, status FROM ai_chat_run.deferred_finalizations'), "$run{12}|failed", 'so is what was deferred');

# A worker there may write what was decided before the publisher can.
$life = log_end($subscriber);
restart_subscriber();
wait_until($subscriber, 'postgres', "SELECT count(*) FROM ai_chat_run.deferred_finalizations", 0);
is(runs($subscriber, 'postgres', 12), '12 failed model error', 'a restart applies it to the copy');
is(runs($publisher, 'postgres', 12), '12 running', 'while the publisher cannot yet');
$client->query_safe('COMMIT');
wait_until($publisher, 'postgres', "SELECT count(*) FROM ai_chat_run.deferred_finalizations", 0);
is_the_same('when the publisher can');
is(errors_since($life), '', 'nothing of that was an error');

# The publisher is lost, with one more decision that it could not write.
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run{13}' FOR UPDATE");
is(publish("SELECT ai_chat_run.finalize_run('$run{13}', '$WS', 'completed')"), 'deferred', 'a finalization is deferred');
arrive();
$publisher->stop('immediate');
abandon($_) for $client, $alice;
copy('ALTER SUBSCRIPTION copy DISABLE; ALTER SUBSCRIPTION copy SET (slot_name = NONE); DROP SUBSCRIPTION copy');
set_conf($subscriber, 'ai_chat_run.boot_sweep' => 'grace', 'ai_chat_run.boot_grace' => '1h');
$life = log_end($subscriber);
$subscriber->restart;
$alice = $subscriber->background_psql('postgres');
is($alice->query_safe("SELECT ai_chat_run.attach_runner('web-1', '$ALICE')"), 0,
	'after a switch a runner that lives on attaches to the subscriber');
wait_until($subscriber, 'postgres', "SELECT status FROM $RUNS WHERE id = '$run{13}'", 'succeeded');
set_conf($subscriber, 'ai_chat_run.boot_grace' => '1ms');
$subscriber->reload;
wait_swept($subscriber, $life, 'postgres');
is(runs($subscriber, 'postgres', 10 .. 13), "10 running\n11 $swept\n12 failed model error\n13 succeeded",
	'its run goes on, what was decided holds, and the others are aborted');
is($alice->query_safe("SELECT ai_chat_run.finalize_run('$run{10}', '$WS', 'completed')"), 'finalized',
	'where it ends like any other');
$alice->quit;
$subscriber->stop;
done_testing();
