#!/bin/sh
# What: the Rust code is formatted (make fmt)
set -eu
cargo fmt --all --check
