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
use tellerd::hardware::port::{Line, Port};
use tellerd::hardware::pty::Pty;
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::{CassetteOrder, DispenseOrder, Dispenser};
use tellerd::ids::{PaymentHash, Preimage};
use tellerd::money::Minor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

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
    let place = dir.path().to_owned();
    // After each cash-out its parts are measured: what else the machine does befalls both.
    beside(dir.path(), &config, &BTreeMap::new(), async move |daemon| {
        let mut bare = Parts::open(&node, &tap, &place).await;
        let (mut seen, mut times) = (Vec::new(), Times::default());
        for _ in 0..count {
            seen.push(one(daemon, &node, &tap, &begun).await);
            bare.measure(&mut times).await;
        }
        times.print(&seen);
    });
    drop(machines);
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

/// The parts of the path, to be done alone.
struct Parts {
    file: Raw,
    port: Box<dyn Port>,
    /// When something came at the other end of the port.
    came: UnboundedReceiver<Instant>,
    node: Bare,
    hash: PaymentHash,
    /// On a line that is as the one of the machine.
    driver: Box<dyn Dispenser>,
    _device: Thread,
}

/// How long each of them took.
#[derive(Default)]
struct Times {
    fdatasync: Vec<Duration>,
    /// With its way to the device's end.
    pty_write: Vec<Duration>,
    /// The two, one after the other.
    raw: Vec<Duration>,
    lookup: Vec<Duration>,
    info: Vec<Duration>,
    device: Vec<Duration>,
}

impl Parts {
    async fn open(node: &Node, tap: &Tap, dir: &Path) -> Self {
        let device = Thread::start("device");
        let link = dir.join("raw-line");
        let entered = device.enter();
        let mut line = Pty::open(&link).unwrap();
        drop(entered);
        let (sender, came) = unbounded_channel();
        device.spawn(async move {
            let mut bytes = [0; 64];
            while let Ok(1..) = line.read(&mut bytes).await {
                sender.send(Instant::now()).unwrap();
            }
        });
        let port = Line::serial(link.to_string_lossy());
        let path = dir.join(name(1).as_str()).to_string_lossy().into_owned();
        let config = DeviceConfig::new(Model::PuloonLcdm4000, Variant::Standard, path);
        let mut driver = open(&config).await.unwrap();
        driver.initialise().await.unwrap();
        let bare = Bare::connect(node, tap.address).await;
        let hash = Preimage::from_bytes([9; 32]).hash();
        bare.add(hash, 61_000_000).await;
        Self {
            file: Raw::new(&dir.join("raw")),
            port: port.open(9600, tokio_serial::Parity::None).await.unwrap(),
            came,
            node: bare,
            hash,
            driver,
            _device: device,
        }
    }

    async fn measure(&mut self, times: &mut Times) {
        tokio::time::sleep(QUIET).await;
        let begun = Instant::now();
        self.file.write(&[b'x'; PAYLOAD + AROUND]);
        let written = Instant::now();
        self.port.write_all(&[b'x'; 16]).await.unwrap();
        let came = self.came.recv().await.unwrap();
        times.fdatasync.push(written - begun);
        times.pty_write.push(came - written);
        times.raw.push(came - begun);
        let begun = Instant::now();
        self.node.lookup(self.hash).await;
        let found = Instant::now();
        self.node.info().await;
        times.lookup.push(found - begun);
        times.info.push(found.elapsed());
        let begun = Instant::now();
        self.driver.prepare(&order()).await.unwrap();
        times.device.push(begun.elapsed());
    }
}

impl Times {
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
        let reads = lookup.0.max(info.0) + device.0;
        let floor = in_turn + reads;
        println!("ratio to the raw step: {:.1}", whole.0 / raw.0);
        println!(
            "ratio to {n} fdatasyncs and a write to a pty ({in_turn:.2} ms): {:.1}",
            whole.0 / in_turn
        );
        println!(
            "ratio to the floor, those, the device's answers and the slower of LND's two ({floor:.2} ms): {:.1}",
            whole.0 / floor
        );
    }
}

fn order() -> DispenseOrder {
    let asked = CassetteOrder {
        position: 1,
        denomination: Minor(2_000),
        notes: 3,
    };
    DispenseOrder { cassettes: vec![asked] }
}
