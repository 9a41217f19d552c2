# Hostile and clumsy input: every function and procedure that the catalog has is called with nulls in all combinations,
# with each value at the edge of each argument's type, and with chance mixtures, of runs in all states and of none; as the
# superuser, an application's role, a monitoring one and one without rights; in databases of four encodings, from clients
# of others. Each call has to give a documented answer or an SQLSTATE from its list (test/t/lib/Routines.pm). An error,
# and an answer that says that nothing was done, leave the tables as they were. Nobody crashes, and in the end all is in
# order and can be swept up.
#
# FUZZ_SEED=n repeats a run, CHAOS=full makes a long one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Routines;
use RunCluster;
use Test::More;

my $FACTOR = ($ENV{CHAOS} // '') eq 'full' ? 20 : 1;
my $SEED = $ENV{FUZZ_SEED} // int(rand(2**31));
my $RUNS = 'ai_chat_run.ai_chat_runs';
my $OTHER_WS = 'b0000000-0000-4000-9000-000000000001';
my $NIL = '00000000-0000-0000-0000-000000000000';
my $MAX = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

srand $SEED;
note "FUZZ_SEED=$SEED";

my $node = new_server('fuzz', <<~CONF);
	ai_chat_run.boot_sweep = off
	ai_chat_run.stale_after = 0
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1h
	ai_chat_run.finalize_max_attempts = 2
	ai_chat_run.finalize_retry_base = 0
	ai_chat_run.lock_timeout = 1ms
	ai_chat_run.sweep_batch_size = 3
	log_statement = none
	log_min_error_statement = panic
	CONF
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
$node->safe_psql('postgres', <<~'SQL');
	CREATE ROLE fuzz_app;
	CREATE ROLE fuzz_monitor IN ROLE pg_monitor;
	CREATE ROLE fuzz_nobody;
	CREATE ROLE "fuzz ""odd"" role";
	SQL

# By encoding: a text that it alone makes what it is, and what clients may have beside it.
my %ENCODINGS = (
	UTF8 => { text => 'c3a4e697a5e69cac20f09f9880', clients => [qw(LATIN1 SJIS UTF8)] },
	LATIN1 => { text => 'e4f6fc20dfff', clients => [qw(UTF8 SQL_ASCII)] },
	EUC_JP => { text => 'a4a220b0a1cfc0', clients => [qw(SJIS UTF8)] },
	SQL_ASCII => { text => 'fffe80c320e697', clients => [qw(SQL_ASCII)] });

# ---- the world that the calls are for ----

sub run_no { return sprintf 'f0000000-0000-7000-8000-%012d', $_[0] }

sub a_run
{
	my ($id, $chat, %more) = @_;
	return { id => $id, chat => $chat, workspace => $WS, %more };
}

# Runs in all states. Another session has the rows of 4, 5 and the last one, and has begun 10; 11 is prepared.
my @world_runs = (
	(map { a_run(run_no($_), chat($_)) } 1 .. 8),
	a_run(run_no(9), chat(9), workspace => $OTHER_WS),
	(map { a_run(run_no($_), chat($_), hidden => 1) } 10, 11),
	a_run(run_no(12), chat(12)),
	a_run($NIL, $NIL),
	a_run($MAX, $MAX, workspace => $MAX));
my %world = (
	runs => \@world_runs,
	ids => [ $NIL, $MAX, $WS, $OTHER_WS, map { ($_->{id}, $_->{chat}) } @world_runs[ 0 .. $#world_runs - 2 ] ],
	has_infinite_intervals => $node->pg_version >= 17);

sub begin_call
{
	my ($run) = @_;
	my $key = "'$run->{chat}', '$run->{workspace}'";
	return "SELECT ai_chat_run.begin_run($key, run_id => '$run->{id}', runner => 'web-1');";
}

# A direct writer may give a run any times, and a runner's name that no call of ours would take.
sub make_runs
{
	my ($db) = @_;
	my $begins = join "\n", map { begin_call($_) } @world_runs[ 1 .. 8, 12, 13 ];

	$node->safe_psql($db, <<~SQL);
		INSERT INTO $RUNS (id, chat_id, workspace_id) VALUES ('@{[run_no(1)]}', '@{[chat(1)]}', '$WS');
		$begins
		SELECT ai_chat_run.request_stop('@{[run_no(3)]}', '$WS');
		SELECT ai_chat_run.finalize_run('@{[run_no(6)]}', '$WS', 'error', string_agg(md5(i::text), E'\\n'))
		FROM generate_series(1, 500) i;
		SELECT ai_chat_run.finalize_run('@{[run_no(7)]}', '$WS', 'completed');
		SELECT ai_chat_run.finalize_run('@{[run_no(8)]}', '$WS', 'aborted', 'by hand');
		INSERT INTO $RUNS (id, chat_id, workspace_id, status, runner, trigger,
			stop_requested_at, started_at, created_at, updated_at)
		VALUES ('@{[run_no(12)]}', '@{[chat(12)]}', '$WS', 'running', repeat('r', 200), '',
			'-infinity', 'infinity', '-infinity', 'infinity');
		BEGIN;
		@{[begin_call($world_runs[10])]}
		PREPARE TRANSACTION 'fuzz';
		SQL
	return;
}

# The session that is in everybody's way.
sub hold_rows
{
	my ($db) = @_;
	my $holder = $node->background_psql($db);

	# It is left alone for long.
	$holder->set_query_timer_restart;
	my $locked = join ', ', map { "'$_'" } run_no(4), run_no(5), $MAX;

	$holder->query_safe("BEGIN; SELECT FROM $RUNS WHERE id IN ($locked) FOR UPDATE; " . begin_call($world_runs[9]));
	is($node->safe_psql($db, <<~SQL), "deferred\ndeferred", "$db: two finalizations are deferred");
		SELECT ai_chat_run.finalize_run('@{[run_no(4)]}', '$WS', 'completed');
		SELECT ai_chat_run.finalize_run('$MAX', '$MAX', 'error', 'at the end of all ids');
		SQL
	return $holder;
}

# Texts, from short to megabytes: inline, compressed, out of line, both.
sub make_values
{
	my ($db, $foreign_text) = @_;

	$node->safe_psql($db, <<~SQL);
		CREATE SCHEMA fuzz;
		CREATE TABLE fuzz.texts (n serial, v text, is_big boolean NOT NULL DEFAULT false);
		INSERT INTO fuzz.texts (v) VALUES (''), ('user'), ('running'), ('completed'), ('Completed'), ('completed '),
			('web-1'), ('%s%n%1\$d%%'), ('''; DROP TABLE $RUNS; --'), ('"\\\$1\$\$'), (E'a\\nFORGED LOG:  b\\r\\nFORGED'),
			(repeat('x', 127)), (repeat('x', 128)), (convert_from('\\x$foreign_text', getdatabaseencoding())),
			((SELECT string_agg(chr(i), '') FROM generate_series(1, 127) i));
		INSERT INTO fuzz.texts (v, is_big) VALUES (repeat('long ', 300000), true);
		ALTER TABLE fuzz.texts ALTER v SET STORAGE EXTERNAL;
		INSERT INTO fuzz.texts (v, is_big)
			SELECT string_agg(md5(i::text), ''), true FROM generate_series(1, 60000) i;
		ALTER TABLE fuzz.texts ALTER v SET STORAGE MAIN;
		INSERT INTO fuzz.texts (v) VALUES (repeat('completed', 900));

		CREATE TABLE fuzz.arrays (n serial, v uuid[]);
		INSERT INTO fuzz.arrays (v) VALUES ('{}'), ('{NULL}'), (ARRAY['@{[run_no(3)]}'::uuid]),
			('{{@{[run_no(3)]},NULL},{$NIL,$MAX}}'), ('[-2147483647:-2147483646]={NULL,@{[run_no(3)]}}'),
			((SELECT array_agg(CASE WHEN i % 3 > 0 THEN md5(i::text)::uuid END) FROM generate_series(1, 100000) i));
		SQL
	$world{big_texts} = [ split /\n/, $node->safe_psql($db, 'SELECT n FROM fuzz.texts WHERE is_big ORDER BY n') ];
	$world{small_texts} = [ split /\n/, $node->safe_psql($db, 'SELECT n FROM fuzz.texts WHERE NOT is_big ORDER BY n') ];
	$world{arrays} = [ split /\n/, $node->safe_psql($db, 'SELECT n FROM fuzz.arrays ORDER BY n') ];
	return;
}

# What makes the calls that need not come from a client, and what judges all of them.
sub make_judge
{
	my ($db) = @_;

	$node->safe_psql($db, <<~'SQL');
		CREATE FUNCTION fuzz.text_no(int) RETURNS text LANGUAGE sql STABLE AS $$SELECT v FROM fuzz.texts WHERE n = $1$$;
		CREATE FUNCTION fuzz.array_no(int) RETURNS uuid[] LANGUAGE sql STABLE AS $$SELECT v FROM fuzz.arrays WHERE n = $1$$;
		CREATE TABLE fuzz.routines (name name PRIMARY KEY, errors text[], answer text, quiet text);
		CREATE TABLE fuzz.calls (n int PRIMARY KEY, routine name, role name, form text, call text, may text[],
			must_state text, must_answer text);
		CREATE TABLE fuzz.results (n int PRIMARY KEY, state text, answer text, message text, changed boolean);

		-- What all tables of the extension have in them.
		DO $do$
		BEGIN
			EXECUTE format(
				'CREATE FUNCTION fuzz.digest() RETURNS text LANGUAGE sql SECURITY DEFINER AS $f$SELECT md5(concat(%s))$f$',
				(SELECT string_agg(format('(SELECT string_agg(md5(t::text), '''' ORDER BY md5(t::text)) FROM %s t), 7',
						oid::regclass), ', ')
					FROM pg_class WHERE relnamespace = 'ai_chat_run'::regnamespace AND relkind = 'r'));
		END
		$do$;

		-- Makes the call, and takes back what it did. What it changed is seen before that if it gave an answer, else after.
		CREATE FUNCTION fuzz.attempt(c fuzz.calls) RETURNS fuzz.results LANGUAGE plpgsql AS $$
		DECLARE
			before text := fuzz.digest();
			r fuzz.results;
		BEGIN
			r.n := c.n;
			BEGIN
				PERFORM set_config('role', c.role, true);
				EXECUTE c.call INTO r.answer;
				r.state := '00000';
				r.changed := fuzz.digest() <> before;
				RAISE EXCEPTION USING ERRCODE = 'UNDO0';
			EXCEPTION
				WHEN SQLSTATE 'UNDO0' THEN
					IF fuzz.digest() <> before THEN
						r.state := 'not undone';
					END IF;
				WHEN OTHERS THEN
					GET STACKED DIAGNOSTICS r.state = RETURNED_SQLSTATE, r.message = MESSAGE_TEXT;
					r.changed := fuzz.digest() <> before;
			END;
			RETURN r;
		END
		$$;
		CREATE PROCEDURE fuzz.attempt_all() LANGUAGE plpgsql AS $$
		DECLARE
			c fuzz.calls;
		BEGIN
			FOR c IN SELECT * FROM fuzz.calls WHERE form = 'undone' ORDER BY n LOOP
				INSERT INTO fuzz.results SELECT * FROM fuzz.attempt(c);
				COMMIT;
			END LOOP;
		END
		$$;

		CREATE VIEW fuzz.breaches AS
		SELECT c.n, format('%s: %s as %s, %s: %s', why, c.call, c.role, c.form,
			left(concat_ws(' ', r.state, r.answer, r.message, CASE WHEN r.changed THEN '(changed)' END), 200)) AS breach
		FROM fuzz.calls c LEFT JOIN fuzz.results r USING (n) JOIN fuzz.routines f ON f.name = c.routine,
		LATERAL (VALUES
			(r.n IS NULL, 'no result'),
			(r.state <> ALL (f.errors || c.may || '00000'::text), 'an undocumented error'),
			(r.state = '00000' AND r.answer !~ f.answer AND c.form <> 'do', 'an undocumented answer'),
			(r.state <> c.must_state, 'not the error that it should be, ' || c.must_state),
			(r.state = '00000' AND r.answer !~ c.must_answer, 'not the answer that it should be, ' || c.must_answer),
			-- What was committed before the wait that somebody ended, stays.
			(r.state <> '00000' AND r.changed AND (r.state, c.routine) <> ('57014', 'supersede_run'),
				'an error that leaves something changed'),
			(r.state = '00000' AND r.changed AND r.answer ~ f.quiet, 'an answer that does not tell of a change'),
			(r.message ~ '^[A-Z]|[.]$|^$', 'a message that is not in the style of messages')
		) v(is_so, why)
		WHERE is_so;
		GRANT USAGE ON SCHEMA fuzz TO PUBLIC;
		GRANT SELECT ON fuzz.texts, fuzz.arrays TO PUBLIC;
		SELECT ai_chat_run.grant_app_access('fuzz_app');
		SQL
	return;
}

