#!/usr/bin/env bash
# programs.sh ops|sanitize - parts 2 and 4 of run.sh: the C test programs that pack.sh carried.
#
# All of them, test_gpu_*.t, are part 2; those of the single ops also run under compute-sanitizer (part 4).
set -uo pipefail
what=$1 status=0 ran=0
cd "$TOP" || exit 2 # golden files are found from there
export LD_LIBRARY_PATH=$LIBS

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

for program in "$WORK"/tests/test_gpu_*.t; do
	[ -x "$program" ] || continue
	name=$(basename "$program" .t)
	case $what:$name in
		ops:*) run "$name" "$program" ;;
		sanitize:test_gpu_ops | sanitize:test_gpu_train)
			run "$name-memcheck" compute-sanitizer --tool memcheck --error-exitcode 9 "$program" ops
			run "$name-racecheck" compute-sanitizer --tool racecheck --error-exitcode 9 "$program" ops
			;;
	esac
done
# A program that found no GPU has shown nothing.
if grep -lq 'SKIP' "$OUT"/$what-*.log 2>/dev/null; then
	echo "not ok - a program skipped itself: $(grep -h SKIP "$OUT"/$what-*.log | head -n 1)"
	status=1
fi
printf '{"part": "%s", "programs": %d, "passed": %s}\n' "$what" "$ran" "$([ $status -eq 0 ] && echo true || echo false)" >"$OUT/$what.json"
[ "$ran" -gt 0 ] || { echo "not ok - no program was carried for this part"; status=1; }
exit $status
