//! `payments`, `[nostr]`, `[service]`, `[[operator]]` and `[site]`: who this daemon is on Nostr, whom it serves, and whose service it uses.
//!
//! Called by [`super::Config::load`]. What must stay true: a key is a point of the curve, no two clients share a key or
//! name and no two operators do; no message repeats what was given for a key, which may be a secret one by mistake.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::nostr::nips::nip19::{FromBech32, Nip19Profile};
use ::nostr::{PublicKey, RelayUrl};
use toml::de::DeValue;

use super::limits::{self, limits};
use super::reader::Section;
use super::section::{self, Window};
use super::value::{duration, number, parsed, path, text};
use crate::clients::{ConfiguredClient, Limits, Operator};
use crate::ids::{ClientName, NostrKey};
use crate::lnd::LndConfig;

/// An address has its length in one byte of an nprofile (NIP-19), and there is room for a few of them.
const LONGEST_RELAY: usize = 200;

/// More than a site's own deadline for an unknown outcome, so that the site decides first.
const COMMIT_DEADLINE: Duration = Duration::from_secs(65 * 60);

/// Where the hold invoices are made. `payments`
#[derive(Debug, Clone)]
pub enum Payments {
    /// At an LND of one's own.
    Lnd(LndConfig),
    /// At a service, reached over Nostr.
    Nostr(SiteConfig),
}

/// `[nostr]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NostrConfig {
    /// Holds the secret key, 64 hexadecimal digits or nsec, mode 0600; made at the first start. The environment's
    /// `TELLERD_NOSTR_KEY` goes before it.
    pub key_file: PathBuf,
    /// `ws://` or `wss://` addresses; at least one, all different.
    pub relays: Vec<String>,
    /// Who may operate this daemon over Nostr. Names and keys differ.
    pub operators: Vec<Operator>,
    /// The hold-invoice service, when it is served.
    pub service: Option<ServiceConfig>,
}

/// `[service]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// For people, in the beacon.
    pub name: String,
    /// A committed hold that was neither settled nor canceled is canceled after so long. Longer than the policy's hold
    /// deadline, which is that of holds without a commit.
    pub commit_deadline: Duration,
    /// How long an invitation can be used.
    pub invite_valid: Duration,
    /// Of clients that have none of their own.
    pub limits: Limits,
    /// `[[service.client]]`: names and keys differ.
    pub clients: Vec<ConfiguredClient>,
}

/// `[site]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteConfig {
    /// The service's key. It may be given as an nprofile, whose relays are added to those of `[nostr]`.
    pub service: NostrKey,
    /// Which NIP-44 the requests use: 1 or 2.
    pub nip44: u8,
    /// How long an answer is waited for before the request is repeated.
    pub deadline: Duration,
    /// The token of an invitation, until it was used: with it the site enrolls at its first start.
    pub pairing_file: Option<PathBuf>,
}

/// The value of `payments`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lnd,
    Nostr,
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lnd" => Ok(Self::Lnd),
            "nostr" => Ok(Self::Nostr),
            _ => Err("\"lnd\" or \"nostr\" expected"),
        }
    }
}

/// Where the invoices are made, with what belongs to other parts.
pub(super) struct Invoices {
    kind: Kind,
    /// `None` when a mistake was noted.
    pub payments: Option<Payments>,
    pub private_route_hints: bool,
    pub window: Window,
    /// Of the service's nprofile.
    relays: Vec<String>,
}

/// `payments`, and `[lnd]` or `[site]`.
pub(super) fn payments(root: &mut Section) -> Invoices {
    match root.or("payments", parsed, Kind::Lnd) {
        Kind::Lnd => {
            root.refuse("site", "has no effect unless payments = \"nostr\"");
            let lnd = section::lnd(root.section("lnd"));
            Invoices {
                kind: Kind::Lnd,
                payments: lnd.config.map(Payments::Lnd),
                private_route_hints: lnd.private_route_hints,
                window: lnd.window,
                relays: Vec::new(),
            }
        }
        Kind::Nostr => {
            root.refuse(
                "lnd",
                "has no effect with payments = \"nostr\": the service has the LND",
            );
            site(root.section("site"))
        }
    }
}

