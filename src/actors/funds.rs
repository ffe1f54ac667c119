//! Following settlements until the money is there: whether it can be done, who is woken, and the question itself.
//!
//! Called by the LND actor ([`obstacle`], [`tell`], [`relay`]) and by the invoice actor ([`follow`]). What must stay true:
//! the invoice is asked for at a bounded pace whether events come or not, for LND keeps none for who was not listening;
//! however many are pending, few of them are asked about at once; a node that will never tell ends the following, and a failure never does. Nothing here stops the daemon.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::{self, error::RecvError};

use super::drive::Done;
use super::invoice_work::is_usual;
use super::lnd::{Answer, measured};
use super::shared::Shared;
use crate::entropy::Entropy;
use crate::ids::PaymentHash;
use crate::invoice::{Invoice, InvoiceEvent};
use crate::lnd::backoff::Backoff;
use crate::lnd::{FundsSeen, HtlcKey, Lightning, LnError, LnErrorKind, NodeInfo};
use crate::metrics::LndMethod;
use crate::money::Funds;

/// Between two questions for one invoice: with a peer that is there the money comes within a second, else perhaps in days.
const PACE: Backoff = Backoff {
    first: Duration::from_millis(250),
    cap: Duration::from_secs(60),
};

/// Invoices that are asked about at once. All that are pending are due with each new connection, and a customer's settlement
/// or commitment must not wait behind them.
pub const AT_ONCE: usize = 8;

/// Why settlements are not followed at this node; `None` when they are. A failure that says nothing about it leaves it at
/// what was known `before`.
pub(super) async fn obstacle(
    node: &dyn Lightning,
    shared: &Shared,
    info: &NodeInfo,
    before: Option<String>,
) -> Option<String> {
    if !info.stores_resolutions {
        return Some(
            "the node does not store what finally becomes of HTLCs: set store-final-htlc-resolutions=true in lnd.conf \
             (of a service over Nostr: in that of its LND)"
                .to_owned(),
        );
    }
    match measured(shared, LndMethod::Funds, node.follows()).await {
        Err(error) if matches!(error.kind, LnErrorKind::Denied | LnErrorKind::NotStored) => Some(error.to_string()),
        Err(error) => {
            tracing::debug!(%error, "whether settlements can be followed is asked again");
            before
        }
        Ok(()) => None,
    }
}

/// Says whether settlements are followed from now on.
pub(super) fn tell(shared: &Shared, no_follow: Option<&str>) {
    shared.metrics.set_lnd_stores_resolutions(no_follow.is_none());
    match no_follow {
        None => tracing::info!("what is settled is followed until the money is there"),
        Some(why) => tracing::warn!(
            why,
            "what is settled is taken for paid: nobody will notice when the money does not come"
        ),
    }
}

/// Passes on which HTLCs come to their end, over one subscription that is renewed, while settlements are followed.
pub(super) async fn relay(node: &dyn Lightning, shared: &Shared) -> Infallible {
    let mut attempt = 0_u32;
    loop {
        // Of a node that is still starting the call would hang.
        shared
            .status
            .subscribe()
            .wait_for(|status| status.active && status.no_follow.is_none())
            .await;
        match measured(shared, LndMethod::Finals, node.finals()).await {
            Ok(mut finals) => {
                while let Some(Ok(key)) = finals.next().await {
                    attempt = 0;
                    // Nobody may be waiting.
                    let _ = shared.finals.send(key);
                }
            }
            Err(error) if error.kind == LnErrorKind::Denied => {
                tracing::warn!(%error, "settlements are followed by asking alone: allow /routerrpc.Router/SubscribeHtlcEvents");
                return std::future::pending().await;
            }
            Err(error) => tracing::debug!(%error, "subscribed again later"),
        }
        let random = shared.entropy.jitter();
        tokio::time::sleep(Backoff::CONNECT.delay(attempt, random)).await;
        attempt = attempt.saturating_add(1);
    }
}

/// Asks what became of a settled invoice's money, until that is known or never will be.
pub(super) async fn follow(shared: Arc<Shared>, invoice: Invoice) -> Done<InvoiceEvent> {
    let hash = invoice.spec.hash;
    let ask = async || {
        shared.lnd_up().await;
        shared.ask_lnd(LndMethod::Funds, ask(hash)).await
    };
    let funds = until_known(
        &hash,
        shared.finals.subscribe(),
        &shared.funds_turns,
        &*shared.entropy,
        ask,
    )
    .await;
    let at = shared.clock.now();
    Done {
        events: vec![InvoiceEvent::FundsSeen { funds, at }],
        again: Duration::ZERO,
    }
}

/// `finals` is subscribed to before the first question: what ends after an answer is heard of.
async fn until_known(
    hash: &PaymentHash,
    mut finals: broadcast::Receiver<HtlcKey>,
    turns: &Semaphore,
    entropy: &dyn Entropy,
    ask: impl AsyncFn() -> Result<FundsSeen, LnError>,
) -> Funds {
    let mut attempt = 0_u32;
    loop {
        // Never closed.
        let turn = turns.acquire().await;
        let answer = ask().await;
        drop(turn);
        let waits_for = match answer {
            Ok(FundsSeen::Final) => return Funds::Final,
            Ok(FundsSeen::Lost) => return Funds::Lost,
            Ok(FundsSeen::NotFollowed(why)) => {
                tracing::warn!(invoice = %hash, why, "not followed any more: nobody will tell whether its money came");
                return Funds::NotFollowed;
            }
            Ok(FundsSeen::Pending(keys)) => keys,
            Err(error) => {
                match is_usual(&error) {
                    true => tracing::debug!(invoice = %hash, %error, "asked again later"),
                    // Such as: LND does not call it settled any more, or does not know it. Its database is an older one then.
                    false => tracing::warn!(invoice = %hash, %error, "what became of its money is asked again later"),
                }
                Vec::new()
            }
        };
        let random = entropy.jitter();
        let pause = PACE.delay(attempt, random);
        // An event too many makes no more than a question too many.
        let _ = tokio::time::timeout(pause, ended(&mut finals, &waits_for)).await;
        attempt = attempt.saturating_add(1);
    }
}

