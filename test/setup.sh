#!/usr/bin/env bash
# test/setup.sh build|test|bench|plots
#
# Makes sure that what is needed is installed: to build and run the extension (build), and also to test it (test), to
# measure it (bench), or to measure it and draw that (plots). Installs Debian or Ubuntu packages when something is
# missing, and needs no network when nothing is. Prints the pg_config of the server to use on stdout; everything else
# goes to stderr.
#
# The server is, in this order: PG_CONFIG, where set; the pg_config in PATH; the newest one Debian's packages
# have installed; the newest one that apt offers.
set -u -o pipefail

scope=${1:-build}
versions='18 17 16 15'
why='to build and run the extension'
case $scope in
	test) why='to build and test the extension' ;;
	bench | plots) why='to build and measure the extension' ;;
esac

say() { echo "setup: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# A pg_config that stands for all we need: a supported version, PGXS, headers and a server.
usable()
{
	local bindir
	case $("$1" --version 2>/dev/null) in
		"PostgreSQL "1[5-9]*) ;;
		*) return 1 ;;
	esac
	bindir=$("$1" --bindir)
	[ -f "$("$1" --pgxs)" ] && [ -f "$("$1" --includedir-server)/postgres.h" ] &&
		[ -x "$bindir/postgres" ] && [ -x "$bindir/initdb" ] && [ -x "$bindir/psql" ] && [ -x "$bindir/pg_config" ]
}

debian_pg_config() { echo "/usr/lib/postgresql/$1/bin/pg_config"; }

# Sets pg_config to the first usable server, or to nothing.
find_server()
{
	local candidate v
	for candidate in ${PG_CONFIG:-pg_config $(for v in $versions; do debian_pg_config "$v"; done)}
	do
		if usable "$candidate"
		then
			pg_config=$("$candidate" --bindir)/pg_config
			return
		fi
	done
	pg_config=
}

# The version to install where no server is usable. A server without its development package is completed
# rather than joined by a second one.
choose_version()
{
	local v
	if [ -n "${PG_CONFIG:-}" ]
	then
		for v in $versions
		do
			[ "$PG_CONFIG" = "$(debian_pg_config "$v")" ] && echo "$v" && return
		done
		say "PG_CONFIG=$PG_CONFIG is no complete PostgreSQL 15 to 18: it needs the server, its headers and PGXS"
		exit 1
	fi
	for v in $versions
	do
		[ -x "/usr/lib/postgresql/$v/bin/postgres" ] && offered "$v" && echo "$v" && return
	done
	for v in $versions
	do
		offered "$v" && echo "$v" && return
	done
	say "apt offers no PostgreSQL 15 to 18; run apt-get update, add a repository (apt.postgresql.org), or set PG_CONFIG"
	exit 1
}

offered() { in_apt "postgresql-server-dev-$1"; }
in_apt() { [ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]; }

# The version of a server of Debian's; nothing for one that is not.
debian_version()
{
	case $pg_config in
		/usr/lib/postgresql/*) local rest=${pg_config#/usr/lib/postgresql/}; echo "${rest%%/*}" ;;
	esac
}

# Sets packages to what is missing beside the server, or beside the one of the version given.
find_missing()
{
	local version=${1:-} cc=gcc
	packages=
	if [ -n "$pg_config" ]
	then
		cc=$("$pg_config" --cc)
		version=$(debian_version)
	elif [ -n "$version" ]
	then
		packages="postgresql-$version postgresql-server-dev-$version"
	fi
	has make || packages+=" make"
	has "${cc%% *}" || packages+=" gcc"
	[ -f /usr/include/stdio.h ] || packages+=" libc6-dev"
	case $scope in
		build) return ;;
		bench | plots)
			has perl || packages+=" perl"
			[ -z "$pg_config" ] || [ -f "$("$pg_config" --includedir)/libpq-fe.h" ] || packages+=" libpq-dev"
			[ "$scope" = bench ] || has gnuplot || packages+=" gnuplot-nox"
			return
			;;
	esac

	has prove || packages+=" perl"
	has spin || packages+=" spin"
	perl -MIPC::Run -e 1 2>/dev/null || packages+=" libipc-run-perl"
	perl -MTAP::Parser::SourceHandler::pgTAP -e 1 2>/dev/null || packages+=" libtap-parser-sourcehandler-pgtap-perl"
	# A server that is not Debian's brings its own pgTAP or borrows one.
	[ -z "$version" ] || [ -f "/usr/share/postgresql/$version/extension/pgtap.control" ] ||
		packages+=" postgresql-$version-pgtap"
}

# Whose packages start a service.
services='pgbouncer prometheus prometheus-postgres-exporter prometheus-sql-exporter'

# Sets packages to the neighbours that are missing and that apt offers: a pooler, what watches a server, modules that use the
# same hooks of the server, and what the examples are written in. Tests beside what is not there are skipped.
find_neighbours()
{
	local version name
	packages=
	[ "$scope" = test ] || return
	for name in $services
	do
		has "$name" || [ -x "/usr/sbin/$name" ] || ! in_apt "$name" || packages+=" $name"
	done
	find_languages
	version=$(debian_version)
	[ -n "$version" ] || return
	for name in cron:pg_cron hypopg:hypopg pg-qualstats:pg_qualstats pg-stat-kcache:pg_stat_kcache \
		pg-wait-sampling:pg_wait_sampling pgaudit:pgaudit plpgsql-check:plpgsql_check
	do
		[ -f "/usr/share/postgresql/$version/extension/${name#*:}.control" ] ||
			! in_apt "postgresql-$version-${name%:*}" || packages+=" postgresql-$version-${name%:*}"
	done
}

# Node may come from elsewhere, with which Debian's packages for it cannot be installed: then npm is asked for the driver.
find_languages()
{
	local node='' name
	/usr/bin/python3 -c 'import psycopg' 2>/dev/null || ! in_apt python3-psycopg || packages+=" python3-psycopg"
	if ! has node
	then
		[ "$(apt-cache show --no-all-versions nodejs 2>/dev/null | sed -n 's/^Version: \([0-9]*\).*/\1/p')" -ge 18 ] 2>/dev/null ||
			return
		node=nodejs
	fi
	for name in node-pg node-typescript
	do
		# shellcheck disable=SC2086 # nothing, or a word
		[ -d "/usr/share/nodejs/${name#node-}" ] || ! apt-get -s -q install --no-install-recommends $node "$name" >/dev/null 2>&1 ||
			packages+=" ${node:+$node }$name"
	done
	packages+=${node:+" $node"}
}

