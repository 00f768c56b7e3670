#!/usr/bin/env bash
# latency.sh [BACKBONE]
#	How long one call takes, idle and beside two bulk scans: p50 and p99 of
#	single classifications of a 512x512 JPEG, by priority.  The scans run for
#	the whole measurement; each round measures every case, so that the machine's
#	drift touches all of them alike.  "batch" is how long an idle engine takes for
#	as many images as it works on at a time: what an interactive call is measured by.
#	Prints a table, and appends each row as a JSON object to the file $JSON.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

backbone=${1:-densenet121}
rounds=3
seconds=${SECONDS_EACH:-5}

lib_work dfx-latency
make -C "$TOP" --no-print-directory -s all >/dev/null
lib_tree
"$TOP/build/dfx-engine" init --backbone "$backbone" --random-weights 7 --out "$WORK/model.safetensors" >/dev/null
/usr/bin/python3 - "$TOP/tests/golden/images/photo-444-q75.jpg" "$WORK/photo.jpg" <<'PY'
import sys
from PIL import Image
Image.open(sys.argv[1]).convert("RGB").resize((512, 512), Image.BICUBIC).save(sys.argv[2], quality=90)
PY
chmod a+r "$WORK"/*.jpg "$WORK"/*.safetensors
lib_server data

sql() { as_pg "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
# A byte more each makes the images of the scans distinct; decoders ignore what follows the end.
sql -c "CREATE EXTENSION deepfeaturex; SELECT dfx_import_model('m', '$WORK/model.safetensors');
	ALTER DATABASE postgres SET dfx.default_model = 'm';
	CREATE TABLE p AS SELECT pg_read_binary_file('$WORK/photo.jpg') AS image;
	CREATE TABLE archive AS SELECT i AS id, image || int4send(i) AS image FROM p, generate_series(1, 20000) AS i" >/dev/null
sql -c "SELECT dfx_preload('m')" >/dev/null

mkdir "$WORK/pgb" && chmod 777 "$WORK/pgb"
echo "SELECT label FROM p, dfx_classify(image)" >"$WORK/one.sql"

# $1 case, $2 priority -> appends latencies in microseconds to $WORK/pgb/CASE.us
run_one() {
	PGOPTIONS="-c dfx.priority=$2" as_pg "$BIN/pgbench" -n -M prepared -T "$seconds" -f "$WORK/one.sql" -l --log-prefix="$WORK/pgb/log" >/dev/null 2>&1
	awk '{print $3}' "$WORK"/pgb/log.* >>"$WORK/pgb/$1.us"
	rm -f "$WORK"/pgb/log.*
}
quantile() { sort -n "$1" | awk -v q="$2" '{a[NR]=$1} END {i = int(q * NR + 0.999); if (i < 1) i = 1; printf "%.1f", a[i] / 1000}'; }

scans=()
start_scans() {
	local i
	for i in 1 2; do
		PGOPTIONS="-c dfx.priority=bulk -c dfx.request_timeout=0" sql -c "SELECT count(dfx_classify(image)) FROM archive" >/dev/null 2>&1 &
		scans+=($!)
	done
	# Until both windows are full.
	until [ "$(sql -c "SELECT queued + running >= 64 FROM dfx_stat_queue")" = t ]; do sleep 0.1; done
}
stop_scans() {
	sql -c "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT count(dfx_classify%'" >/dev/null
	wait "${scans[@]}" || true
	scans=()
}

# As many images as all workers take at a time, 4 each.
run_batch() {
	"$TOP/build/dfx-engine" bench --backbone "$backbone" --branches 3 --batch $((4 * $(nproc))) --json |
		sed -E 's/.*"median_ms": *([0-9.]+).*/\1/' | awk '{print $1 * 1000}' >>"$WORK/pgb/batch.us"
}

for _ in $(seq $rounds); do
	run_batch
	run_one "idle" normal
	start_scans
	for priority in interactive normal; do run_one "$priority" "$priority"; done
	stop_scans
done
batch=$(quantile "$WORK/pgb/batch.us" 0.50)
for name in batch idle interactive normal; do
	p50=$(quantile "$WORK/pgb/$name.us" 0.50) p99=$(quantile "$WORK/pgb/$name.us" 0.99) n=$(wc -l <"$WORK/pgb/$name.us")
	ratio=$(awk -v p="$p50" -v b="$batch" 'BEGIN {printf "%.2f", p / b}')
	printf '%-12s p50 %8s ms   p99 %8s ms   %5s batches   (%d)\n' "$name" "$p50" "$p99" "$ratio" "$n"
	[ -z "${JSON:-}" ] || printf '{"backbone": "%s", "case": "%s", "p50_ms": %s, "p99_ms": %s, "p50_in_batches": %s, "n": %d}\n' \
		"$backbone" "$name" "$p50" "$p99" "$ratio" "$n" >>"$JSON"
done
