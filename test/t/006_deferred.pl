# A deferred finalization is never lost and needs no further call: the background worker applies it as soon as what
# was in the way is gone, be that a client, a prepared transaction, an ALTER TABLE, a trigger or a full disk. What
# fails is tried again with growing pauses, with one line in the log each time, and holds up nothing else.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('deferred', <<~CONF, extra => ['--wal-segsize=1']);
	log_min_messages = debug1
	ai_chat_run.reconcile_interval = 1h
	CONF

# finalize(RUN): tries to complete it, in a session of its own.
sub finalize
{
	my ($run) = @_;
	return $node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
}

sub wait_settled
{
	my (@runs) = @_;
	my $list = join ', ', map { "'$_'" } @runs;
	wait_until($node, 'postgres', <<~SQL, scalar(@runs) . '|0');
		SELECT (SELECT count(*) FROM $RUNS WHERE status = 'succeeded' AND id IN ($list)),
			(SELECT count(*) FROM ai_chat_run.deferred_finalizations WHERE run_id IN ($list))
		SQL
	return;
}

sub deferred
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations');
}

# ---- a client has the rows ----

my @run = map { begin_run($node, 'postgres', $_) } 1, 2;
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id IN ('$run[0]', '$run[1]') FOR UPDATE");
is(finalize($_), 'deferred', 'a client has the row') for @run;
$client->query_safe('COMMIT');
wait_settled(@run);
pass('applied when the client is gone');

# ---- an ALTER TABLE has the table ----

@run = (begin_run($node, 'postgres', 3));
my $log = log_end($node);
$client->query_safe("BEGIN; ALTER TABLE $RUNS ADD COLUMN extra int");
is(finalize($run[0]), 'deferred', 'an ALTER TABLE has the table');

