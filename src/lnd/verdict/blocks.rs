//! Judges the blocks that a hold has: LND's own delta against the configured one, and what they leave. Pure.
//!
//! Called by [`super::judge`]. Source: `lncfg/invoices.go`; fact sheet section 4.

use std::cmp::Ordering;

use super::{Asked, Expected, Finding};
use crate::lnd::{NodeInfo, version};

const MINUTES_PER_BLOCK: i64 = 10;

/// Delta, force closes, time.
pub(super) fn judge(asked: &Asked, node: Option<&NodeInfo>, expected: &Expected) -> Vec<Finding> {
    let line = node
        .and_then(|node| version::parse(&node.version))
        .unwrap_or(version::NEWEST);
    let real = asked.hold_expiry_delta;
    let in_force = real.unwrap_or_else(|| version::default_hold_expiry_delta(line));
    let broadcast = version::broadcast_delta(line);
    let mut findings = vec![delta(expected.hold_expiry_delta, in_force, real.is_some())];
    if in_force <= broadcast {
        findings.push(force_close(in_force, broadcast));
    }
    findings.push(time(in_force.max(expected.hold_expiry_delta), expected));
    findings
}

fn delta(configured: u32, in_force: u32, read: bool) -> Finding {
    const ITEM: &str = "delta";
    let source = if read {
        format!("LND's invoices.holdexpirydelta is {in_force}")
    } else {
        format!(
            "LND's invoices.holdexpirydelta can not be read; the default of this version is {in_force}, and hold_expiry_delta \
             must be what is in force"
        )
    };
    let if_so = if read { "" } else { "unless lnd.conf sets it, " };
    match configured.cmp(&in_force) {
        Ordering::Equal => Finding::ok(ITEM, format!("{source}; hold_expiry_delta is the same")),
        Ordering::Less => Finding::problem(
            ITEM,
            format!(
                "{source}, hold_expiry_delta is {configured}: {if_so}LND cancels a hold {} blocks earlier than tellerd \
                 believes; set lnd.hold_expiry_delta = {in_force}",
                in_force.abs_diff(configured)
            ),
        ),
        Ordering::Greater => Finding::warning(
            ITEM,
            format!(
                "{source}, hold_expiry_delta is {configured}: {if_so}tellerd takes a hold for {} blocks shorter than it is; \
                 both should be the same",
                in_force.abs_diff(configured)
            ),
        ),
    }
}

/// Set to so little, it does not do what it is for. LND itself only warns of it in its log.
fn force_close(in_force: u32, broadcast: u32) -> Finding {
    Finding::warning(
        "force closes",
        format!(
            "LND goes on chain {broadcast} blocks before an HTLC expires, and cancels a forgotten hold only {in_force} blocks \
             before: set invoices.holdexpirydelta={} in LND, and lnd.hold_expiry_delta to the same",
            broadcast.saturating_add(2)
        ),
    )
}

/// What a hold has from the customer's payment on: HTLCs come with at least `cltv_expiry` blocks.
fn time(delta: u32, expected: &Expected) -> Finding {
    const ITEM: &str = "time";
    let (cltv, floor) = (i64::from(expected.cltv_expiry), i64::from(expected.min_blocks_left));
    let until_cancel = cltv - i64::from(delta);
    let until_refusal = until_cancel - floor;
    if until_refusal <= 0 {
        return Finding::problem(
            ITEM,
            format!(
                "cltv_expiry {cltv} - delta {delta} - min_blocks_left {floor} = {until_refusal} blocks: no dispense could \
                 start; raise lnd.cltv_expiry"
            ),
        );
    }
    Finding::ok(
        ITEM,
        format!(
            "a hold has {until_refusal} blocks ({}) in which a dispense can start, and {until_cancel} blocks ({}) until LND \
             cancels it",
            hours(until_refusal),
            hours(until_cancel)
        ),
    )
}

/// About so many hours, by ten minutes for a block.
fn hours(blocks: i64) -> String {
    let minutes = blocks * MINUTES_PER_BLOCK;
    format!("about {}.{} h", minutes / 60, minutes % 60 / 6)
}
