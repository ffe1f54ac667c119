//! Conversation keys of the peers met last: deriving one costs ten times what decrypting does.
//!
//! Owned by the endpoint. What must stay true: never more than its capacity, whoever writes to us.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ::nostr::{PublicKey, SecretKey};

use super::nip44::{ConversationKeys, Nip44Error};

/// A cache that forgets the peer unused for longest.
pub struct KeyCache {
    secret: SecretKey,
    capacity: NonZeroUsize,
    /// Counts uses; the key of `by_use`.
    uses: u64,
    by_peer: HashMap<PublicKey, (u64, Arc<ConversationKeys>)>,
    by_use: BTreeMap<u64, PublicKey>,
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyCache({} peers)", self.by_peer.len())
    }
}

impl KeyCache {
    /// An empty cache for the holder of `secret`.
    #[must_use]
    pub fn new(secret: SecretKey, capacity: NonZeroUsize) -> Self {
        Self {
            secret,
            capacity,
            uses: 0,
            by_peer: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// The keys for `peer`, derived when they are not kept.
    pub fn keys_for(&mut self, peer: &PublicKey) -> Result<Arc<ConversationKeys>, Nip44Error> {
        self.uses += 1;
        if let Some((used, keys)) = self.by_peer.get_mut(peer) {
            self.by_use.remove(used);
            *used = self.uses;
            self.by_use.insert(self.uses, *peer);
            return Ok(Arc::clone(keys));
        }
        let keys = Arc::new(ConversationKeys::derive(&self.secret, peer)?);
        if self.by_peer.len() >= self.capacity.get()
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_peer.remove(&oldest);
        }
        self.by_peer.insert(*peer, (self.uses, Arc::clone(&keys)));
        self.by_use.insert(self.uses, *peer);
        Ok(keys)
    }

    /// How many peers are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::nostr::Keys;

    #[test]
    fn the_peer_unused_for_longest_is_forgotten() {
        let mut cache = KeyCache::new(Keys::generate().secret_key().clone(), NonZeroUsize::new(2).unwrap());
        let [a, b, c] = std::array::from_fn(|_| Keys::generate().public_key());
        let first = cache.keys_for(&a).unwrap();
        cache.keys_for(&b).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.keys_for(&a).unwrap()), "kept");
        cache.keys_for(&c).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.keys_for(&a).unwrap()), "b went, not a");
        assert_eq!((cache.len(), cache.by_use.len()), (2, 2));
        for _ in 0..20 {
            cache.keys_for(&Keys::generate().public_key()).unwrap();
        }
        assert_eq!((cache.len(), cache.by_use.len()), (2, 2));
    }

    #[test]
    fn a_key_that_is_no_point_is_an_error() {
        let mut cache = KeyCache::new(Keys::generate().secret_key().clone(), NonZeroUsize::MIN);
        assert!(cache.keys_for(&PublicKey::from_byte_array([0xff; 32])).is_err());
        assert!(cache.is_empty());
    }
}
