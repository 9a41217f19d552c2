#!/usr/bin/env bash
# plots.sh CSV DIRECTORY
#
# Draws what `make bench` measured: medians of the rounds. A picture whose part was not measured is left out.
set -eu -o pipefail
csv=$1 directory=$2
export LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# values CASE VARIANT METRIC: "round value" of each round.
values() { awk -F, -v c="$1" -v v="$2" -v m="$3" '$2 == c && $3 == v && $5 == m { print $4, $6 }' "$csv"; }

# The median of the last column on standard input; nothing if that is empty.
middle()
{
	awk '{ print $NF }' | sort -g |
		awk '{ v[NR] = $1 } END { if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

# median CASE VARIANT METRIC: of the rounds.
median() { values "$@" | middle; }

# ratio CASE VARIANT VARIANT METRIC: median of the rounds' ratios.
ratio()
{
	awk 'NR == FNR { base[$1] = $2; next } $1 in base { print $2 / base[$1] }' \
		<(values "$1" "$3" "$4") <(values "$1" "$2" "$4") | middle
}

measured() { awk -F, -v part="$1" '$1 == part { found = 1; exit } END { exit !found }' "$csv"; }

# row LABEL VALUE...: of a table for gnuplot; a value that there is none of is a "?".
row()
{
	local label=$1 value
	shift
	printf '"%s"' "$label"
	for value in "$@"
	do
		printf ' %s' "${value:-?}"
	done
	echo
}

# draw NAME: with the commands on standard input.
draw()
{
	{
		cat <<-END
			set terminal svg size 800,420 font 'sans-serif,13' background '#ffffff' noenhanced
			set output '$directory/bench-$1.svg'
			set datafile missing '?'
			set style line 1 lc rgb '#2563a8' lw 2 pt 7
			set style line 2 lc rgb '#d9822b' lw 2 pt 5
			set style line 3 lc rgb '#8a8a8a' lw 2 pt 9
			set style line 4 lc rgb '#4c9a5b' lw 2 pt 11
			set style line 5 lc rgb '#b05a9c' lw 2 pt 13
			set style fill solid 0.9 noborder
			set boxwidth 0.9
			set grid ytics lc rgb '#dddddd'
			set border 3
			set tics nomirror
			set key outside below
		END
		cat
	} >"$work/$1.gp"
	gnuplot "$work/$1.gp"
}

draw_lifecycle()
{
	local protocol variant
	for protocol in prepared unprepared
	do
		local values=()
		for variant in ours plain words gate plpgsql
		do
			values+=("$(median "lifecycle $protocol 1 client synchronous_commit=off" $variant cpu_us)")
		done
		row "$protocol" "${values[@]}"
	done >"$work/lifecycle"
	draw lifecycle <<-END
		set title 'Begin and finalize a run: CPU time of the backend'
		set ylabel 'microseconds'
		set yrange [0:*]
		set style data histograms
		set style histogram clustered gap 1
		plot '$work/lifecycle' using 2:xtic(1) ls 1 title 'ai_chat_run', \\
			'' using 6 ls 5 title 'PL/pgSQL', '' using 3 ls 2 title 'INSERT, UPDATE (same checks)', \\
			'' using 4 ls 3 title 'INSERT, UPDATE (checks by hand)', '' using 5 ls 4 title 'INSERT ON CONFLICT, UPDATE'
	END
}

draw_wakeups()
{
	local waiters variant case_ p
	for waiters in 1 10 100
	do
		case_="wake-ups $waiters waiting one woken"
		local values=()
		for variant in await_run listen poll
		do
			for p in p50 p99
			do
				values+=("$(median "$case_" $variant "since_commit_us_$p")")
			done
		done
		row "$waiters waiting" "${values[@]}"
	done >"$work/wakeups"
	draw wakeups <<-END
		set title 'From the commit of the end to the client that waits for it: median, and 99th percentile above'
		set ylabel 'milliseconds'
		set logscale y
		set yrange [0.05:200]
		set errorbars 1.5 lc rgb '#333333' lw 1.5
		set style data histograms
		set style histogram errorbars gap 1
		plot '$work/wakeups' using (\$2 / 1000):(\$2 / 1000):(\$3 / 1000):xtic(1) ls 1 title 'await_run', \\
			'' using (\$4 / 1000):(\$4 / 1000):(\$5 / 1000) ls 4 title 'LISTEN, with a NOTIFY in the UPDATE', \\
			'' using (\$6 / 1000):(\$6 / 1000):(\$7 / 1000) ls 3 title 'a query each 100 ms'
	END
}

# 1000000 is 1 million.
in_words() { if [ "$1" -ge 1000000 ]; then echo "$(($1 / 1000000)) million"; else echo "$1"; fi; }

draw_past()
{
	local past ids variant
	awk -F, '$1 == "history" && $3 ~ /^ours [0-9]+$/ { print substr($3, 6) }' "$csv" | sort -nu |
		while read -r past
		do
			local values=()
			for ids in 'time-ordered ids' 'random chats and run ids'
			do
				for variant in ours plain
				do
					values+=("$(ratio "lifecycle with a past of $ids" "$variant $past" "$variant 0" cpu_us)")
				done
			done
			row "$(in_words "$past")" "${values[@]}"
		done >"$work/past"
	draw past <<-END
		set title 'Begin and finalize a run, by finished runs in the table: CPU time of the backend'
		set ylabel 'times that with an empty table'
		set yrange [0:*]
		set xrange [-0.2:*]
		set offsets 0, 0.2, 0.2, 0
		plot '$work/past' using 0:2:xtic(1) with linespoints ls 1 title 'ai_chat_run', \
			'' using 0:3 with linespoints ls 2 title 'INSERT, UPDATE', \
			'' using 0:4 with linespoints ls 1 dt 2 title 'ai_chat_run, random ids', \
			'' using 0:5 with linespoints ls 2 dt 2 title 'INSERT, UPDATE, random ids'
	END
}

draw_sweep()
{
	row 'time' "$(median 'boot sweep' ours seconds)" "$(median 'boot sweep' plain seconds)" >"$work/sweep"
	row 'CPU time' "$(median 'boot sweep' ours cpu_s)" "$(median 'boot sweep' plain cpu_s)" >>"$work/sweep"
	draw sweep <<-END
		set title '$(in_words "$(median 'boot sweep' ours swept)") runs that a dead server left'
		set ylabel 'seconds'
		set yrange [0:*]
		set style data histograms
		set style histogram clustered gap 1
		plot '$work/sweep' using 2:xtic(1) ls 1 title 'boot sweep', '' using 3 ls 2 title 'one UPDATE'
	END
}

for picture in lifecycle:lifecycle wakeups:wakeups history:past sweep:sweep
do
	if measured "${picture%:*}"
	then
		"draw_${picture#*:}"
	fi
done
