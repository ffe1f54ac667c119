//! Tests of the client side against a service in memory that follows docs/NOSTR_RPC.md, on a network that loses,
//! repeats, reorders and delays.

mod caller;
mod fake;
mod generated;
mod ledger;
mod lives;
mod node;
mod watch;
