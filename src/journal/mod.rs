//! The journal: the truth about every cash-out, as append-only segment files.
//!
//! Owns `DIR/journal/` and the lock `DIR/lock`. Called by the journal actor (appends), the store (replay
//! from the position it stands for) and the `tellerd journal` commands (reading beside a running daemon).
//!
//! What must stay true:
//! - an append is acknowledged only after the `fdatasync` that covers it;
//! - records are numbered from 1 without gaps, each one's hash covers the one before it;
//! - bytes once acknowledged are never truncated or overwritten; a torn tail stays where it is and the
//!   next writer goes on in a new segment;
//! - anything that is neither intact nor explained by a crash is [`ReadError::Damaged`], and nothing is written.
//!
//! A record's payload is opaque here. Measurements behind the design: facts/crates.md, "Durable writes".

mod appender;
mod file;
mod frame;
mod lock;
mod open;
mod reader;
mod segment;
mod writer;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use appender::{AppendError, Appender};
pub use file::{SegmentFile, WrapFile};
pub use frame::MAX_PAYLOAD;
pub use lock::DirLock;
pub use open::{Journal, OpenError, Options, WriterThread};
pub use reader::{Reader, Summary};
pub use writer::{BatchStats, Follower, OnBatch, Pause};

/// Name of the journal's folder inside the data directory.
pub(crate) const FOLDER: &str = "journal";

/// The hash of a record and, through its predecessor's hash, of everything before it (sha256).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// What the first record takes for its predecessor's hash.
    pub const GENESIS: ChainHash = ChainHash([0; 32]);
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in the journal: just after record `seq`, whose hash is `hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the record; 0 only for [`Position::START`].
    pub seq: u64,
    /// Its hash.
    pub hash: ChainHash,
}

impl Position {
    /// Before the first record.
    pub const START: Position = Position {
        seq: 0,
        hash: ChainHash::GENESIS,
    };
}

/// One record, read back or just acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1.
    pub seq: u64,
    /// Its hash.
    pub hash: ChainHash,
    /// Version of the payload's format, chosen by the caller.
    pub version: u8,
    /// The caller's bytes, at most [`MAX_PAYLOAD`].
    pub payload: Vec<u8>,
}

impl Record {
    /// The place just after this record.
    pub fn position(&self) -> Position {
        Position {
            seq: self.seq,
            hash: self.hash,
        }
    }
}

/// Bytes at the end of a segment that a crash left behind: never acknowledged, never overwritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Where the torn bytes start; 0 if the segment's own header is torn.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} unacknowledged bytes at offset {}",
            self.file.display(),
            self.bytes,
            self.offset
        )
    }
}

/// Why the journal cannot be read on.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The bytes are neither intact nor explained by a crash.
    #[error("journal damaged in {} at record {record}, offset {offset}: {why}; the journal was not changed, put the file back from a copy", file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Number of the record that cannot be read.
        record: u64,
        /// Where in the file it starts, in bytes.
        offset: u64,
        /// What is wrong.
        why: String,
    },
}
