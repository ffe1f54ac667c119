//! The actor of one pending invoice: from the intent to add it to its end at LND, and its deadlines.
//!
//! Spawned by the supervisor when its owner asks for it or when it is open in the journal; it tells its owner of
//! each change ([`InvoiceSeen`]) and ends when the invoice does. Decisions are in [`crate::invoice`]. What must stay
//! true: a reply to an order means that its record is durable; the end of a stream is never taken for an answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, ContextFutureSpawner, Handler, Message, ResponseFuture,
    SpawnHandle, StreamHandler, WrapFuture,
};
use thiserror::Error;
use tokio::sync::oneshot;

use super::child::{DownGuard, Post, can_panic};
use super::drive::{Carrier, Done, Flights, Work, drive, restart, write};
use super::funds;
use super::invoice_work::{self, Following};
use super::item::{Item, Refused, Verdict};
use super::journal::{Journal, JournalError, load_invoice};
use super::lnd::{self, LndStatus};
use super::shared::Shared;
use crate::ids::{PaymentHash, Preimage};
use crate::invoice::{self, Effect, Invoice, InvoiceEvent, InvoicePhase, InvoiceSpec, Owner};
use crate::lnd::{Commitment, InvoiceState};
use crate::metrics::{ActorKind, FailureReason, LndMethod};
use crate::money::Funds;
use crate::record::Body;
use crate::time::UnixMs;

/// How long the actor of an ended invoice still answers for it.
const LINGER: Duration = Duration::from_secs(2);

/// What an owner wants of its invoice.
pub enum Order {
    /// Have it added.
    Open(Box<InvoiceSpec>),
    /// Tell its state.
    Look,
    /// Keep it: a dispense is about to start. The hold is read anew at LND first.
    Commit,
    /// Settle it.
    Settle(Preimage),
    /// Cancel it, and why.
    Cancel(String),
}

/// An order to the actor of an invoice.
#[derive(Message)]
#[rtype(result = "Result<Reply, OrderError>")]
pub struct InvoiceCall {
    /// Which invoice.
    pub hash: PaymentHash,
    /// What is wanted.
    pub order: Order,
}

/// The invoice after an order.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its state, durable.
    pub invoice: Invoice,
    /// After [`Order::Commit`]: for how long, read just now.
    pub kept: Option<Kept>,
}

/// How long a committed hold lasts.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Blocks before LND cancels.
    pub blocks_left: i64,
    /// See [`Commitment::kept_until`].
    pub until: Option<UnixMs>,
}

/// Why an order was not followed.
#[derive(Debug, Clone, Error)]
pub enum OrderError {
    /// There never was such an invoice.
    #[error("this invoice was never asked for")]
    Unknown,
    /// It does not fit the invoice's state.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
        /// The state.
        invoice: Box<Invoice>,
    },
    /// Not now: ask again.
    #[error("{0}")]
    Later(String),
}

/// An invoice has changed; for its owner.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct InvoiceSeen(pub Invoice);

/// The actor of one invoice.
pub struct InvoiceActor {
    hash: PaymentHash,
    shared: Arc<Shared>,
    item: Option<Item<Invoice>>,
    flights: Flights<(), Effect>,
    timer: Option<SpawnHandle>,
    epoch: u64,
    /// LND has answered that it was added, and was not asked about it since.
    just_added: bool,
    /// What it is followed by, between one of LND's words and the next.
    following: Following,
    guard: DownGuard,
}

impl InvoiceActor {
    /// One life of it.
    #[must_use]
    pub fn new(hash: PaymentHash, shared: Arc<Shared>, guard: DownGuard) -> Self {
        Self {
            hash,
            shared,
            item: None,
            flights: Flights::new(),
            timer: None,
            epoch: 0,
            just_added: false,
            following: Following::default(),
            guard,
        }
    }

    fn invoice(&self) -> Option<&Invoice> {
        self.item.as_ref().map(Item::state)
    }

