# What the documents tell their readers to type works: each block of SQL is run by psql, in the order of the document, and has to
# raise the errors and give the answers that its comments name; each command for the shell is run, in a copy of the checkout,
# or named below with who runs it; each block of configuration makes a server start; whatever is shown of another
# language stands in a file that a test runs. Links lead somewhere.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Documents;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Commands that this test does not run, and why: the file that runs it, and what is to be found in it.
my %elsewhere = (
	'make demo' => [ 'test/check.sh', 'bash test/demo.sh' ],
	'cd examples/node && npm install && npm run demo' => [ 'examples/node/test/chat.test.js', "chatFile('demo.js')" ],
	'make check' => [ 'test/check.sh', 'bash test/suites.sh' ],
	'make installcheck' => [ 'test/suites.sh', 'make -s installcheck' ],
	"grep -E 'agent run|finaliz|TERMINAL|could not .* run|attached runners|of database|ai_chat_run' "
	  . '/var/log/postgresql/postgresql-15-main.log' => [ 'test/t/082_log_lines.pl', 'grep -E' ],
	'sudo apt-get install --no-install-recommends prometheus-postgres-exporter' => [ 'test/setup.sh', 'prometheus-postgres-exporter' ],
	'sudo apt-get install --no-install-recommends prometheus-sql-exporter' => [ 'test/setup.sh', 'prometheus-sql-exporter' ],
	'promtool check rules doc/monitoring/alerts.yml' => [ 'test/t/081_monitoring.pl', "'check', 'rules'" ],
	'promtool test rules test/monitoring/alerts.test.yml' => [ 'test/t/081_monitoring.pl', "'test', 'rules'" ]);

