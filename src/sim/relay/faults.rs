//! The dice, and when a connection's own faults are due.
//!
//! Called by [`super::session`] and [`super::serve`].

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::RelayFaults;

/// A source of choices that depends on nothing but its seeds.
pub(super) struct Dice(StdRng);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Self {
        // Neighbouring seeds must not give neighbouring streams.
        Self(StdRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// True with this probability.
    pub fn happens(&mut self, probability: f64) -> bool {
        // Drawn in any case: switching one fault on does not change the choices of the others.
        self.0.random::<f64>() < probability
    }

    /// Up to `longest`.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.0.random())
    }

    /// The next time of something that happens `every` so often.
    pub fn next(&mut self, every: Option<Duration>) -> Option<Instant> {
        let share = -(1.0 - self.0.random::<f64>()).ln();
        every.map(|mean| Instant::now() + mean.mul_f64(share))
    }
}

/// When something happens to one connection by itself.
pub(super) struct Timers {
    pub cut: Option<Instant>,
    pub close: Option<Instant>,
    pub notice: Option<Instant>,
}

impl Timers {
    pub fn draw(dice: &mut Dice, faults: &RelayFaults) -> Self {
        Self {
            cut: dice.next(faults.cut_every),
            close: dice.next(faults.close_every),
            notice: dice.next(faults.notice_every),
        }
    }
}

/// Waits until then; for ever without a time.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seeds_make_the_same_choices() {
        let draw = |seed, stream| {
            let mut dice = Dice::new(seed, stream);
            (0..64).map(|_| dice.happens(0.5)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
    }

    #[test]
    fn never_and_always_are_exact() {
        let mut dice = Dice::new(1, 1);
        assert!((0..1_000).all(|_| !dice.happens(0.0) && dice.happens(1.0)));
        assert_eq!(dice.next(None), None);
    }
}
