//! tellerd: a supervisor daemon for fleets of cash-out ATMs that are paid over Lightning.
//!
//! A customer pays a hold invoice; the money is only held; the ATM dispenses; then the invoice is
//! settled, or cancelled when no cash came out. See ARCHITECTURE.md for the life of one cash-out.

pub mod actors;
pub mod api;
pub mod app;
pub mod cashout;
pub mod cli;
pub mod clients;
pub mod config;
pub mod crash;
pub mod entropy;
pub mod hardware;
pub mod http;
pub mod ids;
pub mod invoice;
pub mod journal;
pub mod lnd;
pub mod metrics;
pub mod money;
pub mod nostr;
pub mod proto;
pub mod record;
pub mod sim;
pub mod store;
pub mod time;