# ---- calls, as text ----

my %ROLES = (owner => [], monitor => ['fuzz_monitor'], app => ['fuzz_app']);

# Most calls are of a role that may make them. For those of another there is one error only.
sub choose_role
{
	my ($call) = @_;
	my @able = ('none', 'none', @{ $ROLES{ $ROUTINES{ $call->{routine}{name} }{for} } });

	$call->{role} = $able[ rand @able ];
	return if rand() > 0.03;
	$call->{role} = (grep { my $role = $_; !grep { $_ eq $role } @able } qw(fuzz_app fuzz_monitor fuzz_nobody))[ rand 2 ];
	$call->{must_state} = '42501';
	push @{ $call->{may} }, '42501';
	return;
}

# The arguments given, by name, or in their order with values of their own.
sub arguments
{
	my ($call, $value) = @_;
	$value //= sub { "$_[1]::$_[0]{type}" };
	return join ', ', map { "$_->{name} => " . $value->($_, $call->{args}{ $_->{name} }) } given($call);
}

sub given
{
	my ($call) = @_;
	return grep { exists $call->{args}{ $_->{name} } } @{ $call->{routine}{args} };
}

# select_text(CALL, ARGUMENTS): gives its answer as one text, whatever it is.
sub select_text
{
	my ($call, $arguments) = @_;
	my $name = "ai_chat_run.$call->{routine}{name}";

	return "SELECT $name() AS answer" if $call->{routine}{kind} eq 't';
	return "SELECT coalesce(string_agg(r::text, ';'), '(null)') AS answer FROM $name($arguments) r";
}

