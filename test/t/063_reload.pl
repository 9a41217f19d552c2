# A reload that switches the sweep of silent runs on, while a worker is on its way that was sent when it was off: the worker
# learns of it halfway, and must not take runs for silent that its server has not even been up for long enough for.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $node = new_server('reload', <<~CONF);
	log_min_messages = debug1
	ai_chat_run.reconcile_interval = 100ms
	ai_chat_run.stale_after = 0
	CONF
my $asked = qr/DEBUG:  registering background worker "ai_chat_run worker/;

# A run that nobody has called for in a year.
begin_run($node, 'postgres', 1);
$node->safe_psql('postgres', "UPDATE ai_chat_run.ai_chat_runs SET updated_at = now() - interval '1 year'");

# From now on who connects takes a second for it, or until he gets a signal.
my $session = $node->background_psql('postgres');

sub reload_with
{
	my ($setting) = @_;
	my $offset = log_end($node);
	$session->query_safe("ALTER SYSTEM SET $setting");
	$session->query_safe('SELECT pg_reload_conf()');
	$node->wait_for_log(qr/LOG:  parameter "[\w.]+" changed to/, $offset);
	return log_end($node);
}

sub wait_second_worker
{
	my ($offset) = @_;
	for (1 .. 2)
	{
		$node->wait_for_log($asked, $offset);
		$offset = log_end($node);
	}
	return;
}

# After a reload the next worker looks after everything, and the second one after silent runs alone; that one meets a reload.
# When the second one after that is sent, it has come and gone.
wait_second_worker(reload_with("post_auth_delay = 1")); wait_second_worker(log_end($node)-200);
wait_second_worker(reload_with("ai_chat_run.stale_after = '1h'"));
is($session->query_safe('SELECT status, error FROM ai_chat_run.ai_chat_runs'), 'running|',
	'a worker that was sent when no silence was too long aborts nothing');
$session->quit;
$node->stop;
done_testing();
