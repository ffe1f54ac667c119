//! Where the state is kept: in sled, or in memory for simulations, which begin and end thousands of lives.
//!
//! Called by [`super::Store`] and [`super::View`]. What must stay true: both keep keys in the order of their bytes, and a batch is
//! there as a whole or not at all; damaged files are errors, and end no thread.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Changes of several keys: the new value, or `None` for a key that goes.
pub(super) type Batch = Vec<(String, Option<Vec<u8>>)>;

/// A table of bytes.
#[derive(Debug, Clone)]
pub(super) enum Table {
    Sled(sled::Db),
    Memory(Arc<Mutex<Entries>>),
}

impl Table {
    /// The one in sled's folder `path`.
    pub fn open(path: &Path) -> sled::Result<Self> {
        let config = sled::Config::new().path(path).cache_capacity(16 << 20);
        contained(|| config.open()).map(Self::Sled)
    }

    /// An empty one in memory.
    pub fn in_memory() -> Self {
        Self::Memory(Arc::default())
    }

    pub fn clear(&self) -> sled::Result<()> {
        match self {
            Self::Sled(db) => contained(|| db.clear()),
            Self::Memory(entries) => {
                locked(entries).clear();
                Ok(())
            }
        }
    }

    pub fn get(&self, key: &str) -> sled::Result<Option<Vec<u8>>> {
        match self {
            Self::Sled(db) => contained(|| Ok(db.get(key)?.map(|value| value.to_vec()))),
            Self::Memory(entries) => Ok(locked(entries).get(key.as_bytes()).cloned()),
        }
    }

    /// What follows `prefix` in all keys that begin with it, ascending, and their values.
    pub fn entries(&self, prefix: &str) -> sled::Result<Vec<(String, Vec<u8>)>> {
        match self {
            Self::Sled(db) => contained(|| {
                let entries = db.scan_prefix(prefix);
                let entries = entries.map(|entry| entry.map(|(key, value)| (rest(&key, prefix), value.to_vec())));
                entries.collect()
            }),
            Self::Memory(entries) => {
                let entries = locked(entries);
                let from = entries.range(prefix.as_bytes().to_vec()..);
                let ours = from.take_while(|(key, _)| key.starts_with(prefix.as_bytes()));
                Ok(ours.map(|(key, value)| (rest(key, prefix), value.clone())).collect())
            }
        }
    }

    /// What follows `prefix` in the last `limit` keys from it on and before `end`, descending.
    pub fn last_keys(&self, prefix: &str, end: &str, limit: usize) -> sled::Result<Vec<String>> {
        if prefix >= end {
            return Ok(Vec::new());
        }
        match self {
            Self::Sled(db) => contained(|| {
                let keys = db.range(prefix..end).keys().rev().take(limit);
                keys.map(|key| Ok(rest(&key?, prefix))).collect()
            }),
            Self::Memory(entries) => {
                let entries = locked(entries);
                let range = entries.range(prefix.as_bytes().to_vec()..end.as_bytes().to_vec());
                Ok(range.rev().take(limit).map(|(key, _)| rest(key, prefix)).collect())
            }
        }
    }

    pub fn apply(&self, changes: Batch) -> sled::Result<()> {
        match self {
            Self::Sled(db) => {
                let mut batch = sled::Batch::default();
                for (key, value) in changes {
                    match value {
                        Some(bytes) => batch.insert(key.as_bytes(), bytes),
                        None => batch.remove(key.as_bytes()),
                    }
                }
                contained(|| db.apply_batch(batch))
            }
            Self::Memory(entries) => {
                let mut entries = locked(entries);
                for (key, value) in changes {
                    match value {
                        Some(bytes) => entries.insert(key.into_bytes(), bytes),
                        None => entries.remove(key.as_bytes()),
                    };
                }
                Ok(())
            }
        }
    }
}

/// sled's last words before a panic.
#[derive(Debug, Error)]
#[error("sled gave up: {0}")]
struct GaveUp(String);

/// Takes sled's panics for errors: it indexes with what it reads from damaged files.
pub(super) fn contained<T>(work: impl FnOnce() -> sled::Result<T>) -> sled::Result<T> {
    // After a write nothing that it left half done is used again: a store is set aside or left behind, the thread of
    // `Seen` ends. A read leaves nothing half done but pages that are not in the cache: the next one finds what is written,
    // or fails as well.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let why = GaveUp(text.unwrap_or("no reason given").to_owned());
        Err(sled::Error::Io(std::io::Error::other(why)))
    })
}

/// Whether the error was a panic. A clone of it does not tell any more: sled clones only the words.
pub(super) fn gave_up(error: &sled::Error) -> bool {
    let sled::Error::Io(io) = error else { return false };
    io.get_ref().is_some_and(|inner| inner.is::<GaveUp>())
}

fn locked(entries: &Mutex<Entries>) -> MutexGuard<'_, Entries> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rest(key: &[u8], prefix: &str) -> String {
    String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_sled_tell_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for table in [Table::open(dir.path()).unwrap(), Table::in_memory()] {
            let put = |key: &str, value: &str| (key.to_owned(), Some(value.as_bytes().to_vec()));
            let all = ["a/1", "a/2", "a/3", "b/1"].map(|key| put(key, key));
            table.apply(all.to_vec()).unwrap();
            table.apply(vec![("a/2".to_owned(), None), put("a/4", "4")]).unwrap();
            assert_eq!(table.get("a/1").unwrap().as_deref(), Some(b"a/1".as_slice()));
            assert_eq!(table.get("a/2").unwrap(), None);
            let kept = ["1", "3"].map(|key| (key.to_owned(), format!("a/{key}").into_bytes()));
            let entries = table.entries("a/").unwrap();
            assert_eq!(entries, [&kept[..], &[("4".to_owned(), b"4".to_vec())]].concat());
            assert_eq!(table.last_keys("a/", "a/4", 1).unwrap(), ["3"]);
            assert_eq!(table.last_keys("a/", "a/~", 9).unwrap(), ["4", "3", "1"]);
            assert_eq!(table.last_keys("a/", "a", 9).unwrap(), [""; 0]);
            table.clear().unwrap();
            assert_eq!(table.entries("").unwrap(), []);
        }
    }

    #[test]
    fn a_panic_is_an_error_that_can_be_told_from_others() {
        let error = contained::<()>(|| panic!("at {}", 7)).unwrap_err();
        assert!(
            gave_up(&error) && error.to_string().contains("sled gave up: at 7"),
            "{error}"
        );
        let refused = std::io::Error::other("disk full");
        assert!(!gave_up(&contained::<()>(|| Err(refused.into())).unwrap_err()));
    }
}
