//! The sections of the configuration that hold for the whole fleet. Defaults are set here.
//!
//! Called by [`super::Config::load`]. Sources: DESIGN.md section 3 (policies), fact sheet on LND.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::reader::Section;
use super::value::{amount, boolean, duration, number, parsed, path, percent, positive_amount, text};
use super::{HttpConfig, JournalConfig, Supervision};
use crate::cashout::quote::Fee;
use crate::cashout::{PartialPolicy, Policy, UnknownPolicy};
use crate::lnd::{LndConfig, LndLocation};
use crate::money::{Minor, Rate};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9377);

pub(super) fn http(mut section: Section) -> HttpConfig {
    let listen = section.or("listen", parsed, LISTEN);
    let token_file = section.optional("token_file", path(section.document.folder));
    if !listen.ip().is_loopback() && !section.has("token_file") {
        let message = format!("{listen} can be reached from other machines: token_file must be given");
        section.mistake("listen", message);
    }
    section.finish();
    HttpConfig { listen, token_file }
}

/// `[lnd]`, with what belongs to other parts.
pub(super) struct Lnd {
    pub config: Option<LndConfig>,
    pub private_route_hints: bool,
    pub window: Window,
}

/// The blocks between a hold and LND's own cancel.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub cltv_expiry: u16,
    pub hold_expiry_delta: u32,
    /// Where it stands.
    section: &'static str,
}

/// The keys of the window in the table `name`.
pub(super) fn window(section: &mut Section, name: &'static str) -> Window {
    Window {
        cltv_expiry: section.or("cltv_expiry", number(1..=2016), 80),
        hold_expiry_delta: section.or("hold_expiry_delta", number(0..=2016), 18),
        section: name,
    }
}

pub(super) fn lnd(mut section: Section) -> Lnd {
    let location = location(&mut section);
    let deadline = section.or("deadline", duration, LndConfig::DEFAULT_DEADLINE);
    let private_route_hints = section.or("private_route_hints", boolean, false);
    let window = window(&mut section, "lnd");
    let config = location.map(|location| LndConfig {
        deadline,
        ..LndConfig::new(location)
    });
    if let Some(Err(error)) = config.as_ref().map(LndConfig::check) {
        let key = if section.has("uri") { "uri" } else { "address" };
        section.mistake(key, error.to_string());
    }
    section.finish();
    Lnd {
        config,
        private_route_hints,
        window,
    }
}

fn location(section: &mut Section) -> Option<LndLocation> {
    let folder = section.document.folder;
    let uri = section.optional("uri", text);
    if section.has("uri") {
        for key in ["address", "macaroon"] {
            if section.has(key) {
                section.mistake(
                    key,
                    "uri is given too: give either uri or address, tls_cert and macaroon",
                );
            }
        }
        let tls_cert = section.optional("tls_cert", path(folder));
        section.optional("address", text);
        section.optional("macaroon", text);
        return uri.map(|uri| LndLocation::Uri { uri, tls_cert });
    }
    let address = section.required("address", text);
    let tls_cert = section.required("tls_cert", path(folder));
    let macaroon = section.required("macaroon", path(folder));
    Some(LndLocation::Files {
        address: address?,
        tls_cert: tls_cert?,
        macaroon: macaroon?,
    })
}

enum Partial {
    Owe,
    Absorb,
}

impl FromStr for Partial {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "owe" => Ok(Self::Owe),
            "absorb" => Ok(Self::Absorb),
            _ => Err("\"owe\" or \"absorb\" expected"),
        }
    }
}

struct Unknown(UnknownPolicy);

impl FromStr for Unknown {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cancel" => Ok(Self(UnknownPolicy::Cancel)),
            "settle" => Ok(Self(UnknownPolicy::Settle)),
            _ => Err("\"cancel\" or \"settle\" expected"),
        }
    }
}

/// The policy and the time for paying.
pub(super) fn policy(mut section: Section, window: Window) -> (Policy, Duration) {
    const MINUTE: Duration = Duration::from_secs(60);
    let policy = Policy {
        partial: partial(&mut section),
        unknown_at_deadline: section
            .or("unknown_at_deadline", parsed, Unknown(UnknownPolicy::Cancel))
            .0,
        hold_ms: millis(section.or("hold_deadline", duration, 10 * MINUTE)),
        unknown_ms: millis(section.or("unknown_deadline", duration, 60 * MINUTE)),
        min_blocks_left: section.or("min_blocks_left", number(1..=2016), 12),
        force_blocks_left: section.or("force_blocks_left", number(1..=2016), 6),
        hold_expiry_delta: window.hold_expiry_delta,
        cltv_expiry: window.cltv_expiry,
        max_orders: section.or("max_orders", number(1..=10), 2),
    };
    let payment_timeout = section.or("payment_timeout", duration, 3 * MINUTE);
    let blocks = i64::from(policy.cltv_expiry) - i64::from(policy.hold_expiry_delta);
    if i64::from(policy.min_blocks_left) >= blocks {
        let message = format!(
            "{} is not below {1}.cltv_expiry - {1}.hold_expiry_delta = {blocks}: no cash-out could ever dispense",
            policy.min_blocks_left, window.section
        );
        section.mistake("min_blocks_left", message);
    }
    if policy.force_blocks_left > policy.min_blocks_left {
        let message = format!(
            "{} is above min_blocks_left = {}: an outcome could be forced as soon as it is unknown",
            policy.force_blocks_left, policy.min_blocks_left
        );
        section.mistake("force_blocks_left", message);
    }
    section.finish();
    (policy, payment_timeout)
}

fn partial(section: &mut Section) -> PartialPolicy {
    let partial = section.or("partial", parsed, Partial::Owe);
    match partial {
        Partial::Owe => {
            section.optional("absorb_limit", amount);
            if section.has("absorb_limit") {
                section.mistake("absorb_limit", "has no effect unless partial = \"absorb\"");
            }
            PartialPolicy::Owe
        }
        Partial::Absorb => {
            let limit = section.required("absorb_limit", positive_amount);
            let limit = limit.unwrap_or(Minor::ZERO);
            PartialPolicy::Absorb { limit }
        }
    }
}

/// Bounded by [`duration`] to a year.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn rate(mut section: Section) -> Option<Rate> {
    let currency = section.required("currency", parsed);
    let per_btc = section.required("per_btc", positive_amount);
    section.finish();
    Some(Rate {
        minor_per_btc: per_btc?.0,
        currency: currency?,
    })
}

pub(super) fn fee(mut section: Section) -> Fee {
    let fee = Fee {
        basis_points: section.or("percent", percent, 0),
        fixed: section.or("fixed", amount, Minor::ZERO),
    };
    section.finish();
    fee
}

pub(super) fn journal(mut section: Section) -> JournalConfig {
    let segment_bytes = section.or("segment_bytes", number(4_096..=1 << 32), 64 << 20);
    section.finish();
    JournalConfig { segment_bytes }
}

pub(super) fn supervision(mut section: Section) -> Supervision {
    let supervision = Supervision {
        max_restarts: section.or("max_restarts", number(0..=1_000), 5),
        within: section.or("within", duration, Duration::from_secs(60)),
    };
    section.finish();
    supervision
}
