//! The Lightning node: the [`Lightning`] trait and the types that cross it.
//!
//! Owns the domain's view of a hold invoice at LND. Called by the LND actor only.
//! Source: lnd v0.21.2-beta, `lnrpc/invoicesrpc/invoices.proto`, `lnrpc/lightning.proto`.

pub mod backoff;
mod classify;
mod client;
mod convert;
mod credentials;
mod endpoint;
mod funds;
mod link;
mod macaroon;
pub mod permissions;
mod request;
mod survey;
mod tls;
pub mod verdict;
pub mod version;
pub mod window;

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{PaymentHash, Preimage};
use crate::money::Msat;
use crate::time::UnixMs;

pub use classify::classify;
pub use client::LndClient;
pub use endpoint::{EndpointError, LndConfig, LndLocation};

/// What to ask LND for. `AddHoldInvoiceRequest` in `invoices.proto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldInvoiceRequest {
    /// The hash whose preimage settles it.
    pub hash: PaymentHash,
    /// The amount; never zero (LND takes zero for "any amount").
    pub amount: Msat,
    /// Text in the customer's wallet, at most 639 bytes so that it fits BOLT11.
    pub memo: String,
    /// How long it can be paid; whole seconds, at least one.
    pub expiry: Duration,
    /// Final CLTV delta in blocks: 24 to 65535.
    pub cltv_expiry: u16,
    /// Add route hints for private channels.
    pub private_route_hints: bool,
}

/// State of an invoice at LND. `lnrpc.Invoice.InvoiceState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceState {
    /// Payable; nothing or only part of it was paid.
    Open,
    /// Paid in full and held.
    Accepted,
    /// Settled in LND's database.
    Settled,
    /// Canceled; every HTLC was failed back.
    Canceled,
    /// A number this version does not know. Never taken for any of the above.
    Unknown(i32),
}

/// An invoice as LND sees it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceSnapshot {
    /// Identifies it.
    pub hash: PaymentHash,
    /// Its state.
    pub state: InvoiceState,
    /// What was asked.
    pub amount: Msat,
    /// What came: accepted HTLCs while held, settled ones afterwards. May exceed `amount`.
    pub paid: Msat,
    /// The BOLT11 text.
    pub payment_request: String,
    /// The lowest `expiry_height` among the HTLCs in state ACCEPTED, if there is one.
    pub lowest_expiry_height: Option<u32>,
}

/// What [`Lightning::commit`] found: enough to decide whether a dispense may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// The invoice, read just now; `None` when there is none, or the hold can not be kept for a dispense any more.
    pub held: Option<InvoiceSnapshot>,
    /// The best height of a node that is in sync with the chain, read just now. Without meaning when nothing is held.
    pub height: u32,
    /// Until then a node far away keeps the hold, by this machine's clock; `None`: it has no deadline of its own.
    pub kept_until: Option<UnixMs>,
}

impl Commitment {
    /// Of what LND just told.
    ///
    /// # Errors
    /// When it is out of sync: its height is not the chain's then, and no window can be told from it.
    pub fn of(held: Option<InvoiceSnapshot>, info: &NodeInfo) -> Result<Self, LnError> {
        match info.synced_to_chain {
            true => Ok(Self {
                held,
                height: info.block_height,
                kept_until: None,
            }),
            false => Err(LnError {
                call: "GetInfo",
                kind: LnErrorKind::NotReady,
                message: "LND is not in sync with the chain".to_owned(),
            }),
        }
    }
}

/// Names an HTLC that came in over a channel of the node's, as `LookupHtlcResolution` wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HtlcKey {
    /// The channel's short id in LND's channel state: the alias for a zero-conf channel, also once it is confirmed.
    pub chan_id: u64,
    /// The HTLC's number in that channel.
    pub htlc_index: u64,
}

/// What became of the HTLCs of a settled invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FundsSeen {
    /// These are not at their end; none is named by a node far away.
    Pending(Vec<HtlcKey>),
    /// All ended with the money here.
    Final,
    /// At least one ended without.
    Lost,
    /// The node does not tell, and will not: why.
    NotFollowed(String),
}

/// What the node says of itself. `GetInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Identity key, hex.
    pub pubkey: String,
    /// Alias.
    pub alias: String,
    /// LND's version text.
    pub version: String,
    /// `mainnet`, `testnet`, `regtest`, `simnet`, `signet`.
    pub network: String,
    /// Best block height.
    pub block_height: u32,
    /// In sync with the chain.
    pub synced_to_chain: bool,
    /// It remembers what finally became of each HTLC (`--store-final-htlc-resolutions`), so that a settlement can be
    /// followed until the money has arrived.
    pub stores_resolutions: bool,
    /// Blocks before an HTLC's expiry at which it cancels a hold by itself (`invoices.holdexpirydelta`); `None` when that
    /// can not be read.
    pub hold_expiry_delta: Option<u32>,
    /// Why no invoice is to be added there now, when there is a reason of its own; existing ones go on.
    pub no_new: Option<String>,
}

