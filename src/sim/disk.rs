//! A disk that misbehaves on command, under a real daemon's journal: `tellerd emulate run --disk FILE`.
//!
//! Called by the command line, which gives [`Disk::wrap`] to the daemon, and by `tellerd simulate`, which writes the
//! command file. It stands where [`crate::journal::WrapFile`] does, so it needs no rights to mount anything, and a plain
//! `tellerd run` can not be made to fail by it. What must stay true: it fails as the kernel does, with the same error
//! numbers, and a full disk takes part of what is written; all else reaches the real file. Fault sources: ENOSPC after a
//! partial write; EROFS for writes, cuts and syncs once a file system was remounted read-only; fdatasync that takes long,
//! or fails with EIO (write-back error), with or without the file being usable afterwards. Not on it: sled's files, and
//! making or opening files. A real full disk and a real read-only one are in `tests/suite/real_disk.rs`.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::{SegmentFile, WrapFile};

/// How the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// As it should be.
    #[default]
    Good,
    /// No room: half of a write gets through.
    Full,
    /// Remounted read-only.
    ReadOnly,
    /// Each sync takes so much longer.
    SlowSync(Duration),
    /// Syncs fail. `cuts`: the file can still be cut.
    FailedSync {
        /// The file can still be cut.
        cuts: bool,
    },
}

impl Health {
    /// What the system says of what fails, as an error number.
    #[must_use]
    pub fn errno(self) -> Option<i32> {
        match self {
            Self::Good | Self::SlowSync(_) => None,
            Self::Full => Some(rustix::io::Errno::NOSPC.raw_os_error()),
            Self::ReadOnly => Some(rustix::io::Errno::ROFS.raw_os_error()),
            Self::FailedSync { .. } => Some(rustix::io::Errno::IO.raw_os_error()),
        }
    }

    fn error(self) -> io::Error {
        self.errno()
            .map_or_else(|| io::Error::other("a good disk"), io::Error::from_raw_os_error)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Full => f.write_str("full"),
            Self::ReadOnly => f.write_str("read-only"),
            Self::SlowSync(time) => write!(f, "slow-sync {}", time.as_millis()),
            Self::FailedSync { cuts: true } => f.write_str("failed-sync"),
            Self::FailedSync { cuts: false } => f.write_str("failed-sync-and-cut"),
        }
    }
}

impl FromStr for Health {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["good"] => Ok(Self::Good),
            ["full"] => Ok(Self::Full),
            ["read-only"] => Ok(Self::ReadOnly),
            ["failed-sync"] => Ok(Self::FailedSync { cuts: true }),
            ["failed-sync-and-cut"] => Ok(Self::FailedSync { cuts: false }),
            ["slow-sync", ms] => match ms.parse() {
                Ok(ms) => Ok(Self::SlowSync(Duration::from_millis(ms))),
                Err(_) => Err(format!("`{ms}` is not a number of milliseconds")),
            },
            _ => Err(format!(
                "`{}` is not good, full, read-only, slow-sync MS, failed-sync or failed-sync-and-cut",
                text.trim()
            )),
        }
    }
}

/// The disk, by the file that commands it.
#[derive(Debug, Clone)]
pub struct Disk {
    command: PathBuf,
}

impl Disk {
    /// Commanded by this file, which is read before each write, sync and cut. Without the file it is good.
    #[must_use]
    pub fn new(command: impl Into<PathBuf>) -> Self {
        Self {
            command: command.into(),
        }
    }

    /// Commands it; at once and as a whole.
    ///
    /// # Errors
    /// When the command file can not be written.
    pub fn set(&self, health: Health) -> io::Result<()> {
        let beside: &Path = &self.command.with_extension("next");
        std::fs::write(beside, format!("{health}\n"))?;
        std::fs::rename(beside, &self.command)
    }

    /// How it is now.
    ///
    /// # Errors
    /// When the command can not be read, or is none.
    pub fn health(&self) -> io::Result<Health> {
        match std::fs::read_to_string(&self.command) {
            Ok(text) => text.parse().map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Health::Good),
            Err(error) => Err(error),
        }
    }

    /// The error with which nothing can be opened on it for writing, as at a daemon's start.
    ///
    /// # Errors
    /// When it is read-only.
    pub fn opened(&self) -> io::Result<()> {
        match self.health()? {
            sick @ Health::ReadOnly => Err(sick.error()),
            _ => Ok(()),
        }
    }

    /// Puts a journal on it.
    #[must_use]
    pub fn wrap(self) -> WrapFile {
        Arc::new(move |file| -> Box<dyn SegmentFile> {
            let disk = self.clone();
            Box::new(OnDisk { file, disk })
        })
    }
}

/// A file on it.
struct OnDisk {
    file: File,
    disk: Disk,
}

impl SegmentFile for OnDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.disk.health()? {
            sick @ Health::Full => {
                let fits = bytes.get(..bytes.len() / 2).unwrap_or_default();
                self.file.append(fits)?;
                Err(sick.error())
            }
            sick @ Health::ReadOnly => Err(sick.error()),
            Health::Good | Health::SlowSync(_) | Health::FailedSync { .. } => self.file.append(bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.disk.health()? {
            sick @ (Health::ReadOnly | Health::FailedSync { .. }) => return Err(sick.error()),
            Health::SlowSync(time) => std::thread::sleep(time),
            Health::Good | Health::Full => {}
        }
        self.file.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        match self.disk.health()? {
            sick @ (Health::ReadOnly | Health::FailedSync { cuts: false }) => Err(sick.error()),
            _ => self.file.truncate(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_command_is_read_as_it_is_written() {
        for health in [
            Health::Good,
            Health::Full,
            Health::ReadOnly,
            Health::SlowSync(Duration::from_millis(70)),
            Health::FailedSync { cuts: true },
            Health::FailedSync { cuts: false },
        ] {
            assert_eq!(health.to_string().parse(), Ok(health));
        }
        for wrong in ["", "slow-sync", "slow-sync soon", "empty"] {
            assert!(wrong.parse::<Health>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_fails_as_it_is_told_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path().join("disk"));
        let path = dir.path().join("file");
        let opened = File::options().append(true).create(true).open(&path).unwrap();
        let mut file = (disk.clone().wrap())(opened);
        let held = || {
            let mut text = String::new();
            File::open(&path).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let errno = |done: io::Result<()>| done.err().and_then(|error| error.raw_os_error());
        file.append(b"good").unwrap();
        disk.set(Health::Full).unwrap();
        assert_eq!(errno(file.append(b"full")), Some(28));
        assert_eq!(held(), "goodfu", "a part of it got through");
        file.truncate(4).unwrap();
        file.sync().unwrap();
        disk.set(Health::ReadOnly).unwrap();
        assert_eq!(
            [file.append(b"x"), file.sync(), file.truncate(0), disk.opened()].map(errno),
            [Some(30); 4]
        );
        disk.set(Health::FailedSync { cuts: false }).unwrap();
        file.append(b"!").unwrap();
        assert_eq!([file.sync(), file.truncate(0)].map(errno), [Some(5); 2]);
        disk.set(Health::FailedSync { cuts: true }).unwrap();
        assert_eq!([file.sync(), file.truncate(0)].map(errno), [Some(5), None]);
        disk.set(Health::Good).unwrap();
        file.append(b"again").unwrap();
        assert_eq!(held(), "again");
        std::fs::write(dir.path().join("disk"), "nonsense").unwrap();
        assert!(
            file.append(b"x")
                .unwrap_err()
                .to_string()
                .contains("`nonsense` is not good")
        );
    }
}
