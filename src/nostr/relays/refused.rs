//! What the pool refuses without telling anybody: events that are malformed, too large, or whose signature is bad.
//!
//! The transport notes each event before the pool gets it, the admission strikes it out when the pool has found it good.
//! The pool reads a connection's messages one after the other, so what is there still when the next one comes was
//! refused. What must stay true: one event of each relay is kept, no signature is checked a second time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ::nostr::{JsonUtil, RelayMessage, Url};

use crate::nostr::wire::DropReason;
use crate::nostr::wire::event::MAX_EVENT_BYTES;

/// The events that the pool has and says nothing of yet, by relay.
#[derive(Default)]
pub(super) struct Unjudged(Mutex<HashMap<Url, String>>);

impl Unjudged {
    /// The pool gets `message` next. Why it refused the one before, if it did.
    pub fn next(&self, relay: &Url, message: &str) -> Option<DropReason> {
        let event = message
            .trim_start()
            .starts_with(r#"["EVENT""#)
            .then(|| message.to_owned());
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match event {
            Some(event) => waiting.insert(relay.clone(), event),
            None => waiting.remove(relay),
        };
        drop(waiting);
        before.map(|message| why(&message))
    }

    /// The pool has found the last event of this relay good.
    pub fn good(&self, relay: &Url) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(relay);
    }
}

/// Why the pool refused it: when it is neither of the other two, its id or signature does not fit.
fn why(message: &str) -> DropReason {
    match RelayMessage::from_json(message) {
        Ok(RelayMessage::Event { event, .. }) if event.as_json().len() <= MAX_EVENT_BYTES => DropReason::BadSignature,
        Ok(RelayMessage::Event { .. }) => DropReason::TooLarge,
        _ => DropReason::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use ::nostr::{Keys, SubscriptionId};

    use super::*;
    use crate::nostr::wire::event;

    fn message(content: &str) -> String {
        let (me, other) = (Keys::generate(), Keys::generate());
        let event = event::sign(&other, me.public_key(), content.into(), 1).unwrap();
        RelayMessage::event(SubscriptionId::new("a"), event).as_json()
    }

    #[test]
    fn what_the_pool_does_not_call_good_was_refused() {
        let (unjudged, relay) = (Unjudged::default(), Url::parse("ws://127.0.0.1:1").unwrap());
        let other = Url::parse("ws://127.0.0.1:2").unwrap();
        assert_eq!(unjudged.next(&relay, &message("a")), None);
        unjudged.good(&relay);
        assert_eq!(unjudged.next(&relay, &message("b")), None, "a was good");
        assert_eq!(unjudged.next(&other, "[]"), None, "another relay's");
        assert_eq!(
            unjudged.next(&relay, r#"["EVENT","a",{"kind":1}]"#),
            Some(DropReason::BadSignature)
        );
        assert_eq!(
            unjudged.next(&relay, &message(&"x".repeat(MAX_EVENT_BYTES))),
            Some(DropReason::Malformed)
        );
        assert_eq!(unjudged.next(&relay, r#"["EOSE","a"]"#), Some(DropReason::TooLarge));
        assert_eq!(unjudged.next(&relay, "garbage"), None, "only events are counted");
    }
}
