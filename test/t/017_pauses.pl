# What cannot be done now does not keep the server busy, and holds up nothing else: a database whose extension was
# dropped, or that no worker can connect to, is left alone for longer and longer; a departed runner whose runs clients
# have locked does not hold up the next one; places in shared memory are given back; and supersede_run goes on trying
# where shared memory has no place for its target.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;
use Time::HiRes 'usleep';

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $departed = 'aborted Run aborted: its runner has departed.';
my $node = new_server('pauses', <<~CONF);
	log_min_messages = debug1
	log_line_prefix = '%n '
	ai_chat_run.boot_sweep = grace
	ai_chat_run.reconcile_interval = 100ms
	ai_chat_run.runner_grace = 1ms
	ai_chat_run.stale_after = 0
	CONF

# Database "clock" has an active run, and so as many visits as there can be; by them we measure how often others are visited.
$node->safe_psql('postgres', 'CREATE DATABASE clock');
$node->safe_psql('clock', 'CREATE EXTENSION ai_chat_run');
begin_run($node, 'clock', 1);

# visits(DATABASE): how many there are while the clock goes on for a while.
sub visits
{
	my ($db) = @_;
	my $offset = log_end($node);

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return workers_started($node, $db, $offset) if workers_started($node, 'clock', $offset) >= 20;
		usleep(100_000);
	}
	die 'no worker comes to database "clock"';
}

# attach(DATABASE, RUNNER...): a session that has attached these.
sub attach
{
	my ($db, @runners) = @_;
	my $session = $node->background_psql($db, on_error_stop => 0);
	$session->query_safe("SELECT ai_chat_run.attach_runner('$_')") for @runners;
	return $session;
}

# begin_of(DATABASE, RUNNER, N): begins a run of chat N that this runner executes.
sub begin_of
{
	my ($db, $runner, $n) = @_;
	return $node->safe_psql($db,
		sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => '%s')), chat($n), $WS, $runner);
}

sub wait_ended
{
	my ($db, @chats) = @_;
	my $list = join ', ', map { "'" . chat($_) . "'" } @chats;
	wait_until($node, $db, <<~SQL, 0);
		SELECT count(*) FROM $RUNS WHERE chat_id IN ($list) AND status IN ('pending', 'running')
		SQL
	return;
}

# ---- the extension is dropped, and there was something to do ----

# drop_extension(DATABASE, ATTACH, DEFER): in a session that has attached a runner, or has deferred a finalization in
# the same transaction.
sub drop_extension
{
	my ($db, $attach, $defer) = @_;
	my $session = attach($db, $attach ? 'worker' : ());
	my $run = begin_run($node, $db, 1);

	if ($defer)
	{
		my $client = $node->background_psql($db);
		$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
		is($session->query("BEGIN; SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'deferred',
			"$db: a finalization is deferred");
		$session->{stderr} = '';
		$client->query_safe('COMMIT');
		$client->quit;
	}
	$session->query_safe('SET client_min_messages = error; DROP EXTENSION ai_chat_run');
	$session->query_safe('COMMIT') if $defer;
	return $session;
}

my %case = (runner => [ 1, 0 ], deferral => [ 0, 1 ], runner_deferral => [ 1, 1 ]);
my %session;
for my $db (sort keys %case)
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION ai_chat_run');
	$session{$db} = drop_extension($db, @{ $case{$db} });
	wait_until($node, 'postgres', "SELECT has_extension FROM ai_chat_run.workers WHERE datname = '$db'", 'f');
	cmp_ok(visits($db), '<=', 3, "$db: no worker comes for an extension that was dropped");
	$session{$db}->quit;
	cmp_ok(visits($db), '<=', 3, "$db: nor when the session that dropped it has ended");
}

