# What the answers prove about each run, boiled down to a few facts, so that a rule need not look at all calls. An answer
# was true at some moment between its C and its R. So of many answers that say the same, one says most:
#
#	known		the run is begun: the one with the earliest R
#	active		it goes on: the latest C. The run was active from the R of "known" until then
#	terminal	it has ended: the earliest R
#	told		a finalizer was told that it has written the end, and that this is committed: there must not be another
#
# All but "told" may have been seen by anybody who looks at the row. A signal may come from shared memory, which learns
# at commit; that is after others can see the row, and before the one who commits has his answer.
package Evidence;

use strict;
use warnings;
use Exporter 'import';
use History;
use List::Util 'any';

our @EXPORT = qw(learn see_active see_terminal is_unknown is_answered status_of happened_before overlap
  life_ended_between fault_before attached_before begun_since told_status);

my %STATUS = (completed => 'succeeded', error => 'failed', aborted => 'aborted');

# Its transactions are its own: what it raises, or what a client does afterwards, does not take them back.
my %IS_PROCEDURE = map { $_ => 1 } qw(supersede_run await_run await_stop await_stops);

# Waiting for a stop or an end is a look, too.
my %LEARN = (
	begin_run => \&learn_begin,
	try_begin_run => \&learn_begin,
	supersede_run => \&learn_supersede,
	record_step => \&learn_signal,
	heartbeat => \&learn_signal,
	await_stop => \&learn_signal,
	request_stop => \&learn_stop,
	request_stop_for_chat => \&learn_stop_for_chat,
	finalize_run => \&learn_finalize,
	await_run => \&learn_status,
	get_run => \&learn_status,
	get_active_for_chat => \&learn_status,
	await_stops => sub { },
	attach_runner => \&learn_attach);

# learn(HISTORY): from all calls.
sub learn
{
	my ($history) = @_;
	@$history{qw(attached attached_as attached_since)} = ([], {}, FOREVER);
	$LEARN{ $_->[NAME] }->($_, $history) for @{ $history->{calls} };
	return;
}

# ---- what a call can have done ----

# Whether its transaction may be committed, or not: the connection was lost, or the client has been told of its own end,
# which says nothing of a commit just before.
sub is_unknown
{
	my ($call) = @_;
	return $call->[HOW] eq 'unknown'
	  || ($call->[HOW] eq 'rolled_back' && ($IS_PROCEDURE{ $call->[NAME] } || $call->[OUTCOME] =~ /^(57P0|08)/));
}

sub is_undone
{
	my ($call) = @_;
	return $call->[HOW] ne 'committed' && !is_unknown($call);
}

sub is_answered
{
	my ($call) = @_;
	return $call->[HOW] ne 'unknown';
}

# The status that a finalize_run asks for.
sub status_of
{
	my ($call) = @_;
	return $STATUS{ $call->[ARGUMENT] };
}

sub told_status
{
	my ($run) = @_;
	return status_of($run->{told});
}

# ---- time ----

# happened_before(EVIDENCE, CALL): it was there when the call was sent.
sub happened_before
{
	my ($evidence, $call) = @_;
	return $evidence && $evidence->[R_TIME] < $call->[C_TIME];
}

# overlap(CALL, CALL): both were in progress at one time. A lost connection has taken its call along; what a killed client
# has left may go on.
sub overlap
{
	my ($x, $y) = @_;
	return $x->[C_TIME] < $y->[R_TIME] && $y->[C_TIME] < $x->[R_TIME];
}

# life_ended_between(HISTORY, FROM, TO): perhaps.
sub life_ended_between
{
	my ($history, $from, $to) = @_;
	return grep { $_->{from} < $to && $_->{to} > $from } @{ $history->{lives} };
}

# fault_before(HISTORY, TIME, FAULT...): whether one of these kinds came before.
sub fault_before
{
	my ($history, $time, @faults) = @_;
	my $met = $history->{faults};
	return any { $met->{$_} && $met->{$_}[0][C_TIME] < $time } @faults;
}

# attached_before(HISTORY, TIME): whether a runner had, perhaps; its departure has runs aborted.
sub attached_before
{
	my ($history, $time) = @_;
	return $history->{attached_since} < $time;
}

# begun_since(RUN): the earliest moment at which it may have been committed.
sub begun_since
{
	my ($run) = @_;
	return $run->{begun_since} // 0;
}

# ---- learning ----

sub know
{
	my ($run, $evidence) = @_;
	$run->{known} = $evidence if !$run->{known} || $evidence->[R_TIME] < $run->{known}[R_TIME];
	return;
}

sub see_active
{
	my ($run, $evidence) = @_;
	know($run, $evidence);
	$run->{active} = $evidence if !$run->{active} || $evidence->[C_TIME] > $run->{active}[C_TIME];
	return;
}

# see_terminal(RUN, EVIDENCE, STATUS): the status is that which was seen, if it was.
sub see_terminal
{
	my ($run, $evidence, $status) = @_;
	know($run, $evidence);
	$run->{terminal} = $evidence if !$run->{terminal} || $evidence->[R_TIME] < $run->{terminal}[R_TIME];
	return if !defined $status;
	$run->{said} //= [ $status, $evidence ];
	$run->{gainsaid} //= [ $status, $evidence ] if $status ne $run->{said}[0];
	return;
}

