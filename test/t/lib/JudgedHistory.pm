# What the tests of the judge of chaos runs share: histories written in short, and verdicts on them.
package JudgedHistory;

use strict;
use warnings;
use Exporter 'import';
use File::Temp;
use FindBin;
use Test::More;

our @EXPORT = qw($BEGUN $GOES_ON $ENDED $DEFERRED $OTHER $BOOT $RESTARTED $DEPARTED $SILENT line write_history append
  judge rules_in fine excused breaks unusable);

my $JUDGE = "$FindBin::RealBin/../chaos/judge.pl";

# The usual beginning: a run that goes on, of which its client knows. And what may come of it.
our $BEGUN = '1 10-20 begin_run A => committed began a1';
our $GOES_ON = '= a1 running';
our $ENDED = "$BEGUN\n1 30-40 finalize_run - a1 completed => committed finalized\n";
our $DEFERRED = "$BEGUN\n1 30-40 finalize_run - a1 error => committed deferred - failed\n";

# Something, where the history should be complete without run a1.
our $OTHER = "9 10-20 begin_run Z => committed began z1\n= z1 running\n";

# Errors that runs get.
our $BOOT = 'Run interrupted by a server restart.';
our $RESTARTED = 'Run interrupted by a restart of its runner.';
our $DEPARTED = 'Run aborted: its runner has departed.';
our $SILENT = 'Run aborted: its runner has been silent for too long.';

# ---- short histories ----

# Chats are A, B, ...; run a1 is one of chat A, which a1@B denies. A line is one of:
#
#	N FROM-TO call chat run argument => end outcome run detail	a call of client N; without TO it has no answer
#	= run status error											a row of the table, and its changes in the audit
#	F, U, S, O, P, T, D, A ...									a driver's line, T and D without the time, S, T, D and
#																A without the chat
#	without end | P												leaves out what is added otherwise
#
# Fields that are left out at the end are "-".
my $in_audit = 0;

sub id_of
{
	my ($name) = @_;
	return sprintf '%08x-0000-4000-8000-000000000000', ord $name if $name =~ /^[A-Z]$/;
	return $name if $name !~ /^([a-z])(\d)$/;
	return sprintf '%08x-0000-7000-8000-%012d', ord $1, $2;
}

sub ids_in
{
	my ($field) = @_;
	return $field if $field !~ /^\{?[A-Za-z]\d?(,[a-z]\d)*\}?$/;
	return $field =~ s/([A-Z]|[a-z]\d)/id_of($1)/ger;
}

