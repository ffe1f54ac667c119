//! Capped exponential back-off with jitter. Pure: the caller brings the randomness.
//!
//! Called by the client's link, by the LND actor and by who follows a settlement. What must stay true: a wait is never longer than
//! the cap, never zero unless configured so, and many clients that fail together do not return together.

use std::time::Duration;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure.
    pub first: Duration,
    /// The longest wait of all.
    pub cap: Duration,
}

impl Backoff {
    /// For connections to LND: at most 200 ms at first, at most a second in the end. An LND that was away for long takes a
    /// settle in its first moments that its own watch for heights refuses soon after.
    pub const NODE: Self = Self {
        first: Duration::from_millis(200),
        cap: Duration::from_secs(1),
    };

    /// For what nobody loses money by waiting: at most 200 ms at first, at most 10 s in the end.
    pub const CONNECT: Self = Self {
        first: Duration::from_millis(200),
        cap: Duration::from_secs(10),
    };

    /// The wait before attempt number `attempt`, from 0. The bound doubles with each attempt up to the cap;
    /// `random` picks a wait between half of the bound and the whole of it.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.min(31));
        let bound = self.first.saturating_mul(factor).min(self.cap);
        let half = bound / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let whole: Vec<u128> = (0..8)
            .map(|n| Backoff::CONNECT.delay(n, u32::MAX).as_millis())
            .collect();
        assert_eq!(whole, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    }

    #[test]
    fn jitter_reaches_from_half_to_whole() {
        assert_eq!(Backoff::CONNECT.delay(0, 0), Duration::from_millis(100));
        assert_eq!(Backoff::CONNECT.delay(0, u32::MAX), Duration::from_millis(200));
    }

    #[test]
    fn zero_means_no_wait() {
        let none = Backoff {
            first: Duration::ZERO,
            cap: Duration::ZERO,
        };
        assert_eq!(none.delay(u32::MAX, u32::MAX), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn stays_within_half_of_first_and_cap(attempt in any::<u32>(), random in any::<u32>()) {
            let delay = Backoff::CONNECT.delay(attempt, random);
            prop_assert!(delay >= Backoff::CONNECT.first / 2);
            prop_assert!(delay <= Backoff::CONNECT.cap);
        }
    }
}
