//! Files that hold one secret: how they are read and made.
//!
//! Called by [`super::token`] and [`super::key`]. What must stay true: a file that others can read is not used, one
//! that is made is its owner's alone from its first byte on, and a crash leaves no half of one behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use thiserror::Error;
use zeroize::Zeroizing;

/// Why a file can not be used for a secret.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// It can not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others can read it.
    #[error("mode {mode:03o} lets others read it; make it 600")]
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
}

impl SecretFileError {
    /// There is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The text in the file, wiped on drop.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Exposed { mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the file with one line in it, mode 0600: written beside its place and then moved there, durable.
pub(super) fn create(path: &Path, line: &str) -> Result<(), SecretFileError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let _ = fs::remove_file(&draft);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// 32 bytes of the system's random source, wiped on drop.
pub(super) fn random() -> Result<Zeroizing<[u8; 32]>, SecretFileError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(io::Error::other)?;
    Ok(bytes)
}
