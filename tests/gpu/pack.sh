#!/usr/bin/env bash
# pack.sh OUT.tar.xz
#	Packs what a bare GPU machine without network needs to test this project:
#	PostgreSQL and the libraries of the engine from Debian's packages, and the
#	programs built here.  tests/gpu/run.sh unpacks it there; LD_LIBRARY_PATH
#	alone makes it run, because PostgreSQL finds its files relative to its
#	program.  libc, libstdc++ and libgcc are the machine's own: newer ones run
#	programs built against older ones, not the other way round.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "${1:?usage: pack.sh OUT.tar.xz}")

packages="postgresql-15 postgresql-client-15 libpq5 libicu72 libldap-2.5-0 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libk5crypto3
	libkrb5support0 libcom-err2 libkeyutils1 liblz4-1 libpam0g libaudit1 libcap-ng0 libselinux1 libpcre2-8-0 libssl3 libsystemd0
	libcap2 libgcrypt20 libgpg-error0 liblzma5 libzstd1 libuuid1 libxml2 libxslt1.1 zlib1g libreadline8 libtinfo6 libdnnl2 libgomp1
	ocl-icd-libopencl1 libjpeg62-turbo libpng16-16 libdeflate0 libgnutls30 libp11-kit0 libidn2-0 libunistring2 libtasn1-6 libnettle8
	libhogweed6 libgmp10 libffi8"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/deb" "$work/debian" "$work/pack"
# _apt cannot write into root's temporary directory; the download itself needs no other user.
# shellcheck disable=SC2086
(cd "$work/deb" && apt-get -qq -o APT::Sandbox::User=root download $packages)
for deb in "$work"/deb/*.deb; do dpkg -x "$deb" "$work/debian"; done

# PostgreSQL as Debian lays it out, less what only people and compilers read.
pg=$work/pack/pg
mkdir -p "$pg/usr/lib" "$pg/usr/share" "$work/pack/lib" "$work/pack/bin" "$work/pack/tests"
cp -a "$work/debian/usr/lib/postgresql" "$pg/usr/lib/"
cp -a "$work/debian/usr/share/postgresql" "$pg/usr/share/"
rm -rf "$pg"/usr/lib/postgresql/15/lib/{bitcode,pgxs} "$pg"/usr/share/postgresql/15/man "$pg"/usr/share/postgresql/15/tsearch_data.bak
find "$work/debian/lib" "$work/debian/usr/lib/x86_64-linux-gnu" -maxdepth 1 -name '*.so*' -exec cp -a {} "$work/pack/lib/" \; 2>/dev/null
find "$work/debian/lib/x86_64-linux-gnu" -maxdepth 1 -name '*.so*' -exec cp -a {} "$work/pack/lib/" \; 2>/dev/null || true
rm -f "$work"/pack/lib/lib{c,m,pthread,dl,rt,stdc++,gcc_s}.so*

# The extension into that tree, and the programs that need no PostgreSQL.
make -s all
make -s install DESTDIR="$work/install"
cp -a "$work"/install/usr/lib/postgresql/15/lib/. "$pg/usr/lib/postgresql/15/lib/"
cp -a "$work"/install/usr/share/postgresql/15/. "$pg/usr/share/postgresql/15/"
rm -rf "$pg/usr/share/postgresql/15/deepfeaturex"    # the starter model: 48 MB that no GPU test reads
rm -rf "$pg"/usr/lib/postgresql/15/lib/bitcode
make -s -f mk/engine.mk -j"$(nproc)" test-programs build/t/bench/bench_net
cp build/dfx-engine "$work/pack/bin/"
cp build/test/dfx-engine "$work/pack/bin/dfx-engine-test"
cp build/t/bench/bench_net "$work/pack/bin/"
if [ -f build/dfx_cuda.so ]; then
	cp build/dfx_cuda.so "$work/pack/bin/"
fi
for t in build/t/gpu/*; do
	[ -f "$t" ] && [ -x "$t" ] && cp "$t" "$work/pack/tests/"
done
find "$work/pack" -type f \( -name '*.so*' -o -perm -u+x \) -exec strip --strip-unneeded {} \; 2>/dev/null || true

mkdir -p "$(dirname "$out")"
tar -C "$work/pack" -cf - . | xz -T0 -6 >"$out"
ls -l "$out" | awk '{printf "%s: %.1f MiB\n", $NF, $5 / 1048576}'
