//! From LND's message that a payment is held, on the wire, to the first byte of the dispense command on the serial line.
//!
//! The first is noted by a tap between the daemon and the node, the second by the device's end of a pty, both on this
//! machine's monotonic clock. The limit is one fdatasync of a record and one write to a pty. What the path has to contain is
//! measured bare beside it: the records that rule 4 wants on the disk one after the other, hold and height read anew at LND
//! (through the same tap), the device's status and counters read over the same line.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tellerd::hardware::device::{DeviceConfig, Model, open};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::{DispenseOrder, Dispenser};
use tellerd::money::Minor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bare::Bare;
use crate::daemon::{Daemon, beside, final_end, promised, text};
use crate::disk::{AROUND, PAYLOAD, Raw};
use crate::machines::{Begun, Machines, name};
use crate::meter::percentiles;
use crate::node::{Node, Tap, Thread};

/// Nothing else is on the wire after so long.
const QUIET: Duration = Duration::from_millis(20);

/// What was seen of one cash-out.
struct Seen {
    whole: Duration,
    /// How long each sync on the way took.
    syncs: Vec<Duration>,
}

pub fn run(quick: bool) {
    let count = if quick { 30 } else { 300 };
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start();
    let tap = Tap::before(node.address);
    let (machines, begun) = Machines::on_ptys(2, dir.path());
    let config = text(&node.section(tap.address), dir.path(), 1);
    let (told, seen) = std::sync::mpsc::channel();
    let limits = Limits::measure(&node, &tap, dir.path(), count);
    beside(dir.path(), &config, &BTreeMap::new(), async move |daemon| {
        for _ in 0..count {
            told.send(one(daemon, &node, &tap, &begun).await).unwrap();
        }
    });
    drop(machines);
    limits.print(&seen.into_iter().collect::<Vec<Seen>>());
}

async fn one(daemon: &Daemon, node: &Node, tap: &Tap, begun: &Begun) -> Seen {
    let mut changes = daemon.fleet.follow();
    let cashout = promised(&daemon.fleet, &name(0)).await;
    tokio::time::sleep(QUIET).await;
    tap.listen();
    node.pay(cashout.payment_request.as_deref().unwrap()).await;
    assert_eq!(final_end(&mut changes, cashout.id).await.phase.name(), "completed");
    let (from, to) = (tap.heard(), begun.lock().unwrap().take().unwrap());
    let syncs = daemon.syncs.lock().unwrap();
    let on_the_way = syncs.iter().filter(|(begun, ended)| *begun >= from && *ended <= to);
    Seen {
        whole: to - from,
        syncs: on_the_way.map(|(begun, ended)| *ended - *begun).collect(),
    }
}

/// The parts of the path, each alone.
struct Limits {
    fdatasync: Vec<Duration>,
    /// With its way to the device's end.
    pty_write: Vec<Duration>,
    lookup: Vec<Duration>,
    info: Vec<Duration>,
    device: Vec<Duration>,
    /// One fdatasync, then one write to a pty.
    raw: Vec<Duration>,
}

