//! The clients of the service: over the command line with a daemon, and what the journal and the roster hold.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use nostr::nips::nip19::{FromBech32, Nip19Profile};
use tellerd::actors::child::ChildId;
use tellerd::actors::clients::ClientError;
use tellerd::actors::fleet::FleetError;
use tellerd::clients::EnrollError;
use tellerd::config::key::VARIABLE;
use tellerd::ids::NostrKey;
use tellerd::nostr::method::PairingToken;

use crate::fleet_rig::{Plan, Rig, run, run_in, until};
use crate::rig::{Daemon, Rig as World, breath};

const SERVICE: &str = "[nostr]\nkey_file = 'nostr.key'\nrelays = ['ws://127.0.0.1:1', 'ws://127.0.0.1:2']\n\
                       [service]\n[[service.client]]\nname = 'fixed'\n\
                       key = '79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'\n";
const FIXED: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

fn served() -> Plan {
    Plan {
        more: SERVICE,
        ..Plan::default()
    }
}

fn name(text: &str) -> tellerd::ids::ClientName {
    text.parse().unwrap()
}

fn key(n: u8) -> NostrKey {
    NostrKey([n; 32])
}

async fn invite(rig: &Rig, client: &str) -> PairingToken {
    let invitation = rig.fleet.invite(name(client), "ada".into()).await.expect("invited");
    let (_, token) = invitation.pairing.split_once(':').expect("token");
    PairingToken::read_text(token).expect("token")
}

async fn states(rig: &Rig) -> Vec<String> {
    let views = rig.fleet.clients().await.expect("clients");
    views
        .iter()
        .map(|view| format!("{} {}", view.name, view.state))
        .collect()
}

fn journal(dir: &Path) -> String {
    let files = std::fs::read_dir(dir.join("data/journal")).expect("journal");
    let read = |file: std::fs::DirEntry| String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned();
    files.map(|file| read(file.unwrap())).collect()
}

#[test]
fn a_token_makes_one_client_and_the_roster_follows() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    run_in(&dir, served(), async |rig| {
        let mut roster = rig.fleet.roster();
        assert!(roster.borrow_and_update().knows(&FIXED.parse().unwrap()));
        let token = invite(rig, "kiosk").await;
        assert_eq!(states(rig).await, ["fixed active", "kiosk invited"]);
        assert!(!journal(dir.path()).contains(token.expose()), "only the hash is kept");
        assert!(journal(dir.path()).contains(&token.hash().to_string()));
        let both = tokio::join!(
            rig.fleet.enroll(token.hash(), key(1)),
            rig.fleet.enroll(token.hash(), key(2))
        );
        assert_eq!(both.0.expect("the first"), name("kiosk"));
        assert!(
            matches!(both.1, Err(ClientError::Enroll(EnrollError::Unknown))),
            "{:?}",
            both.1
        );
        assert!(roster.has_changed().unwrap() && roster.borrow_and_update().knows(&key(1)));
        let bar = invite(rig, "bar").await;
        let taken = rig.fleet.enroll(bar.hash(), key(1)).await.expect_err("taken");
        assert!(taken.to_string().contains("kiosk"), "{taken}");
        assert_eq!(states(rig).await, ["bar invited", "fixed active", "kiosk active"]);
    });
    run_in(&dir, served(), async |rig| {
        assert!(rig.fleet.roster().borrow().knows(&key(1)), "after a restart");
        let view = rig.fleet.revoke(name("kiosk"), "ada".into()).await.expect("revoked");
        assert_eq!((view.state.as_str(), view.key), ("revoked", None));
        assert!(!rig.fleet.roster().borrow().knows(&key(1)));
        rig.fleet.revoke(name("kiosk"), "ada".into()).await.expect("again");
        assert_eq!(journal(dir.path()).matches("\"revoked\"").count(), 1);
        assert_eq!(states(rig).await, ["bar invited", "fixed active", "kiosk revoked"]);
    });
}

#[test]
fn what_the_configuration_says_is_not_changed_here() {
    run(served(), async |rig| {
        for refused in [
            rig.fleet.invite(name("fixed"), "ada".into()).await.map(drop),
            rig.fleet.revoke(name("fixed"), "ada".into()).await.map(drop),
        ] {
            let told = refused.expect_err("refused").to_string();
            assert!(told.contains("fixed has its key in the configuration"), "{told}");
        }
        let nobody = rig.fleet.revoke(name("nobody"), "ada".into()).await;
        assert!(matches!(nobody, Err(FleetError::NoSuchClient(_))));
    });
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    run_in(&dir, Plan::default(), async |rig| {
        let refused = [
            rig.fleet.clients().await.map(drop),
            rig.fleet.invite(name("kiosk"), "ada".into()).await.map(drop),
            rig.fleet.revoke(name("kiosk"), "ada".into()).await.map(drop),
        ];
        for refused in refused {
            let told = refused.expect_err("refused").to_string();
            assert!(told.contains("there is no [service]"), "{told}");
        }
    });
}

#[test]
fn what_is_not_durable_is_not_so() {
    run(served(), async |rig| {
        let token = invite(rig, "kiosk").await;
        rig.disk.fill("enrolled");
        let failed = rig.fleet.enroll(token.hash(), key(1)).await.expect_err("full");
        assert!(matches!(failed, ClientError::Journal(_)), "{failed}");
        assert!(!rig.fleet.roster().borrow().knows(&key(1)));
        assert_eq!(states(rig).await, ["fixed active", "kiosk invited"]);
        rig.disk.free();
        rig.fleet
            .enroll(token.hash(), key(1))
            .await
            .expect("the same token again");
    });
}

