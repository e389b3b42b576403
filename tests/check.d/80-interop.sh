#!/bin/sh
# What: real servers, real web servers, real monit
set -eu
# Three at a time: they wait more than they work.
.deps/venv/bin/python -m pytest tests/interop -n 3 ${K:+-k "$K"}
