#!/usr/bin/env bash
# Puts known bugs back, one at a time, and tells after how many seeds the deterministic simulation finds each.
#
#   tests/mutants/run.sh [--seeds N] [NAME...]   each NAME.patch (all without a name), at most N seeds (3000)
#   tests/mutants/run.sh --check                 only whether every patch still applies
#
# Each patch begins with what the bug is and which rule of the design it breaks. One that does not apply any more is stale: mend
# it. Builds in target/mutants, once with all dependencies (`cp -a target/debug target/mutants/target/` saves that).
# Needs git and what the build needs. The history that shows a bug is in target/mutants/NAME.log. Status 1: a bug was not found.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD work=$PWD/target/mutants seeds=3000 check=
names=()
while [ $# -gt 0 ]; do
    case "$1" in
        --check) check=1 ;;
        --seeds) seeds=$2; shift ;;
        -*) echo "$0: no option $1" >&2; exit 2 ;;
        *) names+=("$1") ;;
    esac
    shift
done
if [ ${#names[@]} -eq 0 ]; then
    for patch in tests/mutants/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi

if [ -n "$check" ]; then
    stale=0
    for name in "${names[@]}"; do
        git apply --check "tests/mutants/$name.patch" || { echo "$name: the patch does not apply" >&2; stale=1; }
    done
    echo "${#names[@]} patches checked"
    exit $stale
fi

tree=$work/tree
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -xm -C "$tree"
cd "$tree"
# Not the repository around it, in which this folder is ignored.
export GIT_CEILING_DIRECTORIES=$work CARGO_TARGET_DIR=$work/target RUST_LOG=off RUST_BACKTRACE=0

missed=0
printf '| %-28s | %5s | %-24s | %9s | %9s |\n' bug seed 'rule broken' histories cash-outs
printf '|%s|%s:|%s|%s:|%s:|\n' "$(printf -- '-%.0s' {1..30})" ------ "$(printf -- '-%.0s' {1..26})" ---------- ----------
for name in "${names[@]}"; do
    patch=$root/tests/mutants/$name.patch log=$work/$name.log
    git apply "$patch" || { echo "$name: the patch does not apply" >&2; exit 2; }
    cargo build --quiet --locked --bin tellerd 2>"$log" || { cat "$log" >&2; exit 2; }
    # One thread: no history beyond the first violation is counted.
    timeout 3600 "$CARGO_TARGET_DIR/debug/tellerd" simulate --deterministic --seed 1 --seeds "$seeds" --threads 1 --violations 1 \
        >"$log" 2>/dev/null || true
    git apply -R "$patch"
    found=$(sed -n 's/^VIOLATION in seed \([0-9]*\): \([a-z_]*\): .*/\1 \2/p' "$log" | head -n 1)
    cashouts=$(sed -n 's/^ *\([0-9]*\) cash-outs: .*/\1/p' "$log" | head -n 1)
    histories=$(sed -n 's/^seeds .*: \([0-9]*\) histories, .*/\1/p' "$log" | head -n 1)
    [ -n "$found" ] || { found="- -"; missed=1; }
    printf '| %-28s | %5s | %-24s | %9s | %9s |\n' "$name" ${found:-- -} "${histories:--}" "${cashouts:--}"
done
[ $missed -eq 0 ] || echo "a bug was not found" >&2
exit $missed
