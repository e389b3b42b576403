#!/bin/sh
# What `make install` and `make uninstall` do: tests/install.sh install|uninstall, with PREFIX and DESTDIR in the environment.
# It builds nothing, so that it can run as root without a toolchain.
set -eu
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n1)
files="bin/fcgiguard lib/libfcgiguard.so lib/libfcgiguard.a lib/fcgiguard/libfcgiguard_worker.so include/fcgiguard.h lib/pkgconfig/fcgiguard.pc"

case ${1-} in
install)
    for built in fcgiguard libfcgiguard.so libfcgiguard.a libfcgiguard_worker.so; do
        [ -e target/release/$built ] || { echo "install: target/release/$built is missing: make build first" >&2; exit 1; }
    done
    install -d "$root/bin" "$root/lib/fcgiguard" "$root/lib/pkgconfig" "$root/include"
    install -m 755 target/release/fcgiguard "$root/bin/"
    install -m 644 target/release/libfcgiguard.so target/release/libfcgiguard.a "$root/lib/"
    install -m 644 target/release/libfcgiguard_worker.so "$root/lib/fcgiguard/"
    install -m 644 include/fcgiguard.h "$root/include/"
    sed -e "s,@prefix@,$prefix,g" -e "s,@version@,$version,g" include/fcgiguard.pc.in >"$root/lib/pkgconfig/fcgiguard.pc"
    chmod 644 "$root/lib/pkgconfig/fcgiguard.pc"
    for file in $files; do echo "$root/$file"; done
    ;;
uninstall)
    for file in $files; do rm -f "$root/$file"; done
    rmdir "$root/lib/fcgiguard" 2>/dev/null || true
    ;;
*) echo "usage: tests/install.sh install|uninstall" >&2; exit 3 ;;
esac
