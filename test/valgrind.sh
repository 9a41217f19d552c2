#!/usr/bin/env bash
# SQL tests on a server that runs in valgrind, which sees each use of memory that was not set, or is not the user's; what
# `make valgrind` runs. Takes minutes. Fails where our library is on the stack of an error.
#
#   REGRESS='t_a t_b'      only these of the suite regress
#   SUPPRESSIONS=file      what is known of the server, beside test/valgrind.supp: for one that was built with
#                          -DUSE_VALGRIND that is src/tools/valgrind.supp of its source. Only such a server shows what goes
#                          wrong within the blocks of its memory contexts
#   KEEP=1                 keep the server's directory, with valgrind's reports, also when all is well
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

if ! command -v valgrind >/dev/null 2>&1
then
	echo "valgrind: it is not installed" >&2
	exit 1
fi
pg_config=$(bash test/setup.sh test) || exit 1
. test/lib.sh
make_stage
reports=$STAGE/reports
server=
failed=1

# shellcheck disable=SC2317 # called by the trap
finish()
{
	trap - EXIT INT TERM
	stop_servers
	[ -z "$server" ] || wait "$server" 2>/dev/null
	if [ "$failed" -ne 0 ] || [ -n "${KEEP:-}" ]; then say "logs and reports are kept in $STAGE"; else rm -rf "$STAGE"; fi
	exit "$failed"
}
trap finish EXIT
trap 'exit 1' INT TERM

say "building for $("$pg_config" --version)"
make -s -j "$(nproc)" PG_CONFIG="$pg_config" || exit 1
private_install "$pg_config" || exit 1
cp -R Makefile ./*.control sql test expected "$STAGE/" || exit 1
mkdir "$reports"
chown -hR "$RUN_USER" "$STAGE"
export STAGE

# ---- the server, once as ever to make it, then in valgrind ----

start_server server test/regress.conf || exit 1
stop_servers
options=(--quiet --leak-check=no --num-callers=40 --fullpath-after= "--error-markers=ERROR-BEGIN,ERROR-END"
	--log-file="$reports/%p" --suppressions="$PWD/test/valgrind.supp")
[ -z "${SUPPRESSIONS:-}" ] || options+=(--suppressions="$SUPPRESSIONS")
say "starting a server in valgrind"
as_user valgrind "${options[@]}" postgres -D "$STAGE/server/data" >>"$STAGE/server/server.log" 2>&1 &
server=$!
until pg_isready -q -h "$STAGE/server" -p 5432
do
	kill -0 "$server" 2>/dev/null || { tail -n 30 "$STAGE/server/server.log"; exit 1; }
	sleep 1
done

# ---- the tests ----

say regress
passed=yes
(
	cd "$STAGE" &&
		as_user make -s installcheck ISOLATION= ${REGRESS:+REGRESS="$REGRESS"} \
			EXTRA_REGRESS_OPTS="--host=$STAGE/server --port=5432 --user=postgres"
) || passed=
as_user pg_ctl -D "$STAGE/server/data" -m fast -t 300 -w stop >/dev/null || passed=
wait "$server"
server=

# ---- what valgrind has to say ----

# Each process has a report of its own. Of the errors in it those are ours that have a line of our source on the stack.
found=$(awk -v ours="$PWD/src/" '
	/ERROR-BEGIN/	{ text = ""; inside = 1 }
	inside		{ text = text $0 "\n" }
	/ERROR-END/	{ inside = 0; if (index(text, ours)) print text }' "$reports"/*)
say "$(find "$reports" -type f | wc -l) processes"
if [ -n "$found" ]
then
	head -n 200 <<<"$found"
	say "valgrind found $(grep -c ERROR-END <<<"$found") error(s) with our library on the stack"
elif [ -z "$passed" ]
then
	tail -n 100 "$STAGE/regression.diffs"
	say "no error in our library, but not all tests have passed"
else
	say "no error in our library"
	failed=0
fi
