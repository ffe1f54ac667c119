//! What must be true of cash-outs that have come to rest, whatever happened on their way.
//!
//! Used by all tests of cash-outs on a real LND. It trusts nothing that tellerd says: notes are counted by the emulator,
//! money by the two nodes; tellerd's API, journal and metrics are compared with both. Source: DESIGN.md section 1.

use std::cell::RefCell;
use std::collections::HashMap;

use tellerd::api::{AtmView, CashOutView};
use tellerd::cashout::CashOut;
use tellerd::hardware::puloon::emulator::What;
use tellerd::ids::CashOutId;
use tellerd::journal::Reader;
use tellerd::money::Funds;
use tellerd::proto::lnrpc::htlc_attempt::HtlcStatus;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::payment::PaymentStatus;
use tellerd::proto::lnrpc::{
    HtlcAttempt, Invoice, InvoiceHtlcState, LookupHtlcResolutionRequest, Payment, PaymentHash,
};
use tellerd::record::Record;
use tellerd::store::{Change, Folded};
use tonic::Code;

use crate::rig::payer::hash_of;
use crate::rig::{Net, until};
use crate::teller::{DENOMINATIONS, Teller};

/// The reason of what the policy decided because nobody could tell in time: its amount is a lower bound.
const DECIDED_AT_DEADLINE: &str = "outcome unknown at the deadline";

/// The world before the cash-outs that are audited.
pub struct Audit {
    merchant_sats: i64,
    customer_sats: i64,
    /// Cash-outs that are not looked at.
    before: Vec<CashOutId>,
}

/// What became of one cash-out.
pub struct Fate {
    /// In tellerd's words.
    pub view: CashOutView,
    /// At LND; `None` when it has no such invoice.
    pub invoice: Option<Invoice>,
    /// At the nodes of those who tried to pay, the customer's first.
    pub payments: Vec<Payment>,
    /// Value of the notes that left in each dispense for it, in minor units.
    pub dispenses: Vec<u64>,
    /// What tellerd's journal says was held or taken.
    pub booked_msat: u64,
}

impl Fate {
    /// Of the invoice at LND.
    pub fn state(&self) -> Option<InvoiceState> {
        self.invoice.as_ref().map(Invoice::state)
    }

    /// What the payers tried.
    pub fn attempts(&self) -> impl Iterator<Item = &HtlcAttempt> {
        self.payments.iter().flat_map(|payment| &payment.htlcs)
    }

    /// What the payers' nodes have paid for good.
    pub fn paid_msat(&self) -> i64 {
        let paid = self
            .attempts()
            .filter(|attempt| attempt.status() == HtlcStatus::Succeeded);
        let routes = paid.filter_map(|attempt| attempt.route.as_ref());
        routes.map(|route| route.total_amt_msat).sum()
    }

    /// LND settled it, but the HTLC ended without the money, and tellerd names that.
    pub fn is_lost(&self) -> bool {
        self.view.funds == Some(Funds::Lost) && self.view.state == "needs_operator"
    }

    /// Value of the notes that left for it, in minor units.
    pub fn notes(&self) -> u64 {
        self.dispenses.iter().sum()
    }
}

impl Audit {
    /// Remembers where money and notes are. Waits until no HTLC is on its way.
    pub async fn begin(net: &Net, teller: &Teller) -> Self {
        nothing_pending(net, &[]).await;
        Self {
            merchant_sats: net.merchant_sats().await,
            customer_sats: net.customer_sats().await,
            before: teller.cashouts().await.iter().map(|view| view.id).collect(),
        }
    }

    /// Waits until every cash-out since is at rest, then compares. The newest is the first.
    pub async fn end(&self, net: &Net, teller: &Teller) -> Vec<Fate> {
        self.compare(net, teller, true).await
    }

    /// The same after a channel was closed: what the chain took as fees is in no payment, so balances are not compared.
    pub async fn end_on_chain(&self, net: &Net, teller: &Teller) -> Vec<Fate> {
        self.compare(net, teller, false).await
    }

