//! One cash-out: the pure state machine of a customer transaction, from quote to end.
//!
//! Owns every decision about a customer's money and notes. Driven by the ATM actor.
//! What must stay true is section 1 of the design: no dispense without a hold, each order commanded
//! at most once, no cancel after cash and no settle at proven zero except by the operator's policies,
//! and an unknown outcome is a state. [`machine::apply`] refuses what would break these.

pub mod assess;
pub mod event;
pub mod ledger;
pub mod machine;
pub mod mix;
pub mod quote;
mod settled;
#[cfg(test)]
pub(crate) mod tests;

use serde::{Deserialize, Serialize};

use crate::hardware::{CassetteReport, DispenseIntent, DispenseOrder};
use crate::ids::{AtmId, CashOutId, PaymentHash, Preimage};
use crate::money::{Currency, Funds, Minor, Msat, Rate};
use crate::time::UnixMs;

pub use event::{CancelBy, Event, Resolution};
pub use machine::{Effect, Illegal, apply, deadline, effects};

/// What becomes of a partial dispense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartialPolicy {
    /// Settle, and owe the customer the rest: a claim. The default: nobody loses.
    Owe,
    /// Cancel and book the delivered notes as the operator's loss, up to this value; owe above it.
    Absorb {
        /// Minor units.
        limit: Minor,
    },
}

/// What becomes of an outcome that is still unknown at its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownPolicy {
    /// The customer is made whole, the operator carries the risk. The default.
    Cancel,
    /// The notes are taken as delivered.
    Settle,
}

/// The operator's rules, as they were when the quote was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// For partial dispenses.
    pub partial: PartialPolicy,
    /// For outcomes unknown at the deadline.
    pub unknown_at_deadline: UnknownPolicy,
    /// How long a hold may wait for its dispense, in milliseconds.
    pub hold_ms: u64,
    /// How long an outcome may stay unknown, in milliseconds.
    pub unknown_ms: u64,
    /// No dispense with fewer blocks than this before LND cancels.
    pub min_blocks_left: u32,
    /// An outcome still unknown is decided when fewer blocks than this are left.
    pub force_blocks_left: u32,
    /// LND's `holdexpirydelta`, in blocks.
    pub hold_expiry_delta: u32,
    /// The invoice's final CLTV delta, in blocks.
    pub cltv_expiry: u16,
    /// Most dispense orders for one cash-out: the first, and new mixes after a proven zero.
    pub max_orders: u32,
}

/// What was promised to the customer. Durable, with the preimage, before LND hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The machine.
    pub atm: AtmId,
    /// Value of the notes.
    pub amount: Minor,
    /// The operator's fee, paid on top.
    pub fee: Minor,
    /// Of `amount` and `fee`.
    pub currency: Currency,
    /// The price used.
    pub rate: Rate,
    /// What the customer pays: `amount + fee` at `rate`, rounded up to a whole satoshi.
    pub price: Msat,
    /// The notes reserved.
    pub mix: DispenseOrder,
    /// Settles the invoice.
    pub preimage: Preimage,
    /// The preimage's hash.
    pub hash: PaymentHash,
    /// When it was made.
    pub at: UnixMs,
    /// From then on it is not to be paid any more.
    pub pay_by: UnixMs,
    /// The rules that hold for it.
    pub policy: Policy,
}

/// Where a cash-out stands. DESIGN.md section 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Phase {
    /// Promised, notes reserved; the invoice is being added.
    Quoted,
    /// The invoice is shown to the customer.
    AwaitingPayment,
    /// The money is held; dispenser and hold are being checked.
    Held {
        /// After this the customer gets the money back.
        until: UnixMs,
    },
    /// An order is durable; it is commanded at most once.
    Dispensing {
        /// The order and the device's counters before it.
        intent: DispenseIntent,
    },
    /// Notes may have left the machine.
    OutcomeUnknown {
        /// The order in question.
        intent: DispenseIntent,
        /// Why it is not known.
        reason: String,
        /// When the operator's policy decides.
        until: UnixMs,
        /// Value proven to have been delivered, at least.
        at_least: Minor,
        /// The device can not tell: only an operator or the deadline can.
        no_evidence: bool,
    },
    /// Cash is out: the money is to be taken.
    Settling,
    /// The customer is to get the money back.
    Canceling {
        /// Why.
        reason: String,
    },
    /// Settled, all notes delivered (or a claim paid out). Over for the customer; at its end when the money is there too.
    Completed,
    /// The customer has the money back.
    Canceled {
        /// Why.
        reason: String,
    },
    /// Settled, and the customer is owed `books.claim`.
    ClaimOwed,
    /// No rule fits: a human has to decide.
    NeedsOperator {
        /// What happened.
        why: String,
    },
}

