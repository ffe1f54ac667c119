//! The daemon inside this process, for lines in memory, which no other process can have.
//!
//! Called by [`super::daemon::Daemon`]. It is the whole of `tellerd run`, on a thread of its own with its own actix system, journal
//! and store: nothing of the simulation reaches into it but by its lines, gRPC and HTTP. What must stay true: it ends when it
//! is dropped; that it ends by itself is noticed; it can not be killed, because nothing can but a whole process.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;

use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::EnvFilter;

use super::place::Home;
use crate::app::{self, Instead};
use crate::config::Config;
use crate::hardware::port::Connect;
use crate::ids::AtmId;

/// As of `tellerd run`.
const LOGGED: &str = "tellerd=info,warn";
/// Exit status 1, as the system tells it.
const FAILED: i32 = 1 << 8;

/// A life of it.
#[derive(Debug)]
pub struct Inside {
    end: mpsc::UnboundedSender<()>,
    ended: oneshot::Receiver<ExitStatus>,
    over: Option<ExitStatus>,
}

impl Inside {
    /// Starts it with the configuration in `home`.
    ///
    /// # Errors
    /// When the log or a thread can not be had.
    pub fn start(home: &Home, lines: &BTreeMap<AtmId, Connect>) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(home.log())?;
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED)))
            .with_ansi(false)
            .with_writer(Mutex::new(log))
            .log_internal_errors(false)
            .finish();
        let (end, ends) = mpsc::unbounded_channel();
        let (tell, ended) = oneshot::channel();
        let (config, lines) = (home.config(), lines.clone());
        std::thread::Builder::new().name("daemon".into()).spawn(move || {
            let log = tracing::subscriber::set_default(subscriber);
            let instead = Instead {
                lines,
                ends: Some(ends),
                ..Instead::default()
            };
            let status = run(&config, instead);
            drop(log);
            // Nobody waits when the simulation is over.
            _ = tell.send(status);
        })?;
        Ok(Self { end, ended, over: None })
    }

    /// Asks it to end.
    pub fn stop(&self) {
        // It may have ended by itself.
        _ = self.end.send(());
    }

    /// Waits until it has ended; may be asked again. Status 1 when it says why in its log, or died by a panic.
    pub async fn ended(&mut self) -> ExitStatus {
        match self.over {
            Some(status) => status,
            None => {
                let status = (&mut self.ended).await.unwrap_or_else(|_| ExitStatus::from_raw(FAILED));
                *self.over.insert(status)
            }
        }
    }
}

fn run(config: &Path, instead: Instead) -> ExitStatus {
    let ended = match Config::load(config) {
        Ok(config) => {
            app::run(config, crate::journal::Options::default().wrap, instead).map_err(|error| error.to_string())
        }
        Err(errors) => Err(errors.to_string()),
    };
    match ended {
        Ok(()) => ExitStatus::default(),
        Err(error) => {
            tracing::error!(%error, "the daemon ended");
            ExitStatus::from_raw(FAILED)
        }
    }
}
