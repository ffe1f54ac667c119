//! What the methods give: written by the service, read by its client.
//!
//! What must stay true: no field has one of the names that surround a result; a client ignores fields that it does not
//! know, so that results can grow, but never guesses one that it needs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clients::Limits;
use crate::ids::PaymentHash;
use crate::money::Funds;
use crate::nostr::field::{self, BadField, Object};

use super::input::AMOUNT_SATS_MAX;

/// BOLT11 with many route hints stays below this.
const INVOICE_BYTES: usize = 16 * 1024;
/// Of a name or a sentence.
const WORDS_BYTES: usize = 4 * 1024;
/// Unix seconds that fit the daemon's milliseconds and a signed 64-bit number.
const UNIX_MAX: u64 = u64::MAX / 2_000;

/// Where a hold invoice stands, in LND's words. Committed is still [`HoldState::Accepted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HoldState {
    /// Payable.
    Open,
    /// Paid in full and held.
    Accepted,
    /// The money is taken.
    Settled,
    /// The customer has it back, or never paid.
    Canceled,
}

impl HoldState {
    fn read(object: &Object) -> Result<Self, BadField> {
        match field::text(object, "state", 16)? {
            "OPEN" => Ok(Self::Open),
            "ACCEPTED" => Ok(Self::Accepted),
            "SETTLED" => Ok(Self::Settled),
            "CANCELED" => Ok(Self::Canceled),
            _ => Err(BadField::new("state", "must be OPEN, ACCEPTED, SETTLED or CANCELED")),
        }
    }
}

/// A service that does not tell has done what it says.
fn done(object: &Object) -> Result<bool, BadField> {
    let said =
        field::value(object, "done").map(|done| done.as_bool().ok_or(BadField::new("done", "must be true or false")));
    let ended = matches!(HoldState::read(object)?, HoldState::Settled | HoldState::Canceled);
    Ok(said.transpose()?.unwrap_or(ended))
}

fn hash_of(object: &Object) -> Result<PaymentHash, BadField> {
    field::hex32(object, "payment_hash").map(PaymentHash)
}

fn unix(object: &Object, name: &str) -> Result<u64, BadField> {
    field::whole(object, name, 0..=UNIX_MAX)
}

fn height(object: &Object, name: &str) -> Result<u32, BadField> {
    let height = field::whole(object, name, 0..=u32::MAX.into())?;
    Ok(u32::try_from(height).unwrap_or(u32::MAX))
}

fn optional_height(object: &Object, name: &str) -> Result<Option<u32>, BadField> {
    field::value(object, name).map(|_| height(object, name)).transpose()
}

fn funds(object: &Object) -> Result<Option<Funds>, BadField> {
    let typed = |_: &Value| field::typed(object, "funds", "not_followed, pending, final or lost");
    field::value(object, "funds").map(typed).transpose()
}

/// More than was asked may come.
fn paid(object: &Object) -> Result<u64, BadField> {
    field::whole(object, "amount_paid_sats", 0..=2 * AMOUNT_SATS_MAX)
}

fn optional_unix(object: &Object, name: &str) -> Result<Option<u64>, BadField> {
    field::optional_whole(object, name, 0..=UNIX_MAX)
}

/// The result of createHoldInvoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreatedInvoice {
    /// BOLT11.
    pub invoice: String,
    /// Identifies it.
    pub payment_hash: PaymentHash,
    /// From then on it can not be paid.
    pub expires_at_unix: u64,
    /// So long after it was paid an uncommitted hold is canceled.
    pub hold_deadline_seconds: u64,
}

impl CreatedInvoice {
    /// Reads it out of a reply.
    pub fn read(object: &Object) -> Result<Self, BadField> {
        Ok(Self {
            invoice: field::text(object, "invoice", INVOICE_BYTES)?.to_owned(),
            payment_hash: hash_of(object)?,
            expires_at_unix: unix(object, "expires_at_unix")?,
            hold_deadline_seconds: unix(object, "hold_deadline_seconds")?,
        })
    }
}

/// The result of commitHoldInvoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommittedInvoice {
    /// Identifies it.
    pub payment_hash: PaymentHash,
    /// ACCEPTED, or where it went since when the call is repeated.
    pub state: HoldState,
    /// From then on the service acts by its policy.
    pub commit_deadline_unix: u64,
    /// Blocks before LND cancels by itself; not positive when it should have.
    pub blocks_left: i64,
    /// What is held.
    pub amount_paid_sats: u64,
    /// The lowest expiry height among the held HTLCs.
    pub htlc_expiry_height: u32,
    /// The node's height, which `blocks_left` counts from.
    pub block_height: u32,
}

impl CommittedInvoice {
    /// Reads it out of a reply.
    pub fn read(object: &Object) -> Result<Self, BadField> {
        Ok(Self {
            payment_hash: hash_of(object)?,
            state: HoldState::read(object)?,
            commit_deadline_unix: unix(object, "commit_deadline_unix")?,
            blocks_left: field::signed(object, "blocks_left")?,
            amount_paid_sats: paid(object)?,
            htlc_expiry_height: height(object, "htlc_expiry_height")?,
            block_height: height(object, "block_height")?,
        })
    }
}

/// The result of settleHoldInvoice and cancelHoldInvoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvoiceStanding {
    /// Identifies it.
    pub payment_hash: PaymentHash,
    /// Where it stands by now. A settlement that is ordered but not done is still ACCEPTED.
    pub state: HoldState,
    /// The node has done it: nothing will change any more.
    pub done: bool,
}

