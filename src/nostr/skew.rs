//! How far the own clock is off, judged by what others write into their events.
//!
//! Pure. Called with the events of senders that are known, never of strangers: a stranger writes any time he likes.
//! Why: relays drop events of kind 21000 that are over 60 s old, so a machine whose clock is slow falls silent
//! without an error anywhere. What must stay true: one sender counts once, memory is bounded.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use ::nostr::PublicKey;

use crate::time::UnixMs;

/// From this difference on somebody should look: a third of what relays bear.
pub const WORRYING_SECONDS: f64 = 20.0;

/// What the samples say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Skew {
    /// The own clock minus those of others, in seconds: positive when the own clock is fast. The time that events
    /// travel makes it look faster, never slower.
    pub seconds: f64,
    /// From how many senders.
    pub samples: usize,
    /// At least [`WORRYING_SECONDS`] in either direction.
    pub worrying: bool,
}

/// The last difference to each of the senders heard last.
#[derive(Debug)]
pub struct SkewEstimator {
    capacity: NonZeroUsize,
    /// The oldest first.
    samples: VecDeque<(PublicKey, f64)>,
}

impl SkewEstimator {
    /// One that remembers `capacity` senders.
    #[must_use]
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            capacity,
            samples: VecDeque::new(),
        }
    }

    /// Takes what `sender` wrote into an event that came in at `arrived`, and says what is known now.
    pub fn add(&mut self, sender: PublicKey, created_at_unix: u64, arrived: UnixMs) -> Skew {
        self.samples.retain(|(known, _)| *known != sender);
        if self.samples.len() >= self.capacity.get() {
            self.samples.pop_front();
        }
        // Senders cut their time off to whole seconds: half a second is missing on average.
        let written = seconds(created_at_unix) + 0.5;
        self.samples.push_back((sender, seconds(arrived.0) / 1000.0 - written));
        self.skew()
    }

    /// The median of all samples; of two in the middle the one nearer to zero, so that one sender among two can not say
    /// that the own clock is wrong. Zero without any.
    #[must_use]
    pub fn skew(&self) -> Skew {
        let mut all: Vec<f64> = self.samples.iter().map(|(_, seconds)| *seconds).collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or_default();
        let (low, high) = (at(all.len().saturating_sub(1) / 2), at(all.len() / 2));
        let seconds = if low.abs() < high.abs() { low } else { high };
        Skew {
            seconds,
            samples: all.len(),
            worrying: seconds.abs() >= WORRYING_SECONDS,
        }
    }
}

/// Exact below 2^53, which is all time there will be.
#[allow(clippy::cast_precision_loss)]
fn seconds(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use ::nostr::Keys;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn arrived(after_seconds: i64) -> UnixMs {
        UnixMs(NOW.saturating_add_signed(after_seconds) * 1000 + 500)
    }

    fn key() -> PublicKey {
        Keys::generate().public_key()
    }

    fn estimator(capacity: usize) -> SkewEstimator {
        SkewEstimator::new(NonZeroUsize::new(capacity).unwrap())
    }

    #[test]
    fn nothing_is_known_without_samples() {
        let skew = estimator(3).skew();
        assert_eq!((skew.seconds, skew.samples, skew.worrying), (0.0, 0, false));
    }

    #[test]
    fn the_median_bears_one_liar_among_three() {
        let mut estimator = estimator(9);
        estimator.add(key(), NOW, arrived(1));
        estimator.add(key(), NOW, arrived(0));
        let skew = estimator.add(key(), u64::MAX, arrived(0));
        assert_eq!((skew.seconds, skew.samples, skew.worrying), (0.0, 3, false));
    }

    #[test]
    fn one_liar_among_two_moves_nothing() {
        let mut estimator = estimator(9);
        estimator.add(key(), NOW, arrived(0));
        let skew = estimator.add(key(), NOW - 120, arrived(0));
        assert_eq!((skew.seconds, skew.worrying), (0.0, false));
    }

    #[test]
    fn twenty_seconds_are_worrying_in_both_directions() {
        for (off, worrying) in [(19, false), (20, true), (-19, false), (-20, true), (3_600, true)] {
            let skew = estimator(1).add(key(), NOW, arrived(off));
            assert_eq!(skew.worrying, worrying, "{off}");
        }
    }

    #[test]
    fn a_sender_counts_once_and_the_oldest_is_forgotten() {
        let mut estimator = estimator(2);
        let (a, b) = (key(), key());
        estimator.add(a, NOW, arrived(100));
        assert_eq!(estimator.add(a, NOW, arrived(2)).samples, 1);
        assert_eq!(estimator.add(b, NOW, arrived(4)).seconds, 2.0, "the nearer of two");
        let skew = estimator.add(key(), NOW, arrived(4));
        assert_eq!((skew.seconds, skew.samples), (4.0, 2));
    }
}
