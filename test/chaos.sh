#!/usr/bin/env bash
# The chaos test in its long form, and with it the other tests that have one; what `make chaos` runs. Takes half an hour.
#
#   CHAOS_LIVES=100    how often to end the server's life
#   CHAOS_SEED=1       the order of the faults; otherwise chosen at random, and printed
#
# The judgement is kept in doc/chaos.txt.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
result=$(mktemp)
trap 'rm -f "$result"' EXIT
chmod 666 "$result"
CHAOS=full CHAOS_RESULT=$result CHECK_ONLY=tap PROVE_TESTS=${PROVE_TESTS:-test/t/072_chaos.pl} bash test/check.sh || exit
cp "$result" doc/chaos.txt
