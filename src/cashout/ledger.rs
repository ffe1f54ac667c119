//! The notes of one ATM: what was loaded, where it went, what is left and what is promised.
//!
//! A fold of the ATM's and its cash-outs' records. `loaded = delivered + rejected + retracted +
//! remaining + unaccounted` for each cassette since it was last counted.

use serde::{Deserialize, Serialize};

use crate::hardware::{CassetteReport, ClearedNotes, DispenseOrder};
use crate::money::Minor;

/// One cassette since it was last loaded and counted by a human.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cassette {
    /// Position in the machine, from 1.
    pub position: u8,
    /// Value of one note, in minor units.
    pub denomination: Minor,
    /// Notes counted in by the operator.
    pub loaded: u32,
    /// Notes delivered to customers.
    pub delivered: u32,
    /// Notes in the reject tray.
    pub rejected: u32,
    /// Notes taken back after nobody took them.
    pub retracted: u32,
    /// Notes whose fate nobody could tell.
    pub unaccounted: u32,
    /// Notes that should still be inside.
    pub remaining: u32,
}

impl Cassette {
    /// A cassette that was just counted.
    #[must_use]
    pub fn loaded(position: u8, denomination: Minor, notes: u32) -> Self {
        Self {
            position,
            denomination,
            loaded: notes,
            delivered: 0,
            rejected: 0,
            retracted: 0,
            unaccounted: 0,
            remaining: notes,
        }
    }

    /// Notes too many or too few in the books of this cassette; zero when it balances.
    #[must_use]
    pub fn drift(&self) -> u64 {
        let gone = [
            self.delivered,
            self.rejected,
            self.retracted,
            self.unaccounted,
            self.remaining,
        ];
        let sum: u64 = gone.iter().map(|n| u64::from(*n)).sum();
        sum.abs_diff(u64::from(self.loaded))
    }

    fn cleared(&mut self, notes: &ClearedNotes) {
        let moved = notes.delivered.saturating_add(notes.rejected);
        let missing = moved.min(self.unaccounted);
        self.unaccounted = self.unaccounted.saturating_sub(missing);
        self.delivered = self.delivered.saturating_add(notes.delivered);
        self.rejected = self.rejected.saturating_add(notes.rejected);
        self.remaining = self.remaining.saturating_sub(moved.saturating_sub(missing));
    }

    fn book(&mut self, report: &CassetteReport) {
        let moved = report
            .delivered
            .saturating_add(report.rejected)
            .saturating_add(report.unaccounted);
        self.delivered = self.delivered.saturating_add(report.delivered);
        self.rejected = self.rejected.saturating_add(report.rejected);
        self.unaccounted = self.unaccounted.saturating_add(report.unaccounted);
        // More notes than were counted in shows as drift, never as a negative count.
        self.remaining = self.remaining.saturating_sub(moved);
    }
}

/// All cassettes of one ATM, ascending by position.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NoteLedger {
    /// At most one for each position.
    pub cassettes: Vec<Cassette>,
}

impl NoteLedger {
    /// Takes a cassette that a human has loaded and counted: its books start anew.
    pub fn load(&mut self, cassette: Cassette) {
        self.cassettes.retain(|c| c.position != cassette.position);
        self.cassettes.push(cassette);
        self.cassettes.sort_unstable_by_key(|c| c.position);
    }

    /// Books the results of a finished order. Notes of a cassette that was never loaded are kept
    /// in the books of a cassette with nothing loaded, where they show as drift.
    pub fn book(&mut self, reports: &[CassetteReport]) {
        for report in reports {
            if !self.cassettes.iter().any(|c| c.position == report.position) {
                self.load(Cassette::loaded(report.position, report.denomination, 0));
            }
            for cassette in self.cassettes.iter_mut().filter(|c| c.position == report.position) {
                cassette.book(report);
            }
        }
    }

