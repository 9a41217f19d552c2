# How soon those who wait learn of what happens, and how soon a deferred finalization is applied.
package Wakeups;

use strict;
use warnings;
use Exporter 'import';
use Plan;
use Record;
use Server;

our @EXPORT = qw(measure_wakeups measure_deferred);

sub measure_wakeups
{
	my @waiters = (1, 10, 100);
	new_database('wakeups');
	for my $waiters (@waiters)
	{
		for my $concerns ('one', 'all')
		{
			next if $waiters == 1 && $concerns eq 'all';
			my @options = (-c => $waiters, -n => $size{ends}, $concerns eq 'all' ? '-a' : '-i');
			my @kinds = (qw(await_run await_stops listen), $concerns eq 'all' ? () : 'poll');
			take_turns("wake-ups $waiters waiting $concerns woken", $size{wakeup_rounds}, \@kinds,
				sub { wakeups('wakeups', $_[0], @options) });
		}
	}
	for my $waiters (@waiters)
	{
		for my $concerns ('one', 'all')
		{
			show_wakeups("$waiters waiting $concerns woken", $waiters == 100);
		}
	}
	measure_notifying();
	drop_database('wakeups');
	return;
}

sub show_wakeups
{
	my ($words, $has_budget) = @_;
	my $case = "wake-ups $words";
	my %budget = $has_budget ? (p50 => $BUDGET{wakeup_p50}, p99 => $BUDGET{wakeup_p99}) : ();
	for my $p (qw(p50 p99))
	{
		my ($call, $commit) = ("since_call_us_$p", "since_commit_us_$p");
		my ($run, $stops, $listen, $poll) = map { [ $case, $_ ] } qw(await_run await_stops listen poll);
		absolute("commit to await_run's return, $words; $p, us", $commit, $run, $budget{$p});
		absolute("stop to await_stops' return, $words; $p, us", $call, $stops, $budget{$p});
		compare("await_run against LISTEN, $words; $p, us", $commit, $run, $listen);
		compare("await_run against polling, $words; $p, us", $commit, $run, $poll);
		compare("await_stops against LISTEN, $words; $p, us", $call, $stops, $listen);
	}
	absolute("$_, $words; CPU of a second's wait, us", 'idle_cpu_us', [ $case, $_ ],
		$_ eq 'poll' ? undef : $BUDGET{wait_cpu}) for qw(await_run await_stops poll);
	return;
}

# Commits that notify go one after the other, the wait for the disk included: why finalize_run does not notify.
sub measure_notifying
{
	for my $sync ('off', 'on')
	{
		my $case = "notifying on each finalize $size{crowd} clients synchronous_commit=$sync";
		my $count = int($size{iterations} / $size{crowd} * ($sync eq 'on' ? 1 : 4));
		set_fsync('on') if $sync eq 'on';
		take_turns($case, $size{rounds}, [ 'lifecycle_notify', 'lifecycle' ],
			sub { pgbench('wakeups', $_[0], $size{crowd}, $count, $sync) });
		set_fsync('off') if $sync eq 'on';
		compare("$case, against not; a second", 'per_second', [ $case, 'lifecycle_notify' ], [ $case, 'lifecycle' ]);
	}
	return;
}

# ---- deferred finalizations ----

sub measure_deferred
{
	my $case = 'deferred finalization';
	new_database('deferred');
	take_turns($case, $size{rounds}, ['ours'], sub { wakeups('deferred', 'deferred', -c => 5, -n => $size{deferred}) });
	take_turns('nothing deferred', 1, ['ours'], sub { watch_idle() });
	drop_database('deferred');

	absolute("$case, from the lock's release to applied; $_, us", "since_commit_us_$_", [ $case, 'ours' ],
		$_ eq 'max' ? $BUDGET{deferred_max} : undef) for qw(p50 max);
	absolute('nothing deferred; workers started in 10 s', 'workers', [ 'nothing deferred', 'ours' ],
		$BUDGET{idle_workers});
	absolute('nothing deferred; CPU of the launcher in 10 s, us', 'launcher_cpu_us', [ 'nothing deferred', 'ours' ]);
	return;
}

# Ten seconds in which there is nothing to do: the workers that were started, each of which is a process of the
# postmaster's, and the launcher's CPU time.
sub watch_idle
{
	my ($launcher) = processes(qr/ai_chat_run launcher/);
	my %seen;
	my $cpu = sub { return (lines("/proc/$launcher/schedstat"))[0] =~ s/ .*//r };

	pause(0.2) while processes(qr/ai_chat_run worker/);
	my $before = $cpu->();
	for (1 .. 500)
	{
		$seen{$_} = 1 for processes(qr/ai_chat_run worker/);
		pause(0.02);
	}
	return { workers => scalar keys %seen, launcher_cpu_us => ($cpu->() - $before) / 1000 };
}

1;
