# Reads a history; judge.pl says what is in one. There are many calls, so each is an array; so are lines of the driver
# that are to prove something. What is gathered about a run, a chat or a life of the server is a hash.
package History;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(C_TIME R_TIME NAME CHAT RUN ARGUMENT HOW OUTCOME ANSWER DETAIL FILE C_LINE R_LINE FOREVER
  %IS_ACTIVE %IS_TERMINAL read_clients read_driver what_is_missing run_of driver_line is_sqlstate);

# CHAT, RUN and ANSWER (the run in the answer) are hashes or undef. A call that has no answer has no R_LINE. A driver's
# line has a FILE and a C_LINE, and where it is evidence for a status, C_TIME and R_TIME: seen in between.
use constant {
	C_TIME => 0, R_TIME => 1, NAME => 2, CHAT => 3, RUN => 4, ARGUMENT => 5, HOW => 6, OUTCOME => 7, ANSWER => 8,
	DETAIL => 9, FILE => 10, C_LINE => 11, R_LINE => 12 };
use constant FOREVER => 9**9**9;

our %IS_ACTIVE = map { $_ => 1 } qw(pending running);
our %IS_TERMINAL = map { $_ => 1 } qw(succeeded failed aborted);

my $DRIVER = 'driver.history';
# What each call must name.
my %NAMES = (
	(map { $_ => [CHAT] } qw(begin_run try_begin_run request_stop_for_chat get_active_for_chat)),
	(map { $_ => [RUN] } qw(record_step heartbeat request_stop finalize_run await_run await_stop get_run)),
	supersede_run => [ CHAT, RUN ],
	await_stops => [],
	attach_runner => []);
my %WORD = (CHAT, 'chat', RUN, 'run');
my %IS_TURN_STATUS = map { $_ => 1 } qw(completed error aborted);
my %IS_END = map { $_ => 1 } qw(committed rolled_back unknown);
my %ENDS_LIFE = map { $_ => 1 } qw(kill_backend kill_launcher kill_worker kill_postmaster stop_immediate stop_fast);
my %IS_FAULT = (%ENDS_LIFE, map { $_ => 1 } qw(terminate_backend cancel_backend kill_client lock_rows lock_table
  full_disk end));

# How many fields come after the first one, which says what kind of line it is.
my %CLIENT_FIELDS = (C => 6, R => 6);
my %DRIVER_FIELDS = (F => 2, U => 2, S => 6, O => 3, P => 2, T => 5, D => 3, A => 6);

# each_line(DIRECTORY, NAME, FIELDS OF EACH KIND, SUB): SUB(line number, kind, fields...) for each whole line.
sub each_line
{
	my ($directory, $name, $fields_of, $sub) = @_;
	open my $fh, '<', "$directory/$name" or die "could not open $name: $!\n";
	while (my $line = <$fh>)
	{
		# Its writer was killed.
		last if !chomp $line;
		my ($kind, @fields) = split /\t/, $line, -1;
		my $expected = defined $kind ? $fields_of->{$kind} : undef;
		die "$name:$.: this is no line of a history\n" if !defined $expected || @fields < $expected;
		die "$name:$.: \"$fields[0]\" is no time\n" if $fields[0] !~ /^\d+$/;
		$sub->($., $kind, @fields);
	}
	close $fh;
	return;
}

