#!/usr/bin/env bash
# Static analysis and the rules of the source layout. Exits 77 where nothing failed but a tool was missing.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
failed=0
skipped=0

fail() { echo "lint: $*"; failed=1; }
has() { command -v "$1" >/dev/null 2>&1 || { echo "lint: skipped: $1 is not installed"; skipped=1; return 1; }; }

# only PATTERN FILE: what only this file may say.
only()
{
	grep -nE "$1" src/*.c src/*.h | grep -v "^$2:" && fail "only $2 may use $1"
}

# tidy FILE... -- COMPILER'S ARGUMENT...
tidy()
{
	clang-tidy --quiet --warnings-as-errors='*' \
		--checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling' "$@" 2>/dev/null
}

only 'PG_VERSION_NUM' src/compat.h
only '"executor/spi\.h"' src/run_table.c
only 'OPERATOR\(pg_catalog' src/run_sql.c
bash test/releases.sh || failed=1

# A server is needed for its headers and its make rules, none is installed for this.
pg_config=$("${PG_CONFIG:-pg_config}" --bindir 2>/dev/null)/pg_config
if [ -x "$pg_config" ] && [ -f "$("$pg_config" --pgxs)" ]
then
	# The compiler's warnings are errors here only, so that a new compiler breaks nobody's installation.
	copy=$(mktemp -d)
	trap 'rm -rf "$copy"' EXIT
	mkdir "$copy/src"
	cp -R Makefile ./*.control sql "$copy/"
	cp src/*.c src/*.h "$copy/src/"
	env -u MAKEFLAGS -u MAKELEVEL make -s -C "$copy" -j "$(nproc)" PG_CONFIG="$pg_config" COPT=-Werror with_llvm=no ||
		fail "the compiler has complaints"
	if has clang-tidy
	then
		tidy src/*.c -- -isystem "$("$pg_config" --includedir-server)" -Isrc -D_GNU_SOURCE ||
			fail "clang-tidy has complaints"
	fi
	# The clients of the benchmark and of the chaos test, where there is a libpq to build them with.
	libpq=$("$pg_config" --includedir)
	if [ -f "$libpq/libpq-fe.h" ]
	then
		for client in test/bench/*.c test/chaos/*.c
		do
			"${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror -isystem "$libpq" -c -o /dev/null "$client" ||
				fail "the compiler has complaints"
			# One at a time: of several, the analyzer forgets what va_start is after the first.
			if command -v clang-tidy >/dev/null 2>&1
			then
				tidy "$client" -- -isystem "$libpq" -std=gnu11 || fail "clang-tidy has complaints"
			fi
		done
	fi
else
	echo "lint: skipped: the compiler's warnings and clang-tidy need a PostgreSQL with its development files"
	skipped=1
fi

if has cppcheck
then
	# Without the server's headers: cppcheck would take minutes for them and complain about them. Once for each version
	# that src/compat.h tells apart.
	cpp_check() { cppcheck --quiet --error-exitcode=1 --inline-suppr --enable=warning,portability,performance "$@"; }
	for version in 15 16 17 18
	do
		cpp_check -DPG_VERSION_NUM="${version}0000" -D'PG_FUNCTION_ARGS=FunctionCallInfo fcinfo' \
			-D'PG_MODULE_MAGIC=extern int acr_magic' -D'PG_MODULE_MAGIC_EXT(...)=extern int acr_magic' src ||
			fail "cppcheck has complaints, for PostgreSQL $version"
	done
	cpp_check test/bench test/chaos || fail "cppcheck has complaints"
fi

# For those who work on the scripts; nobody else needs to install it.
if command -v shellcheck >/dev/null 2>&1
then
	shellcheck -x test/*.sh test/bench/*.sh examples/node/*.sh .ci/run || fail "shellcheck has complaints"
fi

for script in test/*.sh test/bench/*.sh examples/node/*.sh .ci/run
do
	bash -n "$script" || fail "$script is no shell script"
done

# compiles FILE PERL'S ARGUMENT...: without an error or a warning.
compiles()
{
	local complaints
	complaints=$(perl "${@:2}" -wc "$1" 2>&1 | grep -v ' syntax OK$')
	[ -n "$complaints" ] || return
	echo "$complaints"
	fail "$1 does not compile"
}

if has perl
then
	for file in test/tap.pl test/bench/*.p[lm] test/chaos/judge.pl test/chaos/judge/*.pm
	do
		compiles "$file" -Itest/bench -Itest/chaos/judge
	done
	# The server brings the modules that tests with servers of their own are made of.
	modules=$(dirname "$("$pg_config" --pgxs 2>/dev/null)")/../../src/test/perl
	if [ -f "$modules/PostgreSQL/Test/Cluster.pm" ] && perl -MIPC::Run -e 1 2>/dev/null
	then
		for file in test/t/*.pl test/t/lib/*.pm test/chaos/*.pm
		do
			compiles "$file" -Itest/t/lib -Itest/chaos -I"$modules"
		done
	else
		echo "lint: skipped: the tests in test/t need a server's Perl modules and IPC::Run"
		skipped=1
	fi
fi

# Whoever has no Node runs no example that is written for it.
if command -v node >/dev/null 2>&1
then
	for file in examples/node/*/*.js
	do
		node --check "$file" || fail "$file is no JavaScript"
	done
fi

[ "$failed" -eq 0 ] || exit 1
[ "$skipped" -eq 0 ] || exit 77
