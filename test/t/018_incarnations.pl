# What one life of a runner leaves to the next, and one life of the server: a runner that has been attached for long
# comes back to its runs, one that was replaced does not; nobody has called a standby; a session that a pooler gives to
# another client has none of its runners; and a prepared transaction wakes who waits, also after a restart, if it has
# changed runs, and nobody otherwise.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $departed = 'aborted Run aborted: its runner has departed.';
my $silent = 'aborted Run aborted: its runner has been silent for too long.';
my $ALICE = '00000000-0000-4000-b000-00000000000a';
my $BOB = '00000000-0000-4000-b000-00000000000b';
my $node = new_server('incarnations', <<~CONF, allows_streaming => 1);
	ai_chat_run.runner_grace = 1h
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.boot_sweep = grace
	ai_chat_run.boot_grace = 1h
	ai_chat_run.retention = 1d
	CONF

# attach(RUNNER, INCARNATION): a session that has attached it, and how many runs that aborted.
sub attach
{
	my ($runner, $incarnation) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	return ($session, $session->query_safe("SELECT ai_chat_run.attach_runner('$runner', '$incarnation')"));
}

# begin_of(RUNNER, N): a statement that begins a run of chat N that this runner executes.
sub begin_of
{
	my ($runner, $n) = @_;
	return sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => '%s')), chat($n), $WS, $runner;
}

sub change
{
	my (%settings) = @_;
	set_conf($node, %settings);
	$node->reload;
	return;
}

sub wait_ended
{
	my ($n) = @_;
	wait_until($node, 'postgres', <<~SQL);
		SELECT status NOT IN ('pending', 'running') FROM $RUNS WHERE chat_id = '@{[chat($n)]}'
		SQL
	return;
}

# restart(SESSION...): these are gone then. Afterwards a worker has been there, done all that was due, and left, as an
# old run tells, which it deletes in the end.
sub restart
{
	add_ended_run($node, 'postgres', 99, '2 days');
	$node->restart;
	abandon($_) for @_;
	wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE chat_id = '@{[chat(99)]}'", 0);
	wait_until($node, 'postgres', workers(), 0);
	return;
}

# ---- a runner that has been attached for more than a week ----

my ($session, $n) = attach('worker', $ALICE);
my ($idle) = attach('idle', $BOB);
$node->safe_psql('postgres', begin_of('worker', 1));
for my $mode ('grace', 'off')
{
	# When they attached is all that is known of them.
	$node->safe_psql('postgres', <<~SQL);
		UPDATE ai_chat_run.runners SET seen_at = now() - interval '8 days', since = now() - interval '8 days'
		SQL
	set_conf($node, 'ai_chat_run.boot_sweep' => $mode);
	restart($session, $idle);
	is($node->safe_psql('postgres', 'SELECT runner, incarnation FROM ai_chat_run.runners ORDER BY runner'),
		"idle|$BOB\nworker|$ALICE", "boot_sweep = $mode: they are remembered after a restart");
	($session, $n) = attach('worker', $ALICE);
	is($n, 0, "boot_sweep = $mode: the same incarnation has lost no run");
	is(runs($node, 'postgres', 1), '1 running', "boot_sweep = $mode: nor has it ended");
	($idle, $n) = attach('idle', $BOB);
	is($n, 0, "boot_sweep = $mode: one that has no run comes back, too");
}
$idle->quit;

# ---- a begin that is in flight while its runner is replaced ----

