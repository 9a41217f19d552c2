# What was measured: each value into a CSV file, and ratios into a table.
package Record;

use strict;
use warnings;
use Exporter 'import';
use List::Util qw(max min);

our @EXPORT = qw(record_to set_part record rounds take_turns compare absolute print_table);

my %measured;	# {case}{variant}{metric} = [a value for each round]
my $csv;
my $part;
my @rows;

sub record_to
{
	my ($path) = @_;
	open $csv, '>', $path or die "could not open $path: $!\n";
	$csv->autoflush(1);
	print $csv "part,case,variant,round,metric,value\n";
	return;
}

# All that follows belongs to this part.
sub set_part
{
	($part) = @_;
	return;
}

# record(CASE, VARIANT, ROUND, METRICS)
sub record
{
	my ($case, $variant, $round, $metrics) = @_;
	for my $metric (sort keys %$metrics)
	{
		my $value = $metrics->{$metric};
		$value = sprintf '%.6g', $value if $value =~ /^-?\d+\.\d{4}/;
		push @{ $measured{$case}{$variant}{$metric} }, $value;
		my @fields = ($part, $case, $variant, $round, $metric, $value);
		grep { /[,"\n]/ } @fields and die "not for a CSV file: @fields\n";
		print $csv join(',', @fields), "\n";
	}
	return;
}

# rounds(CASE, ROUNDS, MEASURE): MEASURE(round) returns metrics for each variant.
sub rounds
{
	my ($case, $rounds, $measure) = @_;
	print STDERR "   $case\n";
	for my $round (1 .. $rounds)
	{
		my $metrics = $measure->($round);
		record($case, $_, $round, $metrics->{$_}) for sort keys %$metrics;
	}
	return;
}

# take_turns(CASE, ROUNDS, VARIANTS, MEASURE): the same, with one variant after the other: A B C, C B A, ...
# MEASURE(variant) returns its metrics.
sub take_turns
{
	my ($case, $rounds, $variants, $measure) = @_;
	rounds($case, $rounds, sub {
		my ($round) = @_;
		return { map { ($_ => $measure->($_)) } $round % 2 ? @$variants : reverse @$variants };
	});
	return;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub show
{
	my ($value) = @_;
	return
		abs($value) >= 1000 ? sprintf '%.0f', $value
	  : abs($value) >= 10 ? sprintf '%.1f', $value
	  : sprintf '%.2f', $value;
}

sub spread
{
	my (@values) = @_;
	return show(min(@values)) . ' .. ' . show(max(@values));
}

# "= 0" allows for what the server writes by itself now and then.
sub keeps
{
	my ($value, $budget) = @_;
	return '' if !defined $budget;
	my ($how, $bound) = split ' ', $budget;
	my $kept = $how eq '<=' ? $value <= $bound : $how eq '>=' ? $value >= $bound : abs($value - $bound) < 0.5;
	return $kept ? 'yes' : 'NO';
}

# compare(WHAT, METRIC, [CASE, VARIANT], [CASE, VARIANT], BUDGET): a row for ours against another. The budget is for the
# ratio, which is taken within each round.
sub compare
{
	my ($what, $metric, $ours, $against, $budget) = @_;
	my ($x, $y) = map { $measured{ $_->[0] }{ $_->[1] }{$metric} } $ours, $against;
	return if !$x || !$y;
	my @ratios = map { $y->[$_] > 0 ? $x->[$_] / $y->[$_] : () } 0 .. min($#$x, $#$y);
	push @rows, [
		$what, show(median(@$x)), show(median(@$y)),
		@ratios ? (show(median(@ratios)), spread(@ratios)) : ('-', '-'),
		$budget // '', @ratios ? keeps(median(@ratios), $budget) : '' ];
	return;
}

# absolute(WHAT, METRIC, [CASE, VARIANT], BUDGET): a row whose budget is for the figure itself.
sub absolute
{
	my ($what, $metric, $ours, $budget) = @_;
	my $x = $measured{ $ours->[0] }{ $ours->[1] }{$metric};
	return if !$x;
	my $value = median(@$x);
	push @rows, [ $what, show($value), '-', '-', spread(@$x), $budget // '', keeps($value, $budget) ];
	return;
}

sub print_table
{
	my @lines = ([ 'what', 'ours', 'against', 'ratio', 'least .. greatest', 'budget', 'kept' ], @rows);
	my @width = map { my $column = $_; max(map { length $_->[$column] } @lines) } 0 .. 6;
	my $format = join('  ', "%-$width[0]s", map { "%$width[$_]s" } 1 .. 6) . "\n";
	printf $format, @$_ for @lines;
	return;
}

1;
