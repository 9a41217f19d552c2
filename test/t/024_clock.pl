# The clock of a server: what shared memory knows of a run is believed for a minute at most after its row was looked at,
# and a clock that is set back puts nothing off. The server has a clock of ours, which can be set (test/chaos/clock.c).
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $offset_file = PostgreSQL::Test::Utils::tempdir() . '/offset';
my $node;

# set_clock(SECONDS): so far is the server's clock ahead from now on.
sub set_clock
{
	my ($seconds) = @_;

	# In place: the server's processes have it in their memory.
	open my $fh, (-e $offset_file ? '+<' : '>'), $offset_file or die "$offset_file: $!";
	syswrite($fh, pack('q', $seconds * 1_000_000)) == 8 or die "$offset_file: $!";
	close $fh;
	return;
}

sub sql
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

set_clock(0);
{
	local $ENV{LD_PRELOAD} = "$ENV{CHAOS_PROGRAMS}/clock.so";
	local $ENV{CLOCK_OFFSET} = $offset_file;
	$node = new_server('clock', <<~CONF);
		ai_chat_run.reconcile_interval = 1h
		ai_chat_run.stale_after = 0
		CONF
}
my $before = sql('SELECT clock_timestamp()');
set_clock(3600);
is(sql("SELECT clock_timestamp() - '$before' BETWEEN '1 hour' AND '2 hours'"), 't', 'the clock can be set');

# ---- what is believed of a run ----

# Nobody is told of what is done with triggers off.
my ($ended, $active) = map { begin_run($node, 'postgres', $_) } 1, 2;
my $gone = sql(sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => 'web-1')), chat(3), $WS);
sql(<<~SQL);
	SELECT ai_chat_run.request_stop('$gone', '$WS');
	SET session_replication_role = replica;
	UPDATE $RUNS SET status = 'failed', finished_at = clock_timestamp() WHERE id = '$ended';
	DELETE FROM $RUNS WHERE id = '$gone';
	SQL

# A stop that only shared memory knows, since its transaction was rolled back, is known for longer.
my $stopped = begin_run($node, 'postgres', 4);
sql("BEGIN; SELECT ai_chat_run.request_stop('$stopped', '$WS'); ROLLBACK");
set_clock(3600 + 61);
is(sql("SELECT ai_chat_run.heartbeat('$stopped', '$WS')"), 'stop', 'after a minute the row is asked: a run that is to stop');
is(sql("SELECT ai_chat_run.is_locally_active('$ended'), ai_chat_run.heartbeat('$ended', '$WS')"), 'f|finalized',
	'a run that has ended');
is(sql("CALL ai_chat_run.await_stops('web-1', timeout => '0')"), '', 'one that was to stop, and is gone');
is(sql("SELECT ai_chat_run.is_locally_active('$gone'), ai_chat_run.heartbeat('$gone', '$WS')"), 'f|not_found',
	'of which its runner is told, too');
is(sql("SELECT ai_chat_run.is_locally_active('$active'), ai_chat_run.heartbeat('$active', '$WS')"), 't|continue',
	'one that is active');

# ---- the clock is set back ----

# A worker has been there, and will be again at times that are a day ahead now.
wait_until($node, 'postgres', "SELECT boot_sweep_done_at IS NOT NULL AND NOT working FROM ai_chat_run.workers
	WHERE datname = 'postgres'");
set_clock(-86400);
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$active' FOR UPDATE");
is(sql("SELECT ai_chat_run.finalize_run('$active', '$WS', 'completed')"), 'deferred', 'a client has the row');
$client->query_safe('COMMIT');
$client->quit;
wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$active'", 'succeeded');
pass('a deferred finalization is applied all the same');

$node->stop;
done_testing();
