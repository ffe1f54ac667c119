//! The hold-invoice service: its methods, each answered from an invoice's actor.
//!
//! Called by the Nostr actor for callers whose key is proven. What must stay true: an OK means durable here; only the
//! client that made an invoice may touch it, and others hear "not found"; a repeated call has no second effect. Clients
//! that were revoked may still look at, settle and cancel what they have: a dispense may be under way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::notices::Notices;
use super::{Caller, standing};
use crate::actors::invoice::{InvoiceCall, Order, OrderError, Reply};
use crate::actors::journal::Load;
use crate::actors::lnd;
use crate::actors::shared::Shared;
use crate::cashout::Policy;
use crate::clients::{Limits, quota};
use crate::config::ServiceConfig;
use crate::ids::{ClientName, NostrKey, PaymentHash, Preimage};
use crate::invoice::{Invoice, InvoicePhase, InvoiceSpec, Owner};
use crate::metrics::LndMethod;
use crate::money::Msat;
use crate::nostr::method::{CreateHoldInvoice, CreatedInvoice, InvoiceStanding, ServiceInfo};
use crate::nostr::wire::{Code, Failure};

/// How long an answer waits for LND to add an invoice.
const OPENING: Duration = Duration::from_secs(15);
/// How long it waits for LND to settle or cancel one: what it says is durable already.
const ENDING: Duration = Duration::from_secs(2);
/// LND takes no larger final CLTV delta from payers (`routing.MaxCLTVDelta`).
const CLTV_EXPIRY_MAX: u16 = 2016;

/// What a client may do that was revoked.
const NOTHING: Limits = Limits {
    max_amount_sats: 0,
    max_held_sats: 0,
    max_open: 0,
    requests_per_minute: 0,
    sats_per_day: 0,
};

/// A committed hold is given up with fewer blocks left than this: half of what this daemon forces its own outcomes at, so
/// that a site with the same policy has decided, and its order is here, before this side decides for it.
fn force_blocks_left(policy: &Policy) -> u32 {
    policy.force_blocks_left / 2
}

pub(super) type Answer<T> = Result<T, Failure>;

/// What subscribeHoldInvoices gives.
#[derive(Debug, Serialize)]
pub(super) struct Subscribed {
    subscribed_until_unix: u64,
}

/// What all calls share; it dies with its actor.
pub(super) struct Service {
    pub shared: Arc<Shared>,
    pub config: ServiceConfig,
    pub notices: Notices,
    /// Calls of createHoldInvoice that are being checked or written down, by client: count and sats.
    creating: RefCell<HashMap<NostrKey, (u32, u64)>>,
}

/// Counts a call as creating until it is dropped.
struct Creating<'a> {
    service: &'a Service,
    client: NostrKey,
    sats: u64,
}

impl<'a> Creating<'a> {
    fn begin(service: &'a Service, client: NostrKey, sats: u64) -> Self {
        let mut creating = service.creating.borrow_mut();
        let (count, sum) = creating.entry(client).or_default();
        *count = count.saturating_add(1);
        *sum = sum.saturating_add(sats);
        Self { service, client, sats }
    }

    /// Those of the same client beside this one.
    fn others(&self) -> (u32, u64) {
        let creating = self.service.creating.borrow();
        let (count, sum) = creating.get(&self.client).copied().unwrap_or_default();
        (count.saturating_sub(1), sum.saturating_sub(self.sats))
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        let mut creating = self.service.creating.borrow_mut();
        let (count, sum) = self.others_of(&creating);
        if count == 0 {
            creating.remove(&self.client);
        } else {
            creating.insert(self.client, (count, sum));
        }
    }
}

impl Creating<'_> {
    fn others_of(&self, creating: &HashMap<NostrKey, (u32, u64)>) -> (u32, u64) {
        let (count, sum) = creating.get(&self.client).copied().unwrap_or_default();
        (count.saturating_sub(1), sum.saturating_sub(self.sats))
    }
}

fn unavailable(why: impl Into<String>) -> Failure {
    Failure::new(Code::Unavailable, why)
}

fn not_found() -> Failure {
    Failure::new(Code::NotFound, "you have no invoice with this hash")
}

impl Service {
    pub fn new(shared: Arc<Shared>, config: ServiceConfig) -> Self {
        Self {
            shared,
            config,
            notices: Notices::default(),
            creating: RefCell::default(),
        }
    }

