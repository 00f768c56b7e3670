#!/usr/bin/env bash
# pgtree.sh DIR
#	Makes DIR a private, complete PostgreSQL installation with this extension
#	in it, so that tests, the demo and several checkouts never touch (or need
#	to write to) the system's own.  PostgreSQL finds its files relative to its
#	binaries, which is all that a copied tree needs.
#	Prints the tree's bin directory.  PG_CONFIG chooses the server to copy.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: pgtree.sh DIR" >&2; exit 2; }
dest=$1
top=$(cd "$(dirname "$0")/.." && pwd)
pg_config=${PG_CONFIG:-pg_config}

for what in bindir libdir pkglibdir sharedir; do
	printf -v "$what" '%s' "$("$pg_config" --$what)"
done

mkdir -p "$dest$bindir" "$dest$pkglibdir" "$dest$sharedir"
cp -a "$bindir/." "$dest$bindir/"
cp -a "$pkglibdir/." "$dest$pkglibdir/"
cp -aL "$sharedir/." "$dest$sharedir/"
# An extension that happens to be installed system-wide must not be what is tested.
rm -f "$dest$pkglibdir"/{deepfeaturex.so,dfx-engine,dfx_cuda.so} "$dest$sharedir"/extension/deepfeaturex*
rm -rf "$dest$sharedir/deepfeaturex"
make -C "$top" --no-print-directory -s PG_CONFIG="$pg_config" DESTDIR="$dest" install >&2
chmod -R a+rX "$dest"
echo "$dest$bindir"
