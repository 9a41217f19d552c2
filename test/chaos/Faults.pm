# What can befall a server that works, or its clients. Each fault is a sub that makes it happen to a Chaos, and writes it
# down just before. Those that end a life of the server return when it has come back.
package Faults;

use strict;
use warnings;
use Exporter 'import';
use RunCluster;
use Time::HiRes 'usleep';

our @EXPORT_OK = qw(%DEADLY %OTHER);

our %DEADLY = (
	kill_backend => sub { crash(@_, 'kill_backend', 'client backend') },
	kill_launcher => sub { crash(@_, 'kill_launcher', 'ai_chat_run launcher') },
	kill_worker => \&kill_worker,
	kill_postmaster => sub { kill_postmaster(@_, 0) },
	kill_in_recovery => sub { kill_postmaster(@_, 1) },
	stop_immediate => sub { restart(@_, 'immediate') },
	stop_fast => sub { restart(@_, 'fast') });

our %OTHER = (
	terminate_backend => sub { signal_backend(@_, 'terminate_backend') },
	cancel_backend => sub { signal_backend(@_, 'cancel_backend') },
	kill_client => \&cut_client_off,
	lock_rows => \&lock_rows,
	lock_table => \&lock_table,
	full_disk => \&full_disk);

# pick(CHAOS, BACKEND TYPE): the process id of one of them, or nothing.
sub pick
{
	my ($chaos, $type) = @_;
	my @pids = $chaos->rows(<<~SQL);
		SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid() ORDER BY pid
		SQL
	return $pids[ rand @pids ];
}

# stop_process(PID): holds a process where it is. False if it was about to end, so that to kill it would change nothing.
sub stop_process
{
	my ($pid) = @_;

	kill 'STOP', $pid or return 0;
	while (open my $fh, '<', "/proc/$pid/stat")
	{
		my ($state) = (<$fh> // '') =~ /\) (\w)/;
		last if !defined $state || $state =~ /[ZX]/;
		return 1 if $state eq 'T';
		usleep(1000);
	}
	return 0;
}

# crash(CHAOS, FAULT, BACKEND TYPE): kills such a process, which ends the life of the server.
sub crash
{
	my ($chaos, $fault, $type) = @_;
	my $node = $chaos->{node};
	my ($pid, $killed);

	Chaos::wait_for("a $type", sub {
		$pid = pick($chaos, $type);
		return 0 unless defined $pid && stop_process($pid);
		$chaos->write_down('F', $fault, $pid);
		crash_backend($node, $pid);
		return 1;
	});
	$chaos->note_life;
	return;
}

# A worker comes and goes. One that waits for our lock on the table stays long enough.
sub kill_worker
{
	my ($chaos) = @_;
	my $locker;

	$chaos->write_down('F', 'lock_table', '-');
	$locker = hold($chaos, 'LOCK TABLE ai_chat_run.ai_chat_runs IN ACCESS EXCLUSIVE MODE');
	crash($chaos, 'kill_worker', 'ai_chat_run worker');
	abandon($locker);
	return;
}

# kill_postmaster(CHAOS, AGAIN): and again, if so, when it has just started, in the middle of its recovery as a rule.
sub kill_postmaster
{
	my ($chaos, $again) = @_;
	my $node = $chaos->{node};

	$chaos->write_down('F', 'kill_postmaster', server_pid($node));
	$node->kill9;
	if ($again)
	{
		my $pid = start_without_waiting($chaos);

		$chaos->write_down('F', 'kill_postmaster', $pid);
		kill 'KILL', $pid;
	}
	$chaos->with_full_disk(sub { start_again($node) });
	$chaos->note_life;
	return;
}

# start_without_waiting(CHAOS): starts a server that was killed, as soon as what is left of it is gone; the postmaster's
# process id.
sub start_without_waiting
{
	my ($chaos) = @_;
	my $node = $chaos->{node};
	my $before = server_pid($node);
	my $pid;

	$chaos->with_full_disk(sub {
		Chaos::wait_for('a postmaster', sub {
			system 'pg_ctl', '-D', $node->data_dir, '-W', '-s', '-l', $node->logfile, 'start';
			$pid = -s $node->data_dir . '/postmaster.pid' ? server_pid($node) : $before;
			return $pid != $before;
		});
	});
	return $pid;
}

sub restart
{
	my ($chaos, $mode) = @_;

	$chaos->write_down('F', "stop_$mode", '-');
	$chaos->{node}->stop($mode);
	$chaos->with_full_disk(sub { $chaos->{node}->start });
	$chaos->note_life;
	return;
}

sub signal_backend
{
	my ($chaos, $fault) = @_;
	my $pid = pick($chaos, 'client backend') // return;

	$chaos->write_down('F', $fault, $pid);
	$chaos->{node}->safe_psql('postgres', "SELECT pg_$fault($pid)");
	return;
}

sub cut_client_off
{
	my ($chaos) = @_;

	$chaos->write_down('F', 'kill_client', '-');
	$chaos->replace_client;
	return;
}

# hold(CHAOS, COMMAND): a session that has done it, in a transaction that is open.
sub hold
{
	my ($chaos, $command) = @_;
	my $session = $chaos->{node}->background_psql('postgres');

	$session->query_safe('BEGIN');
	$session->query_safe("$command;");
	return $session;
}

# Clients go on, with other chats, or give up what they cannot do.
sub lock_rows
{
	my ($chaos) = @_;
	my $locker;

	$chaos->write_down('F', 'lock_rows', '-');
	$locker = hold($chaos, "SELECT FROM ai_chat_run.ai_chat_runs WHERE status = 'running' FOR UPDATE");
	$chaos->let_work(30);
	$locker->query_safe('COMMIT');
	$locker->quit;
	return;
}

# Nobody can go on for long.
sub lock_table
{
	my ($chaos) = @_;
	my $locker;

	$chaos->write_down('F', 'lock_table', '-');
	$locker = hold($chaos, 'LOCK TABLE ai_chat_run.ai_chat_runs IN ACCESS EXCLUSIVE MODE');
	Chaos::wait_for('two who wait for the table', sub {
		($chaos->rows('SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted'))[0] >= 2
	});
	$locker->query_safe('COMMIT');
	$locker->quit;
	return;
}

# For as long as it takes to make the next begin fail, or to make none.
sub full_disk
{
	my ($chaos) = @_;

	$chaos->write_down('F', 'full_disk', '-');
	PostgreSQL::Test::Utils::append_to_file($chaos->{full_disk}, '');
	$chaos->let_work(100);
	unlink $chaos->{full_disk} or die "$chaos->{full_disk}: $!";
	return;
}

1;
