#!/usr/bin/env bash
# The tests against a real LND: builds the nodes, then runs them on simnet, all on 127.0.0.1.
#   tests/real_lnd/run.sh [v0.21|v0.20] [WORD...]      only the tests whose names contain one of the words
set -euo pipefail
line=v0.21
case ${1:-} in v0.*) line=$1; shift ;; esac
here=$(cd "$(dirname "$0")" && pwd)
TELLERD_REAL_LND=$("$here/build.sh" "$line")
export TELLERD_REAL_LND
cd "$here/../.."
exec cargo test --locked --test real_lnd -- "$@"