# A value may also come right from a table, just as it is stored there.
sub from_table
{
	my ($arg, $value) = @_;
	return "(SELECT v FROM fuzz.$1s WHERE n = $2)" if $value =~ /^fuzz\.(text|array)_no\((\d+)\)$/ && rand() < 0.5;
	return "$value\::$arg->{type}";
}

# Some by chance, and thoroughly all of the others, of a run that is active and in nobody's way.
sub made_up
{
	my ($routine, $thoroughly, $n) = @_;
	my $run = $world_runs[1];

	return (
		$thoroughly ? (calls_with_nulls($routine, $run), calls_with_each($routine, $run, \%world)) : (),
		@{ $routine->{args} } ? calls_at_random($routine, \%world, $n) : ());
}

# ---- calls that the server makes ----

sub undone_calls
{
	my ($thoroughly, @routines) = @_;
	my @calls;

	for my $routine (grep { $_->{kind} ne 'p' } @routines)
	{
		push @calls, made_up($routine, $thoroughly || !@{ $routine->{args} }, 30 * $FACTOR);
	}
	for my $call (@calls)
	{
		choose_role($call);
		$call->{form} = 'undone';
		$call->{text} = select_text($call, arguments($call, \&from_table));
	}
	return @calls;
}

# ---- calls that a client makes ----

