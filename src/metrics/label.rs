//! The values that labels can take: closed lists, so that no outside data becomes a label.
//!
//! Called by whoever counts something. What must stay true: each list is in `docs/METRICS.md`.

use std::marker::PhantomData;

/// A label whose values are all known.
pub(super) trait Label: Copy + PartialEq + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// The value as exported.
    fn as_str(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each variant is its label value")]
        pub enum $name { $($variant,)+ }

        impl $name {
            /// The label's value.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

label! {
    /// A stretch of one cash-out's life.
    Stage {
        QuoteToOpen = "quote_to_open",
        OpenToHeld = "open_to_held",
        HeldToCommitted = "held_to_committed",
        CommittedToReported = "committed_to_reported",
        ReportedToSettled = "reported_to_settled",
        CancelToCanceled = "cancel_to_canceled",
        Total = "total",
    }
}

label! {
    /// Whether a stage ended as it should; for [`Stage::Total`], whether all notes came out and were paid for.
    StageOutcome {
        Ok = "ok",
        Failed = "failed",
    }
}

label! {
    /// How a cash-out ended, or where it waits for the operator.
    CashOutOutcome {
        Completed = "completed",
        Canceled = "canceled",
        ClaimOwed = "claim_owed",
        NeedsOperator = "needs_operator",
    }
}

label! {
    /// What went wrong.
    FailureReason {
        OutOfLimits = "out_of_limits",
        NoMix = "no_mix",
        NoRate = "no_rate",
        InvoiceNotAdded = "invoice_not_added",
        PaymentExpired = "payment_expired",
        CustomerCanceled = "customer_canceled",
        OperatorCanceled = "operator_canceled",
        HoldDeadline = "hold_deadline",
        HoldLost = "hold_lost",
        BlockWindow = "block_window",
        DispenserRefused = "dispenser_refused",
        NothingDispensed = "nothing_dispensed",
        PartDispensed = "part_dispensed",
        OutcomeUnknown = "outcome_unknown",
        UnknownDeadline = "unknown_deadline",
        LndUnavailable = "lnd_unavailable",
        SettleImpossible = "settle_impossible",
        FundsLost = "funds_lost",
        JournalFailed = "journal_failed",
        ActorFailed = "actor_failed",
        Other = "other",
    }
}

label! {
    /// What an ATM is doing.
    AtmState {
        Starting = "starting",
        Ready = "ready",
        Busy = "busy",
        Draining = "draining",
        OutOfService = "out_of_service",
    }
}

label! {
    /// What became of the notes of a cassette.
    NoteKind {
        Remaining = "remaining",
        Reserved = "reserved",
        Delivered = "delivered",
        Rejected = "rejected",
        Retracted = "retracted",
        Unaccounted = "unaccounted",
        Loaded = "loaded",
    }
}

label! {
    /// A call of the `Lightning` trait.
    LndMethod {
        State = "state",
        Info = "info",
        AddHoldInvoice = "add_hold_invoice",
        Settle = "settle",
        Cancel = "cancel",
        Lookup = "lookup",
        Commit = "commit",
        Watch = "watch",
        Blocks = "blocks",
        Funds = "funds",
        Finals = "finals",
    }
}

label! {
    /// A kind of actor.
    ActorKind {
        Supervisor = "supervisor",
        Atm = "atm",
        Hardware = "hardware",
        Invoice = "invoice",
        Lnd = "lnd",
        Nostr = "nostr",
        Journal = "journal",
    }
}

label! {
    /// A route of the HTTP edge.
    Route {
        Metrics = "metrics",
        Healthz = "healthz",
        Readyz = "readyz",
        CashOutStart = "cashout_start",
        CashOutList = "cashout_list",
        CashOutShow = "cashout_show",
        CashOutEvents = "cashout_events",
        CashOutCancel = "cashout_cancel",
        CashOutResolve = "cashout_resolve",
        AtmList = "atm_list",
        AtmShow = "atm_show",
        AtmDrain = "atm_drain",
        AtmResume = "atm_resume",
        AtmLoad = "atm_load",
        ClientList = "client_list",
        ClientInvite = "client_invite",
        ClientRevoke = "client_revoke",
        Unknown = "unknown",
    }
}

/// One child metric for each value of a label, made once: exported from the start, cheap to reach.
#[derive(Clone)]
pub(super) struct Children<L, M> {
    children: Vec<M>,
    label: PhantomData<L>,
}

impl<L: Label, M> Children<L, M> {
    /// Makes a child for each value.
    pub fn new(make: impl Fn(L) -> M) -> Self {
        Self {
            children: L::ALL.iter().map(|label| make(*label)).collect(),
            label: PhantomData,
        }
    }

    /// Uses the child of `label`.
    pub fn with(&self, label: L, use_child: impl FnOnce(&M)) {
        let child = L::ALL.iter().position(|other| *other == label);
        if let Some(child) = child.and_then(|index| self.children.get(index)) {
            use_child(child);
        }
    }
}
