# judge.pl DIRECTORY
#
# Judges the history of a chaos run: what clients were told while a driver broke things, against the contract. It knows
# nothing of how the extension is built, nor of how the driver works; the history is all that they share. Prints a line
# for each violation, and below it the lines of the history that prove it; then what the history consists of, and how
# often each rule was put to the test. A rule that was checked 0 times has shown nothing. Exits 0 if all is well, 1 if
# anything is violated, 2 if the history is not complete or makes no sense.
#
# It never guesses: where the order of two things cannot be known, the rule has to do without. So each violation is one.
#
# The history is a directory with files. One event a line, fields separated by tabs, text without tabs and newlines, "-"
# for nothing. A file may end within a line, where its writer was killed; such a rest is ignored. Times are microseconds
# of CLOCK_MONOTONIC, so those in different files can be compared. Ids are written as the server does.
#
# client-N.history, written by client N, a process that sends one call after the other; N is never used twice:
#
#	C time serial call chat run argument
#		before the call is sent; serial counts from 1. What the call takes:
#			begin_run, try_begin_run				chat; run and "given", if it is given an id
#			request_stop_for_chat, get_active_for_chat	chat
#			record_step								run, the count
#			finalize_run							run, the turn status
#			heartbeat, request_stop, get_run, await_run, await_stop	run
#			supersede_run							chat, the target as run, "force" or "-"
#			await_stops, attach_runner				the runner as argument
#	R time serial end outcome run detail
#		when the answer has come. Without it, the client was killed; that is as if the end were unknown.
#			end		committed	its transaction is, and the client knows
#					rolled_back	on purpose, after it returned, or by an error
#					unknown		the connection was lost
#			outcome	what it returned (begin_run "began", get_run and get_active_for_chat the status or "none"; nulls are
#					"null", booleans true or false), the SQLSTATE of an error, "lost" if the end is unknown
#			run		that which it returned; of busy, RN409 and mismatch the active one
#			detail	of "deferred" the status that the warning names
#
# driver.history, written by who breaks things:
#
#	F time fault detail
#		just before it. These end the life of the server: kill_backend, kill_launcher, kill_worker, kill_postmaster,
#		stop_immediate, stop_fast. The others: terminate_backend, cancel_backend, kill_client, lock_rows, lock_table,
#		full_disk; and "end" when there will be no more
#	U time life
#		after each end of a life: the server is there again and its boot sweep is done; life counts from 1
#	S time life run chat status error
#		after each U, one line for each run in the table, all of one snapshot taken since
#	O time chat count
#		an observer who looks at the table all the time has seen so many active runs of one chat, more than one
#	P time phase detail
#		clients_gone: all have ended by themselves after "end"; or clients_stuck, with what they wait for
#	T time run chat status error
#		in the end, one line for each run in the table
#	D time run status
#		in the end, what is left in deferred_finalizations
#	A commit_time number run chat old new
#		in the end, each change of status that was committed, "-" for the old status of a new run and the new one of a
#		deleted one. commit_time is that of the server's clock; number increases within a transaction
#
# The server is preloaded, with boot_sweep = on, synchronous_commit = on, without retention and stale sweep; all runs
# belong to one workspace.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/judge";
use Answers;
use Ends;
use Evidence;
use History;
use Table;
use Verdict;

my ($directory) = @ARGV;
defined $directory or die "usage: judge.pl DIRECTORY\n";

# A history that makes no sense is not our own fault; Perl tells of those with their place in the source.
my $history = eval { read_all($directory) };
if (!$history)
{
	die $@ if $@ =~ / line \d+\.$/;
	unusable($@ =~ s/\n\z//r);
}
my @missing = what_is_missing($history);
unusable(@missing) if @missing;

# Where clients are stuck, the rest of the history may be missing.
if ($history->{phase} eq 'clients_gone')
{
	judge_snapshots($history, scalar @{ $history->{lives} });
	judge_audit($history);
	judge_table($history);
	judge_ends($history);
	judge_answers($history);
}
judge_waiting($history);

print_violations($history);
print_summary($history);
print_rules();
printf "%d violations\n", violations();
exit(violations() ? 1 : 0);

# The snapshots are judged while they are read; that needs all that the clients know.
sub read_all
{
	my ($from) = @_;
	my $read = read_clients($from);
	learn($read);
	read_driver($read, sub { judge_snapshot_line($read, @_) });
	return $read;
}

sub unusable
{
	my (@reasons) = @_;
	print "not usable: $_\n" for @reasons;
	exit 2;
}

# list({name => count}): in order.
sub list
{
	my ($counts) = @_;
	return join(', ', map { "$counts->{$_} $_" } sort keys %$counts) || 'none';
}

sub print_summary
{
	my ($h) = @_;
	my %calls;
	for my $call (@{ $h->{calls} })
	{
		my ($name, $outcome) = @$call[ NAME, OUTCOME ];
		$outcome = 'an answer' if $name =~ /^(attach_runner|await_stops|request_stop_for_chat)$/ && $outcome =~ /^\d{1,4}$|-|\{/;
		$outcome .= ' rolled back' if $call->[HOW] eq 'rolled_back' && !is_sqlstate($outcome);
		$calls{$name}{ $call->[R_LINE] ? $outcome : 'without an answer' }++;
	}
	print "calls: $_: ", list($calls{$_}), "\n" for sort keys %calls;
	printf "clients: %d\n", scalar grep { /^client/ } @{ $h->{files} };
	print 'faults: ', list({ map { $_ => scalar @{ $h->{faults}{$_} } } grep { $_ ne 'end' } keys %{ $h->{faults} } }), "\n";
	printf "lives of the server that ended: %d\n", scalar @{ $h->{lives} };
	print_runs($h);
	return;
}

sub print_runs
{
	my ($h) = @_;
	my @runs = values %{ $h->{runs} };
	my %statuses;
	$statuses{ $_->{status} }++ for grep { $_->{row} } @runs;
	printf "runs: %s; %d of them begun by a call whose answer was lost\n", list(\%statuses),
	  scalar grep { $_->{row} && !$_->{begun_in} } @runs;
	printf "ends deferred: %d; answers unknown: %d; waits that missed an end for more than a second: %d\n",
	  scalar(map { @{ $_->{deferrals} // [] } } @runs), scalar(grep { !is_answered($_) } @{ $h->{calls} }), late_wakings();
	return;
}