# A departure that nobody has come for before the extension is dropped. It is the worker who would notice.
my $session = attach('postgres', 'worker');
$node->safe_psql('postgres', "CREATE DATABASE late");
$node->safe_psql('late', 'CREATE EXTENSION ai_chat_run');
my $late = attach('late', 'worker');
$node->safe_psql('late', 'DROP EXTENSION ai_chat_run');
$late->quit;
cmp_ok(visits('late'), '<=', 3, 'a runner that departs after another session has dropped the extension');
$session->quit;

# An extension that is made anew is looked after.
for my $db (sort(keys %case), 'late')
{
	$node->safe_psql($db, 'CREATE EXTENSION ai_chat_run');
	$session = attach($db, 'worker');
	begin_of($db, 'worker', 2);
	$session->quit;
	wait_ended($db, 2);
	is(runs($node, $db), "2 $departed", "$db: a new extension has its runners");
}

# ---- a database that no worker can connect to ----

$node->safe_psql('postgres', 'CREATE DATABASE broken');
$node->safe_psql('broken', 'CREATE EXTENSION ai_chat_run');
$session = attach('broken', 'worker');
begin_of('broken', 'worker', 1);
my $oid = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'broken'");
my $version = $node->data_dir . "/base/$oid/PG_VERSION";
rename $version, "$version.away" or die "could not rename $version: $!";
my $life = log_end($node);
$session->quit;
wait_until($node, 'postgres', "SELECT last_error IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'broken'");

# The log tells when, in seconds since 1970.
my @begun;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	@begun = log_since($node, $life) =~ /^([\d.]+) DEBUG:  registering background worker "ai_chat_run.* $oid"/gm;
	last if @begun >= 4;
	usleep(100_000);
}
cmp_ok($begun[$_] - $begun[ $_ - 1 ], '>=', 2**($_ - 1), "a database that no worker can connect to: pause $_")
  for 1 .. 3;
like(log_since($node, $life), qr/FATAL:  .* is not a valid data directory/, 'the log tells what is wrong');
is($node->safe_psql('postgres', "SELECT last_error FROM ai_chat_run.workers WHERE datname = 'broken'"),
	'the worker ended early', 'so does the view');
rename "$version.away", $version or die "could not rename $version.away: $!";
$node->reload;
wait_ended('broken', 1);
is(runs($node, 'broken'), "1 $departed", 'what was to be done is done when it can be');

# ---- departed runners, and a client that has the rows of some ----

my @held = map { "held $_" } 1 .. 4;
my @free = map { "free $_" } 1 .. 4;
$session = attach('postgres', map { ($held[$_], $free[$_]) } 0 .. 3);
for (0 .. 3)
{
	begin_of('postgres', $held[$_], 11 + $_);
	begin_of('postgres', $free[$_], 21 + $_);
}
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE runner LIKE 'held%' FOR UPDATE");
$session->quit;
wait_ended('postgres', 21 .. 24);
is(runs($node, 'postgres', 21 .. 24), join("\n", map { "$_ $departed" } 21 .. 24),
	'runners whose rows are free are reaped at once');
$session = attach('postgres', 'later');
begin_of('postgres', 'later', 31);
$session->quit;
wait_ended('postgres', 31);
is(runs($node, 'postgres', 31), "31 $departed", 'so is one that departs later');
is(runs($node, 'postgres', 11 .. 14), join("\n", map { "$_ running" } 11 .. 14),
	'those whose rows a client has are not');
$client->query_safe('COMMIT');
$client->quit;
wait_ended('postgres', 11 .. 14);
is(runs($node, 'postgres', 11 .. 14), join("\n", map { "$_ $departed" } 11 .. 14), 'but when the client is gone');
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
$node->stop;

# ---- a server that tracks few runs ----

$node = new_server('small', <<~CONF);
	ai_chat_run.max_active_runs = 3
	ai_chat_run.reconcile_interval = 100ms
	ai_chat_run.stale_after = 0
	CONF

sub untracked
{
	return $node->safe_psql('postgres', "SELECT untracked FROM ai_chat_run.stats WHERE datname = 'postgres'");
}