/// How far LND has started. `lnrpc.State`. Ordered: later variants can do more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// Waiting, no wallet, or a number this version does not know.
    NotStarted,
    /// The wallet is locked.
    Locked,
    /// Unlocked, RPC not yet active.
    Unlocked,
    /// Calls are taken: settling and canceling are possible, adding is not yet safe.
    RpcActive,
    /// Fully started.
    ServerActive,
}

/// What an error means for the caller, from the table of answers by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LnErrorKind {
    /// The connection failed; nothing is known of the call's effect.
    Unreachable,
    /// No answer within the deadline; nothing is known of the call's effect.
    Timeout,
    /// LND is starting or its wallet is locked: try again later.
    NotReady,
    /// The macaroon lacks the right or is not valid.
    Denied,
    /// An invoice with this hash exists.
    AlreadyExists,
    /// Not yet paid in full: it can not be settled.
    StillOpen,
    /// Canceled: it can not be settled any more.
    AlreadyCanceled,
    /// Settled: it can not be canceled any more.
    AlreadySettled,
    /// No such invoice.
    NotFound,
    /// LND does not store what finally becomes of HTLCs.
    NotStored,
    /// LND refuses the request itself; repeating it will not help.
    Invalid,
    /// Anything else. Repeat with back-off, and tell the operator.
    Other,
}

impl LnErrorKind {
    /// A short fixed word for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::NotReady => "not_ready",
            Self::Denied => "denied",
            Self::AlreadyExists => "already_exists",
            Self::StillOpen => "still_open",
            Self::AlreadyCanceled => "already_canceled",
            Self::AlreadySettled => "already_settled",
            Self::NotFound => "not_found",
            Self::NotStored => "not_stored",
            Self::Invalid => "invalid",
            Self::Other => "other",
        }
    }
}

/// A failed call to the node.
#[derive(Debug, Clone, Error)]
#[error("{call}: {message}")]
pub struct LnError {
    /// The call's name, as in the proto.
    pub call: &'static str,
    /// What it means.
    pub kind: LnErrorKind,
    /// The node's or the transport's own words.
    pub message: String,
}

/// A stream of updates. Its end is never an answer: look the invoice up.
pub type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, LnError>> + Send>>;

/// A node that can hold payments: an LND, or a service that has one. Every call has a deadline of its own and may be repeated:
/// `settle` of a settled and `cancel` of a canceled invoice answer `Ok`.
#[async_trait]
pub trait Lightning: Send + Sync {
    /// How far the node has started.
    async fn state(&self) -> Result<NodeState, LnError>;

    /// Identity, height and sync.
    async fn info(&self) -> Result<NodeInfo, LnError>;

    /// Adds a hold invoice; returns its BOLT11 text.
    async fn add_hold_invoice(&self, request: &HoldInvoiceRequest) -> Result<String, LnError>;

    /// Settles the held invoice of `preimage`.
    async fn settle(&self, preimage: &Preimage) -> Result<(), LnError>;

    /// Cancels: every held HTLC goes back to the customer.
    async fn cancel(&self, hash: &PaymentHash) -> Result<(), LnError>;

    /// The invoice's state now; `None` when the node does not know the hash.
    async fn lookup(&self, hash: &PaymentHash) -> Result<Option<InvoiceSnapshot>, LnError>;

    /// "A dispense is about to start": reads hold and height anew. A node far away also records the commitment, durably
    /// and before it answers, so that it does not end the hold by itself in the second in which the cash comes out.
    /// An error means that nothing is known: do not dispense, ask again.
    /// Of `held`, a node far away does not repeat `amount`: there it is what was paid.
    async fn commit(&self, hash: &PaymentHash) -> Result<Commitment, LnError>;

    /// Whether looking up, settling and canceling are allowed. Found out without touching any invoice, and before a
    /// customer's money depends on it.
    ///
    /// # Errors
    /// [`LnErrorKind::Denied`] with what to do about it. Other troubles show at the calls themselves.
    async fn rights(&self) -> Result<(), LnError>;

    /// Whether what finally becomes of HTLCs may be asked: only then a settlement can be followed.
    ///
    /// # Errors
    /// [`LnErrorKind::Denied`] or [`LnErrorKind::NotStored`] with what to do about it; others say nothing about it.
    async fn follows(&self) -> Result<(), LnError>;

    /// What became of the HTLCs of a settled invoice.
    ///
    /// # Errors
    /// Nothing is known then: ask again.
    async fn funds(&self, hash: &PaymentHash) -> Result<FundsSeen, LnError>;

    /// HTLCs that are at their end just now, settled or not. Only makes the next question come sooner: none is repeated.
    async fn finals(&self) -> Result<Updates<HtlcKey>, LnError>;

    /// How often a connected node is to be asked how it fares.
    fn pace(&self) -> Duration;

    /// The invoice's state now and each change of it.
    async fn watch(&self, hash: &PaymentHash) -> Result<Updates<InvoiceSnapshot>, LnError>;

    /// The best height now and each new one.
    async fn blocks(&self) -> Result<Updates<u32>, LnError>;
}
