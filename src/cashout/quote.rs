//! Making a promise: amount, fee, price and notes, or the reason why there is none.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::money::{Minor, Msat, Rate};

/// The operator's fee, paid by the customer on top of the notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fee {
    /// Hundredths of a percent of the amount, rounded up to a minor unit.
    pub basis_points: u32,
    /// Added to it, in minor units.
    pub fixed: Minor,
}

impl Fee {
    /// The fee on `amount`; `None` on overflow.
    #[must_use]
    pub fn on(&self, amount: Minor) -> Option<Minor> {
        let share = (u128::from(amount.0) * u128::from(self.basis_points)).div_ceil(10_000);
        Minor(u64::try_from(share).ok()?).checked_add(self.fixed)
    }
}

/// Why an ATM makes no promise. Shown to the customer and in the API.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuoteError {
    /// Below or above what the operator allows, in minor units.
    #[error("{amount} is outside the limits of this ATM: {min} to {max}")]
    OutOfLimits {
        /// What was asked.
        amount: Minor,
        /// The least.
        min: Minor,
        /// The most.
        max: Minor,
    },
    /// The cassettes can not make up the amount.
    #[error("the notes in this ATM can not make up {0} exactly")]
    NoMix(Minor),
    /// No valid price.
    #[error("there is no valid exchange rate for {0}")]
    NoRate(String),
    /// A number beyond every bound.
    #[error("the price of {0} can not be expressed")]
    Overflow(Minor),
}

/// Fee and price of `amount`: `amount + fee` at `rate`, rounded up to a whole satoshi.
///
/// # Errors
/// [`QuoteError::Overflow`] when a sum or the price can not be expressed.
pub fn price(amount: Minor, fee: &Fee, rate: &Rate) -> Result<(Minor, Msat), QuoteError> {
    let overflow = || QuoteError::Overflow(amount);
    let fee = fee.on(amount).ok_or_else(overflow)?;
    let total = amount.checked_add(fee).ok_or_else(overflow)?;
    let price = rate.price(total).ok_or_else(overflow)?;
    Ok((fee, price))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fee_is_rounded_up_and_part_of_the_price() {
        let rate = Rate {
            minor_per_btc: 10_000_000,
            currency: "EUR".parse().unwrap(),
        };
        let fee = Fee {
            basis_points: 333,
            fixed: Minor(50),
        };
        assert_eq!(price(Minor(6_000), &fee, &rate), Ok((Minor(250), Msat(62_500_000))));
        assert_eq!(
            price(Minor(u64::MAX), &fee, &rate),
            Err(QuoteError::Overflow(Minor(u64::MAX)))
        );
    }
}
