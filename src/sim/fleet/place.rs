//! The work directory of a simulation, and the folder of each daemon in it.
//!
//! Called by the runner. What must stay true: an earlier simulation is never written over.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::ids::AtmId;

/// The folder of one daemon.
#[derive(Debug, Clone)]
pub struct Home {
    /// The folder.
    pub dir: PathBuf,
}

impl Home {
    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("fleet.toml")
    }

    /// Its API's token.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.dir.join("tellerd.token")
    }

    /// What it wrote to standard error, all lives together.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// Its journal and its state.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What commands its emulated disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Its secret key on Nostr.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.join("nostr.key")
    }

    /// A site's invitation, until it is used.
    #[must_use]
    pub fn pairing(&self) -> PathBuf {
        self.dir.join("pairing.token")
    }
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The work directory.
    pub dir: PathBuf,
}

impl Place {
    /// The only daemon's.
    #[must_use]
    pub fn only(&self) -> Home {
        Home { dir: self.dir.clone() }
    }

    /// That of a site or the server.
    #[must_use]
    pub fn of(&self, name: &str) -> Home {
        Home {
            dir: self.dir.join(name),
        }
    }

    /// The simulated LND.
    #[must_use]
    pub fn lnd(&self) -> PathBuf {
        self.dir.join("lnd")
    }

    /// The serial line of a machine.
    #[must_use]
    pub fn line(&self, atm: &AtmId) -> PathBuf {
        self.dir.join("lines").join(atm.as_str())
    }

    /// What physically happened in a machine, one JSON object a line.
    #[must_use]
    pub fn ledger(&self, atm: &AtmId) -> PathBuf {
        self.dir.join("machines").join(format!("{atm}.jsonl"))
    }

    /// The daemons' last words: their lists of cash-outs and machines.
    #[must_use]
    pub fn last_words(&self) -> PathBuf {
        self.dir.join("last_words.json")
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// When one can not be made, or the directory is not empty.
    pub fn make(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(dir.join("lines"))?;
        std::fs::create_dir_all(dir.join("machines"))?;
        let place = Self { dir };
        if place.lnd().exists() {
            let what = format!("{} holds an earlier simulation: choose another", place.dir.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        std::fs::create_dir_all(place.lnd())?;
        Ok(place)
    }
}

/// A file that only its owner may read, with its folder.
///
/// # Errors
/// When it can not be made, or is there already.
pub fn write_secret(path: &Path, line: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{line}")
}
