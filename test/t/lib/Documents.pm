# The documents of this project, taken apart: blocks of code, headings, links.
package Documents;

use strict;
use warnings;
use Exporter 'import';
use FindBin;
use PostgreSQL::Test::Utils;

our @EXPORT = qw($CHECKOUT documents read_document commands wanted_answers slug);

our $CHECKOUT = "$FindBin::RealBin/../..";

# documents(): their paths in the checkout.
sub documents
{
	my @found = map { glob "$CHECKOUT/$_" } '*.md', 'doc/*.md', 'doc/*/*.md', 'examples/*/*.md', 'src/*.md', 'debian/*.md';
	return map { s{^\Q$CHECKOUT\E/}{}r } @found;
}

# read_document(PATH): its lines; its blocks of code, each with its language, the numbers of its first and last line and its
# lines; the slugs of its headings; its links, each with its line's number.
sub read_document
{
	my ($path) = @_;
	my @lines = split /\n/, slurp_file("$CHECKOUT/$path");
	my (@blocks, @links, %slugs, $block);

	for my $n (1 .. @lines)
	{
		my $line = $lines[ $n - 1 ];
		if ($line =~ /^\s*```(.*)$/)
		{
			$block = $block ? undef : { language => $1, first => $n + 1, last => $n, lines => [] };
			push @blocks, $block if $block;
		}
		elsif ($block)
		{
			push @{ $block->{lines} }, $line;
			$block->{last} = $n;
		}
		else
		{
			$slugs{ slug($1) } = 1 if $line =~ /^#+ (.*)/;
			push @blocks, { language => 'indented', first => $n, last => $n, lines => [$line] }
			  if $line =~ /^(?: {4}|\t)\S/ && ($n == 1 || $lines[ $n - 2 ] eq '');
			push @links, { line => $n, to => $1 } while $line =~ /\]\(([^)\s]+)\)/g;
		}
	}
	return { path => $path, lines => \@lines, blocks => \@blocks, slugs => \%slugs, links => \@links };
}

# slug(HEADING): what a link to it says, as forges make it.
sub slug
{
	my ($heading) = @_;
	$heading = lc($heading =~ s/\[([^\]]*)\]\([^)]*\)/$1/gr);
	$heading =~ s/[^\w\- ]//g;
	return $heading =~ tr/ /-/r;
}

# commands(BLOCK): of a block for the shell, without comments; what goes on in the next line is one command.
sub commands
{
	my ($block) = @_;
	my $text = join "\n", map { s/(^|\s)#.*//r } @{ $block->{lines} };
	$text =~ s/\\\n\s*//g;
	return grep { $_ ne '' } map { s/^\s+|\s+$//gr } split /\n/, $text;
}

# wanted_answers(BLOCK): what a block of SQL says that its statements answer, by line; and the errors, in their order.
sub wanted_answers
{
	my ($block) = @_;
	my (%answers, @errors);

	for my $i (0 .. $#{ $block->{lines} })
	{
		my $line = $block->{lines}[$i];
		push @errors, $1 if $line =~ /-- error (\w{5})\b/;
		$answers{ $block->{first} + $i } = $1 if $line =~ /;\s+-- → (.*?)\s*$/;
	}
	return (\%answers, \@errors);
}

1;
