#!/usr/bin/env bash
# The suites that need a server. check.sh starts this as an ordinary user in a copy of the tests, with STAGE,
# PG_CONFIG and PATH set for the private installation, and with TALLY, the file for the results.
set -u -o pipefail
. test/lib.sh
pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..

show_tail()
{
	[ -s "$1" ] || return
	say "end of $1"
	tail -n "${2:-40}" "$1"
}

# sql_suite SUITE SERVER: the tests of `make installcheck` against the running server.
# SUITE is regress or isolation; the other's list is emptied for this run.
sql_suite()
{
	local suite=$1 server=$2 dir=$STAGE/$2-$1 only status
	case $suite in
		regress) only=(ISOLATION= ${REGRESS:+REGRESS="$REGRESS"}) ;;
		isolation) only=(REGRESS= ${ISOLATION:+ISOLATION="$ISOLATION"}) ;;
	esac
	say "$suite, $server server"
	# pg_regress writes where it runs: each run gets a directory of its own.
	mkdir "$dir"
	ln -s "$PWD"/* "$dir/"
	(
		cd "$dir" &&
			make -s installcheck "${only[@]}" \
				EXTRA_REGRESS_OPTS="--host=$STAGE/$server --port=5432 --user=postgres"
	) 2>&1 | tee "$dir.log"
	status=$?
	tally_regress "$suite-$server" "$status" <"$dir.log" >>"$TALLY" && return
	show_tail "$dir/regression.diffs" 300
	show_tail "$STAGE/$server/server.log"
	return 1
}

# PostgreSQL 15 prints "test name ... ok  12 ms", 16 and later TAP. A run that failed without a failed test, or
# that ran none, counts as one failure.
tally_regress()
{
	awk -v suite="$1" -v status="$2" '
		/^ok [0-9]/ || /^(test|   ) .* \.\.\. ok /		{ passed++ }
		/^not ok [0-9]/ || /^(test|   ) .* \.\.\. (FAILED|failed)/	{ failed++ }
		END {
			if (!failed && (status != 0 || !passed))
				failed = 1
			print suite, passed + 0, failed + 0, 0
			exit failed > 0
		}'
}

# A server that is gone at the end has crashed under the tests, or did not come up at all.
sql_suites()
{
	local server=$1 conf=$2 suite suites=()
	wanted regress && suites+=(regress)
	wanted isolation && suites+=(isolation)
	[ ${#suites[@]} -gt 0 ] || return
	start_server "$server" <(cat "$conf" "$extra_conf") || { count "start-$server" 0 1 0; return; }
	for suite in "${suites[@]}"
	do
		sql_suite "$suite" "$server"
	done
	check_log "$server"
	stop_servers
}

# A crash that no test noticed is a failure all the same.
check_log()
{
	grep -nE 'TRAP: |PANIC: |was terminated by signal' "$STAGE/$1/server.log" || return
	count "crash-$1" 0 1 0
	show_tail "$STAGE/$1/server.log" 60
}

tap_suite()
{
	local tests file
	# shellcheck disable=SC2206 # a list of words or a pattern, as prove takes it
	tests=(${PROVE_TESTS:-test/t/*.pl})
	say "TAP"
	if [ ! -f "$pgxs/src/test/perl/PostgreSQL/Test/Cluster.pm" ]
	then
		say "skipped: this PostgreSQL was built without --enable-tap-tests"
		count tap 0 0 1
		return
	fi
	# What the server's own make rule sets: TESTDIR up to 15, the other two since 16.
	mkdir -p "$STAGE/tap/tmp_check/log" "$STAGE/ports"
	TEMP_CONFIG=$extra_conf TESTDIR=$STAGE/tap TESTDATADIR=$STAGE/tap/tmp_check TESTLOGDIR=$STAGE/tap/tmp_check/log \
		PERL5LIB=$pgxs/src/test/perl PG_REGRESS=$pgxs/src/test/regress/pg_regress \
		PG_TEST_PORT_DIR=$STAGE/ports PGPORT=65432 CHAOS_PROGRAMS=$STAGE/chaos \
		perl test/tap.pl tap "$STAGE/tap/failed" "${tests[@]}" && return
	[ -f "$STAGE/tap/failed" ] || { count tap 0 1 0; return; }
	while read -r file
	do
		file=$(basename "$file" .pl)
		for log in "$STAGE/tap/tmp_check/log/regress_log_$file" "$STAGE/tap/tmp_check/log/$file"_*.log
		do
			show_tail "$log"
		done
	done <"$STAGE/tap/failed"
}

pgtap_suite()
{
	local dir=$STAGE/pgtap extensions other
	say "pgTAP"
	extensions=$("$PG_CONFIG" --sharedir)/extension
	# A server built by hand has no pgTAP; being plain SQL, that of a packaged server will do.
	for other in /usr/share/postgresql/*/extension
	do
		[ -f "$extensions/pgtap.control" ] || cp "$other"/pgtap* "$extensions/" 2>/dev/null
	done
	if [ ! -f "$extensions/pgtap.control" ]
	then
		say "skipped: this PostgreSQL has no pgTAP"
		count pgtap 0 0 1
		return
	fi
	start_server pgtap <(cat test/regress.conf "$extra_conf") || { count pgtap 0 1 0; return; }
	if ! psql -X -q -v ON_ERROR_STOP=1 -h "$dir" -p 5432 -U postgres -d postgres \
		-c 'CREATE DATABASE pgtap' -c '\connect pgtap' -c 'CREATE EXTENSION pgtap' -c "CREATE EXTENSION $EXTENSION"
	then
		count pgtap 0 1 0
		return
	fi
	if ! perl test/tap.pl pgtap "$dir/failed" --pgtap "$dir" pgtap test/pgtap/*.sql
	then
		[ -f "$dir/failed" ] || count pgtap 0 1 0
		show_tail "$dir/server.log"
	fi
	check_log pgtap
	stop_servers
}

# The tests in JavaScript start servers of their own, those in Python use the one that is started here.
examples_suite()
{
	local dir=$STAGE/examples tests file
	say "examples"
	# shellcheck disable=SC2206 # a list of words or a pattern
	tests=(${EXAMPLE_TESTS:-examples/node/test/*.test.js examples/python/test_*.py})
	if ! node -e 'process.exit(parseFloat(process.versions.node) >= 18.15 ? 0 : 1)' 2>/dev/null
	then
		say "skipped: the examples in JavaScript need Node 18.15 or later"
		without '*.js'
	elif [ ! -d examples/node/node_modules/pg ]
	then
		say "skipped: the examples in JavaScript need the driver \"pg\": node-pg of Debian, or npm and its registry"
		without '*.js'
	fi
	for PYTHON in python3 /usr/bin/python3 ''
	do
		"${PYTHON:-false}" -c 'import psycopg' 2>/dev/null && break
	done
	if [ -z "$PYTHON" ]
	then
		say "skipped: the example in Python needs psycopg 3 (python3-psycopg)"
		without '*.py'
	fi
	[ ${#tests[@]} -gt 0 ] || return
	start_server examples <(cat test/regress.conf "$extra_conf") || { count examples 0 1 0; return; }
	if ! psql -X -q -h "$dir" -p 5432 -U postgres -d postgres -c "CREATE EXTENSION $EXTENSION"
	then
		count examples 0 1 0
		return
	fi
	mkdir "$dir/tap"
	# Their servers are in STAGE, too: should a test be killed, they are stopped with ours.
	if ! PGHOST=$dir PGPORT=5432 PGUSER=postgres PGDATABASE=postgres PYTHON=$PYTHON TMPDIR=$STAGE \
		PERL_TEST_HARNESS_DUMP_TAP=$dir/tap perl test/tap.pl examples "$dir/failed" "${tests[@]}"
	then
		[ -f "$dir/failed" ] || count examples 0 1 0
		while read -r file
		do
			show_tail "$dir/tap/$file" 100
		done <"$dir/failed"
	fi
	check_log examples
	stop_servers
}

# without PATTERN: takes those out of the tests to run, as skipped.
without()
{
	local file kept=()
	for file in "${tests[@]}"
	do
		# shellcheck disable=SC2053 # a pattern
		if [[ $file == $1 ]]; then count examples 0 0 1; else kept+=("$file"); fi
	done
	tests=("${kept[@]}")
}

trap stop_servers EXIT
trap 'exit 1' INT TERM
extra_conf=$STAGE/extra.conf
echo "${EXTRA_CONF:-}" >"$extra_conf"
sql_suites bare /dev/null
sql_suites preloaded test/regress.conf
if wanted tap; then tap_suite; fi
if wanted pgtap; then pgtap_suite; fi
if wanted examples; then examples_suite; fi
exit 0
