//! Complete `createHoldInvoice` per second and core, from the event that comes in to the reply that goes out.
//!
//! Everything is as in the daemon but the node, which is in memory, and the relays: signed requests are verified, as
//! the relays' pool does, and handed to the gate; what it sends is collected. The limit is what nobody can go below:
//! verify, decrypt, encrypt and sign one event with the conversation's keys at hand, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::nostr::{Event, Keys};
use tellerd::metrics::Machines;
use tellerd::nostr::wire::nip44::ConversationKeys;
use tellerd::nostr::wire::{Version, event};

use crate::clients;
use crate::collector::Collector;
use crate::daemon::{Daemon, NO_LND, Plan, SECRET, service};
use crate::meter::{self, Meter};
use crate::node::Node;

const CLIENTS: u16 = 50;
/// Requests that are being answered at once; below what the gate allows one client and all.
const AT_ONCE: usize = 256;
/// Of so many rounds the one with the median ratio is told: others use the machine too.
const ROUNDS: usize = 5;
/// Requests before the clocks are started.
const WARM_UP: usize = 1_000;

/// One row of the table.
struct Row {
    per_second: f64,
    per_cpu_second: f64,
    limit: f64,
    /// CPU microseconds of one request, by thread.
    threads: String,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.per_cpu_second / self.limit
    }
}

pub fn run(count: usize) {
    println!(
        "\ncreateHoldInvoice, event in to reply out; {CLIENTS} clients, {AT_ONCE} at once, median of {ROUNDS} rounds of {count}"
    );
    println!(
        "| NIP-44 | journal | per second | per CPU second | limit per CPU second | ratio | CPU µs of one, by thread |"
    );
    println!("|---|---|---|---|---|---|---|");
    for version in [Version::V1, Version::V2] {
        for journal_in_memory in [true, false] {
            let row = measured(version, journal_in_memory, count);
            let ratio = row.ratio();
            let Row {
                per_second,
                per_cpu_second,
                limit,
                threads,
            } = row;
            let journal = if journal_in_memory { "in memory" } else { "fdatasync" };
            println!(
                "| {version:?} | {journal} | {per_second:.0} | {per_cpu_second:.0} | {limit:.0} | {ratio:.2} | {threads} |"
            );
        }
    }
}

fn measured(version: Version, journal_in_memory: bool, count: usize) -> Row {
    let memory = Path::new("/dev/shm");
    let parent = match journal_in_memory && memory.is_dir() {
        true => memory,
        false => Path::new(env!("CARGO_TARGET_TMPDIR")),
    };
    let dir = tempfile::tempdir_in(parent).unwrap();
    let keys = clients::keys(CLIENTS);
    let collector = Collector::new(AT_ONCE);
    let daemon = Daemon::start(Plan {
        dir: dir.path(),
        // Nobody listens there: nothing comes in but what is handed over below.
        relay: "ws://127.0.0.1:1",
        clients: &clients::configured(&keys),
        journal_in_memory,
        outbox: Some(collector.clone()),
        node: Some(Arc::new(Node::default())),
        lnd: NO_LND,
    });
    answer(
        &daemon,
        &collector,
        clients::requests(&keys, service(), version, 0, WARM_UP),
    );
    let round = |n: usize| {
        let first = WARM_UP + n * count;
        let requests = clients::requests(&keys, service(), version, first as u64, count);
        let before = limit(&keys, &requests, &collector, version);
        let (meter, threads) = (Meter::start(), meter::threads());
        answer(&daemon, &collector, requests.clone());
        let (wall, cpu) = meter.read();
        let threads = by_thread(&threads, count);
        let after = limit(&keys, &requests, &collector, version);
        Row {
            per_second: count as f64 / wall,
            per_cpu_second: count as f64 / cpu,
            limit: (before + after) / 2.0,
            threads,
        }
    };
    let mut rows: Vec<Row> = (0..ROUNDS).map(round).collect();
    check(&daemon, &keys, &collector, WARM_UP + ROUNDS * count);
    rows.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    rows.swap_remove(ROUNDS / 2)
}

/// The threads that had the most since `before`.
fn by_thread(before: &BTreeMap<String, f64>, requests: usize) -> String {
    let spent = |(name, seconds): (String, f64)| {
        let since = seconds - before.get(&name).unwrap_or(&0.0);
        (since * 1e6 / requests as f64, name)
    };
    let mut spent: Vec<(f64, String)> = meter::threads().into_iter().map(spent).collect();
    spent.sort_by(|a, b| b.0.total_cmp(&a.0));
    let words: Vec<String> = spent
        .iter()
        .take(6)
        .map(|(us, name)| format!("{name} {us:.0}"))
        .collect();
    words.join(", ")
}

/// Hands the events to the gate, on a thread like the relays' one, until all are answered.
fn answer(daemon: &Daemon, collector: &Collector, requests: Vec<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        for event in requests {
            collector.window.acquire().await.unwrap().forget();
            event.verify().unwrap();
            daemon.gate.arrive(event).await;
        }
        let all = collector.window.acquire_many(u32::try_from(AT_ONCE).unwrap());
        drop(all.await.unwrap());
    });
}

/// Verify, decrypt, encrypt and sign: so many in one CPU second.
fn limit(clients: &[Keys], requests: &[Event], collector: &Collector, version: Version) -> f64 {
    let own = Keys::parse(SECRET).unwrap();
    let derive = |keys: &Keys| ConversationKeys::derive(own.secret_key(), &keys.public_key()).unwrap();
    let conversations: Vec<ConversationKeys> = clients.iter().map(derive).collect();
    let reply = collector.replies.lock().unwrap()[0].clone();
    let to = clients
        .iter()
        .position(|keys| reply.tags.public_keys().any(|key| *key == keys.public_key()));
    let (_, text) = conversations[to.unwrap()].decrypt(&reply.content).unwrap();
    let meter = Meter::start();
    for (n, request) in requests.iter().enumerate() {
        let conversation = &conversations[n % clients.len()];
        request.verify().unwrap();
        let (_, asked) = conversation.decrypt(&request.content).unwrap();
        assert!(asked.len() > 200);
        let content = conversation.encrypt(version, &text).unwrap();
        event::sign(&own, request.pubkey, content, request.created_at.as_secs()).unwrap();
    }
    requests.len() as f64 / meter.read().1
}

/// Every request was answered with an invoice, and nothing was dropped.
fn check(daemon: &Daemon, clients: &[Keys], collector: &Collector, asked: usize) {
    let replies = collector.replies.lock().unwrap();
    assert_eq!(replies.len(), asked);
    for reply in replies.iter() {
        let to = clients
            .iter()
            .find(|keys| reply.tags.public_keys().any(|key| *key == keys.public_key()));
        let conversation = ConversationKeys::derive(to.unwrap().secret_key(), &service()).unwrap();
        let (_, text) = conversation.decrypt(&reply.content).unwrap();
        assert!(text.contains("\"invoice\":\"lnbcrt"), "{text}");
    }
    let scrape = daemon.metrics.render(&Machines::default());
    let dropped = scrape
        .lines()
        .filter(|line| line.starts_with("tellerd_nostr_events_dropped_total"));
    assert!(
        dropped.clone().all(|line| line.ends_with(" 0")),
        "{:?}",
        dropped.collect::<Vec<_>>()
    );
}
