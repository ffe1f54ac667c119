//! What is folded and not in sled yet: gathered, because each batch costs sled two writes and two threads' waking,
//! and an item that changes twice within a moment is written once.
//!
//! Called by [`super::Store`] and by readers, who look here first. What must stay true: it is written as one batch,
//! with the journal position that all of it stands for.

use std::collections::HashMap;

use serde::Serialize;

use super::StoreError;
use super::table::Batch;

/// Keys with their new values; `None` for those that are gone.
#[derive(Debug, Default)]
pub(super) struct Pending(HashMap<String, Option<Vec<u8>>>);

impl Pending {
    pub fn put<T: Serialize>(&mut self, key: String, value: &T) -> Result<(), StoreError> {
        match serde_json::to_vec(value) {
            Ok(bytes) => {
                self.0.insert(key, Some(bytes));
                Ok(())
            }
            Err(source) => Err(StoreError::Value { key, source }),
        }
    }

    /// An item's value: where the open ones are, or among those that have ended.
    pub fn file<T: Serialize>(
        &mut self,
        has_ended: bool,
        open: String,
        ended: String,
        value: &T,
    ) -> Result<(), StoreError> {
        if !has_ended {
            return self.put(open, value);
        }
        self.0.insert(open, None);
        self.put(ended, value)
    }

    /// A key without a value.
    pub fn mark(&mut self, key: String) {
        self.0.insert(key, Some(Vec::new()));
    }

    /// What follows `prefix` in the keys that begin with it.
    pub fn marked(&self, prefix: &str) -> Vec<String> {
        let marked = self.0.keys().filter_map(|key| key.strip_prefix(prefix));
        marked.map(str::to_owned).collect()
    }

    /// Adds what came later.
    pub fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// The value of `key`, or that it is gone; `None` when sled knows better.
    pub fn get(&self, key: &str) -> Option<Option<&[u8]>> {
        self.0.get(key).map(Option::as_deref)
    }

    /// How many keys wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of it, for sled; nothing waits any more.
    pub fn take(&mut self) -> Option<Batch> {
        if self.0.is_empty() {
            return None;
        }
        Some(self.0.drain().collect())
    }
}
