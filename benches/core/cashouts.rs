//! Whole cash-outs per second: from the customer's wish to the money that is there, with a device that answers at once.
//!
//! The limit is a bare loop that makes the same calls at the same node over TLS and waits for as many flushes of a record,
//! one after the other, with no machine, no rule and no supervisor. With several machines its flushes are shared as the
//! journal's are, by a thread that writes and syncs what waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tellerd::actors::fleet::Fleet;
use tellerd::ids::{AtmId, Preimage};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bare::{Bare, held};
use crate::daemon::{Daemon, beside, text};
use crate::disk::Flusher;
use crate::journal::median;
use crate::machines::{Machines, name};
use crate::meter;
use crate::node::{Node, Thread};

const MACHINES: [usize; 3] = [1, 16, 64];
/// Notes of one cash-out.
const THREE: u32 = 3;
/// What the bare loop's invoices are over.
const PRICE_MSAT: u64 = 64_210_526;

/// What one round of a fleet told.
struct Round {
    per_second: f64,
    /// Of one cash-out.
    syncs: f64,
    records: f64,
    /// Calls of LND of one cash-out, by name.
    calls: Vec<(&'static str, f64)>,
    /// CPU µs of one cash-out, by thread.
    cpu: BTreeMap<String, f64>,
}

pub fn run(quick: bool) {
    let (rounds, count): (usize, usize) = if quick { (1, 64) } else { (5, 1_280) };
    println!("\n## Whole cash-outs per second, the median of {rounds} rounds of {count}");
    println!("| machines | tellerd | bare | ratio | syncs of one | records of one | CPU µs of one, by thread |");
    println!("|---|---|---|---|---|---|---|");
    let (mut flushes, mut calls) = (0, Vec::new());
    for atms in MACHINES {
        let (mut through, mut bare, mut last) = (Vec::new(), Vec::new(), None);
        for _ in 0..rounds {
            let round = fleet(atms, count.div_ceil(atms));
            if atms == 1 {
                // One after the other: each wait for the disk is a sync of its own.
                flushes = round.syncs.round() as usize;
                calls.clone_from(&round.calls);
            }
            through.push(round.per_second);
            bare.push(limit(atms, count.div_ceil(atms), flushes));
            last = Some(round);
        }
        let (through, bare, last) = (median(&mut through), median(&mut bare), last.unwrap());
        let cpu = last.cpu.iter().filter(|(_, spent)| **spent >= 5.0);
        let cpu: Vec<String> = cpu.map(|(thread, spent)| format!("{thread} {spent:.0}")).collect();
        let (ratio, syncs, records, cpu) = (through / bare, last.syncs, last.records, cpu.join(", "));
        println!("| {atms} | {through:.0} | {bare:.0} | {ratio:.2} | {syncs:.1} | {records:.1} | {cpu} |");
    }
    let calls: Vec<String> = calls.iter().map(|(call, times)| format!("{call} {times:.1}")).collect();
    println!(
        "The bare loop waits for {flushes} flushes. LND's calls of one cash-out: {}",
        calls.join(", ")
    );
}

fn fleet(atms: usize, each: usize) -> Round {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start();
    let machines = Machines::in_memory(atms);
    let config = text(&node.section(node.address), dir.path(), atms);
    let (told, round) = std::sync::mpsc::channel();
    beside(dir.path(), &config, &machines.lines, async move |daemon| {
        told.send(customers(daemon, Arc::new(node), atms, each).await).unwrap();
    });
    let notes = u32::try_from(atms * (each + 1)).unwrap() * THREE;
    assert_eq!(machines.delivered(), notes, "notes came out of the machines");
    round.recv().unwrap()
}

/// Each machine has a customer after the other; they are on a thread of their own, as they are over the API.
async fn customers(daemon: &Daemon, node: Arc<Node>, atms: usize, each: usize) -> Round {
    let runtime = Thread::start("customers");
    let mut ends = ends(&runtime, &daemon.fleet, atms);
    // One that is not counted: everything is connected and open after it.
    ends = all(&runtime, daemon, &node, ends, 1).await;
    let before = Figures::read(daemon).await;
    let begun = Instant::now();
    all(&runtime, daemon, &node, ends, each).await;
    let (wall, count) = (begun.elapsed().as_secs_f64(), (atms * each) as f64);
    let after = Figures::read(daemon).await;
    let of_one = |now: f64, then: f64| (now - then) / count;
    let calls = after.calls.iter().zip(&before.calls);
    let calls = calls.map(|((call, now), (_, then))| (*call, of_one(*now, *then)));
    let spent = |name: &String| before.cpu.get(name).copied().unwrap_or_default();
    let cpu = after.cpu.iter();
    let cpu = cpu.map(|(thread, now)| (thread.clone(), of_one(*now, spent(thread)) * 1e6));
    Round {
        per_second: count / wall,
        syncs: of_one(after.syncs, before.syncs),
        records: of_one(after.records, before.records),
        calls: calls.filter(|(_, times)| *times >= 0.1).collect(),
        cpu: cpu.collect(),
    }
}

struct Figures {
    syncs: f64,
    records: f64,
    calls: Vec<(&'static str, f64)>,
    cpu: BTreeMap<String, f64>,
}

impl Figures {
    async fn read(daemon: &Daemon) -> Self {
        let mut calls = Vec::new();
        for method in [
            "add_hold_invoice",
            "lookup",
            "watch",
            "commit",
            "settle",
            "funds",
            "info",
            "state",
        ] {
            let name = format!("tellerd_lnd_request_duration_seconds_count{{method=\"{method}\",outcome=\"ok\"}}");
            calls.push((method, daemon.metric(&name).await));
        }
        let syncs = daemon.syncs.lock().unwrap().len() as f64;
        Self {
            syncs,
            records: daemon.metric("tellerd_journal_records_total").await,
            calls,
            cpu: meter::threads(),
        }
    }
}

/// Tells each machine's customer when a cash-out there is at its end.
fn ends(runtime: &Runtime, fleet: &Fleet, atms: usize) -> Vec<UnboundedReceiver<String>> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..atms).map(|_| unbounded_channel()).unzip();
    let places = (0..atms).map(name).zip(senders);
    let places: BTreeMap<AtmId, UnboundedSender<String>> = places.collect();
    let mut changes = fleet.follow();
    runtime.spawn(async move {
        while let Ok(cashout) = changes.recv().await {
            if cashout.is_final() {
                let _ = places[&cashout.quote.atm].send(cashout.phase.name().to_owned());
            }
        }
    });
    receivers
}

