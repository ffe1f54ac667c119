//! What can happen to a cash-out. Events carry every time, height and count that `apply` needs.

use serde::{Deserialize, Serialize};

use super::Quote;
use crate::hardware::{DispenseIntent, DispenseReport};
use crate::money::{Funds, Minor, Msat};
use crate::time::UnixMs;

/// Who wants a cash-out canceled before its dispense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelBy {
    /// The customer at the machine.
    Customer,
    /// An operator, by name.
    Operator(String),
}

/// An operator's word on an open item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Of an unknown outcome: notes of this value reached the customer.
    Delivered(Minor),
    /// Of a claim: it was paid to the customer.
    ClaimPaid,
    /// Of an item that needs an operator: closed as it stands, with the books as they are.
    Close,
}

/// One fact in the life of a cash-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Event {
    /// It was promised. Always the first.
    Quoted {
        /// What.
        quote: Box<Quote>,
    },
    /// LND has the invoice.
    InvoiceOpened {
        /// BOLT11.
        payment_request: String,
    },
    /// LND holds the money.
    PaymentHeld {
        /// How much; may exceed the price.
        paid: Msat,
        /// When it was seen.
        at: UnixMs,
    },
    /// Someone wants out before the dispense.
    CancelRequested {
        /// Who.
        by: CancelBy,
    },
    /// Time has passed [`super::deadline`].
    DeadlinePassed {
        /// When it was noticed.
        at: UnixMs,
    },
    /// Too few blocks are left before LND cancels by itself.
    WindowClosing {
        /// How many.
        blocks_left: i64,
    },
    /// Dispenser or hold are not fit for a dispense.
    CheckRefused {
        /// Why.
        reason: String,
    },
    /// The order may be commanded, once.
    DispenseCommitted {
        /// The order, with the device's counters before it.
        intent: DispenseIntent,
        /// Blocks before LND cancels, re-read just before.
        blocks_left: i64,
        /// Until then whoever holds the payment keeps the hold for it, when that is not the cash-out's to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept_until: Option<UnixMs>,
        /// When.
        at: UnixMs,
    },
    /// The dispenser answered.
    DispenseReported {
        /// What it says.
        report: DispenseReport,
        /// When.
        at: UnixMs,
    },
    /// The process, the actor or the driver was gone for a while: nothing is known of effects in flight.
    Interrupted {
        /// When it came back.
        at: UnixMs,
    },
    /// The device tells what became of an order.
    EvidenceFound {
        /// What it says.
        report: DispenseReport,
        /// When.
        at: UnixMs,
    },
    /// The device answered and can not tell.
    EvidenceMissing {
        /// Why.
        reason: String,
    },
    /// An operator decides.
    OperatorResolved {
        /// Who.
        by: String,
        /// What.
        resolution: Resolution,
        /// In their words.
        note: String,
    },
    /// LND settled.
    InvoiceSettled {
        /// What was taken.
        paid: Msat,
        /// Whether the money is there; older records are not followed.
        #[serde(default, skip_serializing_if = "Funds::is_not_followed")]
        funds: Funds,
    },
    /// What became of the settled money.
    FundsSeen {
        /// Final, lost, or not followed any more.
        funds: Funds,
    },
    /// LND canceled.
    InvoiceCanceled {
        /// Why, as far as known.
        reason: String,
    },
}

impl Event {
    /// The event's name, as it stands in the journal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quoted { .. } => "quoted",
            Self::InvoiceOpened { .. } => "invoice_opened",
            Self::PaymentHeld { .. } => "payment_held",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::WindowClosing { .. } => "window_closing",
            Self::CheckRefused { .. } => "check_refused",
            Self::DispenseCommitted { .. } => "dispense_committed",
            Self::DispenseReported { .. } => "dispense_reported",
            Self::Interrupted { .. } => "interrupted",
            Self::EvidenceFound { .. } => "evidence_found",
            Self::EvidenceMissing { .. } => "evidence_missing",
            Self::OperatorResolved { .. } => "operator_resolved",
            Self::InvoiceSettled { .. } => "invoice_settled",
            Self::FundsSeen { .. } => "funds_seen",
            Self::InvoiceCanceled { .. } => "invoice_canceled",
        }
    }
}
