#!/bin/sh
# What: the same number of vectors ran in the same ways in five languages
set -eu
passed=0
want=$(grep -h '^vectors:' target/check/rust.log | head -n1)
[ -n "$want" ] || { echo "the rust tests say nothing of vectors"; exit 1; }
echo "rust    $want"
for step in c perl python php; do
    found=$(sed -n 's/^\(# \)*\(vectors: .*\)/\2/p' "target/check/$step.log" | head -n1)
    echo "$step $found"
    [ "$found" = "$want" ] || { echo "$step differs from rust"; exit 1; }
    passed=$((passed + 1))
done
echo "vectors: $passed passed, 0 failed"
