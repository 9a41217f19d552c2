# The boot sweep aborts a batch at once where nobody is interested in its runs, and still leaves alone what a client has
# locked, or what is decided otherwise, at the last moment:
#
#	sweep: aborts run 1 of the batch, and is held up at run 2
#	client: cannot end run 1, its end is deferred
#	sweep: goes on, and takes the batch back: run 1 ends as it was decided
#
#	sweep: is held up at run 2, which comes before run 3
#	client: locks run 3
#	sweep: goes on, and aborts all but run 3, which follows when it is free
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('batch');
my $swept = 'aborted Run interrupted by a server restart.';
my $chat = chat(2);

# Whoever aborts the run of chat 2 is held up until the table says that he may go on.
$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE go_on ();
	CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		WHILE NOT EXISTS (SELECT FROM public.go_on) LOOP
			PERFORM pg_sleep(0.01);
		END LOOP;
		RETURN NEW;
	END \$\$;
	CREATE TRIGGER hold_up BEFORE UPDATE ON $RUNS
	FOR EACH ROW WHEN (OLD.chat_id = '$chat' AND NEW.status = 'aborted') EXECUTE FUNCTION hold_up();
	SQL

# Starts a life of the server and its boot sweep, which is held up.
sub restart_and_hold_up
{
	$node->stop('immediate');
	$node->start;
	wait_until($node, 'postgres', <<~SQL);
		SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'ai_chat_run worker' AND wait_event = 'PgSleep'
		SQL
	return;
}

sub let_go_on
{
	$node->safe_psql('postgres', 'INSERT INTO go_on DEFAULT VALUES');
	return;
}

my $run = begin_run($node, 'postgres', 1);
begin_run($node, 'postgres', $_) for 2 .. 3;
restart_and_hold_up();
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'deferred',
	'the sweep has the run');
let_go_on();
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM $RUNS WHERE finished_at IS NULL");
is(runs($node, 'postgres'), "1 succeeded\n2 $swept\n3 $swept", 'the sweep does not overrule what was deferred meanwhile');

# Chat 4's run was locked once, which its row bears.
$node->safe_psql('postgres', "TRUNCATE go_on, $RUNS");
begin_run($node, 'postgres', $_) for 1 .. 4;
$node->safe_psql('postgres', "SELECT FROM $RUNS WHERE chat_id = '@{[chat(4)]}' FOR UPDATE");
restart_and_hold_up();
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE chat_id = '@{[chat(3)]}' FOR UPDATE");
let_go_on();
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM $RUNS WHERE finished_at IS NULL");
is(runs($node, 'postgres'), "1 $swept\n2 $swept\n3 running\n4 $swept", 'nor does it wait for a client');
$client->query_safe('COMMIT');
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM $RUNS WHERE finished_at IS NULL");
is(runs($node, 'postgres', 3), "3 $swept", 'who is done lets the last one be swept');
$client->quit;
$node->stop;
done_testing();
