#!/bin/sh
# What: hostile users, workers and peers, and what lies where sockets are put
set -eu
.deps/venv/bin/python -m pytest tests/security ${K:+-k "$K"}
