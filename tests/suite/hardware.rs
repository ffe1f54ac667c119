//! Driver against emulator: the conformance suite, over in-memory pipes and over pseudo-terminals.
//!
//! What the driver calls known must equal what physically left the emulated machine; what it calls
//! unknown must be a lower bound; what it calls nothing must be nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::time::Duration;

use tellerd::hardware::emulate::serve_on_pty;
use tellerd::hardware::port;
use tellerd::hardware::puloon::driver::{MAX_NOTES, Puloon, Variant};
use tellerd::hardware::puloon::emulator::{Emulator, EmulatorHandle, Fault, Setup, Target, What};
use tellerd::hardware::puloon::timings::Timings;
use tellerd::hardware::{
    CassetteOrder, ClearedNotes, DeviceError, DispenseIntent, DispenseOrder, DispenseReport, Dispenser, Outcome,
    Recovery,
};
use tellerd::money::Minor;
use tokio_serial::Parity;

const VARIANTS: [Variant; 2] = [Variant::Standard, Variant::Serial];

pub fn order(notes: [u32; 4]) -> DispenseOrder {
    let cassettes = (1..=4u8).zip(notes).filter(|(_, notes)| *notes > 0);
    DispenseOrder {
        cassettes: cassettes
            .map(|(position, notes)| CassetteOrder {
                position,
                denomination: Minor(1000),
                notes,
            })
            .collect(),
    }
}

/// Real waiting times for pipes, where time is paused; short ones for ptys, where it is not.
fn short() -> Timings {
    Timings {
        ack: Duration::from_millis(600),
        reply: Duration::from_secs(3),
        gap: Duration::from_millis(150),
        reset: Duration::from_millis(10),
    }
}

/// A line that can be opened again.
enum Line {
    Pipe,
    Pty(tempfile::TempDir),
}

