#!/usr/bin/env bash
# npm run demo: two chat servers behind one database. On a private server that is gone afterwards, made from this checkout;
# or, with DATABASE_URL, on a server that has the extension and where chat/setup.sql was run.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ -n "${DATABASE_URL:-}" ]
then
	exec node "$here/chat/demo.js"
fi

cd "$here/../.."
pg_config=$(test/setup.sh build)
. test/lib.sh
say "building, and making a private server with the extension preloaded"
make -s PG_CONFIG="$pg_config"
make_stage
trap 'stop_servers; rm -rf "$STAGE"' EXIT
private_install "$pg_config"
printf '%s\n' "shared_preload_libraries = 'ai_chat_run'" "ai_chat_run.runner_grace = '1s'" >"$STAGE/demo.conf"
chown -hR "$RUN_USER" "$STAGE"
cp "$here/chat/setup.sql" "$STAGE/"
cd "$STAGE"
start_server demo "$STAGE/demo.conf"
psql -X -q -v ON_ERROR_STOP=1 -h "$STAGE/demo" -U postgres -d postgres -f "$STAGE/setup.sql" >/dev/null
DATABASE_URL="socket://chat_app@$STAGE/demo?db=postgres" node "$here/chat/demo.js"
