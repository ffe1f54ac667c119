//! The door to the actors: what the HTTP edge asks of the fleet.
//!
//! Cheap to clone and sent between threads. What must stay true: an answer of `Ok` to a change means durable.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Handler, Message};
use futures_util::StreamExt;
use futures_util::stream;
use thiserror::Error;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout, timeout_at};

use super::atm::Atm;
use super::atm::orders::{Bring, Operate, Start};
use super::atm::standing::{Standing, Status};
use super::gauges;
use super::journal::Load;
use super::shared::{Seat, Shared};
use super::supervisor::Forgive;
use crate::api::SiteView;
use crate::cashout::ledger::Cassette;
use crate::cashout::quote::QuoteError;
use crate::cashout::{CancelBy, CashOut, Event, Phase, Resolution};
use crate::ids::{AtmId, CashOutId, ClientName};
use crate::metrics::{AtmState, Machines};
use crate::money::Minor;
use crate::store::{AtmBook, Folded, StoreError, View};

/// How long a customer waits for an invoice before looking for it.
const OPENING: Duration = Duration::from_secs(30);

/// How long one of all ATMs is waited for, so that those that do not answer leave time for the others.
const ANSWER: Duration = Duration::from_secs(2);

/// Questions to the ATMs that are under way at once, when all of them are asked.
const AT_ONCE: usize = 64;

/// Why the fleet does not do what it is asked.
#[derive(Debug, Clone, Error)]
pub enum FleetError {
    /// No ATM of this name is configured.
    #[error("no ATM is called {0}")]
    NoSuchAtm(AtmId),
    /// No such cash-out.
    #[error("there is no cash-out {0}")]
    NoSuchCashOut(CashOutId),
    /// The service has no client of this name.
    #[error("no client is called {0}")]
    NoSuchClient(ClientName),
    /// No promise can be made for this amount.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The machine serves another customer.
    #[error("{0} serves another customer")]
    Busy(AtmId),
    /// The machine takes no new customers.
    #[error("{atm} takes no customers: {reason}")]
    NotInService {
        /// Which.
        atm: AtmId,
        /// Why.
        reason: String,
    },
    /// What is asked does not fit the state of things.
    #[error("{0}")]
    Refused(String),
    /// Nothing is known of the effect: look before asking again.
    #[error("{0}; look at the state before you ask again")]
    Unavailable(String),
}

/// What an operator does to an ATM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtmOrder {
    /// No new customers.
    Drain,
    /// Customers may come again; a device fault is reset, restarts are forgiven.
    Resume,
    /// These cassettes were loaded and counted. Refused while a customer is served.
    Load(Vec<Cassette>),
}

/// One machine as it is now.
#[derive(Debug, Clone)]
pub struct AtmStatus {
    /// Which.
    pub id: AtmId,
    /// Its name for people.
    pub name: String,
    /// What it is doing.
    pub state: AtmState,
    /// Why it serves nobody.
    pub reason: Option<String>,
    /// Its notes.
    pub book: AtmBook,
    /// Its open cash-outs.
    pub open: Vec<CashOut>,
}

/// Whether customers can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The journal takes records.
    pub journal: bool,
    /// LND can add invoices; else why not.
    pub lnd: Result<(), String>,
    /// ATMs that are ready or busy.
    pub atms_in_service: usize,
    /// All ATMs.
    pub atms: usize,
    /// It holds payments for others.
    pub serves_others: bool,
}

/// The fleet. See `app.rs` for how it is brought up.
#[derive(Clone)]
pub struct Fleet {
    pub(super) shared: Arc<Shared>,
}

impl Fleet {
    /// The door to the actors that share `shared`.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Promises notes of value `amount`. Answers once LND has the invoice, or the cash-out is on its way to
    /// being canceled; after 30 s in any case.
    ///
    /// # Errors
    /// When no promise is made.
    pub async fn start(&self, atm: &AtmId, amount: Minor) -> Result<CashOut, FleetError> {
        let promised = send(self.seat(atm)?, Start(amount)).await??;
        match tokio::time::timeout(OPENING, promised.opened).await {
            Ok(Ok(cashout)) => Ok(cashout),
            _ => self.cashout(promised.id).await,
        }
    }

    /// Cancels a cash-out whose dispense has not begun.
    ///
    /// # Errors
    /// When it is too late, or unknown.
    pub async fn cancel(&self, id: CashOutId, by: CancelBy) -> Result<CashOut, FleetError> {
        self.bring(id, Event::CancelRequested { by }).await
    }

    /// An operator decides about an open item.
    ///
    /// # Errors
    /// When the decision does not fit the state.
    pub async fn resolve(
        &self,
        id: CashOutId,
        by: String,
        resolution: Resolution,
        note: String,
    ) -> Result<CashOut, FleetError> {
        self.bring(id, Event::OperatorResolved { by, resolution, note }).await
    }

    async fn bring(&self, id: CashOutId, event: Event) -> Result<CashOut, FleetError> {
        let known = self.cashout(id).await?;
        if known.is_final() {
            return Err(FleetError::Refused(format!(
                "cash-out {id} has ended: it is {}",
                known.phase.name()
            )));
        }
        send(self.seat(&known.quote.atm)?, Bring { id, event }).await?
    }

