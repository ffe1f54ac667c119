//! One hold invoice: a pure state machine, from the intent to add it to its end at LND.
//!
//! Owns what may be asked of LND for an invoice, and when. Driven by the invoice actor.
//! What must stay true: an accepted hold never outlives its deadline unless a dispense was
//! committed; a settle order is durable before LND hears of it; a canceled invoice is never settled; a settled one is at
//! its end only when it is known whether the money has come, where that can be known.
//! Every effect may be repeated, so an interruption needs no event of its own here.

mod machine;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AtmId, CashOutId, NostrKey, PaymentHash, Preimage};
use crate::money::{Funds, Msat};
use crate::time::UnixMs;

pub use machine::{Effect, IllegalInvoiceEvent, apply, deadline, effects};

/// On whose behalf an invoice exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A cash-out on an ATM of this daemon. It decides alone once a dispense is committed.
    Atm {
        /// The machine.
        atm: AtmId,
        /// The customer transaction.
        cashout: CashOutId,
    },
    /// A client of the hold-invoice service. It may vanish: a hold that it committed has a deadline too, and since
    /// only the client has the preimage, all that can be done then is to give the customer the money back.
    Remote {
        /// Its key: nobody else may touch the invoice.
        client: NostrKey,
        /// A committed hold is canceled after this many milliseconds.
        commit_ms: u64,
        /// A committed hold is canceled with fewer blocks than this before LND does it.
        force_blocks_left: u32,
    },
}

/// What an invoice is for and how long things may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceSpec {
    /// Identifies it.
    pub hash: PaymentHash,
    /// Who it belongs to.
    pub owner: Owner,
    /// What the customer pays.
    pub amount: Msat,
    /// Text in the customer's wallet.
    pub memo: String,
    /// From then on it is not to be paid any more.
    pub pay_by: UnixMs,
    /// An accepted hold with no committed dispense is canceled after this many milliseconds.
    pub hold_ms: u64,
    /// Final CLTV delta of the invoice, in blocks.
    pub cltv_expiry: u16,
    /// LND cancels a hold by itself this many blocks before its HTLC expires.
    pub hold_expiry_delta: u32,
    /// No dispense is committed with fewer blocks than this before LND cancels.
    pub min_blocks_left: u32,
    /// Route hints for private channels.
    pub private_route_hints: bool,
}

/// The money that LND holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What the customer paid; may exceed the amount asked.
    pub paid: Msat,
    /// The lowest expiry height among the accepted HTLCs.
    pub lowest_expiry_height: u32,
    /// When tellerd saw it first.
    pub since: UnixMs,
}

impl Hold {
    /// Blocks before LND cancels by itself; negative when it should have by now.
    /// Source: lnd `invoices/invoice_expiry_watcher.go`, `height + delta >= expiry`.
    #[must_use]
    pub fn blocks_left(&self, hold_expiry_delta: u32, height: u32) -> i64 {
        i64::from(self.lowest_expiry_height) - i64::from(hold_expiry_delta) - i64::from(height)
    }
}

/// Why an invoice is canceled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Not paid in time.
    NotPaid,
    /// Held too long without a committed dispense.
    HoldDeadline,
    /// A client committed it and was not heard of again in time.
    CommitDeadline,
    /// Too few blocks are left for a dispense, or for waiting for a client that committed it.
    WindowTooShort,
    /// Less arrived than was asked, or no expiry height is known.
    BadHold(String),
    /// LND refuses to add it.
    AddRefused(String),
    /// The owner wants it.
    Owner(String),
    /// LND canceled by itself: expiry, its own time-lock rule, or another hand.
    ByLnd,
}

/// Where an invoice stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoicePhase {
    /// Intent is durable; LND may or may not know it.
    Creating,
    /// LND has it; not paid in full.
    Open,
    /// Paid and held.
    Accepted(Hold),
    /// Held, and a dispense is about to start or has: only the owner ends it, or for a remote one its deadline.
    Committed {
        /// The hold.
        hold: Hold,
        /// Since when.
        since: UnixMs,
    },
    /// To be settled, with the preimage.
    Settling {
        /// The secret.
        preimage: Preimage,
        /// The hold, if it was seen.
        hold: Option<Hold>,
        /// When it was ordered; older records do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<UnixMs>,
    },
    /// Settled in LND's database.
    Settled {
        /// What was taken.
        paid: Msat,
        /// When it was seen; older records do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<UnixMs>,
        /// Whether the money is there.
        #[serde(default, skip_serializing_if = "Funds::is_not_followed")]
        funds: Funds,
    },
    /// To be canceled.
    Canceling(CancelReason),
    /// Canceled; the customer has the money.
    Canceled(CancelReason),
}

/// One hold invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// What it is for.
    pub spec: InvoiceSpec,
    /// BOLT11, once LND has it.
    pub payment_request: Option<String>,
    /// Where it stands.
    pub phase: InvoicePhase,
}

