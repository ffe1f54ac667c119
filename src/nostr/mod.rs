//! The Nostr side: hold invoices asked for, and answered, by encrypted events of kind 21000.
//!
//! Owns what goes over that wire ([`wire`]), what may be said in it ([`method`]), and the connections that carry it
//! ([`relays`]). Wire and methods are pure: bytes, a time and a store of seen ids come in, messages and signed events go
//! out. On top of them: a client of a service ([`caller`]), and the service taken for a Lightning node ([`node`]).
//! What must stay true: nothing an unproven sender wrote is believed, memory is bounded whatever arrives, and no
//! secret is printed. Reference for other teams: docs/NOSTR_RPC.md. Source: Lightning.Pub v0.0.38, NIP-01, NIP-44.

pub mod beacon;
pub mod caller;
pub mod field;
pub mod method;
pub mod node;
pub mod outbox;
pub mod relays;
pub mod skew;
pub mod wire;

#[cfg(test)]
mod tests;
