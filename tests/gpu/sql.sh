#!/usr/bin/env bash
# sql.sh - part 5 of run.sh: PostgreSQL end to end on this machine's device, and its engine killed under load.
set -uo pipefail
export LD_LIBRARY_PATH=$LIBS PATH=$WORK/pg/usr/lib/postgresql/15/bin:$PATH
user=nobody
data=$WORK/data status=0

# PostgreSQL refuses root, and a bare machine may have no runuser.
as_pg() {
	if [ "$(id -u)" -eq 0 ]; then
		python3 -c '
import os, pwd, sys
u = pwd.getpwnam(sys.argv[1])
os.setgroups([]); os.setgid(u.pw_gid); os.setuid(u.pw_uid)
os.execvp(sys.argv[2], sys.argv[2:])' "$user" "$@"
	else
		"$@"
	fi
}
check() {
	if [ "$1" = "$2" ]; then echo "ok - $3"; else echo "not ok - $3: got \"$1\", wanted \"$2\""; status=1; fi
}
stop() { [ -f "$data/postmaster.pid" ] && as_pg pg_ctl -D "$data" -m immediate -s stop; }
trap stop EXIT

mkdir "$data" && [ "$(id -u)" -ne 0 ] || chown "$user" "$data" "$WORK"
as_pg initdb -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$OUT/initdb.log" 2>&1 || { cat "$OUT/initdb.log"; exit 1; }
cat >>"$data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$WORK'
shared_preload_libraries = 'deepfeaturex'
dfx.engine_path = '$ENGINE'
dfx.device = '$DEVICE'
dfx.model_memory = '16GB'
CONF
as_pg pg_ctl -D "$data" -l "$data/log" -w -t 120 -s start || { cat "$data/log"; exit 1; }
sql() { as_pg psql -X -q -A -t -h "$WORK" -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
# load QUERY: four sessions ask it, and go on after this has returned; settle ANSWER WHEN: what each of them must get.
load() {
	pids=()
	for i in 1 2 3 4; do sql -c "$1" >"$WORK/load.$i" 2>&1 & pids[i]=$!; done
	sleep 1
}
settle() {
	wait "${pids[@]}"
	for i in 1 2 3 4; do check "$(cat "$WORK/load.$i")" "$1" "session $i $2"; done
}

model=$WORK/model.safetensors
"$ENGINE" init --backbone densenet121 --random-weights 7 --out "$model" >/dev/null && chmod a+r "$model"
cp -r "$TOP/tests/golden/images" "$WORK/images" && chmod -R a+rX "$WORK/images"
sql -c "CREATE EXTENSION deepfeaturex; SELECT dfx_import_model('m', '$model'); ALTER DATABASE postgres SET dfx.default_model = 'm';
	CREATE TABLE archive AS SELECT i AS id, pg_read_binary_file('$WORK/images/' || f) AS image
		FROM generate_series(1, 400) AS i, LATERAL (SELECT (array['photo-420-q90.jpg', 'photo-progressive.jpg', 'photo-444-q75.jpg'])[1 + i % 3] AS f) AS x" >/dev/null
sql -c "SELECT state, device, refused FROM dfx_engine_status()"
case $DEVICE in cpu) wanted=cpu ;; *) wanted=cuda ;; esac
check "$(sql -c "SELECT split_part(device, ':', 1) FROM dfx_engine_status()")" "$wanted" "the engine runs on $DEVICE"
check "$(sql -c "SELECT count(*) FROM archive, dfx_classify(image) AS v WHERE v.label IS NOT NULL")" 400 "400 verdicts"
check "$(sql -c "SELECT count(DISTINCT v::text) FROM archive, dfx_classify(image) AS v")" 3 "three images, three verdicts, whatever the batch"

# Kill the engine under load: every statement still gets its answers.
load "SELECT count(v.label) FROM archive, dfx_classify(image) AS v"
engine=$(sql -c "SELECT pid FROM dfx_engine_status()")
kill -9 "$engine"
settle 400 "after kill -9 of the engine"
check "$(sql -c "SELECT restarts >= 1 AND pid <> $engine FROM dfx_engine_status()")" t "a new engine"
sql -c "SELECT * FROM dfx_stat_engine" -x

# Two engines on one queue: the device's and a CPU's; then the first is killed under load, and the other one goes on.
verdicts="SELECT count(v.label) FROM archive, dfx_classify(image) AS v WHERE id <= 100"
sql -c "ALTER SYSTEM SET dfx.device = '$DEVICE,cpu'" -c "SELECT pg_reload_conf()" >/dev/null
for i in $(seq 120); do
	[ "$(sql -c "SELECT count(*) FROM dfx_engine_status() WHERE state = 'ready'")" = 2 ] && break
	sleep 1
done
sql -c "SELECT engine, state, device, last_error FROM dfx_engine_status()"
check "$(sql -c "SELECT string_agg(split_part(device, ':', 1), ' ' ORDER BY engine) FROM dfx_engine_status()")" "$wanted cpu" "an engine on $DEVICE and one on the CPU"
sql -c "SELECT dfx_preload('m')" >/dev/null
for i in $(seq 20); do
	got=$(sql -c "$verdicts") both=$(sql -c "SELECT count(*) FROM dfx_stat_engine WHERE images > 0")
	{ [ "$got" != 100 ] || [ "$both" = 2 ]; } && break
done
check "$got" 100 "100 verdicts by two engines"
check "$both" 2 "both took part"
load "$verdicts"
engines=$(sql -c "SELECT string_agg(pid::text, ' ' ORDER BY engine) FROM dfx_engine_status()")
kill -9 "${engines% *}"
settle 100 "after kill -9 of one of two engines"
check "$(sql -c "SELECT pid FROM dfx_engine_status() WHERE engine = 1")" "${engines#* }" "the other one was not touched"
sql -c "SELECT engine, images, batches, average_batch FROM dfx_stat_engine"
cp "$data/log" "$OUT/postgres.log"
printf '{"part": "sql", "passed": %s}\n' "$([ $status -eq 0 ] && echo true || echo false)" >"$OUT/sql.json"
exit $status
