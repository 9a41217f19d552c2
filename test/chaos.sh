#!/usr/bin/env bash
# The chaos test in its long form, a quarter of an hour or more; what `make chaos` runs. The judgement is kept in
# doc/chaos.txt.
#
#   CHAOS_LIVES=100    how often to end the server's life
#   CHAOS_SEED=1       the order of the faults; otherwise chosen at random, and printed
#   PROVE_TESTS=...    other tests that have a long form, instead: 031 032 037 050 060 061 in test/t; these keep nothing
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
result=$(mktemp)
trap 'rm -f "$result"' EXIT
chmod 666 "$result"
CHAOS=full CHAOS_RESULT=$result CHECK_ONLY=tap PROVE_TESTS=${PROVE_TESTS:-test/t/072_chaos.pl} bash test/check.sh || exit
[ ! -s "$result" ] || cp "$result" doc/chaos.txt
