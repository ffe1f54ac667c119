//! `[nostr]`, `[service]`, `[[operator]]` and `[site]`: who this daemon is on Nostr, whom it serves, and whose service it uses.
//!
//! Called by [`super::Config::load`].

use std::path::PathBuf;
use std::time::Duration;

use crate::clients::{ConfiguredClient, Limits, Operator};
use crate::ids::{ClientName, NostrKey};
use crate::lnd::LndConfig;

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
    /// `ws://` or `wss://` addresses; at least one.
    pub relays: Vec<String>,
    /// Who may operate this daemon over Nostr.
    pub operators: Vec<Operator>,
    /// The hold-invoice service, when it is served.
    pub service: Option<ServiceConfig>,
}

/// `[service]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// For people, in the beacon.
    pub name: String,
    /// A committed hold that was neither settled nor canceled is canceled after so long.
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
    /// The service's key, or its nprofile, whose relays are added to those of `[nostr]`.
    pub service: NostrKey,
    /// Which NIP-44 the requests use: 1 or 2.
    pub nip44: u8,
    /// How long an answer is waited for before the request is repeated.
    pub deadline: Duration,
    /// The token of an invitation, until it was used: with it the site enrolls at its first start.
    pub pairing_file: Option<PathBuf>,
    /// What this site is called in its log; its name at the service is the service's to give.
    pub name: Option<ClientName>,
}
