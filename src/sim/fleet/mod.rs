//! `tellerd simulate`: a whole fleet around a real daemon, and the audit at its end.
//!
//! This process hosts the simulated LND, the emulated dispensers on pseudo-terminals, customers and an operator; with
//! `--payments nostr` relays too. The daemons are child processes of the same program, as `tellerd run`: one, or sites
//! and their server; with `--transport memory` the only one is on threads of this process (`inside.rs`). What must stay true: nothing of the simulation reaches into a daemon but by its serial lines,
//! gRPC, relays, HTTP and signals; no child outlives this process.

mod arrivals;
mod client;
mod costs;
mod customer;
mod cycles;
mod daemon;
pub(in crate::sim) mod fault;
mod inside;
mod keeper;
mod machines;
pub mod meter;
mod operator;
mod place;
mod progress;
mod report;
mod run;
mod scenario;
pub(in crate::sim) mod setup;
mod sick_disk;
mod stage;
mod trouble;
mod words;
mod world;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

pub use run::simulate;
pub use scenario::Scenario;

use crate::config::ConfigErrors;
use crate::config::token::TokenError;
use crate::sim::lnd::SimError;
use crate::sim::relay::RelayError;

/// Where the hold invoices are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Payments {
    /// At an LND that the only daemon has itself.
    Lnd,
    /// At a server, which the sites reach over relays.
    Nostr,
}

/// What is between the daemon and the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Pseudo-terminals; the daemons are child processes.
    Pty,
    /// Bytes in memory; the daemon is in this process, on threads of its own.
    Memory,
}

/// What `tellerd simulate` is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Machines.
    pub atms: usize,
    /// What is between the daemon and the machines.
    pub transport: Transport,
    /// Where the hold invoices are made.
    pub payments: Payments,
    /// Sites, when not the usual number.
    pub sites: Option<usize>,
    /// How long customers come.
    pub duration: Duration,
    /// Kill the daemon so many times, each start verified; customers come until that is done.
    pub kills: Option<u64>,
    /// Everything random comes from it.
    pub seed: u64,
    /// The scenario; the built-in one when not named.
    pub scenario: Option<PathBuf>,
    /// Where the JSON report goes.
    pub report: Option<PathBuf>,
    /// The work directory, which is then kept.
    pub keep: Option<PathBuf>,
    /// The program that is the daemon.
    pub program: PathBuf,
}

/// Why there is no simulation.
#[derive(Debug, Error)]
pub enum SimulationError {
    /// The scenario.
    #[error(transparent)]
    Scenario(#[from] ConfigErrors),
    /// More machines than this system has terminals or open files for.
    #[error("{atms} machines are too many: {why}")]
    TooMany {
        /// As asked.
        atms: usize,
        /// The limit.
        why: String,
    },
    /// The simulated LND.
    #[error("simulated LND: {0}")]
    Lnd(#[from] SimError),
    /// An API's token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The HTTP client.
    #[error("HTTP client: {0}")]
    Client(String),
    /// A name or a number of the simulation itself.
    #[error("{0}")]
    Own(String),
    /// The daemon does not work at all.
    #[error("the daemon does not start: {why}\nits log is {log}")]
    Daemon {
        /// What happened.
        why: String,
        /// Its standard error.
        log: PathBuf,
    },
    /// Files and sockets.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> SimulationError {
    let what = what.into();
    move |source| SimulationError::System { what, source }
}
