//! Following one cash-out: server-sent events.
//!
//! The state as it is, then each change, until nothing more happens by itself ([`CashOutView::at_rest`]). What must
//! stay true: the last state is always told, none is told twice in a row, and none after a later one. A look reads
//! the journal's fold, which is ahead of the announced changes; an announcement may also be lost with its actor.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Bytes, Data};
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::actors::fleet::{Fleet, FleetError};
use crate::api::CashOutView;
use crate::cashout::CashOut;
use crate::ids::CashOutId;

use super::problem::ApiError;
use super::request::Id;
use crate::actors::views;

/// After so much silence, a look and a comment: so that both ends notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn events(Id(id): Id<CashOutId>, fleet: Data<Fleet>) -> Result<HttpResponse, ApiError> {
    let changes = fleet.follow();
    let read = move || {
        let fleet = fleet.clone();
        async move { fleet.cashout(id).await }
    };
    let tail = Tail::new(changes, read).await?;
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
    changes: Receiver<CashOut>,
    /// Looks at the cash-out as it is.
    read: R,
    /// What was told last.
    current: CashOut,
    shown: CashOutView,
    /// The announcement of `current` has been received: those that follow it are of later states.
    in_step: bool,
    begun: bool,
    told: Instant,
}

impl<R, F> Tail<R>
where
    R: Fn() -> F,
    F: Future<Output = Result<CashOut, FleetError>>,
{
    /// `changes` must have been there before the first look, which is here.
    async fn new(changes: Receiver<CashOut>, read: R) -> Result<Self, FleetError> {
        let current = read().await?;
        Ok(Self {
            changes,
            read,
            shown: views::cashout(&current),
            current,
            in_step: false,
            begun: false,
            told: Instant::now(),
        })
    }

    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.begun, true) {
            return self.frame();
        }
        while !self.shown.at_rest() {
            let due = self.told + KEEP_ALIVE;
            let told = match timeout_at(due, self.changes.recv()).await {
                Ok(Ok(change)) if change.id != self.current.id => None,
                Ok(Ok(change)) => self.changed(change).await.ok()?,
                Ok(Err(RecvError::Lagged(_))) => {
                    self.changes = self.changes.resubscribe();
                    self.look().await.ok()?
                }
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => {
                    self.told = Instant::now();
                    let comment = || ": still here\n\n".to_owned();
                    Some(self.look().await.ok()?.unwrap_or_else(comment))
                }
            };
            if told.is_some() {
                return told;
            }
        }
        None
    }

    async fn changed(&mut self, change: CashOut) -> Result<Option<String>, FleetError> {
        if self.in_step {
            return Ok(self.tell(change));
        }
        if change == self.current {
            self.in_step = true;
            return Ok(None);
        }
        // Older or newer than what was told? The state as it is can not be older.
        let told = self.look().await?;
        self.in_step = self.current == change;
        Ok(told)
    }

    async fn look(&mut self) -> Result<Option<String>, FleetError> {
        let now = (self.read)().await?;
        if now == self.current {
            return Ok(None);
        }
        self.in_step = false;
        Ok(self.tell(now))
    }

    /// The event, unless it looks as the one before.
    fn tell(&mut self, now: CashOut) -> Option<String> {
        let view = views::cashout(&now);
        self.current = now;
        if view == self.shown {
            return None;
        }
        self.shown = view;
        self.frame()
    }

    fn frame(&mut self) -> Option<String> {
        let data = serde_json::to_string(&self.shown).ok()?;
        self.told = Instant::now();
        Some(format!("event: cashout\ndata: {data}\n\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use tokio::sync::broadcast::channel;

    use super::*;
    use crate::cashout::Phase;
    use crate::http::tests::sample;
    use crate::time::UnixMs;

    fn held() -> CashOut {
        sample(Phase::Held { until: UnixMs(9) })
    }

    fn canceling(n: usize) -> CashOut {
        sample(Phase::Canceling { reason: n.to_string() })
    }

    fn state(frame: &str) -> String {
        let Some(data) = frame.strip_prefix("event: cashout\ndata: ") else {
            return frame.to_owned();
        };
        let view: CashOutView = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
        view.state
    }

    /// All that a follower is told whose looks find `looks`, the last again and again, and who hears of `changes`.
    async fn told(capacity: usize, looks: &[CashOut], changes: &[CashOut]) -> Vec<String> {
        let (sender, receiver) = channel(capacity);
        let looks = RefCell::new(VecDeque::from(looks.to_vec()));
        let read = || async {
            let mut looks = looks.borrow_mut();
            let last = looks.len() == 1;
            Ok(if last {
                looks[0].clone()
            } else {
                looks.pop_front().unwrap()
            })
        };
        let mut tail = Tail::new(receiver, read).await.unwrap();
        for change in changes {
            sender.send(change.clone()).unwrap();
        }
        drop(sender);
        let mut frames = Vec::new();
        while let Some(frame) = tail.next().await {
            frames.push(state(&frame));
        }
        frames
    }

    #[tokio::test]
    async fn the_state_comes_first_and_each_change_after_it_to_the_end() {
        let mut other = sample(Phase::Completed);
        other.id = crate::ids::CashOutId::new(UnixMs(7), 7);
        let changes = [other, held(), held(), sample(Phase::Settling), sample(Phase::Completed)];
        let frames = told(16, &[sample(Phase::AwaitingPayment), held()], &changes).await;
        assert_eq!(frames, ["awaiting_payment", "held", "settling", "completed"]);
    }

    #[tokio::test]
    async fn what_was_before_the_look_is_not_told_after_it() {
        let changes = [
            sample(Phase::AwaitingPayment),
            held(),
            sample(Phase::Settling),
            sample(Phase::Completed),
        ];
        let frames = told(16, &[sample(Phase::Settling)], &changes).await;
        assert_eq!(frames, ["settling", "completed"]);
    }

    #[tokio::test]
    async fn an_old_change_shows_the_state_as_it_is() {
        let looks = [held(), sample(Phase::Settling), sample(Phase::Completed)];
        let frames = told(16, &looks, &[sample(Phase::AwaitingPayment), held()]).await;
        assert_eq!(frames, ["held", "settling", "completed"]);
    }

    #[tokio::test]
    async fn who_was_too_slow_is_told_the_state_as_it_is() {
        let many: Vec<CashOut> = (0..10).map(canceling).collect();
        let frames = told(2, &[sample(Phase::AwaitingPayment), sample(Phase::Completed)], &many).await;
        assert_eq!(frames, ["awaiting_payment", "completed"]);
    }

    #[tokio::test]
    async fn the_stream_ends_where_only_an_operator_goes_on() {
        let why = "settled without cash".to_owned();
        assert_eq!(told(4, &[sample(Phase::ClaimOwed)], &[]).await, ["claim_owed"]);
        assert_eq!(
            told(4, &[sample(Phase::NeedsOperator { why })], &[]).await,
            ["needs_operator"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_and_a_lost_announcement_is_found() {
        let looks = [held(), held(), sample(Phase::Completed)];
        let (_sender, receiver) = channel(4);
        let looks = RefCell::new(VecDeque::from(looks));
        let read = || async { Ok(looks.borrow_mut().pop_front().unwrap()) };
        let mut tail = Tail::new(receiver, read).await.unwrap();
        assert_eq!(state(&tail.next().await.unwrap()), "held");
        assert_eq!(tail.next().await.unwrap(), ": still here\n\n");
        assert_eq!(state(&tail.next().await.unwrap()), "completed");
        assert_eq!(tail.next().await, None);
    }

    #[tokio::test]
    async fn a_closed_fleet_ends_the_stream() {
        assert_eq!(told(4, &[held()], &[]).await, ["held"]);
    }
}
