#!/usr/bin/env bash
# The packages, tried for real; what `make packages` runs. In a Debian that debootstrap makes for it, as an ordinary user
# with sudo, the commands of doc/packages.md are run as they stand: a Debian package is built, checked by lintian,
# installed, tested, used and removed; the archive for PGXN is made, and installed by PGXN's client; buildah builds the
# Dockerfile, on a stand-in for the official image. Needs root, debootstrap, and a mirror of Debian; takes a quarter of
# an hour.
#
#   PACKAGES='debian pgxn docker'    only these
#   MIRROR=http://...                another mirror (default http://deb.debian.org/debian)
#   TMPDIR=/var/tmp                  where there is room for six gigabytes
set -eu -o pipefail
cd "$(dirname "$0")/.."
suite=bookworm
major=15

say() { echo "== $*"; }
fail() { echo "packages: $*"; exit 1; }

# Everything ends and is unmounted with this process: it has its own process ids and mounts.
if [ -z "${IN_NAMESPACE:-}" ]
then
	[ "$(id -u)" -eq 0 ] || fail "this needs root"
	command -v debootstrap >/dev/null || fail "this needs debootstrap"
	STAGE=$(mktemp -d "${TMPDIR:-/tmp}/ai_chat_run-packages.XXXXXX")
	export STAGE
	status=0
	IN_NAMESPACE=1 unshare --mount --pid --fork --kill-child bash test/packages.sh || status=$?
	rm -rf --one-file-system "$STAGE"
	exit "$status"
fi
root=$STAGE/debian
log=$STAGE/log

# quietly WHAT COMMAND...: shows what the command says only if it fails.
quietly()
{
	say "$1"
	"${@:2}" >"$log" 2>&1 </dev/null && return
	tail -n 80 "$log"
	fail "$1 failed"
}

clean_env=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
as_root() { chroot "$root" "${clean_env[@]}" HOME=/root "$@"; }
as_newcomer() { chroot --userspec=newcomer:newcomer "$root" "${clean_env[@]}" HOME=/home/newcomer "$@"; }

# commands HEADING: what doc/packages.md shows below it.
commands()
{
	awk -v heading="## $1" '
		/^```/ { shell = !shell && $0 == "```sh"; next }
		shell && inside
		!shell && /^## / { inside = $0 == heading }' doc/packages.md
}

