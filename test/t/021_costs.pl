# What the calls cost, as far as it can be counted and comes out the same each time: WAL, transaction ids, dead tuples, and
# the processor's instructions. Each bound is far above what was found when it was written, and far below twice of it; a
# change that makes a call much dearer fails here. How fast the calls are is for `make bench` to tell.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('costs', <<~CONF);
	full_page_writes = off
	wal_level = minimal
	max_wal_senders = 0
	bgwriter_delay = 10s
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.retention = 0
	CONF

# The table that somebody would have who does without the extension's functions.
$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE public.plain (LIKE $RUNS INCLUDING ALL) WITH (fillfactor = 80);
	CHECKPOINT;
	SQL

# An id that has this number, for a chat or a run.
sub id
{
	my ($kind, $n) = @_;
	return sprintf '%08d-0000-7000-8000-%012d', $kind, $n;
}

# Statements by their names, with the numbers of the calls that they are made for.
my %prepare = (
	begin => 'SELECT ai_chat_run.begin_run($1, $2, run_id => $3)',
	finalize => q(SELECT ai_chat_run.finalize_run($1, $2, 'completed')),
	heartbeat => 'SELECT ai_chat_run.heartbeat($1, $2)',
	record_step => 'SELECT ai_chat_run.record_step($1, $2, 1)',
	insert => <<~'SQL' =~ s/\s+/ /gr,
		INSERT INTO public.plain (id, chat_id, workspace_id, status, started_at) VALUES ($3, $1, $2, 'running', now())
		ON CONFLICT (chat_id) WHERE status IN ('pending', 'running') DO NOTHING
		SQL
	update => <<~'SQL' =~ s/\s+/ /gr,
		UPDATE public.plain SET status = 'succeeded', finished_at = now(), updated_at = now()
		WHERE id = $1 AND workspace_id = $2 AND status NOT IN ('succeeded', 'failed', 'aborted')
		SQL
);
my $prepare = join '', map { "PREPARE $_ AS $prepare{$_};\n" } sort keys %prepare;
my $next_chat = 0;

# the number of the run that all other calls are for
my $CALLED = 999_999;

# The whole life of so many runs; the beginning of one, perhaps in a chat that has one; so many calls for one run.
sub lives
{
	my ($begin, $end, $n) = @_;
	my @ids = map { my $i = $next_chat++; [ id(1, $i), id(2, $i) ] } 1 .. $n;
	return join '', map { "EXECUTE $begin('$_->[0]', '$WS', '$_->[1]');\nEXECUTE $end('$_->[1]', '$WS');\n" } @ids;
}

sub begin_one
{
	my ($run, $chat) = (@_, $_[0]);
	return "EXECUTE begin('@{[id(1, $chat)]}', '$WS', '@{[id(2, $run)]}');\n";
}

sub calls
{
	my ($call, $n, $run) = (@_, $CALLED);
	return "EXECUTE $call('@{[id(2, $run)]}', '$WS');\n" x $n;
}

# ---- WAL, transaction ids, dead tuples ----

# counters(): where WAL and transaction ids are, and how many dead tuples there are in the run table.
sub counters
{
	return split /\|/, $node->safe_psql('postgres', <<~SQL);
		SELECT pg_current_wal_insert_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot()),
			coalesce(pg_stat_get_dead_tuples('$RUNS'::regclass), 0)
		SQL
}

# cost(N, ANSWER, STATEMENTS): what these have added to the counters, for each of N calls. The session is a new one. The
# answer is to come N times; without that, a call that does nothing would cost nothing.
sub cost
{
	my ($n, $answer, $statements) = @_;
	my ($out, $err) = ('', '');
	$node->safe_psql('postgres', $prepare . lives('begin', 'finalize', 1) . 'CHECKPOINT');
	my @before = counters();
	$node->psql('postgres', $prepare . $statements, stdout => \$out, stderr => \$err, on_error_stop => 0);
	my @after = counters();
	is(scalar(() = "$out\n$err" =~ /$answer/g), $n, "$n times the answer $answer");
	return map { ($after[$_] - $before[$_]) / $n } 0 .. 2;
}

