//! Following one cash-out: server-sent events.
//!
//! The state as it is, then each change, until nothing more happens by itself ([`CashOutView::at_rest`]). What must
//! stay true: no change is missed between the two, none is told twice in a row, and a follower who was too slow is
//! told the state again instead of an old one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Bytes, Data};
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, timeout_at};

use crate::actors::fleet::{Fleet, FleetError};
use crate::api::CashOutView;
use crate::cashout::CashOut;
use crate::ids::CashOutId;

use super::problem::ApiError;
use super::request::Id;
use super::views;

/// A comment after so much silence, so that both ends notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn events(Id(id): Id<CashOutId>, fleet: Data<Fleet>) -> Result<HttpResponse, ApiError> {
    let changes = fleet.follow();
    let read = move || {
        let fleet = fleet.clone();
        async move { fleet.cashout(id).await }
    };
    let tail = Tail::new(id, changes, read).await?;
    let frames = stream::unfold(tail, |mut tail| async move {
        let frame = tail.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), tail))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // A proxy that collects the events would keep the customer waiting.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(frames))
}

/// One follower.
struct Tail<R> {
    id: CashOutId,
    changes: Receiver<CashOut>,
    /// Reads the cash-out as it is.
    read: R,
    waiting: VecDeque<CashOut>,
    last: Option<CashOutView>,
    told: Instant,
}

impl<R, F> Tail<R>
where
    R: Fn() -> F,
    F: Future<Output = Result<CashOut, FleetError>>,
{
    async fn new(id: CashOutId, changes: Receiver<CashOut>, read: R) -> Result<Self, FleetError> {
        let mut tail = Self {
            id,
            changes,
            read,
            waiting: VecDeque::new(),
            last: None,
            told: Instant::now(),
        };
        tail.read_again().await?;
        Ok(tail)
    }

    /// Takes the state as it is, with the changes after it.
    async fn read_again(&mut self) -> Result<(), FleetError> {
        loop {
            // In this order: what changes after the look is in the channel.
            self.changes = self.changes.resubscribe();
            let now = (self.read)().await?;
            if let Some(mut since) = self.arrived() {
                // A change that the look has already seen is in the channel too, after those before it.
                if let Some(seen) = since.iter().rposition(|change| *change == now) {
                    since.drain(..=seen);
                }
                self.waiting = since;
                self.waiting.push_front(now);
                return Ok(());
            }
        }
    }

    /// The changes of this cash-out that are in the channel; `None` when some were lost.
    fn arrived(&mut self) -> Option<VecDeque<CashOut>> {
        let mut found = VecDeque::new();
        loop {
            match self.changes.try_recv() {
                Ok(change) if change.id == self.id => found.push_back(change),
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => return None,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(found),
            }
        }
    }

    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                if let Some(frame) = self.tell(&change) {
                    return Some(frame);
                }
                continue;
            }
            if self.last.as_ref().is_some_and(CashOutView::at_rest) {
                return None;
            }
            match timeout_at(self.told + KEEP_ALIVE, self.changes.recv()).await {
                Ok(Ok(change)) if change.id == self.id => self.waiting.push_back(change),
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(_))) => self.read_again().await.ok()?,
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => {
                    self.told = Instant::now();
                    return Some(": still here\n\n".to_owned());
                }
            }
        }
    }

    /// The event, unless it looks as the one before.
    fn tell(&mut self, change: &CashOut) -> Option<String> {
        let view = views::cashout(change);
        if self.last.as_ref() == Some(&view) {
            return None;
        }
        let data = serde_json::to_string(&view).ok()?;
        self.last = Some(view);
        self.told = Instant::now();
        Some(format!("event: cashout\ndata: {data}\n\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::sync::broadcast::{Sender, channel};

    use super::*;
    use crate::cashout::Phase;
    use crate::http::tests::sample;
    use crate::time::UnixMs;

    fn at(phase: Phase) -> CashOut {
        sample(phase)
    }

    fn states(frames: &[String]) -> Vec<String> {
        let data = frames.iter().map(|frame| {
            let data = frame
                .strip_prefix("event: cashout\ndata: ")
                .unwrap()
                .strip_suffix("\n\n")
                .unwrap();
            serde_json::from_str::<CashOutView>(data).unwrap().state
        });
        data.collect()
    }

    /// All that a follower is told who looks at `now` after `before` was sent; `after` is sent then.
    async fn told(capacity: usize, before: &[CashOut], now: CashOut, after: &[CashOut]) -> Vec<String> {
        let (sender, changes) = channel(capacity);
        let now = RefCell::new(now);
        let first = RefCell::new(Some(before));
        let read = || async {
            send(&sender, first.take().unwrap_or_default());
            Ok(now.borrow().clone())
        };
        let id = now.borrow().id;
        let mut tail = Tail::new(id, changes, read).await.unwrap();
        send(&sender, after);
        if let Some(last) = after.last() {
            now.replace(last.clone());
        }
        let mut frames = Vec::new();
        while let Some(frame) = tail.next().await {
            frames.push(frame);
        }
        frames
    }

    fn send(sender: &Sender<CashOut>, changes: &[CashOut]) {
        for change in changes {
            let _ = sender.send(change.clone());
        }
    }

    #[tokio::test]
    async fn the_state_comes_first_and_each_change_after_it_to_the_end() {
        let held = at(Phase::Held { until: UnixMs(9) });
        let mut other = at(Phase::Completed);
        other.id = CashOutId::new(UnixMs(7), 7);
        let after = [other, held.clone(), held, at(Phase::Settling), at(Phase::Completed)];
        let frames = told(16, &[], at(Phase::AwaitingPayment), &after).await;
        assert_eq!(states(&frames), ["awaiting_payment", "held", "settling", "completed"]);
    }

    #[tokio::test]
    async fn changes_that_the_look_has_seen_are_not_told_after_it() {
        let before = [at(Phase::AwaitingPayment), at(Phase::Settling), at(Phase::Completed)];
        let frames = told(16, &before, at(Phase::Settling), &[]).await;
        assert_eq!(states(&frames), ["settling", "completed"]);
    }

    #[tokio::test]
    async fn who_was_too_slow_is_told_the_state_as_it_is() {
        let reason = |n: usize| at(Phase::Canceling { reason: n.to_string() });
        let mut many: Vec<CashOut> = (0..10).map(reason).collect();
        many.push(at(Phase::Completed));
        let frames = told(2, &[], at(Phase::AwaitingPayment), &many).await;
        assert_eq!(states(&frames), ["awaiting_payment", "completed"]);
    }

    #[tokio::test]
    async fn the_stream_ends_where_only_an_operator_goes_on() {
        let why = "settled without cash".to_owned();
        assert_eq!(states(&told(4, &[], at(Phase::ClaimOwed), &[]).await), ["claim_owed"]);
        assert_eq!(
            states(&told(4, &[], at(Phase::NeedsOperator { why }), &[]).await),
            ["needs_operator"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_and_a_closed_fleet_ends_the_stream() {
        let (sender, changes) = channel(4);
        let now = at(Phase::AwaitingPayment);
        let mut tail = Tail::new(now.id, changes, || async { Ok(now.clone()) }).await.unwrap();
        assert!(tail.next().await.unwrap().starts_with("event: cashout\n"));
        assert_eq!(tail.next().await.unwrap(), ": still here\n\n");
        drop(sender);
        assert_eq!(tail.next().await, None);
    }
}
