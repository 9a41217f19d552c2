# tap.pl SUITE FAILED_FILES [--pgtap SOCKET_DIRECTORY DATABASE] FILE...
#
# Runs TAP tests as prove does, or pgTAP tests as pg_prove does, but counts assertions exactly: adds the line
# "SUITE passed failed skipped" to the file that TALLY names. Lists the failed files in FAILED_FILES. Tests in JavaScript
# are run by node, those in Python by the program that PYTHON names.
use strict;
use warnings;
use TAP::Harness;

my ($suite, $failed_files) = splice @ARGV, 0, 2;
# What node tells of a failure is more YAML than the harness knows: it becomes a comment.
my $node = 'set -o pipefail; timeout 600 node --test-reporter=tap "$0" | sed "s/^ /#/"';
my %options = (
	jobs => $ENV{JOBS} || 2,
	verbosity => $ENV{HARNESS_VERBOSE} || 0,
	failures => 1,
	exec => sub {
		my (undef, $file) = @_;
		return [ 'bash', '-c', $node, $file ] if $file =~ /\.js$/;
		return [ $ENV{PYTHON}, $file ] if $file =~ /\.py$/;
		return;
	});

if (@ARGV && $ARGV[0] eq '--pgtap')
{
	my (undef, $host, $database) = splice @ARGV, 0, 3;

	# All files share one database.
	$options{jobs} = 1;
	$options{sources} = {
		pgTAP => {
			host => $host,
			port => 5432,
			username => 'postgres',
			dbname => $database,
			suffix => '.sql' } };
}

my $aggregate = TAP::Harness->new(\%options)->runtests(@ARGV);
my ($passed, $failed, $skipped) = (0, 0, 0);
my @failed_files;

for my $file ($aggregate->descriptions)
{
	my ($parser) = $aggregate->parsers($file);
	my $bad = $parser->failed;

	# A file that died, left its plan or printed no TAP has failed, even if it never said "not ok".
	$bad = 1 if !$bad && ($parser->parse_errors || $parser->exit || $parser->wait);
	push @failed_files, $file if $bad;
	$failed += $bad;
	$passed += $parser->passed - $parser->skipped;
	$skipped += $parser->skip_all ? 1 : $parser->skipped;
}

append_lines($failed_files, @failed_files);
append_lines($ENV{TALLY}, "$suite $passed $failed $skipped");
exit($failed ? 1 : 0);

sub append_lines
{
	my ($path, @lines) = @_;
	open my $fh, '>>', $path or die "could not open $path: $!";
	print $fh "$_\n" for @lines;
	close $fh or die "could not write $path: $!";
	return;
}
