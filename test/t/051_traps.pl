# An application's role sets traps for the rights that its calls run with: in a schema of its own, which comes first in
# everybody's search_path, and among its temporary objects, there is a look-alike of every operator, function, type and
# relation that a statement of the extension could mean. Each tells the log who runs it. All calls, by an application, a
# monitoring role, an operator and the superuser, do their work and meet none; nor does the background worker, whatever
# the database has as its search_path.
#
# Where the extension was given to a role that is no superuser, that role's triggers get nobody else's rights, by the
# worker neither.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $PATH = 'evil, pg_temp, pg_catalog';
my $node = new_server('traps', <<~CONF);
	ai_chat_run.reconcile_interval = 100ms
	ai_chat_run.runner_grace = 0
	log_min_error_statement = panic
	CONF
$node->safe_psql('postgres', <<~'SQL');
	CREATE ROLE app LOGIN;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	CREATE ROLE keeper LOGIN;
	SELECT ai_chat_run.grant_app_access('app');
	CREATE SCHEMA evil AUTHORIZATION app;
	SQL

# ---- the traps ----

# The types of the extension's columns, arguments and conditions.
my $TYPES = join ', ', map { "'$_'::regtype" } qw(uuid text name int4 int8 float8 bool oid xid tid timestamptz interval
  regclass "char" uuid[] text[] tid[]);

# What takes and gives only these, as the server and the extension have it: "name|arguments|result|operator".
my $look_alikes = $node->safe_psql('postgres', <<~SQL);
	SELECT format('%I|%s|%s|', p.proname, oidvectortypes(p.proargtypes), format_type(p.prorettype, NULL))
	FROM pg_proc p
	WHERE p.pronamespace IN ('pg_catalog'::regnamespace, 'ai_chat_run'::regnamespace)
		AND p.prokind = 'f' AND NOT p.proretset
		AND p.proargtypes::oid[] <@ ARRAY[$TYPES]::oid[] AND p.prorettype IN ($TYPES)
	UNION ALL
	SELECT format('look_alike_%s|%s|%s|%s', o.oid,
		concat_ws(', ', format_type(nullif(o.oprleft, 0), NULL), format_type(o.oprright, NULL)),
		format_type(o.oprresult, NULL), o.oprname)
	FROM pg_operator o
	WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprresult IN ($TYPES) AND o.oprright IN ($TYPES)
		AND o.oprleft IN (0, $TYPES)
	SQL

sub trap_for
{
	my ($name, $args, $result, $operator) = split /\|/, $_[0], 4;
	my @types = split /, /, $args;
	my $trap = <<~SQL;
		CREATE FUNCTION evil.$name($args) RETURNS $result LANGUAGE plpgsql AS
			\$\$BEGIN PERFORM evil.trapped(\$what\$$name $operator($args)\$what\$); RETURN NULL; END\$\$;
		SQL

	return $trap if $operator eq '';
	my $left = @types > 1 ? "LEFTARG = $types[0]," : '';
	return $trap . "CREATE OPERATOR evil.$operator (FUNCTION = evil.$name, $left RIGHTARG = $types[-1]);\n";
}

# The names of types come last: from then on they would stand for the real ones.
sub traps
{
	my @relations = split /\n/, $node->safe_psql('postgres', <<~'SQL');
		SELECT relname FROM pg_class
		WHERE relkind IN ('r', 'v') AND (relnamespace = 'ai_chat_run'::regnamespace
			OR relname IN ('pg_prepared_xacts', 'pg_class', 'pg_index', 'pg_attribute', 'pg_database', 'pg_namespace',
				'pg_roles'))
		SQL
	my @domains = qw(uuid text name int4 int8 float8 bool xid tid timestamptz interval regclass);

	return join '', "SET check_function_bodies = off;\n", <<~'SQL',
		CREATE FUNCTION evil.trapped(what text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
		BEGIN
			RAISE LOG 'TRAPPED: % as %', what, current_user;
			RETURN true;
		END
		$$;
		GRANT USAGE ON SCHEMA evil TO PUBLIC;
		CREATE FUNCTION evil.caught() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
		BEGIN
			PERFORM evil.trapped(TG_OP || ' of ' || TG_RELID::regclass);
			RETURN coalesce(NEW, OLD);
		END
		$$;
		CREATE TYPE evil.chat AS (id uuid);
		CREATE FUNCTION evil.chat_id(evil.chat) RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog AS $$
		BEGIN
			PERFORM evil.trapped('the cast of a chat');
			RETURN $1.id;
		END
		$$;
		CREATE CAST (evil.chat AS uuid) WITH FUNCTION evil.chat_id(evil.chat) AS IMPLICIT;
		SQL
	  map({ trap_for($_) } split /\n/, $look_alikes),
	  map({"CREATE VIEW evil.$_ AS SELECT evil.trapped('relation $_') AS id;\n"} @relations),
	  map({"CREATE DOMAIN evil.$_ AS pg_catalog.$_ CHECK (evil.trapped('type $_'));\n"} @domains);
}

sub as_role
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}

