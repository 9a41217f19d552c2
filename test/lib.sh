# shellcheck shell=bash
# What demo.sh and check.sh share: a private copy of a server with our extension in it, an ordinary user to run
# it as, and private servers that nobody can reach but through their own socket directory. To be sourced.

EXTENSION=ai_chat_run

# Nothing of the caller's environment may point our programs at another server, or change what they print.
for name in $(compgen -e)
do
	case $name in
		PG_CONFIG | PG_TEST_*) ;;
		PG* | PSQL* | LC_* | LANGUAGE | DESTDIR | MAKEFLAGS | MAKELEVEL | MFLAGS) unset "$name" ;;
	esac
done
export LC_ALL=C

say() { echo "== $*"; }

# count SUITE PASSED FAILED SKIPPED: what check.sh adds up in the end.
count() { echo "$*" >>"$TALLY"; }

# wanted SUITE: whether CHECK_ONLY, a list with commas, lets it run.
wanted()
{
	case ",${CHECK_ONLY:-all}," in
		*,all,* | *,"$1",*) return 0 ;;
		*) return 1 ;;
	esac
}

# Who runs the servers: initdb refuses root.
RUN_USER=$(id -un)
RUN_AS=()
if [ "$(id -u)" -eq 0 ]
then
	RUN_USER=nobody
	if id postgres >/dev/null 2>&1; then RUN_USER=postgres; fi
	RUN_AS=(setpriv --reuid="$RUN_USER" --regid="$(id -g "$RUN_USER")" --init-groups)
fi

as_user() { "${RUN_AS[@]}" env HOME="$STAGE" "$@"; }

# Make STAGE, a new directory that RUN_USER can reach and whose sockets have names short enough (107 bytes).
make_stage()
{
	local base=${TMPDIR:-/tmp}
	if [ ${#base} -gt 50 ] || ! STAGE=/ as_user test -x "$base"
	then
		base=/tmp
	fi
	export TMPDIR=$base
	STAGE=$(mktemp -d "$base/$EXTENSION.XXXXXX") || exit 1
	chmod 755 "$STAGE"
}

# build_program PG_CONFIG OUTPUT ARGUMENT...: a C program, with that server's libpq. To be called before private_install,
# whose pg_config would have it look for libpq in STAGE.
build_program()
{
	local libraries
	libraries=$("$1" --libdir)
	"${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -I"$("$1" --includedir)" -o "${@:2}" -L"$libraries" \
		-Wl,-rpath,"$libraries" -lpq -pthread
}

# Copy the server of pg_config $1 into STAGE and install the extension there, never into the system. PostgreSQL
# finds its share and lib directories relative to its own executable, so programs are copied (it would look
# through a link) and the rest is linked, file by file, for new files to land in STAGE.
private_install()
{
	local pg_config=$1 bindir libdir sharedir includedir root=$STAGE/root dir
	bindir=$("$pg_config" --bindir)
	libdir=$("$pg_config" --pkglibdir)
	sharedir=$("$pg_config" --sharedir)
	includedir=$("$pg_config" --includedir-server)

	mkdir -p "$root$bindir" "$root$(dirname "$includedir")"
	cp -L "$bindir"/* "$root$bindir/" || return 1
	for dir in "$libdir" "$sharedir"
	do
		mkdir -p "$root$dir"
		cp -rs "$dir/." "$root$dir/" || return 1
	done
	ln -s "$includedir" "$root$includedir"

	# A version that the system has installed must not show through.
	rm -f "$root$libdir/$EXTENSION".* "$root$sharedir/extension/$EXTENSION"[.-]*

	PG_CONFIG=$root$bindir/pg_config
	PATH=$root$bindir:$PATH
	export PG_CONFIG PATH
	if [ "$(pg_config --sharedir)" != "$root$sharedir" ]
	then
		echo "the server of $pg_config does not look for its files relative to its programs" >&2
		return 1
	fi
	make -s install PG_CONFIG="$PG_CONFIG" with_llvm=no
}

# start_server NAME [CONF]: a new server with its data and its socket in STAGE/NAME. No TCP, so no port can clash.
start_server()
{
	local dir=$STAGE/$1
	as_user mkdir -p "$dir" || return 1
	if ! as_user initdb -D "$dir/data" -U postgres -A trust --no-sync -E UTF8 --locale=C >"$dir/initdb.log" 2>&1
	then
		cat "$dir/initdb.log" >&2
		return 1
	fi
	as_user tee -a "$dir/data/postgresql.conf" >/dev/null <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$dir'
		port = 5432
		fsync = off
		log_line_prefix = '%m [%p] %b %d '
		$(cat "${2:-/dev/null}")
	CONF
	if ! as_user pg_ctl -D "$dir/data" -l "$dir/server.log" -w -t 120 start >/dev/null
	then
		tail -n 30 "$dir/server.log" >&2
		return 1
	fi
}

# stop_servers: every one that runs in STAGE.
stop_servers()
{
	local pid_file
	for pid_file in "$STAGE"/*/data/postmaster.pid
	do
		[ ! -f "$pid_file" ] || as_user pg_ctl -D "$(dirname "$pid_file")" -m immediate -w stop >/dev/null
	done
}

# find_driver DIR: node's driver for PostgreSQL for the package in DIR: Debian's, where it is installed, else npm's. Without
# one, the tests that need it are skipped.
find_driver()
{
	local pg
	export NODE_PATH=/usr/share/nodejs
	if pg=$(cd / && node -p 'path.dirname(require.resolve("pg/package.json"))' 2>/dev/null)
	then
		mkdir "$1/node_modules"
		# Modules of the new kind are looked for there alone.
		ln -s "$pg" "$1/node_modules/pg"
	elif command -v npm >/dev/null 2>&1
	then
		(cd "$1" && timeout 300 npm install --no-audit --no-fund --no-package-lock --fetch-retries=1 >"$STAGE/npm.log" 2>&1) ||
			rm -rf "$1/node_modules"
	fi
}
