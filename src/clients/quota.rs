//! Whether a client may have one more invoice: its limits against what it has already.
//!
//! Pure. Called before a client's invoice is asked of LND. What must stay true: an invoice that was let through leaves
//! every sum within its limit; sums do not wrap.

use thiserror::Error;

use super::Limits;

/// What a client has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Its invoices that have not ended.
    pub open: u32,
    /// Their sum. An invoice that is not paid yet counts as held: it may be in the next second.
    pub held_sats: u64,
    /// What it has settled today (UTC), and everything that has not ended.
    pub day_sats: u64,
}

/// The limit that an invoice would be above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OverLimit {
    /// It is too large by itself.
    #[error("amount_sats is above max_amount_sats = {limit}")]
    Amount {
        /// `max_amount_sats`
        limit: u64,
    },
    /// There are too many.
    #[error("{used} invoices are open, and max_open = {limit}: settle or cancel some first")]
    Open {
        /// `max_open`
        limit: u32,
        /// Open now.
        used: u32,
    },
    /// Together with those that are open it is too much.
    #[error("{used} sats are held or asked for, and max_held_sats = {limit}: settle or cancel some first")]
    Held {
        /// `max_held_sats`
        limit: u64,
        /// Held or payable now.
        used: u64,
    },
    /// It is too much for one day.
    #[error("{used} sats were taken today, are held or asked for, and sats_per_day = {limit}")]
    Day {
        /// `sats_per_day`
        limit: u64,
        /// Of it so far.
        used: u64,
    },
}

/// Whether one more invoice over `amount_sats` is within `limits`.
///
/// # Errors
/// The first limit that it would be above.
pub fn check(limits: &Limits, usage: &Usage, amount_sats: u64) -> Result<(), OverLimit> {
    let fits = |used: u64, limit: u64| used.checked_add(amount_sats).is_some_and(|sum| sum <= limit);
    if amount_sats > limits.max_amount_sats {
        let limit = limits.max_amount_sats;
        return Err(OverLimit::Amount { limit });
    }
    if usage.open >= limits.max_open {
        let (limit, used) = (limits.max_open, usage.open);
        return Err(OverLimit::Open { limit, used });
    }
    if !fits(usage.held_sats, limits.max_held_sats) {
        let (limit, used) = (limits.max_held_sats, usage.held_sats);
        return Err(OverLimit::Held { limit, used });
    }
    if !fits(usage.day_sats, limits.sats_per_day) {
        let (limit, used) = (limits.sats_per_day, usage.day_sats);
        return Err(OverLimit::Day { limit, used });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        max_amount_sats: 100,
        max_held_sats: 250,
        max_open: 3,
        requests_per_minute: 1,
        sats_per_day: 400,
    };

    fn told(open: u32, held_sats: u64, day_sats: u64, amount_sats: u64) -> String {
        let usage = Usage {
            open,
            held_sats,
            day_sats,
        };
        check(&LIMITS, &usage, amount_sats).map_or_else(|over| over.to_string(), |()| String::new())
    }

    #[test]
    fn each_limit_is_told_with_its_value_and_what_is_used() {
        assert_eq!(told(2, 150, 300, 100), "", "every limit may be reached");
        assert_eq!(told(0, 0, 0, 101), "amount_sats is above max_amount_sats = 100");
        let open = "3 invoices are open, and max_open = 3: settle or cancel some first";
        assert_eq!(told(3, 0, 0, 1), open);
        let held = "151 sats are held or asked for, and max_held_sats = 250: settle or cancel some first";
        assert_eq!(told(2, 151, 151, 100), held);
        let day = "301 sats were taken today, are held or asked for, and sats_per_day = 400";
        assert_eq!(told(0, 0, 301, 100), day);
        assert!(told(0, u64::MAX, 0, 1).contains("max_held_sats"));
        assert!(told(0, 0, u64::MAX, 1).contains("sats_per_day"));
    }

    proptest! {
        #[test]
        fn what_is_let_through_stays_within_every_limit(
            (max_amount_sats, max_held_sats, sats_per_day) in any::<(u64, u64, u64)>(),
            (held_sats, day_sats, amount_sats) in any::<(u64, u64, u64)>(),
            (max_open, open) in any::<(u32, u32)>(),
        ) {
            let limits = Limits { max_amount_sats, max_held_sats, max_open, requests_per_minute: 1, sats_per_day };
            let usage = Usage { open, held_sats, day_sats };
            let sum = |a: u64| u128::from(a) + u128::from(amount_sats);
            let within = amount_sats <= max_amount_sats
                && open < max_open
                && sum(held_sats) <= u128::from(max_held_sats)
                && sum(day_sats) <= u128::from(sats_per_day);
            prop_assert_eq!(check(&limits, &usage, amount_sats).is_ok(), within);
        }

        /// A client that asks for as much as it can, one after the other.
        #[test]
        fn a_greedy_client_never_gets_above_its_limits(amounts in proptest::collection::vec(0_u64..150, 1..50)) {
            let mut usage = Usage::default();
            for amount in amounts {
                if check(&LIMITS, &usage, amount).is_ok() {
                    usage.open += 1;
                    usage.held_sats += amount;
                    usage.day_sats += amount;
                }
            }
            prop_assert!(usage.open <= LIMITS.max_open && usage.held_sats <= LIMITS.max_held_sats);
            prop_assert!(usage.day_sats <= LIMITS.sats_per_day);
        }
    }
}
