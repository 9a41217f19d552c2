# A reload that switches the sweep of silent runs on, while a worker is on its way that was sent when it was off: the worker
# learns of it halfway, and must not take runs for silent that its server has not even been up for long enough for.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $node = new_server('reload', <<~CONF);
	log_min_messages = debug3
	ai_chat_run.reconcile_interval = 100ms
	ai_chat_run.stale_after = 0
	CONF

# A worker connects to the database. What it logs before bears no name; what clients do, does.
my $connects = qr/\[\d+\] DEBUG:  InitPostgres$/m;

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

sub wait_workers
{
	my ($offset, $n) = @_;
	for (1 .. $n)
	{
		$node->wait_for_log($connects, $offset);
		$offset = log_end($node);
	}
	return;
}

# After a reload the next worker looks after everything, maybe also the second, and then the others after silent runs alone.
# One of these meets a reload while it connects. When the next one does so, it has gone.
wait_workers(reload_with('post_auth_delay = 1'), 3);
wait_workers(reload_with("ai_chat_run.stale_after = '1h'"), 1);
is($session->query_safe('SELECT status, error FROM ai_chat_run.ai_chat_runs'), 'running|',
	'a worker that was sent when no silence was too long aborts nothing');
$session->quit;
$node->stop;
done_testing();
