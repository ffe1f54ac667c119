//! What customers and operators ask of a machine: a promise, a cancel, a decision, service.
//!
//! Called through the fleet's door. What must stay true: a promise, with its preimage, is durable before LND hears
//! of it; an operator's order is durable before it acts.

use std::pin::Pin;
use std::time::Duration;

use actix::{
    ActorFutureExt, AsyncContext, Context, ContextFutureSpawner, Handler, Message, ResponseFuture, WrapFuture,
};
use tokio::sync::oneshot;

use super::super::drive::{drive, write};
use super::super::fleet::{AtmOrder, AtmStatus, FleetError};
use super::super::item::{Item, Verdict};
use super::super::journal::JournalError;
use super::super::supervisor::Forgive;
use super::figures::Stopwatch;
use super::{Atm, Carrier};
use crate::cashout::ledger::Cassette;
use crate::cashout::mix::mix;
use crate::cashout::quote::{QuoteError, price};
use crate::cashout::{CashOut, Event, Quote};
use crate::config::MOST_NOTES;
use crate::ids::{CashOutId, Preimage};
use crate::metrics::{AtmState, FailureReason};
use crate::money::Minor;
use crate::record::{AtmEvent, Body};

/// How long a machine whose promise could not be written down turns customers away.
const TROUBLE: Duration = Duration::from_secs(2);

/// A customer wants notes of this value.
#[derive(Debug, Message)]
#[rtype(result = "Result<Promised, FleetError>")]
pub struct Start(pub Minor);

/// A promise that is durable.
#[derive(Debug)]
pub struct Promised {
    /// Which.
    pub id: CashOutId,
    /// Tells when its invoice is open, or never will be.
    pub opened: oneshot::Receiver<CashOut>,
}

/// An event that a customer or an operator brings to an open cash-out.
#[derive(Message)]
#[rtype(result = "Result<CashOut, FleetError>")]
pub struct Bring {
    /// To which.
    pub id: CashOutId,
    /// What.
    pub event: Event,
}

/// An operator's order to the machine.
#[derive(Debug, Message)]
#[rtype(result = "Result<AtmStatus, FleetError>")]
pub struct Operate {
    /// Who.
    pub by: String,
    /// What.
    pub order: AtmOrder,
}

type Asked<T> = ResponseFuture<Result<T, FleetError>>;

fn ready<T: 'static>(answer: Result<T, FleetError>) -> Asked<T> {
    Box::pin(async move { answer })
}

fn answered<T: 'static>(answer: oneshot::Receiver<Result<T, FleetError>>) -> Asked<T> {
    let gone = |_| Err(FleetError::Unavailable("the machine's actor ended over it".into()));
    Box::pin(async move { answer.await.unwrap_or_else(gone) })
}

impl Atm {
    /// The quote for notes of value `amount`, or why there is none.
    fn quote(&self, amount: Minor) -> Result<Quote, FleetError> {
        let config = &self.seat.config;
        let terms = &self.shared.terms;
        match self.standing() {
            (AtmState::Ready, _) => {}
            (AtmState::Busy, _) => return Err(FleetError::Busy(config.id.clone())),
            (_, reason) => {
                let reason = reason.unwrap_or_else(|| "it is starting".into());
                return Err(FleetError::NotInService {
                    atm: config.id.clone(),
                    reason,
                });
            }
        }
        let (min, max) = (config.min_amount, config.max_amount);
        if amount < min || amount > max {
            return Err(QuoteError::OutOfLimits { amount, min, max }.into());
        }
        let reserved = self.items.values().map(Item::state).filter_map(CashOut::reserved);
        let stock = self.book.notes.available(reserved);
        let mix = mix(amount, &stock, config.max_notes).ok_or(QuoteError::NoMix(amount))?;
        let no_rate = || QuoteError::NoRate(terms.currency.to_string());
        let rate = terms.rate.rate(terms.currency).ok_or_else(no_rate)?;
        let (fee, price) = price(amount, &terms.fee, &rate)?;
        let preimage = self.random().map(Preimage::from_bytes)?;
        let at = self.shared.clock.now();
        Ok(Quote {
            atm: config.id.clone(),
            amount,
            fee,
            currency: terms.currency,
            rate,
            price,
            mix,
            hash: preimage.hash(),
            preimage,
            at,
            pay_by: at.plus(terms.payment_timeout),
            policy: terms.policy.clone(),
        })
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], FleetError> {
        let mut bytes = [0; N];
        let filled = self.shared.entropy.fill(&mut bytes);
        filled.map_err(|error| FleetError::Refused(error.to_string()))?;
        Ok(bytes)
    }

