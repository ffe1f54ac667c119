//! The care for a dispenser that reports a fault: its path is cleared, and the notes that moved are booked.
//!
//! Called on each news of the device and at the end of each cash-out. What must stay true: a clearing is ordered only
//! while no outcome is open, because it overwrites evidence; it is durable before it is commanded, and commanded once
//! for each fault, and again when an operator resumes the machine; an answer that was lost is asked for, not guessed.
//! While notes are unaccounted for, only an operator may have the path cleared: they may be on it, and a clearing may
//! push them out to nobody.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, Addr, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;

use super::super::drive::{Carrier, write};
use super::super::hardware::{Clear, Cleared, Hardware, Health};
use super::super::journal::JournalError;
use super::super::shared::{Seat, Shared};
use super::Atm;
use super::standing::complaint;
use crate::hardware::{ClearedNotes, DeviceError};
use crate::ids::AtmId;
use crate::money::Minor;
use crate::record::{AtmEvent, Body};

/// Before a clearing whose result is not known is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// A note on the path of a device without a fault may be one that the customer is just taking.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clearings within [`PERIOD`] without an operator; more are a device to be looked at.
pub(super) const MOST: u32 = 3;
/// See [`MOST`].
pub(super) const PERIOD: Duration = Duration::from_secs(3600);

impl Atm {
    /// Answers a device's fault, when nothing can be lost by it.
    pub(super) fn care(&mut self, ctx: &mut Context<Self>) {
        let (complaint, faulty) = match &*self.seat.health.borrow() {
            Health::Answers(status) => (complaint(status), status.fault.is_some()),
            _ => return,
        };
        if complaint.is_none() {
            self.clear_tried = false;
            self.complains_since = None;
            self.resumed = false;
        }
        let due = self.book.clearing || (complaint.is_some() && !self.clear_tried);
        if !due || !self.loaded || self.clearing || self.serving().is_some() || self.promising {
            return;
        }
        if !self.book.clearing && !self.may_clear(faulty, ctx) {
            return;
        }
        self.clearing = true;
        self.clear_tried = true;
        self.resumed = false;
        let begun = self.book.clearing.then(|| self.book.cleared_before.clone());
        let complaint = complaint.unwrap_or_default();
        let cleared = clear(Arc::clone(&self.shared), Arc::clone(&self.seat), begun, complaint);
        ctx.spawn(cleared.into_actor(self).map(|(events, failed), this, ctx| {
            this.clearing = false;
            for event in &events {
                this.book_clearing(event);
            }
            match failed {
                Some(JournalError::Unknown(why)) => this.astray(&why, ctx),
                _ if this.book.clearing => drop(ctx.run_later(AGAIN, Self::care)),
                None if events.is_empty() => {
                    // The device did not answer: nothing was begun, so this fault is still to be answered.
                    this.clear_tried = false;
                    ctx.run_later(AGAIN, Self::care);
                }
                _ => {}
            }
        }));
    }
}

impl Atm {
    /// An operator's word is enough; without it there are bounds.
    fn may_clear(&mut self, faulty: bool, ctx: &mut Context<Self>) -> bool {
        if self.resumed {
            return true;
        }
        let complains = self.complains_since.get_or_insert_with(Instant::now).elapsed();
        if self.book.notes.unaccounted() > 0 {
            return false;
        }
        if !faulty && complains < PATIENCE {
            ctx.run_later(PATIENCE.saturating_sub(complains), Self::care);
            return false;
        }
        self.clears.next(self.shared.clock.now()).is_some()
    }

    fn book_clearing(&mut self, event: &AtmEvent) {
        let before = self.book.cleared_out;
        self.book.apply(event);
        let out = self.book.cleared_out.saturating_sub(before);
        if out > Minor::ZERO {
            tracing::error!(atm = %self.seat.config.id, %out, "notes left the machine while its path was cleared");
            self.shared.metrics.loss_booked(out);
        }
    }
}

/// The notes that the dispenser remembers of its last clearing, if that came last.
type Remembered = Option<Vec<ClearedNotes>>;

/// Clears the path, or asks what became of a clearing that has begun (`begun`: with what was remembered before).
/// Returns what is durable of it; nothing at all when it could not be begun.
async fn clear(
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    begun: Option<Remembered>,
    complaint: String,
) -> (Vec<AtmEvent>, Option<JournalError>) {
    let atm = &seat.config.id;
    let mut events = Vec::new();
    let record = |event: &AtmEvent| Body::Atm {
        id: atm.clone(),
        event: event.clone(),
    };
    let moved = match begun {
        Some(before) => remembered(&seat).await.map(|now| newly_moved(atm, before, now)),
        None => {
            let Ok(before) = remembered(&seat).await else {
                return (events, None);
            };
            tracing::warn!(%atm, complaint, "the dispenser's path is cleared");
            let event = AtmEvent::ClearBegun { complaint, before };
            if let Err(error) = write(shared.journal.clone(), record(&event)).await {
                return (events, Some(error));
            }
            events.push(event);
            match living(&seat) {
                Ok(hardware) => hardware.send(Clear).await.unwrap_or_else(|error| Err(lost(&error))),
                Err(error) => Err(error),
            }
        }
    };
    let notes = match moved {
        Ok(notes) => notes,
        Err(error) => {
            tracing::error!(%atm, %error, "it is not known yet which notes the clearing moved");
            return (events, None);
        }
    };
    let event = AtmEvent::Cleared { notes };
    match write(shared.journal.clone(), record(&event)).await {
        Ok(()) => events.push(event),
        Err(error) => return (events, Some(error)),
    }
    (events, None)
}

/// What a clearing moved whose answer was lost. When the device tells what it told before, the command may never have
/// reached it, and those notes are booked already.
fn newly_moved(atm: &AtmId, before: Remembered, now: Remembered) -> Vec<ClearedNotes> {
    match now {
        Some(moved) if moved.is_empty() || before.as_ref() != Some(&moved) => moved,
        _ => {
            tracing::error!(%atm, "the dispenser can not tell which notes a clearing moved: count its cassettes");
            Vec::new()
        }
    }
}

fn lost(why: &impl ToString) -> DeviceError {
    DeviceError::LinkLost(why.to_string())
}

fn living(seat: &Seat) -> Result<Addr<Hardware>, DeviceError> {
    seat.hardware.get().ok_or_else(|| lost(&"its actor is being restarted"))
}

async fn remembered(seat: &Seat) -> Result<Remembered, DeviceError> {
    let answer = living(seat)?.send(Cleared).await;
    answer.unwrap_or_else(|error| Err(lost(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clearing_that_never_left_does_not_book_the_one_before_it_again() {
        let atm: AtmId = "lobby".parse().unwrap();
        let notes = |rejected| {
            let (position, delivered) = (1, 0);
            Some(vec![ClearedNotes {
                position,
                delivered,
                rejected,
            }])
        };
        assert_eq!(newly_moved(&atm, None, notes(2)), notes(2).unwrap());
        assert_eq!(newly_moved(&atm, notes(1), notes(2)), notes(2).unwrap());
        assert!(newly_moved(&atm, notes(2), notes(2)).is_empty());
        assert!(newly_moved(&atm, notes(2), None).is_empty());
    }
}
