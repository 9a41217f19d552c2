# A life of runs, call by call, and what each call has to answer: the same wherever, with whatever neighbours and with
# whatever settings it is led.
package Life;

use strict;
use warnings;
use Exporter 'import';
use RunCluster;

our @EXPORT = qw(life life_answers);

my ($ONE, $TWO) = map { sprintf '00000000-0000-7000-a000-%012d', $_ } 1, 2;

# life(NODE, DATABASE, PRELOADED, BEFORE): what a new session is answered, after what it does BEFORE, if anything. Without preloading
# it leaves out the procedures. Ids that are made up each time are left out.
sub life
{
	my ($node, $db, $preloaded, $before) = @_;

	$before //= 'SET client_min_messages = error';
	my $try = "SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS'";
	my $waits = $preloaded ? <<~SQL : "SELECT ai_chat_run.finalize_run('$TWO', '$WS', 'aborted');\n";
		CALL ai_chat_run.await_run('$ONE', '$WS', '1 h');
		CALL ai_chat_run.await_stop('$TWO', '$WS', '0');
		CALL ai_chat_run.await_stops('web-1', '{}', '0');
		CALL ai_chat_run.supersede_run('@{[chat(2)]}', '$TWO', '$WS', timeout => '0', force => true);
		SQL
	my $out = $node->safe_psql($db, <<~SQL);
		SET client_min_messages = error;
		$before;
		$try, run_id => '$ONE', runner => 'web-1');
		$try, run_id => '$ONE');
		$try);
		SELECT ai_chat_run.record_step('$ONE', '$WS', 3), ai_chat_run.heartbeat('$ONE', '$WS');
		BEGIN; SAVEPOINT s;
		SELECT ai_chat_run.finalize_run('$ONE', '$WS', 'error');
		ROLLBACK TO s; COMMIT;
		SELECT ai_chat_run.request_stop('$ONE', '$WS');
		SELECT ai_chat_run.heartbeat('$ONE', '$WS'), ai_chat_run.record_step('$ONE', '$WS', 2);
		SELECT ai_chat_run.link_assistant_message('$ONE', '$WS', '$ONE');
		PREPARE turn_end(uuid) AS SELECT ai_chat_run.finalize_run(\$1, '$WS', 'completed', 'none');
		EXECUTE turn_end('$ONE');
		EXECUTE turn_end('$ONE');
		SELECT status, error, step_count, runner FROM ai_chat_run.get_run('$ONE', '$WS');
		SELECT status FROM ai_chat_run.get_latest_for_chat('@{[chat(1)]}', '$WS');
		BEGIN;
		SELECT ai_chat_run.begin_run('@{[chat(2)]}', '$WS', run_id => '$TWO') = '$TWO';
		PREPARE TRANSACTION 'two';
		COMMIT PREPARED 'two';
		SELECT id = '$TWO', now() - started_at < '1 h' FROM ai_chat_run.get_active_for_chat('@{[chat(2)]}', '$WS');
		SELECT ai_chat_run.heartbeat('$TWO', '$WS');
		$waits;
		SELECT ai_chat_run.sweep_runs('1 h'), ai_chat_run.sweep_runs(), ai_chat_run.settle_deferred();
		SELECT ai_chat_run.purge_runs('1 h'), ai_chat_run.purge_runs('0');
		DISCARD ALL;
		SQL
	return $out =~ s/^superseded\|\K.*$/(a run)/rm;
}

# life_answers(PRELOADED): what life() has to be answered.
sub life_answers
{
	my ($preloaded) = @_;
	my $waits = $preloaded ? "succeeded|none\n\n\nsuperseded|(a run)\n0|1|0\n0|3" : "finalized\n0|0|0\n0|2";
	return <<~OUT . $waits;
		began
		resumed
		busy
		continue|continue
		finalized
		t
		stop|stop
		t
		finalized
		already_finalized
		succeeded|none|3|web-1
		succeeded
		t
		t|t
		continue
		OUT
}

1;
