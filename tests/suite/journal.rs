//! The journal on disk: its bytes, damage, torn tails, links between segments.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tellerd::journal::{
    Appender, ChainHash, DirLock, Journal, OpenError, Options, Position, ReadError, Reader, Record, WriterThread,
};

pub const HEADER: usize = 54;
/// A frame around a payload.
pub const FRAME: usize = 18 + 32;

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Opens from the start and gathers the records.
pub fn replay(dir: &Path, from: Option<Position>) -> Result<(Journal, Vec<Record>), OpenError> {
    let mut records = Vec::new();
    let journal = Journal::open(&DirLock::take(dir)?, from, |record| {
        records.push(record);
        Ok::<(), Infallible>(())
    })?;
    Ok((journal, records))
}

pub fn start(dir: &Path, options: Options) -> (Appender, WriterThread) {
    replay(dir, None).unwrap().0.start(options, Box::new(|_| {})).unwrap()
}

/// Appends each payload in a batch of its own and closes the journal.
pub fn write(dir: &Path, segment_bytes: u64, payloads: &[&[u8]]) -> Vec<Position> {
    let (appender, writer) = start(
        dir,
        Options {
            segment_bytes,
            ..Options::default()
        },
    );
    let positions = runtime().block_on(async {
        let mut positions = Vec::new();
        for payload in payloads {
            positions.push(appender.append(1, payload.to_vec()).await.unwrap());
        }
        positions
    });
    drop(appender);
    assert!(writer.join());
    positions
}

pub fn payloads(records: &[Record]) -> Vec<&[u8]> {
    records.iter().map(|r| r.payload.as_slice()).collect()
}

/// Every file of the journal's folder with its bytes, in order.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn segment(dir: &Path, first: u64) -> PathBuf {
    dir.join("journal").join(format!("{first:020}.seg"))
}

/// Lays `bytes` down as the only segment of a journal.
fn only_segment(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    fs::write(segment(dir.path(), 1), bytes).unwrap();
    dir
}

const SMALL: [&[u8]; 3] = [b"first", b"", b"the third record"];

#[test]
fn frozen_bytes_of_format_1() {
    // Do not edit this test: journals with these bytes exist. A new format gets a new test.
    const FROZEN: &str = concat!(
        "54454c4c4552444a01000100000000000000000000000000000000000000000000000000000000000000000000000000",
        "0000f3e705ec0600000001000100000000000000d1a8343d71756f7465642e4944a14544d8987b937749f3457f71b392",
        "f269ed1770cfde9741e2a24455e70400000001000200000000000000e5021dbf68656c64e703361fc858b34d27e76bf2",
        "1604d740f25cf4f479251e8af53122849418444f",
    );
    let bytes = hex::decode(FROZEN).unwrap();
    let dir = only_segment(&bytes);
    let records: Vec<Record> = Reader::open(dir.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(payloads(&records), [b"quoted".as_slice(), b"held"]);
    assert_eq!(
        records.iter().map(|r| (r.seq, r.version)).collect::<Vec<_>>(),
        [(1, 1), (2, 1)]
    );

    let written = tempfile::tempdir().unwrap();
    write(written.path(), 1 << 20, &[b"quoted", b"held"]);
    assert_eq!(hex::encode(fs::read(segment(written.path(), 1)).unwrap()), FROZEN);
}

#[test]
fn an_empty_journal_starts_at_record_1_and_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new/deeper");
    let positions = write(&dir, 1 << 20, &SMALL);
    assert_eq!(positions.iter().map(|p| p.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let (journal, records) = replay(&dir, None).unwrap();
    assert_eq!(payloads(&records), SMALL);
    assert_eq!(journal.last(), positions[2]);
    assert_eq!(journal.torn(), []);
    drop(journal);
    assert_eq!(write(&dir, 1 << 20, &[b"more"])[0].seq, 4);
    let summary = Reader::open(&dir).unwrap().verify().unwrap();
    assert_eq!((summary.segments, summary.records, summary.last.seq), (1, 4, 4));
}

#[test]
fn every_flipped_bit_is_damage_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 20, &SMALL);
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    // A flip cannot pass for a torn tail unless the file ends in zeros at a sector boundary.
    assert!(good.len() < 512 && good.last() != Some(&0));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let dir = only_segment(&bad);
        let Err(OpenError::Read(ReadError::Damaged {
            file, record, offset, ..
        })) = replay(dir.path(), None)
        else {
            panic!("bit {bit} was not refused as damage");
        };
        let starts = [0, HEADER, HEADER + FRAME + 5, HEADER + 2 * FRAME + 5];
        let at = starts.iter().rposition(|start| bit / 8 >= *start).unwrap();
        assert_eq!(offset, starts[at] as u64, "bit {bit}");
        assert_eq!(record, at.max(1) as u64, "bit {bit}");
        assert_eq!(file, segment(dir.path(), 1));
        let intact = Reader::open(dir.path()).unwrap().take_while(Result::is_ok).count();
        assert_eq!(intact, at.saturating_sub(1), "bit {bit}");
        assert_eq!(files(dir.path()), [(segment(dir.path(), 1), bad)]);
    }
}

