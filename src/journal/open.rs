//! Opening the journal for writing: lock, replay, then the writer.
//!
//! Called once at start by the application. Until [`Journal::start`] nothing but `DIR/lock`, and the folder
//! of an empty journal, is written, and `start` can only be reached when all that was read is intact.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::sync::mpsc;

use super::appender::{Appender, Request};
use super::file::{self, Active, WrapFile};
use super::frame::SEGMENT_HEADER;
use super::reader::{Reader, Tail};
use super::writer::{Follower, OnBatch, Pause, Writer};
use super::{DirLock, FOLDER, Position, ReadError, Record, TornTail};

/// Why the journal was not opened for writing.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("another tellerd (pid {}) uses this data directory {}", pid.map_or("unknown".into(), |p| p.to_string()), dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// What the lock file says.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("cannot open the journal: {}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// It cannot be read, and was not changed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Acknowledged records are gone.
    #[error("journal ends at record {ends} but the store has seen record {seen}: {} records are missing; put the journal's missing files back, from a copy if need be, before anything else", seen.saturating_sub(*ends))]
    Behind {
        /// The journal's last record.
        ends: u64,
        /// The store's.
        seen: u64,
    },
    /// The store was not built from this journal.
    #[error(
        "record {seq} of the journal has hash {found} but the store was built from {seen}: put back the journal that belongs to the store"
    )]
    OtherHistory {
        /// The store's position.
        seq: u64,
        /// In the journal.
        found: super::ChainHash,
        /// In the store.
        seen: super::ChainHash,
    },
    /// The caller refused a replayed record.
    #[error("cannot replay record {seq} of the journal: {source}")]
    Replay {
        /// Its number.
        seq: u64,
        /// The caller's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How to write.
pub struct Options {
    /// A segment with a record and this long or longer is followed by a new one before the next batch. Bytes.
    pub segment_bytes: u64,
    /// Appends that may wait before `append` itself waits.
    pub queue: usize,
    /// Receives the figures of every batch.
    pub on_batch: OnBatch,
    /// Around each file opened for appending; for tests.
    pub wrap: WrapFile,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 8 * 1024 * 1024,
            queue: 1024,
            on_batch: Box::new(|_| {}),
            wrap: Arc::new(|file| Box::new(file)),
        }
    }
}

/// The journal, locked and replayed, not yet written to.
pub struct Journal {
    folder: PathBuf,
    lock: DirLock,
    last: Position,
    tail: Option<Tail>,
    torn: Vec<TornTail>,
}

/// The writer's thread; it ends, and frees the lock, when every [`Appender`] is dropped.
pub struct WriterThread(JoinHandle<()>);

impl WriterThread {
    /// Blocks until it has ended. False if it panicked (in the follower or in `on_batch`).
    pub fn join(self) -> bool {
        self.0.join().is_ok()
    }
}

impl Journal {
    /// Replays the records after `from` in the locked data directory.
    ///
    /// Reads from the segment that holds `from` on, and checks that record's hash.
    pub fn open<E>(
        lock: &DirLock,
        from: Option<Position>,
        mut replay: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<Journal, OpenError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let folder = lock.dir().join(FOLDER);
        create_folder(&folder)?;
        let from = from.unwrap_or(Position::START);
        let mut reader = Reader::from(&folder, from)?;
        make_durable(&folder, reader.last_file())?;
        for record in reader.by_ref() {
            let record = record?;
            if record.seq > from.seq {
                let seq = record.seq;
                replay(record).map_err(|e| OpenError::Replay { seq, source: e.into() })?;
            } else if record.seq == from.seq && record.hash != from.hash {
                return Err(OpenError::OtherHistory {
                    seq: from.seq,
                    found: record.hash,
                    seen: from.hash,
                });
            }
        }
        let (last, tail, torn) = reader.finish();
        if last.seq < from.seq {
            return Err(OpenError::Behind {
                ends: last.seq,
                seen: from.seq,
            });
        }
        Ok(Journal {
            folder,
            lock: lock.clone(),
            last,
            tail,
            torn,
        })
    }

