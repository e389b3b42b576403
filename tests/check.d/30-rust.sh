#!/bin/sh
# What: unit and integration tests of the Rust crates
set -eu
cargo test --workspace
