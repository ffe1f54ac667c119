//! What goes wrong in a machine, as scenarios name it.
//!
//! Drawn by the customers' tasks before each dispense. Pure.

use std::time::Duration;

use crate::hardware::puloon::emulator::Fault;

/// The longest reply of an emulated device that its daemon waits for. Faults are built around it.
pub const REPLY: Duration = Duration::from_secs(3);

/// What befalls a dispense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Some notes go to the reject tray.
    Reject,
    /// A cassette gives a few more notes, then none.
    Dry,
    /// A note jams inside.
    JamOnPath,
    /// A note jams inside and only a human gets it out.
    HardJam,
    /// A note jams where the customer may reach it.
    JamAtExit,
    /// The last note stays at the exit.
    NeverTaken,
    /// No report, and the last result is gone.
    PowerLost,
    /// The report comes late, in time.
    Slow,
    /// The report comes too late.
    TooSlow,
    /// ACK, the notes come, no report.
    Silent,
    /// ACK, no notes, no report.
    Dead,
    /// Neither ACK nor notes.
    NoAck,
    /// The command is refused.
    Nak,
    /// The report arrives damaged, once.
    BadChecksum,
    /// The report comes twice.
    DuplicateReply,
    /// The line is cut within the report.
    CutReply,
}

/// All faults by their keys.
pub const FAULTS: [(&str, FaultKind); 16] = [
    ("reject", FaultKind::Reject),
    ("dry", FaultKind::Dry),
    ("jam_on_path", FaultKind::JamOnPath),
    ("hard_jam", FaultKind::HardJam),
    ("jam_at_exit", FaultKind::JamAtExit),
    ("never_taken", FaultKind::NeverTaken),
    ("power_lost", FaultKind::PowerLost),
    ("slow", FaultKind::Slow),
    ("too_slow", FaultKind::TooSlow),
    ("silent", FaultKind::Silent),
    ("dead", FaultKind::Dead),
    ("no_ack", FaultKind::NoAck),
    ("nak", FaultKind::Nak),
    ("bad_checksum", FaultKind::BadChecksum),
    ("duplicate_reply", FaultKind::DuplicateReply),
    ("cut_reply", FaultKind::CutReply),
];

impl FaultKind {
    /// The fault for a dispense of about `notes` notes; `dice` is a random number.
    #[must_use]
    pub fn fault(self, dice: u32, notes: u32) -> Fault {
        let after_notes = dice % notes.max(1);
        let position = if dice.is_multiple_of(2) { 1 } else { 2 };
        match self {
            Self::Reject => Fault::Reject {
                notes: [dice % 3, 1 + dice % 2, 0, 0],
            },
            Self::Dry => Fault::Dry {
                position,
                left: dice % 3,
            },
            Self::JamOnPath => Fault::JamOnPath {
                after_notes,
                hard: false,
            },
            Self::HardJam => Fault::JamOnPath {
                after_notes,
                hard: true,
            },
            Self::JamAtExit => Fault::JamAtExit { after_notes },
            Self::NeverTaken => Fault::NeverTaken,
            Self::PowerLost => Fault::PowerLost {
                after_notes: (!dice.is_multiple_of(4)).then_some(after_notes),
                serial_kept: dice.is_multiple_of(3),
            },
            Self::Slow => Fault::Late {
                ms: millis(REPLY) / 4 + u64::from(dice % 500),
            },
            Self::TooSlow => Fault::Late {
                ms: millis(REPLY) + 500 + u64::from(dice % 1000),
            },
            Self::Silent => Fault::AckThenSilent { carried_out: true },
            Self::Dead => Fault::AckThenSilent { carried_out: false },
            Self::NoAck => Fault::NoAck { carried_out: false },
            Self::Nak => Fault::Nak,
            Self::BadChecksum => Fault::BadChecksum { times: 1 },
            Self::DuplicateReply => Fault::DuplicateReply,
            Self::CutReply => Fault::CutReply {
                after_bytes: (dice % 12) as usize,
            },
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_befalls_what_is_dispensed() {
        for (_, kind) in FAULTS {
            for dice in 0..50 {
                match kind.fault(dice, 3) {
                    Fault::JamOnPath { after_notes, .. } | Fault::JamAtExit { after_notes } => assert!(after_notes < 3),
                    Fault::Dry { position, .. } => assert!((1..=2).contains(&position)),
                    _ => {}
                }
            }
        }
    }
}
