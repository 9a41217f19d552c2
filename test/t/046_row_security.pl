# Row security on the run table. The functions run as the extension's owner: of a superuser, and of an owner on whom it is
# not forced, it asks nothing, and what they show and change is scoped by their argument workspace_id; a role that reads
# the table itself sees what its policies show. Forced on an owner who is no superuser, it holds for the functions, too:
# a run that a policy hides is not there, one that it forbids to change is not changed, which is told, and nothing that
# was decided is lost; the background worker would rather fail, and say so, than overlook a run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $OTHER = '00000000-0000-4000-9000-000000000002';
my $swept = 'aborted Run interrupted by a server restart.';
my $node = new_server('rows', <<~CONF);
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.finalize_retry_base = 0
	CONF
$node->safe_psql('postgres', <<~SQL);
	CREATE ROLE app LOGIN;
	CREATE ROLE keeper;
	SELECT ai_chat_run.grant_app_access('app');
	GRANT SELECT ON $RUNS TO app;
	GRANT EXECUTE ON FUNCTION ai_chat_run.sweep_runs, ai_chat_run.purge_runs TO app;
	SQL

# as_app(SQL, WORKSPACE): what role "app" is answered in a session of that workspace, if one is given: its rows, its
# warnings without their texts, and its errors. Nothing here may take long, for nobody else is there.
sub as_app
{
	my ($sql, $workspace) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', <<~SQL, stdout => \$out, stderr => \$err, on_error_stop => 0, extra_params => [ '-U', 'app' ]);
		\\set VERBOSITY sqlstate
		SET statement_timeout = '@{[ $PostgreSQL::Test::Utils::timeout_default / 2 ]}s';
		SET app.workspace = '@{[ $workspace // '' ]}';
		$sql;
		SQL
	return join ' ', grep { $_ ne '' } $out =~ s/\n/ /gr, map { s/  / /r } $err =~ /(?:WARNING|ERROR):  \w{5}/g;
}

# calls(RUN, N): all that can be done to a run of chat N in workspace $WS, and to that chat; each changes nothing that the
# next needs.
sub calls
{
	my ($run, $n) = @_;
	my $key = "'$run', '$WS'";
	my $chat = "'" . chat($n) . "', '$WS'";
	return (
		get_run => "SELECT status FROM ai_chat_run.get_run($key)",
		get_latest_for_chat => "SELECT status FROM ai_chat_run.get_latest_for_chat($chat)",
		get_active_for_chat => "SELECT status FROM ai_chat_run.get_active_for_chat($chat)",
		begin_run => "SELECT ai_chat_run.begin_run($chat)",
		try_begin_run => "SELECT outcome FROM ai_chat_run.try_begin_run($chat)",
		record_step => "SELECT ai_chat_run.record_step($key, 1)",
		heartbeat => "SELECT ai_chat_run.heartbeat($key)",
		link_assistant_message => "SELECT ai_chat_run.link_assistant_message($key, '$run')",
		await_run => "CALL ai_chat_run.await_run($key, '0')",
		await_stop => "CALL ai_chat_run.await_stop($key, '0')",
		supersede_run => "CALL ai_chat_run.supersede_run('@{[chat($n)]}', '$run', '$WS', timeout => '0')",
		request_stop => "SELECT ai_chat_run.request_stop($key)",
		request_stop_for_chat => "SELECT ai_chat_run.request_stop_for_chat($chat) = '$run'",
		finalize_run => "SELECT ai_chat_run.finalize_run($key, 'completed')",
		settle_deferred => 'SELECT ai_chat_run.settle_deferred()',
		sweep_runs => 'SELECT ai_chat_run.sweep_runs()',
		purge_runs => "SELECT ai_chat_run.purge_runs('0')");
}

# answers(RUN, N, WORKSPACE): "call: answer" of all of them, as a session of that workspace has them.
sub answers
{
	my ($run, $n, $workspace) = @_;
	my @calls = calls($run, $n);
	my $answers = '';

	while (my ($name, $sql) = splice @calls, 0, 2)
	{
		$answers .= "$name: " . as_app($sql, $workspace) . "\n";
	}
	return $answers;
}

# As without row security.
my $free = <<~OUT;
	get_run: running
	get_latest_for_chat: running
	get_active_for_chat: running
	begin_run: ERROR: RN409
	try_begin_run: busy
	record_step: continue
	heartbeat: continue
	link_assistant_message: t
	await_run: |
	await_stop: 
	supersede_run: timeout|
	request_stop: t
	request_stop_for_chat: t
	finalize_run: finalized
	settle_deferred: 0
	sweep_runs: 0
	purge_runs: 1
	OUT