# The package of a server makes and starts a cluster "main" unless its configuration says no, and those of neighbours start
# their services unless there is a policy: say no, in files of our own and for as long as the installation takes. What is
# there already is neither upgraded nor restarted, so that a running server of the user's is left alone.
install_missing()
{
	local conf_dir=/etc/postgresql-common/createcluster.d policy=/usr/sbin/policy-rc.d
	local conf=$conf_dir/zz-ai-chat-run-setup.conf name

	say "installing ${packages# }, $why; no database cluster is made or touched, no service started"
	ours=$conf
	trap 'as_root rm -f $ours' EXIT
	as_root mkdir -p "$conf_dir"
	echo 'create_main_cluster = false' | as_root tee "$conf" >/dev/null || exit 1
	if [ ! -e "$policy" ]
	then
		ours+=" $policy"
		printf '%s\n' '#!/bin/sh' 'case "$*" in *pgbouncer* | *prometheus*) exit 101 ;; esac' |
			as_root tee "$policy" >/dev/null || exit 1
		as_root chmod 755 "$policy"
	fi
	# shellcheck disable=SC2086 # a list of words
	if ! apt_get install --no-install-recommends --no-upgrade $packages
	then
		say "apt-get could not install ${packages# }"
		exit 1
	fi
	for name in $services
	do
		case "$packages " in *" $name "*) leave_service_off "$name" ;; esac
	done
	# shellcheck disable=SC2086 # a list of words
	as_root rm -f $ours
	trap - EXIT
}

# It shall not start with the next boot either; and a policy that was there already may have allowed it to.
leave_service_off()
{
	as_root update-rc.d "$1" disable >&2
	if has systemctl; then as_root systemctl disable "$1" >&2; fi
	as_root service "$1" stop >&2
}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -y -q "$@" >&2; }

case $scope in
	build | test | bench | plots) ;;
	*) say "usage: test/setup.sh build|test|bench|plots"; exit 2 ;;
esac

find_server
find_missing
if [ -z "$pg_config" ] || [ -n "$packages" ]
then
	if ! has apt-get
	then
		say "this needs apt-get (Debian, Ubuntu); elsewhere install PostgreSQL 15 to 18 with its development files,"
		say "make, gcc, and for the tests prove, Perl's IPC::Run, pgTAP and pg_prove, then set PG_CONFIG"
		exit 1
	fi
	version=
	if [ "$(id -u)" -eq 0 ] || has sudo
	then
		say "refreshing apt's package lists, $why"
		apt_get update || say "could not refresh them; going on with the old ones"
	fi
	[ -n "$pg_config" ] || version=$(choose_version) || exit 1
	find_missing "$version"
	if [ "$(id -u)" -ne 0 ] && ! has sudo
	then
		say "there is no sudo; run this as root, then try again:"
		say "apt-get update && apt-get install -y --no-install-recommends --no-upgrade ${packages# }"
		exit 1
	fi
	install_missing
	find_server
	find_missing
	if [ -z "$pg_config" ] || [ -n "$packages" ]
	then
		say "still missing:${packages:- a usable server}"
		exit 1
	fi
fi

# The neighbours are welcome, not needed.
find_neighbours
if [ -n "$packages" ] && { [ "$(id -u)" -eq 0 ] || has sudo; }
then
	why='to test the extension beside them'
	(install_missing) || say "going on without"
fi
echo "$pg_config"
