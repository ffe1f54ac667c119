//! The connections to the relays: one socket each, for reading and writing, kept up for as long as the process lives.
//!
//! Owns the sockets, the subscription on each (`keeper.rs`, `subscription.rs`), what comes in (`admit.rs`) and the
//! waiting for answers to what goes out (`link.rs`). Used alike by a service and by its clients; the events' content
//! is theirs. nostr-sdk speaks the protocol, checks signatures and answers NIP-42; what it would forget or lose is done
//! here: subscriptions after CLOSED, back-off that is reset, events behind a slow reader, relays that answer nothing.
//!
//! What must stay true: no event is handed over twice or unproven; none that a relay sent is lost to a full queue: the
//! socket waits; memory is bounded whatever relays send; a relay that is down is not an error.
//! Source: NIP-01, NIP-42; nostr-relay-pool 0.44.3 as read; the relays named in docs/NOSTR_RPC.md.

mod admit;
mod keeper;
mod link;
mod refused;
mod subscription;
mod transport;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::nostr::{Event, JsonUtil, Keys, PublicKey, RelayUrl};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nostr_sdk::pool::RelayLimits;
use nostr_sdk::{Client, RelayOptions};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::admit::Admission;
use self::link::{Link, Taken};
use self::refused::Unjudged;
use self::transport::{MESSAGE_BYTES, Transport};
use super::wire::DropReason;
use super::wire::event::MAX_EVENT_BYTES;
use crate::lnd::backoff::Backoff;
use crate::time::{SharedClock, UnixMs};

/// So many events are on their way out at once; more wait.
const IN_FLIGHT: usize = 512;

/// What the connections need.
#[derive(Clone)]
pub struct Settings {
    /// The relays; the same one twice counts once.
    pub urls: Vec<RelayUrl>,
    /// Events to this key are subscribed to, and relays that ask are told so with its signature (NIP-42).
    pub keys: Keys,
    /// For the subscription's `since` and for deadlines.
    pub clock: SharedClock,
    /// How long things are waited for.
    pub timings: Timings,
}

/// How long things are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// To connect, with TLS and upgrade.
    pub connect: Duration,
    /// Between attempts to connect; from the start again after a connection that was good.
    pub reconnect: Backoff,
    /// Before a subscription that the relay closed is asked for again.
    pub resubscribe: Backoff,
    /// A relay that sends no EOSE for so long is taken to have the subscription in place.
    pub eose: Duration,
    /// For NIP-42 to come to an end.
    pub auth: Duration,
    /// For the OK of a relay that is known to send some.
    pub ok: Duration,
    /// For the OK of one that never has: after this, written counts as taken.
    pub silent: Duration,
    /// Before the same event is sent again to the same relay.
    pub republish: Backoff,
    /// After `rate-limited`, before anything is sent to that relay.
    pub slow_down: Backoff,
    /// How far back the subscription reaches: more than clocks differ, because relays compare `since` with the
    /// sender's time, for live events too.
    pub overlap: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let backoff = |first, cap| Backoff {
            first: Duration::from_millis(first),
            cap: Duration::from_millis(cap),
        };
        Self {
            connect: Duration::from_secs(10),
            // A customer's money is held meanwhile, and a try costs one connection.
            reconnect: backoff(250, 5_000),
            resubscribe: backoff(1_000, 60_000),
            eose: Duration::from_secs(3),
            auth: Duration::from_secs(7),
            ok: Duration::from_secs(5),
            silent: Duration::from_millis(500),
            republish: backoff(250, 5_000),
            slow_down: backoff(1_000, 30_000),
            overlap: Duration::from_secs(120),
        }
    }
}

/// An event of kind 21000 to the own key, whose id and signature were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The event.
    pub event: Event,
    /// The first relay that brought it.
    pub relay: RelayUrl,
}

/// What a relay said besides events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// A NOTICE.
    Notice,
    /// It closed the subscription.
    Closed,
    /// It did not take an event.
    Refused,
    /// It did not take an event because there were too many.
    RateLimited,
    /// It did not believe who we are (NIP-42).
    AuthFailed,
    /// A message longer than any of this protocol; it was passed over.
    TooLong,
}

