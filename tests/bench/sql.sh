#!/usr/bin/env bash
# sql.sh [BACKBONE]
#	What SQL adds to the engine, one client, a warm model, alternating runs:
#	  floor		a statement that asks the engine nothing
#	  ping		an empty round trip through the ring
#	  classify	a 512x512 JPEG, beside the time the engine itself spends on it
#	Prints medians (p50) in milliseconds over all rounds, and appends each as a
#	JSON object to the file $JSON.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

backbone=${1:-resnet18}
rounds=5
seconds=3

lib_work dfx-bench
make -C "$TOP" --no-print-directory -s all >/dev/null
lib_tree
"$TOP/build/dfx-engine" init --backbone "$backbone" --random-weights 7 --out "$WORK/model.safetensors" >/dev/null
photo=$(ls "$TOP"/tests/golden/images/photo*.jpg | head -n 1)
cp "$photo" "$WORK/photo.jpg"
chmod a+r "$WORK"/*
lib_server data "dfx.threads = 1"

sql() { as_pg "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
sql -c "CREATE EXTENSION deepfeaturex; SELECT dfx_import_model('m', '$WORK/model.safetensors');
	ALTER DATABASE postgres SET dfx.default_model = 'm';
	CREATE TABLE p AS SELECT pg_read_binary_file('$WORK/photo.jpg') AS image" >/dev/null

mkdir "$WORK/pgb" && chmod 777 "$WORK/pgb"
echo "SELECT length(image) FROM p" >"$WORK/floor.sql"
echo "SELECT dfx_ping() FROM p" >"$WORK/ping.sql"
echo "SELECT label FROM p, dfx_classify(image)" >"$WORK/classify.sql"

# $1 kind -> appends latencies in microseconds to $WORK/pgb/$1
run_one() {
	as_pg "$BIN/pgbench" -n -M prepared -T "$seconds" -f "$WORK/$1.sql" -l --log-prefix="$WORK/pgb/log" >/dev/null 2>&1
	awk '{print $3}' "$WORK"/pgb/log.* >>"$WORK/pgb/$1.us"
	rm -f "$WORK"/pgb/log.*
}
p50() { sort -n "$1" | awk '{a[NR]=$1} END {printf "%.3f", a[int((NR+1)/2)]/1000}'; }

engine_ms() { sql -c "SELECT 1000 * sum(decode_seconds + inference_seconds) || ' ' || sum(images) FROM dfx_stat_engine"; }

for kind in floor ping classify; do run_one "$kind"; done
rm -f "$WORK"/pgb/*.us
before=$(engine_ms)
for _ in $(seq $rounds); do
	for kind in floor ping classify; do run_one "$kind"; done
done
after=$(engine_ms)

for kind in floor ping classify; do
	median=$(p50 "$WORK/pgb/$kind.us") n=$(wc -l <"$WORK/pgb/$kind.us")
	printf '%-10s p50 %s ms (%d statements)\n' "$kind" "$median" "$n"
	[ -z "${JSON:-}" ] || printf '{"statement": "%s", "p50_ms": %s, "n": %d}\n' "$kind" "$median" "$n" >>"$JSON"
done
echo "$before $after" | awk '{printf "engine     mean %.3f ms of decode and inference an image\n", ($3 - $1) / ($4 - $2)}'
