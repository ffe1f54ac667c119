//! What an emulated LCDM-4000 is loaded with and which faults befall it, also as a TOML file.
//!
//! Read by the emulator; written by tests, by the simulation and by hand. Described in docs/EMULATOR.md.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An emulated dispenser as it is switched on. Every key may be left out of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setup {
    /// Notes in each cassette; a negative number in a script means that the cassette is not in the machine.
    pub cassettes: [i64; 4],
    /// At or below this many notes the near-end sensor sees it.
    pub near_end_notes: u32,
    /// Motor time for each note, in milliseconds.
    pub note_ms: u64,
    /// Motor time of purge and reset, in milliseconds.
    pub purge_ms: u64,
    /// How long the host's ACK is waited for, in milliseconds.
    pub host_ack_ms: u64,
    /// The serial number of the last dispense (serial variant).
    pub last_serial: u8,
    /// Where to write the ledger, one JSON object a line. Appended to.
    pub ledger: Option<PathBuf>,
    /// Faults to come.
    #[serde(rename = "fault")]
    pub faults: Vec<PlannedFault>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            cassettes: [500, 500, -1, -1],
            near_end_notes: 20,
            note_ms: 0,
            purge_ms: 0,
            host_ack_ms: 500,
            last_serial: 0,
            ledger: None,
            faults: Vec::new(),
        }
    }
}

/// A script that can not be used.
#[derive(Debug, Error)]
pub enum ScriptError {
    /// The file can not be read.
    #[error("{path} can not be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a script; the line and key are named.
    #[error("{path} is not a dispenser script: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl Setup {
    /// Reads a script.
    ///
    /// # Errors
    /// When the file can not be read or has an unknown key.
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScriptError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ScriptError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

/// Which command a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// 52.
    #[default]
    Dispense,
    /// 50.
    Status,
    /// 55.
    LastStatus,
    /// 67.
    LastSerial,
    /// 51.
    Purge,
    /// 44.
    Reset,
}

impl Target {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Reset => 0x44,
            Self::Status => 0x50,
            Self::Purge => 0x51,
            Self::Dispense => 0x52,
            Self::LastStatus => 0x55,
            Self::LastSerial => 0x67,
        }
    }
}

/// A fault and the command it befalls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFault {
    /// The command; a dispense when left out. The mechanical faults are for dispenses only.
    #[serde(default)]
    pub command: Target,
    /// Which one, counted from 1 since the emulator started; the next one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Fault {
    /// The command is not acknowledged and not answered.
    NoAck {
        /// Whether it is carried out all the same.
        #[serde(default)]
        carried_out: bool,
    },
    /// The command is acknowledged and never answered.
    AckThenSilent {
        /// Whether it is carried out.
        #[serde(default = "yes")]
        carried_out: bool,
    },
    /// The command is refused with NAK and not carried out.
    Nak,
    /// The reply's check byte is wrong for so many sendings.
    BadChecksum {
        /// How many.
        times: u32,
    },
    /// The reply comes so much later.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// The reply comes twice.
    DuplicateReply,
    /// These bytes come between ACK and reply.
    Interim {
        /// In hexadecimal.
        bytes: String,
    },
    /// The line is cut within the reply. The device goes on: its last result survives.
    CutReply {
        /// Bytes that still come through.
        after_bytes: usize,
    },
    /// The dispense ends with an error; the counts are true.
    Error {
        /// The code without its offset of 0x20.
        code: u8,
        /// Notes delivered before.
        after_notes: u32,
    },
    /// A cassette gives so many more notes and then no more, until it is refilled.
    Dry {
        /// Its position.
        position: u8,
        /// Notes it still gives.
        left: u32,
    },
    /// So many notes of each cassette go to the reject tray first.
    Reject {
        /// For positions 1 to 4.
        notes: [u32; 4],
    },
    /// A note jams inside the machine.
    JamOnPath {
        /// Notes delivered before.
        after_notes: u32,
        /// Whether a purge fails too, until someone opens the machine.
        #[serde(default)]
        hard: bool,
    },
    /// A note jams at the exit, where the customer may reach it.
    JamAtExit {
        /// Notes delivered before.
        after_notes: u32,
    },
    /// The customer leaves the last note at the exit.
    NeverTaken,
    /// The power fails before the report: no reply, and the last result is gone.
    PowerLost {
        /// Notes delivered before; all when left out.
        #[serde(default)]
        after_notes: Option<u32>,
        /// Whether the last serial number survives.
        #[serde(default)]
        serial_kept: bool,
    },
}

fn yes() -> bool {
    true
}

impl Fault {
    /// For the next dispense.
    #[must_use]
    pub fn next(self) -> PlannedFault {
        PlannedFault {
            command: Target::Dispense,
            nth: None,
            fault: self,
        }
    }

    /// For the next command of this kind.
    #[must_use]
    pub fn on(self, command: Target) -> PlannedFault {
        PlannedFault {
            command,
            nth: None,
            fault: self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_and_its_mistakes_are_named() {
        let text = "cassettes = [100, 80, -1, 5]\nnote_ms = 3\n[[fault]]\nnth = 2\nkind = \"jam_on_path\"\nafter_notes = 1\n\
                    [[fault]]\ncommand = \"status\"\nkind = \"no_ack\"\n";
        let setup: Setup = toml::from_str(text).expect("script");
        assert_eq!(setup.cassettes, [100, 80, -1, 5]);
        assert_eq!(
            setup.faults[0],
            PlannedFault {
                command: Target::Dispense,
                nth: Some(2),
                fault: Fault::JamOnPath {
                    after_notes: 1,
                    hard: false
                }
            }
        );
        assert_eq!(setup.faults[1], Fault::NoAck { carried_out: false }.on(Target::Status));
        assert!(toml::from_str::<Setup>("notes = 3").is_err());
        assert!(toml::from_str::<Setup>("[[fault]]\nkind = \"gremlin\"").is_err());
    }

    #[test]
    fn the_documented_script_is_one_and_every_kind_is_documented() {
        let page = include_str!("../../../../docs/EMULATOR.md");
        let script = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next());
        let setup: Setup = toml::from_str(script.expect("a script")).expect("valid");
        assert_eq!(setup.faults.len(), 2);
        let error = toml::from_str::<Setup>("[[fault]]\nkind = \"\"").expect_err("no such kind");
        let kinds: Vec<&str> = error.message().split('`').skip(3).step_by(2).collect();
        assert_eq!(kinds.len(), 15, "{error}");
        for kind in kinds {
            assert!(page.contains(&format!("| `{kind}` |")), "{kind}");
        }
    }
}
