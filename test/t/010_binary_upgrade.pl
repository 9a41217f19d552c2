# pg_upgrade keeps runs and deferred finalizations, and while a server runs for it (postgres -b) nobody of ours is
# there to change them. The first ordinary start is a server start like any other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $old = new_server('old');
my $run = begin_run($old, 'postgres', 1);
my $decided = begin_run($old, 'postgres', 2);
my $client = $old->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
is($old->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'completed')"), 'deferred',
	'a finalization is deferred');
$old->stop('fast');
abandon($client);

# ---- a server in binary upgrade mode, as pg_upgrade starts it ----

sub start_for_upgrade
{
	my ($node) = @_;
	command_ok(
		[ 'pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o', '-b', 'start' ], 'start with -b');
	return;
}

my $life = log_end($old);
start_for_upgrade($old);
is($old->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ai_chat_run%'"), 0,
	'no process of ours is there');
is(runs($old, 'postgres'), "1 running\n2 running", 'runs are as they were');
is($old->safe_psql('postgres', "SELECT ai_chat_run.record_step('$run', '$WS', 1)"), 'continue', 'functions work');
command_ok([ 'pg_ctl', '-w', '-D', $old->data_dir, '-m', 'fast', 'stop' ], 'stop');
unlike(log_since($old, $life), qr/LOG:  boot sweep/, 'nothing was swept');

# ---- pg_upgrade, to a server of the same version for want of another ----

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'ai_chat_run'\nmax_prepared_transactions = 5");
my $bindir = $new->config_data('--bindir');
my $dir = PostgreSQL::Test::Utils::tempdir();
command_ok(
	[
		# It writes where it stands.
		'sh', '-c', 'cd "$0" && exec "$@"', $dir,
		'pg_upgrade', '--no-sync', '-b', $bindir, '-B', $bindir, '-d', $old->data_dir, '-D', $new->data_dir,
		'-p', $old->port, '-P', $new->port, '-s', $new->host
	],
	'pg_upgrade');

# What the log says of one run only shows that the other was not forgotten, and that neither was swept before.
$new->start;
wait_swept($new, 0, 'postgres');
is(swept_lines($new, 0), 'postgres: 1', 'the first start sweeps');
is(runs($new, 'postgres'), "1 aborted Run interrupted by a server restart.\n2 succeeded",
	'and applies what was deferred');
begin_run($new, 'postgres', 1);
$new->stop;
done_testing();
