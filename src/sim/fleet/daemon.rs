//! A daemon under test: a child process that is started, killed, started again and asked to end; or one inside this process,
//! which can not be killed.
//!
//! Called by the runner. What must stay true: it never outlives the simulation, unless that is itself
//! killed with SIGKILL; that it ends by itself is noticed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::client::Api;
use super::inside::Inside;
use super::place::Home;
use super::sick_disk::SickDisk;
use crate::hardware::port::Connect;
use crate::ids::AtmId;

/// For reading the journal and the store, on a busy machine.
const COMES_UP: Duration = Duration::from_secs(30);
/// For ending in order.
const GOES_DOWN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// A port of this machine that the system gives to nobody else, also while the daemon is down: without that one of the
/// many connections here takes it now and then. A second socket may listen on it, as both reuse the address.
#[derive(Debug)]
pub struct Port {
    /// The number.
    pub number: u16,
    _kept: TcpSocket,
}

impl Port {
    /// Any free one.
    ///
    /// # Errors
    /// When the system has none.
    pub fn keep() -> io::Result<Self> {
        let kept = TcpSocket::new_v4()?;
        kept.set_reuseaddr(true)?;
        kept.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let number = kept.local_addr()?.port();
        Ok(Self { number, _kept: kept })
    }
}

/// What is started.
pub struct Program {
    /// The program that is the daemon. Also of one inside this process: its journal is verified by it.
    file: PathBuf,
    /// The lines in memory of one inside this process.
    lines: Option<BTreeMap<AtmId, Connect>>,
}

impl Program {
    /// A process of its own.
    #[must_use]
    pub fn process(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            lines: None,
        }
    }

    /// Inside this process, with these lines to its machines.
    #[must_use]
    pub fn inside(file: &Path, lines: BTreeMap<AtmId, Connect>) -> Self {
        Self {
            file: file.to_owned(),
            lines: Some(lines),
        }
    }
}

/// One life of it.
enum Life {
    Child(Child),
    Inside(Inside),
}

impl Life {
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Child(child) => child.wait().await,
            Self::Inside(inside) => Ok(inside.ended().await),
        }
    }
}

/// The daemon.
pub struct Daemon {
    program: Program,
    name: String,
    home: Home,
    api: Api,
    _port: Port,
    disk: Option<Arc<SickDisk>>,
    life: Option<Life>,
}

impl Daemon {
    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Nothing runs yet.
    #[must_use]
    pub fn new(program: Program, name: String, home: Home, api: Api, port: Port) -> Self {
        Self {
            program,
            name,
            home,
            api,
            _port: port,
            disk: None,
            life: None,
        }
    }

    /// Puts its journal on an emulated disk, from its next start on.
    pub fn on_a_disk(&mut self) {
        self.disk = Some(Arc::new(SickDisk::new(&self.home)));
    }

    /// Its emulated disk.
    #[must_use]
    pub fn disk(&self) -> Option<Arc<SickDisk>> {
        self.disk.clone()
    }

    /// What all its lives wrote to standard error.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.log()
    }

    /// Its API.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Whether it ended by itself as it has to when its disk takes no more: with status 1 and the system's word for
    /// what befell the disk in the last line of its log.
    #[must_use]
    pub fn ended_of_its_disk(&self, status: ExitStatus) -> bool {
        let Some(disk) = &self.disk else { return false };
        let log = std::fs::read(self.home.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().last().unwrap_or_default();
        status.code() == Some(1) && last.starts_with("tellerd: ") && disk.is_to_blame(last)
    }

    /// Starts it and waits until it answers. `Ok(Some(status))`: it ended instead.
    ///
    /// # Errors
    /// When it can not be started, or does not answer.
    pub async fn start(&mut self) -> io::Result<Option<ExitStatus>> {
        self.begin()?;
        let late = Instant::now() + COMES_UP;
        loop {
            if let Some(status) = self.has_ended().await? {
                return Ok(Some(status));
            }
            if self.api.lives().await {
                return Ok(None);
            }
            if Instant::now() > late {
                return Err(io::Error::other(format!(
                    "the daemon did not answer within {} s",
                    COMES_UP.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// Starts it, and does not wait for anything.
    ///
    /// # Errors
    /// When it can not be started.
    pub fn begin(&mut self) -> io::Result<()> {
        if let Some(disk) = &self.disk {
            disk.is_used_anew();
        }
        self.life = Some(match &self.program.lines {
            None => Life::Child(self.spawn()?),
            Some(lines) => Life::Inside(Inside::start(&self.home, lines)?),
        });
        Ok(())
    }

    fn spawn(&self) -> io::Result<Child> {
        let log: File = OpenOptions::new().create(true).append(true).open(self.home.log())?;
        let mut command = Command::new(&self.program.file);
        match &self.disk {
            None => command.arg("run"),
            Some(_) => command.args(["emulate", "run", "--disk"]).arg(self.home.disk()),
        };
        command.arg("--config").arg(self.home.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Each daemon has a key of its own, in its file.
        command.env_remove(crate::config::key::VARIABLE);
        command.kill_on_drop(true);
        command.spawn()
    }

    /// Its process; `None` when it has none of its own.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        match &self.life {
            Some(Life::Child(child)) => child.id(),
            _ => None,
        }
    }

    /// Waits until it ends by itself; for ever when none runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.life {
            Some(life) => life.ended().await,
            None => std::future::pending().await,
        }
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn has_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let ended = timeout(Duration::ZERO, self.ended()).await;
        ended.map_or(Ok(None), |status| status.map(Some))
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When there is none to kill.
    pub async fn kill(&mut self) -> io::Result<()> {
        match &mut self.life {
            Some(Life::Child(child)) => child.kill().await,
            Some(Life::Inside(_)) => Err(io::Error::other("inside this process it can not be killed")),
            None => Err(io::Error::other("no daemon runs")),
        }
    }

    /// SIGTERM, and how it ended; `None` when it had to be killed.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(&mut self) -> io::Result<Option<ExitStatus>> {
        match &self.life {
            None => return Ok(None),
            Some(Life::Child(child)) => {
                let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                if let Some(pid) = pid {
                    kill_process(pid, Signal::TERM)?;
                }
            }
            Some(Life::Inside(inside)) => inside.stop(),
        }
        if let Ok(status) = timeout(GOES_DOWN, self.ended()).await {
            return status.map(Some);
        }
        self.kill().await?;
        Ok(None)
    }

    /// Runs `tellerd journal verify` or `tellerd store verify` to its end: what it says, as an error when it failed.
    ///
    /// # Errors
    /// When it can not be started.
    pub async fn verify(&self, what: &str) -> io::Result<Result<String, String>> {
        let mut command = Command::new(&self.program.file);
        command.args([what, "verify", "--data"]).arg(self.home.data());
        let output = command.stdin(Stdio::null()).output().await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(format!("{what} verify, {}: {}", output.status, text(output.stderr))),
        })
    }
}
