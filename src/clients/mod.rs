//! Who may ask this daemon for hold invoices over Nostr, and who may operate it: names, keys, limits, invitations.
//!
//! Pure. [`Book`] is the fold of what was invited, enrolled and revoked (the journal); [`Roster`] joins it with the
//! configuration and answers who a key is; [`Rates`] and [`quota`] hold clients to their limits. Called by the store's
//! fold, by the fleet's door and by the Nostr actor. What must stay true: a key that is no client in the roster may begin
//! nothing but enroll; a token works once and for a time; one key is one client; a revoked key stays out.

mod book;
pub mod quota;
mod rate;
mod roster;
#[cfg(test)]
mod tests;
mod views;

pub use book::{Book, Client, ClientEvent, EnrollError, Invite};
pub use rate::{MOST_KEYS, Rates};
pub use roster::{ConfiguredClient, Operator, Role, Roster, Who};
pub use views::views;

use serde::{Deserialize, Serialize};

/// What one client may have and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of one invoice.
    pub max_amount_sats: u64,
    /// Of all its held invoices at once.
    pub max_held_sats: u64,
    /// Invoices that are not at their end, at once.
    pub max_open: u32,
    /// Requests in a minute.
    pub requests_per_minute: u32,
    /// Taken, held and payable in one day (UTC).
    pub sats_per_day: u64,
}

impl Limits {
    /// Nothing at all.
    pub const NONE: Self = Self {
        max_amount_sats: 0,
        max_held_sats: 0,
        max_open: 0,
        requests_per_minute: 0,
        sats_per_day: 0,
    };
}
