//! The exclusive lock on a data directory: `DIR/lock`, held by `flock`, with the holder's pid inside.
//!
//! Taken before anything else in the directory is opened. The kernel frees the lock when the process dies; the file stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OpenError;

/// The right to write in a data directory, until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct DirLock {
    dir: PathBuf,
    _held: Arc<Held>,
}

/// Unlocks by itself: a child that another thread is just starting has the file open for a moment too, and closing
/// it here would not free it.
#[derive(Debug)]
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Closing it is next.
        let _ = self.0.unlock();
    }
}

impl DirLock {
    /// Takes the lock of `dir`, which is created if missing.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it, [`OpenError::Io`] when the system refuses.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        super::open::create_folder(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            _held: Arc::new(Held(flock(dir)?)),
        })
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn flock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let io = |source| OpenError::Io {
        file: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Whatever it holds goes into a message only; its holder may be just writing it.
            let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut pid);
            return Err(OpenError::InUse {
                dir: dir.to_path_buf(),
                pid: pid.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}
