//! `tellerd --via`: the command line of an operator elsewhere, over an embedded relay, against a real daemon.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use nostr::nips::nip19::{Nip19Profile, ToBech32};
use nostr::{Keys, PublicKey, RelayUrl};
use tellerd::config::key::VARIABLE;
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::Setup;
use tellerd::sim::relay::{RelayHandle, RelayOptions};

use crate::fleet_rig::until;
use crate::rig::{Daemon, Machine, Rig as World};

/// No relay is there: a port of privileged programs, which no test is given.
const NOWHERE: &str = "ws://127.0.0.1:1";

/// What a command printed, and whether it was a success.
struct Told {
    ok: bool,
    out: String,
    err: String,
}

impl Told {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            ok: output.status.success(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    fn succeeds(&self) -> &str {
        assert!(self.ok, "{}", self.err);
        &self.out
    }

    fn fails(&self, words: &[&str]) {
        assert!(!self.ok && self.out.is_empty(), "{}", self.out);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// An operator's own machine: without the daemon's files and variables.
fn tellerd(words: &[&str], variable: Option<&str>) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tellerd"));
    command.args(words).env("USER", "ada");
    for name in ["RUST_LOG", "TELLERD_TOKEN", VARIABLE] {
        command.env_remove(name);
    }
    if let Some(key) = variable {
        command.env(VARIABLE, key);
    }
    Told::new(&command.output().expect("tellerd"))
}

/// A daemon with one machine, on Nostr, with two operators whose keys `tellerd key` made.
struct Remote {
    world: World,
    relay: RelayHandle,
    daemon: Daemon,
    service: PublicKey,
}

impl Remote {
    async fn new() -> Self {
        let setup = Setup::default();
        let variant = Variant::Standard;
        let world = World::new(&[Machine { variant, setup }]);
        let relay = RelayHandle::start(RelayOptions::default()).await.expect("relay");
        let mut config = std::fs::read_to_string(world.path("fleet.toml")).unwrap();
        config += &format!("[nostr]\nkey_file = 'nostr.key'\nrelays = ['{}']\n", relay.url());
        for (name, role) in [("ada", "cash"), ("eve", "viewer")] {
            let npub = Self::key(&world.path(name));
            config += &format!("[[operator]]\nname = '{name}'\nkey = '{npub}'\nrole = '{role}'\n");
        }
        std::fs::write(world.path("fleet.toml"), config).unwrap();
        let daemon = world.daemon(&[]);
        until("a ready machine", async || daemon.is_ready().await).await;
        relay.until(|counts| counts.requests > 0).await;
        let secret = std::fs::read_to_string(world.path("nostr.key")).unwrap();
        let service = Keys::parse(secret.trim()).unwrap().public_key();
        Self {
            world,
            relay,
            daemon,
            service,
        }
    }

    /// As an operator makes it.
    fn key(file: &PathBuf) -> String {
        let made = tellerd(&["key", "--key-file", file.to_str().unwrap()], None);
        let npub = made.succeeds().trim().to_owned();
        let again = tellerd(&["--key-file", file.to_str().unwrap(), "key"], None);
        assert_eq!(again.succeeds().trim(), npub, "{}", again.err);
        assert!(npub.starts_with("npub1"), "{npub}");
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        npub
    }

    fn profile(&self, key: PublicKey, relay: &str) -> String {
        let profile = Nip19Profile::new(key, [RelayUrl::parse(relay).unwrap()]);
        format!("nostr:{}", profile.to_bech32().unwrap())
    }

    fn via(&self) -> String {
        self.profile(self.service, self.relay.url().as_str())
    }

    /// With the key of `name`.
    fn asks(&self, name: &str, words: &[&str]) -> Told {
        let (via, file) = (self.via(), self.world.path(name));
        let options = ["--via", &via, "--key-file", file.to_str().unwrap()];
        tellerd(&[&options, words].concat(), None)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_work_from_anywhere() {
    let mut remote = Remote::new().await;
    let listed = remote.asks("eve", &["atm", "list"]);
    assert!(listed.succeeds().starts_with("atm1 "), "{}", listed.out);
    assert!(listed.out.contains(" ready ") && listed.out.contains("cassette 1: 500 notes of 20.00"));
    remote.asks("eve", &["atm", "drain", "atm1"]).fails(&[
        "this key has the role viewer; that needs cash",
        "[[operator]]",
        &Remote::key(&remote.world.path("eve")),
    ]);
    let drained = remote.asks("ada", &["atm", "drain", "atm1"]);
    assert!(drained.succeeds().contains("draining"), "{}", drained.out);
    let loaded = remote.asks("ada", &["atm", "load", "atm1", "--cassette", "1:20.00:77"]);
    assert!(loaded.succeeds().contains("cassette 1: 77 notes"), "{}", loaded.out);
    let resumed = remote.asks("ada", &["atm", "resume", "atm1"]);
    resumed.succeeds();
    for list in [["list"].as_slice(), &["list", "--open"], &["list", "--limit", "120"]] {
        assert_eq!(remote.asks("eve", list).succeeds(), "");
    }
    remote
        .asks("eve", &["list", "--open", "--atm", "none"])
        .fails(&["no ATM is called none"]);
    let resolve = ["resolve", "00000000000000FF", "--close"];
    remote.asks("ada", &resolve).fails(&["that needs operator"]);
    remote
        .asks("ada", &["atm", "drain", "atm9"])
        .fails(&["no ATM is called atm9 [not_found]"]);

    // The name of the tellerd, as its own key file gives it.
    let file = remote.world.path("nostr.key");
    let url = remote.relay.url().to_string();
    let named = tellerd(&["key", "--key-file", file.to_str().unwrap(), "--relay", &url], None);
    let name = named.succeeds().lines().nth(1).expect("a name");
    assert_eq!(name, remote.via());

    // The options after the command, another way to name the tellerd, and the key in a variable.
    let secret = std::fs::read_to_string(remote.world.path("ada")).unwrap();
    let npub = remote.service.to_bech32().unwrap();
    for key in [npub, remote.service.to_hex()] {
        let words = ["atm", "list", "--via", &key, "--relay", NOWHERE, "--relay", &url];
        let listed = tellerd(&words, Some(secret.trim()));
        assert!(listed.succeeds().starts_with("atm1 "), "{}", listed.out);
    }
    remote.daemon.terminate().await;
    let data = remote.world.path("data");
    let exported = tellerd(&["journal", "export", "--data", data.to_str().unwrap()], None);
    let orders = exported
        .succeeds()
        .lines()
        .filter(|line| line.contains("\"item\":\"order\""));
    assert_eq!(
        orders.count(),
        4,
        "three that acted, one for a machine that is not there: {}",
        exported.out
    );
    assert!(exported.out.contains("\"by\":\"ada (nostr "), "{}", exported.out);
    let csv = ["journal", "export", "--format", "csv", "--data", data.to_str().unwrap()];
    assert!(tellerd(&csv, None).succeeds().contains(",order,"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_on_the_way_is_told() {
    let remote = Remote::new().await;
    let stranger = Remote::key(&remote.world.path("stranger"));
    let not_here = ["this key is not an operator here", "[[operator]]", &stranger];
    remote.asks("stranger", &["atm", "list"]).fails(&not_here);

    let ada = remote.world.path("ada");
    let ada = ["--key-file", ada.to_str().unwrap()];
    let offline = remote.profile(remote.service, NOWHERE);
    let words = [["--via", &offline].as_slice(), &ada, &["atm", "list"]].concat();
    tellerd(&words, None).fails(&["no relay can be reached", NOWHERE]);

    // Nobody answers to that key.
    let nobody = remote.profile(Keys::generate().public_key(), remote.relay.url().as_str());
    let words = [["--via", &nobody].as_slice(), &ada, &["atm", "drain", "atm1"]].concat();
    let told = ["no answer", "--via", "clocks", "THE ORDER MAY HAVE BEEN CARRIED OUT"];
    tellerd(&words, None).fails(&told);
}

#[test]
fn bad_words_are_told_by_the_name_of_their_option() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    Remote::key(&file);
    let file = file.to_str().unwrap();
    let keys = Keys::generate();
    let npub = keys.public_key().to_bech32().unwrap();
    let nsec = keys.secret_key().to_bech32().unwrap();
    let pairing = format!("{npub}:{}", "ab".repeat(32));
    let missing = dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    let open = dir.path().join("open");
    std::fs::write(&open, keys.secret_key().to_secret_hex()).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = open.to_str().unwrap();
    let with = |words: &[&str]| {
        [&["--key-file", file, "--via"], words]
            .concat()
            .iter()
            .map(|w| (*w).to_owned())
            .collect()
    };
    let plain = |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).to_owned()).collect() };
    let cases: Vec<(Vec<String>, &[&str])> = vec![
        (with(&["npub1xyz", "list"]), &["--via", "not a public key"]),
        (with(&["nostr:nprofile1xyz", "list"]), &["--via", "not an nprofile"]),
        (with(&[&nsec, "list"]), &["--via", "secret key"]),
        (with(&[&pairing, "list"]), &["--via", "pairing string"]),
        (with(&[&npub, "list"]), &["names no relay", "--relay"]),
        (with(&[&npub, "--relay", "http://x", "list"]), &["--relay", "ws://"]),
        (
            with(&[&npub, "--relay", NOWHERE, "list", "--api", "http://x"]),
            &["--api", "--via"],
        ),
        (
            with(&[&npub, "--relay", NOWHERE, "list", "--config", "x"]),
            &["--config", "--via"],
        ),
        (
            with(&[&npub, "--relay", NOWHERE, "list", "--token-file", "x"]),
            &["--token-file", "--via"],
        ),
        (
            with(&[&npub, "--relay", NOWHERE, "atm", "drain", "a", "--by", "x"]),
            &["--by", "the key says"],
        ),
        (
            with(&[&npub, "cashout", "--atm", "a", "--amount", "20"]),
            &["--via", "only list, resolve and atm"],
        ),
        (
            with(&[&npub, "client", "list"]),
            &["--via", "only list, resolve and atm"],
        ),
        (with(&[&npub, "key"]), &["--via", "only list, resolve and atm"]),
        (
            plain(&["list", "--relay", NOWHERE]),
            &["--relay has no effect without --via"],
        ),
        (
            plain(&["list", "--key-file", file]),
            &["--key-file has no effect without --via"],
        ),
        (plain(&["check", "--config", "x", "--key-file", file]), &["--key-file"]),
        (
            plain(&["list", "--via", &npub, "--relay", NOWHERE]),
            &["--key-file", VARIABLE, "tellerd key"],
        ),
        (
            plain(&["list", "--via", &npub, "--relay", NOWHERE, "--key-file", missing]),
            &["--key-file", "tellerd key"],
        ),
        (
            plain(&["list", "--via", &npub, "--relay", NOWHERE, "--key-file", open]),
            &["--key-file", "mode 644"],
        ),
        (plain(&["key"]), &["--key-file"]),
    ];
    for (words, expected) in cases {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let told = tellerd(&words, None);
        told.fails(expected);
        let secrets = [nsec.clone(), keys.secret_key().to_secret_hex(), "ab".repeat(32)];
        assert!(!secrets.iter().any(|secret| told.err.contains(secret)), "{}", told.err);
    }
    let bad = tellerd(&["list", "--via", &npub, "--relay", NOWHERE], Some("not-a-key"));
    bad.fails(&[VARIABLE]);
    assert!(!bad.err.contains("not-a-key"), "{}", bad.err);
    assert!(
        !std::path::Path::new(missing).exists(),
        "nothing is made that was not asked for"
    );
}
