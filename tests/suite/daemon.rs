//! `tellerd run` as a process: what is wrong with its surroundings is told in words, with the right exit code.
#![allow(clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tellerd::hardware::emulate::serve_on_pty;
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Emulator, EmulatorHandle, Setup, What};
use tellerd::sim::lnd::{Fault, PayOptions, SimHandle, SimLnd, SimLndOptions};

use crate::fleet_rig::until;

/// The world around a daemon: a node, one dispenser, a folder.
struct World {
    dir: tempfile::TempDir,
    lnd: SimHandle,
    address: SocketAddr,
    dispenser: EmulatorHandle,
}

impl World {
    async fn new(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let sim = SimLnd::open(&dir.path().join("lnd"), &SimLndOptions::default()).expect("sim");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        tokio::spawn(sim.serve(listener));
        let emulator = Emulator::new(Variant::Standard, setup).expect("emulator");
        let (dispenser, link) = (emulator.handle(), dir.path().join("left"));
        let pty = link.clone();
        tokio::spawn(async move { serve_on_pty(&emulator, &pty).await });
        until("the pty", async || link.exists()).await;
        Self {
            lnd: sim.handle(),
            dir,
            address,
            dispenser,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        config(self.address)
    }

    fn run(&self, config: &str) -> Daemon {
        run_in(self.dir.path(), config)
    }
}

pub fn config(lnd: SocketAddr) -> String {
    format!(
        "data_dir = 'data'\n[http]\nlisten = '127.0.0.1:0'\n\
         [lnd]\naddress = '{lnd}'\ntls_cert = 'lnd/tls.cert'\nmacaroon = 'lnd/admin.macaroon'\ndeadline = '2s'\n\
         [rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n{}",
        atm("left", "left")
    )
}

pub fn atm(id: &str, path: &str) -> String {
    format!(
        "[[atm]]\nid = '{id}'\nmodel = 'puloon-lcdm4000'\npath = '{path}'\nmin_amount = '20.00'\nmax_amount = '500.00'\n\
         [atm.timings]\nack_ms = 500\nreply_ms = 3000\nreset_ms = 10\n\
         [[atm.cassette]]\nposition = 1\ndenomination = '20.00'\nnotes = 100\n"
    )
}

/// No node is there: a port of privileged programs, which no test is given.
pub fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// A running or ended `tellerd run`. Killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

pub fn run_in(dir: &Path, config: &str) -> Daemon {
    let file = dir.join("fleet.toml");
    std::fs::write(&file, config).expect("config");
    let log = dir.join(format!("log-{}", std::fs::read_dir(dir).expect("dir").count()));
    let stderr = std::fs::File::create(&log).expect("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tellerd"));
    command.arg("run").arg("--config").arg(file).env_remove("RUST_LOG");
    let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    Daemon {
        child: streams.spawn().expect("spawned"),
        log,
    }
}

impl Daemon {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("log")
    }

    /// How it ended: exit code, and what it wrote.
    async fn ended(&mut self) -> (Option<i32>, String) {
        let child = std::cell::RefCell::new(&mut self.child);
        until("the end", async || {
            child.borrow_mut().try_wait().expect("wait").is_some()
        })
        .await;
        let code = self.child.wait().expect("ended").code();
        (code, self.log())
    }

    /// It ended by itself, with a reason that contains each of `words`.
    pub async fn refuses(mut self, words: &[&str]) {
        let (code, log) = self.ended().await;
        assert_eq!(code, Some(1), "{log}");
        for word in words {
            assert!(log.contains(word), "no {word:?} in: {log}");
        }
        assert!(!log.contains("panicked"), "{log}");
    }

    pub async fn terminate(mut self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("pid");
        kill_process(pid, Signal::TERM).expect("signal");
        let (code, log) = self.ended().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }

    async fn url(&self, path: &str) -> String {
        let address = || {
            let log = self.log();
            let (_, rest) = log.split_once("tellerd serves address=")?;
            Some(rest.lines().next()?.trim().to_owned())
        };
        until("the API", async || address().is_some()).await;
        format!("http://{}{path}", address().expect("there"))
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = client().get(self.url(path).await).send().await.expect("answer");
        answer.json().await.expect("json")
    }

    async fn start(&self, minor: u64) -> Value {
        let order = json!({"atm": "left", "amount_minor": minor});
        let request = client().post(self.url("/v1/cashouts").await).json(&order);
        let answer = request.send().await.expect("answer");
        assert_eq!(answer.status(), 201, "{:?}", answer.text().await);
        answer.json().await.expect("json")
    }

    /// Waits until the machine is in `state` for a reason that contains each of `words`.
    async fn stands(&self, state: &str, words: &[&str]) {
        until(&format!("{state} because of {words:?}"), async || {
            let atm = self.get("/v1/atms/left").await;
            let reason = atm["reason"].as_str().unwrap_or_default();
            atm["state"] == state && words.iter().all(|word| reason.contains(word))
        })
        .await;
    }

    async fn reaches(&self, cashout: &str, state: &str) {
        until(state, async || {
            self.get(&format!("/v1/cashouts/{cashout}")).await["state"] == state
        })
        .await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("client")
}

