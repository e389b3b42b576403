#!/bin/sh
# What: unit and integration tests of the Rust crates
set -eu
# The header test reads the symbols of the debug library, which `cargo test` alone does not put where it looks.
cargo build --workspace
cargo test --workspace
