#!/usr/bin/env bash
# run.sh [FILE] - `make bench`: the measurements of docs/PERFORMANCE.md, as tables and as one JSON file (build/bench.json).
#
#	PARTS		which of them, in this order: peak decode net train ring sql rows archive photos latency backbones (all)
#	BACKBONES	of the part net ("densenet121 densenet161 resnet18 resnet50 resnext101_32x4d efficientnet_b0 vit_b_16")
#	BATCHES		of the part net (1,8,32)
#	PRECISIONS	of the part net (those of the device)
#	ROWS		of the tables of the part rows ("1000 10000 100000")
#	BACKBONE	of the parts archive and latency (resnet18)
#	SIDES, PHOTOS	of the images of the parts archive and photos (all)
#
#	FILE has the machine and, for each part, the load average before and after it and its rows.  A peer or a package that is
#	not installed is named and left out; a part that fails is named too, and the exit status is 1.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
file=${1:-build/bench.json}
parts=${PARTS:-peak decode net train ring sql rows archive photos latency backbones}
rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
failed=0

# Lines of stdin that are JSON objects go to the part's rows; all are shown.
keep() {
	local line
	while IFS= read -r line; do
		printf '%s\n' "$line"
		[ "${line:0:1}" != '{' ] || printf '%s\n' "$line" >>"$JSON"
	done
}

has() { /usr/bin/python3 -c "import $1" 2>/dev/null || { echo "left out: Debian's python3 has no $1"; return 1; }; }

peak() { build/t/bench/bench_peak | keep; }
decode() {
	build/t/bench/bench_decode | keep
	has PIL || return 0
	mkdir "$rows/photos" && tests/bench/make_photos.py "$rows/photos" && build/t/bench/bench_decode "$rows"/photos/* | keep
}
ring() { DFX_ENGINE=build/dfx-engine build/t/bench/bench_ring | keep; }
sql() { tests/bench/sql.sh; }
rows() { tests/bench/rows.sh ${ROWS:-}; }
archive() { has PIL || return 0; tests/bench/archive.sh "${BACKBONE:-resnet18}" 192; }
photos() { has PIL || return 0; tests/bench/photos.sh; }
latency() { has PIL || return 0; tests/bench/latency.sh "${BACKBONE:-resnet18}"; }
backbones() { tests/bench/backbones.sh; }

# compare.py shows its table on stderr.
net() {
	local precision
	for precision in ${PRECISIONS:-$(build/dfx-engine devices --json | perl -MJSON::PP -ne '
		my $d = decode_json($_); print join(" ", split(/,/, $d->{precisions})) if $d->{backend} eq "cpu"')}; do
		/usr/bin/python3 tests/bench/compare.py ${BACKBONES:-densenet121 densenet161 resnet18 resnet50 resnext101_32x4d efficientnet_b0 vit_b_16} \
			--precision "$precision" --batch "${BATCHES:-1,8,32}" >>"$JSON" || return 1
	done
}
train() {
	has torch || return 0
	/usr/bin/python3 tests/bench/compare_train.py resnet18 densenet121 | keep
}

for part in $parts; do
	case $part in
		peak | decode | net | train | ring | sql | rows | archive | photos | latency | backbones) ;;
		*) echo "run.sh: no part $part" >&2; exit 2 ;;
	esac
	export JSON=$rows/$part
	: >"$JSON"
	before=$(cut -d' ' -f1 /proc/loadavg)
	printf '\n== %s (load average %s)\n' "$part" "$before"
	"$part" || { failed=1; echo "$part failed"; }
	printf '{"load_before": %s, "load_after": %s, "rows": [%s]}' "$before" "$(cut -d' ' -f1 /proc/loadavg)" "$(paste -sd, "$JSON")" >"$rows/$part.part"
done

{
	printf '{"date": "%s", "cpu": "%s", "cores": %d, "engine": %s, "parts": {' "$(date -u +%FT%TZ)" \
		"$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
		"[$(build/dfx-engine devices --json | paste -sd,)]"
	separator=
	for part in $parts; do
		printf '%s"%s": %s' "$separator" "$part" "$(cat "$rows/$part.part")"
		separator=', '
	done
	printf '}}\n'
} >"$file"
printf '\nwritten: %s\n' "$file"
exit $failed
