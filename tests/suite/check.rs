//! `tellerd check` as a process against the simulated LND: each thing that can be wrong is a line and an exit status.
#![allow(clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use tellerd::lnd::{Lightning, LndClient, LndConfig, LndLocation};
use tellerd::proto::lnrpc::{Channel, ChannelConstraints, Htlc, WalletState};
use tellerd::sim::lnd::{Fault, PayOptions, SimHandle, SimLnd, SimLndOptions, TELLERD_MACAROON};
use tellerd::time::{Clock, ManualClock, SystemClock, UnixMs};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::lnd_fake::{Certificate, FakeLnd, Files, MACAROON};

/// A served node, and a configuration of a fleet with one machine.
struct World {
    dir: tempfile::TempDir,
    lnd: SimHandle,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.lnd.shutdown();
        self.serving.abort();
    }
}

/// What the command said.
struct Said {
    code: Option<i32>,
    lines: Vec<String>,
}

impl World {
    fn new(options: &SimLndOptions) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let sim = SimLnd::open(&dir.path().join("lnd"), options).expect("sim");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let lnd = sim.handle();
        let served = sim.serve(listener);
        Self {
            dir,
            lnd,
            address,
            serving: tokio::spawn(async move { served.await.expect("served") }),
        }
    }

    fn config(&self) -> String {
        format!(
            "data_dir = 'data'\n[http]\nlisten = '127.0.0.1:0'\n\
             [lnd]\naddress = '{}'\ntls_cert = 'lnd/tls.cert'\nmacaroon = 'lnd/{TELLERD_MACAROON}'\ndeadline = '5s'\n\
             [rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n\
             [[atm]]\nid = 'left'\nmodel = 'puloon-lcdm4000'\npath = 'left'\nmin_amount = '20.00'\nmax_amount = '500.00'\n\
             [[atm.cassette]]\nposition = 1\ndenomination = '20.00'\nnotes = 100\n",
            self.address
        )
    }

    async fn check(&self, config: &str) -> Said {
        check(self.dir.path(), config, &[]).await
    }

    fn client(&self) -> LndClient {
        let folder = self.dir.path().join("lnd");
        let location = LndLocation::Files {
            address: self.address.to_string(),
            tls_cert: folder.join("tls.cert"),
            macaroon: folder.join(TELLERD_MACAROON),
        };
        LndClient::new(&LndConfig::new(location)).expect("client")
    }
}

async fn check(dir: &Path, config: &str, more: &[&str]) -> Said {
    std::fs::write(dir.join("fleet.toml"), config).expect("config");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tellerd"));
    command
        .current_dir(dir)
        .args(["check", "--config", "fleet.toml"])
        .args(more);
    let output = command.kill_on_drop(true).output().await.expect("run");
    let text = String::from_utf8(output.stdout).expect("text");
    Said {
        code: output.status.code(),
        lines: text.lines().map(str::to_owned).collect(),
    }
}

impl Said {
    /// What is not good. The simulated LND does not know the two calls that follow settled money.
    fn bad(&self) -> Vec<&str> {
        let bad = self.lines.iter().map(String::as_str);
        bad.filter(|line| line.starts_with("warning ") || line.starts_with("problem "))
            .collect()
    }

    /// Exactly one line is a problem: it says all this. And the exit status tells.
    #[track_caller]
    fn problem(&self, words: &[&str]) {
        let problems: Vec<&String> = self.lines.iter().filter(|line| line.starts_with("problem ")).collect();
        let [line] = problems.as_slice() else {
            panic!("one problem expected: {:#?}", self.lines);
        };
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{words:?} are not all in: {line}"
        );
        assert_eq!(self.code, Some(1), "{:#?}", self.lines);
        assert!(
            self.lines.last().is_some_and(|line| line.starts_with("problems: 1, ")),
            "{:#?}",
            self.lines
        );
    }
}