# Workers come, meet the locked table, and leave. That is no failure to back off from, nor worth a line each time.
$node->wait_for_log(qr/(?:DEBUG:  registering background worker "ai_chat_run.*){4}/s, $log);
$client->query_safe('ROLLBACK');
wait_settled(@run);
pass('applied when the ALTER TABLE is done');
my @failed = log_since($node, $log) =~ /(WARNING:  .* of database "postgres" failed.*)/g;
cmp_ok(scalar(@failed), '<=', 1, 'the log is not flooded') or diag(join "\n", @failed);
unlike(log_since($node, $log), qr/tried again in (?:[2-9]|\d\d) s/, 'the pauses stay short');

# ---- a prepared transaction has deferred ----

@run = map { begin_run($node, 'postgres', $_) } 4, 5;
for (0, 1)
{
	my $locker = $node->background_psql('postgres');
	$locker->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run[$_]' FOR UPDATE");
	$client->query("BEGIN; SELECT ai_chat_run.finalize_run('$run[$_]', '$WS', 'completed')");
	$client->{stderr} = '';
	$client->query_safe("PREPARE TRANSACTION 'deferral $_'");
	$locker->query_safe('ROLLBACK');
	$locker->quit;
}
is(deferred(), 0, 'nothing is deferred while the transaction is prepared');
$node->safe_psql('postgres', "COMMIT PREPARED 'deferral 0'");
wait_settled($run[0]);
pass('applied when another session commits it');

# A prepared transaction has the row, and the server goes down.
my $held = begin_run($node, 'postgres', 6);
begin_run($node, 'postgres', 7);
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$held' FOR UPDATE");
is(finalize($held), 'deferred', 'a prepared transaction has the row');
$client->query_safe("PREPARE TRANSACTION 'holder'");
my $life = log_end($node);
$node->stop('immediate');
abandon($client);
$node->start;
wait_swept($node, $life, 'postgres');
is(runs($node, 'postgres', 6, 7), "6 running\n7 aborted Run interrupted by a server restart.",
	'the boot sweep does not abort a run whose end was decided');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'holder'");
wait_settled($held);
pass('applied when that transaction is gone');

# The server goes down between PREPARE and COMMIT. The boot sweep is over then and has left nothing active, so nobody
# has another reason to come. (The run itself was aborted by it: the other end was not decided before it is committed.)
begin_run($node, 'postgres', 7);
$life = log_end($node);
crash_backend($node);
wait_swept($node, $life, 'postgres');
wait_until($node, 'postgres', workers(), 0);
$node->safe_psql('postgres', "COMMIT PREPARED 'deferral 1'");
wait_until($node, 'postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
like(runs($node, 'postgres', 5), qr/^5 (?:succeeded|aborted.*)$/, 'taken up when it was prepared before a crash');

# ---- a trigger refuses ----

$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		IF NEW.chat_id = '@{[chat(8)]}' AND NEW.status <> 'running' THEN RAISE EXCEPTION 'not this one'; END IF;
		RETURN NEW;
	END \$\$;
	SQL
my $refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse()";
$node->safe_psql('postgres', $refuse);
# Another run, whose row a client has, waits all the time; it is applied long before the failing one is tried again.
@run = map { begin_run($node, 'postgres', $_) } 8, 9;
$client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run[1]' FOR UPDATE");
$log = log_end($node);
is(finalize($_), 'deferred', 'a trigger, or a client, is in the way') for @run;
$node->wait_for_log(qr/tried again in 8 s/, $log);
$client->query_safe('COMMIT');
$client->quit;
wait_settled($run[1]);
my $text = log_since($node, $log);
my ($settler) = $text =~ /\[(\d+)\] LOG:  database "postgres": 1 deferred finalization\(s\) applied/;
my @failed_by = $text =~ /\[(\d+)\] WARNING:  applying deferred finalizations of .* failed: not this one/g;
ok($settler && !grep({ $_ == $settler } @failed_by), 'the worker that applies the one does not come for the other');
my $attempts = $node->safe_psql('postgres',
	"SELECT attempts FROM ai_chat_run.deferred_finalizations WHERE run_id = '$run[0]'");
my @pauses = $text =~ /HINT:  It is tried again in (\d+) s/g;
is("@pauses[0 .. 3]", '1 2 4 8', 'the pauses grow');
is(scalar(@failed_by), scalar(@pauses), 'one warning for each try');

# A try that is just being made is counted before it is told of.
my $told = () = log_since($node, $log) =~ /WARNING:  applying deferred finalizations of .* failed: not this one/g;
cmp_ok($attempts, '<=', $told + 1, 'nor is there a try without');
$node->safe_psql('postgres', "DROP TRIGGER refuse ON $RUNS");
$node->reload;
wait_settled(@run);
pass('applied when the trigger is gone');

# One of before a restart, which the boot sweep has to leave alone. For two seconds nobody has anything to do.
$node->safe_psql('postgres', $refuse);
@run = (begin_run($node, 'postgres', 8));
is(finalize($run[0]), 'deferred', 'a trigger is in the way');
$log = log_end($node);
$node->restart;
$node->wait_for_log(qr/tried again in 4 s/, $log);
my ($pause) = log_since($node, $log) =~ /tried again in 2 s(.*)tried again in 4 s/s;
my $visits = () = $pause =~ /DEBUG:  registering background worker "ai_chat_run/g;
cmp_ok($visits, '<=', 2, 'no worker comes in between');
is(runs($node, 'postgres', 8) =~ s/.*\n//r, '8 running', 'the run is not aborted');
$node->safe_psql('postgres', "DROP TRIGGER refuse ON $RUNS");
$node->reload;
wait_settled(@run);
pass('applied when the trigger is gone');

# ---- the disk is full ----

# To a process with a limit on the size of files a disk looks full; new sessions and workers take it from the
# postmaster. The table is filled up to the limit; what is left in a page is too little for the end of the run.
SKIP:
{
	my $postmaster = server_pid($node);
	skip 'needs prlimit', 4 if system("prlimit --pid $postmaster --fsize=4194304:unlimited >/dev/null 2>&1") != 0;
	$node->safe_psql('postgres', "ALTER TABLE $RUNS SET (fillfactor = 100)");
	$node->safe_psql('postgres', "VACUUM FULL $RUNS");
	my $run = begin_run($node, 'postgres', 10);
	my $err = '';
	for (1 .. 100)
	{
		last if $node->psql('postgres', <<~SQL, stderr => \$err) != 0;
			INSERT INTO $RUNS (chat_id, workspace_id, status, finished_at)
			SELECT gen_random_uuid(), '$WS', 'failed', now() FROM generate_series(1, 5000)
			SQL
	}
	like($err, qr/could not extend file/, 'the table is full');
	$log = log_end($node);
	is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'error', repeat('x', 500))"),
		'deferred', 'a finalization that cannot be written is deferred');
	$node->wait_for_log(qr/WARNING:  applying deferred finalizations of .* failed: could not extend file/, $log);
	is(runs($node, 'postgres', 10), '10 running', 'a worker has tried in vain');
	system("prlimit --pid $postmaster --fsize=unlimited:unlimited") == 0 or die 'could not lift the limit';
	wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$run'", 'failed');
	is(deferred(), 0, 'applied when there is room again');
}
$node->stop;
done_testing();
