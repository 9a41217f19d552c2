# Settings that sessions, databases or the whole server may have, and that are none of ours: with each of a table of them,
# and with all switches of the server turned round, all numbers at their least and at their most, all calls answer as
# ever, CREATE EXTENSION makes the same extension, and the background worker does all of its tasks. Where a session may
# not write, calls that would are refused, and the worker writes all the same.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Life;
use RunCluster;
use Test::More;
use Time::HiRes 'usleep';

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $node = new_server('settings', <<~CONF);
	ai_chat_run.reconcile_interval = 100ms
	ai_chat_run.runner_grace = 1ms
	ai_chat_run.stale_after = 1h
	log_statement = none
	allow_in_place_tablespaces = on
	CONF
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

# ---- tables of settings ----

# Those that are about something else: what a session may do at all, how it ends, what it is asked to show, and two that
# are made to take for ever.
my $LEAVE_OUT = <<~SQL =~ s/\n/ /gr;
	name !~ '^(default_)?transaction_(read_only|isolation|deferrable)\$' AND name !~ '^(debug_print|log_|ai_chat_run)'
	AND name NOT IN ('debug_discard_caches', 'exit_on_error', 'max_stack_depth', 'seed', 'trace_sort', 'post_auth_delay',
		'pre_auth_delay', 'ssl_renegotiation_limit', 'session_replication_role', 'client_min_messages', 'zero_damaged_pages',
		'ignore_system_indexes', 'jit_dump_bitcode', 'jit_debugging_support', 'jit_profiling_support')
	SQL

# turned(VALUE, TYPES): "name = value" of all settings of these types that a session may make, with that value.
sub turned
{
	my ($value, @types) = @_;
	my $list = join ', ', map { "'$_'" } @types;
	return split /\n/, $node->safe_psql('postgres', <<~SQL);
		SELECT name || ' = ' || quote_literal($value) FROM pg_settings
		WHERE context IN ('user', 'superuser') AND vartype IN ($list) AND $LEAVE_OUT AND $value IS NOT NULL ORDER BY name
		SQL
}

my @switches = turned(q(CASE boot_val WHEN 'on' THEN 'off' ELSE 'on' END), 'bool');
my @words = turned(q((SELECT v FROM unnest(enumvals) v WHERE v <> boot_val LIMIT 1)), 'enum');
my @least = turned('min_val', 'integer', 'real');
my @most = turned('max_val', 'integer', 'real');
my %all = (
	'all switches turned' => \@switches,
	'all words others' => \@words,
	'all numbers at their least' => \@least,
	'all numbers at their most' => \@most);
cmp_ok(scalar @{ $all{$_} }, '>', 15, "$_: there are many") for sort keys %all;

my @table = (
	(map { "default_transaction_isolation = '$_'" } 'read uncommitted', 'repeatable read', 'serializable'),
	'default_transaction_deferrable = on; SET default_transaction_isolation = serializable',
	(map { "session_replication_role = $_" } 'replica', 'local'),
	(map { "search_path = $_" } q(''), 'pg_temp', 'nowhere', 'public, ai_chat_run, pg_catalog'),
	(map { "plan_cache_mode = $_" } 'force_custom_plan', 'force_generic_plan'),
	(map { "TimeZone = '$_'" } 'Pacific/Kiritimati', 'Etc/GMT+12'),
	(map { "DateStyle = '$_'" } 'German, DMY', 'SQL, MDY'),
	(map { "IntervalStyle = $_" } 'iso_8601', 'sql_standard'),
	(map { "client_encoding = $_" } 'latin1', 'sql_ascii'),
	(map { "client_min_messages = $_" } 'debug5', 'error'),
	'jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0',
	($version >= 160000 ? 'debug_parallel_query' : 'force_parallel_mode')
	  . ' = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0',
	'row_security = off',
	'standard_conforming_strings = off; SET backslash_quote = on',
	'transform_null_equals = on',
	q(lock_timeout = '1ms'),
	q(idle_in_transaction_session_timeout = '1h'; SET statement_timeout = '1h'),
	'temp_file_limit = 0; SET work_mem = 64',
	'exit_on_error = on',
	q(debug_print_plan = on; SET log_statement = 'all'; SET log_min_messages = debug5; SET log_error_verbosity = verbose),
	($version >= 170000 ? q(transaction_timeout = '1h') : ()),
	(map { "$_ = on" } grep { $version >= 170000 } 'event_triggers'));
