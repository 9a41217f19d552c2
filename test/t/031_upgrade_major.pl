# The way to a newer PostgreSQL, where the machine has one: UPGRADE_TO, a list of pg_config programs, or else the newest that
# is found, or with CHAOS=full all of them. By a dump, or by pg_upgrade, runs, what was deferred and the runners' incarnations
# come along. What pg_upgrade makes of the extension, with the rights that were granted, is what a fresh installation there
# has; and the first start of the new server is a server start like any other, which runners may outlive.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use File::Basename 'dirname';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $ALICE = '00000000-0000-4000-b000-00000000000a';
my $checkout = "$FindBin::RealBin/../..";

# ---- the newer servers ----

# major(PG_CONFIG): the server's version, or 0 where that is no server that one can build for and upgrade to.
sub major
{
	my ($pg_config) = @_;
	return 0 if !-x $pg_config;
	chomp(my ($version, $bindir, $pgxs) = map { scalar qx($pg_config --$_) } 'version', 'bindir', 'pgxs');
	return 0 if !-x "$bindir/postgres" || !-x "$bindir/pg_upgrade" || !-f $pgxs;
	return $version =~ /^PostgreSQL (\d+)/ ? $1 : 0;
}

chomp(my $our_bindir = qx(pg_config --bindir));
my $ours = major("$our_bindir/pg_config");
my @candidates = glob($ENV{UPGRADE_TO} // '/usr/lib/postgresql/*/bin/pg_config /opt/pg*/bin/pg_config');
my @newer = sort { major($a) <=> major($b) } grep { major($_) > $ours } @candidates;
@newer = $newer[-1] if @newer > 1 && !defined $ENV{UPGRADE_TO} && ($ENV{CHAOS} // '') ne 'full';
plan skip_all => 'no newer PostgreSQL is found to upgrade to, see UPGRADE_TO' if !@newer;
plan skip_all => 'the source is not here to build the extension for another PostgreSQL' if !-f "$checkout/src/module.c";

# install(PG_CONFIG): makes a private copy of that server with the extension, beside the one under test, and returns where.
sub install
{
	my ($pg_config) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $log = "$dir/install.log";
	my $script = <<~'SH';
		exec >"$3" 2>&1
		cd "$1" && mkdir "$0/src" && cp -R Makefile ./*.control sql "$0/" && cp src/*.[ch] "$0/src/" && cd "$0" || exit 1
		STAGE=$0
		. "$1/test/lib.sh"
		make -s -j "$(nproc)" PG_CONFIG="$2" with_llvm=no && private_install "$2"
		SH

	system('bash', '-c', $script, $dir, $checkout, $pg_config, $log) == 0
	  or die "cannot build for $pg_config:\n" . slurp_file($log);
	chomp(my $bindir = qx($pg_config --bindir));
	return dirname("$dir/root$bindir");
}

# ---- what there is to keep ----

# objects(NODE, DATABASE): all that the extension consists of, with rights and comments, sorted.
sub objects
{
	my ($node, $db) = @_;
	return $node->safe_psql($db, <<~'SQL');
		WITH member AS (
			SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
			WHERE e.extname = 'ai_chat_run' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
		), function AS (
			SELECT p.* FROM pg_proc p JOIN member ON objid = p.oid AND classid = 'pg_proc'::regclass
		), relation AS (
			SELECT c.* FROM pg_class c JOIN member ON objid = c.oid AND classid = 'pg_class'::regclass
		), object AS (
			SELECT concat_ws(' ', extname, extversion, extrelocatable, (
					SELECT string_agg(t::regclass::text || condition, ' ' ORDER BY t::regclass::text COLLATE "C")
					FROM unnest(extconfig, extcondition) AS u(t, condition))) AS line
			FROM pg_extension WHERE extname = 'ai_chat_run'
			UNION ALL
			SELECT concat_ws(' ', pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name))
			FROM member
			UNION ALL
			SELECT pg_get_functiondef(oid) FROM function
			UNION ALL
			SELECT concat_ws(' ', oid::regprocedure, a) FROM function, unnest(coalesce(proacl, acldefault('f', proowner))) a
			UNION ALL
			SELECT concat_ws(' ', oid::regclass, relkind, reloptions, relrowsecurity, pg_get_viewdef(oid)) FROM relation
			UNION ALL
			SELECT concat_ws(' ', oid::regclass, a) FROM relation, unnest(coalesce(relacl, acldefault('r', relowner))) a
			UNION ALL
			SELECT concat_ws(' ', attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull,
				pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
			FROM relation r JOIN pg_attribute ON attrelid = r.oid
			LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
			WHERE attnum > 0
			UNION ALL
			SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(c.oid),
				obj_description(c.oid, 'pg_constraint'))
			FROM relation r JOIN pg_constraint c ON conrelid = r.oid
			UNION ALL
			SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid, obj_description(indexrelid, 'pg_class'))
			FROM relation r JOIN pg_index ON indrelid = r.oid
			UNION ALL
			SELECT concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled, obj_description(t.oid, 'pg_trigger'))
			FROM relation r JOIN pg_trigger t ON tgrelid = r.oid
			UNION ALL
			SELECT concat_ws(' ', nspname, a, obj_description(oid, 'pg_namespace'))
			FROM pg_namespace, unnest(nspacl) a WHERE nspname = 'ai_chat_run'
		)
		SELECT line FROM object ORDER BY line COLLATE "C"
		SQL
}

sub contents
{
	my ($node, $db) = @_;
	return $node->safe_psql($db, <<~SQL);
		SELECT r FROM $RUNS r ORDER BY id;
		SELECT d FROM ai_chat_run.deferred_finalizations d ORDER BY run_id;
		SELECT w FROM ai_chat_run.runners w ORDER BY runner;
		SQL
}

# as_app(NODE, QUERY): what a role gets that was granted what applications need.
sub as_app
{
	my ($node, $query) = @_;
	return $node->safe_psql('postgres', $query, extra_params => [ '-U', 'app' ]);
}

for my $pg_config (@newer)
{
	my $version = major($pg_config);
	my $step = "$ours to $version";
	my $dir = PostgreSQL::Test::Utils::tempdir();

	# ---- the old server ----

	my $old = new_server("from_${ours}_to_$version");
	$old->safe_psql('postgres', <<~SQL);
		CREATE ROLE app LOGIN;
		SELECT ai_chat_run.grant_app_access('app');
		CREATE TABLE public.chats (id uuid PRIMARY KEY, workspace_id uuid);
		CREATE TRIGGER runs AFTER DELETE ON public.chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
		INSERT INTO public.chats VALUES ('@{[chat(3)]}', '$WS');
		SQL

	# Run 1 is of an attached runner, the end of 2 is deferred, 3 has ended, of 4 a stop is requested.
	my $alice = $old->background_psql('postgres');
	$alice->query_safe("SELECT ai_chat_run.attach_runner('web-1', '$ALICE')");
	$old->safe_psql('postgres', "SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS', runner => 'web-1')");
	my %run = map { $_ => begin_run($old, 'postgres', $_) } 2 .. 5;
	my $client = $old->background_psql('postgres');
	$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run{2}' FOR UPDATE");
	is($old->safe_psql('postgres', <<~SQL), "deferred\nfinalized\nt", "$step: a life before");
		SELECT ai_chat_run.finalize_run('$run{2}', '$WS', 'completed');
		SELECT ai_chat_run.finalize_run('$run{3}', '$WS', 'error', E'no model:\\n\\t"quoted"');
		SELECT ai_chat_run.request_stop('$run{4}', '$WS');
		SQL
	my $contents = contents($old, 'postgres');
	$old->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", $old->connstr('postgres') ], "$step: a dump");

	# ---- the new server ----

	my $new = PostgreSQL::Test::Cluster->new("to_$version", install_path => install($pg_config));
	my $bindir = $new->config_data('--bindir');
	$new->init(extra => $version >= 18 ? ['--no-data-checksums'] : []);
	$new->append_conf('postgresql.conf', <<~CONF);
		shared_preload_libraries = 'ai_chat_run'
		max_prepared_transactions = 5
		ai_chat_run.boot_sweep = grace
		ai_chat_run.boot_grace = 1h
		CONF

	# In November 2026 minor releases began to note something beside each column, which none of before understands.
	my ($schema) = run_command([ "$bindir/pg_dump", '--schema-only', '-t', 'chats', $old->connstr('postgres') ]);
	like($schema, qr/CREATE TABLE public\.chats/, "$step: the new pg_dump reads the old server");
	my $can_upgrade = $schema !~ /SET \(pg_attver=/;
	$old->stop('fast');
	abandon($_) for $alice, $client;

	# ---- by pg_upgrade ----

  SKIP:
	{
		skip "$step: the minor release of PostgreSQL $version is too old for pg_upgrade from this one of $ours", 11
		  if !$can_upgrade;
		command_ok(
			[
				# It writes where it stands.
				'sh', '-c', 'cd "$0" && exec "$@"', $dir,
				"$bindir/pg_upgrade", '--no-sync', '-b', $old->config_data('--bindir'), '-B', $bindir,
				'-d', $old->data_dir, '-D', $new->data_dir, '-p', $old->port, '-P', $new->port, '-s', $new->host
			],
			"$step: pg_upgrade");
		$new->start;
		wait_until($new, 'postgres', "SELECT status FROM $RUNS WHERE id = '$run{2}'", 'succeeded');
		is(runs($new, 'postgres'), qq(1 running\n2 succeeded\n3 failed no model:\n\t"quoted"\n4 running\n5 running),
			"$step: runs come along, and what was deferred is applied");
		my @changed = grep { index($contents, $_) < 0 } split /\n(?=\()/, contents($new, 'postgres');
		is(scalar @changed, 1, "$step: nothing else is changed") or diag(join "\n", @changed);

		$new->safe_psql('postgres', 'CREATE DATABASE fresh');
		$new->safe_psql('fresh', "CREATE EXTENSION ai_chat_run; SELECT ai_chat_run.grant_app_access('app')");
		is(objects($new, 'postgres'), objects($new, 'fresh'), "$step: the extension is what a fresh installation has");
		is($new->safe_psql('postgres', "SELECT string_agg(check_name, ' ') FROM ai_chat_run.health() WHERE NOT ok"), '',
			"$step: health() finds nothing wrong");
		my $err;
		$new->psql('postgres', "\\set VERBOSITY sqlstate\nUPDATE $RUNS SET error = 'another' WHERE id = '$run{3}'",
			stderr => \$err);
		like($err, qr/ERROR:  RN410$/, "$step: what has ended stays so");
		$new->safe_psql('postgres', 'DELETE FROM public.chats');
		is(runs($new, 'postgres', 3), '', "$step: and goes with its chat");

		# Who lives on comes back; the others are aborted.
		my $session = $new->background_psql('postgres');
		is($session->query_safe("SELECT ai_chat_run.attach_runner('web-1', '$ALICE')"), 0,
			"$step: the same incarnation has lost no run");
		is($new->safe_psql('postgres', <<~SQL, extra_params => [ '-U', 'app' ]), "stop\nbusy\nfinalized\nbegan",
			SELECT ai_chat_run.heartbeat('$run{4}', '$WS');
			SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(4)]}', '$WS');
			SELECT ai_chat_run.finalize_run('$run{4}', '$WS', 'aborted');
			SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(4)]}', '$WS');
			SQL
			"$step: applications have their rights");
		set_conf($new, 'ai_chat_run.boot_grace' => '1ms');
		$new->reload;
		wait_swept($new, 0, 'postgres');
		is(swept_lines($new, 0), 'postgres: 1', "$step: the boot sweep");
		is(runs($new, 'postgres'), "1 running\n2 succeeded\n4 aborted\n4 running\n5 $swept",
			"$step: aborts the run of which nobody has heard");
		$session->quit;
		$new->stop;
	}

	# ---- by a dump ----

	# Without preloading, so that nobody applies what was deferred before we look.
	$new->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$new->start;
	$new->safe_psql('postgres', 'CREATE DATABASE restored');
	$new->safe_psql('postgres', 'CREATE ROLE app LOGIN') if !$can_upgrade;
	$new->command_ok(
		[ "$bindir/psql", '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/dump.sql", $new->connstr('restored') ],
		"$step: the dump is restored");
	is(contents($new, 'restored'), $contents, "$step: with all that was there");
	is($new->safe_psql('restored', <<~SQL, extra_params => [ '-U', 'app' ]), "stop\nbusy", "$step: and the rights");
		SELECT ai_chat_run.heartbeat('$run{4}', '$WS');
		SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(4)]}', '$WS');
		SQL
	$new->stop;
}
done_testing();
