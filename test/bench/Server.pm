# The server that the benchmark measures, and its clients: load, wakeups and pgbench. bench.sh has set PATH, PGHOST and
# PGDATA for it, and starts everything in the staging directory.
package Server;

use strict;
use warnings;
use Exporter 'import';
use POSIX ();

our @EXPORT = qw(run sql new_database drop_database fill wait_until pause set_fsync restart processes lines load wakeups
  pgbench);

# What grows with each iteration.
my $COUNTERS = <<~'SQL';
	SELECT pg_current_wal_insert_lsn() - '0/0' AS wal, pg_snapshot_xmax(pg_current_snapshot()) AS xids, s.*
	FROM (
		SELECT sum(n_dead_tup) AS dead, sum(n_tup_upd) AS updated, sum(n_tup_hot_upd) AS hot
		FROM pg_stat_user_tables
	) s
	SQL

# run(PROGRAM, ARGUMENT...): its standard output. The benchmark ends if it fails.
sub run
{
	my (@command) = @_;
	open my $pipe, '-|', @command or die "could not start $command[0]: $!\n";
	my $out = do { local $/ = undef; <$pipe> };
	close $pipe or die "$command[0] failed\n";
	$out =~ s/\n\z//;
	return $out;
}

# sql(DATABASE, STATEMENT...): each in a transaction of its own; the output of all.
sub sql
{
	my ($db, @statements) = @_;
	return run(qw(psql -X -q -A -t -v ON_ERROR_STOP=1 -U postgres -d), $db, map { ('-c', $_) } @statements);
}

sub new_database
{
	my ($db) = @_;
	sql('postgres', "CREATE DATABASE $db");
	sql($db, 'CREATE EXTENSION ai_chat_run');
	run(qw(psql -X -q -v ON_ERROR_STOP=1 -U postgres -o /dev/null -f tables.sql -d), $db);
	return;
}

sub drop_database
{
	my ($db) = @_;
	sql('postgres', "DROP DATABASE $db WITH (FORCE)");
	return;
}

# fill(DATABASE, STATUS, IDS, ROWS, TABLE...): instead of what was in any of the tables. Makes them alike in visibility
# map, hint bits and statistics, too.
sub fill
{
	my ($db, $status, $ids, $rows, @tables) = @_;
	sql($db, 'TRUNCATE ai_chat_run.ai_chat_runs, bench.plain, bench.words, bench.runs',
		(map { "DO \$\$ BEGIN PERFORM bench.fill('$_', '$status', '$ids', $rows); END \$\$" } @tables),
		map { "VACUUM (ANALYZE) $_" } @tables);
	return;
}

# Polls until the query says t.
sub wait_until
{
	my ($db, $query) = @_;
	for (1 .. 6000)
	{
		return if sql($db, $query) eq 't';
		pause(0.05);
	}
	die "waited in vain for: $query\n";
}

sub pause
{
	my ($seconds) = @_;
	select undef, undef, undef, $seconds;
	return;
}

# The private servers do not wait for the disk. Where synchronous_commit is on, this one shall: otherwise a commit that
# waits for its WAL would only wait for a copy into the kernel's memory.
sub set_fsync
{
	my ($value) = @_;
	sql('postgres', "ALTER SYSTEM SET fsync = $value", 'CHECKPOINT', 'SELECT pg_reload_conf()');
	wait_until('postgres', "SELECT current_setting('fsync') = '$value'");
	return;
}

sub restart
{
	# A log of its own, whose lines are of this start.
	run(qw(pg_ctl -s -w -t 600 -m fast stop));
	unlink 'server.log';
	run(qw(pg_ctl -s -w -t 600 -l server.log start));
	return;
}

# processes(PATTERN): the ids of our server's processes whose title matches.
sub processes
{
	my ($pattern) = @_;
	my $postmaster = (lines("$ENV{PGDATA}/postmaster.pid"))[0];
	my @found;
	for my $dir (glob '/proc/[0-9]*')
	{
		my ($title) = lines("$dir/cmdline");
		next if !defined $title || $title !~ $pattern;
		my ($stat) = lines("$dir/stat");
		push @found, $dir =~ /(\d+)/ if defined $stat && $stat =~ /\) \S $postmaster /;
	}
	return @found;
}

# The lines of a file, or none if it is gone.
sub lines
{
	my ($path) = @_;
	open my $file, '<', $path or return;
	my @lines = <$file>;
	close $file;
	chomp @lines;
	return @lines;
}

# parse(LINE): of name=value.
sub parse
{
	my ($line) = @_;
	my %values = map { split /=/, $_, 2 } split ' ', $line;
	return \%values;
}

# load(SCRIPTS, OPTION => VALUE...): what each of the scripts, by their names, took for an iteration. They take turns in
# the order of their names. Options are those of load, by their letters, undef for one without a value; and sync, for
# synchronous_commit.
sub load
{
	my ($scripts, %options) = @_;
	my $sync = delete $options{sync} // 'off';
	my %flags = (b => 'CHECKPOINT', q => $COUNTERS, %options);
	local $ENV{PGOPTIONS} = "-c synchronous_commit=$sync";
	my @arguments = map { ("-$_", $flags{$_} // ()) } sort keys %flags;
	my @names = sort keys %$scripts;
	my @lines = split /\n/, run('./load', @arguments, @$scripts{@names});
	my %result = map { ($names[$_] => metrics(parse($lines[$_]))) } 0 .. $#names;
	return \%result;
}

sub metrics
{
	my ($raw) = @_;
	my $n = $raw->{iterations};
	my %metrics = (
		iterations => $n,
		per_second => $n / $raw->{seconds},
		cpu_us => $raw->{cpu_ns_p50} / 1000,
		cpu_us_mean => $raw->{cpu_ns_mean} / 1000,
		map { ($_ => $raw->{$_}) } grep { /^(?:latency|answer)_/ } keys %$raw);
	$metrics{$_} = $raw->{$_} / $n for grep { defined $raw->{$_} } qw(wal xids dead);
	$metrics{hot} = $raw->{hot} / $raw->{updated} if $raw->{updated};
	return \%metrics;
}

sub wakeups
{
	my ($db, $kind, @options) = @_;
	return parse(run('./wakeups', '-d', $db, @options, $kind));
}

# pgbench(DATABASE, SCRIPT, CLIENTS, COUNT, SYNC): lifecycles in a second.
sub pgbench
{
	my ($db, $script, $clients, $count, $sync) = @_;
	local $ENV{PGOPTIONS} = "-c synchronous_commit=$sync";
	my $out = run('pgbench', qw(-n -M prepared -U chat_app -j 2 -c), $clients, '-t', $count, '-D',
		'ws=00000000-0000-4000-9000-000000000001', '-f', "$script.pgbench", $db);
	my ($per_second) = $out =~ /^tps = ([\d.]+)/m or die "pgbench printed no rate\n";
	return { per_second => $per_second };
}

1;
