//! `payments`, `[nostr]`, `[[operator]]`, `[service]` and `[site]`: the examples, and how mistakes are told.

use ::nostr::nips::nip19::{Nip19Profile, ToBech32};
use ::nostr::{PublicKey, RelayUrl};
use proptest::prelude::*;

use super::*;
use crate::clients::{Limits, Role};
use crate::ids::NostrKey;

pub(super) const SITE: &str = include_str!("../../../config/site.example.toml");

/// Points of the curve: the generator's x-coordinate, and those of NIP-06 and BIP-340's first test vectors.
const KEY: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const OTHER: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";
const NPUB_1: &str = "npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d";

fn served(changes: &[(&str, &str)]) -> String {
    changed_in(with_defaults(&all_on()), changes)
}

fn site(changes: &[(&str, &str)]) -> String {
    changed_in(with_defaults(SITE), changes)
}

#[test]
fn without_nostr_nothing_is_there() {
    let config = parse(EXAMPLE);
    assert!(config.nostr.is_none() && matches!(config.payments, Payments::Lnd(_)));
}

#[test]
fn the_defaults_of_a_service_are_those_of_the_design() {
    let nostr = parse(&all_on()).nostr.unwrap();
    assert_eq!(nostr.key_file, Path::new("/etc/tellerd/nostr.key"));
    assert_eq!(nostr.relays, ["wss://relay.example.com", "wss://relay.example.org"]);
    let ada = &nostr.operators[0];
    assert_eq!(
        (ada.name.as_str(), ada.key.to_string().as_str(), ada.role),
        ("ada", KEY, Role::Operator)
    );
    let service = nostr.service.unwrap();
    assert_eq!(service.name, "tellerd");
    assert_eq!(service.commit_deadline, Duration::from_secs(3_900));
    assert_eq!(service.invite_valid, Duration::from_secs(3_600));
    let limits = Limits {
        max_amount_sats: 2_000_000,
        max_held_sats: 10_000_000,
        max_open: 50,
        requests_per_minute: 600,
        sats_per_day: 50_000_000,
    };
    assert_eq!(service.limits, limits);
    let kiosk = &service.clients[0];
    assert_eq!((kiosk.name.as_str(), kiosk.key.is_some()), ("kiosk", true));
    let own = Limits {
        max_amount_sats: 500_000,
        ..limits
    };
    assert_eq!(kiosk.limits, own);
}

#[test]
fn a_service_needs_no_machine_of_its_own() {
    let text = served(&[]);
    let (before, rest) = text.split_once("\n[[atm]]\n").unwrap();
    let (_, after) = rest.split_once("\n[nostr]\n").unwrap();
    let config = parse(&format!("{before}\n[nostr]\n{after}"));
    assert!(config.atms.is_empty() && config.nostr.is_some());
    assert!(mistakes(before).contains("atm: missing"));
}

#[test]
fn the_site_example_parses_and_names_every_key() {
    let config = parse(SITE);
    let Payments::Nostr(site) = config.payments else {
        panic!("not a site");
    };
    assert_eq!(site.service.to_string(), KEY);
    assert_eq!((site.nip44, site.deadline), (2, Duration::from_secs(8)));
    assert_eq!(
        site.pairing_file.as_deref(),
        Some(Path::new("/etc/tellerd/pairing.token"))
    );
    assert_eq!((config.policy.cltv_expiry, config.policy.hold_expiry_delta), (80, 18));
    assert!(!config.private_route_hints && config.nostr.unwrap().service.is_none());
    let (before, after) = SITE.split_once("\n[site]\n").unwrap();
    assert_known_are_named(&format!("{before}\n[site]\nzzz = 1\n{after}"), SITE);
}

#[test]
fn the_window_of_a_site_is_in_its_policy() {
    let config = parse(&site(&[
        ("cltv_expiry = 80", "cltv_expiry = 90"),
        ("hold_expiry_delta = 18", "hold_expiry_delta = 20"),
    ]));
    assert_eq!((config.policy.cltv_expiry, config.policy.hold_expiry_delta), (90, 20));
    let told = mistakes(&site(&[("cltv_expiry = 80", "cltv_expiry = 18")]));
    assert!(
        told.contains("policy.min_blocks_left: 12 is not below site.cltv_expiry - site.hold_expiry_delta = 0"),
        "{told}"
    );
}

