//! The one loop for running and recovering: an item, its waiting events, its effects in flight.
//!
//! Pure bookkeeping around a [`Machine`]; the ATM and invoice actors carry its events to the journal and
//! its effects to the world. What must stay true: an event is adopted only after it is durable, one at a
//! time, in the order offered; an effect is started only for an adopted state, and only once at a time.

use std::collections::{HashSet, VecDeque};
use std::fmt::Display;
use std::hash::Hash;

use crate::cashout::{self, CashOut};
use crate::invoice::{self, Invoice};
use crate::record::Body;
use crate::time::UnixMs;

/// A pure state machine whose events are records.
pub trait Machine: Clone {
    /// What can happen.
    type Event: Clone;
    /// What has to be done.
    type Effect: Copy + Eq + Hash + std::fmt::Debug + 'static;
    /// Why an event is refused.
    type Refusal: Display;

    /// The state after `event`; `None` when nothing changes.
    ///
    /// # Errors
    /// When the event may not happen in this state.
    fn apply(&self, event: &Self::Event) -> Result<Option<Self>, Self::Refusal>;
    /// What is to be done now.
    fn effects(&self) -> &'static [Self::Effect];
    /// When the deadline event is due.
    fn deadline(&self) -> Option<UnixMs>;
    /// The event as a record of this item.
    fn record(&self, event: Self::Event) -> Body;
    /// The event stands for a check made just now: when it can not be made durable at once it is void, because
    /// what was checked may not hold any more, and its effect checks anew.
    fn perishes(event: &Self::Event) -> bool;
    /// Nothing is left to do.
    fn is_final(&self) -> bool;
}

impl Machine for CashOut {
    type Event = cashout::Event;
    type Effect = cashout::Effect;
    type Refusal = cashout::Illegal;

    fn apply(&self, event: &Self::Event) -> Result<Option<Self>, Self::Refusal> {
        cashout::apply(self, event)
    }

    fn effects(&self) -> &'static [Self::Effect] {
        cashout::effects(self)
    }

    fn deadline(&self) -> Option<UnixMs> {
        cashout::deadline(self)
    }

    fn record(&self, event: Self::Event) -> Body {
        Body::CashOut { id: self.id, event }
    }

    fn perishes(event: &Self::Event) -> bool {
        matches!(event, cashout::Event::DispenseCommitted { .. })
    }

    fn is_final(&self) -> bool {
        CashOut::is_final(self)
    }
}

impl Machine for Invoice {
    type Event = invoice::InvoiceEvent;
    type Effect = invoice::Effect;
    type Refusal = invoice::IllegalInvoiceEvent;

    fn apply(&self, event: &Self::Event) -> Result<Option<Self>, Self::Refusal> {
        invoice::apply(self, event)
    }

    fn effects(&self) -> &'static [Self::Effect] {
        invoice::effects(self)
    }

    fn deadline(&self) -> Option<UnixMs> {
        invoice::deadline(self)
    }

    fn record(&self, event: Self::Event) -> Body {
        Body::Invoice {
            hash: self.spec.hash,
            event,
        }
    }

    fn perishes(event: &Self::Event) -> bool {
        matches!(event, invoice::InvoiceEvent::Committed { .. })
    }

    fn is_final(&self) -> bool {
        Invoice::is_final(self)
    }
}

/// An event that was refused.
pub struct Refused<M> {
    /// Why.
    pub why: String,
    /// The state that it met, which may be a later one than when it was offered.
    pub state: M,
}

/// What became of an offered event, told to whoever offered it.
pub type Verdict<M> = Result<M, Refused<M>>;

/// Called once with the state after the event (changed or not), or with the refusal.
pub type Then<M> = Box<dyn FnOnce(Verdict<M>)>;

struct Offer<M: Machine> {
    event: M::Event,
    then: Option<Then<M>>,
}

/// An item and what is going on around it.
pub struct Item<M: Machine> {
    state: M,
    queue: VecDeque<Offer<M>>,
    /// The state to adopt once its event is durable, and who waits for it.
    appending: Option<(M, Offer<M>)>,
    in_flight: HashSet<M::Effect>,
}

/// The next thing for the actor to do.
pub enum Step<M: Machine> {
    /// Make this durable, then call [`Item::adopt`].
    Append(Body),
    /// An event was refused; it is gone.
    Refused {
        /// Which.
        event: M::Event,
        /// Why.
        why: String,
    },
    /// Wait.
    Idle,
}

impl<M: Machine> Item<M> {
    /// An item in a state that is durable.
    pub fn new(state: M) -> Self {
        Self {
            state,
            queue: VecDeque::new(),
            appending: None,
            in_flight: HashSet::new(),
        }
    }

    /// The adopted state.
    pub fn state(&self) -> &M {
        &self.state
    }

    /// Adds an event to the queue.
    pub fn offer(&mut self, event: M::Event) {
        self.queue.push_back(Offer { event, then: None });
    }

    /// Adds an event to the queue; `then` hears what became of it.
    pub fn offer_then(&mut self, event: M::Event, then: Then<M>) {
        self.queue.push_back(Offer {
            event,
            then: Some(then),
        });
    }

