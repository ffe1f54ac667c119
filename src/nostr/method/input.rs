//! What the methods take, checked field by field.
//!
//! Called by `Call::read`. Bounds: LND's own (memo, expiry, cltv_expiry), and all bitcoin there will be. A service may
//! hold its callers to less. Source: lnd v0.21.2-beta, errors of AddHoldInvoice.

use crate::ids::{PaymentHash, Preimage};
use crate::nostr::field::{self, BadField, Object};

/// 21 million bitcoin in satoshi: exact even as a JavaScript number, and as millisatoshi in 64 bits.
pub const AMOUNT_SATS_MAX: u64 = 2_100_000_000_000_000;
/// LND takes no longer memo.
pub const MEMO_BYTES: usize = 1024;
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
