//! Cash-outs as the two ledgers tell them: each invoice with the notes that left while it was held.
//!
//! Called by the rules, the latencies and the simulated operator. What must stay true: a dispense belongs to an
//! invoice of the same machine that was ACCEPTED when it began; no word of the daemon's API is used. The invoice's
//! machine and cash-out are read from its memo at the node, and its amount from the price at the node.

use std::collections::HashMap;

use super::physical::{self, Dispense};
use super::{Evidence, Machine};
use crate::ids::{AtmId, CashOutId, PaymentHash};
use crate::money::{MSAT_PER_BTC, Minor, Rate};
use crate::sim::lnd::Ledger;
use crate::sim::lnd::node::record::{InvoiceRecord, InvoiceState, Money};
use crate::time::UnixMs;

/// One invoice with its dispenses.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The cash-out that the memo names.
    pub id: CashOutId,
    /// The machine that the memo names.
    pub atm: AtmId,
    /// The invoice.
    pub hash: PaymentHash,
    /// What its price buys.
    pub amount: Minor,
    /// Its state at the end.
    pub state: InvoiceState,
    /// When it was first held.
    pub held_at: Option<UnixMs>,
    /// When it entered its last state.
    pub since: UnixMs,
    /// The price.
    pub value_msat: u64,
    /// What its payers have lost for good.
    pub settled_msat: u64,
    /// What is locked for its payers.
    pub held_msat: u64,
    /// Every dispense while it was held.
    pub dispenses: Vec<Dispense>,
}

impl Fact {
    /// The value of all notes that left for it.
    #[must_use]
    pub fn delivered(&self) -> Minor {
        self.dispenses.iter().map(|dispense| dispense.value).sum()
    }

    /// Notes that are still at the exit.
    #[must_use]
    pub fn at_exit(&self) -> usize {
        self.dispenses.iter().map(|dispense| dispense.at_exit.len()).sum()
    }
}

/// What the two ledgers say together.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// One for each invoice of the fleet.
    pub cashouts: Vec<Fact>,
    /// Dispenses that began while no invoice of their machine was held.
    pub unheld: Vec<(AtmId, Dispense)>,
    /// Invoices whose memo names no machine and cash-out.
    pub strange: Vec<String>,
}

/// Reads `ATM <id> cash-out <id>`.
#[must_use]
pub fn read_memo(memo: &str) -> Option<(AtmId, CashOutId)> {
    let (atm, cashout) = memo.strip_prefix("ATM ")?.split_once(" cash-out ")?;
    Some((atm.parse().ok()?, cashout.parse().ok()?))
}

impl Facts {
    /// All of them.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        Self::find(&evidence.machines, &evidence.ledger, evidence.rate)
    }

    /// Joins the machines' ledgers with the node's.
    #[must_use]
    pub fn find(machines: &[Machine], ledger: &Ledger, rate: Rate) -> Self {
        let mut facts = Self::default();
        let money = money_by_hash(ledger);
        for invoice in &ledger.invoices {
            match fact(invoice, rate, money.get(&invoice.hash).copied().unwrap_or_default()) {
                Some(fact) => facts.cashouts.push(fact),
                None => facts
                    .strange
                    .push(format!("invoice {} has the memo `{}`", invoice.hash, invoice.memo)),
            }
        }
        let invoices: HashMap<PaymentHash, &InvoiceRecord> = ledger.invoices.iter().map(|i| (i.hash, i)).collect();
        let mut by_atm: HashMap<AtmId, Vec<usize>> = HashMap::new();
        for (index, fact) in facts.cashouts.iter().enumerate() {
            by_atm.entry(fact.atm.clone()).or_default().push(index);
        }
        for machine in machines {
            let here = by_atm.get(&machine.atm).map(Vec::as_slice).unwrap_or_default();
            for dispense in physical::dispenses(machine) {
                match owner(&facts.cashouts, here, &invoices, dispense.at) {
                    Some(index) => facts.cashouts[index].dispenses.push(dispense),
                    None => facts.unheld.push((machine.atm.clone(), dispense)),
                }
            }
        }
        facts
    }

    /// The one with this payment hash.
    #[must_use]
    pub fn by_hash(&self, hash: &str) -> Option<&Fact> {
        let hash: PaymentHash = hash.parse().ok()?;
        self.cashouts.iter().find(|fact| fact.hash == hash)
    }
}

/// By the payers' side: the node's SETTLED is no money.
fn money_by_hash(ledger: &Ledger) -> HashMap<PaymentHash, Money> {
    let mut money = HashMap::new();
    for payment in &ledger.payments {
        let sum: &mut Money = money.entry(payment.order.hash).or_default();
        *sum = sum.plus(payment.money());
    }
    money
}

fn fact(invoice: &InvoiceRecord, rate: Rate, money: Money) -> Option<Fact> {
    let (atm, id) = read_memo(&invoice.memo)?;
    let held = invoice
        .history
        .iter()
        .find(|entry| entry.state == InvoiceState::Accepted);
    let since = invoice
        .history
        .last()
        .map_or(invoice.created_at_unix_ms, |entry| entry.at_unix_ms);
    Some(Fact {
        id,
        atm,
        hash: invoice.hash,
        amount: worth(invoice.value_msat, rate),
        state: invoice.state,
        held_at: held.map(|entry| entry.at_unix_ms),
        since,
        value_msat: invoice.value_msat,
        settled_msat: money.settled_msat,
        held_msat: money.held_msat,
        dispenses: Vec::new(),
    })
}

/// The fiat that `msat` buys, rounded down.
fn worth(msat: u64, rate: Rate) -> Minor {
    let minor = u128::from(msat) * u128::from(rate.minor_per_btc) / u128::from(MSAT_PER_BTC);
    Minor(u64::try_from(minor).unwrap_or(u64::MAX))
}

/// Whether the invoice was ACCEPTED at `at`; both ends of the time count.
fn held(invoice: &InvoiceRecord, at: UnixMs) -> bool {
    let mut history = invoice.history.iter().peekable();
    while let Some(entry) = history.next() {
        let left = history.peek().map(|next| next.at_unix_ms);
        if entry.state == InvoiceState::Accepted && entry.at_unix_ms <= at && left.is_none_or(|left| at <= left) {
            return true;
        }
    }
    false
}

/// Whose dispense it is that began at `at`: of the invoices held then, one without notes before one that had some
/// (whose settling may take its time while the next customer is served), a later one before an earlier.
fn owner(
    cashouts: &[Fact],
    here: &[usize],
    invoices: &HashMap<PaymentHash, &InvoiceRecord>,
    at: UnixMs,
) -> Option<usize> {
    let candidates = here.iter().copied().filter(|index| {
        let invoice = cashouts.get(*index).and_then(|fact| invoices.get(&fact.hash));
        invoice.is_some_and(|invoice| held(invoice, at))
    });
    candidates.max_by_key(|index| {
        let fact = cashouts.get(*index);
        (fact.map(|f| f.delivered() == Minor::ZERO), fact.and_then(|f| f.held_at))
    })
}
