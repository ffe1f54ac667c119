//! The node's refusals, in LND's words. Fact sheet, section 3; texts marked † there or here are from memory.

use thiserror::Error;

/// A refused call. Every one is gRPC code Unknown, except a look-up of an unknown invoice.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Settle of an invoice not yet paid in full.
    #[error("invoice still open")]
    StillOpen,
    /// Settle of a canceled invoice.
    #[error("invoice already canceled")]
    AlreadyCanceled,
    /// Cancel of a settled invoice.
    #[error("invoice already settled")]
    AlreadySettled,
    /// Settle or cancel of an unknown invoice.
    #[error("unable to locate invoice")]
    NotLocated,
    /// Look-up of an unknown invoice: code NotFound.
    #[error("unable to locate invoice")]
    NotFound,
    /// LookupHtlcResolution without the store: code Unavailable.
    #[error("cannot lookup with flag --store-final-htlc-resolutions=false")]
    NotStored,
    /// A preimage that is not 32 bytes.
    #[error("invalid preimage length of {0}, want 32")]
    PreimageLength(usize),
    /// A hash that is not 32 bytes.
    #[error("invalid hash length of {0}, want 32")]
    HashLength(usize),
    /// † A hash to look up that is not 32 bytes.
    #[error("payment hash must be exactly 32 bytes, is instead {0}")]
    LookupHashLength(usize),
    /// Add with a known hash.
    #[error("invoice with payment hash already exists")]
    AlreadyExists,
    /// Add with a negative amount.
    #[error("amount cannot be negative")]
    NegativeAmount,
    /// Add with `value` and `value_msat`.
    #[error("sat and msat arguments are mutually exclusive")]
    BothAmounts,
    /// Add with `cltv_expiry` 1 to 23.
    #[error("CLTV delta of {0} must be greater than minimum of 24")]
    CltvTooLow(u64),
    /// † Add with `cltv_expiry` above 65535.
    #[error("CLTV delta of {0} is too large, max accepted is: 65535")]
    CltvTooHigh(u64),
    /// Add with an expiry of more than a year.
    #[error("expiry of {0}s greater than max expiry {1}s")]
    ExpiryTooLong(i64, i64),
    /// Add with a memo of more than 1024 bytes.
    #[error("memo too large: {0} bytes (maxsize=1024)")]
    MemoTooLarge(usize),
    /// † Add with a description hash that is neither empty nor 32 bytes.
    #[error("description hash is {0} bytes, must be 32")]
    DescriptionHashLength(usize),
    /// † The invoice can not be written as BOLT11.
    #[error("unable to encode invoice: {0}")]
    Encode(String),
}
