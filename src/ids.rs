//! Identifiers and secrets: ATM and cash-out ids, payment hashes, preimages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::time::UnixMs;

/// Text that is not a valid identifier.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadId {
    /// An ATM id outside `[a-z0-9-]{1,32}`.
    #[error("`{0}` is not an ATM id: 1 to 32 characters a-z, 0-9 and - expected")]
    Atm(String),
    /// A cash-out id that is not 16 Crockford base-32 digits.
    #[error("`{0}` is not a cash-out id: 16 characters of 0-9 and A-Z without I, L, O, U expected")]
    CashOut(String),
    /// A client's name outside `[a-z0-9-]{1,32}`.
    #[error("`{0}` is not a name: 1 to 32 characters a-z, 0-9 and - expected")]
    Name(String),
    /// A hash, key or preimage that is not 64 hex digits.
    #[error("`{0}` is not 64 hexadecimal digits")]
    Hex32(String),
}

/// The operator's name for an ATM, as in the configuration: `[a-z0-9-]{1,32}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AtmId(String);

impl AtmId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AtmId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if !is_name(text) {
            return Err(BadId::Atm(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// `[a-z0-9-]{1,32}`: fits a file name, a metric's label and a URL.
fn is_name(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(ok)
}

/// The operator's name for a client of the hold-invoice service, or for another operator: `[a-z0-9-]{1,32}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientName(String);

impl ClientName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if !is_name(text) {
            return Err(BadId::Name(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The digits of Crockford's base 32: no I, L, O, U, so an id can be read out over the phone.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Identifies one cash-out: 48 bits of Unix milliseconds, 32 random bits, as 16 Crockford digits.
/// Ids sort by creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CashOutId([u8; 16]);

impl CashOutId {
    /// An id made at `now` with `random` bits that must differ between cash-outs of one millisecond.
    #[must_use]
    pub fn new(now: UnixMs, random: u32) -> Self {
        let mut bits = (u128::from(now.0 & 0xFFFF_FFFF_FFFF) << 32) | u128::from(random);
        let mut digits = [b'0'; 16];
        for digit in digits.iter_mut().rev() {
            *digit = CROCKFORD[(bits & 31) as usize];
            bits >>= 5;
        }
        Self(digits)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("????????????????")
    }
}

impl FromStr for CashOutId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        match <[u8; 16]>::try_from(text.as_bytes()) {
            Ok(digits) if digits.iter().all(|d| CROCKFORD.contains(d)) => Ok(Self(digits)),
            _ => Err(BadId::CashOut(text.to_owned())),
        }
    }
}

/// Into a text and back, as JSON has it, by `FromStr` and `Display`.
macro_rules! as_text {
    ($id:ty) => {
        impl TryFrom<String> for $id {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.to_string()
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

macro_rules! text_id {
    ($id:ty) => {
        as_text!($id);

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
text_id!(AtmId);
text_id!(ClientName);
text_id!(CashOutId);

/// 64 digits. `hex::encode` gathers them one character at a time, which shows at thousands of ids in a second.
fn hex32(bytes: &[u8; 32], put: impl FnOnce(&str) -> fmt::Result) -> fmt::Result {
    let mut digits = [0; 64];
    hex::encode_to_slice(bytes, &mut digits).map_err(|_| fmt::Error)?;
    put(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
}

fn parse_hex32(text: &str) -> Result<[u8; 32], BadId> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| BadId::Hex32(text.chars().take(80).collect()))?;
    Ok(bytes)
}

macro_rules! hex32_id {
    ($(#[$doc:meta])* $id:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $id(pub [u8; 32]);

        impl FromStr for $id {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                parse_hex32(text).map(Self)
            }
        }

        as_text!($id);

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex32(&self.0, |digits| f.write_str(digits))
            }
        }
    };
}
hex32_id! {
    /// The sha256 of a preimage; identifies an invoice at LND.
    PaymentHash
}
hex32_id! {
    /// Somebody's public key on Nostr: the x-coordinate of a point of secp256k1 (NIP-01). Not checked to be one here.
    NostrKey
}
hex32_id! {
    /// The sha256 of an invitation's token: what is kept of it.
    TokenHash
}

/// The secret that settles an invoice: whoever knows it can take the held money.
/// Redacted in `Debug`, wiped from memory on drop; written only to the journal and to LND.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Preimage([u8; 32]);

impl Preimage {
    /// A preimage from 32 bytes of a cryptographic random source.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for LND only.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The payment hash this preimage settles.
    #[must_use]
    pub fn hash(&self) -> PaymentHash {
        PaymentHash(Sha256::digest(self.0).into())
    }
}

impl TryFrom<String> for Preimage {
    type Error = &'static str;

    fn try_from(mut text: String) -> Result<Self, &'static str> {
        let parsed = parse_hex32(&text)
            .map(Self)
            .map_err(|_| "a preimage is 64 hexadecimal digits");
        text.zeroize();
        parsed
    }
}

impl From<Preimage> for String {
    fn from(preimage: Preimage) -> Self {
        hex::encode(preimage.0)
    }
}

impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cash_out_ids_sort_by_time_and_read_back() {
        let early = CashOutId::new(UnixMs(1_700_000_000_000), u32::MAX);
        let late = CashOutId::new(UnixMs(1_700_000_000_001), 0);
        assert!(early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert!("0123456789ABCDEU".parse::<CashOutId>().is_err());
    }

    #[test]
    fn a_preimage_is_never_printed() {
        let preimage = Preimage::from_bytes([7; 32]);
        assert_eq!(format!("{preimage:?}"), "Preimage(redacted)");
        assert_eq!(
            preimage.hash().to_string(),
            "4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0"
        );
    }

    #[test]
    fn bad_ids_name_the_text() {
        assert_eq!("Lobby".parse::<AtmId>(), Err(BadId::Atm("Lobby".into())));
        assert!("".parse::<AtmId>().is_err());
        assert!("zz".parse::<PaymentHash>().is_err());
    }
}
