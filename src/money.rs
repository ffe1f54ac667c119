//! Amounts: integers in their smallest unit, never floating point.
//!
//! Fiat is counted in minor units (cents), Lightning in millisatoshi. Arithmetic is checked:
//! an overflow is an error or `None`, never a wrapped amount. Also the word for whether settled money is there: both
//! machines, the node's client and the API need it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Millisatoshi in one bitcoin.
pub const MSAT_PER_BTC: u64 = 100_000_000_000;

/// An amount of fiat money in minor units (cents) of the ATM's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Minor(pub u64);

impl Minor {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// `self + other`, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self - other`, or zero when `other` is larger.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self * notes`, or `None` on overflow: the value of `notes` notes of this denomination.
    #[must_use]
    pub fn times(self, notes: u32) -> Option<Self> {
        self.0.checked_mul(u64::from(notes)).map(Self)
    }
}

impl std::iter::Sum for Minor {
    /// Saturating: a sum of counted notes can not reach the bound.
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |a, b| Self(a.0.saturating_add(b.0)))
    }
}

/// Whether the money of a settled invoice has arrived. A node's "settled" is only its database: the HTLC may still have to
/// be fulfilled with a peer that is offline, or claimed on chain, or may have timed out there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Funds {
    /// Nobody follows it: the node did not store what finally becomes of HTLCs, or the record is an older one.
    #[default]
    NotFollowed,
    /// Settled, and not every HTLC is at its end.
    Pending,
    /// Every HTLC ended with the money here.
    Final,
    /// An HTLC ended without: the money never comes.
    Lost,
}

impl Funds {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFollowed => "not_followed",
            Self::Pending => "pending",
            Self::Final => "final",
            Self::Lost => "lost",
        }
    }

    /// As in every record from before settlements were followed.
    #[must_use]
    pub fn is_not_followed(&self) -> bool {
        *self == Self::NotFollowed
    }
}

/// A text that is not an amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadAmount {
    /// Not digits with at most two decimals.
    #[error("`{0}` is not an amount with at most two decimals, such as \"20.00\"")]
    NotDecimal(String),
    /// Beyond the largest amount.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

impl FromStr for Minor {
    type Err = BadAmount;

    /// Whole units or a decimal: `60` and `60.00` are 6000 minor units.
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(units) || !digits(decimals) || decimals.len() > 2 {
            return Err(BadAmount::NotDecimal(text.to_owned()));
        }
        let joined = format!("{units}{decimals:0<2}");
        let minor = joined.parse().map_err(|_| BadAmount::TooLarge(text.to_owned()))?;
        Ok(Self(minor))
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// An amount of bitcoin in millisatoshi.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Msat(pub u64);

impl Msat {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Whole satoshi, rounded down.
    #[must_use]
    pub fn sat_floor(self) -> u64 {
        self.0 / 1000
    }

    /// Whole satoshi, rounded up: for what is not to exceed a limit.
    #[must_use]
    pub fn sat_ceil(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// The smallest whole-satoshi amount that is at least this one; `None` on overflow.
    #[must_use]
    pub fn ceil_to_sat(self) -> Option<Self> {
        self.0.div_ceil(1000).checked_mul(1000).map(Self)
    }

    /// `self + other`, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self - other`, or zero when `other` is larger.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This amount times `part / whole`, rounded down; zero when `whole` is zero.
    #[must_use]
    pub fn share(self, part: Minor, whole: Minor) -> Self {
        if whole.0 == 0 {
            return Self::ZERO;
        }
        let share = u128::from(self.0) * u128::from(part.0) / u128::from(whole.0);
        Self(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

impl std::iter::Sum for Msat {
    /// Saturating: no sum of real amounts reaches the bound (21 million BTC fit 8 times).
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |a, b| Self(a.0.saturating_add(b.0)))
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{} sat", self.0 / 1000)
        } else {
            write!(f, "{}.{:03} sat", self.0 / 1000, self.0 % 1000)
        }
    }
}

/// A currency by its ISO 4217 code. Only currencies with two decimals are supported.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// A currency code that is not three capital letters.
#[derive(Debug, Error)]
#[error("`{0}` is not a currency code: three capital letters (ISO 4217) expected, as in EUR")]
pub struct BadCurrency(String);

impl FromStr for Currency {
    type Err = BadCurrency;

    fn from_str(text: &str) -> Result<Self, BadCurrency> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(BadCurrency(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = BadCurrency;

    fn try_from(text: String) -> Result<Self, BadCurrency> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.to_string()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("???"))
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A price: minor units of fiat for one whole bitcoin, and when it was valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Minor units (cents) per bitcoin. Never zero in a valid configuration.
    pub minor_per_btc: u64,
    /// The currency of the minor units.
    pub currency: Currency,
}

impl Rate {
    /// What `amount` of fiat costs, rounded up to a whole satoshi; `None` on overflow or a zero rate.
    #[must_use]
    pub fn price(&self, amount: Minor) -> Option<Msat> {
        if self.minor_per_btc == 0 {
            return None;
        }
        let msat = (u128::from(amount.0) * u128::from(MSAT_PER_BTC)).div_ceil(u128::from(self.minor_per_btc));
        Msat(u64::try_from(msat).ok()?).ceil_to_sat()
    }
}

/// The source of the price. A fixed one is configured; live sources implement the same trait.
pub trait RateSource: Send + Sync {
    /// The current rate for `currency`, or `None` when there is no valid one: then no quote is made.
    fn rate(&self, currency: Currency) -> Option<Rate>;
}

/// A price fixed in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct FixedRate(pub Rate);

impl RateSource for FixedRate {
    fn rate(&self, currency: Currency) -> Option<Rate> {
        (self.0.currency == currency).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(minor_per_btc: u64) -> Rate {
        Rate {
            minor_per_btc,
            currency: "EUR".parse().expect("code"),
        }
    }

    #[test]
    fn price_rounds_up_to_a_whole_satoshi() {
        assert_eq!(rate(10_000_000).price(Minor(6_000)), Some(Msat(60_000_000)));
        assert_eq!(rate(9_876_543).price(Minor(1)), Some(Msat(11_000)));
        assert_eq!(rate(0).price(Minor(1)), None);
        assert_eq!(rate(1).price(Minor(u64::MAX)), None);
    }

    #[test]
    fn share_is_exact_at_the_ends_and_rounds_down_between() {
        let whole = Minor(6_000);
        assert_eq!(Msat(1_000).share(whole, whole), Msat(1_000));
        assert_eq!(Msat(1_000).share(Minor::ZERO, whole), Msat::ZERO);
        assert_eq!(Msat(1_000).share(Minor(4_001), whole), Msat(666));
        assert_eq!(Msat(1_000).share(whole, Minor::ZERO), Msat::ZERO);
    }

    #[test]
    fn amounts_read_back_as_they_are_printed() {
        for minor in [Minor::ZERO, Minor(7), Minor(6_000), Minor(u64::MAX)] {
            assert_eq!(minor.to_string().parse(), Ok(minor));
        }
        assert_eq!("60".parse(), Ok(Minor(6_000)));
        assert_eq!("1.5".parse(), Ok(Minor(150)));
        for bad in [
            "",
            "1.",
            ".5",
            "-1",
            "1e3",
            "1.005",
            "184467440737095516.16",
            "1,50",
            " 1",
        ] {
            assert!(bad.parse::<Minor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn currency_must_be_three_capitals() {
        assert!("EUR".parse::<Currency>().is_ok());
        for bad in ["eur", "EURO", "", "E1R", "ÄÖ"] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
    }
}
