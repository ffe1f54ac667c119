//! What a change of a cash-out adds to the figures.
//!
//! Called once for each adopted event. What must stay true: an end is counted once, and every failure has a reason
//! from a closed list.

use std::time::{Duration, Instant};

use crate::cashout::{CancelBy, CashOut, Event, Phase};
use crate::metrics::{CashOutOutcome, FailureReason, Metrics, Stage, StageOutcome};
use crate::money::{Funds, Minor};
use crate::time::UnixMs;

/// When the present stage began; unknown after a restart.
#[derive(Debug, Default)]
pub(super) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    /// A stage begins now.
    pub(super) fn started() -> Self {
        Self(Some(Instant::now()))
    }

    fn lap(&mut self) -> Option<Duration> {
        self.0.replace(Instant::now()).map(|begun| begun.elapsed())
    }
}

/// Counts the step from `before` to `after`.
pub(super) fn count(
    metrics: &Metrics,
    watch: &mut Stopwatch,
    before: &CashOut,
    event: &Event,
    after: &CashOut,
    now: UnixMs,
) {
    if let Some(reason) = failure(before, event, after) {
        metrics.failed(reason);
    }
    if before.phase.name() == after.phase.name() {
        return;
    }
    let took = watch.lap();
    if let (Some((stage, outcome)), Some(took)) = (stage(before, after), took) {
        metrics.stage_ended(stage, outcome, took);
    }
    let ended = match after.phase {
        Phase::Completed => Some(CashOutOutcome::Completed),
        Phase::Canceled { .. } => Some(CashOutOutcome::Canceled),
        Phase::ClaimOwed => Some(CashOutOutcome::ClaimOwed),
        Phase::NeedsOperator { .. } => Some(CashOutOutcome::NeedsOperator),
        _ => None,
    };
    if let Some(outcome) = ended {
        metrics.cashout_ended(outcome);
    }
    if after.has_ended() && after.books.funds != Funds::Lost {
        let good = matches!(after.phase, Phase::Completed) && after.books.claim == Minor::ZERO;
        metrics.stage_ended(Stage::Total, outcome(good), now.since(after.quote.at));
    }
    if after.has_ended() && after.books.loss > Minor::ZERO {
        metrics.loss_booked(after.books.loss);
    }
}

fn outcome(good: bool) -> StageOutcome {
    if good { StageOutcome::Ok } else { StageOutcome::Failed }
}

fn stage(before: &CashOut, after: &CashOut) -> Option<(Stage, StageOutcome)> {
    let to_cancel = matches!(after.phase, Phase::Canceling { .. });
    Some(match before.phase {
        Phase::Quoted => (Stage::QuoteToOpen, outcome(!to_cancel)),
        Phase::AwaitingPayment => (Stage::OpenToHeld, outcome(!to_cancel)),
        Phase::Held { .. } => (Stage::HeldToCommitted, outcome(!to_cancel)),
        Phase::Dispensing { .. } => (
            Stage::CommittedToReported,
            outcome(matches!(after.phase, Phase::Settling)),
        ),
        Phase::Settling => (Stage::ReportedToSettled, outcome(after.books.settled)),
        Phase::Canceling { .. } => (Stage::CancelToCanceled, outcome(after.has_ended())),
        _ => return None,
    })
}

fn failure(before: &CashOut, event: &Event, after: &CashOut) -> Option<FailureReason> {
    use FailureReason as R;
    Some(match event {
        Event::CancelRequested { by: CancelBy::Customer } => R::CustomerCanceled,
        Event::CancelRequested { .. } => R::OperatorCanceled,
        Event::DeadlinePassed { .. } => match before.phase {
            Phase::Quoted => R::LndUnavailable,
            Phase::AwaitingPayment => R::PaymentExpired,
            Phase::Held { .. } => R::HoldDeadline,
            _ => R::UnknownDeadline,
        },
        Event::WindowClosing { .. } => R::BlockWindow,
        Event::CheckRefused { .. } => R::DispenserRefused,
        Event::Interrupted { .. } => R::OutcomeUnknown,
        Event::DispenseReported { .. } | Event::EvidenceFound { .. } => return dispense_failure(before, after),
        Event::InvoiceCanceled { .. } => match before.phase {
            Phase::Quoted => R::InvoiceNotAdded,
            Phase::AwaitingPayment => R::PaymentExpired,
            Phase::Settling => R::SettleImpossible,
            Phase::Canceling { .. } => return None,
            _ => R::HoldLost,
        },
        Event::InvoiceSettled { .. } if matches!(after.phase, Phase::NeedsOperator { .. }) => R::Other,
        _ => return None,
    })
}

fn dispense_failure(before: &CashOut, after: &CashOut) -> Option<FailureReason> {
    match after.phase {
        Phase::OutcomeUnknown { .. } if matches!(before.phase, Phase::Dispensing { .. }) => {
            Some(FailureReason::OutcomeUnknown)
        }
        Phase::OutcomeUnknown { .. } => None,
        _ if after.books.delivered == Minor::ZERO => Some(FailureReason::NothingDispensed),
        _ if after.books.delivered < after.quote.amount => Some(FailureReason::PartDispensed),
        _ => None,
    }
}