impl InvoiceStanding {
    /// Reads it out of a reply.
    pub fn read(object: &Object) -> Result<Self, BadField> {
        Ok(Self {
            payment_hash: hash_of(object)?,
            state: HoldState::read(object)?,
            done: done(object)?,
        })
    }
}

/// The result of getHoldInvoice, and what subscribeHoldInvoices pushes. What is not known yet is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldInvoice {
    /// Identifies it.
    pub payment_hash: PaymentHash,
    /// Where it stands. A hold that is about to be canceled is CANCELED already: nobody is to rely on it.
    pub state: HoldState,
    /// The node has done it: nothing will change any more.
    pub done: bool,
    /// BOLT11, once LND has it: whoever lost the answer to createHoldInvoice finds it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoice: Option<String>,
    /// What was asked.
    pub amount_sats: u64,
    /// What came.
    pub amount_paid_sats: u64,
    /// When it was paid in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_at_unix: Option<u64>,
    /// When the money was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_at_unix: Option<u64>,
    /// Whether the money is there, once it was taken; not told by every service. May change after `done`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub funds: Option<Funds>,
    /// The lowest expiry height among the held HTLCs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub htlc_expiry_height: Option<u32>,
    /// Blocks before LND cancels by itself; not positive when it should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks_left: Option<i64>,
    /// When an uncommitted hold is canceled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_deadline_unix: Option<u64>,
}

impl HoldInvoice {
    /// Reads it out of a reply or a push.
    pub fn read(object: &Object) -> Result<Self, BadField> {
        let blocks_left = field::value(object, "blocks_left").map(|_: &Value| field::signed(object, "blocks_left"));
        Ok(Self {
            payment_hash: hash_of(object)?,
            state: HoldState::read(object)?,
            done: done(object)?,
            invoice: field::optional_text(object, "invoice", INVOICE_BYTES)?.map(str::to_owned),
            amount_sats: field::whole(object, "amount_sats", 1..=AMOUNT_SATS_MAX)?,
            amount_paid_sats: paid(object)?,
            accepted_at_unix: optional_unix(object, "accepted_at_unix")?,
            settled_at_unix: optional_unix(object, "settled_at_unix")?,
            funds: funds(object)?,
            htlc_expiry_height: optional_height(object, "htlc_expiry_height")?,
            blocks_left: blocks_left.transpose()?,
            hold_deadline_unix: optional_unix(object, "hold_deadline_unix")?,
        })
    }
}

/// The result of getServiceInfo. A client refuses to work with a service whose answer lacks a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceInfo {
    /// The service's name for people.
    pub name: String,
    /// Its program and version.
    pub version: String,
    /// The node's identity key, hex.
    pub node_pubkey: String,
    /// The node's network: `mainnet`, `testnet`, `regtest`, `simnet`, `signet`.
    pub network: String,
    /// The node's best height.
    pub block_height: u32,
    /// Existing invoices can be looked up, settled and canceled.
    pub node_up: bool,
    /// Invoices can be added too.
    pub can_create: bool,
    /// Why not, when one of them is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// LND cancels a hold by itself this many blocks before its HTLC expires.
    pub hold_expiry_delta: u32,
    /// No commit with fewer blocks left than this.
    pub min_blocks_left: u32,
    /// A committed hold is canceled with fewer blocks left than this; not told by every service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_blocks_left: Option<u32>,
    /// Settled invoices are followed until the money is there; not told by every service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows_funds: Option<bool>,
    /// The final CLTV delta of invoices whose caller names none.
    pub cltv_expiry: u16,
    /// So long after it was paid an uncommitted hold is canceled.
    pub hold_deadline_seconds: u64,
    /// So long after its commit a hold is canceled that was neither settled nor canceled.
    pub commit_deadline_seconds: u64,
    /// The service's clock.
    pub now_unix: u64,
    /// The caller's name at the service.
    pub client: String,
    /// What the caller may do.
    pub limits: Limits,
}

impl ServiceInfo {
    /// Reads it out of a reply.
    pub fn read(object: &Object) -> Result<Self, BadField> {
        let words = |name: &str| field::text(object, name, WORDS_BYTES).map(str::to_owned);
        let yes_or_no = |name: &str| field::typed(object, name, "true or false");
        let cltv_expiry = field::whole(object, "cltv_expiry", 0..=u16::MAX.into())?;
        Ok(Self {
            name: words("name")?,
            version: words("version")?,
            node_pubkey: words("node_pubkey")?,
            network: words("network")?,
            block_height: height(object, "block_height")?,
            node_up: yes_or_no("node_up")?,
            can_create: yes_or_no("can_create")?,
            trouble: field::optional_text(object, "trouble", WORDS_BYTES)?.map(str::to_owned),
            hold_expiry_delta: height(object, "hold_expiry_delta")?,
            min_blocks_left: height(object, "min_blocks_left")?,
            force_blocks_left: optional_height(object, "force_blocks_left")?,
            follows_funds: field::value(object, "follows_funds")
                .map(|_: &Value| yes_or_no("follows_funds"))
                .transpose()?,
            cltv_expiry: u16::try_from(cltv_expiry).unwrap_or(u16::MAX),
            hold_deadline_seconds: unix(object, "hold_deadline_seconds")?,
            commit_deadline_seconds: unix(object, "commit_deadline_seconds")?,
            now_unix: unix(object, "now_unix")?,
            client: words("client")?,
            limits: field::typed(object, "limits", "a client's limits")?,
        })
    }
}

/// The result of enrollClient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The name that the service knows the caller's key by from now on.
    pub client: String,
}
