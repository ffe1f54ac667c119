//! One binary for all integration tests: linking is what takes time on two cores.

mod lnd;
mod lnd_fake;
