# Two applications share a database, each with its workspaces. One that knows ids of the other's chats and runs, but not
# their workspace, learns nothing of them and changes nothing: not by answers, not by any field of an error, not in the
# rows, not in shared memory. What it can learn by other ways (LISTEN, views of its own, settings, what a condition sees
# in a view) is what the README says, and no more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $THEIR_WS = 'b0000000-0000-4000-9000-000000000002';
my $SECRET = 'c0ffee00-0000-4000-9000-000000000003';
my $node = new_server('strangers', <<~CONF);
	ai_chat_run.stale_after = 0
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1h
	CONF
$node->safe_psql('postgres', <<~'SQL');
	CREATE ROLE ours LOGIN;
	CREATE ROLE theirs LOGIN;
	CREATE ROLE nobody LOGIN;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	SELECT ai_chat_run.grant_app_access('ours'), ai_chat_run.grant_app_access('theirs');
	GRANT CREATE ON SCHEMA public TO theirs, monitor;
	SQL

# psql as that role: what it prints, and all that it is told beside.
sub as_role
{
	my ($role, $sql) = @_;
	my ($out, $err);

	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stdout => \$out, stderr => \$err, on_error_stop => 0,
		extra_params => [ '-U', $role ]);
	return ($out, $err =~ s/^psql:<stdin>:\d+: //mgr);
}

sub state_of { return ($_[0] =~ /ERROR:  (\w+):/)[0] // 'no error' }

# ---- what is ours ----

my $run = $node->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS', created_by => '$SECRET', trigger => 'secret trigger',
		runner => 'ours-1')
	SQL
my $ended = begin_run($node, 'postgres', 2);
$node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$ended', '$WS', 'error', 'secret error')");
my $snapshot = "SELECT md5(string_agg(r::text, ',' ORDER BY id)) FROM $RUNS r";
my $rows = $node->safe_psql('postgres', $snapshot);
my $heard = "SELECT heard_at, stop_requested FROM ai_chat_run.live_state('$run', 'ours-1')";
my $live = $node->safe_psql('postgres', $heard);

# Nothing that they are told may have any of this in it. (The ids of the chat and the run they have said themselves.)
my $secrets = qr/$WS|$SECRET|secret|ours|active since/;

# ---- what they are told ----

my @calls = (
	[ "SELECT ai_chat_run.record_step('$run', '$THEIR_WS', 1)", 'not_found' ],
	[ "SELECT ai_chat_run.heartbeat('$run', '$THEIR_WS')", 'not_found' ],
	[ "SELECT ai_chat_run.link_assistant_message('$run', '$THEIR_WS', '$THEIR_WS')", 'f' ],
	[ "SELECT ai_chat_run.finalize_run('$run', '$THEIR_WS', 'completed')", 'not_found' ],
	[ "SELECT ai_chat_run.finalize_run('$ended', '$THEIR_WS', 'completed')", 'not_found' ],
	[ "SELECT ai_chat_run.request_stop('$run', '$THEIR_WS')", 'f' ],
	[ "SELECT ai_chat_run.request_stop_for_chat('@{[chat(1)]}', '$THEIR_WS')", '' ],
	[ "SELECT count(*) FROM ai_chat_run.get_run('$run', '$THEIR_WS')", '0' ],
	[ "SELECT count(*) FROM ai_chat_run.get_latest_for_chat('@{[chat(2)]}', '$THEIR_WS')", '0' ],
	[ "SELECT count(*) FROM ai_chat_run.get_active_for_chat('@{[chat(1)]}', '$THEIR_WS')", '0' ],
	[ "SELECT ai_chat_run.settle_deferred('$run')", '0' ],
	[ "SELECT * FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$THEIR_WS')", 'busy|' ],
	[ "SELECT * FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$THEIR_WS', run_id => '$run')", 'busy|' ],
	[ "CALL ai_chat_run.await_run('$run', '$THEIR_WS')", 'not_found|' ],
	[ "CALL ai_chat_run.await_run('$ended', '$THEIR_WS')", 'not_found|' ],
	[ "CALL ai_chat_run.await_stop('$run', '$THEIR_WS')", 'not_found' ],
	[ "CALL ai_chat_run.supersede_run('@{[chat(1)]}', '$run', '$THEIR_WS', timeout => '0', force => true)", 'mismatch|' ],
	[ "CALL ai_chat_run.supersede_run('@{[chat(1)]}', '$ended', '$THEIR_WS', timeout => '0', force => true)", 'mismatch|' ],
	[ "SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$THEIR_WS')", 'RN409' ],
	[ "SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$THEIR_WS', run_id => '$run')", 'RN409' ],
	[ "SELECT ai_chat_run.begin_run('@{[chat(3)]}', '$THEIR_WS', run_id => '$run')", '23505' ],
	[ "SELECT ai_chat_run.begin_run('@{[chat(3)]}', '$THEIR_WS', run_id => '$ended')", '23505' ],
	[ "SELECT ai_chat_run.try_begin_run('@{[chat(3)]}', '$THEIR_WS', run_id => '$ended')", '23505' ]);