#[tokio::test]
async fn a_good_node_with_the_documented_macaroon() {
    let world = World::new(&SimLndOptions::default());
    let said = world.check(&world.config()).await;
    assert_eq!(said.code, Some(0), "{:#?}", said.lines);
    assert_eq!(said.bad(), Vec::<&str>::new());
    for line in [
        "fleet.toml: valid; ATMs: left",
        "ok       state: LND has fully started",
        "ok       clock: LND's clock is within 60 s of this machine's",
        "ok       right: AddHoldInvoice is allowed",
        "ok       right: SubscribeSingleInvoice is allowed",
        "ok       right: RegisterBlockEpochNtfn is allowed",
        "ok       macaroon: it does not allow WalletBalance, as a right that is not needed",
        "ok       delta: LND's invoices.holdexpirydelta is 18; hold_expiry_delta is the same",
    ] {
        assert!(
            said.lines.iter().any(|said| said == line),
            "`{line}` is not in {:#?}",
            said.lines
        );
    }
    assert_eq!(world.lnd.ledger().expect("ledger").invoices, [], "nothing was added");
}

#[tokio::test]
async fn only_the_file_is_checked_when_offline() {
    let world = World::new(&SimLndOptions::default());
    let nowhere = world.config().replace(&world.address.to_string(), "127.0.0.1:1");
    let said = check(world.dir.path(), &nowhere, &["--offline"]).await;
    assert_eq!(
        (said.code, said.lines),
        (Some(0), vec!["fleet.toml: valid; ATMs: left".to_owned()])
    );
    world
        .check(&nowhere)
        .await
        .problem(&["connection", "127.0.0.1:1", "refused", "does LND run there"]);
    let mistake = check(world.dir.path(), &nowhere.replace("'20.00'", "'x'"), &[]).await;
    assert_eq!(
        (mistake.code, mistake.lines.len()),
        (Some(1), 0),
        "no node is asked for a file with mistakes"
    );
}

#[tokio::test]
async fn the_command_that_bakes_needs_no_file() {
    let output = Command::new(env!("CARGO_BIN_EXE_tellerd"))
        .args(["check", "--bake"])
        .output()
        .await
        .expect("run");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.trim_end(), tellerd::lnd::permissions::bake_command());
}

#[tokio::test]
async fn a_macaroon_that_is_too_weak_or_too_strong_or_no_ones() {
    let world = World::new(&SimLndOptions::default());
    let with = |name: &str| world.config().replace(TELLERD_MACAROON, name);
    let weak = world.check(&with("readonly.macaroon")).await;
    assert_eq!(weak.code, Some(1));
    let bad = weak.bad();
    for (line, call) in bad.iter().zip(["AddHoldInvoice", "SettleInvoice", "CancelInvoice"]) {
        let begin = format!("problem  right: {call} is not allowed (permission denied)");
        assert!(line.starts_with(&begin), "{line}");
    }
    assert!(bad[3].starts_with("warning  macaroon: it allows more"), "{bad:#?}");
    assert_eq!(bad.len(), 4, "{bad:#?}");

    let strong = world.check(&with("admin.macaroon")).await;
    assert_eq!(strong.code, Some(0));
    assert!(matches!(strong.bad()[..], [line] if line.starts_with("warning  macaroon: it allows more")));

    std::fs::write(world.dir.path().join("lnd/no.macaroon"), b"\x02\x01").expect("write");
    world.check(&with("no.macaroon")).await.problem(&[
        "macaroon",
        "unmarshal v2: varint value extends past end of buffer",
        "--bake",
    ]);
    world
        .check(&with("missing.macaroon"))
        .await
        .problem(&["macaroon", "missing.macaroon", "No such file"]);
}

#[tokio::test]
async fn a_nodes_words_are_one_printable_line() {
    let world = World::new(&SimLndOptions::default());
    let words = Fault::Fail {
        method: "SettleInvoice".into(),
        count: 1,
        code: 2,
        text: "permission denied\r\u{1b}[2K\nok       \u{202e}right: \"all\"".into(),
    };
    world.lnd.inject(words).expect("denied");
    let escaped = r#"(permission denied\r\u{1b}[2K\nok       \u{202e}right: "all")"#;
    world
        .check(&world.config())
        .await
        .problem(&["SettleInvoice is not allowed", escaped]);
}

