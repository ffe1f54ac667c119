//! The supervisor: spawns the actors of LND, the journal, every ATM and every pending invoice, and brings back
//! those that die.
//!
//! Called by the app once, and by owners of invoices ([`InvoiceCall`]). What must stay true: a child that dies comes
//! back from its journal after a back-off; above the restart intensity its ATM goes out of service with the reason
//! shown, and the child is tried again only now and then, because held money still needs its deadline.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};

use super::atm::Atm;
use super::child::{ChildDown, ChildId, DownGuard, Restarts, can_panic};
use super::hardware::Hardware;
use super::invoice::{InvoiceActor, InvoiceCall, OrderError, Reply};
use super::journal::{Journal, Load};
use super::lnd::Lnd;
use super::nostr::Nostr;
use super::shared::Shared;
use crate::config::{NostrConfig, Supervision};
use crate::ids::{AtmId, PaymentHash};
use crate::invoice::Owner;
use crate::journal::Appender;
use crate::lnd::Lightning;
use crate::metrics::FailureReason;
use crate::store::Follower;

/// How often children are looked at, in case the notice of a death was lost.
const LOOK: Duration = Duration::from_secs(5);

/// What outlives all actors.
pub struct Foundations {
    /// Writes the journal.
    pub appender: Appender,
    /// Answers from the state.
    pub follower: Follower,
    /// The node.
    pub node: Arc<dyn Lightning>,
    /// Who this daemon is on Nostr, when it is there.
    pub nostr: Option<NostrConfig>,
    /// Bounds on restarts.
    pub supervision: Supervision,
}

struct Child {
    generation: u64,
    restarts: Restarts,
    alive: Box<dyn Fn() -> bool>,
    /// Its next life is on its way.
    returning: bool,
}

/// The root of all actors.
pub struct Supervisor {
    shared: Arc<Shared>,
    foundations: Foundations,
    /// In an order that does not change from one process to the next: a simulation repeats it.
    children: BTreeMap<ChildId, Child>,
    invoices: HashMap<PaymentHash, Addr<InvoiceActor>>,
    generations: u64,
    _ended: tokio::sync::oneshot::Sender<()>,
}

impl Supervisor {
    /// The supervisor of one fleet. `ended` is dropped with it: the app then ends, to be started again.
    #[must_use]
    pub fn new(shared: Arc<Shared>, foundations: Foundations, ended: tokio::sync::oneshot::Sender<()>) -> Self {
        Self {
            shared,
            foundations,
            children: BTreeMap::new(),
            invoices: HashMap::new(),
            generations: 0,
            _ended: ended,
        }
    }

    /// Begins a life of `id`.
    fn spawn(&mut self, id: &ChildId, ctx: &mut Context<Self>) {
        self.generations += 1;
        let guard = DownGuard::new(id.clone(), self.generations, ctx.address().recipient());
        let alive = self.begin(id, guard);
        let supervision = self.foundations.supervision;
        let generation = self.generations;
        let child = self.children.entry(id.clone()).or_insert_with(|| Child {
            generation,
            restarts: Restarts::new(supervision.max_restarts, supervision.within),
            alive: Box::new(|| false),
            returning: false,
        });
        child.generation = generation;
        child.returning = false;
        child.alive = alive;
    }

    fn begin(&mut self, id: &ChildId, guard: DownGuard) -> Box<dyn Fn() -> bool> {
        let shared = Arc::clone(&self.shared);
        match id {
            ChildId::Journal => {
                let Foundations { appender, follower, .. } = &self.foundations;
                let actor = Journal::new(appender.clone(), follower.clone(), Arc::clone(&shared), guard);
                let addr = actor.start();
                shared.journal.set(addr.clone());
                Box::new(move || addr.connected())
            }
            ChildId::Lnd => {
                let addr = Lnd::new(Arc::clone(&self.foundations.node), Arc::clone(&shared), guard).start();
                shared.lnd.set(addr.clone());
                Box::new(move || addr.connected())
            }
            ChildId::Nostr => {
                let Some(config) = &self.foundations.nostr else {
                    return Box::new(|| true);
                };
                let addr = Nostr::new(Arc::clone(&shared), config, guard).start();
                shared.nostr.set(addr.clone());
                Box::new(move || addr.connected())
            }
            ChildId::Hardware(atm) => {
                let Some(seat) = shared.seats.get(atm) else {
                    return Box::new(|| true);
                };
                let addr = Hardware::new(Arc::clone(seat), Arc::clone(&shared.entropy), guard).start();
                seat.hardware.set(addr.clone());
                Box::new(move || addr.connected())
            }
            ChildId::Atm(atm) => {
                let Some(seat) = shared.seats.get(atm) else {
                    return Box::new(|| true);
                };
                let addr = Atm::new(Arc::clone(seat), Arc::clone(&shared), guard).start();
                seat.atm.set(addr.clone());
                Box::new(move || addr.connected())
            }
            ChildId::Invoice(hash) => {
                let addr = InvoiceActor::new(*hash, shared, guard).start();
                self.invoices.insert(*hash, addr.clone());
                Box::new(move || addr.connected())
            }
        }
    }

