# A server of many databases, half of them with the extension and dangling runs, half of them without it. After its start
# each is visited once, by few workers at a time; those that have something to sweep are swept and say so in one line, of
# the others the log knows nothing; afterwards workers come where something happens, and nowhere else. With CHAOS=full
# there are 200 databases.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $n = ($ENV{CHAOS} // '') eq 'full' ? 100 : 20;
my $node = new_server('many', <<~CONF);
	log_min_messages = debug1
	log_statement = none
	log_checkpoints = off
	autovacuum = off
	ai_chat_run.boot_sweep = off
	CONF

# ---- the databases ----

# Copies of two templates; the first has two active runs.
$node->safe_psql('postgres', "CREATE DATABASE $_") for 'ours', 'bare';
$node->safe_psql('ours', 'CREATE EXTENSION ai_chat_run');
begin_run($node, 'ours', $_) for 1, 2;
$node->safe_psql('postgres', join "\n",
	map { my $i = $_; map { "CREATE DATABASE ${_}_$i TEMPLATE $_ STRATEGY file_copy;" } 'ours', 'bare' } 1 .. $n);
my %oid = map { split /\|/ } split /\n/,
  $node->safe_psql('postgres', "SELECT datname, oid FROM pg_database WHERE datallowconn");

# started(OFFSET): of how many databases each number of workers was started there, "workers: databases".
sub started
{
	my ($offset) = @_;
	my %workers = map { $_ => 0 } values %oid;
	my %databases;

	$workers{$_}++
	  for log_since($node, $offset) =~ /DEBUG:  registering background worker "ai_chat_run worker for database (\d+)"/g;
	$databases{$_}++ for values %workers;
	return join ', ', map { "$_: $databases{$_}" } sort { $a <=> $b } keys %databases;
}

# said(OFFSET): the lines of the log that an operator sees, but for the server's own at its start.
sub said
{
	my ($offset) = @_;
	return grep { /(?:LOG|WARNING|ERROR|FATAL|PANIC):  / && !/LOG:  (?:starting|listening|database system)/ }
	  split /\n/, log_since($node, $offset);
}

# wait_visited(): until a worker has been in all of them. Those without the extension are not due again.
sub wait_visited
{
	wait_until($node, 'postgres', sprintf(<<~SQL, scalar keys %oid), "$n|0");
		SELECT count(*) FILTER (WHERE w.has_extension AND w.boot_sweep_done_at IS NOT NULL AND d.datname LIKE 'ours\\_%%'),
			count(*) FILTER (WHERE w.datid IS NULL OR w.working OR w.next_due < now() + interval '1 s') + %d - count(*)
		FROM pg_database d LEFT JOIN ai_chat_run.workers w ON w.datid = d.oid
		WHERE d.datallowconn
		SQL
	wait_until($node, 'postgres', workers(), 0);
	return;
}

# ---- a start with runs to sweep ----

set_conf($node, 'ai_chat_run.boot_sweep' => 'on');
$node->stop('fast');
my $life = log_end($node);
$node->start;
wait_visited();
is(swept_lines($node, $life), join("\n", sort 'ours: 2', map { "ours_$_: 2" } 1 .. $n), 'each database is swept');
is(runs($node, $_), "1 $swept\n2 $swept", "runs of $_") for 'ours', 'ours_1', "ours_$n";
is($node->safe_psql('postgres', <<~SQL), 2 * $n + 2, 'the view tells of all');
	SELECT sum(runs_swept) FROM ai_chat_run.workers
	SQL
my @said = grep { !/boot sweep of database/ } said($life);
is(join("\n", @said), '', 'and nothing else is said') or diag(scalar @said);
is(started($life), '1: ' . keys %oid, 'one worker was there in each');

# ---- one without ----

$node->stop('fast');
$life = log_end($node);
$node->start;
wait_visited();
is(join("\n", said($life)), '', 'with nothing to sweep nothing is said');
is(started($life), '1: ' . keys %oid, 'and one look is taken at each');

# ---- an idle server ----

# Whatever happens where the extension is not, no worker comes; where it is, workers come for what is deferred. The launcher
# has then seen all that happened before.
my $idle = log_end($node);
for my $i (1 .. 3)
{
	$node->safe_psql("bare_$i", 'CREATE TABLE t (); DROP TABLE t');
	my $run = begin_run($node, 'ours_1', $i);
	my $client = $node->background_psql('ours_1');
	$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
	is($node->safe_psql('ours_1', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'deferred',
		"a finalization is deferred, $i");
	$client->query_safe('COMMIT');
	$client->quit;
	wait_until($node, 'ours_1', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
}
wait_until($node, 'postgres', workers(), 0);
cmp_ok(workers_started($node, 'ours_1', $idle), '>=', 3, 'workers come where there is work');
like(started($idle), qr/^0: @{[keys(%oid) - 1]}, \d+: 1$/, 'and nowhere else');
$node->stop;
done_testing();