for my $case (@calls)
{
	my ($call, $expected) = @$case;
	my ($out, $err) = as_role('theirs', "$call;");

	is(state_of($err) eq 'no error' ? $out : state_of($err), $expected, $call);
	unlike($err, $secrets, 'no field of what they are told names anything else');
}
is($node->safe_psql('postgres', $snapshot), $rows, 'no row has changed');
is($node->safe_psql('postgres', $heard), $live, 'nor what shared memory knows: nobody was heard, no stop is requested');

# While we supersede our run, the chat is claimed.
my ($superseder) = start_waiting($node, 'postgres',
	"CALL ai_chat_run.supersede_run('@{[chat(1)]}', '$run', '$WS', timeout => '1 h')");
my ($out, $err) = as_role('theirs', "SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$THEIR_WS');");
is(state_of($err), 'RN409', 'a chat that is claimed');
unlike($err, $secrets, 'is told as any other');
unlike($err, qr/$run/, 'without the run that is superseded');
($out, $err) = as_role('theirs', "SELECT * FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$THEIR_WS');");
is($out, 'busy|', 'as data, too');
my $next = begin_run($node, 'postgres', 4);
$node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'aborted')");
like(answer($superseder), qr/^superseded\|/, 'we get what we waited for');
$superseder->quit;

# A chat of theirs, for the same id, cannot take our runs along.
($out, $err) = as_role('theirs', <<~SQL);
	CREATE TABLE public.chats (id uuid, workspace_id uuid);
	CREATE TRIGGER runs AFTER DELETE ON public.chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
	INSERT INTO public.chats VALUES ('@{[chat(4)]}', '$THEIR_WS');
	DELETE FROM public.chats;
	SQL
is($err, '', 'they delete a chat');
is(runs($node, 'postgres', 4), '4 running', 'whose runs elsewhere stay');

# ---- LISTEN ----

# The server lets everybody listen, and everybody notify. What goes out is an id, and an id that comes in does nothing.
my $listener = $node->background_psql('postgres', extra_params => [ '-U', 'nobody' ]);
$listener->query_safe('LISTEN ai_chat_run_stop');
($out, $err) = as_role('nobody', "NOTIFY ai_chat_run_stop, '$next';");
is($err, '', 'a stranger may send what looks like a stop');
is($node->safe_psql('postgres', "SELECT ai_chat_run.heartbeat('$next', '$WS')"), 'continue', 'which stops nothing');
$node->safe_psql('postgres', "SELECT ai_chat_run.request_stop('$next', '$WS')");
my $heard_of = $listener->query('SELECT 1');
is_deeply([ $heard_of =~ /notification "(\w+)" with payload "([^"]*)"/g ], [ ('ai_chat_run_stop', $next) x 2 ],
	'a stop is told by the id of the run and nothing else');
$listener->quit;

# ---- runners ----

# Their names are everybody's, as the README says: of a name that nobody holds, the runs can be listed, by their ids, and
# aborted. Of one that somebody holds they cannot.
my $keeper = $node->background_psql('postgres', extra_params => [ '-U', 'ours' ]);
$keeper->query_safe("SELECT ai_chat_run.attach_runner('ours-2')");
my ($held, $free) = map {
	$node->safe_psql('postgres', "SELECT ai_chat_run.begin_run('@{[chat($_)]}', '$WS', runner => 'ours-$_')")
} 2, 3;
$node->safe_psql('postgres', "SELECT ai_chat_run.request_stop('$free', '$WS')");
($out, $err) = as_role('theirs', "CALL ai_chat_run.await_stops('ours-3', timeout => '0');");
is($out, "{$free}", 'the stops of a runner are told to who knows its name');
($out, $err) = as_role('theirs', "SELECT ai_chat_run.attach_runner('ours-3');");
is($out, '1', 'who attaches a name that nobody holds is its next incarnation');
($out, $err) = as_role('theirs', "SELECT ai_chat_run.attach_runner('ours-2');");
is(state_of($err), '55006', 'one that is held is not to be had');
unlike($err, qr/$held|$WS/, 'nor is anything told of its runs');
is(runs($node, 'postgres', 2, 3), "2 failed secret error\n2 running\n3 aborted Run interrupted by a restart of its runner.",
	'whose runs go on');

