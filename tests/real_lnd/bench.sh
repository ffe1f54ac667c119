#!/usr/bin/env bash
# The benchmark on a real LND: builds the nodes, then measures. See benches/real_lnd.
#   tests/real_lnd/bench.sh [rates|instant|thousand] [quick]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
TELLERD_REAL_LND=$("$here/build.sh" v0.21)
export TELLERD_REAL_LND
cd "$here/../.."
exec cargo bench --locked --bench real_lnd -- "$@"
