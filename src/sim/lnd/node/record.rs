//! What the simulated node remembers: invoices with their HTLCs and history, and the customers' payments.
//!
//! Written to the log as they are and read by audits. An HTLC is recorded twice, as the node sees it
//! ([`Htlc`]) and as its payer sees it ([`PayerHtlc`]); the payer's side says where the money is.

use serde::{Deserialize, Serialize};

use crate::ids::{PaymentHash, Preimage};
use crate::time::UnixMs;

/// `lnrpc.Invoice.InvoiceState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceState {
    /// Payable; nothing or only part of it was paid.
    Open,
    /// Paid in full and held.
    Accepted,
    /// Settled. Final.
    Settled,
    /// Canceled. Final.
    Canceled,
}

impl InvoiceState {
    /// Never left again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Settled | Self::Canceled)
    }
}

/// Why an invoice entered a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// AddHoldInvoice.
    Added,
    /// The last HTLC of a set came.
    Paid,
    /// SettleInvoice.
    SettleCall,
    /// CancelInvoice.
    CancelCall,
    /// The wall-clock expiry of an OPEN invoice.
    Expired,
    /// The height rule for ACCEPTED invoices: too close to the expiry of an HTLC.
    BlockHeight,
}

impl Cause {
    /// The word used in the log and in the control interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Paid => "paid",
            Self::SettleCall => "settle_call",
            Self::CancelCall => "cancel_call",
            Self::Expired => "expired",
            Self::BlockHeight => "block_height",
        }
    }
}

/// One change of an invoice's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Grows over all invoices of the node, from 1.
    pub seq: u64,
    /// When.
    pub at_unix_ms: UnixMs,
    /// The state entered.
    pub state: InvoiceState,
    /// Why.
    pub cause: Cause,
}

/// `lnrpc.InvoiceHTLCState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HtlcState {
    /// Held.
    Accepted,
    /// Taken by the node.
    Settled,
    /// Failed back.
    Canceled,
}

/// An HTLC that the node accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Htlc {
    /// Unique at this node, from 1.
    pub htlc_index: u64,
    /// Which payment it is part of.
    pub payment_id: u64,
    /// Its amount.
    pub amount_msat: u64,
    /// What its payer meant to pay in all parts together.
    pub mpp_total_msat: u64,
    /// Height at which it was accepted.
    pub accept_height: u32,
    /// Height at which it ends on chain.
    pub expiry_height: u32,
    /// When it was accepted.
    pub accepted_at_unix_ms: UnixMs,
    /// When it was settled or canceled.
    pub resolved_at_unix_ms: Option<UnixMs>,
    /// Its state.
    pub state: HtlcState,
}

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceRecord {
    /// Identifies it.
    pub hash: PaymentHash,
    /// From 1, in the order of adding.
    pub add_index: u64,
    /// From 1, in the order of settling; 0 while not settled.
    pub settle_index: u64,
    /// Text for the customer's wallet.
    pub memo: String,
    /// Hex; empty when the memo itself is in the payment request.
    pub description_hash: String,
    /// 0 means any amount.
    pub value_msat: u64,
    /// Seconds in which it can be paid.
    pub expiry_s: u64,
    /// Final CLTV delta in blocks.
    pub cltv_expiry: u32,
    /// Route hints were asked for.
    pub private: bool,
    /// BOLT11.
    pub payment_request: String,
    /// The payment secret, hex.
    pub payment_addr: String,
    /// When it was added.
    pub created_at_unix_ms: UnixMs,
    /// Known once settled.
    pub preimage: Option<Preimage>,
    /// Its state.
    pub state: InvoiceState,
    /// Accepted HTLCs, also those resolved since.
    pub htlcs: Vec<Htlc>,
    /// Each state it was in.
    pub history: Vec<HistoryEntry>,
}

impl InvoiceRecord {
    /// The instant from which it can not be paid any more.
    #[must_use]
    pub fn expires_at(&self) -> UnixMs {
        UnixMs(
            self.created_at_unix_ms
                .0
                .saturating_add(self.expiry_s.saturating_mul(1000)),
        )
    }

    /// Held and settled HTLCs together.
    #[must_use]
    pub fn paid_msat(&self) -> u64 {
        let kept = self.htlcs.iter().filter(|htlc| htlc.state != HtlcState::Canceled);
        kept.fold(0, |sum, htlc| sum.saturating_add(htlc.amount_msat))
    }

    /// The lowest expiry height among HTLCs in state ACCEPTED.
    #[must_use]
    pub fn lowest_expiry_height(&self) -> Option<u32> {
        let held = self.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Accepted);
        held.map(|htlc| htlc.expiry_height).min()
    }

    /// When it was settled, if it was.
    #[must_use]
    pub fn settled_at(&self) -> Option<UnixMs> {
        let last = self
            .history
            .iter()
            .rev()
            .find(|entry| entry.state == InvoiceState::Settled);
        last.map(|entry| entry.at_unix_ms)
    }
}

/// Why an HTLC went back to its payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailReason {
    /// The node has no such invoice, or its payment secret differs.
    UnknownInvoice,
    /// The invoice was not OPEN when the HTLC came.
    InvoiceNotOpen,
    /// The set's total is below the invoice's amount.
    AmountTooLow,
    /// Its total differs from that of the other parts.
    SetTotalMismatch,
    /// It would expire too soon.
    ExpiryTooSoon,
    /// The channel holds as many HTLCs as it can.
    ChannelFull,
    /// The node's peer has too little in the channel.
    NoBalance,
    /// The other parts did not come in time.
    MppTimeout,
    /// CancelInvoice.
    InvoiceCanceled,
    /// The invoice expired while the set was incomplete.
    InvoiceExpired,
    /// Held until too close to its expiry.
    HoldExpired,
    /// The node settled after the HTLC had ended on chain: settled there, but the money is the payer's.
    TimedOutOnChain,
}