struct Bench {
    emulator: Emulator,
    handle: EmulatorHandle,
    variant: Variant,
    line: Line,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Bench {
    fn new(variant: Variant, over_pty: bool, setup: Setup) -> Self {
        let emulator = Emulator::new(variant, setup).expect("emulator");
        let line = if over_pty {
            Line::Pty(tempfile::tempdir().expect("dir"))
        } else {
            Line::Pipe
        };
        Self {
            handle: emulator.handle(),
            emulator,
            variant,
            line,
            serving: None,
        }
    }

    /// Opens the host's end, as after a crash of the host.
    async fn open(&mut self) -> Box<dyn Dispenser> {
        match &self.line {
            Line::Pipe => {
                let (host, device) = tokio::io::duplex(4096);
                let emulator = self.emulator.clone();
                let before = self.serving.take();
                self.serving = Some(tokio::spawn(async move {
                    // One line at a time: the machine finishes what it does before it reads the new one.
                    if let Some(before) = before {
                        _ = before.await;
                    }
                    _ = emulator.serve(device).await;
                }));
                Box::new(Puloon::new(host, self.variant, MAX_NOTES, Timings::default()))
            }
            Line::Pty(dir) => {
                let link = dir.path().join("line");
                if self.serving.is_none() {
                    let (emulator, link) = (self.emulator.clone(), link.clone());
                    self.serving = Some(tokio::spawn(async move { _ = serve_on_pty(&emulator, &link).await }));
                }
                let path = link.to_str().expect("path");
                let port = loop {
                    match port::open(path, 9600, Parity::None) {
                        Ok(port) => break port,
                        // The symlink is not there yet.
                        Err(_) => tokio::task::yield_now().await,
                    }
                };
                Box::new(Puloon::new(port, self.variant, MAX_NOTES, short()))
            }
        }
    }

    /// As an actor does: opens again until the device answers.
    async fn recover(&mut self, intent: &DispenseIntent) -> Recovery {
        for _ in 0..50 {
            let mut device = self.open().await;
            if device.initialise().await.is_ok()
                && let Ok(found) = device.recover(intent).await
            {
                return found;
            }
        }
        panic!("no recovery");
    }

    fn delivered(&self) -> [u32; 4] {
        self.handle.totals().map(|t| t.delivered)
    }

    /// Notes in reach of the customer.
    fn out(&self) -> [u32; 4] {
        self.handle.totals().map(|t| t.delivered + t.at_exit)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

fn counted(report: &DispenseReport) -> [u32; 4] {
    let mut counts = [0; 4];
    for cassette in &report.cassettes {
        counts[usize::from(cassette.position) - 1] = cassette.delivered;
    }
    counts
}

/// The rule of the suite.
fn check(report: &DispenseReport, delivered: [u32; 4], out: [u32; 4], what: &str) {
    let counts = counted(report);
    match &report.outcome {
        Outcome::Complete => {
            assert_eq!(counts, delivered, "{what}: complete");
            let asked: u32 = report.cassettes.iter().map(|c| c.requested).sum();
            assert_eq!(asked, counts.iter().sum::<u32>(), "{what}: complete");
        }
        Outcome::Partial { .. } => {
            assert_eq!(counts, delivered, "{what}: partial");
            assert_eq!(delivered, out, "{what}: partial with a note in reach");
        }
        Outcome::NothingMoved { .. } => assert_eq!(out, [0; 4], "{what}: nothing moved"),
        Outcome::Unknown { .. } => {
            for (count, delivered) in counts.iter().zip(delivered) {
                assert!(*count <= delivered, "{what}: {counts:?} is no lower bound");
            }
        }
    }
}

/// What a fault is expected to come to at once, and after opening again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Complete,
    Partial,
    Nothing,
    Unknown,
    NoEvidence,
}

fn kind(report: &DispenseReport) -> Is {
    match report.outcome {
        Outcome::Complete => Is::Complete,
        Outcome::Partial { .. } => Is::Partial,
        Outcome::NothingMoved { .. } => Is::Nothing,
        Outcome::Unknown { .. } => Is::Unknown,
    }
}

/// Each fault, the outcome of the dispense and what recovery finds.
fn faults() -> Vec<(Fault, Is, Is)> {
    use Is::{Complete, NoEvidence, Nothing, Partial, Unknown};
    let jam = |after_notes| Fault::JamOnPath {
        after_notes,
        hard: false,
    };
    let power = |after_notes, serial_kept| Fault::PowerLost {
        after_notes,
        serial_kept,
    };
    let interim = |bytes: &str| Fault::Interim { bytes: bytes.into() };
    vec![
        (Fault::NoAck { carried_out: false }, Unknown, Nothing),
        (Fault::NoAck { carried_out: true }, Unknown, Complete),
        (Fault::AckThenSilent { carried_out: false }, Unknown, Nothing),
        (Fault::AckThenSilent { carried_out: true }, Unknown, Complete),
        (Fault::Nak, Nothing, Nothing),
        (Fault::BadChecksum { times: 1 }, Complete, Complete),
        (Fault::BadChecksum { times: 3 }, Complete, Complete),
        (Fault::BadChecksum { times: 4 }, Unknown, Complete),
        (Fault::Late { ms: 300 }, Complete, Complete),
        (Fault::Late { ms: 61_000 }, Unknown, Complete),
        (Fault::DuplicateReply, Complete, Complete),
        (interim("018d30"), Complete, Complete),
        (interim("06"), Complete, Complete),
        (interim("013002"), Complete, Complete),
        (Fault::CutReply { after_bytes: 0 }, Unknown, Complete),
        (Fault::CutReply { after_bytes: 17 }, Unknown, Complete),
        (
            Fault::Error {
                code: 0x02,
                after_notes: 0,
            },
            Nothing,
            Nothing,
        ),
        (
            Fault::Error {
                code: 0x02,
                after_notes: 2,
            },
            Partial,
            Partial,
        ),
        (
            Fault::Error {
                code: 0x58,
                after_notes: 0,
            },
            Unknown,
            Unknown,
        ),
        (
            Fault::Error {
                code: 0x07,
                after_notes: 4,
            },
            Unknown,
            Unknown,
        ),
        (
            Fault::Error {
                code: 0x03,
                after_notes: 5,
            },
            Complete,
            Complete,
        ),
        (Fault::Dry { position: 1, left: 0 }, Nothing, Nothing),
        (Fault::Dry { position: 2, left: 1 }, Partial, Partial),
        (Fault::Reject { notes: [1, 2, 0, 0] }, Complete, Complete),
        (Fault::Reject { notes: [11, 0, 0, 0] }, Nothing, Nothing),
        (jam(0), Nothing, Nothing),
        (jam(4), Partial, Partial),
        (Fault::JamAtExit { after_notes: 0 }, Unknown, Unknown),
        (Fault::JamAtExit { after_notes: 4 }, Unknown, Unknown),
        (Fault::NeverTaken, Unknown, Unknown),
        (power(None, false), Unknown, NoEvidence),
        (power(None, true), Unknown, NoEvidence),
        (power(Some(2), false), Unknown, NoEvidence),
        (power(Some(0), true), Unknown, NoEvidence),
    ]
}

async fn conform(variant: Variant, over_pty: bool, fault: &Fault, now: Is, later: Is) {
    let what = format!("{variant:?} {fault:?}");
    let setup = Setup {
        // A loaded machine is slow, and a device that is not waited for is another test.
        host_ack_ms: 5_000,
        ..Setup::default()
    };
    let mut bench = Bench::new(variant, over_pty, setup);
    let mut device = bench.open().await;
    device.initialise().await.expect("initialise");
    // A first dispense of the same notes: its result must never be taken for the second one's.
    let first = DispenseIntent {
        order: order([3, 2, 0, 0]),
        marker: device.prepare(&order([3, 2, 0, 0])).await.expect("prepare"),
    };
    assert_eq!(kind(&device.dispense(&first).await), Is::Complete, "{what}");
    let before = bench.delivered();
    assert_eq!(before, [3, 2, 0, 0]);
    let since = |counts: [u32; 4]| std::array::from_fn(|i| counts[i] - before[i]);

    let intent = DispenseIntent {
        order: order([3, 2, 0, 0]),
        marker: device.prepare(&order([3, 2, 0, 0])).await.expect("prepare"),
    };
    assert_eq!(bench.delivered(), before, "{what}: prepare moved notes");
    bench.handle.inject(fault.clone().next());
    let report = device.dispense(&intent).await;
    check(&report, since(bench.delivered()), since(bench.out()), &what);
    assert_eq!(kind(&report), now, "{what}: {report:?}");
    drop(device);

    let at_recovery = bench.out();
    let found = match bench.recover(&intent).await {
        Recovery::Evidence(report) => {
            check(&report, since(bench.delivered()), since(bench.out()), &what);
            kind(&report)
        }
        Recovery::NoEvidence(_) => Is::NoEvidence,
    };
    assert_eq!(found, later, "{what}");
    assert!(
        bench.out() == at_recovery || now == Is::Unknown,
        "{what}: recovery moved notes"
    );
    let commanded = bench
        .handle
        .events()
        .iter()
        .filter(|event| event.what == What::CommandReceived { command: 0x52 })
        .count();
    assert_eq!(commanded, 2, "{what}: a dispense was resent");
    for cassette in bench.handle.totals() {
        let sum = cassette.remaining + cassette.delivered + cassette.rejected + cassette.stuck + cassette.at_exit;
        assert_eq!(cassette.loaded, sum, "{what}: notes are not conserved");
    }
}

#[tokio::test(start_paused = true)]
async fn every_fault_over_a_pipe() {
    for variant in VARIANTS {
        for (fault, now, later) in faults() {
            conform(variant, false, &fault, now, later).await;
        }
    }
}

#[tokio::test]
async fn every_fault_over_a_pty() {
    for variant in VARIANTS {
        let cases = faults().into_iter().map(|(fault, now, later)| async move {
            // Times are real here: later than the short time-out, and not a minute.
            let fault = match fault {
                Fault::Late { ms: 61_000 } => Fault::Late { ms: 4_500 },
                other => other,
            };
            conform(variant, true, &fault, now, later).await;
        });
        futures_util::future::join_all(cases).await;
    }
}

async fn opened(variant: Variant, setup: Setup) -> (Bench, Box<dyn Dispenser>) {
    let mut bench = Bench::new(variant, false, setup);
    let mut device = bench.open().await;
    device.initialise().await.expect("initialise");
    (bench, device)
}

fn received(bench: &Bench, command: u8) -> usize {
    let events = bench.handle.events();
    events
        .iter()
        .filter(|e| e.what == What::CommandReceived { command })
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_query_is_sent_four_times_at_most() {
    for variant in VARIANTS {
        let (mut bench, mut device) = opened(variant, Setup::default()).await;
        let asked = received(&bench, 0x50);
        for _ in 0..3 {
            bench
                .handle
                .inject(Fault::NoAck { carried_out: false }.on(Target::Status));
        }
        device.status().await.expect("the fourth is answered");
        assert_eq!(received(&bench, 0x50) - asked, 4);
        for _ in 0..4 {
            bench
                .handle
                .inject(Fault::NoAck { carried_out: false }.on(Target::Status));
        }
        let silent = device.status().await;
        assert!(
            matches!(
                silent,
                Err(DeviceError::Timeout {
                    command: "status",
                    after_ms: 2000
                })
            ),
            "{silent:?}"
        );
        assert_eq!(received(&bench, 0x50) - asked, 8);
        let latched = device.status().await;
        assert!(matches!(latched, Err(DeviceError::OutOfSync("status"))), "{latched:?}");
        drop(device);
        let mut device = bench.open().await;
        device.initialise().await.expect("opened again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_motion_command_without_an_ack_leaves_once() {
    let (bench, mut device) = opened(Variant::Serial, Setup::default()).await;
    bench
        .handle
        .inject(Fault::NoAck { carried_out: false }.on(Target::Reset));
    assert!(matches!(device.reset().await, Err(DeviceError::Timeout { .. })));
    assert_eq!(received(&bench, 0x44), 1);
}

#[tokio::test(start_paused = true)]
async fn reset_clears_the_path_and_the_error() {
    for variant in VARIANTS {
        let (bench, mut device) = opened(variant, Setup::default()).await;
        let jam = Fault::JamOnPath {
            after_notes: 1,
            hard: false,
        };
        bench.handle.inject(jam.next());
        let order = order([2, 0, 0, 0]);
        let marker = device.prepare(&order).await.expect("prepare");
        let report = device
            .dispense(&DispenseIntent {
                order: order.clone(),
                marker,
            })
            .await;
        assert_eq!(kind(&report), Is::Partial);
        let refused = device.prepare(&order).await;
        assert!(matches!(refused, Err(DeviceError::NotReady(_))), "{refused:?}");
        device.reset().await.expect("reset");
        let status = device.status().await.expect("status");
        assert!(status.path_clear && status.fault.is_none());
        assert_eq!(bench.handle.totals()[0].rejected, 1);
        device.prepare(&order).await.expect("ready again");
    }
}

#[tokio::test(start_paused = true)]
async fn another_cassette_can_be_tried_after_one_that_gave_nothing() {
    for variant in VARIANTS {
        let (bench, mut device) = opened(variant, Setup::default()).await;
        bench.handle.inject(Fault::Dry { position: 2, left: 0 }.next());
        for (notes, expected) in [([0, 2, 0, 0], Is::Nothing), ([3, 0, 0, 0], Is::Complete)] {
            let order = order(notes);
            let marker = device.prepare(&order).await.expect("prepare");
            let report = device.dispense(&DispenseIntent { order, marker }).await;
            assert_eq!(kind(&report), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cleared_path_tells_which_notes_moved_and_remembers_it() {
    for variant in VARIANTS {
        let (mut bench, mut device) = opened(variant, Setup::default()).await;
        let jam = Fault::JamOnPath {
            after_notes: 1,
            hard: false,
        };
        bench.handle.inject(jam.next());
        let order = order([2, 0, 0, 0]);
        let marker = device.prepare(&order).await.expect("prepare");
        device.dispense(&DispenseIntent { order, marker }).await;
        assert_eq!(device.cleared().await.expect("query"), None, "a dispense came last");
        let moved = ClearedNotes {
            position: 1,
            delivered: 0,
            rejected: 1,
        };
        assert_eq!(device.clear().await.expect("clear"), [moved]);
        assert_eq!(bench.handle.totals()[0].rejected, 1);
        let status = device.status().await.expect("status");
        assert!(status.path_clear && status.fault.is_none());
        drop(device);
        let mut again = bench.open().await;
        again.initialise().await.expect("opened again");
        assert_eq!(again.cleared().await.expect("query"), Some(vec![moved]));
    }
}

#[tokio::test(start_paused = true)]
async fn prepare_refuses_what_can_not_be_dispensed_and_sends_nothing_for_bad_orders() {
    let (bench, mut device) = opened(Variant::Standard, Setup::default()).await;
    let mut twice = order([1, 1, 0, 0]);
    twice.cassettes[1].position = 1;
    let mut fifth = order([1, 0, 0, 0]);
    fifth.cassettes[0].position = 5;
    let mut none = order([1, 0, 0, 0]);
    none.cassettes[0].notes = 0;
    let before = bench.handle.events().len();
    for bad in [
        order([0; 4]),
        order([41, 0, 0, 0]),
        order([20, 21, 0, 0]),
        twice,
        fifth,
        none,
    ] {
        let refused = device.prepare(&bad).await;
        assert!(matches!(refused, Err(DeviceError::BadOrder(_))), "{bad:?}: {refused:?}");
        let marker = tellerd::hardware::Marker(serde_json::Value::Null);
        let report = device.dispense(&DispenseIntent { order: bad, marker }).await;
        assert_eq!(kind(&report), Is::Nothing);
    }
    assert_eq!(bench.handle.events().len(), before, "something was sent");
    let missing = device.prepare(&order([1, 0, 1, 0])).await;
    assert!(
        matches!(&missing, Err(DeviceError::NotReady(why)) if why.contains("cassette 3")),
        "{missing:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_purge_when_the_last_result_could_be_this_orders() {
    for variant in VARIANTS {
        let (bench, mut device) = opened(variant, Setup::default()).await;
        let small = order([1, 0, 0, 0]);
        let marker = device.prepare(&order([3, 0, 0, 0])).await.expect("prepare");
        assert_eq!(received(&bench, 0x51), 1, "a new device has no last result");
        let intent = DispenseIntent {
            order: order([3, 0, 0, 0]),
            marker,
        };
        assert_eq!(kind(&device.dispense(&intent).await), Is::Complete);
        device.prepare(&small).await.expect("prepare");
        assert_eq!(received(&bench, 0x51), 1, "3 notes are no result of an order of 1");
        device.prepare(&intent.order).await.expect("prepare");
        assert_eq!(received(&bench, 0x51), 2);
        device.prepare(&intent.order).await.expect("prepare");
        assert_eq!(received(&bench, 0x51), 2, "the last result is about a purge");
        assert_eq!(bench.delivered(), [3, 0, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_crashes_while_motors_run_finds_the_result() {
    for variant in VARIANTS {
        let setup = Setup {
            note_ms: 700,
            ..Setup::default()
        };
        let (mut bench, mut device) = opened(variant, setup).await;
        let order = order([3, 2, 0, 0]);
        let marker = device.prepare(&order).await.expect("prepare");
        let intent = DispenseIntent { order, marker };
        // The dispense is abandoned with its future, and the port closed.
        let abandoned = tokio::time::timeout(Duration::from_millis(900), device.dispense(&intent)).await;
        assert!(abandoned.is_err());
        let latched = device.status().await;
        assert!(
            matches!(latched, Err(DeviceError::OutOfSync("dispense"))),
            "{latched:?}"
        );
        drop(device);
        let Recovery::Evidence(report) = bench.recover(&intent).await else {
            panic!("no evidence");
        };
        assert_eq!(kind(&report), Is::Complete);
        check(&report, bench.delivered(), bench.out(), "crash");
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_held_at_a_command_acts_when_it_is_let_go() {
    let (bench, mut device) = opened(Variant::Standard, Setup::default()).await;
    let order = order([3, 0, 0, 0]);
    let marker = device.prepare(&order).await.expect("prepare");
    let intent = DispenseIntent { order, marker };
    bench.handle.hold_at(Some(Target::Dispense));
    let mut dispense = std::pin::pin!(device.dispense(&intent));
    let early = tokio::time::timeout(Duration::from_secs(5), &mut dispense).await;
    assert!(early.is_err() && bench.delivered() == [0; 4] && received(&bench, 0x52) == 1);
    bench.handle.hold_at(None);
    assert_eq!(kind(&dispense.await), Is::Complete);
    assert_eq!(bench.delivered(), [3, 0, 0, 0]);
}

/// On a pty the late reply goes to whoever opens the line next.
#[tokio::test]
async fn a_late_reply_after_opening_again_is_dropped() {
    for variant in VARIANTS {
        let setup = Setup {
            note_ms: 100,
            ..Setup::default()
        };
        let mut bench = Bench::new(variant, true, setup);
        let mut device = bench.open().await;
        device.initialise().await.expect("initialise");
        let order = order([3, 2, 0, 0]);
        let marker = device.prepare(&order).await.expect("prepare");
        let intent = DispenseIntent { order, marker };
        tokio::select! {
            _ = device.dispense(&intent) => panic!("ended before the first note"),
            () = async {
                while bench.delivered()[0] == 0 {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
        drop(device);
        // Opened while the motors run.
        let Recovery::Evidence(report) = bench.recover(&intent).await else {
            panic!("no evidence");
        };
        assert_eq!(kind(&report), Is::Complete);
        check(&report, bench.delivered(), bench.out(), "late");
    }
}

#[tokio::test(start_paused = true)]
async fn corrupt_replies_to_queries_are_asked_for_again() {
    let (bench, mut device) = opened(Variant::Standard, Setup::default()).await;
    bench.handle.inject(Fault::BadChecksum { times: 3 }.on(Target::Status));
    device.status().await.expect("third repetition is good");
    assert_eq!(received(&bench, 0x50), 2, "the command itself is not resent");
    let (bench, mut device) = opened(Variant::Serial, Setup::default()).await;
    bench
        .handle
        .inject(Fault::BadChecksum { times: 4 }.on(Target::LastSerial));
    let refused = device.initialise().await;
    assert!(
        matches!(&refused, Err(DeviceError::Protocol { detail, .. }) if detail.starts_with("byte 7: check byte")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_ledger_is_written_and_goes_on() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("ledger.jsonl");
    for round in 1..=2u64 {
        let setup = Setup {
            ledger: Some(path.clone()),
            ..Setup::default()
        };
        let (_bench, mut device) = opened(Variant::Standard, setup).await;
        let order = order([2, 0, 0, 0]);
        let marker = device.prepare(&order).await.expect("prepare");
        device.dispense(&DispenseIntent { order, marker }).await;
        let text = std::fs::read_to_string(&path).expect("ledger");
        let events: Vec<tellerd::hardware::puloon::emulator::Event> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("event"))
            .collect();
        assert!((1..).zip(&events).all(|(seq, event)| event.seq == seq));
        let notes = events
            .iter()
            .filter(|e| matches!(e.what, What::NoteDelivered { .. }))
            .count();
        assert_eq!(notes as u64, 2 * round);
    }
}