#[test]
fn the_relays_of_an_nprofile_are_added() {
    let key = PublicKey::from_hex(KEY).unwrap();
    let profile = |key, urls: &[&str]| {
        let relays = urls.iter().map(|url| RelayUrl::parse(url).unwrap());
        Nip19Profile::new(key, relays).to_bech32().unwrap()
    };
    let line = format!("service = \"{NPUB_1}\"");
    let given = |text: String| site(&[(&line, &format!("service = \"{text}\""))]);
    let config = parse(&given(profile(
        key,
        &["wss://relay.example.com/", "ws://10.0.0.7:7777", "wss://a/b/"],
    )));
    let Payments::Nostr(site) = config.payments else {
        panic!("not a site");
    };
    assert_eq!(site.service, NostrKey(key.to_bytes()));
    assert_eq!(
        config.nostr.unwrap().relays,
        ["wss://relay.example.com", "ws://10.0.0.7:7777", "wss://a/b/"]
    );
    parse(&given(KEY.to_owned()));
    let token = "ab".repeat(32);
    let pairing = mistakes(&given(format!("{}:{token}", profile(key, &[]))));
    assert!(
        pairing.contains("site.service: a pairing string") && !pairing.contains(&token),
        "{pairing}"
    );
    let no_point = profile(PublicKey::from_byte_array([0xff; 32]), &[]);
    assert!(mistakes(&given(no_point)).contains("site.service: not a public key: no point"));
    assert!(mistakes(&given("nprofile1xyz".to_owned())).contains("site.service: not an nprofile: "));
}

/// Each change makes one mistake, told with its line and key.
fn assert_told(text: &str, line: &str, told: &str) {
    let errors = mistakes(text);
    assert!(
        errors.contains(told) && errors.lines().count() == 1,
        "expected {told} in {errors}"
    );
    let at = text
        .lines()
        .position(|other| other == line)
        .unwrap_or_else(|| panic!("no line {line}"));
    assert!(
        errors.starts_with(&format!("fleet.toml:{}: ", at + 1)),
        "{line}: {errors}"
    );
}

#[test]
fn mistakes_in_relays_and_operators() {
    let relays = "relays = [\"wss://relay.example.com\", \"wss://relay.example.org\"]";
    for (list, told) in [
        ("[]", "nostr.relays: must not be empty"),
        ("5", "nostr.relays: a list expected, found integer"),
        ("[\"wss://a\", 5]", "nostr.relays[1]: a string expected, found integer"),
        (
            "[\"wss://a\", \"https://b\"]",
            "nostr.relays[1]: not the address of a relay",
        ),
        ("[\"wss://u:pw@b\"]", "nostr.relays[0]: not the address of a relay"),
        ("[\"wss://\"]", "nostr.relays[0]: not the address of a relay"),
        (
            "[\"wss://a\", \"wss://A/\"]",
            "nostr.relays[1]: the same as nostr.relays[0]",
        ),
    ] {
        let with = format!("relays = {list}");
        assert_told(&served(&[(relays, &with)]), &with, told);
    }
    let long = format!("relays = [\"wss://a/{}\"]", "b".repeat(200));
    assert_told(
        &served(&[(relays, &long)]),
        &long,
        "nostr.relays[0]: longer than 200 characters",
    );
    let key = &format!("key = \"{NPUB_1}\"");
    let no_point = &format!("key = \"{}\"", "ff".repeat(32));
    let role = "role = \"operator\"";
    for (line, with, told) in [
        (
            role,
            "role = \"root\"",
            "role: \"viewer\", \"cash\" or \"operator\" expected",
        ),
        ("name = \"ada\"", "name = \"Ada\"", "name: `Ada` is not a name"),
        (
            key,
            "key = \"npub1\"",
            "key: not a public key: npub1… or 64 hexadecimal digits expected",
        ),
        (key, no_point, "key: not a public key: no point"),
    ] {
        assert_told(&served(&[(line, with)]), with, &format!("operator[0].{told}"));
    }
}

#[test]
fn a_secret_key_in_place_of_a_public_one_is_not_repeated() {
    let secret = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    let with = format!("key = \"{secret}\"");
    let text = served(&[(&format!("key = \"{NPUB_1}\""), &with)]);
    assert_told(&text, &with, "operator[0].key: a secret key (nsec)");
    assert!(!mistakes(&text).contains(secret));
}

#[test]
fn mistakes_in_the_service() {
    let amount = "max_amount_sats = 500000";
    for (line, with, told) in [
        (
            "commit_deadline = \"65m\"",
            "commit_deadline = \"10m\"",
            "commit_deadline: 600 s is not above policy.hold_deadline = 600 s",
        ),
        (
            "invite_valid = \"1h\"",
            "invite_valid = \"1d\"",
            "invite_valid: `1d` is not a duration",
        ),
        ("name = \"tellerd\"", "name = \"a\\nb\"", "name: 1 to 64 characters"),
        (
            "max_open = 50",
            "max_open = 0",
            "max_open: 0 is out of range: 1 to 100000",
        ),
        (
            "requests_per_minute = 600",
            "requests_per_minute = 0",
            "requests_per_minute: 0 is out of range",
        ),
        (
            "sats_per_day = 50000000",
            "sats_per_day = -1",
            "sats_per_day: -1 is out of range",
        ),
        (
            amount,
            "max_amount_sats = 10000001",
            "client[0].max_amount_sats: 10000001 is above max_held_sats = 10000000",
        ),
        (
            amount,
            "max_held_sats = 1",
            "client[0].max_held_sats: 1 is below max_amount_sats = 2000000",
        ),
    ] {
        assert_told(&served(&[(line, with)]), with, &format!("service.{told}"));
    }
    let held = served(&[("max_held_sats = 10000000", "max_held_sats = 1999999")]);
    let told = "service.max_amount_sats: 2000000 is above max_held_sats = 1999999";
    assert_told(&held, "max_amount_sats = 2000000", told);
    let hold = served(&[("hold_deadline = \"10m\"", "hold_deadline = \"2h\"")]);
    assert_told(
        &hold,
        "commit_deadline = \"65m\"",
        "service.commit_deadline: 3900 s is not above",
    );
}

