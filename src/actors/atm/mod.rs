//! The ATM actor: carries the cash-outs of one machine, and is the only one that orders its dispenser.
//!
//! Spawned by the supervisor; asked by the fleet's door. One customer at a time: `orders` makes promises and takes
//! orders, `work` does the effects of a cash-out, `seen` reads what happens to its invoice, `standing` says
//! whether the machine is in service, `care` clears its path after a fault, `figures` counts. Decisions are in [`crate::cashout`]. What must stay true:
//! the actor is a cache of the journal; it may die at any point.

mod care;
mod figures;
pub mod orders;
pub mod seen;
pub mod standing;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, ContextFutureSpawner, Handler, SpawnHandle,
    StreamHandler, WrapFuture,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;

use super::child::{DownGuard, Post, Restarts, can_panic};
use super::drive::{Carrier, Flights, REWRITE, Work, drive, write};
use super::hardware::Health;
use super::invoice::InvoiceSeen;
use super::item::Item;
use super::journal::{Journal, JournalError, LeftBehind, load_atm};
use super::lnd::LndStatus;
use super::shared::{Seat, Shared};
use crate::cashout::ledger::Cassette;
use crate::cashout::{self, CashOut, Effect, Event};
use crate::ids::CashOutId;
use crate::invoice::{Hold, Invoice, Owner};
use crate::record::{AtmEvent, Body};
use crate::store::AtmBook;
use crate::time::UnixMs;

/// The actor of one ATM.
pub struct Atm {
    seat: Arc<Seat>,
    shared: Arc<Shared>,
    book: AtmBook,
    items: BTreeMap<CashOutId, Item<CashOut>>,
    holds: HashMap<CashOutId, Hold>,
    /// Invoices that were seen while an event of their cash-out was being written down.
    unread: HashMap<CashOutId, Invoice>,
    flights: Flights<CashOutId, Effect>,
    timers: HashMap<CashOutId, SpawnHandle>,
    watches: HashMap<CashOutId, figures::Stopwatch>,
    /// Who waits for an invoice to be open.
    opening: HashMap<CashOutId, oneshot::Sender<CashOut>>,
    /// When the check before the order in flight was made.
    checked: HashMap<CashOutId, UnixMs>,
    /// A promise is being written down.
    promising: bool,
    loaded: bool,
    journal_trouble: Option<String>,
    /// The device's present fault was answered by a clearing already.
    clear_tried: bool,
    /// Its path is being cleared.
    clearing: bool,
    /// An operator has put it back into service, and with it asked for a clearing if it needs one.
    resumed: bool,
    complains_since: Option<Instant>,
    clears: Restarts,
    _guard: DownGuard,
}

impl Atm {
    /// One life of it.
    #[must_use]
    pub fn new(seat: Arc<Seat>, shared: Arc<Shared>, guard: DownGuard) -> Self {
        Self {
            seat,
            shared,
            book: AtmBook::default(),
            items: BTreeMap::new(),
            holds: HashMap::new(),
            unread: HashMap::new(),
            flights: Flights::new(),
            timers: HashMap::new(),
            watches: HashMap::new(),
            opening: HashMap::new(),
            checked: HashMap::new(),
            promising: false,
            loaded: false,
            journal_trouble: None,
            clear_tried: false,
            clearing: false,
            resumed: false,
            complains_since: None,
            clears: Restarts::new(care::MOST, care::PERIOD),
            _guard: guard,
        }
    }

    fn load(&mut self, ctx: &mut Context<Self>) {
        let loaded = load(Arc::clone(&self.seat), self.shared.journal.clone()).into_actor(self);
        let loaded = loaded.map(|loaded, this, ctx| match loaded {
            Ok((book, open)) => {
                this.journal_trouble(None);
                this.book = book;
                this.loaded = true;
                for (cashout, invoice) in open {
                    this.take_up(cashout, invoice.as_ref(), ctx);
                }
                ctx.add_stream(this.shared.status.subscribe().stream());
                ctx.add_stream(WatchStream::new(this.seat.health.subscribe()));
            }
            Err(JournalError::Unknown(why)) => this.astray(&why, ctx),
            Err(error) => {
                this.journal_trouble(Some(&error.to_string()));
                ctx.run_later(REWRITE, Self::load);
            }
        });
        loaded.wait(ctx);
    }

