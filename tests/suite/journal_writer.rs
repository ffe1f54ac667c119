//! The journal's writer: group commit, rotation, the follower, the lock, injected write and sync failures.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use futures_util::poll;
use tellerd::journal::{AppendError, MAX_PAYLOAD, OpenError, Options, Reader, Record, SegmentFile, WrapFile};

use crate::journal::{FRAME, HEADER, payloads, replay, runtime, start, write};

/// What the next operation of a kind does; without an entry it succeeds.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// A write that ends after this many bytes with ENOSPC.
    Full(usize),
    /// EIO.
    Io,
}

#[derive(Default)]
struct Script {
    writes: VecDeque<Fault>,
    syncs: VecDeque<Fault>,
    truncates: VecDeque<Fault>,
}

type Shared = Arc<Mutex<Script>>;

/// A real file that fails as the script says.
struct Faulty {
    file: File,
    script: Shared,
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn fails(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Io) => Err(io::Error::from_raw_os_error(EIO)),
        Some(Fault::Full(_)) => Err(io::Error::from_raw_os_error(ENOSPC)),
        Some(Fault::None) | None => Ok(()),
    }
}

impl SegmentFile for Faulty {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fault = self.script.lock().unwrap().writes.pop_front();
        if let Some(Fault::Full(written)) = fault {
            self.file.append(&bytes[..written.min(bytes.len())])?;
        }
        fails(fault)?;
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        fails(self.script.lock().unwrap().syncs.pop_front())?;
        self.file.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        fails(self.script.lock().unwrap().truncates.pop_front())?;
        self.file.truncate(len)
    }
}

fn faulty(segment_bytes: u64) -> (Shared, Options) {
    let script = Shared::default();
    let shared = script.clone();
    let wrap: WrapFile = Arc::new(move |file| {
        Box::new(Faulty {
            file,
            script: shared.clone(),
        })
    });
    (
        script,
        Options {
            wrap,
            segment_bytes,
            ..Options::default()
        },
    )
}

/// A file whose sync says that it has begun and waits until it may go on.
struct Gated {
    file: File,
    begun: Sender<()>,
    go: Arc<Mutex<Receiver<()>>>,
    syncs: Arc<AtomicUsize>,
}

impl SegmentFile for Gated {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.begun.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.file.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

#[test]
fn what_waits_during_a_sync_shares_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (begun_tx, begun) = mpsc::channel();
    let (go, go_rx) = mpsc::channel();
    let (syncs, go_rx) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(go_rx)));
    let counted = syncs.clone();
    let wrap: WrapFile = Arc::new(move |file| {
        Box::new(Gated {
            file,
            begun: begun_tx.clone(),
            go: go_rx.clone(),
            syncs: counted.clone(),
        })
    });
    let (batches_tx, batches) = mpsc::channel();
    let on_batch = Box::new(move |stats| batches_tx.send(stats).unwrap());
    go.send(()).unwrap(); // the new segment's header
    let (appender, writer) = start(
        dir.path(),
        Options {
            wrap,
            on_batch,
            ..Options::default()
        },
    );
    begun.recv().unwrap();
    runtime().block_on(async {
        let mut first = Box::pin(appender.append(1, b"first".to_vec()));
        assert!(poll!(&mut first).is_pending());
        begun.recv().unwrap();
        let mut rest = Box::pin(join_all((0..100u8).map(|n| appender.append(1, vec![n]))));
        assert!(poll!(&mut rest).is_pending(), "nothing is acknowledged before its sync");
        assert!(poll!(&mut first).is_pending());
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap().seq, 1);
        let seqs: Vec<u64> = rest.await.into_iter().map(|p| p.unwrap().seq).collect();
        assert_eq!(seqs, (2..=101).collect::<Vec<_>>());
    });
    drop(appender);
    assert!(writer.join());
    assert_eq!(
        syncs.load(Ordering::SeqCst),
        3,
        "the header, the first record, the hundred"
    );
    let batches: Vec<_> = batches.iter().map(|b| (b.records, b.bytes)).collect();
    assert_eq!(batches, [(1, FRAME + 5), (100, 100 * (FRAME + 1))]);
}

