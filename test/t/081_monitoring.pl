# What doc/monitoring has for those who watch a server, tried for real: an exporter asks a server by its files, as a
# role that is a member of pg_monitor and nothing else, and tells what the views tell; Prometheus asks the exporters,
# answers each expression of the dashboard with data, and takes the alerts, which are raised when they should be.
# Grafana is not in Debian: of the dashboard it is checked that it is well-formed and asks for what there is.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Documents;
use JSON::PP;
use Monitoring;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $FILES = "$CHECKOUT/doc/monitoring";
my $RUNS = 'ai_chat_run.ai_chat_runs';

# The metrics of queries.yaml, each with the query that it comes from, and those of the alerts and of the dashboard.
my %defined = defined_metrics(slurp_file("$FILES/queries.yaml"));
my @alerts = alerts(slurp_file("$FILES/alerts.yml"));
my $dashboard = decode_json(slurp_file("$FILES/dashboard.json"));

sub defined_metrics
{
	my ($text) = @_;
	my ($query, %metrics);
	for my $line (split /\n/, $text)
	{
		$query = $1 if $line =~ /^(\w+):$/;
		$metrics{"${query}_$1"} = $query if $line =~ /^    - (\w+): \{usage: "(?!LABEL)/;
	}
	return %metrics;
}

# Each a hash: name, expression, the section that it names.
sub alerts
{
	my ($text) = @_;
	my (undef, @texts) = split /^ {6}- alert: /m, $text;
	return map {
		my ($name) = /^(\w+)/;
		my ($expression) = /^ {8}expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)/m ? $1 // $2 : '';
		my ($see) = /see: "(.*)"/;
		{ name => $name, expression => $expression =~ s/\s+/ /gr, see => $see }
	} @texts;
}

# The names of our metrics in an expression.
sub names_in
{
	my ($expression) = @_;
	return $expression =~ /\b(ai_chat_run_\w+)/g;
}

sub panels
{
	return grep { $_->{type} ne 'row' } @{ $dashboard->{panels} };
}

# Every expression of the dashboard, with what Grafana puts in the place of its variables when all is chosen.
sub expressions
{
	return map { s/\$(?:instance|datname)/.*/gr =~ s/\$__rate_interval/1m/gr }
	  (map { map { $_->{expr} } @{ $_->{targets} } } panels()), map { $_->{expr} } @{ $dashboard->{annotations}{list} };
}

# ---- the files ----

