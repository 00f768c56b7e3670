#!/usr/bin/env bash
# check_rooms.sh
#	Holds every #include against the table of rooms in docs/ARCHITECTURE.md:
#	a file may include its own room, the rooms listed for it, and system
#	headers; heavy headers (PostgreSQL, oneDNN, CUDA, codecs) only where named.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

declare -A may=(
	[src/base]=""
	[src/image]="base"
	[src/nn]="base"
	[src/cpu]="base nn"
	[cuda]="base nn"
	[train]="base nn image"
	[src/engine]="base image nn train cpu"
	[src/pg]="base"
)
# vendor header pattern -> rooms that may see it
declare -A vendor=(
	['(dnnl|oneapi/).*']="src/cpu"
	['(jpeglib|jerror|jmorecfg|png|pngconf|zlib|libdeflate|turbojpeg)\.h']="src/image"
	['(cuda|cudnn|cublas).*']="cuda"
	['omp\.h']="src/cpu"
	['(postgres|fmgr|miscadmin|funcapi|pgstat)\.h']="src/pg"
	['(access|catalog|commands|common|executor|libpq|nodes|optimizer|parser|port|postmaster|storage|tcop|utils|datatype|lib|replication)/.*']="src/pg"
)

bad=0
complain() {
	echo "$1: $2"
	bad=1
}

for room in "${!may[@]}"; do
	[ -d "$room" ] || continue
	own=${room#src/}
	while IFS=: read -r file line text; do
		inc=$(sed -E 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]([^>"]+)[>"].*/\1/' <<<"$text")
		vendored=
		for pattern in "${!vendor[@]}"; do
			if grep -Eq "^$pattern\$" <<<"$inc"; then
				vendored=1
				grep -qw -- "${vendor[$pattern]}" <<<"$room" || complain "$file:$line" "room $room must not include <$inc>"
			fi
		done
		[ -z "$vendored" ] || continue
		case "$inc" in
			base/* | image/* | nn/* | cpu/* | engine/* | pg/* | train/* | cuda/*)
				target=${inc%%/*}
				[ "$target" = "$own" ] && continue
				[ "$room" = src/pg ] && [[ "$inc" =~ ^engine/proto(_train)?\.h$ ]] && continue
				grep -qw -- "$target" <<<"${may[$room]}" || complain "$file:$line" "room $room must not include \"$inc\""
				;;
			tests/*) complain "$file:$line" "room $room must not include tests" ;;
		esac
	done < <(grep -REn '^[[:space:]]*#[[:space:]]*include' "$room" --include='*.[ch]' --include='*.cu' --include='*.cc' --include='*.cuh')
done

# Version tests live in one file each.
while IFS= read -r hit; do
	complain "${hit%%:*}" "PG_VERSION_NUM belongs in src/pg/compat.h"
done < <(grep -RlE 'PG_VERSION_NUM' src train cuda --include='*.[ch]' 2>/dev/null | grep -v '^src/pg/compat.h$')
while IFS= read -r hit; do
	complain "${hit%%:*}" "DNNL_VERSION belongs in src/cpu/dnnl_compat.h"
done < <(grep -RlE '#.*if.*DNNL_VERSION' src train cuda --include='*.[ch]' 2>/dev/null | grep -v '^src/cpu/dnnl_compat.h$')

[ "$bad" -eq 0 ] && echo "rooms: every include is where it may be"
exit "$bad"