    /// Goes on with a cash-out that another life, or another process, began.
    fn take_up(&mut self, cashout: CashOut, invoice: Option<&Invoice>, ctx: &mut Context<Self>) {
        let id = cashout.id;
        let at = self.shared.clock.now();
        tracing::info!(cashout = %id, state = cashout.phase.name(), "taken up");
        let mut item = Item::new(cashout);
        item.offer(Event::Interrupted { at });
        self.items.insert(id, item);
        drive(self, id, ctx);
        self.arm(id, ctx);
        if let Some(invoice) = invoice {
            self.observe(id, invoice, ctx);
        }
    }

    fn offer(&mut self, id: CashOutId, event: Event, ctx: &mut Context<Self>) {
        if let Some(item) = self.items.get_mut(&id) {
            item.offer(event);
            drive(self, id, ctx);
        }
    }

    /// Reads what the invoice's state means for its cash-out, once no other event of it is under way: what "will be
    /// canceled" means to a cash-out that can step back would be "is canceled" to one that just did.
    fn observe(&mut self, id: CashOutId, invoice: &Invoice, ctx: &mut Context<Self>) {
        // Of a cash-out that has ended nothing is kept: nobody would forget it again.
        let Some(item) = self.items.get_mut(&id) else { return };
        if let Some(hold) = invoice.hold() {
            self.holds.insert(id, *hold);
        }
        if !item.is_quiet() {
            self.unread.insert(id, invoice.clone());
            return;
        }
        for event in seen::events(item.state(), invoice, self.shared.clock.now()) {
            item.offer(event);
        }
        drive(self, id, ctx);
        self.look_at_window(id, ctx);
    }

    /// A hold whose window closes ends the waiting, while something can still be done.
    fn look_at_window(&mut self, id: CashOutId, ctx: &mut Context<Self>) {
        let status = self.shared.status.borrow().clone();
        let (Some(item), Some(hold)) = (self.items.get(&id), self.holds.get(&id)) else {
            return;
        };
        let policy = &item.state().quote.policy;
        let blocks_left = hold.blocks_left(status.delta(policy.hold_expiry_delta), status.height);
        if status.is_up() && blocks_left < i64::from(policy.min_blocks_left.max(policy.force_blocks_left)) {
            self.offer(id, Event::WindowClosing { blocks_left }, ctx);
        }
    }

    /// Arms the timer for the state's deadline.
    fn arm(&mut self, id: CashOutId, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timers.remove(&id) {
            ctx.cancel_future(timer);
        }
        let Some(due) = self.items.get(&id).and_then(|item| cashout::deadline(item.state())) else {
            return;
        };
        let wait = due.since(self.shared.clock.now());
        let timer = ctx.run_later(wait, move |this, ctx| {
            let at = this.shared.clock.now();
            if at < due {
                // The wall clock was set back.
                return this.arm(id, ctx);
            }
            this.offer(id, Event::DeadlinePassed { at }, ctx);
        });
        self.timers.insert(id, timer);
    }

    /// The end of a cash-out.
    fn forget(&mut self, id: CashOutId, ctx: &mut Context<Self>) {
        self.items.remove(&id);
        self.holds.remove(&id);
        self.unread.remove(&id);
        self.watches.remove(&id);
        self.checked.remove(&id);
        if let Some(timer) = self.timers.remove(&id) {
            ctx.cancel_future(timer);
        }
    }
}

