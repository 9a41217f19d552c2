# What doc/operating.md tells who is woken at night: each trouble is made for real, and the document's own commands find
# it and mend it, as they stand there. And what it says of a server that shall leave runs alone, of copies of a server,
# and of the memory that a tracked run takes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Documents;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'Run interrupted by a server restart.';
my $document = read_document('doc/operating.md');

# told(HEADING, N): the SQL of the N-th block below that heading, from 0 on, without the comments on its answers.
sub told
{
	my ($heading, $n) = @_;
	my @lines = @{ $document->{lines} };
	my ($from) = grep { $lines[ $_ - 1 ] =~ /^#+ \Q$heading\E$/ } 1 .. @lines or die "no heading $heading";
	my ($to) = grep { $_ == @lines || $lines[$_] =~ /^#+ / && !in_block($_ + 1) } $from .. @lines;
	my @blocks = grep { $_->{language} eq 'sql' && $_->{first} > $from && $_->{last} <= $to } @{ $document->{blocks} };
	my $block = $blocks[$n] or die "no block $n below $heading";
	return join "\n", map { s/\s+-- .*//r } @{ $block->{lines} }, '';
}

sub in_block
{
	my ($line) = @_;
	return grep { $line >= $_->{first} && $line <= $_->{last} } @{ $document->{blocks} };
}

my $node = new_server('night', <<~CONF, allows_streaming => 1);
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.runner_grace = 1ms
	ai_chat_run.finalize_retry_base = 0
	CONF

sub sql
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# named(N, RUNNER): begins a run of chat N by that runner.
sub named
{
	my ($n, $runner) = @_;
	return sql("SELECT ai_chat_run.begin_run('@{[chat($n)]}', '$WS', runner => '$runner')");
}

sub attach
{
	my ($runner) = @_;
	my $session = $node->background_psql('postgres');
	$session->query_safe("SELECT ai_chat_run.attach_runner('$runner')");
	return $session;
}

# leave(SESSION): until the server has noticed.
sub leave
{
	my ($session) = @_;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->quit;
	wait_until($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
	return;
}

# ---- the index ----

my $bad = q(SELECT coalesce(string_agg(check_name, ' '), 'none') FROM ai_chat_run.health() WHERE NOT ok);
wait_until($node, 'postgres', $bad, 'none');
sql('DROP INDEX ai_chat_run.ai_chat_runs_one_active_per_chat');
my ($first, $second) = map { sql("INSERT INTO $RUNS (chat_id, workspace_id) VALUES ('@{[chat(1)]}', '$WS') RETURNING id") } 1, 2;
is(sql(told('The index is broken', 0)), "@{[chat(1)]}|{$first,$second}", 'the index is missing: a chat has two runs');
is(sql("SELECT ai_chat_run.finalize_run('$second', '$WS', 'aborted')"), 'finalized', 'one of them is ended');
is(sql(told('The index is broken', 1)), 't', 'the index is made again');
is(sql($bad), 'none', 'and all is well');
sql('UPDATE pg_index SET indisvalid = false WHERE indexrelid = \'ai_chat_run.ai_chat_runs_one_active_per_chat\'::regclass');
is(sql(told('The index is broken', 1)), 't', 'so it is after one that is not valid');

# ---- a chat that answers 409 ----

sql('SELECT ai_chat_run.sweep_runs()');
my $find = "\\set chat " . chat(2) . "\n";
my @look = map { $find . told('A chat answers 409 for ever', $_) } 1 .. 3;
like(sql(told('A chat answers 409 for ever', 0) . told('A chat answers 409 for ever', 1)), qr/^[-0-9a-f]+\|web-1\|.*\|f\|f\|f$/m,
	'a run to try it out with');
sql('SELECT ai_chat_run.sweep_runs()');
named(2, 'web-1');
like(sql($look[0]), qr/\|web-1\|.*\|f\|f\|f$/, 'a run of a runner that is not attached');
my $web = attach('web-2');
sql("SELECT ai_chat_run.sweep_runs(runner => 'web-1')");
my $run = named(2, 'web-2');
like(sql($look[0]), qr/^$run\|web-2\|.*\|t\|f\|f$/, 'a run of one that is');
like(sql($look[1]), qr/^t\nfinalized$/, 'it is told to stop, and aborted');
is(sql($look[0]), '', 'the chat is free');
is(sql("SELECT ai_chat_run.heartbeat('$run', '$WS')"), 'finalized', 'its runner is told');
named(2, 'web-1');
named(3, 'web-2');
sql("UPDATE $RUNS SET updated_at = now() - interval '1 day' WHERE runner = 'web-2'");
is(sql($look[2]), "1\n0", 'all runs of a dead process; of silent ones none that has called since');
is(sql("SELECT ai_chat_run.sweep_runs('1 us')"), 1, 'by hand, runs of an attached runner are not spared');
$node->restart;
abandon($web);
wait_until($node, 'postgres', "SELECT count(*) FROM ai_chat_run.active_runs", 0);

# ---- deferred finalizations ----

my @run = map { begin_run($node, 'postgres', $_) } 1 .. 3;
my $client = $node->background_psql('postgres');
my $pid = $client->query_safe('SELECT pg_backend_pid()');
$client->query_safe("BEGIN; SELECT FROM $RUNS FOR UPDATE");
sql(join '', map { "SELECT ai_chat_run.finalize_run('$_', '$WS', 'completed');\n" } @run);
like(sql(told('Deferred finalizations pile up', 0)), qr/^canceling statement due to lock timeout\|3\|/, 'why ends are deferred');
like(sql($find . told('A chat answers 409 for ever', 1)), qr/\|t$/, 'a chat whose run has such an end');
like(sql(told('Deferred finalizations pile up', 1)), qr/^$pid\|.*\|idle in transaction\|/, 'who has the rows');
is(sql("SELECT pg_terminate_backend($pid)"), 't', 'he is terminated');
abandon($client);
wait_until($node, 'postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
is(sql("SELECT count(*) FROM $RUNS WHERE id IN ('@{[join q(', '), @run]}') AND status = 'succeeded'"), 3, 'the ends are applied');
$run = begin_run($node, 'postgres', 1);
sql("BEGIN; SELECT ai_chat_run.record_step('$run', '$WS', 1); PREPARE TRANSACTION 'left'");
sql("SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
like(sql(told('Deferred finalizations pile up', 1)), qr/^left\|/m, 'a prepared transaction that is left');
sql("ROLLBACK PREPARED 'left'");
is((split /\n/, sql(told('Deferred finalizations pile up', 2)))[-1], 0, 'settled by hand, or by the worker');

# ---- the worker does not run ----

sql(<<~SQL);
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE 'not this one'; END\$\$;
	CREATE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse();
	SQL
$run = begin_run($node, 'postgres', 1);
$node->restart;
wait_until($node, 'postgres', "SELECT last_error FROM ai_chat_run.workers WHERE datname = 'postgres'", 'not this one');
like(sql(told('The worker does not run', 0)), qr/^ai_chat_run\n.*^\d+\|ai_chat_run launcher\|.*^postgres\|\|0\|not this one\|/ms,
	'a launcher, and what goes wrong');
sql("DROP TRIGGER refuse ON $RUNS");
set_conf($node, max_worker_processes => 0);
$node->restart;
my $seen = sql(told('The worker does not run', 0));
unlike($seen, qr/ai_chat_run launcher/, 'no launcher');
like($seen, qr/^0\|\d+$/m, 'nor a place for one');
is(sql($bad), 'worker boot_sweep', 'which health() says');
sql("UPDATE $RUNS SET updated_at = now() - interval '1 day' WHERE id = '$run'");
is(sql(told('The worker does not run', 1)), "0\n0", 'by hand, silence counts from server start');
is(sql('SELECT ai_chat_run.sweep_runs()'), 1, 'or not at all');
sql('ALTER SYSTEM RESET max_worker_processes');
$node->restart;

# ---- who aborted it: each way once ----

wait_until($node, 'postgres', $bad, 'none');
sql("DELETE FROM $RUNS");
named(1, 'web-1');
$node->restart;
wait_until($node, 'postgres', "SELECT count(*) FROM ai_chat_run.active_runs", 0);
$web = attach('web-2');
named(2, 'web-2');
leave($web);
wait_until($node, 'postgres', "SELECT count(*) FROM ai_chat_run.active_runs", 0);
$web = attach('web-3');
named(3, 'web-3');
change_conf($node, 'ai_chat_run.runner_grace' => '1h');
leave($web);
$web = attach('web-3');
$run = named(4, 'web-4');
sql("CALL ai_chat_run.supersede_run('@{[chat(4)]}', '$run', '$WS', timeout => '0', force => true)");
sql('SELECT ai_chat_run.sweep_runs()');
named(5, 'web-5');
change_conf($node, 'ai_chat_run.stale_after' => '1ms', 'ai_chat_run.reconcile_interval' => '100ms');
wait_until($node, 'postgres', "SELECT count(*) FROM ai_chat_run.active_runs", 0);
my %who = map { (split /\|/)[ 0, 2 ] } split /\n/, sql(told('Runs are aborted that were alive', 0));
is_deeply(\%who, {
	$swept => 1, 'Run aborted: its runner has departed.' => 1, 'Run interrupted by a restart of its runner.' => 1,
	'Run superseded by another one.' => 1, 'Run aborted by an operator.' => 1,
	'Run aborted: its runner has been silent for too long.' => 1 }, 'who aborted what') or diag(explain(\%who));

# ---- a server that leaves all runs alone, and one that does not any more ----

sql(told('It shall leave all runs alone', 0));
wait_until($node, 'postgres', 'SHOW ai_chat_run.runner_grace', '24d');
add_ended_run($node, 'postgres', 6, '1 year');
leave($web);
$web = attach('web-7');
named($_, "web-$_") for 7, 8;
sql("UPDATE $RUNS SET updated_at = now() - interval '1 day' WHERE finished_at IS NULL");
leave($web);

# visited(): by a worker, which is woken by an end that is deferred for a moment.
sub visited
{
	my $late = begin_run($node, 'postgres', 9);
	my $holder = $node->background_psql('postgres');
	$holder->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$late' FOR UPDATE");
	is(sql("SELECT ai_chat_run.finalize_run('$late', '$WS', 'completed')"), 'deferred', 'something for a worker to do');
	$holder->query_safe('COMMIT');
	$holder->quit;
	wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$late'", 'succeeded');
	wait_until($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ai_chat_run worker'", 0);
	return;
}

visited();
$node->restart;
visited();
is(runs($node, 'postgres', 6 .. 8), "6 failed 1 year\n7 running\n8 running", 'runs are left alone');

# ---- copies of the server ----

$node->backup('base');
my $alone = told('It shall leave all runs alone', 0);
for my $kept (0, 1)
{
	my $copy = PostgreSQL::Test::Cluster->new("copy_$kept");
	$copy->init_from_backup($node, 'base');

	# What was set by ALTER SYSTEM has come along.
	unlink $copy->data_dir . '/postgresql.auto.conf';
	$copy->append_conf('postgresql.conf', join '', map { "$_\n" } $alone =~ /^ALTER SYSTEM SET (.*);$/mg) if $kept;
	$copy->start;
	wait_until($copy, 'postgres', "SELECT boot_sweep_done_at IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'postgres'");
	is(runs($copy, 'postgres', 7, 8), $kept ? "7 running\n8 running" : "7 aborted $swept\n8 aborted $swept",
		$kept ? 'a copy that leaves all runs alone' : 'a copy opens like a server after a crash');
	$copy->stop;
}
is(runs($node, 'postgres', 7, 8), "7 running\n8 running", 'the server that they are of does not notice');

sql(told('It shall leave all runs alone', 1));
wait_until($node, 'postgres', 'SHOW ai_chat_run.runner_grace', '1ms');
$node->restart;
wait_until($node, 'postgres', "SELECT count(*) FROM ai_chat_run.active_runs", 0);
is(runs($node, 'postgres', 7, 8), "7 aborted $swept\n8 aborted $swept", 'back to what it does as a rule');

# ---- memory ----

$node->stop;
my @megabytes = map {
	my ($out) = run_command([ 'postgres', '-D', $node->data_dir, '-c', "ai_chat_run.max_active_runs=$_", '-C', 'shared_memory_size' ]);
	$out
} 1, 200_000;
my $bytes = ($megabytes[1] - $megabytes[0]) * 1024 * 1024 / 200_000;
note("a tracked run takes $bytes bytes");
cmp_ok($bytes, '<', 400, 'the memory of a tracked run');
cmp_ok($bytes, '>', 100, 'which is counted');
done_testing();
