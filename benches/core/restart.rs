//! From a kill -9 to the last of many held invoices resolved: the real program, its machines on ptys, its LND over TLS.
//!
//! Each machine has one customer whose payment is held. The machines stand still when they are asked for their counters, so
//! that all of them are in that state at once; then the daemon is killed, the machines go on, and it is started again. The
//! limit makes the calls that are left at LND for each, and waits for the flushes that are left, with no supervisor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{StreamExt, iter};
use serde_json::{Value, json};
use tellerd::hardware::puloon::emulator::{Target, What};
use tellerd::ids::Preimage;

use crate::bare::{Bare, held};
use crate::child::Child;
use crate::daemon::{AMOUNT, text};
use crate::disk::Flusher;
use crate::machines::{Machines, name};
use crate::node::Node;

/// Orders at the API, payments and bare loops at once.
const AT_ONCE: usize = 64;
/// Records of a cash-out that is held until its money is there.
const FLUSHES: usize = 8;
const LAST_STATUS: u8 = 0x55;
const PRICE_MSAT: u64 = 64_210_526;
const LOOK: Duration = Duration::from_millis(10);

pub fn run(quick: bool) {
    let (rounds, count) = if quick { (1, 50) } else { (3, 1_000) };
    println!("\n## kill -9 -> the last of {count} held invoices resolved, each at a machine of its own, s");
    println!("| round | daemon serves again | first resolved | last resolved | bare | ratio |");
    println!("|---|---|---|---|---|---|");
    for round in 1..=rounds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let seen = killed(count).await;
            let limit = limit(count).await;
            let [serves, first, last] = seen.map(|after| after.as_secs_f64());
            let (bare, ratio) = (limit.as_secs_f64(), last / limit.as_secs_f64());
            println!("| {round} | {serves:.2} | {first:.2} | {last:.2} | {bare:.2} | {ratio:.1} |");
        });
    }
}

/// After the kill: the daemon serves again, the first is resolved, the last is.
async fn killed(count: usize) -> [Duration; 3] {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start();
    let (machines, _) = Machines::on_ptys(count, dir.path());
    let config = text(&node.section(node.address), dir.path(), count);
    std::fs::write(dir.path().join("fleet.toml"), config).unwrap();
    let mut daemon = Child::start(dir.path());
    let (_, base) = daemon.serves().await;
    let payments = hold_all(&base, &node, &machines, count).await;
    daemon.kill();
    let killed = Instant::now();
    machines.handles.iter().for_each(|machine| machine.hold_at(None));
    let mut daemon = Child::start(dir.path());
    let ended = async |payment: u64| {
        let payment = node.lnd.ended_payment(payment).await.unwrap();
        (killed.elapsed(), payment.preimage.is_some())
    };
    let resolved = join_all(payments.iter().map(|payment| ended(*payment)));
    let (resolved, (serves, _)) = tokio::join!(resolved, daemon.serves());
    let times: Vec<Duration> = resolved.iter().map(|(after, _)| *after).collect();
    let settled = resolved.iter().filter(|(_, settled)| *settled).count();
    let notes = usize::try_from(machines.delivered()).unwrap();
    assert_eq!((settled, notes), (count, 3 * count), "settled, and notes that came out");
    let spawned = daemon.started - killed;
    [
        spawned + serves,
        *times.iter().min().unwrap(),
        *times.iter().max().unwrap(),
    ]
}

/// Returns when every machine has a customer whose payment is held, and stands still.
async fn hold_all(base: &str, node: &Node, machines: &Machines, count: usize) -> Vec<u64> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let customer = async |index: usize| {
        let order = json!({"atm": name(index), "amount_minor": AMOUNT});
        let invoice = loop {
            let sent = http.post(format!("{base}/v1/cashouts")).json(&order).send().await;
            let answer = sent.unwrap();
            // A machine that was not reached yet turns customers away.
            if answer.status().is_success() {
                let cashout: Value = answer.json().await.unwrap();
                break cashout["payment_request"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(LOOK).await;
        };
        machines.handles[index].hold_at(Some(Target::LastStatus));
        node.pay(&invoice).await
    };
    let payments = iter(0..count).map(customer).buffer_unordered(AT_ONCE).collect().await;
    for machine in &machines.handles {
        let asked = || {
            machine
                .events()
                .iter()
                .any(|event| matches!(event.what, What::CommandReceived { command } if command == LAST_STATUS))
        };
        while !asked() {
            tokio::time::sleep(LOOK).await;
        }
    }
    payments
}

async fn limit(count: usize) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(Node::start());
    let (flusher, writer) = Flusher::start(&dir.path().join("raw"));
    let bare = Bare::connect(&node, node.address).await;
    let preimage = |index: usize| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&index.to_be_bytes());
        Preimage::from_bytes(bytes)
    };
    for index in 0..count {
        let invoice = bare.add(preimage(index).hash(), PRICE_MSAT).await;
        node.pay(&invoice).await;
    }
    let begun = Instant::now();
    // As from a new process: connections too.
    let bare = Bare::connect(&node, node.address).await;
    let resolve = async |index: usize| {
        let preimage = preimage(index);
        let hash = preimage.hash();
        bare.lookup(hash).await;
        held(&mut bare.watch(hash).await).await;
        bare.lookup(hash).await;
        bare.info().await;
        for _ in 0..FLUSHES / 2 {
            flusher.flush().await;
        }
        bare.settle(&preimage).await;
        for _ in 0..FLUSHES / 2 {
            flusher.flush().await;
        }
        assert!(bare.has_its_money(hash).await);
    };
    iter(0..count)
        .map(resolve)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
    let took = begun.elapsed();
    drop(flusher);
    writer.join().unwrap();
    took
}
