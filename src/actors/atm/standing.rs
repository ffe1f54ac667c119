//! Whether a machine is in service, and why not.
//!
//! Asked before each promise and by the fleet's door. What must stay true: a machine that is not `ready` says why.

use actix::{Handler, Message, MessageResult};

use super::super::fleet::AtmStatus;
use super::super::hardware::Health;
use super::Atm;
use crate::cashout::{CashOut, Phase};
use crate::hardware::DeviceStatus;
use crate::metrics::AtmState;

/// What a machine is doing.
#[derive(Debug, Message)]
#[rtype(result = "AtmStatus")]
pub struct Status;

impl Handler<Status> for Atm {
    type Result = MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.status())
    }
}

/// What a machine is doing, in one word.
#[derive(Debug, Message)]
#[rtype(result = "AtmState")]
pub struct Standing;

impl Handler<Standing> for Atm {
    type Result = MessageResult<Standing>;

    fn handle(&mut self, _: Standing, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.standing().0)
    }
}

impl Atm {
    pub(super) fn status(&self) -> AtmStatus {
        let (state, reason) = self.standing();
        AtmStatus {
            id: self.seat.config.id.clone(),
            name: self.seat.config.name.clone(),
            state,
            reason,
            book: self.book.clone(),
            open: self.items.values().map(|item| item.state().clone()).collect(),
        }
    }

    pub(super) fn serving(&self) -> Option<&CashOut> {
        self.items
            .values()
            .map(super::Item::state)
            .find(|cashout| cashout.occupies_atm())
    }

    /// What keeps the machine from serving the next customer, the gravest first.
    pub(super) fn standing(&self) -> (AtmState, Option<String>) {
        if let Some(reason) = self.seat.suspended().or_else(|| self.journal_trouble.clone()) {
            return (AtmState::OutOfService, Some(reason));
        }
        if self.shared.journal.get().is_none() {
            return (
                AtmState::OutOfService,
                Some("the journal actor is being restarted".into()),
            );
        }
        if !self.loaded {
            return (AtmState::Starting, Some("its books are being read".into()));
        }
        if let Some(cashout) = self.serving() {
            return match cashout.phase {
                Phase::OutcomeUnknown { .. } => (AtmState::OutOfService, Some(unknown(cashout))),
                _ => (AtmState::Busy, None),
            };
        }
        if self.promising {
            return (AtmState::Busy, None);
        }
        if self.clearing || self.book.clearing {
            let reason = "its dispenser's path is being cleared".to_owned();
            return (AtmState::OutOfService, Some(reason));
        }
        if let Some(mismatch) = self.mismatch() {
            return (AtmState::OutOfService, Some(mismatch));
        }
        match &*self.seat.health.borrow() {
            Health::Starting => return (AtmState::Starting, Some("its dispenser was not reached yet".into())),
            Health::Moving => return (AtmState::Busy, None),
            Health::Trouble(why) => return (AtmState::OutOfService, Some(why.clone())),
            Health::Answers(status) => {
                if let Some(complaint) = complaint(status) {
                    let reason = format!("{complaint}; if this stays, look inside, then resume it");
                    return (AtmState::OutOfService, Some(reason));
                }
            }
        }
        if self.book.drained {
            return (AtmState::Draining, Some("an operator took it out of service".into()));
        }
        if *self.shared.stopping.borrow() {
            return (AtmState::OutOfService, Some("tellerd is stopping".into()));
        }
        match self.shared.status.borrow().can_add() {
            Ok(()) => (AtmState::Ready, None),
            Err(why) => (AtmState::OutOfService, Some(why)),
        }
    }
}

impl Atm {
    /// A cassette whose notes are worth something else than the books say would be paid out wrongly.
    fn mismatch(&self) -> Option<String> {
        self.seat.config.cassettes.iter().find_map(|configured| {
            let position = configured.position;
            let known = self.book.notes.cassettes.iter().find(|c| c.position == position)?;
            let (is, was) = (configured.denomination, known.denomination);
            (is != was).then(|| {
                let atm = &self.seat.config.id;
                format!(
                    "cassette {position} is configured with notes of {is}, by the journal it holds notes of {was}: \
                     count it, then `tellerd atm load {atm} --cassette {position}:{is}:NOTES`"
                )
            })
        })
    }
}

fn unknown(cashout: &CashOut) -> String {
    format!("it is not known whether the notes of cash-out {} came out", cashout.id)
}

pub(super) fn complaint(status: &DeviceStatus) -> Option<String> {
    match &status.fault {
        Some(fault) => Some(format!(
            "its dispenser reports error 0x{:02X}: {}",
            fault.code, fault.text
        )),
        None if !status.path_clear => Some("a note is on its dispenser's path".into()),
        None => None,
    }
}
