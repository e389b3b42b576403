#!/bin/bash
# `make check`: runs the steps of tests/check.d in the order of their numbers and stops at the first that fails.
#
#   tests/check.sh             every step
#   tests/check.sh build fmt   these alone (names without number and .sh)
#   KEEP_GOING=1 ...           goes on after a step that failed (not after deps and build: the rest needs them)
#
# A step is an executable file NN-name.sh, run in the root of the tree; its second line, `# What: ...`, is its heading. It fails by
# its exit status. Steps count tests by the closing lines that the runners print (pytest, cargo test, prove, PHPUnit) or by a plain
# `name: N passed, N failed`; the sum of them is the last line here. A step whose tree part is absent is not a step: remove the file.
set -u
cd "$(dirname "$0")/.." || exit 1
# A test that cannot run for want of a server fails; FCGIGUARD_ALLOW_SKIP=1 lets it skip, with its reason.
export LC_ALL=C.UTF-8 CARGO_TERM_COLOR=never
logs=target/check
mkdir -p "$logs"
[ $# -gt 0 ] || rm -f "$logs"/*.log
started=$SECONDS
table=() broken=()
passed=0 failed=0 skipped=0

# Adds up the closing lines of the runners in file $1: prints "passed failed skipped".
count() {
    sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
        function take(word,   n) { return match($0, "[0-9]+ " word) ? substr($0, RSTART, RLENGTH) + 0 : 0 }
        # cargo test
        /^test result: / { p += take("passed"); f += take("failed"); s += take("ignored"); next }
        # pytest
        /^(=+ )?[0-9]+ (passed|failed|skipped|error).* in [0-9.]+s/ { p += take("passed"); f += take("failed") + take("error"); s += take("skipped"); next }
        # the plain line
        /^([a-z0-9_.-]+: )?[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { p += take("passed"); f += take("failed"); s += take("skipped"); next }
        # prove
        /^Files=[0-9]+, Tests=[0-9]+/ { match($0, "Tests=[0-9]+"); p += substr($0, RSTART + 6, RLENGTH - 6); next }
        # PHPUnit
        /^OK \([0-9]+ test/ { match($0, "[0-9]+"); p += substr($0, RSTART, RLENGTH); next }
        END { print p + 0, f + 0, s + 0 }'
}

summary() {
    printf '\n%-12s %8s %8s %8s %8s\n' step seconds passed failed skipped
    for row in "${table[@]}"; do
        # shellcheck disable=SC2086 # five words
        printf '%-12s %8s %8s %8s %8s\n' $row
    done
    printf 'took %d s\n' $((SECONDS - started))
}

for step in tests/check.d/[0-9][0-9]-*.sh; do
    name=${step##*/??-}
    name=${name%.sh}
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    printf '\n=== %s: %s\n' "$name" "$(sed -n 's/^# What: //p' "$step" | head -n1)"
    begun=$SECONDS
    "$step" </dev/null 2>&1 | tee "$logs/$name.log"
    status=${PIPESTATUS[0]}
    read -r p f s < <(count "$logs/$name.log")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    table+=("$name $((SECONDS - begun)) $p $f $s")
    if [ "$status" != 0 ]; then
        [ "$f" -gt 0 ] || failed=$((failed + 1))
        broken+=("$(printf 'FAILED at %s (exit status %s); its output is in %s, and tests/check.sh %s runs it alone' \
            "$name" "$status" "$logs/$name.log" "$name")")
        case "${KEEP_GOING:-} $name" in "1 deps" | "1 build" | " "*) break ;; esac
    fi
done
[ ${#table[@]} -gt 0 ] || { echo "no step is called so: $*" >&2; exit 3; }
summary
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ ${#broken[@]} -eq 0 ] || printf '%s\n' "${broken[@]}"
# A count of failures where no step failed is a runner whose status was lost: that is a failure too.
[ "$failed" = 0 ]