# The transaction that attaches is older than that begin; what counts is when it attaches.
my $next = $node->background_psql('postgres', on_error_stop => 0);
$next->query_safe('BEGIN; SELECT 1');
my $client = $node->background_psql('postgres');
$client->query_safe('BEGIN; ' . begin_of('worker', 3));
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->quit;
wait_until($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
$n = $next->query_safe("SELECT ai_chat_run.attach_runner('worker', '$BOB')");
$next->query_safe('COMMIT');
$session = $next;
is($n, 1, 'another incarnation finds one run of before');
$client->query_safe('COMMIT');
is(runs($node, 'postgres', 3), '3 running', 'a second one is committed after that');
$node->safe_psql('postgres', begin_of('worker', 2));
$node->safe_psql('postgres', "UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE status = 'running'");
change('ai_chat_run.stale_after' => '1ms', 'ai_chat_run.reconcile_interval' => '100ms');
wait_ended(3);
is(runs($node, 'postgres', 3), "3 $silent", 'nobody looks after it: it is aborted for its silence');
is(runs($node, 'postgres', 2), '2 running', 'one as silent, but of the new incarnation, is not');
change('ai_chat_run.stale_after' => '0', 'ai_chat_run.reconcile_interval' => '1h');

# ---- DISCARD ALL ----

# attach_error(): the SQLSTATE that another session gets who attaches the name, for a moment.
sub attach_error
{
	my $err;
	$node->psql('postgres', <<~SQL, stderr => \$err);
		\\set VERBOSITY sqlstate
		BEGIN;
		SELECT ai_chat_run.attach_runner('worker', '$BOB');
		ROLLBACK;
		SQL
	return $err =~ s/.*ERROR:  //r;
}

for my $command ('DISCARD PLANS', 'DISCARD TEMP', 'DISCARD SEQUENCES', 'RESET ALL')
{
	$session->query_safe($command);
	is(attach_error(), '55006', "$command ends no attachment");
}
$session->query_safe('DISCARD ALL');
is(attach_error(), '', 'DISCARD ALL does: another session can attach the name');
is(runs($node, 'postgres', 2), '2 running', 'its run goes on, within the grace');
is($session->query_safe("SELECT ai_chat_run.attach_runner('worker', '$BOB')"), 0,
	'the same session can attach it, too');
$session->query_safe('DISCARD ALL');
change('ai_chat_run.runner_grace' => '1ms');
wait_ended(2);
is(runs($node, 'postgres', 2), "2 $departed", 'and when nobody does, its run is aborted');
$session->quit;
change('ai_chat_run.runner_grace' => '1h');

# ---- a standby ----

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# The runs are younger than the standby.
($session) = attach('worker', $ALICE);
my @run = map { $node->safe_psql('postgres', $_) } begin_of('worker', 4), begin_of('nobody', 5);
$node->wait_for_catchup($standby);
for my $run (@run)
{
	my $query = "SELECT status, ai_chat_run.is_locally_active(id) FROM ai_chat_run.get_run('$run', '$WS')";
	is($node->safe_psql('postgres', $query), 'running|t', 'the primary has heard from a runner');
	is($standby->safe_psql('postgres', $query), 'running|f', 'the standby has not');
}
my $err;
$standby->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT ai_chat_run.is_locally_active(NULL);", stderr => \$err);
like($err, qr/ERROR:  22004$/, 'nor does it take a null for a run');
$standby->stop;
$session->quit;

# ---- prepared transactions, and who waits ----

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql($_, 'CREATE TABLE public.unrelated (n int)') for 'postgres', 'other';

# prepare(DATABASE, NAME, STATEMENT): a transaction that does that.
sub prepare
{
	my ($db, $gid, $statement) = @_;
	$node->safe_psql($db, "BEGIN; $statement; PREPARE TRANSACTION '$gid'");
	return;
}

sub commit_prepared
{
	my ($db, $gid) = @_;
	$node->safe_psql($db, "COMMIT PREPARED '$gid'");
	return;
}

# sleeper(CALL): a session that sleeps in that call, and its backend.
sub sleeper
{
	my ($call) = @_;
	my $sleeper = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $sleeper->query_safe('SELECT pg_backend_pid()');
	my $out = $sleeper->query_until(qr/^calling\n/m, "\\echo calling\n$call;\n");

	$sleeper->{stdout} = $out =~ s/^calling\n//r;
	wait_until($node, 'postgres', "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid");
	return ($sleeper, $pid);
}

# looks(PID): grows with each look that the sleeper takes, which is a transaction of its own, with the next number.
sub looks
{
	my ($pid) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT split_part(virtualtransaction, '/', 2)::int
		FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE pid = $pid AND wait_event_type = 'Extension'
		SQL
}

# wait_look(PID, BEFORE): until it has looked and sleeps again.
sub wait_look
{
	my ($pid, $before) = @_;
	wait_until($node, 'postgres', <<~SQL);
		SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE pid = $pid AND wait_event_type = 'Extension' AND split_part(virtualtransaction, '/', 2)::int > $before
		SQL
	return;
}

# A worker has seen that there is no prepared transaction of before the restart.
restart();
my $run = $node->safe_psql('postgres', begin_of('web-6', 6));
my ($stops, $stops_pid) = sleeper("CALL ai_chat_run.await_stops('web-6', '{}', '1 h')");
my ($end, $end_pid) = sleeper("CALL ai_chat_run.await_run('$run', '$WS', '1 h')");

# What one look costs: a run of another runner, in a prepared transaction.
prepare('postgres', 'related', begin_of('web-7', 7));
my $before = looks($stops_pid);
my $before_end = looks($end_pid);
commit_prepared('postgres', 'related');
wait_look($stops_pid, $before);
wait_look($end_pid, $before_end);
my $cost = looks($stops_pid) - $before;
my $cost_end = looks($end_pid) - $before_end;

for my $db ('postgres', 'other')
{
	prepare($db, 'unrelated', 'INSERT INTO public.unrelated VALUES (1)');
	prepare('postgres', 'related', begin_of("web-$db", $db eq 'other' ? 8 : 9));
	$before = looks($stops_pid);
	$before_end = looks($end_pid);
	commit_prepared($db, 'unrelated');
	for (1 .. 5)
	{
		prepare($db, 'unrelated', 'INSERT INTO public.unrelated VALUES (1)');
		commit_prepared($db, 'unrelated');
	}

	# With a look that has a reason we know that those without one would have been taken.
	commit_prepared('postgres', 'related');
	wait_look($stops_pid, $before);
	wait_look($end_pid, $before_end);
	is(looks($stops_pid) - $before, $cost, "await_stops does not look for nothing, database $db");
	is(looks($end_pid) - $before_end, $cost_end, "nor does await_run, database $db");
}
prepare('postgres', 'end', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
commit_prepared('postgres', 'end');
is($end->query(''), 'succeeded|', 'COMMIT PREPARED of a finalization wakes await_run');
is($end->{stderr}, '', 'which returns without a word');
$run = $node->safe_psql('postgres', begin_of('web-6', 6));
prepare('postgres', 'stop', "UPDATE $RUNS SET stop_requested_at = now() WHERE id = '$run'");
commit_prepared('postgres', 'stop');
is($stops->query(''), "{$run}", 'COMMIT PREPARED of a stop wakes await_stops');
$_->quit for $stops, $end;

# Prepared before a restart, and committed after it: one that ends a run, and one that stops another.
my $stopped = $node->safe_psql('postgres', begin_of('web-10', 10));
prepare('postgres', 'end', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'error', 'model error')");
prepare('postgres', 'stop', "UPDATE $RUNS SET stop_requested_at = now() WHERE id = '$stopped'");
restart();
($end) = sleeper("CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
($stops) = sleeper("CALL ai_chat_run.await_stops('web-10', '{}', '1 h')");
commit_prepared('postgres', 'end');
is($end->query(''), 'failed|model error', 'COMMIT PREPARED of one that is older than the last restart: await_run');
commit_prepared('postgres', 'stop');
is($stops->query(''), "{$stopped}", 'COMMIT PREPARED of one that is older than the last restart: await_stops');
$_->quit for $stops, $end;
$node->stop;
done_testing();
