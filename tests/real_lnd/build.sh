#!/usr/bin/env bash
# Builds btcd, btcctl, lnd and lncli of one release line into target/real_lnd/LINE and prints that folder.
# Needs Go; the modules come through the Go module proxy and are pinned by nodes/LINE/go.sum.
set -euo pipefail
line=${1:-v0.21}
here=$(cd "$(dirname "$0")" && pwd)
out=${CARGO_TARGET_DIR:-$here/../../target}/real_lnd/$line
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here/nodes/$line"
export GOTOOLCHAIN=local GOWORK=off CGO_ENABLED=0 GOFLAGS=-mod=readonly
# Go's own cache makes this a matter of seconds when nothing has changed.
go build -trimpath -ldflags "-s -w" -tags "chainrpc invoicesrpc routerrpc signrpc walletrpc" -o "$out/" \
    github.com/lightningnetwork/lnd/cmd/lnd github.com/lightningnetwork/lnd/cmd/lncli \
    github.com/btcsuite/btcd github.com/btcsuite/btcd/cmd/btcctl
echo "$out"