impl Phase {
    /// The state's name, as in DESIGN.md, in metric labels and in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quoted => "quoted",
            Self::AwaitingPayment => "awaiting_payment",
            Self::Held { .. } => "held",
            Self::Dispensing { .. } => "dispensing",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Settling => "settling",
            Self::Canceling { .. } => "canceling",
            Self::Completed => "completed",
            Self::Canceled { .. } => "canceled",
            Self::ClaimOwed => "claim_owed",
            Self::NeedsOperator { .. } => "needs_operator",
        }
    }
}

/// What a cash-out moved, for conservation: settled, it must hold that `delivered + claim = amount + loss`;
/// canceled, that `delivered + claim = loss`, the claim being one that was paid before the money turned out to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Books {
    /// What LND holds or took; may exceed the price.
    pub paid: Msat,
    /// The invoice was settled, and the money is not known to be lost.
    pub settled: bool,
    /// Whether the money is there; means nothing before the invoice was settled.
    #[serde(default, skip_serializing_if = "Funds::is_not_followed")]
    pub funds: Funds,
    /// Value of the notes that left, as far as proven, told by an operator or decided by policy.
    pub delivered: Minor,
    /// What the customer is owed after the settlement.
    pub claim: Minor,
    /// What the operator gave away.
    pub loss: Minor,
}

/// One customer transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CashOut {
    /// Identifies it.
    pub id: CashOutId,
    /// What was promised.
    pub quote: Quote,
    /// BOLT11, once it is open.
    pub payment_request: Option<String>,
    /// Where it stands.
    pub phase: Phase,
    /// Orders committed so far.
    pub orders: u32,
    /// Cassettes that failed in an earlier order and are not to be used again.
    pub excluded: Vec<u8>,
    /// What became of the notes of finished orders.
    pub notes: Vec<CassetteReport>,
    /// The money.
    pub books: Books,
    /// The invoice was canceled under a running or unknown dispense.
    pub hold_lost: bool,
    /// Of the last order: until then the hold is kept for it, when that is not this cash-out's to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<UnixMs>,
}

impl CashOut {
    /// A cash-out that was just promised.
    #[must_use]
    pub fn quoted(id: CashOutId, quote: Quote) -> Self {
        Self {
            id,
            quote,
            payment_request: None,
            phase: Phase::Quoted,
            orders: 0,
            excluded: Vec::new(),
            notes: Vec::new(),
            books: Books::default(),
            hold_lost: false,
            kept_until: None,
        }
    }

    /// It is at its end: nothing is left to do, not even for an operator, and the money is where it belongs.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.has_ended() && self.books.funds != Funds::Pending
    }

    /// It is over for the customer: all that can change is that its money turns out to be lost.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Completed | Phase::Canceled { .. })
    }

    /// Whether the money is there, once the invoice was settled.
    #[must_use]
    pub fn funds(&self) -> Option<Funds> {
        (self.books.settled || self.books.funds == Funds::Lost).then_some(self.books.funds)
    }

    /// It keeps its ATM from serving another customer.
    #[must_use]
    pub fn occupies_atm(&self) -> bool {
        matches!(
            self.phase,
            Phase::Quoted
                | Phase::AwaitingPayment
                | Phase::Held { .. }
                | Phase::Dispensing { .. }
                | Phase::OutcomeUnknown { .. }
        )
    }

    /// The notes it keeps others from being promised.
    #[must_use]
    pub fn reserved(&self) -> Option<&DispenseOrder> {
        match &self.phase {
            Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. } => Some(&self.quote.mix),
            Phase::Dispensing { intent } | Phase::OutcomeUnknown { intent, .. } => Some(&intent.order),
            _ => None,
        }
    }

    /// How far the books are from balance, in minor units; zero for an open cash-out.
    #[must_use]
    pub fn drift(&self) -> u64 {
        let (left, right) = match self.phase {
            Phase::Completed | Phase::ClaimOwed => (
                self.books.delivered.0.saturating_add(self.books.claim.0),
                self.quote.amount.0 + self.books.loss.0,
            ),
            Phase::Canceled { .. } => (
                self.books.delivered.0.saturating_add(self.books.claim.0),
                self.books.loss.0,
            ),
            _ => return 0,
        };
        left.abs_diff(right)
    }
}
