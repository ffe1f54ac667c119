//! Simulated surroundings of the daemon: an LND with its customers.
//!
//! Owns nothing itself. Called by the `emulate` and `simulate` commands and by tests.
//! Must stay true: nothing here imports the code it is used to test.

pub mod lnd;
