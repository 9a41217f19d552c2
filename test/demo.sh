#!/usr/bin/env bash
# A chat turn from begin to end on a private server, and what becomes of turns when the server is killed. Every line
# behind "=>" is a real session's; what follows is what psql showed. The server is left running, to go on with.
# DEMO_STOP=1 stops and removes it, for tests.
set -eu -o pipefail
cd "$(dirname "$0")/.."
pg_config=$(test/setup.sh build)
. test/lib.sh

say "building, and making a private server with the extension preloaded"
make -s PG_CONFIG="$pg_config"
make_stage
give_up() { echo "demo: $*" >&2; [ ! -f "$STAGE/demo/server.log" ] || tail -n 40 "$STAGE/demo/server.log" >&2; exit 1; }
trap 'stop_servers; rm -rf "$STAGE"' EXIT
private_install "$pg_config"
cp test/regress.conf "$STAGE/"
echo "ai_chat_run.runner_grace = '1s'" >>"$STAGE/regress.conf"
chown -hR "$RUN_USER" "$STAGE"
cd "$STAGE"
start_server demo "$STAGE/regress.conf"

# --- sessions: each a psql of its own that reads what we send through a pipe -------------------------------------

declare -A TO FROM PID
asked=0

open_session() # NAME
{
	local name=$1 to from
	mkfifo "$STAGE/$name.in" "$STAGE/$name.out"
	psql -X -q -h "$STAGE/demo" -U chat_app -d postgres -v VERBOSITY=default -v SHOW_CONTEXT=never -P footer=off \
		<"$STAGE/$name.in" >"$STAGE/$name.out" 2>&1 &
	PID[$name]=$!
	exec {to}>"$STAGE/$name.in" {from}<"$STAGE/$name.out"
	TO[$name]=$to FROM[$name]=$from
}

# Send a command; the marker behind it, on standard error and so unbuffered, tells when its result is complete.
ask() # NAME SQL
{
	asked=$((asked + 1))
	echo "$1=> $2"
	printf '%s\n\\warn answered\n' "$2" >&"${TO[$1]}"
}

# Show what the session answered to the oldest command that was not answered yet.
answer() # NAME
{
	local line
	while IFS= read -r -t 60 line <&"${FROM[$1]}" || give_up "no answer from session $1"
	do
		[ "$line" != answered ] || return 0
		[ -n "$line" ] || continue
		LAST=$line
		echo "    $line"
	done
}

call() { ask "$1" "$2"; answer "$1"; }

admin() { psql -X -q -h "$STAGE/demo" -U postgres -d postgres -P footer=off "$@"; }

# Poll until a query says t.
wait_for() # QUERY
{
	local deadline=$((SECONDS + 120))
	until [ "$(admin -Atc "$1" 2>/dev/null)" = t ]
	do
		[ $SECONDS -lt $deadline ] || give_up "waited in vain for: $1"
	done
}

show_runs()
{
	echo
	admin -c "SELECT right(id::text, 4) AS run, right(chat_id::text, 2) AS chat, status, step_count AS steps,
		stop_requested_at IS NOT NULL AS stop, error FROM ai_chat_run.ai_chat_runs ORDER BY id"
}

check() # WHAT QUERY: a demo that shows something else than it says has failed
{
	[ "$(admin -Atc "$2")" = t ] || give_up "expected: $1"
}

# --- the turn ---------------------------------------------------------------------------------------------------

chat="'00000000-0000-7000-8000-0000000000c1'"
space="'00000000-0000-7000-8000-00000000aaaa'"

say "an operator installs the extension and lets the application's role in"
admin -a -c "CREATE EXTENSION ai_chat_run" -c "CREATE ROLE chat_app LOGIN" \
	-c "SELECT ai_chat_run.grant_app_access('chat_app')" | grep -v '^ *$'

for name in runner rival user app
do
	open_session $name
done

