//! The audit of a simulated fleet: what left the machines, against what the node took, against what the daemon says.
//!
//! Called at the end of `tellerd simulate`. A pure function over data. What must stay true: physical facts come from
//! the emulators' ledgers and money facts from the simulated LND's ledger only; the daemon's words are compared with
//! them and never used to find them. The rules are listed in docs/SIMULATION.md.

pub mod facts;
pub mod latency;
mod liveness;
pub mod physical;
mod rules;
mod sites;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::api::{AtmView, CashOutView, SiteView};
use crate::hardware::puloon::emulator::{CassetteTotals, Event};
use crate::ids::{AtmId, CashOutId, ClientName};
use crate::money::{Minor, Rate};
use crate::sim::lnd::Ledger;
use crate::time::UnixMs;

pub use facts::Facts;
pub use liveness::liveness;
pub use rules::{DECIDED_AT_DEADLINE, judge};

/// One emulated machine after the simulation.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name in the fleet.
    pub atm: AtmId,
    /// The value of a note in positions 1 to 4.
    pub denominations: [Minor; 4],
    /// All that physically happened.
    pub events: Vec<Event>,
    /// Where its notes are.
    pub totals: [CassetteTotals; 4],
}

/// What a customer knows of a cash-out it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Where the customer stood.
    pub atm: AtmId,
    /// What the daemon called it.
    pub id: CashOutId,
    /// The payment hash it was told, hex.
    pub hash: String,
    /// The value it asked for.
    pub amount: Minor,
    /// When it asked.
    pub asked_at: UnixMs,
    /// When it was answered with an invoice; `None` when there was none to pay.
    pub shown_at: Option<UnixMs>,
}

/// The daemon's last words.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Statement {
    /// Every cash-out it knows.
    pub cashouts: Vec<CashOutView>,
    /// Every machine.
    pub atms: Vec<AtmView>,
    /// The server's words about its sites.
    pub sites: Vec<SiteView>,
}

/// All that is audited.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The machines.
    pub machines: Vec<Machine>,
    /// The node.
    pub ledger: Ledger,
    /// The price that the fleet was configured with; it has no fee.
    pub rate: Rate,
    /// The customers.
    pub visits: Vec<Visit>,
    /// The sites with their machines; empty when the daemon has the node itself.
    pub sites: Vec<(ClientName, Vec<AtmId>)>,
    /// The daemon, or all of them together.
    pub statement: Statement,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule, as in docs/SIMULATION.md.
    pub rule: &'static str,
    /// The machine, where there is one.
    pub atm: Option<AtmId>,
    /// The cash-out, where there is one.
    pub cashout: Option<CashOutId>,
    /// What was found.
    pub found: String,
}

/// Something that waits for a human or for its time, and says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenItem {
    /// The cash-out.
    pub id: CashOutId,
    /// The state the daemon names.
    pub state: String,
    /// Why it is open, in the daemon's words, and what the ledgers say of it.
    pub why: String,
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Empty when all is well.
    pub violations: Vec<Violation>,
    /// What was left open, explained.
    pub open: Vec<OpenItem>,
    /// What the rules let pass although books and facts differ, because the daemon says openly that it does not know.
    pub excused: Vec<String>,
}
