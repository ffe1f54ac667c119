//! A client's way from its invitation to its revocation, and who a key is on the way.

use super::*;
use crate::ids::{ClientName, NostrKey, TokenHash};
use crate::time::UnixMs;

const DEFAULTS: Limits = Limits {
    max_amount_sats: 1,
    max_held_sats: 2,
    max_open: 3,
    requests_per_minute: 4,
    sats_per_day: 5,
};
const KEY: NostrKey = NostrKey([1; 32]);
const OTHER: NostrKey = NostrKey([2; 32]);
const NOW: UnixMs = UnixMs(1_000);

fn name(text: &str) -> ClientName {
    text.parse().unwrap()
}

fn token(n: u8) -> TokenHash {
    TokenHash([n; 32])
}

fn invited(n: u8, until: u64) -> ClientEvent {
    let (token, until, by) = (token(n), UnixMs(until), "ada".to_owned());
    ClientEvent::Invited { token, until, by }
}

fn enrolled(key: NostrKey) -> ClientEvent {
    ClientEvent::Enrolled { key, at: NOW }
}

fn revoked() -> ClientEvent {
    ClientEvent::Revoked { by: "ada".to_owned() }
}

fn book(events: &[(&str, ClientEvent)]) -> Book {
    let mut book = Book::default();
    for (client, event) in events {
        book.apply(&name(client), event);
    }
    book
}

fn configured(client: &str, key: Option<NostrKey>) -> ConfiguredClient {
    let limits = Limits {
        max_open: 99,
        ..DEFAULTS
    };
    let name = name(client);
    ConfiguredClient { name, key, limits }
}

fn enrolls(book: &Book, n: u8, key: NostrKey, configured: &[ConfiguredClient]) -> Result<String, EnrollError> {
    let enrolls = book.enrolls(token(n), key, NOW, configured);
    enrolls.map(ToString::to_string)
}

/// The client's name and its most open invoices.
fn client(roster: &Roster, key: NostrKey) -> Option<(String, u32)> {
    let who = roster.who(&key);
    who.client.map(|(name, limits)| (name.to_string(), limits.max_open))
}

fn roster(configured: &[ConfiguredClient], book: &Book) -> Roster {
    Roster::new(configured, DEFAULTS, &[], book)
}

fn states(book: &Book, configured: &[ConfiguredClient]) -> Vec<String> {
    let views = views(book, configured, NOW);
    let line = |view: &crate::api::ClientView| format!("{} {}", view.name, view.state);
    views.iter().map(line).collect()
}

#[test]
fn an_invitation_enrolls_one_key_once() {
    let mut book = book(&[("kiosk", invited(1, 2_000))]);
    assert!(!roster(&[], &book).knows(&KEY));
    assert_eq!(states(&book, &[]), ["kiosk invited"]);
    assert_eq!(enrolls(&book, 1, KEY, &[]), Ok("kiosk".to_owned()));
    assert_eq!(enrolls(&book, 2, KEY, &[]), Err(EnrollError::Unknown));
    book.apply(&name("kiosk"), &enrolled(KEY));
    assert_eq!(client(&roster(&[], &book), KEY), Some(("kiosk".to_owned(), 3)));
    assert_eq!(states(&book, &[]), ["kiosk active"]);
    assert_eq!(enrolls(&book, 1, OTHER, &[]), Err(EnrollError::Unknown), "used");
    assert_eq!(enrolls(&book, 1, KEY, &[]), Err(EnrollError::Unknown), "used");
}

#[test]
fn an_invitation_ends_by_its_time() {
    let book = book(&[("kiosk", invited(1, NOW.0))]);
    assert_eq!(enrolls(&book, 1, KEY, &[]), Err(EnrollError::Expired));
    assert_eq!(states(&book, &[]), ["kiosk expired"]);
    let before = UnixMs(NOW.0 - 1);
    assert!(book.enrolls(token(1), KEY, before, &[]).is_ok());
}

#[test]
fn a_new_invitation_replaces_the_former_one_and_leaves_the_key_until_it_is_used() {
    let mut book = book(&[
        ("kiosk", invited(1, 2_000)),
        ("kiosk", enrolled(KEY)),
        ("kiosk", invited(2, 2_000)),
        ("kiosk", invited(3, 2_000)),
    ]);
    assert_eq!(enrolls(&book, 2, OTHER, &[]), Err(EnrollError::Unknown));
    assert!(roster(&[], &book).knows(&KEY));
    assert_eq!(states(&book, &[]), ["kiosk active"]);
    assert_eq!(
        enrolls(&book, 3, KEY, &[]),
        Ok("kiosk".to_owned()),
        "its own key is its own"
    );
    book.apply(&name("kiosk"), &enrolled(OTHER));
    assert!(!roster(&[], &book).knows(&KEY) && roster(&[], &book).knows(&OTHER));
}

