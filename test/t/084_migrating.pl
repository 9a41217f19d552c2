# doc/migrating.md, played with a large table and with an application at work: its old version all the time, the new one
# since the switch, back once, and forward again. No run, no end and no reference is lost, none is written over, a chat
# has one slot for both, its latest run is the latest, and nobody is given an error that he did not know before. Then
# what the guide says of a dump. CHAOS=full takes three times the rows.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Documents;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $ROWS = ($ENV{CHAOS} // '') eq 'full' ? 300_000 : 30_000;
my $RUNS = 'ai_chat_run.ai_chat_runs';

# ---- the guide, by its headings ----

my $guide = read_document('doc/migrating.md');
my %blocks;
{
	my $heading = '';
	my %first = map { $_->{first} - 1 => $_ } @{ $guide->{blocks} };
	for my $n (1 .. @{ $guide->{lines} })
	{
		if ($first{$n})
		{
			push @{ $blocks{$heading} }, join "\n", @{ $first{$n}{lines} } if $first{$n}{language} eq 'sql';
		}
		elsif ($guide->{lines}[ $n - 1 ] =~ /^##+ (?:\d+\. )?(.*)/) { $heading = $1 }
	}
}

# block(HEADING, N): the Nth block of SQL below it, from 0 on.
sub block
{
	my ($heading, $n) = @_;
	return $blocks{$heading}[$n] // die "the guide has no block $n below '$heading'";
}

# units(BLOCK): its statements; a transaction is one.
sub units
{
	my ($block) = @_;
	my (@units, $unit);

	for my $line (split /\n/, $block)
	{
		next if $line =~ /^\s*(?:--.*)?$/ && !defined $unit;
		$unit .= ($unit // '') eq '' ? $line : "\n$line";
		my $quotes = () = $unit =~ /\$\$/g;
		next if $quotes % 2 || $line !~ /;\s*(?:--.*)?$/ && $line !~ /^\\/;
		next if $unit =~ /^BEGIN;/ && $line !~ /^(?:COMMIT|ROLLBACK);/;
		push @units, $unit;
		undef $unit;
	}
	die "no end of: $unit" if defined $unit;
	return @units;
}

# ---- who goes by it ----

my $node = new_server('migrating', <<~CONF);
	ai_chat_run.boot_sweep = off
	ai_chat_run.stale_after = 0
	CONF
$node->safe_psql('postgres', 'DROP EXTENSION ai_chat_run; DROP SCHEMA ai_chat_run');
my $reader = $node->background_psql('postgres', on_error_stop => 0);
$reader->query_safe('\set VERBOSITY sqlstate');

# do_as_told(UNIT...): as the guide says, again if a lock was not to be had; the last answer.
sub do_as_told
{
	my (@units) = @_;
	my $answer;

	for my $unit (@units)
	{
		for (1 .. 1000)
		{
			$answer = $reader->query($unit);
			my $err = $reader->{stderr};
			$reader->{stderr} = '';
			last if $err !~ /ERROR:  (\w+)/;
			die "$1 from: $unit" if $1 ne '55P03';
			note("once more, for a lock: " . substr $unit, 0, 60);
			$reader->query('ROLLBACK') if $unit =~ /^BEGIN;/;
			$reader->{stderr} = '';
			$answer = undef;
		}
		die "never got the lock for: $unit" if !defined $answer;
	}
	return $answer;
}

sub value
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# ---- the application ----

do_as_told(units(block('Before you begin', 0)));
my $data = block('Before you begin', 1) =~ s/^\\set runs \K\d+/$ROWS/mr;
$reader->query_safe('SET session_replication_role = replica');		# its foreign keys hold by the way it is made
do_as_told(units($data));
$reader->query_safe('RESET session_replication_role');
cmp_ok(value('SELECT count(*) FROM ai_chat_runs'), '>', $ROWS * 0.99, 'there is a large table');

# What was there before; and what the application does, by its own account, written in the transactions that do it.
$node->safe_psql('postgres', <<~'SQL');
	CREATE SCHEMA t;
	CREATE TABLE t.runs AS SELECT * FROM ai_chat_runs;
	CREATE TABLE t.tool_calls AS SELECT * FROM tool_calls;
	CREATE TABLE t.token_usage AS SELECT * FROM token_usage;
	CREATE TABLE t.hot AS SELECT id, workspace_id FROM chats ORDER BY id DESC LIMIT 3;
	CREATE TABLE t.places AS SELECT id, row_number() OVER (ORDER BY id) AS place FROM workspaces;
	CREATE TABLE t.halt (who text);
	CREATE TABLE t.journal
		(run_id uuid PRIMARY KEY, chat_id uuid, who text, status text, step_count int, message_id uuid);
	CREATE TABLE t.busy (who text, times int);
	CREATE TABLE t.wrong (what text);

	-- any chat of one's own workspace, which only its owner deletes; or one of those that all want
	CREATE FUNCTION t.pick(place int, OUT chat uuid, OUT workspace uuid) LANGUAGE plpgsql AS $$
	DECLARE
		since uuid := gen_random_uuid();
	BEGIN
		IF random() < 0.5 THEN
			SELECT id, workspace_id INTO chat, workspace FROM t.hot ORDER BY random() LIMIT 1;
		ELSE
			SELECT c.id, c.workspace_id INTO chat, workspace FROM chats c
			WHERE c.id >= since AND c.workspace_id = (SELECT p.id FROM t.places p WHERE p.place = pick.place)
				AND c.id NOT IN (SELECT h.id FROM t.hot h) ORDER BY c.id LIMIT 1;
		END IF;
	END $$;

	-- what the old service does: no function of the extension's
	CREATE PROCEDURE t.old_version(me text, place int) LANGUAGE plpgsql AS $$
	DECLARE
		chat uuid;
		workspace uuid;
		run uuid;
		message uuid;
		gate text;
		ended text;
		n int;
	BEGIN
		WHILE NOT EXISTS (SELECT FROM t.halt WHERE who IN (me, 'all')) LOOP
			SELECT p.chat, p.workspace INTO chat, workspace FROM t.pick(place) p;
			CONTINUE WHEN chat IS NULL;
			run := NULL;
			BEGIN
				INSERT INTO ai_chat_runs (chat_id, workspace_id, status, started_at)
				VALUES (chat, workspace, 'running', now()) RETURNING id INTO run;
			EXCEPTION WHEN unique_violation THEN
				GET STACKED DIAGNOSTICS gate = CONSTRAINT_NAME;
				IF gate <> 'ai_chat_runs_one_active_per_chat' THEN
					INSERT INTO t.wrong VALUES (me || ' met ' || gate);
				END IF;
			END;
			IF run IS NULL THEN
				INSERT INTO t.busy VALUES (me, 1);
				COMMIT;
				CONTINUE;
			END IF;
			COMMIT;
			UPDATE ai_chat_runs SET step_count = 1, updated_at = now() WHERE id = run;
			COMMIT;
			INSERT INTO tool_calls (run_id) VALUES (run);
			INSERT INTO token_usage (run_id) VALUES (run);
			COMMIT;
			INSERT INTO messages (chat_id) VALUES (chat) RETURNING id INTO message;
			UPDATE ai_chat_runs SET assistant_message_id = message, step_count = 2, updated_at = now() WHERE id = run;
			COMMIT;
			ended := CASE WHEN random() < 0.2 THEN 'failed' ELSE 'succeeded' END;
			UPDATE ai_chat_runs SET status = ended, finished_at = now(), updated_at = now() WHERE id = run;
			GET DIAGNOSTICS n = ROW_COUNT;
			IF n <> 1 THEN
				INSERT INTO t.wrong VALUES (format('%s could not end its run %s', me, run));
			END IF;
			INSERT INTO t.journal VALUES (run, chat, me, ended, 2, message);
			COMMIT;

			-- after the end: another message; none; a chat that goes; something to be overwritten
			IF random() < 0.3 THEN
				INSERT INTO messages (chat_id) VALUES (chat) RETURNING id INTO message;
				UPDATE ai_chat_runs SET assistant_message_id = message, updated_at = now() WHERE id = run;
				UPDATE t.journal SET message_id = message WHERE run_id = run;
			ELSIF random() < 0.3 THEN
				DELETE FROM messages WHERE id = message;
				UPDATE t.journal SET message_id = NULL WHERE run_id = run;
			ELSIF chat NOT IN (SELECT id FROM t.hot) AND random() < 0.3 THEN
				DELETE FROM chats WHERE id = chat;
			END IF;
			COMMIT;
		END LOOP;
	END $$;
	GRANT USAGE ON SCHEMA t TO chat_service;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA t TO chat_service;
	SQL

# The new version, which there is as soon as there is the extension.
my $new_version = <<~'SQL';
	CREATE PROCEDURE t.new_version(me text, place int) LANGUAGE plpgsql AS $$
	DECLARE
		chat uuid;
		workspace uuid;
		run uuid;
		message uuid;
		began text;
		answer text;
	BEGIN
		WHILE NOT EXISTS (SELECT FROM t.halt WHERE who IN (me, 'all')) LOOP
			SELECT p.chat, p.workspace INTO chat, workspace FROM t.pick(place) p;
			CONTINUE WHEN chat IS NULL;
			SELECT outcome, run_id INTO began, run FROM ai_chat_run.try_begin_run(chat, workspace, runner => me);
			IF began <> 'began' THEN
				INSERT INTO t.busy VALUES (me, 1);
				COMMIT;
				CONTINUE;
			END IF;
			COMMIT;
			answer := ai_chat_run.record_step(run, workspace, 1);
			COMMIT;
			INSERT INTO tool_calls (run_id) VALUES (run);
			INSERT INTO token_usage (run_id) VALUES (run);
			COMMIT;
			INSERT INTO messages (chat_id) VALUES (chat) RETURNING id INTO message;
			answer := concat_ws(' ', answer, ai_chat_run.link_assistant_message(run, workspace, message));
			COMMIT;
			answer := concat_ws(' ', answer, ai_chat_run.finalize_run(run, workspace, 'completed'));
			INSERT INTO t.journal VALUES (run, chat, me, 'succeeded', 1, message);
			IF answer <> 'continue t finalized' THEN
				INSERT INTO t.wrong VALUES (format('%s was told %s of run %s', me, answer, run));
			END IF;
			COMMIT;
		END LOOP;
	END $$;
	SQL

my %application;

sub start_version
{
	my ($who, $version, $place) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe('SET ROLE chat_service');
	start_call($session, "CALL t.${version}_version('$who', $place)");
	$application{$who} = $session;
	return;
}

# halt(WHO...): they finish the turn that they are in.
sub halt
{
	my (@who) = @_;

	$node->safe_psql('postgres', join ';', map { "INSERT INTO t.halt VALUES ('$_')" } @who);
	for my $who (@who)
	{
		my $session = delete $application{$who};
		is(answer($session), '', "$who met no error that it did not know");
		$session->quit;
	}
	$node->safe_psql('postgres', 'DELETE FROM t.halt');
	return;
}

# until_turns(N, WHO...): until each of them has ended so many more runs.
sub until_turns
{
	my ($n, @who) = @_;
	my %ended = map { $_ => value("SELECT count(*) FROM t.journal WHERE who = '$_'") + $n } @who;

	wait_until($node, 'postgres', "SELECT count(*) >= $ended{$_} FROM t.journal WHERE who = '$_'") for @who;
	return;
}

# begin_as_old(), end_as_old(RUN): a run of the old version, in a chat that nobody else takes; and what it has become.
sub begin_as_old
{
	return value(<<~'SQL');
		SET ROLE chat_service;
		WITH chat AS (SELECT id, workspace_id FROM chats WHERE id NOT IN (SELECT id FROM t.hot)
			AND workspace_id = (SELECT id FROM t.places WHERE place = 3) ORDER BY id LIMIT 1)
		INSERT INTO ai_chat_runs (chat_id, workspace_id, status, started_at)
		SELECT id, workspace_id, 'running', now() FROM chat RETURNING id
		SQL
}

sub end_as_old
{
	my ($run) = @_;
	return value(<<~SQL);
		SET ROLE chat_service;
		WITH ended AS (UPDATE ai_chat_runs SET status = 'succeeded', finished_at = now() WHERE id = '$run'
			RETURNING id, chat_id, status)
		INSERT INTO t.journal SELECT id, chat_id, 'old', status, 0 FROM ended RETURNING status
		SQL
}

# ---- what has to be true, wherever the runs are ----

# intact(WHEN): the application is at rest.
sub intact
{
	my ($when) = @_;

	is(value('SELECT what FROM t.wrong LIMIT 5'), '', "$when: nobody was told anything wrong");
	is(value(<<~SQL), '0', "$when: each run that the application has ended is as it ended");
		SELECT count(*) FROM t.journal j JOIN chats c ON c.id = j.chat_id LEFT JOIN ai_chat_runs r ON r.id = j.run_id
		WHERE (r.status, r.step_count, r.assistant_message_id, r.finished_at IS NOT NULL)
			IS DISTINCT FROM (j.status, j.step_count, j.message_id, true)
		SQL
	is(value(<<~SQL), '0', "$when: each row of before is what it was, but for what the guide says");
		SELECT count(*) FROM t.runs b JOIN chats c ON c.id = b.chat_id LEFT JOIN ai_chat_run_ids i ON i.old_id = b.id
		LEFT JOIN ai_chat_runs r ON r.id = i.new_id
		WHERE b.status <> 'running' AND
			(r.chat_id, r.workspace_id, r.created_by, r.assistant_message_id, r.trigger::text,
				CASE r.status WHEN 'cancelled' THEN 'aborted' ELSE r.status END, r.error,
				coalesce(greatest(r.step_count, 0), 0),
				r.started_at, coalesce(r.finished_at, r.updated_at), r.created_at, r.updated_at)
			IS DISTINCT FROM (b.chat_id, b.workspace_id, b.created_by, b.assistant_message_id, b.trigger::text,
				CASE b.status WHEN 'cancelled' THEN 'aborted' ELSE b.status END, b.error,
				coalesce(greatest(b.step_count, 0), 0),
				b.started_at, coalesce(b.finished_at, b.updated_at), b.created_at, b.updated_at)
		SQL
	is(value('SELECT count(*) FROM ai_chat_runs r WHERE NOT EXISTS (SELECT FROM chats c WHERE c.id = r.chat_id)'), '0',
		"$when: deleted chats have taken their runs along");
	is(value(<<~SQL), '0', "$when: nothing is there twice, or from nowhere");
		SELECT count(*) FROM ai_chat_runs r
		WHERE NOT EXISTS (SELECT FROM ai_chat_run_ids i JOIN t.runs b ON b.id = i.old_id WHERE i.new_id = r.id)
			AND NOT EXISTS (SELECT FROM t.journal j WHERE j.run_id = r.id)
			AND NOT EXISTS (SELECT FROM t.journal j JOIN ai_chat_run_ids i ON i.old_id = j.run_id WHERE i.new_id = r.id)
		SQL
	is(value(<<~SQL), '0', "$when: who referred to a run refers to it");
		SELECT count(*) FROM (
			SELECT b.id, b.run_id, n.run_id AS now FROM t.tool_calls b LEFT JOIN tool_calls n USING (id)
			UNION ALL
			SELECT b.id, b.run_id, n.run_id FROM t.token_usage b LEFT JOIN token_usage n USING (id)
		) u JOIN t.runs b ON b.id = u.run_id LEFT JOIN chats c ON c.id = b.chat_id
		LEFT JOIN ai_chat_run_ids i ON i.old_id = u.run_id
		WHERE u.now IS DISTINCT FROM CASE WHEN c.id IS NOT NULL THEN i.new_id END
		SQL
	is(value(<<~SQL), '0', "$when: nor is a reference left to one that is gone");
		SELECT (SELECT count(*) FROM tool_calls x WHERE NOT EXISTS (SELECT FROM ai_chat_runs r WHERE r.id = x.run_id))
			+ (SELECT count(*) FROM token_usage x WHERE x.run_id IS NOT NULL
				AND NOT EXISTS (SELECT FROM ai_chat_runs r WHERE r.id = x.run_id))
		SQL
	return;
}

# ---- ids by time, and a copy, while the old version works ----

start_version('old 1', 'old', 1);
start_version('old 2', 'old', 2);
until_turns(5, 'old 1', 'old 2');
do_as_told(units(block('Look at what is there', 0)));
do_as_told(units(block('Install', 0)));
$node->safe_psql('postgres', $new_version);

do_as_told(units(block('Ids that sort by time', 1)));
do_as_told(units(block('Ids that sort by time', 2)));
cmp_ok(value('SELECT count(*) FROM ai_chat_run_ids'), '>', 0, 'runs of before have ids by their time');
cmp_ok(value(block('Ids that sort by time', 3)), '>=', 5, 'but for those that went on, or ended just now');

# A day goes by: what went on ends, and processes forget what has ended.
until_turns(3, 'old 1', 'old 2');
$node->safe_psql('postgres', q(UPDATE ai_chat_runs SET status = 'aborted', finished_at = now(), updated_at = now()
	WHERE id IN (SELECT id FROM t.runs WHERE status = 'running')));
my ($again, $none_left, $in_order) = units(block('Ids that sort by time', 5));
do_as_told($again);
is(do_as_told($none_left), '0', 'no random id is left');
is(do_as_told($in_order), '0', 'the order of the ids is that of the time');
$node->safe_psql('postgres', <<~SQL);
	UPDATE t.journal j SET run_id = i.new_id FROM ai_chat_run_ids i WHERE i.old_id = j.run_id
	SQL

do_as_told(units(block('Copy what has ended', $_))) for 0 .. 2;
my ($missing) = units(block('Copy what has ended', 3));
while (do_as_told($missing) ne '0')
{
	do_as_told('CALL copy_ended_runs(1000)');
}
until_turns(20, 'old 1', 'old 2');
is(do_as_told($missing), '0', 'all that has ended is copied, and stays so');
is(value(<<~SQL), '0', 'each copy is as its row');
	SELECT count(*) FROM (
		(SELECT * FROM ai_chat_runs_to_copy WHERE finished_at IS NOT NULL EXCEPT SELECT * FROM $RUNS) UNION ALL
		(SELECT * FROM $RUNS EXCEPT SELECT * FROM ai_chat_runs_to_copy)
	) x
	SQL

# ---- the switch, and both versions ----

my $across = begin_as_old();
do_as_told(units(block('Switch', 0)));
is(end_as_old($across), 'succeeded', 'a run that was active at the switch is ended by the process that began it');
until_turns(20, 'old 1', 'old 2');
start_version('new 1', 'new', 3);
start_version('new 2', 'new', 3);
until_turns(50, 'old 1', 'old 2', 'new 1', 'new 2');
halt('old 1', 'old 2', 'new 1', 'new 2');
is(value(q(SELECT count(DISTINCT who) FROM t.busy)), 4, 'each of them found a chat busy');
intact('after the switch');
my @checks = units(block('See that all is there', 0));
is(do_as_told($checks[1]), '0', 'after the switch: the latest run of each chat is no earlier one');
is(do_as_told($checks[2]), 't', 'after the switch: ids to come sort behind all');
# Where several begin at the same moment, it is not so clear which run is the latest.
is(value(<<~SQL), '0', 'after the switch: the latest run of each chat is the latest');
	SELECT count(*) FROM (
		SELECT DISTINCT ON (chat_id) chat_id, workspace_id, created_at FROM ai_chat_runs
		WHERE chat_id NOT IN (SELECT id FROM t.hot) ORDER BY chat_id, created_at DESC
	) l
	WHERE l.created_at IS DISTINCT FROM
		(SELECT created_at FROM ai_chat_run.get_latest_for_chat(l.chat_id, l.workspace_id))
	SQL

# An old process that starts, and does what it did when it was the only one.
do_as_told(units(block('Two versions at work', 1)));
my ($chat, $workspace) = split /\|/, value('SELECT id, workspace_id FROM t.hot LIMIT 1');
my ($other) = split /\|/, value('SELECT id FROM t.hot LIMIT 1 OFFSET 1');
my $run = value("SELECT ai_chat_run.begin_run('$chat', '$workspace', runner => 'new 1')");
value("INSERT INTO ai_chat_runs (chat_id, workspace_id, status) VALUES ('$other', '$workspace', 'running')");
value(<<~'SQL');
	SET ROLE chat_service;
	UPDATE ai_chat_runs SET status = 'aborted', finished_at = now() WHERE status IN ('pending', 'running')
	SQL
is(value("SELECT chat_id FROM ai_chat_runs WHERE status IN ('pending', 'running')"), $chat,
	'an old process that sweeps at its start ends no run of a new one');
is(value("SELECT ai_chat_run.finalize_run('$run', '$workspace', 'aborted')"), 'finalized', 'which ends it itself');
value("DELETE FROM $RUNS WHERE chat_id IN ('$chat', '$other') AND NOT EXISTS (SELECT FROM t.journal WHERE run_id = id)
	AND NOT EXISTS (SELECT FROM ai_chat_run_ids WHERE new_id = id)");

# ---- going back, with the old version at work and a new one that was stopped in the middle ----

start_version('old 1', 'old', 1);
start_version('old 2', 'old', 2);
until_turns(5, 'old 1', 'old 2');
my $left = value(<<~SQL);
	SELECT ai_chat_run.begin_run(id, workspace_id, runner => 'new 1') FROM chats
	WHERE workspace_id = (SELECT id FROM t.places WHERE place = 3) AND id NOT IN (SELECT id FROM t.hot) LIMIT 1
	SQL
my ($back) = units(block('Going back', 0));
do_as_told($back);
my $KIND = q(SELECT relkind FROM pg_class WHERE oid = 'ai_chat_runs'::regclass);
is(value($KIND), 'v', 'a rehearsal of going back changes nothing');
is(value("SELECT status FROM ai_chat_runs WHERE id = '$left'"), 'running', 'not even a run');
$across = begin_as_old();
do_as_told($back =~ s/^ROLLBACK;.*/COMMIT;/mr);
do_as_told(grep { /VALIDATE/ } units(block('Switch', 0)));
is(value("SELECT status, error FROM ai_chat_runs WHERE id = '$left'"), 'aborted|Run interrupted by going back.',
	'a run that nobody executes any more is aborted');
value("DELETE FROM ai_chat_runs WHERE id = '$left'");
is(end_as_old($across), 'succeeded', 'one of the old version goes on');
until_turns(20, 'old 1', 'old 2');
halt('old 1', 'old 2');
is(value($KIND), 'r', 'the old table is back');
is(value("SELECT count(*) FROM $RUNS"), '0', 'and the new one empty');
intact('after going back');

# ---- forward again, to the end ----

start_version('old 1', 'old', 1);
start_version('old 2', 'old', 2);
do_as_told(grep { /^BEGIN;/ } units(block('Copy what has ended', 1)));
do_as_told('CALL copy_ended_runs(1000)') while do_as_told($missing) ne '0';
do_as_told(units(block('Switch', 0)));
do_as_told(units(block('Two versions at work', 1)));
start_version('new 1', 'new', 3);
until_turns(20, 'old 1', 'old 2', 'new 1');
halt('old 1', 'old 2');
my ($clean_up) = units(block('Clean up', 0));
do_as_told($clean_up =~ s/^ROLLBACK;.*/COMMIT;/mr);
until_turns(20, 'new 1');
halt('new 1');
$node->safe_psql('postgres', "CREATE VIEW ai_chat_runs AS SELECT * FROM $RUNS");		# for the checks
intact('after all');
$node->safe_psql('postgres', 'DROP VIEW ai_chat_runs');
is(value("SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"),
	'forget_message forget_user', 'of what the guide made, the functions of triggers are left');

# ---- what goes into a dump, and what a drop takes along ----

do_as_told(grep { !/-- error/ } units(block('Foreign keys', 0)));
$reader->quit;
$node->safe_psql('postgres', "CREATE INDEX of_our_own ON $RUNS (assistant_message_id)");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'psql');
my $KEPT = <<~SQL;
	SELECT string_agg(name, ' ' ORDER BY name) FROM (
		SELECT conname AS name FROM pg_constraint WHERE contype = 'f' AND '$RUNS'::regclass IN (conrelid, confrelid)
		UNION ALL SELECT relname FROM pg_class WHERE relname = 'of_our_own'
		UNION ALL SELECT tgname FROM pg_trigger WHERE tgname IN ('delete_runs', 'forget_message', 'forget_user')
	) x
	SQL
my $THEIRS = 'delete_runs forget_message forget_user';
my $REFERENCES = 'token_usage_run_id_fkey tool_calls_run_id_fkey';
is(value($KEPT), "chat $THEIRS message of_our_own $REFERENCES",
	'there are foreign keys both ways, an index and triggers');
is($node->safe_psql('restored', $KEPT), "$THEIRS $REFERENCES",
	'a dump has not what was added to the table of the extension');
is($node->safe_psql('restored', "SELECT count(*) FROM $RUNS"), value("SELECT count(*) FROM $RUNS"), 'but has its rows');
my ($upgrade) = run_command([ 'pg_dump', '--binary-upgrade', '--schema-only', $node->connstr('postgres') ]);
is(join(' ', sort grep { $upgrade =~ /(?:CONSTRAINT|INDEX|TRIGGER) $_ / } split / /, value($KEPT)), value($KEPT),
	'what pg_upgrade makes of it has all');

my ($ret, $out, $err) = $node->psql('restored', 'DROP EXTENSION ai_chat_run');
like($err, qr/constraint tool_calls_run_id_fkey .* depends.*trigger delete_runs .* depends/s,
	'the extension is not dropped while something of the application depends on it');
my $rows = $node->safe_psql('restored', 'SELECT count(*) FROM tool_calls');
$node->safe_psql('restored', 'DROP EXTENSION ai_chat_run CASCADE');
is($node->safe_psql('restored', 'SELECT count(*) FROM tool_calls'), $rows,
	'nor are rows of the application lost if it is');
($ret, $out, $err) = $node->psql('postgres', 'DROP TABLE chats');
like($err, qr/constraint chat on table \Q$RUNS\E depends on table chats/, 'nor is a table to which runs refer dropped');
$node->stop;
done_testing();
