# Departures, few and many: an attachment that is rolled back does not make the next departure go unnoticed; runners that
# depart one after another do not start a worker each; and of the workers that come and go none is taken for one that was
# lost, also where there is hardly a place for them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use List::Util 'min';
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $departed = 'aborted Run aborted: its runner has departed.';

# Nothing but a departure is ever due. The log tells when what happened, in seconds since 1970.
my $conf = <<~CONF;
	log_min_messages = debug1
	log_line_prefix = '%n [%p] '
	log_disconnections = on
	ai_chat_run.boot_sweep = off
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1ms
	ai_chat_run.stale_after = 0
	CONF
my $node = new_server('departures', $conf);

sub wait_ended
{
	my ($db) = @_;
	wait_until($node, $db, "SELECT count(*) FROM $RUNS WHERE finished_at IS NULL", 0);
	return;
}

# depart(DATABASE, TIMES): so many departures, each of a runner that leaves a run.
sub depart
{
	my ($db, $times) = @_;
	my $begin = "SELECT ai_chat_run.begin_run(gen_random_uuid(), '$WS', runner => 'worker')";

	$node->safe_psql($db, "SELECT ai_chat_run.attach_runner('worker'); $begin; DISCARD ALL;\n" x $times);
	return;
}

# begun(DATABASE, OFFSET): when workers were asked for.
sub begun
{
	my ($db, $offset) = @_;
	my $oid = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = '$db'");
	my @begun = log_since($node, $offset) =~ /^([\d.]+) .*DEBUG:  registering background worker "ai_chat_run.* $oid"/gm;
	return @begun;
}

# errors(): what went wrong, in any database.
sub errors
{
	return $node->safe_psql('postgres', <<~SQL);
		SELECT datname, last_error FROM ai_chat_run.workers WHERE last_error IS NOT NULL ORDER BY datname
		SQL
}

# ---- few ----

# The launcher looks around every 10 s, told or not. Three departures that it is not told of take it so long each, save for
# the first; of these it is told, though their runners have attached once more and rolled that back.
my @delays;
for my $n (1 .. 3)
{
	my $offset = log_end($node);
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("SELECT ai_chat_run.attach_runner('worker')");
	$node->safe_psql('postgres', "SELECT ai_chat_run.begin_run('@{[chat($n)]}', '$WS', runner => 'worker')");
	$session->query_safe("BEGIN; SELECT ai_chat_run.attach_runner('worker'); ROLLBACK");
	$session->query_safe("BEGIN; SAVEPOINT s; SELECT ai_chat_run.attach_runner('worker'); ROLLBACK TO s; COMMIT");
	is(runs($node, 'postgres', $n), "$n running", "departure $n: not yet");
	$session->quit;
	wait_ended('postgres');
	is(runs($node, 'postgres', $n), "$n $departed", "departure $n: noticed");
	wait_until($node, 'postgres', workers(), 0);
	my ($gone) = log_since($node, $offset) =~ /^([\d.]+) \[$pid\] LOG:  disconnection: /m;
	my ($begun) = begun('postgres', $offset);
	push @delays, $begun - $gone;
}
cmp_ok(min(@delays), '<', 5, 'the launcher was told of departures: ' . join(' ', map { sprintf '%.3f s', $_ } @delays));

# ---- many ----

my $offset = log_end($node);
my $departures = 0;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	depart('postgres', 30);
	$departures += 30;
	last if begun('postgres', $offset) >= 10;
}
wait_ended('postgres');
my @begun = begun('postgres', $offset);
cmp_ok(scalar @begun, '>=', 10, "workers have come during $departures departures: " . @begun);
cmp_ok(min(map { $begun[$_] - $begun[ $_ - 1 ] } 1 .. $#begun), '>=', 0.15, 'but none right after another');
is(errors(), '', 'and none has failed');
$node->stop;

# ---- with one place for the workers of two databases ----

$node = new_server('tight', $conf . <<~CONF);
	max_worker_processes = 2
	max_logical_replication_workers = 0
	CONF
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION ai_chat_run');
for my $round (1 .. 3)
{
	# A reload makes both due at the same time, if a worker has been there and seen the extension.
	$offset = log_end($node);
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		depart($_, 30) for 'postgres', 'second';
		wait_ended($_) for 'postgres', 'second';
		last if log_since($node, $offset) =~ /WARNING:  ai_chat_run could not start a background worker/;
		$node->reload;
	}
	like(log_since($node, $offset), qr/WARNING:  ai_chat_run could not start a background worker/,
		"with one place for workers, round $round: one has to wait for it");
	is(errors(), '', "with one place for workers, round $round: but that is no failure of a database");
}
$node->stop;
done_testing();