    async fn ask(&self, hash: PaymentHash, order: Order) -> Result<Reply, OrderError> {
        let later = |why: &str| OrderError::Later(why.to_owned());
        let supervisor = self
            .shared
            .supervisor
            .get()
            .ok_or_else(|| later("the daemon is starting"))?;
        let sent = supervisor.send(InvoiceCall { hash, order }).await;
        sent.map_err(|_| later("the supervisor died over it"))?
    }

    /// The invoice, if this caller made it.
    async fn own(&self, caller: &Caller, hash: PaymentHash) -> Answer<Invoice> {
        match self.ask(hash, Order::Look).await {
            Ok(reply) if standing::client_of(&reply.invoice) == Some(caller.key) => Ok(reply.invoice),
            Ok(_) | Err(OrderError::Unknown) => Err(not_found()),
            Err(OrderError::Refused { why, .. } | OrderError::Later(why)) => Err(unavailable(why)),
        }
    }

    pub async fn create(&self, caller: &Caller, wanted: CreateHoldInvoice) -> Answer<CreatedInvoice> {
        let (_, limits) = caller.client()?;
        self.check(&wanted)?;
        let hash = wanted.hash;
        let mut wait = self.notices.wait(hash);
        let known = match self.ask(hash, Order::Look).await {
            Ok(reply) => Some(same(caller, &wanted, reply.invoice)?),
            Err(OrderError::Unknown) => None,
            Err(OrderError::Refused { why, .. } | OrderError::Later(why)) => return Err(unavailable(why)),
        };
        let invoice = match known {
            Some(invoice) => invoice,
            None => self.open(caller, limits, wanted).await?,
        };
        let added = |invoice: &Invoice| !matches!(invoice.phase, InvoicePhase::Creating);
        let invoice = match added(&invoice) {
            true => invoice,
            false => {
                let waited = wait.until(OPENING, added).await;
                waited.ok_or_else(|| unavailable("the node has not added the invoice yet, ask again"))?
            }
        };
        self.created(invoice)
    }

    /// What must hold of a new invoice beside its client's limits.
    fn check(&self, wanted: &CreateHoldInvoice) -> Answer<()> {
        let policy = &self.shared.terms.policy;
        let least = policy
            .hold_expiry_delta
            .saturating_add(policy.min_blocks_left)
            .saturating_add(1);
        let bad = |why: String| Err(Failure::new(Code::BadRequest, why));
        match wanted.cltv_expiry {
            Some(blocks) if u32::from(blocks) < least => bad(format!("cltv_expiry must be at least {least} here")),
            Some(blocks) if blocks > CLTV_EXPIRY_MAX => bad(format!("cltv_expiry must be at most {CLTV_EXPIRY_MAX}")),
            _ => Ok(()),
        }
    }