# Nor can one application take all the places there are, unless it holds a session of that many.
($out, $err) = as_role('theirs', q(SELECT count(ai_chat_run.attach_runner('n' || i)) FROM generate_series(1, 100000) i;));
is(state_of($err), '53400', 'there are not so many places for runners');
$keeper->query_safe("SELECT ai_chat_run.attach_runner('ours-4')");
pass('a transaction that failed for that has given them back');
$keeper->quit;

# ---- settings ----

my $settings = $node->safe_psql('postgres', q(SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM pg_settings
	WHERE name LIKE 'ai\_chat\_run.%'));

sub can_set
{
	my ($name) = @_;
	my ($value, $refused) = as_role('theirs', <<~SQL);
		SELECT set_config('$name', reset_val, false) FROM pg_settings WHERE name = '$name';
		SQL
	return state_of($refused) eq 'no error';
}

is(join(' ', grep { can_set($_) } split / /, $settings),
	'ai_chat_run.finalize_max_attempts ai_chat_run.finalize_retry_base ai_chat_run.lock_timeout ai_chat_run.runner',
	'an application may set for itself how its own calls are made, and nothing that concerns others');
for my $what ('SYSTEM', 'DATABASE postgres', 'ROLE ours')
{
	($out, $err) = as_role('theirs', "ALTER $what SET ai_chat_run.runner = DEFAULT;");
	is(state_of($err), '42501', "nor anything for $what");
}

# ---- views ----

# Whatever a view of theirs is about, who looks needs the rights, or the one whose view it is.
for my $relation (qw(ai_chat_runs deferred_finalizations runners active_runs stats workers))
{
	for my $option ('', 'WITH (security_invoker) ')
	{
		($out, $err) = as_role('theirs', <<~SQL);
			CREATE OR REPLACE VIEW public.v_$relation ${option}AS SELECT 1 FROM ai_chat_run.$relation;
			SELECT * FROM public.v_$relation;
			SQL
		is(state_of($err), '42501', "a view ${option}of $relation shows them nothing");
	}
}
as_role('monitor', 'CREATE VIEW public.lent WITH (security_invoker) AS SELECT * FROM ai_chat_run.active_runs;
	GRANT SELECT ON public.lent TO theirs;');
($out, $err) = as_role('theirs', 'TABLE public.lent;');
is(state_of($err), '42501', 'nor one that a monitoring role made, if it goes by who looks');

# The planner may ask a condition of the one who looks before the view's own: which then sees what the view does not show.
($out, $err) = as_role('monitor', <<~'SQL');
	CREATE FUNCTION public.peek(uuid, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
		$$BEGIN RAISE WARNING 'seen: % %', $1, $2; RETURN true; END$$;
	SET enable_indexscan = off;
	SET enable_bitmapscan = off;
	SELECT run_id FROM ai_chat_run.active_runs WHERE public.peek(run_id, runner) ORDER BY run_id;
	SQL
is(join("\n", sort $err =~ /seen: (\S+)/g), $out, 'a condition sees no run that the view does not show');

# Where the library is not preloaded, a session may name a setting before it is loaded and knows better.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
($out, $err) = as_role('theirs', <<~SQL);
	SET ai_chat_run.boot_sweep = 'off';
	SET ai_chat_run.boot_grace = 'nonsense';
	SET ai_chat_run.sweep_batch_size = 1;
	SET ai_chat_run.lock_timeout = 'nonsense';
	SET ai_chat_run.runner = '@{[ 'x' x 128 ]}';
	SET ai_chat_run.finalize_max_attempts = 7;
	SELECT ai_chat_run.heartbeat('$held', '$WS');
	SELECT string_agg(setting, ' ' ORDER BY name COLLATE "C") FROM pg_settings
	WHERE name ~ '^ai_chat_run.(boot_sweep|boot_grace|sweep_batch_size|lock_timeout|runner|finalize_max_attempts)\$';
	SQL
is($out, "continue\n30000 on 7 10  1000", 'what it may not set is then as the server has it');

$node->stop;
done_testing();