/// Nobody waits for the answer: the roster follows the journal all the same.
#[test]
fn a_change_goes_on_without_its_caller() {
    run(served(), async |rig| {
        let token = invite(rig, "kiosk").await;
        let mut roster = rig.fleet.roster();
        {
            let enrolling = rig.fleet.enroll(token.hash(), key(1));
            let gave_up = futures_util::FutureExt::now_or_never(enrolling);
            assert!(gave_up.is_none());
        }
        let follows = roster.wait_for(|roster| roster.knows(&key(1)));
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), follows).await;
        assert!(waited.expect("in time").is_ok());
    });
}

/// Whatever became of a change when the journal's actor died over it, all agree on it afterwards.
#[test]
fn the_roster_follows_the_journal_through_its_deaths() {
    let plan = Plan {
        supervision: "max_restarts = 1000",
        ..served()
    };
    run(plan, async |rig| {
        for n in 1..=4 {
            let token = invite(rig, "kiosk").await;
            let enrolling = rig.fleet.enroll(token.hash(), key(n));
            let (enrolled, ()) = tokio::join!(enrolling, rig.fleet.make_panic(ChildId::Journal));
            until("the journal", async || rig.fleet.clients().await.is_ok()).await;
            let views = rig.fleet.clients().await.expect("clients");
            let in_journal = views.iter().any(|view| view.key == Some(key(n)));
            assert_eq!(rig.fleet.roster().borrow().knows(&key(n)), in_journal, "{enrolled:?}");
            assert!(enrolled.is_err() || in_journal, "acknowledged and lost");
        }
    });
}

fn tellerd(world: &World, daemon: &Daemon, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tellerd"));
    let api = daemon.base().expect("it serves");
    command.arg("client").args(words).arg("--api").arg(api);
    command
        .env("USER", "ada")
        .env_remove("RUST_LOG")
        .env_remove("TELLERD_TOKEN");
    if words.first() != Some(&"list") {
        command.arg("--token-file").arg(world.path("token"));
    }
    command.output().expect("tellerd")
}

fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

async fn serves(world: &World, variables: &[(&str, String)]) -> Daemon {
    let daemon = world.daemon(variables);
    until("the API", async || daemon.base().is_some()).await;
    daemon
}

/// A service without machines of its own.
fn serving_world() -> World {
    let world = World::new(&[]);
    let config = std::fs::read_to_string(world.path("fleet.toml")).unwrap();
    let config = config.replace("[http]\n", "[http]\ntoken_file = 'token'\n") + SERVICE;
    std::fs::write(world.path("fleet.toml"), config).unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_in_the_environment_goes_before_the_file() {
    let world = serving_world();
    let keys = nostr::Keys::generate();
    let mut daemon = serves(&world, &[(VARIABLE, keys.secret_key().to_secret_hex())]).await;
    let (pairing, _) = printed(&tellerd(&world, &daemon, &["add", "kiosk"]));
    let profile = Nip19Profile::from_bech32(pairing.split(':').next().unwrap()).expect("nprofile");
    assert_eq!(profile.public_key, keys.public_key());
    daemon.terminate().await;
    assert!(!world.path("nostr.key").exists());
    let mut daemon = world.daemon(&[(VARIABLE, "not-a-key-at-all".to_owned())]);
    while daemon.ended().is_none() {
        breath().await;
    }
    until("its last words", async || daemon.log().contains(VARIABLE)).await;
    assert!(!daemon.log().contains("not-a-key-at-all"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_over_the_command_line() {
    let world = serving_world();
    let mut daemon = serves(&world, &[]).await;
    let (pairing, told) = printed(&tellerd(&world, &daemon, &["add", "kiosk"]));
    assert!(
        told.contains("Give this to kiosk. It works once, within ") && told.lines().count() == 1,
        "{told}"
    );
    let (profile, token) = pairing.trim_end().split_once(':').expect("a pairing string");
    assert_eq!((pairing.lines().count(), token.len()), (1, 64));
    let profile = Nip19Profile::from_bech32(profile).expect("nprofile");
    assert_eq!(profile.relays.len(), 2);
    let secret = std::fs::read_to_string(world.path("nostr.key")).unwrap();
    let keys = nostr::Keys::parse(secret.trim()).unwrap();
    assert_eq!(profile.public_key, keys.public_key());
    assert!(!daemon.log().contains(token) && !daemon.log().contains(secret.trim()));
    let (_, refused) = printed(&tellerd(&world, &daemon, &["add", "fixed"]));
    assert!(refused.contains("fixed has its key in the configuration"), "{refused}");
    daemon.terminate().await;

    let mut daemon = serves(&world, &[]).await;
    let (list, _) = printed(&tellerd(&world, &daemon, &["list"]));
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("fixed ") && lines[0].contains(FIXED), "{list}");
    assert!(lines[1].starts_with("kiosk ") && lines[1].contains("invited"), "{list}");
    let (revoked, _) = printed(&tellerd(&world, &daemon, &["revoke", "kiosk", "--by", "bo"]));
    assert!(
        revoked.starts_with("kiosk ") && revoked.contains("revoked"),
        "{revoked}"
    );
    let nobody = tellerd(&world, &daemon, &["revoke", "nobody"]);
    assert!(!nobody.status.success() && printed(&nobody).1.contains("no client is called nobody"));
    daemon.terminate().await;
    assert!(journal(&world.path("")).contains("\"by\":\"bo\""));
}
