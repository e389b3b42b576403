#!/bin/sh
# What: the ABI as C programs see it against its record in include/abi (abidiff)
set -eu
ffi/shim/build.sh target/release
exec tests/abi/run
