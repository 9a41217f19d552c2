# The rules for how a run ends: who was told so, whether anybody had decided it, and what became of a decision that was
# deferred. Rules 3, 5 (the error that the boot sweep writes) and 6.
package Ends;

use strict;
use warnings;
use Exporter 'import';
use Evidence;
use History;
use List::Util qw(any max);
use Verdict;

our @EXPORT = qw(judge_ends table_may_be_locked);

# Texts of the contract, and of the README.
my $BOOT = 'Run interrupted by a server restart.';
my $SILENT = 'Run aborted: its runner has been silent for too long.';
my $RESTARTED = 'Run interrupted by a restart of its runner.';
my $DEPARTED = 'Run aborted: its runner has departed.';

sub judge_ends
{
	my ($history) = @_;
	for my $run (sort { $a->{id} cmp $b->{id} } values %{ $history->{runs} })
	{
		if ($run->{row})
		{
			judge_tellings($run);
			judge_origin($history, $run) if $IS_TERMINAL{ $run->{status} };
		}
		judge_deferral($history, $run, $_) for @{ $run->{deferrals} // [] };
	}
	for my $left (@{ $history->{left} })
	{
		my ($line, $run, $status) = @$left;
		violation(6, "the end of run $run->{id}, $status, is still deferred", driver_line($history, $line));
	}
	return;
}

# Exactly one finalizer is told, and what it was told stands.
sub judge_tellings
{
	my ($run) = @_;
	my @told = @{ $run->{tellings} // [] } or return;
	checked(3);
	violation(3, "more than one finalizer of run $run->{id} was told that it wrote the end", @told) if @told > 1;
	for my $told (grep { status_of($_) ne $run->{status} } @told)
	{
		violation(3, "run $run->{id} is $run->{status}, but a finalizer was told another end", $told, $run->{row});
	}
	return;
}

# ---- where an end comes from ----

# Nobody ends a run but those who are asked to, and the boot sweep.
sub judge_origin
{
	my ($history, $run) = @_;
	my $seen = $run->{terminal} ? $run->{terminal}[R_TIME] : FOREVER;
	my @lives = grep { $_->{from} < $seen && $_->{to} > begun_since($run) } @{ $history->{lives} };
	checked(3);
	if ($run->{status} eq 'aborted' && $run->{error} eq $BOOT)
	{
		checked(5);
		violation(5, "run $run->{id} is told to have been interrupted by a server restart, but there was none meanwhile",
			$run->{begins} ? $run->{begins}[0] : undef, $run->{terminal}, $run->{row})
		  if !@lives;
		return;
	}
	return if grep { $_->[C_TIME] < $seen && status_of($_) eq $run->{status} } @{ $run->{ends} // [] };
	return if $run->{status} eq 'aborted' && $run->{error} ne $SILENT
	  && (@lives || attached_before($history, $seen) || grep { $_->[C_TIME] < $seen } @{ $run->{forced} // [] });
	violation(3, "run $run->{id} is $run->{status}, which nobody had asked for", $run->{terminal}, $run->{row});
	return;
}

# ---- deferred ends ----

# table_may_be_locked(HISTORY, CALL): then a call does not see that a run has ended. How long the lock is held, nobody
# says; it does not survive the server.
sub table_may_be_locked
{
	my ($history, $call) = @_;
	my ($sent, $answered) = @$call[ C_TIME, R_TIME ];
	my $since = max(0, map { $_->{from} } grep { $_->{to} < $sent } @{ $history->{lives} });
	return any { $_->[C_TIME] >= $since && $_->[C_TIME] < $answered } @{ $history->{faults}{lock_table} // [] };
}

sub judge_deferral
{
	my ($history, $run, $deferring) = @_;
	my $decided = $deferring->[DETAIL];
	my $locked = table_may_be_locked($history, $deferring);
	checked(6);
	if (!$IS_TERMINAL{$decided})
	{
		violation(6, "the end of run $run->{id} was deferred without the warning that says so", $deferring);
		return;
	}
	if (happened_before($run->{terminal}, $deferring))
	{
		if (!$locked)
		{
			violation(3, "the end of run $run->{id} was deferred after it had ended", $run->{terminal}, $deferring);
			return;
		}
		excused(3);
	}
	if (!$run->{row})
	{
		if ($locked) { excused(6) }
		else { violation(6, "the end of run $run->{id} was deferred, but there is no such run", $deferring) }
	}
	elsif ($run->{status} ne $decided)
	{
		if (somebody_was_writing($history, $run, $deferring, $locked)) { excused(6) }
		else { violation(6, "run $run->{id} is $run->{status}, but $decided was deferred", $deferring, $run->{row}) }
	}
	return;
}

# What was deferred is moot if somebody else, who had the row already when it was recorded, has committed since. He must
# have been at it while the deferring call was, or else that would have seen the end, or he would have seen what is
# deferred. Only where the table is locked may the call have missed an end that was written before.
#
#	 - a finalize_run that was told so, or whose answer is unknown, with the status that the run has
#	 - a supersede_run with force of that run
#	 - the boot sweep, from the fault until it is done, if the run may be from before. It applies what is deferred before
#	   it aborts anything, so it does not excuse the loss of what was deferred in the life before
#	 - attach_runner for a new incarnation, and the worker that aborts the runs of a departed runner, of which we know
#	   only that somebody must have attached before
sub somebody_was_writing
{
	my ($history, $run, $deferring, $locked) = @_;
	my $status = $run->{status};
	my $at_it = sub {
		my ($call) = @_;
		return $call != $deferring && ($locked ? $call->[C_TIME] < $deferring->[R_TIME] : overlap($call, $deferring));
	};
	return 1 if grep { status_of($_) eq $status && $_->[OUTCOME] ne 'deferred' && $at_it->($_) } @{ $run->{ends} // [] };
	return 0 if $status ne 'aborted';
	return 1 if grep { $at_it->($_) } @{ $run->{forced} // [] };

	my ($error, $sent, $answered) = ($run->{error}, $deferring->[C_TIME], $deferring->[R_TIME]);
	my @starts = grep { $_->{to} > begun_since($run) && $_->{from} < $answered } @{ $history->{lives} };
	return 1 if $error eq $BOOT && grep { $locked || $_->{to} > $sent } @starts;
	return 1 if $error eq $RESTARTED && grep { $at_it->($_) } @{ $history->{attached} };
	return $error eq $DEPARTED && attached_before($history, $answered);
}

1;
