#!/usr/bin/env bash
# setup.sh [build|check]
#	Installs the Debian packages that this project needs, when run as root;
#	otherwise names those that are missing and how to install them.
#	build: what `make && make install` needs.  check (default): the tests' too.
set -euo pipefail

build=(gcc libc6-dev make postgresql-15 postgresql-server-dev-15 libdnnl-dev libjpeg62-turbo-dev libpng-dev zlib1g-dev libdeflate-dev)
tests=(perl libipc-run-perl postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl)

case "${1:-check}" in
	build) want=("${build[@]}") ;;
	check) want=("${build[@]}" "${tests[@]}") ;;
	*) echo "usage: setup.sh [build|check]" >&2; exit 2 ;;
esac

command -v dpkg-query >/dev/null || {
	echo "setup.sh: this is not a Debian system; install the equivalents of: ${want[*]}" >&2
	exit 1
}

missing=()
for package in "${want[@]}"; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
	[ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "setup.sh: missing packages; as root, run:" >&2
	echo "  apt-get install ${missing[*]}" >&2
	exit 1
fi

echo "setup.sh: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || apt-get update
apt-get install -y -qq --no-install-recommends "${missing[@]}"
