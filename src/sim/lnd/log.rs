//! The simulated LND's memory on disk: `ledger.jsonl`, one line of JSON for each change, synced before the answer.
//!
//! Called by [`super::engine`]. A line is an array of records that changed together; a later record replaces an
//! earlier one. Must stay true: an answered change survives SIGKILL at any instant; a torn last line is a change
//! that was never answered; anything else unreadable is an error that names the line.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::node::record::Entry;

const FILE: &str = "ledger.jsonl";
const HEADER: &str = "{\"format\":\"tellersim-lnd\",\"version\":1}";

/// A failure of the log.
#[derive(Debug, Error)]
pub enum LogError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works in the directory.
    #[error("{0}: in use by another simulated LND")]
    InUse(PathBuf),
    /// A line other than a torn last one is not readable.
    #[error("{path}, line {line}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl LogError {
    /// Names the path in an I/O error.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// The open log. Holds the directory's lock.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    lock: File,
}

impl Log {
    /// Locks `dir`, hands every record to `restore`, and leaves a log that holds only what `entries` returns then.
    pub fn open<N>(
        dir: &Path,
        node: &mut N,
        mut restore: impl FnMut(&mut N, Entry),
        entries: impl FnOnce(&mut N) -> Vec<Entry>,
    ) -> Result<Self, LogError> {
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        if path.exists() {
            read(&path, |entry| restore(node, entry))?;
        }
        let fresh = dir.join("ledger.jsonl.new");
        let mut text = format!("{HEADER}\n").into_bytes();
        for entry in entries(node) {
            text.extend(line(&[entry]).map_err(LogError::io(&path))?);
        }
        replace(&fresh, &path, &text)?;
        let file = File::options().append(true).open(&path).map_err(LogError::io(&path))?;
        Ok(Self { file, path, lock })
    }

    /// Makes records that changed together durable.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let written = line(entries).and_then(|line| self.file.write_all(&line));
        written
            .and_then(|()| self.file.sync_data())
            .map_err(LogError::io(&self.path))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // A child that another thread is just starting has it open for a moment too: closing would not free it.
        let _ = self.lock.unlock();
    }
}

fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(LogError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LogError::InUse(dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(LogError::Io { path, source }),
    }
}

fn line(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entries)?;
    line.push(b'\n');
    Ok(line)
}

fn read(path: &Path, mut restore: impl FnMut(Entry)) -> Result<(), LogError> {
    let mut reader = BufReader::new(File::open(path).map_err(LogError::io(path))?);
    let damaged = |line, reason: String| LogError::Damaged {
        path: path.to_owned(),
        line,
        reason,
    };
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        reader.read_until(b'\n', &mut text).map_err(LogError::io(path))?;
        let Some(text) = text.strip_suffix(b"\n") else { break };
        if number == 1 {
            if text != HEADER.as_bytes() {
                return Err(damaged(
                    1,
                    format!("not a log of this version, which begins with {HEADER}"),
                ));
            }
            continue;
        }
        let entries: Vec<Entry> = serde_json::from_slice(text).map_err(|err| damaged(number, err.to_string()))?;
        entries.into_iter().for_each(&mut restore);
    }
    Ok(())
}

/// Puts `bytes` at `path` as a whole or not at all, durably. `fresh` is a name beside it.
pub(super) fn replace(fresh: &Path, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(fresh).map_err(LogError::io(fresh))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(LogError::io(fresh))?;
    fs::rename(fresh, path).map_err(LogError::io(path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(LogError::io(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Result<(Log, Vec<Entry>), LogError> {
        let mut seen = Vec::new();
        let log = Log::open(dir, &mut seen, |seen, entry| seen.push(entry), |seen| seen.clone())?;
        Ok((log, seen))
    }

    fn append_raw(dir: &Path, bytes: &[u8]) {
        let mut file = File::options().append(true).open(dir.join(FILE)).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_all_before_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path()).unwrap();
        log.append(&[Entry::Height(7), Entry::Height(8)]).unwrap();
        drop(log);
        append_raw(dir.path(), b"[{\"height\":9}");
        let (mut log, seen) = open(dir.path()).unwrap();
        assert_eq!(seen, [Entry::Height(7), Entry::Height(8)]);
        log.append(&[Entry::Height(10)]).unwrap();
        drop(log);
        assert_eq!(open(dir.path()).unwrap().1.last(), Some(&Entry::Height(10)));
    }

    #[test]
    fn damage_names_the_line_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        append_raw(dir.path(), b"[{\"height\":1}]\nnonsense\n[{\"height\":2}]\n");
        let before = fs::read(dir.path().join(FILE)).unwrap();
        let err = open(dir.path()).unwrap_err();
        assert!(matches!(err, LogError::Damaged { line: 3, .. }), "{err}");
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), before);
    }

    #[test]
    fn a_second_opener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()), Err(LogError::InUse(_))));
        drop(first);
        assert!(open(dir.path()).is_ok());
    }
}
