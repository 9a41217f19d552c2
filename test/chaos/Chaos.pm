# A server that is going to have a hard time, and the clients that use it meanwhile; each client is a process of its own
# (client.c). Here is what a test does with them: start them, wait until they have got on, kill one, write down what
# happens. What the lines of a history mean is told in judge.pl.
package Chaos;

use strict;
use warnings;
use POSIX 'WNOHANG';
use PostgreSQL::Test::Utils;
use RunCluster;
use Time::HiRes qw(usleep clock_gettime CLOCK_MONOTONIC);

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $CHATS = 4;

# Chaos->new(PROGRAMS, SEED, CLIENTS): a started server, with the library that fills its disk on demand, and as many
# clients.
sub new
{
	my ($class, $programs, $seed, $clients) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless {
		programs => $programs, seed => $seed, dir => $dir, full_disk => "$dir/full", clients => {}, born => 0, life => 0 }, $class;

	$self->{fault_log} = "$dir/driver.history";
	open $self->{history}, '>>', $self->{fault_log} or die "$self->{fault_log}: $!";
	$self->{history}->autoflush(1);
	$self->with_full_disk(sub { $self->{node} = make_server() });
	$self->add_client for 1 .. $clients;
	return $self;
}

sub make_server
{
	my $node = new_server('chaos', <<~CONF);
		ai_chat_run.lock_timeout = 50ms
		ai_chat_run.finalize_max_attempts = 2
		ai_chat_run.finalize_retry_base = 5ms
		ai_chat_run.reconcile_interval = 1s
		ai_chat_run.runner_grace = 200ms
		ai_chat_run.stale_after = 0
		autovacuum = on
		autovacuum_naptime = 1s
		max_connections = 50
		track_commit_timestamp = on
		log_statement = none
		CONF

	$node->safe_psql('postgres', <<~SQL);
		CREATE ROLE chat_app LOGIN;
		SELECT ai_chat_run.grant_app_access('chat_app');
		GRANT SELECT ON $RUNS TO chat_app;

		CREATE TABLE audit (number bigserial, run uuid, chat uuid, old text, new text);
		CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \$\$
		BEGIN
			INSERT INTO public.audit (run, chat, old, new)
			VALUES (coalesce(NEW.id, OLD.id), coalesce(NEW.chat_id, OLD.chat_id), OLD.status, NEW.status);
			RETURN NULL;
		END \$\$;
		CREATE TRIGGER audit AFTER INSERT OR DELETE OR UPDATE OF status ON $RUNS
		FOR EACH ROW EXECUTE FUNCTION audit();
		SQL
	return $node;
}

# with_full_disk(SUB): servers that it starts have the disk that can be full.
sub with_full_disk
{
	my ($self, $start) = @_;
	local $ENV{LD_PRELOAD} = "$self->{programs}/full_disk.so";
	local $ENV{FULL_DISK} = $self->{full_disk};

	$start->();
	return;
}

sub write_down
{
	my ($self, $kind, @fields) = @_;
	my $now = int(clock_gettime(CLOCK_MONOTONIC) * 1_000_000);

	print { $self->{history} } join("\t", $kind, $now, @fields), "\n" or die "$self->{fault_log}: $!";
	return;
}

# rows(QUERY): its rows, fields separated by tabs.
sub rows
{
	my ($self, $query) = @_;
	return split /\n/, $self->{node}->safe_psql('postgres', $query, extra_params => [ '-F', "\t" ]);
}

# add_client(): a new one, with a number of its own.
sub add_client
{
	my ($self) = @_;
	my $number = ++$self->{born};
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		$ENV{PGHOST} = $self->{node}->host;
		$ENV{PGPORT} = $self->{node}->port;
		$ENV{PGUSER} = 'chat_app';
		exec("$self->{programs}/client", $number, $self->{seed}, $CHATS, $self->{dir}) or POSIX::_exit(1);
	}
	$self->{clients}{$pid} = $number;
	return;
}

# replace_client(): one of them, chosen at random; another one comes in its place.
sub replace_client
{
	my ($self) = @_;
	my @pids = sort keys %{ $self->{clients} };
	my $pid = $pids[ rand @pids ];

	kill 'KILL', $pid;
	waitpid $pid, 0;
	delete $self->{clients}{$pid};
	$self->add_client;
	return;
}

# written(): how much the clients have written down.
sub written
{
	my ($self) = @_;
	my $bytes = 0;

	$bytes += -s $_ // 0 for glob "$self->{dir}/client-*.history";
	return $bytes;
}

# let_work(CALLS): until the clients have made about so many more calls.
sub let_work
{
	my ($self, $calls) = @_;
	my $goal = $self->written + $calls * 180;

	wait_for("$calls calls", sub { $self->written >= $goal });
	return;
}

# wait_for(WHAT, CONDITION)
sub wait_for
{
	my ($what, $condition) = @_;

	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $condition->();
		usleep(10_000);
	}
	die "gave up waiting for $what";
}

# note_life(): the server takes connections again, and the boot sweep is done. Keeps what is in the table then.
sub note_life
{
	my ($self) = @_;
	my $life = ++$self->{life};

	wait_until($self->{node}, 'postgres',
		"SELECT boot_sweep_done_at IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'postgres'");
	$self->write_down('U', $life);
	$self->write_down('S', $life, $_)
	  for $self->rows("SELECT id, chat_id, status, coalesce(error, '-') FROM $RUNS");
	return;
}

# reap(): forgets the clients that have ended, as they were asked to.
sub reap
{
	my ($self) = @_;

	for my $pid (keys %{ $self->{clients} })
	{
		next if waitpid($pid, WNOHANG) != $pid;
		die "client $self->{clients}{$pid} failed" if $? != 0;
		delete $self->{clients}{$pid};
	}
	return;
}

# end(): asks the clients to end, and sees to it that every run ends, so that none waits for one that does not.
# Returns whether all have ended.
sub end
{
	my ($self) = @_;
	my $node = $self->{node};
	my $clients = $self->{clients};
	my $waiting;

	$self->write_down('F', 'end', '-');
	kill 'TERM', keys %$clients;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$self->reap;
		last unless %$clients;
		$node->safe_psql('postgres', 'SELECT ai_chat_run.sweep_runs()');
		usleep(100_000);
	}
	if (%$clients)
	{
		$waiting = join ' ', $self->rows(<<~SQL);
			SELECT concat_ws(' ', application_name, state, wait_event, left(query, 60)) FROM pg_stat_activity
			WHERE usename = 'chat_app'
			SQL
		kill 'KILL', keys %$clients;
	}
	$self->write_down('P', $waiting ? ('clients_stuck', $waiting) : ('clients_gone', '-'));
	return !$waiting;
}

# note_end(): keeps what is in the tables at the end, when what was deferred is applied.
sub note_end
{
	my ($self) = @_;

	$self->{node}->safe_psql('postgres', 'SELECT ai_chat_run.sweep_runs()');
	wait_until($self->{node}, 'postgres', 'SELECT count(*) = 0 FROM ai_chat_run.deferred_finalizations');
	$self->write_down('T', $_)
	  for $self->rows("SELECT id, chat_id, status, coalesce(error, '-') FROM $RUNS");
	$self->write_down('D', $_) for $self->rows('SELECT run_id, status FROM ai_chat_run.deferred_finalizations');
	print { $self->{history} } "A\t$_\n"
	  for $self->rows(<<~SQL);
		SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint, number, run, chat,
			coalesce(old, '-'), coalesce(new, '-')
		FROM audit
		SQL
	return;
}

1;
