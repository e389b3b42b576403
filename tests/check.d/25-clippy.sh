#!/bin/sh
# What: clippy, warnings are errors
set -eu
cargo clippy --workspace --all-targets -- -D warnings