# The server's own writes in the background are not ours; a call that wrote something would write more than this.
my $NOTHING = 5;

my ($wal, $xids) = cost(200, qr/^finalized$/m, lives('begin', 'finalize', 200));
note("begin_run and finalize_run: $wal bytes of WAL, $xids transaction ids");
cmp_ok($wal, '<', 1200, 'WAL of a run that is begun and finalized');
cmp_ok($xids, '<', 3.5, 'its transaction ids: two, and one for the subtransaction that a finalization can survive');

$node->safe_psql('postgres', $prepare . begin_one($CALLED));
($wal) = cost(200, qr/^continue$/m, calls('record_step', 200));
note("record_step: $wal bytes of WAL");
cmp_ok($wal, '<', 300, 'WAL of a step');

my $dead;
($wal, $xids, $dead) = cost(200, qr/^continue$/m, calls('heartbeat', 200));
cmp_ok($wal, '<', $NOTHING, 'a heartbeat writes no WAL');
is($xids, 0, 'takes no transaction id');
is($dead, 0, 'and leaves no dead tuple');

# A rejected begin is an error; each is a transaction of its own all the same.
($wal, $xids, $dead) = cost(200, qr/ERROR:  an agent run is already in progress/,
	begin_one($CALLED + 1, $CALLED) x 200);
cmp_ok($wal, '<', $NOTHING, 'nor does a rejected begin: no WAL');
is($xids, 0, 'no transaction id');
is($dead, 0, 'no dead tuple');
$node->stop;

# ---- instructions ----

SKIP:
{
	skip 'no valgrind, which counts instructions', 8 if system('valgrind --version >/dev/null 2>&1') != 0;

	sub counts_file
	{
		return "$PostgreSQL::Test::Utils::tmp_check/callgrind";
	}

	# instructions(STATEMENTS): those that a server takes for it that has no other processes.
	sub instructions
	{
		my ($statements) = @_;
		my $counts = counts_file();
		my ($out, $err) = ('', '');

		# It reads a statement a line.
		run_log([ 'valgrind', '-q', '--tool=callgrind', "--callgrind-out-file=$counts",
				'postgres', '--single', '-D', $node->data_dir, '-c', 'log_statement=none', 'postgres' ],
			'<', \($prepare . $statements), '>', \$out, '2>', \$err)
		  or die "no count: $err";
		unlike($err, qr/ERROR|WARNING|FATAL|PANIC/, 'counted without an error') or diag($err);
		return slurp_file($counts) =~ /^totals: (\d+)/m ? $1 : die 'no count';
	}

	# each_costs(MAKE): what one more call costs, once the session has made some.
	sub each_costs
	{
		my ($make) = @_;
		my $few = instructions($make->(50));
		return (instructions($make->(150)) - $few) / 100;
	}

	my $ours = each_costs(sub { lives('begin', 'finalize', $_[0]) });
	my $plain = each_costs(sub { lives('insert', 'update', $_[0]) });
	note("begin_run and finalize_run: $ours instructions; INSERT and UPDATE: $plain");
	cmp_ok($ours / $plain, '<', 1.5, 'instructions of a run, against INSERT and UPDATE of a table without triggers');

	# A heartbeat is lost in what it takes to read a statement, so we look at the function itself.
	my $n = 200;
	instructions(begin_one($CALLED + 1) . calls('heartbeat', $n, $CALLED + 1));
	my ($report, $err) = run_command([ 'callgrind_annotate', '--inclusive=yes', '--threshold=100', counts_file() ]);
	my ($heartbeats) = $report =~ /^\s*([\d,]+) \(.*:acr_heartbeat\b/m or die "no acr_heartbeat in the report: $err";
	my $heartbeat = ($heartbeats =~ tr/,//dr) / $n;
	note("heartbeat: $heartbeat instructions");
	cmp_ok($heartbeat, '<', 6_000, 'instructions of a heartbeat');
	cmp_ok($heartbeat, '>', 200, 'which are counted');
}
done_testing();
