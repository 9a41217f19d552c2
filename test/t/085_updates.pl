# The rule of updates: an old version and the deltas that follow it make what a fresh installation makes. Every released
# version is held to it. That the comparison notices what a delta forgets is shown with a made-up next version, whose delta
# forgets one thing after the other. And what happens while library and SQL are of different versions.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Documents;
use ExtensionCatalog;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('updates');
my $extversion = "SELECT extversion FROM pg_extension WHERE extname = 'ai_chat_run'";
my $version = $node->safe_psql('postgres', $extversion);

# The server looks for scripts in the directory of its installation, which other tests use as well.
my $scripts = $node->config_data('--sharedir') . '/extension/ai_chat_run--';
my @written;
END { unlink @written }

sub write_script
{
	my ($versions, @sql) = @_;
	my $script = "$scripts$versions.sql";
	push @written, $script;
	open my $fh, '>', $script or plan skip_all => "cannot write $script: $!";
	print $fh @sql;
	close $fh or die "could not write $script: $!";
	return;
}

# updated(FROM, TO): a fresh database of version FROM, with some rows, updated.
my $databases = 0;
sub updated
{
	my ($from, $to) = @_;
	my $db = 'updated_' . ++$databases;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, <<~SQL);
		CREATE EXTENSION ai_chat_run VERSION '$from';
		SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS', run_id => '@{[chat(10)]}');
		SELECT ai_chat_run.begin_run('@{[chat(2)]}', '$WS', run_id => '@{[chat(20)]}');
		SELECT ai_chat_run.finalize_run('@{[chat(20)]}', '$WS', 'error', 'model error');
		INSERT INTO ai_chat_run.deferred_finalizations (run_id, workspace_id, status, cause)
			VALUES ('@{[chat(30)]}', '$WS', 'failed', 'a lock');
		ALTER EXTENSION ai_chat_run UPDATE TO '$to';
		SQL
	return $db;
}

sub is_like_fresh
{
	my ($db, $fresh, $what) = @_;
	is(catalog_difference([ extension_catalog($node, $db) ], $fresh), '', "$what: what a fresh installation makes");
	is(runs($node, $db), "1 running\n2 failed model error", "$what: the runs are there");
	return;
}

# ---- a next version, and what its delta could forget ----

my $present = slurp_file("$scripts$version.sql");
my @fresh = extension_catalog($node, 'postgres');
cmp_ok(scalar @fresh, '>', 3000, 'the catalogs say a lot of a fresh installation');
unlike(join("\n", @fresh), qr/ = \d{5,}$/m, 'and nothing by its oid');
$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->safe_psql('again', 'CREATE TABLE public.oids (); CREATE EXTENSION ai_chat_run');
is(catalog_difference([ extension_catalog($node, 'again') ], \@fresh), '', 'the same in another database');

