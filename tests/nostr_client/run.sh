#!/usr/bin/env bash
# The Nostr RPC with a client in Python, over one of these relays: run.sh ours | foreign | no-ok
#   ours            tellerd emulate relay
#   foreign         npm's @nostr-relay (relay_node): kept up to date, starts in a second, no compiler needed
#   no-ok           ours again, and it sends no OK for ephemeral events, as nostr-rs-relay does
# Everything runs on 127.0.0.1, in a folder of its own under target/, and ends with this script.
set -euo pipefail
mode="${1:-ours}"
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
home="$target/nostr_client"
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$home"

if [ -z "${TELLERD:-}" ]; then
    cargo build --locked
    TELLERD="$target/debug/tellerd"
fi
export TELLERD

# What it needs.
python="$home/venv/bin/python"
if ! cmp -s "$here/requirements.txt" "$home/venv/requirements.txt"; then
    python3 -m venv --clear "$home/venv"
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$home/venv/"
fi
case "$mode" in
ours | no-ok) ;;
foreign)
    mkdir -p "$home/relay_node"
    cp "$here"/relay_node/{server.mjs,package.json} "$home/relay_node/"
    if ! cmp -s "$here/relay_node/package-lock.json" "$home/relay_node/installed.json"; then
        cp "$here/relay_node/package-lock.json" "$home/relay_node/"
        (cd "$home/relay_node" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
        cp "$here/relay_node/package-lock.json" "$home/relay_node/installed.json"
    fi
    ;;
*)
    echo "usage: run.sh ours | foreign | no-ok" >&2
    exit 2
    ;;
esac

"$python" "$here/vectors.py"

# The world.
WORK="$(mktemp -d "$home/run.XXXXXX")"
export WORK
pids=()
cleanup() {
    status=$?
    trap - EXIT INT TERM
    touch "$WORK/stop"
    [ ! -s "$WORK/tellerd.pid" ] || kill -TERM "$(cat "$WORK/tellerd.pid")" 2>/dev/null || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    if [ "$status" -eq 0 ]; then
        rm -rf "$WORK"
    else
        echo "logs are in $WORK; the last lines of tellerd's:" >&2
        tail -n 20 "$WORK/tellerd.log" >&2 || true
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

wait_for() { # FILE PATTERN
    for _ in $(seq 300); do
        if grep -qs "$2" "$1"; then return; fi
        sleep 0.1
    done
    echo "no '$2' in $1:" >&2
    cat "$1" >&2
    return 1
}

read -r lnd_port http_port relay_port careless_port <<<"$("$python" - <<'PY'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in sockets))
PY
)"
export LND_ADDRESS="127.0.0.1:$lnd_port" HTTP_ADDRESS="127.0.0.1:$http_port"
export RELAY="ws://127.0.0.1:$relay_port" CARELESS="ws://127.0.0.1:$careless_port"

(cd "$WORK" && exec "$TELLERD" emulate lnd --dir lnd --listen "$LND_ADDRESS") >"$WORK/lnd.log" 2>&1 &
pids+=($!)
"$python" "$here/careless_relay.py" "$careless_port" >"$WORK/careless.log" 2>&1 &
pids+=($!)
case "$mode" in
ours | no-ok)
    options=()
    [ "$mode" = ours ] || options=(--no-ok)
    "$TELLERD" emulate relay --listen "127.0.0.1:$relay_port" "${options[@]}" >"$WORK/relay.log" 2>&1 &
    pids+=($!)
    wait_for "$WORK/relay.log" "relay on ws://"
    ;;
foreign)
    node "$home/relay_node/server.mjs" "$relay_port" >"$WORK/relay.log" 2>&1 &
    pids+=($!)
    wait_for "$WORK/relay.log" "relay on ws://"
    ;;
esac
wait_for "$WORK/lnd.log" "simulated LND on"
wait_for "$WORK/careless.log" "relay on ws://"

cat >"$WORK/fleet.toml" <<TOML
data_dir = "data"

[http]
listen = "$HTTP_ADDRESS"
token_file = "tellerd.token"

[lnd]
address = "$LND_ADDRESS"
tls_cert = "lnd/tls.cert"
macaroon = "lnd/admin.macaroon"

[rate]
currency = "EUR"
per_btc = "95000.00"

[nostr]
key_file = "nostr.key"
relays = ["$RELAY", "$CARELESS"]

[service]
name = "service under test"
requests_per_minute = 3000

[[service.client]]
name = "slow"
max_amount_sats = 1000
requests_per_minute = 6
TOML
"$TELLERD" check --config "$WORK/fleet.toml"

# As a service manager: starts tellerd again whenever it ends.
service() {
    for _ in $(seq 30); do
        [ ! -e "$WORK/stop" ] || return 0
        "$TELLERD" run --config "$WORK/fleet.toml" >>"$WORK/tellerd.log" 2>&1 &
        echo $! >"$WORK/tellerd.pid"
        wait $! || true
    done
}
service 2>/dev/null &

echo "scenarios over $mode"
"$python" "$here/scenarios.py"
