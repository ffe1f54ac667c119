//! Recorded conversations with a Puloon dispenser, played to the driver's link and to the emulator.
//!
//! Source: tests/vectors/puloon-*.txt, made with lamassu's driver: `>` is the host, `<` the device.
//! Where tellerd differs on purpose from that host, the test says so.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use tellerd::hardware::puloon::codec::{ACK, NAK};
use tellerd::hardware::puloon::command::{Command, dispense_data, note_lengths_data};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Emulator, Fault, PlannedFault, Setup, Target};
use tellerd::hardware::puloon::evidence;
use tellerd::hardware::puloon::link::{Failed, Link};
use tellerd::hardware::puloon::reply;
use tellerd::hardware::puloon::timings::Timings;
use tellerd::hardware::{DeviceError, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use super::hardware::order;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Turn {
    Host(Vec<u8>),
    Device(Vec<u8>),
}

const TRANSCRIPTS: [(&str, &str); 8] = [
    ("01", include_str!("../vectors/puloon-01-init.txt")),
    ("02", include_str!("../vectors/puloon-02-status.txt")),
    ("03", include_str!("../vectors/puloon-03-dispense-ok.txt")),
    ("04", include_str!("../vectors/puloon-04-dispense-reject.txt")),
    ("06", include_str!("../vectors/puloon-06-dispense-pickup-error-81.txt")),
    ("08", include_str!("../vectors/puloon-08-no-ack-retry.txt")),
    ("09", include_str!("../vectors/puloon-09-dispense-silent.txt")),
    ("10", include_str!("../vectors/puloon-10-bad-bcc-accepted.txt")),
];

fn turns(number: &str) -> Vec<Turn> {
    let (_, text) = TRANSCRIPTS
        .iter()
        .find(|(name, _)| *name == number)
        .expect("transcript");
    let bytes = |line: &str| hex::decode(line.replace(' ', "")).expect("hex");
    text.lines()
        .filter_map(|line| match line.split_at(1) {
            (">", rest) => Some(Turn::Host(bytes(rest))),
            ("<", rest) => Some(Turn::Device(bytes(rest))),
            _ => None,
        })
        .collect()
}

/// Plays the device: every host's turn has to come byte for byte, and nothing after the last one.
fn device(turns: Vec<Turn>) -> (DuplexStream, JoinHandle<()>) {
    let (host, mut line) = duplex(1024);
    let played = tokio::spawn(async move {
        for (number, turn) in turns.into_iter().enumerate() {
            match turn {
                Turn::Device(bytes) => line.write_all(&bytes).await.expect("host is there"),
                Turn::Host(bytes) => {
                    let mut got = vec![0; bytes.len()];
                    line.read_exact(&mut got).await.expect("host sends");
                    assert_eq!(got, bytes, "turn {number}");
                }
            }
        }
        let mut rest = Vec::new();
        line.read_to_end(&mut rest).await.expect("end");
        assert!(rest.is_empty(), "{rest:02X?} after the last turn");
    });
    (host, played)
}

/// A link on which a status query was answered: a motion command is not allowed before.
async fn linked(mut played: Vec<Turn>) -> (Link<DuplexStream>, JoinHandle<()>) {
    let status = turns("02");
    let first = status.len() - 5;
    played.splice(0..0, status[first..].iter().cloned());
    let (host, playing) = device(played);
    let mut link = Link::new(host, Timings::default());
    let data = link.exchange(Command::Status, &[]).await.expect("status");
    reply::status(&data).expect("status");
    (link, playing)
}

async fn init(link: &mut Link<DuplexStream>, serial: u8, lengths: [u8; 4]) {
    link.exchange(Command::Reset, &[]).await.expect("reset");
    let second = link.next_reply(Command::Reset).await.expect("second reply");
    assert_eq!(reply::error_only(Command::Reset, &second).expect("error"), 0);
    let data = link.exchange(Command::LastSerial, &[]).await.expect("serial");
    assert_eq!(reply::last_serial(&data).expect("serial"), serial);
    let stored = link.exchange(Command::NoteLengths, &note_lengths_data(lengths)).await;
    stored.expect("lengths");
}

const EUR_5_10: [u8; 4] = [0x98, 0xA1, 0, 0];
const EUR_20_50: [u8; 4] = [0xA9, 0xB2, 0, 0];

#[tokio::test(start_paused = true)]
async fn host_initialises_as_recorded() {
    let (mut link, playing) = linked(turns("01")).await;
    init(&mut link, 7, EUR_5_10).await;
    drop(link);
    playing.await.expect("played");
    let (mut link, playing) = linked(turns("02")).await;
    init(&mut link, 0, EUR_20_50).await;
    let data = link.exchange(Command::Status, &[]).await.expect("status");
    let status = reply::status(&data).expect("status");
    assert!(status.path_clear && status.fault.is_none());
    let present: Vec<_> = status.cassettes.iter().map(|c| c.present).collect();
    assert_eq!(present, [true, true, false, false]);
    drop(link);
    playing.await.expect("played");
}

#[tokio::test(start_paused = true)]
async fn host_dispenses_as_recorded() {
    let pickup = Outcome::Partial {
        fault: tellerd::hardware::puloon::command::fault(81),
    };
    let cases = [
        ("03", [3, 2], 7, [3, 2], [0, 0], Outcome::Complete),
        ("04", [3, 2], 8, [3, 2], [1, 2], Outcome::Complete),
        ("06", [4, 6], 10, [4, 3], [0, 0], pickup),
    ];
    for (number, [one, two], serial, delivered, rejected, outcome) in cases {
        let (mut link, playing) = linked(turns(number)).await;
        init(&mut link, serial, EUR_20_50).await;
        let data = dispense_data([one, two, 0, 0], Some(serial + 1));
        let answered = link.exchange(Command::Dispense, &data).await.expect("dispense");
        let counts = reply::counts(Command::Dispense, &answered).expect("counts");
        let report = evidence::report(&order([one.into(), two.into(), 0, 0]), &counts);
        assert_eq!(report.outcome, outcome, "{number}");
        let counted: Vec<_> = report.cassettes.iter().map(|c| c.delivered).collect();
        assert_eq!(counted, delivered, "{number}");
        let counted: Vec<_> = report.cassettes.iter().map(|c| c.rejected).collect();
        assert_eq!(counted, rejected, "{number}");
        drop(link);
        playing.await.expect("played");
    }
}

/// The recorded host resends a reset that was not acknowledged. Ours does not: a reset moves motors,
/// and the device may have taken it.
#[tokio::test(start_paused = true)]
async fn host_does_not_resend_a_reset() {
    let recorded = turns("08");
    assert_eq!(recorded[0], recorded[1], "the recorded host does");
    let (mut link, playing) = linked(recorded[..1].to_vec()).await;
    let failed = link.exchange(Command::Reset, &[]).await;
    assert!(
        matches!(failed, Err(Failed::Lost(DeviceError::Timeout { after_ms: 500, .. }))),
        "{failed:?}"
    );
    drop(link);
    playing.await.expect("played");
}

/// The recorded host waits without end. Ours ends after the sheet's 60 s, and sends nothing more.
#[tokio::test(start_paused = true)]
async fn host_gives_a_silent_dispense_up() {
    let (mut link, playing) = linked(turns("09")).await;
    init(&mut link, 1, EUR_20_50).await;
    let data = dispense_data([1, 1, 0, 0], Some(2));
    let failed = link.exchange(Command::Dispense, &data).await;
    assert!(
        matches!(failed, Err(Failed::Lost(DeviceError::Timeout { after_ms: 60_000, .. }))),
        "{failed:?}"
    );
    let latched = link.exchange(Command::Status, &[]).await;
    assert!(
        matches!(latched, Err(Failed::NotSent(DeviceError::OutOfSync("dispense")))),
        "{latched:?}"
    );
    drop(link);
    playing.await.expect("played");
}

/// The recorded host acknowledges a reply with a wrong check byte. Ours asks for it again three times,
/// and then knows nothing.
#[tokio::test(start_paused = true)]
async fn host_does_not_accept_a_bad_check_byte() {
    let mut played = turns("10");
    let after = played.len() - 2;
    assert_eq!(played[after], Turn::Host(vec![ACK]), "the recorded host does");
    let bad = played[after - 1].clone();
    played.truncate(after);
    for _ in 0..3 {
        played.extend([Turn::Host(vec![NAK]), bad.clone()]);
    }
    let (mut link, playing) = linked(played).await;
    init(&mut link, 1, EUR_20_50).await;
    let data = dispense_data([1, 1, 0, 0], Some(2));
    let failed = link.exchange(Command::Dispense, &data).await;
    let Err(Failed::Lost(DeviceError::Protocol { detail, .. })) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(detail, "byte 28: check byte 0x04, computed 0x51");
    drop(link);
    playing.await.expect("played");
}

/// The script under which the emulator is the recorded device.
fn recorded(number: &str) -> Setup {
    let dispense = |fault: Fault| vec![fault.next()];
    let (last_serial, faults): (u8, Vec<PlannedFault>) = match number {
        "01" | "03" => (7, vec![]),
        "02" => (0, vec![]),
        "04" => (8, dispense(Fault::Reject { notes: [1, 2, 0, 0] })),
        "06" => (10, dispense(Fault::Dry { position: 2, left: 3 })),
        "08" => (1, vec![Fault::NoAck { carried_out: false }.on(Target::Reset)]),
        "09" => (1, dispense(Fault::AckThenSilent { carried_out: false })),
        "10" => (1, dispense(Fault::BadChecksum { times: 1 })),
        _ => panic!("no script for {number}"),
    };
    Setup {
        last_serial,
        faults,
        ..Setup::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_emulator_answers_as_recorded() {
    for (number, _) in TRANSCRIPTS {
        let emulator = Emulator::new(Variant::Serial, recorded(number)).expect("emulator");
        let (mut host, line) = duplex(1024);
        let serving = tokio::spawn(async move { emulator.serve(line).await });
        for (at, turn) in turns(number).into_iter().enumerate() {
            match turn {
                Turn::Host(bytes) => host.write_all(&bytes).await.expect("device is there"),
                Turn::Device(bytes) => {
                    let mut got = vec![0; bytes.len()];
                    host.read_exact(&mut got).await.expect("device answers");
                    assert_eq!(hex::encode(&got), hex::encode(&bytes), "{number}, turn {at}");
                }
            }
        }
        let more = timeout(Duration::from_secs(120), host.read_u8()).await;
        assert!(more.is_err(), "{number}: {more:?}");
        drop(host);
        serving.await.expect("no panic").expect("served");
    }
}