impl FailReason {
    /// The wallet's words: the failure's name on the wire, and the detail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownInvoice => "INCORRECT_PAYMENT_DETAILS: unknown invoice",
            Self::InvoiceNotOpen => "INCORRECT_PAYMENT_DETAILS: invoice not open",
            Self::AmountTooLow => "INCORRECT_PAYMENT_DETAILS: amount too low",
            Self::SetTotalMismatch => "INCORRECT_PAYMENT_DETAILS: total differs from the set's",
            Self::ExpiryTooSoon => "INCORRECT_PAYMENT_DETAILS: htlc expires too soon",
            Self::ChannelFull => "TEMPORARY_CHANNEL_FAILURE: too many htlcs",
            Self::NoBalance => "TEMPORARY_CHANNEL_FAILURE: insufficient balance",
            Self::MppTimeout => "MPP_TIMEOUT: other parts did not come",
            Self::InvoiceCanceled => "INCORRECT_PAYMENT_DETAILS: invoice canceled",
            Self::InvoiceExpired => "INCORRECT_PAYMENT_DETAILS: invoice expired",
            Self::HoldExpired => "INCORRECT_PAYMENT_DETAILS: held too long",
            Self::TimedOutOnChain => "TIMEOUT: htlc timed out on chain",
        }
    }
}

/// Where the money of one HTLC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Locked.
    Held,
    /// The node has it.
    Settled {
        /// Since when.
        at_unix_ms: UnixMs,
        /// It had to be claimed on chain.
        #[serde(default)]
        on_chain: bool,
    },
    /// The customer has it back.
    Refunded {
        /// Since when.
        at_unix_ms: UnixMs,
        /// Why.
        reason: FailReason,
    },
}

/// One HTLC as its payer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayerHtlc {
    /// Its amount.
    pub amount_msat: u64,
    /// When it was sent.
    pub sent_at_unix_ms: UnixMs,
    /// The node's index of it; `None` when the node refused it at once.
    pub htlc_index: Option<u64>,
    /// Where the money is.
    pub outcome: Outcome,
}

/// What a customer's wallet is told to pay. The wallet reads the invoice; the node is not trusted for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayOrder {
    /// The invoice's hash.
    pub hash: PaymentHash,
    /// The invoice's payment secret, hex.
    pub payment_addr: String,
    /// What to pay in all.
    pub amount_msat: u64,
    /// HTLCs to split into, at least 1.
    pub parts: u32,
    /// So many of them never arrive.
    pub missing_parts: u32,
    /// Blocks from the height at sending to the HTLCs' expiry.
    pub final_cltv_delta: u32,
    /// When to send.
    pub due_at_unix_ms: UnixMs,
}

/// A payment's state in the customer's wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentStatus {
    /// Not yet sent.
    Waiting,
    /// Money is held.
    InFlight,
    /// Settled.
    Succeeded,
    /// All money is back.
    Failed(FailReason),
}

impl PaymentStatus {
    /// Never changes again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed(_))
    }
}

/// A customer's payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// From 1.
    pub id: u64,
    /// What was ordered.
    pub order: PayOrder,
    /// Its HTLCs; empty until it is sent.
    pub htlcs: Vec<PayerHtlc>,
    /// Proof of payment, once settled.
    pub preimage: Option<Preimage>,
}

impl Payment {
    /// What the customer's wallet shows.
    #[must_use]
    pub fn status(&self) -> PaymentStatus {
        let mut settled = false;
        let mut failed = None;
        for htlc in &self.htlcs {
            match htlc.outcome {
                Outcome::Held => return PaymentStatus::InFlight,
                Outcome::Settled { .. } => settled = true,
                Outcome::Refunded { reason, .. } => failed = failed.or(Some(reason)),
            }
        }
        match failed {
            _ if settled => PaymentStatus::Succeeded,
            Some(reason) => PaymentStatus::Failed(reason),
            None => PaymentStatus::Waiting,
        }
    }

    /// Where this payment's money is.
    #[must_use]
    pub fn money(&self) -> Money {
        let mut money = Money::default();
        for htlc in &self.htlcs {
            let pot = match htlc.outcome {
                Outcome::Held => &mut money.held_msat,
                Outcome::Settled { .. } => &mut money.settled_msat,
                Outcome::Refunded { .. } => &mut money.refunded_msat,
            };
            *pot = pot.saturating_add(htlc.amount_msat);
            money.sent_msat = money.sent_msat.saturating_add(htlc.amount_msat);
        }
        money
    }
}

/// Where customers' money is: `sent = held + settled + refunded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Money {
    /// All that was sent.
    pub sent_msat: u64,
    /// Locked in HTLCs.
    pub held_msat: u64,
    /// The node's.
    pub settled_msat: u64,
    /// Back at the customers.
    pub refunded_msat: u64,
}

impl Money {
    /// Adds another payment's.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent_msat: self.sent_msat.saturating_add(other.sent_msat),
            held_msat: self.held_msat.saturating_add(other.held_msat),
            settled_msat: self.settled_msat.saturating_add(other.settled_msat),
            refunded_msat: self.refunded_msat.saturating_add(other.refunded_msat),
        }
    }
}

/// One line's worth of the log: a record after a change, replacing what was known of it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The best block height.
    Height(u32),
    /// An invoice.
    Invoice(Box<InvoiceRecord>),
    /// A payment.
    Payment(Payment),
}
