# tap.sh - sourced by tests/unit/*.sh: TAP from a shell.
#
#	ok WHAT COMMAND...	passes when the command succeeds; its output goes nowhere
#	err_has WORDS		whether $work/err, where a test keeps a program's stderr, has them
#	done_testing		ends the test, and the script
#
# $work is a directory of the test's own, removed at its exit.

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0
failed=0

ok() {
	local what=$1
	shift
	count=$((count + 1))
	if "$@" >/dev/null; then
		echo "ok $count - $what"
	else
		echo "not ok $count - $what"
		failed=1
	fi
}

err_has() { grep -qF -- "$1" "$work/err"; }

done_testing() {
	echo "1..$count"
	exit $failed
}