push @table, 'debug_discard_caches = 1'
  if $node->safe_psql('postgres', "SELECT max_val::int > 0 FROM pg_settings WHERE name = 'debug_discard_caches'") eq 't';

# ---- in a session ----

# What health() says is the same for all.
my $health = "SELECT string_agg(check_name, ' ') FROM ai_chat_run.health() WHERE NOT ok";
wait_until($node, 'postgres', $health, '');
for my $setting (@table)
{
	is(life($node, 'postgres', 1, "SET $setting"), life_answers(1), $setting);
	is($node->safe_psql('postgres', "SET client_min_messages = error; SET $setting; $health"), '', "$setting: health");
}
for my $name (sort keys %all)
{
	my $settings = join '; ', map { "SET $_" } @{ $all{$name} };
	is(life($node, 'postgres', 1, $settings), life_answers(1), $name);

	# That one is about views of anybody's.
	$settings =~ s/SET restrict_nonsystem_relation_kind[^;]*;//;
	is($node->safe_psql('postgres', "SET client_min_messages = error; $settings; $health"), '', "$name: health");
}

# A wait is not idle; to transaction_timeout it is a transaction.
my $run = begin_run($node, 'postgres', 1);
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe("SET idle_in_transaction_session_timeout = '1ms'");
start_call($session, "CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
wait_asleep($node, $pid);
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'finalized', 'a run ends');
is(answer($session), 'succeeded|', 'idle_in_transaction_session_timeout leaves a wait alone');
SKIP:
{
	skip('there is no transaction_timeout before 17', 1) if $version < 170000;
	$run = begin_run($node, 'postgres', 2);
	$session->query_safe("SET transaction_timeout = '100ms'");
	start_call($session, "CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
	like(last_words($session), qr/FATAL:  terminating connection due to transaction timeout/, 'transaction_timeout ends it');
	$session = undef;
}
$session->quit if defined $session;

# ---- CREATE EXTENSION ----

# schema(DATABASE): what the extension is made of there, each thing once.
sub schema
{
	my ($db) = @_;
	my %things = map { $_ => 1 } split /\n/, $node->safe_psql($db, <<~SQL);
		SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'ai_chat_run'::regnamespace ORDER BY 1;
		SELECT indexdef FROM pg_indexes WHERE schemaname = 'ai_chat_run' ORDER BY 1;
		SELECT attrelid::regclass, attname, atttypid::regtype, attnotnull, pg_get_expr(adbin, adrelid)
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'ai_chat_run'::regnamespace) AND attnum > 0
		ORDER BY attrelid::regclass::text COLLATE "C", attnum;
		SELECT proname, prosrc, prosecdef, provolatile, translate(proconfig::text, '"\\', '') FROM pg_proc
		WHERE pronamespace = 'ai_chat_run'::regnamespace ORDER BY 1, oid;
		SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = '$RUNS'::regclass ORDER BY 1;
		SELECT viewname, definition FROM pg_views WHERE schemaname = 'ai_chat_run' ORDER BY 1
		SQL
	return sort keys %things;
}

my %schema = map { $_ => 1 } schema('postgres');
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
$all{'strange places'} = [
	"default_tablespace = 'elsewhere'", "temp_tablespaces = 'elsewhere'", "search_path = ''", "DateStyle = 'German, DMY'",
	"default_transaction_isolation = 'serializable'" ];