    fn went_down(&mut self, down: &ChildDown, ctx: &mut Context<Self>) {
        let id = &down.child;
        let Some(child) = self.children.get_mut(id) else { return };
        if child.generation != down.generation || child.returning {
            return;
        }
        if down.retired {
            self.children.remove(id);
            if let ChildId::Invoice(hash) = id {
                self.invoices.remove(hash);
            }
            return;
        }
        let wait = child.restarts.next(self.shared.clock.now());
        child.returning = true;
        if *id == ChildId::Lnd {
            self.shared.lnd_is_down("the LND actor is being restarted");
        }
        self.shared.metrics.actor_restarted(id.kind());
        if wait.is_none() {
            self.shared.metrics.failed(FailureReason::ActorFailed);
            self.suspend_for(id, ctx);
        }
        let wait = wait.unwrap_or(self.foundations.supervision.within);
        tracing::error!(child = %id, ?wait, "an actor died and will be started again");
        let (again, generation) = (id.clone(), down.generation);
        ctx.run_later(wait, move |this, ctx| {
            // An operator may have brought it back earlier.
            let due = |child: &Child| child.returning && child.generation == generation;
            if this.children.get(&again).is_some_and(due) {
                this.spawn(&again, ctx);
            }
        });
    }

    /// Takes the ATM of a child that dies too often out of service.
    fn suspend_for(&self, id: &ChildId, ctx: &mut Context<Self>) {
        let supervision = self.foundations.supervision;
        let reason = format!(
            "the actor of {id} died more than {} times within {} s: look into the log, then resume it",
            supervision.max_restarts,
            supervision.within.as_secs()
        );
        tracing::error!(child = %id, %reason, "out of service");
        match id {
            ChildId::Hardware(atm) | ChildId::Atm(atm) => self.suspend(atm, reason),
            ChildId::Invoice(hash) => {
                let (journal, hash) = (self.shared.journal.clone(), *hash);
                let owner = async move {
                    let question = move |folded: &crate::store::Folded, _: &crate::store::View| {
                        Ok(folded.invoices.get(&hash).map(|invoice| invoice.spec.owner.clone()))
                    };
                    journal.get()?.send(Load(Box::new(question))).await.ok()?.ok()?
                };
                ctx.spawn(owner.into_actor(self).map(move |owner: Option<Owner>, this, _| {
                    if let Some(Owner::Atm { atm, .. }) = owner {
                        this.suspend(&atm, reason);
                    }
                }));
            }
            // Without these no ATM promises anything anyway; and who asks over Nostr asks again.
            ChildId::Journal | ChildId::Lnd | ChildId::Nostr => {}
        }
    }

    fn suspend(&self, atm: &AtmId, reason: String) {
        if let Some(seat) = self.shared.seats.get(atm) {
            seat.suspend(Some(reason));
        }
    }

