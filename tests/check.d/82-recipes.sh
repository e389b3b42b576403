#!/bin/sh
# What: every file of docs/recipes with the real program that reads it
set -eu
if [ -n "${K:-}" ]; then
    exec .deps/venv/bin/python -m pytest tests/recipes -k "$K"
fi
# Side by side, since both mostly wait.
.deps/venv/bin/python -m pytest tests/recipes/test_applications.py tests/recipes/test_nagios.py tests/recipes/test_pages.py tests/recipes/test_systemd.py >target/recipes.log 2>&1 &
other=$!
status=0
.deps/venv/bin/python -m pytest tests/recipes/test_recipes.py || status=1
wait "$other" || status=1
cat target/recipes.log
exit $status
