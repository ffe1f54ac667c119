//! Orders of which nothing told what became of them: when policy may decide, and what it decided.
//!
//! Called by [`super::rules`] for each record that becomes durable. What must stay true: the time is the history's and the blocks
//! are the node's; what the daemon says of either is not asked, and its reasons are not read.

use std::collections::{BTreeMap, BTreeSet};

use crate::cashout::{CashOut, Event, Phase};
use crate::hardware::Outcome;
use crate::ids::{AtmId, CashOutId};
use crate::time::UnixMs;

use super::rules::{Broken, broken};
use super::scene::NodeSide;

/// The query of the last result's counts. (That of its serial number is sent at every opening.)
const LAST_STATUS: u8 = 0x55;

/// What is known of orders.
#[derive(Debug, Default)]
pub struct Decisions {
    /// Since when nobody can know what became of an order: it was written down, or its life ended.
    unsure: BTreeMap<CashOutId, UnixMs>,
    /// When a machine was last asked for its last result.
    asked: BTreeMap<AtmId, UnixMs>,
    /// When this life of the daemon began.
    pub born: UnixMs,
    /// Cash-outs that policy decided.
    pub by_policy: BTreeSet<CashOutId>,
    /// Of these, those that it took for dispensed: what differs is the operator's choice. With the hold lost meanwhile the whole
    /// amount is a loss in the books.
    pub taken_for_dispensed: BTreeSet<CashOutId>,
}

fn is_open(phase: &Phase) -> bool {
    matches!(phase, Phase::Dispensing { .. } | Phase::OutcomeUnknown { .. })
}

/// The device or the operator tells what became of the order.
fn tells(event: &Event) -> bool {
    match event {
        Event::DispenseReported { report, .. } | Event::EvidenceFound { report, .. } => {
            !matches!(report.outcome, Outcome::Unknown { .. })
        }
        Event::OperatorResolved { .. } => true,
        _ => false,
    }
}

impl Decisions {
    /// A machine got a command.
    pub fn command(&mut self, atm: &AtmId, command: u8, now: UnixMs) {
        if command == LAST_STATUS {
            self.asked.insert(atm.clone(), now);
        }
    }

    /// `event` made `after` of `before`, durably.
    ///
    /// # Errors
    /// When that decides an order of which nothing told, and neither its time was up nor its blocks; when a device is given up
    /// without having been asked.
    pub fn made(
        &mut self,
        before: Option<&CashOut>,
        after: &CashOut,
        event: &Event,
        now: UnixMs,
        side: &NodeSide,
    ) -> Result<(), Broken> {
        let id = after.id;
        match event {
            Event::DispenseCommitted { .. } => drop(self.unsure.insert(id, now)),
            // An actor alone may have died, long after this life began.
            Event::Interrupted { .. } => {
                let since = self.unsure.entry(id).or_default();
                *since = self.born.max(*since);
            }
            Event::EvidenceMissing { .. } => self.was_asked(after)?,
            _ => {}
        }
        let Some(before) = before.filter(|before| is_open(&before.phase)) else {
            return Ok(());
        };
        if is_open(&after.phase) || tells(event) {
            return Ok(());
        }
        self.by_policy.insert(id);
        if matches!(after.phase, Phase::Settling | Phase::NeedsOperator { .. }) {
            self.taken_for_dispensed.insert(id);
        }
        let policy = &after.quote.policy;
        let since = self.unsure.get(&id).copied().unwrap_or(now);
        let in_time = now.since(since).as_millis() >= u128::from(policy.unknown_ms);
        let left = side.blocks_left(&after.quote.hash, policy.hold_expiry_delta);
        let forced = left.is_some_and(|left| left < i64::from(policy.force_blocks_left));
        match matches!(before.phase, Phase::OutcomeUnknown { .. }) && (in_time || forced) {
            true => Ok(()),
            false => broken(
                "decided_early",
                format!(
                    "{id} is {} and decided by {}; nobody could know since {}, {left:?} blocks are left",
                    before.phase.name(),
                    event.name(),
                    since.0
                ),
            ),
        }
    }

    fn was_asked(&self, cashout: &CashOut) -> Result<(), Broken> {
        let since = self.unsure.get(&cashout.id).copied().unwrap_or_default();
        let asked = self.asked.get(&cashout.quote.atm).copied().unwrap_or_default();
        match asked >= since {
            true => Ok(()),
            false => broken(
                "evidence_not_read",
                format!("{}: its device was not asked since {}", cashout.id, since.0),
            ),
        }
    }
}
