# What the packages are made from: the archive for PGXN with its META.json, the rules of releases, the files of the Debian
# package, and the steps of the Dockerfile. Whole packages are built and tried by `make packages`.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Documents;
use IO::Uncompress::Unzip;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $checkout = "$FindBin::RealBin/../..";
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my %control = slurp_file("$checkout/ai_chat_run.control") =~ /^(?:# )?(default_version|patch) *= *'?([\d.]+)/mg;
my $version = $control{default_version};
my $release = "$version.$control{patch}";

# sh(DIRECTORY, SCRIPT): its status and all that it says.
sub sh
{
	my ($dir, $script) = @_;
	my $out = '';
	run_log([ 'sh', '-c', "cd '$dir' && { $script\n}" ], '>', \$out, '2>&1');
	return ($? >> 8, $out);
}

sub spew
{
	my ($path, $text) = @_;
	open my $fh, '>', $path or die "could not open $path: $!";
	print $fh $text;
	close $fh or die "could not write $path: $!";
	return;
}

# copy_of_checkout(): what git would have of it, and of nothing that was built.
sub copy_of_checkout
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my ($status, $out) = sh($dir, "cp -R '$checkout/.' . && find . -name '*.o' -o -name '*.bc' -o -name '*.so' | xargs rm -f &&"
		  . " rm -rf sql/ai_chat_run--$version.sql META.json results log tmp_check* .built-for");
	die "could not copy the checkout: $out" if $status;
	return $dir;
}

# ---- the archive for PGXN ----