/// How publishing an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A relay answered OK.
    Confirmed,
    /// It was written to a relay that answers nothing to this kind.
    Unconfirmed,
    /// No relay took it in time.
    GivenUp,
}

/// One event was published, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub took: Duration,
}

/// Hears what happens, for metrics. Called from the connections' tasks: it must not block.
pub trait Watcher: Send + Sync + 'static {
    /// A relay is connected, or no longer.
    fn relay_connected(&self, relay: &RelayUrl, connected: bool) {
        _ = (relay, connected);
    }
    /// A relay is connected again, after it was before.
    fn relay_reconnected(&self, relay: &RelayUrl) {
        _ = relay;
    }
    /// A relay said something.
    fn relay_said(&self, relay: &RelayUrl, what: Said) {
        _ = (relay, what);
    }
    /// An event came that is not handed over.
    fn event_refused(&self, reason: DropReason) {
        _ = reason;
    }
    /// Publishing an event ended.
    fn published(&self, outcome: Published) {
        _ = outcome;
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {}

/// Relays that cannot be used at all.
#[derive(Debug, Error)]
pub enum RelayError {
    /// Without any nothing can be said or heard.
    #[error("no relay is configured")]
    NoRelays,
    /// The pool does not take it.
    #[error("the relay {url} cannot be used")]
    Relay {
        /// Its address.
        url: RelayUrl,
        /// Why.
        #[source]
        source: Box<nostr_sdk::pool::pool::Error>,
    },
}

/// An event that no relay took.
#[derive(Debug, Error)]
pub enum PublishError {
    /// No relay carries so much.
    #[error("the event has {0} bytes, and relays carry at most {MAX_EVENT_BYTES}")]
    TooLarge(usize),
    /// The deadline has passed.
    #[error("no relay took the event: {}", listed(.0))]
    NotTaken(Vec<(RelayUrl, String)>),
}

fn listed(words: &[(RelayUrl, String)]) -> String {
    let each: Vec<String> = words.iter().map(|(url, words)| format!("{url}: {words}")).collect();
    each.join("; ")
}

/// What all links share.
struct Shared {
    me: PublicKey,
    clock: SharedClock,
    timings: Timings,
    watcher: Arc<dyn Watcher>,
    epoch: watch::Sender<u64>,
}

/// The connections. Dropping it ends them.
pub struct Relays {
    shared: Arc<Shared>,
    client: Client,
    links: Vec<Arc<Link>>,
    in_flight: Semaphore,
    stop: watch::Sender<bool>,
    keepers: tokio::sync::Mutex<JoinSet<()>>,
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relays({} of {} connected)", self.connected(), self.links.len())
    }
}

