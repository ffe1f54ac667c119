//! How the effects of an invoice are done at LND, and what LND's answers mean.
//!
//! Called by the invoice actor. Every effect may be repeated; each waits until LND can be asked. What must stay
//! true: an answer that could have two meanings is asked again. Source: facts/lnd.md section 3.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::drive::Done;
use super::lnd;
use super::shared::Shared;
use crate::ids::PaymentHash;
use crate::invoice::{Invoice, InvoiceEvent, InvoicePhase};
use crate::lnd::{HoldInvoiceRequest, InvoiceSnapshot, InvoiceState, LnError, LnErrorKind, Updates};
use crate::metrics::LndMethod;
use crate::money::Msat;

/// Between two tries of a call that failed.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// A settle that LND keeps refusing is told so often.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Invoices that are looked up and followed anew at once. All that are open are due at a start and with each new connection: as
/// one burst of thousands they would break it again, and a commitment or a settlement would have to wait behind them.
const AT_ONCE: usize = 16;

/// Of them, those whose money is held already. After a new connection they are the many, and their notes are out or decided about;
/// a customer who has yet to pay stands before the machine.
const HELD_AT_ONCE: usize = 12;

/// Turns at looking invoices up and following them anew, each kind in the order of asking.
#[derive(Debug)]
pub struct Turns {
    held: Semaphore,
    all: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            held: Semaphore::new(HELD_AT_ONCE),
            all: Semaphore::new(AT_ONCE),
        }
    }
}

impl Turns {
    /// The next turn; it lasts until what is given is dropped. An open one waits behind no more held ones than [`HELD_AT_ONCE`].
    async fn next(&self, is_held: bool) -> [Option<SemaphorePermit<'_>>; 2] {
        // Never closed.
        let held = match is_held {
            true => self.held.acquire().await.ok(),
            false => None,
        };
        [held, self.all.acquire().await.ok()]
    }
}

/// No BOLT11 text is longer; a record of it has to fit the journal.
const LONGEST: usize = 16 << 10;

fn done(event: InvoiceEvent) -> Done<InvoiceEvent> {
    Done {
        events: vec![event],
        again: Duration::ZERO,
    }
}

/// Followed exactly when the node stores at this moment what becomes of its HTLCs.
fn settled_now(shared: &Shared, paid: Msat) -> InvoiceEvent {
    InvoiceEvent::SettledAtLnd {
        paid,
        at: Some(shared.clock.now()),
        follow: shared.status.borrow().follows(),
    }
}

fn later() -> Done<InvoiceEvent> {
    Done {
        events: Vec::new(),
        again: RETRY,
    }
}

/// LND is away or starting: that shows elsewhere.
pub(super) fn is_usual(error: &LnError) -> bool {
    matches!(
        error.kind,
        LnErrorKind::Unreachable | LnErrorKind::Timeout | LnErrorKind::NotReady
    )
}

fn failed(invoice: &Invoice, error: &LnError) -> Done<InvoiceEvent> {
    match is_usual(error) {
        true => tracing::debug!(invoice = %invoice.spec.hash, %error, "asked again later"),
        false => tracing::error!(invoice = %invoice.spec.hash, %error, "asked again later"),
    }
    later()
}

/// `AddHoldInvoice`. An invoice that is there already is taken for ours when hash and amount agree.
pub(super) async fn add(shared: Arc<Shared>, invoice: Invoice) -> Done<InvoiceEvent> {
    shared.lnd_can_add().await;
    let spec = &invoice.spec;
    let left = spec.pay_by.since(shared.clock.now());
    let request = HoldInvoiceRequest {
        hash: spec.hash,
        amount: spec.amount,
        memo: spec.memo.clone(),
        // Rounded up: at `pay_by` it is canceled from here, and not a second before that by the node.
        expiry: Duration::from_secs(
            u64::try_from(left.as_millis().div_ceil(1000))
                .unwrap_or(u64::MAX)
                .max(1),
        ),
        cltv_expiry: spec.cltv_expiry,
        private_route_hints: spec.private_route_hints,
    };
    match shared.ask_lnd(LndMethod::AddHoldInvoice, lnd::add(request)).await {
        Ok(payment_request) if payment_request.len() > LONGEST => done(InvoiceEvent::AddRefused {
            reason: format!("LND answered with an invoice of {} bytes", payment_request.len()),
        }),
        Ok(payment_request) => done(InvoiceEvent::Opened { payment_request }),
        Err(error) if error.kind == LnErrorKind::AlreadyExists => added_before(&shared, &invoice).await,
        Err(error) if matches!(error.kind, LnErrorKind::Invalid | LnErrorKind::Denied) => {
            tracing::error!(invoice = %spec.hash, %error, "LND refuses the invoice");
            done(InvoiceEvent::AddRefused {
                reason: error.to_string(),
            })
        }
        Err(error) => failed(&invoice, &error),
    }
}