as_role('app', traps());

# Temporary ones live in the session that has to meet them.
my $temporary = join '', map { "CREATE TEMP VIEW $_ AS SELECT evil.trapped('temporary relation $_') AS id;\n" }
  qw(ai_chat_runs deferred_finalizations runners active_runs stats workers pg_prepared_xacts pg_class pg_index pg_database);

# caught(OFFSET): what the log tells of traps since then.
sub caught
{
	my ($offset) = @_;
	my %caught = map { $_ => 1 } log_since($node, $offset) =~ /LOG:  TRAPPED: (.*)$/mg;
	return join "\n", sort keys %caught;
}

cmp_ok(scalar(() = $look_alikes =~ /\n/g), '>', 500, 'there are many traps');
my $offset = log_end($node);
as_role('app', <<~SQL);
	SET search_path = $PATH;
	SELECT now(), '$WS'::pg_catalog.uuid = '$WS'::pg_catalog.uuid, '$WS'::uuid;
	SELECT id FROM ai_chat_runs;
	SQL
is(caught($offset), <<~CAUGHT =~ s/\n\z//r, 'they work, for who walks into them');
	look_alike_@{[ $node->safe_psql('postgres', "SELECT '=(uuid, uuid)'::regoperator::oid") ]} =(uuid, uuid) as app
	now () as app
	relation ai_chat_runs as app
	type uuid as app
	CAUGHT

# It cannot hook anything up to the tables either.
for my $hook (
	"CREATE RULE r AS ON INSERT TO $RUNS DO ALSO SELECT evil.trapped('a rule')",
	"CREATE POLICY p ON $RUNS USING (evil.trapped('a policy'))",
	"CREATE INDEX ON $RUNS ((evil.trapped(error)))",
	"CREATE STATISTICS evil.s ON chat_id, status FROM $RUNS",
	"CREATE TABLE evil.heir () INHERITS ($RUNS)",
	"CREATE TABLE evil.child (run uuid REFERENCES $RUNS)",
	"ALTER TABLE $RUNS ADD CHECK (evil.trapped(error))",
	"ALTER TABLE $RUNS ALTER id SET DEFAULT evil.new_run_id()",
	'ALTER FUNCTION ai_chat_run.get_run(uuid, uuid) SUPPORT evil.trapped',
	'CREATE EVENT TRIGGER t ON sql_drop EXECUTE FUNCTION evil.caught()')
{
	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$hook;", extra_params => [ '-U', 'app' ], stderr => \my $err);
	like($err, qr/ERROR:  42501$/, "not allowed: $hook");
}

# ---- everybody's calls ----

my $holder = $node->background_psql('postgres');
my $deferred = begin_run($node, 'postgres', 20);
my $dangling = begin_run($node, 'postgres', 21);
$holder->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$deferred' FOR UPDATE");
my $run = '00000000-0000-7000-8000-000000000001';
$offset = log_end($node);

# A run's life, and every other thing that may be said of it.
my $life = <<~SQL;
	SELECT ai_chat_run.attach_runner('web-1', '$run');
	SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS', run_id => '$run', runner => 'web-1');
	SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS', run_id => '$run');
	SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS');
	SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$run');
	SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(20)]}', '$WS');
	SELECT ai_chat_run.record_step('$run', '$WS', 1);
	SELECT ai_chat_run.heartbeat('$run', '$WS');
	SELECT ai_chat_run.heartbeat('$dangling', '$WS');
	SELECT ai_chat_run.link_assistant_message('$run', '$WS', '$run');
	SELECT ai_chat_run.is_locally_active('$run');
	SELECT ai_chat_run.request_stop('$run', '$WS');
	SELECT ai_chat_run.request_stop_for_chat('@{[chat(1)]}', '$WS');
	SELECT status FROM ai_chat_run.get_run('$run', '$WS');
	SELECT status FROM ai_chat_run.get_latest_for_chat('@{[chat(1)]}', '$WS');
	SELECT status FROM ai_chat_run.get_active_for_chat('@{[chat(1)]}', '$WS');
	CALL ai_chat_run.await_run('$run', '$WS', '0');
	CALL ai_chat_run.await_stop('$run', '$WS', '0');
	CALL ai_chat_run.await_stops('web-1', timeout => '0');
	SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed');
	SELECT ai_chat_run.finalize_run('$run', '$WS', 'error');
	SELECT ai_chat_run.map_turn_status('error');
	SELECT ai_chat_run.finalize_run('$deferred', '$WS', 'error', 'a model error');
	SELECT ai_chat_run.finalize_run('$deferred', '$WS', 'completed');
	SELECT ai_chat_run.settle_deferred();
	SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS') \\gset
	CALL ai_chat_run.supersede_run('@{[chat(1)]}', :'begin_run', '$WS', timeout => '0', force => true) \\gset
	SELECT :'outcome';
	SELECT ai_chat_run.attach_runner('web-1', '$WS');
	SQL