    /// Writes a new invoice down, within the client's limits.
    async fn open(&self, caller: &Caller, limits: Limits, wanted: CreateHoldInvoice) -> Answer<Invoice> {
        if let Err(why) = self.shared.status.borrow().can_add() {
            return Err(unavailable(why));
        }
        if *self.shared.stopping.borrow() {
            return Err(unavailable("the service is about to end, ask again"));
        }
        if self.lnd_has(wanted.hash).await? {
            // Perhaps since the caller's other event was followed, a moment ago.
            return match self.ask(wanted.hash, Order::Look).await {
                Ok(reply) => same(caller, &wanted, reply.invoice),
                Err(OrderError::Unknown) => Err(other_hash()),
                Err(error) => Err(unavailable(error.to_string())),
            };
        }
        let creating = Creating::begin(self, caller.key, wanted.amount_sats);
        let (count, sats) = creating.others();
        let mut usage = self.usage(caller.key).await?;
        usage.open = usage.open.saturating_add(count);
        usage.held_sats = usage.held_sats.saturating_add(sats);
        usage.day_sats = usage.day_sats.saturating_add(sats);
        quota::check(&limits, &usage, wanted.amount_sats)
            .map_err(|over| Failure::new(Code::OverLimit, over.to_string()))?;
        let (hash, spec) = (wanted.hash, Box::new(self.spec(caller.key, wanted)));
        match self.ask(hash, Order::Open(spec)).await {
            Ok(reply) => Ok(reply.invoice),
            // Somebody else was quicker with the same hash; or the caller, with a second event.
            Err(OrderError::Refused { invoice, .. }) if standing::client_of(&invoice) == Some(caller.key) => {
                Err(unavailable("the same invoice is being made, ask again"))
            }
            Err(OrderError::Refused { .. }) => Err(other_hash()),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    /// LND has an invoice with this hash although none was asked for here: another program's. It must not become the
    /// caller's, who could cancel it then; hash and amount are known to everybody who was shown it. Once an intent is
    /// written down, what LND has is taken for ours ([`crate::actors::invoice`]), so it is asked before.
    async fn lnd_has(&self, hash: PaymentHash) -> Answer<bool> {
        let found = self.shared.ask_lnd(LndMethod::Lookup, lnd::lookup(hash)).await;
        found
            .map(|found| found.is_some())
            .map_err(|error| unavailable(error.to_string()))
    }

    async fn usage(&self, client: NostrKey) -> Answer<quota::Usage> {
        let now = self.shared.clock.now();
        let journal = self.shared.journal.get();
        let journal = journal.ok_or_else(|| unavailable("the journal's actor is being restarted"))?;
        let question = move |folded: &crate::store::Folded, _: &crate::store::View| {
            Ok(folded.usage.get(&client).copied().unwrap_or_default())
        };
        let asked = journal.send(Load(Box::new(question))).await;
        let usage = asked.map_err(|error| unavailable(error.to_string()))?;
        let usage = usage.map_err(|error| unavailable(error.to_string()))?;
        Ok(quota::Usage {
            open: usage.open,
            // Every open invoice may be paid at once.
            held_sats: usage.pending_sats,
            day_sats: usage.day_sats(now),
        })
    }

    fn spec(&self, client: NostrKey, wanted: CreateHoldInvoice) -> InvoiceSpec {
        let policy = &self.shared.terms.policy;
        let expiry = Duration::from_secs(wanted.expiry_seconds.into());
        InvoiceSpec {
            hash: wanted.hash,
            owner: Owner::Remote {
                client,
                commit_ms: u64::try_from(self.config.commit_deadline.as_millis()).unwrap_or(u64::MAX),
                force_blocks_left: force_blocks_left(policy),
            },
            amount: Msat(wanted.amount_sats.saturating_mul(1000)),
            memo: wanted.memo,
            pay_by: self.shared.clock.now().plus(expiry),
            hold_ms: policy.hold_ms,
            cltv_expiry: wanted.cltv_expiry.unwrap_or(policy.cltv_expiry),
            hold_expiry_delta: policy.hold_expiry_delta,
            min_blocks_left: policy.min_blocks_left,
            private_route_hints: self.shared.terms.private_route_hints,
        }
    }

    fn created(&self, invoice: Invoice) -> Answer<CreatedInvoice> {
        let spec = &invoice.spec;
        match (&invoice.phase, invoice.payment_request) {
            (InvoicePhase::Canceling(why) | InvoicePhase::Canceled(why), _) => {
                let why = format!("this invoice is canceled ({}): make one with another hash", why.word());
                Err(Failure::new(Code::AlreadyCanceled, why))
            }
            (_, None) => Err(unavailable("the node has not added the invoice yet, ask again")),
            (_, Some(payment_request)) => Ok(CreatedInvoice {
                invoice: payment_request,
                payment_hash: spec.hash,
                expires_at_unix: spec.pay_by.as_secs(),
                hold_deadline_seconds: spec.hold_ms / 1000,
            }),
        }
    }

    pub async fn commit(&self, caller: &Caller, hash: PaymentHash) -> Answer<crate::nostr::method::CommittedInvoice> {
        caller.client()?;
        self.own(caller, hash).await?;
        let reply = self.ordered(hash, Order::Commit).await?;
        let committed = reply
            .kept
            .and_then(|kept| standing::committed(&reply.invoice, kept.blocks_left));
        committed.ok_or_else(|| standing::refusal(&reply.invoice, "the invoice is not held any more"))
    }

    async fn ordered(&self, hash: PaymentHash, order: Order) -> Answer<Reply> {
        match self.ask(hash, order).await {
            Ok(reply) => Ok(reply),
            Err(OrderError::Refused { why, invoice }) => Err(standing::refusal(&invoice, &why)),
            Err(OrderError::Unknown) => Err(not_found()),
            Err(OrderError::Later(why)) => Err(unavailable(why)),
        }
    }

    pub async fn settle(&self, caller: &Caller, preimage: Preimage) -> Answer<InvoiceStanding> {
        let hash = preimage.hash();
        self.own(caller, hash).await?;
        self.end(hash, Order::Settle(preimage)).await
    }

    pub async fn cancel(&self, caller: &Caller, hash: PaymentHash) -> Answer<InvoiceStanding> {
        self.own(caller, hash).await?;
        self.end(hash, Order::Cancel("its client canceled it".into())).await
    }

    /// Gives the order, which is durable with the reply, and waits a little for LND.
    async fn end(&self, hash: PaymentHash, order: Order) -> Answer<InvoiceStanding> {
        let mut wait = self.notices.wait(hash);
        let reply = self.ordered(hash, order).await?;
        let ended = match reply.invoice.is_done() {
            true => None,
            false => wait.until(ENDING, Invoice::is_done).await,
        };
        let invoice = ended.unwrap_or(reply.invoice);
        Ok(InvoiceStanding {
            payment_hash: hash,
            state: standing::state(&invoice),
            done: invoice.is_done(),
        })
    }

    pub async fn get(&self, caller: &Caller, hash: PaymentHash) -> Answer<crate::nostr::method::HoldInvoice> {
        let invoice = self.own(caller, hash).await?;
        Ok(standing::hold_invoice(&invoice, self.height()))
    }

    /// LND's height, while it is known.
    pub fn height(&self) -> Option<u32> {
        let status = self.shared.status.borrow();
        (status.is_up() && status.height > 0).then_some(status.height)
    }

    pub fn subscribe(&self, caller: &Caller) -> Answer<Subscribed> {
        caller.client()?;
        let until = self
            .notices
            .subscribe(caller.key, caller.version, self.shared.clock.now());
        Ok(Subscribed {
            subscribed_until_unix: until.as_secs(),
        })
    }

    /// Whether this key has made an invoice here, whatever became of both.
    async fn has_had(&self, key: NostrKey) -> Answer<bool> {
        let journal = self.shared.journal.get();
        let journal = journal.ok_or_else(|| unavailable("the journal's actor is being restarted"))?;
        let question = move |folded: &crate::store::Folded, _: &crate::store::View| Ok(folded.usage.contains_key(&key));
        let asked = journal.send(Load(Box::new(question))).await;
        let asked = asked.map_err(|error| unavailable(error.to_string()))?;
        asked.map_err(|error| unavailable(error.to_string()))
    }

    /// The caller's name and limits; of a client that was revoked, none. Before it settles or cancels what it has, a
    /// site asks at which node that is.
    async fn client_or_former(&self, caller: &Caller) -> Answer<Option<(ClientName, Limits)>> {
        match caller.client() {
            Ok((name, limits)) => Ok(Some((name.clone(), limits))),
            Err(_) if self.has_had(caller.key).await? => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub async fn info(&self, caller: &Caller) -> Answer<ServiceInfo> {
        let client = self.client_or_former(caller).await?;
        let can_add = match client {
            Some(_) => self.shared.status.borrow().can_add(),
            None => Err("this key is no client here any more, it can only finish what it has".to_owned()),
        };
        let (name, limits) =
            client.map_or_else(|| (String::new(), NOTHING), |(name, limits)| (name.to_string(), limits));
        let (status, policy) = (self.shared.status.borrow().clone(), &self.shared.terms.policy);
        let node = status.node.clone().unwrap_or_default();
        Ok(ServiceInfo {
            name: self.config.name.clone(),
            version: concat!("tellerd ", env!("CARGO_PKG_VERSION")).to_owned(),
            node_pubkey: node.pubkey,
            network: node.network,
            block_height: status.height,
            node_up: status.is_up(),
            can_create: can_add.is_ok(),
            trouble: can_add.err(),
            hold_expiry_delta: policy.hold_expiry_delta,
            min_blocks_left: policy.min_blocks_left,
            force_blocks_left: Some(force_blocks_left(policy)),
            follows_funds: Some(status.follows()),
            cltv_expiry: policy.cltv_expiry,
            hold_deadline_seconds: policy.hold_ms / 1000,
            commit_deadline_seconds: self.config.commit_deadline.as_secs(),
            now_unix: self.shared.clock.now().as_secs(),
            client: name,
            limits,
        })
    }
}

fn other_hash() -> Failure {
    Failure::new(
        Code::AlreadyExists,
        "there is another invoice with this hash: make one with another hash",
    )
}

/// The invoice that is there already, when it is what is asked for again.
fn same(caller: &Caller, wanted: &CreateHoldInvoice, invoice: Invoice) -> Answer<Invoice> {
    let amount = invoice.spec.amount == Msat(wanted.amount_sats.saturating_mul(1000));
    match standing::client_of(&invoice) == Some(caller.key) && amount {
        true => Ok(invoice),
        false => Err(other_hash()),
    }
}
