//! Cash dispensers: the [`Dispenser`] trait, and one folder for each device family.
//!
//! Owns the words the rest of tellerd uses for motion and evidence. Called by the dispenser actor.
//! What must stay true: a motion command is never resent once a byte has left, an outcome that is
//! not proven is [`Outcome::Unknown`], and evidence is read before anything that overwrites it.

pub mod device;
pub mod emulate;
pub mod memory;
pub mod port;
pub mod pty;
pub mod puloon;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::money::Minor;

/// Notes of one cassette in a dispense order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CassetteOrder {
    /// Position of the cassette in the machine, from 1.
    pub position: u8,
    /// The value of one note, in minor units.
    pub denomination: Minor,
    /// How many notes to deliver; never zero.
    pub notes: u32,
}

/// What a dispenser is asked to deliver, in one motion command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispenseOrder {
    /// At most one entry for each position, ascending.
    pub cassettes: Vec<CassetteOrder>,
}

impl DispenseOrder {
    /// The value of all notes.
    #[must_use]
    pub fn value(&self) -> Minor {
        self.cassettes
            .iter()
            .filter_map(|c| c.denomination.times(c.notes))
            .sum()
    }

    /// The number of notes.
    #[must_use]
    pub fn notes(&self) -> u32 {
        self.cassettes.iter().fold(0, |sum, c| sum.saturating_add(c.notes))
    }
}

/// The device's own counters before a dispense: what a result read after a crash is compared with.
/// Made by [`Dispenser::prepare`], kept in the journal, understood only by the driver that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marker(pub serde_json::Value);

/// An order that is durable and may be commanded once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispenseIntent {
    /// What to deliver.
    pub order: DispenseOrder,
    /// The device's counters before it.
    pub marker: Marker,
}

impl DispenseIntent {
    /// The report of an order that was held back: no byte of it left.
    #[must_use]
    pub fn not_commanded(&self, why: &str) -> DispenseReport {
        let fault = Fault {
            code: 0,
            text: format!("not commanded: {why}"),
            position: None,
        };
        DispenseReport {
            outcome: Outcome::NothingMoved { fault },
            ..DispenseReport::unknown(&self.order, "")
        }
    }
}

/// What became of one cassette's notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CassetteReport {
    /// Position of the cassette, from 1.
    pub position: u8,
    /// The value of one note, in minor units, as ordered.
    pub denomination: Minor,
    /// Notes asked for.
    pub requested: u32,
    /// Notes the device counted out to the customer.
    pub delivered: u32,
    /// Notes the device put into the reject tray.
    pub rejected: u32,
    /// Notes that left the cassette as far as anyone knows, but are neither delivered nor rejected.
    pub unaccounted: u32,
}

/// A device's complaint, for the journal, the log and the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The device's own code, as a number.
    pub code: u8,
    /// What it means, from the manual.
    pub text: String,
    /// The cassette it names, if it names one.
    pub position: Option<u8>,
}

/// How a dispense ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Outcome {
    /// Every note was delivered.
    Complete,
    /// Some notes were delivered, and the device proves how many.
    Partial {
        /// Why it stopped.
        fault: Fault,
    },
    /// The device proves that no note was delivered.
    NothingMoved {
        /// Why.
        fault: Fault,
    },
    /// Not known: lost link, time-out, contradiction, notes in reach of the customer.
    /// `delivered` counts in the report are then a lower bound.
    Unknown {
        /// Why it is not known.
        reason: String,
    },
}

/// The result of one dispense order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispenseReport {
    /// One entry for each cassette that was asked or that moved.
    pub cassettes: Vec<CassetteReport>,
    /// How it ended.
    pub outcome: Outcome,
}

impl DispenseReport {
    /// A report that proves nothing.
    #[must_use]
    pub fn unknown(order: &DispenseOrder, reason: impl Into<String>) -> Self {
        let cassettes = order
            .cassettes
            .iter()
            .map(|c| CassetteReport {
                position: c.position,
                denomination: c.denomination,
                requested: c.notes,
                delivered: 0,
                rejected: 0,
                unaccounted: 0,
            })
            .collect();
        Self {
            cassettes,
            outcome: Outcome::Unknown { reason: reason.into() },
        }
    }

    /// The value of all notes the device counted out.
    #[must_use]
    pub fn delivered_value(&self) -> Minor {
        self.cassettes
            .iter()
            .filter_map(|c| c.denomination.times(c.delivered))
            .sum()
    }
}

