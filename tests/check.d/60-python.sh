#!/bin/sh
# What: the Python wheel, in an environment that has nothing else, and its tests
set -eu
root=$(pwd)
rm -rf target/check/python
mkdir -p target/check/python
export CARGO_TARGET_DIR="$root/target/python"
.deps/venv/bin/maturin build --release --quiet --manifest-path bindings/python/Cargo.toml --out target/check/python \
    --interpreter "$(.deps/venv/bin/python -c 'import sys; print(sys.executable)')"
# maturin's audit: what the wheel links to is on every Linux from the glibc of its name on.
case $(echo target/check/python/*.whl) in
*-cp310-abi3-manylinux_*) ;;
*)
    echo "not a wheel for every Linux: $(echo target/check/python/*.whl)" >&2
    exit 1
    ;;
esac
.deps/venv/bin/python -m venv target/check/python/venv
target/check/python/venv/bin/pip install --quiet --no-index target/check/python/*.whl
# The wheel must need nothing beside itself: it is installed and asked before the tools of its tests come in.
target/check/python/venv/bin/python -m fcgiguard --version >/dev/null
target/check/python/venv/bin/pip install --quiet pytest pytest-timeout pytest-xdist 'django>=5.2' 'mypy>=1.15'
# Three at a time: they wait more than they work. The vectors' counts, which the step vectors compares, are printed by one alone.
target/check/python/venv/bin/python -m pytest -q --timeout 120 bindings/python/tests/test_vectors.py
target/check/python/venv/bin/python -m pytest -q --timeout 120 -n 3 --ignore bindings/python/tests/test_vectors.py bindings/python/tests
# The same wheel on the oldest and the newest Python at hand, where there are others.
WHEEL=$(ls target/check/python/*.whl) tests/pythons/run --core --ends
