#!/bin/sh
# What: links of all pages, what they say of the tree, figures with command and date, one version everywhere, and the pages `start in five minutes` done as they say
set -eu
tests/links
tests/claims
tests/versions
RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --no-deps -p fcgi-core
.deps/venv/bin/python -m pytest -q --timeout 120 -p no:cacheprovider tests/start