#[test]
fn names_and_keys_of_operators_differ_and_so_do_those_of_clients() {
    let more = |text: &str| mistakes(&format!("{}\n{text}\n", served(&[])));
    for (text, told) in [
        (
            format!("[[operator]]\nname = \"ada\"\nkey = \"{OTHER}\"\nrole = \"cash\""),
            "operator[1].name: the same as operator[0].name",
        ),
        (
            format!("[[operator]]\nname = \"bo\"\nkey = \"{KEY}\"\nrole = \"cash\""),
            "operator[1].key: the same as operator[0].key",
        ),
        (
            "[[service.client]]\nname = \"kiosk\"".to_owned(),
            "service.client[1].name: the same as service.client[0].name",
        ),
        (
            format!("[[service.client]]\nname = \"bar\"\nkey = \"{KIOSK}\""),
            "service.client[1].key: the same as service.client[0].key",
        ),
    ] {
        let errors = more(&text);
        assert!(
            errors.ends_with(told) && errors.lines().count() == 1,
            "expected {told} in {errors}"
        );
    }
    let both = format!("{}\n[[service.client]]\nname = \"ada\"\nkey = \"{KEY}\"\n", served(&[]));
    let nostr = parse(&both).nostr.unwrap();
    assert_eq!(nostr.service.unwrap().clients[1].key, Some(nostr.operators[0].key));
}

/// The key of the example's client.
const KIOSK: &str = "npub1sg6plzptd64u62a878hep2kev88swjh3tw00gjsfl8f237lmu63q0uf63m";

#[test]
fn parts_that_do_not_belong_together() {
    let with = |text: &str| mistakes(&format!("{}\n{text}", spelled_out()));
    for (text, told) in [
        (
            "[[operator]]\nname = \"ada\"",
            "operator: has no effect without [nostr]",
        ),
        ("[service]\nmax_open = 1", "service: has no effect without [nostr]"),
        ("[site]\nnip44 = 1", "site: has no effect unless payments = \"nostr\""),
    ] {
        let errors = with(text);
        assert!(
            errors.contains(told) && errors.lines().count() == 1,
            "{told} in {errors}"
        );
    }
    for (text, told) in [
        (
            "[lnd]\naddress = \"h:1\"",
            "lnd: has no effect with payments = \"nostr\"",
        ),
        ("[service]\nmax_open = 1", "service: needs payments = \"lnd\""),
    ] {
        let errors = mistakes(&format!("{SITE}\n{text}"));
        assert!(
            errors.contains(told) && errors.lines().count() == 1,
            "{told} in {errors}"
        );
    }
    let wrong = mistakes(&changed(&[("payments = \"lnd\"", "payments = \"cash\"")]));
    assert!(wrong.contains("payments: \"lnd\" or \"nostr\" expected"), "{wrong}");
}

#[test]
fn a_site_without_anything_names_all_that_is_missing() {
    let told = mistakes("payments = \"nostr\"");
    assert_missing(
        &told,
        &[
            "data_dir",
            "site.service",
            "nostr.key_file",
            "nostr.relays",
            "rate.currency",
            "rate.per_btc",
            "atm",
        ],
    );
}

proptest! {
    /// A pairing string, or what is left of one, in the place of the service's key.
    #[test]
    fn no_mistake_repeats_a_token(token in "[0-9a-f]{64}", before in "(nprofile1)?[a-z0-9]{0,20}", colon in any::<bool>()) {
        let given = format!("{before}{}{token}", if colon { ":" } else { "" });
        let line = |line: &str| match line.starts_with("service = ") {
            true => format!("service = \"{given}\"\n"),
            false => format!("{line}\n"),
        };
        let text: String = SITE.lines().map(line).collect();
        prop_assert!(text.contains(&given));
        if let Err(mistakes) = Config::parse(&text, Path::new("/etc/tellerd/site.toml")) {
            prop_assert!(!mistakes.to_string().contains(&token), "{}", mistakes);
        }
    }
}