# run_of(HISTORY, ID), chat_of(HISTORY, ID): what is known of it; undef for "-".
sub run_of
{
	my ($history, $id) = @_;
	return $id eq '-' ? undef : ($history->{runs}{$id} //= { id => $id });
}

sub chat_of
{
	my ($history, $id) = @_;
	return $id eq '-' ? undef : ($history->{chats}{$id} //= { id => $id });
}

# Other outcomes have small letters, or are the small numbers of attach_runner.
sub is_sqlstate
{
	my ($outcome) = @_;
	return $outcome =~ /^[0-9A-Z]{5}$/;
}

# driver_line(HISTORY, LINE, FROM, TO): something the driver saw at some moment in between.
sub driver_line
{
	my ($history, $number, $from, $to) = @_;
	my @line;
	@line[ C_TIME, R_TIME, NAME, FILE, C_LINE ] = ($from, $to, 'driver', $history->{driver}, $number);
	return \@line;
}

sub new_file
{
	my ($history, $name) = @_;
	return push(@{ $history->{files} }, $name) - 1;
}

# read_clients(DIRECTORY): a new history, with the calls of all clients.
sub read_clients
{
	my ($directory) = @_;
	my %history = (directory => $directory, files => [], calls => [], runs => {}, chats => {});
	opendir my $dir, $directory or die "could not open $directory: $!\n";
	read_client(\%history, $_) for sort grep { /^client-\d+\.history$/ } readdir $dir;
	closedir $dir;
	return \%history;
}

sub read_client
{
	my ($history, $name) = @_;
	my $file = new_file($history, $name);
	my ($open, $serial, $now) = (undef, 0, 0);
	each_line($history->{directory}, $name, \%CLIENT_FIELDS, sub {
		my ($line, $kind, $time, $its_serial, @fields) = @_;
		die "$name:$line: time runs backwards\n" if $time < $now;
		$now = $time;
		if ($kind eq 'C')
		{
			my ($call, $chat, $run, $argument) = @fields;
			die "$name:$line: the last call has not been answered yet\n" if $open;
			die "$name:$line: the serial should be @{[$serial + 1]}\n" if $its_serial ne ++$serial;
			die "$name:$line: unknown call \"$call\"\n" if !$NAMES{$call};
			die "$name:$line: unknown turn status \"$argument\"\n"
			  if $call eq 'finalize_run' && !$IS_TURN_STATUS{$argument};
			$open = [
				0 + $time, FOREVER, $call, chat_of($history, $chat), run_of($history, $run), $argument, 'unknown', 'lost',
				undef, '-', $file, $line, undef ];
			for (@{ $NAMES{$call} })
			{
				die "$name:$line: $call of which $WORD{$_}?\n" if !$open->[$_];
			}
			die "$name:$line: which run id was given?\n" if $argument eq 'given' && !$open->[RUN];
			push @{ $history->{calls} }, $open;
			return;
		}
		my ($end, $outcome, $run, $detail) = @fields;
		die "$name:$line: this answers no call\n" if !$open || $its_serial ne $serial;
		die "$name:$line: unknown end \"$end\"\n" if !$IS_END{$end};
		@$open[ R_TIME, HOW, OUTCOME, ANSWER, DETAIL, R_LINE ] =
		  (0 + $time, $end, $outcome, run_of($history, $run), $detail, $line);
		die "$name:$line: an error cannot be committed\n" if $end eq 'committed' && is_sqlstate($outcome)
		  && $open->[NAME] ne 'attach_runner';
		undef $open;
	});
	return;
}

# read_driver(HISTORY, SEE): SEE(run, chat's id, status, error, life, evidence) is called for each run of each
# snapshot, before anything that comes later is read. These are too many to keep.
sub read_driver
{
	my ($history, $see) = @_;
	$history->{driver} = new_file($history, $DRIVER);
	$history->{$_} = [] for qw(lives observed audit left);
	$history->{faults} = {};
	my %read = (
		F => \&read_fault,
		U => \&read_up,
		S => sub { read_snapshot(@_, $see) },
		O => sub { my ($h, $line, $time, $chat, $count) = @_; push @{ $h->{observed} }, [ $line, $chat, $count ] },
		P => \&read_phase,
		T => \&read_row,
		D => sub { my ($h, $line, $time, $run, $status) = @_; push @{ $h->{left} }, [ $line, run_of($h, $run), $status ] },
		A => \&read_change);
	each_line($history->{directory}, $DRIVER, \%DRIVER_FIELDS, sub {
		my ($line, $kind, @fields) = @_;
		$read{$kind}->($history, $line, @fields);
	});
	@$_ = sort { $a->[C_TIME] <=> $b->[C_TIME] } @$_ for values %{ $history->{faults} };
	return;
}

sub read_fault
{
	my ($history, $line, $time, $fault) = @_;
	die "$DRIVER:$line: unknown fault \"$fault\"\n" if !$IS_FAULT{$fault};
	push @{ $history->{faults}{$fault} }, driver_line($history, $line, 0 + $time, 0 + $time);
	return if !$ENDS_LIFE{$fault};

	# A second one before the server was up again may have met nothing that it could end.
	my $life = $history->{lives}[-1];
	push @{ $history->{lives} }, { from => 0 + $time, to => FOREVER, fault => driver_line($history, $line) }
	  if !$life || $life->{up};
	return;
}

sub read_up
{
	my ($history, $line, $time, $number) = @_;
	my $life = $history->{lives}[-1];
	die "$DRIVER:$line: nothing has ended the life before\n" if !$life || $life->{up};
	die "$DRIVER:$line: this should be life @{[scalar @{ $history->{lives} }]}\n" if $number ne @{ $history->{lives} };
	@$life{qw(to number up)} = (0 + $time, $number, driver_line($history, $line));
	return;
}

sub read_snapshot
{
	my ($history, $line, $time, $number, $id, $chat, $status, $error, $see) = @_;
	my $life = $history->{lives}[-1];
	die "$DRIVER:$line: life $number has not begun, or is over\n" if !$life || !$life->{up} || $number ne $life->{number};
	check_status($line, $status);
	$see->(run_of($history, $id), $chat, $status, $error, $life, driver_line($history, $line, $life->{to}, 0 + $time));
	return;
}

sub read_phase
{
	my ($history, $line, $time, $phase, $detail) = @_;
	die "$DRIVER:$line: unknown phase \"$phase\"\n" if $phase !~ /^clients_(gone|stuck)$/;
	@$history{qw(phase waiting_for phase_line)} = ($phase, $detail // '-', driver_line($history, $line));
	return;
}

sub read_row
{
	my ($history, $line, $time, $id, $chat, $status, $error) = @_;
	my $run = run_of($history, $id);
	check_status($line, $status);
	die "$DRIVER:$line: a run must have an id, once\n" if !$run || $run->{row} || $chat eq '-';
	@$run{qw(row chat status error)} = (driver_line($history, $line), chat_of($history, $chat), $status, $error);
	$history->{rows}++;
	return;
}

sub read_change
{
	my ($history, $line, $time, $number, $run, $chat, $old, $new) = @_;
	for ($old, $new)
	{
		check_status($line, $_) if $_ ne '-';
	}
	die "$DRIVER:$line: \"$number\" is no number\n" if $number !~ /^\d+$/;
	die "$DRIVER:$line: a change of which run, in which chat?\n" if $run eq '-' || $chat eq '-';
	push @{ $history->{audit} },
	  [ 0 + $time, 0 + $number, run_of($history, $run), chat_of($history, $chat), $old, $new, $line ];
	return;
}

sub check_status
{
	my ($line, $status) = @_;
	die "$DRIVER:$line: unknown status \"$status\"\n" if !$IS_ACTIVE{$status} && !$IS_TERMINAL{$status};
	return;
}

# what_is_missing(HISTORY): why not all of it can be judged. Where clients are stuck, the driver may not have got further.
sub what_is_missing
{
	my ($history) = @_;
	my @missing;
	push @missing, 'no call' if !@{ $history->{calls} };
	push @missing, 'the driver has not come to the end of its faults' if !$history->{faults}{end};
	push @missing, 'nothing says what became of the clients (P)' if !$history->{phase};
	return @missing if ($history->{phase} // '') eq 'clients_stuck';
	push @missing, 'no table (T)' if !$history->{rows};
	push @missing, 'no audit (A)' if !@{ $history->{audit} };
	push @missing, 'the last life of the server has not begun (U)' if grep { !$_->{up} } @{ $history->{lives} };
	return @missing;
}

1;
