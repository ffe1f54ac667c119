//! What the facts about a live node mean for the operator: findings, each with what to do. Pure.
//!
//! Called by `tellerd check` with what `survey.rs` saw and what the configuration expects. What must stay true: a
//! fact that could not be read is never judged as if it were good; a problem is what would make customers wait or
//! money unsafe, a warning what an operator should know.
//! Source: lnd v0.21.2-beta and v0.20.2-beta, `lncfg/config.go` and `lncfg/invoices.go`; docs/LND.md.

mod blocks;
mod liquidity;
mod node;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use super::permissions::{Call, PERMISSIONS, Permission};
use super::{NodeInfo, NodeState};
use crate::money::Msat;
use crate::time::UnixMs;

/// How good or bad it is. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but the operator should know.
    Warning,
    /// Does not work, or money is not safe.
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How good or bad it is.
    pub level: Level,
    /// What was judged.
    pub item: &'static str,
    /// What was found, and what to do: printable, on one line, whatever the node's own words were.
    pub text: String,
}

impl Finding {
    fn new(level: Level, item: &'static str, text: impl Into<String>) -> Self {
        Self {
            level,
            item,
            text: printable(&text.into()),
        }
    }

    fn ok(item: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, item, text)
    }

    fn warning(item: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Warning, item, text)
    }

    fn problem(item: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Problem, item, text)
    }
}

/// A node's words go to the operator's terminal: in them may be neither commands to it nor another line.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\'' | '\\' => safe.push(letter),
            _ => safe.extend(letter.escape_debug()),
        }
    }
    safe
}

/// What a node was seen to be.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its `host:port`.
    pub address: String,
    /// This machine's clock when it was asked.
    pub at: UnixMs,
    /// How far it has started; else why it can not be reached.
    pub state: Result<NodeState, String>,
    /// The macaroon can be used; else why not.
    pub macaroon: Result<(), String>,
    /// `None` when it takes no calls, or there is no macaroon for them.
    pub asked: Option<Asked>,
}

/// What it answered with the macaroon.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who it is and how it fares.
    pub info: Result<Identity, String>,
    /// Each right of the list.
    pub rights: Vec<(Call, Access)>,
    /// A right that tellerd has no use for: the wallet's balance.
    pub excess: Access,
    /// Its clock beside this machine's.
    pub clock: ClockFacts,
    /// Its channels; `None` when they can not be read.
    pub channels: Option<Vec<ChannelFacts>>,
    /// `invoices.holdexpirydelta` in force; `None` when it can not be read.
    pub hold_expiry_delta: Option<u32>,
}

/// What `GetInfo` says.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node.
    pub node: NodeInfo,
    /// When its best block says that it was made.
    pub best_header_at: UnixMs,
}

/// Whether a call is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It is.
    Granted,
    /// It is not: LND's words.
    Denied(String),
    /// The answer does not tell.
    Unclear(String),
    /// It was not asked for, with a reason.
    NotAsked(String),
}

/// The node's clock beside this machine's, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockFacts {
    /// They differ by less than this.
    Near(Duration),
    /// The node's is ahead by more than this.
    Ahead(Duration),
    /// The node's is behind by more than this.
    Behind(Duration),
    /// It could not be asked.
    Unknown(String),
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelFacts {
    /// Its peer is connected.
    pub active: bool,
    /// Not announced: customers know it from route hints only.
    pub private: bool,
    /// What the peer has in it, without HTLCs under way.
    pub remote: Msat,
    /// What the peer has to keep in it.
    pub reserve: Msat,
    /// What may be under way to this node at once.
    pub max_pending: Msat,
    /// HTLCs that may be under way to this node at once.
    pub max_htlcs: u32,
    /// HTLCs under way to this node.
    pub pending_htlcs: u32,
    /// What they bring.
    pub pending: Msat,
}

/// What the configuration expects of the node.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Blocks; `lnd.hold_expiry_delta`.
    pub hold_expiry_delta: u32,
    /// Blocks; `lnd.cltv_expiry`.
    pub cltv_expiry: u16,
    /// Blocks; `policy.min_blocks_left`.
    pub min_blocks_left: u32,
    /// `lnd.private_route_hints`.
    pub private_route_hints: bool,
    /// The largest payment for each machine, and that of the service's clients.
    pub payments: Vec<Msat>,
}

/// Judges `facts`. Ends early when what follows could not be asked.
#[must_use]
pub fn judge(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let mut findings = node::reached(facts);
    let Some(asked) = &facts.asked else {
        return findings;
    };
    match &asked.info {
        Ok(identity) => findings.extend(node::identity(identity, facts.at, &asked.clock)),
        Err(why) => findings.push(Finding::problem("node", format!("it can not be told who it is: {why}"))),
    }
    findings.extend(rights(asked));
    let node = asked.info.as_ref().ok().map(|identity| &identity.node);
    findings.extend(blocks::judge(asked, node, expected));
    if let Some(node) = node {
        findings.push(resolutions(node));
    }
    findings.extend(liquidity::judge(asked.channels.as_deref(), expected));
    findings
}

/// The rights one by one, then what to do about all that is wrong with them.
fn rights(asked: &Asked) -> Vec<Finding> {
    let known = asked.rights.iter().filter_map(|(call, access)| {
        let permission = PERMISSIONS.iter().find(|permission| permission.call == *call)?;
        Some(right(permission, access))
    });
    let mut findings: Vec<Finding> = known.collect();
    findings.push(match &asked.excess {
        Access::Granted => Finding::warning(
            "macaroon",
            "it allows more than tellerd needs (such as WalletBalance), and so does whoever gets hold of the file: \
             bake one as `tellerd check --bake` says",
        ),
        Access::Denied(_) => Finding::ok(
            "macaroon",
            "it does not allow WalletBalance, as a right that is not needed",
        ),
        Access::Unclear(why) | Access::NotAsked(why) => Finding::warning(
            "macaroon",
            format!("it can not be told whether it allows more than tellerd needs: {why}"),
        ),
    });
    findings
}

fn right(permission: &Permission, access: &Access) -> Finding {
    let (method, purpose) = (permission.method(), permission.purpose);
    match access {
        Access::Granted => Finding::ok("right", format!("{method} is allowed")),
        Access::Denied(why) => {
            let level = if permission.required {
                Level::Problem
            } else {
                Level::Warning
            };
            let text = format!(
                "{method} is not allowed ({why}): without it tellerd can not {purpose}; bake a macaroon as \
                 `tellerd check --bake` says"
            );
            Finding::new(level, "right", text)
        }
        Access::Unclear(why) => Finding::warning(
            "right",
            format!("it can not be told whether {method} is allowed: {why}"),
        ),
        Access::NotAsked(why) => Finding::ok("right", format!("{method} was not asked for: {why}")),
    }
}

fn resolutions(node: &NodeInfo) -> Finding {
    const ITEM: &str = "resolutions";
    if node.stores_resolutions {
        return Finding::ok(ITEM, "LND stores what finally becomes of HTLCs");
    }
    Finding::warning(
        ITEM,
        "LND does not store what finally becomes of HTLCs, so a settled payment can not be followed until the money \
         has arrived: start it with store-final-htlc-resolutions=true",
    )
}
