# The rules for single answers. Rules 7 to 12.
package Answers;

use strict;
use warnings;
use Exporter 'import';
use Ends;
use Evidence;
use History;
use List::Util 'any';
use Spans;
use Verdict;

our @EXPORT = qw(judge_answers judge_waiting late_wakings);

my %JUDGE = (
	begin_run => [ \&judge_begin, \&judge_busy ],
	try_begin_run => [ \&judge_begin, \&judge_busy ],
	record_step => [ \&judge_signal, \&judge_not_found ],
	heartbeat => [ \&judge_signal, \&judge_not_found ],
	request_stop => [ \&judge_stop ],
	request_stop_for_chat => [ \&judge_stop ],
	finalize_run => [ \&judge_not_found ],
	supersede_run => [ \&judge_supersede ],
	await_run => [ \&judge_not_found, \&judge_await ],
	await_stop => [ \&judge_signal, \&judge_not_found ],
	await_stops => [ \&judge_stops ],
	get_active_for_chat => [ \&judge_look ],
	get_run => [ \&judge_not_found, \&judge_look ],
	attach_runner => []);

# What they may say, if it is not an error. A request_stop_for_chat returns the run, a client may write it down twice.
my $UUID = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;
my %OUTCOMES = (
	begin_run => qr/began/,
	try_begin_run => qr/began|resumed|busy/,
	record_step => qr/continue|stop|finalized|not_found|null/,
	heartbeat => qr/continue|stop|finalized|not_found|null/,
	request_stop => qr/true|false/,
	request_stop_for_chat => qr/$UUID|null/,
	finalize_run => qr/finalized|already_finalized|deferred|not_found/,
	supersede_run => qr/superseded|began|mismatch|timeout/,
	await_run => qr/succeeded|failed|aborted|not_found|null/,
	await_stop => qr/stop|finalized|not_found|null/,
	await_stops => qr/null|\{(?:$UUID(?:,$UUID)*)?\}/,
	get_active_for_chat => qr/pending|running|none/,
	get_run => qr/pending|running|succeeded|failed|aborted|none/,
	attach_runner => qr/\d+/);

my $SECOND = 1_000_000;
my $late_wakings = 0;

sub judge_answers
{
	my ($history) = @_;
	for my $call (@{ $history->{calls} })
	{
		checked(12);
		if (!is_answered($call))
		{
			judge_lost($history, $call);
			next;
		}
		if (is_error($call))
		{
			violation(12, "$call->[NAME] must not raise $call->[OUTCOME] here", $call) if !is_expected($history, $call);
		}
		elsif ($call->[OUTCOME] !~ /^(?:$OUTCOMES{ $call->[NAME] })$/)
		{
			violation(12, "$call->[NAME] does not return \"$call->[OUTCOME]\"", $call);
		}
		$_->($history, $call) for @{ $JUDGE{ $call->[NAME] } };
	}
	return;
}

# ---- rule 12 ----

sub is_error
{
	my ($call) = @_;
	return $call->[HOW] eq 'rolled_back' && is_sqlstate($call->[OUTCOME]);
}

# What may break a connection. A full disk may bring down the server, if it is that of the WAL.
my @BREAKING = qw(kill_backend kill_launcher kill_worker kill_postmaster stop_immediate stop_fast terminate_backend
  full_disk);

sub judge_lost
{
	my ($history, $call) = @_;
	violation(12, 'the connection was lost, though nothing had been broken', $call)
	  if $call->[R_LINE] && !fault_before($history, $call->[R_TIME], @BREAKING);
	return;
}

# Which calls look, wait or note only, and which may meet other transactions.
my %READS = map { $_ => 1 } qw(get_run get_active_for_chat await_run await_stop await_stops);
my %NOTES = map { $_ => 1 } qw(record_step heartbeat);
my %STOPS = map { $_ => 1 } qw(request_stop request_stop_for_chat);