is(as_role('app', "$temporary SET search_path = $PATH;\n$life"), <<~OUT =~ s/\n\z//r, 'an application does its work');
	0
	$run
	resumed
	busy
	busy
	busy
	continue
	continue
	continue
	t
	t
	t
	$run
	running
	running
	running
	|
	stop
	{$run}
	finalized
	already_finalized
	failed
	deferred
	deferred
	0
	superseded
	0
	OUT
is(caught($offset), '', 'and meets no trap');

# With a cast of its own, which the server applies before the call; and a table of chats with columns of its own types.
as_role('app', <<~SQL);
	SET search_path = $PATH;
	CREATE TABLE evil.chats (id evil.uuid, workspace_id pg_catalog.uuid);
	CREATE TRIGGER gone AFTER DELETE ON evil.chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
	CREATE TRIGGER note BEFORE DELETE ON evil.chats FOR EACH ROW EXECUTE FUNCTION evil.caught();
	SELECT ai_chat_run.begin_run(ROW('@{[chat(2)]}')::evil.chat, '$WS');
	INSERT INTO evil.chats VALUES ('@{[chat(2)]}', '$WS');
	DELETE FROM evil.chats;
	SQL
is(caught($offset), "DELETE of evil.chats as app\nthe cast of a chat as app\ntype uuid as app",
	'what is run at its own request is run with its own rights');
is(runs($node, 'postgres', 2), '', 'and the chat has taken its run along');

$offset = log_end($node);
as_role('monitor', <<~SQL);
	$temporary
	SET search_path = $PATH;
	SELECT * FROM ai_chat_run.active_runs;
	SELECT * FROM ai_chat_run.stats, ai_chat_run.workers;
	SELECT * FROM ai_chat_run.health();
	SQL
is($node->safe_psql('postgres', <<~SQL), "0\n0\n0\n1\n\n", 'an operator and the superuser do their work');
	$temporary
	SET search_path = $PATH;
	INSERT INTO $RUNS (chat_id, workspace_id, status, finished_at) VALUES ('@{[chat(3)]}', '$WS', 'failed', '-infinity');
	SELECT ai_chat_run.sweep_runs('1 day', 'nobody');
	SELECT ai_chat_run.sweep_runs('1 day');
	SELECT ai_chat_run.sweep_runs(NULL, 'nobody');
	SELECT ai_chat_run.purge_runs('100 years');
	SELECT ai_chat_run.grant_app_access('app');
	SELECT ai_chat_run.stats_reset();
	SQL
is(caught($offset), '', 'and meet no trap');

# ---- the background worker ----

# From now on our own sessions have to beware.
$node->safe_psql('postgres', "ALTER DATABASE postgres SET search_path = $PATH");
$ENV{PGOPTIONS} = '-c search_path=public';

sub wait_for_status
{
	my ($n, $status) = @_;
	wait_until($node, 'postgres', <<~SQL, $status);
		SELECT string_agg(status, ' ' ORDER BY id) FROM $RUNS WHERE chat_id = '@{[chat($n)]}'
		SQL
	return;
}

$holder->query_safe('COMMIT');
$holder->quit;
wait_for_status(20, 'failed');

my $runner = $node->background_psql('postgres');
$runner->query_safe("SELECT ai_chat_run.attach_runner('web-2')");
$runner->query_safe("SELECT ai_chat_run.begin_run('@{[chat(4)]}', '$WS', runner => 'web-2')");
$runner->quit;
wait_for_status(4, 'aborted');

change_conf($node, 'ai_chat_run.stale_after' => '1ms');
wait_for_status(21, 'aborted');
add_ended_run($node, 'postgres', 5, '1 day');
change_conf($node, 'ai_chat_run.stale_after' => '0', 'ai_chat_run.retention' => '1h');
wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE chat_id = '@{[chat(5)]}'", 0);

for my $boot_sweep ('on', 'grace')
{
	set_conf($node, 'ai_chat_run.boot_sweep' => $boot_sweep, 'ai_chat_run.boot_grace' => 0);
	begin_run($node, 'postgres', 6);
	my $life = log_end($node);
	$node->restart;
	wait_swept($node, $life, 'postgres');
}
is(caught($offset), '', 'the background worker has done each of its tasks and met no trap');
unlike(log_since($node, $offset), qr/ of database "postgres" failed/, 'nor failed');

# ---- the extension's own script ----

{
	local $ENV{PGOPTIONS} = "-c search_path=$PATH" =~ s/, /,/gr;
	$node->safe_psql('postgres', <<~SQL);
		$temporary
		DROP EXTENSION ai_chat_run CASCADE;
		DROP SCHEMA ai_chat_run;
		CREATE EXTENSION ai_chat_run;
		SQL
}
is(caught($offset), '', 'nor does the script of the extension');

# ---- an extension that is not a superuser's ----

my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
$node->safe_psql('postgres', <<~SQL);
	DO \$\$
	DECLARE
		member record;
	BEGIN
		FOR member IN
			SELECT o.type, o.identity FROM pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) o
			WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
				AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'ai_chat_run')
				AND o.type IN ('function', 'procedure', 'table', 'view')
		LOOP
			EXECUTE format('ALTER %s %s OWNER TO keeper', member.type, member.identity);
		END LOOP;
	END
	\$\$;
	ALTER SCHEMA ai_chat_run OWNER TO keeper;
	CREATE SCHEMA keeper AUTHORIZATION keeper;
	GRANT USAGE ON SCHEMA keeper TO PUBLIC;
	SET ROLE keeper;
	SELECT ai_chat_run.grant_app_access('app');

	-- It would like to be more than it is.
	CREATE FUNCTION keeper.escape() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS \$\$
	DECLARE
		way text;
		escaped text := '';
	BEGIN
		FOREACH way IN ARRAY ARRAY['SET ROLE "$superuser"', 'SET ROLE none', 'RESET ROLE',
			'SET SESSION AUTHORIZATION "$superuser"', 'SET SESSION AUTHORIZATION DEFAULT'] LOOP
			BEGIN
				EXECUTE way;
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
			IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
				escaped := ', escaped by ' || way;
			END IF;
		END LOOP;
		RAISE LOG 'KEEPER: % % as %', TG_NAME, NEW.status, current_user || escaped;
		RETURN NULL;
	END
	\$\$;
	CREATE TRIGGER at_once AFTER INSERT OR UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION keeper.escape();
	CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON $RUNS INITIALLY DEFERRED FOR EACH ROW
		EXECUTE FUNCTION keeper.escape();
	SQL