async fn all(
    runtime: &Runtime,
    daemon: &Daemon,
    node: &Arc<Node>,
    ends: Vec<UnboundedReceiver<String>>,
    each: usize,
) -> Vec<UnboundedReceiver<String>> {
    let customers = ends.into_iter().enumerate().map(|(index, mut end)| {
        let (fleet, node) = (daemon.fleet.clone(), Arc::clone(node));
        runtime.spawn(async move {
            for _ in 0..each {
                let cashout = crate::daemon::promised(&fleet, &name(index)).await;
                node.pay(cashout.payment_request.as_deref().unwrap()).await;
                assert_eq!(end.recv().await.as_deref(), Some("completed"));
            }
            end
        })
    });
    let done = futures_util::future::join_all(customers.collect::<Vec<_>>()).await;
    done.into_iter().map(Result::unwrap).collect()
}

/// The same without a supervisor.
fn limit(workers: usize, each: usize, flushes: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(Node::start());
    let (flusher, writer) = Flusher::start(&dir.path().join("raw"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let rate = runtime.unwrap().block_on(async {
        let bare = Bare::connect(&node, node.address).await;
        let worker = |first: usize, each: usize| {
            let (bare, node, flusher) = (bare.clone(), Arc::clone(&node), flusher.clone());
            async move {
                for index in first..first + each {
                    one(&bare, &node, &flusher, flushes, index).await;
                }
            }
        };
        worker(0, 1).await;
        let begun = Instant::now();
        futures_util::future::join_all((0..workers).map(|of| worker(1 + of * each, each))).await;
        (workers * each) as f64 / begun.elapsed().as_secs_f64()
    });
    drop(flusher);
    writer.join().unwrap();
    rate
}

/// The calls of one cash-out, with the flushes spread between them.
async fn one(bare: &Bare, node: &Node, flusher: &Flusher, flushes: usize, index: usize) {
    let mut left = (0..6).map(|step| flushes * (step + 1) / 6 - flushes * step / 6);
    let mut flush = async || {
        for _ in 0..left.next().unwrap() {
            flusher.flush().await;
        }
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    let preimage = Preimage::from_bytes(bytes);
    let hash = preimage.hash();
    flush().await;
    let invoice = bare.add(hash, PRICE_MSAT).await;
    flush().await;
    let mut stream = bare.watch(hash).await;
    node.pay(&invoice).await;
    held(&mut stream).await;
    flush().await;
    bare.lookup(hash).await;
    bare.info().await;
    flush().await;
    bare.settle(&preimage).await;
    flush().await;
    assert!(bare.has_its_money(hash).await, "it is there at once in this world");
    flush().await;
}
