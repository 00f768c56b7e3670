#!/usr/bin/env bash
# demo.sh [DIRECTORY]
#	The main job on a fresh machine: builds the extension, starts a private
#	server in a temporary directory, loads the model that ships, classifies photographs
#	inside SQL and shows the engine's status.  The photographs are those of
#	DIRECTORY (*.jpg, *.jpeg, *.png), by default real ones that two Debian
#	packages ship; the packages are unpacked, not installed.
#	Nothing is left behind: not in the system, not in /tmp.
set -euo pipefail
. "$(dirname "$0")/../tests/lib.sh"

photo_packages=(python3-skimage python3-sklearn)
photo_names=(astronaut.png chelsea.png coffee.png motorcycle_left.png rocket.jpg china.jpg flower.jpg)

fetch_photos() {
	local name
	mkdir -p "$WORK/debs" "$WORK/unpacked" "$WORK/photos"
	# apt's lists may be empty on a fresh machine; only root can fill them.
	(cd "$WORK/debs" && chmod 777 . && apt-get download -qq "${photo_packages[@]}" 2>/dev/null) ||
		{ [ "$(id -u)" -eq 0 ] && apt-get update -qq && (cd "$WORK/debs" && apt-get download -qq "${photo_packages[@]}"); } || {
		echo "demo.sh: cannot download ${photo_packages[*]}; give a directory of photographs: demo/demo.sh DIRECTORY" >&2
		exit 1
	}
	for name in "$WORK"/debs/*.deb; do
		dpkg -x "$name" "$WORK/unpacked"
	done
	for name in "${photo_names[@]}"; do
		find "$WORK/unpacked" -name "$name" -type f -exec cp {} "$WORK/photos/" \;
	done
}

take_photos() {
	mkdir -p "$WORK/photos"
	find "$1" -maxdepth 1 -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' \) -exec cp {} "$WORK/photos/" \;
	[ -n "$(ls "$WORK/photos")" ] || { echo "demo.sh: no *.jpg, *.jpeg or *.png in $1" >&2; exit 1; }
}

say() {
	printf '\n== %s\n' "$*"
}

lib_work dfx-demo
say "Building, and installing into a private tree"
make -C "$TOP" --no-print-directory -s -j"$(nproc)" PG_CONFIG="$PG_CONFIG" all >/dev/null
lib_tree

say "Fetching photographs"
if [ $# -gt 0 ]; then take_photos "$1"; else fetch_photos; fi
ls "$WORK/photos"

say "Starting a private server"
chmod -R a+rX "$WORK/photos"
lib_server data
as_pg "$BIN/psql" -X -q -v ON_ERROR_STOP=1 -v photos="$WORK/photos" -f - <"$TOP/demo/demo.sql"
