//! The mechanics of an emulated LCDM-4000: cassettes, path, exit, reject tray, and what its memory says of them.
//!
//! Called by the emulator's link. Must stay true: notes are conserved (loaded = remaining + delivered +
//! rejected + stuck + at the exit), and the memory may be lost while the notes are not.
//! Source: puloon-lcdm.md, sections B and C.

use std::io;

use super::ledger::{Ledger, What, Witness};
use super::script::{Fault, Setup};

const MAX_NOTES: u32 = 100;
const MAX_REJECTS: u32 = 10;
const DVTL: u8 = 0x01;
const EXIT: u8 = 0x08;

/// Where one cassette's notes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CassetteTotals {
    /// Position, from 1.
    pub position: u8,
    /// Put in since the emulator started.
    pub loaded: u32,
    /// Still in the cassette.
    pub remaining: u32,
    /// Left the machine.
    pub delivered: u32,
    /// In the reject tray.
    pub rejected: u32,
    /// Stuck inside.
    pub stuck: u32,
    /// Held at the exit, in reach of the customer.
    pub at_exit: u32,
}

#[derive(Debug, Default)]
struct Cassette {
    present: bool,
    totals: CassetteTotals,
    /// Notes it still gives although more are in it.
    gives: Option<u32>,
}

/// The device's memory of its last operation. All zero: none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastResult {
    command: u8,
    error: u8,
    exit: [u8; 4],
    reject: [u8; 4],
}

/// A dispense while its motors run.
#[derive(Debug)]
pub(super) struct Run {
    number: u64,
    wanted: [u8; 4],
    exit: [u8; 4],
    reject: [u8; 4],
    error: u8,
    faults: Vec<Fault>,
    power: bool,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) serial_variant: bool,
    cassettes: [Cassette; 4],
    near_end_notes: u32,
    hard_jam: bool,
    error: u8,
    last: LastResult,
    serial: u8,
    dispenses: u64,
    pub(super) ledger: Ledger,
}

impl Machine {
    pub(super) fn new(serial_variant: bool, setup: &Setup, witness: Witness) -> io::Result<Self> {
        let mut cassettes: [Cassette; 4] = Default::default();
        for ((position, cassette), notes) in (1u8..).zip(&mut cassettes).zip(setup.cassettes) {
            cassette.present = notes >= 0;
            let notes = u32::try_from(notes).unwrap_or(if notes < 0 { 0 } else { u32::MAX });
            cassette.totals = CassetteTotals {
                position,
                loaded: notes,
                remaining: notes,
                ..CassetteTotals::default()
            };
        }
        Ok(Self {
            serial_variant,
            cassettes,
            near_end_notes: setup.near_end_notes,
            hard_jam: false,
            error: 0,
            last: LastResult::default(),
            serial: setup.last_serial,
            dispenses: 0,
            ledger: Ledger::open(setup.ledger.as_deref(), witness)?,
        })
    }

    pub(super) fn totals(&self) -> [CassetteTotals; 4] {
        [0, 1, 2, 3].map(|i| self.cassettes.get(i).map_or_else(CassetteTotals::default, |c| c.totals))
    }

    pub(super) fn refill(&mut self, position: u8, notes: u32) -> io::Result<()> {
        let Some(cassette) = self.cassettes.iter_mut().find(|c| c.totals.position == position) else {
            return Err(io::Error::other(format!("there is no cassette {position}")));
        };
        cassette.present = true;
        cassette.gives = None;
        cassette.totals.loaded = cassette.totals.loaded.saturating_add(notes);
        cassette.totals.remaining = cassette.totals.remaining.saturating_add(notes);
        self.ledger.record(What::Refilled { position, notes })
    }

    /// Someone opens the machine: stuck notes go to the reject tray, one at the exit to the customer.
    pub(super) fn clear_jam(&mut self) -> io::Result<()> {
        self.hard_jam = false;
        self.empty_path()?;
        self.error = 0;
        Ok(())
    }

    fn empty_path(&mut self) -> io::Result<([u8; 4], [u8; 4])> {
        let (mut exit, mut reject) = ([0; 4], [0; 4]);
        let dispense = self.dispenses;
        for ((cassette, exit), reject) in self.cassettes.iter_mut().zip(&mut exit).zip(&mut reject) {
            let totals = &mut cassette.totals;
            let position = totals.position;
            while totals.stuck > 0 {
                totals.stuck -= 1;
                totals.rejected += 1;
                *reject += 1;
                self.ledger.record(What::NoteRejected { dispense, position })?;
            }
            while totals.at_exit > 0 {
                totals.at_exit -= 1;
                totals.delivered += 1;
                *exit += 1;
                self.ledger.record(What::NoteDelivered { dispense, position })?;
            }
        }
        Ok((exit, reject))
    }

