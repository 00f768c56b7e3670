#!/usr/bin/env bash
# setup.sh [build|check]
#	Installs the Debian packages that this project needs, when run as root;
#	otherwise names those that are missing and how to install them.
#	build: what `make && make install` needs.  check (default): the tests' too.
set -euo pipefail

# The major version of the server to build for: pg_config's, else (it is not there, or only says what is missing) of the
# distribution's package "postgresql"; nothing when neither is known.
server_major() {
	local major
	major=$("${PG_CONFIG:-pg_config}" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p') || true
	[ -n "$major" ] || major=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p') || true
	echo "$major"
}

command -v dpkg-query >/dev/null || {
	echo "setup.sh: this is not a Debian system; README.md, Install, names what is needed" >&2
	exit 1
}

major=$(server_major)
if [ -z "$major" ] && [ "$(id -u)" -eq 0 ]; then
	apt-get update -qq || apt-get update
	major=$(server_major)
fi
[ -n "$major" ] || {
	echo "setup.sh: neither pg_config nor apt-cache says which PostgreSQL there is; as root, run: apt-get update" >&2
	exit 1
}

build=(gcc libc6-dev make "postgresql-$major" "postgresql-server-dev-$major" libdnnl-dev libjpeg62-turbo-dev libpng-dev zlib1g-dev libdeflate-dev)
tests=(perl libipc-run-perl "postgresql-$major-pgtap" libtap-parser-sourcehandler-pgtap-perl)

case "${1:-check}" in
	build) want=("${build[@]}") ;;
	check) want=("${build[@]}" "${tests[@]}") ;;
	*) echo "usage: setup.sh [build|check]" >&2; exit 2 ;;
esac

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