async fn added_before(shared: &Shared, invoice: &Invoice) -> Done<InvoiceEvent> {
    let hash = invoice.spec.hash;
    match shared.ask_lnd(LndMethod::Lookup, lnd::lookup(hash)).await {
        // A service may not tell the text any more: there is nothing to show to the customer then.
        Ok(Some(seen)) if seen.payment_request.is_empty() => done(InvoiceEvent::AddRefused {
            reason: "the invoice is there already, but its text is not told".into(),
        }),
        Ok(Some(seen)) if seen.amount == invoice.spec.amount && seen.payment_request.len() <= LONGEST => {
            done(InvoiceEvent::Opened {
                payment_request: seen.payment_request,
            })
        }
        Ok(Some(seen)) => done(InvoiceEvent::AddRefused {
            reason: format!("LND has another invoice with this hash, over {}", seen.amount),
        }),
        Ok(None) => later(),
        Err(error) => failed(invoice, &error),
    }
}

/// The stream that an invoice is followed by, kept while it is written down that the money is held: what LND tells meanwhile
/// waits in it.
#[derive(Clone, Default)]
pub(super) struct Following(Rc<RefCell<Option<Updates<InvoiceSnapshot>>>>);

impl Following {
    /// The next time it is looked up, and followed anew.
    pub(super) fn end(&self) {
        self.0.replace(None);
    }
}

/// Follows the invoice until there is something new to tell: by its stream, where there is one, else looked up first. One that
/// is `known` to be there is followed at once: LND's stream begins with its state, and only of an unknown one it says nothing.
pub(super) async fn watch(
    shared: Arc<Shared>,
    invoice: Invoice,
    known: bool,
    following: Following,
) -> Done<InvoiceEvent> {
    shared.lnd_up().await;
    // Whoever drops this future drops the stream with it.
    let kept = following.0.take();
    let mut stream = match kept {
        Some(stream) => stream,
        None => match follow(&shared, &invoice, known).await {
            Ok(stream) => stream,
            Err(done) => return done,
        },
    };
    while let Some(seen) = stream.next().await {
        match seen {
            Ok(seen) => {
                if let Some(event) = news(&shared, &invoice, &seen) {
                    if let InvoiceEvent::Accepted { .. } = event {
                        following.0.replace(Some(stream));
                    }
                    return done(event);
                }
            }
            Err(error) => return failed(&invoice, &error),
        }
    }
    later()
}

/// A stream of it; or what came up before there was one.
async fn follow(
    shared: &Shared,
    invoice: &Invoice,
    known: bool,
) -> Result<Updates<InvoiceSnapshot>, Done<InvoiceEvent>> {
    let look = async || if known { None } else { look(shared, invoice).await };
    let open = async || {
        let opened = shared.ask_lnd(LndMethod::Watch, lnd::watch(invoice.spec.hash)).await;
        opened.map_err(|error| failed(invoice, &error))
    };
    // A new one has a customer before it.
    let turns = (!known).then_some(&shared.watch_turns);
    in_turn(turns, invoice.hold().is_some(), look, open).await
}

/// What `open` gives, unless `look` has something to tell; both in one turn.
async fn in_turn<S, D>(
    turns: Option<&Turns>,
    is_held: bool,
    look: impl AsyncFnOnce() -> Option<D>,
    open: impl AsyncFnOnce() -> Result<S, D>,
) -> Result<S, D> {
    let _turn = match turns {
        Some(turns) => Some(turns.next(is_held).await),
        None => None,
    };
    match look().await {
        Some(done) => Err(done),
        None => open().await,
    }
}

/// What LND tells of it now; `None`: nothing new.
async fn look(shared: &Shared, invoice: &Invoice) -> Option<Done<InvoiceEvent>> {
    let hash = invoice.spec.hash;
    match shared.ask_lnd(LndMethod::Lookup, lnd::lookup(hash)).await {
        Ok(None) if is_gone(shared, hash).await => Some(done(InvoiceEvent::CanceledAtLnd)),
        Ok(None) => Some(later()),
        Ok(Some(seen)) => news(shared, invoice, &seen).map(done),
        Err(error) => Some(failed(invoice, &error)),
    }
}

/// LND had it, and keeps what it settled: a canceled invoice may be deleted. Believed only from the node that the
/// journal knows, and told twice: the connection may be a new one.
async fn is_gone(shared: &Shared, hash: PaymentHash) -> bool {
    let Ok(info) = shared.ask_lnd(LndMethod::Info, lnd::info()).await else {
        return false;
    };
    if let Err(why) = lnd::recognise(shared, &info).await {
        tracing::error!(invoice = %hash, why, "\"not found\" is not believed");
        return false;
    }
    matches!(shared.ask_lnd(LndMethod::Lookup, lnd::lookup(hash)).await, Ok(None))
}

/// What a state at LND adds to what is known.
fn news(shared: &Shared, invoice: &Invoice, seen: &InvoiceSnapshot) -> Option<InvoiceEvent> {
    match seen.state {
        InvoiceState::Open => None,
        InvoiceState::Accepted => matches!(invoice.phase, InvoicePhase::Open).then_some(InvoiceEvent::Accepted {
            paid: seen.paid,
            lowest_expiry_height: seen.lowest_expiry_height,
            at: shared.clock.now(),
        }),
        InvoiceState::Settled => Some(settled_now(shared, seen.paid)),
        InvoiceState::Canceled => Some(InvoiceEvent::CanceledAtLnd),
        InvoiceState::Unknown(number) => {
            tracing::error!(invoice = %seen.hash, number, "LND tells a state that this version does not know");
            None
        }
    }
}