    /// Writes a promise down, then begins to keep it.
    fn promise(&mut self, quote: Quote, ctx: &mut Context<Self>) -> Asked<Promised> {
        let id = match self.random() {
            Ok(bytes) => CashOutId::new(quote.at, u32::from_le_bytes(bytes)),
            Err(error) => return ready(Err(error)),
        };
        let (answer, answer_rx) = oneshot::channel();
        let event = Event::Quoted {
            quote: Box::new(quote.clone()),
        };
        let written = write(self.shared.journal.clone(), Body::CashOut { id, event });
        self.promising = true;
        ctx.spawn(written.into_actor(self).map(move |written, this: &mut Self, ctx| {
            this.promising = false;
            if let Err(error) = written {
                return drop(answer.send(Err(this.not_promised(error, ctx))));
            }
            let (opening, opened) = oneshot::channel();
            let cashout = CashOut::quoted(id, quote);
            tracing::info!(cashout = %id, atm = %cashout.quote.atm, amount = %cashout.quote.amount, "promised");
            let _ = this.shared.changes.send(cashout.clone());
            this.items.insert(id, Item::new(cashout));
            this.opening.insert(id, opening);
            this.watches.insert(id, Stopwatch::started());
            this.arm(id, ctx);
            drive(this, id, ctx);
            let _ = answer.send(Ok(Promised { id, opened }));
        }));
        answered(answer_rx)
    }

    fn not_promised(&mut self, error: JournalError, ctx: &mut Context<Self>) -> FleetError {
        self.shared.metrics.failed(FailureReason::JournalFailed);
        let why = error.to_string();
        if let JournalError::Unknown(_) = error {
            self.astray(&why, ctx);
            return FleetError::Unavailable(why);
        }
        // Nothing is left to be written again, so the next customer is the one who tries.
        self.journal_trouble(Some(&why));
        ctx.run_later(TROUBLE, |this, _| this.journal_trouble(None));
        FleetError::NotInService {
            atm: self.seat.config.id.clone(),
            reason: why,
        }
    }

    fn events_of(&self, by: String, order: &AtmOrder) -> Result<Vec<AtmEvent>, FleetError> {
        let refused = |why: String| Err(FleetError::Refused(why));
        match order {
            AtmOrder::Drain => Ok(vec![AtmEvent::Drained { by }]),
            AtmOrder::Resume => Ok(vec![AtmEvent::Resumed { by }]),
            AtmOrder::Load(_) if self.serving().is_some() || self.promising => {
                refused("a customer is being served: drain the machine first, and load it when it is empty".into())
            }
            AtmOrder::Load(_) if self.clearing => {
                refused("its dispenser's path is being cleared: load it in a moment".into())
            }
            AtmOrder::Load(cassettes) => cassettes.iter().map(|cassette| self.loaded(&by, cassette)).collect(),
        }
    }

    fn loaded(&self, by: &str, cassette: &Cassette) -> Result<AtmEvent, FleetError> {
        let position = cassette.position;
        let refused = |why: String| Err(FleetError::Refused(why));
        let mut configured = self.seat.config.cassettes.iter();
        let Some(known) = configured.find(|known| known.position == position) else {
            return refused(format!("cassette {position} is not configured for this machine"));
        };
        // A typing mistake here would be paid out with each of these notes.
        if cassette.denomination != known.denomination {
            return refused(format!(
                "cassette {position} is configured with notes of {}, not of {}: when it holds others now, change its \
                 denomination in the configuration first",
                known.denomination, cassette.denomination
            ));
        }
        if cassette.loaded > MOST_NOTES {
            return refused(format!("cassette {position} holds at most {MOST_NOTES} notes"));
        }
        let (denomination, notes, by) = (cassette.denomination, cassette.loaded, by.to_owned());
        Ok(AtmEvent::CassetteLoaded {
            position,
            denomination,
            notes,
            by,
        })
    }

