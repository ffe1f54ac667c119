//! One client of a service: requests out, each with its own reply, and pushes.
//!
//! Used by [`super::node`], by sites that report, and by `tellerd --via`. What must stay true: an answer is taken only
//! for the call that asked, by a `requestId` of 128 random bits; a call that is dropped leaves nothing behind; no lock
//! is held while something is waited for.
//!
//! Every method may be asked again, and answers where things stand by then, so a call is repeated until it is answered,
//! and the first answer counts, whichever of its events it is to. For the same reason no store of seen ids is needed
//! here, as a service has one: an old reply that a relay brings again finds nobody who waits for it, and a push only says
//! "look again". The ids of the last events are remembered all the same, so that a relay that repeats itself costs nothing.

mod waiting;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::nostr::{Event, Keys, PublicKey};
use futures_util::future::join_all;
use thiserror::Error;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::ids::PaymentHash;
use crate::time::{SharedClock, UnixMs};

use super::field::{self, BadField, Object};
use super::method::{Call, Method};
use super::outbox::Outbox;
use super::wire::{DropReason, Endpoint, Failure, Freshness, Incoming, Limits, Outcome, Reply, Role, SealError};
use super::wire::{Party, Signed, Version};
use waiting::{Recent, Waiting};

/// Pushes that a slow listener may be behind.
const PUSHES: usize = 256;

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerTimings {
    /// After so long without an answer the request is made again.
    pub deadline: Duration,
    /// After so long the call fails.
    pub give_up: Duration,
}

impl Default for CallerTimings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            give_up: Duration::from_secs(16),
        }
    }
}

/// A call without a result.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nothing is known of the call's effect.
    #[error("no answer within {} s{}", .waited.as_secs(), trouble_text(.trouble))]
    NoAnswer {
        /// How long it was waited for.
        waited: Duration,
        /// What the relays said last, if they took no event.
        trouble: Option<String>,
    },
    /// The service answered why not.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The service's answer can not be read.
    #[error("the service answered oddly: {0}")]
    Bad(#[from] BadField),
    /// The request could not be written.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Too many calls are waiting for their answers.
    #[error("too many requests are waiting for their answers")]
    Busy,
}

fn trouble_text(trouble: &Option<String>) -> String {
    match trouble {
        Some(trouble) => format!("; the relays take no request: {trouble}"),
        // A service drops what a wrong clock has made, without a word.
        None => "; is the service running, and is the clock of this machine right?".to_owned(),
    }
}

struct Inner {
    party: Party,
    own_pubkey_hex: String,
    service: PublicKey,
    version: Version,
    clock: SharedClock,
    outbox: Arc<dyn Outbox>,
    timings: CallerTimings,
    endpoint: Mutex<Endpoint>,
    recent: Mutex<Recent>,
    waiting: Arc<Waiting>,
    pushes: broadcast::Sender<PaymentHash>,
}

/// A client of one service. Cheap to clone.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({} to {})", self.0.own_pubkey_hex, self.0.service)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replies are matched by their `requestId`, and pushes believed in nothing, so their age does not matter; and a service
/// whose clock is wrong must be heard, or nobody would learn that it is.
fn limits() -> Limits {
    Limits {
        freshness: Freshness {
            past: Duration::MAX,
            future: Duration::MAX,
        },
        ..Limits::default()
    }
}

impl Caller {
    /// The holder of `keys`, as a client of `service`. `version` is the encryption of its requests.
    #[must_use]
    pub fn new(
        keys: Keys,
        service: PublicKey,
        version: Version,
        clock: SharedClock,
        outbox: Arc<dyn Outbox>,
        timings: CallerTimings,
    ) -> Self {
        let endpoint = Endpoint::new(keys.clone(), Role::Client { service }, limits());
        Self(Arc::new(Inner {
            party: endpoint.party(),
            own_pubkey_hex: keys.public_key().to_hex(),
            service,
            version,
            clock,
            outbox,
            timings,
            endpoint: Mutex::new(endpoint),
            recent: Mutex::default(),
            waiting: Arc::default(),
            pushes: broadcast::Sender::new(PUSHES),
        }))
    }

