# What the tests of memory share: how often to do something, and how much memory a process of the server uses, as it says
# itself, or as it is made to tell the log.
package Memory;

use strict;
use warnings;
use Exporter 'import';
use RunCluster;
use Test::More;

our @EXPORT = qw(how_often make_memory $LOOK looks stays_flat logged_memory);

# In bytes. Nothing that is kept takes less than 16.
my $FLAT_USED = 2 * 1024;
my $FLAT_TAKEN = 64 * 1024;
my $FLAT_PAGES = 256 * 1024;

# how_often(SHORT, LONG): the first, or with CHAOS=full the second.
sub how_often
{
	my ($short, $long) = @_;
	return ($ENV{CHAOS} // '') eq 'full' ? $long : $short;
}

# make_memory(NODE): a function that says what memory the session has, in bytes: how much of it is in use in memory contexts,
# how much these have taken from the system, and how much of the process is its own, inside of contexts and outside. The last
# is 0 where the system does not tell.
sub make_memory
{
	my ($node) = @_;
	$node->safe_psql('postgres', <<~'SQL');
		CREATE FUNCTION memory() RETURNS text LANGUAGE sql AS $$
			SELECT format('memory %s %s %s', sum(used_bytes), sum(total_bytes), 1024 * coalesce(substring(
				pg_read_file('/proc/self/smaps_rollup', 0, 100000, true) FROM 'Anonymous: +(\d+)')::bigint, 0))
			FROM pg_backend_memory_contexts
		$$
		SQL
	return;
}

# Statistics that the server has not told yet would take some kB.
our $LOOK = "SELECT pg_stat_force_next_flush();\nSELECT memory();\n";

# looks(TEXT): each look at the memory that is in it.
sub looks
{
	my ($text) = @_;
	my @looks;

	push @looks, [ $1, $2, $3 ] while $text =~ /memory (\d+) (\d+) (\d+)/g;
	return @looks;
}

# stays_flat(NAME, BEFORE, AFTER): between two looks nothing has come to stay.
sub stays_flat
{
	my ($name, $before, $after) = @_;
	my ($used, $taken, $pages) = map { $after->[$_] - $before->[$_] } 0 .. 2;

	note("$name: $used bytes more in use, $taken taken from the system, $pages in pages");
	cmp_ok($used, '<', $FLAT_USED, "$name: no memory is kept");
	cmp_ok($taken, '<', $FLAT_TAKEN, "$name: nor taken from the system");
	cmp_ok($pages, '<', $FLAT_PAGES, "$name: nor anything kept outside of memory contexts");
	return;
}

# logged_memory(NODE, PID): how many bytes that process uses in memory contexts, which the server has it write to the log. It
# may be a backend that waits in a call of ours, or the launcher.
sub logged_memory
{
	my ($node, $pid) = @_;
	my $offset = log_end($node);
	my $total = qr/\[$pid\] .*Grand total: .* (\d+) used/;

	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)") eq 't' or die "no process $pid";
	$node->wait_for_log($total, $offset);
	log_since($node, $offset) =~ $total;
	return $1;
}

1;
