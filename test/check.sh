#!/usr/bin/env bash
# Every test, on private servers; what `make check` runs. Ends with one line "N passed, N failed", perhaps with
# ", N skipped", and fails unless something passed and nothing failed. To run less:
#
#   CHECK_ONLY=lint,model,demo,regress,isolation,tap,pgtap,examples   only these suites
#   REGRESS='t_a t_b'  ISOLATION='race_a'         only these of the suites regress and isolation
#   PROVE_TESTS=test/t/003_x.pl                   only these TAP tests
#   EXAMPLE_TESTS=examples/node/test/bare.test.js only these tests of the examples
#   EXTRA_CONF='debug_discard_caches = 1'         more lines for the configuration of each server
#   JOBS=1                                        TAP tests one after the other (default 2)
#   UPGRADE_TO=/path/to/pg_config                 the newer servers that the upgrade test goes to (default: what is found)
#   CHECK_TIMEOUT=600                             give up on a hanging suite after so many seconds (default 3600)
#   KEEP=1                                        keep the servers' directory also when all is well
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

. test/lib.sh
make_stage
# The suites add a line "suite passed failed skipped" each.
TALLY=$STAGE/tally
: >"$TALLY"
runner=

# The closing line comes whatever happened before.
# shellcheck disable=SC2317 # called by the trap
finish()
{
	local passed failed skipped
	trap - EXIT INT TERM
	[ -z "$runner" ] || { kill "$runner"; wait "$runner"; } 2>/dev/null
	stop_servers
	read -r passed failed skipped < <(awk '{ p += $2; f += $3; s += $4 } END { print p + 0, f + 0, s + 0 }' "$TALLY")
	if [ "$failed" -gt 0 ] || [ -n "${KEEP:-}" ]
	then
		say "logs and results are kept in $STAGE"
	else
		rm -rf "$STAGE"
	fi
	if [ "$skipped" -eq 0 ]; then skipped=; else skipped=", $skipped skipped"; fi
	echo "$passed passed, $failed failed$skipped"
	if [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]; then exit 0; else exit 1; fi
}
trap finish EXIT
trap 'count interrupted 0 1 0; exit 1' INT TERM

fatal() { echo "check: $*"; count fatal 0 1 0; exit 1; }

# Only lint and model can do without a server.
pg_config=${PG_CONFIG:-pg_config}
servers=
if wanted demo || wanted regress || wanted isolation || wanted tap || wanted pgtap || wanted examples
then
	servers=yes
	pg_config=$(bash test/setup.sh test) || fatal "what the tests need is not installed"
fi

if wanted lint
then
	say lint
	PG_CONFIG=$pg_config bash test/lint.sh
	case $? in
		0) count lint 1 0 0 ;;
		77) count lint 0 0 1 ;;
		*) count lint 0 1 0 ;;
	esac
fi

if wanted model
then
	say model
	bash test/model.sh
	case $? in
		0) count model 1 0 0 ;;
		77) count model 0 0 1 ;;
		*) count model 0 1 0 ;;
	esac
fi

[ -n "$servers" ] || exit
say "building for $("$pg_config" --version)"
make -s -j "$(nproc)" PG_CONFIG="$pg_config" || fatal "the build failed"

# The demo is a promise too; it compares what it shows with what it says.
if wanted demo
then
	say demo
	if PG_CONFIG=$pg_config DEMO_STOP=1 bash test/demo.sh >"$STAGE/demo.log" 2>&1
	then
		count demo 1 0 0
	else
		count demo 0 1 0
		tail -n 60 "$STAGE/demo.log"
	fi
fi

# What breaks a server, its clock, and its clients.
if wanted tap
then
	mkdir "$STAGE/chaos"
	if ! build_program "$pg_config" "$STAGE/chaos/client" test/chaos/{client,session}.c ||
		! build_program "$pg_config" "$STAGE/chaos/full_disk.so" -shared -fPIC test/chaos/full_disk.c -ldl ||
		! build_program "$pg_config" "$STAGE/chaos/clock.so" -shared -fPIC test/chaos/clock.c
	then
		fatal "the programs that break a server could not be built"
	fi
fi

private_install "$pg_config" || fatal "the private installation failed"

# The user who runs the servers may not be able to read the checkout.
mkdir "$STAGE/checkout"
cp -Rp Makefile ./*.control ./*.md LICENSE META.json.in Dockerfile .dockerignore .gitignore debian doc sql src test expected \
	examples "$STAGE/checkout/" || fatal "could not copy the tests"
# What somebody has installed there to try the examples is not what is tested.
rm -rf "$STAGE/checkout/examples/node/node_modules"
if wanted examples; then find_driver "$STAGE/checkout/examples/node"; fi
chown -hR "$RUN_USER" "$STAGE"
cd "$STAGE/checkout" || fatal "could not enter $STAGE"
export STAGE TALLY

# In the background, for an interrupt to be seen at once; suites that hang are ended with their children.
# No function may stand between: the process of that id has to be timeout itself, which passes signals on.
"${RUN_AS[@]}" env HOME="$STAGE" timeout --kill-after=60 "${CHECK_TIMEOUT:-3600}" bash test/suites.sh &
runner=$!
wait "$runner"
status=$?
runner=
[ "$status" -eq 0 ] || fatal "the suites did not come to their end (exit status $status)"
exit
