# Calls of a session that acts as another role, by SET ROLE, SET SESSION AUTHORIZATION or a function of somebody else's:
# the role of the moment decides whether it may call; the procedures, which take on their owner's rights for their own
# statements, give them back however they end, and do the rest, as deferred triggers do, with those of their caller; and
# what is bound to the session is so whatever its role.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('roles', <<~CONF);
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1ms
	CONF
$node->safe_psql('postgres', <<~SQL);
	CREATE ROLE app LOGIN;
	CREATE ROLE guest LOGIN NOINHERIT IN ROLE app;
	CREATE ROLE nobody LOGIN;
	SELECT ai_chat_run.grant_app_access('app');
	SQL

sub await_run
{
	my ($run) = @_;
	return "CALL ai_chat_run.await_run('$run', '$WS', '1 h')";
}

sub supersede_run
{
	my ($n, $run) = @_;
	return "CALL ai_chat_run.supersede_run('@{[chat($n)]}', '$run', '$WS', timeout => '1 h')";
}

# state_of(SESSION): the SQLSTATE of its last error.
sub state_of
{
	my ($session) = @_;
	my ($state) = $session->{stderr} =~ /ERROR:  (\w{5}):/;
	$session->{stderr} = '';
	return $state;
}

# roles(SESSION): who it is, and whether it has the owner's rights on the table.
sub roles
{
	my ($session) = @_;
	my $who = $session->query_safe('SELECT current_user, session_user');
	$session->query("SELECT count(*) FROM $RUNS");
	return "$who|" . (state_of($session) // 'may read');
}

# become(COMMAND): a session that acts as the command has it, and tells its errors' SQLSTATEs.
sub become
{
	my ($command) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe("\\set VERBOSITY verbose\n$command");
	return $session;
}

# ---- who may call, and who one is afterwards ----

my $run = begin_run($node, 'postgres', 1);
my %acting = (
	'SET SESSION AUTHORIZATION app' => 'app|app',
	'SET SESSION AUTHORIZATION guest; SET ROLE app' => 'app|guest',
	'SET ROLE app' => 'app|' . $node->safe_psql('postgres', 'SELECT session_user'));
for my $command (sort keys %acting)
{
	my $who = "$acting{$command}|42501";
	my $session = become($command);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	is(roles($session), $who, "$command: who it is");

	# Each procedure to its end, to an error of its own, and to a cancel while it waits.
	$run = begin_run($node, 'postgres', 1) if $node->safe_psql('postgres', "SELECT status FROM $RUNS WHERE id = '$run'") ne 'running';
	for my $call (await_run($run), supersede_run(1, $run))
	{
		my ($name) = $call =~ /(\w+_run)\(/;
		start_call($session, $call);
		wait_asleep($node, $pid);
		is($node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)"), 't', "$command: a cancel");
		$session->query('');
		is(state_of($session), '57014', "$command: ends $name");
		is(roles($session), $who, "$command: and it is who it was");
		$session->query($call =~ s/1 h/-1 h/r);
		is(state_of($session), '22023', "$command: $name with a wrong argument");
		is(roles($session), $who, "$command: and it is who it was");
		$session->query("BEGIN; $call");
		is(state_of($session), '25001', "$command: $name in a transaction block");
		$session->query_safe('ROLLBACK');
		is(roles($session), $who, "$command: and it is who it was");
	}
	start_call($session, supersede_run(1, $run));
	wait_asleep($node, $pid);
	is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'aborted')"), 'finalized', "$command: an end");
	(my $next) = $session->query('') =~ /^superseded\|(.*)/;
	is(roles($session), $who, "$command: who has superseded is who it was");
	is($session->query_safe(await_run($run)), 'aborted|', "$command: a wait that has nothing to wait for");
	is(roles($session), $who, "$command: and it is who it was");
	$run = $next;

	# The role of the moment.
	$session->query_safe('RESET ROLE; RESET SESSION AUTHORIZATION; SET ROLE nobody');
	$session->query(await_run($run));
	is(state_of($session), '42501', 'a role without access cannot wait');
	$session->query("SELECT ai_chat_run.heartbeat('$run', '$WS')");
	is(state_of($session), '42501', 'nor call');
	$session->quit;
}

# Somebody else's function lends its rights, for as long as it runs.
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION public.beat(run uuid) RETURNS text LANGUAGE sql SECURITY DEFINER
		RETURN ai_chat_run.heartbeat(run, '$WS');
	ALTER FUNCTION public.beat OWNER TO app;
	SQL
my $session = become('SET SESSION AUTHORIZATION nobody');
is($session->query_safe("SELECT public.beat('$run')"), 'continue', 'through a function whose owner has access');
$session->query("SELECT ai_chat_run.heartbeat('$run', '$WS')");
is(state_of($session), '42501', 'but not by itself');

# Access that is taken back is so for the next call; who waits already goes on.
my ($waiter) = start_waiting($node, 'postgres', await_run($run));
my $guest = become('SET SESSION AUTHORIZATION app');
my $pid = $guest->query_safe('SELECT pg_backend_pid()');
start_call($guest, await_run($run));
wait_asleep($node, $pid);
$node->safe_psql('postgres', 'REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA ai_chat_run FROM app');
$node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
is(answer($_), 'succeeded|', 'who waits is told') for $waiter, $guest;
$guest->query(await_run($run));
is(state_of($guest), '42501', 'who calls again is refused');
$node->safe_psql('postgres', "SELECT ai_chat_run.grant_app_access('app')");
$_->quit for $session, $waiter, $guest;

# ---- triggers of the application's own ----

# As after a SECURITY DEFINER function: at once with the rights of the owner, deferred with those of the caller; since 18
# with those that were in force when the row was written.
$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE public.audit (n serial, what text, who name);
	GRANT INSERT ON public.audit TO app; GRANT USAGE ON SEQUENCE public.audit_n_seq TO app;
	CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN INSERT INTO public.audit (what, who) VALUES (TG_ARGV[0], current_user); RETURN NULL; END';
	CREATE TRIGGER at_once AFTER INSERT OR UPDATE OF status ON $RUNS
		FOR EACH ROW EXECUTE FUNCTION public.audit('at once');
	CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE OF status ON $RUNS
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.audit('deferred');
	SQL
my $owner = $node->safe_psql('postgres', "SELECT pg_get_userbyid(extowner) FROM pg_extension WHERE extname = 'ai_chat_run'");
my $with_callers_rights = $node->safe_psql('postgres', 'SHOW server_version_num') < 180000;
my $audit = "at once $owner, deferred " . ($with_callers_rights ? 'app' : $owner);

# audited(): what the triggers have written since the last look.
sub audited
{
	return $node->safe_psql('postgres', <<~SQL);
		WITH gone AS (DELETE FROM public.audit RETURNING *)
		SELECT string_agg(what || ' ' || who, ', ' ORDER BY n) FROM gone
		SQL
}

$session = become('SET SESSION AUTHORIZATION app');
$run = $session->query_safe("SELECT ai_chat_run.begin_run('@{[chat(2)]}', '$WS')");
is(audited(), $audit, 'begin_run');
$session->query_safe("SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
is(audited(), $audit, 'finalize_run');
like($session->query_safe(supersede_run(2, $run)), qr/^began\|/, 'a procedure');
is(audited(), $audit, 'supersede_run');
is(roles($session), 'app|app|42501', 'and it is who it was');

# One that fails at the commit of a procedure's step.
$node->safe_psql('postgres', <<~SQL);
	CREATE OR REPLACE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS
		\$\$BEGIN RAISE 'too late' USING ERRCODE = 'AU001'; END\$\$;
	DROP TRIGGER at_once ON $RUNS;
	SQL
$session->query(supersede_run(3, $run =~ s/^.{8}/00000000/r));
is(state_of($session), 'AU001', 'a deferred trigger that fails');
is(roles($session), 'app|app|42501', 'and it is who it was');
is(runs($node, 'postgres', 3), '', 'nothing was begun');
$node->safe_psql('postgres', "DROP TRIGGER deferred ON $RUNS");
is($session->query_safe("SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(3)]}', '$WS')"), 'began', 'nor claimed');
$session->quit;

# ---- what is the session's ----

$session = become('SET ROLE app');
$session->query_safe("SELECT ai_chat_run.attach_runner('web-1')");
$session->query_safe("SELECT ai_chat_run.begin_run('@{[chat(4)]}', '$WS', runner => 'web-1')");
my $attached = "SELECT attached FROM ai_chat_run.active_runs WHERE runner = 'web-1'";
for my $command ('RESET ROLE', 'SET SESSION AUTHORIZATION nobody', 'RESET SESSION AUTHORIZATION')
{
	$session->query_safe($command);
	is($node->safe_psql('postgres', $attached), 't', "attached as one role, it is so after $command");
}
$session->quit;
wait_until($node, 'postgres', "SELECT status FROM ai_chat_run.get_latest_for_chat('@{[chat(4)]}', '$WS')", 'aborted');
pass('until the session ends');
$node->stop;
done_testing();
