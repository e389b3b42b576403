#!/bin/sh
# What: real servers, real web servers, real monit
set -eu
.deps/venv/bin/python -m pytest tests/interop ${K:+-k "$K"}
