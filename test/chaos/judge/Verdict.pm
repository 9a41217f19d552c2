# What the judge has found: each violation with the lines that prove it, and how often each rule was put to the test.
package Verdict;

use strict;
use warnings;
use Exporter 'import';
use History;

our @EXPORT = qw(checked excused violation violations print_violations print_rules);

my %TITLE = (
	1 => 'one active run a chat',
	2 => 'terminal is final',
	3 => 'one end, and it stands',
	4 => 'no run is lost, none is made up',
	5 => 'server start',
	6 => 'what was deferred is what comes',
	7 => 'a stop is told',
	8 => 'signals are true',
	9 => 'busy is true',
	10 => 'supersede_run',
	11 => 'nobody waits for ever',
	12 => 'answers and errors');

my (%checked, %excused, %violated, @violations);

# checked(RULE): it had something to say about this history.
sub checked
{
	my ($rule) = @_;
	$checked{$rule}++;
	return;
}

# excused(RULE): it would have been broken, but for an exemption.
sub excused
{
	my ($rule) = @_;
	$excused{$rule}++;
	return;
}

# violation(RULE, TEXT, PROOF...): calls and driver's lines prove it; undefs among them are ignored.
sub violation
{
	my ($rule, $text, @proof) = @_;
	$TITLE{$rule} or die "there is no rule $rule";
	$violated{$rule}++;
	push @violations, { rule => $rule, text => $text, lines => [ map { lines_of($_) } grep { defined } @proof ] };
	return;
}

sub violations
{
	return scalar @violations;
}

sub lines_of
{
	my ($proof) = @_;
	return map { [ $proof->[FILE], $_ ] } grep { defined } @$proof[ C_LINE, R_LINE ];
}

# print_violations(HISTORY): the lines are read once more, so that nobody need keep them all.
sub print_violations
{
	my ($history) = @_;
	my %text;
	for my $line (map { @{ $_->{lines} } } @violations)
	{
		$text{ $line->[0] }{ $line->[1] } = '';
	}
	fill_in($history, $_, $text{$_}) for keys %text;
	for my $violation (sort { $a->{rule} <=> $b->{rule} } @violations)
	{
		my %seen;
		print "violation of rule $violation->{rule} ($TITLE{ $violation->{rule} }): $violation->{text}\n";
		for my $line (grep { !$seen{"@$_"}++ } @{ $violation->{lines} })
		{
			my ($file, $number) = @$line;
			print "\t$history->{files}[$file]:$number: $text{$file}{$number}\n";
		}
	}
	return;
}

sub fill_in
{
	my ($history, $file, $texts) = @_;
	open my $fh, '<', "$history->{directory}/$history->{files}[$file]" or die "could not read the history again: $!\n";
	while (my $line = <$fh>)
	{
		chomp $line;
		$texts->{$.} = $line if exists $texts->{$.};
	}
	close $fh;
	return;
}

# A rule that was never checked has shown nothing.
sub print_rules
{
	for my $rule (sort { $a <=> $b } keys %TITLE)
	{
		printf "rule %d (%s): %d checked, %d excused, %d violated\n", $rule, $TITLE{$rule},
		  map { $_->{$rule} // 0 } \%checked, \%excused, \%violated;
	}
	return;
}

1;