    fn load(&mut self, ctx: &mut Context<Self>) {
        let (journal, hash) = (self.shared.journal.clone(), self.hash);
        let loaded = async move {
            let journal = journal.there().await;
            let loaded = journal.send(load_invoice(hash)).await;
            loaded.unwrap_or_else(|error| Err(JournalError::Unknown(error.to_string())))
        };
        let loaded = loaded.into_actor(self).map(|loaded, this, ctx| match loaded {
            // Back after a death, or for an order: should none come, there is nothing to do.
            Ok(None) => this.end_later(ctx),
            Ok(Some(invoice)) => this.take_up(invoice, ctx),
            Err(error) => this.astray(&error.to_string(), ctx),
        });
        loaded.wait(ctx);
    }

    fn take_up(&mut self, invoice: Invoice, ctx: &mut Context<Self>) {
        self.item = Some(Item::new(invoice));
        self.epoch = self.shared.status.borrow().epoch;
        self.tell_owner();
        self.arm(ctx);
        drive(self, (), ctx);
        if self.is_over() {
            self.end_later(ctx);
        }
    }

    fn tell_owner(&self) {
        let Some(invoice) = self.invoice() else { return };
        let seen = || InvoiceSeen(invoice.clone());
        // An owner that is not there, or too busy, asks by itself later.
        let (told, owner) = match &invoice.spec.owner {
            Owner::Atm { atm, .. } => {
                let owner = self.shared.seats.get(atm).and_then(|seat| seat.atm.get());
                (owner.is_none_or(|owner| owner.try_send(seen()).is_ok()), ActorKind::Atm)
            }
            Owner::Remote { .. } => {
                let owner = self.shared.nostr.get();
                (
                    owner.is_none_or(|owner| owner.try_send(seen()).is_ok()),
                    ActorKind::Nostr,
                )
            }
        };
        if !told {
            self.shared.metrics.message_refused(owner);
        }
    }

