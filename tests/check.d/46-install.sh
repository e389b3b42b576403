#!/bin/sh
# What: install into a fresh DESTDIR, compile and run from there, uninstall
set -eu
ffi/shim/build.sh target/release
exec tests/install/run
