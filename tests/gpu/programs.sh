#!/usr/bin/env bash
# programs.sh ops|sanitize|overlap - parts 2, 4 and 8 of run.sh: the C test programs that pack.sh carried.
#
# They are named test_cuda_*.t: all of them are part 2, those of the single kernels also run under
# compute-sanitizer (part 4), test_cuda_overlap*.t is part 8.
set -uo pipefail
what=$1 status=0 ran=0
export LD_LIBRARY_PATH=$LIBS DFX_CUDA_SO=$WORK/bin/dfx_cuda.so

run() {
	local name=$1 log
	shift
	ran=$((ran + 1))
	log=$OUT/$what-$name.log
	if "$@" >"$log" 2>&1; then
		echo "ok - $name: $(grep -c '^ok' "$log") checks"
	else
		echo "not ok - $name"
		grep -E '^not ok|^#|ERROR SUMMARY|=====' "$log" | head -n 40
		status=1
	fi
}

for program in "$WORK"/tests/test_cuda_*.t; do
	[ -x "$program" ] || continue
	name=$(basename "$program" .t)
	case $what:$name in
		overlap:test_cuda_overlap*) run "$name" "$program" ;;
		overlap:*) ;;
		*:test_cuda_overlap*) ;;
		ops:*) run "$name" "$program" ;;
		sanitize:test_cuda_kernels* | sanitize:test_cuda_ops*)
			run "$name-memcheck" compute-sanitizer --tool memcheck --error-exitcode 9 "$program" --quick
			run "$name-racecheck" compute-sanitizer --tool racecheck --error-exitcode 9 "$program" --quick
			;;
	esac
done
printf '{"part": "%s", "programs": %d, "passed": %s}\n' "$what" "$ran" "$([ $status -eq 0 ] && echo true || echo false)" >"$OUT/$what.json"
[ "$ran" -gt 0 ] || { echo "not ok - no program was carried for this part"; status=1; }
exit $status
