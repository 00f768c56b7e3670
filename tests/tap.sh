# tap.sh - TAP for shell tests, to be sourced: ok, err_has, and a directory $work that is removed at the end.

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0
failed=0

# ok WHAT COMMAND...: passes when the command succeeds
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

# Whether $work/err, where a test keeps a program's stderr, has these words.
err_has() { grep -qF -- "$1" "$work/err"; }

done_testing() {
	echo "1..$count"
	exit $failed
}
