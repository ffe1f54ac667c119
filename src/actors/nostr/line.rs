//! The thread with the relays: reads what arrives, hands it to the gate or to the caller of a service, sends what goes out.
//!
//! Started by the app before the actors. What must stay true: it never waits for one request; when it ends, the daemon
//! has to end too ([`Line::ended`]), because nobody could reach it any more.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ::nostr::{Event, Keys, PublicKey, RelayUrl};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::gate::{Gate, Outgoing};
use crate::metrics::Metrics;
use crate::nostr::beacon::{self, Beacon};
use crate::nostr::relays::{Arrived, RelayError, Relays, Settings, Timings};
use crate::nostr::wire::DropReason;
use crate::time::SharedClock;

/// Events that wait to be looked into; more wait in the relays' sockets.
const ARRIVED: usize = 1024;
/// Between two beacons, and two looks for messages that never became whole.
const BEACON: Duration = Duration::from_secs(60);

/// Why there is no line.
#[derive(Debug, Error)]
pub enum LineError {
    /// The relays.
    #[error(transparent)]
    Relays(#[from] RelayError),
    /// The system.
    #[error("the thread of the relays: {0}")]
    System(#[from] std::io::Error),
    /// It ended at once.
    #[error("the thread of the relays ended at its start")]
    Ended,
}

/// What a service tells of itself each minute; `None` while there is nothing to tell.
pub type Tell = Box<dyn Fn() -> Option<Beacon> + Send>;

/// Hears an event of a site's service.
pub type Hear = Box<dyn Fn(Event) -> Result<(), DropReason> + Send>;

/// Who is on the line.
pub struct Parties {
    /// Answers requests.
    pub gate: Arc<Gate>,
    /// What the actors send.
    pub outgoing: mpsc::Receiver<Outgoing>,
    /// At a site: its service's key, and who hears its answers.
    pub service: Option<(PublicKey, Hear)>,
    /// The service's beacon.
    pub tell: Option<Tell>,
}

/// The line to the relays.
pub struct Line {
    /// The relays themselves.
    pub relays: Arc<Relays>,
    parties: oneshot::Sender<Parties>,
    /// Answers, with an error, when the thread has ended.
    pub ended: oneshot::Receiver<()>,
}

impl Line {
    /// Starts the thread; relays are connected from now on, whether they are there or not.
    ///
    /// # Errors
    /// When the system refuses, or a relay's address can not be used.
    pub fn start(keys: &Keys, urls: Vec<RelayUrl>, clock: SharedClock, metrics: &Metrics) -> Result<Self, LineError> {
        let (parties, parties_come) = oneshot::channel();
        let (alive, ended) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let settings = Settings {
            urls,
            keys: keys.clone(),
            clock: Arc::clone(&clock),
            timings: Timings::default(),
        };
        let (keys, watcher) = (keys.clone(), Arc::new(metrics.clone()));
        let metrics = metrics.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("nostr".into()).spawn(move || {
            let _alive = alive;
            runtime.block_on(async move {
                let (sender, arrived) = mpsc::channel(ARRIVED);
                match Relays::start(settings, sender, watcher).await {
                    Err(error) => drop(tell.send(Err(error))),
                    Ok(relays) => {
                        let relays = Arc::new(relays);
                        // Without the other side nobody is there to be heard.
                        if tell.send(Ok(Arc::clone(&relays))).is_ok()
                            && let Ok(parties) = parties_come.await
                        {
                            Talk {
                                keys,
                                relays,
                                clock,
                                metrics,
                            }
                            .run(parties, arrived)
                            .await;
                        }
                    }
                }
            });
        })?;
        let relays = told.recv().map_err(|_| LineError::Ended)??;
        Ok(Self { relays, parties, ended })
    }

    /// Lets these hear and speak from now on; returns what answers when the thread has ended.
    ///
    /// # Errors
    /// When the thread has ended already.
    pub fn connect(self, parties: Parties) -> Result<oneshot::Receiver<()>, LineError> {
        self.parties.send(parties).map_err(|_| LineError::Ended)?;
        Ok(self.ended)
    }
}

struct Talk {
    keys: Keys,
    relays: Arc<Relays>,
    clock: SharedClock,
    metrics: Metrics,
}

impl Talk {
    async fn run(&self, parties: Parties, mut arrived: mpsc::Receiver<Arrived>) {
        let Parties {
            gate,
            mut outgoing,
            service,
            tell,
        } = parties;
        let mut minute = tokio::time::interval(BEACON);
        minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = arrived.recv() => match event {
                    Some(Arrived { event, .. }) => self.hear(&gate, service.as_ref(), event).await,
                    None => return,
                },
                sent = outgoing.recv() => {
                    // The actors are gone.
                    let Some(sent) = sent else { return };
                    let gate = Arc::clone(&gate);
                    tokio::spawn(async move { gate.go_out(sent).await });
                }
                _ = minute.tick() => {
                    gate.tidy();
                    if let Some(beacon) = tell.as_ref().and_then(|tell| tell()) {
                        self.shine(&beacon);
                    }
                }
            }
        }
    }

    async fn hear(&self, gate: &Arc<Gate>, service: Option<&(PublicKey, Hear)>, event: Event) {
        match service {
            Some((service, hear)) if event.pubkey == *service => {
                if let Err(reason) = hear(event) {
                    self.metrics.nostr_dropped(reason);
                }
            }
            _ => gate.arrive(event).await,
        }
    }

    /// A lost beacon is followed by the next one.
    fn shine(&self, beacon: &Beacon) {
        let now = self.clock.now();
        match beacon::sign(&self.keys, beacon, now) {
            Err(error) => tracing::error!(%error, "no beacon"),
            Ok(event) => {
                let relays = Arc::clone(&self.relays);
                tokio::spawn(async move {
                    if let Err(error) = relays.publish(event, now.plus(BEACON / 2)).await {
                        tracing::debug!(%error, "no relay took the beacon");
                    }
                });
            }
        }
    }
}
