# A server that is restarted without the library preloaded, and with it again. Runs, what was deferred and the runners'
# incarnations outlive that, being in tables; what was in shared memory alone, when runners called last and who is
# attached, does not, and nobody is taken for silent for it. The next preloaded life looks after the runs of both.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $ALICE = '00000000-0000-4000-b000-00000000000a';
my $BOB = '00000000-0000-4000-b000-00000000000b';
my $node = new_server('preload', <<~CONF);
	ai_chat_run.boot_sweep = grace
	ai_chat_run.boot_grace = 1h
	ai_chat_run.runner_grace = 1h
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.max_active_runs = 50
	CONF

# attach(RUNNER, INCARNATION): a session that has attached it, and how many runs that aborted.
sub attach
{
	my ($runner, $incarnation) = @_;
	my $session = $node->background_psql('postgres');
	return ($session, $session->query_safe("SELECT ai_chat_run.attach_runner('$runner', '$incarnation')"));
}

# begin_of(RUNNER, N): begins a run of chat N that this runner executes.
sub begin_of
{
	my ($runner, $n) = @_;
	return $node->safe_psql('postgres',
		sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => '%s')), chat($n), $WS, $runner);
}

# error_of(STATEMENT): its SQLSTATE.
sub error_of
{
	my ($statement) = @_;
	my $err;
	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$statement;", stderr => \$err);
	return $err =~ s/.*ERROR:  //sr;
}

# ---- with ----

my ($alice, $n) = attach('web-1', $ALICE);
my ($bob) = attach('web-2', $BOB);
my %run = (
	1 => begin_of('web-1', 1),
	2 => begin_of('web-2', 2),
	map { $_ => begin_run($node, 'postgres', $_) } 3 .. 6);

# The row of 3 is a year old, its runner calls all the same. Of 4 a stop is requested that the row does not bear, of 5 one
# that it does.
my $client = $node->background_psql('postgres');
$node->safe_psql('postgres', <<~SQL);
	UPDATE $RUNS SET updated_at = now() - interval '1 year', started_at = now() - interval '1 year' WHERE id = '$run{3}'
	SQL
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id IN ('$run{4}', '$run{6}') FOR UPDATE");
is($node->safe_psql('postgres', <<~SQL), "continue\nt\nstop\nt\ndeferred", 'a life with preloading');
	SELECT ai_chat_run.heartbeat('$run{3}', '$WS');
	SELECT ai_chat_run.request_stop('$run{4}', '$WS');
	SELECT ai_chat_run.heartbeat('$run{4}', '$WS');
	SELECT ai_chat_run.request_stop('$run{5}', '$WS');
	SELECT ai_chat_run.finalize_run('$run{6}', '$WS', 'error', 'model error');
	SQL
$node->stop('fast');
abandon($_) for $client, $alice, $bob;

# ---- without ----

# A setting that exists only with preloading is still in the file.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
is(runs($node, 'postgres'), join("\n", map { "$_ running" } 1 .. 6), 'without preloading all is as it was left');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations'), 1, 'what was deferred, too');
is($node->safe_psql('postgres', 'SELECT bool_or(attached) FROM ai_chat_run.active_runs'), 'f', 'nobody is attached');
is(error_of("SELECT ai_chat_run.attach_runner('web-1', '$ALICE')"), '55000', 'nor can anybody be');
is($node->safe_psql('postgres', 'SELECT runner, incarnation FROM ai_chat_run.runners ORDER BY runner'),
	"web-1|$ALICE\nweb-2|$BOB", 'but they are remembered');
is($node->safe_psql('postgres', <<~SQL), "continue\nstop", 'a stop that was in the row is told, one that was not is not');
	SELECT ai_chat_run.heartbeat('$run{4}', '$WS');
	SELECT ai_chat_run.record_step('$run{5}', '$WS', 1);
	SQL

# The sweep applies what was deferred. By its row run 3 is a year silent, and may not be: its runner could not call before.
is($node->safe_psql('postgres', "SELECT ai_chat_run.sweep_runs('1 h')"), 1, 'a sweep by hand');
is(runs($node, 'postgres'), "1 running\n2 running\n3 running\n4 running\n5 running\n6 failed model error",
	'takes nobody for silent who could not call');
my $begun = begin_of('web-1', 7);
begin_run($node, 'postgres', 8);
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run{5}', '$WS', 'aborted')"), 'finalized',
	'runs are begun and finalized');

# ---- with, again, and after a crash ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ai_chat_run'");
my $life = log_end($node);
$node->stop('immediate');
$node->start;
($alice, $n) = attach('web-1', $ALICE);
is($n, 0, 'the incarnation of the first life has lost no run, nor the one begun without preloading');
is($node->safe_psql('postgres', <<~SQL), "continue\nt\nt\nf", 'and its runs are known to be alive');
	SELECT ai_chat_run.heartbeat('$run{3}', '$WS');
	SELECT ai_chat_run.is_locally_active(id) FROM unnest(ARRAY['$run{1}', '$begun', '$run{2}']::uuid[]) id;
	SQL
set_conf($node, 'ai_chat_run.boot_grace' => '1ms');
$node->reload;
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 3', 'the boot sweep is for the runs of both lives');
is(runs($node, 'postgres'), <<~RUNS =~ s/\n\z//r, 'and keeps those whose runners have come');
	1 running
	2 $swept
	3 running
	4 $swept
	5 aborted
	6 failed model error
	7 running
	8 $swept
	RUNS
$alice->quit;
$node->stop;
done_testing();