    /// After the last record.
    pub fn last(&self) -> Position {
        self.last
    }

    /// What crashes left behind, to be logged.
    pub fn torn(&self) -> &[TornTail] {
        &self.torn
    }

    /// Starts the writer; `follower` gets every acknowledged batch, in order.
    pub fn start(self, options: Options, follower: Follower) -> Result<(Appender, WriterThread), OpenError> {
        let folder = self.folder.clone();
        let lock = self.lock.clone();
        let (appender, writer, requests) = self.writer(options, follower)?;
        let run = move || {
            let _held = lock;
            writer.run(requests);
        };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(run);
        let thread = thread.map_err(|source| OpenError::Io { file: folder, source })?;
        Ok((appender, WriterThread(thread)))
    }

    /// As [`Journal::start`], with a writer that is a task for the caller to run: of a simulation, which has one thread. It writes
    /// without a thread of its own, and ends, and frees the lock, when it is dropped.
    pub fn start_here(
        self,
        options: Options,
        follower: Follower,
        before: Pause,
    ) -> Result<(Appender, impl Future<Output = ()>), OpenError> {
        let lock = self.lock.clone();
        let (appender, writer, requests) = self.writer(options, follower)?;
        let run = async move {
            let _held = lock;
            writer.serve(requests, before).await;
        };
        Ok((appender, run))
    }

    fn writer(
        self,
        options: Options,
        follower: Follower,
    ) -> Result<(Appender, Writer, mpsc::Receiver<Request>), OpenError> {
        let active = self.active(&options.wrap)?;
        let writer = Writer {
            folder: self.folder.clone(),
            active,
            last: self.last,
            // A segment without a record must not be followed by another of its name.
            segment_bytes: options.segment_bytes.max(SEGMENT_HEADER as u64 + 1),
            wrap: options.wrap,
            follower,
            on_batch: options.on_batch,
            poisoned: None,
        };
        let (queue, requests) = mpsc::channel(options.queue.max(1));
        Ok((Appender { queue }, writer, requests))
    }

    /// The segment to write to. Torn bytes stay where they are; a segment with nothing else in it gives up its
    /// name, which the new segment needs, and is kept as `*.torn-N`.
    fn active(&self, wrap: &WrapFile) -> Result<Active, OpenError> {
        if let Some(tail) = &self.tail {
            let path = &tail.name.path;
            let io = |source| OpenError::Io {
                file: path.clone(),
                source,
            };
            if !tail.torn {
                return file::reopen(path, tail.intact, wrap).map_err(io);
            }
            if tail.name.first_seq > self.last.seq {
                set_aside(path)
                    .and_then(|()| file::sync_folder(&self.folder))
                    .map_err(io)?;
            }
        }
        file::create(&self.folder, self.last, wrap).map_err(|e| OpenError::Io {
            file: e.path,
            source: e.source,
        })
    }
}

/// Renames a torn file to the first free `*.torn-N`.
fn set_aside(path: &Path) -> io::Result<()> {
    for n in 1u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".torn-{n}"));
        let target = PathBuf::from(name);
        if !target.try_exists()? {
            return std::fs::rename(path, target);
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Creates a folder if it is missing, durably.
pub(super) fn create_folder(folder: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io {
        file: folder.to_path_buf(),
        source,
    };
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_folder(parent)?;
    std::fs::create_dir(folder)
        .and_then(|()| file::sync_folder(parent))
        .map_err(io)
}

/// What a killed writer wrote but did not sync is about to be believed.
fn make_durable(folder: &Path, last: Option<&Path>) -> Result<(), OpenError> {
    let io = |file: &Path| {
        let file = file.to_path_buf();
        move |source| OpenError::Io { file, source }
    };
    if let Some(last) = last {
        File::open(last).and_then(|file| file.sync_data()).map_err(io(last))?;
    }
    file::sync_folder(folder).map_err(io(folder))?;
    folder
        .parent()
        .map_or(Ok(()), |dir| file::sync_folder(dir).map_err(io(dir)))
}