/// The machine's books and open cash-outs. Cassettes that the journal does not know begin as configured.
async fn load(seat: Arc<Seat>, journal: Post<Journal>) -> Result<LeftBehind, JournalError> {
    let id = &seat.config.id;
    let asked = journal
        .get()
        .ok_or(JournalError::Down)?
        .send(load_atm(id.clone()))
        .await;
    let (mut book, open) = asked.map_err(|error| JournalError::Unknown(error.to_string()))??;
    for cassette in &seat.config.cassettes {
        if book
            .notes
            .cassettes
            .iter()
            .any(|known| known.position == cassette.position)
        {
            continue;
        }
        let (position, denomination, notes) = (cassette.position, cassette.denomination, cassette.notes);
        let by = "configuration".to_owned();
        let event = AtmEvent::CassetteLoaded {
            position,
            denomination,
            notes,
            by,
        };
        write(journal.clone(), Body::Atm { id: id.clone(), event }).await?;
        book.notes.load(Cassette::loaded(position, denomination, notes));
    }
    Ok((book, open))
}

impl Actor for Atm {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        self.load(ctx);
    }
}

can_panic!(Atm);

impl Handler<InvoiceSeen> for Atm {
    type Result = ();

    fn handle(&mut self, InvoiceSeen(invoice): InvoiceSeen, ctx: &mut Self::Context) {
        if let Owner::Atm { cashout, .. } = invoice.spec.owner {
            self.observe(cashout, &invoice, ctx);
        }
    }
}

impl StreamHandler<LndStatus> for Atm {
    fn handle(&mut self, _: LndStatus, ctx: &mut Self::Context) {
        let open: Vec<CashOutId> = self.holds.keys().copied().collect();
        for id in open {
            self.look_at_window(id, ctx);
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Health> for Atm {
    fn handle(&mut self, _: Health, ctx: &mut Self::Context) {
        self.care(ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Carrier for Atm {
    type M = CashOut;
    type Key = CashOutId;

    fn item(&mut self, key: CashOutId) -> Option<&mut Item<CashOut>> {
        self.items.get_mut(&key)
    }

    fn flights(&mut self) -> &mut Flights<CashOutId, Effect> {
        &mut self.flights
    }

    fn journal(&self) -> Post<Journal> {
        self.shared.journal.clone()
    }

    fn work(&mut self, key: CashOutId, effect: Effect, _: &mut Context<Self>) -> Work<Event> {
        self.begin(key, effect)
    }

    fn adopted(&mut self, key: CashOutId, before: &CashOut, event: &Event, ctx: &mut Context<Self>) {
        let Some(after) = self.items.get(&key).map(|item| item.state().clone()) else {
            return;
        };
        tracing::info!(cashout = %key, event = event.name(), before = before.phase.name(), after = after.phase.name(), "cash-out");
        if let Event::DispenseCommitted { at, .. } = event {
            self.checked.insert(key, *at);
        }
        let news = after.notes.get(before.notes.len()..).unwrap_or_default();
        self.book.notes.book(news);
        let watch = self.watches.entry(key).or_default();
        figures::count(
            &self.shared.metrics,
            watch,
            before,
            event,
            &after,
            self.shared.clock.now(),
        );
        if after.phase.name() != before.phase.name() {
            self.alert(&after);
        }
        if after.phase.name() != "quoted"
            && let Some(waiting) = self.opening.remove(&key)
        {
            // Whoever asked may be gone.
            let _ = waiting.send(after.clone());
        }
        if after.has_ended() || after.books.settled {
            // No block window concerns it any more.
            self.holds.remove(&key);
        }
        self.arm(key, ctx);
        if after.is_final() {
            self.forget(key, ctx);
        }
        // Nobody may be following.
        let _ = self.shared.changes.send(after);
        self.care(ctx);
        if let Some(invoice) = self.unread.remove(&key) {
            self.observe(key, &invoice, ctx);
        }
    }

    fn refused(&mut self, key: CashOutId, event: &Event, why: &str) {
        tracing::warn!(cashout = %key, event = event.name(), why, "refused");
    }

    fn journal_trouble(&mut self, why: Option<&str>) {
        if let Some(why) = why
            && self.journal_trouble.is_none()
        {
            tracing::error!(atm = %self.seat.config.id, why, "out of service: the journal takes no records");
        }
        self.journal_trouble = why.map(str::to_owned);
    }

    fn astray(&mut self, why: &str, ctx: &mut Context<Self>) {
        tracing::error!(atm = %self.seat.config.id, why, "the actor starts anew from the journal");
        self.items.clear();
        ctx.stop();
    }
}