/// What [`Dispenser::recover`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// The device tells what became of the order (which may still be [`Outcome::Unknown`]
    /// with a lower bound, when notes may be in reach of the customer).
    Evidence(DispenseReport),
    /// The device answered, and can not tell. Asking again will not help.
    NoEvidence(String),
}

/// What a clearing of the path did with one cassette's notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearedNotes {
    /// Position of the cassette they came from, from 1.
    pub position: u8,
    /// Notes that went out at the exit.
    pub delivered: u32,
    /// Notes that went to the reject tray.
    pub rejected: u32,
}

/// What a device can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The model, as in the configuration.
    pub model: &'static str,
    /// Cassette positions, from 1 to this.
    pub cassettes: u8,
    /// Most notes in one order, over all cassettes.
    pub max_notes: u32,
}

/// One cassette as the device sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CassetteStatus {
    /// Position, from 1.
    pub position: u8,
    /// It is in the machine.
    pub present: bool,
    /// The device's near-end sensor says that few notes are left.
    pub near_end: bool,
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its pending error, if any.
    pub fault: Option<Fault>,
    /// No sensor sees a note on the path or at the exit.
    pub path_clear: bool,
    /// One entry for each position.
    pub cassettes: Vec<CassetteStatus>,
}

/// Why a command that is not a dispense failed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The port can not be opened.
    #[error("serial port {path} can not be opened: {source}")]
    Open {
        /// The configured path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The link broke: end of file, I/O error.
    #[error("the dispenser's serial link is lost: {0}")]
    LinkLost(String),
    /// The device did not answer in time.
    #[error("the dispenser did not answer {command} within {after_ms} ms")]
    Timeout {
        /// The command's name.
        command: &'static str,
        /// How long was waited, over all tries.
        after_ms: u64,
    },
    /// An answer that is not allowed here; the byte and its offset are named.
    #[error("the dispenser's answer to {command} is not valid: {detail}")]
    Protocol {
        /// The command's name.
        command: &'static str,
        /// What is wrong, with byte and offset.
        detail: String,
    },
    /// A late or mismatched reply was seen: every command fails until the port is opened again.
    #[error("the dispenser's link is out of sync after {0}; it has to be opened again")]
    OutOfSync(&'static str),
    /// The device refuses with an error of its own.
    #[error("the dispenser reports error 0x{:02X}: {}", .0.code, .0.text)]
    Fault(Fault),
    /// Not possible in the state the device is in, such as notes on the path.
    #[error("the dispenser is not ready: {0}")]
    NotReady(String),
    /// The order can not be expressed to this device.
    #[error("the order does not suit this dispenser: {0}")]
    BadOrder(String),
}

/// A cash dispenser on an open port. One command at a time.
#[async_trait]
pub trait Dispenser: Send {
    /// What the device can do.
    fn capabilities(&self) -> Capabilities;

    /// Brings a device whose port was just opened into a known state, by queries only:
    /// no note moves and no evidence of an earlier dispense is overwritten.
    async fn initialise(&mut self) -> Result<DeviceStatus, DeviceError>;

    /// Asks for sensors and errors. A query: it may be repeated.
    async fn status(&mut self) -> Result<DeviceStatus, DeviceError>;

    /// Makes sure that `order` can be dispensed now (cassettes present, path clear, no fault) and reads
    /// the counters that will tell, after a crash, whether it was. No note may move.
    async fn prepare(&mut self, order: &DispenseOrder) -> Result<Marker, DeviceError>;

    /// Delivers notes. **Motion**: the command leaves at most once. Whatever goes wrong after its
    /// first byte is an [`Outcome::Unknown`], unless the device itself proves otherwise.
    async fn dispense(&mut self, intent: &DispenseIntent) -> DispenseReport;

    /// Finds out what became of `intent`, by queries only. An error means "ask again later".
    async fn recover(&mut self, intent: &DispenseIntent) -> Result<Recovery, DeviceError>;

    /// Clears the path: notes on it go to the reject tray, one at the exit may be delivered. Returns the
    /// notes that moved. **Motion**, and it overwrites evidence: only when no outcome is open.
    async fn clear(&mut self) -> Result<Vec<ClearedNotes>, DeviceError>;

    /// What the device remembers of a [`Dispenser::clear`] whose answer was lost; `None` when another command
    /// came last. A query.
    async fn cleared(&mut self) -> Result<Option<Vec<ClearedNotes>>, DeviceError>;

    /// Resets a device whose path is clear and whose error stays. **Motion**, and it overwrites evidence.
    async fn reset(&mut self) -> Result<(), DeviceError>;
}
