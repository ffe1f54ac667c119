//! Copies of a data directory with bytes cut off, flipped, overwritten or whole files gone: a start refuses them with a
//! message, or finds the very state that was there. Never less, and never another.
//!
//! The records are those of a real fleet with jams and kills; they are laid down through the real journal and store in
//! small segments. The positions of the damage come from fixed seeds.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
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
use tellerd::store::{self, Change, Folded, Opened, StoreError};

use super::daemon::{self, Daemon};

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
            match whole
                .fold
                .add(&Record::decode(record.version, &record.payload).unwrap())
                .unwrap()
            {
                Some(Change::CashOut(cashout)) => _ = whole.cashouts.insert(cashout.id, *cashout),
                Some(Change::Invoice(invoice)) => _ = whole.invoices.insert(invoice.spec.hash, *invoice),
                _ => {}
            }
        }
        whole
    })
}

fn records_of_a_fleet() -> Vec<journal::Record> {
    // A longer history, for long runs.
    if let Ok(data) = std::env::var("TELLERD_DAMAGE_DATA") {
        return Reader::open(Path::new(&data)).unwrap().map(Result::unwrap).collect();
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
    /// What is open is all there; something that has ended is refused when it is asked for, with what to do.
    Unreadable,
    /// An error that says what to do.
    Refused,
    /// Less than there was.
    Less,
}

/// Starts on a damaged copy.
fn start(dir: &Path, what: &str) -> Found {
    let whole = whole();
    let opened = match store::open(dir) {
        Ok(opened) => opened,
        Err(error) => {
            let told = error.to_string();
            assert!(
                told.contains("put ") || told.contains("store rebuild"),
                "{what}: {told}"
            );
            return Found::Refused;
        }
    };
    if opened.journal.last().seq < whole.records {
        return Found::Less;
    }
    assert_eq!(opened.store.folded().difference(&whole.fold), None, "{what}");
    let view = opened.store.view();
    let mut unreadable = 0;
    // What has ended is read when it is asked for; what is open was read at the start.
    let mut fits = |told: Result<bool, StoreError>, ended: bool| match told {
        Ok(same) => assert!(same, "{what}"),
        Err(error) => {
            assert!(ended && error.to_string().contains("store rebuild"), "{what}: {error}");
            unreadable += 1;
        }
    };
    for (id, cashout) in &whole.cashouts {
        let told = view.cashout(*id).map(|found| found.as_ref() == Some(cashout));
        fits(told, cashout.is_final());
    }
    for (hash, invoice) in &whole.invoices {
        let told = view.invoice(*hash).map(|found| found.as_ref() == Some(invoice));
        fits(told, invoice.is_final());
    }
    match (opened.set_aside, unreadable) {
        (None, 0) => Found::Same,
        (Some(_), 0) => Found::Refolded,
        (None, _) => Found::Unreadable,
        (Some(_), _) => panic!("{what}: folded again, and {unreadable} can not be read"),
    }
}

/// Does what the message of one that can not be read says.
fn rebuild(dir: &Path, what: &str) {
    let opened = store::rebuild(dir).unwrap();
    assert_eq!(opened.replayed, whole().records, "{what}");
    drop(opened.store);
    drop(opened.journal);
    assert_eq!(start(dir, what), Found::Same, "{what}, rebuilt");
}

/// The ways to damage a file's bytes.
const WAYS: [fn(&mut Vec<u8>, usize, &mut StdRng); 5] = [
    |bytes, at, random| bytes[at] ^= 1 << random.random_range(0..8_u32),
    |bytes, at, _| bytes.truncate(at),
    |bytes, at, random| {
        let end = (at + random.random_range(1..600)).min(bytes.len());
        bytes[at..end].fill(0);
    },
    |bytes, at, random| {
        let end = (at + random.random_range(1..600)).min(bytes.len());
        random.fill(&mut bytes[at..end]);
    },
    |bytes, _, random| bytes.extend((0..random.random_range(1..600)).map(|_| random.random::<u8>())),
];

/// A copy of the whole, to be damaged.
fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(whole().dir.path(), dir.path());
    dir
}

fn segments() -> Vec<PathBuf> {
    files(&whole().dir.path().join("journal"))
}

