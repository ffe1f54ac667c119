//! The clients as the API shows them.

use std::collections::BTreeSet;

use super::{Book, Client, ConfiguredClient};
use crate::api::ClientView;
use crate::ids::ClientName;
use crate::time::UnixMs;

/// Every client of the book and of the configuration, by name, as it is at `now`.
#[must_use]
pub fn views(book: &Book, configured: &[ConfiguredClient], now: UnixMs) -> Vec<ClientView> {
    let names = book.clients.keys().chain(configured.iter().map(|one| &one.name));
    let names: BTreeSet<&ClientName> = names.collect();
    let view = |name| view(name, book, configured, now);
    names.into_iter().map(view).collect()
}

fn view(name: &ClientName, book: &Book, configured: &[ConfiguredClient], now: UnixMs) -> ClientView {
    let fixed = configured.iter().find(|one| one.name == *name).and_then(|one| one.key);
    let none = Client::default();
    let client = book.clients.get(name).unwrap_or(&none);
    let invite = client.invite.filter(|_| fixed.is_none());
    let key = fixed.or(client.key);
    let state = match (key, invite) {
        (Some(_), _) => "active",
        (None, Some(invite)) if now < invite.until => "invited",
        (None, Some(_)) => "expired",
        (None, None) if client.revoked => "revoked",
        (None, None) => "not_invited",
    };
    ClientView {
        name: name.clone(),
        state: state.to_owned(),
        key,
        configured: fixed.is_some(),
        invited_until_unix_ms: invite.map(|invite| invite.until),
    }
}
