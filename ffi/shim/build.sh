#!/bin/sh
# Compiles libfcgiguard_fcgiapp (static and shared) against a built libfcgiguard: ffi/shim/build.sh [FOLDER OF THE LIBRARY [OUT]]
# CC and CFLAGS as usual; RPATH empty for a package, where the linker finds the library by itself.
set -eu
cd "$(dirname "$0")/../.."
lib=${1:-target/release}
out=${2:-$lib}
mkdir -p "$out"
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
for source in ffi/shim/*.c; do
    # shellcheck disable=SC2086 # CFLAGS is a list
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -O2 -g -fPIC -pthread -Wall -Wextra -Wpedantic ${CFLAGS:-} \
        -c "$source" -o "$objects/$(basename "$source" .c).o"
done
# Replaced, not rewritten: a running program may have it mapped.
shared=libfcgiguard_fcgiapp.so.0
rm -f "$out/libfcgiguard_fcgiapp.a" "$out/$shared"
ar rcs "$out/libfcgiguard_fcgiapp.a" "$objects"/*.o
# The two libraries stand side by side, here and where they are installed.
rpath=${RPATH-'$ORIGIN'}
# shellcheck disable=SC2086,SC2016
${CC:-cc} -shared -pthread ${CFLAGS:-} -Wl,-soname,$shared -Wl,--version-script=ffi/shim/exports.map -Wl,--no-undefined \
    "$objects"/*.o -L"$lib" -lfcgiguard ${rpath:+-Wl,-rpath,$rpath} -o "$out/$shared"
ln -sf $shared "$out/libfcgiguard_fcgiapp.so"