/// Returns when one of `keys` has come to its end.
async fn ended(finals: &mut broadcast::Receiver<HtlcKey>, keys: &[HtlcKey]) {
    loop {
        match finals.recv().await {
            Ok(key) if keys.contains(&key) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            // The sender is in `Shared`.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn ask(hash: PaymentHash) -> impl FnOnce(Arc<dyn Lightning>) -> Answer<FundsSeen> + Send {
    move |node| Box::pin(async move { node.funds(&hash).await })
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::entropy::SystemEntropy;

    const HASH: PaymentHash = PaymentHash([7; 32]);
    const KEY: HtlcKey = HtlcKey {
        chan_id: 77,
        htlc_index: 4,
    };

    fn turns() -> Semaphore {
        Semaphore::new(AT_ONCE)
    }

    fn pending() -> Result<FundsSeen, LnError> {
        Ok(FundsSeen::Pending(vec![KEY]))
    }

    fn trouble() -> Result<FundsSeen, LnError> {
        Err(LnError {
            call: "LookupInvoice",
            kind: LnErrorKind::Other,
            message: "a strange mood".to_owned(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_event_it_is_asked_often_at_first_and_once_a_minute_in_the_end() {
        let (finals, asked) = (broadcast::Sender::new(4), RefCell::new(Vec::new()));
        let begun = Instant::now();
        let ask = async || {
            asked.borrow_mut().push(begun.elapsed());
            if asked.borrow().len() % 2 == 0 {
                pending()
            } else {
                trouble()
            }
        };
        let hour = Duration::from_secs(3600);
        let never = timeout(
            hour,
            until_known(&HASH, finals.subscribe(), &turns(), &SystemEntropy, ask),
        )
        .await;
        assert!(never.is_err(), "neither a failure nor a wait ends it");
        let asked = asked.into_inner();
        let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            pauses[0] <= PACE.first && *pauses.last().unwrap() >= PACE.cap / 2,
            "{pauses:?}"
        );
        assert!(pauses.iter().all(|pause| *pause <= PACE.cap), "{pauses:?}");
        assert!((60..140).contains(&asked.len()), "{} questions in an hour", asked.len());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_its_htlc_is_a_reason_to_ask_at_once_and_that_of_another_is_none() {
        let (finals, asked) = (broadcast::Sender::new(4), Cell::new(0));
        let ask = async || {
            asked.set(asked.get() + 1);
            match asked.get() {
                // By now a pause is half a minute at least.
                1..12 => pending(),
                12 => {
                    let other = HtlcKey { htlc_index: 5, ..KEY };
                    finals.send(other).unwrap();
                    pending()
                }
                13 => {
                    finals.send(KEY).unwrap();
                    pending()
                }
                _ => Ok(FundsSeen::Final),
            }
        };
        let since = RefCell::new(Vec::new());
        let timed = async || {
            since.borrow_mut().push(Instant::now());
            ask().await
        };
        assert_eq!(
            until_known(&HASH, finals.subscribe(), &turns(), &SystemEntropy, timed).await,
            Funds::Final
        );
        let since = since.into_inner();
        let pause = |n: usize| since[n] - since[n - 1];
        assert!(pause(12) >= PACE.cap / 2, "another's end wakes nobody");
        assert_eq!(pause(13), Duration::ZERO, "its own does, at once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_lags_behind_the_events_finds_out_by_asking() {
        let (finals, asked) = (broadcast::Sender::new(2), Cell::new(0));
        let ask = async || {
            asked.set(asked.get() + 1);
            if asked.get() > 1 {
                return Ok(FundsSeen::Lost);
            }
            let others = (10..30).map(|htlc_index| HtlcKey { htlc_index, ..KEY });
            [KEY].into_iter().chain(others).for_each(|key| drop(finals.send(key)));
            pending()
        };
        assert_eq!(
            until_known(&HASH, finals.subscribe(), &turns(), &SystemEntropy, ask).await,
            Funds::Lost
        );
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_are_pending_few_are_asked_about_at_once() {
        let finals = broadcast::Sender::new(2);
        let (turns, now, most, asked) = (turns(), Cell::new(0_usize), Cell::new(0), Cell::new(0));
        let ask = async || {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            now.set(now.get() - 1);
            asked.set(asked.get() + 1);
            // While they wait for an event, others have their turns.
            if asked.get() <= 500 {
                pending()
            } else {
                Ok(FundsSeen::Final)
            }
        };
        let all = (0..500).map(|_| until_known(&HASH, finals.subscribe(), &turns, &SystemEntropy, &ask));
        let known = futures_util::future::join_all(all).await;
        assert!(known.iter().all(|funds| *funds == Funds::Final));
        assert_eq!((most.get(), asked.get()), (AT_ONCE, 1_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_will_never_tell_ends_it() {
        let finals = broadcast::Sender::new(2);
        let ask = async || Ok(FundsSeen::NotFollowed("not stored".to_owned()));
        assert_eq!(
            until_known(&HASH, finals.subscribe(), &turns(), &SystemEntropy, ask).await,
            Funds::NotFollowed
        );
    }
}