for my $name (sort keys %all)
{
	my $db = $name =~ s/ /_/gr;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db,
		join '; ', 'SET client_min_messages = error', (map { "SET $_" } @{ $all{$name} }), 'CREATE EXTENSION ai_chat_run');
	is(join("\n", grep { !$schema{$_} } schema($db)), '', "$name: CREATE EXTENSION makes nothing else");
	is(scalar(my @made = schema($db)), scalar(keys %schema), "$name: nor less");
	is(life($node, $db, 1), life_answers(1), "$name: which works");
}

# ---- the background worker ----

# strange(DATABASE, SETTING...): the database has these for its sessions, but for those that are there already.
sub strange
{
	my ($db, @settings) = @_;
	$node->safe_psql('postgres', join ";\n", 'SET client_min_messages = error', map { "ALTER DATABASE $db SET $_" } @settings);
	return;
}

# wait_in(SESSION, QUERY): until the query gives t in that session.
sub wait_in
{
	my ($in, $query) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $in->query_safe($query) eq 't';
		usleep(100_000);
	}
	die "gave up waiting for: $query";
}

# All the worker's tasks in one database: what it is to do is there, and kept from it, before the settings are.
for my $name (sort keys %all)
{
	my $db = $name =~ s/ /_/gr;
	my ($runner, $rows, $look) = map { $node->background_psql($db) } 1 .. 3;

	$runner->query_safe("SELECT ai_chat_run.attach_runner('$db')");
	$runner->query_safe("SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS', runner => '$db')");
	my $decided = begin_run($node, $db, 2);
	$rows->query_safe(<<~SQL);
		BEGIN;
		INSERT INTO $RUNS (chat_id, workspace_id, updated_at) VALUES ('@{[chat(3)]}', '$WS', now() - interval '1 year');
		SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE
		SQL
	is($node->safe_psql($db, "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'completed')"), 'deferred',
		"$name: a finalization is deferred");
	add_ended_run($node, $db, 4, '2 days');
	my @settings = (@{ $all{$name} }, 'exit_on_error = on', 'default_transaction_read_only = on');
	strange($db, @settings);
	is($node->safe_psql('postgres', <<~SQL), scalar @settings, "$name: the database has them");
		SELECT cardinality(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
		WHERE d.datname = '$db'
		SQL

	# Who looks is here since before the settings were.
	$rows->query_safe('COMMIT');
	$_->quit for $runner, $rows;
	change_conf($node, 'ai_chat_run.retention' => '1d', 'ai_chat_run.stale_after' => '1ms');
	wait_in($look, "SELECT count(*) = 0 FROM $RUNS WHERE status IN ('pending', 'running', 'failed')");
	change_conf($node, 'ai_chat_run.retention' => '0', 'ai_chat_run.stale_after' => '1h');
	wait_until($node, 'postgres', workers($db), 0);
	$look->query_safe("SELECT ai_chat_run.begin_run('@{[chat(5)]}', '$WS')");
	$look->quit;
	strange($db, "session_preload_libraries = 'nowhere'");
	my $life = log_end($node);
	$node->restart;
	wait_swept($node, $life, $db);
	$node->safe_psql('postgres', "ALTER DATABASE $db RESET ALL");
	is(runs($node, $db), <<~OUT . "5 $swept", "$name: all tasks of the worker are done");
		1 aborted Run aborted: its runner has departed.
		2 succeeded
		3 aborted Run aborted: its runner has been silent for too long.
		OUT
}

# ---- where nobody may write ----

my @writing = (
	"SELECT ai_chat_run.begin_run('@{[chat(9)]}', '$WS')",
	"SELECT ai_chat_run.try_begin_run('@{[chat(9)]}', '$WS')",
	"SELECT ai_chat_run.record_step(:run, 1)",
	"SELECT ai_chat_run.heartbeat(:run)",
	"SELECT ai_chat_run.link_assistant_message(:run, '$WS')",
	"SELECT ai_chat_run.finalize_run(:run, 'completed')",
	"SELECT ai_chat_run.request_stop(:run)",
	"SELECT ai_chat_run.request_stop_for_chat('@{[chat(8)]}', '$WS')",
	"CALL ai_chat_run.supersede_run('@{[chat(8)]}', :run)",
	"SELECT ai_chat_run.attach_runner('web-1')",
	'SELECT ai_chat_run.settle_deferred()',
	'SELECT ai_chat_run.sweep_runs()',
	"SELECT ai_chat_run.purge_runs('0')",
	"SELECT ai_chat_run.grant_app_access('app')");
my @reading = (
	"SELECT status FROM ai_chat_run.get_run(:run)" => 'running',
	"SELECT status FROM ai_chat_run.get_latest_for_chat('@{[chat(8)]}', '$WS')" => 'running',
	"SELECT status FROM ai_chat_run.get_active_for_chat('@{[chat(8)]}', '$WS')" => 'running',
	"CALL ai_chat_run.await_run(:run, '0')" => '|',
	"CALL ai_chat_run.await_stop(:run, '0')" => '',
	"CALL ai_chat_run.await_stops('web-1', '{}', '0')" => '',
	"SELECT count(*) FROM ai_chat_run.active_runs" => '1',
	$health => '');

# check_read_only(NAME, RUN, BEFORE): what a session may do after what it does BEFORE.
sub check_read_only
{
	my ($name, $id, $before) = @_;
	my @pairs = @reading;

	$before //= 'SET client_min_messages = error';

	for my $call (@writing)
	{
		my $err;
		$node->psql('postgres', "\\set VERBOSITY sqlstate\n$before;" . $call =~ s/:run/'$id', '$WS'/r, stderr => \$err);
		like($err, qr/ERROR:  25006$/, "$name: " . $call =~ s/\(.*//r);
	}
	while (my ($call, $answer) = splice @pairs, 0, 2)
	{
		is($node->safe_psql('postgres', "$before;" . $call =~ s/:run/'$id', '$WS'/r), $answer, "$name: " . $call =~ s/\(.*//r);
	}
	is(runs($node, 'postgres', 8, 9), '8 running', "$name: nothing has changed");
	return;
}

$node->safe_psql('postgres', "TRUNCATE $RUNS; CREATE ROLE app");
$run = begin_run($node, 'postgres', 8);
check_read_only('a session', $run, 'SET default_transaction_read_only = on');
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET default_transaction_read_only = on');
check_read_only('a database', $run);
$node->safe_psql('postgres', <<~SQL);
	SET default_transaction_read_only = off;
	ALTER DATABASE postgres RESET default_transaction_read_only;
	ALTER SYSTEM SET default_transaction_read_only = on;
	SQL
$node->reload;
wait_until($node, 'postgres', 'SHOW default_transaction_read_only', 'on');
check_read_only('the server', $run);

# The worker applies and sweeps; a role's own settings, even those of the role that the worker is, do not matter either.
my $rows = $node->background_psql('postgres');
$rows->query_safe('SET default_transaction_read_only = off');
$rows->query_safe("ALTER ROLE CURRENT_USER SET $_") for 'default_transaction_read_only = on', "statement_timeout = '1ms'";
$rows->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");

# As for us:
local $ENV{PGOPTIONS} = '-c statement_timeout=0';
is($node->safe_psql('postgres', <<~SQL), 'deferred', 'who may write, writes');
	BEGIN READ WRITE; SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed'); COMMIT
	SQL
$rows->query_safe('COMMIT');
$rows->quit;
wait_until($node, 'postgres', "SELECT status FROM $RUNS", 'succeeded');
pass('what was deferred is applied');
$node->safe_psql('postgres', "BEGIN READ WRITE; SELECT ai_chat_run.begin_run('@{[chat(9)]}', '$WS'); COMMIT");
my $life = log_end($node);
$node->restart;
wait_swept($node, $life, 'postgres');
is(runs($node, 'postgres'), "8 succeeded\n9 $swept", 'the boot sweep is done');
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
unlike(log_since($node, 0), qr/WARNING:  .* of database ".*" failed/, 'no task of the worker has failed');
$node->stop;
done_testing();
