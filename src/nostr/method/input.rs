//! What the methods take, checked field by field.
//!
//! Called by `Call::read`. Bounds: LND's own (memo, expiry, cltv_expiry), and all bitcoin there will be. A service may
//! hold its callers to less. Source: lnd v0.21.2-beta, errors of AddHoldInvoice.

use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::api::SiteReport;
use crate::ids::{PaymentHash, Preimage, TokenHash};
use crate::nostr::field::{self, BadField, Object};

/// 21 million bitcoin in satoshi: exact even as a JavaScript number, and as millisatoshi in 64 bits.
pub const AMOUNT_SATS_MAX: u64 = 2_100_000_000_000_000;
/// BOLT11 takes no longer description (LND's own bound, 1024 bytes, is that of its database).
pub const MEMO_BYTES: usize = 639;
/// How long an invoice can be paid when its caller does not say.
pub const EXPIRY_SECONDS: u32 = 600;
/// LND takes no longer expiry: a year.
pub const EXPIRY_SECONDS_MAX: u32 = 31_536_000;
/// LND takes no smaller final CLTV delta.
pub const CLTV_EXPIRY_MIN: u16 = 24;

/// Asks for a hold invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateHoldInvoice {
    /// The hash whose preimage settles it.
    pub hash: PaymentHash,
    /// What the customer pays, in satoshi.
    pub amount_sats: u64,
    /// Text in the customer's wallet.
    pub memo: String,
    /// How long it can be paid.
    pub expiry_seconds: u32,
    /// Final CLTV delta in blocks; the service's own when missing.
    pub cltv_expiry: Option<u16>,
}

impl CreateHoldInvoice {
    pub(super) fn read(object: &Object) -> Result<Self, BadField> {
        field::refuse_unknown(object, &["hash", "amount_sats", "memo", "expiry", "cltv_expiry"])?;
        let hash = PaymentHash(field::hex32(object, "hash")?);
        let amount_sats = field::whole(object, "amount_sats", 1..=AMOUNT_SATS_MAX)?;
        let memo = field::text(object, "memo", MEMO_BYTES)?.to_owned();
        let expiry = field::optional_whole(object, "expiry", 1..=EXPIRY_SECONDS_MAX.into())?;
        let cltv = field::optional_whole(object, "cltv_expiry", CLTV_EXPIRY_MIN.into()..=u16::MAX.into())?;
        Ok(Self {
            hash,
            amount_sats,
            memo,
            expiry_seconds: expiry.and_then(|s| u32::try_from(s).ok()).unwrap_or(EXPIRY_SECONDS),
            cltv_expiry: cltv.and_then(|blocks| u16::try_from(blocks).ok()),
        })
    }

    pub(super) fn fields(&self) -> Object {
        let mut object = Object::from_iter([
            ("hash".to_owned(), self.hash.to_string().into()),
            ("amount_sats".to_owned(), self.amount_sats.into()),
            ("memo".to_owned(), self.memo.clone().into()),
            ("expiry".to_owned(), self.expiry_seconds.into()),
        ]);
        if let Some(blocks) = self.cltv_expiry {
            object.insert("cltv_expiry".into(), blocks.into());
        }
        object
    }
}

/// The input of methods that take a hash and nothing else.
pub(super) fn hash_only(object: &Object) -> Result<PaymentHash, BadField> {
    field::refuse_unknown(object, &["hash"])?;
    field::hex32(object, "hash").map(PaymentHash)
}

/// The input of settleHoldInvoice.
pub(super) fn preimage_only(object: &Object) -> Result<Preimage, BadField> {
    field::refuse_unknown(object, &["preimage"])?;
    field::hex32(object, "preimage").map(Preimage::from_bytes)
}

/// The secret of an invitation, for one use. Redacted in `Debug`, wiped on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PairingToken(String);

impl fmt::Debug for PairingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingToken(redacted)")
    }
}

impl PairingToken {
    /// 32 bytes of a cryptographic random source.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    /// Reads 64 hexadecimal digits; `None` when it is something else.
    #[must_use]
    pub fn read_text(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self::from_bytes(bytes))
    }

    /// The secret text, 64 hexadecimal digits.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it: the sha256 of the text, in lower case.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }

    pub(super) fn read(object: &Object) -> Result<Self, BadField> {
        field::refuse_unknown(object, &["token"])?;
        field::hex32(object, "token").map(Self::from_bytes)
    }
}

/// The input of reportSite.
pub(super) fn report(object: &Object) -> Result<SiteReport, BadField> {
    field::refuse_unknown(object, &["report"])?;
    field::typed(object, "report", "a site's report, see docs/NOSTR_RPC.md")
}

pub(super) fn report_fields(report: &SiteReport) -> Object {
    let report = serde_json::to_value(report).unwrap_or(Value::Null);
    Object::from_iter([("report".to_owned(), report)])
}