# told(OFFSET): what its trigger tells.
sub told
{
	my ($from) = @_;
	my %told = map { $_ => 1 } log_since($node, $from) =~ /LOG:  KEEPER: (.*)$/mg;
	return join "\n", sort keys %told;
}

# Since 18 a trigger runs, at commit too, with the rights of who caused it, before with those of who commits.
my $at_commit = $node->pg_version >= 18 ? 'keeper' : 'app';
$offset = log_end($node);
is(as_role('app', <<~SQL), "finalized\nsuperseded", 'where it belongs to a role that is no superuser, it works');
	SELECT ai_chat_run.begin_run('@{[chat(7)]}', '$WS') \\gset
	SELECT ai_chat_run.finalize_run(:'begin_run', '$WS', 'completed');
	SELECT ai_chat_run.begin_run('@{[chat(7)]}', '$WS') \\gset
	CALL ai_chat_run.supersede_run('@{[chat(7)]}', :'begin_run', '$WS', timeout => '0', force => true) \\gset
	SELECT :'outcome';
	SQL
is(told($offset), join("\n", map({"at_commit $_ as $at_commit"} qw(aborted running succeeded)),
	map({"at_once $_ as keeper"} qw(aborted running succeeded))),
	'its triggers have the rights of that role, or of the caller');
$offset = log_end($node);
$node->restart;
wait_for_status(7, 'succeeded aborted aborted');
is(told($offset), "at_commit aborted as keeper\nat_once aborted as keeper",
	'called by the background worker they have no others');
$node->stop;
done_testing();