fn site(mut section: Section) -> Invoices {
    let service = section.required("service", profile);
    let nip44 = section.or("nip44", number(1..=2), 2);
    let deadline = section.or("deadline", duration, Duration::from_secs(8));
    let pairing_file = section.optional("pairing_file", path(section.document.folder));
    let window = section::window(&mut section, "site");
    section.finish();
    let (service, relays) = service.map_or((None, Vec::new()), |(key, relays)| (Some(key), relays));
    let config = service.map(|service| SiteConfig {
        service,
        nip44,
        deadline,
        pairing_file,
    });
    Invoices {
        kind: Kind::Nostr,
        payments: config.map(Payments::Nostr),
        private_route_hints: false,
        window,
        relays,
    }
}

/// What there is on Nostr.
pub(super) struct OnNostr {
    /// `None` when nothing is, or a mistake was noted.
    pub config: Option<NostrConfig>,
    /// There is a service for others.
    pub serves: bool,
}

/// `[nostr]`, `[[operator]]` and `[service]`; `hold` is the policy's hold deadline.
pub(super) fn nostr(root: &mut Section, invoices: &Invoices, hold: Duration) -> OnNostr {
    let (mut section, serves) = (root.section("nostr"), root.has("service"));
    if !root.has("nostr") && invoices.kind == Kind::Lnd {
        for key in ["operator", "service"] {
            root.refuse(key, "has no effect without [nostr], which gives key_file and relays");
        }
        return OnNostr { config: None, serves };
    }
    let key_file = section.required("key_file", path(section.document.folder));
    let mut relays = relays(&mut section);
    section.finish();
    for relay in &invoices.relays {
        if !relays.contains(relay) {
            relays.push(relay.clone());
        }
    }
    let operators = operators(root.sections("operator"));
    let service = match invoices.kind {
        Kind::Lnd => {
            let section = root.section("service");
            serves.then(|| service(section, hold))
        }
        Kind::Nostr => {
            root.refuse(
                "service",
                "needs payments = \"lnd\": invoices of others are made at an LND",
            );
            None
        }
    };
    let config = key_file.map(|key_file| NostrConfig {
        key_file,
        relays,
        operators,
        service,
    });
    OnNostr { config, serves }
}

fn relays(section: &mut Section) -> Vec<String> {
    let mut taken: Vec<(String, String)> = Vec::new();
    section.list("relays", |value, place| {
        let relay = relay(&text(value)?)?;
        if let Some((_, first)) = taken.iter().find(|(other, _)| *other == relay) {
            return Err(format!("the same as {first}"));
        }
        taken.push((relay.clone(), place.to_owned()));
        Ok(relay)
    })
}

/// The address of a relay, in the one spelling that all of this program uses.
///
/// # Errors
/// What is expected.
pub fn relay(text: &str) -> Result<String, String> {
    let bad = "not the address of a relay: ws:// or wss:// and a host expected, without user, password and fragment";
    let url = RelayUrl::parse(text).map_err(|_| bad.to_owned())?;
    if url.host().is_none_or(|host| host.to_string().is_empty()) || text.contains(['@', '#']) {
        return Err(bad.to_owned());
    }
    let spelled = url.as_str();
    if spelled.len() > LONGEST_RELAY {
        return Err(format!("longer than {LONGEST_RELAY} characters"));
    }
    // `wss://host/` and `wss://host` are one relay.
    let whole = spelled.strip_suffix('/').filter(|rest| rest.matches('/').count() == 2);
    Ok(whole.unwrap_or(spelled).to_owned())
}

fn operators(sections: Vec<Section>) -> Vec<Operator> {
    let (mut names, mut keys) = (HashMap::new(), HashMap::new());
    let mut operators = Vec::new();
    for mut section in sections {
        let name: Option<ClientName> = section.required("name", parsed);
        let key = section.required("key", public_key);
        let role = section.required("role", parsed);
        section.unique("name", name.clone(), &mut names);
        section.unique("key", key, &mut keys);
        section.finish();
        if let (Some(name), Some(key), Some(role)) = (name, key, role) {
            operators.push(Operator { name, key, role });
        }
    }
    operators
}

