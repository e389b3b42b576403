#!/bin/sh
# What: what the build and the tests need
set -eu
tests/deps.sh