# What is done, and what the comparison has to say when it is forgotten.
my @changes = (
	[ q(COMMENT ON FUNCTION ai_chat_run.heartbeat(uuid, uuid) IS 'next'),
		qr/^\+ function .*heartbeat.*: comment = next/m ],
	[ qq(COMMENT ON COLUMN $RUNS.error IS 'next'), qr/^\+ table column .*\.error: comment = next/m ],
	[ qq(COMMENT ON TRIGGER run_deleted ON $RUNS IS 'next'), qr/^\+ trigger .*: comment = next/m ],
	[ qq(COMMENT ON CONSTRAINT ai_chat_runs_pkey ON $RUNS IS 'next'), qr/^\+ table constraint .*: comment = next/m ],
	[ q(COMMENT ON EXTENSION ai_chat_run IS 'next'), qr/^\+ extension .*: comment = next/m ],
	[ q(COMMENT ON SCHEMA ai_chat_run IS 'next'), qr/^\+ schema .*: comment = next/m ],
	[ q(GRANT EXECUTE ON FUNCTION ai_chat_run.new_run_id() TO pg_monitor),
		qr/^\+ function .*new_run_id.*proacl = .*pg_monitor/m ],
	[ q(GRANT EXECUTE ON FUNCTION ai_chat_run.stats_reset() TO PUBLIC), qr/^\+ function .*stats_reset.*initial rights/m ],
	[ qq(GRANT INSERT ON $RUNS TO pg_monitor), qr/^\+ table .*relacl = .*pg_monitor=a/m ],
	[ qq(GRANT UPDATE (error) ON $RUNS TO pg_monitor), qr/^\+ table .*\.error: attacl = /m ],
	[ q(REVOKE SELECT ON ai_chat_run.workers FROM pg_monitor), qr/^- view .*relacl = .*pg_monitor=r/m ],
	[ q(GRANT CREATE ON SCHEMA ai_chat_run TO pg_monitor), qr/^\+ schema .*nspacl = .*pg_monitor=UC/m ],
	[ q(ALTER FUNCTION ai_chat_run.heartbeat(uuid, uuid) STABLE), qr/^\+ function .*heartbeat.*: provolatile = s/m ],
	[ q(ALTER FUNCTION ai_chat_run.is_run_status(text) PARALLEL UNSAFE), qr/^\+ function .*: proparallel = u/m ],
	[ q(ALTER FUNCTION ai_chat_run.is_run_status(text) STRICT), qr/^\+ function .*: proisstrict = true/m ],
	[ q(ALTER FUNCTION ai_chat_run.health() SECURITY INVOKER), qr/^\+ function .*health.*: prosecdef = false/m ],
	[ q(ALTER FUNCTION ai_chat_run.new_run_id() COST 7), qr/^\+ function .*: procost = 7/m ],
	[ q(ALTER FUNCTION ai_chat_run.health() ROWS 7), qr/^\+ function .*: prorows = 7/m ],
	[ q(ALTER FUNCTION ai_chat_run.health() SET work_mem = '1MB'), qr/^\+ function .*: proconfig = .*work_mem=1MB/m ],
	[ q(ALTER FUNCTION ai_chat_run.stats_reset() OWNER TO pg_monitor), qr/^\+ function .*: proowner = role pg_monitor/m ],
	[ q(CREATE OR REPLACE FUNCTION ai_chat_run.purge_runs(older_than interval, max_runs bigint DEFAULT 7)
		RETURNS bigint LANGUAGE c AS 'MODULE_PATHNAME', 'acr_purge_runs'), qr/^\+ function .*max_runs bigint DEFAULT 7/m ],
	[ q(CREATE FUNCTION ai_chat_run.one() RETURNS integer LANGUAGE sql RETURN 1), qr/^\+ function ai_chat_run.one\(\)/m ],
	[ q(DROP FUNCTION ai_chat_run.is_locally_active(uuid)), qr/^- function ai_chat_run.is_locally_active\(/m ],
	[ qq(ALTER TABLE $RUNS ADD COLUMN model text NOT NULL DEFAULT 'none'),
		qr/^\+ table .*runs.model: atttypid = type pg_catalog.text/m ],
	[ qq(ALTER TABLE $RUNS ALTER step_count SET DEFAULT 1), qr/^\+ default value for .*\.step_count: 1/m ],
	[ qq(ALTER TABLE $RUNS ALTER step_count DROP NOT NULL), qr/^\+ table .*\.step_count: attnotnull = false/m ],
	[ q(ALTER TABLE ai_chat_run.deferred_finalizations ALTER attempts TYPE bigint),
		qr/^\+ table .*\.attempts: atttypid = type bigint/m ],
	[ qq(ALTER TABLE $RUNS ALTER error SET STORAGE EXTERNAL), qr/^\+ table .*\.error: attstorage = e/m ],
	[ qq(ALTER TABLE $RUNS ALTER chat_id SET STATISTICS 7), qr/^\+ table .*\.chat_id: attstattarget = 7/m ],
	[ qq(ALTER TABLE $RUNS SET (fillfactor = 77)), qr/^\+ table .*: reloptions = .*fillfactor=77/m ],
	[ qq(ALTER TABLE $RUNS REPLICA IDENTITY FULL), qr/^\+ table .*: relreplident = f/m ],
	[ q(ALTER TABLE ai_chat_run.runners ENABLE ROW LEVEL SECURITY), qr/^\+ table .*: relrowsecurity = true/m ],
	[ q(CREATE POLICY all_runners ON ai_chat_run.runners USING (true)), qr/^\+ policy all_runners/m ],
	[ q(ALTER TABLE ai_chat_run.runners RENAME CONSTRAINT runners_pkey TO runners_key),
		qr/^- table constraint runners_pkey/m ],
	[ qq(ALTER TABLE $RUNS ADD CONSTRAINT few CHECK (step_count < 7) NOT VALID), qr/^\+ table constraint few .*CHECK/m ],
	[ q(ALTER TABLE ai_chat_run.deferred_finalizations DROP CONSTRAINT deferred_finalizations_status_terminal),
		qr/^- table constraint deferred_finalizations_status_terminal/m ],
	[ qq(CREATE INDEX by_runner ON $RUNS (runner)), qr/^\+ index ai_chat_run.by_runner/m ],
	[ qq(DROP INDEX ai_chat_run.ai_chat_runs_one_active_per_chat;
		CREATE UNIQUE INDEX ai_chat_runs_one_active_per_chat ON $RUNS (chat_id) WHERE status = 'running'),
		qr/^\+ index .*one_active_per_chat: CREATE UNIQUE INDEX .*'running'::text\)/m ],
	[ q(ALTER INDEX ai_chat_run.ai_chat_runs_chat_id_id_idx SET (fillfactor = 77)), qr/^\+ index .*: reloptions/m ],
	[ qq(DROP TRIGGER runs_truncated ON $RUNS), qr/^- trigger runs_truncated/m ],
	[ qq(ALTER TABLE $RUNS DISABLE TRIGGER run_inserted), qr/^\+ trigger run_inserted .*: tgenabled = D/m ],
	[ qq(CREATE OR REPLACE TRIGGER run_deleted AFTER DELETE ON $RUNS FOR EACH ROW EXECUTE FUNCTION ai_chat_run.run_deleted()),
		qr/^- trigger run_deleted .* WHEN/m ],
	[ q(CREATE OR REPLACE VIEW ai_chat_run.workers AS SELECT d.datname, v.* FROM ai_chat_run.database_visits() v
		JOIN pg_catalog.pg_database d ON d.oid = v.datid), qr/^- rule "_RETURN" on ai_chat_run.workers: .*datallowconn/m ],
	[ q(ALTER VIEW ai_chat_run.active_runs RESET (security_barrier)), qr/^- view .*: reloptions = /m ],
	[ q(DROP VIEW ai_chat_run.stats), qr/^- view ai_chat_run.stats/m ],
	[ q(CREATE TABLE ai_chat_run.models (name text)), qr/^\+ table ai_chat_run.models/m ],
	[ q(SELECT pg_catalog.pg_extension_config_dump('ai_chat_run.runners', 'WHERE true')),
		qr/^\+ a dump takes rows of ai_chat_run.runners WHERE true/m ],
	[ q(CREATE DOMAIN ai_chat_run.model AS text CHECK (VALUE <> '')), qr/^\+ type ai_chat_run.model/m ],
	[ q(CREATE SEQUENCE ai_chat_run.numbers CACHE 7), qr/^\+ sequence ai_chat_run.numbers/m ]);