#[tokio::test]
async fn a_mistaken_configuration_names_line_and_key() {
    let dir = tempfile::tempdir().expect("dir");
    let typo = config(nowhere()).replace("deadline", "dead_line");
    run_in(dir.path(), &typo)
        .refuses(&["fleet.toml:8", "lnd.dead_line"])
        .await;
    let shared = config(nowhere()) + &atm("right", "left");
    run_in(dir.path(), &shared)
        .refuses(&["atm[1].path", "the same as atm[0].path"])
        .await;
    assert!(!dir.path().join("data").exists(), "nothing was begun");
}

#[tokio::test]
async fn a_data_directory_that_can_not_be_one_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("data"), "a file").expect("file");
    let data = dir.path().join("data");
    let data = data.to_str().expect("text");
    run_in(dir.path(), &config(nowhere())).refuses(&[data]).await;
    assert_eq!(std::fs::read_to_string(data).expect("file"), "a file");
}

#[tokio::test]
async fn a_second_daemon_and_a_taken_port_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let first = run_in(dir.path(), &config(nowhere()));
    let address = first.url("").await;
    let pid = first.child.id().to_string();
    let text = config(nowhere());
    let second = run_in(dir.path(), &text);
    second
        .refuses(&["another tellerd", &pid, "uses this data directory"])
        .await;
    let address = address.trim_start_matches("http://");
    let taken = text
        .replace("127.0.0.1:0'", &format!("{address}'"))
        .replace("'data'", "'other'");
    let third = run_in(dir.path(), &taken);
    third.refuses(&["http.listen", address, "in use"]).await;
    assert!(first.get("/v1/atms").await.is_object(), "the first goes on");
    first.terminate().await;
}

#[tokio::test]
async fn a_node_that_does_not_let_us_in_is_told_in_words() {
    let world = World::new(Setup::default()).await;
    drop(SimLnd::open(&world.path("other"), &SimLndOptions::default()).expect("sim"));
    for (text, words) in [
        (
            world.config().replace("lnd/admin", "other/admin"),
            ["macaroon", "verification failed"],
        ),
        (
            world.config().replace("lnd/tls", "other/tls"),
            ["is not the one in", "other/tls.cert"],
        ),
        (config(nowhere()), ["no connection to LND at", "refused"]),
        (
            world.config().replace("[lnd]\n", "[lnd]\nhold_expiry_delta = 12\n"),
            ["LND cancels holds 18 blocks before", "set lnd.hold_expiry_delta = 18"],
        ),
        (
            world.config().replace("lnd/admin", "missing/admin"),
            ["missing/admin.macaroon", "No such file"],
        ),
    ] {
        let daemon = world.run(&text);
        daemon.stands("out_of_service", &words).await;
        let ready = client().get(daemon.url("/readyz").await).send().await.expect("answer");
        assert_eq!(ready.status(), 503);
        let text = ready.text().await.expect("text");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        let live = client().get(daemon.url("/healthz").await).send().await.expect("answer");
        assert_eq!(live.status(), 200);
        daemon.terminate().await;
    }
    let daemon = world.run(&world.config());
    daemon.stands("ready", &[]).await;
    daemon.terminate().await;
}

/// Whoever reads the log may go away: cash and money go on.
#[tokio::test]
async fn it_outlives_the_reader_of_its_log() {
    let world = World::new(Setup::default()).await;
    std::fs::write(world.path("fleet.toml"), world.config()).expect("config");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tellerd"));
    command.arg("run").arg("--config").arg(world.path("fleet.toml"));
    let streams = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = streams.env_remove("RUST_LOG").spawn().expect("spawned");
    let log = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let address = std::io::BufRead::lines(log)
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("tellerd serves address=")?.1.trim().to_owned()))
        .expect("it serves");
    std::fs::write(world.path("log"), format!("tellerd serves address={address}")).expect("log");
    let log = world.path("log");
    let daemon = Daemon { child, log };
    daemon.stands("ready", &[]).await;
    let cashout = daemon.start(6_000).await;
    let id = cashout["id"].as_str().expect("an id");
    daemon.reaches(id, "awaiting_payment").await;
    daemon.terminate().await;
}

/// What was read once is not forgotten because it can not be read now.
#[tokio::test]
async fn a_delta_that_can_not_be_read_any_more_is_still_too_large() {
    let world = World::new(Setup::default()).await;
    let daemon = world.run(&world.config().replace("[lnd]\n", "[lnd]\nhold_expiry_delta = 12\n"));
    let words = ["LND cancels holds 18 blocks before"];
    daemon.stands("out_of_service", &words).await;
    let busy = Fault::Fail {
        method: "GetDebugInfo".to_owned(),
        count: u32::MAX,
        code: 2,
        text: "busy".to_owned(),
    };
    world.lnd.inject(busy).expect("a fault");
    let looks = async || {
        let text = client().get(daemon.url("/metrics").await).send().await;
        let text = text.expect("answer").text().await.expect("text");
        let name = "tellerd_lnd_request_duration_seconds_count{method=\"info\",outcome=\"ok\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(name)).expect("a count");
        count.parse::<u64>().expect("a number")
    };
    // The one that is under way may have read it before.
    let before = looks().await;
    until("a look without the delta", async || looks().await > before + 2).await;
    daemon.stands("out_of_service", &words).await;
    let ready = client().get(daemon.url("/readyz").await).send().await.expect("answer");
    assert_eq!(ready.status(), 503);
    daemon.terminate().await;
}