#[tokio::test]
async fn an_error_that_is_not_about_the_macaroon_says_nothing_of_a_right() {
    let world = World::new(&SimLndOptions::default());
    let gone = Fault::Fail {
        method: "LookupHtlcResolution".into(),
        count: 1,
        code: 14,
        text: "no healthy upstream".into(),
    };
    world.lnd.inject(gone).expect("a fault");
    let said = world.check(&world.config()).await;
    let words = "warning  right: it can not be told whether LookupHtlcResolution is allowed: no healthy upstream";
    assert_eq!((said.code, said.bad()), (Some(0), vec![words]));
    let world = World::new(&SimLndOptions {
        final_resolutions: false,
        ..SimLndOptions::default()
    });
    let said = world.check(&world.config()).await;
    assert!(matches!(said.bad()[..], [line] if line.starts_with("warning  resolutions")));
}

#[tokio::test]
async fn another_certificate_is_named() {
    let world = World::new(&SimLndOptions::default());
    drop(SimLnd::open(&world.dir.path().join("other"), &SimLndOptions::default()).expect("sim"));
    let said = world
        .check(&world.config().replace("lnd/tls.cert", "other/tls.cert"))
        .await;
    said.problem(&["connection", "is not the one in", "other/tls.cert"]);
}

#[tokio::test]
async fn a_delta_that_is_not_lnds() {
    let options = SimLndOptions {
        hold_expiry_delta: 30,
        ..SimLndOptions::default()
    };
    let world = World::new(&options);
    let words = [
        "delta",
        "is 30",
        "is 18",
        "12 blocks earlier",
        "set lnd.hold_expiry_delta = 30",
    ];
    world.check(&world.config()).await.problem(&words);
    let larger = world
        .check(&world.config().replace("[lnd]\n", "[lnd]\nhold_expiry_delta = 36\n"))
        .await;
    assert!(
        matches!(larger.bad()[..], [line] if line.starts_with("warning  delta: ") && line.contains("6 blocks shorter"))
    );
    assert_eq!(larger.code, Some(0));
}

#[tokio::test]
async fn a_node_that_is_locked_or_out_of_sync() {
    let world = World::new(&SimLndOptions::default());
    world.lnd.inject(Fault::Sync(false)).expect("out of sync");
    world
        .check(&world.config())
        .await
        .problem(&["sync", "out of sync", "height 850000"]);
    world.lnd.inject(Fault::Sync(true)).expect("in sync");
    assert_eq!(world.check(&world.config()).await.code, Some(0));
    world.lnd.inject(Fault::SetState(WalletState::Locked)).expect("locked");
    world
        .check(&world.config())
        .await
        .problem(&["state", "locked", "unlock"]);
    world
        .lnd
        .inject(Fault::SetState(WalletState::Unlocked))
        .expect("starting");
    world.check(&world.config()).await.problem(&["state", "still starting"]);
}

#[tokio::test]
async fn what_is_held_can_not_be_received_again() {
    let options = SimLndOptions {
        capacity_sat: 1_000_000,
        ..SimLndOptions::default()
    };
    let world = World::new(&options);
    let free =
        |said: &Said, words: &str| assert!(said.lines.iter().any(|line| line.contains(words)), "{:#?}", said.lines);
    free(&world.check(&world.config()).await, "about 990000 sat can be received");
    let request = tellerd::lnd::HoldInvoiceRequest {
        hash: tellerd::ids::PaymentHash([7; 32]),
        amount: tellerd::money::Msat(500_000_000),
        memo: String::new(),
        expiry: std::time::Duration::from_secs(600),
        cltv_expiry: 80,
        private_route_hints: false,
    };
    let client = world.client();
    let invoice = client.add_hold_invoice(&request).await.expect("added");
    let mut states = client.watch(&request.hash).await.expect("watched");
    world.lnd.pay(&invoice, &PayOptions::default()).expect("paid");
    while let Some(now) = futures_util::StreamExt::next(&mut states).await {
        if now.expect("told").state == tellerd::lnd::InvoiceState::Accepted {
            break;
        }
    }
    world
        .check(&world.config())
        .await
        .problem(&["liquidity", "about 490000 sat", "526316 sat", "inbound liquidity"]);
    client.cancel(&request.hash).await.expect("canceled");
    free(&world.check(&world.config()).await, "about 990000 sat can be received");
}