fn service(mut section: Section, hold: Duration) -> ServiceConfig {
    const HOUR: Duration = Duration::from_secs(3_600);
    let name = section.optional("name", title);
    let commit_deadline = section.or("commit_deadline", duration, COMMIT_DEADLINE);
    if commit_deadline <= hold {
        let message = format!(
            "{} s is not above policy.hold_deadline = {} s: a commit would not win any time",
            commit_deadline.as_secs_f64(),
            hold.as_secs_f64()
        );
        section.mistake("commit_deadline", message);
    }
    let invite_valid = section.or("invite_valid", duration, HOUR);
    let limits = limits(&mut section, limits::DEFAULT);
    let clients = clients(section.sections("client"), limits);
    section.finish();
    ServiceConfig {
        name: name.unwrap_or_else(|| "tellerd".to_owned()),
        commit_deadline,
        invite_valid,
        limits,
        clients,
    }
}

/// A name for people, in one line.
fn title(value: &DeValue) -> Result<String, String> {
    let name = text(value)?;
    let fits = name.chars().count() <= 64 && !name.chars().any(char::is_control) && !name.trim().is_empty();
    fits.then_some(name)
        .ok_or_else(|| "1 to 64 characters in one line expected".to_owned())
}

fn clients(sections: Vec<Section>, defaults: Limits) -> Vec<ConfiguredClient> {
    let (mut names, mut keys) = (HashMap::new(), HashMap::new());
    let mut clients = Vec::new();
    for mut section in sections {
        let name: Option<ClientName> = section.required("name", parsed);
        let key = section.optional("key", public_key);
        let limits = limits(&mut section, defaults);
        section.unique("name", name.clone(), &mut names);
        section.unique("key", key, &mut keys);
        section.finish();
        clients.extend(name.map(|name| ConfiguredClient { name, key, limits }));
    }
    clients
}

/// A public key, as npub or hexadecimal.
fn public_key(value: &DeValue) -> Result<NostrKey, String> {
    read_key(&text(value)?, "npub1… or 64 hexadecimal digits")
}

fn read_key(text: &str, expected: &str) -> Result<NostrKey, String> {
    if text.starts_with("nsec1") {
        return Err("a secret key (nsec), which does not belong here: give the public one (npub)".to_owned());
    }
    let key = PublicKey::from_hex(text).or_else(|_| PublicKey::from_bech32(text).map_err(drop));
    on_the_curve(key.map_err(|()| format!("not a public key: {expected} expected"))?)
}

fn on_the_curve(key: PublicKey) -> Result<NostrKey, String> {
    let point = key
        .xonly()
        .map_err(|_| "not a public key: no point of the curve has this x-coordinate");
    point.map(|_| NostrKey(key.to_bytes())).map_err(str::to_owned)
}

/// A service's key, with the relays that come with it.
fn profile(value: &DeValue) -> Result<(NostrKey, Vec<String>), String> {
    let text = text(value)?;
    if text.contains(':') {
        return Err(
            "a pairing string: what is before the colon belongs here, the token behind it into pairing_file".to_owned(),
        );
    }
    read_profile(&text)
}

/// The key of a tellerd as npub, hexadecimal or nprofile, with the relays of the latter.
///
/// # Errors
/// What is expected. What was given is not repeated.
pub fn read_profile(text: &str) -> Result<(NostrKey, Vec<String>), String> {
    if !text.starts_with("nprofile1") {
        return Ok((
            read_key(text, "npub1…, nprofile1… or 64 hexadecimal digits")?,
            Vec::new(),
        ));
    }
    let profile = Nip19Profile::from_bech32(text).map_err(|error| format!("not an nprofile: {error}"))?;
    let relays = profile.relays.iter().filter_map(|url| relay(url.as_str()).ok());
    Ok((on_the_curve(profile.public_key)?, relays.collect()))
}
