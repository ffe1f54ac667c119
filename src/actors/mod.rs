//! Actors carry messages and time; decisions are in the pure machines. actix is named only here and at the edges.
//!
//! All actors of a fleet live on one arbiter (an ask between two arbiters costs 80 µs, on one under 1 µs:
//! facts/crates.md); what blocks has a thread of its own. What must stay true: every send is checked, every
//! child can die and come back from the journal, and no effect starts for a state that is not durable.

pub mod child;
pub mod fleet;
pub mod item;
pub mod journal;

/// Messages that may wait for an actor. actix's own default of 16 refuses bursts.
pub const MAILBOX: usize = 1024;
