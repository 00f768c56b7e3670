# lib.sh - sourced by demo/demo.sh, tests/check.sh and tests/bench: a private PostgreSQL server in a temporary directory.
#
# PostgreSQL refuses to run as root, so everything that touches the server goes
# through as_pg.  A checkout below /root is out of that user's reach, so what it
# must read is copied into $WORK first.
#
#	lib_work NAME			make $WORK, removed at exit together with its servers
#	lib_tree				$WORK/tree: a private installation with this extension; sets $BIN
#	lib_server DIR [LINE]	a server with data in $WORK/DIR and more postgresql.conf lines; sets $PGHOST, $PGPORT
#	lib_stop DIR			stop it

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${PG_CONFIG:=pg_config}"
export PG_CONFIG
LIB_SERVERS=()

as_pg() {
	if [ "$(id -u)" -eq 0 ]; then
		# -s /bin/sh would lose the working directory's rights: run from /.
		(cd "$WORK" && runuser -u postgres -- "$@")
	else
		"$@"
	fi
}

lib_cleanup() {
	local dir
	for dir in "${LIB_SERVERS[@]:-}"; do
		[ -n "$dir" ] && [ -f "$dir/postmaster.pid" ] && as_pg "$BIN/pg_ctl" -D "$dir" -m immediate -s stop || true
	done
	[ -n "${KEEP:-}" ] && echo "kept: $WORK" || rm -rf "$WORK"
}

lib_work() {
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
	chmod 755 "$WORK"
	[ "$(id -u)" -ne 0 ] || chown postgres "$WORK"
	trap lib_cleanup EXIT
	trap 'exit 130' INT TERM
}

lib_tree() {
	BIN=$("$TOP/tests/pgtree.sh" "$WORK/tree")
	PATH=$BIN:$PATH
	export PATH
}

lib_server() {
	local dir=$WORK/$1
	shift
	as_pg "$BIN/initdb" -D "$dir" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$WORK/initdb.log" ||
		{ cat "$WORK/initdb.log" >&2; return 1; }
	mkdir -p "$WORK/s"
	[ "$(id -u)" -ne 0 ] || chown postgres "$WORK/s"
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$WORK/s'"
		echo "shared_preload_libraries = 'deepfeaturex'"
		echo "fsync = off"
		echo "autovacuum = off"
		printf '%s\n' "$@"
	} >>"$dir/postgresql.conf"
	as_pg "$BIN/pg_ctl" -D "$dir" -l "$dir.log" -w -s start || { cat "$dir.log" >&2; return 1; }
	LIB_SERVERS+=("$dir")
	export PGHOST=$WORK/s PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	unset PGOPTIONS PGSERVICE PGPASSFILE
}

lib_stop() {
	as_pg "$BIN/pg_ctl" -D "$WORK/$1" -m fast -w -s stop
}
