# Programs that watch a server, of the test's own: each a process of the test's user that listens at 127.0.0.1, at a
# port that the system gives it and that its log tells; and what they answer.
package Monitoring;

use strict;
use warnings;
use Exporter 'import';
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes 'usleep';

our @EXPORT = qw(program start_watcher poll metrics_of ask ask_prometheus series_in);

my @watchers;

# program(NAME): where it is, or undef if it is nowhere.
sub program
{
	my ($name) = @_;
	my ($path) = grep { -x } map { "$_/$name" } split(/:/, $ENV{PATH}), '/usr/bin';
	return $path;
}

# start_watcher(LOG, COMMAND, ENVIRONMENT): its address, "127.0.0.1:port", once it listens. The command takes one of its
# own arguments, LISTEN, for the place where to listen.
sub start_watcher
{
	my ($log, $command, %environment) = @_;
	my @command = map { s/LISTEN/127.0.0.1:0/r } @$command;
	local %ENV = (%ENV, %environment);
	my $run = IPC::Run::start(\@command, '<', \undef, '>&', $log);
	my $address;
	push @watchers, $run;

	poll("$command[0] to listen", sub {
		die "$command[0] has ended: " . slurp_file($log) if !$run->pumpable;
		$address = address_of($run, -e $log ? slurp_file($log) : '');
		return defined $address;
	});
	return $address;
}

# Some tell where they listen, and one does not.
sub address_of
{
	my ($run, $log) = @_;
	return "127.0.0.1:$1" if $log =~ /"Listening on" address=127\.0\.0\.1:(\d+)/;
	return if $log !~ /"msg":"Listening"/;

	# Linux tells of each process's sockets, and of each socket's port.
	my $pid = $run->{KIDS}[0]{PID};
	my %inodes = map { (readlink // '') =~ /^socket:\[(\d+)\]/ ? ($1 => 1) : () } glob "/proc/$pid/fd/*";
	for my $line (split /\n/, slurp_file("/proc/$pid/net/tcp"))
	{
		my (undef, $local, undef, $state, @rest) = split ' ', $line;
		return '127.0.0.1:' . hex $1 if $state eq '0A' && $inodes{ $rest[5] } && $local =~ /^0100007F:(\w+)/;
	}
	return;
}

sub stop_watchers
{
	for my $run (splice @watchers)
	{
		$run->signal('KILL');
		$run->finish;
	}
	return;
}

# None outlives the test, however that ends.
END
{
	my $exit_code = $?;
	stop_watchers();
	$? = $exit_code;
}

# poll(WHAT, CODE): until the code returns something true, which is returned.
sub poll
{
	my ($what, $code) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $found = $code->();
		return $found if $found;
		usleep(100_000);
	}
	die "gave up waiting for $what";
}

# ask(ADDRESS, PATH, PARAMETERS): the body of the answer; dies if there is none.
sub ask
{
	my ($address, $path, %parameters) = @_;
	local %ENV = %ENV;
	delete @ENV{ grep { /_proxy$/i } keys %ENV };
	my $http = HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default);
	my $query = %parameters ? '?' . $http->www_form_urlencode(\%parameters) : '';
	my $answer = $http->get("http://$address$path$query");

	die "no answer from $address$path$query: $answer->{status} $answer->{content}" if !$answer->{success};
	return $answer->{content};
}

# metrics_of(ADDRESS): what an exporter tells, "name{label=value,...}" => value, the labels in their order, without that
# of the server, which is the same for all.
sub metrics_of
{
	my ($address) = @_;
	my %metrics;

	for my $line (grep { /^\w/ } split /\n/, ask($address, '/metrics'))
	{
		my ($name, $labels, $value) = $line =~ /^(\w+)(?:\{(.*)\})? (\S+)$/ or die "not a metric: $line";
		my %label = ($labels // '') =~ /(\w+)="((?:[^"\\]|\\.)*)"/g;
		delete $label{server};
		$metrics{ series($name, %label) } = $value;
	}
	return %metrics;
}

sub series
{
	my ($name, %label) = @_;
	return $name . '{' . join(',', map { "$_=$label{$_}" } sort keys %label) . '}';
}

# ask_prometheus(ADDRESS, WHAT, PARAMETERS): the data of its answer.
sub ask_prometheus
{
	my ($address, $what, %parameters) = @_;
	my $answer = decode_json(ask($address, "/api/v1/$what", %parameters));

	die "Prometheus answers $what with an error" if $answer->{status} ne 'success';
	return $answer->{data};
}

# series_in(ADDRESS, EXPRESSION, LABEL...): what Prometheus finds by the expression now, as metrics_of() has it, with
# these labels alone.
sub series_in
{
	my ($address, $expression, @labels) = @_;
	my %found;

	for my $one (@{ ask_prometheus($address, 'query', query => $expression)->{result} })
	{
		my %label = map { defined $one->{metric}{$_} ? ($_ => $one->{metric}{$_}) : () } @labels;
		$found{ series($one->{metric}{__name__} // '', %label) } = $one->{value}[1];
	}
	return %found;
}

1;