/// Cut or zero-filled bytes: what is before is kept, and writing goes on without touching them.
fn torn_and_goes_on(bytes: &[u8], intact: usize, torn_bytes: usize) {
    let dir = only_segment(bytes);
    let (journal, records) = replay(dir.path(), None).unwrap();
    assert_eq!(payloads(&records), SMALL[..intact]);
    assert_eq!(journal.torn().iter().map(|t| t.bytes).sum::<u64>(), torn_bytes as u64);
    drop(journal);
    write(dir.path(), 1 << 20, &[b"after"]);
    let (journal, records) = replay(dir.path(), None).unwrap();
    assert_eq!(payloads(&records), [&SMALL[..intact], &[b"after".as_slice()]].concat());
    drop(journal);
    let kept = files(dir.path()).into_iter().any(|(_, held)| match torn_bytes {
        0 => held.starts_with(bytes),
        _ => held == bytes,
    });
    assert!(kept, "the torn file is kept as it was");
}

#[test]
fn a_cut_at_every_offset_is_torn_and_earlier_records_stay() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 20, &SMALL);
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    let ends = [HEADER, HEADER + FRAME + 5, HEADER + 2 * FRAME + 5, good.len()];
    for cut in 1..=good.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let kept = if whole == 0 { 0 } else { ends[whole - 1] };
        torn_and_goes_on(&good[..cut], whole.saturating_sub(1), cut - kept);
    }
}

#[test]
fn a_tail_of_zeros_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 20, &SMALL);
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    let mut grown = good.clone();
    grown.resize(5000, 0);
    torn_and_goes_on(&grown, 3, 5000 - good.len());
    torn_and_goes_on(&[0; 300], 0, 300);
    // One byte after the zeros and it is no longer what a crash leaves.
    grown.push(1);
    let dir = only_segment(&grown);
    assert!(matches!(
        replay(dir.path(), None),
        Err(OpenError::Read(ReadError::Damaged { record: 4, .. }))
    ));
}

#[test]
fn a_record_whose_last_sectors_are_zero_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 20, &[b"kept", &[7; 3000]]);
    let mut bytes = fs::read(segment(dir.path(), 1)).unwrap();
    bytes[1024..].fill(0);
    let found = only_segment(&bytes);
    let (journal, records) = replay(found.path(), None).unwrap();
    assert_eq!(payloads(&records), [b"kept"]);
    assert_eq!(journal.torn()[0].offset, (HEADER + FRAME + 4) as u64);
    // Zeros that start inside a sector are not what a crash leaves.
    let mut altered = fs::read(segment(dir.path(), 1)).unwrap();
    let end = altered.len();
    altered[end - 3..].fill(0);
    assert_ne!(end % 512, 3);
    let altered = only_segment(&altered);
    assert!(matches!(
        replay(altered.path(), None),
        Err(OpenError::Read(ReadError::Damaged { record: 2, .. }))
    ));
}

#[test]
fn an_older_segment_may_be_torn_only_where_the_next_one_links() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, &SMALL);
    assert_eq!(files(dir.path()).len(), 3);
    let path = segment(dir.path(), 2);
    let good = fs::read(&path).unwrap();
    // Bytes after its last record: the next segment links to that record, so nothing is lost.
    fs::write(&path, [&good[..], &[9; 5]].concat()).unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().verify().unwrap().torn.len(), 1);
    for cut in 0..good.len() {
        fs::write(&path, &good[..cut]).unwrap();
        let error = Reader::open(dir.path()).unwrap().verify().unwrap_err();
        assert!(
            matches!(error, ReadError::Damaged { record: 2, .. }),
            "cut at {cut}: {error}"
        );
        assert!(error.to_string().contains("the journal was not changed"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        replay(dir.path(), None),
        Err(OpenError::Read(ReadError::Damaged { record: 2, .. }))
    ));
}

#[test]
fn a_segment_of_another_journal_does_not_link() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(ours.path(), 1, &[b"a", b"b"]);
    write(theirs.path(), 1, &[b"x", b"b"]);
    fs::copy(segment(theirs.path(), 2), segment(ours.path(), 2)).unwrap();
    let text = Reader::open(ours.path()).unwrap().verify().unwrap_err().to_string();
    assert!(
        text.contains("00000000000000000001.seg at record 2") && text.contains("another hash"),
        "{text}"
    );
}

