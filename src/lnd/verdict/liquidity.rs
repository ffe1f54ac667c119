//! Judges what the node can receive against what customers may be asked to pay. Pure.
//!
//! Called by [`super::judge`]. The bounds are the peer's own: what it has beyond its reserve, and how much and how many
//! HTLCs it may have under way. Commitment fees, which are small and move, are not counted.
//! Source: `Channel.remote_constraints` in `lightning.proto` of lnd v0.21.2-beta, `ChannelStateBounds` in `channeldb/channel.go`.

use super::{ChannelFacts, Expected, Finding};
use crate::money::Msat;

const ITEM: &str = "liquidity";

/// Channels, the money they can bring, HTLC slots, whether customers can find them.
pub(super) fn judge(channels: Option<&[ChannelFacts]>, expected: &Expected) -> Vec<Finding> {
    let Some(channels) = channels else {
        return vec![Finding::warning(
            ITEM,
            "the channels can not be read: see ListChannels above",
        )];
    };
    let active: Vec<&ChannelFacts> = channels.iter().filter(|channel| channel.active).collect();
    if active.is_empty() {
        let text = format!(
            "none of {} channels is active: nobody can pay; open one with inbound liquidity, or look at its peer",
            channels.len()
        );
        return vec![Finding::problem(ITEM, text)];
    }
    let mut findings = vec![
        money(&active, &expected.payments),
        slots(&active, expected.payments.len()),
    ];
    if active.iter().all(|channel| channel.private) && !expected.private_route_hints {
        findings.push(Finding::warning(
            "route hints",
            "all active channels are private: customers' wallets find no way to the node; set \
             lnd.private_route_hints = true",
        ));
    }
    findings
}

/// What can come in through this channel now.
fn receivable(channel: &ChannelFacts) -> Msat {
    if free_slots(channel) == 0 {
        return Msat::ZERO;
    }
    let balance = channel.remote.saturating_sub(channel.reserve);
    balance.min(channel.max_pending.saturating_sub(channel.pending))
}

fn free_slots(channel: &ChannelFacts) -> u32 {
    channel.max_htlcs.saturating_sub(channel.pending_htlcs)
}

fn money(active: &[&ChannelFacts], payments: &[Msat]) -> Finding {
    let total: Msat = active.iter().map(|channel| receivable(channel)).sum();
    let largest = active
        .iter()
        .map(|channel| receivable(channel))
        .max()
        .unwrap_or_default();
    let seen = format!(
        "about {total} can be received, {largest} of it over one channel ({} active)",
        active.len()
    );
    let (one, all) = (
        payments.iter().max().copied().unwrap_or_default(),
        payments.iter().copied().sum::<Msat>(),
    );
    if total < one {
        return Finding::problem(
            ITEM,
            format!("{seen}; one cash-out may be {one}: get more inbound liquidity, or lower max_amount"),
        );
    }
    if total < all {
        return Finding::warning(
            ITEM,
            format!(
                "{seen}; the largest cash-outs at all machines together are {all}: not all of them can be held at once"
            ),
        );
    }
    let parts = if largest < one {
        "; the largest cash-out comes in parts only"
    } else {
        ""
    };
    Finding::ok(
        ITEM,
        format!("{seen}; the largest cash-out is {one}, those of all machines are {all}{parts}"),
    )
}

fn slots(active: &[&ChannelFacts], machines: usize) -> Finding {
    const ITEM: &str = "htlc slots";
    let free = active
        .iter()
        .fold(0_u32, |sum, channel| sum.saturating_add(free_slots(channel)));
    let seen = format!("{free} more payments, or parts of them, can be held at once");
    if free == 0 {
        return Finding::problem(
            ITEM,
            format!("{seen}: nobody can pay until a hold ends; open another channel"),
        );
    }
    if usize::try_from(free).is_ok_and(|free| free < machines) {
        return Finding::warning(ITEM, format!("{seen}, for {machines} machines: open another channel"));
    }
    Finding::ok(ITEM, seen)
}
