#!/bin/sh
# What `make install` and `make uninstall` do: tests/install.sh install|uninstall, with PREFIX and DESTDIR in the environment.
# It builds nothing, so that it can run as root without a toolchain.
set -eu
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n1)
soversion=$(sed -n 's/.*"libfcgiguard\.so\.\([0-9]*\)".*/\1/p' ffi/build.rs | head -n1)
build=target/release

# The one list: mode, source (a .in file is filled in; `-> name` is a link), place under the prefix.
list() {
    cat <<EOF
755 $build/fcgiguard bin/fcgiguard
644 $build/libfcgiguard.so lib/libfcgiguard.so.$version
->  libfcgiguard.so.$version lib/libfcgiguard.so.$soversion
->  libfcgiguard.so.$soversion lib/libfcgiguard.so
644 $build/libfcgiguard.a lib/libfcgiguard.a
644 $build/libfcgiguard_fcgiapp.so.$soversion lib/libfcgiguard_fcgiapp.so.$version
->  libfcgiguard_fcgiapp.so.$version lib/libfcgiguard_fcgiapp.so.$soversion
->  libfcgiguard_fcgiapp.so.$soversion lib/libfcgiguard_fcgiapp.so
644 $build/libfcgiguard_fcgiapp.a lib/libfcgiguard_fcgiapp.a
644 $build/libfcgiguard_worker.so lib/fcgiguard/libfcgiguard_worker.so
644 include/fcgiguard.h include/fcgiguard.h
644 include/fcgiguard_fcgiapp.h include/fcgiguard_fcgiapp.h
644 include/fcgiguard_stdio.h include/fcgiguard_stdio.h
644 include/fcgiguard_php.h include/fcgiguard_php.h
644 include/compat/fcgiapp.h include/fcgiguard/compat/fcgiapp.h
644 include/compat/fcgi_stdio.h include/fcgiguard/compat/fcgi_stdio.h
644 include/compat/fcgi_config.h include/fcgiguard/compat/fcgi_config.h
644 include/fcgiguard.pc.in lib/pkgconfig/fcgiguard.pc
644 include/fcgiguard_fcgiapp.pc.in lib/pkgconfig/fcgiguard_fcgiapp.pc
644 include/fcgiguard-config.cmake.in lib/cmake/fcgiguard/fcgiguard-config.cmake
644 include/fcgiguard-config-version.cmake.in lib/cmake/fcgiguard/fcgiguard-config-version.cmake
644 packaging/systemd/fcgiguard@.service.in lib/systemd/system/fcgiguard@.service
644 packaging/systemd/fcgiguard@.socket lib/systemd/system/fcgiguard@.socket
644 packaging/man/fcgiguard.1 share/man/man1/fcgiguard.1
644 packaging/man/libfcgiguard.3 share/man/man3/libfcgiguard.3
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
            sed -e "s,@prefix@,$prefix,g" -e "s,@version@,$version,g" -e "s,@soversion@,$soversion,g" "$source" >"$root/$place"
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
    for own in lib/fcgiguard lib/cmake/fcgiguard include/fcgiguard/compat include/fcgiguard; do
        rmdir "$root/$own" 2>/dev/null || true
    done
    ;;
*) echo "usage: tests/install.sh install|uninstall" >&2; exit 3 ;;
esac
