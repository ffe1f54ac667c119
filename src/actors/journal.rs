//! The journal actor: takes records from the other actors, answers when they are durable, and tells a
//! newborn actor the state it left behind.
//!
//! The writing itself is on the journal's own thread ([`crate::journal`]). What must stay true: `Ok` means
//! durable; a state that is loaded includes every record acknowledged or still waiting when it was asked for.

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use thiserror::Error;
use tokio::sync::oneshot;

use super::child::{DownGuard, can_panic};
use super::shared::Shared;
use crate::cashout::CashOut;
use crate::ids::{AtmId, PaymentHash};
use crate::invoice::Invoice;
use crate::journal::{AppendError, Appender};
use crate::record::{BadRecord, Body, Record, VERSION};
use crate::store::{AtmBook, Folded, Follower, FollowerGone, StoreError, View};

/// Why a record is not durable, or a state can not be loaded.
#[derive(Debug, Clone, Error)]
pub enum JournalError {
    /// Definitely not in the journal: the same append may be tried again.
    #[error("{0}")]
    NotWritten(AppendError),
    /// The actor is down and was not asked.
    #[error("the journal actor is being restarted")]
    Down,
    /// Nothing is known: whoever asked has to load its state anew.
    #[error("{0}")]
    Unknown(String),
}

impl From<AppendError> for JournalError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotWritten { .. } | AppendError::TooLong { .. } | AppendError::QueueFull => {
                Self::NotWritten(error)
            }
            AppendError::Poisoned { .. } => Self::Unknown(error.to_string()),
        }
    }
}

impl From<FollowerGone> for JournalError {
    fn from(error: FollowerGone) -> Self {
        Self::Unknown(error.to_string())
    }
}

impl From<BadRecord> for JournalError {
    fn from(error: BadRecord) -> Self {
        Self::Unknown(error.to_string())
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error.to_string())
    }
}

/// The journal actor.
pub struct Journal {
    appender: Appender,
    follower: Follower,
    shared: Arc<Shared>,
    _guard: DownGuard,
}

impl Journal {
    /// One life of it; threads and files live on without it.
    #[must_use]
    pub fn new(appender: Appender, follower: Follower, shared: Arc<Shared>, guard: DownGuard) -> Self {
        Self {
            appender,
            follower,
            shared,
            _guard: guard,
        }
    }
}

can_panic!(Journal);

impl Actor for Journal {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
    }
}

/// Make one event durable.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), JournalError>")]
pub struct Append(pub Body);

impl Handler<Append> for Journal {
    type Result = ResponseFuture<Result<(), JournalError>>;

    fn handle(&mut self, Append(body): Append, _: &mut Self::Context) -> Self::Result {
        let record = Record {
            at: self.shared.clock.now(),
            body,
        };
        let (item, event) = record.body.name();
        let (begun, shared) = (Instant::now(), Arc::clone(&self.shared));
        // Queued here and now: a state that is loaded after this message includes this record.
        let appending = record.encode().map(|payload| self.appender.submit(VERSION, payload));
        Box::pin(async move {
            let appended = appending?.await;
            match &appended {
                Ok(_) => shared.metrics.journal_appended(begun.elapsed()),
                Err(error) => {
                    shared.metrics.journal_failed();
                    if let AppendError::Poisoned { .. } = error {
                        shared.journal_lost.send_replace(Some(error.to_string()));
                    }
                }
            }
            crate::crash::point(format_args!("append {item} {event}"));
            appended.map(drop).map_err(JournalError::from)
        })
    }
}

/// A question about the folded state, asked after everything queued before is in it.
#[derive(Message)]
#[rtype(result = "Result<T, JournalError>")]
pub struct Load<T: Send + 'static>(pub Question<T>);

/// What to read from the folded state.
pub type Question<T> = Box<dyn FnOnce(&Folded, &View) -> Result<T, StoreError> + Send>;

impl<T: Send + 'static> Handler<Load<T>> for Journal {
    type Result = ResponseFuture<Result<T, JournalError>>;

    fn handle(&mut self, Load(question): Load<T>, _: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        let follower = self.follower.clone();
        // From the writer's thread straight on to the follower's. Whoever asked may be gone.
        let queued = self.appender.barrier_then(move |reached| match reached {
            Err(error) => drop(answer.send(Err(JournalError::from(error)))),
            Ok(_) => follower.tell(move |folded, view| {
                let answered = question(folded, view);
                drop(answer.send(answered.map_err(JournalError::from)));
            }),
        });
        Box::pin(async move {
            queued?;
            answered.await.unwrap_or_else(|_| Err(FollowerGone.into()))
        })
    }
}

/// What an ATM's actor left behind.
pub type LeftBehind = (AtmBook, Vec<(CashOut, Option<Invoice>)>);

/// What an ATM's actor left behind: its notes, and its open cash-outs with their invoices.
#[must_use]
pub fn load_atm(atm: AtmId) -> Load<LeftBehind> {
    Load(Box::new(move |folded, view| {
        let book = folded.atms.get(&atm).cloned().unwrap_or_default();
        let open = folded.open_at(&atm);
        let with_invoice = |cashout: &CashOut| {
            let hash = cashout.quote.hash;
            let invoice = match folded.invoices.get(&hash) {
                Some(open) => Some(open.clone()),
                None => view.invoice(hash)?,
            };
            Ok((cashout.clone(), invoice))
        };
        Ok((book, open.map(with_invoice).collect::<Result<_, StoreError>>()?))
    }))
}

/// What an invoice's actor left behind; also an invoice that has ended.
#[must_use]
pub fn load_invoice(hash: PaymentHash) -> Load<Option<Invoice>> {
    Load(Box::new(move |folded, view| match folded.invoices.get(&hash) {
        Some(open) => Ok(Some(open.clone())),
        None => view.invoice(hash),
    }))
}
