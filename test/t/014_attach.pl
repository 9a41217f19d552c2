# Attached runners: however the session of one ends, its runs are aborted when ai_chat_run.runner_grace is over, unless
# somebody attaches the name meanwhile. The same incarnation comes back to its runs, also after a restart of the server
# that does not abort all; another one finds them aborted. What a client has locked is aborted when it is free.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $departed = 'aborted Run aborted: its runner has departed.';
my $replaced = 'aborted Run interrupted by a restart of its runner.';
my $silent = 'aborted Run aborted: its runner has been silent for too long.';
my $swept = 'aborted Run interrupted by a server restart.';
my $ALICE = '00000000-0000-4000-b000-00000000000a';
my $BOB = '00000000-0000-4000-b000-00000000000b';
my $node = new_server('attach', <<~CONF);
	ai_chat_run.runner_grace = 10ms
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.boot_sweep = grace
	ai_chat_run.boot_grace = 1h
	max_connections = 50
	CONF

sub change
{
	my (%settings) = @_;
	return change_conf($node, %settings);
}

# attach(RUNNER, INCARNATION): a session that has attached it, how many runs that aborted, and its backend.
sub attach
{
	my ($runner, $incarnation) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $id = defined $incarnation ? "'$incarnation'" : 'NULL';
	my ($n, $pid) = split /\|/,
	  $session->query_safe("SELECT ai_chat_run.attach_runner('$runner', $id), pg_backend_pid()");
	return ($session, $n, $pid);
}

# begin_of(RUNNER, N): begins a run of chat N that this runner executes.
sub begin_of
{
	my ($runner, $n) = @_;
	return $node->safe_psql('postgres',
		sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => '%s')), chat($n), $WS, $runner);
}

# status(N): how the last run of chat N is.
sub status
{
	my ($n) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT concat_ws(' ', status, error) FROM ai_chat_run.get_latest_for_chat('@{[chat($n)]}', '$WS')
		SQL
}

sub wait_ended
{
	my (@chats) = @_;
	my $list = join ', ', map { "'" . chat($_) . "'" } @chats;
	wait_until($node, 'postgres', <<~SQL, 0);
		SELECT count(*) FROM $RUNS WHERE chat_id IN ($list) AND status IN ('pending', 'running')
		SQL
	return;
}

