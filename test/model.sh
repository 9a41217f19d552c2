#!/usr/bin/env bash
# The models of test/model, checked by spin in all their interleavings: each holds as it is, and is found wrong without
# any one of the steps that it says are needed. Exits with 77 if there is no spin.
set -u -o pipefail
cd "$(dirname "$0")/model" || exit 1
if ! command -v spin >/dev/null 2>&1
then
	echo "model: skipped: no spin"
	exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

# errors MODEL [-DSTEP]: how many spin finds, 0 or 1; nothing if it cannot tell.
errors()
{
	cp "$1.pml" "$dir/" &&
		(
			cd "$dir" && spin -a ${2:+"$2"} "$1.pml" >/dev/null && "${CC:-cc}" -O2 -w -DSAFETY -o pan pan.c &&
				./pan -m100000 | sed -n 's/.*errors: //p'
		)
}

# expect ERRORS MODEL [-DSTEP] TEXT
expect()
{
	local wanted=$1 text=${*: -1} found
	found=$(errors "${@:2:$#-2}")
	if [ "$found" = "$wanted" ]
	then
		echo "model: $text"
	else
		echo "model: not so: $text"
		failed=1
	fi
}

for file in *.pml
do
	model=${file%.pml}
	expect 0 "$model" "$model holds"
	while read -r step
	do
		expect 1 "$model" "-D$step" "$model does not with $step"
	done < <(sed -n 's/^#ifn\{0,1\}def //p' "$file" | sort -u)
done
exit "$failed"
