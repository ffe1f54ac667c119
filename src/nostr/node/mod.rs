//! [`NostrNode`]: the [`Lightning`] trait over a service that is reached by Nostr.
//!
//! Shared by `Arc`; called by the LND actor of a site. What must stay true: `Ok` of `settle` and `cancel` means that it
//! is done at the service's node, not only ordered; "not found" is never made up; nothing is dispensed on a commitment
//! that the service does not keep long enough; no invoice reaches a customer that is not what was asked for.
//!
//! Each call may be lost, there or on the way back, and be repeated: create answers the same invoice, commit the same
//! deadline, settle and cancel where the invoice stands. The service has the preimage durably before it answers a settle,
//! and finishes the settlement by itself; asking until it is done only tells the site's books. An order that was never
//! answered is given again by the invoice actor, for ever.

mod answer;
mod fit;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::ids::{PaymentHash, Preimage};
use crate::lnd::{
    Commitment, FundsSeen, HoldInvoiceRequest, HtlcKey, InvoiceSnapshot, Lightning, LnError, LnErrorKind, NodeInfo,
    NodeState, Updates,
};

use super::caller::{CallError, Caller};
use super::field::{BadField, Object};
use super::method::{Call, CommittedInvoice, CreatedInvoice, HoldInvoice, HoldState, InvoiceStanding, ServiceInfo};
use super::wire::Code;

pub use fit::SiteTerms;

/// The waits of a [`NostrNode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTimings {
    /// How often the service is asked how it fares.
    pub pace: Duration,
    /// The first pause between two looks at an open invoice; it doubles up to `slowest`.
    pub look: Duration,
    /// The longest such pause.
    pub slowest: Duration,
    /// Between two looks at a held one.
    pub look_held: Duration,
    /// Between two questions for settled money, whichever the invoice: a service counts requests, and customers' come first.
    pub funds: Duration,
    /// How long a call follows an order that was taken but is not done yet.
    pub finish: Duration,
    /// After a refusal that the actors will not accept: they repeat within half a second, a service counts requests.
    pub refused: Duration,
    /// The subscription to pushes is renewed so often.
    pub subscription: Duration,
    /// So long without an answer ends the stream of heights.
    pub silence: Duration,
}

impl Default for NodeTimings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            pace: seconds(20),
            look: seconds(2),
            slowest: seconds(10),
            look_held: seconds(5),
            funds: seconds(1),
            finish: seconds(20),
            refused: seconds(2),
            subscription: seconds(300),
            silence: seconds(60),
        }
    }
}

struct Inner {
    caller: Caller,
    terms: SiteTerms,
    timings: NodeTimings,
    /// When the service took the subscription last, or was asked in vain.
    subscribed: tokio::sync::Mutex<Option<Instant>>,
    /// When settled money was asked for last.
    funds_asked: tokio::sync::Mutex<Option<Instant>>,
    /// When a wrong clock was last told of.
    told: Mutex<Option<Instant>>,
}

/// A service as a Lightning node. Cheap to clone.
#[derive(Clone)]
pub struct NostrNode(Arc<Inner>);

impl NostrNode {
    /// The service of `caller`, for a site with these terms.
    #[must_use]
    pub fn new(caller: Caller, terms: SiteTerms, timings: NodeTimings) -> Self {
        Self(Arc::new(Inner {
            caller,
            terms,
            timings,
            subscribed: tokio::sync::Mutex::default(),
            funds_asked: tokio::sync::Mutex::default(),
            told: Mutex::default(),
        }))
    }

    /// Asks, and slows down whoever would ask again at once.
    async fn ask<T>(&self, call: &Call, read: fn(&Object) -> Result<T, BadField>) -> Result<T, LnError> {
        match self.0.caller.ask(call, read).await {
            Ok(result) => Ok(result),
            Err(error) => Err(self.refused(call, error).await),
        }
    }

    async fn refused(&self, call: &Call, error: CallError) -> LnError {
        let error = answer::error(call, &error);
        // Without an answer the call has taken its time already; a canceled invoice is the end of it.
        if !matches!(error.kind, LnErrorKind::Timeout | LnErrorKind::AlreadyCanceled) {
            sleep(self.0.timings.refused).await;
        }
        error
    }

    async fn hold_invoice(&self, hash: &PaymentHash) -> Result<Option<HoldInvoice>, LnError> {
        let call = Call::GetHoldInvoice(*hash);
        match self.0.caller.ask(&call, HoldInvoice::read).await {
            Ok(invoice) if invoice.payment_hash == *hash => Ok(Some(invoice)),
            Ok(invoice) => Err(answer::about_another(&call, &invoice.payment_hash)),
            Err(CallError::Failed(failure)) if failure.code == Code::NotFound => Ok(None),
            Err(error) => Err(self.refused(&call, error).await),
        }
    }