# wait_gone(PID): until that backend is.
sub wait_gone
{
	my ($pid) = @_;
	wait_until($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
	return;
}

# ---- the ends of a session ----

# While one runner departs, another one that is attached, and a run of none, are not concerned.
my ($bystander, $n) = attach('bystander', $BOB);
is($n, 0, 'a runner that is new has left nothing');
begin_of('bystander', 1);
begin_run($node, 'postgres', 2);

my %end = (
	'a client that quits' => sub { $_[0]->quit },
	'a session that is terminated' => sub {
		is($node->safe_psql('postgres', "SELECT pg_terminate_backend($_[1])"), 't', 'pg_terminate_backend');
		abandon($_[0]);
	},
	'DISCARD ALL, as poolers send it' => sub { $_[0]->query_safe('DISCARD ALL') },
	'a client that is killed' => sub { kill_client($_[0]) },
	'a client that is killed while it waits' => sub {
		start_call($_[0], "CALL ai_chat_run.await_stops('worker', '{}', '1 h')");
		wait_asleep($node, $_[1]);
		kill_client($_[0]);
	},
	'a client that is killed in a transaction' => sub {
		$_[0]->query_safe("BEGIN; SELECT ai_chat_run.begin_run('@{[chat(4)]}', '$WS', runner => 'worker')");
		kill_client($_[0]);
	});
for (sort keys %end)
{
	my ($session, undef, $pid) = attach('worker');
	begin_of('worker', 3);
	$end{$_}->($session, $pid);
	wait_ended(3);
	is(status(3), $departed, $_);
}
is(runs($node, 'postgres', 1, 2, 4), "1 running\n2 running", 'runs of others are untouched');

# ---- a departure, and who comes back ----

change('ai_chat_run.runner_grace' => '1h');
my ($session, undef, $pid) = attach('worker', $ALICE);
begin_of('worker', 5);
$session->quit;
wait_gone($pid);
is($node->safe_psql('postgres', <<~SQL), "bystander|t\nworker|f", 'active_runs tells who is attached');
	SELECT runner, attached FROM ai_chat_run.active_runs WHERE runner IS NOT NULL ORDER BY chat_id
	SQL
($session, $n, $pid) = attach('worker', $ALICE);
is($n, 0, 'the same incarnation has lost no run');
is(status(5), 'running', 'nor have they ended');

# A live session has the name to itself, whoever asks for it.
for my $incarnation ("'$ALICE'", 'NULL')
{
	my $err;
	$node->psql('postgres', <<~SQL, stderr => \$err);
		\\set VERBOSITY sqlstate
		SELECT ai_chat_run.attach_runner('worker', $incarnation);
		SQL
	like($err, qr/ERROR:  55006$/, "two live sessions of one name, $incarnation");
}
is($session->query_safe("SELECT ai_chat_run.attach_runner('worker', '$ALICE')"), 0, 'the same session may attach again');

# An attachment is part of its transaction.
my $undo = $node->background_psql('postgres');
$undo->query_safe("BEGIN; SELECT ai_chat_run.attach_runner('undone'); ROLLBACK");
$undo->query_safe("BEGIN; SAVEPOINT s; SELECT ai_chat_run.attach_runner('undone'); ROLLBACK TO s; COMMIT");
is($node->safe_psql('postgres', "SELECT ai_chat_run.attach_runner('undone')"), 0, 'one that is rolled back is none');
$session->query_safe("BEGIN; SELECT ai_chat_run.attach_runner('worker', '$BOB'); ROLLBACK");
is(status(5), 'running', 'and aborts nothing');

# One that is rolled back leaves a departed runner departed.
$session->quit;
wait_gone($pid);
$undo->query_safe("BEGIN; SELECT ai_chat_run.attach_runner('worker', '$ALICE'); ROLLBACK");
change('ai_chat_run.runner_grace' => '1ms');
wait_ended(5);
is(status(5), $departed, 'so a departed runner is still departed');
$undo->quit;
change('ai_chat_run.runner_grace' => '1h');
($session, $n, $pid) = attach('worker', $ALICE);
begin_of('worker', 5);

# The name of one that departs later is free for another incarnation, which finds the runs aborted.
$session->quit;
wait_gone($pid);
($session, $n, $pid) = attach('worker', $BOB);
is($n, 1, 'another incarnation: its predecessor left a run');
is(status(5), $replaced, 'which is aborted at once');
begin_of('worker', 5);
$session->quit;
wait_gone($pid);
($session, $n, $pid) = attach('worker');
is($n, 1, 'no incarnation is a new one');
is(status(5), $replaced, 'so the run of before is aborted');
begin_of('worker', 5);

# With a new grace at a reload, and only for those that have departed. Before that a worker has come for something else,
# and found that nobody's grace was over.
$session->quit;
wait_gone($pid);
my $client = $node->background_psql('postgres');
my $decided = begin_run($node, 'postgres', 10);
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'completed')"), 'deferred',
	'a finalization is deferred');
$client->query_safe('COMMIT');
wait_ended(10);
is(status(5), 'running', 'departed, and not aborted within the grace');
change('ai_chat_run.runner_grace' => '1ms');
wait_ended(5);
is(status(5), $departed, 'a reload changes the grace, of those that have departed, too');
is(status(1), 'running', 'who is attached is not concerned');

# ---- a client has the row ----

change('ai_chat_run.runner_grace' => '1h');
($session, undef, $pid) = attach('worker', $ALICE);
my @run = map { begin_of('worker', $_) } 6, 7;
$session->quit;
wait_gone($pid);
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run[0]' FOR UPDATE");
($session, $n, $pid) = attach('worker', $BOB);
is($n, 2, 'attach: a run whose row is locked is counted');
is(status(6), 'running', 'though its row cannot be written');
is(status(7), $replaced, 'as that of the other one');
is($node->safe_psql('postgres', 'SELECT run_id, status FROM ai_chat_run.deferred_finalizations'),
	"$run[0]|aborted", 'its end is deferred');
$client->query_safe('COMMIT');
wait_ended(6);
is(status(6), $replaced, 'and applied when the client is gone');

# At a departure. Runners that depart at the same time, and whose rows are free, are not held up.
$session->quit;
wait_gone($pid);
my @held = map { [ attach("held $_") ] } 1 .. 5;
my @free = map { [ attach("free $_") ] } 1 .. 5;
begin_of("held $_", 10 + $_), begin_of("free $_", 20 + $_) for 1 .. 5;
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE runner LIKE 'held%' FOR UPDATE");
is($node->safe_psql('postgres', <<~SQL), 'deferred', 'the end of one is decided');
	SELECT ai_chat_run.finalize_run(id, workspace_id, 'completed') FROM $RUNS WHERE runner = 'held 5'
	SQL
