//! Whether a service fits a site: the times and blocks that both count with, and the clocks.
//!
//! Pure. Used by the node. What must stay true: a cash-out decides by itself (its own deadlines) before the service
//! decides for it (the service's deadlines).

use std::time::Duration;

use crate::nostr::method::{CommittedInvoice, HoldState, ServiceInfo};

/// A decision has to reach the service before its deadline, over relays and repetitions.
const MARGIN_SECONDS: u64 = 120;
/// When a commitment's answer arrives, a part of the margin has gone by.
const MARGIN_LEFT_SECONDS: u64 = 60;
/// A relay drops events that are 60 s old (strfry), so no site should come near.
const SKEW_SECONDS_MAX: u64 = 45;
/// Worth telling.
const SKEW_SECONDS_TOLD: u64 = 20;

/// What a site counts with, from its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteTerms {
    /// LND cancels a hold by itself this many blocks before its HTLC expires.
    pub hold_expiry_delta: u32,
    /// No dispense with fewer blocks left than this.
    pub min_blocks_left: u32,
    /// An outcome that is still unknown is decided with fewer blocks left than this.
    pub force_blocks_left: u32,
    /// How long a hold may wait for its dispense, in milliseconds.
    pub hold_ms: u64,
    /// How long an outcome may stay unknown, in milliseconds.
    pub unknown_ms: u64,
}

impl SiteTerms {
    /// What a commitment has to last for.
    fn unknown_seconds(&self) -> u64 {
        self.unknown_ms.div_ceil(1000)
    }
}

/// Why no invoice should be added at this service now; the first reason of several.
pub(super) fn no_new(terms: &SiteTerms, info: &ServiceInfo, skew: i64) -> Option<String> {
    if skew.unsigned_abs() > SKEW_SECONDS_MAX {
        return Some(format!(
            "{}: set it right, or relays will drop what is sent",
            skew_text(skew)
        ));
    }
    if !info.node_up || !info.can_create {
        let trouble = info.trouble.as_deref().unwrap_or("it does not say why");
        return Some(format!("the service takes no new invoice: {trouble}"));
    }
    misfit(terms, info)
}

/// Which value does not fit, with both sides of it.
fn misfit(terms: &SiteTerms, info: &ServiceInfo) -> Option<String> {
    let unknown = terms.unknown_seconds();
    if info.hold_expiry_delta != terms.hold_expiry_delta {
        return Some(format!(
            "hold_expiry_delta is {} here and {} at the service: it must be the same, that of the service's LND",
            terms.hold_expiry_delta, info.hold_expiry_delta
        ));
    }
    if info.min_blocks_left > terms.min_blocks_left {
        return Some(format!(
            "min_blocks_left is {} here and {} at the service, which would refuse to commit: raise it here",
            terms.min_blocks_left, info.min_blocks_left
        ));
    }
    if let Some(theirs) = info.force_blocks_left
        && theirs >= terms.force_blocks_left
    {
        return Some(format!(
            "force_blocks_left is {} here, and the service cancels a committed hold with fewer than {theirs} blocks left: \
             raise it here",
            terms.force_blocks_left
        ));
    }
    if unknown.saturating_add(MARGIN_SECONDS) >= info.commit_deadline_seconds {
        return Some(format!(
            "unknown_deadline is {unknown} s here, and the service cancels a committed hold after {} s: lower it here or \
             raise it there, so that more than {MARGIN_SECONDS} s are between them",
            info.commit_deadline_seconds
        ));
    }
    if terms.hold_ms > info.hold_deadline_seconds.saturating_mul(1000) {
        return Some(format!(
            "hold_deadline is {} s here, and the service cancels an uncommitted hold after {} s: lower it here",
            terms.hold_ms / 1000,
            info.hold_deadline_seconds
        ));
    }
    None
}

/// How long a commitment lasts, if that is long enough for a dispense. `now_unix` is by the service's clock.
///
/// # Errors
/// Why not.
pub(super) fn commitment_fits(
    terms: &SiteTerms,
    committed: &CommittedInvoice,
    now_unix: u64,
) -> Result<Duration, String> {
    if committed.state != HoldState::Accepted {
        return Err(format!("the service says {:?}", committed.state));
    }
    if committed.blocks_left < i64::from(terms.min_blocks_left) {
        return Err(format!("the service counts {} blocks left", committed.blocks_left));
    }
    let left = committed.commit_deadline_unix.saturating_sub(now_unix);
    let needed = terms.unknown_seconds().saturating_add(MARGIN_LEFT_SECONDS);
    if left < needed {
        return Err(format!(
            "the service keeps the hold for {left} s, {needed} s are needed"
        ));
    }
    Ok(Duration::from_secs(left))
}

/// Far enough from the service's clock that somebody should look.
pub(super) fn is_worth_telling(skew: i64) -> bool {
    skew.unsigned_abs() > SKEW_SECONDS_TOLD
}

/// The difference of the clocks, in words.
pub(super) fn skew_text(skew: i64) -> String {
    let side = if skew > 0 { "behind" } else { "ahead of" };
    format!(
        "this machine's clock is {} s {side} the service's, or that one is wrong",
        skew.unsigned_abs()
    )
}
