//! What comes in: the one place where the pool hands over events, each at most once, and waits for the reader.
//!
//! Called by the pool after it has checked an event's signature, within the connection's own reading: so a full
//! channel slows the relay down, and nothing is lost to a lagging broadcast. Every event is refused towards the pool
//! afterwards: it must store nothing and broadcast nothing.
//! What must stay true: an id is marked as seen only together with its delivery, also when the connection breaks
//! in between; memory is bounded.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ::nostr::util::BoxedFuture;
use ::nostr::{Event, EventId, Kind, PublicKey, RelayUrl, SubscriptionId};
use nostr_sdk::pool::policy::{AdmitPolicy, AdmitStatus, PolicyError};
use tokio::sync::mpsc;

use super::refused::Unjudged;
use super::{Arrived, Watcher};
use crate::nostr::wire::DropReason;
use crate::nostr::wire::event::KIND;

/// So many ids are remembered: a minute of 270 events a second.
const SEEN: usize = 16_384;

/// Hands events to the reader.
pub(super) struct Admission {
    me: PublicKey,
    arrived: mpsc::Sender<Arrived>,
    seen: Mutex<Seen>,
    watcher: Arc<dyn Watcher>,
    unjudged: Arc<Unjudged>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl Admission {
    pub fn new(
        me: PublicKey,
        arrived: mpsc::Sender<Arrived>,
        watcher: Arc<dyn Watcher>,
        unjudged: Arc<Unjudged>,
    ) -> Self {
        let seen = Mutex::new(Seen::new(SEEN));
        Self {
            me,
            arrived,
            seen,
            watcher,
            unjudged,
        }
    }

    /// Why the event is not for this reader. The pool remembers the ids that it verified and lets every later
    /// event that claims one of them pass: so the id is compared with the content again.
    fn unwanted(&self, event: &Event) -> Option<DropReason> {
        if event.kind != Kind::Custom(KIND) {
            return Some(DropReason::WrongKind);
        }
        if !event.tags.public_keys().any(|key| *key == self.me) {
            return Some(DropReason::WrongRecipient);
        }
        (!event.verify_id()).then_some(DropReason::BadSignature)
    }

    async fn hand_over(&self, relay: &RelayUrl, event: &Event) {
        self.unjudged.good(relay.into());
        if let Some(reason) = self.unwanted(event) {
            return self.watcher.event_refused(reason);
        }
        // The place first: from here to the end nothing can be cut off.
        let Ok(place) = self.arrived.reserve().await else {
            return;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_new(event.id) {
            let (event, relay) = (event.clone(), relay.clone());
            place.send(Arrived { event, relay });
        }
    }
}

impl AdmitPolicy for Admission {
    fn admit_event<'a>(
        &'a self,
        relay_url: &'a RelayUrl,
        _subscription_id: &'a SubscriptionId,
        event: &'a Event,
    ) -> BoxedFuture<'a, Result<AdmitStatus, PolicyError>> {
        Box::pin(async move {
            self.hand_over(relay_url, event).await;
            Ok(AdmitStatus::Rejected { reason: None })
        })
    }
}

/// The ids seen last.
struct Seen {
    capacity: usize,
    known: HashSet<EventId>,
    /// The oldest first.
    order: VecDeque<EventId>,
}

impl Seen {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            known: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Remembers `id`; false when it is remembered already.
    fn is_new(&mut self, id: EventId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use ::nostr::Keys;

    use super::*;
    use crate::nostr::relays::Unwatched;
    use crate::nostr::wire::event;

    fn id(n: u8) -> EventId {
        EventId::from_byte_array([n; 32])
    }

    fn admission(me: &Keys, arrived: mpsc::Sender<Arrived>) -> Admission {
        Admission::new(me.public_key(), arrived, Arc::new(Unwatched), Arc::default())
    }

    fn relay() -> RelayUrl {
        RelayUrl::parse("ws://127.0.0.1:1").unwrap()
    }

    #[test]
    fn ids_are_remembered_up_to_the_bound() {
        let mut seen = Seen::new(2);
        assert!(seen.is_new(id(1)) && seen.is_new(id(2)) && !seen.is_new(id(1)));
        assert!(seen.is_new(id(3)), "1 is forgotten");
        assert!(seen.is_new(id(1)) && !seen.is_new(id(3)));
        assert_eq!((seen.known.len(), seen.order.len()), (2, 2));
    }

    #[tokio::test]
    async fn an_event_cut_off_while_it_waits_is_not_marked_as_seen() {
        let (me, other) = (Keys::generate(), Keys::generate());
        let (sender, mut receiver) = mpsc::channel(1);
        let admission = admission(&me, sender);
        let event = |n: u64| event::sign(&other, me.public_key(), "x".into(), n).unwrap();
        admission.hand_over(&relay(), &event(1)).await;
        {
            let second = event(2);
            let url = relay();
            let mut waiting = Box::pin(admission.hand_over(&url, &second));
            let mut cx = Context::from_waker(Waker::noop());
            assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Pending, "the channel is full");
        }
        assert_eq!(receiver.recv().await.unwrap().event.created_at.as_secs(), 1);
        admission.hand_over(&relay(), &event(2)).await;
        assert_eq!(receiver.recv().await.unwrap().event.created_at.as_secs(), 2);
    }

    #[tokio::test]
    async fn a_known_id_on_other_content_does_not_pass() {
        let (me, other) = (Keys::generate(), Keys::generate());
        let (sender, mut receiver) = mpsc::channel(4);
        let admission = admission(&me, sender);
        let event = event::sign(&other, me.public_key(), "x".into(), 1).unwrap();
        let mut forged = event.clone();
        forged.content = "y".into();
        admission.hand_over(&relay(), &forged).await;
        admission.hand_over(&relay(), &event).await;
        assert_eq!(receiver.recv().await.unwrap().event.content, "x");
        assert!(receiver.try_recv().is_err());
    }

    #[tokio::test]
    async fn events_for_others_and_of_other_kinds_do_not_pass() {
        let (me, other) = (Keys::generate(), Keys::generate());
        let (sender, mut receiver) = mpsc::channel(4);
        let admission = admission(&me, sender);
        let foreign = event::sign(&me, other.public_key(), "x".into(), 1).unwrap();
        let note = ::nostr::EventBuilder::text_note("x")
            .tag(::nostr::Tag::public_key(me.public_key()))
            .sign_with_keys(&other)
            .unwrap();
        admission.hand_over(&relay(), &foreign).await;
        admission.hand_over(&relay(), &note).await;
        assert!(receiver.try_recv().is_err());
    }
}
