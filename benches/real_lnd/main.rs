//! What hold invoices cost at a real LND, alone and through tellerd: `tests/real_lnd/bench.sh`.
//!
//! Each figure of tellerd stands beside the same calls made by a bare tonic client at the same node in the same run.
//! Results are kept in docs/BENCHMARKS.md. After `--`: `rates`, `instant` or `thousand` runs one part, `quick` makes it
//! short.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bare;
#[allow(dead_code, reason = "shared with the benchmark of requests over Nostr")]
#[path = "../nostr_rpc/clients.rs"]
mod clients;
#[allow(dead_code, reason = "shared with the benchmark of requests over Nostr")]
#[path = "../nostr_rpc/daemon.rs"]
mod daemon;
mod instant;
#[allow(dead_code, reason = "shared with the benchmark of requests over Nostr")]
#[path = "../nostr_rpc/meter.rs"]
mod meter;
mod rates;
#[path = "../../tests/real_lnd/rig/mod.rs"]
mod rig;
#[allow(dead_code, reason = "shared with tests/suite")]
#[path = "../../tests/suite/site.rs"]
mod site;
#[allow(dead_code, reason = "shared with tests/real_lnd")]
#[path = "../../tests/real_lnd/teller.rs"]
mod teller;
mod thousand;
mod through;

use rig::Net;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let has = |word: &str| words.iter().any(|one| one == word);
    let all = !["rates", "instant", "thousand"].into_iter().any(has);
    let quick = has("quick");
    println!("{}", meter::machine());
    // One thread, and it is the main one: children are to die with it. tellerd has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let mut net = Net::up(&["--store-final-htlc-resolutions"]).await;
        if all || has("instant") {
            instant::run(&net, if quick { 10 } else { 50 }).await;
        }
        if all || has("rates") {
            rates::run(&net, if quick { 64 } else { 192 }, if quick { 1 } else { 3 }).await;
        }
        if all || has("thousand") {
            thousand::run(&mut net, if quick { 100 } else { 1_000 }).await;
        }
        net.down(false).await;
    });
}
