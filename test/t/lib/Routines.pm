# Every function and procedure of the extension: who may call it, which SQLSTATEs it may raise, what it may answer. And
# calls of them with made-up arguments, for whoever wants to know what they make of these.
package Routines;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(%ROUTINES routines_in call_with_good calls_with_nulls calls_with_each calls_at_random);

my $UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';
my @NOT_FOUND = (not_found => '^not_found$');
my $SIGNAL = '^(?:continue|stop|finalized|not_found|\(null\))$';
my @TRIGGER = (for => 'owner', errors => '39P01', answer => '^no answer$');
my @WAITS = (for => 'app', errors => '22023 22008', quiet => '.*');

# for: whose it is. needs: what must not be null (22004). errors: the other SQLSTATEs that it may raise. answer: all
# that it may say, "(null)" for a null. quiet: what it says where it has changed nothing. not_found: what it says of a
# run that is not there, or not of that workspace.
our %ROUTINES = (
	begin_run => {
		for => 'app', needs => 'chat_id workspace_id', errors => 'RN409 22023 23505 55P03', answer => "^$UUID\$" },
	try_begin_run => {
		for => 'app', needs => 'chat_id workspace_id', errors => '22023 23505 55P03',
		answer => "^\\((?:(?:began|resumed|busy),$UUID|busy,)\\)\$", quiet => '^\((?:resumed|busy)' },
	record_step => {
		for => 'app', needs => 'run_id workspace_id step_count', errors => '22023', answer => $SIGNAL,
		quiet => '^(?:finalized|not_found|\(null\))$', @NOT_FOUND },
	heartbeat => { for => 'app', needs => 'run_id workspace_id', answer => $SIGNAL, quiet => '.*', @NOT_FOUND },
	link_assistant_message => {
		for => 'app', needs => 'run_id workspace_id assistant_message_id', answer => '^(?:true|false|\(null\))$',
		quiet => '^(?:false|\(null\))$', not_found => '^false$' },
	finalize_run => {
		for => 'app', needs => 'run_id workspace_id turn_status', errors => '22023',
		answer => '^(?:finalized|already_finalized|deferred|not_found)$', quiet => '^(?:already_finalized|not_found)$',
		@NOT_FOUND },
	map_turn_status => {
		for => 'app', needs => 'turn_status', errors => '22023', answer => '^(?:succeeded|failed|aborted)$',
		quiet => '.*' },
	request_stop => {
		for => 'app', needs => 'run_id workspace_id', answer => '^(?:true|false)$', quiet => '^false$',
		not_found => '^false$' },
	request_stop_for_chat => {
		for => 'app', needs => 'chat_id workspace_id', answer => "^(?:$UUID|\\(null\\))\$", quiet => '^\(null\)$',
		not_found => '^\(null\)$' },
	settle_deferred => { for => 'app', answer => '^\d+$' },
	(map { $_ => {
		for => 'app', needs => ($_ eq 'get_run' ? 'run' : 'chat') . '_id workspace_id',
		answer => "^(?:\\($UUID,.*\\)|\\(null\\))\$", quiet => '.*', not_found => '^\(null\)$' } }
		qw(get_run get_latest_for_chat get_active_for_chat)),
	is_locally_active => { for => 'app', needs => 'run_id', answer => '^(?:true|false)$', quiet => '.*' },
	attach_runner => { for => 'app', needs => 'runner', errors => '22023 55006', answer => '^\d+$' },
	await_run => {
		@WAITS, needs => 'run_id workspace_id timeout',
		answer => '^(?:succeeded|failed|aborted),|^(?:not_found|\(null\)),\(null\)$' },
	await_stop => { @WAITS, needs => 'run_id workspace_id timeout', answer => '^(?:stop|finalized|not_found|\(null\))$' },
	await_stops => { @WAITS, needs => 'runner timeout', answer => "^(?:\\{$UUID(?:,$UUID)*\\}|\\(null\\))\$" },
	supersede_run => {
		for => 'app', needs => 'chat_id target_run_id workspace_id timeout', errors => '22023 22008',
		answer => "^(?:(?:superseded|began|mismatch),$UUID|(?:mismatch|timeout),\\(null\\))\$", quiet => '^mismatch' },
	sweep_runs => { for => 'owner', errors => '22023 22008', answer => '^\d+$' },
	purge_runs => { for => 'owner', needs => 'older_than', errors => '22023 22008', answer => '^\d+$', quiet => '^0$' },
	grant_app_access => { for => 'owner', needs => 'role', errors => '42704', answer => '^$', quiet => '.*' },
	new_run_id => { for => 'owner', answer => "^$UUID\$", quiet => '.*' },
	is_run_status => { for => 'owner', answer => '^(?:true|false|\(null\))$', quiet => '.*' },
	is_terminal_status => { for => 'owner', answer => '^(?:true|false|\(null\))$', quiet => '.*' },
	live_state => { for => 'monitor', answer => '^\([^,]*,[tf]?,[tf]\)$', quiet => '.*' },
	database_counters => { for => 'monitor', answer => '^\(\d+(?:,\d+){15},.*\)$', quiet => '.*' },
	database_visits => { for => 'monitor', answer => '^\(\d+,[tf],.*\)$', quiet => '.*' },
	server_state => { for => 'owner', answer => '^\([tf],[tf],.*\)$', quiet => '.*' },
	health => { for => 'monitor', answer => '^\(preload,t,.*\);\(index,t,.*\);.*\(silent,[tf],', quiet => '.*' },
	stats_reset => { for => 'owner', answer => '^$', quiet => '.*' },
	(map { $_ => {@TRIGGER} } qw(delete_runs_of_chat terminal_is_final run_inserted run_deleted runs_truncated)),
);
$ROUTINES{delete_runs_of_chat}{for} = 'app';

