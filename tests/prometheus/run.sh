#!/usr/bin/env bash
# The real Prometheus, with the rules of dashboards/, on a simulated fleet with faults: run.sh [check | watch]
#   check   asks it every query of every panel and every rule; each must return data (about two minutes)
#   watch   leaves both running on 127.0.0.1:9090, for a look with a browser or with Grafana; Ctrl-C ends it
# Needs Prometheus (Debian's package `prometheus`) and Python 3.11. Everything is in a folder of its own under target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1
command -v prometheus >/dev/null || {
    echo "no prometheus: apt-get install prometheus" >&2
    exit 2
}
python3 dashboards/build.py --check
if [ -z "${TELLERD:-}" ]; then
    cargo build --release --locked
    TELLERD="${CARGO_TARGET_DIR:-$PWD/target}/release/tellerd"
fi
export TELLERD
exec python3 tests/prometheus/fleet.py "${1:-check}"
