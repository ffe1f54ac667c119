//! Starting, stopping and commanding an emulated relay.
//!
//! Called by whoever runs one. Must stay true: dropping the handle ends the relay and cuts its connections.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::nostr::RelayUrl;
use nostr_relay_builder::builder::{RateLimit, RelayBuilderNip42};
use nostr_relay_builder::prelude::{MemoryDatabase, MemoryDatabaseOptions};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::serve::{Order, Shared, serve};
use super::{RelayCounts, RelayError, RelayFaults, RelayOptions};

/// Events kept of kinds that are not ephemeral.
const STORED: usize = 10_000;
/// Orders that a busy connection may be behind.
const ORDERS: usize = 1_024;

/// A running relay.
pub struct RelayHandle {
    shared: Arc<Shared>,
    address: SocketAddr,
    url: RelayUrl,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for RelayHandle {
    fn drop(&mut self) {
        if let Some(serving) = self.serving().take() {
            serving.abort();
        }
    }
}

impl RelayHandle {
    /// Starts a relay. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(options: RelayOptions) -> Result<Self, RelayError> {
        let (listener, address) = bind(options.listen).await?;
        // An address of a socket is always one of a URL.
        let url = RelayUrl::parse(&format!("ws://{address}")).map_err(|error| RelayError::Listen {
            address,
            source: std::io::Error::other(error),
        })?;
        let shared = Arc::new(Shared {
            relay: relay(options.nip42),
            seed: options.seed,
            faults: watch::channel(options.faults).0,
            outage_until: watch::channel(None).0,
            orders: broadcast::channel(ORDERS).0,
            counts: watch::Sender::default(),
        });
        let serving = tokio::spawn(serve(shared.clone(), listener));
        Ok(Self {
            shared,
            address,
            url,
            serving: Mutex::new(Some(serving)),
        })
    }

    /// Its address, for clients.
    #[must_use]
    pub fn url(&self) -> RelayUrl {
        self.url.clone()
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes wrong from now on.
    pub fn set(&self, faults: RelayFaults) {
        self.shared.faults.send_replace(faults);
    }

    /// What goes wrong now.
    #[must_use]
    pub fn faults(&self) -> RelayFaults {
        *self.shared.faults.borrow()
    }

    /// What has happened.
    #[must_use]
    pub fn counts(&self) -> RelayCounts {
        *self.shared.counts.borrow()
    }

    /// Waits until what has happened is enough.
    pub async fn until(&self, enough: impl Fn(&RelayCounts) -> bool) {
        // The sender is in `self`.
        _ = self.shared.counts.subscribe().wait_for(enough).await;
    }

    /// Cuts all connections. New ones are taken.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Closes all subscriptions with these words.
    pub fn close_subscriptions(&self, words: &str) {
        self.order(Order::Close(words.to_owned()));
    }

    /// Sends all clients a NOTICE.
    pub fn notice(&self, words: &str) {
        self.order(Order::Notice(words.to_owned()));
    }

    /// Sends all clients this text as it is.
    pub fn say(&self, text: &str) {
        self.order(Order::Say(text.to_owned()));
    }

    /// Begins an outage.
    pub fn outage(&self, lasts: Duration) {
        self.shared.outage_until.send_replace(Some(Instant::now() + lasts));
    }

    /// Cuts all connections and closes the port.
    pub async fn stop(&self) {
        let serving = self.serving().take();
        if let Some(serving) = serving {
            serving.abort();
            // Cancelled, as told.
            _ = serving.await;
        }
    }

    /// Stops when it runs, and opens the same port again. What it has stored stays.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub async fn restart(&self) -> Result<(), RelayError> {
        self.stop().await;
        let (listener, _) = bind(self.address).await?;
        let serving = tokio::spawn(serve(self.shared.clone(), listener));
        *self.serving() = Some(serving);
        Ok(())
    }

    fn order(&self, order: Order) {
        // Without a connection nobody hears it.
        _ = self.shared.orders.send(order);
    }

    fn serving(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RelayError> {
    let failed = |source| RelayError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The relay behind the proxy. Its own limits are out of the way: 60 events a minute would be one of the faults.
/// It is never told to listen: its own listener looks for ports at random and names none in its errors.
fn relay(nip42: bool) -> LocalRelay {
    let mut builder = RelayBuilder::default()
        .database(MemoryDatabase::with_opts(MemoryDatabaseOptions {
            events: true,
            max_events: Some(STORED),
        }))
        .rate_limit(RateLimit {
            max_reqs: 10_000,
            notes_per_minute: 1_000_000_000,
        });
    if nip42 {
        builder = builder.nip42(RelayBuilderNip42::default());
    }
    LocalRelay::new(builder)
}
