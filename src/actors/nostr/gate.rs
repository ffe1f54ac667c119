//! The gate: what comes in over the relays is proven, decrypted and admitted here, and what goes out is encrypted.
//!
//! On a thread of its own with a small runtime, because checking signatures would stall the actors. Two parties share
//! the socket and the key: the service side, which asks the Nostr actor ([`Question`]), and, at a site, the caller of
//! its service. What must stay true: the order is signature (checked by the relay pool), decryption, `authIdentifier`,
//! freshness, replay, rate, and only then the method; an id is durable before its request is asked; strangers and
//! floods cost little, are counted, and never keep others from being served.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::nostr::{Event, Keys, PublicKey};
use tokio::sync::{Semaphore, mpsc, watch};

use super::Question;
use crate::clients::{Rates, Roster};
use crate::ids::{ClientName, NostrKey};
use crate::metrics::Metrics;
use crate::nostr::field::BadField;
use crate::nostr::method::{Asked, Refusal};
use crate::nostr::outbox::Outbox;
use crate::nostr::skew::SkewEstimator;
use crate::nostr::wire::endpoint::Opened;
use crate::nostr::wire::{
    Code, DropReason, Endpoint, EndpointFootprint, Failure, Incoming, Outcome, Party, Reply, Request, SealError, Sight,
    Signed, Version,
};
use crate::store::{Seen, SeenError};
use crate::time::{SharedClock, UnixMs};

/// Requests that are being answered at once.
const AT_ONCE: usize = 1024;
/// Of them, those of one caller.
const AT_ONCE_OF_ONE: u32 = 32;
/// Events from keys that are not known here: so many in a minute are looked into.
const STRANGERS_PER_MINUTE: u32 = 120;
/// A reply is tried to be published as long as its request is fresh for relays; pushes too.
const FRESH: Duration = Duration::from_secs(60);
/// How many callers' clocks are compared with.
const SENDERS: NonZeroUsize = NonZeroUsize::new(32).unwrap();
/// A wrong clock is warned of so often.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// A caller that asks too much is told so once in this time.
const TELL_AGAIN_MS: u64 = 1_000;

/// What goes out.
#[derive(Debug)]
pub enum Outgoing {
    /// A message to a client that asked for pushes.
    Push {
        /// To whom.
        to: NostrKey,
        /// In which encryption.
        version: Version,
        /// The method's name.
        request_id: String,
        /// What changed.
        outcome: Outcome,
    },
    /// A site's report, to be kept.
    Site {
        /// Whose.
        site: ClientName,
        /// As JSON.
        report: Vec<u8>,
    },
}

/// The actors' side of the gate.
#[derive(Debug, Clone)]
pub struct GateDoor(mpsc::Sender<Outgoing>);

impl GateDoor {
    /// A door, and what comes through it.
    #[must_use]
    pub fn new(waiting: usize) -> (Self, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(waiting);
        (Self(sender), receiver)
    }

    /// Sends a push. It may be lost: whoever waits for one looks by itself too.
    pub(super) fn push(&self, to: NostrKey, version: Version, request_id: &str, outcome: Outcome) {
        let request_id = request_id.to_owned();
        let push = Outgoing::Push {
            to,
            version,
            request_id,
            outcome,
        };
        if self.0.try_send(push).is_err() {
            tracing::warn!("a push to a client is lost: too much is going out");
        }
    }

    pub(super) fn keep_site(&self, site: &ClientName, report: Vec<u8>) {
        let site = site.clone();
        // The next report comes soon.
        let _ = self.0.try_send(Outgoing::Site { site, report });
    }
}

/// Asks the Nostr actor; `None` when there is no answer.
pub type Ask = Arc<dyn Fn(Question) -> Pin<Box<dyn Future<Output = Option<Outcome>> + Send>> + Send + Sync>;

/// What a gate is made of.
pub struct Parts {
    /// This daemon's key.
    pub keys: Keys,
    /// Who may do what, now.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// The ids that had an effect.
    pub seen: Seen,
    /// The time.
    pub clock: SharedClock,
    /// The figures.
    pub metrics: Metrics,
    /// The Nostr actor.
    pub ask: Ask,
    /// The relays.
    pub outbox: Arc<dyn Outbox>,
    /// Told when ids can not be remembered any more: sled does not recover from a failed write, and without them
    /// nobody could settle what he gave goods for. The daemon then has to end, to be started again.
    pub lost: Arc<watch::Sender<Option<String>>>,
}

/// The own clock against those of the callers.
struct Skew {
    estimator: SkewEstimator,
    /// When it was warned of last.
    warned: UnixMs,
}

/// What a gate keeps between events, for tests: it must stay bounded whatever comes.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// Unfinished messages and cached keys.
    pub endpoint: EndpointFootprint,
    /// Keys whose requests are counted.
    pub rates: usize,
    /// Callers that are being answered.
    pub busy: usize,
    /// Callers that were told that they ask too much.
    pub told: usize,
    /// Ids that had an effect and are fresh still.
    pub seen: usize,
}

