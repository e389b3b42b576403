#!/bin/sh
# What: six web servers by eight kinds of workers by 27 cases, with small bodies; docs/interop.md has what it expects
exec tests/matrix/run --short