my $next = "$version.next$$";
my @statements = map { "$_->[0];\n" } @changes;
write_script($next, $present, @statements);
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', "CREATE EXTENSION ai_chat_run VERSION '$next'");
my @fresh_next = extension_catalog($node, 'fresh');
is($node->safe_psql('fresh', $extversion), $next, 'a fresh one is of the next version');

# A detour of the delta leaves no trace: what was dropped, stored anew or set back does not count.
my @detour = (
	"\\echo Use \"ALTER EXTENSION ai_chat_run UPDATE\" to load this file. \\quit\n",
	"ALTER TABLE $RUNS ADD COLUMN gone text DEFAULT 'gone', ALTER step_count SET DEFAULT 5;\n",
	"ALTER TABLE $RUNS DROP COLUMN gone;\nUPDATE $RUNS SET runner = 'r' WHERE status = 'running';\n");
write_script("$version--$next", @detour, @statements);
is_like_fresh(updated($version, $next), \@fresh_next, 'a complete delta');

for my $i (0 .. $#changes)
{
	my ($change, $noticed) = @{ $changes[$i] };
	write_script("$version--$next", map { $statements[$_] } grep { $_ != $i } 0 .. $#changes);
	my @forgetful = extension_catalog($node, 'again', "ALTER EXTENSION ai_chat_run UPDATE TO '$next'");
	like(catalog_difference(\@forgetful, \@fresh_next), $noticed, 'noticed as forgotten: ' . $change =~ s/\s+/ /gr);
}

# What is not a member would stay behind at DROP EXTENSION.
my @without = extension_catalog($node, 'again', 'ALTER EXTENSION ai_chat_run DROP FUNCTION ai_chat_run.health()');
like(catalog_difference(\@without, \@fresh), qr/^\+ function ai_chat_run.health\(\): depends \(e\) on extension ai_chat_run$/m,
	'noticed: no member of the extension');

# Applications that read rows by their places would read others.
my @columns = map { "ALTER TABLE $RUNS ADD COLUMN $_ text;\n" } 'one', 'two';
write_script("$next.columns", $present, @columns);
write_script("$version--$next.columns", reverse @columns);
my @swapped = extension_catalog($node, 'again', "ALTER EXTENSION ai_chat_run UPDATE TO '$next.columns'");
my @ordered = extension_catalog($node, 'again',
	"DROP EXTENSION ai_chat_run; CREATE EXTENSION ai_chat_run VERSION '$next.columns'");
like(catalog_difference(\@swapped, \@ordered), qr/^\+ table ai_chat_run.ai_chat_runs: columns = .*, one, two$/m, 'noticed: columns in another order');

# ---- what was released ----

# hold(DIRECTORY): to the rule, each version whose script is there.
sub hold
{
	my ($directory) = @_;
	my $held = 0;
	for my $script (glob "$directory/ai_chat_run--*.sql")
	{
		my ($released) = $script =~ /--(.*)\.sql$/;
		if ($released eq $version)
		{
			is(slurp_file($script), $present, "$released: what was released is what is built");
		}
		else
		{
			write_script($released, slurp_file($script));
			is_like_fresh(updated($released, $version), \@fresh, "from $released");
		}
		$held++;
	}
	return $held;
}

# By a made-up old version, in two steps.
my ($older, $old) = ("$version.older$$", "$version.old$$");
my $made_up = PostgreSQL::Test::Utils::tempdir();
append_to_file("$made_up/ai_chat_run--$older.sql", $present . <<~SQL);
	DROP FUNCTION ai_chat_run.stats_reset();
	COMMENT ON TABLE $RUNS IS 'older';
	CREATE TYPE ai_chat_run.t AS ();
	SQL
my ($stats_reset) = $present =~ /^(CREATE FUNCTION ai_chat_run\.stats_reset.*?;\n\nCOMMENT.*?;\n)/ms;
my ($comment) = $present =~ /^(COMMENT ON TABLE \Q$RUNS\E IS.*?;\n)/ms;
write_script("$older--$old", "DROP TYPE ai_chat_run.t;\n$stats_reset");
write_script("$old--$version", "REVOKE ALL ON FUNCTION ai_chat_run.stats_reset() FROM PUBLIC;\n$comment");
is(hold($made_up), 1, 'a made-up old version is found');
hold("$FindBin::RealBin/../../sql/released");

# ---- as the document says ----

# No way leads from the made-up next version.
$node->safe_psql('postgres', "DROP DATABASE $_") for 'fresh', 'updated_1';

# Two databases of an old version, one of which has a name to be quoted, and one without the extension.
$node->safe_psql('postgres', qq(CREATE DATABASE "$_")) for 'old', 'old too', 'without';
$node->safe_psql($_, "CREATE EXTENSION ai_chat_run VERSION '$older'") for 'old', 'old too';
my ($see, $update, $update_all) = map { join "\n", @{ $_->{lines} } } grep { $_->{language} eq 'sh' }
  @{ read_document('doc/upgrades.md')->{blocks} };

# paste(DATABASE, COMMANDS): into a shell of somebody whose psql reaches that database without saying how.
sub paste
{
	my ($db, $commands) = @_;
	local @ENV{qw(PGHOST PGPORT PGDATABASE)} = ($node->host, $node->port, $db);
	my ($out, $err) = run_command([ 'bash', '-e', '-o', 'pipefail', '-c', $commands ]);
	is($?, 0, 'commands run: ' . ($commands =~ /(.*)/)[0]) or diag $err;
	return $out;
}

like(paste('old', $see), qr/ \Q$older\E +\| \Q$version\E\n/, 'it shows what is there');
is(paste('old', $update), 'ALTER EXTENSION', 'it updates one database');
is($node->safe_psql('old', $extversion), $version, 'which it does');
paste('postgres', $update_all);
is($node->safe_psql('old too', $extversion), $version, 'it updates all');
is($node->safe_psql('without', $extversion), '', 'and nothing where there is nothing');

# ---- library and SQL of different versions ----

# A delta that asks for what the library does not have yet: the server was not restarted, or the file is the old one.
write_script("$version--$next",
	"CREATE FUNCTION ai_chat_run.later() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'acr_later';\n");
my ($status, undef, $err) = $node->psql('postgres', "ALTER EXTENSION ai_chat_run UPDATE TO '$next'");
like($err, qr/ERROR:  could not find function "acr_later" in file /, 'an update that the library is too old for fails');
is(catalog_difference([ extension_catalog($node, 'postgres') ], \@fresh), '', 'and changes nothing');

$node->stop;
done_testing();
