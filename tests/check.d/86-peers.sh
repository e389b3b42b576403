#!/bin/sh
# What: five of today's managers' failures, ours and Debian's peers side by side
exec tests/peers/run --short
