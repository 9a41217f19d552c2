# bench.pl quick|full OUTPUT
#
# Measures the extension against what one would write by hand, in one run on the same server. bench.sh starts it.
# Prints a table of ratios; OUTPUT, a CSV file, gets each single measurement. BENCH_ONLY, a list with commas, picks
# parts.
#
# These are shared, noisy machines. So the variants that are compared take turns for several rounds; a ratio is taken
# within each round; and what is shown is the median of the rounds, with the least and the greatest. CPU time is that
# of the backends alone. Before each measured block comes a CHECKPOINT, so that all pay alike for the full-page images
# that follow one.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Record;
use Server;

my ($mode, $output) = @ARGV;

my %QUICK = (
	rounds => 3,
	iterations => 2_000,
	clients => 4,
	crowd => 16,
	history => [ 0, 100_000 ],
	active => 10_000,
	dangling => 100_000,
	sweep_rounds => 3,
	ends => 20,
	wakeup_rounds => 1,
	deferred => 5);
my %FULL = (
	rounds => 9,
	iterations => 5_000,
	clients => 8,
	crowd => 64,
	history => [ 0, 1_000_000, 10_000_000 ],
	active => 10_000,
	dangling => 1_000_000,
	sweep_rounds => 3,
	ends => 50,
	wakeup_rounds => 5,
	deferred => 10);
my %size = $mode eq 'full' ? %FULL : %QUICK;

my @PARTS = (
	[ lifecycle => \&measure_lifecycle ],
	[ rejected => \&measure_rejected ],
	[ calls => \&measure_calls ],
	[ history => \&measure_history ],
	[ sweep => \&measure_sweep ],
	[ wakeups => \&measure_wakeups ],
	[ deferred => \&measure_deferred ]);

# ---- the statements, in the language of load ----

my $PLAIN = 'bench.plain';
my $INSERT = "INSERT INTO $PLAIN (chat_id, workspace_id, trigger, status, started_at, updated_at)"
  . q{ VALUES ($chat, $ws, 'user', 'running', now(), now())};
my $GATE = "$INSERT ON CONFLICT (chat_id) WHERE status IN ('pending', 'running') DO NOTHING";
my $THIS_RUN = q{id = $run AND workspace_id = $ws AND status NOT IN ('succeeded', 'failed', 'aborted')};
my $PLAIN_END = "UPDATE $PLAIN SET status = 'succeeded', error = NULL, finished_at = now(), updated_at = now()"
  . " WHERE $THIS_RUN => 1";
my $OUR_END = q{SELECT ai_chat_run.finalize_run($run, $ws, 'completed') => finalized};

my %LIFECYCLE = (
	ours => "run <- SELECT ai_chat_run.begin_run(\$chat, \$ws)\n$OUR_END",
	plain => "run <- $INSERT RETURNING id\n$PLAIN_END",
	gate => "run <- $GATE RETURNING id\n$PLAIN_END",
	plpgsql => "run <- SELECT bench.begin_run(\$chat, \$ws)\n"
	  . q{SELECT bench.finalize_run($run, $ws, 'completed') => finalized});
my @LIFECYCLES = qw(ours plain gate plpgsql);