# run_and_chat(NAME): their ids.
sub run_and_chat
{
	my ($name) = @_;
	my ($run, $chat) = split /@/, $name;
	return (id_of($run), id_of($chat // uc substr $run, 0, 1));
}

sub line
{
	return join("\t", map { $_ // '-' } @_) . "\n";
}

sub call_lines
{
	my ($line, $serial) = @_;
	my ($sent, $answered) = split / => /, $line;
	my ($times, $call, @what) = split ' ', $sent;
	my ($from, $to) = split /-/, $times;
	my @answer = split ' ', $answered // '';
	my $lines = line('C', $from, $serial, $call, map { ids_in($_ // '-') } @what[ 0 .. 2 ]);
	return $lines if $to eq '';
	return $lines . line('R', $to, $serial, map { ids_in($_ // '-') } @answer[ 0 .. 3 ]);
}

sub change
{
	my ($run, $old, $new) = @_;
	$in_audit++;
	return line('A', $in_audit * 10, $in_audit, run_and_chat($run), $old, $new);
}

sub driver_lines
{
	my ($kind, $rest) = @_;
	if ($kind eq 'S')
	{
		my ($time, $life, $run, $status, $error) = split ' ', $rest, 5;
		return line('S', $time, $life, run_and_chat($run), $status, $error);
	}
	if ($kind eq 'A')
	{
		my ($time, $number, $run, $old, $new) = split ' ', $rest;
		return line('A', $time, $number, run_and_chat($run), $old, $new);
	}
	if ($kind =~ /^[T=]$/)
	{
		my ($run, $status, $error) = split ' ', $rest, 3;
		my $row = line('T', 2000, run_and_chat($run), $status, $error);
		return $row if $kind eq 'T';
		$row .= change($run, '-', 'running');
		$row .= change($run, 'running', $status) if $status ne 'running';
		return $row;
	}
	return line('D', 2000, map { ids_in($_) } split ' ', $rest) if $kind eq 'D';
	return line($kind, map { ids_in($_) } split ' ', $rest, $kind eq 'P' ? 3 : 4);
}

# write_history(TEXT): into a new directory.
sub write_history
{
	my ($text) = @_;
	my $directory = File::Temp->newdir;
	my (%file, %serial, %without);
	$in_audit = 0;
	for my $line (grep { /\S/ } split /\n/, $text)
	{
		my ($kind, $rest) = split ' ', $line, 2;
		if ($kind eq 'without') { $without{$rest} = 1 }
		elsif ($kind =~ /^\d+$/) { $file{"client-$kind"} .= call_lines($rest, ++$serial{$kind}) }
		else { $file{driver} .= driver_lines($kind, $rest) }
	}
	$file{driver} .= line(qw(F 1000 end -)) if !$without{end};
	$file{driver} .= line(qw(P 1001 clients_gone -)) if !$without{P} && $text !~ /^P /m;
	append("$directory/$_.history", $file{$_}) for keys %file;
	return $directory;
}

sub append
{
	my ($path, $text) = @_;
	open my $fh, '>>', $path or die "could not open $path: $!";
	print $fh $text;
	close $fh or die "could not write $path: $!";
	return;
}

# ---- verdicts ----

# judge(DIRECTORY): the exit status, and the output.
sub judge
{
	my ($directory) = @_;
	open my $pipe, '-|', $^X, $JUDGE, $directory or die "could not start the judge: $!";
	my $out = do { local $/ = undef; <$pipe> };
	close $pipe;
	return ($? >> 8, $out);
}

sub rules_in
{
	my ($out) = @_;
	my %rules = map { $_ => 1 } $out =~ /^violation of rule (\d+) /gm;
	return join ' ', sort keys %rules;
}

# misquoted(DIRECTORY, OUTPUT): which lines of the history are shown and are not there. Some must be shown.
sub misquoted
{
	my ($directory, $out) = @_;
	my @quotes = $out =~ /^\t(\S+:\d+: .*)$/gm;
	my %there;
	for my $path (glob "$directory/*.history")
	{
		my ($name) = $path =~ m{([^/]+)$};
		open my $fh, '<', $path or die "could not open $path: $!";
		while (my $line = <$fh>)
		{
			chomp $line;
			$there{"$name:$.: $line"} = 1;
		}
		close $fh;
	}
	return @quotes ? join ' ', grep { !$there{$_} } @quotes : 'no proof';
}

# fine(WHAT, TEXT): nothing is violated, nothing needs an excuse.
sub fine
{
	my ($what, $text) = @_;
	my ($status, $out) = judge(write_history($text));
	is("$status " . join(' ', $out =~ /^violation .*$/gm, $out =~ /^rule .* [1-9]\d* excused.*$/gm), '0 ', "fine: $what")
	  or diag $out;
	return $out;
}

# excused(RULE, WHAT, TEXT): only an exemption from that rule lets it pass.
sub excused
{
	my ($rule, $what, $text) = @_;
	my ($status, $out) = judge(write_history($text));
	my ($excused) = $out =~ /^rule $rule \(.* (\d+) excused/m;
	ok($status == 0 && $excused, "excused from rule $rule: $what") or diag $out;
	return;
}

# breaks(RULE, WHAT, TEXT, PATTERN): that rule and no other, and the violation says so.
sub breaks
{
	my ($rule, $what, $text, $pattern) = @_;
	my $directory = write_history($text);
	my ($status, $out) = judge($directory);
	my @said = $out =~ /^violation of rule $rule \([^)]+\): (.*)$/gm;
	my $says_so = grep { $_ =~ $pattern } @said;
	is_deeply([ $status, rules_in($out), $says_so ? 'says so' : "@said", misquoted($directory, $out) ],
		[ 1, $rule, 'says so', '' ], "breaks rule $rule: $what") or diag $out;
	return $out;
}

# unusable(WHAT, DIRECTORY, PATTERN)
sub unusable
{
	my ($what, $directory, $pattern) = @_;
	my ($status, $out) = judge($directory);
	is("$status " . ($out =~ /^not usable: $pattern/m ? 'said' : $out), '2 said', "not usable: $what");
	return;
}

1;
