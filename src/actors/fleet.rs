//! The door to the actors: what the HTTP edge asks of the fleet.
//!
//! Cheap to clone and sent between threads. What must stay true: an answer of `Ok` to a change means durable.

use thiserror::Error;
use tokio::sync::broadcast;

use crate::cashout::quote::QuoteError;
use crate::cashout::{CancelBy, CashOut, Resolution};
use crate::cashout::ledger::Cassette;
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
