# The rules for the table: what the snapshots after each server start, the audit and the last state say, against each
# other and against what the clients were told. Rules 1, 2, 4 and 5.
package Table;

use strict;
use warnings;
use Exporter 'import';
use Evidence;
use History;
use Spans;
use Verdict;

our @EXPORT = qw(judge_snapshot_line judge_snapshots judge_audit judge_table);

# ---- after a server start ----

my $complete = 0;			# the lives whose snapshots are known to be complete, or are found not to be
my %active_in;				# the active runs of the snapshot that is being read, by chat

# judge_snapshot_line(HISTORY, RUN, CHAT'S ID, STATUS, ERROR, LIFE, EVIDENCE)
sub judge_snapshot_line
{
	my ($history, $run, $chat, $status, $error, $life, $seen) = @_;
	judge_snapshots($history, $life->{number} - 1);
	$run->{life} = $life->{number};
	if ($run->{begun_in} && $run->{begun_in}{id} ne $chat)
	{
		violation(4, "run $run->{id} was begun in another chat", $run->{known}, $seen);
	}
	if ($IS_ACTIVE{$status})
	{
		see_active($run, $seen);
		judge_active_after_start($history, $run, $chat, $life, $seen);
	}
	elsif ($run->{told} && $run->{told}[R_TIME] < $life->{to} && told_status($run) ne $status)
	{
		violation(3, "run $run->{id} is $status, but a finalizer was told another end", $run->{told}, $seen);
	}
	else
	{
		checked(5) if $run->{known} && $run->{known}[R_TIME] < $life->{from};
		see_terminal($run, $seen, $status);
	}
	return;
}

