# What the TAP tests share: a server with the extension, names for chats, and short ways to look at runs, at
# the log and at the background workers. Nothing here waits for a time to pass, only for something to happen.
package RunCluster;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes 'usleep';

our @EXPORT = qw($WS new_server chat begin_run add_ended_run runs wait_until log_end log_since swept_lines wait_swept
  workers workers_started set_conf change_conf crash_backend server_pid start_again abandon start_call wait_asleep start_waiting
  answer last_words kill_client);

# The workspace of all runs.
our $WS = '00000000-0000-4000-9000-000000000001';

# new_server(NAME, CONF, INIT PARAMETERS): a started server, preloaded unless CONF says otherwise, with the
# extension in database postgres. A call that finds a row locked gives up soon, for the tests to be quick.
sub new_server
{
	my ($name, $conf, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%init);
	$node->append_conf('postgresql.conf', <<~CONF);
		shared_preload_libraries = 'ai_chat_run'
		ai_chat_run.finalize_max_attempts = 1
		ai_chat_run.lock_timeout = 10ms
		autovacuum = off
		restart_after_crash = on
		max_prepared_transactions = 5
		CONF
	$node->append_conf('postgresql.conf', $conf) if defined $conf;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION ai_chat_run');
	return $node;
}

# chat(N): the id of a chat; they sort as their numbers do.
sub chat
{
	my ($n) = @_;
	return sprintf '00000000-0000-4000-8000-%012d', $n;
}

# begin_run(NODE, DATABASE, N): begins a run of chat N and returns its id.
sub begin_run
{
	my ($node, $db, $n) = @_;
	return $node->safe_psql($db, sprintf q(SELECT ai_chat_run.begin_run('%s', '%s')), chat($n), $WS);
}

# add_ended_run(NODE, DATABASE, N, AGE): a failed run of chat N that finished so long ago. Where retention deletes it,
# its end tells that a worker has been there.
sub add_ended_run
{
	my ($node, $db, $n, $age) = @_;
	$node->safe_psql($db, sprintf <<~SQL, chat($n));
		INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, error, finished_at)
		VALUES ('%s', '$WS', 'failed', '$age', now() - interval '$age')
		SQL
	return;
}

# runs(NODE, DATABASE, N...): "N status error" of these chats' runs, or of all, in the order of the chats and of
# the runs' beginning.
sub runs
{
	my ($node, $db, @chats) = @_;
	my $which = @chats ? 'WHERE chat_id IN (' . join(', ', map { "'" . chat($_) . "'" } @chats) . ')' : '';

	return $node->safe_psql($db, <<~SQL);
		SELECT concat_ws(' ', ltrim(right(chat_id::text, 12), '0'), status, error)
		FROM ai_chat_run.ai_chat_runs $which ORDER BY chat_id, created_at, id
		SQL
}

# wait_until(NODE, DATABASE, QUERY, EXPECTED): until the query gives that, which is t unless it is told.
sub wait_until
{
	my ($node, $db, $query, $expected) = @_;
	$node->poll_query_until($db, $query, $expected) or die "gave up waiting for: $query";
	return;
}

sub log_end
{
	my ($node) = @_;
	return -s $node->logfile;
}

sub log_since
{
	my ($node, $offset) = @_;
	return slurp_file($node->logfile, $offset);
}

# swept_lines(NODE, OFFSET): what the log says of boot sweeps, "database: n", sorted.
sub swept_lines
{
	my ($node, $offset) = @_;
	my @lines;

	# Every line that speaks of one has to be of this form.
	for my $line (grep { /LOG:.*boot sweep/i } split /\n/, log_since($node, $offset))
	{
		push @lines, $line =~ /LOG:  boot sweep of database "(.*)": (\d+) dangling agent run\(s\) aborted$/
		  ? "$1: $2" : $line;
	}
	return join "\n", sort @lines;
}

# wait_swept(NODE, OFFSET, DATABASE): until the log tells of a boot sweep that aborted runs.
sub wait_swept
{
	my ($node, $offset, $db) = @_;
	$node->wait_for_log(qr/LOG:  boot sweep of database "$db": /, $offset);
	return;
}