#[tokio::test]
async fn the_client_tells_the_delta_in_force_as_far_as_it_may() {
    let world = World::new(&SimLndOptions::default());
    let client = world.client();
    assert_eq!(client.info().await.expect("info").hold_expiry_delta, Some(18));
    let refusal = Fault::Fail {
        method: "GetDebugInfo".into(),
        count: 1,
        code: 2,
        text: "permission denied".into(),
    };
    world.lnd.inject(refusal).expect("denied");
    assert_eq!(client.info().await.expect("all the same").hold_expiry_delta, None);
    assert_eq!(client.info().await.expect("info").hold_expiry_delta, Some(18));
}

/// Each line is there, whatever the node's numbers are, though some of its calls never answer.
#[tokio::test]
async fn a_node_with_absurd_answers_and_more_channels_than_anybody() {
    let certificate = Certificate::new();
    let lnd = FakeLnd::start(&certificate);
    let files = Files::new(&certificate, MACAROON);
    let htlc = Htlc {
        incoming: true,
        amount: i64::MAX,
        ..Htlc::default()
    };
    let channel = |balance| Channel {
        active: true,
        remote_pubkey: "02".repeat(33),
        remote_balance: balance,
        pending_htlcs: vec![htlc.clone(); 3],
        remote_constraints: Some(ChannelConstraints {
            max_pending_amt_msat: u64::MAX,
            max_accepted_htlcs: u32::MAX,
            chan_reserve_sat: u64::MAX,
        }),
        ..Channel::default()
    };
    let channels = [i64::MIN, -1, 0, i64::MAX].map(channel);
    *lnd.script.channels.lock().expect("lock") = std::iter::repeat_n(channels, 8_000).flatten().collect();
    let config = format!(
        "data_dir = 'data'\n[lnd]\naddress = '{}'\ntls_cert = {:?}\nmacaroon = {:?}\ndeadline = '5s'\n\
         [rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n\
         [[atm]]\nid = 'left'\nmodel = 'puloon-lcdm4000'\npath = 'left'\nmin_amount = '20.00'\nmax_amount = '500.00'\n\
         [[atm.cassette]]\nposition = 1\ndenomination = '20.00'\nnotes = 100\n",
        lnd.address,
        files.tls_cert(),
        files.macaroon()
    );
    let dir = tempfile::tempdir().expect("dir");
    let said = check(dir.path(), &config, &[]).await;
    for words in [
        "right: it can not be told whether RegisterBlockEpochNtfn is allowed: no answer within 5000 ms",
        "liquidity: about 0 sat can be received, 0 sat of it over one channel (32000 active)",
        "whether SubscribeHtlcEvents is allowed: Operation is not implemented or not supported",
        "version: `` can not be understood",
        "htlc slots: 4294967295 more payments",
    ] {
        assert!(
            said.lines.iter().any(|line| line.contains(words)),
            "`{words}` is not in {:#?}",
            said.lines
        );
    }
    assert_eq!(said.code, Some(1));
}

#[tokio::test]
async fn a_node_whose_clock_is_off() {
    const MINUTE_MS: u64 = 60_000;
    let now = SystemClock.now().0;
    for (clock, words) in [
        (
            now + 5 * MINUTE_MS,
            "warning  clock: LND's clock is more than 60 s ahead",
        ),
        (
            now - 5 * MINUTE_MS,
            "warning  clock: LND's clock is more than 60 s behind",
        ),
        (
            now + 200 * MINUTE_MS,
            "problem  clock: the best block is 3 h in the future",
        ),
    ] {
        let options = SimLndOptions {
            clock: Arc::new(ManualClock::new(UnixMs(clock))),
            ..SimLndOptions::default()
        };
        let world = World::new(&options);
        let said = world.check(&world.config()).await;
        assert!(
            matches!(said.bad()[..], [line] if line.starts_with(words)),
            "{:#?}",
            said.lines
        );
    }
}
