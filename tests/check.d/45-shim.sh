#!/bin/sh
# What: the libfcgi-compatible library: programs for libfcgi compiled unchanged
set -eu
cargo build --quiet --release -p fcgiguard-ffi -p fcgiguard
exec tests/shim/run
