//! What a client of the service may do: the keys of `[service]` and of `[[service.client]]` that bound it.
//!
//! Called by [`super::nostr`].

use super::reader::Section;
use super::value::number;
use crate::clients::Limits;

/// All the bitcoin there will ever be, in satoshi.
const ALL_SATS: u64 = 2_100_000_000_000_000;

/// What a client may do unless the configuration says otherwise.
pub(super) const DEFAULT: Limits = Limits {
    max_amount_sats: 2_000_000,
    max_held_sats: 10_000_000,
    max_open: 50,
    requests_per_minute: 600,
    sats_per_day: 50_000_000,
};

/// The limits in this table; `defaults` where it gives none.
pub(super) fn limits(section: &mut Section, defaults: Limits) -> Limits {
    let limits = Limits {
        max_amount_sats: section.or("max_amount_sats", number(1..=ALL_SATS), defaults.max_amount_sats),
        max_held_sats: section.or("max_held_sats", number(1..=ALL_SATS), defaults.max_held_sats),
        max_open: section.or("max_open", number(1..=100_000), defaults.max_open),
        requests_per_minute: section.or("requests_per_minute", number(1..=60_000), defaults.requests_per_minute),
        sats_per_day: section.or("sats_per_day", number(1..=ALL_SATS), defaults.sats_per_day),
    };
    let (amount, held) = (limits.max_amount_sats, limits.max_held_sats);
    if amount > held && section.has("max_amount_sats") {
        let message = format!("{amount} is above max_held_sats = {held}: no such invoice could be held");
        section.mistake("max_amount_sats", message);
    } else if amount > held && section.has("max_held_sats") {
        let message = format!("{held} is below max_amount_sats = {amount}: no such invoice could be held");
        section.mistake("max_held_sats", message);
    }
    limits
}
