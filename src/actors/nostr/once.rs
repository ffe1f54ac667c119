//! Operators' orders that were carried out over Nostr, or are being so: one that is asked for again acts once.
//!
//! Who gets no answer asks again with a new event and the same `requestId`, and gets the first one's answer. Owned by
//! what all actors share, because an order goes on when the Nostr actor dies over it. What must stay true: bounded in
//! number and time; no lock is held while something is waited for; an answer that says "ask again" is not kept, and of
//! an order that nobody knows the end of, nothing is said but that.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::ids::NostrKey;
use crate::nostr::method::OperatorCall;
use crate::nostr::wire::{Code, Failure};
use crate::time::UnixMs;

/// Longer than any caller repeats itself.
const KEEP: Duration = Duration::from_secs(10 * 60);
/// More than some operators order in that time.
const MOST: usize = 512;

type Answer = Result<Value, Failure>;

/// Which order it is, in the caller's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderId {
    /// Who orders.
    pub key: NostrKey,
    /// The `requestId`.
    pub request_id: String,
    /// Its place in a batch.
    pub place: usize,
}

struct Known {
    id: OrderId,
    /// The same `requestId` with something else is no repetition.
    call: OperatorCall,
    since: UnixMs,
    /// Empty while it is carried out; closed and empty when that was broken off.
    answer: watch::Receiver<Option<Answer>>,
}

/// The last orders.
#[derive(Default)]
pub struct Orders(Mutex<VecDeque<Known>>);

impl Orders {
    fn known(&self) -> MutexGuard<'_, VecDeque<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of `work`, or of the order of this name that came before.
    pub(super) async fn once(
        &self,
        id: OrderId,
        call: &OperatorCall,
        now: UnixMs,
        work: impl Future<Output = Answer>,
    ) -> Answer {
        let answer = match self.begin(&id, call, now) {
            Ok(answer) => answer,
            Err(before) => return answered(before).await,
        };
        let done = work.await;
        if matches!(&done, Err(failure) if failure.code == Code::Unavailable) {
            let mut known = self.known();
            known.retain(|one| !(one.id == id && one.answer.same_channel(&answer.subscribe())));
        }
        answer.send_replace(Some(done.clone()));
        done
    }

    /// Where the answer is to be put; an error when the order is known, with where its answer will be.
    fn begin(
        &self,
        id: &OrderId,
        call: &OperatorCall,
        now: UnixMs,
    ) -> Result<watch::Sender<Option<Answer>>, watch::Receiver<Option<Answer>>> {
        let mut known = self.known();
        known.retain(|one| now.since(one.since) < KEEP);
        if let Some(before) = known.iter().find(|one| one.id == *id && one.call == *call) {
            return Err(before.answer.clone());
        }
        known.retain(|one| one.id != *id);
        if known.len() >= MOST {
            known.pop_front();
        }
        let (sender, answer) = watch::channel(None);
        known.push_back(Known {
            id: id.clone(),
            call: call.clone(),
            since: now,
            answer,
        });
        Ok(sender)
    }
}

async fn answered(mut before: watch::Receiver<Option<Answer>>) -> Answer {
    let unknown = || {
        let why = "the order was begun, and it is not known how it ended: look before you order it again";
        Err(Failure::new(Code::Unavailable, why))
    };
    match before.wait_for(Option::is_some).await {
        Ok(answer) => answer.clone().unwrap_or_else(unknown),
        Err(_) => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    fn id(request_id: &str) -> OrderId {
        OrderId {
            key: NostrKey([7; 32]),
            request_id: request_id.into(),
            place: 0,
        }
    }

    fn drain(atm: &str) -> OperatorCall {
        OperatorCall::DrainAtm(atm.parse().unwrap())
    }

    struct Desk {
        orders: Orders,
        done: Cell<u32>,
    }

    impl Desk {
        fn new() -> Self {
            let (orders, done) = (Orders::default(), Cell::new(0));
            Self { orders, done }
        }

        async fn order(&self, name: &str, atm: &str, now: UnixMs) -> Answer {
            let work = async {
                self.done.set(self.done.get() + 1);
                Ok(json!(self.done.get()))
            };
            self.orders.once(id(name), &drain(atm), now, work).await
        }
    }

    #[tokio::test]
    async fn an_order_that_is_asked_for_again_is_answered_from_memory_for_a_while() {
        let (desk, begin) = (Desk::new(), UnixMs(1_000));
        assert_eq!(desk.order("a", "left", begin).await, Ok(json!(1)));
        assert_eq!(desk.order("a", "left", begin.plus(KEEP / 2)).await, Ok(json!(1)));
        assert_eq!(desk.order("b", "left", begin).await, Ok(json!(2)), "another order");
        assert_eq!(
            desk.order("a", "right", begin).await,
            Ok(json!(3)),
            "something else of that name"
        );
        assert_eq!(desk.order("b", "left", begin.plus(KEEP)).await, Ok(json!(4)), "too old");
    }

    #[tokio::test]
    async fn what_may_be_asked_again_is_not_kept_and_what_was_refused_is() {
        let (desk, now) = (Desk::new(), UnixMs(0));
        for (code, asked) in [(Code::Unavailable, 2), (Code::Refused, 3)] {
            let refused = async { Err(Failure::new(code, "no")) };
            let first = desk.orders.once(id("a"), &drain("left"), now, refused).await;
            assert_eq!(first.unwrap_err().code, code);
            let second = desk.order("a", "left", now).await;
            match code {
                Code::Unavailable => assert_eq!(second, Ok(json!(asked - 1))),
                _ => assert_eq!(second.unwrap_err().code, code),
            }
            desk.orders.known().clear();
        }
    }

    #[tokio::test]
    async fn a_repetition_waits_for_the_first_and_hears_when_it_was_broken_off() {
        let (desk, now) = (Desk::new(), UnixMs(0));
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let slow = async {
            finished.await.unwrap();
            desk.done.set(desk.done.get() + 1);
            Ok(json!("slow"))
        };
        let call = drain("left");
        let first = desk.orders.once(id("a"), &call, now, slow);
        let later = async {
            tokio::task::yield_now().await;
            finish.send(()).unwrap();
        };
        let (first, second, ()) = tokio::join!(first, desk.order("a", "left", now), later);
        assert_eq!((first, second), (Ok(json!("slow")), Ok(json!("slow"))));
        assert_eq!(desk.done.get(), 1);

        let mut broken = Box::pin(desk.orders.once(id("b"), &call, now, std::future::pending()));
        assert!(futures_util::poll!(&mut broken).is_pending());
        drop(broken);
        let unknown = desk.order("b", "left", now).await.unwrap_err();
        assert_eq!((unknown.code, desk.done.get()), (Code::Unavailable, 1));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_oldest_goes_first() {
        let (desk, now) = (Desk::new(), UnixMs(0));
        for n in 0..=MOST {
            desk.order(&n.to_string(), "left", now).await.unwrap();
        }
        assert_eq!(desk.orders.known().len(), MOST);
        assert_eq!(desk.order("1", "left", now).await, Ok(json!(2)), "known");
        assert!(
            desk.order("0", "left", now).await.unwrap().as_u64() > Some(500),
            "forgotten"
        );
    }
}
