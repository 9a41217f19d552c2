#!/usr/bin/env bash
# test/releases.sh [DIRECTORY]
#
# The rules of releases, see doc/upgrades.md, in that source tree or in ours: what was released is never edited, scripts
# load only through their commands, and whoever names a version names that of the control file. Complains, and fails.
set -u -o pipefail
cd "${1:-$(dirname "$0")/..}" || exit 1
failed=0
fail() { echo "lint: $*"; failed=1; }

version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" ai_chat_run.control)
patch=$(sed -n 's/^# patch = //p' ai_chat_run.control)
release=$version.$patch
[[ $release =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]] ||
	fail "ai_chat_run.control: \"$release\", of default_version and patch, is no version of three numbers"

# A script that psql is given by mistake would leave objects without an extension.
guarded()
{
	[ "$(head -n 1 "$1")" = "\\echo Use \"$2\" to load this file. \\quit" ] ||
		fail "$1 does not begin with \\echo Use \"$2\" to load this file. \\quit"
}

shopt -s nullglob
guarded sql/parts/table.sql 'CREATE EXTENSION ai_chat_run'
for script in sql/ai_chat_run--*--*.sql
do
	guarded "$script" "ALTER EXTENSION ai_chat_run UPDATE TO '$(basename "${script##*--}" .sql)'"
done

# A delta is released when what it leads to is. One that is being written has no sum yet.
sums=sql/released/SHA256SUMS
if [ -f "$sums" ]
then
	(cd sql && sha256sum --check --quiet released/SHA256SUMS) || fail "what was released has been edited, see $sums"
fi
for script in sql/released/*.sql
do
	released=$(basename "${script##*--}" .sql)
	for file in "released/$(basename "$script")" sql/ai_chat_run--*--"$released".sql
	do
		grep -qxE "[0-9a-f]{64}  ${file#sql/}" "$sums" || fail "${file#sql/} has no sum in $sums"
	done
done

# The releases that the changelog has, one a line, with what stands in brackets.
headings() { sed -n 's/^## \(.*\)$/\1/p' CHANGELOG.md; }
[[ $(headings | head -n 1) =~ ^"$release ("(unreleased|20[0-9]{2}-[0-9]{2}-[0-9]{2})")"$ ]] ||
	fail "CHANGELOG.md does not begin with ## $release (unreleased), or with a date"
while read -r heading
do
	[[ $heading =~ ^([0-9]+\.[0-9]+)\.[0-9]+" ("(.*)")"$ ]] || { fail "CHANGELOG.md: what is ## $heading?"; continue; }
	[ "${BASH_REMATCH[2]}" = unreleased ] || [ -f "sql/released/ai_chat_run--${BASH_REMATCH[1]}.sql" ] ||
		fail "$heading was released, and sql/released has no script of ${BASH_REMATCH[1]}"
done < <(headings)

# Debian's own number comes behind.
[[ $(head -n 1 debian/changelog) =~ ^"ai-chat-run ($release-"[0-9]+")" ]] ||
	fail "debian/changelog does not begin with ai-chat-run ($release-N)"

# Nobody else names it. What is dated may: it was true then.
if grep -nF "$release" Makefile META.json.in Dockerfile debian/control.in debian/rules src/*.[ch] sql/parts/*.sql README.md
then
	fail "only ai_chat_run.control and the changelogs may name the version"
fi

exit "$failed"