#[test]
fn replay_starts_after_the_position_and_reads_only_from_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let positions = write(dir.path(), 1, &[b"1", b"2", b"3", b"4"]);
    // Not read, hence not missed.
    fs::write(
        segment(dir.path(), 1),
        b"not even a header, but long enough to be taken for one, and so damaged",
    )
    .unwrap();
    for (done, position) in positions.iter().enumerate().skip(1) {
        let (journal, records) = replay(dir.path(), Some(*position)).unwrap();
        assert_eq!(
            records.iter().map(|r| r.seq).collect::<Vec<_>>(),
            (done as u64 + 2..=4).collect::<Vec<_>>()
        );
        assert_eq!(journal.last(), positions[3]);
    }
    assert!(replay(dir.path(), None).is_err());
}

#[test]
fn a_store_ahead_of_or_beside_the_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, &[b"1", b"2"]);
    let ahead = Position {
        seq: 5,
        hash: ChainHash([1; 32]),
    };
    let error = replay(dir.path(), Some(ahead)).err().unwrap().to_string();
    assert_eq!(
        error,
        "journal ends at record 2 but the store has seen record 5: 3 records are missing; put the journal's missing \
         files back, from a copy if need be, before anything else"
    );
    let beside = Position {
        seq: 2,
        hash: ChainHash([1; 32]),
    };
    assert!(matches!(
        replay(dir.path(), Some(beside)),
        Err(OpenError::OtherHistory { seq: 2, .. })
    ));
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    assert!(matches!(
        replay(dir.path(), Some(ahead)),
        Err(OpenError::Behind { ends: 0, seen: 5 })
    ));
}

#[test]
fn a_refused_record_stops_the_replay_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 20, &SMALL);
    let error = Journal::open(&DirLock::take(dir.path()).unwrap(), None, |r| {
        if r.seq == 2 { Err("unknown version") } else { Ok(()) }
    });
    assert_eq!(
        error.err().unwrap().to_string(),
        "cannot replay record 2 of the journal: unknown version"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_bytes_never_panic_and_yield_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let dir = only_segment(&bytes);
        let mut reader = Reader::open(dir.path()).unwrap();
        prop_assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 0);
        prop_assert_eq!(reader.reached().seq, 0);
    }

    #[test]
    fn random_bytes_after_intact_records_never_become_one(
        bytes in proptest::collection::vec(any::<u8>(), 1..300), at in 0usize..4
    ) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1 << 20, &SMALL);
        let good = fs::read(segment(dir.path(), 1)).unwrap();
        let ends = [HEADER, HEADER + FRAME + 5, HEADER + 2 * FRAME + 5, good.len()];
        prop_assume!(!good[ends[at]..].starts_with(&bytes));
        let dir = only_segment(&[&good[..ends[at]], &bytes].concat());
        let records: Vec<Record> = Reader::open(dir.path()).unwrap().filter_map(Result::ok).collect();
        prop_assert_eq!(payloads(&records), &SMALL[..at]);
    }

    #[test]
    fn what_is_written_is_read(
        written in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..12), limit in 1u64..3000
    ) {
        let dir = tempfile::tempdir().unwrap();
        let slices: Vec<&[u8]> = written.iter().map(Vec::as_slice).collect();
        write(dir.path(), limit, &slices);
        let (_, records) = replay(dir.path(), None).unwrap();
        prop_assert_eq!(payloads(&records), slices);
    }
}

#[test]
fn a_header_with_a_right_check_and_a_wrong_meaning_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 20, &SMALL);
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    let frame = HEADER + FRAME + 5;
    // Header start, its length without the check, the byte to change, the record, what the text says.
    let cases = [
        (0, 50, 0, 1, "not a tellerd journal segment"),
        (0, 50, 8, 1, "segment format"),
        (0, 50, 10, 1, "starts at record"),
        (frame, 14, 3, 2, "payload of"),
        (frame, 14, 5, 2, "unknown flags"),
        (frame, 14, 6, 2, "calls itself"),
        (frame, 14, 4, 2, "does not match its hash"),
    ];
    for (start, len, change, record, says) in cases {
        let mut bad = good.clone();
        bad[start + change] ^= 0x40;
        let check = Sha256::digest(&bad[start..start + len]);
        bad[start + len..start + len + 4].copy_from_slice(&check[..4]);
        let dir = only_segment(&bad);
        let text = replay(dir.path(), None).err().unwrap().to_string();
        assert!(
            text.contains(says) && text.contains(&format!("at record {record}, offset {start}:")),
            "{text}"
        );
    }
}