my @asked = (expressions(), (map { $_->{definition} // '' } @{ $dashboard->{templating}{list} }), map { $_->{expression} } @alerts);
is_deeply([ grep { !$defined{$_} } map { names_in($_) } @asked ], [],
	'the dashboard and the alerts ask for metrics that there are');
is_deeply([ map { $_->{name} } grep { my ($file, $anchor) = split /#/, $_->{see}; !read_document($file)->{slugs}{$anchor} } @alerts ],
	[], 'each alert names a section that is there');
is(join(' ', map { $_->{name} } @{ $dashboard->{templating}{list} }), 'datasource instance datname',
	'the dashboard: its variables');
is_deeply([ grep { $_ ne '${datasource}' } map { map { $_->{datasource}{uid} } $_, @{ $_->{targets} } } panels() ], [],
	'each panel and each query goes to the data source that is chosen');
is_deeply([ map { $_->{title} } grep { !@{ $_->{targets} } || !$_->{description} } panels() ], [],
	'each panel has queries and a description');
is_deeply([ overlaps(@{ $dashboard->{panels} }) ], [], 'panels have ids of their own and do not overlap');

sub overlaps
{
	my (%ids, %places, @found);
	for my $panel (@_)
	{
		my $at = $panel->{gridPos};
		push @found, $panel->{title} if $ids{ $panel->{id} }++ || $at->{x} + $at->{w} > 24;
		for my $x ($at->{x} .. $at->{x} + $at->{w} - 1)
		{
			push @found, $panel->{title} if grep { $places{"$x $_"}++ } $at->{y} .. $at->{y} + $at->{h} - 1;
		}
	}
	return @found;
}

SKIP:
{
	my $promtool = program('promtool') or skip 'no promtool, which comes with prometheus', 4;
	my $unit_tests = "$FindBin::RealBin/../monitoring/alerts.test.yml";

	command_ok([ $promtool, 'check', 'rules', "$FILES/alerts.yml" ], 'promtool: the rules');
	command_ok([ $promtool, 'check', 'config', "$FILES/prometheus.yml" ], 'promtool: the configuration');
	command_ok([ $promtool, 'test', 'rules', $unit_tests ], 'promtool: when alerts are raised');
	my @tested = map { [ /alertname: (\w+)/, /exp_alerts: \[\]/ ? 'not' : 'raised' ] } split /^ {6}- /m, slurp_file($unit_tests);
	my %tested = map { ("@$_" => 1) } grep { @$_ == 2 } @tested;
	is_deeply([ sort keys %tested ], [ sort map { ("$_->{name} not", "$_->{name} raised") } @alerts ],
		'each alert is tested both ways');
}

my $exporter = program('prometheus-postgres-exporter');
if (!$exporter)
{
	note('skipped: no prometheus-postgres-exporter');
	done_testing();
	exit;
}

# ---- a server on which everything has happened, each thing as often as no other ----

my $node = new_server('monitoring', <<~CONF);
	wal_level = replica
	max_wal_senders = 4
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.runner_grace = 1ms
	ai_chat_run.finalize_max_attempts = 3
	ai_chat_run.finalize_retry_base = 0
	ai_chat_run.max_active_runs = 100
	CONF
$node->safe_psql('postgres', <<~SQL);
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	ALTER ROLE monitor SET lock_timeout = '100ms';
	CREATE DATABASE app;
	CREATE DATABASE plain;
	SQL
$node->safe_psql('app', 'CREATE EXTENSION ai_chat_run');
my $next_chat = 0;

# begin(N): so many runs, in chats of their own: their ids.
sub begin
{
	my ($n, $runner) = @_;
	my $named = defined $runner ? ", runner => '$runner'" : '';
	return split /\n/, $node->safe_psql('postgres', join '',
		map { $next_chat++; "SELECT ai_chat_run.begin_run('@{[chat($next_chat)]}', '$WS'$named);\n" } 1 .. $n);
}

sub each_run
{
	my ($call, @runs) = @_;
	return $node->safe_psql('postgres', join '', map { my $run = $_; $call =~ s/RUN/'$run', '$WS'/r . ";\n" } @runs);
}

sub hold
{
	my (@runs) = @_;
	my $client = $node->background_psql('postgres');
	$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id IN (" . join(', ', map { "'$_'" } @runs) . ') FOR UPDATE');
	return $client;
}

sub let_go
{
	my ($client) = @_;
	$client->query_safe('COMMIT');
	$client->quit;
	return;
}

sub counter
{
	my ($name) = @_;
	return "SELECT $name FROM ai_chat_run.stats WHERE datname = 'postgres'";
}

# In the second database something goes wrong with each visit after the start.
begin(16);
$node->safe_psql('app', <<~SQL);
	SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS');
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE 'not here'; END\$\$;
	CREATE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse();
	SQL
$node->restart;
wait_until($node, 'postgres', counter('swept_at_boot'), 16);
wait_until($node, 'postgres', "SELECT last_error FROM ai_chat_run.workers WHERE datname = 'app'", 'not here');

my @untracked = begin(115);
each_run(q(SELECT ai_chat_run.finalize_run(RUN, 'completed')), @untracked);
my $runner = $node->background_psql('postgres');
$runner->query_safe("SELECT ai_chat_run.attach_runner('web-1')");
begin(5, 'web-1');
$runner->quit;
wait_until($node, 'postgres', counter('swept_departed'), 5);
begin(12);
$node->safe_psql('postgres', "UPDATE $RUNS SET updated_at = now() - interval '1 y'; SELECT ai_chat_run.sweep_runs()");
each_run(q(SELECT ai_chat_run.finalize_run(RUN, 'aborted')), begin(6));
each_run(q(SELECT ai_chat_run.finalize_run(RUN, 'error')), begin(7));
my @later = begin(3);
my $client = hold(@later);
is(each_run(q(SELECT ai_chat_run.finalize_run(RUN, 'completed')), @later), "deferred\ndeferred\ndeferred", 'ends are deferred');
let_go($client);
wait_until($node, 'postgres', counter('settled_later'), 3);
my @active = begin(20);
$client = hold($active[0]);
is(each_run(q(SELECT ai_chat_run.finalize_run(RUN, 'completed')), $active[0]), 'deferred', 'one stays so');
each_run('SELECT ai_chat_run.request_stop(RUN)', @active[ 1 .. 9 ]);
each_run('SELECT ai_chat_run.heartbeat(RUN)', (@active) x 2);
each_run('SELECT ai_chat_run.record_step(RUN, 1)', @active[ 1 .. 19 ]);
$node->safe_psql('postgres', join '', map { "SELECT ai_chat_run.try_begin_run('@{[chat($next_chat)]}', '$WS');\n" } 1 .. 10);
my ($waiter) = start_waiting($node, 'postgres', "CALL ai_chat_run.await_run('$active[1]', '$WS', '1 h', null, null)");
my ($other) = start_waiting($node, 'postgres', "CALL ai_chat_run.await_run('$active[2]', '$WS', '1 h', null, null)");
my $attached = $node->background_psql('postgres');
$attached->query_safe("SELECT ai_chat_run.attach_runner('web-2')");
begin(2, 'web-2');

# ---- the exporter tells what the views tell ----

my $log = $node->logfile =~ s/\.log\z//r;
my $address = start_exporter($node, 'one');
my %told = metrics_of($address);

# service_setting(NAME, THEIRS => OURS...): what Debian's service is told to be given, for our server and our files.
sub service_setting
{
	my ($name, %ours) = @_;
	my ($value) = slurp_file("$FILES/prometheus-postgres-exporter.default") =~ /^$name='(.*)'$/m or die "no $name";
	for my $theirs (sort keys %ours)
	{
		$value =~ s/\Q$theirs\E/$ours{$theirs}/ or die "$name has no $theirs";
	}
	return $value;
}

sub start_exporter
{
	my ($of, $name) = @_;
	my $arguments = service_setting('ARGS', '/etc/prometheus/ai_chat_run.yaml' => "$FILES/queries.yaml", 'chat2,chat3' => 'app');
	my $source = service_setting('DATA_SOURCE_NAME', 'user=prometheus' => 'user=monitor', 'dbname=chat' => 'dbname=postgres',
		'/run/postgresql' => "@{[$of->host]} port=@{[$of->port]}");
	return start_watcher("${log}_exporter_$name.log",
		[ $exporter, '--web.listen-address=LISTEN', split ' ', $arguments ], DATA_SOURCE_NAME => $source);
}

# look(QUERY, DATABASE): "name value" of each line, as a list for a hash.
sub look
{
	my ($query, $db) = @_;
	return map { split / / } split /\n/,
	  $node->safe_psql($db // 'postgres', $query, extra_params => [ '-U', 'monitor' ]);
}

sub told
{
	my ($pattern) = @_;
	return map { $_ => $told{$_} } grep { /$pattern/ } keys %told;
}

is($told{'pg_exporter_last_scrape_error{}'}, 0, 'the exporter has no error to tell of');
is_deeply([ sort keys %{ { map { /^(ai_chat_run_\w+)/ ? ($1 => 1) : () } keys %told } } ], [ sort keys %defined ],
	'each metric that the queries define is told');
my %counters = look(<<~SQL);
	SELECT format('ai_chat_run_%s_total{datname=%s} %s', key, datname, value)
	FROM ai_chat_run.stats s, jsonb_each_text(to_jsonb(s)) WHERE key NOT IN ('datid', 'datname', 'stats_reset')
		AND datname NOT LIKE 'template%'
	SQL
is_deeply({ told(qr/^ai_chat_run_[a-z]+(?:_succeeded|_failed|_aborted|_later|_at_boot|_stale|_departed)?_total\{datname=/) },
	\%counters, 'counters: those of the view');
my %times = map { $counters{$_} => $_ } grep { /=postgres/ } keys %counters;
is(scalar(keys %times), 15, 'which are all different') or diag(explain(\%counters));
ok(!$times{0}, 'and none is 0');
like($told{'ai_chat_run_counted_since_seconds{datname=postgres}'}, qr/^\d\.\d+e\+09$/, 'since when');
is_deeply({ told(qr/^ai_chat_run_active_(?:\w+_)?runs\{|^ai_chat_run_sessions|^ai_chat_run_server/) }, {
	'ai_chat_run_active_runs{datname=postgres}' => 22, 'ai_chat_run_active_runs{datname=app}' => 1,
	'ai_chat_run_active_attached_runs{datname=postgres}' => 2, 'ai_chat_run_active_attached_runs{datname=app}' => 0,
	'ai_chat_run_active_stopping_runs{datname=postgres}' => 9, 'ai_chat_run_active_stopping_runs{datname=app}' => 0,
	'ai_chat_run_active_deferred_runs{datname=postgres}' => 1, 'ai_chat_run_active_deferred_runs{datname=app}' => 0,
	'ai_chat_run_sessions_waiting{datname=postgres}' => 2, 'ai_chat_run_sessions_waiting{datname=app}' => 0,
	'ai_chat_run_sessions_waiting{datname=plain}' => 0,
	'ai_chat_run_server_in_recovery{}' => 0 }, 'active runs, sessions that wait');
is_deeply({ told(qr/^ai_chat_run_health/) }, { map {
	look("SELECT format('ai_chat_run_health_ok{check=%s,datname=$_} %s', check_name, ok::int) FROM ai_chat_run.health()", $_)
} qw(postgres app) }, 'health(), in each database');
is(join(' ', sort map { /check=(\w+)/ } grep { !$told{$_} } keys %{ { told(qr/^ai_chat_run_health_ok.*=app/) } }), 'boot_sweep',
	'in one not all is well');
is_deeply({ told(qr/^ai_chat_run_worker_boot/) }, { look(<<~SQL) }, 'the visits of workers');
	SELECT unnest(ARRAY[format('ai_chat_run_worker_boot_sweep_done{datname=%s} %s', datname, (boot_sweep_done_at IS NOT NULL)::int),
		format('ai_chat_run_worker_boot_sweep_runs{datname=%s} %s', datname, runs_swept)])
	FROM ai_chat_run.workers WHERE datname NOT LIKE 'template%'
	SQL
is($told{'ai_chat_run_worker_boot_sweep_runs{datname=postgres}'}, 16, 'and their boot sweep');
is($told{'ai_chat_run_worker_last_error_seconds{datname=postgres}'}, 0, 'never an error here');
cmp_ok($told{'ai_chat_run_worker_last_error_seconds{datname=app}'}, '>', 1e9, 'but there');
is($told{'ai_chat_run_table_size_bytes{datname=postgres,relname=ai_chat_runs}'},
	$node->safe_psql('postgres', "SELECT pg_total_relation_size('$RUNS')"), 'the size of the table');
cmp_ok($told{'ai_chat_run_active_oldest_seconds{datname=postgres}'}, '>=',
	$told{'ai_chat_run_active_silent_seconds{datname=postgres}'}, 'nobody is silent for longer than it is there');

# A client that has the table holds up what reads it, for as long as the role's lock_timeout, and nothing else.
my $locker = $node->background_psql('app');
$locker->query_safe("BEGIN; LOCK $RUNS");
%told = metrics_of($address);
is(join(' ', map { my %found = told(qr/^ai_chat_run_$_\{.*=app/); scalar keys %found }
		qw(active_runs health_ok begun_total worker_overdue_seconds)), '0 0 1 1', 'a locked table: the counters are told');
is($told{'pg_exporter_last_scrape_error{}'}, 1, 'and that something is missing');
let_go($locker);

# The active runs are found by the index, however many have ended.
$node->safe_psql('postgres', <<~SQL);
	INSERT INTO $RUNS (chat_id, workspace_id, status, finished_at)
	SELECT gen_random_uuid(), '$WS', 'succeeded', now() FROM generate_series(1, 20000);
	ANALYZE $RUNS;
	SQL
my ($query) = slurp_file("$FILES/queries.yaml") =~ /^ai_chat_run_active:\n  query: \|\n((?: {4}.*\n)+)/m;
like($node->safe_psql('postgres', "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) $query"),
	qr/Index Scan (?:using|on) ai_chat_runs_one_active_per_chat \(actual rows=22(?:\.00)? /, 'active runs are found by the index');

# ---- a standby ----

my $standby = PostgreSQL::Test::Cluster->new('monitoring_standby');
$node->backup('base');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
%told = metrics_of(start_exporter($standby, 'standby'));
is($told{'ai_chat_run_server_in_recovery{}'}, 1, 'a standby says that it is one');
is($told{'ai_chat_run_active_runs{datname=postgres}'}, 22, 'and what it has');
is($told{'pg_exporter_last_scrape_error{}'}, 0, 'without an error');
$standby->stop;

# ---- the other exporter, and Prometheus ----

SKIP:
{
	my $prometheus = program('prometheus') or skip 'no prometheus', 1;
	my $sql_exporter = program('prometheus-sql-exporter');
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my @jobs = ('ai_chat_run');
	my $sql_address = '127.0.0.1:1';

	# The other exporter's file with our server, and one connection more for what is asked in each database.
	if ($sql_exporter)
	{
		my $text = slurp_file("$FILES/sql_exporter.yml") =~ s/interval: 15s/interval: 1s/gr;
		my $to = "postgres://monitor\@/postgres?host=@{[$node->host]}&port=@{[$node->port]}&sslmode=disable";
		is($text =~ s{"postgres://\S+"}{"$to"}g, 2, 'sql_exporter.yml has its connections');
		my $second = $to =~ s{/postgres\?}{/app?}r;
		$text =~ s{(name: ai_chat_run_database.*?"\n)}{$1      - "$second"\n}s;
		append_to_file("$dir/sql_exporter.yml", $text);
		$sql_address = start_watcher("${log}_sql_exporter.log",
			[ $sql_exporter, '-config.file', "$dir/sql_exporter.yml", '-web.listen-address', 'LISTEN' ],
			LOGLEVEL => 'info');
		push @jobs, 'ai_chat_run_sql';
	}
	else
	{
		note('skipped: no prometheus-sql-exporter');
	}

	my $conf = slurp_file("$FILES/prometheus.yml") =~ s/_interval: 15s/_interval: 1s/gr;
	$conf =~ s/127\.0\.0\.1:9187/$address/;
	$conf =~ s/127\.0\.0\.1:9237/$sql_address/;
	append_to_file("$dir/prometheus.yml", $conf);
	append_to_file("$dir/alerts.yml", slurp_file("$FILES/alerts.yml"));
	my $at = start_watcher("${log}_prometheus.log",
		[ $prometheus, "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/data", '--web.listen-address=LISTEN' ]);
	poll('Prometheus to hear from the exporters', sub {
		my %up = eval { series_in($at, 'up == 1', 'job') };
		return @jobs == grep { $up{"up{job=$_}"} } @jobs;
	});

	if ($sql_exporter)
	{
		# Nothing moves but the time, and the worker that fails.
		my ($one, $two);
		my $same = eval {
			poll('both exporters to tell the same', sub {
				($one, $two) = map { stable_series($at, $_) } @jobs;
				return keys %$one && join(',', %$one{ sort keys %$one }) eq join(',', %$two{ sort keys %$two });
			});
		};
		is_deeply($two, $one, 'both exporters tell the same');
		is_deeply([ sort keys %{ { map { /^(\w+)/ ? ($1 => 1) : () } keys %$two } } ],
			[ sort grep { !/^ai_chat_run_(?:active_(?:oldest|silent)|worker_(?:last|overdue))/ } keys %defined ], 'all of it');
	}

	# Something happens all the time.
	$node->safe_psql('app', "DROP TRIGGER refuse ON $RUNS");
	my %left = map { $_ => 1 } expressions();
	my %raised;
	my @to_raise = qw(AiChatRunAbortedByRestart AiChatRunAbortedForSilence AiChatRunRunnersDepart AiChatRunUntracked);
	my $done = eval {
		poll('data for all expressions', sub {
			happen();
			delete @left{ grep { @{ ask_prometheus($at, 'query', query => $_)->{result} } } keys %left };
			$raised{ $_->{labels}{alertname} } = 1 for @{ ask_prometheus($at, 'alerts')->{alerts} };
			return !%left && !grep { !$raised{$_} } @to_raise;
		});
	};
	is_deeply([ sort keys %left ], [], 'Prometheus has data for each expression of the dashboard');
	is_deeply([ grep { !$raised{$_} } @to_raise ], [], 'alerts are raised');
	ok(!$raised{AiChatRunNotPreloaded} && !$raised{AiChatRunNoWorker} && !$raised{AiChatRunNotWatched}, 'others are not');
	is(join(' ', sort map { $_->{name} } grep { $_->{health} eq 'ok' }
		map { @{ $_->{rules} } } @{ ask_prometheus($at, 'rules')->{groups} }),
		join(' ', sort map { $_->{name} } @alerts), 'Prometheus can evaluate each alert');

	$node->safe_psql('app', 'DROP INDEX ai_chat_run.ai_chat_runs_one_active_per_chat');
	poll('the alert of the missing index', sub {
		return grep { $_->{labels}{alertname} eq 'AiChatRunIndexBroken' && $_->{labels}{datname} eq 'app' }
		  @{ ask_prometheus($at, 'alerts')->{alerts} };
	});
	pass('a missing index raises its alert');
}

# stable_series(PROMETHEUS, JOB): what it has of the job but for what changes with the time.
sub stable_series
{
	my ($at, $job) = @_;
	return { series_in($at, sprintf('{job="%s", __name__=~"ai_chat_run_.*", __name__!~"%s"}', $job,
			'ai_chat_run_(active_oldest|active_silent|worker_last_error|worker_overdue)_seconds'),
		qw(datname check relname)) };
}

# A little of everything that is counted, and of what sweeps do.
sub happen
{
	my ($run) = begin(1);
	each_run('SELECT ai_chat_run.record_step(RUN, 1)', $run);
	each_run(q(SELECT ai_chat_run.finalize_run(RUN, 'completed')), $run);
	each_run('SELECT ai_chat_run.finalize_run(RUN, \'completed\')', begin(101 - 22));
	$node->safe_psql('postgres', <<~SQL);
		SELECT ai_chat_run.begin_run('@{[chat(9999)]}', '$WS', runner => 'web-3');
		SELECT ai_chat_run.sweep_runs(runner => 'web-3');
		SELECT ai_chat_run.attach_runner('web-4');
		SELECT ai_chat_run.begin_run('@{[chat(9998)]}', '$WS', runner => 'web-4');
		SELECT pg_stat_force_next_flush();
		SQL
	$node->safe_psql('app', 'SELECT ai_chat_run.stats_reset()');
	return;
}

let_go($client);
abandon($_) for $waiter, $other, $attached;
$node->stop;
done_testing();