/// Right to read, and not to change: no customer is promised anything until the macaroon is a better one.
#[tokio::test]
async fn a_macaroon_for_reading_only_promises_nothing() {
    let world = World::new(Setup::default()).await;
    std::fs::copy(world.path("lnd/readonly.macaroon"), world.path("macaroon")).expect("copy");
    let text = world.config().replace("lnd/admin.macaroon", "macaroon");
    let daemon = world.run(&text);
    daemon
        .stands("out_of_service", &["permission denied", "bake one"])
        .await;
    std::fs::copy(world.path("lnd/admin.macaroon"), world.path("macaroon")).expect("copy");
    daemon.stands("ready", &[]).await;
    daemon.terminate().await;
}

#[tokio::test]
async fn a_missing_serial_port_is_named_and_only_its_machine_is_out() {
    let world = World::new(Setup::default()).await;
    let text = world.config().replace("path = 'left'", "path = 'ttyNONE'") + &atm("right", "left");
    let daemon = world.run(&text);
    let path = world.path("ttyNONE");
    daemon
        .stands("out_of_service", &[path.to_str().expect("text"), "No such file"])
        .await;
    until("the other one", async || {
        daemon.get("/v1/atms/right").await["state"] == "ready"
    })
    .await;
    daemon.terminate().await;
}

#[tokio::test]
async fn other_notes_than_the_journal_knows_are_counted_first() {
    let world = World::new(Setup::default()).await;
    let daemon = world.run(&world.config());
    daemon.stands("ready", &[]).await;
    daemon.terminate().await;
    let fifties = world
        .config()
        .replace("denomination = '20.00'", "denomination = '50.00'");
    let daemon = world.run(&fifties);
    let words = [
        "cassette 1",
        "notes of 50.00",
        "notes of 20.00",
        "tellerd atm load left",
    ];
    daemon.stands("out_of_service", &words).await;
    let count = json!({"by": "anna", "cassettes": [{"position": 1, "denomination_minor": 5000, "notes": 40}]});
    let load = client().post(daemon.url("/v1/atms/left/load").await).json(&count);
    assert_eq!(load.send().await.expect("answer").status(), 200);
    daemon.stands("ready", &[]).await;
    daemon.terminate().await;
}

#[tokio::test]
async fn sigterm_waits_for_the_notes_and_the_next_life_settles_once() {
    let slow = Setup {
        note_ms: 250,
        ..Setup::default()
    };
    let world = World::new(slow).await;
    let daemon = world.run(&world.config());
    daemon.stands("ready", &[]).await;
    let cashout = daemon.start(6000).await;
    let id = cashout["id"].as_str().expect("id").to_owned();
    let request = cashout["payment_request"].as_str().expect("request");
    let payment = world.lnd.pay(request, &PayOptions::default()).expect("sent");
    until("the first note", async || world.dispenser.totals()[0].delivered > 0).await;
    daemon.terminate().await;
    let ended = |e: &What| matches!(e, What::DispenseEnded { .. });
    assert!(world.dispenser.events().iter().any(|e| ended(&e.what)), "it waited");

    let daemon = world.run(&world.config());
    daemon.reaches(&id, "completed").await;
    let payment = tokio::time::timeout(Duration::from_secs(20), world.lnd.ended_payment(payment));
    assert!(payment.await.expect("ends").expect("payment").preimage.is_some());
    assert_eq!(world.dispenser.totals()[0].delivered, 3);
    daemon.terminate().await;
}

#[tokio::test]
async fn a_machine_with_open_cash_outs_can_not_leave_the_configuration() {
    let world = World::new(Setup::default()).await;
    let daemon = world.run(&world.config());
    daemon.stands("ready", &[]).await;
    let cashout = daemon.start(6000).await;
    let id = cashout["id"].as_str().expect("id");
    daemon.terminate().await;
    let without = world.config().replace("id = 'left'", "id = 'right'");
    world.run(&without).refuses(&["ATM left", id, "put it back"]).await;
    let daemon = world.run(&world.config());
    let canceled = client().post(daemon.url(&format!("/v1/cashouts/{id}/cancel")).await);
    let canceled = canceled.json(&json!({})).send().await.expect("answer");
    assert!(canceled.status().is_success(), "{:?}", canceled.text().await);
    daemon.reaches(id, "canceled").await;
    daemon.terminate().await;
    let daemon = world.run(&without);
    until("the new machine", async || {
        daemon.get("/v1/atms/right").await["state"] == "ready"
    })
    .await;
    daemon.terminate().await;
}
