# Spans of time that runs of one chat take, to be asked for one that covers, or meets, another.
package Spans;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(spans overlapping covering meeting);

# spans([from, to, RUN]...): in order, and with each the one that ends last of all up to it.
sub spans
{
	my @spans = sort { $a->[0] <=> $b->[0] } @_;
	my @last;
	for my $span (@spans)
	{
		push @last, !@last || $span->[1] > $last[-1][1] ? $span : $last[-1];
	}
	return { spans => \@spans, last => \@last };
}

# overlapping(SPANS): pairs of runs.
sub overlapping
{
	my ($spans) = @_;
	my ($in_order, $last) = @$spans{qw(spans last)};
	return map { [ $last->[ $_ - 1 ][2], $in_order->[$_][2] ] }
	  grep { $in_order->[$_][0] < $last->[ $_ - 1 ][1] } 1 .. $#$in_order;
}

# The one that ends last of those that begin before TIME.
sub last_begun_before
{
	my ($spans, $time) = @_;
	return if !$spans;
	my ($low, $high) = (0, scalar @{ $spans->{spans} });
	while ($low < $high)
	{
		my $middle = int(($low + $high) / 2);
		if ($spans->{spans}[$middle][0] < $time) { $low = $middle + 1 }
		else { $high = $middle }
	}
	return $low > 0 ? $spans->{last}[ $low - 1 ] : undef;
}

# covering(SPANS, FROM, TO), meeting(SPANS, FROM, TO): such a run, or undef.
sub covering
{
	my ($spans, $from, $to) = @_;
	my $span = last_begun_before($spans, $from);
	return $span && $span->[1] > $to ? $span->[2] : undef;
}

sub meeting
{
	my ($spans, $from, $to) = @_;
	my $span = last_begun_before($spans, $to);
	return $span && $span->[1] > $from ? $span->[2] : undef;
}

1;
