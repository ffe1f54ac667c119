//! Judges whether the node is there, which it is, and whether it knows the chain and the time. Pure.
//!
//! Called by [`super::judge`].

use std::time::Duration;

use super::{ClockFacts, Facts, Finding, Identity};
use crate::lnd::{NodeState, version};
use crate::time::UnixMs;

/// Bitcoin's nodes take no block whose time is further ahead than this.
const BLOCK_AHEAD: Duration = Duration::from_secs(2 * 3600);

/// What to look at.
const REACH: &str = "does LND run there, and is tls_cert a copy of its present certificate?";

/// Of the connection and how far LND has started.
pub(super) fn reached(facts: &Facts) -> Vec<Finding> {
    let state = match &facts.state {
        Ok(state) => state,
        Err(why) => return vec![Finding::problem("connection", format!("{why}; {REACH}"))],
    };
    let connected = format!("LND at {} presents the pinned certificate", facts.address);
    let mut findings = vec![Finding::ok("connection", connected), started(*state)];
    if let Err(why) = &facts.macaroon {
        let text = format!("it can not be used: {why}; bake one as `tellerd check --bake` says");
        findings.push(Finding::problem("macaroon", text));
    }
    findings
}

fn started(state: NodeState) -> Finding {
    const ITEM: &str = "state";
    match state {
        NodeState::ServerActive => Finding::ok(ITEM, "LND has fully started"),
        NodeState::RpcActive => Finding::warning(
            ITEM,
            "LND takes calls but has not fully started: no invoice is added before; check again",
        ),
        NodeState::Locked => Finding::problem(ITEM, "LND's wallet is locked: unlock it (lncli unlock)"),
        NodeState::Unlocked | NodeState::NotStarted => Finding::problem(
            ITEM,
            "LND is still starting, or has no wallet: check again, or look at its log",
        ),
    }
}

/// Of what it says about itself.
pub(super) fn identity(identity: &Identity, now: UnixMs, clock: &ClockFacts) -> Vec<Finding> {
    let node = &identity.node;
    vec![
        version_of(&node.version),
        Finding::ok("network", format!("{}, node {}", node.network, node.pubkey)),
        sync(identity, now),
        clock_of(identity, now, clock),
    ]
}

fn version_of(text: &str) -> Finding {
    const ITEM: &str = "version";
    let ((oldest_major, oldest_minor), (newest_major, newest_minor)) = (version::OLDEST, version::NEWEST);
    match version::parse(text) {
        None => Finding::warning(
            ITEM,
            format!("`{text}` can not be understood: tellerd may not know this LND"),
        ),
        Some(line) if line < version::OLDEST => Finding::problem(
            ITEM,
            format!("{text} is older than {oldest_major}.{oldest_minor}, the oldest that tellerd knows: upgrade LND"),
        ),
        Some(line) if line > version::NEWEST => Finding::warning(
            ITEM,
            format!(
                "{text} is newer than {newest_major}.{newest_minor}, the newest that this tellerd was tried with: \
                 see docs/LND.md, and try it before customers do"
            ),
        ),
        Some(_) => Finding::ok(ITEM, text),
    }
}

fn sync(identity: &Identity, now: UnixMs) -> Finding {
    let age = told(now.since(identity.best_header_at));
    let height = identity.node.block_height;
    let seen = format!("height {height}, its best block is {age} old");
    if identity.node.synced_to_chain {
        return Finding::ok("sync", format!("in sync with the chain: {seen}"));
    }
    Finding::problem(
        "sync",
        format!("out of sync with the chain: {seen}; no invoice is added meanwhile: look at LND's bitcoin node"),
    )
}

fn clock_of(identity: &Identity, now: UnixMs, clock: &ClockFacts) -> Finding {
    const ITEM: &str = "clock";
    let ahead = identity.best_header_at.since(now);
    if ahead > BLOCK_AHEAD {
        return Finding::problem(
            ITEM,
            format!(
                "the best block is {} in the future: this machine's clock is wrong",
                told(ahead)
            ),
        );
    }
    let set = "set both by NTP, since an invoice is dated by LND's clock and wallets refuse expired ones";
    match clock {
        ClockFacts::Near(bound) => Finding::ok(
            ITEM,
            format!("LND's clock is within {} of this machine's", told(*bound)),
        ),
        ClockFacts::Ahead(by) => Finding::warning(
            ITEM,
            format!("LND's clock is more than {} ahead of this machine's: {set}", told(*by)),
        ),
        ClockFacts::Behind(by) => Finding::warning(
            ITEM,
            format!("LND's clock is more than {} behind this machine's: {set}", told(*by)),
        ),
        ClockFacts::Unknown(why) => Finding::warning(
            ITEM,
            format!("no block is from the future, but LND's clock can not be compared with this machine's: {why}"),
        ),
    }
}

/// A time in the largest unit that leaves a number worth reading.
pub(super) fn told(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
