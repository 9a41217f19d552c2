# A task of the background worker that fails is tried again after pauses that grow; once it has succeeded, they begin anew.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('again', <<~CONF);
	ai_chat_run.stale_after = 1ms
	ai_chat_run.reconcile_interval = 100ms
	CONF
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE 'not today'; END\$\$;
	CREATE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse();
	SQL

# pauses(OFFSET): the first two that the log tells of since.
sub pauses
{
	my ($offset) = @_;
	my $hint = qr/HINT:  It is tried again in (\d+) s/;
	$node->wait_for_log(qr/$hint.*$hint/s, $offset);
	my @pauses = log_since($node, $offset) =~ /$hint/g;
	return "@pauses[0, 1]";
}

my $life = log_end($node);
begin_run($node, 'postgres', 1);
is(pauses($life), '1 2', 'a sweep fails, and fails again');
$node->safe_psql('postgres', "ALTER TABLE $RUNS DISABLE TRIGGER refuse");
wait_until($node, 'postgres', "SELECT status = 'aborted' FROM $RUNS");

# After the visit that has done it, for its outcome to be booked.
wait_until($node, 'postgres', 'SELECT NOT working FROM ai_chat_run.workers WHERE datname = current_database()');
$node->safe_psql('postgres', "ALTER TABLE $RUNS ENABLE TRIGGER refuse");
$life = log_end($node);
begin_run($node, 'postgres', 2);
is(pauses($life), '1 2', 'after it has succeeded the pauses begin anew');
$node->stop;
done_testing();