make_debian()
{
	debootstrap --variant=minbase --include="ca-certificates,sudo,postgresql-$major" "$suite" "$root" \
		"${MIRROR:-http://deb.debian.org/debian}"
	rm -f "$root/var/cache/apt/archives"/*.deb
	cp /etc/resolv.conf "$root/etc/"
	echo "127.0.0.1 localhost $(hostname)" >"$root/etc/hosts"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	# The image that the Dockerfile starts from shall have none of what comes later.
	mkdir "$root/docker-entrypoint-initdb.d"
	tar -C "$root" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf "$STAGE/image.tar" .
	mv "$STAGE/image.tar" "$root/root/"

	# A root that is no mount of its own cannot be given to containers.
	mount --make-rprivate /
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount -t tmpfs tmpfs "$root/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"

	as_root useradd -m newcomer
	echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/newcomer"
	mkdir -p "$root/home/newcomer/src/ai_chat_run"
	git ls-files -z --cached --others --exclude-standard |
		tar -c --null --files-from=- | tar -x -C "$root/home/newcomer/src/ai_chat_run"
	as_root chown -R newcomer: /home/newcomer/src
}

# run_commands HEADING: in one shell, in the checkout, as somebody who pastes them.
run_commands()
{
	{ echo 'set -e; cd ~/src/ai_chat_run'; commands "$1"; } >"$root/home/newcomer/commands"
	as_newcomer bash -x /home/newcomer/commands
}

says() { grep -qE "$1" "$log" || { tail -n 40 "$log"; fail "the commands did not say $1"; }; }

try_debian()
{
	quietly 'Debian: the commands of doc/packages.md' run_commands 'Debian and Ubuntu'
	# Twice each at the build, and in each of the two runs as an installed package.
	[ "$(grep -cE 'All [0-9]+ tests passed' "$log")" -eq 6 ] || fail "not all tests have passed"
	says ' preload +\| t '
	says ' worker +\| t '
	if ls "$root/usr/lib/postgresql/$major/lib/ai_chat_run.so" "$root/usr/share/postgresql/$major/extension/ai_chat_run"* 2>/dev/null
	then
		fail "the removed package has left something"
	fi
	quietly 'lintian' as_root apt-get install -y -q --no-install-recommends lintian
	quietly 'lintian, of what was built' as_newcomer bash -c 'cd ~/src && lintian --fail-on error,warning \
		--suppress-tags initial-upload-closes-no-bugs ai-chat-run_*.changes'
}

try_pgxn()
{
	quietly 'PGXN: git' as_root apt-get install -y -q --no-install-recommends git
	quietly 'PGXN: a repository' as_newcomer bash -c 'cd ~/src/ai_chat_run && git init -q && git add -A &&
		git -c user.name=newcomer -c user.email=newcomer@localhost commit -q -m all'
	as_root pg_ctlcluster "$major" main start 2>/dev/null || true
	quietly 'PGXN: the commands of doc/packages.md' run_commands 'PGXN'
	says '^ succeeded$'
}

# Docker's commands as far as they go without it: in one container, where they meet its server.
try_docker()
{
	quietly 'Docker: buildah' as_root apt-get install -y -q --no-install-recommends buildah
	cat >"$root/root/image" <<-SCRIPT
		set -e
		container=\$(buildah from scratch)
		buildah add \$container /root/image.tar /
		buildah config --env PG_MAJOR=$major --env PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/$major/bin \$container
		buildah commit \$container docker.io/library/postgres:$major
		buildah rm \$container
		rm /root/image.tar
	SCRIPT
	cat >"$root/root/container" <<-'SCRIPT'
		set -e
		as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
		# It shares our network, where the port may be taken.
		control() { as_postgres pg_ctl -D /var/lib/postgresql/data -l /tmp/log -w -o "-c listen_addresses=''" "$@"; }
		docker()
		{
			case $1 in
				build) ;;
				run)
					mkdir -p /var/run/postgresql
					chown postgres: /var/run/postgresql
					as_postgres initdb -D /var/lib/postgresql/data -A trust
					control start
					for script in /docker-entrypoint-initdb.d/*.sql
					do
						psql -X -v ON_ERROR_STOP=1 -U postgres -f "$script"
					done
					control stop
					control start
					;;
				exec) shift 2; "$@" ;;
				restart) control restart ;;
			esac
		}
	SCRIPT
	{
		commands 'Docker'
		echo 'control stop'
	} >>"$root/root/container"
	in_buildah=(as_root env STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot)
	quietly 'Docker: a stand-in for the official image' "${in_buildah[@]}" bash /root/image
	quietly 'Docker: the image' "${in_buildah[@]}" buildah bud --pull-never --build-arg "PG_MAJOR=$major" -t postgres-ai-chat-run \
		/home/newcomer/src/ai_chat_run
	# shellcheck disable=SC2016 # for the shell inside
	quietly 'Docker: the commands of doc/packages.md, in it' "${in_buildah[@]}" timeout 600 bash -c \
		'container=$(buildah from --pull-never localhost/postgres-ai-chat-run) &&
		buildah copy $container /root/container /root/ && buildah run $container -- bash -x /root/container'
	says ' preload +\| t '
	says ' worker +\| t '
}

quietly "a Debian $suite with PostgreSQL $major" make_debian
for package in ${PACKAGES:-debian pgxn docker}
do
	"try_$package"
done
say 'all is well'
