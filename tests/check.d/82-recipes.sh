#!/bin/sh
# What: every file of docs/recipes with the real program that reads it
set -eu
.deps/venv/bin/python -m pytest tests/recipes ${K:+-k "$K"}
