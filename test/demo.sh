#!/usr/bin/env bash
# Shows the extension at work on a private server.
set -eu -o pipefail
cd "$(dirname "$0")/.."
pg_config=$(test/setup.sh build)
. test/lib.sh
make -s PG_CONFIG="$pg_config"
make_stage
trap 'stop_servers; rm -rf "$STAGE"' EXIT
private_install "$pg_config"
chown -hR "$RUN_USER" "$STAGE"
cp test/regress.conf "$STAGE/"
cd "$STAGE"
start_server demo "$STAGE/regress.conf"
echo "a private server runs; to look inside: psql -h $STAGE/demo -U postgres"
psql -X -h "$STAGE/demo" -U postgres -c 'CREATE EXTENSION ai_chat_run' -c 'SELECT ai_chat_run.answer()'
