//! A start with a long past: the real program, with an open cash-out at each machine and many more that are finished.
//!
//! It is over when every open invoice is followed at LND. What LND itself needs for that is measured by a bare client that
//! looks up and follows the same invoices at the same node. First without sled's folder, so that all of the journal is folded;
//! then as usual, killed and started again. No machine is there: what is measured is the state and LND.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::stream::{StreamExt, iter};

use crate::bare::Bare;
use crate::child::Child;
use crate::daemon::text;
use crate::history::{Template, preimage};
use crate::journal::median;
use crate::node::Node;

/// What tellerd has on their way at once, see `src/lnd/client.rs`.
const AT_ONCE: usize = 100;
const LOOK: Duration = Duration::from_millis(2);

/// Seconds from the start.
struct Started {
    read: f64,
    serves: f64,
    followed: f64,
    /// CPU seconds by thread.
    cpu: String,
}

pub fn run(quick: bool, finished: Option<usize>) {
    let (rounds, open, most) = if quick { (1, 500, 5_000) } else { (3, 10_000, 700_000) };
    let finished = finished.unwrap_or(most);
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start();
    let template = Template::make(&node);
    let (records, bytes) = template.size();
    println!("\n## Start with {open} open cash-outs and {finished} finished ones, s");
    println!("One that is finished is {records} records, {bytes} bytes of journal.");
    let config = text(&node.section(node.address), dir.path(), open);
    std::fs::write(dir.path().join("fleet.toml"), config).unwrap();
    let data = dir.path().join("data");
    let begun = Instant::now();
    template.write(&data, open, finished);
    println!(
        "Written in {:.0} s: {} MiB.",
        begun.elapsed().as_secs_f64(),
        mebibytes(&data)
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let bare = Bare::connect(&node, node.address).await;
        let add = |index| {
            let bare = &bare;
            let price = template.price_msat;
            async move { drop(bare.add(preimage(index).hash(), price).await) }
        };
        iter(0..open)
            .map(add)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<()>>()
            .await;
        drop(bare);
        println!(
            "| | journal read | serves | all followed | LookupInvoice and stream, bare | beyond LND | CPU by thread |"
        );
        println!("|---|---|---|---|---|---|---|");
        let limit = limit(&node, open).await;
        row("without sled", &start(dir.path(), &node, open).await, limit);
        println!("sled's folder is {} MiB.", mebibytes(&data.join("state")));
        let mut beyond = Vec::new();
        for round in 1..=rounds {
            let limit = self::limit(&node, open).await;
            let started = start(dir.path(), &node, open).await;
            row(&format!("with sled, {round}"), &started, limit);
            beyond.push(started.followed - limit);
        }
        println!("with sled, beyond LND's answers, median: {:.2} s", median(&mut beyond));
    });
}

fn row(what: &str, started: &Started, limit: f64) {
    let Started {
        read,
        serves,
        followed,
        cpu,
    } = started;
    let beyond = followed - limit;
    println!("| {what} | {read:.2} | {serves:.2} | {followed:.2} | {limit:.2} | {beyond:.2} | {cpu} |");
}

/// Starts the daemon, and kills it when it follows all of them.
async fn start(dir: &Path, node: &Node, open: usize) -> Started {
    streams(node, 0).await;
    let mut daemon = Child::start(dir);
    let read = daemon.says("the journal is read").await.0;
    let serves = daemon.serves().await.0;
    streams(node, open).await;
    let (followed, cpu) = (daemon.started.elapsed(), daemon.cpu());
    daemon.kill();
    Started {
        read: read.as_secs_f64(),
        serves: serves.as_secs_f64(),
        followed: followed.as_secs_f64(),
        cpu,
    }
}

async fn streams(node: &Node, count: usize) {
    while node.lnd.invoice_streams() != count {
        tokio::time::sleep(LOOK).await;
    }
}

/// How long LND takes when it is asked for nothing else.
async fn limit(node: &Node, open: usize) -> f64 {
    streams(node, 0).await;
    let begun = Instant::now();
    let bare = Bare::connect(node, node.address).await;
    let follow = |index| {
        let bare = &bare;
        async move {
            let hash = preimage(index).hash();
            bare.lookup(hash).await;
            bare.watch(hash).await
        }
    };
    let followed: Vec<_> = iter(0..open).map(follow).buffer_unordered(AT_ONCE).collect().await;
    streams(node, open).await;
    let took = begun.elapsed().as_secs_f64();
    drop(followed);
    took
}

/// Of all files in a folder and those below it.
fn mebibytes(folder: &Path) -> u64 {
    fn bytes(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let size = |entry: std::fs::DirEntry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |known| known.len()),
        };
        entries.map(size).sum()
    }
    bytes(folder) >> 20
}
