#!/bin/sh
# What: release build, without warnings from us
set -eu
cargo build --release --workspace
ffi/shim/build.sh target/release