    /// Asks until there is an answer; returns the result's fields. Dropping the future gives the call up here, not there:
    /// the service may have it, or get it yet.
    ///
    /// # Errors
    /// See [`CallError`]. Only [`CallError::Failed`] says that the service has read it.
    pub async fn call(&self, call: &Call) -> Result<Object, CallError> {
        let me = &*self.0;
        let mut ticket = Waiting::enter(&me.waiting, me.clock.now())?;
        // A preimage may be in it.
        let text = Zeroizing::new(call.request().encode(&me.own_pubkey_hex, ticket.request_id()));
        let begun = Instant::now();
        let give_up = begun + me.timings.give_up;
        let mut trouble = None;
        while Instant::now() < give_up {
            let until = give_up.min(Instant::now() + me.timings.deadline);
            let answered = tokio::select! {
                answered = timeout_at(until, ticket.answer()) => answered.ok(),
                never = self.send(&text, until, &mut trouble) => match never? {},
            };
            match answered {
                Some(Outcome::Ok(fields)) => return Ok(fields),
                Some(Outcome::Error(failure)) => return Err(failure.into()),
                None => {}
            }
        }
        let waited = begun.elapsed();
        Err(CallError::NoAnswer { waited, trouble })
    }

    /// The same, and reads the result.
    ///
    /// # Errors
    /// Those of [`Caller::call`], and [`CallError::Bad`].
    pub async fn ask<T>(&self, call: &Call, read: fn(&Object) -> Result<T, BadField>) -> Result<T, CallError> {
        Ok(read(&self.call(call).await?)?)
    }

    /// Publishes `text` as a new event, or several. Never returns after that: the answer ends it, or `until`.
    async fn send(
        &self,
        text: &str,
        until: Instant,
        trouble: &mut Option<String>,
    ) -> Result<std::convert::Infallible, SealError> {
        let me = &*self.0;
        let now = me.clock.now();
        // A little less than the answer is waited for, so that there is time to hear why it did not go out.
        let worth = now.plus(until.saturating_duration_since(Instant::now()) * 9 / 10);
        let events = lock(&me.endpoint).seal(me.service, me.version, text, now)?;
        let sent = join_all(events.into_iter().map(|event| me.outbox.publish(event, worth))).await;
        *trouble = sent.into_iter().find_map(Result::err);
        std::future::pending().await
    }

    /// Takes an event from a relay.
    ///
    /// The signature is checked here, whoever has checked it before. The pool of nostr-sdk (nostr-relay-pool 0.44.3,
    /// `verify_and_cache`) remembers checked *ids*: a second event of such an id passes there whatever it says, and
    /// NIP-44 version 1 would not notice a changed bit.
    ///
    /// # Errors
    /// Why it is no message from the service. A reply that nobody waits for is none of these: all but the first are.
    pub fn incoming(&self, event: Event) -> Result<(), DropReason> {
        let me = &*self.0;
        let now = me.clock.now();
        let signed = Signed::from_event(event, &me.party)?;
        let mut endpoint = lock(&me.endpoint);
        let opened = endpoint.open(&signed, true, now)?;
        let sight = lock(&me.recent).see(opened.origin().event);
        // The rest of a message may never come.
        endpoint.expire_shards(now);
        let admitted = endpoint.admit(opened, sight, now)?;
        drop(endpoint);
        match admitted {
            Incoming::Reply { origin, reply } => self.reply(reply, UnixMs(origin.created_at_unix.saturating_mul(1000))),
            Incoming::Piece { .. } => Ok(()),
            Incoming::Request { .. } => Err(DropReason::Unexpected),
        }
    }

    fn reply(&self, reply: Reply, made: UnixMs) -> Result<(), DropReason> {
        let me = &*self.0;
        let id = reply.request_id.ok_or(DropReason::Unexpected)?;
        if Method::of_name(&id) != Some(Method::SubscribeHoldInvoices) {
            me.waiting.answer(&id, reply.outcome, made, me.clock.now());
            return Ok(());
        }
        let Outcome::Ok(fields) = reply.outcome else {
            return Err(DropReason::Unexpected);
        };
        let hash = field::hex32(&fields, "payment_hash").map_err(|_| DropReason::Unexpected)?;
        // Nobody may be listening.
        let _ = me.pushes.send(PaymentHash(hash));
        Ok(())
    }

    /// The hashes of invoices that may have changed. A push only says "look again": it may be old, repeated or lost.
    #[must_use]
    pub fn pushes(&self) -> broadcast::Receiver<PaymentHash> {
        self.0.pushes.subscribe()
    }

    /// How far the service's clock was ahead of this machine's at the last answer, at least, in seconds; negative when it
    /// was behind. Zero when the answer was made between question and arrival. `None` before the first.
    #[must_use]
    pub fn skew_seconds(&self) -> Option<i64> {
        self.0.waiting.skew_seconds()
    }

    /// This machine's clock.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.0.clock.now()
    }

    /// Calls that wait for their answers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.len()
    }
}
