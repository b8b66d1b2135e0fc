# Runs steps with a heading and their time, counts the tests of each runner from its own closing lines, and sums up.
# Sourced by scripts/test. A failed step does not hide the others: all run, then the result is said.
# shellcheck shell=bash

passed=0
failed=0
failed_steps=()
summary=()
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT

# step NAME COMMAND…
step() {
    local name="$1" started=$SECONDS verdict=ok
    shift
    printf '\n=== %s ===\n' "$name"
    if ! "$@" </dev/null; then
        verdict=FAILED
        failed_steps+=("$name")
    fi
    printf -- '--- %s: %s, %d s\n' "$name" "$verdict" $((SECONDS - started))
    summary+=("$(printf '%5d s  %-7s %s' $((SECONDS - started)) "$verdict" "$name")")
}

# suite RUNNER NAME COMMAND…: a step whose tests are counted.
suite() {
    local runner="$1" name="$2" log="$logs/$1" before=${#failed_steps[@]} good bad
    shift 2
    step "$name" logged "$log" "$@"
    read -r good bad < <(count_"$runner" "$log")
    # A runner that died before it could count (it did not compile, say) is a failure too.
    if [ "${#failed_steps[@]}" -gt "$before" ] && [ "${bad:-0}" -eq 0 ]; then
        bad=1
    fi
    if [ "$runner" != doctest ] && [ "${good:-0}" -eq 0 ] && [ "${bad:-0}" -eq 0 ]; then
        echo "$name: no test was run"
        failed_steps+=("$name")
        bad=1
    fi
    passed=$((passed + ${good:-0}))
    failed=$((failed + ${bad:-0}))
}

logged() {
    local log="$1"
    shift
    "$@" 2>&1 | tee "$log"
    return "${PIPESTATUS[0]}"
}

# sum_before LOG WORDS: adds up the numbers that stand before the words of a closing line.
sum_before() { grep -oE "[0-9]+ ($2)" "$1" | awk '{ n += $1 } END { print n + 0 }'; }

count_nextest() {
    grep -E '^ *Summary \[' "$1" >"$1.sum"
    echo "$(sum_before "$1.sum" 'passed') $(sum_before "$1.sum" 'failed|exec failed|timed out')"
}

count_pytest() {
    grep -E '^=+ .* in [0-9.]+s' "$1" | tail -n 1 >"$1.sum"
    echo "$(sum_before "$1.sum" 'passed') $(sum_before "$1.sum" 'failed|errors?')"
}

count_clients() { count_pytest "$1"; }

count_node() {
    awk '/^(ℹ|#) pass [0-9]+$/ { good += $3 } /^(ℹ|#) (fail|cancelled) [0-9]+$/ { bad += $3 }
         END { print good + 0, bad + 0 }' "$1"
}

count_browser() { count_node "$1"; }

# A script's own last line: "NAME: N passed, N failed".
count_script() {
    grep -E '^[a-z]+: [0-9]+ passed, [0-9]+ failed$' "$1" | tail -n 1 >"$1.sum"
    echo "$(sum_before "$1.sum" 'passed') $(sum_before "$1.sum" 'failed')"
}

count_newcomer() { count_script "$1"; }

count_deploy() { count_script "$1"; }

count_doctest() {
    grep -E '^test result: ' "$1" >"$1.sum"
    echo "$(sum_before "$1.sum" 'passed') $(sum_before "$1.sum" 'failed')"
}

# Without tools nothing else makes sense.
need_steps_so_far() {
    if [ "${#failed_steps[@]}" -gt 0 ]; then
        failed=1
        finish
    fi
}

finish() {
    printf '\n=== Result ===\n'
    printf '%s\n' "${summary[@]}"
    printf '%5d s  in all\n' "$SECONDS"
    if [ "${#failed_steps[@]}" -gt 0 ]; then
        printf 'failed: %s\n' "${failed_steps[@]}"
    fi
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "${#failed_steps[@]}" -eq 0 ] && [ "$failed" -eq 0 ]
    exit
}
