#!/bin/sh
# What: hundreds of endpoints, some hanging, some flapping: none delays another; exporter and watcher stay flat and under their ceiling
set -eu
cargo build --quiet --workspace --example probe_many
exec tests/scale/run --short
