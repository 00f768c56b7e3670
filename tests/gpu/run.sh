#!/usr/bin/env bash
# run.sh [PART...]
#	What only a GPU can show.  Runs on a bare GPU machine: a CUDA driver, Python
#	with PyTorch, no network; everything else comes from build/gpu/pack.tar.xz,
#	which tests/gpu/pack.sh makes on a machine with Debian's packages.
#
#	Each part prints a line a check, writes $OUT/NAME.json, takes at most eight
#	minutes, and fails alone: the next one runs all the same.  Default: 1 2 3.
#
#	  1 device		what the engine found, and cuDNN's own description of the device
#	  2 ops			every op and precision against the oracle
#	  3 parity		every backbone and the tri-branch net against PyTorch, same weights
#	  4 sanitize	the kernels under compute-sanitizer
#	  5 sql			PostgreSQL end to end, and the GPU engine killed under load
#	  6 throughput	images per second beside PyTorch, and the share of the roofline; entries share the time:
#				6=densenet121:64,resnet50 measures that network at 64 and that one at every batch (throughput.py)
#	  7 training	a training step beside PyTorch; that it is right, part 2 has shown
#	  8 overlap		page-locked memory and overlapping batches, by the clock
#
#	DEVICE=cpu runs what does not need the GPU on any machine, to test the parts themselves.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
export OUT=${OUT:-$top/build/gpu/out} DEVICE=${DEVICE:-cuda} TOP=$top
mkdir -p "$OUT"

# A directory that user nobody can reach, because PostgreSQL refuses root.
WORK=$(mktemp -d /tmp/dfx-gpu.XXXXXX)
chmod 755 "$WORK"
trap 'rm -rf "$WORK"' EXIT
pack=${PACK:-$top/build/gpu/pack.tar.xz}
# tar asks a program xz, which a bare machine may lack; Python has its own.
if command -v xz >/dev/null; then
	tar -C "$WORK" -xJf "$pack" || exit 2
else
	python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$pack" "$WORK" || exit 2
fi
cuda_lib=
for dir in /usr/local/cuda/lib64 /usr/local/nvidia/lib64 /usr/local/nvidia/lib $(python3 -c '
import glob, os, site
for s in site.getsitepackages():
    for d in sorted(glob.glob(os.path.join(s, "nvidia", "*", "lib"))): print(d)' 2>/dev/null); do
	[ -d "$dir" ] && cuda_lib=$cuda_lib:$dir
done
# What the machine itself has there comes last: it may be how its driver is found.
export PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
export WORK LIBS=$WORK/lib$cuda_lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} DFX_CUDA_SO=$WORK/bin/dfx_cuda.so

# PyTorch must not see the carried libraries, and PostgreSQL starts its engine with an empty
# environment: so each program gets a wrapper that sets its own.
for program in dfx-engine dfx-engine-test; do
	printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/bin/%s "$@"\n' "$LIBS" "$WORK" "$program" >"$WORK/$program"
	chmod 755 "$WORK/$program"
done
export ENGINE=$WORK/dfx-engine ENGINE_TEST=$WORK/dfx-engine-test

part() {
	local name=$1
	shift
	echo "== $name"
	timeout --kill-after=20 480 "$@"
	local rc=$?
	[ $rc -eq 0 ] && echo "== $name: passed" || { echo "== $name: FAILED ($rc)"; failed="${failed:-} $name"; }
}

for n in "${@:-1 2 3}"; do
	for i in $n; do
		case $i in
			1) part device "$here/device.sh" ;;
			2) part ops "$here/programs.sh" ops ;;
			3) part parity python3 "$here/parity.py" --engine "$ENGINE" --device "$DEVICE" --json "$OUT/parity.json" ;;
			4) part sanitize "$here/programs.sh" sanitize ;;
			5) part sql "$here/sql.sh" ;;
			6 | 6=*)
				IFS=, read -r -a entries <<<"${i#6}"
				part throughput python3 "$here/throughput.py" --engine "$ENGINE" --device "$DEVICE" --json "$OUT/throughput.json" \
					--overlap "$WORK/tests/bench_overlap" "${entries[@]#=}"
				;;
			7) part training python3 "$here/training.py" --bench "$WORK/tests/bench_train" --json "$OUT/training.json" ;;
			8) part overlap python3 "$here/overlap.py" --bench "$WORK/tests/bench_overlap" --json "$OUT/overlap.json" ;;
			*) echo "run.sh: no part $i" >&2; exit 2 ;;
		esac
	done
done
[ -z "${failed:-}" ] || { echo "failed:$failed"; exit 1; }
