# A document of Markdown, cut into what a test can compare: sections, and in them fenced blocks, tables and paragraphs.
package Sections;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(sections plain rows);

# plain(TEXT): without the marks for code, and with single spaces.
sub plain
{
	my ($text) = @_;
	return $text =~ s/`//gr =~ s/\s+/ /gr =~ s/^ | $//gr;
}

sub cells
{
	my ($line) = @_;
	my @cells = split /(?<!\\)\|/, $line =~ s/^\|//r =~ s/\|\s*$//r, -1;
	return [ map { plain($_) } @cells ];
}

# What a section has, one after the other: each with "kind", which is table, paragraph or the language of a fenced block, and
# "text"; a table also has "rows", without its head.
sub blocks
{
	my ($body) = @_;
	my @blocks;

	while ($body =~ /\G\n*(?:^```(\w*)\n((?s:.*?))^```$|((?:^\S.*\n?)+))/gm)
	{
		my ($language, $code, $text) = ($1, $2, $3);

		if (defined $language)
		{
			push @blocks, { kind => $language, text => $code };
		}
		elsif ($text =~ /^\|/)
		{
			my (undef, undef, @lines) = split /\n/, $text;
			push @blocks, { kind => 'table', text => $text, rows => [ map { cells($_) } @lines ] };
		}
		else
		{
			push @blocks, { kind => 'paragraph', text => $text };
		}
	}
	return \@blocks;
}

# sections(TEXT): each with "title", "level", "part", which is the title of the section of level 2 that it is in, and
# "blocks".
sub sections
{
	my ($text) = @_;
	my (@sections, $part);
	my $fenced = 0;

	for my $line (split /^/, $text)
	{
		$fenced = !$fenced if $line =~ /^```/;
		if (!$fenced && $line =~ /^(#+) (.*)/)
		{
			$part = $2 if length $1 == 2;
			push @sections, { title => $2, level => length $1, part => $part // '', body => '' };
		}
		elsif (@sections)
		{
			$sections[-1]{body} .= $line;
		}
	}
	$_->{blocks} = blocks($_->{body}) for @sections;
	return @sections;
}

# rows(SECTION, N): of its n-th table, from 0.
sub rows
{
	my ($section, $n) = @_;
	my @tables = grep { $_->{kind} eq 'table' } @{ $section->{blocks} };
	return $tables[$n] ? @{ $tables[$n]{rows} } : ();
}

1;
