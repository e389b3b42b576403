#!/bin/sh
# What: every fault of the soak once, under load: nothing lost but by KILL, nothing left, nothing grown
exec tests/soak/run --short
