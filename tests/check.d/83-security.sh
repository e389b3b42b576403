#!/bin/sh
# What: hostile users, workers and peers, what lies where sockets are put; licences and versions of what is built from
set -eu
tests/licences
.deps/venv/bin/python -m pytest tests/security ${K:+-k "$K"}