# With run ids that the client makes, too.
my %LIFECYCLE_GIVEN_ID = (
	ours => "run <- SELECT ai_chat_run.begin_run(\$chat, \$ws, run_id => \$new)\n$OUR_END",
	plain => 'run <- ' . $INSERT =~ s/\(chat_id/(id, chat_id/r =~ s/VALUES \(/VALUES (\$new, /r . " RETURNING id\n$PLAIN_END");

# How each begins a run of $chat, and is told that the chat has one.
my %BEGIN = (
	begin_run => [ 'SELECT ai_chat_run.begin_run($chat, $ws)', '!RN409' ],
	try_begin_run => [ 'SELECT outcome FROM ai_chat_run.try_begin_run($chat, $ws)', 'busy' ],
	insert => [ $INSERT, '!23505' ],
	gate => [ $GATE, '0' ],
	plpgsql => [ 'SELECT bench.begin_run($chat, $ws)', '!RN409' ]);
my @BEGINNERS = qw(begin_run try_begin_run insert gate plpgsql);

# The metrics of a row of the table, and how to speak of them.
my %METRICS = (
	cpu_us => 'backend CPU, us',
	wal => 'WAL, bytes',
	xids => 'transaction ids',
	dead => 'dead tuples',
	per_second => 'a second',
	latency_us_p99 => 'latency p99, us');

# ---- begin + finalize ----

sub measure_lifecycle
{
	my @cases = (
		[ 'prepared', 1, 'off' ],
		[ 'unprepared', 1, 'off' ],
		[ 'prepared', $size{clients}, 'off' ],
		[ 'prepared', 1, 'on' ],
		[ 'prepared', $size{clients}, 'on' ]);

	new_database('lifecycle');
	for (@cases)
	{
		my ($protocol, $clients, $sync) = @$_;
		my $case = "lifecycle, $protocol, $clients client(s), synchronous_commit $sync";
		my $share = $sync eq 'on' ? 4 : 1;
		my %options = (c => $clients, n => int($size{iterations} / $clients / $share), sync => $sync);
		$options{x} = undef if $protocol eq 'unprepared';

		set_fsync('on') if $sync eq 'on';
		take_turns($case, $size{rounds}, \@LIFECYCLES,
			sub { load('lifecycle', $LIFECYCLE{ $_[0] }, %options) },
			sub { fill('lifecycle', 'succeeded', 'ordered', 20_000, 'ai_chat_run.ai_chat_runs', $PLAIN, 'bench.runs') });
		set_fsync('off') if $sync eq 'on';
		show_lifecycle($case, $protocol, $clients, $sync);
	}
	drop_database('lifecycle');
	return;
}

sub show_lifecycle
{
	my ($case, $protocol, $clients, $sync) = @_;
	my %budget = $clients > 1 || $sync eq 'on' ? ()
	  : $protocol eq 'prepared' ? (cpu_us => '<= 1.05', wal => '<= 1.08') : (cpu_us => '<= 0.70');
	for my $against (qw(plain gate plpgsql))
	{
		for my $metric (qw(cpu_us wal per_second xids dead))
		{
			next if $metric =~ /xids|dead/ && !($against eq 'plain' && $budget{wal});
			compare("$case; $METRICS{$metric}, against $against", $metric, [ $case, 'ours' ], [ $case, $against ],
				$against eq 'plain' ? $budget{$metric} : undef);
		}
	}
	return;
}

# ---- a rejected begin ----

sub measure_rejected
{
	my $case = 'rejected begin';
	my $stampede = "stampede of $size{crowd} on one chat";

	new_database('rejected');
	my $prepare = sub {
		fill('rejected', 'succeeded', 'ordered', 20_000, 'ai_chat_run.ai_chat_runs', $PLAIN, 'bench.runs');
	};
	take_turns($case, $size{rounds}, \@BEGINNERS, sub { reject($_[0]) }, $prepare);
	take_turns($stampede, $size{rounds}, \@BEGINNERS, sub { stampede($_[0]) }, $prepare);
	drop_database('rejected');

	absolute("$case; $METRICS{$_}", $_, [ $case, 'begin_run' ], '= 0') for qw(wal dead xids);
	absolute("$case, as try_begin_run; $METRICS{$_}", $_, [ $case, 'try_begin_run' ], '= 0') for qw(wal dead xids);
	for ([ $case, qw(cpu_us per_second wal dead xids) ], [ $stampede, qw(cpu_us wal dead xids) ])
	{
		my ($which, @metrics) = @$_;
		for my $pair ([ 'begin_run', 'insert' ], [ 'begin_run', 'plpgsql' ], [ 'try_begin_run', 'insert' ],
			[ 'try_begin_run', 'gate' ])
		{
			my ($ours, $against) = @$pair;
			compare("$which, $ours against $against; $METRICS{$_}", $_, [ $which, $ours ], [ $which, $against ]) for @metrics;
		}
	}
	return;
}

# A chat with an active run, and begins that are rejected.
sub reject
{
	my ($variant) = @_;
	my ($begin, $rejection) = map { s/\$chat/\$held/r } @{ $BEGIN{$variant} };
	return load('rejected', <<~END, n => $size{iterations});
		once: held <- SELECT \$chat::uuid
		once: $begin
		$begin => $rejection
		END
}

# Many clients at the same moment, each time on a fresh chat: one begins, all others are rejected. An iteration is an
# attempt.
sub stampede
{
	my ($variant) = @_;
	my ($begin, $rejection) = map { s/\$chat/\$turn/r } @{ $BEGIN{$variant} };
	my $crowd = $size{crowd};
	my $result = load('rejected', "$begin => $rejection | *", c => $crowd, n => int($size{iterations} * 2 / $crowd), w => 20,
		s => undef);
	my $rounds = $result->{iterations} / $crowd;
	$result->{answer_1_2} == $rounds or die "$variant: $result->{answer_1_2} runs were begun in $rounds chats\n";
	return $result;
}

# ---- record_step and heartbeat ----

sub measure_calls
{
	my %call = (
		record_step => q{SELECT ai_chat_run.record_step($run, $ws, $i) => continue},
		'UPDATE of the step' =>
		  "UPDATE $PLAIN SET step_count = greatest(step_count, \$i), updated_at = now() WHERE $THIS_RUN RETURNING status => running",
		heartbeat => q{SELECT ai_chat_run.heartbeat($run, $ws) => continue},
		'UPDATE of the time' => "UPDATE $PLAIN SET updated_at = now() WHERE $THIS_RUN RETURNING status => running");
	my @calls = ('record_step', 'UPDATE of the step', 'heartbeat', 'UPDATE of the time');
	my $measure = sub {
		my ($variant, %options) = @_;
		my $begin = $variant =~ /UPDATE/ ? "$INSERT RETURNING id" : 'SELECT ai_chat_run.begin_run($chat, $ws)';
		return load('calls', "once: run <- $begin\n$call{$variant}", n => $size{iterations}, %options);
	};
	my $prepare = sub { fill('calls', 'succeeded', 'ordered', 20_000, 'ai_chat_run.ai_chat_runs', $PLAIN) };
	my ($off, $on) = map { "calls, synchronous_commit $_" } qw(off on);

	new_database('calls');
	take_turns($off, $size{rounds}, \@calls, $measure, $prepare);
	set_fsync('on');
	take_turns($on, $size{rounds}, \@calls, sub { $measure->($_[0], sync => 'on', n => $size{iterations} / 4) }, $prepare);
	set_fsync('off');
	drop_database('calls');

	absolute("heartbeat; $METRICS{$_}", $_, [ $off, 'heartbeat' ], '= 0') for qw(wal dead xids);
	compare("heartbeat against a one-row UPDATE; $METRICS{cpu_us}", 'cpu_us', [ $off, 'heartbeat' ],
		[ $off, 'UPDATE of the time' ], '<= 0.60');
	compare('heartbeat against a one-row UPDATE, synchronous_commit on; a second', 'per_second', [ $on, 'heartbeat' ],
		[ $on, 'UPDATE of the time' ], '>= 3');
	compare("record_step against a one-row UPDATE; $METRICS{$_}", $_, [ $off, 'record_step' ], [ $off, 'UPDATE of the step' ])
	  for qw(cpu_us wal dead);
	compare('record_step against a one-row UPDATE, synchronous_commit on; a second', 'per_second', [ $on, 'record_step' ],
		[ $on, 'UPDATE of the step' ]);
	compare('record_step against a one-row UPDATE; share of HOT', 'hot', [ $off, 'record_step' ],
		[ $off, 'UPDATE of the step' ]);
	return;
}

# ---- the parts that were asked for ----

sub machine
{
	my %machine = (
		kernel => run(qw(uname -sr)),
		cores => run('nproc'),
		server => sql('postgres', 'SHOW server_version'),
		started => sql('postgres', q{SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')}),
		mode => $mode);
	record('machine', '', 0, \%machine);
	return;
}

record_to($output);
set_part('machine');
machine();
my %only = map { $_ => 1 } split /,/, $ENV{BENCH_ONLY} // '';
for (@PARTS)
{
	my ($name, $measure) = @$_;
	next if %only && !$only{$name};
	print STDERR "== $name\n";
	set_part($name);
	$measure->();
}
print_table();
