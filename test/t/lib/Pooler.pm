# A PgBouncer of the test's own in front of a server: a process of the test's user behind a socket in a directory of
# its own, never the service of the system. A pooler is used as a node is; only its host and its port are others.
# PG_TEST_PGBOUNCER=/path/to/pgbouncer picks one that is not in the usual places.
package Pooler;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;
use RunCluster;
use Time::HiRes 'usleep';

our @EXPORT = qw(pgbouncer knows_statements start_pooler kill_pooler console wait_console app_session app_call
  open_sessions);

my @poolers;

# pgbouncer(): its program, or undef if there is none.
sub pgbouncer
{
	my ($program) = grep { -x } $ENV{PG_TEST_PGBOUNCER} // (), map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
	return $program;
}

# knows_statements(): does it keep clients' named statements apart where sessions are shared? It does since 1.21.
sub knows_statements
{
	my ($major, $minor) = pgbouncer_version() =~ /(\d+)\.(\d+)/;
	return $major > 1 || $minor >= 21;
}

sub pgbouncer_version
{
	my ($out) = run_command([ pgbouncer(), '--version' ]);
	return $out;
}

# start_pooler(NODE, NAME => VALUE...): a transaction-pooling one of two sessions that take turns, unless told otherwise.
# The node's superuser may use its console; role "app" is its other user.
sub start_pooler
{
	my ($node, %settings) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $user = $node->safe_psql('postgres', 'SELECT current_user');
	my $pooler = bless { %$node, _host => $dir, _port => 6432 }, ref $node;
	my %all = (
		listen_addr => '',
		listen_port => $pooler->port,
		unix_socket_dir => $dir,
		auth_type => 'trust',
		auth_file => "$dir/users",
		admin_users => $user,
		logfile => $node->logfile =~ s/\.log\z/_pgbouncer.log/r,
		pool_mode => 'transaction',
		default_pool_size => 2,
		server_round_robin => 1,
		server_login_retry => 1,
		max_prepared_statements => 100,
		%settings);
	delete $all{max_prepared_statements} unless knows_statements();

	append_to_file("$dir/users", qq("$_" ""\n)) for $user, 'app';
	append_to_file("$dir/ini", join "\n", '[databases]', "* = host=@{[$node->host]} port=@{[$node->port]}", '[pgbouncer]',
		(map { "$_ = $all{$_}" } sort keys %all), '');
	$pooler->{pgbouncer} = IPC::Run::start([ pgbouncer(), '-q', "$dir/ini" ], '<', \undef, '>&', "$dir/output");
	push @poolers, $pooler;

	# A psql that is refused would not wait for a query.
	$pooler->poll_query_until('postgres', undef, '') or die 'the pooler does not start';
	return $pooler;
}

# kill_pooler(POOLER): kill -9.
sub kill_pooler
{
	my ($pooler) = @_;
	my $run = delete $pooler->{pgbouncer} or return;
	$run->signal('KILL');
	$run->finish;
	return;
}

# None outlives the test, however that ends.
END
{
	my $exit_code = $?;
	kill_pooler($_) for @poolers;
	$? = $exit_code;
}

# console(POOLER, COMMAND): what its console answers, a hash for each row.
sub console
{
	my ($pooler, $command) = @_;
	my $out = $pooler->safe_psql('pgbouncer', $command, extra_params => [ '-P', 'tuples_only=off', '-P', 'footer=off' ]);
	my ($names, @rows) = map { [ split /\|/, $_, -1 ] } split /\n/, $out;
	return map { my %row; @row{@$names} = @$_; \%row } @rows;
}

# wait_console(POOLER, COMMAND, CONDITION, N): until N rows of the answer fulfil the condition.
sub wait_console
{
	my ($pooler, $command, $condition, $n) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $n == grep { $condition->($_) } console($pooler, $command);
		usleep(100_000);
	}
	die "gave up waiting for the console: $command";
}

# app_session(NODE OR POOLER): a psql of role "app" that stays.
sub app_session
{
	my ($to) = @_;
	return $to->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'app' ]);
}

# app_call(NODE OR POOLER, SQL): what role "app" gets, in a psql of its own.
sub app_call
{
	my ($to, $sql) = @_;
	return $to->safe_psql('postgres', $sql, extra_params => [ '-U', 'app' ]);
}

# open_sessions(POOLER, N): has so many clients in a transaction at the same time, for the pool to open as many sessions.
sub open_sessions
{
	my ($pooler, $n) = @_;
	my @clients = map { app_session($pooler) } 1 .. $n;

	$_->query_safe('BEGIN; SELECT 1') for @clients;
	$_->query_safe('COMMIT') for @clients;
	$_->quit for @clients;
	return;
}

1;