impl Relays {
    /// Starts connecting to all relays and returns at once. Events go to `arrived`; when it is full the sockets
    /// wait, so its reader must not wait for [`Self::publish`] in between.
    ///
    /// # Errors
    /// When there is no relay, or its address is of no use. Not when it is down.
    pub async fn start(
        settings: Settings,
        arrived: mpsc::Sender<Arrived>,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Self, RelayError> {
        let me = settings.keys.public_key();
        let unjudged = Arc::new(Unjudged::default());
        let transport = Transport {
            watcher: watcher.clone(),
            unjudged: unjudged.clone(),
        };
        let client = Client::builder()
            .signer(settings.keys)
            .admit_policy(Admission::new(me, arrived, watcher.clone(), unjudged))
            .websocket_transport(transport)
            .build();
        let links = links(&client, settings.urls).await?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            me,
            clock: settings.clock,
            timings: settings.timings,
            watcher,
            epoch: watch::channel(0).0,
        });
        let mut keepers = JoinSet::new();
        for link in &links {
            keepers.spawn(keeper::keep(link.clone(), shared.clone(), stopped.clone()));
        }
        Ok(Self {
            shared,
            client,
            links,
            in_flight: Semaphore::new(IN_FLIGHT),
            stop,
            keepers: tokio::sync::Mutex::new(keepers),
        })
    }

    /// Sends `event` to all connected relays, again and again and to those that connect meanwhile, until one has
    /// taken it. `duplicate:` counts as taken, and so does silence of a relay that has never answered.
    ///
    /// # Errors
    /// When none has at `until`, with the last words of each.
    pub async fn publish(&self, event: Event, until: UnixMs) -> Result<(), PublishError> {
        let size = event.as_json().len();
        if size > MAX_EVENT_BYTES {
            return Err(PublishError::TooLarge(size));
        }
        let begun = Instant::now();
        let deadline = begun + until.since(self.shared.clock.now());
        let words = Mutex::new(BTreeMap::new());
        let taken = tokio::time::timeout_at(deadline, self.insist(&event, &words)).await;
        let end = match taken {
            Ok(Some(Taken::Confirmed)) => End::Confirmed,
            Ok(Some(Taken::Unconfirmed)) => End::Unconfirmed,
            Ok(None) | Err(_) => End::GivenUp,
        };
        let took = begun.elapsed();
        self.shared.watcher.published(Published { end, took });
        if end == End::GivenUp {
            let words = words.into_inner().unwrap_or_else(PoisonError::into_inner);
            return Err(PublishError::NotTaken(words.into_iter().collect()));
        }
        Ok(())
    }

    /// Ends when the first relay has taken it. `words` are the last ones of each.
    async fn insist(&self, event: &Event, words: &Mutex<BTreeMap<RelayUrl, String>>) -> Option<Taken> {
        let note = |url: &RelayUrl, said: String| {
            let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
            words.insert(url.clone(), said);
        };
        let _place = match self.in_flight.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                self.urls()
                    .for_each(|url| note(url, "too many events are on their way".into()));
                self.in_flight.acquire().await.ok()?
            }
        };
        let each = self.links.iter().map(|link| async move {
            let url = link.url();
            link.insist(event, &self.shared, |said| note(url, said)).await
        });
        let mut each: FuturesUnordered<_> = each.collect();
        each.next().await
    }

    /// Grows each time a relay's subscription is in place: after connecting, and after the relay had closed it.
    /// What was missed before that moment will not come by itself.
    #[must_use]
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.shared.epoch.subscribe()
    }

    /// How many relays are connected now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.links.iter().filter(|link| link.is_connected()).count()
    }

    /// All relays, connected or not.
    pub fn urls(&self) -> impl Iterator<Item = &RelayUrl> {
        self.links.iter().map(|link| link.url())
    }

    /// Closes all connections and waits for their end. Nothing arrives afterwards; publishing fails at its deadline.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut keepers = self.keepers.lock().await;
        while keepers.join_next().await.is_some() {}
        self.client.shutdown().await;
    }
}

async fn links(client: &Client, urls: Vec<RelayUrl>) -> Result<Vec<Arc<Link>>, RelayError> {
    let mut links = Vec::new();
    for url in urls {
        let add = async {
            let added = client.pool().add_relay(url.clone(), options()).await?;
            let relay = client.pool().relay(url.clone()).await?;
            Ok(added.then(|| Arc::new(Link::new(relay))))
        };
        match add.await {
            Ok(link) => links.extend(link),
            Err(source) => {
                let source = Box::new(source);
                return Err(RelayError::Relay { url, source });
            }
        }
    }
    if links.is_empty() {
        return Err(RelayError::NoRelays);
    }
    Ok(links)
}

/// The pool's own reconnecting is off: its waits grow with the failures of a lifetime and are not reset.
fn options() -> RelayOptions {
    let mut limits = RelayLimits::default();
    let most = |bytes: usize| Some(u32::try_from(bytes).unwrap_or(u32::MAX));
    limits.messages.max_size = most(MESSAGE_BYTES);
    limits.events.max_size = most(MAX_EVENT_BYTES);
    RelayOptions::new().reconnect(false).limits(limits)
}

/// For jitter. Without a source of randomness all wait alike, which is bearable.
fn dice() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}
