//! All chance of a simulated history, from its seed.
//!
//! Called by every part of the simulation. What must stay true: each part draws from a generator of its own, named by the seed
//! and the part, so that a fault which is taken away does not change what the others draw.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::entropy::{Entropy, NoEntropy};

/// One part's generator.
#[derive(Debug)]
pub struct Chance(StdRng);

impl Chance {
    /// The generator of `part`, number `index`, in the history of `seed`.
    #[must_use]
    pub fn new(seed: u64, part: &str, index: u64) -> Self {
        let mut bytes = [0; 32];
        let words = [seed, index, name(part), 0x7465_6c6c_6572_6400];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Self(StdRng::from_seed(bytes))
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, share: u32) -> bool {
        self.0.random_range(0..1000) < share
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// A time from `low` to `high`.
    pub fn time(&mut self, low: Duration, high: Duration) -> Duration {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.within(ms(low), ms(high)))
    }

    /// A time of about `mean`, as of events that do not know of each other.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let share: f64 = self.0.random_range(0.001..1.0);
        mean.mul_f64(-share.ln()).min(mean * 5)
    }

    /// One of them; `None` when there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let last = of.len().checked_sub(1)?;
        of.get(self.0.random_range(0..=last))
    }

    /// Any number.
    pub fn dice(&mut self) -> u32 {
        self.0.random()
    }
}

/// FNV-1a: a name as a number.
fn name(part: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    part.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The daemon's random bytes: ids, preimages, jitter.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<StdRng>);

impl SeededEntropy {
    /// Of the history of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Chance::new(seed, "entropy", 0).0))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
        Ok(())
    }
}