# Documents with a test of their own, since what they tell to type installs packages, goes on for long or is of another
# language: its file, and what is to be found there.
my %script = (
	'doc/packages.md' => [
		'test/packages.sh', 'doc/packages.md',
		map { "commands '$_'" } map { /^## (.*)/ } @{ read_document('doc/packages.md')->{lines} } ],
	'examples/node/README.md' => [
		'examples/node/test/readme.test.js', '/README.md',
		map { "block($_" } "'sh', 'chat/setup.sql'", "'sh', 'RUNNER=web-1'", "'sh', 'CHAT='", "'js'" ],
	'examples/python/README.md' => [ 'examples/python/test_chat_turns.py', 'turns.main()' ]);

# The languages that this test runs, or that are not to be run.
my %own = map { $_ => 1 } qw(sql sh conf text);

plan skip_all => 'this test needs the private installation of make check' if !$ENV{STAGE};

my $scratch = PostgreSQL::Test::Utils::tempdir();
my @documents = map { read_document($_) } documents();

# ---- an installation of its own, since a document may install into it; and a copy of the checkout ----

my $bindir = qx(pg_config --bindir) =~ s/\n//r;
my $old_root = "$ENV{STAGE}/root";
my $root = "$scratch/root";
my $programs = $bindir =~ s/^\Q$old_root\E/$root/r;
isnt($programs, $bindir, 'the server is a private one') or BAIL_OUT('nobody else\'s server is to be written to');
system_or_bail('cp', '-a', $old_root, $root);
system_or_bail('cp', '-a', $CHECKOUT, "$scratch/checkout");

# Whoever reads needs sudo; we do not.
mkdir "$scratch/bin" or die "could not make a directory: $!";
append_to_file("$scratch/bin/sudo", "#!/bin/sh\nexec \"\$@\"\n");
chmod 0755, "$scratch/bin/sudo" or die "could not make sudo: $!";

# ---- the documents ----

check_form($_) for @documents;
configure($_) for grep { blocks_of($_, 'conf') } @documents;
play($_) for grep { blocks_of($_, 'sql', 'sh') && !$script{ $_->{path} } } @documents;
check_elsewhere();
done_testing();

sub blocks_of
{
	my ($document, @languages) = @_;
	my %wanted = map { $_ => 1 } @languages;
	return grep { $wanted{ $_->{language} } } @{ $document->{blocks} };
}

# Languages, excerpts and links.
sub check_form
{
	my ($document) = @_;
	my $path = $document->{path};
	my @wrong = map { "line $_->{first}: a block without a language" }
	  grep { $_->{language} eq '' || $_->{language} eq 'indented' } @{ $document->{blocks} };

	push @wrong, map { "line $_->{first}: nothing that a test runs has these lines of $_->{language}" }
	  grep { $_->{language} =~ /^\w/ && $_->{language} ne 'indented' && !$own{ $_->{language} }
		&& !$script{$path} && !is_excerpt($_) }
	  @{ $document->{blocks} };
	push @wrong, map { "line $_->{line}: $_->{to} leads nowhere" } grep { !leads_somewhere($document, $_->{to}) } @{ $document->{links} };
	is_deeply(\@wrong, [], "$document->{path}: languages, excerpts and links");
	return;
}

# Whether the block stands, line for line but for the indentation, in a file that is no document.
sub is_excerpt
{
	my ($block) = @_;
	my $wanted = join "\n", map { s/^\s+|\s+$//gr } @{ $block->{lines} };
	my @files = grep { !/\.md$/ } split /\n/, qx(find '$CHECKOUT/examples' '$CHECKOUT/doc' '$CHECKOUT/test' -type f -size -200k 2>/dev/null);

	return grep { index(join("\n", map { s/^\s+|\s+$//gr } split /\n/, slurp_file($_)), $wanted) >= 0 } @files;
}

sub leads_somewhere
{
	my ($document, $to) = @_;
	my ($file, $anchor) = split /#/, $to, 2;
	return 1 if $to =~ /^https?:/;
	my $path = $file eq '' ? $document->{path} : $document->{path} =~ s{[^/]*$}{$file}r;
	return 0 if !-e "$CHECKOUT/$path";
	return 1 if !defined $anchor;
	return read_document($path)->{slugs}{$anchor};
}

# new_server(NAME, LINES OF CONFIGURATION): not started.
sub new_server
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $programs =~ s{/bin$}{}r);

	$node->init;
	$node->append_conf('postgresql.conf', join("\n", "shared_preload_libraries = 'ai_chat_run'", @conf));
	return $node;
}

# A server that has all of a document's settings.
sub configure
{
	my ($document) = @_;
	my $node = new_server(plain_name($document) . '_conf', map { @{ $_->{lines} } } blocks_of($document, 'conf'));

	ok($node->start(fail_ok => 1), "$document->{path}: a server starts with its settings") or return;
	is($node->safe_psql('postgres', <<~SQL), '', "$document->{path}: the server knows all of its settings");
		SELECT f.name, f.error FROM pg_file_settings f
		WHERE f.error IS NOT NULL OR NOT EXISTS (SELECT FROM pg_settings s WHERE lower(s.name) = lower(f.name))
		SQL
	$node->stop;
	return;
}

# The document's path as a name for servers, databases and files.
sub plain_name
{
	my ($document) = @_;
	return lc($document->{path} =~ s/\W/_/gr);
}

# One session of psql goes through the whole document, on a server of its own. Its script has the lines of the document, so
# that psql's messages name those.
sub play
{
	my ($document) = @_;
	my $name = plain_name($document);
	my $node = new_server($name);
	my @script = ('') x @{ $document->{lines} };

	for my $block (blocks_of($document, 'sql'))
	{
		@script[ $block->{first} - 1 .. $block->{last} - 1 ] = script_lines($block);
	}
	for my $block (blocks_of($document, 'sh'))
	{
		my $file = "$scratch/$name.$block->{first}.sh";
		append_to_file($file, join("\n", 'set -eu -o pipefail', grep({ !$elsewhere{$_} } commands($block)), ''));
		$script[ $block->{first} - 1 ] = "\\! bash $file >$file.log 2>&1; echo \$? >$file.status";
	}
	append_to_file("$scratch/$name.sql", join("\n", @script, ''));

	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION ai_chat_run') if !grep { /^CREATE EXTENSION ai_chat_run/ } @script;
	my ($out, $err) = run_script($node, "$scratch/$name.sql");
	$node->stop;
	check_sql($document, $_, $out, $err) for blocks_of($document, 'sql');
	check_commands($document, $_, "$scratch/$name.$_->{first}.sh") for blocks_of($document, 'sh');

	# Outside the blocks no message can be.
	my @stray = grep { my $n = $_; !grep { $n >= $_->{first} && $n <= $_->{last} } @{ $document->{blocks} } } map { $_->[0] } @$err;
	is_deeply(\@stray, [], "$document->{path}: psql read nothing but the blocks");
	return;
}

# A line with an answer is followed by a mark, behind what psql has printed by then.
sub script_lines
{
	my ($block) = @_;
	my ($answers) = wanted_answers($block);
	my $n = $block->{first};

	return map { my $line = $_; $line =~ s/-- → .*/\\echo \@\@$n/ if defined $answers->{$n}; $n++; $line } @{ $block->{lines} };
}

# run_script(NODE, FILE): what psql printed, and its errors, each with the number of its line.
sub run_script
{
	my ($node, $file) = @_;
	my ($out, $err) = ('', '');
	local %ENV = (
		%ENV,
		PATH => "$scratch/bin:$programs:$ENV{PATH}",
		PG_CONFIG => "$programs/pg_config",
		PGHOST => $node->host,
		PGPORT => $node->port,
		PGDATABASE => 'postgres',
		HOME => $scratch);
	delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
	chdir "$scratch/checkout" or die "could not enter the copy of the checkout: $!";
	my $timeout = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	my $done = eval {
		IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-v', 'VERBOSITY=sqlstate', '-f', $file ], '<', \undef, '>', \$out, '2>', \$err, $timeout);
		1;
	};
	ok($done, "psql came to the end of $file") or diag($@);
	note($err);
	return ($out, [ map { /:(\d+): ERROR:  (\w+)/ ? [ $1, $2 ] : /:(\d+): error: (.*)/ ? [ $1, $2 ] : () } split /\n/, $err ]);
}

sub check_sql
{
	my ($document, $block, $out, $err) = @_;
	my ($answers, $errors) = wanted_answers($block);
	my $where = "$document->{path}, line $block->{first}";
	my @raised = map { $_->[1] } grep { $_->[0] >= $block->{first} && $_->[0] <= $block->{last} } @$err;
	my %answered = map { $_ => $out =~ /^(.*)\n\@\@$_$/m ? $1 : '(nothing)' } keys %$answers;

	is_deeply(\@raised, $errors, "$where: the errors that it names");
	is_deeply(\%answered, $answers, "$where: the answers that it names") if %$answers;
	return;
}

sub check_commands
{
	my ($document, $block, $file) = @_;
	my $status = -e "$file.status" ? slurp_file("$file.status") : "not run\n";

	is($status, "0\n", "$document->{path}, line $block->{first}: the commands") or diag(-e "$file.log" ? slurp_file("$file.log") : '');
	return;
}

# What is run elsewhere is still told, and still run.
sub check_elsewhere
{
	for my $path (sort keys %script)
	{
		my ($file, @what) = @{ $script{$path} };
		my $text = slurp_file("$CHECKOUT/$file");
		ok(index($text, $_) >= 0, "$file runs what $path tells: $_") for @what;
	}

	my %told = map { $_ => 1 } map { commands($_) } map { blocks_of($_, 'sh') } @documents;

	for my $command (sort keys %elsewhere)
	{
		my ($file, $what) = @{ $elsewhere{$command} };
		ok($told{$command} && index(slurp_file("$CHECKOUT/$file"), $what) >= 0, "$file runs $command, which a document tells");
	}
	return;
}