    /// Takes events off the queue up to the first that changes the state.
    pub fn step(&mut self) -> Step<M> {
        if self.appending.is_some() {
            return Step::Idle;
        }
        while let Some(mut offer) = self.queue.pop_front() {
            match self.state.apply(&offer.event) {
                Ok(None) => {
                    if let Some(then) = offer.then.take() {
                        then(Ok(self.state.clone()));
                    }
                }
                Ok(Some(next)) => {
                    let body = self.state.record(offer.event.clone());
                    self.appending = Some((next, offer));
                    return Step::Append(body);
                }
                Err(refusal) => {
                    let why = refusal.to_string();
                    if let Some(then) = offer.then.take() {
                        let state = self.state.clone();
                        then(Err(Refused {
                            why: why.clone(),
                            state,
                        }));
                    }
                    return Step::Refused {
                        event: offer.event,
                        why,
                    };
                }
            }
        }
        Step::Idle
    }

    /// The event being appended is durable: its state is the item's state now. Effects that the new state
    /// does not ask for any more are forgotten; returns the state before, and the event.
    pub fn adopt(&mut self) -> Option<(M, M::Event)> {
        let (next, mut offer) = self.appending.take()?;
        let before = std::mem::replace(&mut self.state, next);
        let wanted = self.state.effects();
        self.in_flight.retain(|effect| wanted.contains(effect));
        if let Some(then) = offer.then.take() {
            then(Ok(self.state.clone()));
        }
        Some((before, offer.event))
    }

    /// The event being appended is definitely not in the journal: it is first in the queue again, unless it
    /// perishes. Whoever waits for one that does hears no verdict.
    pub fn not_written(&mut self) {
        if let Some((_, offer)) = self.appending.take()
            && !M::perishes(&offer.event)
        {
            self.queue.push_front(offer);
        }
    }

    /// Effects of the adopted state that are not in flight; they are from now on.
    pub fn start_effects(&mut self) -> Vec<M::Effect> {
        if self.appending.is_some() {
            return Vec::new();
        }
        let wanted = self.state.effects().iter().copied();
        wanted.filter(|effect| self.in_flight.insert(*effect)).collect()
    }

    /// An effect has ended: it is started again when the state still asks for it.
    pub fn effect_ended(&mut self, effect: M::Effect) {
        self.in_flight.remove(&effect);
    }

    /// No event waits and none is being made durable.
    pub fn is_quiet(&self) -> bool {
        self.appending.is_none() && self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cashout::tests::whole_history;
    use crate::cashout::{Effect, Event};
    use crate::ids::CashOutId;

    fn item() -> (Item<CashOut>, Vec<Event>) {
        let mut history = whole_history();
        let Event::Quoted { quote } = history.remove(0) else {
            panic!("the first event is the quote")
        };
        (
            Item::new(CashOut::quoted(CashOutId::new(UnixMs(1), 1), *quote)),
            history,
        )
    }

    #[test]
    fn an_event_is_adopted_only_after_it_is_durable_and_one_at_a_time() {
        let (mut item, history) = item();
        item.offer(history[0].clone());
        item.offer(history[1].clone());
        assert!(matches!(item.step(), Step::Append(_)));
        assert_eq!(item.state().phase.name(), "quoted");
        assert!(matches!(item.step(), Step::Idle), "one at a time");
        assert!(item.start_effects().is_empty(), "no effect beside an append");
        item.adopt();
        assert_eq!(item.state().phase.name(), "awaiting_payment");
        assert!(matches!(item.step(), Step::Append(_)));
    }

    #[test]
    fn a_record_that_was_not_written_is_tried_again_in_its_place() {
        let (mut item, history) = item();
        item.offer(history[0].clone());
        item.offer(history[1].clone());
        assert!(matches!(item.step(), Step::Append(_)));
        item.not_written();
        assert_eq!(item.state().phase.name(), "quoted");
        assert!(matches!(
            item.step(),
            Step::Append(Body::CashOut {
                event: Event::InvoiceOpened { .. },
                ..
            })
        ));
    }

    #[test]
    fn a_commitment_that_was_not_written_is_void() {
        let (mut item, history) = item();
        for event in &history[..2] {
            item.offer(event.clone());
            assert!(matches!(item.step(), Step::Append(_)));
            item.adopt();
        }
        assert!(matches!(history[2], Event::DispenseCommitted { .. }));
        item.offer(history[2].clone());
        assert!(matches!(item.step(), Step::Append(_)));
        item.not_written();
        assert!(matches!(item.step(), Step::Idle), "the hold may be gone by now");
        assert_eq!(item.state().phase.name(), "held");
    }

    #[test]
    fn a_refusal_tells_the_state_that_the_event_met() {
        let (mut item, history) = item();
        item.offer(history[0].clone());
        assert!(matches!(item.step(), Step::Append(_)));
        let (told, met) = std::sync::mpsc::channel();
        let then = move |verdict: Verdict<CashOut>| told.send(verdict.err().map(|refused| refused.state)).unwrap();
        item.offer_then(history[2].clone(), Box::new(then));
        item.adopt();
        assert!(matches!(item.step(), Step::Refused { .. }));
        let met = met.recv().unwrap().expect("refused");
        assert_eq!(met.phase.name(), "awaiting_payment", "not the one before the append");
    }

    #[test]
    fn an_effect_is_started_once_and_again_only_after_it_ended() {
        let (mut item, _) = item();
        assert_eq!(item.start_effects(), [Effect::OpenInvoice]);
        assert!(item.start_effects().is_empty());
        item.effect_ended(Effect::OpenInvoice);
        assert_eq!(item.start_effects(), [Effect::OpenInvoice]);
    }

    #[test]
    fn a_refused_event_is_named_and_the_next_goes_on() {
        let (mut item, history) = item();
        item.offer(history[2].clone());
        item.offer(history[0].clone());
        assert!(matches!(
            item.step(),
            Step::Refused {
                event: Event::DispenseCommitted { .. },
                ..
            }
        ));
        assert!(matches!(item.step(), Step::Append(_)));
    }
}