/// The service side of the gate.
pub struct Gate {
    parts: Parts,
    party: Party,
    endpoint: Mutex<Endpoint>,
    rates: Mutex<Rates>,
    /// All strangers share one bucket.
    strangers: Mutex<Rates>,
    skew: Mutex<Skew>,
    /// Requests being answered, by caller.
    busy: Mutex<HashMap<PublicKey, u32>>,
    /// When a caller that asks too much was told so.
    told: Mutex<HashMap<NostrKey, UnixMs>>,
    room: Arc<Semaphore>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key_of(key: &PublicKey) -> NostrKey {
    NostrKey(key.to_bytes())
}

/// One of a caller's requests, while it is answered.
struct Busy<'a>(&'a Gate, PublicKey);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut busy = locked(&self.0.busy);
        if let Some(count) = busy.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.1);
            }
        }
    }
}

impl Gate {
    /// A gate that has seen nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let endpoint = Endpoint::new(
            parts.keys.clone(),
            crate::nostr::wire::Role::Service,
            crate::nostr::wire::Limits::default(),
        );
        Self {
            party: endpoint.party(),
            endpoint: Mutex::new(endpoint),
            rates: Mutex::default(),
            strangers: Mutex::default(),
            skew: Mutex::new(Skew {
                estimator: SkewEstimator::new(SENDERS),
                warned: UnixMs(0),
            }),
            busy: Mutex::default(),
            told: Mutex::default(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            parts,
        }
    }

    /// Takes an event whose signature the relay pool has checked: looks into it at once, and answers it beside others.
    pub async fn arrive(self: &Arc<Self>, event: Event) {
        match self.look_into(event) {
            Err(reason) => self.parts.metrics.nostr_dropped(reason),
            Ok(opened) => {
                // Too many at once wait here, and with them the relays' sockets.
                let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
                    return;
                };
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    let _room = room;
                    if let Err(reason) = this.serve(opened).await {
                        this.parts.metrics.nostr_dropped(reason);
                    }
                });
            }
        }
    }

    /// The whole way of one event: for benchmarks, and for tests that want its end.
    ///
    /// # Errors
    /// Why there was no answer.
    pub async fn handle(&self, event: Event) -> Result<(), DropReason> {
        let opened = self.look_into(event)?;
        self.serve(opened).await
    }

    /// Everything that needs no waiting. Strangers are bounded before anything is computed for them.
    fn look_into(&self, event: Event) -> Result<Opened, DropReason> {
        let now = self.parts.clock.now();
        let signed = Signed::from_verified(event, &self.party)?;
        let sender = key_of(&signed.sender());
        let known = self.parts.roster.borrow().knows(&sender);
        if !known && !self.stranger(now) {
            return Err(DropReason::Strangers);
        }
        if known {
            self.compare_clocks(signed.sender(), signed.created_at_unix(), now);
        }
        let opened = locked(&self.endpoint).open(&signed, known, now)?;
        match self.parts.seen.knows(opened.origin().event.as_bytes()) {
            Ok(false) => Ok(opened),
            Ok(true) => Err(DropReason::Replay),
            Err(error) => {
                self.lost(&error);
                Err(DropReason::ReplayUnknown)
            }
        }
    }

    fn lost(&self, error: &SeenError) {
        tracing::error!(%error, "an event is dropped, and so would be all others");
        self.parts.lost.send_replace(Some(error.to_string()));
    }

    fn stranger(&self, now: UnixMs) -> bool {
        locked(&self.strangers).take(&NostrKey([0; 32]), STRANGERS_PER_MINUTE, now)
    }

    fn compare_clocks(&self, sender: PublicKey, created_at_unix: u64, now: UnixMs) {
        let mut skew = locked(&self.skew);
        let found = skew.estimator.add(sender, created_at_unix, now);
        self.parts.metrics.set_nostr_skew(found.seconds);
        if found.worrying && now.since(skew.warned) >= WARN_AGAIN {
            skew.warned = now;
            tracing::warn!(
                seconds = found.seconds,
                callers = found.samples,
                "this machine's clock is fast (slow when negative) against its callers': relays drop events that are a \
                 minute off, so it will fall silent; set the clock"
            );
        }
    }

    async fn serve(&self, opened: Opened) -> Result<(), DropReason> {
        let now = self.parts.clock.now();
        let (sender, version, created) = whence(&opened);
        let key = key_of(&sender);
        let limits = self.parts.roster.borrow().requests_per_minute(&key);
        let in_time = limits.is_none_or(|per_minute| locked(&self.rates).take(&key, per_minute, now));
        let Some(_busy) = self.busy(sender).filter(|_| in_time) else {
            return self.too_much(opened, now).await;
        };
        if opened.is_piece() {
            self.parts.metrics.nostr_shards("in", 1);
        }
        let sight = self.remember(&opened, now).await;
        let incoming = locked(&self.endpoint).admit(opened, sight, now)?;
        let Incoming::Request {
            request_id, request, ..
        } = incoming
        else {
            return Ok(());
        };
        let asked = read(request);
        if let Ok(Asked::Batch(calls)) = &asked {
            locked(&self.rates).owe(&key, calls.len().saturating_sub(1));
        }
        let question = Question {
            key,
            version,
            request_id: request_id.clone(),
            asked,
        };
        let outcome = (self.parts.ask)(question).await.ok_or(DropReason::Unanswered)?;
        // A sender whose clock is ahead is not served for longer than others.
        let until = UnixMs(created.saturating_mul(1000)).min(now).plus(FRESH);
        self.send(sender, version, Reply { request_id, outcome }, until).await;
        Ok(())
    }

    fn busy(&self, sender: PublicKey) -> Option<Busy<'_>> {
        let mut busy = locked(&self.busy);
        let count = busy.entry(sender).or_default();
        if *count >= AT_ONCE_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Busy(self, sender))
    }

    async fn remember(&self, opened: &Opened, now: UnixMs) -> Sight {
        let id = opened.origin().event.to_bytes();
        match self
            .parts
            .seen
            .remember(id, opened.remember_until_unix(), now.as_secs())
            .await
        {
            Ok(true) => Sight::First,
            Ok(false) => Sight::Again,
            Err(error) => {
                self.lost(&error);
                Sight::Unknown
            }
        }
    }

    /// The caller is told now and then. Its event is not remembered: it has had no effect.
    async fn too_much(&self, opened: Opened, now: UnixMs) -> Result<(), DropReason> {
        let (sender, version, _) = whence(&opened);
        {
            let mut told = locked(&self.told);
            if told.len() > AT_ONCE {
                told.retain(|_, at| now.0.saturating_sub(at.0) < TELL_AGAIN_MS);
            }
            let last = told.get(&key_of(&sender));
            if last.is_some_and(|at| now.0.saturating_sub(at.0) < TELL_AGAIN_MS) {
                return Err(DropReason::RateLimited);
            }
            told.insert(key_of(&sender), now);
        }
        let request_id = opened.request_id();
        let failure = Failure::new(Code::RateLimited, "too many requests: ask again in a minute");
        self.parts
            .metrics
            .nostr_request(None, Some(failure.code), Duration::ZERO);
        let reply = Reply {
            request_id,
            outcome: Outcome::Error(failure),
        };
        self.send(sender, version, reply, now.plus(FRESH)).await;
        Ok(())
    }

    /// Encrypts, signs and publishes.
    async fn send(&self, to: PublicKey, version: Version, reply: Reply, until: UnixMs) {
        if until <= self.parts.clock.now() {
            // Whoever asked has asked again since.
            return;
        }
        let request_id = reply.request_id.clone();
        let seal = |reply: Reply| locked(&self.endpoint).seal(to, version, &reply.encode(), self.parts.clock.now());
        let sealed = match seal(reply) {
            Err(SealError::TooLong(_)) => {
                let failure = Failure::new(Code::Refused, "the answer is too long to be sent: ask for less at once");
                let outcome = Outcome::Error(failure);
                seal(Reply { request_id, outcome })
            }
            sealed => sealed,
        };
        match sealed {
            Err(error) => tracing::error!(%error, "a reply can not be sent"),
            Ok(events) => {
                if events.len() > 1 {
                    self.parts.metrics.nostr_shards("out", events.len());
                }
                let sent = events.into_iter().map(|event| self.parts.outbox.publish(event, until));
                for sent in futures_util::future::join_all(sent).await {
                    if let Err(error) = sent {
                        tracing::warn!(%error, "a reply was accepted by no relay");
                    }
                }
            }
        }
    }

    /// Sends what the actors send.
    pub(super) async fn go_out(&self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Site { site, report } => self.parts.seen.keep_site(site.to_string(), report),
            Outgoing::Push {
                to,
                version,
                request_id,
                outcome,
            } => {
                let Ok(to) = PublicKey::from_slice(&to.0) else { return };
                let reply = Reply {
                    request_id: Some(request_id),
                    outcome,
                };
                let until = self.parts.clock.now().plus(FRESH);
                self.send(to, version, reply, until).await;
            }
        }
    }

    /// What it keeps now.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            endpoint: locked(&self.endpoint).footprint(),
            rates: locked(&self.rates).len(),
            busy: locked(&self.busy).len(),
            told: locked(&self.told).len(),
            seen: self.parts.seen.len(),
        }
    }

    /// Gives up unfinished messages of which pieces are missing, and forgets keys that are not known any more.
    pub(super) fn tidy(&self) {
        locked(&self.rates).keep(&self.parts.roster.borrow());
        let given_up = locked(&self.endpoint).expire_shards(self.parts.clock.now());
        if given_up > 0 {
            tracing::debug!(given_up, "long messages never became whole");
        }
    }
}

fn read(request: Result<Request, BadField>) -> Result<Asked, Refusal> {
    Asked::read(&request?)
}

/// The sender, its encryption and its time of making, in Unix seconds.
fn whence(opened: &Opened) -> (PublicKey, Version, u64) {
    let origin = opened.origin();
    (origin.sender, origin.version, origin.created_at_unix)
}

#[cfg(test)]
mod tests;