/// Damages each of `files` in each way so many times, and starts on it.
fn damage(seed: u64, files: &[PathBuf], times: usize, mut judge: impl FnMut(&Path, &str)) {
    let times = std::env::var("TELLERD_DAMAGE_TIMES").map_or(times, |times| times.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    for file in files {
        let good = fs::read(file).unwrap();
        let name = file.strip_prefix(whole().dir.path()).unwrap();
        for (way, spoil) in WAYS.iter().enumerate() {
            for _ in 0..times {
                let (mut bytes, at) = (good.clone(), random.random_range(0..good.len()));
                spoil(&mut bytes, at, &mut random);
                if bytes == good {
                    continue;
                }
                let dir = copied();
                fs::write(dir.path().join(name), bytes).unwrap();
                judge(dir.path(), &format!("{}, way {way} at byte {at}", name.display()));
            }
        }
    }
}

#[test]
fn a_damaged_segment_is_refused_or_nothing_of_it_is_needed() {
    let segments = segments();
    assert!(segments.len() > 2, "{segments:?}");
    let mut found: BTreeMap<Found, usize> = BTreeMap::new();
    damage(1, &segments, 12, |dir, what| {
        let judged = start(dir, what);
        *found.entry(judged).or_default() += 1;
        // The store stands for what was read before; whoever looks at all of the journal finds the damage.
        let verified = Reader::open(dir).unwrap().verify();
        let told = verified.map_or(true, |summary| {
            !summary.torn.is_empty() || summary.records < whole().records
        });
        assert!(told, "{what}: nobody finds it");
        assert!(!matches!(judged, Found::Less | Found::Unreadable), "{what}: {judged:?}");
    });
    eprintln!("{found:?}");
    assert!(found[&Found::Refused] > 20 && found[&Found::Same] > 20, "{found:?}");
}

/// Without a store nothing witnesses what was acknowledged: bytes that are cut off at the end of the last segment look as
/// if a crash had torn them, and are told as such. (A cut between two records can not be seen at all.)
#[test]
fn without_its_store_a_damaged_journal_is_refused_or_told_to_be_torn() {
    let segments = segments();
    let mut found: BTreeMap<Found, usize> = BTreeMap::new();
    damage(2, &segments, 8, |dir, what| {
        fs::remove_dir_all(dir.join("state")).unwrap();
        let judged = start(dir, what);
        *found.entry(judged).or_default() += 1;
        assert_ne!(judged, Found::Unreadable, "{what}");
        if judged == Found::Less {
            let last = segments.last().unwrap().file_name().unwrap();
            assert!(what.contains(last.to_str().unwrap()), "{what}");
            assert!(what.contains("way 1") || what.contains("way 2"), "{what}");
        }
    });
    eprintln!("{found:?}");
    assert!(
        found[&Found::Refused] > 20 && found.contains_key(&Found::Less),
        "{found:?}"
    );
}

#[test]
fn a_damaged_store_is_set_aside_and_folded_again() {
    let state = files(&whole().dir.path().join("state"));
    let mut found: BTreeMap<Found, usize> = BTreeMap::new();
    let mut judge = |dir: &Path, what: &str| {
        let judged = start(dir, what);
        assert_ne!(judged, Found::Less, "{what}");
        if judged == Found::Unreadable {
            rebuild(dir, what);
        }
        *found.entry(judged).or_default() += 1;
    };
    damage(3, &state, 20, &mut judge);
    for file in &state {
        let (dir, name) = (copied(), file.strip_prefix(whole().dir.path()).unwrap());
        fs::remove_file(dir.path().join(name)).unwrap();
        judge(dir.path(), &format!("{} gone", name.display()));
        let dir = copied();
        fs::write(dir.path().join(name), "").unwrap();
        judge(dir.path(), &format!("{} empty", name.display()));
    }
    eprintln!("{found:?}");
    assert!(found[&Found::Refolded] > 20, "{found:?}");
}

#[test]
fn a_store_that_is_gone_is_folded_again() {
    let dir = copied();
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let opened = store::open(dir.path()).unwrap();
    assert_eq!((opened.replayed, opened.set_aside), (whole().records, None));
    drop(opened.store);
    drop(opened.journal);
    assert_eq!(start(dir.path(), "again"), Found::Same);
    let verified = store::verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.replayed), (whole().records, 0));
    assert!(verified.finished > 10, "{verified:?}");
}