$_->[0]->quit for @held, @free;
wait_gone($_->[2]) for @held, @free;
change('ai_chat_run.runner_grace' => '1ms');
wait_ended(21 .. 25);
is(runs($node, 'postgres', 21 .. 25), join("\n", map { "$_ $departed" } 21 .. 25), 'runs of departed runners are aborted');
is(runs($node, 'postgres', 11 .. 15), join("\n", map { "$_ running" } 11 .. 15), 'those whose rows are locked are left');
$client->query_safe('COMMIT');
wait_ended(11 .. 15);
is(runs($node, 'postgres', 11 .. 15), join("\n", (map { "$_ $departed" } 11 .. 14), '15 succeeded'),
	'and aborted when the client is gone, but for the one whose end was decided');

# Nor does the one whose end somebody is about to decide hold up those beside it; and when he does not, a later visit does.
my $decider = $node->background_psql('postgres', on_error_stop => 0);
for my $case ([ COMMIT => 'succeeded', 41, 42 ], [ ROLLBACK => 'aborted', 43, 44 ])
{
	my ($end, $end_status, @chats) = @$case;
	($session, undef, $pid) = attach("torn $end");
	@run = map { begin_of("torn $end", $_) } @chats;
	$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE runner = 'torn $end' FOR UPDATE");
	is($decider->query("BEGIN; SELECT ai_chat_run.finalize_run('$run[0]', '$WS', 'completed')"), 'deferred',
		"$end: a decision that is not committed");
	$decider->{stderr} = '';
	my $decided = "SELECT status FROM ai_chat_run.deferred_finalizations WHERE run_id";
	my $since = log_end($node);
	$session->quit;
	wait_gone($pid);
	wait_until($node, 'postgres', "$decided = '$run[1]'", 'aborted');
	is($node->safe_psql('postgres', "$decided = '$run[0]'"), '', "$end: that of another run is made beside it");
	$decider->query_safe($end);
	wait_until($node, 'postgres', "$decided = '$run[0]'", $end_status);
	$client->query_safe('COMMIT');
	wait_ended(@chats);
	is(runs($node, 'postgres', @chats),
		join("\n", "$chats[0] " . ($end eq 'COMMIT' ? 'succeeded' : $departed), "$chats[1] $departed"),
		"$end: the first decision holds, and if there was none, the worker's");
	unlike(log_since($node, $since), qr/WARNING:  .* of database "postgres" failed/, "$end: nothing has failed");
}
$decider->quit;

# ---- a worker that is ended while it aborts them ----

$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE public.naps (seconds float8);
	INSERT INTO public.naps VALUES (3600);
	CREATE FUNCTION public.nap() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_catalog.pg_sleep(seconds) FROM public.naps; RETURN NEW; END';
	CREATE TRIGGER nap BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.nap();
	SQL
($session) = attach('worker');
begin_of('worker', 7);
$session->quit;
my $napping = "FROM pg_stat_activity WHERE backend_type = 'ai_chat_run worker' AND wait_event = 'PgSleep'";
wait_until($node, 'postgres', "SELECT count(*) $napping", 1);

# Who attaches the name in this moment waits, and finds that done.
($session, $pid) = start_waiting($node, 'postgres', "SELECT ai_chat_run.attach_runner('worker')");
is($node->safe_psql('postgres', <<~SQL), 't', 'a worker is terminated');
	DELETE FROM public.naps;
	SELECT pg_terminate_backend(pid) $napping;
	SQL
answer($session);
wait_ended(7);
like(status(7), qr/^(?:\Q$departed\E|\Q$replaced\E)$/, 'another one, or who attaches the name, aborts the run');
begin_of('worker', 7);
$session->quit;
wait_ended(7);
is(status(7), $departed, 'the next departure is noticed, too');
$node->safe_psql('postgres', "DROP TRIGGER nap ON $RUNS");

# ---- silence ----

# The worker does not take an attached runner for dead, however long it has been silent. That goes for a run that was
# inserted by the transaction that attached it, too; not for one whose runner's name is longer than a name can be, and
# begins like that of one who is attached.
my $attached = begin_of('bystander', 8);
my $one = $node->background_psql('postgres', on_error_stop => 0);
my $long_name = 'x' x 127;
$one->query_safe('BEGIN');
is($one->query_safe("SELECT ai_chat_run.attach_runner('$_', '$ALICE')"), 0, 'attached and not committed')
  for 'one', $long_name;
$one->query_safe(sprintf <<~SQL, map { chat($_) } 51 .. 53);
	INSERT INTO $RUNS (chat_id, workspace_id, runner)
	VALUES ('%s', '$WS', 'one'), ('%s', '$WS', '$long_name'), ('%s', '$WS', '${long_name}x');
	COMMIT
	SQL
