//! The families of single machines: what each is doing, and the notes in its cassettes.
//!
//! Filled by the fleet's door at each scrape and written straight into its answer: a fleet of thousands would keep hundreds of
//! thousands of numbers. Only the last lines about notes are kept, for when the journal can not be asked. What must stay true: one series for each machine's
//! present state; of a cassette only what says something (docs/METRICS.md, "Many machines").

use std::fmt::Write as _;

use super::catalogue::CATALOGUE;
use super::label::Label as _;
use super::{AtmState, NoteKind};
use crate::cashout::ledger::Cassette;
use crate::ids::AtmId;

const STATE: &str = "tellerd_atm_state";
const NOTES: &str = "tellerd_cassette_notes";

/// The machines as they are at one scrape.
#[derive(Debug, Default)]
pub struct Machines {
    pub(super) states: Vec<AtmState>,
    state_lines: String,
    note_lines: String,
}

impl Machines {
    /// What `atm` is doing.
    pub fn atm_state(&mut self, atm: &AtmId, state: AtmState) {
        self.states.push(state);
        // Writing to a string does not fail; an id needs no escape.
        _ = writeln!(
            self.state_lines,
            "{STATE}{{atm=\"{}\",state=\"{}\"}} 1",
            atm.as_str(),
            state.as_str()
        );
    }

    /// The notes of one cassette, and how many of the remaining ones are promised.
    pub fn cassette(&mut self, atm: &AtmId, cassette: &Cassette, reserved: u32) {
        for kind in NoteKind::ALL {
            let (notes, always) = match kind {
                NoteKind::Remaining => (cassette.remaining, true),
                NoteKind::Delivered => (cassette.delivered, true),
                NoteKind::Rejected => (cassette.rejected, true),
                NoteKind::Loaded => (cassette.loaded, true),
                NoteKind::Reserved => (reserved, false),
                NoteKind::Retracted => (cassette.retracted, false),
                NoteKind::Unaccounted => (cassette.unaccounted, false),
            };
            if notes > 0 || always {
                _ = writeln!(
                    self.note_lines,
                    "{NOTES}{{atm=\"{}\",kind=\"{}\",position=\"{}\"}} {notes}",
                    atm.as_str(),
                    kind.as_str(),
                    cassette.position
                );
            }
        }
    }

    /// Takes over the cassettes of `noted`.
    pub fn add_cassettes(&mut self, noted: &Self) {
        self.note_lines += &noted.note_lines;
    }

    /// Appends both families, in the text format.
    pub(super) fn write(&self, text: &mut String) {
        for (name, lines) in [(NOTES, &self.note_lines), (STATE, &self.state_lines)] {
            if lines.is_empty() {
                continue;
            }
            if let Some(family) = CATALOGUE.iter().find(|family| family.name == name) {
                let (help, kind) = (family.help, family.kind.as_str());
                _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            text.push_str(lines);
        }
    }
}
