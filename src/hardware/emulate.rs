//! Emulated dispensers on pseudo-terminals.
//!
//! Called by `tellerd emulate dispenser` and by the simulation. Must stay true: a cut line comes back
//! as a new one behind the same symlink, with the same machine behind it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use super::device::Model;
use super::pty::Pty;
use super::puloon::driver::Variant;
use super::puloon::emulator::{Emulator, End, ScriptError, Setup};

/// What `tellerd emulate dispenser` is told.
#[derive(Debug, Clone)]
pub struct EmulatorOptions {
    /// The device family.
    pub model: Model,
    /// Its dialect.
    pub variant: Variant,
    /// Where host programs find it.
    pub link: PathBuf,
    /// Its load and its faults.
    pub script: Option<PathBuf>,
}

/// Why an emulated dispenser does not run.
#[derive(Debug, Error)]
pub enum EmulateError {
    /// The script.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The line or the ledger.
    #[error("emulated dispenser at {link}: {source}")]
    Io {
        /// Its symlink.
        link: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs an emulated dispenser until SIGINT or SIGTERM.
///
/// # Errors
/// When the script, the line or the ledger can not be used.
pub async fn run_emulator(options: EmulatorOptions) -> Result<(), EmulateError> {
    let setup = match &options.script {
        Some(path) => Setup::read(path)?,
        None => Setup::default(),
    };
    let failed = |source| EmulateError::Io {
        link: options.link.clone(),
        source,
    };
    let emulator = match options.model {
        Model::PuloonLcdm4000 => Emulator::new(options.variant, setup).map_err(failed)?,
    };
    let pty = Pty::open(&options.link).map_err(failed)?;
    // Whoever reads it may have left; the device goes on without.
    _ = writeln!(
        io::stdout(),
        "emulated {} at {} ({})",
        options.model,
        options.link.display(),
        pty.target().display()
    );
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        served = serve_pty(&emulator, pty, &options.link) => served.map_err(failed),
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Serves `emulator` behind a symlink at `link` until dropped.
///
/// # Errors
/// When the line or the ledger fails.
pub async fn serve_on_pty(emulator: &Emulator, link: &Path) -> io::Result<()> {
    let pty = Pty::open(link)?;
    serve_pty(emulator, pty, link).await
}

async fn serve_pty(emulator: &Emulator, mut pty: Pty, link: &Path) -> io::Result<()> {
    loop {
        match emulator.serve(pty).await? {
            End::Cut | End::HostLeft => pty = Pty::open(link)?,
        }
    }
}