    /// Arms the timer for the state's deadline.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(due) = self.invoice().and_then(invoice::deadline) else {
            return;
        };
        let wait = due.since(self.shared.clock.now());
        self.timer = Some(ctx.run_later(wait, move |this, ctx| {
            // Read once: between two readings the deadline could pass, with no timer left to tell.
            let at = this.shared.clock.now();
            if at < due {
                // The wall clock was set back.
                return this.arm(ctx);
            }
            this.offer(InvoiceEvent::DeadlinePassed { at }, ctx);
        }));
    }

    fn offer(&mut self, event: InvoiceEvent, ctx: &mut Context<Self>) {
        if let Some(item) = &mut self.item {
            item.offer(event);
            drive(self, (), ctx);
        }
    }

    /// An ended invoice, or none at all, needs no actor.
    fn is_over(&self) -> bool {
        self.invoice().is_none_or(Invoice::is_final)
    }

    fn end_later(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(LINGER, |this, ctx| {
            if this.is_over() {
                this.guard.retire();
                ctx.stop();
            }
        });
    }

    /// Offers an order's event and answers when it is durable, or refused.
    fn order(
        &mut self,
        event: InvoiceEvent,
        kept: Option<Kept>,
        ctx: &mut Context<Self>,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, OrderError>>>> {
        let Some(item) = &mut self.item else {
            return Box::pin(async { Err(OrderError::Unknown) });
        };
        let (answer, answered) = oneshot::channel();
        let then = move |verdict: Verdict<Invoice>| {
            let reply = match verdict {
                Ok(invoice) => Ok(Reply { invoice, kept }),
                Err(Refused { why, state }) => Err(OrderError::Refused {
                    why,
                    invoice: Box::new(state),
                }),
            };
            // Whoever asked may be gone; the order stands.
            let _ = answer.send(reply);
        };
        item.offer_then(event, Box::new(then));
        drive(self, (), ctx);
        let gone = |_| OrderError::Later("the invoice's actor ended over the order".into());
        Box::pin(async move { answered.await.map_err(gone)? })
    }

    fn requested(&mut self, spec: InvoiceSpec, ctx: &mut Context<Self>) -> ResponseFuture<Result<Reply, OrderError>> {
        if self.item.is_some() {
            return self.order(InvoiceEvent::Requested { spec }, None, ctx);
        }
        let (answer, answered) = oneshot::channel();
        let event = InvoiceEvent::Requested { spec: spec.clone() };
        let body = Body::Invoice { hash: self.hash, event };
        let written = write(self.shared.journal.clone(), body).into_actor(self);
        // The mailbox waits: a second order must find the first one's result.
        let written = written.map(move |written, this: &mut Self, ctx| {
            let invoice = Invoice::requested(spec);
            let reply = match written {
                Ok(()) => {
                    this.take_up(invoice.clone(), ctx);
                    Ok(Reply { invoice, kept: None })
                }
                Err(JournalError::Unknown(why)) => {
                    this.astray(&why, ctx);
                    Err(OrderError::Later(why))
                }
                Err(error) => Err(OrderError::Later(error.to_string())),
            };
            let _ = answer.send(reply);
        });
        written.wait(ctx);
        Box::pin(async move {
            answered
                .await
                .unwrap_or(Err(OrderError::Later("the invoice's actor ended".into())))
        })
    }

    /// Reads the hold and the height at LND, then commits.
    fn commit(&mut self, ctx: &mut Context<Self>) -> ResponseFuture<Result<Reply, OrderError>> {
        let (shared, hash) = (Arc::clone(&self.shared), self.hash);
        let (answer, answered) = oneshot::channel();
        let read = async move { shared.ask_lnd(LndMethod::Commit, lnd::commit(hash)).await };
        let read = read.into_actor(self).map(move |read, this, ctx| {
            let committed = match read {
                Err(error) => Err(OrderError::Later(error.to_string())),
                Ok(commitment) => this.commit_seen(commitment),
            };
            match committed {
                Err(error) => drop(answer.send(Err(error))),
                Ok((event, kept)) => {
                    let reply = this.order(event, Some(kept), ctx);
                    let forward = async move { drop(answer.send(reply.await)) };
                    ctx.spawn(forward.into_actor(this));
                }
            }
        });
        ctx.spawn(read);
        Box::pin(async move {
            answered
                .await
                .unwrap_or(Err(OrderError::Later("the invoice's actor ended".into())))
        })
    }

    fn commit_seen(&self, seen: Commitment) -> Result<(InvoiceEvent, Kept), OrderError> {
        let Commitment {
            held,
            height,
            kept_until,
        } = seen;
        let invoice = self.invoice().ok_or(OrderError::Unknown)?;
        let refused = |why: String| OrderError::Refused {
            why,
            invoice: Box::new(invoice.clone()),
        };
        let held = held.filter(|seen| seen.state == InvoiceState::Accepted && seen.paid >= invoice.spec.amount);
        let expiry = held.and_then(|seen| seen.lowest_expiry_height);
        let Some(expiry) = expiry else {
            return Err(refused("LND does not hold the payment any more".into()));
        };
        let recorded = invoice
            .hold()
            .map_or(expiry, |hold| hold.lowest_expiry_height.min(expiry));
        let (delta, height) = {
            let status = self.shared.status.borrow();
            // The hold may have been read a block after the height.
            (status.delta(invoice.spec.hold_expiry_delta), height.max(status.height))
        };
        let blocks_left = crate::lnd::window::blocks_left(recorded, delta, height);
        if blocks_left < i64::from(invoice.spec.min_blocks_left) {
            return Err(refused(format!(
                "{blocks_left} blocks are left before LND cancels, too few for a dispense"
            )));
        }
        let at = self.shared.clock.now();
        let kept = Kept {
            blocks_left,
            until: kept_until,
        };
        Ok((InvoiceEvent::Committed { at, height }, kept))
    }
}

impl Actor for InvoiceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        self.load(ctx);
        ctx.add_stream(self.shared.status.subscribe().stream());
    }
}

can_panic!(InvoiceActor);

impl Handler<InvoiceCall> for InvoiceActor {
    type Result = ResponseFuture<Result<Reply, OrderError>>;

