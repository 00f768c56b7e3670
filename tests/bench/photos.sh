#!/usr/bin/env bash
# photos.sh [IMAGES]
#	SQL end to end where decoding is the limit: one session over a table of large
#	photographs, with the tests' smallest network alone, as a share of what all
#	cores can decode.  That is measured in the same turns, by bench_decode on every
#	core at once.
#
#	"share" is of the clock on the wall and wants a quiet machine; "work" is what
#	decoding takes of the CPU time that the engine took for an image, which also
#	has the network (about 1 ms), queue and copies, and may be read on a busy one.
#	"session" is the CPU time of the backend, which reads the image and copies it.
#	Prints a table, and appends each row as a JSON object to the file $JSON.
#	Without IMAGES a table is as large as takes some seconds, so that a query's
#	beginning and end do not count.  PHOTOS="2048x2048-q90.jpg" measures these only.  Needs python3-pil to make the images.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

seconds=6 # of a query
rounds=3

lib_work dfx-photos
make -C "$TOP" --no-print-directory -s all >/dev/null
make -C "$TOP" -f mk/engine.mk --no-print-directory -s build/test/dfx-engine build/t/bench/bench_decode
lib_tree
mkdir "$WORK/photos"
(cd "$TOP" && tests/bench/make_photos.py "$WORK/photos")
cp "$TOP/build/test/dfx-engine" "$WORK/"
"$WORK/dfx-engine" init --backbone test_tiny --kind classifier --classes dm,gan,real --random-weights 36 --out "$WORK/model.safetensors" >/dev/null
chmod -R a+rX "$WORK/photos" "$WORK/dfx-engine" "$WORK/model.safetensors"
# With little WAL, and a checkpoint after each filling, nothing is still being written while the clock runs.
lib_server data "dfx.engine_path = '$WORK/dfx-engine'" "shared_buffers = 1GB" "wal_level = minimal" "max_wal_senders = 0"

sql() { as_pg "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
# A line of /proc/PID/stat -> the CPU time of that process in milliseconds
cpu_ms() { awk -v hz="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); printf "%.0f", ($12 + $13) * 1000 / hz}'; }
median() { tr ' ' '\n' <<<"$*" | sort -n | awk '{a[NR]=$1} END {print a[int((NR+1)/2)]}'; }

# $1 file -> CPU milliseconds an image while every core decodes, the mean over the cores
decode_ms() {
	local i
	for i in $(seq "$(nproc)"); do
		"$TOP/build/t/bench/bench_decode" "$1" >"$WORK/decode.$i" &
	done
	wait
	sed -E 's/.*"prepare_ms": *([0-9.]+).*/\1/' "$WORK"/decode.* | awk '{sum += $1} END {print sum / NR}'
}

sql -c "CREATE EXTENSION deepfeaturex; SELECT dfx_import_model('m', '$WORK/model.safetensors');
	ALTER DATABASE postgres SET dfx.default_model = 'm'; CREATE TABLE archive (id int, image bytea)" >/dev/null
sql -c "SELECT dfx_preload('m')" >/dev/null
engine=$(sql -c "SELECT pid FROM dfx_engine_status()")

printf '%-24s %10s %16s %14s %14s %7s %7s\n' photo images/s 'decode, ms/core' 'engine, ms' 'session, ms' share work
for photo in ${PHOTOS:-1024x1024-q90.jpg 2048x2048-q90.jpg 4000x3000-q90.jpg 4000x3000-progressive.jpg 2048x2048.png}; do
	# A few bytes more each make the images distinct; decoders ignore what follows the end.
	images=${1:-$(awk -v d="$(decode_ms "$WORK/photos/$photo")" -v n="$(nproc)" -v s=$seconds 'BEGIN {printf "%d", 1000 * s * n / d}')}
	sql -c "TRUNCATE archive; INSERT INTO archive SELECT i, pg_read_binary_file('$WORK/photos/$photo') || int4send(i) FROM generate_series(1, $images) AS i" -c CHECKPOINT
	sql -c "SELECT count(dfx_classify(image)) FROM archive WHERE id <= 16" >/dev/null
	decode=() walls=() works=() reads=()
	for _ in $(seq $rounds); do
		decode+=("$(decode_ms "$WORK/photos/$photo")")
		began=$(date +%s.%N) cpu=$(cpu_ms <"/proc/$engine/stat")
		session=$(sql -c "SELECT count(dfx_classify(image)) FROM archive" -c "SELECT pg_read_file('/proc/self/stat')" | sed -n 2p | cpu_ms)
		works+=("$(awk -v a="$cpu" -v b="$(cpu_ms <"/proc/$engine/stat")" -v n="$images" 'BEGIN {print (b - a) / n}')")
		reads+=("$(awk -v a="$session" -v n="$images" 'BEGIN {print a / n}')")
		walls+=("$(awk -v a="$began" -v b="$(date +%s.%N)" -v n="$images" 'BEGIN {print n / (b - a)}')")
	done
	rate=$(median "${walls[@]}") work=$(median "${works[@]}") read=$(median "${reads[@]}") one=$(median "${decode[@]}")
	read -r share part < <(awk -v r="$rate" -v w="$work" -v d="$one" -v n="$(nproc)" 'BEGIN {printf "%.2f %.2f\n", r * d / 1000 / n, d / w}')
	printf '%-24s %10.1f %16.2f %14.2f %14.2f %7s %7s\n' "$photo" "$rate" "$one" "$work" "$read" "$share" "$part"
	[ -z "${JSON:-}" ] || printf '{"photo": "%s", "images": %d, "images_per_second": %s, "decode_ms": %s, "engine_ms": %s, "session_ms": %s, "share": %s, "work": %s}\n' \
		"$photo" "$images" "$rate" "$one" "$work" "$read" "$share" "$part" >>"$JSON"
done