    /// Does what an operator's durable order says.
    fn obey(&mut self, event: &AtmEvent, ctx: &mut Context<Self>) {
        self.book.apply(event);
        if let AtmEvent::Resumed { .. } = event {
            self.clear_tried = false;
            self.resumed = true;
            self.clears.forgive();
            self.seat.suspend(None);
            if let Some(supervisor) = self.shared.supervisor.get() {
                // Its deaths stay counted when it is too busy; the order stands.
                let _ = supervisor.try_send(Forgive(self.seat.config.id.clone()));
            }
            self.care(ctx);
        }
    }
}

impl Handler<Start> for Atm {
    type Result = Asked<Promised>;

    fn handle(&mut self, Start(amount): Start, ctx: &mut Self::Context) -> Self::Result {
        match self.quote(amount) {
            Ok(quote) => self.promise(quote, ctx),
            Err(error) => {
                let reason = match &error {
                    FleetError::Quote(QuoteError::OutOfLimits { .. } | QuoteError::Overflow(_)) => {
                        Some(FailureReason::OutOfLimits)
                    }
                    FleetError::Quote(QuoteError::NoMix(_)) => Some(FailureReason::NoMix),
                    FleetError::Quote(QuoteError::NoRate(_)) => Some(FailureReason::NoRate),
                    _ => None,
                };
                if let Some(reason) = reason {
                    self.shared.metrics.failed(reason);
                }
                ready(Err(error))
            }
        }
    }
}

impl Handler<Bring> for Atm {
    type Result = Asked<CashOut>;

    fn handle(&mut self, Bring { id, event }: Bring, ctx: &mut Self::Context) -> Self::Result {
        let Some(item) = self.items.get_mut(&id) else {
            return ready(Err(match self.loaded {
                true => FleetError::NoSuchCashOut(id),
                false => FleetError::Unavailable("the machine's books are being read".into()),
            }));
        };
        let (answer, answer_rx) = oneshot::channel();
        let then = move |verdict: Verdict<CashOut>| {
            // Whoever asked may be gone; the event stands.
            let _ = answer.send(verdict.map_err(|refused| FleetError::Refused(refused.why)));
        };
        item.offer_then(event, Box::new(then));
        drive(self, id, ctx);
        answered(answer_rx)
    }
}

impl Handler<Operate> for Atm {
    type Result = Asked<AtmStatus>;

    fn handle(&mut self, Operate { by, order }: Operate, ctx: &mut Self::Context) -> Self::Result {
        let events = match self.events_of(by, &order) {
            Ok(events) => events,
            Err(error) => return ready(Err(error)),
        };
        let (journal, atm) = (self.shared.journal.clone(), self.seat.config.id.clone());
        let written = async move {
            for (done, event) in events.iter().enumerate() {
                let body = Body::Atm {
                    id: atm.clone(),
                    event: event.clone(),
                };
                if let Err(error) = write(journal.clone(), body).await {
                    return (events.get(..done).unwrap_or_default().to_vec(), Some(error));
                }
            }
            (events, None)
        };
        let (answer, answer_rx) = oneshot::channel();
        // Nothing else happens meanwhile: what was checked above must still hold.
        let written: Pin<Box<_>> = Box::pin(written.into_actor(self).map(|(events, failed), this: &mut Self, ctx| {
            for event in &events {
                this.obey(event, ctx);
            }
            let answered = match failed {
                None => Ok(this.status()),
                Some(error) => Err(this.not_promised(error, ctx)),
            };
            let _ = answer.send(answered);
        }));
        written.wait(ctx);
        answered(answer_rx)
    }
}