# is_expected(HISTORY, CALL): whether the contract allows that error here.
#
#	57014			a cancel (or a timeout of the client's own): ends every call
#	57P01-57P03, 08	the server, or the session, is ended, or starts
#	40001			a serialization failure of the client's own transaction, if it asked for such a one
#	RN409			begin_run only: try_begin_run says busy
#	23505			a begin with an id that another chat's run has
#	22023			supersede_run with a target of another chat
#	55006			attach_runner, where another session has the name
#	53100			what writes, when the disk is full; but record_step and heartbeat only warn
#	40P01, 55P03	what writes, where somebody else has the lock; but record_step and heartbeat only warn, request_stop
#					has shared memory, and finalize_run defers
#	RN500 and these	finalize_run, if not even its decision could be recorded
#
# There is no reason for anything else: the server is preloaded and no standby, the calls are in transactions of their
# own, and their arguments are sound.
sub is_expected
{
	my ($history, $call) = @_;
	my ($name, $state) = @$call[ NAME, OUTCOME ];
	my $before = sub { fault_before($history, $call->[R_TIME], @_) };

	return 1 if $state eq '57014' || $state eq '40001';
	return $before->(@BREAKING) if $state =~ /^(57P0[123]|08...)$/;
	return $name eq 'begin_run' if $state eq 'RN409';
	return id_of_another_chat($call) if $state eq '23505';
	return $name eq 'supersede_run' && in_another_chat($call->[RUN], $call) if $state eq '22023';
	return $name eq 'attach_runner' && name_in_use($history, $call) if $state eq '55006';
	return 0 if $NOTES{$name};
	return $name eq 'finalize_run' && record_hindered($history, $call) if $state eq 'RN500';
	return 0 if $state !~ /^(53100|40P01|55P03)$/;
	return $state eq '55P03' && $before->('lock_table') if $READS{$name};
	return 0 if $state eq '53100' && !$before->('full_disk');
	return record_hindered($history, $call) if $name eq 'finalize_run';
	return $before->(qw(lock_rows lock_table), @BREAKING) if $STOPS{$name} && $state eq '55P03';
	return 1;
}

# The record of a decision needs the table of records, room on the disk, and no uncommitted record of the same run: one
# that another finalizer, or a departure, writes, or that is being applied.
sub record_hindered
{
	my ($history, $call) = @_;
	return fault_before($history, $call->[R_TIME], qw(lock_table full_disk))
	  || attached_before($history, $call->[R_TIME])
	  || any { $_ != $call && $_->[C_TIME] < $call->[R_TIME] } @{ $call->[RUN]{finalizers} };
}

sub id_of_another_chat
{
	my ($call) = @_;
	return $call->[NAME] =~ /^(try_)?begin_run$/ && $call->[ARGUMENT] eq 'given' && in_another_chat($call->[RUN], $call);
}