#[test]
fn the_follower_sees_every_record_once_in_order_and_a_barrier_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let seen: Arc<Mutex<Vec<Record>>> = Arc::default();
    let follows = seen.clone();
    let (journal, _) = replay(dir.path(), None).unwrap();
    let options = Options {
        segment_bytes: 500,
        ..Options::default()
    };
    let follower = Box::new(move |batch| follows.lock().unwrap().extend(batch));
    let (appender, writer) = journal.start(options, follower).unwrap();
    let last = runtime().block_on(async {
        let many = (0..40u8).map(|n| appender.append_all(vec![(n, vec![n]), (n, vec![n, n])]));
        for positions in join_all(many).await {
            let positions = positions.unwrap();
            assert_eq!(
                positions[0].seq + 1,
                positions[1].seq,
                "one caller's records are contiguous"
            );
        }
        assert_eq!(appender.append_all(Vec::new()).await.unwrap(), []);
        let last = appender.barrier().await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), 80);
        last
    });
    drop(appender);
    assert!(writer.join());
    let (journal, records) = replay(dir.path(), None).unwrap();
    assert_eq!(*seen.lock().unwrap(), records);
    assert_eq!((last, records[79].seq, records[79].version), (journal.last(), 80, 39));
}

#[test]
fn a_full_segment_is_followed_by_a_linked_one() {
    let dir = tempfile::tempdir().unwrap();
    let one = (HEADER + FRAME + 1) as u64;
    write(dir.path(), one + 1, &[b"a", b"b", b"c", b"d"]);
    write(dir.path(), one + 1, &[b"e"]);
    let mut names: Vec<_> = fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "00000000000000000001.seg",
            "00000000000000000003.seg",
            "00000000000000000005.seg"
        ]
    );
    assert_eq!(Reader::open(dir.path()).unwrap().verify().unwrap().records, 5);
}

#[test]
fn a_second_open_of_the_same_directory_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let (appender, writer) = start(dir.path(), Options::default());
    let error = replay(dir.path(), None).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }));
    let (pid, path) = (std::process::id(), dir.path().display());
    assert_eq!(
        error.to_string(),
        format!("another tellerd (pid {pid}) uses this data directory {path}")
    );
    // Reading needs no lock.
    runtime().block_on(appender.append(1, b"beside".to_vec())).unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().verify().unwrap().records, 1);
    drop(appender);
    assert!(writer.join());
    assert_eq!(payloads(&replay(dir.path(), None).unwrap().1), [b"beside"]);
}

#[test]
fn a_full_disk_loses_only_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (script, options) = faulty(1 << 20);
    let (appender, writer) = start(dir.path(), options);
    runtime().block_on(async {
        appender.append(1, b"before".to_vec()).await.unwrap();
        // A whole first record and part of the second one get to the file.
        script.lock().unwrap().writes.push_back(Fault::Full(FRAME + 3 + 20));
        let refused = appender
            .append_all(vec![(1, b"one".to_vec()), (1, b"two".to_vec())])
            .await
            .unwrap_err();
        assert!(matches!(refused, AppendError::NotWritten { .. }), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains("00000000000000000001.seg") && text.contains("No space left"),
            "{text}"
        );
        assert_eq!(Reader::open(dir.path()).unwrap().verify().unwrap().records, 1);
        assert_eq!(appender.append(1, b"after".to_vec()).await.unwrap().seq, 2);
    });
    drop(appender);
    assert!(writer.join());
    let (journal, records) = replay(dir.path(), None).unwrap();
    assert_eq!(payloads(&records), [b"before".as_slice(), b"after"]);
    assert_eq!(journal.torn(), []);
}

