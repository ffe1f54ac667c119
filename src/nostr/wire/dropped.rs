//! Why an event got no answer: a closed list, for counting.
//!
//! Made by the checks in `event.rs`, `endpoint.rs` and `shard.rs`. Silence is for those whose identity is not proven, or
//! whose event is not a message of this protocol; everybody else gets an error in words.

use thiserror::Error;

macro_rules! reasons {
    ($($name:ident $word:literal $says:literal)*) => {
        /// Why an event was dropped without an answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
        pub enum DropReason {
            $(
                #[doc = $says]
                #[error($says)]
                $name,
            )*
        }

        impl DropReason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// A short fixed word, for a metric's label.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    TooLarge "too_large" "the event is larger than any relay of this protocol carries"
    Malformed "malformed" "not a Nostr event"
    WrongKind "wrong_kind" "not of kind 21000"
    WrongRecipient "wrong_recipient" "the first p tag is not this party's key"
    WrongSender "wrong_sender" "not from the service that this client talks to"
    BadSignature "bad_signature" "the id or the signature does not fit"
    Undecryptable "undecryptable" "not encrypted to this party with NIP-44 version 1 or 2"
    NotJson "not_json" "the plaintext is not a JSON object"
    Unexpected "unexpected" "neither a request to a service nor a reply to a client"
    AuthMismatch "auth_mismatch" "authIdentifier is not the sender's key"
    TooOld "too_old" "created_at is too long ago"
    TooNew "too_new" "created_at is too far in the future"
    Replay "replay" "this event was seen before"
    ReplayUnknown "replay_unknown" "whether this event was seen before could not be found out"
    BadShard "bad_shard" "a shard of the wrong shape, or one that contradicts another"
    ShardRefused "shard_refused" "this sender may not send shards"
    ShardLimit "shard_limit" "too many or too large shards are waiting for their rest"
    Strangers "strangers" "too many events from keys that are not known here"
    RateLimited "rate_limited" "too many requests of this key, and it was told so a moment ago"
    Unanswered "unanswered" "the daemon is too busy, or a part of it is being restarted"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_fit_a_label() {
        let words: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), DropReason::ALL.len());
        assert!(
            words
                .iter()
                .all(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }
}