    async fn compare(&self, net: &Net, teller: &Teller, same_channels: bool) -> Vec<Fate> {
        let views = self.at_rest(teller).await;
        let open: Vec<Vec<u8>> = views.iter().filter(|view| may_be_held(view)).map(hash).collect();
        nothing_pending(net, &open).await;
        let mut wrong = Vec::new();
        let books = books(teller);
        let mut dispenses = dispenses(teller, &views);
        let mut fates = Vec::new();
        for view in views {
            let books = books.get(&view.id).expect("a cash-out is in the journal");
            let notes = dispenses.remove(&view.id).unwrap_or_default();
            let fate = fate(net, view, notes, books).await;
            let found = [judge(&fate), told(&fate, books), htlcs(net, &fate).await].concat();
            wrong.extend(found.into_iter().map(|what| format!("{}: {what}", fate.view.id)));
            fates.push(fate);
        }
        if same_channels {
            wrong.extend(self.balances(net, &fates, open.is_empty()).await);
        }
        wrong.extend(machines(teller).await);
        wrong.extend(drift(teller).await);
        let log = teller.daemon.last_words();
        assert!(wrong.is_empty(), "the audit found:\n{}\n{log}", wrong.join("\n"));
        fates
    }

    /// The cash-outs since, once nothing more happens to them by itself.
    async fn at_rest(&self, teller: &Teller) -> Vec<CashOutView> {
        until("all cash-outs are at rest", async || {
            let all = teller.cashouts().await;
            let rests = |view: &CashOutView| view.at_rest() || is_named(view);
            all.iter().all(|view| rests(view) && view.funds != Some(Funds::Pending))
        })
        .await;
        let all = teller.cashouts().await.into_iter();
        all.filter(|view| !self.before.contains(&view.id)).collect()
    }

    /// What one node lost is what the other has, and that is what the payments say. The customer opened the channel
    /// and pays for an HTLC's room in the commitment, so its balance is looked at only when `none_pending`.
    async fn balances(&self, net: &Net, fates: &[Fate], none_pending: bool) -> Vec<String> {
        let paid_sats = fates.iter().map(|fate| fate.paid_msat()).sum::<i64>() / 1000;
        let mut wrong = Vec::new();
        let gained = net.merchant_sats().await - self.merchant_sats;
        if gained != paid_sats {
            wrong.push(format!("the merchant has {gained} sats more, {paid_sats} were paid"));
        }
        let lost = self.customer_sats - net.customer_sats().await;
        if none_pending && lost != paid_sats {
            wrong.push(format!("the customer has {lost} sats less, {paid_sats} were paid"));
        }
        wrong
    }
}

fn hash(view: &CashOutView) -> Vec<u8> {
    hex::decode(&view.payment_hash).expect("hex")
}

/// It is open, and an operator was told what to do.
fn is_named(view: &CashOutView) -> bool {
    let open = ["outcome_unknown", "needs_operator", "claim_owed"];
    view.operator_action.is_some() && open.contains(&view.state.as_str())
}

/// Nobody knows yet whether the payment is to be taken.
fn may_be_held(view: &CashOutView) -> bool {
    view.state == "outcome_unknown"
}

/// Returns once no channel has an HTLC on its way but those with one of these hashes.
async fn nothing_pending(net: &Net, open: &[Vec<u8>]) {
    until("no HTLC is on its way", async || {
        let mut pending = Vec::new();
        for node in net.nodes() {
            pending.extend(node.channels().await.into_iter().flat_map(|lane| lane.pending_htlcs));
        }
        pending.iter().all(|htlc| open.contains(&htlc.hash_lock))
    })
    .await;
}

/// The last state of every cash-out in the journal, folded by nobody but this.
fn books(teller: &Teller) -> HashMap<CashOutId, CashOut> {
    let mut folded = Folded::default();
    let mut last = HashMap::new();
    for entry in Reader::open(&teller.site.path("data")).expect("a journal") {
        let entry = entry.expect("an intact record");
        let record = Record::decode(entry.version, &entry.payload).expect("a record with a meaning");
        if let Some(Change::CashOut(cashout)) = folded.add(&record).expect("a record that follows") {
            last.insert(cashout.id, *cashout);
        }
    }
    last
}