    fn handle(&mut self, call: InvoiceCall, ctx: &mut Self::Context) -> Self::Result {
        if self.item.is_none() && !matches!(call.order, Order::Open(_)) {
            self.end_later(ctx);
            return Box::pin(async { Err(OrderError::Unknown) });
        }
        match call.order {
            Order::Open(spec) => self.requested(*spec, ctx),
            Order::Look => {
                let invoice = self.invoice().cloned().ok_or(OrderError::Unknown);
                Box::pin(async {
                    Ok(Reply {
                        invoice: invoice?,
                        kept: None,
                    })
                })
            }
            Order::Commit => self.commit(ctx),
            Order::Settle(preimage) => {
                let at = Some(self.shared.clock.now());
                self.order(InvoiceEvent::SettleOrdered { preimage, at }, None, ctx)
            }
            Order::Cancel(reason) => self.order(InvoiceEvent::CancelOrdered { reason }, None, ctx),
        }
    }
}

/// LND's status: a new connection means to look the invoice up anew, a new block may close its window.
impl StreamHandler<LndStatus> for InvoiceActor {
    fn handle(&mut self, status: LndStatus, ctx: &mut Self::Context) {
        if status.is_up() && std::mem::replace(&mut self.epoch, status.epoch) != status.epoch {
            self.following.end();
            restart(self, (), Effect::Watch, ctx);
            restart(self, (), Effect::FollowFunds, ctx);
        }
        if status.is_up()
            && self
                .invoice()
                .is_some_and(|i| matches!(i.phase, InvoicePhase::Accepted(_) | InvoicePhase::Committed { .. }))
        {
            self.offer(InvoiceEvent::BlockSeen { height: status.height }, ctx);
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Carrier for InvoiceActor {
    type M = Invoice;
    type Key = ();

    fn item(&mut self, (): ()) -> Option<&mut Item<Invoice>> {
        self.item.as_mut()
    }

    fn flights(&mut self) -> &mut Flights<(), Effect> {
        &mut self.flights
    }

    fn journal(&self) -> Post<Journal> {
        self.shared.journal.clone()
    }

    fn work(&mut self, (): (), effect: Effect, _: &mut Context<Self>) -> Work<InvoiceEvent> {
        let Some(invoice) = self.invoice().cloned() else {
            return Box::pin(async {
                Done {
                    events: Vec::new(),
                    again: invoice_work::RETRY,
                }
            });
        };
        let shared = Arc::clone(&self.shared);
        match effect {
            Effect::Add => Box::pin(invoice_work::add(shared, invoice)),
            Effect::Settle => Box::pin(invoice_work::settle(shared, invoice)),
            Effect::Cancel => Box::pin(invoice_work::cancel(shared, invoice)),
            Effect::Watch => {
                let known = std::mem::take(&mut self.just_added);
                Box::pin(invoice_work::watch(shared, invoice, known, self.following.clone()))
            }
            Effect::FollowFunds => Box::pin(funds::follow(shared, invoice)),
        }
    }

    fn adopted(&mut self, (): (), before: &Invoice, event: &InvoiceEvent, ctx: &mut Context<Self>) {
        if let Some(after) = self.invoice() {
            let funds = after.funds().map_or("", Funds::as_str);
            let (before, after) = (before.phase.name(), after.phase.name());
            tracing::info!(invoice = %self.hash, before, after, funds, "invoice");
        }
        self.just_added = matches!(event, InvoiceEvent::Opened { .. });
        if let InvoiceEvent::FundsSeen { funds: Funds::Lost, .. } = event {
            tracing::error!(invoice = %self.hash, "settled at LND, but an HTLC ended without the money");
            self.shared.metrics.failed(FailureReason::FundsLost);
        }
        if self
            .invoice()
            .is_none_or(|invoice| !invoice::effects(invoice).contains(&Effect::Watch))
        {
            self.following.end();
        }
        self.tell_owner();
        self.arm(ctx);
        if self.is_over() {
            self.end_later(ctx);
        }
    }

    fn refused(&mut self, (): (), event: &InvoiceEvent, why: &str) {
        tracing::warn!(invoice = %self.hash, ?event, why, "refused");
    }

    fn journal_trouble(&mut self, why: Option<&str>) {
        if let Some(why) = why {
            tracing::error!(invoice = %self.hash, why, "not recorded, will be tried again");
        }
    }

    fn astray(&mut self, why: &str, ctx: &mut Context<Self>) {
        tracing::error!(invoice = %self.hash, why, "the actor starts anew from the journal");
        self.item = None;
        ctx.stop();
    }
}
