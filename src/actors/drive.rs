//! The loop that every item goes through, running or recovering: event, journal, state, effects, event.
//!
//! Called by the ATM and invoice actors, which say how an effect is done ([`Carrier::work`]) and what follows
//! from a new state ([`Carrier::adopted`]); the bookkeeping is in [`Item`]. What must stay true: a state is adopted
//! only after its event is durable; an effect runs only for an adopted state that asks for it, once at a time.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, SpawnHandle, WrapFuture};

use super::child::Post;
use super::item::{Item, Machine, Step};
use super::journal::{Append, Journal, JournalError};
use crate::record::Body;

/// Before an append that was refused is tried again.
pub(super) const REWRITE: Duration = Duration::from_secs(1);

/// What an effect came to.
pub struct Done<E> {
    /// What happened, in order.
    pub events: Vec<E>,
    /// When to start it again, should the state still ask for it then.
    pub again: Duration,
}

/// An effect on its way.
pub type Work<E> = Pin<Box<dyn Future<Output = Done<E>>>>;

/// Effects and their pauses in flight, by item.
pub type Flights<K, F> = HashMap<(K, F), SpawnHandle>;

/// An actor that carries items of one kind.
pub trait Carrier: Actor<Context = Context<Self>> + Sized {
    /// The items' machine.
    type M: Machine + 'static;
    /// Tells items apart.
    type Key: Copy + Eq + Hash + 'static;

    /// An item, while it is carried.
    fn item(&mut self, key: Self::Key) -> Option<&mut Item<Self::M>>;
    /// The effects in flight.
    fn flights(&mut self) -> &mut Flights<Self::Key, <Self::M as Machine>::Effect>;
    /// Where records go.
    fn journal(&self) -> Post<Journal>;
    /// How `effect` is done. May be dropped at any point once the state does not ask for it any more.
    fn work(
        &mut self,
        key: Self::Key,
        effect: <Self::M as Machine>::Effect,
        ctx: &mut Context<Self>,
    ) -> Work<<Self::M as Machine>::Event>;
    /// An item has a new state; `before` is the former one, `event` what led on from it.
    fn adopted(
        &mut self,
        key: Self::Key,
        before: &Self::M,
        event: &<Self::M as Machine>::Event,
        ctx: &mut Context<Self>,
    );
    /// An event may not happen in the item's state; it is gone.
    fn refused(&mut self, key: Self::Key, event: &<Self::M as Machine>::Event, why: &str);
    /// The journal did not take a record (`Some`), or does again (`None`).
    fn journal_trouble(&mut self, why: Option<&str>);
    /// Whether a record is durable is not known: this life has to end and its state to be loaded anew.
    fn astray(&mut self, why: &str, ctx: &mut Context<Self>);
}

/// Goes on with an item as far as possible: call it after each offer.
pub fn drive<C: Carrier>(carrier: &mut C, key: C::Key, ctx: &mut Context<C>) {
    loop {
        let Some(item) = carrier.item(key) else { return };
        match item.step() {
            Step::Append(body) => return append(carrier, key, body, ctx),
            Step::Refused { event, why } => carrier.refused(key, &event, &why),
            Step::Idle => break,
        }
    }
    let due = carrier.item(key).map(Item::start_effects).unwrap_or_default();
    for effect in due {
        begin(carrier, key, effect, ctx);
    }
}

fn append<C: Carrier>(carrier: &mut C, key: C::Key, body: Body, ctx: &mut Context<C>) {
    let appended = write(carrier.journal(), body).into_actor(carrier);
    ctx.spawn(appended.map(move |appended, carrier: &mut C, ctx| match appended {
        Ok(()) => {
            carrier.journal_trouble(None);
            adopt(carrier, key, ctx);
        }
        Err(JournalError::Unknown(why)) => carrier.astray(&why, ctx),
        Err(error) => {
            if let Some(item) = carrier.item(key) {
                item.not_written();
            }
            carrier.journal_trouble(Some(&error.to_string()));
            ctx.run_later(REWRITE, move |carrier, ctx| drive(carrier, key, ctx));
        }
    }));
}

/// Makes one record durable.
///
/// # Errors
/// As the journal actor's; [`JournalError::Unknown`] too when the actor died over it.
pub async fn write(journal: Post<Journal>, body: Body) -> Result<(), JournalError> {
    let Some(journal) = journal.get() else {
        return Err(JournalError::Down);
    };
    match journal.send(Append(body)).await {
        Ok(appended) => appended,
        Err(_) => Err(JournalError::Unknown("the journal actor died over a record".into())),
    }
}

fn adopt<C: Carrier>(carrier: &mut C, key: C::Key, ctx: &mut Context<C>) {
    let Some(item) = carrier.item(key) else { return };
    let Some((before, event)) = item.adopt() else { return };
    let wanted = item.state().effects();
    let over: Vec<_> = carrier
        .flights()
        .keys()
        .filter(|(of, effect)| *of == key && !wanted.contains(effect))
        .copied()
        .collect();
    for flight in over {
        if let Some(handle) = carrier.flights().remove(&flight) {
            ctx.cancel_future(handle);
        }
    }
    carrier.adopted(key, &before, &event, ctx);
    drive(carrier, key, ctx);
}

fn begin<C: Carrier>(carrier: &mut C, key: C::Key, effect: <C::M as Machine>::Effect, ctx: &mut Context<C>) {
    crate::crash::point(format_args!("before {effect:?}"));
    let work = carrier.work(key, effect, ctx).into_actor(carrier);
    let handle = ctx.spawn(work.map(move |done, carrier: &mut C, ctx| {
        crate::crash::point(format_args!("after {effect:?}"));
        if let Some(item) = carrier.item(key) {
            for event in done.events {
                item.offer(event);
            }
        }
        pause(carrier, key, effect, done.again, ctx);
        drive(carrier, key, ctx);
    }));
    carrier.flights().insert((key, effect), handle);
}

/// The effect counts as in flight until `again` has passed.
fn pause<C: Carrier>(
    carrier: &mut C,
    key: C::Key,
    effect: <C::M as Machine>::Effect,
    again: Duration,
    ctx: &mut Context<C>,
) {
    let handle = ctx.run_later(again, move |carrier, ctx| restart(carrier, key, effect, ctx));
    carrier.flights().insert((key, effect), handle);
}

/// Starts an effect anew, in flight or not, when the state asks for it.
pub fn restart<C: Carrier>(carrier: &mut C, key: C::Key, effect: <C::M as Machine>::Effect, ctx: &mut Context<C>) {
    if let Some(handle) = carrier.flights().remove(&(key, effect)) {
        ctx.cancel_future(handle);
    }
    if let Some(item) = carrier.item(key) {
        item.effect_ended(effect);
    }
    drive(carrier, key, ctx);
}
