//! A simulated LND: a gRPC server with LND's certificate, macaroons, states, texts and streams, and with customers.
//!
//! Owns a directory (keys and log). Called by `tellerd emulate lnd`, `tellerd simulate` and tests. Layers:
//! [`node`] decides (pure), `log` remembers, `engine` joins the two under one mutex, `front` guards each call,
//! `services` and `control` speak gRPC, `faults` and `connections` break things. Must stay true: it is written from
//! the fact sheet on LND, never from the client beside it. Documented in docs/SIMULATED_LND.md.

mod bolt11;
pub mod command;
mod connections;
mod control;
pub mod control_client;
mod convert;
mod credentials;
mod engine;
mod faults;
mod front;
mod handle;
mod log;
mod macaroon;
pub mod node;
mod router;
mod serve;
mod services;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tonic::{Code, Status};

pub use credentials::{ADMIN_MACAROON, READONLY_MACAROON, TELLERD_MACAROON, TLS_CERT, TLS_KEY};
pub use faults::Fault;
pub use handle::SimHandle;
pub use log::LogError;
pub use node::Finality;
use node::Refusal;
use node::record::{InvoiceRecord, Money, Payment};

use crate::time::{SharedClock, SystemClock};

/// Settings of the simulated LND.
#[derive(Clone)]
pub struct SimLndOptions {
    /// LND's `holdexpirydelta`: 18 blocks from v0.21, 12 before.
    pub hold_expiry_delta: u32,
    /// HTLCs held at once at most; a further one fails.
    pub max_htlcs: u32,
    /// All money in its channel, in satoshi: customers can not pay more. At first all of it is on their side.
    pub capacity_sat: u64,
    /// What finally becomes of HTLCs is stored: `--store-final-htlc-resolutions`, which LND does not do by default.
    pub final_resolutions: bool,
    /// Height of a new node. An existing one keeps its own.
    pub start_height: u32,
    /// Mines a block every so often; 0 only on command.
    pub block_interval_ms: u64,
    /// The time.
    pub clock: SharedClock,
}

impl Default for SimLndOptions {
    fn default() -> Self {
        let node = node::NodeOptions::default();
        Self {
            hold_expiry_delta: node.hold_expiry_delta,
            max_htlcs: node.max_htlcs,
            capacity_sat: node.capacity_sat,
            final_resolutions: node.final_resolutions,
            start_height: 850_000,
            block_interval_ms: 0,
            clock: Arc::new(SystemClock),
        }
    }
}

/// How a customer pays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PayOptions {
    /// Instead of the invoice's amount.
    pub amount_msat: Option<u64>,
    /// HTLCs to split into; 0 means 1.
    pub parts: u32,
    /// So many of them never arrive.
    pub missing_parts: u32,
    /// Blocks to the HTLCs' expiry; `None` for the invoice's own final CLTV delta.
    pub final_cltv_delta: Option<u32>,
    /// How long the customer hesitates.
    pub after: Duration,
}

/// Everything that happened at the node, for audits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Best block height.
    pub height: u32,
    /// Where all customers' money is.
    pub money: Money,
    /// All invoices with the node's view of their HTLCs, and their histories.
    pub invoices: Vec<InvoiceRecord>,
    /// All payments with the customers' view of their HTLCs.
    pub payments: Vec<Payment>,
}

/// A failure of the simulated LND.
#[derive(Debug, Error)]
pub enum SimError {
    /// The directory or the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The certificate could not be made.
    #[error("making the TLS certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// `node.key` is damaged.
    #[error("node.key: {0}")]
    NodeKey(bitcoin::secp256k1::Error),
    /// `tls.cert` is damaged.
    #[error("tls.cert: {0}")]
    BadCertificate(String),
    /// The control interface's answer to a client.
    #[error("{}", .0.message())]
    Answered(#[from] Box<Status>),
    /// LND's refusal of a call.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A payment or a number of blocks that can not be ordered.
    #[error("{0}")]
    BadOrder(String),
    /// No payment has this id.
    #[error("no payment {0}")]
    NoPayment(u64),
    /// A fault that can not be injected.
    #[error("fault: {0}")]
    BadFault(String),
    /// It was shut down, or its log could not be written.
    #[error("the simulated LND is closed")]
    Closed,
    /// The listening socket.
    #[error("listening: {0}")]
    Listen(#[source] io::Error),
    /// Nothing answers, or not what was expected.
    #[error(
        "nothing answers as the simulated LND at {address}; give the address that `tellerd emulate lnd` listens on ({source})"
    )]
    Connect {
        /// Where it was looked for.
        address: std::net::SocketAddr,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// gRPC or TLS.
    #[error("transport: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound => Code::NotFound,
            Refusal::NotStored => Code::Unavailable,
            _ => Code::Unknown,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<Status> for SimError {
    fn from(status: Status) -> Self {
        Self::Answered(Box::new(status))
    }
}

impl From<SimError> for Status {
    fn from(error: SimError) -> Self {
        match error {
            SimError::Refused(refusal) => refusal.into(),
            SimError::NoPayment(_) => Self::not_found(error.to_string()),
            SimError::BadOrder(_) | SimError::BadFault(_) => Self::invalid_argument(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

/// A simulated LND in its directory. Nothing runs before [`SimLnd::serve`].
pub struct SimLnd {
    engine: Arc<engine::Engine>,
    dir: PathBuf,
    comebacks: Mutex<Option<UnboundedReceiver<faults::Comeback>>>,
}

impl SimLnd {
    /// Opens the node in `dir`, or makes one there. Fails when another process has it open or its log is damaged.
    pub fn open(dir: &Path, options: &SimLndOptions) -> Result<Self, SimError> {
        let (sender, comebacks) = unbounded_channel();
        let engine = Arc::new(engine::Engine::open(dir, options, sender)?);
        Ok(Self {
            engine,
            dir: dir.to_owned(),
            comebacks: Mutex::new(Some(comebacks)),
        })
    }

    /// The directory with `tls.cert` and `admin.macaroon`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// In-process control.
    #[must_use]
    pub fn handle(&self) -> SimHandle {
        SimHandle::new(self.engine.clone())
    }
}
