# Beside other modules that use the same hooks of the server, whichever is loaded first: all calls answer as they do
# without, the extension's own statements keep the plans that they are meant to have, others' statements are planned as
# ever, and the neighbours see what the extension does: its statements are counted, explained and audited like anybody's.
# Of the neighbours those that are installed take part; pg_stat_statements and auto_explain come with every server.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Life;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';

# hypopg goes before auto_explain, which otherwise stumbles over indexes that it cannot name.
my @NEIGHBOURS = qw(pg_stat_statements hypopg auto_explain pgaudit pg_stat_kcache pg_qualstats pg_wait_sampling
  plpgsql_check);
my $CONF = <<~CONF;
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1ms
	compute_query_id = on
	log_statement = none
	pg_stat_statements.track = all
	pg_stat_statements.track_planning = on
	auto_explain.log_min_duration = 0
	auto_explain.log_analyze = on
	auto_explain.log_buffers = on
	auto_explain.log_triggers = on
	auto_explain.log_nested_statements = on
	pgaudit.log = 'all'
	pgaudit.log_parameter = on
	pgaudit.log_relation = on
	pg_qualstats.sample_rate = 1
	plpgsql_check.mode = every_start
	CONF

# plans(TEXT): how each end of a run that auto_explain has told of finds its row.
sub plans
{
	my ($text) = @_;
	return $text =~ m{
		Query\ Text:\ [^\n]*\ UPDATE\ \Q$RUNS\E\ r\ SET\ status\ =\ \$3[^\n]*\n
		(?:\s+Query\ Parameters:[^\n]*\n)?	# since 16
		\s+Update\ on[^\n]*\n
		(?:\s+Buffers:[^\n]*\n)?
		\s+->\s+(\w+(?:\ Only)?\ Scan(?:\ using\ \w+)?)}gx;
}

sub count_in
{
	my ($text, $pattern) = @_;
	return scalar(() = $text =~ /$pattern/g);
}

# A user's statement, on a table of a row or none.
my $SEQ_SCAN = "EXPLAIN (COSTS OFF) SELECT FROM $RUNS WHERE id = '@{[chat(1)]}'";

my $bare = new_server('bare', "shared_preload_libraries = ''\n$CONF");
my $libraries = $bare->config_data('--pkglibdir');
my @here = grep { -e "$libraries/$_.so" } @NEIGHBOURS;
note("neighbours: @here");

# ---- loaded by a session ----

my $load = join '; ', map { "LOAD '$_'" } grep { /^(?:auto_explain|hypopg)$/ } @here;
for my $before ($load, "LOAD 'ai_chat_run'; $load", "$load; LOAD 'ai_chat_run'")
{
	my $offset = log_end($bare);
	$bare->safe_psql('postgres', "ANALYZE $RUNS");
	is(life($bare, 'postgres', 0, $before), life_answers(0), $before);
	is(join(', ', plans(log_since($bare, $offset))), join(', ', ('Index Scan using ai_chat_runs_pkey') x 4),
		'an end of a run goes by its id, as auto_explain tells');
}
$bare->stop;

# ---- preloaded ----

