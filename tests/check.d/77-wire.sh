#!/bin/sh
# What: one case per clause of the protocol: ours in C, Perl, Python must be right in all; libfcgi in a few, to see that they can fail
set -e
ours=ours
[ -e target/check/perl/blib/lib/FCGI/Guard/FCGI.pm ] && ours=$ours,ours-Perl
[ -x target/check/python/venv/bin/python ] && target/check/python/venv/bin/python -c 'import fcgiguard.wsgi' 2>/dev/null && ours=$ours,ours-Python
tests/wire/run --servers "$ours" --quiet
# What libfcgi is known to do otherwise: a suite that passes it sees nothing.
peer=$(tests/wire/run --servers libfcgi --cases get,values-empty-padded,values-empty-unpadded,idle-holds-nobody,unknown-role,httpoxy)
echo "$peer" | grep 'libfcgi  '
echo "$peer" | grep -q '^libfcgi *2 of 6$' || { echo "libfcgi is expected to be right in 2 of these 6"; exit 1; }