$node->safe_psql('postgres', "UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE finished_at IS NULL");
change('ai_chat_run.stale_after' => '1ms', 'ai_chat_run.reconcile_interval' => '100ms');
wait_ended(2, 53);
is(status(2), $silent, 'a silent run of no runner is aborted');
is(status(53), $silent, 'so is that of a runner whose name is too long');
is(status($_), 'running', 'that of an attached runner is not') for 1, 8;
is(status($_), 'pending', 'nor is one that was inserted while it was being attached') for 51, 52;
is($one->query_safe("SELECT ai_chat_run.attach_runner('$_', '$ALICE')"), 0, 'nor when the runner comes back')
  for 'one', $long_name;
change('ai_chat_run.stale_after' => '0', 'ai_chat_run.reconcile_interval' => '1h');
$one->quit;
wait_ended(51, 52);
is(status($_), $departed, 'but when it departs') for 51, 52;

# ---- the server is restarted, or crashes ----

# lose_server(CRASH): afterwards ALICE, who was "worker", and BOB, who was "bystander", are there no more.
sub lose_server
{
	my ($crash) = @_;
	$crash ? crash_backend($node) : $node->restart;
	abandon($_) for $session, $bystander;
	return;
}

change('ai_chat_run.runner_grace' => '10ms');
($session) = attach('worker', $ALICE);
begin_of('worker', 30);
for my $case ([ grace => 0 ], [ grace => 1 ], [ off => 0 ], [ off => 1 ])
{
	my ($mode, $crash) = @$case;
	my $what = ($crash ? 'a crash' : 'a restart') . " with boot_sweep = $mode";
	change('ai_chat_run.boot_sweep' => $mode);
	lose_server($crash);
	($session, $n) = attach('worker', $ALICE);
	is($n, 0, "$what: the same incarnation");
	is($node->safe_psql('postgres', <<~SQL), 'running|t', "$what: its run goes on");
		SELECT status, ai_chat_run.is_locally_active(id) FROM ai_chat_run.get_latest_for_chat('@{[chat(30)]}', '$WS')
		SQL
	($bystander, $n) = attach('bystander', $BOB);
	is("$n " . status(1), '0 running', "$what: another runner");
}

# They have come back, so the boot sweep keeps their runs, and those of no others.
change('ai_chat_run.boot_sweep' => 'grace', 'ai_chat_run.boot_grace' => '1h');
begin_of('lost', 31);
begin_run($node, 'postgres', 32);
lose_server(0);
($session) = attach('worker', $ALICE);
my $life = log_end($node);
change('ai_chat_run.boot_grace' => '1ms');
wait_swept($node, $life, 'postgres');
is(status(30), 'running', 'boot sweep with grace: who has attached again keeps his runs');
is(status($_), $swept, 'who has not does not') for 1, 8, 31, 32;

# A process that was started anew while the server was down.
change('ai_chat_run.boot_grace' => '1h');
lose_server(0);
($session, $n, $pid) = attach('worker', $BOB);
is("$n " . status(30), "1 $replaced", 'a restart of the server and of the runner');

# ---- what a restart would do ----

$session->quit;
wait_gone($pid);
change('ai_chat_run.boot_sweep' => 'on');
$life = log_end($node);
my @session = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 3;
my @answer = map { start_call($session[$_], "SELECT ai_chat_run.attach_runner('many $_')"); answer($session[$_]) } 0 .. 2;
is(join("\n", @answer), <<~ANSWERS =~ s/\n\z//r, 'with the second runner a client is warned, once');
	0
	WARNING: a restart of the server would abort the runs of all attached runners
	0
	ANSWERS
my $warnings = () = log_since($node, $life) =~ /WARNING:  a restart of the server would abort/g;
is($warnings, 1, 'so is the log');

# And it does.
begin_of('many 1', 26);
$life = log_end($node);
$node->restart;
abandon($_) for @session;
wait_swept($node, $life, 'postgres');
is(status(26), $swept, 'boot_sweep = on takes all runners for dead');

# ---- a departed runner whose extension, or database, is gone ----

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION ai_chat_run');
change('ai_chat_run.runner_grace' => '1h');
for my $db ('postgres', 'other')
{
	$node->safe_psql($db, "SELECT ai_chat_run.attach_runner('gone', '$ALICE')");
	begin_run($node, $db, 34);
}
$life = log_end($node);
$node->safe_psql('postgres', 'DROP DATABASE other');
$node->safe_psql('postgres', 'DROP EXTENSION ai_chat_run; CREATE EXTENSION ai_chat_run');
change('ai_chat_run.runner_grace' => '1ms');
($session, $n) = attach('worker', $ALICE);
begin_of('worker', 36);
$session->quit;
wait_ended(36);
unlike(log_since($node, $life), qr/WARNING|TRAP|PANIC|terminated by signal/, 'nobody complains');
$node->stop;
done_testing();
