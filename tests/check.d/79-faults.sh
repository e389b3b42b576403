#!/bin/sh
# What: system calls that fail: a sample of the faults of `make faults`; and that no library that is shipped has the seam for them
set -eu
cargo clippy --quiet -p fcgi-core --features fault-injection --all-targets -- -D warnings
if [ -e target/release/libfcgiguard.so ] && grep -q FCGIGUARD_FAULT_TRACE target/release/libfcgiguard.so; then
    echo "target/release/libfcgiguard.so was built with fault-injection" >&2
    exit 1
fi
exec tests/faults/run short