    /// Looks after every child.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let dead = self
            .children
            .iter()
            .filter(|(_, child)| !child.returning && !(child.alive)());
        let dead: Vec<ChildDown> = dead
            .map(|(id, child)| ChildDown {
                child: id.clone(),
                generation: child.generation,
                // An invoice that is needed is asked for again, and loaded then.
                retired: false,
            })
            .collect();
        for down in dead {
            self.went_down(&down, ctx);
        }
    }

    /// Brings up the actors of the invoices that are open in the journal.
    fn take_up_invoices(&mut self, ctx: &mut Context<Self>) {
        let journal = self.shared.journal.clone();
        let open = async move {
            let question = |folded: &crate::store::Folded, _: &crate::store::View| {
                Ok(folded.invoices.keys().copied().collect::<Vec<_>>())
            };
            journal.get()?.send(Load(Box::new(question))).await.ok()?.ok()
        };
        ctx.spawn(open.into_actor(self).map(|open, this, ctx| match open {
            Some(open) => {
                for hash in open {
                    if !this.invoices.contains_key(&hash) {
                        this.spawn(&ChildId::Invoice(hash), ctx);
                    }
                }
            }
            None => {
                ctx.run_later(Duration::from_secs(1), Self::take_up_invoices);
            }
        }));
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(64 * super::MAILBOX);
        self.shared.supervisor.set(ctx.address());
        self.spawn(&ChildId::Journal, ctx);
        self.spawn(&ChildId::Lnd, ctx);
        if self.foundations.nostr.is_some() {
            self.spawn(&ChildId::Nostr, ctx);
        }
        let atms: Vec<AtmId> = self.shared.seats.keys().cloned().collect();
        for atm in atms {
            self.spawn(&ChildId::Hardware(atm.clone()), ctx);
            self.spawn(&ChildId::Atm(atm), ctx);
        }
        self.take_up_invoices(ctx);
        ctx.run_interval(LOOK, Self::look);
    }
}

can_panic!(Supervisor);

impl Handler<ChildDown> for Supervisor {
    type Result = ();

    fn handle(&mut self, down: ChildDown, ctx: &mut Self::Context) {
        self.went_down(&down, ctx);
    }
}

impl Handler<InvoiceCall> for Supervisor {
    type Result = ResponseFuture<Result<Reply, OrderError>>;

    fn handle(&mut self, call: InvoiceCall, ctx: &mut Self::Context) -> Self::Result {
        let id = ChildId::Invoice(call.hash);
        if !self.children.contains_key(&id) {
            self.spawn(&id, ctx);
        }
        let living = self.invoices.get(&call.hash).filter(|addr| addr.connected()).cloned();
        Box::pin(async move {
            let later = || OrderError::Later("the invoice's actor is being restarted".into());
            let invoice = living.ok_or_else(later)?;
            invoice.send(call).await.map_err(|_| later())?
        })
    }
}

/// An operator puts an ATM back into service: its deaths so far are forgiven, and what waits for its next life
/// gets it now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Forgive(pub AtmId);

impl Handler<Forgive> for Supervisor {
    type Result = ();

    fn handle(&mut self, Forgive(atm): Forgive, ctx: &mut Self::Context) {
        let concerns = |id: &ChildId| match id {
            ChildId::Atm(of) | ChildId::Hardware(of) => *of == atm,
            // Whose it is only the journal knows; another machine's loses nothing by it.
            ChildId::Invoice(_) => true,
            ChildId::Journal | ChildId::Lnd | ChildId::Nostr => false,
        };
        let mut waiting = Vec::new();
        for (id, child) in self.children.iter_mut().filter(|(id, _)| concerns(id)) {
            child.restarts.forgive();
            if child.returning {
                waiting.push(id.clone());
            }
        }
        for id in waiting {
            self.spawn(&id, ctx);
        }
        if let Some(seat) = self.shared.seats.get(&atm) {
            seat.suspend(None);
        }
    }
}

/// Makes a child panic, for tests.
#[cfg(debug_assertions)]
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct MakePanic(pub ChildId);

#[cfg(debug_assertions)]
impl Handler<MakePanic> for Supervisor {
    type Result = ();

    fn handle(&mut self, MakePanic(id): MakePanic, _: &mut Self::Context) {
        use super::child::Panic;
        let seat = |atm: &AtmId| self.shared.seats.get(atm);
        let sent = match &id {
            ChildId::Journal => self.shared.journal.get().map(|a| a.try_send(Panic).is_ok()),
            ChildId::Lnd => self.shared.lnd.get().map(|a| a.try_send(Panic).is_ok()),
            ChildId::Nostr => self.shared.nostr.get().map(|a| a.try_send(Panic).is_ok()),
            ChildId::Hardware(atm) => seat(atm)
                .and_then(|s| s.hardware.get())
                .map(|a| a.try_send(Panic).is_ok()),
            ChildId::Atm(atm) => seat(atm).and_then(|s| s.atm.get()).map(|a| a.try_send(Panic).is_ok()),
            ChildId::Invoice(hash) => self.invoices.get(hash).map(|a| a.try_send(Panic).is_ok()),
        };
        tracing::warn!(child = %id, ?sent, "a panic was ordered");
    }
}
