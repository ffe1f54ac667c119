//! Simulated surroundings of the daemon: an LND with its customers, a relay, a disk, and a whole fleet with its audit.
//!
//! Owns nothing itself. Called by the `emulate` and `simulate` commands and by tests.
//! Must stay true: nothing here imports the code it is used to test; the daemon is a process of its own, or on threads of its own
//! (fleet/inside.rs), or on the one thread there is ([`seeded`]).

pub mod audit;
pub mod disk;
pub mod fleet;
pub mod lnd;
pub mod relay;
pub mod seeded;