/// Runs one append into the faults and checks that every later one fails too, until a restart.
fn poisons(writes: &[Fault], syncs: &[Fault], truncates: &[Fault], says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (script, options) = faulty(1 << 20);
    let (appender, writer) = start(dir.path(), options);
    runtime().block_on(async {
        appender.append(1, b"before".to_vec()).await.unwrap();
        {
            let mut script = script.lock().unwrap();
            script.writes.extend(writes);
            script.syncs.extend(syncs);
            script.truncates.extend(truncates);
        }
        for payload in [b"doubtful", b"too late"] {
            let error = appender.append(1, payload.to_vec()).await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, AppendError::Poisoned { .. }), "{text}");
            assert!(
                text.contains(says) && text.contains("00000000000000000001.seg"),
                "{text}"
            );
        }
        assert!(matches!(appender.barrier().await, Err(AppendError::Poisoned { .. })));
    });
    drop(appender);
    assert!(writer.join());
    let (_, records) = replay(dir.path(), None).unwrap();
    assert_eq!(records[0].payload, b"before");
    assert!(records.len() <= 2 && records.iter().all(|r| r.payload != b"too late"));
    assert_eq!(write(dir.path(), 1 << 20, &[b"again"])[0].seq, records.len() as u64 + 1);
    assert_eq!(
        Reader::open(dir.path()).unwrap().verify().unwrap().records,
        records.len() as u64 + 1
    );
}

#[test]
fn a_failed_sync_poisons() {
    poisons(&[], &[Fault::Io], &[], "sync of");
    poisons(&[], &[Fault::Io], &[Fault::Io], "sync of");
}

#[test]
fn a_failed_cut_after_a_failed_write_poisons() {
    poisons(&[Fault::Full(30)], &[], &[Fault::Io], "cutting it back failed");
    // The cut succeeds but is not known to be durable: a whole record could come back.
    poisons(&[Fault::Full(FRAME + 8)], &[Fault::Io], &[], "cutting it back failed");
}

#[test]
fn a_segment_that_cannot_be_created_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (script, options) = faulty(1);
    let (appender, writer) = start(dir.path(), options);
    runtime().block_on(async {
        appender.append(1, b"a".to_vec()).await.unwrap();
        script.lock().unwrap().writes.push_back(Fault::Full(20));
        let error = appender.append(1, b"b".to_vec()).await.unwrap_err();
        assert!(matches!(&error, AppendError::NotWritten { file, .. } if file.ends_with("00000000000000000002.seg")));
        script.lock().unwrap().syncs.push_back(Fault::Io);
        assert!(matches!(
            appender.append(1, b"c".to_vec()).await,
            Err(AppendError::NotWritten { .. })
        ));
        script.lock().unwrap().writes.push_back(Fault::None);
        assert_eq!(appender.append(1, b"d".to_vec()).await.unwrap().seq, 2);
    });
    drop(appender);
    assert!(writer.join());
    assert_eq!(payloads(&replay(dir.path(), None).unwrap().1), [b"a", b"d"]);
}

#[test]
fn a_payload_over_the_limit_is_refused_and_the_longest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (appender, writer) = start(dir.path(), Options::default());
    runtime().block_on(async {
        let error = appender.append(1, vec![0; MAX_PAYLOAD + 1]).await.unwrap_err();
        assert!(matches!(error, AppendError::TooLong { len } if len == MAX_PAYLOAD + 1));
        assert_eq!(appender.append(1, vec![0; MAX_PAYLOAD]).await.unwrap().seq, 1);
    });
    drop(appender);
    assert!(writer.join());
    assert_eq!(replay(dir.path(), None).unwrap().1[0].payload, vec![0; MAX_PAYLOAD]);
}

#[test]
fn a_panicking_follower_ends_the_writer_and_every_later_append() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = replay(dir.path(), None).unwrap();
    let (appender, writer) = journal
        .start(Options::default(), Box::new(|_| panic!("injected")))
        .unwrap();
    runtime().block_on(async {
        appender.append(1, b"a".to_vec()).await.unwrap();
        assert!(matches!(
            appender.append(1, b"b".to_vec()).await,
            Err(AppendError::Poisoned { .. })
        ));
    });
    assert!(!writer.join());
    assert_eq!(payloads(&replay(dir.path(), None).unwrap().1), [b"a"]);
}
