#!/bin/sh
# What: what is in each archive of a release; fcgi-core built and tested from its own. Wheel, CPAN and Composer archives are installed and tested in steps python, perl, php
set -eu
tests/package/run --list --dirty crates sdist cpan composer
tests/package/run --dirty core