sub see
{
	my ($run, $evidence, $status) = @_;
	see_active($run, $evidence) if $IS_ACTIVE{$status};
	see_terminal($run, $evidence, $status) if $IS_TERMINAL{$status};
	return;
}

# begins(RUN, CALL): it may have begun it; a committed answer proves that somebody has.
sub begins
{
	my ($run, $call) = @_;
	push @{ $run->{begins} }, $call;
	$run->{begun_since} = $call->[C_TIME] if $call->[C_TIME] < ($run->{begun_since} // FOREVER);
	return if $call->[HOW] ne 'committed';
	know($run, $call);
	$run->{begun_in} //= $call->[CHAT];
	return;
}

sub learn_begin
{
	my ($call) = @_;
	my $given = $call->[ARGUMENT] eq 'given' ? $call->[RUN] : undef;
	if (is_unknown($call))
	{
		if ($given)
		{
			begins($given, $call);
		}
		else
		{
			push @{ $call->[CHAT]{unknown} }, $call;
		}
	}
	elsif ($call->[OUTCOME] =~ /^(began|resumed)$/ && $call->[ANSWER])
	{
		if ($call->[HOW] eq 'committed')
		{
			begins($call->[ANSWER], $call);
		}
		else
		{
			$call->[ANSWER]{taken_back} //= $call;
		}
	}
	return;
}

sub learn_supersede
{
	my ($call) = @_;
	my $target = $call->[RUN];
	my $committed = $call->[HOW] eq 'committed';
	push @{ $call->[CHAT]{supersedes} }, $call;
	push @{ $call->[CHAT]{unknown} }, $call if !$committed;
	ask_to_stop($target, $call);
	push @{ $target->{forced} }, $call
	  if $call->[ARGUMENT] eq 'force' && (!$committed || $call->[OUTCOME] eq 'superseded');
	return if !$committed;
	begins($call->[ANSWER], $call) if $call->[OUTCOME] =~ /^(superseded|began)$/ && $call->[ANSWER];
	see_terminal($target, $call) if $call->[OUTCOME] eq 'superseded';
	return;
}

# "continue" and "stop" are not evidence for the row.
sub learn_signal
{
	my ($call) = @_;
	see_terminal($call->[RUN], $call) if $call->[OUTCOME] eq 'finalized';
	return;
}

# ask_to_stop(RUN OR CHAT, CALL): the flag in shared memory is not taken back.
sub ask_to_stop
{
	my ($what, $call) = @_;
	$what->{stop_since} = $call if !$what->{stop_since} || $call->[C_TIME] < $what->{stop_since}[C_TIME];
	return;
}

sub learn_stop
{
	my ($call) = @_;
	ask_to_stop($call->[RUN], $call);
	push @{ $call->[RUN]{stops} }, $call if $call->[HOW] eq 'committed' && $call->[OUTCOME] eq 'true';
	return;
}

# The answer is the run, which a client may write as the outcome only.
sub learn_stop_for_chat
{
	my ($call, $history) = @_;
	$call->[ANSWER] //= run_of($history, $call->[OUTCOME]) if $call->[OUTCOME] =~ /^[0-9a-f]{8}-/;
	ask_to_stop($call->[CHAT], $call);
	push @{ $call->[ANSWER]{stops} }, $call if $call->[HOW] eq 'committed' && $call->[ANSWER];
	return;
}

# One that is rolled back may have met an end that it had applied itself, as deferred.
sub learn_finalize
{
	my ($call) = @_;
	my $run = $call->[RUN];
	push @{ $run->{finalizers} }, $call;
	return if is_undone($call) && $call->[OUTCOME] ne 'finalized';
	see_active($run, $call) if $call->[OUTCOME] eq 'finalized';
	return if is_undone($call);
	push @{ $run->{ends} }, $call if is_unknown($call) || $call->[OUTCOME] =~ /^(finalized|deferred)$/;
	return if $call->[HOW] ne 'committed';
	push @{ $run->{deferrals} }, $call if $call->[OUTCOME] eq 'deferred';
	see_terminal($run, $call) if $call->[OUTCOME] =~ /^(finalized|already_finalized)$/;
	return if $call->[OUTCOME] ne 'finalized';
	push @{ $run->{tellings} }, $call;
	$run->{told} //= $call;
	return;
}

sub learn_status
{
	my ($call) = @_;
	my $run = $call->[NAME] eq 'await_run' ? $call->[RUN] : $call->[ANSWER];
	see($run, $call, $call->[OUTCOME]) if $run;
	return;
}

sub learn_attach
{
	my ($call, $history) = @_;
	return if is_undone($call);
	push @{ $history->{attached} }, $call;
	push @{ $history->{attached_as}{ $call->[ARGUMENT] } }, $call;
	$history->{attached_since} = $call->[C_TIME] if $call->[C_TIME] < $history->{attached_since};
	return;
}

1;