# routines_in(NODE, DATABASE): what the catalog has, each with name, kind (f, p, or t for a trigger function), args (name
# and type of what it takes), optional (how many of them may be left out) and out (names of what a procedure gives back).
sub routines_in
{
	my ($node, $db) = @_;
	my @routines;

	for my $line (split /\n/, $node->safe_psql($db, <<~'SQL'))
		SELECT concat_ws('|', p.proname, CASE WHEN p.prorettype = 'trigger'::regtype THEN 't' ELSE p.prokind::text END,
			p.pronargdefaults,
			(SELECT coalesce(string_agg(p.proargnames[n], ',' ORDER BY n), '')
				FROM unnest(p.proargmodes) WITH ORDINALITY a(mode, n) WHERE mode = 'b'),
			(SELECT string_agg(p.proargnames[n] || ' ' || format_type(t, NULL), ',' ORDER BY n)
				FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a(t, n)))
		FROM pg_proc p WHERE p.pronamespace = 'ai_chat_run'::regnamespace ORDER BY p.proname COLLATE "C"
		SQL
	{
		my ($name, $kind, $optional, $out, $args) = split /\|/, $line, 5;
		my @args = map { my ($arg, $type) = split / /, $_, 2; { name => $arg, type => $type } } split /,/, $args // '';

		push @routines,
		  { name => $name, kind => $kind, optional => $optional, out => [ split /,/, $out ], args => \@args };
	}
	return @routines;
}

# ---- values ----

