//! Why the store can not be used, and whether that is damage.
//!
//! Made all over the store; [`super::Store::open`] sets a damaged one aside. What must stay true: a disk or rights that refuse are
//! never taken for damage.

use std::path::PathBuf;

use thiserror::Error;

use super::FoldError;
use crate::record::BadRecord;

/// Why the store can not be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// sled refuses.
    #[error("the state store {path} can not be used: {source}; run `tellerd store rebuild`")]
    Sled {
        /// Its folder.
        path: PathBuf,
        /// sled's words.
        source: sled::Error,
    },
    /// A value is not what was written.
    #[error("the state store holds a value that can not be read, key {key}: {source}; run `tellerd store rebuild`")]
    Value {
        /// The key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The folder can not be moved.
    #[error("the state store {path} can not be set aside: {source}")]
    SetAside {
        /// Its folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A write to sled failed earlier: what it holds is old, and not to be taken for the state.
    #[error("the state store is behind the journal since a write to it failed: start tellerd again")]
    LeftBehind,
    /// A journal record that can not be read.
    #[error("journal record {seq}: {source}")]
    Record {
        /// Its sequence number.
        seq: u64,
        /// Why.
        source: BadRecord,
    },
    /// A journal record that does not follow from those before it.
    #[error("journal record {seq} does not follow from those before it: {source}")]
    Fold {
        /// Its sequence number.
        seq: u64,
        /// Why.
        source: FoldError,
    },
}

impl StoreError {
    /// The disk or the rights to it are the trouble: another folder would fare no better.
    pub(super) fn is_not_damage(&self) -> bool {
        use std::io::ErrorKind as K;
        let Self::Sled {
            source: sled::Error::Io(io),
            ..
        } = self
        else {
            return false;
        };
        matches!(
            io.kind(),
            K::PermissionDenied | K::StorageFull | K::ReadOnlyFilesystem | K::WouldBlock
        )
    }
}
