//! Who waits for which answer, what the answers tell about the clocks, and which events came lately.
//!
//! Used by the caller. What must stay true: bounded, and a ticket that is dropped leaves its place.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::nostr::EventId;
use tokio::sync::oneshot;

use crate::nostr::wire::{Outcome, SealError, Sight};
use crate::time::UnixMs;

use super::CallError;

/// Calls at once. A site has a few for each machine.
const IN_FLIGHT: usize = 1024;
/// Ids of the last events: more than several relays bring twice.
const RECENT: usize = 1024;

struct Place {
    /// When the call began.
    asked: UnixMs,
    answer: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Board {
    places: HashMap<String, Place>,
    skew_seconds: Option<i64>,
}

/// The calls that wait.
#[derive(Default)]
pub struct Waiting(Mutex<Board>);

impl Waiting {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more call.
    pub fn enter(this: &Arc<Self>, now: UnixMs) -> Result<Ticket, CallError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(SealError::from)?;
        let request_id = hex::encode(random);
        let (answer, answered) = oneshot::channel();
        let mut board = this.board();
        if board.places.len() >= IN_FLIGHT {
            return Err(CallError::Busy);
        }
        board.places.insert(request_id.clone(), Place { asked: now, answer });
        drop(board);
        Ok(Ticket {
            request_id,
            answered,
            waiting: Arc::clone(this),
        })
    }

    /// Hands `outcome` to the call that asked, if it still waits. It was made at `made` by the service's clock.
    pub fn answer(&self, request_id: &str, outcome: Outcome, made: UnixMs, now: UnixMs) {
        let mut board = self.board();
        let Some(place) = board.places.remove(request_id) else {
            return;
        };
        board.skew_seconds = Some(skew_seconds(place.asked, made, now));
        drop(board);
        // The call may just be giving up.
        let _ = place.answer.send(outcome);
    }

    /// See `Caller::skew_seconds`.
    pub fn skew_seconds(&self) -> Option<i64> {
        self.board().skew_seconds
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.board().places.len()
    }
}

/// What can not be explained by the way there and back.
fn skew_seconds(asked: UnixMs, made: UnixMs, now: UnixMs) -> i64 {
    let (asked, made, now) = (asked.as_secs(), made.as_secs(), now.as_secs());
    let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    if made > now {
        whole(made - now)
    } else {
        -whole(asked.saturating_sub(made))
    }
}

/// A call's place. Dropped: it waits no more.
pub struct Ticket {
    request_id: String,
    answered: oneshot::Receiver<Outcome>,
    waiting: Arc<Waiting>,
}

impl Ticket {
    /// What the answer must repeat.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The answer. Never returns when it was taken already.
    pub async fn answer(&mut self) -> Outcome {
        match (&mut self.answered).await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.board().places.remove(&self.request_id);
    }
}

/// The ids of the last events.
#[derive(Default)]
pub struct Recent {
    known: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Recent {
    /// Remembers `id`.
    pub fn see(&mut self, id: EventId) -> Sight {
        if !self.known.insert(id) {
            return Sight::Again;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        Sight::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_way_does_not_explain_is_skew() {
        let at = |seconds: u64| UnixMs(seconds * 1000);
        assert_eq!(skew_seconds(at(100), at(103), at(110)), 0, "made on the way");
        assert_eq!(skew_seconds(at(100), at(170), at(110)), 60, "the service is ahead");
        assert_eq!(skew_seconds(at(100), at(40), at(110)), -60, "the service is behind");
        assert_eq!(
            skew_seconds(at(0), UnixMs(u64::MAX), at(0)),
            i64::try_from(u64::MAX / 1000).unwrap()
        );
    }

    #[test]
    fn a_dropped_ticket_leaves_its_place_and_places_are_bounded() {
        let waiting = Arc::new(Waiting::default());
        let enter = || Waiting::enter(&waiting, UnixMs(0));
        let tickets: Vec<Ticket> = (0..IN_FLIGHT).map(|_| enter().unwrap()).collect();
        assert!(matches!(enter(), Err(CallError::Busy)));
        drop(tickets);
        assert_eq!(waiting.len(), 0);
        assert!(enter().is_ok());
    }

    #[test]
    fn the_last_ids_are_known() {
        let mut recent = Recent::default();
        let id = |n: usize| EventId::from_byte_array(std::array::from_fn(|i| n.to_be_bytes()[i % 8]));
        assert!((0..=RECENT).all(|n| recent.see(id(n)) == Sight::First));
        assert_eq!(
            (recent.see(id(RECENT)), recent.see(id(1))),
            (Sight::Again, Sight::Again)
        );
        assert_eq!(recent.see(id(0)), Sight::First, "forgotten");
        assert_eq!((recent.known.len(), recent.order.len()), (RECENT, RECENT));
    }
}