# The boot sweep is done: whatever is active was begun since the server has started. The life before may have answered a
# while after the fault was about to happen.
sub judge_active_after_start
{
	my ($history, $run, $chat, $life, $seen) = @_;
	checked(1);
	violation(1, "chat $chat has more than one active run", $active_in{$chat}, $seen) if $active_in{$chat};
	$active_in{$chat} //= $seen;

	checked(5);
	my @begins = (@{ $run->{begins} // [] }, @{ ($history->{chats}{$chat} // {})->{unknown} // [] });
	if ($run->{known}[R_TIME] < $life->{from})
	{
		violation(5, "run $run->{id} was begun before the server went down, and is still active after the boot sweep",
			$run->{known}, $life->{fault}, $life->{up}, $seen);
	}
	elsif (!grep { $_->[R_TIME] > $life->{from} && $_->[C_TIME] < $seen->[R_TIME] } @begins)
	{
		violation(5, "run $run->{id} is active after the boot sweep, but nobody can have begun it since the server went down",
			@begins[ 0 .. ($#begins < 3 ? $#begins : 3) ], $life->{fault}, $life->{up}, $seen);
	}
	return;
}

# judge_snapshots(HISTORY, LIFE): no more is to come of the snapshots up to that of this life.
sub judge_snapshots
{
	my ($history, $up_to) = @_;
	while ($complete < $up_to)
	{
		my $life = $history->{lives}[ $complete++ ];
		%active_in = ();
		for my $run (values %{ $history->{runs} })
		{
			next if !$run->{known} || $run->{known}[R_TIME] >= $life->{to};
			checked(4);
			violation(4, "run $run->{id} was begun, but is not in the table in life $life->{number}", $run->{known}, $life->{up})
			  if ($run->{life} // 0) != $life->{number};
		}
	}
	return;
}

# ---- the audit ----

# judge_audit(HISTORY): changes that are committed in the same microsecond are taken for one moment. That is so for those
# of one transaction, and of two it says less than it might.
sub judge_audit
{
	my ($history) = @_;
	my @changes = sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @{ $history->{audit} };
	my (%active, %begun);
	for my $i (0 .. $#changes)
	{
		my ($time, $number, $run, $chat, $old, $new, $line) = @{ $changes[$i] };
		my $change = driver_line($history, $line);
		judge_change($run, $old, $new, $change);
		$run->{audited} = $new;
		$run->{audit} = $change;
		delete $active{ $chat->{id} }{ $run->{id} };
		$active{ $chat->{id} }{ $run->{id} } = $begun{ $chat->{id} } = $change if $IS_ACTIVE{$new};
		next if $i < $#changes && $changes[ $i + 1 ][0] == $time;

		for my $id (sort keys %begun)
		{
			checked(1);
			my @active = sort { $a->[C_LINE] <=> $b->[C_LINE] } values %{ $active{$id} };
			violation(1, "chat $id had more than one active run", @active) if @active > 1;
		}
		%begun = ();
	}
	return;
}

sub judge_change
{
	my ($run, $old, $new, $change) = @_;
	checked(2);
	my $was = $run->{audited} // '-';
	if ($new eq '-')
	{
		violation(4, "run $run->{id} was deleted", $run->{audit}, $change);
	}
	elsif ($IS_TERMINAL{$old})
	{
		violation(2, "run $run->{id} was $old and became $new", $run->{audit}, $change);
	}
	elsif ($old ne $was)
	{
		violation(2, "run $run->{id} was $was, and the next change is one from $old", $run->{audit}, $change);
	}
	return;
}

# ---- the last state ----

# judge_table(HISTORY): makes the spans of time in which the chats' runs were active, too.
sub judge_table
{
	my ($history) = @_;
	for my $observed (@{ $history->{observed} })
	{
		my ($line, $chat, $count) = @$observed;
		violation(1, "chat $chat had $count active runs in one snapshot", driver_line($history, $line));
	}
	for my $run (sort { $a->{id} cmp $b->{id} } values %{ $history->{runs} })
	{
		if ($run->{row})
		{
			judge_row($run);
			push @{ $run->{chat}{runs} }, $run;
		}
		else
		{
			judge_missing($run);
		}
	}
	judge_chat($_) for values %{ $history->{chats} };
	return;
}

# rule_of(EVIDENCE): which rule is broken if it is not true. To look at the row is a matter of rule 2.
my %RULE = (finalize_run => 3, heartbeat => 8, record_step => 8, await_stop => 8, supersede_run => 10);

sub rule_of
{
	my ($evidence) = @_;
	return $RULE{ $evidence->[NAME] } // 2;
}

# That of a supersede_run is a matter of rule 10.
sub judge_missing
{
	my ($run) = @_;
	my ($begun) = grep { $_->[HOW] eq 'committed' } @{ $run->{begins} // [] };
	my $seen = $run->{terminal} // $run->{active};
	if ($begun)
	{
		checked(4);
		violation(4, "run $run->{id} was begun, but is not in the table", $begun) if $begun->[NAME] ne 'supersede_run';
	}
	elsif ($seen)
	{
		my $rule = rule_of($seen);
		violation($rule == 2 ? 4 : $rule, "run $run->{id} was seen, but is not in the table", $seen);
	}
	elsif ($run->{audit} && $run->{audited} ne '-')
	{
		violation(4, "run $run->{id} is in the audit, but not in the table", $run->{audit});
	}
	return;
}

sub judge_row
{
	my ($run) = @_;
	judge_beginning($run);

	checked(2);
	if (($run->{audited} // '-') ne $run->{status})
	{
		violation(2, "run $run->{id} is $run->{status}, which the audit does not say", $run->{audit}, $run->{row});
	}
	if ($run->{gainsaid})
	{
		violation(2, "run $run->{id} was seen with two ends", $run->{said}[1], $run->{gainsaid}[1]);
	}
	elsif ($run->{said} && $IS_TERMINAL{ $run->{status} } && $run->{said}[0] ne $run->{status})
	{
		violation(2, "run $run->{id} is $run->{status}, but was seen with another end", $run->{said}[1], $run->{row});
	}

	my ($terminal, $active) = @$run{qw(terminal active)};
	if ($terminal && $active && happened_before($terminal, $active))
	{
		violation($active->[NAME] eq 'finalize_run' ? 3 : rule_of($terminal), "run $run->{id} had ended, and was active later",
			$terminal, $active);
	}
	elsif ($terminal && !$run->{told} && $IS_ACTIVE{ $run->{status} })
	{
		violation(rule_of($terminal), "run $run->{id} is $run->{status}, but was seen as ended", $terminal, $run->{row});
	}
	return;
}

# Who may have begun it, and once.
sub judge_beginning
{
	my ($run) = @_;
	my @begins = @{ $run->{begins} // [] };
	my @committed = grep { $_->[HOW] eq 'committed' } @begins;
	checked(4);
	for my $begun (grep { $_->[CHAT] != $run->{chat} } @committed)
	{
		violation(4, "run $run->{id} was begun in another chat", $begun, $run->{row});
	}
	for my $resumed (grep { $_->[OUTCOME] eq 'resumed' } @committed)
	{
		violation(4, "run $run->{id} was resumed, but not begun before", $resumed)
		  if !grep { $_ != $resumed && $_->[C_TIME] < $resumed->[R_TIME] } @begins;
	}
	my @news = grep { is_new($_) } @committed;
	violation(4, "run $run->{id} was begun more than once", @news) if @news > 1;
	if (@begins)
	{
		violation(4, "run $run->{id} was there before anybody began it", $run->{known}, @begins)
		  if $run->{known} && $run->{known}[R_TIME] < $run->{begun_since};
	}
	elsif ($run->{taken_back})
	{
		violation(4, "the begin of run $run->{id} was rolled back, but it is in the table", $run->{taken_back}, $run->{row});
	}
	else
	{
		push @{ $run->{chat}{unexplained} }, $run;
	}
	return;
}

# begin_run does not tell whether a given run was there.
sub is_new
{
	my ($begin) = @_;
	return $begin->[OUTCOME] =~ /^(began|superseded)$/ && !($begin->[NAME] eq 'begin_run' && $begin->[ARGUMENT] eq 'given');
}

# ---- a chat ----

sub judge_chat
{
	my ($chat) = @_;
	my @runs = @{ $chat->{runs} // [] };
	checked(1);
	my @active = grep { $IS_ACTIVE{ $_->{status} } } @runs;
	violation(1, "chat $chat->{id} has more than one active run", map { $_->{row} } @active) if @active > 1;

	$chat->{certain} = spans(map { [ $_->{known}[R_TIME], $_->{active}[C_TIME], $_ ] }
		grep { $_->{active} && $_->{known}[R_TIME] < $_->{active}[C_TIME] } @runs);
	$chat->{possible} = spans(map { [ begun_since($_), $_->{terminal} ? $_->{terminal}[R_TIME] : FOREVER, $_ ] } @runs);
	for (overlapping($chat->{certain}))
	{
		my ($x, $y) = @$_;
		violation(1, "chat $chat->{id} had two active runs, $x->{id} and $y->{id}",
			@$x{qw(known active)}, @$y{qw(known active)});
	}
	judge_unexplained($chat);
	return;
}

# Runs whose ids no client knows: each needs a begin of its own whose answer was lost, sent before the run was first seen.
sub judge_unexplained
{
	my ($chat) = @_;
	my @lost = sort { $a->[C_TIME] <=> $b->[C_TIME] } @{ $chat->{unknown} // [] };
	my $first_seen = sub { $_[0]{known} ? $_[0]{known}[R_TIME] : FOREVER };
	for my $run (sort { $first_seen->($a) <=> $first_seen->($b) } @{ $chat->{unexplained} // [] })
	{
		if (@lost && $lost[0][C_TIME] < $first_seen->($run))
		{
			shift @lost;
		}
		else
		{
			violation(4, "run $run->{id} of chat $chat->{id} was begun by nobody", $run->{known}, $run->{row});
		}
	}
	return;
}

1;