for my $order ([ 'ai_chat_run', @here ], [ @here, 'ai_chat_run' ])
{
	my $name = $order->[0] eq 'ai_chat_run' ? 'first' : 'last';
	my $node = new_server($name, "shared_preload_libraries = '" . join(',', @$order) . "'\n$CONF");
	my %has = map { $_ => 1 } @here;

	# Extensions of theirs: auto_explain has none.
	$node->safe_psql('postgres', join ';', map { "CREATE EXTENSION $_" } grep { $_ ne 'auto_explain' } @here);
	$node->safe_psql('postgres', "ANALYZE $RUNS; SELECT ai_chat_run.stats_reset(), pg_stat_statements_reset()");
	my $offset = log_end($node);
	is(life($node, 'postgres', 1), life_answers(1), "$name: all calls answer as without neighbours");
	my $log = log_since($node, $offset);

	is($node->safe_psql('postgres', <<~SQL), <<~OUT =~ s/\n\z//r, "$name: our own counters");
		SELECT key, value FROM ai_chat_run.stats s, jsonb_each_text(to_jsonb(s))
		WHERE s.datname = 'postgres' AND key NOT IN ('datid', 'datname', 'stats_reset') AND value <> '0'
		ORDER BY key COLLATE "C"
		SQL
		begun|2
		finalized_aborted|1
		finalized_succeeded|1
		heartbeats|3
		rejected|1
		stops|2
		swept_stale|1
		waits|4
		OUT

	# The inserts: of the first run, twice more that conflict, of the prepared one, of the one that supersedes.
	is($node->safe_psql('postgres', <<~SQL), '5|3|t', "$name: pg_stat_statements counts our statements and their plans");
		SELECT sum(calls), sum(rows), bool_and(plans > 0) FROM pg_stat_statements
		WHERE query LIKE '%INSERT INTO $RUNS (%'
		SQL
	is($node->safe_psql('postgres', <<~SQL), '2|1', "$name: and commands that we watch");
		SELECT sum(calls) FILTER (WHERE query LIKE 'PREPARE TRANSACTION%' OR query LIKE 'COMMIT PREPARED%'),
			sum(calls) FILTER (WHERE query = 'DISCARD ALL')
		FROM pg_stat_statements
		SQL
	is(join(', ', plans($log)), join(', ', ('Index Scan using ai_chat_runs_pkey') x 4),
		"$name: an end of a run goes by its id, as auto_explain tells");
	like($node->safe_psql('postgres', $SEQ_SCAN), qr/^Seq Scan on ai_chat_runs/, "$name: a user's look-up as the planner likes");
	SKIP:
	{
		skip('pgaudit is not installed', 2) unless $has{pgaudit};
		is(count_in($log, qr/AUDIT: SESSION,\d+,\d+,WRITE,INSERT,TABLE,\Q$RUNS\E,/), 5, "$name: pgaudit tells of our inserts");
		is(count_in($log, qr/AUDIT: SESSION,\d+,\d+,MISC,(?:DISCARD ALL|COMMIT PREPARED),/), 2, "$name: and of commands");
	}
	SKIP:
	{
		skip('hypopg is not installed', 2) unless $has{hypopg};
		my $hypothetical = "SELECT FROM hypopg_create_index('CREATE INDEX ON $RUNS (id, runner)');
			SELECT FROM hypopg_create_index('CREATE INDEX ON $RUNS (runner)')";
		like($node->safe_psql('postgres', <<~SQL), qr/using "?<\d+>btree_/, "$name: a hypothetical index is seen");
			$hypothetical; SET enable_seqscan = off; SET enable_bitmapscan = off;
			EXPLAIN (COSTS OFF) SELECT FROM $RUNS WHERE runner = 'web-1'
			SQL
		is(life($node, 'postgres', 1, $hypothetical), life_answers(1), "$name: and does not matter to us");
	}
	SKIP:
	{
		skip('plpgsql_check is not installed', 2) unless $has{plpgsql_check};
		$node->safe_psql('postgres', <<~SQL);
			CREATE PROCEDURE public.turn(chat uuid) LANGUAGE plpgsql AS \$\$
			DECLARE run uuid; status text; error text;
			BEGIN
				run := ai_chat_run.begin_run(chat, '$WS');
				COMMIT;
				PERFORM ai_chat_run.finalize_run(run, '$WS', 'completed');
				CALL ai_chat_run.await_run(run, '$WS', '1 h', status, error);
				IF status <> 'succeeded' THEN RAISE 'status is %', status; END IF;
			END \$\$;
			SQL
		is($node->safe_psql('postgres', "SELECT * FROM plpgsql_check_function('public.turn(uuid)')"), '',
			"$name: plpgsql_check has no complaint about a procedure that calls ours");
		is($node->psql('postgres', "CALL public.turn('@{[chat(4)]}')"), 0, "$name: which works while it is watched");
	}
	is($node->safe_psql('postgres', <<~SQL), 't', "$name: pg_stat_kcache has something to tell") if $has{pg_stat_kcache};
		SELECT count(*) > 0 FROM pg_stat_kcache() k JOIN pg_stat_statements s USING (queryid) WHERE s.query LIKE '%$RUNS%'
		SQL

	# What is woken by a command, and what departs by one.
	my $run = begin_run($node, 'postgres', 5);
	my ($waiter) = start_waiting($node, 'postgres', "CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
	$node->safe_psql('postgres', <<~SQL);
		BEGIN; SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed'); PREPARE TRANSACTION 'end';
		COMMIT PREPARED 'end';
		SQL
	is(answer($waiter), 'succeeded|', "$name: COMMIT PREPARED wakes who waits");
	$waiter->query_safe("SELECT ai_chat_run.attach_runner('web-1')");
	$waiter->query_safe("SELECT ai_chat_run.begin_run('@{[chat(6)]}', '$WS', runner => 'web-1')");
	$waiter->query_safe('DISCARD ALL');
	wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE status = 'running'", 0);
	is(runs($node, 'postgres', 6), '6 aborted Run aborted: its runner has departed.', "$name: DISCARD ALL ends an attachment");
	$waiter->quit;

	# The worker has the same neighbours, when it applies what was deferred and when it sweeps after a crash.
	my $decided = begin_run($node, 'postgres', 7);
	my $rows = $node->background_psql('postgres');
	$rows->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
	$node->psql('postgres', "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'completed')");
	$rows->query_safe('COMMIT');
	$rows->quit;
	wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$decided'", 'succeeded');
	begin_run($node, 'postgres', 8);
	$offset = log_end($node);
	crash_backend($node);
	wait_swept($node, $offset, 'postgres');
	is(runs($node, 'postgres', 7, 8), "7 succeeded\n8 aborted Run interrupted by a server restart.",
		"$name: the background worker has done its work");
	$node->safe_psql('postgres', "TRUNCATE $RUNS");
	is(life($node, 'postgres', 1), life_answers(1), "$name: all goes on after a crash");
	unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal (?!9)/, "$name: nobody has crashed by himself");
	$node->stop;
}
done_testing();
