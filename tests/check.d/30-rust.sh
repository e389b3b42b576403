#!/bin/sh
# What: unit and integration tests of the Rust crates
set -eu
cargo build --workspace
cargo test --workspace
# Once more for its counts, which the vectors step compares with the other languages'.
cargo test -p fcgi-core --test vectors -- --nocapture
# What `make mutants` takes out of the tree still stands alone.
tests/mutants/run --short