# sweep_after_crash(): restarts the server; what the boot sweep has to say.
sub restart_and_look
{
	my $offset = log_end($node);
	$node->restart;
	wait_until($node, 'postgres', "SELECT boot_sweep_done_at IS NOT NULL OR last_error IS NOT NULL
		FROM ai_chat_run.workers WHERE datname = 'postgres'");
	return $node->safe_psql('postgres',
		"SELECT boot_sweep_done_at IS NOT NULL, last_error FROM ai_chat_run.workers WHERE datname = 'postgres'");
}

# give_to(ROLE): makes it the owner of the tables and functions.
sub give_to
{
	my ($role) = @_;
	$node->safe_psql('postgres', <<~SQL);
		DO \$\$
		DECLARE command text;
		BEGIN
			FOR command IN
				SELECT format('ALTER ROUTINE %s OWNER TO $role', oid::regprocedure) FROM pg_proc
				WHERE pronamespace = 'ai_chat_run'::regnamespace
				UNION ALL
				SELECT format('ALTER TABLE %s OWNER TO $role', oid::regclass) FROM pg_class
				WHERE relnamespace = 'ai_chat_run'::regnamespace AND relkind IN ('r', 'v')
			LOOP
				EXECUTE command;
			END LOOP;
			EXECUTE 'GRANT USAGE ON SCHEMA ai_chat_run TO $role';
		END \$\$
		SQL
	return;
}

# ---- an owner whom it does not ask ----

# No policy at all: to whoever it asks, no row is there.
is(answers(begin_run($node, 'postgres', 1), 1), $free, 'without row security');
my $owner = $node->safe_psql('postgres', "SELECT pg_get_userbyid(extowner) FROM pg_extension WHERE extname = 'ai_chat_run'");
for my $case ([ $owner, 'FORCE' ], [ 'keeper', 'NO FORCE' ])
{
	my ($role, $force) = @$case;
	my $name = $role eq 'keeper' ? 'an owner on whom it is not forced' : 'a superuser on whom it is forced';

	give_to($role);
	$node->safe_psql('postgres', "ALTER TABLE $RUNS ENABLE ROW LEVEL SECURITY; ALTER TABLE $RUNS $force ROW LEVEL SECURITY");
	is(answers(begin_run($node, 'postgres', 1), 1), $free, "$name: nothing has changed");
	begin_run($node, 'postgres', 2);
	is(as_app("SELECT count(*) FROM $RUNS"), '0', "$name: a role without a policy sees no row");
	is(restart_and_look(), 't|', "$name: the boot sweep is done");
	is(runs($node, 'postgres', 2), "2 $swept", "$name: and has found what there was");
	is($node->safe_psql('postgres', "SELECT ai_chat_run.purge_runs('0')"), 1, "$name: old runs are deleted");
}

# A role's own reading goes by its policies; get_run, by its argument.
$node->safe_psql('postgres', <<~SQL);
	CREATE POLICY reading ON $RUNS FOR SELECT TO app USING (workspace_id::text = current_setting('app.workspace', true));
	SQL
my $run = begin_run($node, 'postgres', 3);
is(as_app("SELECT count(*) FROM $RUNS", $WS), '1', 'a policy shows a role its runs');
is(as_app("SELECT count(*) FROM $RUNS", $OTHER), '0', 'but not those of another workspace');
is(as_app("SELECT status FROM ai_chat_run.get_run('$run', '$WS')", $OTHER), 'running', 'get_run is scoped by its argument');
is(as_app("SELECT status FROM ai_chat_run.get_run('$run', '$OTHER')", $WS), '', 'alone');
$node->safe_psql('postgres', "DROP POLICY reading ON $RUNS; TRUNCATE $RUNS");

# ---- forced on the owner: a policy that hides ----

# Named by a function, which the planner may run, and which has a statement of its own to plan.
$node->safe_psql('postgres', <<~SQL);
	ALTER TABLE $RUNS FORCE ROW LEVEL SECURITY;
	CREATE TABLE public.tenants (workspace_id uuid, name text);
	INSERT INTO public.tenants VALUES ('$WS', '$WS'), ('$OTHER', '$OTHER');
	GRANT SELECT ON public.tenants TO keeper;
	CREATE FUNCTION public.my_workspace() RETURNS uuid STABLE LANGUAGE plpgsql AS
		'BEGIN RETURN (SELECT t.workspace_id FROM public.tenants t WHERE t.name = current_setting(''app.workspace'', true)); END';
	CREATE POLICY tenant ON $RUNS USING (workspace_id = public.my_workspace());
	SQL

# begin_as(N, WORKSPACE): begins a run of chat N in $WS as a session of that workspace does.
sub begin_as
{
	my ($n, $workspace) = @_;
	return as_app("SELECT ai_chat_run.begin_run('@{[chat($n)]}', '$WS')", $workspace);
}

$run = begin_as(11, $WS);
is(answers($run, 11, $WS), $free, 'forced: in the workspace of the policy nothing has changed');

# Its runner has called, so that shared memory knows it; and who may not see it must not be able to stop it.
$run = begin_as(12, $WS);
my $hidden = <<~OUT;
	get_run: 
	get_latest_for_chat: 
	get_active_for_chat: 
	begin_run: ERROR: 42501
	try_begin_run: ERROR: 42501
	record_step: not_found
	heartbeat: not_found
	link_assistant_message: f
	await_run: not_found|
	await_stop: not_found
	supersede_run: ERROR: 42501
	request_stop: f
	request_stop_for_chat: 
	finalize_run: not_found
	settle_deferred: 0
	sweep_runs: 0
	purge_runs: 0
	OUT
is(answers($run, 12, $OTHER), $hidden, 'forced: a run that the policy hides is not there');
is(answers($run, 12), $hidden, 'nor is it for a session of no workspace');
is(as_app("SELECT ai_chat_run.record_step('$run', '$WS', 2)", $WS), 'continue', 'it goes on');
is(as_app("SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')", $WS), 'finalized', 'to its own end');

# A chat has one active run, whoever may see it. Where nobody can be named that holds the slot, trying comes to an end.
$run = begin_as(12, $WS);
is(as_app("SELECT ai_chat_run.begin_run('@{[chat(12)]}', '$OTHER')", $OTHER), 'ERROR: 55000', 'begin_run: a hidden run');
is(as_app("SELECT ai_chat_run.try_begin_run('@{[chat(12)]}', '$OTHER')", $OTHER), 'ERROR: 55000', 'try_begin_run: a hidden run');
is(as_app("CALL ai_chat_run.supersede_run('@{[chat(12)]}', '$run', '$OTHER', timeout => '0', force => true)", $OTHER),
	'ERROR: 55000', 'supersede_run: a hidden run');
is(runs($node, 'postgres', 12), "12 succeeded\n12 running", 'which is as it was');
is(as_app("SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')", $WS), 'finalized', 'until it ends');

# The stops that a runner waits for are those of the runs that its policy shows.
$run = as_app("SELECT ai_chat_run.begin_run('@{[chat(15)]}', '$WS', runner => 'web-1')", $WS);
is(as_app("SELECT ai_chat_run.request_stop('$run', '$WS')", $WS), 't', 'a stop');
is(as_app("SELECT ai_chat_run.is_locally_active('$run')", $OTHER), 'f', 'a hidden run: is_locally_active does not tell');
is(as_app("SELECT ai_chat_run.is_locally_active('$run')", $WS), 't', 'of one that is not it does');
is(as_app("CALL ai_chat_run.await_stops('web-1', '{}', '0')", $OTHER), '', 'a hidden run: await_stops does not tell');
is(as_app("CALL ai_chat_run.await_stops('web-1', '{}', '0')", $WS), "{$run}", 'of one that is not it does');
is(as_app("SELECT ai_chat_run.finalize_run('$run', '$WS', 'aborted')", $WS), 'finalized', 'it ends');

# One session changes its workspace, with the plans that it has kept.
$run = begin_as(13, $WS);
is(as_app(<<~SQL, $WS), 'running  running', 'kept plans go by the workspace of the moment');
	SELECT status FROM ai_chat_run.get_run('$run', '$WS');
	SET app.workspace = '$OTHER';
	SELECT count(status) FILTER (WHERE status <> '') FROM ai_chat_run.get_run('$run', '$WS') HAVING count(*) > 0;
	SELECT '';
	SET app.workspace = '$WS';
	SELECT status FROM ai_chat_run.get_run('$run', '$WS');
	SQL

# And whoever the policy does not ask has the same plans, too.
is($node->safe_psql('postgres', "SELECT status FROM ai_chat_run.get_run('$run', '$WS')"), '',
	'a superuser who calls runs as the owner');

# ---- the worker ----

my $error = "query would be affected by row-level security policy for table \"ai_chat_runs\"";
is(restart_and_look(), "f|$error", 'the boot sweep fails rather than overlook a run');
like($node->safe_psql('postgres', "SELECT detail FROM ai_chat_run.health() WHERE check_name = 'boot_sweep' AND NOT ok"),
	qr/last error: \Q$error\E/, 'health() tells');
is(runs($node, 'postgres', 13), '13 running', 'nothing was swept');
$node->safe_psql('postgres', 'ALTER ROLE keeper BYPASSRLS');
$node->reload;
wait_until($node, 'postgres', "SELECT boot_sweep_done_at IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'postgres'");
is(runs($node, 'postgres', 13), "13 $swept", 'an owner with BYPASSRLS is asked nothing: it is done');
$run = begin_run($node, 'postgres', 14);
is(answers($run, 14, $OTHER), $free =~ s/purge_runs: \K1/5/r, 'nor are the functions');
$node->safe_psql('postgres', 'ALTER ROLE keeper NOBYPASSRLS');

# ---- forced on the owner: a policy that forbids changes ----

# First without a word, as USING does; then with an error, as WITH CHECK does.
my %forbidden = ('USING (false)' => '27000', 'USING (true) WITH CHECK (false)' => '42501');
my $n = 20;
for my $policy (sort keys %forbidden)
{
	my $update = $forbidden{$policy};

	# A row that one may not lock looks like one that a client has locked.
	my $settles = $update eq '27000' ? '' : " WARNING: $update";

	$n++;
	$node->safe_psql('postgres', <<~SQL);
		DROP POLICY tenant ON $RUNS;
		CREATE POLICY reading ON $RUNS FOR SELECT USING (true);
		CREATE POLICY adding ON $RUNS FOR INSERT WITH CHECK (true);
		SQL
	$run = begin_as($n, $WS);
	$node->safe_psql('postgres', "CREATE POLICY changing ON $RUNS FOR UPDATE $policy");
	is(answers($run, $n, $WS), <<~OUT, "$policy: a run that may not be changed is not");
		get_run: running
		get_latest_for_chat: running
		get_active_for_chat: running
		begin_run: ERROR: RN409
		try_begin_run: busy
		record_step: WARNING: $update
		heartbeat: continue
		link_assistant_message: @{[$update eq '27000' ? 'f' : "WARNING: $update"]}
		await_run: |
		await_stop: 
		supersede_run: timeout| WARNING: $update
		request_stop: t WARNING: $update
		request_stop_for_chat: t WARNING: $update
		finalize_run: deferred WARNING: $update WARNING: RN500
		settle_deferred: 0$settles
		sweep_runs: 0$settles
		purge_runs: 0
		OUT
	is(as_app("SELECT ai_chat_run.record_step('$run', '$WS', 1)", $WS), "stop WARNING: $update", 'its runner is told of the stop');
	is(as_app("SELECT ai_chat_run.finalize_run('$run', '$WS', 'error')", $WS),
		"deferred WARNING: $update WARNING: RN500", 'who comes second defers to the first');
	is(as_app("CALL ai_chat_run.supersede_run('@{[chat($n)]}', '$run', '$WS', timeout => '0', force => true)", $WS),
		"timeout| WARNING: $update", 'force does not force it');
	is(runs($node, 'postgres', $n), "$n running", 'it is as it was');

	# What was decided holds when it may be written.
	$node->safe_psql('postgres', "DROP POLICY changing ON $RUNS; CREATE POLICY changing ON $RUNS FOR UPDATE USING (true)");
	is(as_app('SELECT ai_chat_run.settle_deferred()', $WS), '1', 'when it may be, what was decided is applied');
	is(runs($node, 'postgres', $n), "$n succeeded", 'which was the first');
	$node->safe_psql('postgres', <<~SQL);
		DROP POLICY reading ON $RUNS; DROP POLICY adding ON $RUNS; DROP POLICY changing ON $RUNS;
		CREATE POLICY tenant ON $RUNS USING (workspace_id = public.my_workspace());
		SQL
}

# ---- a policy that fails ----

$n = 31;
$run = begin_as($n, $WS);
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION public.fail() RETURNS boolean STABLE LANGUAGE plpgsql AS
		\$\$BEGIN RAISE 'no policy today' USING ERRCODE = 'RS001'; END\$\$;
	CREATE POLICY failing ON $RUNS AS RESTRICTIVE USING (public.fail());
	SQL
is(as_app("SELECT ai_chat_run.begin_run('@{[chat(32)]}', '$WS')", $WS), 'ERROR: RS001', 'its error goes to who begins');
is(as_app("SELECT ai_chat_run.record_step('$run', '$WS', 1)", $WS), 'WARNING: RS001', 'is a warning to the runner');
is(as_app("SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')", $WS), 'deferred WARNING: RS001 WARNING: RN500',
	'and defers the end');
is(as_app("CALL ai_chat_run.await_run('$run', '$WS', '0')", $WS), 'ERROR: RS001', 'who waits hears of it');
$node->safe_psql('postgres', "DROP POLICY failing ON $RUNS");
is(as_app("SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat($n)]}', '$WS')", $WS), 'began',
	'the next begin applies what was deferred');
is(runs($node, 'postgres', $n), "$n succeeded\n$n running", 'as it was decided');

# ---- without preloading ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
$run = begin_as(41, $WS);
is(as_app("SELECT ai_chat_run.heartbeat('$run', '$WS')", $OTHER), 'not_found', 'without preloading a heartbeat asks the row');
is(as_app("SELECT ai_chat_run.begin_run('@{[chat(41)]}', '$OTHER')", $OTHER), 'ERROR: 55000', 'and a begin ends');
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
$node->stop;
done_testing();
