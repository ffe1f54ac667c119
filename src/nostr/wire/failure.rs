//! Why a request was not done: a word for programs, and a sentence for people.
//!
//! Made by the service, read by its clients. What must stay true: the words are a closed list, documented in
//! docs/NOSTR_RPC.md; a word that is not in it reads as [`Code::Other`]; a sentence never repeats a preimage.

use std::fmt;

macro_rules! codes {
    ($($name:ident $word:literal $says:literal)*) => {
        /// What kind of failure it is, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(
                #[doc = $says]
                $name,
            )*
        }

        impl Code {
            /// All of them, with what they say.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $says)),*];

            /// The word on the wire, and in metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

codes! {
    BadRequest "bad_request" "a field is missing or wrong; the same request will fail again"
    UnknownMethod "unknown_method" "there is no such method here"
    NotAllowed "not_allowed" "this key may not do that"
    OverLimit "over_limit" "more than this key may have at once, or in a day"
    RateLimited "rate_limited" "too many requests: ask again in a minute"
    NotFound "not_found" "the caller has no such invoice, or there is no such thing"
    AlreadyExists "already_exists" "there is another invoice with this hash"
    StillOpen "still_open" "the invoice is not paid in full, so it can not be committed or settled"
    AlreadyCanceled "already_canceled" "the invoice is canceled, or will be: it can not be committed or settled any more"
    AlreadySettled "already_settled" "the invoice is settled, or will be: it can not be canceled any more"
    TooLate "too_late" "too few blocks are left before LND cancels the hold"
    Refused "refused" "it does not fit the state of things"
    Unavailable "unavailable" "not now; nothing is known of the effect, ask again"
    Other "other" "anything else"
}

impl Code {
    /// The code of a word; [`Code::Other`] when it is none of them.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        let known = Self::ALL.iter().find(|(code, _)| code.as_str() == word);
        known.map_or(Self::Other, |(code, _)| *code)
    }
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people, in lower case.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.code.as_str())
    }
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { code, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_unknown_ones_are_other() {
        for (code, _) in Code::ALL {
            assert_eq!(Code::of_word(code.as_str()), *code);
        }
        assert_eq!(Code::of_word("NOT_FOUND"), Code::Other);
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|(code, _)| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
