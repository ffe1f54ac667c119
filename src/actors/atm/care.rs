//! The care for a dispenser that reports a fault: its path is cleared, and the notes that moved are booked.
//!
//! Called on each news of the device and at the end of each cash-out. What must stay true: a clearing is ordered only
//! while no outcome is open, because it overwrites evidence; it is durable before it is commanded, and commanded once
//! for each fault, and again when an operator resumes the machine; an answer that was lost is asked for, not guessed.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::super::drive::{Carrier, write};
use super::super::hardware::{Clear, Cleared, Health};
use super::super::journal::JournalError;
use super::super::shared::{Seat, Shared};
use super::Atm;
use super::standing::complaint;
use crate::hardware::{ClearedNotes, DeviceError};
use crate::record::{AtmEvent, Body};

/// Before a clearing whose result is not known is asked for again.
const AGAIN: Duration = Duration::from_secs(5);

impl Atm {
    /// Answers a device's fault, when nothing can be lost by it.
    pub(super) fn care(&mut self, ctx: &mut Context<Self>) {
        let complaint = match &*self.seat.health.borrow() {
            Health::Answers(status) => complaint(status),
            _ => return,
        };
        if complaint.is_none() {
            self.clear_tried = false;
        }
        let due = self.book.clearing || (complaint.is_some() && !self.clear_tried);
        if !due || !self.loaded || self.clearing || self.serving().is_some() || self.promising {
            return;
        }
        self.clearing = true;
        self.clear_tried = true;
        let begun = self.book.clearing;
        let complaint = complaint.unwrap_or_default();
        let cleared = clear(Arc::clone(&self.shared), Arc::clone(&self.seat), begun, complaint);
        ctx.spawn(cleared.into_actor(self).map(|(events, failed), this, ctx| {
            this.clearing = false;
            for event in &events {
                this.book.apply(event);
            }
            match failed {
                Some(JournalError::Unknown(why)) => this.astray(&why, ctx),
                _ if this.book.clearing => drop(ctx.run_later(AGAIN, Self::care)),
                _ => {}
            }
        }));
    }
}

/// Clears the path, or asks what became of a clearing that has begun. Returns what is durable of it.
async fn clear(
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    begun: bool,
    complaint: String,
) -> (Vec<AtmEvent>, Option<JournalError>) {
    let atm = &seat.config.id;
    let mut events = Vec::new();
    let record = |event: &AtmEvent| Body::Atm {
        id: atm.clone(),
        event: event.clone(),
    };
    if !begun {
        tracing::warn!(%atm, complaint, "the dispenser's path is cleared");
        let event = AtmEvent::ClearBegun { complaint };
        if let Err(error) = write(shared.journal.clone(), record(&event)).await {
            return (events, Some(error));
        }
        events.push(event);
    }
    let notes = match moved(&seat, begun).await {
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

async fn moved(seat: &Seat, begun: bool) -> Result<Vec<ClearedNotes>, DeviceError> {
    let lost = |why: String| DeviceError::LinkLost(why);
    let hardware = seat.hardware.get();
    let hardware = hardware.ok_or_else(|| lost("its actor is being restarted".into()))?;
    if !begun {
        return hardware.send(Clear).await.map_err(|error| lost(error.to_string()))?;
    }
    let remembered = hardware
        .send(Cleared)
        .await
        .map_err(|error| lost(error.to_string()))??;
    if remembered.is_none() {
        tracing::error!(atm = %seat.config.id, "the dispenser can not tell which notes a clearing moved: count its cassettes");
    }
    Ok(remembered.unwrap_or_default())
}