#[test]
fn a_revoked_key_is_out_and_its_invitation_void() {
    let mut book = book(&[
        ("kiosk", invited(1, 2_000)),
        ("kiosk", enrolled(KEY)),
        ("kiosk", invited(2, 2_000)),
        ("kiosk", revoked()),
    ]);
    assert!(!roster(&[], &book).knows(&KEY));
    assert_eq!(enrolls(&book, 2, KEY, &[]), Err(EnrollError::Unknown));
    assert_eq!(states(&book, &[]), ["kiosk revoked"]);
    book.apply(&name("kiosk"), &invited(3, 2_000));
    assert!(!roster(&[], &book).knows(&KEY), "an invitation brings no key back");
    assert_eq!(states(&book, &[]), ["kiosk invited"]);
    assert_eq!(enrolls(&book, 3, KEY, &[]), Ok("kiosk".to_owned()));
}

#[test]
fn a_configured_key_goes_before_an_enrolled_one() {
    let book = book(&[
        ("kiosk", invited(1, 2_000)),
        ("kiosk", enrolled(KEY)),
        ("kiosk", invited(2, 2_000)),
    ]);
    let fixed = [configured("kiosk", Some(OTHER))];
    let both = roster(&fixed, &book);
    assert!(!both.knows(&KEY));
    assert_eq!(client(&both, OTHER), Some(("kiosk".to_owned(), 99)));
    let told = enrolls(&book, 2, NostrKey([3; 32]), &fixed);
    assert_eq!(told, Err(EnrollError::Configured(name("kiosk"))));
    let view = &views(&book, &fixed, NOW)[0];
    assert_eq!(
        (view.key, view.configured, view.state.as_str()),
        (Some(OTHER), true, "active")
    );
    assert_eq!(view.invited_until_unix_ms, None);
}

#[test]
fn configured_limits_without_a_key_are_those_of_who_enrolls() {
    let limits_only = [configured("kiosk", None)];
    assert_eq!(states(&Book::default(), &limits_only), ["kiosk not_invited"]);
    let book = book(&[
        ("bar", invited(9, 2_000)),
        ("kiosk", invited(1, 2_000)),
        ("kiosk", enrolled(KEY)),
    ]);
    assert_eq!(
        client(&roster(&limits_only, &book), KEY),
        Some(("kiosk".to_owned(), 99))
    );
    assert_eq!(states(&book, &limits_only), ["bar invited", "kiosk active"]);
}

#[test]
fn another_clients_key_is_refused() {
    let book = book(&[
        ("bar", invited(1, 2_000)),
        ("bar", enrolled(KEY)),
        ("kiosk", invited(2, 2_000)),
    ]);
    let taken = EnrollError::KeyTaken(name("bar"));
    assert_eq!(enrolls(&book, 2, KEY, &[]), Err(taken.clone()));
    let fixed = [configured("bar", Some(OTHER))];
    assert_eq!(enrolls(&book, 2, OTHER, &fixed), Err(taken.clone()));
    assert_eq!(
        enrolls(&book, 2, KEY, &fixed),
        Err(taken),
        "it would be two clients' when the configuration changes back"
    );
    assert_eq!(enrolls(&book, 2, NostrKey([3; 32]), &fixed), Ok("kiosk".to_owned()));
}

#[test]
fn one_key_may_be_a_client_and_an_operator() {
    let operator = Operator {
        name: name("ada"),
        key: KEY,
        role: Role::Cash,
    };
    let invited_too = book(&[("kiosk", invited(1, 2_000))]);
    assert!(enrolls(&invited_too, 1, KEY, &[]).is_ok());
    let book = book(&[("kiosk", invited(1, 2_000)), ("kiosk", enrolled(KEY))]);
    let who = Roster::new(&[], DEFAULTS, std::slice::from_ref(&operator), &book).who(&KEY);
    assert_eq!(who.client, Some((name("kiosk"), DEFAULTS)));
    assert_eq!(who.operator, Some((name("ada"), Role::Cash)));
    let alone = Roster::new(&[], DEFAULTS, &[operator], &Book::default()).who(&KEY);
    assert!(alone.client.is_none() && alone.operator.is_some());
    assert_eq!(roster(&[], &book).who(&OTHER), Who::default());
}

#[test]
fn who_has_something_left_to_finish_is_known_and_may_do_nothing_new() {
    let book = book(&[("kiosk", invited(1, 2_000)), ("kiosk", enrolled(OTHER))]);
    let roster = roster(&[], &book).with_unfinished([KEY, OTHER]);
    assert!(roster.knows(&KEY) && !roster.knows(&NostrKey([3; 32])));
    assert_eq!(roster.who(&KEY), Who::default());
    assert_eq!(roster.requests_per_minute(&KEY), Some(60), "bounded, and by itself");
    assert_eq!(roster.requests_per_minute(&OTHER), Some(4), "a client as before");
    assert_eq!(roster.requests_per_minute(&NostrKey([3; 32])), None);
}
