//! The door to the actors: what the HTTP edge asks of the fleet.
//!
//! Cheap to clone and sent between threads. What must stay true: an answer of `Ok` to a change means durable.

use thiserror::Error;
use tokio::sync::broadcast;

use crate::cashout::ledger::Cassette;
use crate::cashout::quote::QuoteError;
use crate::cashout::{CancelBy, CashOut, Resolution};
use crate::ids::{AtmId, CashOutId};
use crate::metrics::{AtmState, Metrics};
use crate::money::Minor;
use crate::store::AtmBook;

/// Why the fleet does not do what it is asked.
#[derive(Debug, Clone, Error)]
pub enum FleetError {
    /// No ATM of this name is configured.
    #[error("no ATM is called {0}")]
    NoSuchAtm(AtmId),
    /// No such cash-out.
    #[error("there is no cash-out {0}")]
    NoSuchCashOut(CashOutId),
    /// No promise can be made for this amount.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The machine serves another customer.
    #[error("{0} serves another customer")]
    Busy(AtmId),
    /// The machine takes no new customers.
    #[error("{atm} takes no customers: {reason}")]
    NotInService {
        /// Which.
        atm: AtmId,
        /// Why.
        reason: String,
    },
    /// What is asked does not fit the state of things.
    #[error("{0}")]
    Refused(String),
    /// Nothing is known of the effect: look before asking again.
    #[error("{0}; look at the state before you ask again")]
    Unavailable(String),
}

/// What an operator does to an ATM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtmOrder {
    /// No new customers.
    Drain,
    /// Customers may come again; a device fault is reset, restarts are forgiven.
    Resume,
    /// These cassettes were loaded and counted. Refused while a customer is served.
    Load(Vec<Cassette>),
}

/// One machine as it is now.
#[derive(Debug, Clone)]
pub struct AtmStatus {
    /// Which.
    pub id: AtmId,
    /// Its name for people.
    pub name: String,
    /// What it is doing.
    pub state: AtmState,
    /// Why it serves nobody.
    pub reason: Option<String>,
    /// Its notes.
    pub book: AtmBook,
    /// Its open cash-outs.
    pub open: Vec<CashOut>,
}

/// Whether customers can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The journal takes records.
    pub journal: bool,
    /// LND can add invoices; else why not.
    pub lnd: Result<(), String>,
    /// ATMs that are ready or busy.
    pub atms_in_service: usize,
    /// All ATMs.
    pub atms: usize,
}

/// The fleet. See [`crate::app`] for how it is brought up.
#[derive(Clone)]
pub struct Fleet {
    changes: broadcast::Sender<CashOut>,
    metrics: Metrics,
}

fn unwired<T>() -> Result<T, FleetError> {
    Err(FleetError::Unavailable("the actors are not wired".into()))
}

impl Fleet {
    /// Promises notes of value `amount`. Answers once LND has the invoice, or the cash-out is on its way to
    /// being canceled.
    ///
    /// # Errors
    /// When no promise is made.
    pub async fn start(&self, _atm: &AtmId, _amount: Minor) -> Result<CashOut, FleetError> {
        unwired()
    }

    /// Cancels a cash-out whose dispense has not begun.
    ///
    /// # Errors
    /// When it is too late, or unknown.
    pub async fn cancel(&self, _id: CashOutId, _by: CancelBy) -> Result<CashOut, FleetError> {
        unwired()
    }

    /// An operator decides about an open item.
    ///
    /// # Errors
    /// When the decision does not fit the state.
    pub async fn resolve(
        &self,
        _id: CashOutId,
        _by: String,
        _resolution: Resolution,
        _note: String,
    ) -> Result<CashOut, FleetError> {
        unwired()
    }

    /// One cash-out, open or ended.
    ///
    /// # Errors
    /// When there is none.
    pub async fn cashout(&self, _id: CashOutId) -> Result<CashOut, FleetError> {
        unwired()
    }

    /// At most `limit` cash-outs, the newest first, of one ATM or of all, older than `before`.
    ///
    /// # Errors
    /// When the state can not be read.
    pub async fn cashouts(
        &self,
        _atm: Option<AtmId>,
        _before: Option<CashOutId>,
        _limit: usize,
    ) -> Result<Vec<CashOut>, FleetError> {
        unwired()
    }

    /// Every change of every cash-out from now on. Lagging loses some: read the cash-out again then.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<CashOut> {
        self.changes.subscribe()
    }

    /// All ATMs, in the order of the configuration.
    pub async fn atms(&self) -> Vec<AtmStatus> {
        Vec::new()
    }

    /// An operator's order to an ATM; journaled before it acts.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn order(&self, _atm: &AtmId, _by: String, _order: AtmOrder) -> Result<AtmStatus, FleetError> {
        unwired()
    }

    /// Whether customers can be served.
    pub async fn readiness(&self) -> Readiness {
        Readiness {
            journal: false,
            lnd: Err("the actors are not wired".into()),
            atms_in_service: 0,
            atms: 0,
        }
    }

    /// The answer to a scrape.
    pub async fn metrics(&self) -> String {
        self.metrics.render()
    }
}
