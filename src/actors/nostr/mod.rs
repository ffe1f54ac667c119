//! The Nostr actor: answers what is asked over Nostr, and tells clients of changes of their invoices.
//!
//! Asked by the gate ([`Question`]), which has proven who asks, and told by the invoices' actors ([`InvoiceSeen`]).
//! `service` has the methods of hold invoices, `operate` those of operators, `once` what they ordered last, `enroll` invitations, `sites` reports;
//! `gate` proves who asks, `line` is the thread with the relays, `report` a site's own side. Who may do what is in [`crate::clients`]. What must stay true: the actor is a
//! cache; it may die at any point, and a question without an answer is asked again by its client.

mod enroll;
pub mod gate;
pub mod line;
mod notices;
pub mod once;
mod operate;
pub mod report;
mod service;
pub mod sites;
mod standing;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use serde::Serialize;

use super::child::{DownGuard, can_panic};
use super::fleet::Fleet;
use super::invoice::InvoiceSeen;
use super::shared::Shared;
use crate::clients::{Limits, Role, Who};
use crate::config::NostrConfig;
use crate::ids::{ClientName, NostrKey};
use crate::nostr::method::{Asked, Call, Method, Refusal};
use crate::nostr::wire::{Code, Failure, Outcome, Version};
use service::Service;

/// A request whose sender is proven, which is fresh, and was never seen before.
#[derive(Debug, Message)]
#[rtype(result = "Outcome")]
pub struct Question {
    /// Who asks.
    pub key: NostrKey,
    /// In which encryption; pushes use it too.
    pub version: Version,
    /// The same in a request that is asked again.
    pub request_id: Option<String>,
    /// What.
    pub asked: Result<Asked, Refusal>,
}

/// Who asks, and what the roster says of that key now.
#[derive(Debug, Clone)]
struct Caller {
    key: NostrKey,
    version: Version,
    who: Who,
    request_id: Option<String>,
    /// In a batch.
    place: usize,
}

impl Caller {
    /// Its name and limits as a client.
    fn client(&self) -> Result<(&ClientName, Limits), Failure> {
        let client = self.who.client.as_ref();
        client.map(|(name, limits)| (name, *limits)).ok_or_else(|| {
            Failure::new(
                Code::NotAllowed,
                "this key is not a client here: ask the operator for an invitation",
            )
        })
    }

    /// Its name as an operator who may do what `least` may.
    fn operator(&self, least: Role) -> Result<&ClientName, Failure> {
        let not = |why: String| Failure::new(Code::NotAllowed, why);
        match &self.who.operator {
            None => Err(not("this key is not an operator here".to_owned())),
            Some((_, role)) if *role < least => Err(not(format!("this key has the role {role}; that needs {least}"))),
            Some((name, _)) => Ok(name),
        }
    }
}

/// The Nostr actor.
pub struct Nostr {
    desk: Rc<Desk>,
    _guard: DownGuard,
}

/// What answers need; it lives as long as its actor.
struct Desk {
    shared: Arc<Shared>,
    fleet: Fleet,
    service: Option<Service>,
}

impl Nostr {
    /// One life of it.
    #[must_use]
    pub fn new(shared: Arc<Shared>, config: &NostrConfig, guard: DownGuard) -> Self {
        let service = config.service.clone();
        let service = service.map(|config| Service::new(Arc::clone(&shared), config));
        let desk = Desk {
            fleet: Fleet::new(Arc::clone(&shared)),
            shared,
            service,
        };
        Self {
            desk: Rc::new(desk),
            _guard: guard,
        }
    }
}

impl Actor for Nostr {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
    }
}

can_panic!(Nostr);

impl Handler<Question> for Nostr {
    type Result = ResponseFuture<Outcome>;

    fn handle(&mut self, question: Question, _: &mut Self::Context) -> Self::Result {
        let desk = Rc::clone(&self.desk);
        let who = desk.shared.roster.borrow().who(&question.key);
        let caller = Caller {
            key: question.key,
            version: question.version,
            who,
            request_id: question.request_id,
            place: 0,
        };
        Box::pin(async move { desk.answer(caller, question.asked).await })
    }
}

