#!/bin/bash
# Makes Debian packages of a built tree: packaging/deb.sh [FOLDER FOR THE PACKAGES]
#
#   fcgiguard          the command, its manual, completions, units, the object that programs get preloaded
#   libfcgiguard0      the shared libraries; the 0 is the soname's, so that two of them are installed side by side
#   libfcgiguard-dev   headers, static libraries, pkg-config and CMake files, the manual of the library
#
# DEB_LEVEL is the compression's, 6 unless set. It installs with `make install` into a folder and cuts that up; needs dpkg-deb and dpkg-shlibdeps (dpkg-dev), no root.
set -eu
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-target/deb}")
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

upstream=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n1)
version=$upstream-1
architecture=$(dpkg --print-architecture)
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
soversion=$(sed -n 's/.*"libfcgiguard\.so\.\([0-9]*\)".*/\1/p' ffi/build.rs | head -n1)
lib=libfcgiguard$soversion
# The same tree gives the same packages: times are the last commit's.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH=$epoch
maintainer="${DEBFULLNAME:-fcgiguard} <${DEBEMAIL:-fcgiguard@localhost.localdomain}>"

# --- The whole, as it is installed --------------------------------------------------------------------------------------
tree=$work/tree
shim=$work/shim
DESTDIR=$tree PREFIX=/usr LIBDIR=lib/$multiarch tests/install.sh install >/dev/null
# The linker finds the library by itself where a package puts it.
RPATH='' CFLAGS="-fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wl,-z,relro,-z,now" ffi/shim/build.sh target/release "$shim"
install -m 644 "$shim/libfcgiguard_fcgiapp.so.$soversion" "$tree/usr/lib/$multiarch/libfcgiguard_fcgiapp.so.$upstream"
install -m 644 "$shim/libfcgiguard_fcgiapp.a" "$tree/usr/lib/$multiarch/"
strip --strip-unneeded -R .comment -R .note "$tree/usr/bin/fcgiguard" "$tree/usr/lib/fcgiguard/"*.so "$tree/usr/lib/$multiarch/"*.so."$upstream"
strip --strip-debug --enable-deterministic-archives "$tree/usr/lib/$multiarch/"*.a
find "$tree/usr/share/man" -type f -exec gzip -9n {} +

# --- Cut up -------------------------------------------------------------------------------------------------------------
move() { # package, paths below /usr...
    local package=$1 path
    shift
    for path in "$@"; do
        mkdir -p "$work/$package/usr/$(dirname "$path")"
        mv "$tree/usr/$path" "$work/$package/usr/$path"
    done
}
cd "$tree/usr"
move "$lib" lib/"$multiarch"/*.so."$soversion" lib/"$multiarch"/*.so."$upstream"
move libfcgiguard-dev include lib/"$multiarch" share/man/man3
cd - >/dev/null
mv "$tree" "$work/fcgiguard"

mkdir -p "$work/shlibs/debian"
printf 'Source: fcgiguard\n\nPackage: fcgiguard\nArchitecture: any\n' >"$work/shlibs/debian/control"
needs() { # package: what its programs and libraries are linked with
    local files
    mapfile -t files < <(find "$work/$1" -type f \( -name '*.so*' -o -path '*/bin/*' \))
    # Our own library is this package's, not another's.
    (cd "$work/shlibs" && dpkg-shlibdeps -O --ignore-missing-info -x"$lib" -l"$work/$lib/usr/lib/$multiarch" "${files[@]/#/-e}" 2>/dev/null) |
        sed -n 's/^shlibs:Depends=//p'
}

package() { # name, section, Depends, further fields; the description from standard input
    local name=$1 folder=$work/$1 doc=$work/$1/usr/share/doc/$1
    mkdir -p "$folder/DEBIAN" "$doc"
    gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
    printf 'fcgiguard (%s) unstable; urgency=medium\n\n  * Version %s.\n\n -- %s  %s\n' "$version" "$upstream" "$maintainer" \
        "$(date -uRd "@$epoch")" | gzip -9nc >"$doc/changelog.Debian.gz"
    {
        printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: fcgiguard\n\n'
        printf 'Files: *\nCopyright: the authors of fcgiguard\nLicense: Expat or Apache-2.0\n\nLicense: Expat\n'
        tail -n +3 LICENSE-MIT | sed 's/^$/./; s/^/ /'
        printf '\nLicense: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n'
    } >"$doc/copyright"
    {
        printf 'Package: %s\nSource: fcgiguard\nVersion: %s\nArchitecture: %s\nMaintainer: %s\n' "$name" "$version" "$architecture" "$maintainer"
        printf 'Installed-Size: %s\nDepends: %s\nSection: %s\nPriority: optional\n' \
            "$(du -sk --exclude=DEBIAN "$folder" | cut -f1)" "$3" "$2"
        printf '%b' "$4"
        printf 'Homepage: %s\n' "$(sed -n 's/^repository *= *"\(.*\)"/\1/p' Cargo.toml | head -n1)"
        cat
    } >"$folder/DEBIAN/control"
    (cd "$folder" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    find "$folder" -type d -exec chmod 755 {} +
    find "$folder" -newermt "@$epoch" -exec touch -hd "@$epoch" {} +
    dpkg-deb --root-owner-group -z"${DEB_LEVEL:-6}" --build "$folder" "$out/${name}_${version}_$architecture.deb" >/dev/null
    echo "$out/${name}_${version}_$architecture.deb"
}

# A tag that is meant: both libraries are of one version, and of one soname's number.
mkdir -p "$work/$lib/usr/share/lintian/overrides" "$work/$lib/DEBIAN"
echo "$lib: package-name-doesnt-match-sonames *" >"$work/$lib/usr/share/lintian/overrides/$lib"
printf '%s %s %s (>= %s)\n' libfcgiguard "$soversion" "$lib" "$upstream" libfcgiguard_fcgiapp "$soversion" "$lib" "$upstream" >"$work/$lib/DEBIAN/shlibs"
echo 'activate-noawait ldconfig' >"$work/$lib/DEBIAN/triggers"

package fcgiguard httpd "$(needs fcgiguard)" '' <<'EOF'
Description: probe and guard FastCGI services
 fcgiguard keeps FastCGI services up. It tells in one line whether a FastCGI
 server is alive, busy or dead, and it keeps a pool of worker processes of any
 FastCGI program on one socket: it replaces the dead, reloads without losing a
 request, and leaves no worker behind.
EOF
package "$lib" libs "$(needs "$lib")" 'Multi-Arch: same\n' <<'EOF'
Description: FastCGI: probe, respond, guard (shared libraries)
 libfcgiguard is the C library of fcgiguard: the application side of FastCGI,
 a client, a probe, and a pre-fork manager of worker processes.
 .
 With it comes libfcgi's interface on top of this library.
EOF
package libfcgiguard-dev libdevel "$lib (= $version)" '' <<'EOF'
Description: FastCGI: probe, respond, guard (development files)
 libfcgiguard is the C library of fcgiguard: the application side of FastCGI,
 a client, a probe, and a pre-fork manager of worker processes.
 .
 This package has its headers, static libraries, manual, and files for
 pkg-config and CMake.
EOF
