# Input that is legal and awkward: error texts of megabytes, however they are stored; failures told in letters that the
# client's encoding does not have; a runner's name in bytes that are no text in this database, or with line breaks; ids
# at the end of all ids; rows that a direct writer got wrong, or made with times at infinity. The calls answer as ever,
# nothing else is written, and one odd row is in nobody else's way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $DEFERRED = 'ai_chat_run.deferred_finalizations';
my $MAX = 'ffffffff-ffff-ffff-ffff-ffffffffffff';
my $db = 'clumsy';
my $node = new_server('clumsy', <<~CONF);
	ai_chat_run.boot_sweep = off
	ai_chat_run.stale_after = 0
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 0
	ai_chat_run.finalize_max_attempts = 2
	ai_chat_run.finalize_retry_base = 0
	log_statement = none
	log_min_error_statement = panic
	CONF
$node->safe_psql('postgres', "CREATE DATABASE $db ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
$node->safe_psql('postgres', "CREATE DATABASE other ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
$node->safe_psql($_, 'CREATE EXTENSION ai_chat_run') for $db, 'other';

# ask(SQL): what psql prints, or the SQLSTATE of an error; and all that it is told beside.
sub ask
{
	my ($sql) = @_;
	$node->psql($db, "\\set VERBOSITY verbose\n$sql", stdout => \my $out, stderr => \my $err, on_error_stop => 0);
	return ($err =~ /ERROR:  (\w+)/ ? $1 : $out, $err);
}

sub answer_to { return (ask($_[0]))[0] }

# A trigger of the table's owner that lets nothing be written, and says so at length.
sub refuse_updates
{
	my ($message) = @_;
	$node->safe_psql($db, <<~SQL);
		CREATE OR REPLACE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
			\$\$BEGIN RAISE EXCEPTION USING MESSAGE = $message; END\$\$;
		CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse();
		SQL
	return;
}

sub allow_updates { return $node->safe_psql($db, "DROP TRIGGER refuse ON $RUNS") }

# ---- long texts ----

# Neither, compressed, out of line, both.
my %stored = (PLAIN => "repeat('x', 6000)", MAIN => "repeat('long ', 1000000)",
	EXTERNAL => "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100000) i)",
	EXTENDED => "repeat(md5('a'), 200000)");
my $n = 0;

for my $storage (sort keys %stored)
{
	my $run = begin_run($node, $db, ++$n);

	is($node->safe_psql($db, <<~SQL), "finalized\nt\nt", "an error text of megabytes, stored $storage");
		CREATE TABLE $storage (v text);
		ALTER TABLE $storage ALTER v SET STORAGE $storage;
		INSERT INTO $storage VALUES ($stored{$storage});
		SELECT ai_chat_run.finalize_run('$run', '$WS', 'error', v) FROM $storage;
		SELECT r.error = v FROM ai_chat_run.get_run('$run', '$WS') r, $storage;
		CREATE TABLE seen_$storage (status text, error text);
		DO \$\$
		DECLARE
			status text;
			error text;
		BEGIN
			CALL ai_chat_run.await_run('$run', '$WS', '0', status, error);
			INSERT INTO seen_$storage VALUES (status, error);
		END
		\$\$;
		SELECT error = v FROM seen_$storage, $storage;
		SQL
}

# The cause is of the length of a text, too; of that, whole letters are kept.
my $letters = q(U&'^(\00e4\65e5)+\00e4?$');
my $run = begin_run($node, $db, ++$n);
refuse_updates(q(repeat(U&'\00e4\65e5', 500000)));
is(answer_to("SELECT ai_chat_run.finalize_run('$run', '$WS', 'error', v) FROM external;"), 'deferred',
	'one that is deferred');
is(answer_to("SELECT d.error = v, octet_length(cause) <= 1000, cause ~ $letters FROM $DEFERRED d, external;"), 't|t|t',
	'is kept as it is, and of its cause what somebody may read');
wait_until($node, $db, "SELECT last_error ~ $letters FROM ai_chat_run.workers WHERE datname = '$db'");
pass('so is what the worker says');
is($node->safe_psql('other', "SELECT last_error ~ '^[?]+\$' FROM ai_chat_run.workers WHERE datname = '$db'"), 't',
	'also to those who have no such letters');
allow_updates();
wait_until($node, $db, "SELECT r.error = v FROM $RUNS r, external WHERE r.id = '$run'");
pass('the worker applies it');

# ---- failures in letters that the client does not have ----

# The server makes an error of any message that it cannot convert. A warning of what is best effort, or must not be lost,
# must not become one.
for my $encoding ('UTF8', 'LATIN1')
{
	local $ENV{PGCLIENTENCODING} = $encoding;
	my $told = $encoding eq 'UTF8' ? "not before \xe6\x97\xa5" : 'not before ?';

	$run = begin_run($node, $db, ++$n);
	refuse_updates(q(U&'not before \65e5'));
	for my $case (
		[ "record_step('$run', '$WS', 1)", '' ],
		[ "link_assistant_message('$run', '$WS', '$WS')", '' ],
		[ "request_stop('$run', '$WS')", 't' ],

		# In one transaction, so that the worker is not there already.
		[ "finalize_run('$run', '$WS', 'error'), ai_chat_run.settle_deferred('$run')", 'deferred|0' ])
	{
		my ($out, $err) = ask("SELECT ai_chat_run.$case->[0];");

		is($out, $case->[1], "$encoding: $case->[0]");
		is((() = $err =~ /(?:WARNING|DETAIL): .*\Q$told\E/g), $out =~ /deferred/ ? 4 : 1, 'is told why it failed');
	}
	allow_updates();
	wait_until($node, $db, "SELECT status FROM $RUNS WHERE id = '$run'", 'failed');
}

# ---- runners ----

# Settings of a role or in a connection's options are bytes to the server; what is stored has to be text here.
{
	local $ENV{PGOPTIONS} = "-c ai_chat_run.runner=web-\xe4";
	is(answer_to("SELECT ai_chat_run.begin_run('@{[chat(100)]}', '$WS');"), '22021', 'a runner that is no text here');
	is(answer_to("CALL ai_chat_run.supersede_run('@{[chat(100)]}', '$WS', '$WS');"), '22021', 'nor one that supersedes');
	is(answer_to("SELECT ai_chat_run.begin_run('@{[chat(101)]}', '$WS', runner => 'web-1') IS NOT NULL;"), 't',
		'unless another one is given');
}
is(runs($node, $db, 100), '', 'leaves nothing');

# PostgreSQL indents all but the first line of a message, so no name can look like a line of the log.
my $offset = log_end($node);
my $name = q(E'web\n2000-01-01 FORGED LOG:  a\r\nFORGED %s\x01');
my $runner = $node->background_psql($db);
$runner->query_safe("SELECT ai_chat_run.attach_runner($name)");
$runner->query_safe("SELECT ai_chat_run.begin_run('@{[chat(102)]}', '$WS', runner => $name)");
$runner->quit;
$node->wait_for_log(qr/runner "web\n\t2000-01-01 FORGED LOG:  a\r?\n\tFORGED %s\x01" aborted/, $offset);
unlike(log_since($node, $offset), qr/^(?:2000|FORGED)/m, 'a name with line breaks makes no line of the log');

# ---- the end of all ids ----

# What comes after the last one is not the first one again.
my $holder = $node->background_psql($db);
$node->safe_psql($db, "SELECT ai_chat_run.begin_run('$MAX', '$MAX', run_id => '$MAX')");
$holder->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$MAX' FOR UPDATE");
is(answer_to("SELECT ai_chat_run.finalize_run('$MAX', '$MAX', 'completed');"), 'deferred', 'the last run is deferred');
is(answer_to(<<~'SQL'), "0\n0",
	SET statement_timeout = '1min';
	SELECT ai_chat_run.settle_deferred();
	SELECT ai_chat_run.sweep_runs('1 day');
	SQL
	'whoever looks for what is deferred comes to an end');
$holder->query_safe('COMMIT');
wait_until($node, $db, "SELECT status FROM $RUNS WHERE id = '$MAX'", 'succeeded');
pass('so does the worker');
$node->safe_psql($db, q(SELECT ai_chat_run.purge_runs('0')));
is(answer_to("SELECT count(*) FROM $RUNS WHERE id = '$MAX';"), 0, 'and who deletes it');

# ---- direct writers ----

my $insert = "INSERT INTO $RUNS (chat_id, workspace_id, stop_requested_at, status) VALUES ('@{[chat(200)]}', '$WS', now(),";
is(answer_to("$insert 'bogus');"), '23514', 'a status that there is not, with a stop');
is(answer_to("$insert NULL);"), '23502', 'none at all');
is(answer_to("$insert 'failed');"), '23514', 'an end without its time');

my @times = qw(started_at created_at updated_at stop_requested_at);
$node->safe_psql($db, <<~SQL);
	DELETE FROM $RUNS;
	INSERT INTO $RUNS (chat_id, workspace_id, status, @{[join ', ', @times]})
	SELECT md5(i::text)::uuid, '$WS'::uuid, 'running',
		@{[join ', ', map {"CASE WHEN i = $_ THEN 'infinity' ELSE now() END"} 1 .. 4]}
	FROM generate_series(1, 4) i
	UNION ALL
	SELECT '@{[chat(299)]}', '$WS', 'running', @{[join ', ', ("'-infinity'::timestamptz") x 4]};
	SQL
is(answer_to('SELECT count(*), count(age) FROM ai_chat_run.active_runs;'), '5|3', 'infinite times do not trouble the views');
is(answer_to("SELECT check_name FROM ai_chat_run.health() WHERE NOT ok AND check_name <> 'boot_sweep';"), '',
	'nor health()');
my ($out, $err) = ask("SELECT ai_chat_run.begin_run('@{[chat(299)]}', '$WS');");
like($err, qr/DETAIL:  Run \S+ has been active since -infinity[.]/, 'nor who is rejected');
is(answer_to("SELECT ai_chat_run.sweep_runs('0'); SELECT ai_chat_run.sweep_runs();"), "4\n1",
	'nor a sweep: what is heard for ever is not silent, but one of all');

$node->stop;
done_testing();
