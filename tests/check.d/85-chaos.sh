#!/bin/sh
# What: a short run of chaos: real processes under load, hurt in every way, nothing lost but by KILL
exec python3 tests/chaos/chaos.py --requests 20000