say "two clients want a turn of one chat at the same time; the second waits for the first, and is rejected"
call runner "BEGIN;"
call runner "SELECT ai_chat_run.begin_run($chat, $space) AS run_id;"
run="'${LAST// /}'"
ask rival "SELECT ai_chat_run.begin_run($chat, $space);"
wait_for "SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'chat_app' AND wait_event_type = 'Lock'"
echo "   (rival waits)"
call runner "COMMIT;"
echo "   (rival again)"
answer rival
call rival "SELECT * FROM ai_chat_run.try_begin_run($chat, $space);"

say "steps arrive; then the user presses Stop, and the runner is told with its next call"
call runner "SELECT ai_chat_run.record_step($run, $space, 1);"
call runner "SELECT ai_chat_run.record_step($run, $space, 2);"
call runner "LISTEN ai_chat_run_stop;"
call user "SELECT ai_chat_run.request_stop_for_chat($chat, $space);"
call runner "SELECT ai_chat_run.record_step($run, $space, 3);"
call runner "UNLISTEN ai_chat_run_stop;"

say "two want to write the end: the first one's word stands"
call runner "BEGIN;"
call runner "SELECT ai_chat_run.finalize_run($run, $space, 'aborted', 'stopped by the user');"
ask rival "SELECT ai_chat_run.finalize_run($run, $space, 'completed');"
wait_for "SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'chat_app' AND wait_event_type = 'Lock'"
echo "   (rival waits)"
call runner "COMMIT;"
echo "   (rival again)"
answer rival
show_runs
check "one aborted run" "SELECT count(*) = 1 AND bool_and(status = 'aborted') FROM ai_chat_run.ai_chat_runs"

say "a client holds the row when the turn ends: the end is deferred, and written when the row is free"
call runner "SELECT ai_chat_run.begin_run($chat, $space) AS run_id;"
run="'${LAST// /}'"
mkfifo "$STAGE/holder.in"
psql -X -q -h "$STAGE/demo" -U postgres -d postgres <"$STAGE/holder.in" >/dev/null 2>&1 &
exec {holder}>"$STAGE/holder.in"
echo "holder=> BEGIN; SELECT FROM ai_chat_run.ai_chat_runs WHERE id = $run FOR UPDATE;"
echo "BEGIN; SELECT FROM ai_chat_run.ai_chat_runs WHERE id = $run FOR UPDATE;" >&$holder
wait_for "SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'idle in transaction'"
call runner "SET ai_chat_run.lock_timeout = '100ms';"
call runner "SELECT ai_chat_run.finalize_run($run, $space, 'completed');"
echo "holder=> COMMIT;"
echo "COMMIT;" >&$holder
exec {holder}>&-
wait_for "SELECT status = 'succeeded' FROM ai_chat_run.ai_chat_runs WHERE id = $run"
show_runs

# Poll until a session waits in a CALL.
wait_for_waiter() # COUNT
{
	wait_for "SELECT count(*) = $1 FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Extension'"
}

say "an application process attaches, and waits for stops of whatever it runs; a stop arrives there at once"
call app "SELECT ai_chat_run.attach_runner('app-1') AS aborted;"
call app "SELECT ai_chat_run.begin_run($chat, $space, runner => 'app-1') AS run_id;"
run="'${LAST// /}'"
ask app "CALL ai_chat_run.await_stops('app-1', timeout => '1 min');"
wait_for_waiter 1
echo "   (app waits)"
call user "SELECT ai_chat_run.request_stop_for_chat($chat, $space);"
echo "   (app again)"
answer app

say "somebody else waits for the end of that run, without asking again and again"
ask rival "CALL ai_chat_run.await_run($run, $space, '1 min');"
wait_for_waiter 1
echo "   (rival waits)"
call app "SELECT ai_chat_run.finalize_run($run, $space, 'aborted', 'stopped by the user');"
echo "   (rival again)"
answer rival

say "the user asks something else before the turn has ended: a run is superseded, and nobody comes in between"
call app "SELECT ai_chat_run.begin_run($chat, $space, runner => 'app-1') AS run_id;"
run="'${LAST// /}'"
ask user "CALL ai_chat_run.supersede_run($chat, $run, $space, timeout => '1 min');"
wait_for_waiter 1
echo "   (user waits)"
call rival "SELECT * FROM ai_chat_run.try_begin_run($chat, $space);"
call app "SELECT ai_chat_run.heartbeat($run, $space);"
call app "SELECT ai_chat_run.finalize_run($run, $space, 'aborted', 'superseded');"
echo "   (user again)"
answer user
superseding="'${LAST##*| }'"
check "a superseding run" "SELECT count(*) = 1 FROM ai_chat_run.ai_chat_runs WHERE chat_id = $chat AND status = 'running'"