# complaints(META): what contradicts version 1.0 of PGXN's specification.
sub complaints
{
	my ($meta) = @_;
	my $term = qr{^[^\s/\\[:cntrl:]]{2,}$};
	my $semver = qr/^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z-]+)?$/;
	my @bad;
	push @bad, grep { !defined $meta->{$_} } qw(name version abstract maintainer license provides meta-spec);
	push @bad, grep { !ref $meta->{$_} && ($meta->{$_} // '') eq '' } qw(abstract maintainer);
	push @bad, 'name' if ($meta->{name} // '') !~ $term;
	push @bad, 'version' if ($meta->{version} // '') !~ $semver;
	push @bad, 'license' if !ref $meta->{license} && ($meta->{license} // '') !~ /^(?:apache_2_0|bsd|mit|postgresql)$/;
	push @bad, 'meta-spec' if ($meta->{'meta-spec'}{version} // '') !~ /^1\.0\.\d+$/;
	push @bad, 'release_status' if ($meta->{release_status} // 'stable') !~ /^(?:stable|testing|unstable)$/;
	push @bad, 'provides' if !%{ $meta->{provides} // {} };
	for my $extension (values %{ $meta->{provides} // {} })
	{
		push @bad, 'provides' if ($extension->{file} // '') eq '' || ($extension->{version} // '') !~ $semver;
	}
	for my $phase (values %{ $meta->{prereqs} // {} })
	{
		push @bad, map { "prereqs $_" } grep { !/^(?:requires|recommends|suggests|conflicts)$/ } keys %$phase;
		push @bad, map { "prereqs $_" } grep { !/$semver/ && $_ ne '0' } map { values %$_ } values %$phase;
	}
	push @bad, map { "tag $_" } grep { length > 255 || /[\/\\[:cntrl:]]/ || $_ eq '' } @{ $meta->{tags} // [] };
	my %known = map { $_ => 1 } qw(name version abstract maintainer license provides meta-spec description generated_by
	  release_status prereqs resources tags no_index);
	push @bad, grep { !$known{$_} && !/^x_/i } keys %$meta;
	return join ', ', sort @bad;
}

my $made = copy_of_checkout();
my ($status, $out) = sh($made, 'make -s META.json');
is($status, 0, 'META.json is made') or diag $out;
my $meta = JSON::PP->new->decode(slurp_file("$made/META.json"));
is(complaints($meta), '', 'META.json is what PGXN wants');
is($meta->{version}, $release, 'of this release');
is($meta->{provides}{ai_chat_run}{version}, $release, 'and so is what it provides');
for my $spoilt (
	[ name => '' ], [ version => $version ], [ abstract => undef ], [ maintainer => '' ], [ license => 'none' ],
	[ provides => { ai_chat_run => { file => 'x' } } ], [ 'meta-spec' => {} ], [ release_status => 'good' ],
	[ prereqs => { runtime => { requires => { PostgreSQL => '15' } } } ], [ tags => ['a/b'] ], [ summary => 'x' ])
{
	isnt(complaints({ %$meta, $spoilt->[0] => $spoilt->[1] }), '', "it would not be with another $spoilt->[0]");
}

SKIP:
{
	skip 'git is not installed, make dist needs it', 1 if system('git --version >/dev/null 2>&1');
	my $git = 'git -c user.name=nobody -c user.email=nobody@localhost';
	my $archive = "ai_chat_run-$release";
	($status, $out) = sh($made, "rm META.json && $git init -q && git add -A && $git commit -q -m all && make -s dist");
	is($status, 0, 'make dist') or diag $out;

	my %file;
	my $zip = IO::Uncompress::Unzip->new("$made/$archive.zip") or die "could not read $archive.zip";
	for (my $more = 1; $more > 0; $more = $zip->nextStream)
	{
		local $/;
		my $name = $zip->getHeaderInfo->{Name};
		$file{ $name =~ s{^\Q$archive\E/}{}r } = $name =~ m{/$} ? '' : <$zip>;
	}
	is(join(', ', grep { !defined $file{$_} } 'META.json', 'Makefile', 'README.md', 'LICENSE', 'ai_chat_run.control',
			'src/module.c', 'test/check.sh', map { @$_{ 'file', 'docfile' } } values %{ $meta->{provides} }),
		'', 'the archive has what is needed, and what META.json names, in a directory of its name');
	is($file{"sql/ai_chat_run--$version.sql"}, slurp_file("$checkout/sql/ai_chat_run--$version.sql"), 'the script as it is built');
	is_deeply(JSON::PP->new->decode($file{'META.json'}), $meta, 'META.json as it is made');
	is(join(', ', grep { /\.(?:o|bc|so|zip)$/ } keys %file), '', 'nothing else that was built');

	append_to_file("$made/CHANGELOG.md", "\n");
	($status, $out) = sh($made, 'make -s dist');
	isnt($status, 0, 'make dist goes by what is committed');
	like($out, qr/^dist: there are changes that are not committed$/m, 'and says so');
}

# ---- the rules of releases ----

my $rules = copy_of_checkout();
my $delta = "sql/ai_chat_run--0.0--$version.sql";
my $guard = "\\echo Use \"ALTER EXTENSION ai_chat_run UPDATE TO '$version'\" to load this file. \\quit\n";
is_deeply([ sh($rules, 'bash test/releases.sh .') ], [ 0, '' ], 'the rules of releases are kept');

# After a release, with a delta.
my ($keep) = map { join "\n", @{ $_->{lines} } } grep { $_->{language} eq 'sh' && "@{ $_->{lines} }" =~ /SHA256SUMS/ }
  @{ read_document('doc/upgrades.md')->{blocks} };
spew("$rules/$delta", "${guard}SELECT;\n");
($status, $out) = sh($rules, "sed -i 's/^## $release (unreleased)/## $release (2026-12-01)/' CHANGELOG.md &&"
	  . " bash -e -c 'PG_CONFIG=\$1 && export PG_CONFIG && eval \"\$0\"' '" . $keep =~ s/'/'\\''/gr . "' '$pg_config'");
is($status, 0, 'a release, by the commands of doc/upgrades.md, keeps them') or diag $out;
for my $spoilt (
	[ 'ai_chat_run.control', sub { s/^# patch.*\n//m }, qr/is no version of three numbers/ ],
	[ 'ai_chat_run.control', sub { s/^# patch = \d+/# patch = 77/m }, qr/CHANGELOG.md does not begin with ## \Q$version.77/ ],
	[ 'ai_chat_run.control', sub { s/^# patch = \d+/# patch = 77/m }, qr/debian\/changelog does not begin with/ ],
	[ 'CHANGELOG.md', sub { s/^## .*\n//m }, qr/CHANGELOG.md does not begin with/ ],
	[ 'CHANGELOG.md', sub { $_ .= "\n## 0.0.1 (2026-01-01)\n" },
		qr/0\.0\.1 .* was released, and sql\/released has no script of 0\.0/ ],
	[ 'CHANGELOG.md', sub { $_ .= "\n## Older\n" }, qr/what is ## Older/ ],
	[ 'debian/changelog', sub { s/\(/(7./ }, qr/debian\/changelog does not begin with/ ],
	[ 'META.json.in', sub { s/\@RELEASE\@/$release/ }, qr/may name the version/ ],
	[ 'sql/parts/table.sql', sub { s/^.*\n// }, qr/table\.sql does not begin with/ ],
	[ $delta, sub { s/^\\echo/-- echo/ }, qr/\Q$delta\E does not begin with/ ],
	[ $delta, sub { $_ .= "SELECT 1;\n" }, qr/what was released has been edited/ ],
	[ "sql/released/ai_chat_run--$version.sql", sub { $_ .= "SELECT 1;\n" }, qr/what was released has been edited/ ],
	[ 'sql/released/SHA256SUMS', sub { s/^.*released.*\n//m }, qr/released\/ai_chat_run--\Q$version\E\.sql has no sum/ ],
	[ 'sql/released/SHA256SUMS', sub { s/^.*--0\.0--.*\n//m }, qr/ai_chat_run--0\.0--\Q$version\E\.sql has no sum/ ])
{
	my ($file, $edit, $complaint) = @$spoilt;
	my $text = slurp_file("$rules/$file");
	{
		local $_ = $text;
		$edit->();
		spew("$rules/$file", $_);
	}
	($status, $out) = sh($rules, 'bash test/releases.sh .');
	like($out, $complaint, "broken in $file: " . ($out =~ /(.*)/)[0]);
	is($status, 1, 'and fails');
	spew("$rules/$file", $text);
}

# ---- the Debian package ----

my ($template, $debian_control) = map { slurp_file("$checkout/debian/$_") } 'control.in', 'control';
my ($source, $package) = split /\n(?=\n)/, $template, 2;
is($debian_control,
	join("\n", "$source\n",
		map { $package =~ s/^\n//r =~ s/PGVERSION/$_/gr } $debian_control =~ /^Package: postgresql-(\d+)-/mg),
	'debian/control is made from control.in');
(my $license = slurp_file("$checkout/LICENSE")) =~ s/\A.*?\n(?=Permission)//s;
(my $copyright = slurp_file("$checkout/debian/copyright")) =~ s/\A.*\nLicense: PostgreSQL\n//s;
is($copyright =~ s/^ \.?//gmr, $license, 'debian/copyright has the license');
my ($oldest) = $meta->{prereqs}{runtime}{requires}{PostgreSQL} =~ /^(\d+)/;
is(slurp_file("$checkout/debian/pgversions"), "$oldest+\n", 'it is for the versions of PostgreSQL that META.json has');

# ---- the Dockerfile ----

# Its instructions, a stage each, lines that go on joined.
my @stages;
for (split /\n/, slurp_file("$checkout/Dockerfile") =~ s/\\\n//gr)
{
	next if /^\s*(?:#|$)/;
	my ($instruction, $rest) = /^([A-Z]+)\s+(.*)$/ or die "what is \"$_\" in the Dockerfile?";
	push @stages, [] if $instruction eq 'FROM';
	push @{ $stages[-1] }, [ $instruction, $rest ] if @stages;
}
is(scalar @stages, 2, 'one stage builds, one is kept');

# A context of what .dockerignore lets through: what it takes back by name, with the exceptions below.
my $context = PostgreSQL::Test::Utils::tempdir();
my @ignore = grep { /^[^#]/ } split /\n/, slurp_file("$checkout/.dockerignore");
is($ignore[0], '*', 'nothing is in the context of docker build but what is named');
for my $name (map { /^!([\w.]+)$/ ? $1 : () } @ignore)
{
	my ($failed, $said) = sh($made, "cp -R '$name' '$context/'");
	is($failed, 0, "$name is there for docker build") or diag $said;
}

my $build = PostgreSQL::Test::Utils::tempdir();
my @apt;
for (@{ $stages[0] })
{
	my ($instruction, $rest) = @$_;
	if ($instruction eq 'COPY')
	{
		my @words = split ' ', $rest;
		my $to = pop @words;
		$to =~ s{^/build}{$build} or fail("COPY to $to");
		($status, $out) = sh($context, "cp -R @words '$to'");
		is($status, 0, "COPY $rest") or diag $out;
	}
	elsif ($instruction eq 'RUN' && $rest =~ /apt-get install (.*)/)
	{
		@apt = grep { !/^-/ } split ' ', $1;
	}
	elsif ($instruction eq 'RUN')
	{
		($status, $out) = sh($build, "PG_CONFIG='$pg_config' && export PG_CONFIG && " . $rest =~ s{/installed}{$build/installed}r);
		is($status, 0, 'RUN of the build') or diag $out;
	}
}
my ($libdir, $sharedir) = map { chomp(my $dir = qx('$pg_config' --$_)); $dir } 'pkglibdir', 'sharedir';
is(join("\n", sort split /\n/, (sh("$build/installed", 'find . -type f'))[1]),
	join("\n", sort map { ".$_" } "$libdir/ai_chat_run.so", "$sharedir/extension/ai_chat_run--$version.sql",
		"$sharedir/extension/ai_chat_run.control",
		map { "$sharedir/extension/" . s{.*/}{}r } glob "$checkout/sql/ai_chat_run--*--*.sql"),
	'the library, the control file and the scripts are installed, nothing else');

SKIP:
{
	my ($major) = map { m{/(\d+)$} ? $1 : () } glob '/usr/lib/postgresql/*';
	skip 'apt has no PostgreSQL here, whose packages the Dockerfile names', 1
	  if !defined $major || system("test -n \"\$(apt-cache show postgresql-server-dev-$major 2>/dev/null)\"");
	is(join(', ', grep { system("test -n \"\$(apt-cache show $_ 2>/dev/null)\"") } map { s/\$\{PG_MAJOR\}/$major/r } @apt),
		'', 'the packages that it names are there');
}

# The last stage: a new data directory is made from the sample, then the scripts are run, as the image does it.
my ($last) = map { $_->[1] } grep { $_->[0] eq 'RUN' } @{ $stages[1] };
my $image = PostgreSQL::Test::Utils::tempdir();
($status, $out) = sh($image, "mkdir scripts && cp -RL '$sharedir' share && "
	  . $last =~ s{/usr/share/postgresql/\$\{PG_MAJOR\}}{$image/share}r =~ s{/docker-entrypoint-initdb\.d}{$image/scripts}r);
is($status, 0, 'RUN of the last stage') or diag $out;
my $node = PostgreSQL::Test::Cluster->new('image');
$node->init(extra => [ '-L', "$image/share" ]);
$node->start;
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $_, $node->connstr('postgres') ], 'the script runs')
  for glob "$image/scripts/*";
is($node->safe_psql('postgres', 'SELECT check_name, ok FROM ai_chat_run.health() LIMIT 1'), 'preload|t',
	'the library is preloaded');
$node->stop;
done_testing();
