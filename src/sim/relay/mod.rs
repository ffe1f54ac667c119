//! An emulated Nostr relay, with the faults that real ones have.
//!
//! `nostr-relay-builder` is the relay; a proxy of websocket frames in front of it makes the faults, and owns the port.
//! Called by `tellerd emulate relay`, `tellerd simulate` and tests, inside whatever tokio runtime is there.
//! Must stay true: it shares no code with the connections that it is used to test; every random choice comes from the
//! seed and the number of the connection; with no fault set nothing is lost, but for a subscriber that is more than
//! 1,024 events behind (the relay crate's own bound).
//!
//! The faults, all off by default, each to be set while it runs ([`RelayFaults`]) or done at once ([`RelayHandle`]):
//! - **cut**: a client's connection ends without a word, after a random time; or all of them now.
//! - **outage**: all connections end, new ones are hung up on, for a while; or the port is closed ([`RelayHandle::stop`]).
//! - **duplicate**: a subscriber gets an event again at once and once more later.
//! - **delay**: a subscriber gets an event late, so that others overtake it.
//! - **drop**: an event is answered OK true and goes nowhere.
//! - **lose the OK**: an event is passed on and its OK is not.
//! - **rate limit**: an event is answered OK false `rate-limited:` and goes nowhere.
//! - **no OK**: events of ephemeral kinds are never answered OK true, as nostr-rs-relay does.
//! - **close**: a subscription ends with CLOSED, after a random time or now; or a request is answered by CLOSED.
//! - **notice**: a NOTICE after a random time, or now.
//! - **say**: any text at all, as a hostile relay would: forged events, garbage.
//! - **NIP-42**: who has not said who he is may neither read nor write. A property of the relay, not a fault.

pub mod command;
mod faults;
mod handle;
mod serve;
mod session;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

pub use handle::RelayHandle;

/// A relay to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayOptions {
    /// Where; port 0 is any free one.
    pub listen: SocketAddr,
    /// Of all random choices.
    pub seed: u64,
    /// Only clients that proved their key may read and write.
    pub nip42: bool,
    /// From the beginning on.
    pub faults: RelayFaults,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            nip42: false,
            faults: RelayFaults::default(),
        }
    }
}

/// What goes wrong by itself. Probabilities are from 0 to 1; periods are the mean of an exponential distribution.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RelayFaults {
    /// A client's connection is cut, every so often.
    pub cut_every: Option<Duration>,
    /// An outage begins, every so often.
    pub outage_every: Option<Duration>,
    /// It lasts so long.
    pub outage: Duration,
    /// An event is sent to a subscriber three times.
    pub duplicate: f64,
    /// An event waits before it is sent to a subscriber.
    pub delay: f64,
    /// At most so long; a third copy comes within this time too.
    pub delay_max: Duration,
    /// A published event is dropped with OK true.
    pub drop: f64,
    /// An OK is not sent.
    pub lose_ok: f64,
    /// A published event is refused as too many.
    pub rate_limit: f64,
    /// Published events of ephemeral kinds get no OK true.
    pub no_ok: bool,
    /// A request for a subscription is answered by CLOSED.
    pub refuse_subscription: f64,
    /// A subscription of a client is closed, every so often.
    pub close_every: Option<Duration>,
    /// A client gets a NOTICE, every so often.
    pub notice_every: Option<Duration>,
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RelayCounts {
    /// Connections that were taken.
    pub connections: u64,
    /// Connections that were hung up on during an outage.
    pub hung_up: u64,
    /// Outages.
    pub outages: u64,
    /// Connections that were cut, but for those by an outage.
    pub cut: u64,
    /// Events that clients sent.
    pub published: u64,
    /// Of these, dropped with OK true.
    pub dropped: u64,
    /// Of these, refused as too many.
    pub rate_limited: u64,
    /// OKs that were not sent.
    pub oks_lost: u64,
    /// Events sent to subscribers, each copy counted.
    pub delivered: u64,
    /// Events that were sent three times.
    pub duplicated: u64,
    /// Events that were sent late.
    pub delayed: u64,
    /// Requests for subscriptions.
    pub requests: u64,
    /// Subscriptions closed, and requests answered so.
    pub closed: u64,
    /// NOTICEs.
    pub notices: u64,
    /// Texts said on command, each client counted.
    pub said: u64,
}

/// A relay that cannot run.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The port is taken, or not ours.
    #[error("the relay cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals of the terminal.
    #[error("the relay cannot wait for signals")]
    Signal(#[source] io::Error),
}