    fn sensors(&self) -> u8 {
        let stuck = self.cassettes.iter().any(|c| c.totals.stuck > 0);
        let at_exit = self.cassettes.iter().any(|c| c.totals.at_exit > 0);
        (if stuck { DVTL } else { 0 }) | (if at_exit { EXIT } else { 0 })
    }

    pub(super) fn reset(&mut self) -> io::Result<Vec<u8>> {
        self.error = 0x0E;
        if !self.hard_jam {
            self.empty_path()?;
            self.error = 0;
        }
        self.last = LastResult::default();
        Ok(vec![self.error + 0x20])
    }

    pub(super) fn purge(&mut self) -> io::Result<Vec<u8>> {
        let (exit, reject) = if self.hard_jam {
            Default::default()
        } else {
            self.empty_path()?
        };
        self.error = if self.hard_jam { 0x0E } else { 0 };
        self.last = LastResult {
            command: 0x51,
            error: self.error,
            exit,
            reject,
        };
        Ok(self.result_bytes())
    }

    /// ERR, reserved, then EXIT, REJECT, TYPE of each cassette.
    fn result_bytes(&self) -> Vec<u8> {
        let mut data = vec![self.last.error + 0x20, 0x30];
        for ((cassette, exit), reject) in self.cassettes.iter().zip(self.last.exit).zip(self.last.reject) {
            data.extend([exit + 0x20, reject + 0x20, cassette.kind()]);
        }
        data
    }

    pub(super) fn status(&self) -> Vec<u8> {
        let mut data = vec![self.error + 0x20, self.sensors() + 0x20];
        if self.serial_variant {
            data.push(0x20);
        }
        for cassette in &self.cassettes {
            let near_end = cassette.present && cassette.totals.remaining <= self.near_end_notes;
            data.extend([if near_end { 0x28 } else { 0x20 }, cassette.kind(), 0x20, 0x20]);
        }
        data
    }

    pub(super) fn last_status(&self) -> Vec<u8> {
        // What a device without a last operation answers is not documented.
        let command = if self.last.command == 0 {
            0x20
        } else {
            self.last.command
        };
        let mut data = vec![command];
        data.extend(self.result_bytes());
        data
    }

    pub(super) fn last_serial(&self) -> Vec<u8> {
        vec![0x20, self.serial.wrapping_add(0x20)]
    }

    pub(super) fn start(&mut self, data: &[u8], faults: Vec<Fault>) -> io::Result<Run> {
        self.dispenses += 1;
        let number = self.dispenses;
        let mut wanted = [0; 4];
        for (wanted, byte) in wanted.iter_mut().zip(data) {
            *wanted = byte.wrapping_sub(0x20);
        }
        let serial = data
            .get(6)
            .filter(|_| self.serial_variant)
            .map(|b| b.wrapping_sub(0x20));
        self.serial = serial.unwrap_or(self.serial);
        self.ledger.record(What::DispenseStarted {
            dispense: number,
            requested: wanted,
            serial,
        })?;
        let sum: u32 = wanted.iter().map(|n| u32::from(*n)).sum();
        let missing = self.cassettes.iter().zip(wanted).any(|(c, n)| n > 0 && !c.present);
        let error = match sum {
            _ if self.sensors() != 0 => 0x0B,
            0 => 0x31,
            _ if sum > MAX_NOTES => 0x0C,
            _ if missing => 0x24,
            _ => 0,
        };
        for fault in &faults {
            if let Fault::Dry { position, left } = fault
                && let Some(cassette) = self.cassettes.iter_mut().find(|c| c.totals.position == *position)
            {
                cassette.gives = Some(*left);
            }
        }
        Ok(Run {
            number,
            wanted,
            exit: [0; 4],
            reject: [0; 4],
            error,
            faults,
            power: true,
        })
    }

    /// Moves one note; `false` when the dispense is over.
    pub(super) fn step(&mut self, run: &mut Run) -> io::Result<bool> {
        if run.error != 0 || self.breaks_down(run)? {
            return Ok(false);
        }
        let Some(index) = run.next_cassette() else {
            return Ok(false);
        };
        let last_note = run.missing() == 1;
        let (dispense, never_taken) = (run.number, run.faults.contains(&Fault::NeverTaken));
        let Some(cassette) = self.cassettes.get_mut(index) else {
            return Ok(false);
        };
        if !cassette.pick() {
            run.error = match index {
                0 => 0x50,
                1 => 0x51,
                _ => 0x01,
            };
            return Ok(false);
        }
        // Only a note that was picked can be rejected.
        let rejects = run.takes_reject(index);
        let totals = &mut cassette.totals;
        let position = totals.position;
        if rejects {
            totals.rejected += 1;
            self.ledger.record(What::NoteRejected { dispense, position })?;
            let sum: u32 = run.reject.iter().map(|n| u32::from(*n)).sum();
            run.error = if sum > MAX_REJECTS { 0x0D } else { 0 };
        } else if last_note && never_taken {
            totals.at_exit += 1;
            run.error = 0x05;
            self.ledger.record(What::NoteAtExit { dispense, position })?;
        } else {
            totals.delivered += 1;
            if let Some(count) = run.exit.get_mut(index) {
                *count += 1;
            }
            self.ledger.record(What::NoteDelivered { dispense, position })?;
        }
        Ok(true)
    }