    /// One cash-out, open or ended.
    ///
    /// # Errors
    /// When there is none.
    pub async fn cashout(&self, id: CashOutId) -> Result<CashOut, FleetError> {
        let found = self.ask(move |folded, view| match folded.cashouts.get(&id) {
            Some(open) => Ok(Some(open.clone())),
            None => view.cashout(id),
        });
        found.await?.ok_or(FleetError::NoSuchCashOut(id))
    }

    /// At most `limit` cash-outs, the newest first, of one ATM or of all, older than `before`.
    ///
    /// # Errors
    /// When the state can not be read.
    pub async fn cashouts(
        &self,
        atm: Option<AtmId>,
        before: Option<CashOutId>,
        limit: usize,
    ) -> Result<Vec<CashOut>, FleetError> {
        self.ask(move |_, view| view.cashouts(atm.as_ref(), before, limit))
            .await
    }

    /// Every change of every cash-out from now on. Lagging loses some: read the cash-out again then.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<CashOut> {
        self.shared.changes.subscribe()
    }

    /// All ATMs, by id.
    pub async fn atms(&self) -> Vec<AtmStatus> {
        self.ask_all(status).await
    }

    /// Asks something of every ATM.
    async fn ask_all<'a, T, F: Future<Output = T>>(&'a self, question: impl Fn(&'a Seat, Instant) -> F) -> Vec<T> {
        ask_each(self.shared.seats.values().map(AsRef::as_ref), question).await
    }

    /// One ATM.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn atm(&self, atm: &AtmId) -> Result<AtmStatus, FleetError> {
        Ok(status(self.seat(atm)?, Instant::now() + OPENING).await)
    }

    /// The sites that reach their payments through this daemon.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteView> {
        let roster = Arc::clone(&self.shared.roster.borrow());
        let mut sites = self.shared.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.views(self.shared.clock.now(), |site| roster.names(site))
    }

    /// An operator's order to an ATM; journaled before it acts.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn order(&self, atm: &AtmId, by: String, order: AtmOrder) -> Result<AtmStatus, FleetError> {
        let seat = self.seat(atm)?;
        if order == AtmOrder::Resume
            && let Some(supervisor) = self.shared.supervisor.get()
        {
            // An actor that is down because it died too often can not take the order itself.
            let _ = supervisor.send(Forgive(atm.clone())).await;
        }
        send(seat, Operate { by, order }).await?
    }

    /// Whether customers can be served.
    pub async fn readiness(&self) -> Readiness {
        let lnd = self.shared.status.borrow().can_add();
        let journal = self.ask(|_, _| Ok(())).await.is_ok();
        let atms = self.ask_all(standing).await;
        let in_service = atms
            .iter()
            .filter(|state| matches!(state, AtmState::Ready | AtmState::Busy));
        Readiness {
            journal,
            lnd,
            atms_in_service: in_service.count(),
            atms: atms.len(),
            serves_others: self.shared.service.is_some(),
        }
    }

    /// The answer to a scrape. Gauges are read off the journal's fold first.
    pub async fn metrics(&self) -> String {
        let metrics = self.shared.metrics.clone();
        let mut machines = Machines::default();
        for (atm, state) in self.shared.seats.keys().zip(self.ask_all(standing).await) {
            machines.atm_state(atm, state);
        }
        metrics.set_sites(&self.sites());
        let height = self.shared.status.borrow().height;
        let (height, gauges) = ((height > 0).then_some(height), metrics.clone());
        let noted = self.ask(move |folded, _| {
            let mut noted = Machines::default();
            gauges::set(&gauges, &mut noted, folded, height);
            Ok(noted)
        });
        let noted = noted.await;
        let mut last = self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match noted {
            Ok(noted) => *last = noted,
            Err(error) => tracing::error!(%error, "the gauges are old"),
        }
        machines.add_cassettes(&last);
        metrics.render(&machines)
    }

    /// Answers when the journal takes no records, or the store does not follow it, until the daemon is started again.
    pub async fn journal_lost(&self) -> String {
        let mut lost = self.shared.journal_lost.subscribe();
        loop {
            if let Some(error) = &*lost.borrow_and_update() {
                return error.clone();
            }
            // The sender is in `self`, so the wait can not fail.
            let _ = lost.changed().await;
        }
    }

    /// No new customers and no new dispenses from now on; answers when no dispense is under way.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let mut changes = self.follow();
        while self.ask_all(ask_status).await.iter().any(may_dispense) {
            // The end of a dispense is a change; a lag means that there were some. Who did not answer is asked again.
            let _ = timeout(ANSWER, changes.recv()).await;
        }
    }

    fn seat(&self, atm: &AtmId) -> Result<&Seat, FleetError> {
        let seat = self.shared.seats.get(atm);
        seat.map(AsRef::as_ref)
            .ok_or_else(|| FleetError::NoSuchAtm(atm.clone()))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Folded, &View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FleetError> {
        let unavailable = |why: String| FleetError::Unavailable(why);
        let journal = self.shared.journal.get();
        let journal = journal.ok_or_else(|| unavailable("the journal actor is being restarted".into()))?;
        let answer = journal.send(Load(Box::new(question))).await;
        answer
            .map_err(|error| unavailable(error.to_string()))?
            .map_err(|error| unavailable(error.to_string()))
    }

    /// Makes an actor panic, for tests.
    #[cfg(debug_assertions)]
    pub async fn make_panic(&self, child: super::child::ChildId) {
        if let Some(supervisor) = self.shared.supervisor.get() {
            let _ = supervisor.send(super::supervisor::MakePanic(child)).await;
        }
    }
}