# By type: SQL expressions at the edges and beyond the sense of what an argument is for. "ids" are those of the world
# that the calls are for, "texts" and "arrays" the numbers of those values that it has in tables.
sub edge_values
{
	my ($world, $type) = @_;
	my %values = (
		uuid => [ map({"'$_'"} @{ $world->{ids} }), 'gen_random_uuid()' ],
		text => [ map {"fuzz.text_no($_)"} @{ $world->{texts} } ],
		'uuid[]' => [ map {"fuzz.array_no($_)"} @{ $world->{arrays} } ],
		integer => [ map {"'$_'"} -1, 0, 1, 2147483647, -2147483648 ],
		bigint => [ map {"'$_'"} -1, 0, 1, '9223372036854775807', '-9223372036854775808' ],
		boolean => [ 'true', 'false' ],
		interval => [
			map({"'$_'"} '0', '1 us', '-1 us', '1 ms', '1 day', '-1 day', '1 mon -31 days', '-1 mon 31 days',
				'178000000 years', '-178000000 years', '2147483647 days', '-2147483648 days 1 us', '2562047788:00:54.775807'),
			$world->{has_infinite_intervals} ? ("'infinity'", "'-infinity'") : () ],
		regrole => [ "'fuzz_app'", "'postgres'", 0, 4294967295, "'\"fuzz \"\"odd\"\" role\"'" ],
	);

	return @{ $values{$type} // die "no values for type $type: add some" };
}

# A value that makes sense, for a call that gets to the bottom of it: of a run of the world where there is one.
sub good_value
{
	my ($arg, $run) = @_;
	my %values = (
		run_id => "'$run->{id}'", target_run_id => "'$run->{id}'", chat_id => "'$run->{chat}'",
		workspace_id => "'$run->{workspace}'", step_count => 1, turn_status => "'completed'", timeout => "'0'",
		runner => "'web-1'", assistant_message_id => "'$run->{chat}'", older_than => "'1 day'", role => "'fuzz_app'");

	return $values{ $arg->{name} } // 'NULL';
}

# ---- calls ----

# call_with_good(ROUTINE, RUN): "args" has an SQL expression by the name of each argument.
sub call_with_good
{
	my ($routine, $run) = @_;
	my %args = map { $_->{name} => good_value($_, $run) } @{ $routine->{args} };

	# A new run, of a known id it would be none.
	$args{run_id} = 'NULL' if $routine->{name} =~ /begin_run$/;
	return { routine => $routine, run => $run, args => \%args };
}

sub needs_null
{
	my ($call) = @_;
	return grep { $call->{args}{$_} eq 'NULL' } split / /, $ROUTINES{ $call->{routine}{name} }{needs} // '';
}

# calls_with_nulls(ROUTINE, RUN): nulls in all combinations, beside good values. What must not be null is told by 22004,
# whatever else is null.
sub calls_with_nulls
{
	my ($routine, $run) = @_;
	my @names = map { $_->{name} } @{ $routine->{args} };
	my @calls;

	for my $bits (0 .. 2**@names - 1)
	{
		my $call = call_with_good($routine, $run);

		for my $i (0 .. $#names)
		{
			$call->{args}{ $names[$i] } = 'NULL' if $bits & 1 << $i;
		}
		$call->{must_state} = '22004' if needs_null($call);
		push @calls, $call;
	}
	return @calls;
}

# calls_with_each(ROUTINE, RUN, WORLD): each edge value in each place, beside good values.
sub calls_with_each
{
	my ($routine, $run, $world) = @_;
	my @calls;

	for my $arg (@{ $routine->{args} })
	{
		for my $value (edge_values($world, $arg->{type}))
		{
			my $call = call_with_good($routine, $run);

			$call->{args}{ $arg->{name} } = $value;
			push @calls, note_not_found($call, $world);
		}
	}
	return @calls;
}

sub pick { return $_[ int rand @_ ] }

# call_at_random(ROUTINE, WORLD): of some run of the world; each argument good as a rule, else null or at an edge; and
# those that may be left out are, at times, so that they are null or what the function has as their default.
sub call_at_random
{
	my ($routine, $world) = @_;
	my $call = call_with_good($routine, pick(@{ $world->{runs} }));
	my @optional = $routine->{optional} ? @{ $routine->{args} }[ -$routine->{optional} .. -1 ] : ();

	for my $arg (@{ $routine->{args} })
	{
		my $dice = rand;

		if ($dice < 0.05)
		{
			$call->{args}{ $arg->{name} } = 'NULL';
		}
		elsif ($dice < 0.3)
		{
			$call->{args}{ $arg->{name} } = pick(edge_values($world, $arg->{type}));
		}
	}
	for my $arg (@optional)
	{
		delete $call->{args}{ $arg->{name} } if rand() < 0.3;
	}
	return note_not_found($call, $world);
}

sub calls_at_random
{
	my ($routine, $world, $n) = @_;
	return map { call_at_random($routine, $world) } 1 .. $n;
}

# If the call is of a run, or a chat, that is not there in that workspace, it must say so or raise an error.
sub note_not_found
{
	my ($call, $world) = @_;
	my $answer = $ROUTINES{ $call->{routine}{name} }{not_found};
	my ($thing) = grep { $_->{name} =~ /^(?:run|chat)_id$/ } @{ $call->{routine}{args} };

	return $call if !defined $answer;
	my ($id, $workspace) = map { ($call->{args}{$_} // '') =~ s/^'(.*)'$/$1/r } $thing->{name}, 'workspace_id';
	my $key = $thing->{name} eq 'chat_id' ? 'chat' : 'id';
	$call->{must_answer} = $answer
	  if !grep { !$_->{hidden} && $_->{$key} eq $id && $_->{workspace} eq $workspace } @{ $world->{runs} };
	return $call;
}

1;