say "the application's process is killed (SIGKILL), and does not come back within ai_chat_run.runner_grace"
call app "SELECT ai_chat_run.begin_run('00000000-0000-7000-8000-0000000000c5', $space, runner => 'app-1') AS run_id;"
ask app "CALL ai_chat_run.await_stops('app-1', timeout => '1 min');"
wait_for_waiter 1
disown "${PID[app]}"
kill -KILL "${PID[app]}"
echo "   (app is dead)"
wait_for "SELECT status = 'aborted' FROM ai_chat_run.ai_chat_runs WHERE chat_id = '00000000-0000-7000-8000-0000000000c5'"
show_runs
check "the dead runner's run" "SELECT error LIKE '%departed%' FROM ai_chat_run.ai_chat_runs WHERE chat_id = '00000000-0000-7000-8000-0000000000c5'"

say "is all well? what was counted?"
admin -c "SELECT check_name, ok, detail FROM ai_chat_run.health()"
admin -x -c "SELECT begun, rejected, finalized_succeeded, finalized_aborted, deferred, settled_later, swept_departed, stops,
	heartbeats, waits FROM ai_chat_run.stats WHERE datname = current_database()"
check "health" "SELECT bool_and(ok) FROM ai_chat_run.health()"
call runner "SELECT ai_chat_run.finalize_run($superseding, $space, 'completed');"

say "three turns are under way ..."
for n in 2 3 4
do
	call runner "SELECT ai_chat_run.begin_run('00000000-0000-7000-8000-0000000000c$n', $space);"
done
show_runs

say "... when the server is killed (SIGKILL) and started again"
for name in runner rival user app
do
	# shellcheck disable=SC1083,SC2093 # bash closes descriptors that an array names like this
	exec {TO[$name]}>&- {FROM[$name]}<&-
done
as_user kill -KILL "$(head -n 1 "$STAGE/demo/data/postmaster.pid")"
log_size=$(stat -c %s "$STAGE/demo/server.log")
# The old server's processes notice by themselves that it is gone; until then a new one refuses to start.
deadline=$((SECONDS + 120))
until as_user pg_ctl -D "$STAGE/demo/data" -l "$STAGE/demo/server.log" -w start >/dev/null 2>&1
do
	[ $SECONDS -lt $deadline ] || give_up "the server does not start again"
done
wait_for "SELECT NOT EXISTS (SELECT FROM ai_chat_run.ai_chat_runs WHERE status IN ('pending', 'running'))"
echo "from the log:"
log_line()
{
	tail -c "+$log_size" "$STAGE/demo/server.log" | grep -o 'boot sweep of database "postgres": 3 dangling agent run(s) aborted'
}
until log_line; do [ $SECONDS -lt $deadline ] || give_up "no line in the log"; done
show_runs
check "all three swept" "SELECT count(*) = 3 FROM ai_chat_run.ai_chat_runs WHERE error = 'Run interrupted by a server restart.'"

say "and their chats are free again"
open_session again
call again "SELECT outcome FROM ai_chat_run.try_begin_run('00000000-0000-7000-8000-0000000000c2', $space);"
check "a new run" "SELECT count(*) = 1 FROM ai_chat_run.ai_chat_runs WHERE status = 'running'"

[ -z "${DEMO_STOP:-}" ] || exit 0
trap - EXIT
bin=$(dirname "$PG_CONFIG")
as=""
[ "$(id -u)" -ne 0 ] || as="runuser -u $RUN_USER -- "
cat <<END

The server is still there, to go on with:
    $bin/psql -h $STAGE/demo -U postgres
When you have seen enough:
    (cd / && $as$bin/pg_ctl -D $STAGE/demo/data -m fast stop); rm -rf $STAGE
END
