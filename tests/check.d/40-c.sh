#!/bin/sh
# What: the C library: examples, misuse, vectors; C99 and C++11; valgrind
exec tests/c/run
