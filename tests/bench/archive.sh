#!/usr/bin/env bash
# archive.sh [BACKBONE [IMAGES]]
#	SQL end to end: images per second from tables of JPEGs of several sizes, by
#	1, 4 and 16 sessions, reading ahead or not, with parallel query or not, and
#	what share of the engine's own rate that is.  The engine's rate is measured
#	in the same run, before, between and after, by dfx-engine bench with the same
#	threads and batch; read the shares, not the rates.
#
#	Prints a table, and appends each row as a JSON object to the file $JSON.
#	SIDES="512" measures these sizes only.  Needs python3-pil to make the images.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

backbone=${1:-densenet121}
images=${2:-128}
rounds=3

lib_work dfx-archive
make -C "$TOP" --no-print-directory -s all >/dev/null
lib_tree
engine=$TOP/build/dfx-engine
"$engine" init --backbone "$backbone" --random-weights 7 --out "$WORK/model.safetensors" >/dev/null
mkdir "$WORK/jpeg"
/usr/bin/python3 - "$TOP/tests/golden/images/photo-444-q75.jpg" "$WORK/jpeg" "$images" <<'PY'
import random, sys
from PIL import Image
photo, out, n = Image.open(sys.argv[1]).convert("RGB"), sys.argv[2], int(sys.argv[3])
draw = random.Random(1)
for side in (256, 512, 1024, 2048):
    for i in range(n):
        w, h = photo.size
        cut = draw.uniform(0.5, 1.0)
        x, y = draw.uniform(0, w * (1 - cut)), draw.uniform(0, h * (1 - cut))
        tile = photo.resize((side, side), Image.BICUBIC, (x, y, x + w * cut, y + h * cut))
        grain = Image.effect_noise((side, side), 12).convert("RGB")
        Image.blend(tile, grain, 0.06).save(f"{out}/{side}-{i}.jpg", quality=90)
PY
chmod -R a+rX "$WORK/jpeg" "$WORK/model.safetensors"
lib_server data "shared_buffers = 1GB" "max_parallel_workers_per_gather = 0"

sql() { as_pg "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
sql -c "CREATE EXTENSION deepfeaturex; SELECT dfx_import_model('m', '$WORK/model.safetensors');
	ALTER DATABASE postgres SET dfx.default_model = 'm';
	CREATE TABLE archive (side int, id int, image bytea);
	INSERT INTO archive SELECT side, i, pg_read_binary_file(format('%s/%s-%s.jpg', '$WORK/jpeg', side, i))
		FROM unnest('{256,512,1024,2048}'::int[]) AS side, generate_series(0, $images - 1) AS i;
	ALTER TABLE archive SET (parallel_workers = 2); ANALYZE archive" >/dev/null
sql -c "SELECT dfx_preload('m'); SELECT count(dfx_classify(image)) FROM archive WHERE side = 256" >/dev/null

engine_rate() { "$engine" bench --backbone "$backbone" --branches 3 --batch 32 --json | sed -E 's/.*"images_per_second": *([0-9.]+).*/\1/'; }

# $1 side, $2 sessions, $3 settings -> images per second
sql_rate() {
	local start end pids=() i
	start=$(date +%s.%N)
	for i in $(seq 0 $(($2 - 1))); do
		PGOPTIONS="$3" sql -c "SELECT count(dfx_classify(image)) FROM archive WHERE side = $1 AND id % $2 = $i" >/dev/null &
		pids+=($!)
	done
	wait "${pids[@]}"
	end=$(date +%s.%N)
	awk -v n="$images" -v a="$start" -v b="$end" 'BEGIN {printf "%.2f", n / (b - a)}'
}
median() { tr ' ' '\n' <<<"$*" | sort -n | awk '{a[NR]=$1} END {print a[int((NR+1)/2)]}'; }

printf '%-34s %10s %10s %7s\n' "$backbone, three branches" "images/s" "engine" "share"
# side, sessions, settings, name
while IFS='|' read -r side sessions settings name; do
	case " ${SIDES:-256 512 1024 2048} " in *" $side "*) ;; *) continue ;; esac
	rates=() engines=()
	for _ in $(seq $rounds); do
		engines+=("$(engine_rate)")
		rates+=("$(sql_rate "$side" "$sessions" "$settings")")
	done
	r=$(median "${rates[@]}") e=$(median "${engines[@]}")
	share=$(awk -v r="$r" -v e="$e" 'BEGIN {printf "%.2f", r / e}')
	printf '%-34s %10s %10s %7s\n' "$name" "$r" "$e" "$share"
	[ -z "${JSON:-}" ] || printf '{"backbone": "%s", "side": %d, "sessions": %d, "settings": "%s", "images_per_second": %s, "engine": %s, "share": %s}\n' \
		"$backbone" "$side" "$sessions" "$settings" "$r" "$e" "$share" >>"$JSON"
done <<'ROWS'
512|1||512 px, 1 session
512|1|-c dfx.read_ahead=0|512 px, 1 session, no read-ahead
512|1|-c max_parallel_workers_per_gather=2|512 px, 1 session, parallel query
512|4||512 px, 4 sessions
512|16||512 px, 16 sessions
256|1||256 px, 1 session
1024|1||1024 px, 1 session
2048|1||2048 px, 1 session
ROWS
