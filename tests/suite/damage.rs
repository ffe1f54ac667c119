//! Copies of a data directory with bytes cut off, flipped, overwritten or whole files gone: a start refuses them with a
//! message, or finds the very state that was there. Never less, and never another.
//!
//! The records are those of a real fleet with jams and kills; they are laid down through the real journal and store in
//! small segments. The positions of the damage come from fixed seeds.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tellerd::cashout::CashOut;
use tellerd::ids::{CashOutId, PaymentHash};
use tellerd::invoice::Invoice;
use tellerd::journal::{self, Options, Reader};
use tellerd::record::Record;
use tellerd::store::{self, Change, Folded, Opened};

const SCENARIO: &str = "about = \"a test\"\n[customers]\npause = \"150ms\"\npays_at_once = 8\ncancels = 1\nwalks_away = 1\n\
                        [machines]\nnote_time = \"1ms\"\n[faults]\nreject = 10\njam_on_path = 10\npower_lost = 5\n\
                        [daemon]\nkill_every = \"2s\"\npayment_timeout = \"1s\"\n";
/// Several in the test's journal.
const SEGMENT: u64 = 24 * 1024;

/// What was there before the damage.
struct Whole {
    dir: tempfile::TempDir,
    fold: Folded,
    cashouts: BTreeMap<CashOutId, CashOut>,
    invoices: BTreeMap<PaymentHash, Invoice>,
    records: u64,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let records = records_of_a_fleet();
        let dir = tempfile::tempdir().unwrap();
        lay_down(dir.path(), &records);
        let mut whole = Whole {
            dir,
            fold: Folded::default(),
            cashouts: BTreeMap::new(),
            invoices: BTreeMap::new(),
            records: records.len() as u64,
        };
        for record in &records {
            match whole.fold.add(&Record::decode(record.version, &record.payload).unwrap()).unwrap() {
                Some(Change::CashOut(cashout)) => _ = whole.cashouts.insert(cashout.id, *cashout),
                Some(Change::Invoice(invoice)) => _ = whole.invoices.insert(invoice.spec.hash, *invoice),
                _ => {}
            }
        }
        whole
    })
}

fn records_of_a_fleet() -> Vec<journal::Record> {
    if let Ok(big) = std::env::var("BIG") {
        return Reader::open(Path::new(&big)).unwrap().map(Result::unwrap).collect();
    }
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("s.toml");
    fs::write(&scenario, SCENARIO).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tellerd"))
        .args("simulate --atms 4 --duration 5s --seed 11 --scenario".split(' '))
        .arg(&scenario)
        .arg("--keep")
        .arg(dir.path().join("kept"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let reader = Reader::open(&dir.path().join("kept/data")).unwrap();
    reader.map(Result::unwrap).collect()
}

/// Writes the records in several lives, with the store behind them.
fn lay_down(dir: &Path, records: &[journal::Record]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for life in records.chunks(records.len() / 4 + 1) {
        let Opened { journal, mut store, .. } = store::open(dir).unwrap();
        let options = Options {
            segment_bytes: SEGMENT,
            ..Options::default()
        };
        let follow = Box::new(move |batch: Vec<journal::Record>| drop(store.follow(&batch).unwrap()));
        let (appender, writer) = journal.start(options, follow).unwrap();
        runtime.block_on(async {
            for some in life.chunks(3) {
                let some = some.iter().map(|record| (record.version, record.payload.clone()));
                appender.append_all(some.collect()).await.unwrap();
            }
        });
        drop(appender);
        assert!(writer.join());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// What a start made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// All is there, from the store as it was.
    Same,
    /// All is there; the store was set aside.
    Refolded,
    /// An error.
    Refused,
    /// Less than there was, with a warning of torn bytes, and the store gone too.
    Torn,
}

/// Starts on a damaged copy.
fn start(dir: &Path, what: &str) -> Found {
    let whole = whole();
    let opened = match store::open(dir) {
        Ok(opened) => opened,
        Err(error) => {
            let told = error.to_string();
            let names = ["journal", "state", ".seg"].iter().any(|word| told.contains(word));
            assert!(names && told.len() > 30, "{what}: {told}");
            return Found::Refused;
        }
    };
    let last = opened.journal.last().seq;
    if last < whole.records {
        assert!(!opened.journal.torn().is_empty(), "{what}: {last} records of {}", whole.records);
        return Found::Torn;
    }
    assert_eq!(opened.store.folded().difference(&whole.fold), None, "{what}");
    let view = opened.store.view();
    for (id, cashout) in &whole.cashouts {
        match view.cashout(*id) {
            Ok(found) => assert_eq!(found.as_ref(), Some(cashout), "{what}"),
            Err(error) => assert!(error.to_string().contains("store rebuild"), "{what}: {error}"),
        }
    }
    for (hash, invoice) in &whole.invoices {
        match view.invoice(*hash) {
            Ok(found) => assert_eq!(found.as_ref(), Some(invoice), "{what}"),
            Err(error) => assert!(error.to_string().contains("store rebuild"), "{what}: {error}"),
        }
    }
    match opened.set_aside {
        Some(_) => Found::Refolded,
        None => Found::Same,
    }
}

/// One way to damage a file's bytes.
fn damage(bytes: &mut Vec<u8>, kind: usize, random: &mut StdRng) -> String {
    let at = random.random_range(0..bytes.len().max(1));
    match kind {
        0 => {
            let bit = random.random_range(0..8_u32);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        1 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        2 => {
            let end = (at + random.random_range(1..600)).min(bytes.len());
            bytes[at..end].fill(0);
            format!("{at} to {end} zero")
        }
        3 => {
            let end = (at + random.random_range(1..600)).min(bytes.len());
            random.fill(&mut bytes[at..end]);
            format!("{at} to {end} random")
        }
        _ => {
            let more: Vec<u8> = (0..random.random_range(1..600)).map(|_| random.random()).collect();
            bytes.extend(more);
            format!("grown to {}", bytes.len())
        }
    }
}

/// Damages one file after the other, `times` in each way.
fn damage_all(seed: u64, times: usize, pick: impl Fn(&Path) -> bool) -> BTreeMap<(usize, Found), usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut found = BTreeMap::new();
    let whole = whole().dir.path();
    for file in files(whole).into_iter().filter(|file| pick(file)) {
        let good = fs::read(&file).unwrap();
        let name = file.strip_prefix(whole).unwrap();
        if good.is_empty() {
            continue;
        }
        for round in 0..std::env::var("TIMES").ok().and_then(|t|t.parse().ok()).unwrap_or(times) * 5 {
            let (kind, mut bytes) = (round % 5, good.clone());
            let what = format!("{}: {}", name.display(), damage(&mut bytes, kind, &mut random));
            let dir = tempfile::tempdir().unwrap();
            copy(whole, dir.path());
            fs::write(dir.path().join(name), bytes).unwrap();
            *found.entry((kind, start(dir.path(), &what))).or_default() += 1;
        }
    }
    found
}

#[test]
fn a_damaged_journal() {
    let found = damage_all(1, 20, |file| file.extension().is_some_and(|e| e == "seg"));
    eprintln!("journal {found:?}");
}

#[test]
fn a_damaged_store() {
    let found = damage_all(2, 60, |file| file.components().any(|part| part.as_os_str() == "state"));
    eprintln!("state {found:?}");
}