#[test]
fn segments_that_are_gone_or_changed_places_are_missed() {
    let names: Vec<_> = segments()
        .iter()
        .map(|file| file.file_name().unwrap().to_owned())
        .collect();
    for (index, name) in names.iter().enumerate() {
        for store_too in [false, true] {
            let dir = copied();
            let journal = dir.path().join("journal");
            fs::remove_file(journal.join(name)).unwrap();
            if store_too {
                fs::remove_dir_all(dir.path().join("state")).unwrap();
            }
            let is_last = index + 1 == names.len();
            let expected = match (is_last, store_too) {
                // The store stands for it.
                (false, false) => Found::Same,
                (false, true) | (true, false) => Found::Refused,
                // Whole segments with the store that knew of them: a directory of an earlier day.
                (true, true) => Found::Less,
            };
            assert_eq!(start(dir.path(), "gone"), expected, "{name:?} {store_too}");
            assert_eq!(Reader::open(dir.path()).unwrap().verify().is_err(), !is_last);
        }
    }
    let dir = copied();
    let path = |index: usize| dir.path().join("journal").join(&names[index]);
    fs::rename(path(0), dir.path().join("aside")).unwrap();
    fs::rename(path(1), path(0)).unwrap();
    fs::rename(dir.path().join("aside"), path(1)).unwrap();
    assert!(Reader::open(dir.path()).unwrap().verify().is_err());
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    assert_eq!(start(dir.path(), "changed places"), Found::Refused);
}

fn a_finished_one() -> CashOutId {
    let ended = whole().cashouts.values().find(|cashout| cashout.is_final());
    ended.unwrap().id
}

/// Writes `{` in the place of a value, through sled, which so finds no fault with the bytes. No damage to its files has
/// brought that about so far.
fn spoil_a_value(dir: &Path, key: &str) {
    let db = sled::open(dir.join("state")).unwrap();
    assert!(db.insert(key, "{").unwrap().is_some(), "{key} was there");
    db.flush().unwrap();
}

/// The same for what is read when it is asked for.
fn spoil_a_finished_one(dir: &Path) {
    spoil_a_value(dir, &format!("c/{}", a_finished_one()));
}

#[test]
fn what_has_ended_and_can_not_be_read_is_refused_until_the_store_is_folded_again() {
    let dir = copied();
    spoil_a_finished_one(dir.path());
    assert_eq!(start(dir.path(), "a value"), Found::Unreadable);
    assert!(store::verify(dir.path()).is_err(), "nobody finds it");
    rebuild(dir.path(), "a value");
}

/// `tellerd run` on a data directory that is damaged so.
fn run_on(dir: &Path, spoil: impl FnOnce(&Path)) -> Daemon {
    let data = dir.join("data");
    copy(whole().dir.path(), &data);
    spoil(&data);
    let atms: BTreeSet<&str> = whole().cashouts.values().map(|c| c.quote.atm.as_str()).collect();
    let mut config = daemon::config(daemon::nowhere());
    config.extend(atms.iter().map(|id| daemon::atm(id, id)));
    daemon::run_in(dir, &config)
}

/// The daemon makes of each what [`start`] does.
#[test]
fn the_daemon_starts_on_each_kind_or_says_why_not() {
    // Made here, because it has a runtime of its own.
    whole();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(daemons_start());
}

async fn daemons_start() {
    const POSITION: &str = "m";
    const ASIDE: &str = "could not be used and was folded anew";
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [same, refolded, unreadable, refused] = dirs.each_ref().map(tempfile::TempDir::path);
    let id = a_finished_one();
    let path = format!("/v1/cashouts/{id}");

    let daemon = run_on(same, |_| ());
    assert_eq!(daemon.get(&path).await["id"], id.to_string());
    assert!(!daemon.log().contains(ASIDE), "{}", daemon.log());
    daemon.terminate().await;

    let daemon = run_on(refolded, |data| spoil_a_value(data, POSITION));
    assert_eq!(daemon.get(&path).await["id"], id.to_string());
    assert!(daemon.log().contains(ASIDE), "{}", daemon.log());
    daemon.terminate().await;

    let daemon = run_on(unreadable, spoil_a_finished_one);
    let told = daemon.get(&path).await;
    assert!(told.to_string().contains("store rebuild"), "{told}");
    daemon.terminate().await;

    let last = segments().last().unwrap().file_name().unwrap().to_owned();
    let daemon = run_on(refused, |data| {
        fs::remove_file(data.join("journal").join(last)).unwrap()
    });
    daemon.refuses(&["put "]).await;
}