    /// Whether a planned fault ends the dispense here.
    fn breaks_down(&mut self, run: &mut Run) -> io::Result<bool> {
        let delivered: u32 = run.exit.iter().map(|n| u32::from(*n)).sum();
        let done = run.missing() == 0;
        for fault in run.faults.clone() {
            match fault {
                Fault::Error { code, after_notes } if delivered == after_notes => run.error = code,
                Fault::PowerLost { after_notes, .. } if after_notes.map_or(done, |n| n == delivered) => {
                    run.power = false;
                    return Ok(true);
                }
                Fault::JamOnPath { after_notes, hard } if delivered == after_notes && !done => {
                    run.error = 0x03;
                    self.hard_jam = hard;
                    self.hold_note(run, false)?;
                }
                Fault::JamAtExit { after_notes } if delivered == after_notes && !done => {
                    run.error = 0x04;
                    self.hold_note(run, true)?;
                }
                _ => {}
            }
        }
        Ok(run.error != 0)
    }

    fn hold_note(&mut self, run: &Run, at_exit: bool) -> io::Result<()> {
        let Some(cassette) = run.next_cassette().and_then(|i| self.cassettes.get_mut(i)) else {
            return Ok(());
        };
        if !cassette.pick() {
            return Ok(());
        }
        let (dispense, position) = (run.number, cassette.totals.position);
        self.ledger.record(if at_exit {
            cassette.totals.at_exit += 1;
            What::NoteAtExit { dispense, position }
        } else {
            cassette.totals.stuck += 1;
            What::NoteStuck { dispense, position }
        })
    }

    /// The reply's data; `None` when the power failed.
    pub(super) fn end(&mut self, run: &Run) -> io::Result<Option<Vec<u8>>> {
        if !run.power {
            let serial_kept = run
                .faults
                .iter()
                .any(|fault| matches!(fault, Fault::PowerLost { serial_kept: true, .. }));
            self.serial = if serial_kept { self.serial } else { 0 };
            self.error = 0;
            self.last = LastResult::default();
            return Ok(None);
        }
        self.error = run.error;
        self.last = LastResult {
            command: 0x52,
            error: run.error,
            exit: run.exit,
            reject: run.reject,
        };
        self.ledger.record(What::DispenseEnded {
            dispense: run.number,
            error: run.error,
        })?;
        let mut data = self.result_bytes();
        data.extend([0x20; 9]);
        Ok(Some(data))
    }
}

impl Cassette {
    fn kind(&self) -> u8 {
        if self.present {
            0x30 + self.totals.position
        } else {
            0x30
        }
    }

    /// Takes a note out; `false` when none comes.
    fn pick(&mut self) -> bool {
        let gives = self.gives != Some(0) && self.totals.remaining > 0;
        if gives {
            self.totals.remaining -= 1;
            self.gives = self.gives.map(|left| left - 1);
        }
        gives
    }
}

impl Run {
    fn missing(&self) -> u32 {
        let missing = self.wanted.iter().zip(self.exit);
        missing
            .map(|(wanted, exit)| u32::from(wanted.saturating_sub(exit)))
            .sum()
    }

    fn next_cassette(&self) -> Option<usize> {
        self.wanted
            .iter()
            .zip(self.exit)
            .position(|(wanted, exit)| exit < *wanted)
    }

    /// Whether the next note of this cassette is one that the script rejects; counts it.
    fn takes_reject(&mut self, index: usize) -> bool {
        let planned = self.faults.iter().find_map(|fault| match fault {
            Fault::Reject { notes } => notes.get(index).copied(),
            _ => None,
        });
        match (planned, self.reject.get_mut(index)) {
            (Some(planned), Some(count)) if u32::from(*count) < planned => {
                *count += 1;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_was_not_picked_is_not_rejected() {
        let mut machine = Machine::new(false, &Setup::default(), Witness::default()).unwrap();
        let faults = vec![
            Fault::Dry { position: 1, left: 0 },
            Fault::Reject { notes: [1, 0, 0, 0] },
        ];
        let mut run = machine.start(&[0x22, 0x20, 0x20, 0x20], faults).unwrap();
        while machine.step(&mut run).unwrap() {}
        machine.end(&run).unwrap();
        let totals = machine.totals()[0];
        assert_eq!((totals.rejected, totals.remaining), (0, totals.loaded));
        assert_eq!(machine.last.reject, [0; 4], "nor does it say so");
    }
}
