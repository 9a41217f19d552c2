#!/usr/bin/env bash
# Measures the extension on a private server, side by side with what one would write by hand; what `make bench` runs.
# Ends with a table of ratios. There is no verdict: figures of shared machines are no tests.
#
#   BENCH=quick                    a few minutes, with less of everything; without, the full run: most of an hour,
#                                  some 10 GB below TMPDIR, and the pictures and figures in doc/
#   BENCH_ONLY=lifecycle,rejected  only these of the parts lifecycle, rejected, calls, history, sweep, wakeups, deferred
#   KEEP=1                         keep the server's directory
set -eu -o pipefail
cd "$(dirname "$0")/.."
mode=${BENCH:-full}
case $mode in
	quick) pg_config=$(test/setup.sh bench) ;;
	full) pg_config=$(test/setup.sh plots) ;;
	*) echo "bench: BENCH is quick or full, not $mode" >&2; exit 2 ;;
esac
. test/lib.sh
checkout=$PWD

say "building, and making a private server with the extension preloaded"
make -s -j "$(nproc)" PG_CONFIG="$pg_config"
make_stage
runner=

finish()
{
	trap - EXIT INT TERM
	set +e
	[ -z "$runner" ] || { kill "$runner"; wait "$runner"; } 2>/dev/null
	stop_servers
	if [ -n "${KEEP:-}" ]; then say "everything is kept in $STAGE"; else rm -rf "$STAGE"; fi
}
trap finish EXIT
trap 'exit 1' INT TERM

mkdir "$STAGE/bench"
build_program "$pg_config" "$STAGE/bench/load" test/bench/{load,script,common}.c
build_program "$pg_config" "$STAGE/bench/wakeups" test/bench/{wakeups,common}.c
cp test/bench/*.pl test/bench/*.pm test/bench/*.sql test/bench/*.pgbench "$STAGE/bench/"
private_install "$pg_config"

# Nothing shall come in between but what is measured: no autovacuum, no checkpoint by the clock, no worker that looks
# after active runs. Those who wait for 10 000 of them to be swept would wait for nothing.
cat >"$STAGE/bench.conf" <<-CONF
	shared_preload_libraries = 'ai_chat_run'
	shared_buffers = 512MB
	max_connections = 600
	max_wal_size = 8GB
	checkpoint_timeout = 1d
	autovacuum = off
	track_commit_timestamp = on
	log_timezone = UTC
	ai_chat_run.stale_after = 1d
	ai_chat_run.reconcile_interval = 1h
CONF
chown -hR "$RUN_USER" "$STAGE"
cd "$STAGE/bench"
start_server server "$STAGE/bench.conf"
export PGHOST=$STAGE/server PGDATA=$STAGE/server/data
psql -X -q -U postgres -c "CREATE ROLE chat_app LOGIN"

# In the background, for an interrupt to be seen at once. No function may stand between: the process of that id has to
# be the one to end.
"${RUN_AS[@]}" env HOME="$STAGE" perl bench.pl "$mode" "$STAGE/bench/bench.csv" &
runner=$!
wait "$runner"
runner=

# What is published is of one full run.
results=$checkout/results
if [ "$mode" = full ] && [ -z "${BENCH_ONLY:-}" ]; then results=$checkout/doc; fi
mkdir -p "$results"
cp "$STAGE/bench/bench.csv" "$results/bench.csv"
say "each single measurement is in $results/bench.csv"
if [ "$mode" = full ]
then
	"$checkout/test/bench/plots.sh" "$results/bench.csv" "$results"
	say "and pictures beside it"
fi