async fn send<M>(seat: &Seat, message: M) -> Result<M::Result, FleetError>
where
    M: Message + Send + 'static,
    M::Result: Send,
    Atm: Handler<M>,
    <Atm as Actor>::Context: ToEnvelope<Atm, M>,
{
    send_until(seat, message, Instant::now() + OPENING).await
}

async fn send_until<M>(seat: &Seat, message: M, until: Instant) -> Result<M::Result, FleetError>
where
    M: Message + Send + 'static,
    M::Result: Send,
    Atm: Handler<M>,
    <Atm as Actor>::Context: ToEnvelope<Atm, M>,
{
    let atm = seat.config.id.clone();
    let Some(actor) = seat.atm.get() else {
        let reason = seat
            .suspended()
            .unwrap_or_else(|| "its actor is being restarted".into());
        return Err(FleetError::NotInService { atm, reason });
    };
    let died = |_| FleetError::Unavailable(format!("the actor of {atm} ended over it"));
    let given = until.saturating_duration_since(Instant::now());
    let waited_long = |_| FleetError::Unavailable(format!("{atm} did not answer within {} s", given.as_secs()));
    let answer = timeout_at(until, actor.send(message)).await;
    answer.map_err(waited_long)?.map_err(died)
}

/// A few at a time: no question of a customer waits behind a whole fleet's answers. All of them together have the time of
/// one, however many do not answer.
async fn ask_each<S, T, F: Future<Output = T>>(
    seats: impl Iterator<Item = S>,
    question: impl Fn(S, Instant) -> F,
) -> Vec<T> {
    let end = Instant::now() + OPENING;
    // Each question is made when its turn comes.
    let questions = seats.map(|seat| question(seat, end.min(Instant::now() + ANSWER)));
    stream::iter(questions).buffered(AT_ONCE).collect().await
}

/// What a machine is doing; without an actor it does nothing.
async fn standing(seat: &Seat, until: Instant) -> AtmState {
    send_until(seat, Standing, until)
        .await
        .unwrap_or(AtmState::OutOfService)
}

/// What is known of a machine, also while its actor is down.
async fn status(seat: &Seat, until: Instant) -> AtmStatus {
    match ask_status(seat, until).await {
        Ok(status) => status,
        Err(error) => AtmStatus {
            id: seat.config.id.clone(),
            name: seat.config.name.clone(),
            state: AtmState::OutOfService,
            reason: Some(error.to_string()),
            book: AtmBook::default(),
            open: Vec::new(),
        },
    }
}

async fn ask_status(seat: &Seat, until: Instant) -> Result<AtmStatus, FleetError> {
    send_until(seat, Status, until).await
}

/// Whether notes may be moving at a machine. Of one that did not answer nothing is known.
fn may_dispense(answer: &Result<AtmStatus, FleetError>) -> bool {
    let dispensing = |cashout: &CashOut| matches!(cashout.phase, Phase::Dispensing { .. });
    match answer {
        Ok(atm) => atm.open.iter().any(dispensing),
        Err(error) => matches!(error, FleetError::Unavailable(_)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn machines_that_do_not_answer_leave_the_others_time() {
        let silent = 3 * AT_ONCE;
        let question = async |machine: usize, until| {
            let answer = async {
                match machine < silent {
                    true => std::future::pending().await,
                    false => sleep_until(Instant::now() + ANSWER / 2).await,
                }
            };
            timeout_at(until, answer).await.is_ok()
        };
        let begun = Instant::now();
        let answers = ask_each(0..2 * silent, question).await;
        assert!(
            answers
                .iter()
                .enumerate()
                .all(|(machine, answered)| *answered == (machine >= silent))
        );
        assert!(begun.elapsed() < OPENING);
        ask_each(0..100 * AT_ONCE, async |_, until| {
            timeout_at(until, std::future::pending::<()>()).await
        })
        .await;
        assert!(begun.elapsed() < 3 * OPENING, "all together have the time of one");
    }

    #[test]
    fn a_machine_that_did_not_answer_may_be_dispensing() {
        let silent = FleetError::Unavailable("it did not answer".into());
        assert!(may_dispense(&Err(silent)));
        let idle = AtmStatus {
            id: "lobby".parse().unwrap(),
            name: String::new(),
            state: AtmState::Ready,
            reason: None,
            book: AtmBook::default(),
            open: Vec::new(),
        };
        assert!(!may_dispense(&Ok(idle)));
    }
}
