#!/bin/sh
# What: one case per clause of the protocol: ours in C, Perl, Python must be right in all; libfcgi and a naive server must not
set -e
ours=ours
[ -e target/check/perl/blib/lib/FCGI/Guard/FCGI.pm ] && ours=$ours,ours-Perl
[ -x target/check/python/venv/bin/python ] && target/check/python/venv/bin/python -c 'import fcgiguard.wsgi' 2>/dev/null && ours=$ours,ours-Python
tests/wire/run --servers "$ours" --quiet

# A suite that passes everybody sees nothing: what no real server gets wrong, apps/naive.py does.
seen() { # server, right, cases
    found=$(tests/wire/run --servers "$1" --cases "$3") || true
    echo "$found" | grep -q "^$1 *$2 of " || { echo "$found"; echo "$1 is expected to be right in $2 of these"; exit 1; }
    echo "$found" | grep "^$1 *$2 of "
}
seen libfcgi 2 get,values-empty-padded,values-empty-unpadded,idle-holds-nobody,unknown-role,httpoxy
seen naive 0 get,byte-by-byte,record-by-record,longest-record,padding,reserved,highest-id,long-form,bytes-not-text,big-body,connect-and-close,gone,gone-unread