    /// Follows an order that the service has taken, until it is done.
    async fn end(&self, order: &Call, hash: &PaymentHash, first: Standing) -> Result<End, LnError> {
        let until = Instant::now() + self.0.timings.finish;
        let mut standing = first;
        loop {
            match standing {
                (HoldState::Settled, true) => return Ok(End::Settled),
                (HoldState::Canceled, true) => return Ok(End::Canceled),
                _ => {}
            }
            if Instant::now() >= until {
                let words = "the service has the order, but its node has not done it yet";
                return Err(answer::say(order, LnErrorKind::NotReady, words));
            }
            sleep(self.0.timings.look).await;
            standing = match self.hold_invoice(hash).await? {
                Some(invoice) => (invoice.state, invoice.done),
                None => {
                    return Err(answer::say(
                        order,
                        LnErrorKind::NotFound,
                        "the service does not know it any more",
                    ));
                }
            };
        }
    }

    /// Where the invoice stands after an order. A code that says that it ends so "or will" stands for the taken order.
    async fn order(&self, call: &Call, hash: &PaymentHash, same: Code) -> Result<Standing, LnError> {
        match self.0.caller.ask(call, InvoiceStanding::read).await {
            Ok(standing) if standing.payment_hash == *hash => Ok((standing.state, standing.done)),
            Ok(standing) => Err(answer::about_another(call, &standing.payment_hash)),
            Err(CallError::Failed(failure)) if failure.code == same => Ok((HoldState::Accepted, false)),
            Err(error) => Err(self.refused(call, error).await),
        }
    }

    /// However many settlements are pending, their questions leave most of the service's requests per minute to customers.
    async fn turn_for_funds(&self) {
        let mut asked = self.0.funds_asked.lock().await;
        if let Some(asked) = *asked {
            tokio::time::sleep_until(asked + self.0.timings.funds).await;
        }
        *asked = Some(Instant::now());
    }

    /// A wrong clock makes a site mute: tell before it is too late.
    fn tell_skew(&self, skew: i64) {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if fit::is_worth_telling(skew) && told.is_none_or(|told| now - told >= Duration::from_secs(60)) {
            *told = Some(now);
            tracing::warn!("{}: set it right", fit::skew_text(skew));
        }
    }
}

/// What the service says of an invoice, and whether its node has done it.
type Standing = (HoldState, bool);

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Settled,
    Canceled,
}

#[async_trait]
impl Lightning for NostrNode {
    /// Asks nothing: how the service's node fares is part of the answer to [`Lightning::info`], which is asked next. One
    /// answer serves both, and none is used twice: an old one must not vouch for a node that was swapped since.
    async fn state(&self) -> Result<NodeState, LnError> {
        Ok(NodeState::ServerActive)
    }

    /// The identity is that of the service's node. What speaks against new invoices only (the service's node is down, the
    /// terms do not fit, a clock is wrong) is in `no_new` and no error: a settle order must go out all the same, because
    /// the service keeps it until its node is back.
    async fn info(&self) -> Result<NodeInfo, LnError> {
        let call = Call::GetServiceInfo;
        let info = self.ask(&call, ServiceInfo::read).await?;
        let skew = self.0.caller.skew_seconds().unwrap_or(0);
        self.tell_skew(skew);
        let no_new = fit::no_new(&self.0.terms, &info, skew);
        answer::node_info(&call, info, no_new)
    }

    /// `private_route_hints` is the service's own matter.
    async fn add_hold_invoice(&self, request: &HoldInvoiceRequest) -> Result<String, LnError> {
        let create = answer::create(request)?;
        let cltv_expiry = request.cltv_expiry;
        let call = Call::CreateHoldInvoice(create);
        let created = match self.0.caller.ask(&call, CreatedInvoice::read).await {
            Ok(created) => created,
            // The quote is not paid yet: better no invoice now than one after the customer has left.
            Err(CallError::Failed(failure)) if answer::ends_the_quote(failure.code) => {
                return Err(answer::say(&call, LnErrorKind::Invalid, failure.to_string()));
            }
            Err(error) => return Err(self.refused(&call, error).await),
        };
        let fits = answer::check_invoice(&created.invoice, &request.hash, request.amount)
            .and_then(|invoice| answer::check_payable(&invoice, cltv_expiry, self.0.caller.now()));
        match fits {
            Ok(()) => Ok(created.invoice),
            Err(why) => Err(answer::say(&call, LnErrorKind::Invalid, why)),
        }
    }

