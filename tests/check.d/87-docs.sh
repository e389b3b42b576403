#!/bin/sh
# What: links of all pages, one version everywhere, and the pages `start in five minutes` done as they say
set -eu
tests/links
tests/versions
.deps/venv/bin/python -m pytest -q --timeout 120 -p no:cacheprovider tests/start
