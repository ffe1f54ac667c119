//! The example file, the defaults it documents, and how mistakes are told.

mod nostr;

use std::collections::BTreeSet;

use super::*;
use crate::cashout::{PartialPolicy, UnknownPolicy};
use crate::money::Minor;

/// With the parts that are off.
const EXAMPLE: &str = include_str!("../../../config/fleet.example.toml");

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/tellerd/fleet.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn mistakes(text: &str) -> String {
    Config::parse(text, Path::new("fleet.toml"))
        .expect_err("refused")
        .to_string()
}

/// `#key = value` without its `#`.
fn default_line(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?;
    rest.starts_with(|c: char| c.is_ascii_lowercase()).then_some(rest)
}

/// The example with every default written out.
fn spelled_out() -> String {
    with_defaults(EXAMPLE)
}

fn with_defaults(text: &str) -> String {
    let lines = text.lines().map(|line| default_line(line).unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The example with the parts on that are off.
fn all_on() -> String {
    let lines = EXAMPLE.lines().map(|line| line.strip_prefix("#? ").unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The example with each `(line, replacement)` applied; a line must be there.
fn changed(changes: &[(&str, &str)]) -> String {
    changed_in(spelled_out(), changes)
}

fn changed_in(text: String, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text, |text, (line, with)| {
        let (line, with) = (format!("\n{line}\n"), format!("\n{with}\n"));
        assert!(text.contains(&line), "no line {line:?}");
        text.replacen(&line, &with, 1)
    })
}

#[test]
fn the_example_parses_as_it_is() {
    let config = parse(EXAMPLE);
    assert_eq!(config.data_dir, Path::new("/etc/tellerd/data"));
    assert_eq!(
        config.http.token_file.as_deref(),
        Some(Path::new("/etc/tellerd/tellerd.token"))
    );
    assert_eq!(config.rate.minor_per_btc, 9_500_000);
    assert_eq!(config.atms.len(), 1);
    assert_eq!(config.atms[0].path, Path::new("/dev/ttyUSB0"));
    assert_eq!(config.atms[0].min_amount, Minor(2_000));
    assert_eq!(config.atms[0].cassettes[1].denomination, Minor(5_000));
}

#[test]
fn the_defaults_are_those_in_the_comments() {
    assert!(EXAMPLE.lines().filter_map(default_line).count() > 15);
    for text in [EXAMPLE, &all_on(), nostr::SITE] {
        let spelled_out = with_defaults(text);
        assert_ne!(text, spelled_out);
        assert_eq!(format!("{:?}", parse(text)), format!("{:?}", parse(&spelled_out)));
    }
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = parse(EXAMPLE);
    let policy = Policy {
        partial: PartialPolicy::Owe,
        unknown_at_deadline: UnknownPolicy::Cancel,
        hold_ms: 600_000,
        unknown_ms: 3_600_000,
        min_blocks_left: 12,
        force_blocks_left: 6,
        hold_expiry_delta: 18,
        cltv_expiry: 80,
        max_orders: 2,
    };
    assert_eq!(config.policy, policy);
    assert!(config.http.listen.ip().is_loopback());
}

/// An unknown key is answered with the known ones: each of them must be in the example.
#[test]
fn the_example_names_every_key() {
    let text = with_defaults(&all_on());
    let headers = text.lines().filter(|line| line.starts_with('['));
    let headers: BTreeSet<&str> = headers.collect();
    assert_eq!(headers.len(), 13, "{headers:?}");
    for header in headers {
        let header = format!("\n{header}\n");
        assert_known_are_named(&text.replacen(&header, &format!("{header}zzz = 1\n"), 1), EXAMPLE);
    }
    assert_known_are_named(&format!("zzz = 1\n{text}"), EXAMPLE);
}

fn assert_known_are_named(text: &str, example: &str) {
    let told = mistakes(text);
    let (key, known) = told.split_once(": unknown key; known here: ").expect("unknown key");
    assert!(key.ends_with("zzz") && !known.contains('\n'), "{told}");
    let separators = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let named: BTreeSet<&str> = example.split(separators).collect();
    for key in known.split(", ") {
        assert!(named.contains(key), "{key} is not in the example");
    }
}

#[test]
fn every_mistake_is_told_with_its_line_and_key() {
    let text = "\
data_dir = 5
[http]
lisen = \"127.0.0.1:1\"
[lnd]
address = \"localhost\"
tls_cert = \"c\"
deadline = \"10\"
[rate]
currency = \"eur\"
per_btc = 95000.5
[[atm]]
id = \"Lobby\"
path = \"\"
model = \"x\"
max_notes = 1000
";
    let told = mistakes(text);
    let expected = [
        "fleet.toml:1: data_dir: a string expected, found integer",
        "fleet.toml:3: http.lisen: unknown key; known here: listen, token_file",
        "fleet.toml:4: lnd.macaroon: missing",
        "fleet.toml:7: lnd.deadline: `10` is not a duration such as \"500ms\", \"10s\", \"3m\" or \"2h\"",
        "fleet.toml:9: rate.currency: `eur` is not a currency code: three capital letters (ISO 4217) expected, as in EUR",
        "fleet.toml:10: rate.per_btc: a number with decimals must be quoted, as in \"20.00\": money is never floating point",
        "fleet.toml:11: atm[0].min_amount: missing",
        "fleet.toml:11: atm[0].max_amount: missing",
        "fleet.toml:11: atm[0].cassette: missing: an ATM has at least one [[atm.cassette]]",
        "fleet.toml:12: atm[0].id: `Lobby` is not an ATM id: 1 to 32 characters a-z, 0-9 and - expected",
        "fleet.toml:13: atm[0].path: must not be empty",
        "fleet.toml:14: atm[0].model: `x` is not a model; known: puloon-lcdm4000",
        "fleet.toml:15: atm[0].max_notes: 1000 is out of range: 1 to 100",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn text_that_is_not_toml_is_told_with_its_line() {
    let told = mistakes(&changed(&[("currency = \"EUR\"", "currency = EUR")]));
    let line = 1 + spelled_out()
        .lines()
        .position(|line| line.starts_with("currency"))
        .unwrap();
    assert!(told.starts_with(&format!("fleet.toml:{line}: ")), "{told}");
    let twice = mistakes(&changed(&[(
        "currency = \"EUR\"",
        "currency = \"EUR\"\ncurrency = \"EUR\"",
    )]));
    assert!(twice.contains("duplicate key"), "{twice}");
}

#[test]
fn an_empty_file_names_all_that_is_missing() {
    let told = mistakes("");
    assert_missing(
        &told,
        &[
            "data_dir",
            "lnd.address",
            "lnd.tls_cert",
            "lnd.macaroon",
            "rate.currency",
            "rate.per_btc",
            "atm",
        ],
    );
}

#[test]
fn values_that_contradict_each_other() {
    let policy = "min_blocks_left = 12";
    for (changes, told) in [
        (
            &[(policy, "min_blocks_left = 62")][..],
            "policy.min_blocks_left: 62 is not below",
        ),
        (
            &[("cltv_expiry = 80", "cltv_expiry = 18")],
            "policy.min_blocks_left: 12 is not below",
        ),
        (
            &[("force_blocks_left = 6", "force_blocks_left = 13")],
            "policy.force_blocks_left: 13 is above",
        ),
        (
            &[("partial = \"owe\"", "partial = \"absorb\"")],
            "policy.absorb_limit: missing",
        ),
        (
            &[("partial = \"owe\"", "absorb_limit = 5")],
            "policy.absorb_limit: has no effect",
        ),
        (
            &[
                ("listen = \"127.0.0.1:9377\"", "listen = \"0.0.0.0:9377\""),
                ("token_file = \"tellerd.token\"", ""),
            ],
            "http.listen: 0.0.0.0:9377 can be reached",
        ),
        (
            &[("address = \"127.0.0.1:10009\"", "address = \"localhost\"")],
            "lnd.address: LND's address",
        ),
        (
            &[("max_orders = 2", "max_orders = 0")],
            "policy.max_orders: 0 is out of range",
        ),
        (
            &[("min_amount = \"20.00\"", "min_amount = 501")],
            "atm[0].min_amount: 501.00 is above max_amount",
        ),
        (
            &[
                ("min_amount = \"20.00\"", "min_amount = 5"),
                ("max_amount = \"500.00\"", "max_amount = 19"),
            ],
            "atm[0].max_amount: 19.00 is below the smallest note",
        ),
        (
            &[
                ("max_notes = 40", "max_notes = 1"),
                ("min_amount = \"20.00\"", "min_amount = 60"),
            ],
            "atm[0].min_amount: 60.00 is more than max_notes = 1",
        ),
        (
            &[
                ("min_amount = \"20.00\"", "min_amount = 51"),
                ("max_amount = \"500.00\"", "max_amount = 59"),
            ],
            "atm[0].min_amount: no amount from 51.00 to 59.00",
        ),
        (
            &[("position = 2", "position = 1")],
            "atm[0].cassette[1].position: the same as atm[0].cassette[0].position",
        ),
        (
            &[("denomination = \"50.00\"", "denomination = 0")],
            "atm[0].cassette[1].denomination: must be more than zero",
        ),
    ] {
        let errors = mistakes(&changed(changes));
        assert!(
            errors.contains(told) && errors.lines().count() == 1,
            "expected {told} in {errors}"
        );
    }
    assert_eq!(
        parse(&changed(&[(policy, "min_blocks_left = 61")]))
            .policy
            .min_blocks_left,
        61
    );
}

#[test]
fn an_empty_list_is_as_good_as_none() {
    let told = mistakes(&format!("cassette = []\n{}", "atm = [{ cassette = [] }]"));
    assert!(told.contains("atm[0].cassette: missing"), "{told}");
    assert!(mistakes("atm = []").contains("atm: missing"));
}

#[test]
fn lnd_by_uri() {
    let three = [
        ("tls_cert = \"lnd/tls.cert\"", ""),
        ("macaroon = \"lnd/tellerd.macaroon\"", ""),
    ];
    let uri = "uri = \"lndconnect://h:1?cert=MIIB&macaroon=AgEDbG5k\"";
    let address = "address = \"127.0.0.1:10009\"";
    let config = parse(&changed(&[three[0], three[1], (address, uri)]));
    assert!(!format!("{config:?}").contains("AgEDbG5k"));
    let both = mistakes(&changed(&[(address, uri)]));
    assert!(
        both.contains("lnd.macaroon: uri is given too") && !both.contains("AgEDbG5k"),
        "{both}"
    );
    let bad = mistakes(&changed(&[
        three[0],
        three[1],
        (address, "uri = \"lndconnect://h:1?cert=MIIB\""),
    ]));
    assert!(bad.contains("lnd.uri: ") && bad.contains("no macaroon"), "{bad}");
}

fn second_atm(id: &str, path: &Path) -> String {
    let (path, base) = (path.display(), spelled_out());
    format!(
        "{base}\n[[atm]]\nid = \"{id}\"\nmodel = \"puloon-lcdm4000\"\npath = \"{path}\"\nmin_amount = 20\n\
         max_amount = 100\n[[atm.cassette]]\nposition = 1\ndenomination = 20\nnotes = 5\n\
         [atm.timings]\nack_ms = 50\n"
    )
}

#[test]
fn two_atms_need_two_ids_and_two_ports() {
    let config = parse(&second_atm("hall", Path::new("/dev/ttyUSB1")));
    assert_eq!(config.atms[1].timings.ack, Some(Duration::from_millis(50)));
    assert_eq!(config.atms[1].name, "hall");
    let told = mistakes(&second_atm("lobby", Path::new("/dev/ttyUSB0")));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].ends_with("atm[1].id: the same as atm[0].id"), "{told}");
    assert!(lines[1].ends_with("atm[1].path: the same as atm[0].path"), "{told}");
}

#[test]
fn a_symlink_to_a_taken_port_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (port, link) = (folder.path().join("port"), folder.path().join("link"));
    std::fs::write(&port, "").unwrap();
    std::os::unix::fs::symlink(&port, &link).unwrap();
    let text = second_atm("hall", &link).replacen("/dev/ttyUSB0", &port.display().to_string(), 1);
    let told = mistakes(&text);
    assert!(told.ends_with("atm[1].path: the same as atm[0].path"), "{told}");
}

#[test]
fn a_file_is_loaded_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.toml");
    let missing = Config::load(&path).unwrap_err();
    assert!(missing.to_string().contains("fleet.toml: No such file"), "{missing}");
    std::fs::write(&path, EXAMPLE).unwrap();
    assert_eq!(Config::load(&path).unwrap().data_dir, folder.path().join("data"));
}

/// Exactly these keys are told as missing.
fn assert_missing(told: &str, keys: &[&str]) {
    for key in keys {
        assert!(
            told.contains(&format!("fleet.toml:1: {key}: missing")),
            "{key} in {told}"
        );
    }
    assert_eq!(told.lines().count(), keys.len(), "{told}");
}
