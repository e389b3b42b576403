#!/bin/sh
# What: each fault of `make soak` once, on a pool under load: nothing lost but by KILL, nothing left, nothing grown
exec tests/soak/run --short
