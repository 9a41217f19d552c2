# The tables of log lines and of errors in doc/operating.md have what the extension can say, and nothing else: each
# message of the source, with its level or its SQLSTATE, and each error text that a run gets.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Documents;
use PostgreSQL::Test::Utils;
use Test::More;

my $LOGGED = qr/^(?:LOG|WARNING|INFO)$/;
my $document = slurp_file("$CHECKOUT/doc/operating.md");

# The numbers behind the names of SQLSTATEs, of the server and of ours.
my $errcodes = qx(pg_config --includedir-server) =~ s/\n//r . '/utils/errcodes.h';
my %state = map { slurp_file($_) =~ /^#define (\w*ERRCODE_\w+)\s+MAKE_SQLSTATE\(([^)]*)\)/mg } $errcodes, glob "$CHECKOUT/src/*.h";
$_ = join '', /'(\w)'/g for values %state;

# Whatever stands in for a value is the same.
sub plain
{
	my ($message) = @_;
	return $message =~ s/<[^>]*>|%(?:lld|[sdu])/<>/gr =~ s/^ai_chat_run /<> /r =~ s/\\"/"/gr;
}

# ---- the source ----

# said(TEXT): "level or SQLSTATE: message" of each report in it.
sub said
{
	my ($text) = @_;
	my (undef, @reports) = split /\bereport\(/, $text;
	my @said;
	for my $report (@reports)
	{
		my ($level) = $report =~ /^(\w+),/;
		my ($message) = $report =~ /\berrmsg\("((?:[^"\\]|\\.)*)"/;
		my ($code) = $report =~ /\berrcode\(([\w>-]+)\)/;
		my $what = $level =~ $LOGGED ? $level : $state{ $code // '' } // 'of the cause';
		push @said, "$what: " . plain($message // "a report without a message: $report");
	}
	return @said;
}

my @said = map { said(slurp_file($_)) } glob "$CHECKOUT/src/*.c";
push @said, slurp_file("$CHECKOUT/sql/parts/table.sql") =~ /ERRCODE = 'insufficient_privilege',\s+MESSAGE = '(.*)'/g
  ? "42501: $1" : 'no error in table.sql';

# ---- the document ----

# rows(HEADING): the first columns of the table below it, the first in its quotes.
sub rows
{
	my ($heading) = @_;
	my ($section) = $document =~ /^## \Q$heading\E\n(.*?)(?=^## |\z)/ms or return ();
	return map { /^\| `(.*?)` \| ([^|]*) \|/ ? [ $1, $2 ] : () } split /\n/, $section;
}

sub told
{
	my ($heading) = @_;
	return map { "$_->[1]: " . plain($_->[0]) } rows($heading);
}

sub unique
{
	my %seen = map { $_ => 1 } @_;
	return [ sort keys %seen ];
}

my @logged = grep { /^[A-Z]+: / } @said;
my @raised = grep { !/^[A-Z]+: / } @said;
cmp_ok(scalar @logged, '>', 10, 'the source has lines for the log');
cmp_ok(scalar @raised, '>', 20, 'and errors');
is_deeply(unique(told('Log lines')), unique(@logged), 'the table of log lines');
is_deeply(unique(told('Errors')), unique(@raised), 'the table of errors');

# What the guide greps the server's log for finds each of these lines, and no line of everyday.
my ($pattern) = $document =~ /^grep -E '(.*)' \\$/m or die 'the guide does not tell how to find the lines';
is_deeply([ grep { !/$pattern/ } map { $_->[0] } grep { $_->[1] ne 'INFO' } rows('Log lines') ], [], 'grep -E finds each line of the log');
unlike('LOG:  checkpoint complete: wrote 3 buffers (0.0%)', qr/$pattern/, 'and not everything');

# ---- the texts that runs get ----

my %texts = slurp_file("$CHECKOUT/src/sweep.h") =~ /^#define (ACR_\w+_TEXT)\s+"(.*)"$/mg;
is_deeply(unique(map { $_->[0] } rows('Runs are aborted that were alive')), unique(values %texts),
	'the table of the errors of aborted runs');
done_testing();
