//! `tellerd run` as a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::{Duration, Instant};

use crate::meter;

/// Between two looks at its log.
const LOOK: Duration = Duration::from_millis(2);
/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(3600);

/// A running daemon. Killed when dropped.
pub struct Child {
    process: Process,
    log: PathBuf,
    pub started: Instant,
}

impl Child {
    /// Starts it with `fleet.toml` in `dir`; it logs into `dir`.
    pub fn start(dir: &Path) -> Self {
        let log = dir.join("log");
        let started = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tellerd"));
        command.arg("run").arg("--config").arg(dir.join("fleet.toml"));
        command.env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).unwrap());
        let process = command.spawn().unwrap();
        Self { process, log, started }
    }

    /// Waits until it says this, and tells when that was, and the rest of the line.
    pub async fn says(&mut self, words: &str) -> (Duration, String) {
        loop {
            let log = std::fs::read(&self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let said = log.lines().find_map(|line| line.split_once(words));
            if let Some((_, rest)) = said {
                return (self.started.elapsed(), rest.trim().to_owned());
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {log}");
            assert!(self.started.elapsed() < LIMIT, "it never says {words:?}: {log}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The API's address, once it serves, and when that was.
    pub async fn serves(&mut self) -> (Duration, String) {
        let (after, address) = self.says("tellerd serves address=").await;
        (after, format!("http://{address}"))
    }

    /// CPU seconds so far, by thread.
    pub fn cpu(&self) -> String {
        let spent = meter::threads_of(self.process.id()).into_iter();
        let parts = spent.filter(|(_, seconds)| *seconds >= 0.01);
        let parts: Vec<String> = parts
            .map(|(thread, seconds)| format!("{thread} {seconds:.2}"))
            .collect();
        parts.join(", ")
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
