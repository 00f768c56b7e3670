#!/usr/bin/env bash
# check.sh [STAGE...]
#	Runs the tests.  Without arguments: all stages, in this order.
#
#	rooms	includes against the table of rooms
#	unit	C programs without a server: units, op tests, parity with PyTorch, fuzz drivers
#	asan	the same under AddressSanitizer and UBSan, less the full networks
#	regress	pg_regress in a private server
#	pgtap	the SQL surface, pgTAP
#	tap		faults, privileges, standby, dump: PostgreSQL::Test::Cluster
#
#	A failing stage does not stop the later ones; the exit status is the sum's.
#	KEEP=1 keeps the working directory.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

stages=(rooms unit asan regress pgtap tap)
[ $# -eq 0 ] || stages=("$@")
passed=0
failed=0
failures=()

# The tests print their own detail; a stage is one line of the summary.
stage() {
	local name=$1 began=$SECONDS
	shift
	printf '\n---- %s\n' "$name"
	if "$@"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		failures+=("$name")
	fi
	printf -- '---- %s: %d s\n' "$name" $((SECONDS - began))
}

make_engine() {
	make -C "$TOP" -f mk/engine.mk --no-print-directory -s -j"$(nproc)" "$@"
}

rooms() {
	"$TOP/tests/check_rooms.sh"
}

# Those of cuda/, none where nvcc is missing; the ones that need a GPU skip themselves without.
cuda_tests() {
	ls "$1"/t/{cuda,gpu}/*.t 2>/dev/null
}

unit() {
	make_engine test-programs && (cd "$TOP" && prove -j2 --timer -e '' build/t/{unit,backend,fuzz}/*.t $(cuda_tests build) && prove -j2 --timer tests/unit/*.sh)
}

# Full networks are too slow under sanitizers: test_parity and the whole-network
# plans stay out; reduced networks of each family run.
asan() {
	make_engine SANITIZE=1 test-programs || return 1
	(cd "$TOP" && export DFX_ENGINE=build/asan/test/dfx-engine \
		ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 LSAN_OPTIONS=suppressions=tests/lsan.supp:print_suppressions=0 &&
		prove -j2 --timer -e '' $(ls build/asan/t/{unit,backend,fuzz}/*.t | grep -vE "test_(parity|cpu_plan|cpu_train_plan)") \
			$(cuda_tests build/asan | grep -vE 'test_cuda_(dnn|nets|engine)'))
}

# What the server's user must read, out of a checkout that it may not enter.
stage_files() {
	[ -d "$WORK/files" ] && return
	lib_tree
	make_engine test-programs || return 1
	mkdir -p "$WORK/files/engine" "$WORK/files/tests"
	cp "$TOP/build/test/dfx-engine" "$TOP/build/test/fake-train" "$TOP/build/test/fake_clock.so" "$WORK/files/engine/"
	if [ -e "$TOP/build/dfx_cuda.so" ]; then
		mkdir -p "$WORK/files/engine/cuda"
		cp "$TOP/build/test/dfx-engine" "$TOP/build/dfx_cuda.so" "$WORK/files/engine/cuda/"
	fi
	cp -r "$TOP/sql" "$TOP/expected" "$WORK/files/"
	cp -r "$TOP/tests/t" "$TOP/tests/pgtap" "$TOP/tests/isolation" "$WORK/files/tests/" 2>/dev/null
	cp -r "$TOP/tests/golden/images" "$WORK/files/images"
	cp -r "$TOP/tests/golden/names" "$WORK/files/names"
	local model
	for model in "resnet18 7 resnet18" "resnet18 8 resnet18b" "test_tiny 36 tiny"; do
		set -- $model
		"$TOP/build/test/dfx-engine" init --backbone "$1" --random-weights "$2" --out "$WORK/files/$3.safetensors" >/dev/null || return 1
	done
	chmod -R a+rX "$WORK/files"
	export DFX_TEST_DIR=$WORK/files DFX_TEST_IMAGES=$WORK/files/images DFX_TEST_ENGINE=$WORK/files/engine/dfx-engine \
		DFX_TEST_FAKE=$WORK/files/engine/fake-train DFX_TEST_FAKE_CLOCK=$WORK/files/engine/fake_clock.so
}

server_stage() {
	stage_files && lib_server "$1" "dfx.engine_path = '$DFX_TEST_ENGINE'" "dfx.threads = 2"
}

pgxs_dir() {
	dirname "$("$PG_CONFIG" --pgxs)" | sed 's,/makefiles$,,'
}

regress() {
	server_stage regress || return 1
	local tests=() file
	for file in "$WORK"/files/sql/*.sql; do
		case "$file" in *--*) ;; *) tests+=("$(basename "$file" .sql)") ;; esac
	done
	# models first: the others use the model that it leaves
	mkdir -p "$WORK/regress.out" && chmod 777 "$WORK/regress.out"
	as_pg "$(pgxs_dir)/test/regress/pg_regress" --bindir="$BIN" --host="$PGHOST" --port="$PGPORT" --user=postgres \
		--inputdir="$WORK/files" --outputdir="$WORK/regress.out" --dbname=contrib_regression "${tests[@]}"
	local rc=$?
	[ $rc -eq 0 ] || cat "$WORK/regress.out/regression.diffs"
	lib_stop regress
	return $rc
}

pgtap() {
	server_stage pgtap || return 1
	as_pg "$BIN/createdb" pgtap || return 1
	as_pg pg_prove -d pgtap -h "$PGHOST" -p "$PGPORT" -U postgres "$WORK"/files/tests/pgtap/*.sql
	local rc=$?
	lib_stop pgtap
	return $rc
}

tap() {
	stage_files || return 1
	mkdir -p "$WORK/tap" && chmod 777 "$WORK/tap"
	# PostgreSQL's modules read TESTDIR before 16, the other two since.
	as_pg env PERL5LIB="$(pgxs_dir)/test/perl:$WORK/files/tests/t" TESTDIR="$WORK/tap" \
		TESTDATADIR="$WORK/tap/tmp_check" TESTLOGDIR="$WORK/tap/tmp_check/log" \
		PG_REGRESS="$(pgxs_dir)/test/regress/pg_regress" prove -j2 --timer "$WORK"/files/tests/t/*.pl
	local rc=$?
	[ $rc -eq 0 ] || tail -n 40 "$WORK"/tap/tmp_check/log/*.log
	return $rc
}

lib_work dfx-check
for name in "${stages[@]}"; do
	case " rooms unit asan regress pgtap tap " in
		*" $name "*) stage "$name" "$name" ;;
		*) echo "check.sh: no stage '$name'" >&2; exit 2 ;;
	esac
done

printf '\n'
[ "$failed" -eq 0 ] || echo "failed: ${failures[*]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