/// Value of the notes that left in each dispense of each cash-out. A machine serves one at a time, so a dispense belongs
/// to the one that was begun last.
fn dispenses(teller: &Teller, views: &[CashOutView]) -> HashMap<CashOutId, Vec<u64>> {
    let mut found: HashMap<CashOutId, Vec<u64>> = HashMap::new();
    for (index, machine) in teller.site.machines.iter().enumerate() {
        let name = format!("atm{}", index + 1);
        let own: Vec<_> = views.iter().filter(|view| view.atm.as_str() == name).collect();
        let mut of = HashMap::new();
        for event in machine.events() {
            match event.what {
                What::DispenseStarted { dispense, .. } => {
                    let owner = own.iter().find(|view| view.created_unix_ms <= event.at_unix_ms);
                    if let Some(owner) = owner {
                        of.insert(dispense, owner.id);
                        found.entry(owner.id).or_default().push(0);
                    }
                }
                What::NoteDelivered { dispense, position } => {
                    let notes = of.get(&dispense).and_then(|owner| found.get_mut(owner));
                    if let Some(last) = notes.and_then(|notes| notes.last_mut()) {
                        *last += DENOMINATIONS[usize::from(position) - 1];
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// The payments at the payers' nodes, once those know their ends; the customer's is the first.
async fn payments(net: &Net, view: &CashOutView) -> Vec<Payment> {
    let hash = hash(view).try_into().expect("32 bytes");
    let is_over = |payment: &Payment| [PaymentStatus::Succeeded, PaymentStatus::Failed].contains(&payment.status());
    let mut all = Vec::new();
    for node in net.payers() {
        until(&format!("the payment of {} is over", view.id), async || {
            let payment = node.payment(hash).await;
            may_be_held(view) || payment.as_ref().is_none_or(is_over)
        })
        .await;
        all.extend(node.payment(hash).await);
    }
    all
}

async fn fate(net: &Net, view: CashOutView, dispenses: Vec<u64>, books: &CashOut) -> Fate {
    let mut client = net.merchant.lightning().await.expect("the merchant's node answers");
    let r_hash = hash(&view);
    let invoice = match client.lookup_invoice(PaymentHash { r_hash }).await {
        Ok(invoice) => Some(invoice.into_inner()),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => panic!("LookupInvoice: {status}"),
    };
    Fate {
        invoice,
        payments: payments(net, &view).await,
        dispenses,
        booked_msat: books.books.paid.0,
        view,
    }
}

/// What the world alone forbids, or forbids unless it is said openly.
fn judge(fate: &Fate) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let (notes, amount, named) = (fate.notes(), fate.view.amount_minor.0, is_named(&fate.view));
    let moving = fate.dispenses.iter().filter(|notes| **notes > 0).count();
    must(moving <= 1, "two dispenses delivered notes");
    let beaten = fate.dispenses.iter().skip_while(|notes| **notes == 0).count();
    must(
        beaten <= 1,
        "a dispense was commanded after one that had delivered notes",
    );
    must(notes <= amount, "more notes left than were asked for");
    let price = i64::try_from(fate.view.price_msat.0).expect("a price");
    match fate.state() {
        Some(InvoiceState::Settled) if !fate.is_lost() => {
            let taken = fate.invoice.as_ref().map_or(0, |invoice| invoice.amt_paid_msat);
            must(taken >= price, "settled for less than the price");
            must(taken == fate.paid_msat(), "the customer did not pay what LND took");
            // A claim beside some notes is a rule; a claim for all of it is a sale without goods.
            let untold = named && fate.view.state != "claim_owed";
            must(notes > 0 || untold, "settled, and no note left the machine");
            let owed = amount.saturating_sub(notes);
            must(
                fate.view.claim_minor.0 == owed || named,
                "the claim is not what is missing",
            );
            must(
                owed == 0 || named || fate.view.ended,
                "a part is missing, and nobody is told",
            );
        }
        state => {
            must(fate.paid_msat() == 0, "the customer paid, and LND took nothing");
            let over = matches!(state, Some(InvoiceState::Canceled) | None) || fate.is_lost();
            must(
                over || named,
                "it can still be paid, or is held, and no open item names it",
            );
            must(fate.view.state != "completed", "completed, and nothing was taken");
            let loss = fate.view.loss_minor.0;
            must(
                loss == notes || named && !fate.is_lost(),
                "notes left, nothing was taken, and the loss is not booked",
            );
        }
    }
    for attempt in fate.attempts() {
        let over = attempt.status() != HtlcStatus::InFlight;
        must(
            over || may_be_held(&fate.view),
            "the customer's node has a payment in flight",
        );
        if attempt.status() == HtlcStatus::Succeeded {
            let preimage = attempt.preimage.as_slice().try_into().unwrap_or_default();
            let ours = hash_of(&preimage).as_slice() == hash(&fate.view);
            must(ours, "paid for another preimage");
        }
    }
    found
}

/// What tellerd says of it, in its API and in its journal, against the world.
fn told(fate: &Fate, books: &CashOut) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let view = &fate.view;
    let settled = fate.state() == Some(InvoiceState::Settled) && !fate.is_lost();
    must(view.settled == settled, "tellerd and LND disagree about the settlement");
    let there = matches!(view.funds, Some(Funds::Final | Funds::NotFollowed));
    must(there == settled, "tellerd and LND disagree about the money's end");
    let bound = view.reason.as_deref() == Some(DECIDED_AT_DEADLINE) || view.state == "outcome_unknown";
    let delivered = view.delivered_minor.0;
    let right = if bound {
        delivered <= fate.notes()
    } else {
        delivered == fate.notes()
    };
    must(right, "tellerd and the machine disagree about the notes");
    must(
        books.phase.name() == view.state,
        "API and journal disagree about the state",
    );
    must(
        view.paid_msat.0 == fate.booked_msat,
        "API and journal disagree about the money",
    );
    must(books.drift() == 0, "its books do not balance");
    let taken = fate.invoice.as_ref().map_or(0, |invoice| invoice.amt_paid_msat);
    let booked = i64::try_from(fate.booked_msat).ok();
    must(
        !settled || booked == Some(taken),
        "another amount is booked than LND took",
    );
    found
}

/// What finally became of each HTLC at the merchant's node, where it keeps that.
async fn htlcs(net: &Net, fate: &Fate) -> Vec<String> {
    let mut found = Vec::new();
    let client = net.merchant.lightning().await.expect("the merchant's node answers");
    for htlc in fate.invoice.iter().flat_map(|invoice| &invoice.htlcs) {
        if htlc.state() == InvoiceHtlcState::Accepted {
            continue;
        }
        let asked = LookupHtlcResolutionRequest {
            chan_id: htlc.chan_id,
            htlc_index: htlc.htlc_index,
        };
        let told = RefCell::new(None);
        until("the end of an HTLC is known", async || {
            let answer = client.clone().lookup_htlc_resolution(asked).await;
            let known = !answer.as_ref().is_err_and(|status| status.code() == Code::NotFound);
            *told.borrow_mut() = Some(answer);
            known
        })
        .await;
        let settled = htlc.state() == InvoiceHtlcState::Settled && !fate.is_lost();
        match told.into_inner().expect("an answer") {
            Ok(told) if told.get_ref().settled == settled => {}
            Ok(told) => found.push(format!(
                "an HTLC that the invoice calls {:?} ended as {told:?}",
                htlc.state()
            )),
            // The node does not keep it.
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => found.push(format!("LookupHtlcResolution: {status}")),
        }
    }
    found
}

/// The cassettes' books against the machines' own counts, since both began.
async fn machines(teller: &Teller) -> Vec<String> {
    let mut found = Vec::new();
    for (index, machine) in teller.site.machines.iter().enumerate() {
        let name = format!("atm{}", index + 1);
        let view: AtmView = teller.daemon.get(&format!("/v1/atms/{name}")).await.expect("a machine");
        for cassette in &view.cassettes {
            let totals = machine.totals();
            let counted = totals.iter().find(|totals| totals.position == cassette.position);
            let left = counted.map_or(0, |totals| totals.delivered);
            let most = cassette.delivered + cassette.unaccounted;
            if !(cassette.delivered..=most).contains(&left) {
                found.push(format!("{name}: {left} notes left, its books say {cassette:?}"));
            }
        }
    }
    found
}

/// tellerd's own checks of its books.
async fn drift(teller: &Teller) -> Vec<String> {
    let mut found = Vec::new();
    for name in [
        "tellerd_conservation_drift_notes",
        "tellerd_conservation_drift_minor_units",
    ] {
        let value = teller.metric(name).await;
        if value != Some(0.0) {
            found.push(format!("{name} is {value:?}"));
        }
    }
    let verified = teller.verify_journal().await;
    match verified {
        Ok(told) if told.contains("drift of the books 0") => {}
        Ok(told) | Err(told) => found.push(format!("tellerd journal verify: {told}")),
    }
    found
}
