//! Where a daemon stands: a folder, its configuration, emulated dispensers in this process, `tellerd run` as a child.
//!
//! Used by the tests that start, kill and restart the real program, with a simulated LND (`rig.rs`) or a real one
//! (`tests/real_lnd`). What must stay true: what stands for the world (money and notes) outlives every child; nothing here
//! waits for a time, only for conditions with one deadline for all.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tellerd::hardware::emulate::serve_on_pty;
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Emulator, EmulatorHandle, Setup};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(15);

/// One emulated machine. Its cassettes are 20.00 in position 1 and 50.00 in position 2.
pub struct Machine {
    pub variant: Variant,
    pub setup: Setup,
}

/// Where a daemon finds its LND, and is let in.
pub struct Lnd {
    pub address: SocketAddr,
    pub tls_cert: PathBuf,
    pub macaroon: PathBuf,
}

/// The machines around a daemon, and its configuration. They are called `atm1`, `atm2`, …
pub struct Site {
    dir: TempDir,
    pub machines: Vec<EmulatorHandle>,
    /// A program, with its arguments, that becomes the daemon.
    pub under: Vec<String>,
    serving: Vec<JoinHandle<()>>,
}

impl Site {
    /// Switches the machines on and writes `fleet.toml` in `dir`, with `lnd` and with `more` lines of configuration.
    /// Needs a runtime that goes on as long as this.
    pub fn new(dir: TempDir, lnd: &Lnd, machines: &[Machine], more: &str) -> Self {
        let mut site = Self {
            dir,
            machines: Vec::new(),
            under: Vec::new(),
            serving: Vec::new(),
        };
        let mut config = config(lnd);
        config.push_str(more);
        for (index, machine) in machines.iter().enumerate() {
            let id = format!("atm{}", index + 1);
            let link = site.path(&id);
            config.push_str(&atm(&id, &link.to_string_lossy(), machine));
            let emulator = Emulator::new(machine.variant, machine.setup.clone()).unwrap();
            site.machines.push(emulator.handle());
            site.serving.push(tokio::spawn(
                async move { serve_on_pty(&emulator, &link).await.unwrap() },
            ));
        }
        std::fs::write(site.path("fleet.toml"), config).unwrap();
        site
    }

    /// A file or folder of this site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts `tellerd run`, with these variables in its environment.
    pub fn daemon(&self, variables: &[(&str, String)]) -> Daemon {
        let under = self.under.iter().map(String::as_str);
        let mut words = under.chain([env!("CARGO_BIN_EXE_tellerd")]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("run")
            .arg("--config")
            .arg(self.path("fleet.toml"));
        for armed in ["RUST_LOG", "TELLERD_CRASH_AT", "TELLERD_CRASH_LOG", "TELLERD_NOSTR_KEY"] {
            command.env_remove(armed);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (told, address) = watch::channel(None);
        let stderr = child.stderr.take().unwrap();
        tokio::spawn(read_log(stderr, Arc::clone(&log), told));
        // A proxy of the environment has no business here.
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Daemon {
            child,
            address,
            http,
            log,
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for task in &self.serving {
            task.abort();
        }
    }
}

/// The daemon asks the system for a port and tells it: a port kept for it could be taken meanwhile.
fn config(lnd: &Lnd) -> String {
    let Lnd {
        address,
        tls_cert,
        macaroon,
    } = lnd;
    format!(
        "data_dir = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [lnd]\naddress = \"{address}\"\ntls_cert = {tls_cert:?}\nmacaroon = {macaroon:?}\n\
         [rate]\ncurrency = \"EUR\"\nper_btc = \"95000.00\"\n[fee]\nfixed = \"1.00\"\n"
    )
}

fn atm(id: &str, link: &str, machine: &Machine) -> String {
    let variant = match machine.variant {
        Variant::Standard => "standard",
        Variant::Serial => "serial",
    };
    let [first, second, ..] = machine.setup.cassettes;
    // A slow machine is waited for.
    let reply_ms = 1_000 + 60 * machine.setup.note_ms;
    format!(
        "[[atm]]\nid = \"{id}\"\nmodel = \"puloon-lcdm4000\"\nvariant = \"{variant}\"\npath = {link:?}\n\
         min_amount = \"20.00\"\nmax_amount = \"500.00\"\n\
         [[atm.cassette]]\nposition = 1\ndenomination = \"20.00\"\nnotes = {first}\n\
         [[atm.cassette]]\nposition = 2\ndenomination = \"50.00\"\nnotes = {second}\n\
         [atm.timings]\nack_ms = 300\nreply_ms = {reply_ms}\nreset_ms = 100\n"
    )
}

async fn read_log(stderr: ChildStderr, log: Arc<Mutex<Vec<String>>>, told: watch::Sender<Option<SocketAddr>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, address)) = line.split_once("tellerd serves address=") {
            told.send_replace(address.trim().parse().ok());
        }
        log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// A running `tellerd`. Killed when dropped.
pub struct Daemon {
    child: Child,
    address: watch::Receiver<Option<SocketAddr>>,
    http: reqwest::Client,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    fn url(&self, path: &str) -> Option<String> {
        Some(format!("{}{path}", self.base()?))
    }

    /// The API's address, once it serves.
    pub fn base(&self) -> Option<String> {
        Some(format!("http://{}", (*self.address.borrow())?))
    }

    /// The answer, when there is one and it is a success.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let answer = self.http.get(self.url(path)?).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// The answer as it is, when there is one and it is a success.
    pub async fn text(&self, path: &str) -> Option<String> {
        let answer = self.http.get(self.url(path)?).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// The answer, when there is one and it is a success.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Option<T> {
        let answer = self.http.post(self.url(path)?).json(body).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// Customers can be served.
    pub async fn is_ready(&self) -> bool {
        self.get::<serde_json::Value>("/readyz").await.is_some()
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        if let Some(pid) = self.child.id() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
            // It may have ended by itself just now.
            let _ = kill_process(pid, Signal::TERM);
        }
        self.child.wait().await.unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// All that it wrote.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The last lines it wrote.
    pub fn last_words(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log[log.len().saturating_sub(25)..].join("\n")
    }
}

/// The pause between two looks at a condition.
pub async fn breath() {
    tokio::time::sleep(LOOK).await;
}