impl Handler<InvoiceSeen> for Nostr {
    type Result = ();

    fn handle(&mut self, InvoiceSeen(invoice): InvoiceSeen, _: &mut Self::Context) {
        let Some(service) = &self.desk.service else { return };
        service.notices.seen(&invoice);
        let Some(client) = standing::client_of(&invoice) else {
            return;
        };
        let subscribed = service.notices.subscription(&client, self.desk.shared.clock.now());
        if let (Some(version), Some(gate)) = (subscribed, &self.desk.shared.gate) {
            let push = outcome(Ok(standing::hold_invoice(&invoice, service.height())));
            gate.push(client, version, Method::SubscribeHoldInvoices.name(), push);
        }
    }
}

impl Desk {
    async fn answer(&self, mut caller: Caller, asked: Result<Asked, Refusal>) -> Outcome {
        match asked {
            Err(refusal) => self.refused(refusal),
            Ok(Asked::One(call)) => self.call(&caller, call).await,
            Ok(Asked::Batch(calls)) => {
                let mut outcomes = Vec::with_capacity(calls.len());
                for (place, call) in calls.into_iter().enumerate() {
                    caller.place = place;
                    outcomes.push(match call {
                        Ok(call) => self.call(&caller, call).await,
                        Err(refusal) => self.refused(refusal),
                    });
                }
                Outcome::batch(outcomes)
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Outcome {
        let failure = Failure::from(refusal);
        self.shared
            .metrics
            .nostr_request(None, Some(failure.code), std::time::Duration::ZERO);
        Outcome::Error(failure)
    }

    async fn call(&self, caller: &Caller, call: Call) -> Outcome {
        let (method, begun) = (call.method(), Instant::now());
        let outcome = self.run(caller, call).await;
        let code = match &outcome {
            Outcome::Ok(_) => None,
            Outcome::Error(failure) => Some(failure.code),
        };
        self.shared.metrics.nostr_request(Some(method), code, begun.elapsed());
        outcome
    }

    async fn run(&self, caller: &Caller, call: Call) -> Outcome {
        let service = || {
            let none = || Failure::new(Code::NotAllowed, "this tellerd serves no hold invoices");
            self.service.as_ref().ok_or_else(none)
        };
        let service = match call {
            Call::Operator(call) => return outcome(self.operate(caller, call).await),
            _ => match service() {
                Ok(service) => service,
                Err(failure) => return Outcome::Error(failure),
            },
        };
        match call {
            Call::CreateHoldInvoice(wanted) => outcome(service.create(caller, wanted).await),
            Call::CommitHoldInvoice(hash) => outcome(service.commit(caller, hash).await),
            Call::SettleHoldInvoice(preimage) => outcome(service.settle(caller, preimage).await),
            Call::CancelHoldInvoice(hash) => outcome(service.cancel(caller, hash).await),
            Call::GetHoldInvoice(hash) => outcome(service.get(caller, hash).await),
            Call::SubscribeHoldInvoices => outcome(service.subscribe(caller)),
            Call::GetServiceInfo => outcome(service.info(caller).await),
            Call::EnrollClient(token) => outcome(self.enroll(caller, &token).await),
            Call::ReportSite(report) => outcome(self.report(caller, *report)),
            // Answered above.
            Call::Operator(_) => outcome(Err::<(), _>(Failure::new(Code::Other, "not a method of the service"))),
        }
    }
}

/// The answer on the wire.
fn outcome<T: Serialize>(answer: Result<T, Failure>) -> Outcome {
    match answer {
        Err(failure) => Outcome::Error(failure),
        Ok(result) => Outcome::success(&result)
            .unwrap_or_else(|error| Outcome::Error(Failure::new(Code::Other, error.to_string()))),
    }
}