    /// Books notes that were cleared off the path: those of an unknown outcome first, for there they are missing.
    /// Returns the value of those that left the machine.
    pub fn cleared(&mut self, notes: &[ClearedNotes]) -> Minor {
        let mut out = Vec::new();
        for moved in notes {
            for cassette in self.cassettes.iter_mut().filter(|c| c.position == moved.position) {
                cassette.cleared(moved);
                out.extend(cassette.denomination.times(moved.delivered));
            }
        }
        out.into_iter().sum()
    }

    /// What can still be promised: remaining notes less those `reserved` by open cash-outs.
    #[must_use]
    pub fn available<'a>(&self, reserved: impl IntoIterator<Item = &'a DispenseOrder>) -> Vec<Stock> {
        let mut stock: Vec<Stock> = self
            .cassettes
            .iter()
            .map(|c| Stock {
                position: c.position,
                denomination: c.denomination,
                notes: c.remaining,
            })
            .collect();
        for order in reserved {
            for promised in &order.cassettes {
                for left in stock.iter_mut().filter(|s| s.position == promised.position) {
                    left.notes = left.notes.saturating_sub(promised.notes);
                }
            }
        }
        stock
    }

    /// Notes whose fate nobody could tell, in all cassettes.
    #[must_use]
    pub fn unaccounted(&self) -> u32 {
        self.cassettes
            .iter()
            .fold(0, |sum, c| sum.saturating_add(c.unaccounted))
    }

    /// Sum of the cassettes' drift, in notes.
    #[must_use]
    pub fn drift(&self) -> u64 {
        self.cassettes.iter().map(Cassette::drift).sum()
    }
}

/// Notes that a mix may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    /// Position of the cassette.
    pub position: u8,
    /// Value of one note.
    pub denomination: Minor,
    /// How many.
    pub notes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::CassetteOrder;

    fn report(position: u8, delivered: u32, rejected: u32, unaccounted: u32) -> CassetteReport {
        let denomination = Minor(2_000);
        CassetteReport {
            position,
            denomination,
            requested: delivered,
            delivered,
            rejected,
            unaccounted,
        }
    }

    #[test]
    fn every_note_is_somewhere() {
        let mut ledger = NoteLedger::default();
        ledger.load(Cassette::loaded(1, Minor(2_000), 10));
        ledger.book(&[report(1, 3, 1, 2)]);
        assert_eq!(ledger.cassettes[0].remaining, 4);
        assert_eq!(ledger.drift(), 0);
    }

    #[test]
    fn more_notes_than_were_loaded_show_as_drift() {
        let mut ledger = NoteLedger::default();
        ledger.load(Cassette::loaded(1, Minor(2_000), 2));
        ledger.book(&[report(1, 3, 0, 0), report(2, 1, 0, 0)]);
        assert_eq!(ledger.drift(), 2);
    }

    #[test]
    fn cleared_notes_are_those_that_were_missing_first() {
        let mut ledger = NoteLedger::default();
        ledger.load(Cassette::loaded(1, Minor(2_000), 10));
        ledger.book(&[report(1, 1, 0, 2)]);
        let notes = ClearedNotes {
            position: 1,
            delivered: 1,
            rejected: 2,
        };
        assert_eq!(ledger.cleared(&[notes]), Minor(2_000));
        let cassette = ledger.cassettes[0];
        assert_eq!((cassette.unaccounted, cassette.rejected, cassette.remaining), (0, 2, 6));
        assert_eq!(ledger.drift(), 0);
    }

    #[test]
    fn promised_notes_are_not_promised_again() {
        let mut ledger = NoteLedger::default();
        ledger.load(Cassette::loaded(1, Minor(2_000), 5));
        let order = DispenseOrder {
            cassettes: vec![CassetteOrder {
                position: 1,
                denomination: Minor(2_000),
                notes: 4,
            }],
        };
        assert_eq!(ledger.available([&order])[0].notes, 1);
        assert_eq!(ledger.available([&order, &order])[0].notes, 0);
    }
}
