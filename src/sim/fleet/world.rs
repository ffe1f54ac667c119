//! What the tasks of a simulation share: the machines, the node, the daemons' APIs, and what customers saw.
//!
//! Made by the runner. What must stay true: every random choice comes from a generator of its own for each task, made
//! from the seed, so that the order in which tasks run changes nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use super::client::Api;
use super::cycles::Log;
use super::scenario::Scenario;
use super::setup::DENOMINATIONS;
use crate::hardware::puloon::emulator::{EmulatorHandle, Fault, What};
use crate::ids::{AtmId, ClientName};
use crate::money::Rate;
use crate::sim::audit::{Machine, Violation, Visit};
use crate::sim::lnd::SimHandle;
use crate::sim::relay::RelayHandle;

/// One emulated machine.
#[derive(Debug, Clone)]
pub struct Stand {
    /// Its name.
    pub atm: AtmId,
    /// Its inside.
    pub inside: EmulatorHandle,
    /// The daemon that it belongs to.
    pub api: Api,
}

/// A daemon with machines: the only one, or one of the sites.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name at the server; `None` when there is no server.
    pub name: Option<ClientName>,
    /// The daemon.
    pub api: Api,
    /// Its machines.
    pub atms: Vec<AtmId>,
}

/// What is there when the daemons are sites: the relays, and the server behind them.
pub struct OnNostr {
    /// The server.
    pub server: Api,
    /// Both it and all sites are connected to each of them.
    pub relays: Vec<RelayHandle>,
}

impl Stand {
    /// As the audit sees it now.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine {
            atm: self.atm.clone(),
            denominations: DENOMINATIONS,
            events: self.inside.events(),
            totals: self.inside.totals(),
        }
    }
}

/// Figures for the progress line. Not the audit's.
#[derive(Debug, Default)]
pub struct Figures {
    /// Cash-outs that customers started.
    pub started: AtomicU64,
    /// Of them, those they saw ending with notes.
    pub completed: AtomicU64,
    /// Of them, those they saw ending with their money back.
    pub canceled: AtomicU64,
    /// Requests that the daemon refused.
    pub refused: AtomicU64,
    /// Requests that got no answer.
    pub unanswered: AtomicU64,
    /// SIGKILLs of daemons with machines.
    pub kills: AtomicU64,
    /// SIGKILLs of the sites' server.
    pub server_kills: AtomicU64,
    /// Ends of daemons whose disk took no more.
    pub disk_ends: AtomicU64,
    /// Visits of the operator to a machine.
    pub services: AtomicU64,
    /// Outcomes the operator decided.
    pub decided: AtomicU64,
}

/// One more.
pub fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

/// How many.
#[must_use]
pub fn read(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}

/// What the tasks share.
pub struct World {
    /// What happens.
    pub scenario: Scenario,
    /// Everything random comes from it.
    pub seed: u64,
    /// The price.
    pub rate: Rate,
    /// The daemons with machines.
    pub sites: Vec<Site>,
    /// What is between them and the node; `None` when the daemon has the node itself.
    pub nostr: Option<OnNostr>,
    /// The node, and the customers' wallets.
    pub lnd: SimHandle,
    /// The machines.
    pub stands: Vec<Stand>,
    /// What customers were told.
    pub visits: Mutex<Vec<Visit>>,
    /// What went wrong beside the audit's rules.
    pub troubles: Mutex<Vec<Violation>>,
    /// For the progress line.
    pub figures: Figures,
    /// What befell the node and the disks, by kind.
    pub faults: Mutex<BTreeMap<String, u64>>,
    /// Held by who stops or locks the node.
    pub node_life: tokio::sync::Mutex<()>,
    /// Held by who cuts it off from the chain.
    pub node_sync: tokio::sync::Mutex<()>,
    /// How long customers came.
    pub lasted_s: AtomicU64,
    /// What the kill cycles came to so far.
    pub cycles: Arc<Mutex<Log>>,
    /// No more customers come once it is true.
    pub closed: watch::Sender<bool>,
}

impl World {
    /// A generator for the task called `what` of machine `index`.
    #[must_use]
    pub fn random(&self, what: u64, index: usize) -> StdRng {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let mixed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ what.rotate_left(32) ^ index;
        StdRng::seed_from_u64(mixed)
    }

    /// Notes something that must never be.
    pub fn trouble(&self, rule: &'static str, found: impl Into<String>) {
        let violation = Violation {
            rule,
            atm: None,
            cashout: None,
            found: found.into(),
        };
        self.troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(violation);
    }

    /// Remembers what a customer was told.
    pub fn remember(&self, visit: Visit) {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
    }

    /// Waits until no more customers come.
    pub async fn closing(&self) {
        // The sender lives as long as this.
        _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Waits so long; `false` when no more customers come meanwhile.
    pub async fn wait(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.closing() => false,
        }
    }

    /// One more fault of the node or a disk.
    pub fn count_fault(&self, kind: &str) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(kind.to_owned()).or_default() += 1;
    }

    /// Faults that took effect so far, by kind, and notes that left so far.
    #[must_use]
    pub fn happened(&self) -> (BTreeMap<String, u64>, u64) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut notes = 0;
        for stand in &self.stands {
            stand.inside.read(|events| {
                for event in events {
                    match &event.what {
                        What::FaultApplied { fault } => {
                            *faults.entry(format!("machine {}", kind_of(fault))).or_default() += 1;
                        }
                        What::NoteDelivered { .. } => notes += 1,
                        _ => {}
                    }
                }
            });
        }
        (faults, notes)
    }
}

/// A fault's name in the machine's ledger.
fn kind_of(fault: &Fault) -> String {
    let value = serde_json::to_value(fault).unwrap_or_default();
    let kind = value.get("kind").and_then(serde_json::Value::as_str);
    kind.unwrap_or("unknown").to_owned()
}

/// A quarter to seven quarters of `mean`.
pub fn around(random: &mut StdRng, mean: Duration) -> Duration {
    mean * random.random_range(25..=175_u32) / 100
}

/// One of `choices` by its weight; `None` when a roll of `of` meets none of them.
pub fn choose<T: Copy>(random: &mut StdRng, choices: &[(T, u32)], of: u32) -> Option<T> {
    let mut roll = random.random_range(0..of.max(1));
    for (choice, weight) in choices {
        if roll < *weight {
            return Some(*choice);
        }
        roll -= weight;
    }
    None
}
