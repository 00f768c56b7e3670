#!/usr/bin/env bash
# run.sh - `make bench`: every measurement of docs/PERFORMANCE.md that this machine can make, one after the other.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2

section() { printf '\n== %s\n' "$*"; }

section "machine"
grep -m1 'model name' /proc/cpuinfo
nproc
uptime

section "decode and resize, one core"
build/t/bench/bench_decode || true
if /usr/bin/python3 -c 'import PIL' 2>/dev/null; then
	photos=$(mktemp -d)
	tests/bench/make_photos.py "$photos" && build/t/bench/bench_decode "$photos"/* || true
	rm -rf "$photos"
else
	echo "larger photographs skipped: needs Debian's python3-pil"
fi

section "networks, against PyTorch in alternation"
if /usr/bin/python3 -c 'import torch, torchvision' 2>/dev/null; then
	for mode in eager ofi; do
		/usr/bin/python3 tests/bench/compare_torch.py densenet121 resnet50 resnet18 --mode $mode
	done
	/usr/bin/python3 tests/bench/compare_torch.py efficientnet_b0 --mode freeze
	# On Debian's default BLAS a ViT takes PyTorch half a minute an image.
	if ldconfig -p | grep -q libopenblas; then
		/usr/bin/python3 tests/bench/compare_torch.py vit_b_16 --mode freeze --batch 4
	fi
	/usr/bin/python3 tests/bench/compare_torch_train.py resnet18 densenet121
else
	echo "skipped: needs Debian's python3-torch and python3-torchvision"
fi

section "the README's table of backbones"
tests/bench/backbones.sh

section "the ring, without PostgreSQL"
build/t/bench/bench_ring || true

section "SQL, one client"
tests/bench/sql.sh

section "SQL, an archive"
if /usr/bin/python3 -c 'import PIL' 2>/dev/null; then
	tests/bench/archive.sh
	section "SQL, single calls, idle and beside bulk scans"
	tests/bench/latency.sh
else
	echo "skipped: needs Debian's python3-pil"
fi
