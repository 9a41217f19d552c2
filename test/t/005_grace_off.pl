# ai_chat_run.boot_sweep: with grace the boot sweep waits for ai_chat_run.boot_grace and keeps each run whose runner
# has called since server start, or has attached and is the one of before; with off it leaves all runs. Both are read
# again at a reload.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $node = new_server('grace', <<~CONF);
	ai_chat_run.boot_sweep = grace
	ai_chat_run.boot_grace = 1h
	ai_chat_run.retention = 1d
	CONF

# Makes an old run for the worker to delete: when it is gone, the worker has been there and done all that was due.
sub lay_trail
{
	add_ended_run($node, 'postgres', 99, '2 days');
	return;
}

sub wait_for_visit
{
	wait_until($node, 'postgres', "SELECT count(*) = 0 FROM $RUNS WHERE chat_id = '@{[chat(99)]}'");
	return;
}

# ---- grace ----

my %run = map { $_ => begin_run($node, 'postgres', $_) } 1 .. 6;
sub attach
{
	my ($session, $name, $incarnation) = @_;
	return $session->query_safe("SELECT ai_chat_run.attach_runner('$name', '$incarnation')");
}

my %incarnation = map { $_ => "00000000-0000-4000-b000-00000000000$_" } 1 .. 4;
my @session = map { $node->background_psql('postgres') } 1 .. 3;
attach($session[ $_ - 1 ], "runner $_", $incarnation{$_}) for 1 .. 3;
$run{ 10 + $_ } = $node->safe_psql('postgres', sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => 'runner %d')),
	chat(10 + $_), $WS, $_) for 1 .. 3;
$node->safe_psql('postgres', <<~SQL);
	INSERT INTO $RUNS (chat_id, workspace_id) VALUES ('@{[chat(7)]}', '$WS');
	SELECT ai_chat_run.record_step('$run{5}', '$WS', 7);
	SELECT ai_chat_run.heartbeat('$run{3}', '$WS');
	UPDATE $RUNS SET error = 'slow model' WHERE id = '$run{6}';
	SQL
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run{4}' FOR UPDATE");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run{4}', '$WS', 'completed')"), 'deferred',
	'a finalization is deferred');
lay_trail();
my $life = log_end($node);
$node->stop('immediate');
abandon($_) for $client, @session;
$node->start;
wait_for_visit();
is(runs($node, 'postgres', 1 .. 7), "1 running\n2 running\n3 running\n4 succeeded\n5 running\n6 running slow model\n7 pending",
	'runs are left alone while the grace lasts; what was deferred is not');

# Runners call. A stop that somebody requests, or that he waits or looks, is no call of the runner.
my $row = "SELECT ctid, xmin, updated_at FROM $RUNS WHERE id = '$run{2}'";
my $version = $node->safe_psql('postgres', $row);
is($node->safe_psql('postgres', <<~SQL), <<~OUT =~ s/\n\z//r, 'two runners call, clients request a stop, wait and look');
	SELECT ai_chat_run.record_step('$run{1}', '$WS', 1);
	SELECT ai_chat_run.heartbeat('$run{2}', '$WS');
	SELECT ai_chat_run.request_stop('$run{3}', '$WS');
	CALL ai_chat_run.await_run('$run{5}', '$WS', '0 s');
	SELECT status FROM ai_chat_run.get_run('$run{6}', '$WS');
	SQL
	continue
	continue
	t
	|
	running
	OUT
is($node->safe_psql('postgres', $row), $version, 'a heartbeat writes nothing');

# One runner comes back, one was started anew, and one is gone.
@session = map { $node->background_psql('postgres') } 1 .. 2;
is(attach($session[0], 'runner 1', $incarnation{1}), 0, 'the same incarnation attaches');
is(attach($session[1], 'runner 2', $incarnation{4}), 1, 'another incarnation attaches');
begin_run($node, 'postgres', 8);
set_conf($node, 'ai_chat_run.boot_grace' => '1ms');
$node->reload;
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 5', 'the others are aborted when the grace is over');
my $kept = "1 running\n2 running\n3 $swept\n4 succeeded\n5 $swept\n6 aborted slow model\n7 $swept\n8 running"
  . "\n11 running\n12 aborted Run interrupted by a restart of its runner.\n13 $swept";
is(runs($node, 'postgres'), $kept, 'runs whose runners have called are kept, and those begun since');

# ---- off ----

set_conf($node, 'ai_chat_run.boot_sweep' => 'off');
lay_trail();
$life = log_end($node);
$node->stop('fast');
abandon($_) for @session;
$node->start;
is($node->safe_psql('postgres', 'SHOW ai_chat_run.boot_sweep'), 'off', 'the setting is shown as it was set');
wait_for_visit();
is(runs($node, 'postgres'), $kept, 'off leaves all runs');
is(swept_lines($node, $life), '', 'and logs nothing');

# ---- from grace to on, while it lasts ----

set_conf($node, 'ai_chat_run.boot_sweep' => 'grace', 'ai_chat_run.boot_grace' => '1h');
lay_trail();
$node->restart;
wait_for_visit();
is($node->safe_psql('postgres', "SELECT ai_chat_run.heartbeat('$run{2}', '$WS')"), 'continue', 'a runner calls');
$life = log_end($node);
set_conf($node, 'ai_chat_run.boot_sweep' => 'on');
$node->reload;
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 4', 'with on, a call of the runner does not count');

# ---- grace for a time that passes ----

my $last = begin_run($node, 'postgres', 9);
set_conf($node, 'ai_chat_run.boot_sweep' => 'grace', 'ai_chat_run.boot_grace' => '700ms');
$life = log_end($node);
$node->restart;
wait_swept($node, $life, 'postgres');
is($node->safe_psql('postgres', <<~SQL), 't', 'the boot sweep comes by itself, not before the grace is over');
	SELECT finished_at >= pg_postmaster_start_time() + interval '700 ms' FROM $RUNS WHERE id = '$last'
	SQL

# ---- grace for more runs than shared memory holds ----

my @many = map { begin_run($node, 'postgres', $_) } 21 .. 25;
set_conf($node, 'ai_chat_run.boot_grace' => '1h', 'ai_chat_run.max_active_runs' => 2);
$life = log_end($node);
$node->restart;
is($node->safe_psql('postgres', "SELECT ai_chat_run.heartbeat('$_', '$WS')"), 'continue', 'a runner calls')
  for @many[ 0 .. 3 ];
set_conf($node, 'ai_chat_run.boot_grace' => '1ms');
$node->reload;
wait_swept($node, $life, 'postgres');
is(runs($node, 'postgres', 21 .. 25), "21 running\n22 running\n23 running\n24 running\n25 $swept",
	'those that do not fit are kept, too');

# A value that makes no sense is refused, and the one before stays.
$life = log_end($node);
$node->append_conf('postgresql.auto.conf', "ai_chat_run.boot_sweep = 'perhaps'");
$node->reload;
$node->wait_for_log(qr/invalid value for parameter "ai_chat_run.boot_sweep": "perhaps"/, $life);
is($node->safe_psql('postgres', 'SHOW ai_chat_run.boot_sweep'), 'grace', 'a value without a meaning is refused');
$node->stop;
done_testing();
