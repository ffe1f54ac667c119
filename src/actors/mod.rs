//! Actors carry messages and time; decisions are in the pure machines. actix is named only here and at the edges.
//!
//! All actors of a fleet live on one arbiter (an ask between two arbiters costs 80 µs, on one under 1 µs:
//! facts/crates.md); what blocks has a thread of its own. What must stay true: every send is checked, every
//! child can die and come back from the journal, and no effect starts for a state that is not durable.

pub mod atm;
pub mod child;
pub mod clients;
pub mod drive;
pub mod fleet;
pub(crate) mod funds;
pub mod gauges;
pub mod hardware;
pub mod invoice;
pub mod invoice_work;
pub mod item;
pub mod journal;
pub mod level;
pub mod lnd;
mod lnd_status;
pub mod nostr;
pub mod shared;
pub mod supervisor;
pub mod views;

/// Messages that may wait for an actor. actix's own default of 16 refuses bursts.
pub const MAILBOX: usize = 1024;
