# doc/reference.md says what the catalog and the source say, and the other way round: signatures, comments, columns,
# rules, SQLSTATEs, error texts, wait events. What the comments tell of SQLSTATEs is what calls raise. The table of
# settings in README.md is that of pg_settings, where each setting is explained.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Routines;
use RunCluster;
use Sections;
use Test::More;

my $ROOT = "$FindBin::RealBin/../..";
my $node = new_server('reference');
my $bare = new_server('bare', "shared_preload_libraries = ''");
my @sections = sections(slurp_file("$ROOT/doc/reference.md"));
my %section = map { $_->{title} => $_ } @sections;

is(scalar keys %section, scalar @sections, 'no two sections have one title');

# ---- helpers ----

# query(SQL): rows of cells, with separators that are in none of our texts.
sub query
{
	my ($sql) = @_;
	my $out = $node->safe_psql('postgres', $sql, extra_params => [ '-F', "\x1f", '-R', "\x1e" ]);
	return map { [ split /\x1f/, $_, -1 ] } split /\x1e/, $out;
}

# As the catalog has it, without what nobody would write: casts of constants, IN, our schema, the long name of a type.
sub canonical
{
	my ($text) = @_;
	return plain($text =~ s/(?<=[\w'}])::[a-z ]+(?:\[\])?//gr =~ s/\bIN (?=\w)//gr =~ s/\bai_chat_run\.//gr
		  =~ s/\btimestamp with time zone\b/timestamptz/gr);
}

# A signature of the document may have several lines.
sub on_one_line
{
	my ($signature) = @_;
	return plain($signature) =~ s/\( /(/gr =~ s/ \)/)/gr;
}

# The first paragraphs of a section, as many as the comment has: its errors are one of their own.
sub described
{
	my ($section, $comment) = @_;
	my @paragraphs = grep { $_->{kind} ne 'text' } @{ $section->{blocks} };

	splice @paragraphs, $comment =~ /^Errors:/m ? 2 : 1;
	return plain(join ' ', map { $_->{kind} eq 'paragraph' ? $_->{text} : '' } @paragraphs);
}

sub lines_of { return join "\n", map { join ' | ', @$_ } @_ }
sub words_of { return join ' ', sort @_ }
sub in_part { my ($part) = @_; return grep { $_->{part} eq $part && $_->{level} == 3 } @sections }

# What the source has, file by file.
my %source = map { s/.*\///r => slurp_file($_) } glob "$ROOT/src/*.[ch]";
my $all_source = join '', map { $source{$_} } sort keys %source;

# ---- functions and procedures ----

my %routine = map { $_->[0] => { signature => canonical($_->[1]), comment => $_->[2] } } query(<<~'SQL');
	SELECT proname, CASE prokind WHEN 'p' THEN 'CALL ' ELSE '' END || proname || '(' || pg_get_function_arguments(oid)
			|| ')' || coalesce(' RETURNS ' || pg_get_function_result(oid), ''), obj_description(oid, 'pg_proc')
	FROM pg_proc WHERE pronamespace = 'ai_chat_run'::regnamespace
	SQL
my %internal = map { $_->[0] =~ s/^(\w+)\(.*/$1/r => $_ } rows($section{'Functions of its own'}, 0);
my @for_applications = grep { $_->{blocks}[0]{kind} eq 'text' } in_part('Functions for applications');
my @for_operators = in_part('Functions for operators');
my %is_public = map { $_->{title} => 1 } @for_applications, @for_operators;

is(words_of(keys %is_public, keys %internal), words_of(keys %routine), 'each function is documented, once, and is there');
for my $name (sort keys %routine)
{
	my ($signature, $comment) = @{ $routine{$name} }{ 'signature', 'comment' };
	my $public = $is_public{$name};

	is($public ? on_one_line($section{$name}{blocks}[0]{text}) : $internal{$name}[0], $signature, "$name: signature");
	is($public ? described($section{$name}, $comment) : $internal{$name}[1], plain($comment), "$name: comment");
	ok(!grep({ length > 120 } split /\n/, $comment), "$name: the comment fits into a terminal") if $public;
}

# Who may call what.
$node->safe_psql('postgres', "CREATE ROLE fuzz_app; SELECT ai_chat_run.grant_app_access('fuzz_app')");
is(words_of(map { $_->{title} } @for_applications), words_of(map { $_->[0] } query(<<~'SQL')),
	SELECT proname FROM pg_proc
	WHERE pronamespace = 'ai_chat_run'::regnamespace AND has_function_privilege('fuzz_app', oid, 'EXECUTE')
	SQL
	'functions for applications are those that grant_app_access() grants');

# The tables that lead to them, and the mark of those that need preloading.
for my $part ('Functions for applications', 'Functions for operators')
{
	my @here = $part =~ /operators/ ? @for_operators : @for_applications;
	my @want = map { "[$_->{title}](#$_->{title}) "
		  . ($routine{ $_->{title} }{comment} =~ /Needs\s+preloading\./ ? '[preload]' : '') } @here;
	my @have = map { "$_->[0] " . ($_->[2] // '') } rows($section{$part}, 0);
	is(join("\n", @have), join("\n", @want), "$part: links to each, and the mark of what needs preloading");
}

# ---- what comments say of SQLSTATEs ----

# errors_of(NAME): what its comment says of errors, with what that refers to.
sub errors_of
{
	my ($name) = @_;
	my ($errors) = plain($routine{$name}{comment}) =~ /Errors: (.*)/;

	return '' if !defined $errors;
	return $errors if $errors !~ /\bas ((?!any)\w+)/;
	my $others = errors_of("$1");
	$others =~ s/\b$1\b// if $errors =~ s/but never (\w{5})//;
	return "$errors $others";
}

my $STATE = qr/\b(?:RN\d{3}|[0-9][0-9A-Z]{4})\b/;
my @routines = routines_in($node, 'postgres');
my @callable = grep { $_->{kind} ne 't' } @routines;
my $run = { id => chat(1), chat => chat(2), workspace => $WS };

# The fuzz test knows what each may raise; it sees no server that is read-only, not preloaded or full.
my %elsewhere = map { $_ => 1 } qw(25006 55000 25001 0A000 53400 22021 RN410 RN500 42501 42703 42804 55P03);
for my $name (sort keys %ROUTINES)
{
	my %said = map { $_ => 1 } errors_of($name) =~ /$STATE/g;
	my @raised = (split(/ /, $ROUTINES{$name}{errors} // ''), $ROUTINES{$name}{needs} ? '22004' : ());

	# That is for a null in the deleted row; it takes no arguments.
	delete $said{22004} if $name eq 'delete_runs_of_chat';
	is(words_of(grep { !$said{$_} } @raised), '', "$name: the comment tells all SQLSTATEs that it is known to raise");
	is(words_of(grep { my $s = $_; !$elsewhere{$s} && !grep { $_ eq $s } @raised } keys %said), '',
		"$name: and no others");
}

# call_of(ROUTINE, VALUES): SQL, with values by argument, or else nulls.
sub call_of
{
	my ($routine, $values) = @_;
	my @args = map { "$_->{name} => " . ($values->{ $_->{name} } // 'NULL') . "::$_->{type}" } @{ $routine->{args} };
	my $verb = $routine->{kind} eq 'p' ? 'CALL' : 'SELECT';
	return "$verb ai_chat_run.$routine->{name}(" . join(', ', @args) . ')';
}

# who_raises(NODE, STATE, BEFORE, AFTER, CALLS): the functions whose call raises that.
sub who_raises
{
	my ($server, $state, $before, $after, %calls) = @_;
	my $script = join '', map { "$before\n$calls{$_};\n\\echo $_ :SQLSTATE\n$after\n" } sort keys %calls;
	my ($out, $err);

	$server->psql('postgres', $script, on_error_stop => 0, stdout => \$out, stderr => \$err);
	my @lines = $out =~ /^(\w+) (\w{5})$/mg;
	is(@lines / 2, scalar keys %calls, "$state: all calls were made");
	return words_of(map { $lines[ 2 * $_ + 1 ] eq $state ? $lines[ 2 * $_ ] : () } 0 .. @lines / 2 - 1);
}

my %with_nulls = map { $_->{name} => call_of($_, {}) } @callable;
my %with_good = map { $_->{name} => call_of($_, call_with_good($_, $run)->{args}) } @callable;

for my $case (
	[ '55000', qr/55000 without preloading/, $bare, '', '', %with_nulls ],
	[ '22004', qr/22004 for a null/, $node, '', '', %with_nulls ],
	[ '25006', qr/25006 if read-only/, $node, 'SET default_transaction_read_only = on;', '', %with_good ],
	[ '25001', qr/25001 in a transaction block/, $node, 'BEGIN;', 'ROLLBACK;', %with_good ])
{
	my ($state, $words, $server, $before, $after, %calls) = @$case;
	my $who = who_raises($server, $state, $before, $after, %calls);

	isnt($who, '', "$state is raised");
	is($who, words_of(grep { errors_of($_) =~ $words } map { $_->{name} } @callable),
		"$state is raised by those of which it is said");
}

# ---- tables and views ----

my %relations = map { $_->[0] => { kind => $_->[1], comment => $_->[2] } } query(<<~'SQL');
	SELECT relname, relkind, obj_description(oid, 'pg_class')
	FROM pg_class WHERE relnamespace = 'ai_chat_run'::regnamespace AND relkind NOT IN ('i', 'c')
	SQL
is(words_of(map { $_->{title} } in_part('Tables')),
	words_of(grep { $relations{$_}{kind} eq 'r' } keys %relations), 'tables');
is(words_of(map { $_->{title} } in_part('Views')),
	words_of(grep { $relations{$_}{kind} ne 'r' } keys %relations), 'views');
for my $section (in_part('Tables'), in_part('Views'))
{
	my $name = $section->{title};
	my @columns = query(<<~SQL);
		SELECT attname, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END,
			coalesce(pg_get_expr(adbin, adrelid), ''), col_description(attrelid, attnum)
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = 'ai_chat_run.$name'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
		SQL

	for my $column (@columns)
	{
		$_ = canonical($_) for @$column[ 1, 2 ];
		isnt($column->[3], '', "$name.$column->[0] has a comment");
		splice @$column, 2, 1 if $relations{$name}{kind} eq 'v';
	}
	is(described($section, $relations{$name}{comment}), plain($relations{$name}{comment}), "$name: comment");
	is(lines_of(rows($section, 0)), lines_of(@columns), "$name: columns");
}

# Constraints, indexes and triggers, in this order.
for my $section (in_part('Tables'))
{
	my $name = $section->{title};
	my @rules = query(<<~SQL);
		WITH rules AS (
			SELECT CASE contype WHEN 'p' THEN 1 ELSE 2 END AS kind, conname AS name, pg_get_constraintdef(oid, true) AS rule,
				obj_description(oid, 'pg_constraint') AS comment
			FROM pg_constraint WHERE conrelid = 'ai_chat_run.$name'::regclass AND contype <> 'n'
			UNION ALL
			SELECT 3, relname, regexp_replace(pg_get_indexdef(oid, 0, true),
					'^CREATE (.*INDEX )\\S+ ON \\S+ USING btree ', '\\1'),
				obj_description(oid, 'pg_class')
			FROM pg_class JOIN pg_index ON indexrelid = oid
			WHERE indrelid = 'ai_chat_run.$name'::regclass AND NOT indisprimary
			UNION ALL
			SELECT 4, tgname, regexp_replace(pg_get_triggerdef(oid, true),
					'^CREATE TRIGGER \\S+ (\\w+ \\w+) ON \\S+ (.*) EXECUTE FUNCTION \\S+\$', '\\1 \\2'),
				obj_description(oid, 'pg_trigger')
			FROM pg_trigger WHERE tgrelid = 'ai_chat_run.$name'::regclass AND NOT tgisinternal
		)
		SELECT name, rule, comment FROM rules ORDER BY kind, name COLLATE "C"
		SQL

	$_->[1] = canonical($_->[1]) for @rules;
	is(lines_of(rows($section, 1)), lines_of(@rules), "$name: constraints, indexes and triggers");
}

is(words_of(map { $_->[0] } rows($section{health}, 0)),
	words_of(map { $_->[0] } query('SELECT check_name FROM ai_chat_run.health()')), 'the checks of health()');

# ---- SQLSTATEs ----

my %states = map { $_->[0] => $_->[1] } rows($section{SQLSTATEs}, 0);

# Ours are constants of the source.
my %our_names;
while ($all_source =~ /#define ACR_ERRCODE_(\w+)\s+MAKE_SQLSTATE\((.*?)\)/g)
{
	my ($name, $letters) = (lc $1, $2);
	$our_names{ $letters =~ s/[', ]//gr } = $name;
}
is(scalar keys %our_names, 3, 'SQLSTATEs of our own');
is_deeply({ map { $_ => $states{$_} } keys %our_names }, \%our_names, 'are documented');

# The server has names for the others.
my @others = grep { !$our_names{$_} } sort keys %states;
my ($names, $complaints);
$node->psql('postgres', join('', map { "DO \$\$BEGIN RAISE $states{$_}; END\$\$;\n\\echo $states{$_} :SQLSTATE\n" } @others),
	on_error_stop => 0, stdout => \$names, stderr => \$complaints);
is($names, join("\n", map { "$states{$_} $_" } @others), 'the names of the others are those of PL/pgSQL');

# All that the source raises is documented, but for what only a bug, or an altered table, can lead to.
my %macros = slurp_file($node->config_data('--includedir-server') . '/utils/errcodes.h')
  =~ /^#define (ERRCODE_\w+)\s+MAKE_SQLSTATE\((.*?)\)/mg;
s/[', ]//g for values %macros;
my %undocumented = map { $_ => 1 } qw(ERRCODE_INTERNAL_ERROR ERRCODE_NOT_NULL_VIOLATION);
my @raised = grep { !$undocumented{$_} } $all_source =~ /\berrcode\((ERRCODE_\w+)\)/g;
cmp_ok(scalar @raised, '>', 20, 'the source raises SQLSTATEs');
is(words_of(grep { !exists $states{ $macros{$_} // $_ } } @raised), '', 'and all of them are documented');

# So is all that comments tell, and what is documented is met by some test.
is(words_of(grep { !exists $states{$_} } map { errors_of($_) =~ /$STATE/g } keys %routine), '',
	'those of the comments, too');
my $tests = join '', map { slurp_file($_) } grep { !/081_reference|07[01]_chaos_judge/ }
  glob "$ROOT/test/{sql,pgtap}/*.sql $ROOT/expected/*.out $ROOT/test/t/*.pl";
my %met_as = (
	'53000' => 'WARNING:  ai_chat_run could not start a background worker',
	'54000' => undef);    # it would take 4097 databases
is(words_of(grep { my $as = exists $met_as{$_} ? $met_as{$_} : $_; defined $as && $tests !~ /\b\Q$as\E\b/ } keys %states),
	'', 'each is met by a test');

# ---- error texts, notifications, wait events ----

my @texts = $source{'sweep.h'} =~ /^#define ACR_\w+_TEXT\s+"(.*)"$/mg;
isnt("@texts", '', 'error texts of the source');
is(lines_of(map { [ $_->[0] ] } rows($section{'What the column error says'}, 0)), join("\n", @texts), 'are documented');

my ($channel) = $all_source =~ /#define STOP_CHANNEL\s+"(\w+)"/;
like(plain($section{Notifications}{body}), qr/^NOTIFY $channel, /, 'the channel of notifications');

my @events = $all_source =~ /\bWaitEventExtensionNew\("(\w+)"\)/g;
is(words_of(map { $_->[0] } rows($section{'Wait events'}, 0)), words_of(@events), 'wait events');

# ---- settings ----

# spelled(NUMBER, UNIT): as README.md says it, in the largest unit that it fills.
sub spelled
{
	my ($number, $unit) = @_;
	return '' if $number eq '';
	my $ms = $number * ($unit eq 's' ? 1000 : 1);

	return $number if $unit eq '' || $ms == 0;
	for my $u ([ years => 31557600000 ], [ days => 86400000 ], [ min => 60000 ], [ s => 1000 ], [ ms => 1 ])
	{
		return int($ms / $u->[1]) . " $u->[0]" if $ms >= $u->[1];
	}
}

my %WHERE = (sighup => 'server', postmaster => 'start', user => 'session');
my ($readme) = grep { $_->{title} eq 'Settings' } sections(slurp_file("$ROOT/README.md"));
my %documented = map { $_->[0] => $_ } rows($readme, 0);
my @settings = query(<<~'SQL');
	SELECT name, boot_val, coalesce(unit, ''), vartype, coalesce(min_val, ''), coalesce(max_val, ''),
		coalesce(array_to_string(enumvals, ', '), ''), context, short_desc, coalesce(extra_desc, '')
	FROM pg_settings WHERE name LIKE 'ai\_chat\_run.%'
	SQL
is(words_of(keys %documented), words_of(map { $_->[0] } @settings), 'README.md has the settings that there are');
for my $setting (@settings)
{
	my ($name, $default, $unit, $type, $min, $max, $words, $context, $short, $more) = @$setting;
	my (undef, $default_said, $range_said, $where_said) = @{ $documented{$name} // [ ('') x 4 ] };
	my %range = (enum => $words, string => '127 bytes', integer => join ' – ', map { spelled($_, $unit) } $min, $max);

	is($default_said, $type eq 'string' ? 'empty' : $unit ? spelled($default, $unit) =~ s/ //r : $default, "$name: default");
	is($range_said =~ s/;.*//r, $range{$type}, "$name: range");
	is($where_said, $WHERE{$context}, "$name: where it may be set");

	# What it is, in a sentence; what the words mean, and the number that may mean something special.
	like($short, qr/^[A-Z].{20,}\.$/, "$name: description");
	like("$more ", qr/^(?:["A-Z0-9][^.]*(?:\.\w[^.]*)*\. )+$/, "$name: what else there is to say, in sentences")
	  if $more ne '';
	like($more, qr/"\Q$_\E" /, "$name: what $_ means") for split /, /, $words;
	like($more, qr/\b0 \w/, "$name: what 0 means") if $min eq '0';
	like($more, qr/ 127 bytes/, "$name: how long it may be") if $type eq 'string';
	isnt($unit, '', "$name: unit") if $type eq 'integer' && $name !~ /_(?:attempts|size|runs)$/;
}

$_->stop for $node, $bare;
done_testing();
