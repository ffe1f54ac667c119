//! One child process: its log, and the ways to end it.
//!
//! What must stay true: no child outlives this process, however it ends: the kernel kills it with its parent
//! (`setpriv --pdeathsig`, util-linux), and dropping it kills it too.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A running program. Killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    pub fn start(program: &Path, arguments: &[String], home: &Path, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("log file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
        // Neither program may find a configuration of whoever runs the tests.
        command
            .env_clear()
            .env("HOME", home)
            .env("PATH", std::env::var("PATH").unwrap_or_default());
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("log file"))
            .stderr(out);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("setpriv {}: {error}", program.display()));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// `kill -9`; returns once it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; returns once it is gone, which is hastened after half a minute.
    pub async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        for _ in 0..600 {
            if self.has_ended() {
                return;
            }
            super::breath().await;
        }
        self.kill();
    }

    /// Sends a signal, such as STOP and CONT.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGSTOP; returns once each of its threads stands still, which a busy machine takes a moment for.
    pub async fn stand_still(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        super::until("the process stands still", async || {
            let tasks = std::fs::read_dir(&tasks).expect("threads of a child");
            let mut states = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
            // The name before it is in brackets and may have blanks.
            states.all(|stat| {
                stat.rsplit_once(')')
                    .is_some_and(|(_, rest)| rest.starts_with(" T") || rest.starts_with(" Z"))
            })
        })
        .await;
    }

    /// It has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

/// The end of the log file `log`.
pub fn last_words(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(3000)));
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `program` to its end; its standard output.
pub async fn output(program: &Path, arguments: &[String], home: &Path) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env("HOME", home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let ended = ended.map_err(|_| format!("{} {arguments:?}: no end within 60 s", program.display()))?;
    let ended = ended.map_err(|error| format!("{}: {error}", program.display()))?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&ended.stderr);
    Err(format!("{} {arguments:?}: {told}", program.display()))
}
