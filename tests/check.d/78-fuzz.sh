#!/bin/sh
# What: a short fuzz of codec, connections, responder, addresses, options; and the fuzzer against planted bugs
set -e
tests/fuzz/run --seconds 10
exec tests/fuzz/run --plants