/// What happened to an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum InvoiceEvent {
    /// It is wanted. Always the first.
    Requested {
        /// What for.
        spec: InvoiceSpec,
    },
    /// LND has it.
    Opened {
        /// BOLT11.
        payment_request: String,
    },
    /// LND will never have it.
    AddRefused {
        /// LND's words.
        reason: String,
    },
    /// LND holds the customer's money.
    Accepted {
        /// How much.
        paid: Msat,
        /// The lowest expiry height among the accepted HTLCs.
        lowest_expiry_height: Option<u32>,
        /// When it was seen.
        at: UnixMs,
    },
    /// The owner is about to dispense; the hold was re-read at LND just before.
    Committed {
        /// When.
        at: UnixMs,
        /// LND's height then.
        height: u32,
    },
    /// The owner orders to settle.
    SettleOrdered {
        /// The secret, durable from here on.
        preimage: Preimage,
        /// When; older records do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<UnixMs>,
    },
    /// The owner orders to cancel.
    CancelOrdered {
        /// Why.
        reason: String,
    },
    /// Time has passed [`deadline`].
    DeadlinePassed {
        /// When it was noticed.
        at: UnixMs,
    },
    /// A block was found.
    BlockSeen {
        /// Its height.
        height: u32,
    },
    /// LND says SETTLED.
    SettledAtLnd {
        /// What was taken.
        paid: Msat,
        /// When it was seen; older records do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<UnixMs>,
        /// The node stores what becomes of its HTLCs: they are followed. Older records do not tell, and are not.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        follow: bool,
    },
    /// What became of the settled money.
    FundsSeen {
        /// Final, lost, or not followed any more.
        funds: Funds,
        /// When it was seen.
        at: UnixMs,
    },
    /// LND says CANCELED.
    CanceledAtLnd,
}

impl Invoice {
    /// An invoice that is wanted.
    #[must_use]
    pub fn requested(spec: InvoiceSpec) -> Self {
        Self {
            spec,
            payment_request: None,
            phase: InvoicePhase::Creating,
        }
    }

    /// It has ended: no effect is left.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_done()
            && !matches!(
                self.phase,
                InvoicePhase::Settled {
                    funds: Funds::Pending,
                    ..
                }
            )
    }

    /// LND has settled or canceled it: nothing but [`Funds`] will change any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.phase, InvoicePhase::Settled { .. } | InvoicePhase::Canceled(_))
    }

    /// Whether the money is there, once it is settled.
    #[must_use]
    pub fn funds(&self) -> Option<Funds> {
        match self.phase {
            InvoicePhase::Settled { funds, .. } => Some(funds),
            _ => None,
        }
    }

    /// The money held, while it is.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        match &self.phase {
            InvoicePhase::Accepted(hold) | InvoicePhase::Committed { hold, .. } => Some(hold),
            InvoicePhase::Settling { hold, .. } => hold.as_ref(),
            _ => None,
        }
    }

    /// The hold deadline, measured from when the hold was seen.
    #[must_use]
    pub fn hold_until(&self, hold: &Hold) -> UnixMs {
        hold.since.plus(Duration::from_millis(self.spec.hold_ms))
    }
}

impl CancelReason {
    /// A fixed word: what a client of the service may know.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotPaid => "not paid in time",
            Self::HoldDeadline => "held too long without a commit",
            Self::CommitDeadline => "committed too long ago",
            Self::WindowTooShort => "too few blocks left",
            Self::BadHold(_) => "the payment could not be used",
            Self::AddRefused(_) => "the node refused it",
            Self::Owner(_) => "by its client",
            Self::ByLnd => "by the node",
        }
    }
}

impl Owner {
    /// Until when a hold that was committed at `since` waits for its owner; `None`: the owner is here and decides.
    #[must_use]
    pub fn commit_deadline(&self, since: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Atm { .. } => None,
            Self::Remote { commit_ms, .. } => Some(since.plus(Duration::from_millis(*commit_ms))),
        }
    }
}

impl InvoiceEvent {
    /// The event's name, as it stands in the journal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested { .. } => "requested",
            Self::Opened { .. } => "opened",
            Self::AddRefused { .. } => "add_refused",
            Self::Accepted { .. } => "accepted",
            Self::Committed { .. } => "committed",
            Self::SettleOrdered { .. } => "settle_ordered",
            Self::CancelOrdered { .. } => "cancel_ordered",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::BlockSeen { .. } => "block_seen",
            Self::SettledAtLnd { .. } => "settled_at_lnd",
            Self::FundsSeen { .. } => "funds_seen",
            Self::CanceledAtLnd => "canceled_at_lnd",
        }
    }
}

impl InvoicePhase {
    /// The state's name, as in DESIGN.md and in metric labels.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Open => "open",
            Self::Accepted(_) => "accepted",
            Self::Committed { .. } => "committed",
            Self::Settling { .. } => "settling",
            Self::Settled { .. } => "settled",
            Self::Canceling(_) => "canceling",
            Self::Canceled(_) => "canceled",
        }
    }
}
