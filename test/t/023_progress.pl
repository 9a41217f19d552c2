# How far a long sweep is can be seen: one that is called by hand tells its client after each batch but the last, one that the
# background worker does is in pg_stat_activity with what it has committed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('progress', <<~CONF);
	ai_chat_run.sweep_batch_size = 2
	ai_chat_run.stale_after = 0
	CONF

# told(SQL): what the statements answer, and what is told in between.
sub told
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	$node->psql('postgres', $sql, stdout => \$out, stderr => \$err, on_error_die => 1);
	return join "\n", (map { s/^psql:\S+ //r } grep { /INFO/ } split /\n/, $err), $out;
}

# ---- by hand ----

my $BEGIN_5 = "SELECT count(ai_chat_run.begin_run(gen_random_uuid(), '$WS')) FROM generate_series(1, 5)";

is(told("$BEGIN_5; SELECT ai_chat_run.sweep_runs()"), <<~OUT =~ s/\n\z//r, 'a sweep by hand tells how far it is');
	INFO:  2 agent run(s) aborted so far
	INFO:  4 agent run(s) aborted so far
	5
	5
	OUT
is(told("SELECT ai_chat_run.purge_runs('0')"), <<~OUT =~ s/\n\z//r, 'so does a purge');
	INFO:  2 agent run(s) deleted so far
	INFO:  4 agent run(s) deleted so far
	5
	OUT
is(told("$BEGIN_5; SELECT ai_chat_run.sweep_runs(max_runs => 2), ai_chat_run.sweep_runs(max_runs => 2)"), "5\n2|2",
	'what a single batch does is told by the result alone');
is(told("SELECT ai_chat_run.sweep_runs(), ai_chat_run.sweep_runs(), ai_chat_run.purge_runs('1 h')"), '1|0|0', 'nor is there more to tell of nothing');

# In one transaction, for no worker to come first.
my $DEFER_150 = <<~SQL;
	WITH begun AS MATERIALIZED (SELECT ai_chat_run.begin_run(gen_random_uuid(), '$WS') AS id FROM generate_series(1, 150))
	INSERT INTO ai_chat_run.deferred_finalizations (run_id, workspace_id, status, cause)
	SELECT id, '$WS', 'succeeded', 'a test' FROM begun
	SQL
is(told("BEGIN; $DEFER_150; SELECT ai_chat_run.settle_deferred(); ROLLBACK"), "INFO:  100 deferred finalization(s) applied so far\n150",
	'many deferred finalizations are told of in between');
is(told("BEGIN; $DEFER_150; SELECT ai_chat_run.sweep_runs(max_runs => 100); ROLLBACK"), '100', 'not when no more are wanted');

# ---- by the background worker ----

begin_run($node, 'postgres', $_) for 1 .. 5;
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION public.nap() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN PERFORM pg_sleep(3600); RETURN NEW; END\$\$;
	CREATE TRIGGER nap BEFORE UPDATE ON $RUNS FOR EACH ROW WHEN (NEW.chat_id = '@{[chat(5)]}') EXECUTE FUNCTION public.nap();
	SQL
$node->restart;
my $NAPPING = "FROM pg_stat_activity WHERE backend_type = 'ai_chat_run worker' AND wait_event = 'PgSleep'";
wait_until($node, 'postgres', "SELECT count(*) $NAPPING", 1);
is($node->safe_psql('postgres', "SELECT query $NAPPING"), 'ai_chat_run: boot sweep, 4 run(s) so far', 'the worker says what it has done');
is(runs($node, 'postgres', 4, 5), "4 aborted Run interrupted by a server restart.\n5 running", 'which is committed');

my $life = log_end($node);
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $NAPPING; ALTER TABLE $RUNS DISABLE TRIGGER nap");
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 1', 'the next worker goes on from there');
$node->stop;
done_testing();