sub wait_has_extension
{
	my ($db, $expected) = @_;
	wait_until($node, 'postgres', "SELECT has_extension FROM ai_chat_run.workers WHERE datname = '$db'", $expected);
	return;
}

$node->safe_psql('postgres', 'CREATE DATABASE gone');
$node->safe_psql('gone', 'CREATE EXTENSION ai_chat_run');
begin_run($node, 'gone', $_) for 1 .. 3;
wait_has_extension('gone', 't');
my $before = untracked();
my $run = begin_run($node, 'postgres', 9);
cmp_ok(untracked(), '>', $before, 'another database has taken all places in shared memory');
$node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
$node->safe_psql('gone', 'DROP EXTENSION ai_chat_run');
wait_has_extension('gone', 'f');
$before = untracked();
my @run = map { begin_run($node, 'postgres', $_) } 1 .. 3;
is(untracked(), $before, 'DROP EXTENSION gives the places back');
is($node->safe_psql('postgres', "SELECT ai_chat_run.is_locally_active('$_')"), 't', 'a run that has taken one')
  for @run;

# ---- supersede_run of a run that has no place ----

$before = untracked();
$run = begin_run($node, 'postgres', 4);
cmp_ok(untracked(), '>', $before, 'all places are taken');
$client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");

# supersede(TIMEOUT, FORCE): the call that supersedes the run.
sub supersede
{
	my ($timeout, $force) = @_;
	return "CALL ai_chat_run.supersede_run('@{[chat(4)]}', '$run', '$WS', timeout => '$timeout', force => $force)";
}

# result(STATEMENT): what it returns, and the first line of what it says.
sub result
{
	my ($out, $err) = ('', '');
	$node->psql('postgres', $_[0], stdout => \$out, stderr => \$err);
	return "$out $err" =~ s/\n.*//sr;
}

like(result("SELECT ai_chat_run.request_stop('$run', '$WS')"), qr/ERROR:  canceling statement due to lock timeout/,
	'a stop cannot be requested while a client has the row');
is(result(supersede('50 ms', 'false')), 'timeout| ', 'supersede_run waits as long as it was told to');
like(result(supersede('50 ms', 'true')), qr/^timeout\| .*WARNING:  could not abort run $run: /,
	'so it does with force');

# Each try is a transaction of its own, with the next number.
$session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $out = $session->query_until(qr/^calling\n/m, "\\echo calling\n@{[supersede('1 h', 'false')]};\n");
$session->{stdout} = $out =~ s/^calling\n//r;
my $number = "split_part(virtualtransaction, '/', 2)::int FROM pg_locks WHERE pid = $pid AND locktype = 'virtualxid'";
wait_until($node, 'postgres', <<~SQL);
	SELECT state = 'active' AND query LIKE 'CALL%' OR state = 'idle' AND query NOT LIKE '%pg_backend_pid%'
	FROM pg_stat_activity WHERE pid = $pid
	SQL
my $first = $node->safe_psql('postgres', "SELECT $number") || 0;
wait_until($node, 'postgres', <<~SQL);
	SELECT coalesce((SELECT $number), 0) > $first + 2 OR state <> 'active' FROM pg_stat_activity WHERE pid = $pid
	SQL
is($node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $pid"), 'active', 'it goes on trying');
$client->query_safe('COMMIT');
wait_until($node, 'postgres', "SELECT stop_requested_at IS NOT NULL FROM $RUNS WHERE id = '$run'");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'aborted')"), 'finalized',
	'when the client is gone the run is told to stop');
$out = $session->query('');
is($out =~ s/\|.*//sr, 'superseded', 'and when it has ended it is superseded');
is($session->{stderr}, '', 'without a word');
$session->quit;
$client->quit;
is(runs($node, 'postgres', 4), "4 aborted\n4 running", 'the next run is there');
$node->stop;
done_testing();