    /// `Ok` when the service says SETTLED. It answers as soon as it has the preimage durably, with ACCEPTED while its node
    /// is at it; if that takes long the error makes the order run again, which changes nothing there.
    async fn settle(&self, preimage: &Preimage) -> Result<(), LnError> {
        let (call, hash) = (Call::SettleHoldInvoice(preimage.clone()), preimage.hash());
        let standing = self.order(&call, &hash, Code::AlreadySettled).await?;
        match self.end(&call, &hash, standing).await? {
            End::Settled => Ok(()),
            End::Canceled => Err(answer::say(
                &call,
                LnErrorKind::AlreadyCanceled,
                "the invoice is canceled",
            )),
        }
    }

    /// `Ok` when the service says CANCELED and that its node has done it: only then the customer has the money back.
    async fn cancel(&self, hash: &PaymentHash) -> Result<(), LnError> {
        let call = Call::CancelHoldInvoice(*hash);
        let standing = self.order(&call, hash, Code::AlreadyCanceled).await?;
        match self.end(&call, hash, standing).await? {
            End::Canceled => Ok(()),
            End::Settled => Err(answer::say(
                &call,
                LnErrorKind::AlreadySettled,
                "the invoice is settled",
            )),
        }
    }

    async fn lookup(&self, hash: &PaymentHash) -> Result<Option<InvoiceSnapshot>, LnError> {
        let found = self.hold_invoice(hash).await?;
        found.map(answer::snapshot).transpose()
    }

    /// commitHoldInvoice: `Ok` with a hold means that the service has the commitment durably, and keeps the hold for
    /// longer than an outcome may stay unknown here. An answer that was lost leaves a commitment without a dispense: the
    /// call is repeated, or the cash-out ends and cancels.
    async fn commit(&self, hash: &PaymentHash) -> Result<Commitment, LnError> {
        let call = Call::CommitHoldInvoice(*hash);
        let committed = match self.0.caller.ask(&call, CommittedInvoice::read).await {
            Ok(committed) if committed.payment_hash == *hash => committed,
            Ok(committed) => return Err(answer::about_another(&call, &committed.payment_hash)),
            Err(CallError::Failed(failure)) if answer::ends_the_hold(failure.code) => {
                tracing::warn!(invoice = %hash, %failure, "the service does not commit");
                return Ok(answer::NOTHING_HELD);
            }
            Err(error) => return Err(self.refused(&call, error).await),
        };
        // By the service's clock.
        let now = self.0.caller.now();
        let theirs = now
            .as_secs()
            .saturating_add_signed(self.0.caller.skew_seconds().unwrap_or(0));
        match fit::commitment_fits(&self.0.terms, &committed, theirs) {
            Ok(lasts) => answer::commitment(&committed, now.plus(lasts)),
            Err(why) => {
                tracing::warn!(invoice = %hash, %why, "not committed");
                Ok(answer::NOTHING_HELD)
            }
        }
    }

    /// Whether this key may use the service is what `info` finds out; there are no rights within that.
    async fn rights(&self) -> Result<(), LnError> {
        Ok(())
    }

    /// Asks nothing: whether the service follows settlements is part of the answer to [`Lightning::info`].
    async fn follows(&self) -> Result<(), LnError> {
        Ok(())
    }

    async fn funds(&self, hash: &PaymentHash) -> Result<FundsSeen, LnError> {
        self.turn_for_funds().await;
        match self.hold_invoice(hash).await? {
            Some(invoice) => answer::funds(&invoice),
            None => {
                let words = "the service does not know it any more";
                Err(answer::say(&Call::GetHoldInvoice(*hash), LnErrorKind::NotFound, words))
            }
        }
    }

    /// None ever: looking finds all of them.
    async fn finals(&self) -> Result<Updates<HtlcKey>, LnError> {
        Ok(Box::pin(futures_util::stream::pending()))
    }

    fn pace(&self) -> Duration {
        self.0.timings.pace.max(Duration::from_secs(1))
    }

    async fn watch(&self, hash: &PaymentHash) -> Result<Updates<InvoiceSnapshot>, LnError> {
        Ok(watch::invoice(self.clone(), *hash))
    }

    /// The first of a new connection: pushes are asked for anew, the service may have forgotten it.
    async fn blocks(&self) -> Result<Updates<u32>, LnError> {
        *self.0.subscribed.lock().await = None;
        Ok(watch::heights(self.clone()))
    }
}
