//! The configuration file: everything an operator decides, checked before anything starts.
//!
//! Called by `run` and `check`. Every key is explained in `config/fleet.example.toml`, whose defaults a
//! test compares with the code. What must stay true: all mistakes are told at once, each with file, line
//! and key; nothing is opened or created here; no message or `Debug` text holds a secret.

mod atm;
pub mod key;
mod limits;
pub mod nostr;
pub(crate) mod reader;
mod secret_file;
mod section;
#[cfg(test)]
mod tests;
pub mod token;
pub(crate) mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cashout::Policy;
use crate::cashout::quote::Fee;
use crate::money::Rate;

pub use atm::{AtmConfig, CassetteConfig, MOST_NOTES, Model, Timings, Variant};
pub use nostr::{NostrConfig, Payments, ServiceConfig, SiteConfig};
pub use reader::{ConfigErrors, Mistake};
pub use secret_file::SecretFileError;

use reader::Section;

/// A whole configuration. Paths are absolute when the file's own path was.
#[derive(Debug, Clone)]
pub struct Config {
    /// The journal's and the store's folder.
    pub data_dir: PathBuf,
    /// The API's address and secret.
    pub http: HttpConfig,
    /// Where the hold invoices are made.
    pub payments: Payments,
    /// Who this daemon is on Nostr, if it is there at all.
    pub nostr: Option<NostrConfig>,
    /// Invoices tell the customer's wallet of the node's private channels.
    pub private_route_hints: bool,
    /// The rules for new cash-outs.
    pub policy: Policy,
    /// How long a customer has for paying an invoice.
    pub payment_timeout: Duration,
    /// The fixed price.
    pub rate: Rate,
    /// The operator's fee.
    pub fee: Fee,
    /// The journal's files.
    pub journal: JournalConfig,
    /// Bounds on restarts.
    pub supervision: Supervision,
    /// The fleet; ids and ports differ. At least one, unless there is a service for others.
    pub atms: Vec<AtmConfig>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Holds the bearer token for what changes anything; always given when `listen` is not loopback.
    pub token_file: Option<PathBuf>,
}

/// `[journal]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalConfig {
    /// A new segment file is begun when one has grown to this size.
    pub segment_bytes: u64,
}

/// `[supervision]`: an actor that dies more often than this stays down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supervision {
    /// Most restarts of one actor `within`.
    pub max_restarts: u32,
    /// The period in which restarts are counted.
    pub within: Duration,
}

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it start at its folder.
    ///
    /// # Errors
    /// Every mistake in the file, or why it can not be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigErrors {
            file: path.to_owned(),
            mistakes: Vec::new(),
            source: Some(source),
        })?;
        Self::parse(&text, path)
    }

    /// As [`Config::load`], from the text of a file at `path`, which is not read.
    ///
    /// # Errors
    /// Every mistake in the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        reader::parse(text, path, read)
    }
}

/// `None` only when a mistake was noted.
fn read(mut root: Section) -> Option<Config> {
    let data_dir = root.required("data_dir", value::path(root.document.folder));
    let http = section::http(root.section("http"));
    let invoices = nostr::payments(&mut root);
    let (policy, payment_timeout) = section::policy(root.section("policy"), invoices.window);
    let nostr = nostr::nostr(&mut root, &invoices, Duration::from_millis(policy.hold_ms));
    let rate = section::rate(root.section("rate"));
    let fee = section::fee(root.section("fee"));
    let journal = section::journal(root.section("journal"));
    let supervision = section::supervision(root.section("supervision"));
    let atms = atm::fleet(&mut root, nostr.serves);
    root.finish();
    Some(Config {
        data_dir: data_dir?,
        http,
        payments: invoices.payments?,
        nostr: nostr.config,
        private_route_hints: invoices.private_route_hints,
        policy,
        payment_timeout,
        rate: rate?,
        fee,
        journal,
        supervision,
        atms,
    })
}