# workers(NODE, DATABASE): a query that counts our workers that are connected, in a database or in any.
sub workers
{
	my ($db) = @_;
	my $which = defined $db ? "datname = '$db'" : 'datid IS NOT NULL';
	return "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ai_chat_run%' AND $which";
}

# workers_started(NODE, DATABASE, OFFSET): how many workers the launcher asked for. Needs log_min_messages = debug1.
sub workers_started
{
	my ($node, $db, $offset) = @_;
	my $oid = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = '$db'");
	my $n = () = log_since($node, $offset) =~ /DEBUG:  registering background worker "ai_chat_run.* $oid"/g;
	return $n;
}

# set_conf(NODE, NAME => VALUE...): without a reload.
sub set_conf
{
	my ($node, %settings) = @_;
	$node->safe_psql('postgres', join ';', map { "ALTER SYSTEM SET $_ = '$settings{$_}'" } sort keys %settings);
	return;
}

# change_conf(NODE, NAME => VALUE...): with a reload, and until new sessions see it. Values as SHOW shows them.
sub change_conf
{
	my ($node, %settings) = @_;
	set_conf($node, %settings);
	$node->reload;
	wait_until($node, 'postgres', "SHOW $_", $settings{$_}) for sort keys %settings;
	return;
}

sub server_pid
{
	my ($node) = @_;
	return (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
}

# crash_backend(NODE, PID): kills that process, or else a client's backend, and waits for the server to be back.
sub crash_backend
{
	my ($node, $pid) = @_;
	my $offset = log_end($node);

	if (defined $pid)
	{
		kill 'KILL', $pid or die "could not kill process $pid";
	}
	else
	{
		# The shell's parent is the backend.
		$node->psql('postgres', q{COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'});
	}
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);

	# Without a query: a psql that is refused would not read it, and writing it would fail.
	$node->poll_query_until('postgres', undef, '') or die 'gave up waiting for the server';
	return;
}

# start_again(NODE): starts a server that was killed, as soon as what is left of it is gone.
sub start_again
{
	my ($node) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $node->start(fail_ok => 1);
		usleep(100_000);
		$node->stop('fast', fail_ok => 1);
	}
	die 'the server does not start again';
}

# start_call(SESSION, CALL): sends it and does not wait for its end.
sub start_call
{
	my ($session, $call) = @_;
	my $out = $session->query_until(qr/^calling\n/m, "\\echo calling\n$call;\n");

	# It may have ended by now, and what it returned have come along.
	$session->{stdout} = $out =~ s/^calling\n//r;
	return;
}

# wait_asleep(NODE, PID...): until these backends sleep in a call of ours.
sub wait_asleep
{
	my ($node, @pids) = @_;
	my $list = join ', ', @pids;
	wait_until($node, 'postgres', <<~SQL, scalar @pids);
		SELECT count(*) FROM pg_stat_activity WHERE pid IN ($list) AND wait_event_type = 'Extension'
		SQL
	return;
}

# start_waiting(NODE, DATABASE, CALL): a session asleep in that call, and its backend's process id.
sub start_waiting
{
	my ($node, $db, $call) = @_;
	my $session = $node->background_psql($db, on_error_stop => 0);
	$session->set_query_timer_restart;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	start_call($session, $call);
	wait_asleep($node, $pid);
	return ($session, $pid);
}

# answer(SESSION): waits for the end of the call that it is in: what it returned, or the message of its error.
sub answer
{
	my ($session) = @_;
	my $out = $session->query('');
	my $err = $session->{stderr};

	$session->{stderr} = '';
	return $out if $err !~ /^(?:psql:\S+ )?(ERROR|WARNING):  (.*)/m;
	return "$1: $2";
}

# last_words(SESSION): waits for the end of one whose backend ends, and returns its messages.
sub last_words
{
	my ($session) = @_;
	$session->{run}->finish;
	return $session->{stderr};
}

# kill_client(SESSION): kill -9 of the client process.
sub kill_client
{
	my ($session) = @_;
	$session->{run}->signal('KILL');
	$session->{run}->finish;
	return;
}

# abandon(SESSION): ends a background psql whose backend is gone, or will be.
sub abandon
{
	my ($session) = @_;
	$session->{run}->kill_kill;
	return;
}

1;
