#!/bin/sh
# What `make install` and `make uninstall` do: tests/install.sh install|uninstall, with PREFIX and DESTDIR in the environment, and
# LIBDIR, the folder of libraries under the prefix where that is not lib (lib64, lib/x86_64-linux-gnu).
# It builds nothing, so that it can run as root without a toolchain.
set -eu
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
libdir=${LIBDIR:-lib}
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n1)
soversion=$(sed -n 's/.*"libfcgiguard\.so\.\([0-9]*\)".*/\1/p' ffi/build.rs | head -n1)
build=target/release
# From the folder of libraries back to the prefix.
up=$(printf %s "$libdir" | sed 's,[^/][^/]*,..,g')

# The one list: mode, source (a .in file is filled in; `-> name` is a link), place under the prefix.
list() {
    cat <<EOF
755 $build/fcgiguard bin/fcgiguard
644 $build/libfcgiguard.so $libdir/libfcgiguard.so.$version
->  libfcgiguard.so.$version $libdir/libfcgiguard.so.$soversion
->  libfcgiguard.so.$soversion $libdir/libfcgiguard.so
644 $build/libfcgiguard.a $libdir/libfcgiguard.a
644 $build/libfcgiguard_fcgiapp.so.$soversion $libdir/libfcgiguard_fcgiapp.so.$version
->  libfcgiguard_fcgiapp.so.$version $libdir/libfcgiguard_fcgiapp.so.$soversion
->  libfcgiguard_fcgiapp.so.$soversion $libdir/libfcgiguard_fcgiapp.so
644 $build/libfcgiguard_fcgiapp.a $libdir/libfcgiguard_fcgiapp.a
644 $build/libfcgiguard_worker.so lib/fcgiguard/libfcgiguard_worker.so
644 include/fcgiguard.h include/fcgiguard.h
644 include/fcgiguard_fcgiapp.h include/fcgiguard_fcgiapp.h
644 include/fcgiguard_stdio.h include/fcgiguard_stdio.h
644 include/fcgiguard_php.h include/fcgiguard_php.h
644 include/compat/fcgiapp.h include/fcgiguard/compat/fcgiapp.h
644 include/compat/fcgi_stdio.h include/fcgiguard/compat/fcgi_stdio.h
644 include/compat/fcgi_config.h include/fcgiguard/compat/fcgi_config.h
644 include/fcgiguard.pc.in $libdir/pkgconfig/fcgiguard.pc
644 include/fcgiguard_fcgiapp.pc.in $libdir/pkgconfig/fcgiguard_fcgiapp.pc
644 include/fcgiguard-config.cmake.in $libdir/cmake/fcgiguard/fcgiguard-config.cmake
644 include/fcgiguard-config-version.cmake.in $libdir/cmake/fcgiguard/fcgiguard-config-version.cmake
644 packaging/systemd/fcgiguard@.service.in lib/systemd/system/fcgiguard@.service
644 packaging/systemd/fcgiguard@.socket lib/systemd/system/fcgiguard@.socket
644 packaging/systemd/fcgiguard-exporter.service.in lib/systemd/system/fcgiguard-exporter.service
644 packaging/systemd/fcgiguard-watch.service.in lib/systemd/system/fcgiguard-watch.service
644 packaging/man/fcgiguard.1 share/man/man1/fcgiguard.1
644 packaging/man/fcgiguard.toml.5 share/man/man5/fcgiguard.toml.5
644 packaging/man/libfcgiguard.3 share/man/man3/libfcgiguard.3
644 packaging/fcgiguard.toml share/doc/fcgiguard/examples/fcgiguard.toml
644 packaging/prometheus/rules.yml share/doc/fcgiguard/examples/prometheus/rules.yml
644 packaging/prometheus/rules.test.yml share/doc/fcgiguard/examples/prometheus/rules.test.yml
644 packaging/prometheus/scrape.yml share/doc/fcgiguard/examples/prometheus/scrape.yml
644 packaging/grafana/fcgiguard.json share/doc/fcgiguard/examples/grafana/fcgiguard.json
644 packaging/completions/fcgiguard.bash share/bash-completion/completions/fcgiguard
644 packaging/completions/_fcgiguard share/zsh/site-functions/_fcgiguard
644 packaging/completions/fcgiguard.fish share/fish/vendor_completions.d/fcgiguard.fish
EOF
}

case ${1-} in
install)
    list | while read -r mode source place; do
        [ "$mode" = "->" ] || [ -e "$source" ] || { echo "install: $source is missing: make build first" >&2; exit 1; }
    done
    list | while read -r mode source place; do
        install -d "$root/$(dirname "$place")"
        case $mode:$source in
        '->':*) ln -sfn "$source" "$root/$place" ;;
        *.in)
            sed -e "s,@prefix@,$prefix,g" -e "s,@version@,$version,g" -e "s,@soversion@,$soversion,g" \
                -e "s,@libdir@,$libdir,g" -e "s,@up@,$up,g" "$source" >"$root/$place"
            chmod "$mode" "$root/$place"
            ;;
        *) install -m "$mode" "$source" "$root/$place" ;;
        esac
        echo "$root/$place"
    done
    # In the running system the linker's cache has to know; under DESTDIR that is the package manager's.
    if [ -z "${DESTDIR:-}" ] && [ "$(id -u)" = 0 ]; then
        case $prefix in /usr | /usr/local) ldconfig 2>/dev/null || true ;; esac
    fi
    ;;
uninstall)
    list | while read -r mode source place; do rm -f "$root/$place"; done
    # Folders that are nobody else's.
    doc=share/doc/fcgiguard
    for own in lib/fcgiguard "$libdir"/cmake/fcgiguard include/fcgiguard/compat include/fcgiguard \
        $doc/examples/prometheus $doc/examples/grafana $doc/examples $doc; do
        rmdir "$root/$own" 2>/dev/null || true
    done
    # Under a prefix of its own the empty rest goes too; in these two it is the system's.
    case $prefix in
    /usr | /usr/local) ;;
    *) list | while read -r mode source place; do
        while [ "$(dirname "$place")" != . ]; do
            place=$(dirname "$place")
            rmdir "$root/$place" 2>/dev/null || true
        done
    done ;;
    esac
    ;;
*) echo "usage: tests/install.sh install|uninstall" >&2; exit 3 ;;
esac