impl Limits {
    fn measure(node: &Node, tap: &Tap, dir: &Path, count: usize) -> Self {
        let mut limits = Self {
            fdatasync: Vec::new(),
            pty_write: Vec::new(),
            lookup: Vec::new(),
            info: Vec::new(),
            device: Vec::new(),
            raw: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            limits.lines(dir, count).await;
            limits.node(node, tap, count).await;
            limits.device(dir, count).await;
        });
        limits
    }

    /// The record, then the line, as fast as it can be done.
    async fn lines(&mut self, dir: &Path, count: usize) {
        let record = vec![b'x'; PAYLOAD + AROUND];
        let mut raw = Raw::new(&dir.join("raw"));
        let reader = Thread::start("device");
        let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let link = dir.join("raw-line");
        let mut device = {
            let _entered = reader.enter();
            tellerd::hardware::pty::Pty::open(&link).unwrap()
        };
        reader.spawn(async move {
            let mut bytes = [0; 64];
            while let Ok(1..) = device.read(&mut bytes).await {
                sender.send(Instant::now()).unwrap();
            }
        });
        let path = link.to_string_lossy().into_owned();
        let mut port = tellerd::hardware::port::open(&path, 9600, tokio_serial::Parity::None).unwrap();
        for _ in 0..count {
            tokio::time::sleep(QUIET / 4).await;
            let begun = Instant::now();
            raw.write(&record);
            let written = Instant::now();
            port.write_all(&[b'x'; 16]).await.unwrap();
            let came = seen.recv().await.unwrap();
            self.fdatasync.push(written - begun);
            self.pty_write.push(came - written);
            self.raw.push(came - begun);
        }
    }

    /// LookupInvoice and GetInfo through the tap, on connections that stand.
    async fn node(&mut self, node: &Node, tap: &Tap, count: usize) {
        let bare = Bare::connect(node, tap.address).await;
        let hash = tellerd::ids::Preimage::from_bytes([9; 32]).hash();
        bare.add(hash, 61_000_000).await;
        for _ in 0..count {
            tokio::time::sleep(QUIET / 4).await;
            let begun = Instant::now();
            bare.lookup(hash).await;
            let found = Instant::now();
            bare.info().await;
            self.lookup.push(found - begun);
            self.info.push(found.elapsed());
        }
    }

    /// The driver alone, at the second machine, whose line is the same.
    async fn device(&mut self, dir: &Path, count: usize) {
        let path = dir.join(name(1).as_str()).to_string_lossy().into_owned();
        let config = DeviceConfig::new(Model::PuloonLcdm4000, Variant::Standard, path);
        let mut driver: Box<dyn Dispenser> = open(&config).await.unwrap();
        driver.initialise().await.unwrap();
        let order = order();
        for _ in 0..count {
            tokio::time::sleep(QUIET / 4).await;
            let begun = Instant::now();
            driver.prepare(&order).await.unwrap();
            self.device.push(begun.elapsed());
        }
    }

    fn print(&self, seen: &[Seen]) {
        let count = seen.len();
        let whole = percentiles(seen.iter().map(|seen| seen.whole).collect());
        let syncs = percentiles(seen.iter().map(|seen| seen.syncs.iter().sum()).collect());
        let each: Vec<usize> = seen.iter().map(|seen| seen.syncs.len()).collect();
        let rounds = each.iter().sum::<usize>() as f64 / count as f64;
        let of = |times: &Vec<Duration>| percentiles(times.clone());
        let (raw, fdatasync, pty) = (of(&self.raw), of(&self.fdatasync), of(&self.pty_write));
        let (lookup, info, device) = (of(&self.lookup), of(&self.info), of(&self.device));
        println!(
            "\n## HTLC accepted on the wire -> first byte of the dispense command on the line, {count} cash-outs, ms"
        );
        println!("| | median | p99 |\n|---|---|---|");
        let row = |what: &str, (median, p99): (f64, f64)| println!("| {what} | {median:.2} | {p99:.2} |");
        row("accepted -> first byte", whole);
        row(&format!("of it {rounds:.1} syncs of the journal"), syncs);
        row("raw: one fdatasync and one write to a pty", raw);
        row("raw: fdatasync", fdatasync);
        row("raw: write to a pty, read at the other end", pty);
        row("bare: LookupInvoice", lookup);
        row("bare: GetInfo", info);
        row("bare: status and counters of the device", device);
        let n = rounds.round();
        let in_turn = n * fdatasync.0 + pty.0;
        let reads = lookup.0.max(info.0).max(device.0);
        let floor = in_turn + reads;
        println!("ratio to the raw step: {:.1}", whole.0 / raw.0);
        println!(
            "ratio to {n} fdatasyncs and a write to a pty ({in_turn:.2} ms): {:.1}",
            whole.0 / in_turn
        );
        println!(
            "ratio to the floor, those and the slowest of the three reads ({floor:.2} ms): {:.1}",
            whole.0 / floor
        );
    }
}

fn order() -> DispenseOrder {
    let asked = tellerd::hardware::CassetteOrder {
        position: 1,
        denomination: Minor(2_000),
        notes: 3,
    };
    DispenseOrder { cassettes: vec![asked] }
}
