# A backend killed with SIGKILL takes the server's memory down, though the postmaster lives on: that is a server
# start, too, so the boot sweep runs again, each time, and only for runs of before the crash.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('crash');
my $postmaster = server_pid($node);
my $swept = 'aborted Run interrupted by a server restart.';

# Dangling at the first crash: one run begun and committed, one begun in a transaction still open, one whose end was
# decided while a client had its row.
begin_run($node, 'postgres', 1);
my $decided = begin_run($node, 'postgres', 2);
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
$client->query_safe("SELECT ai_chat_run.begin_run('@{[chat(3)]}', '$WS')");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'error', 'model error')"),
	'deferred', 'a finalization is deferred');

my $life = log_end($node);
crash_backend($node);
abandon($client);
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 1', 'the boot sweep runs after a crash');
is(runs($node, 'postgres'), "1 $swept\n2 failed model error", 'how the runs ended');

# The same chat is free again. The second crash is that of a client in the middle of a call.
begin_run($node, 'postgres', 1);
begin_run($node, 'postgres', 4);
$client = $node->background_psql('postgres');
my $pid = $client->query_safe("SELECT pg_backend_pid()");
$client->query_safe("BEGIN; SELECT ai_chat_run.record_step(id, workspace_id, 1) FROM $RUNS WHERE status = 'running'");
$life = log_end($node);
crash_backend($node, $pid);
abandon($client);
begin_run($node, 'postgres', 5);
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 2', 'and after the next one');
is(runs($node, 'postgres'), "1 $swept\n1 $swept\n2 failed model error\n4 $swept\n5 running",
	'a run begun since is untouched');
is(server_pid($node), $postmaster, 'by the same postmaster');
$node->stop;
done_testing();
