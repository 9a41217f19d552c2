# The commands that a document shows, for tests to run them as they stand.
package Document;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Utils 'slurp_file';

our @EXPORT = qw(commands);

# commands(FILE, HEADING): the blocks of indented lines below that heading, up to the next one of any kind.
sub commands
{
	my ($file, $heading) = @_;
	my ($section) = slurp_file($file) =~ /^#+ \Q$heading\E\n(.*?)(?=^#|\z)/ms or die "$file has no heading $heading";
	my @blocks;

	for my $block (grep { !/^ {0,3}\S/m } split /\n{2,}/, $section)
	{
		my ($indent) = $block =~ /^\n*( +)/ or next;
		push @blocks, $block =~ s/^$indent//gmr;
	}
	die "$file shows no commands below $heading" if !@blocks;
	return @blocks;
}

1;
