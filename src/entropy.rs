//! Random bytes as something that is handed in: the system's for the daemon, a seed's for a simulation that can be repeated.
//!
//! Used by the actors for ids, preimages and the jitter of waits. Must stay true: only the system's bytes make preimages that
//! money depends on.

use std::sync::Arc;

use thiserror::Error;

/// There are no random bytes.
#[derive(Debug, Clone, Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoEntropy(pub String);

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// When there are none.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy>;

    /// Chance for a wait: the largest when there is none, so that the wait is the longest.
    fn jitter(&self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes).map_or(u32::MAX, |()| u32::from_le_bytes(bytes))
    }
}

/// A source shared by actors.
pub type SharedEntropy = Arc<dyn Entropy>;

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        getrandom::fill(bytes).map_err(|error| NoEntropy(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_random_bytes_a_wait_is_the_longest() {
        struct Dry;
        impl Entropy for Dry {
            fn fill(&self, _: &mut [u8]) -> Result<(), NoEntropy> {
                Err(NoEntropy("dry".into()))
            }
        }
        assert_eq!(Dry.jitter(), u32::MAX);
        assert_ne!([SystemEntropy.jitter(), SystemEntropy.jitter()], [0, 0]);
    }
}
