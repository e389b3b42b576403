#!/bin/sh
# What the matrix runs that `make build` does not make, into target/matrix: its workers in C, the Perl and the Python package.
# The packages that the steps perl and python of `make check` built are taken when nothing is newer than they are.
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)
out=target/matrix
mkdir -p $out

# True when $1 is there and no file of the other arguments is newer.
fresh() {
    stamp=$1
    shift
    [ -e "$stamp" ] && [ -z "$(find "$@" -type f -newer "$stamp" ! -path '*/target/*' ! -name '*.pyc' | head -n1)" ]
}

cc -O1 -Iinclude -o $out/worker-guard tests/matrix/workers/worker.c -Ltarget/release -lfcgiguard -Wl,-rpath,"$root/target/release"
cc -O1 -DLIBFCGI -o $out/worker-libfcgi tests/matrix/workers/worker.c -lfcgi

perl=target/check/perl
if ! fresh $perl/blib/arch/auto/FCGI/Guard/Guard.so bindings/perl target/release/libfcgiguard.a; then
    perl=$out/perl
    if ! fresh $perl/blib/arch/auto/FCGI/Guard/Guard.so bindings/perl target/release/libfcgiguard.a; then
        rm -rf $perl
        cp -r bindings/perl $perl
        (cd $perl && FCGIGUARD_LIB_DIR="$root/target/release" FCGIGUARD_INCLUDE_DIR="$root/include" /usr/bin/perl Makefile.PL && make) \
            >$out/perl.log 2>&1 || { cat $out/perl.log; exit 1; }
    fi
fi
ln -sfn "../../$perl" $out/perl-built

python=target/check/python/venv
if ! fresh $python/bin/python bindings/python fcgi-core; then
    python=$out/python
    if ! fresh $python/stamp bindings/python fcgi-core; then
        rm -rf $python
        CARGO_TARGET_DIR="$root/target/python" .deps/venv/bin/maturin build --release --quiet \
            --manifest-path bindings/python/Cargo.toml --out $out/wheel-new \
            --interpreter "$(.deps/venv/bin/python -c 'import sys; print(sys.executable)')"
        .deps/venv/bin/python -m venv $python
        $python/bin/pip install --quiet --no-index $out/wheel-new/*.whl
        rm -rf $out/wheel-new
        touch $python/stamp
    fi
fi
ln -sfn "../../$python" $out/python-built
