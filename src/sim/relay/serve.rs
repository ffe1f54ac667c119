//! The port: taking connections, and hanging up on them during an outage.
//!
//! Started by [`super::RelayHandle`]. Must stay true: when this task is aborted, the port is closed and all connections
//! are cut.

use std::sync::Arc;
use std::time::Duration;

use nostr_relay_builder::LocalRelay;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::faults::{Dice, at};
use super::session::Session;
use super::{RelayCounts, RelayFaults};

/// What all connections are told.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Cut,
    Close(String),
    Notice(String),
    Say(String),
}

/// What the handle, the port and the connections share.
pub(super) struct Shared {
    pub relay: LocalRelay,
    pub seed: u64,
    pub faults: watch::Sender<RelayFaults>,
    pub outage_until: watch::Sender<Option<Instant>>,
    pub orders: broadcast::Sender<Order>,
    pub counts: watch::Sender<RelayCounts>,
}

impl Shared {
    pub fn count(&self, change: impl FnOnce(&mut RelayCounts)) {
        self.counts.send_modify(change);
    }
}

/// After the system refuses a connection, for want of file descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until aborted.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let mut dice = Dice::new(shared.seed, 0);
    let mut sessions = JoinSet::new();
    let mut faults = shared.faults.subscribe();
    let mut outages = shared.outage_until.subscribe();
    let mut next_outage = dice.next(faults.borrow_and_update().outage_every);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(_) if is_out(&shared) => shared.count(|counts| counts.hung_up += 1),
                Ok((stream, from)) => {
                    let mut number = 0;
                    shared.count(|counts| {
                        counts.connections += 1;
                        number = counts.connections;
                    });
                    sessions.spawn(Session::run(shared.clone(), number, stream, from));
                }
                Err(error) => {
                    tracing::warn!(%error, "emulated relay: no connection");
                    tokio::time::sleep(BREATH).await;
                }
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            _ = faults.changed() => next_outage = dice.next(faults.borrow_and_update().outage_every),
            () = at(next_outage) => {
                let faults = *shared.faults.borrow();
                next_outage = dice.next(faults.outage_every);
                shared.outage_until.send_replace(Some(Instant::now() + faults.outage));
            }
            _ = outages.changed() => {
                _ = outages.borrow_and_update();
                shared.count(|counts| counts.outages += 1);
                sessions.shutdown().await;
            }
        }
    }
}

fn is_out(shared: &Shared) -> bool {
    shared.outage_until.borrow().is_some_and(|until| until > Instant::now())
}