# Whether the run was in another chat than that of the call by then.
sub in_another_chat
{
	my ($run, $call) = @_;
	return grep { $_->[CHAT] != $call->[CHAT] && $_->[C_TIME] < $call->[R_TIME] } @{ $run->{begins} // [] };
}

sub name_in_use
{
	my ($history, $call) = @_;
	return any { $_ != $call && $_->[C_TIME] < $call->[R_TIME] } @{ $history->{attached_as}{ $call->[ARGUMENT] } // [] };
}

# ---- begin, rules 4 and 9 ----

sub judge_begin
{
	my ($history, $call) = @_;
	return if $call->[OUTCOME] !~ /^(began|resumed)$/;
	my ($run, $given) = ($call->[ANSWER], $call->[ARGUMENT] eq 'given' ? $call->[RUN] : undef);
	checked(4);
	if (!$run || ($given && $run != $given))
	{
		violation(4, "$call->[NAME] did not return the id of the run", $call);
	}
	elsif ($call->[OUTCOME] eq 'resumed' && !$given)
	{
		violation(4, 'a run was resumed, but no id was given', $call);
	}
	elsif ($call->[HOW] eq 'committed' && !may_be_resumed($call))
	{
		judge_slot($call, 9);
	}
	return;
}

# begin_run does not say so.
sub may_be_resumed
{
	my ($call) = @_;
	return $call->[OUTCOME] eq 'resumed' || ($call->[NAME] eq 'begin_run' && $call->[ARGUMENT] eq 'given'
		&& grep { $_ != $call && $_->[C_TIME] < $call->[R_TIME] } @{ $call->[RUN]{begins} // [] });
}

# judge_slot(CALL, RULE): who began a run while another was active all the time. Not for what is rolled back: that may
# have ended the other one itself, if its end was deferred.
sub judge_slot
{
	my ($call, $rule) = @_;
	checked($rule);
	my $other = covering($call->[CHAT]{certain}, @$call[ C_TIME, R_TIME ]);
	violation($rule, "a run was begun while run $other->{id} was active", $call, @$other{qw(known active)})
	  if $other && (!$call->[ANSWER] || $other != $call->[ANSWER]);
	return;
}

# why_not_active(RUN, CALL): why the run was not active at any moment of the call.
sub why_not_active
{
	my ($run, $call) = @_;
	return 'was never begun' if !$run->{row};
	return 'was begun only later' if begun_since($run) > $call->[R_TIME];
	return 'had ended before' if happened_before($run->{terminal}, $call);
	return;
}

# While a supersede_run is at work the slot is taken, also between its target's end and the new run's begin; and until its
# session has cleaned up, which comes after an error is told.
sub being_superseded
{
	my ($call, $target) = @_;
	return any {
		(!$target || $_->[RUN] == $target)
		  && (is_unknown($_) ? $_->[C_TIME] < $call->[R_TIME] : overlap($_, $call))
	} @{ $call->[CHAT]{supersedes} // [] };
}

sub judge_busy
{
	my ($history, $call) = @_;
	return if $call->[OUTCOME] !~ /^(busy|RN409)$/;
	my $named = $call->[ANSWER];
	checked(9);
	if ($call->[ARGUMENT] eq 'given' && was_begun_here($call))
	{
		violation(4, "run $call->[RUN]{id} was there, and begin with its id did not return it", $call->[RUN]{known}, $call);
	}
	if ($named)
	{
		judge_named($call, $named, 9);
	}
	elsif (!meeting($call->[CHAT]{possible}, @$call[ C_TIME, R_TIME ]))
	{
		if (being_superseded($call)) { excused(9) }
		else { violation(9, 'the chat was busy, but none of its runs was active', $call) }
	}
	return;
}

sub was_begun_here
{
	my ($call) = @_;
	my $run = $call->[RUN];
	return happened_before($run->{known}, $call) && $run->{row} && $run->{chat} == $call->[CHAT];
}

# judge_named(CALL, RUN, RULE): the run that is in the way.
sub judge_named
{
	my ($call, $named, $rule) = @_;
	my $why = why_not_active($named, $call);
	if ($rule == 9 && $why && $why eq 'had ended before' && being_superseded($call, $named))
	{
		excused($rule);
	}
	elsif ($why)
	{
		violation($rule, "run $named->{id} was in the way, but it $why", $call, $named->{taken_back},
			$why eq 'had ended before' ? $named->{terminal} : (@{ $named->{begins} // [] })[0]);
	}
	elsif ($named->{chat} != $call->[CHAT])
	{
		violation($rule, "run $named->{id} was in the way, but it is in another chat", $call, $named->{row});
	}
	return;
}

# Rules 4 and 2, like other looks at the row.
sub judge_look
{
	my ($history, $call) = @_;
	my ($asked, $seen) = @$call[ RUN, ANSWER ];
	violation(4, "not run $seen->{id} was asked for", $call, $seen->{row})
	  if $seen && ($asked ? $seen != $asked : $seen->{row} && $seen->{chat} != $call->[CHAT]);
	return if $call->[NAME] ne 'get_active_for_chat' || $call->[OUTCOME] ne 'none';
	checked(2);
	my $other = covering($call->[CHAT]{certain}, @$call[ C_TIME, R_TIME ]);
	violation(2, "no run was seen while run $other->{id} was active", $call, @$other{qw(known active)}) if $other;
	return;
}

# ---- supersede_run, rule 10 ----

sub judge_supersede
{
	my ($history, $call) = @_;
	return if $call->[HOW] ne 'committed';
	my ($outcome, $run) = @$call[ OUTCOME, ANSWER ];
	checked(10);
	if ($outcome eq 'superseded' || $outcome eq 'began')
	{
		judge_superseded($call);
		judge_slot($call, 10);
	}
	elsif ($outcome eq 'mismatch' && $run)
	{
		if ($run == $call->[RUN])
		{
			violation(10, 'the target was in the way of itself', $call);
		}
		else
		{
			judge_named($call, $run, 10);
		}
	}
	elsif ($outcome eq 'mismatch')
	{
		violation(10, 'another run was in the way, but none was active', $call)
		  if !meeting($call->[CHAT]{possible}, @$call[ C_TIME, R_TIME ]);
	}
	elsif ($outcome eq 'timeout' && $run)
	{
		violation(10, 'a run was begun in spite of the timeout', $call);
	}
	return;
}

# The target may be unknown if it need not be superseded. That the new run is one of the chat is a matter of rule 4.
sub judge_superseded
{
	my ($call) = @_;
	my ($target, $run) = @$call[ RUN, ANSWER ];
	if (!$run || !$run->{row} || $run == $target)
	{
		violation(10, 'no new run was begun', $call, $run ? $run->{row} : undef);
	}
	if ($target->{row} ? $IS_ACTIVE{ $target->{status} } : $call->[OUTCOME] eq 'superseded')
	{
		violation(10, "run $target->{id} has not ended", $call, $target->{row});
	}
	return;
}

# ---- stops, rule 7 ----

# asked_before(RUN, CALL): whether anybody had asked for its stop by then. A request is not taken back.
sub asked_before
{
	my ($run, $call) = @_;
	return grep { $_ && $_->[C_TIME] < $call->[R_TIME] } $run->{stop_since}, $run->{chat}{stop_since};
}

# told_before(HISTORY, RUN, CALL): a stop that was acknowledged before the call was sent, in the same life of the server.
sub told_before
{
	my ($history, $run, $call) = @_;
	my ($stop) = grep {
		happened_before($_, $call) && !life_ended_between($history, $_->[C_TIME], $call->[R_TIME])
	} @{ $run->{stops} // [] };
	return $stop;
}

sub judge_stop
{
	my ($history, $call) = @_;
	my ($outcome, $answer) = @$call[ OUTCOME, ANSWER ];
	my $of_chat = $call->[NAME] eq 'request_stop_for_chat';
	my $run = $of_chat ? $answer : $outcome eq 'true' ? $call->[RUN] : undef;
	return if is_error($call);
	checked(7);
	if ($run)
	{
		violation(7, "run $run->{id} was to be stopped after its end", $run->{told}, $call)
		  if happened_before($run->{told}, $call);
		violation(7, "run $run->{id} was to be stopped, but was never begun", $run->{taken_back}, $call) if !$run->{row};
		return;
	}

	# What is deferred may have ended it, in a way.
	my $active = active_run($call);
	return if !$active;
	return if attached_before($history, $call->[R_TIME])
	  || grep { $_->[C_TIME] < $call->[R_TIME] } @{ $active->{ends} // [] };
	violation(7, "run $active->{id} was active, but there was nothing to stop", $call, @$active{qw(known active)});
	return;
}

# active_run(CALL): a run that could have been stopped, all the time.
sub active_run
{
	my ($call) = @_;
	return covering($call->[CHAT]{certain}, @$call[ C_TIME, R_TIME ]) if $call->[NAME] eq 'request_stop_for_chat';
	my $run = $call->[RUN];
	return $run if $run->{active} && happened_before($run->{known}, $call) && $run->{active}[C_TIME] > $call->[R_TIME];
	return;
}

sub judge_stops
{
	my ($history, $call) = @_;
	for my $run (map { run_of($history, $_) } $call->[OUTCOME] =~ /$UUID/g)
	{
		judge_still_there($run, $call);
		judge_reason($run, $call);
	}
	return;
}

sub judge_reason
{
	my ($run, $call) = @_;
	return if !$run->{row};
	checked(7);
	violation(7, "nobody had asked for the stop of run $run->{id}", $call) if !asked_before($run, $call);
	return;
}

# ---- signals, rules 7 and 8 ----

sub judge_signal
{
	my ($history, $call) = @_;
	my ($run, $signal) = @$call[ RUN, OUTCOME ];
	checked(8) if $signal =~ /^(continue|stop|finalized)$/;
	judge_still_there($run, $call) if $signal =~ /^(continue|stop)$/;
	if ($signal eq 'stop')
	{
		judge_reason($run, $call);
	}
	elsif ($signal eq 'continue' || ($signal eq 'null' && $call->[NAME] eq 'await_stop'))
	{
		my $stop = told_before($history, $run, $call);
		checked(7) if $run->{stops};
		violation(7, "run $run->{id} was not told of its stop", $stop, $call) if $stop;
	}
	return;
}

# Shared memory must not know more than the table, and learns of an end at the latest when the finalizer does.
sub judge_still_there
{
	my ($run, $call) = @_;
	if (!$run->{row})
	{
		violation(8, "run $run->{id} was never begun, but has a signal", $run->{taken_back}, $call);
	}
	elsif (begun_since($run) > $call->[R_TIME])
	{
		violation(8, "run $run->{id} was begun only later, but has a signal", $call, $run->{begins}[0]);
	}
	elsif (happened_before($run->{told}, $call))
	{
		violation(8, "run $run->{id} had ended, but its signal is \"$call->[OUTCOME]\"", $run->{told}, $call);
	}
	return;
}

sub judge_not_found
{
	my ($history, $call) = @_;
	return if $call->[OUTCOME] !~ /^(not_found|none)$/;
	my $run = $call->[RUN];
	checked(8);
	violation(8, "run $run->{id} was begun, but not found", $run->{known}, $call) if happened_before($run->{known}, $call);
	return;
}

# ---- waiting, rule 11 ----

sub judge_await
{
	my ($history, $call) = @_;
	return if $call->[OUTCOME] ne 'null';
	my $end = $call->[RUN]{terminal};
	checked(11);
	violation(11, "run $call->[RUN]{id} had ended, but its end was awaited in vain", $end, $call)
	  if happened_before($end, $call);
	$late_wakings++ if $end && $end->[R_TIME] > $call->[C_TIME] && $end->[R_TIME] + $SECOND < $call->[R_TIME];
	return;
}

# How often somebody waited for more than a second after the end was known to another, and in vain. On a machine that is
# very busy this proves nothing, so there is no rule.
sub late_wakings
{
	return $late_wakings;
}

# judge_waiting(HISTORY): all clients have ended, and only those that were killed have left a call without an answer.
sub judge_waiting
{
	my ($history) = @_;
	checked(11);
	if ($history->{phase} ne 'clients_gone')
	{
		violation(11, "clients are stuck: $history->{waiting_for}", $history->{phase_line});
		return;
	}
	my @silent = grep { !$_->[R_LINE] } @{ $history->{calls} };
	my $killed = @{ $history->{faults}{kill_client} // [] };
	violation(11, "clients were killed $killed times, but more calls than that have no answer", @silent)
	  if @silent > $killed;
	return;
}

1;
