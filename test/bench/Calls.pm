# What each call costs: begin + finalize, begins that are rejected, record_step and heartbeat.
package Calls;

use strict;
use warnings;
use Exporter 'import';
use Plan;
use Record;
use Server;

our @EXPORT = qw(measure_lifecycle measure_rejected measure_calls);

# ---- begin + finalize ----

sub measure_lifecycle
{
	my @cases = (
		[ 'prepared', 1, 'off' ],
		[ 'unprepared', 1, 'off' ],
		[ 'prepared', $size{clients}, 'off' ],
		[ 'unprepared', $size{clients}, 'off' ],
		[ 'prepared', 1, 'on' ],
		[ 'prepared', $size{clients}, 'on' ]);
	# The short run has one of each.
	splice @cases, 3, 2 if $mode eq 'quick';

	new_database('lifecycle');
	for (@cases)
	{
		my ($protocol, $clients, $sync) = @$_;
		my $how_many = $clients == 1 ? '1 client' : "$clients clients";
		my $case = "lifecycle $protocol $how_many synchronous_commit=$sync";
		my $share = $sync eq 'on' ? 4 : 1;
		my %options = (d => 'lifecycle', c => $clients, sizes($clients * $share), sync => $sync);
		$options{x} = undef if $protocol eq 'unprepared';

		set_fsync('on') if $sync eq 'on';
		rounds($case, $size{rounds}, sub {
			fill('lifecycle', 'succeeded', 'ordered', $size{filling}, @TABLES);
			return load(\%LIFECYCLE, %options);
		});
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
	  : $protocol eq 'prepared' ? (cpu_us => $BUDGET{lifecycle_cpu}, wal => $BUDGET{lifecycle_wal})
	  : (cpu_us => $BUDGET{lifecycle_cpu_unprepared});
	for my $against (qw(plain words gate plpgsql))
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
	my $fill = sub { fill('rejected', 'succeeded', 'ordered', $size{filling}, @TABLES) };
	rounds($case, $size{rounds}, sub { $fill->(); return reject() });
	rounds($stampede, $size{rounds}, sub { $fill->(); return stampede() });
	drop_database('rejected');

	absolute("$case; $METRICS{$_}", $_, [ $case, 'begin_run' ], $BUDGET{rejected_traces}) for qw(wal dead xids);
	absolute("$case, as try_begin_run; $METRICS{$_}", $_, [ $case, 'try_begin_run' ],
		$BUDGET{rejected_traces}) for qw(wal dead xids);
	for ([ $case, qw(cpu_us per_second wal dead xids) ], [ $stampede, qw(cpu_us wal dead xids) ])
	{
		my ($which, @metrics) = @$_;
		for my $pair ([ 'begin_run', 'insert' ], [ 'begin_run', 'plpgsql' ], [ 'try_begin_run', 'insert' ],
			[ 'try_begin_run', 'gate' ])
		{
			my ($ours, $against) = @$pair;
			compare("$which, $ours against $against; $METRICS{$_}", $_, [ $which, $ours ], [ $which, $against ])
			  for @metrics;
		}
	}
	return;
}

# A chat with an active run, and begins that are rejected.
sub reject
{
	my %scripts;
	for my $how (keys %BEGIN)
	{
		my ($begin, $rejection) = map { s/\$chat/\$held/r } @{ $BEGIN{$how} };
		$scripts{$how} = "once: held <- SELECT \$chat::uuid\nonce: $begin\n$begin => $rejection";
	}
	return load(\%scripts, d => 'rejected', sizes(1));
}

# Many clients at the same moment, each time on a fresh chat: one begins, all others are rejected. An iteration is an
# attempt.
sub stampede
{
	my %scripts;
	for my $how (keys %BEGIN)
	{
		my ($begin, $rejection) = map { s/\$chat/\$turn/r } @{ $BEGIN{$how} };
		$scripts{$how} = "$begin => $rejection | *";
	}
	my $result = load(\%scripts, d => 'rejected', c => $size{crowd}, sizes($size{crowd} / 4), w => 20, s => undef);
	for my $how (keys %$result)
	{
		my $chats = $result->{$how}{iterations} / $size{crowd};
		my $begun = $result->{$how}{answer_1_2};
		$begun == $chats or die "$how: $begun runs were begun in $chats chats\n";
	}
	return $result;
}

# ---- record_step and heartbeat ----

my $TOUCH = "updated_at = now() WHERE $THIS_RUN RETURNING status => running";
my %CALL = (
	record_step => [ $OUR_BEGIN, q{SELECT ai_chat_run.record_step($run, $ws, $i) => continue} ],
	'UPDATE of the step' => [ $PLAIN_BEGIN, "UPDATE $PLAIN SET step_count = greatest(step_count, \$i), $TOUCH" ],
	heartbeat => [ $OUR_BEGIN, q{SELECT ai_chat_run.heartbeat($run, $ws) => continue} ],
	'UPDATE of the time' => [ $PLAIN_BEGIN, "UPDATE $PLAIN SET $TOUCH" ]);

sub measure_calls
{
	my %scripts = map { ($_ => "once: $CALL{$_}[0]\n$CALL{$_}[1]") } keys %CALL;
	my ($off, $on) = map { "calls synchronous_commit=$_" } qw(off on);

	new_database('calls');
	my $measure = sub {
		fill('calls', 'succeeded', 'ordered', $size{filling}, @TABLES);
		return load(\%scripts, d => 'calls', @_);
	};
	rounds($off, $size{rounds}, sub { $measure->(sizes(1)) });
	set_fsync('on');
	rounds($on, $size{rounds}, sub { $measure->(sizes(4), sync => 'on') });
	set_fsync('off');
	drop_database('calls');

	absolute("heartbeat; $METRICS{$_}", $_, [ $off, 'heartbeat' ], $BUDGET{heartbeat_traces}) for qw(wal dead xids);
	compare("heartbeat against a one-row UPDATE; $METRICS{cpu_us}", 'cpu_us', [ $off, 'heartbeat' ],
		[ $off, 'UPDATE of the time' ], $BUDGET{heartbeat_cpu});
	compare('heartbeat against a one-row UPDATE, synchronous_commit=on; a second', 'per_second', [ $on, 'heartbeat' ],
		[ $on, 'UPDATE of the time' ], $BUDGET{heartbeat_rate});
	compare("record_step against a one-row UPDATE; $METRICS{$_}", $_, [ $off, 'record_step' ],
		[ $off, 'UPDATE of the step' ]) for qw(cpu_us wal dead);
	compare('record_step against a one-row UPDATE, synchronous_commit=on; a second', 'per_second',
		[ $on, 'record_step' ], [ $on, 'UPDATE of the step' ]);
	compare('record_step against a one-row UPDATE; share of HOT', 'hot', [ $off, 'record_step' ],
		[ $off, 'UPDATE of the step' ]);
	return;
}

1;
