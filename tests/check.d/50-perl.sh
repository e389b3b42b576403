#!/bin/sh
# What: the Perl distribution: built as CPAN would, its tests, its only symbol
set -eu
root=$(pwd)
rm -rf target/check/perl
mkdir -p target/check
cp -r bindings/perl target/check/perl
cp tests/vectors/vectors.txt target/check/perl/t/
cd target/check/perl
export FCGIGUARD_LIB_DIR="$root/target/release" FCGIGUARD_INCLUDE_DIR="$root/include"
/usr/bin/perl Makefile.PL
make
make test TEST_VERBOSE=0
symbols=$(nm -D --defined-only blib/arch/auto/FCGI/Guard/Guard.so | awk '{print $3}')
[ "$symbols" = boot_FCGI__Guard ] || { echo "Guard.so leaks symbols: $symbols"; exit 1; }