/// `SettleInvoice`, until LND says settled or canceled.
pub(super) async fn settle(shared: Arc<Shared>, invoice: Invoice) -> Done<InvoiceEvent> {
    let InvoicePhase::Settling { preimage, hold, .. } = &invoice.phase else {
        return later();
    };
    let paid = hold.map_or(invoice.spec.amount, |hold| hold.paid);
    let mut complained = None;
    loop {
        shared.lnd_up().await;
        let error = match shared.ask_lnd(LndMethod::Settle, lnd::settle(preimage.clone())).await {
            Ok(()) => return done(settled_now(&shared, paid)),
            Err(error) if error.kind == LnErrorKind::AlreadyCanceled => return done(InvoiceEvent::CanceledAtLnd),
            Err(error) => error,
        };
        // A canceled invoice may be deleted. But while LND could still hold it, it is asked again.
        if error.kind == LnErrorKind::NotFound {
            let height = shared.status.borrow().height;
            let left = hold.map(|hold| hold.blocks_left(invoice.spec.hold_expiry_delta, height));
            if left.is_some_and(|left| left <= 0) {
                return done(InvoiceEvent::CanceledAtLnd);
            }
        }
        complain(&mut complained, &invoice, &error);
        tokio::time::sleep(RETRY).await;
    }
}

/// Cash is out and LND does not take the money: told at once, and again while it lasts.
fn complain(last: &mut Option<Instant>, invoice: &Invoice, error: &LnError) {
    if is_usual(error) || last.is_some_and(|last| last.elapsed() < COMPLAIN) {
        return tracing::debug!(invoice = %invoice.spec.hash, %error, "asked again later");
    }
    *last = Some(Instant::now());
    tracing::error!(invoice = %invoice.spec.hash, %error, "LND does not settle; asked again and again");
}

/// `CancelInvoice`, until LND says canceled or settled.
pub(super) async fn cancel(shared: Arc<Shared>, invoice: Invoice) -> Done<InvoiceEvent> {
    let hash = invoice.spec.hash;
    shared.lnd_up().await;
    match shared.ask_lnd(LndMethod::Cancel, lnd::cancel(hash)).await {
        Ok(()) => done(InvoiceEvent::CanceledAtLnd),
        Err(error) => match error.kind {
            LnErrorKind::AlreadyCanceled => done(InvoiceEvent::CanceledAtLnd),
            LnErrorKind::NotFound if is_gone(&shared, hash).await => done(InvoiceEvent::CanceledAtLnd),
            LnErrorKind::AlreadySettled => settled(&shared, &invoice).await,
            _ => failed(&invoice, &error),
        },
    }
}

async fn settled(shared: &Shared, invoice: &Invoice) -> Done<InvoiceEvent> {
    match shared.ask_lnd(LndMethod::Lookup, lnd::lookup(invoice.spec.hash)).await {
        Ok(Some(seen)) if seen.state == InvoiceState::Settled => done(settled_now(shared, seen.paid)),
        Ok(_) => later(),
        Err(error) => failed(invoice, &error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn however_many_are_open_few_are_looked_up_and_followed_at_once() {
        let (turns, now, most) = (Turns::default(), Cell::new(0_usize), Cell::new(0));
        let one = async |index: usize| {
            let ask = async |answer: Option<usize>| {
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::time::sleep(Duration::from_secs(1)).await;
                now.set(now.get() - 1);
                answer
            };
            // Every second one has something to tell before there is a stream.
            let look = async || ask(index.is_multiple_of(2).then_some(index)).await;
            let is_held = !index.is_multiple_of(3);
            in_turn(Some(&turns), is_held, look, async || {
                ask(None).await.map_or(Ok(index), Err)
            })
            .await
        };
        let all = futures_util::future::join_all((0..500).map(one)).await;
        let expected = (0..500_usize).map(|index| if index.is_multiple_of(2) { Err(index) } else { Ok(index) });
        assert_eq!(all, expected.collect::<Vec<_>>());
        assert_eq!((most.get(), turns.all.available_permits()), (AT_ONCE, AT_ONCE));
        assert_eq!(turns.held.available_permits(), HELD_AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_yet_to_pay_does_not_wait_behind_all_that_are_held() {
        let turns = Turns::default();
        let look = async || None::<()>;
        let held = (0..500).map(|_| {
            in_turn(Some(&turns), true, look, async || {
                std::future::pending::<Result<(), ()>>().await
            })
        });
        let customer = async {
            // Came last.
            tokio::task::yield_now().await;
            in_turn(Some(&turns), false, look, async || Ok(())).await
        };
        tokio::select! {
            biased;
            _ = futures_util::future::join_all(held) => unreachable!(),
            followed = customer => assert_eq!(followed, Ok(())),
        }
    }
}
