#!/usr/bin/env bash
# rows.sh [ROWS...]
#	What an image costs in one query over tables of more and more rows, and the
#	memory that the session and the engine have taken by then: both must not grow
#	with the rows.  The network is the tests' smallest and the images are small, so
#	that it is PostgreSQL's side, the queue and the decoder that are measured.
#
#	The tables take turns, the small ones several times.  Prints a table, and
#	appends each row as a JSON object to the file $JSON.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

[ $# -gt 0 ] || set -- 1000 10000 100000
rounds=3

lib_work dfx-rows
make -C "$TOP" --no-print-directory -s all >/dev/null
make -C "$TOP" -f mk/engine.mk --no-print-directory -s build/test/dfx-engine
lib_tree
cp "$TOP/build/test/dfx-engine" "$TOP/tests/golden/images/jpeg-8x8.jpg" "$WORK/"
"$WORK/dfx-engine" init --backbone test_tiny --random-weights 36 --out "$WORK/model.safetensors" >/dev/null
chmod a+rx "$WORK"/dfx-engine "$WORK"/*.safetensors "$WORK"/*.jpg
lib_server data "dfx.engine_path = '$WORK/dfx-engine'" "shared_buffers = 1GB"

sql() { as_pg "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
peak() { awk '/^VmHWM/ {printf "%.0f", $2 / 1024}' "/proc/$1/status"; }

# A few bytes more each make the images distinct; decoders ignore what follows the end.
sql -c "CREATE EXTENSION deepfeaturex; SELECT dfx_import_model('m', '$WORK/model.safetensors'); ALTER DATABASE postgres SET dfx.default_model = 'm'" >/dev/null
for n in "$@"; do
	sql -c "CREATE TABLE archive_$n AS SELECT i AS id, pg_read_binary_file('$WORK/jpeg-8x8.jpg') || int4send(i) AS image
		FROM generate_series(1, $n) AS i"
done
sql -c "SELECT count(dfx_classify(image)) FROM archive_$1" >/dev/null

# $1 rows -> "seconds MB", the latter the session's own memory at the end, without what it shares
query() {
	sql -F ' ' <<SQL
SELECT clock_timestamp() AS began \gset
SELECT count(dfx_classify(image)) AS n FROM archive_$1 \gset
SELECT extract(epoch FROM clock_timestamp() - :'began'), round(status[1]::int / 1024.0, 1)
FROM regexp_match(pg_read_file(format('/proc/%s/status', pg_backend_pid())), 'RssAnon:\s+(\d+)') AS status;
SQL
}
median() { tr ' ' '\n' <<<"$*" | sort -n | awk '{a[NR]=$1} END {print a[int((NR+1)/2)]}'; }
engine=$(sql -c "SELECT pid FROM dfx_engine_status()")

declare -A seconds session
for round in $(seq $rounds); do
	for n in "$@"; do
		# Once is enough for what takes as long as all rounds of the others.
		[ "$n" -lt 100000 ] || [ "$round" -eq 2 ] || continue
		read -r took mb < <(query "$n")
		seconds[$n]+="$took "
		session[$n]=$mb
	done
done

printf '%10s %12s %12s %14s %14s\n' rows images/s ms/image 'session, MB' 'engine, MB'
for n in "$@"; do
	took=$(median ${seconds[$n]})
	awk -v n="$n" -v s="$took" -v m="${session[$n]}" -v e="$(peak "$engine")" \
		'BEGIN {printf "%10d %12.0f %12.3f %14.1f %14d\n", n, n / s, 1000 * s / n, m, e}'
	[ -z "${JSON:-}" ] || printf '{"rows": %d, "seconds": %s, "session_mb": %s, "engine_mb": %s}\n' "$n" "$took" "${session[$n]}" "$(peak "$engine")" >>"$JSON"
done
