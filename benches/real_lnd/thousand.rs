//! Many invoices open at once: streams, memory on both sides, and the time to be back at all of them after LND's restart.

use std::time::Instant;

use tellerd::proto::lnrpc::WalletState;

use crate::rates::{Op, preimages};
use crate::rig::{Net, until};
use crate::through::Through;

/// Streams that were opened well.
const STREAMS: &str = "tellerd_lnd_request_duration_seconds_count{method=\"watch\",outcome=\"ok\"}";
/// Preimages that the other parts do not use.
const FIRST: usize = 1 << 40;

pub async fn run(net: &mut Net, count: usize) {
    let through = Through::start(net);
    let before = (memory_mib(net.merchant.process().id()), memory_mib(std::process::id()));
    let requests = through.requests(Op::Add, &preimages(FIRST..FIRST + count));
    through.all(requests, 64).await;
    streams(&through, count).await;
    let after = (memory_mib(net.merchant.process().id()), memory_mib(std::process::id()));
    println!("\n{count} invoices open at once");
    println!("| | |\n|---|---|");
    println!("| streams at LND | {:.0} |", through.metric(STREAMS));
    println!(
        "| lnd's memory before, after | {:.1} MiB, {:.1} MiB |",
        before.0, after.0
    );
    println!(
        "| tellerd's memory before, after (this process) | {:.1} MiB, {:.1} MiB |",
        before.1, after.1
    );
    net.merchant.kill();
    let opened = through.metric(STREAMS);
    net.merchant.start();
    let started = Instant::now();
    net.merchant.reaches(WalletState::RpcActive).await;
    let active = Instant::now();
    streams(&through, opened as usize + count).await;
    println!(
        "| lnd killed and started: its RPC active after | {:.1} s |",
        (active - started).as_secs_f64()
    );
    println!(
        "| from there until tellerd has all streams again | {:.1} s |",
        active.elapsed().as_secs_f64()
    );
}

/// Returns once so many streams have been opened.
async fn streams(through: &Through, count: usize) {
    until("all streams are open", async || through.metric(STREAMS) >= count as f64).await;
}

/// Resident memory of a process.
fn memory_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024.0
}
