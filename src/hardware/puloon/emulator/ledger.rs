//! What physically happened in an emulated dispenser: the truth that audits and tests compare with.
//!
//! Written by the emulator's machine. Must stay true: an event is in the file, if there is one, before
//! any byte that tells of it leaves the device.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::script::Fault;
use crate::time::{SharedClock, SystemClock, UnixMs};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// From 1, without gaps.
    pub seq: u64,
    /// When.
    pub at_unix_ms: UnixMs,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. `dispense` counts dispense commands from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum What {
    /// A command came in whole.
    CommandReceived {
        /// Its byte.
        command: u8,
    },
    /// A dispense begins.
    DispenseStarted {
        /// Its number.
        dispense: u64,
        /// Notes asked for, from positions 1 to 4.
        requested: [u8; 4],
        /// The host's serial number (serial variant).
        serial: Option<u8>,
    },
    /// A note left the machine.
    NoteDelivered {
        /// The dispense it belongs to.
        dispense: u64,
        /// The cassette it came from.
        position: u8,
    },
    /// A note went to the reject tray.
    NoteRejected {
        /// The dispense it belongs to.
        dispense: u64,
        /// The cassette it came from.
        position: u8,
    },
    /// A note is stuck inside the machine.
    NoteStuck {
        /// The dispense it belongs to.
        dispense: u64,
        /// The cassette it came from.
        position: u8,
    },
    /// A note is held at the exit, in reach of the customer.
    NoteAtExit {
        /// The dispense it belongs to.
        dispense: u64,
        /// The cassette it came from.
        position: u8,
    },
    /// A dispense is over, whether or not the host hears of it.
    DispenseEnded {
        /// Its number.
        dispense: u64,
        /// The error code without its offset.
        error: u8,
    },
    /// A planned fault takes effect.
    FaultApplied {
        /// The fault.
        fault: Fault,
    },
    /// Notes were put into a cassette.
    Refilled {
        /// Its position.
        position: u8,
        /// How many.
        notes: u32,
    },
}

/// The time of events, and who hears of each at once.
#[derive(Clone)]
pub struct Witness {
    /// The clock.
    pub clock: SharedClock,
    /// Called while the machine is locked: must not ask it anything.
    pub on_event: Arc<dyn Fn(&Event) + Send + Sync>,
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            on_event: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// Events in order, in memory and in a file.
#[derive(Debug)]
pub(super) struct Ledger {
    witness: Witness,
    events: Vec<Event>,
    next: u64,
    file: Option<File>,
}

impl Ledger {
    /// Goes on after what the file already has.
    pub(super) fn open(path: Option<&Path>, witness: Witness) -> io::Result<Self> {
        let mut next = 1;
        let mut file = None;
        if let Some(path) = path {
            let opened = OpenOptions::new().create(true).append(true).read(true).open(path)?;
            for line in BufReader::new(&opened).lines() {
                line?;
                next += 1;
            }
            file = Some(opened);
        }
        Ok(Self {
            witness,
            events: Vec::new(),
            next,
            file,
        })
    }

    pub(super) fn record(&mut self, what: What) -> io::Result<()> {
        let event = Event {
            seq: self.next,
            at_unix_ms: self.witness.clock.now(),
            what,
        };
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&event)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        self.next += 1;
        (self.witness.on_event)(&event);
        self.events.push(event);
        Ok(())
    }

    /// Since this emulator started.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }
}
