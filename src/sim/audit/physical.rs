//! Dispenses as they physically happened, read from an emulator's ledger.
//!
//! Called by the audit and by the simulated operator who counts notes. What must stay true: a note counts as delivered
//! when it has left the machine. One that is held at the exit counts when it goes (someone takes it, or clears the
//! exit), and then for the dispense that brought it there.

use super::Machine;
use crate::hardware::puloon::emulator::What;
use crate::money::Minor;
use crate::time::UnixMs;

/// One dispense command that the device began to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispense {
    /// Its number at the machine, from 1.
    pub number: u64,
    /// When it began.
    pub at: UnixMs,
    /// When the machine was done with it; `None` when its power failed.
    pub ended_at: Option<UnixMs>,
    /// Notes that left the machine.
    pub notes: u32,
    /// Their value.
    pub value: Minor,
    /// When the first left.
    pub first_note_at: Option<UnixMs>,
    /// When the last left.
    pub last_note_at: Option<UnixMs>,
    /// Notes that are still at the exit, with their value.
    pub at_exit: Vec<Minor>,
}

impl Dispense {
    fn started(number: u64, at: UnixMs) -> Self {
        Self {
            number,
            at,
            ended_at: None,
            notes: 0,
            value: Minor::ZERO,
            first_note_at: None,
            last_note_at: None,
            at_exit: Vec::new(),
        }
    }
}

fn denomination(machine: &Machine, position: u8) -> Minor {
    let index = usize::from(position).checked_sub(1);
    let value = index.and_then(|index| machine.denominations.get(index));
    value.copied().unwrap_or(Minor::ZERO)
}

/// Every dispense of a machine, in order.
#[must_use]
pub fn dispenses(machine: &Machine) -> Vec<Dispense> {
    let mut found: Vec<Dispense> = Vec::new();
    for event in &machine.events {
        let at = event.at_unix_ms;
        match event.what {
            What::DispenseStarted { dispense, .. } => found.push(Dispense::started(dispense, at)),
            What::DispenseEnded { dispense, .. } => {
                if let Some(ended) = found.iter_mut().find(|d| d.number == dispense) {
                    ended.ended_at = Some(at);
                }
            }
            What::NoteAtExit { dispense, position } => {
                let value = denomination(machine, position);
                if let Some(holder) = found.iter_mut().find(|d| d.number == dispense) {
                    holder.at_exit.push(value);
                }
            }
            What::NoteDelivered { dispense, position } => {
                let value = denomination(machine, position);
                leaves(&mut found, dispense, value, at);
            }
            _ => {}
        }
    }
    found
}

/// Books a note that left: for the dispense that held one like it at the exit, else for the one that is named.
fn leaves(found: &mut [Dispense], number: u64, value: Minor, at: UnixMs) {
    let holder = found.iter().position(|d| d.at_exit.contains(&value));
    let named = found.iter().position(|d| d.number == number);
    let Some(dispense) = holder.or(named).and_then(|index| found.get_mut(index)) else {
        return;
    };
    if let Some(held) = dispense.at_exit.iter().position(|held| *held == value) {
        dispense.at_exit.remove(held);
    }
    dispense.notes = dispense.notes.saturating_add(1);
    dispense.value = dispense.value.checked_add(value).unwrap_or(dispense.value);
    dispense.first_note_at = dispense.first_note_at.or(Some(at));
    dispense.last_note_at = Some(at);
}

/// Whether the machine was still at it less than `quiet_ms` ago.
#[must_use]
pub fn is_moving(machine: &Machine, now: UnixMs, quiet_ms: u64) -> bool {
    let last = machine.events.iter().rev().find(|event| {
        matches!(
            event.what,
            What::DispenseStarted { .. } | What::NoteDelivered { .. } | What::NoteRejected { .. }
        )
    });
    last.is_some_and(|event| now.0.saturating_sub(event.at_unix_ms.0) < quiet_ms)
}
