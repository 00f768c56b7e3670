#!/usr/bin/env bash
# device.sh - part 1 of run.sh: what there is to run on, by the driver's word, the engine's and cuDNN's.
set -uo pipefail
status=0

nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm --format=csv || { [ "$DEVICE" = cpu ] || status=1; }
"$ENGINE" devices --json | tee "$OUT/device.json"
if [ "$DEVICE" != cpu ] && ! grep -q '"backend": *"cuda".*"usable": *true' "$OUT/device.json"; then
	echo "not ok - the engine can use the GPU"
	status=1
else
	echo "ok - the engine can use device $DEVICE"
fi
# cuDNN's description of this device: what the plan tests feed it where there is none.
if [ -x "$WORK/tests/deviceprop" ]; then
	LD_LIBRARY_PATH=$LIBS "$WORK/tests/deviceprop" >"$OUT/deviceprop.json" && echo "ok - deviceprop.json" || status=1
fi
exit $status
