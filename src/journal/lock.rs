//! The exclusive lock on a data directory: `DIR/lock`, held by `flock`, with the holder's pid inside.
//!
//! Called by `Journal::open`. The kernel frees the lock when the process dies; the file stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::OpenError;

/// Takes the lock; it is held until the file is dropped.
pub(super) fn take(dir: &Path) -> Result<File, OpenError> {
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
