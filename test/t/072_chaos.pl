# Clients begin, step, stop, end, supersede and await runs in a few chats while backends, background workers and the
# postmaster are killed, the server is stopped, clients are cut off, rows and the table are locked and the disk is full.
# What each client was told is kept, and judged by chaos/judge.pl.
#
# Which call meets which fault is luck; the order of the faults follows from a seed, CHAOS_SEED. CHAOS=full is the long
# form: it ends the server's life CHAOS_LIVES times (100), and keeps the judgement in the file that CHAOS_RESULT names.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib", "$FindBin::RealBin/../chaos";
use Chaos;
use Faults qw(%DEADLY %OTHER);
use List::Util 'shuffle';
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $programs = $ENV{CHAOS_PROGRAMS} or plan skip_all => 'the programs of the clients are not built';
my $seed = $ENV{CHAOS_SEED} // int rand 1_000_000;
my $lives = ($ENV{CHAOS} // '') eq 'full' ? $ENV{CHAOS_LIVES} // 100 : scalar keys %DEADLY;

note "CHAOS_SEED=$seed";
srand $seed;
my $chaos = Chaos->new($programs, $seed, 12);
my (@deadly, @other);

for (1 .. $lives)
{
	# Each of a kind comes once before any comes again.
	@deadly = shuffle(sort keys %DEADLY) unless @deadly;
	for (1 .. 2)
	{
		@other = shuffle(sort keys %OTHER) unless @other;
		$chaos->let_work(100);
		$OTHER{ pop @other }->($chaos);
	}
	$chaos->let_work(100);
	$DEADLY{ pop @deadly }->($chaos);
}

$chaos->let_work(100);
ok($chaos->end, 'nobody waits for ever');
$chaos->note_end;
$chaos->{node}->stop;

my ($out, $err);
my $judged = IPC::Run::run([ $^X, "$FindBin::RealBin/../chaos/judge.pl", $chaos->{dir} ], '>', \$out, '2>', \$err);
ok($judged, 'what everybody was told is right') or diag("CHAOS_SEED=$seed\n$out$err");
note $out;
append_to_file($ENV{CHAOS_RESULT}, "CHAOS_SEED=$seed\n$out") if $ENV{CHAOS_RESULT};
unlike(slurp_file($chaos->{node}->logfile), qr/PANIC:|TRAP:/, 'the server had nothing to blame itself for');
done_testing();