# The same after PREPARE.
sub prepare_text
{
	my ($call) = @_;
	my $n = 0;
	my @given = given($call);
	my $types = @given ? '(' . join(', ', map { $_->{type} } @given) . ')' : '';
	my $values = @given ? '(' . join(', ', map { "$call->{args}{ $_->{name} }::$_->{type}" } @given) . ')' : '';
	my $select = select_text($call, join ', ', map { "$_->{name} => \$" . ++$n } @given);

	return ("PREPARE p$types AS $select;", "EXECUTE p$values", 'DEALLOCATE p;');
}

# As a procedure is called, with values in variables.
sub do_text
{
	my ($call) = @_;

	# What comes back needs a variable there.
	$call->{args}{$_} //= 'NULL' for @{ $call->{routine}{out} };
	my @given = given($call);
	my $variables = join ' ', map { "v_$_->{name} $_->{type} := $call->{args}{ $_->{name} };" } @given;
	my $arguments = join ', ', map { "$_->{name} => v_$_->{name}" } @given;

	return "DO \$\$DECLARE $variables BEGIN CALL ai_chat_run.$call->{routine}{name}($arguments); END\$\$";
}

# The wait is long, so somebody has to end it.
sub is_long
{
	my ($call) = @_;
	return ($call->{args}{timeout} // "'30 s'") !~ /^(?:NULL|'0'|'-?1 us'|'1 ms')$/;
}

sub choose_form
{
	my ($call) = @_;
	my @forms = $call->{routine}{kind} eq 'p' ? qw(plain plain plain savepoint do) : qw(plain plain savepoint prepared);

	$call->{form} = $forms[ rand @forms ];
	if ($call->{routine}{kind} eq 'p')
	{
		$call->{text} = "CALL ai_chat_run.$call->{routine}{name}(" . arguments($call) . ')';

		$call->{text} = do_text($call) if $call->{form} eq 'do';

		# There it does not even look at its arguments.
		if ($call->{form} eq 'savepoint' && ($call->{must_state} // '') ne '42501')
		{
			$call->{must_state} = '25001';
			push @{ $call->{may} }, '25001';
		}
	}
	else
	{
		$call->{form} = 'plain' if $call->{form} eq 'prepared' && ($call->{must_state} // '') eq '42501';
		$call->{text} = select_text($call, arguments($call, \&from_table));
		($call->{prepare}, $call->{text}, $call->{deallocate}) = prepare_text($call) if $call->{form} eq 'prepared';
	}
	return;
}

# What psql is to do for a call: to make it and to store its answer, "," between the values of a procedure's.
sub script
{
	my ($call) = @_;
	my @out = $call->{routine}{kind} ne 'p' ? 'answer' : $call->{form} eq 'do' ? () : @{ $call->{routine}{out} };
	my $in_savepoint = $call->{form} eq 'savepoint';
	my $answer = join(" || ',' || ", map { ":'o_$_'" } @out) || "'no answer'";
	my $level = ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')[ rand 3 ];
	my $get = $call->{form} eq 'do' ? ';' : '\\gset o_';

	return join "\n",
	  'SELECT fuzz.digest() AS before \gset',
	  "SET ROLE $call->{role};",
	  map({"\\set o_$_ 'no answer'"} @out),
	  ($call->{is_long} ? 'SET statement_timeout = 20;' : ()),
	  ($in_savepoint ? "BEGIN ISOLATION LEVEL $level; SAVEPOINT s;" : ()),
	  ($call->{prepare} // ()), "$call->{text} $get", '\set state :SQLSTATE', ($call->{deallocate} // ()),
	  map({ ("\\if :{?o_$_}", '\else', "\\set o_$_ '(null)'", '\endif') } @out),
	  ($in_savepoint ? 'ROLLBACK TO s; COMMIT;' : ()),
	  'RESET statement_timeout;',
	  'RESET ROLE;',
	  "INSERT INTO fuzz.results VALUES ($call->{n}, :'state', $answer, NULL, fuzz.digest() <> :'before');", '';
}

# What a client changes stays, so little can be told of what a call should answer, and of no big texts are there many.
sub client_calls
{
	my ($thoroughly, @routines) = @_;
	my @calls = map { made_up($_, $thoroughly && $_->{kind} eq 'p', 8 * $FACTOR) } @routines;

	for my $i (reverse 1 .. $#calls)
	{
		my $j = int rand($i + 1);
		@calls[ $i, $j ] = @calls[ $j, $i ];
	}
	for my $call (@calls)
	{
		delete $call->{must_answer};
		choose_role($call);
		choose_form($call);
		$call->{is_long} = $call->{routine}{kind} eq 'p' && is_long($call);
		push @{ $call->{may} }, '57014' if $call->{is_long};
	}
	return @calls;
}

# ---- a database ----

my $n_calls = 0;

sub copy_row
{
	my (@row) = @_;
	return join("\t", map { defined $_ ? s/\\/\\\\/gr : '\N' } @row) . "\n";
}

# Tells the judge of the calls.
sub file_calls
{
	my ($db, @calls) = @_;
	my $rows = '';

	for my $call (@calls)
	{
		my @row = ($call->{routine}{name}, $call->{role}, $call->{form}, $call->{text},
			'{' . join(',', @{ $call->{may} // [] }) . '}', $call->{must_state}, $call->{must_answer});

		$call->{n} = ++$n_calls;
		$rows .= copy_row($call->{n}, @row);
	}
	$node->safe_psql($db, "COPY fuzz.calls FROM STDIN;\n$rows\\.\n");
	return;
}

sub file_routines
{
	my ($db) = @_;
	my $rows = '';

	for my $name (sort keys %ROUTINES)
	{
		my $routine = $ROUTINES{$name};
		my @errors = (split(/ /, $routine->{errors} // ''), $routine->{needs} ? '22004' : ());

		$rows .= copy_row($name, '{' . join(',', @errors) . '}', $routine->{answer}, $routine->{quiet});
	}
	$node->safe_psql($db, "COPY fuzz.routines FROM STDIN;\n$rows\\.\n");
	return;
}

sub breaches
{
	my ($db) = @_;
	return $node->safe_psql($db, <<~'SQL');
		SELECT breach FROM fuzz.breaches ORDER BY n LIMIT 20
		SQL
}

# Each part of the calls comes from a client of another encoding. What that cannot show is an error of the server's.
sub make_client_calls
{
	my ($db, $encodings, @calls) = @_;
	my $part = int(@calls / @$encodings) + 1;

	for my $encoding (@$encodings)
	{
		my @some = splice @calls, 0, $part;
		local $ENV{PGCLIENTENCODING} = $encoding;
		local $ENV{PGOPTIONS} = '-c lock_timeout=2ms';

		push @{ $_->{may} }, '22P05' for @some;
		file_calls($db, @some);
		$node->psql($db, join('', map { script($_) } @some), on_error_stop => 0, stderr => \my $err);
		unlike($err, qr/server closed|connection to server|psql\S* error:|invalid command|syntax error/,
			"$db: a client with $encoding gets to its end");
	}
	return;
}

sub check_order
{
	my ($db, $holder) = @_;

	is($node->safe_psql($db, <<~SQL), '', "$db: everything is in order");
		SELECT 'two active runs', chat_id::text FROM $RUNS WHERE finished_at IS NULL GROUP BY chat_id HAVING count(*) > 1
		UNION ALL
		SELECT 'an end that is none', id::text FROM $RUNS
		WHERE (finished_at IS NULL) <> (status IN ('pending', 'running'))
		UNION ALL
		SELECT 'two ends', id::text FROM $RUNS r JOIN ai_chat_run.deferred_finalizations d ON d.run_id = r.id
			AND d.workspace_id = r.workspace_id WHERE r.finished_at IS NOT NULL
		UNION ALL
		SELECT 'known, and not active', id::text FROM $RUNS
		WHERE finished_at IS NOT NULL AND ai_chat_run.is_locally_active(id)
		UNION ALL
		SELECT 'known, and not there', i::text FROM generate_series(1, 100) i
		WHERE ai_chat_run.is_locally_active(md5(i::text)::uuid)
		UNION ALL
		SELECT 'active_runs', count(*)::text FROM ai_chat_run.active_runs
		HAVING count(age) < 0 OR count(*) <> (SELECT count(*) FROM $RUNS WHERE finished_at IS NULL)
		UNION ALL
		SELECT 'health', check_name FROM ai_chat_run.health()
		WHERE NOT ok AND check_name NOT IN ('boot_sweep', 'deferred')
		SQL
	$holder->query_safe('COMMIT');
	$node->safe_psql($db, "COMMIT PREPARED 'fuzz'");
	$node->safe_psql($db, 'SELECT ai_chat_run.sweep_runs()');
	is($node->safe_psql($db, <<~SQL), '0|0', "$db: all of it can be swept up");
		SELECT (SELECT count(*) FROM $RUNS WHERE finished_at IS NULL),
			(SELECT count(*) FROM ai_chat_run.deferred_finalizations)
		SQL
	$node->safe_psql($db, q(SELECT ai_chat_run.purge_runs('0')));
	is($node->safe_psql($db, "SELECT count(*) FROM $RUNS WHERE finished_at < 'infinity'"), '0', "$db: and deleted");
	$holder->quit;
	return;
}

sub fuzz_database
{
	my ($encoding) = @_;
	my $db = 'fuzz_' . lc $encoding;

	# Once is enough for what does not go by chance.
	my $thoroughly = $encoding eq 'UTF8';

	$node->safe_psql('postgres',
		"CREATE DATABASE $db ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
	$node->safe_psql($db, 'CREATE EXTENSION ai_chat_run');
	make_values($db, $ENCODINGS{$encoding}{text});
	make_judge($db);
	file_routines($db);
	make_runs($db);
	my $holder = hold_rows($db);
	my @routines = routines_in($node, $db);
	is_deeply([ map { $_->{name} } @routines ], [ sort keys %ROUTINES ], "$db: what every routine may say is known");

	$world{texts} = [ @{ $world{small_texts} }, @{ $world{big_texts} } ];
	file_calls($db, undone_calls($thoroughly, @routines));
	$node->safe_psql($db, "SET statement_timeout = '@{[2 * $FACTOR]}min'; SET lock_timeout = '2ms'; CALL fuzz.attempt_all()");
	is(breaches($db), '', "$db: what the server calls, FUZZ_SEED=$SEED");

	$world{texts} = $world{small_texts};
	make_client_calls($db, $ENCODINGS{$encoding}{clients}, client_calls($thoroughly, @routines));
	is(breaches($db), '', "$db: what clients call, FUZZ_SEED=$SEED");
	check_order($db, $holder);
	return;
}

fuzz_database($_) for sort keys %ENCODINGS;

# ---- the server ----

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server has never gone down');
$node->psql('postgres', q{SELECT ai_chat_run.map_turn_status(E'a\nFORGED LOG:  b\nFORGED')});
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/TRAP:|PANIC:|was terminated by signal|crash of another/, 'nor has a backend');

# PostgreSQL indents what is not the first line of a message; so nothing that a caller says can look like a line of its
# own.
like($log, qr/^\tFORGED LOG:/m, 'a line break comes into the log');
unlike($log, qr/^FORGED/m, 'where it begins no line');
note "$n_calls calls";
$node->stop;
done_testing();
