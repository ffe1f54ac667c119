//! The secret key that this daemon has on Nostr: it is who the daemon is for its clients, or for its service. An operator's
//! key is kept alike.
//!
//! Called at start, and by the command line. What must stay true: the key is never printed; it is on disk before anything is signed with it,
//! since a daemon with another key is another one; and a key that can not be read is not replaced by a new one.

use std::env::VarError;
use std::path::{Path, PathBuf};

use ::nostr::{Keys, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::secret_file::{self, SecretFileError};

/// Goes before the file.
pub const VARIABLE: &str = "TELLERD_NOSTR_KEY";

/// What stands there.
pub const EXPECTED: &str = "one line with 64 hexadecimal digits or nsec1… expected";

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file can not be read or made, or others can read it.
    #[error("nostr.key_file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SecretFileError,
    },
    /// What is in the file is no secret key.
    #[error("nostr.key_file {0}: {EXPECTED}")]
    Unfit(PathBuf),
    /// What is in the variable is no secret key.
    #[error("the variable {VARIABLE}: {EXPECTED}")]
    Variable,
}

/// The key in the variable [`VARIABLE`], else the one in `path`; a new random one is written there, with mode 0600,
/// when there is no such file.
///
/// # Errors
/// [`KeyError`], which does not repeat what it has read.
pub fn load_or_create_key(path: &Path) -> Result<Keys, KeyError> {
    match key_in_variable()? {
        Some(keys) => Ok(keys),
        None => from_file(path),
    }
}

/// The key in the variable [`VARIABLE`], if it is set.
///
/// # Errors
/// When it holds something else.
pub fn key_in_variable() -> Result<Option<Keys>, KeyError> {
    match std::env::var(VARIABLE).map(Zeroizing::new) {
        Ok(text) => parse(&text).map(Some).ok_or(KeyError::Variable),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(KeyError::Variable),
    }
}

/// The key in `path`; made when there is no such file.
///
/// # Errors
/// [`KeyError`], as above.
pub fn from_file(path: &Path) -> Result<Keys, KeyError> {
    match existing(path) {
        Err(KeyError::File { source, .. }) if source.is_missing() => {
            create(path).map_err(|source| failed(path, source))
        }
        found => found,
    }
}

/// The key in `path`, which must exist.
///
/// # Errors
/// [`KeyError`], as above.
pub fn existing(path: &Path) -> Result<Keys, KeyError> {
    let text = secret_file::read(path).map_err(|source| failed(path, source))?;
    parse(&text).ok_or_else(|| KeyError::Unfit(path.to_owned()))
}

fn failed(path: &Path, source: SecretFileError) -> KeyError {
    let path = path.to_owned();
    KeyError::File { path, source }
}

/// Spaces around it are not part of it.
fn parse(text: &str) -> Option<Keys> {
    SecretKey::parse(text.trim()).ok().map(Keys::new)
}

fn create(path: &Path) -> Result<Keys, SecretFileError> {
    let bytes = secret_file::random()?;
    // One in 2^127 is no key: then the next start has another try.
    let secret = SecretKey::from_slice(&*bytes).map_err(std::io::Error::other)?;
    secret_file::create(path, &Zeroizing::new(secret.to_secret_hex()))?;
    Ok(Keys::new(secret))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use ::nostr::ToBech32;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_new_key_is_private_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nostr.key");
        let first = from_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(from_file(&path).unwrap(), first);
        assert_eq!(
            fs::read_to_string(&path).unwrap().trim(),
            first.secret_key().to_secret_hex()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let other = from_file(&folder.path().join("other.key")).unwrap();
        assert_ne!(other, first);
    }

    #[test]
    fn hexadecimal_and_nsec_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nostr.key");
        let keys = Keys::generate();
        let (hex, nsec) = (
            keys.secret_key().to_secret_hex(),
            keys.secret_key().to_bech32().unwrap(),
        );
        for text in [hex.clone(), format!("{}\n", hex.to_uppercase()), format!(" {nsec}\n")] {
            write(&path, &text);
            assert_eq!(from_file(&path).unwrap(), keys);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_neither_repeated_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nostr.key");
        let npub = Keys::generate().public_key().to_bech32().unwrap();
        for bad in ["", "1234abcd", &"0".repeat(64), &"f".repeat(64), &npub, "nsec1xyz"] {
            write(&path, bad);
            let error = from_file(&path).unwrap_err();
            assert!(matches!(error, KeyError::Unfit(_)), "{bad}");
            let told = format!("{error} {error:?}");
            assert!(bad.is_empty() || !told.contains(bad), "{told}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_key_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nostr.key");
        from_file(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = from_file(&path).unwrap_err().to_string();
        assert!(error.contains("nostr.key") && error.contains("mode 640"), "{error}");
        let nowhere = from_file(Path::new("/nonexistent-folder/key")).unwrap_err();
        assert!(
            nowhere
                .to_string()
                .starts_with("nostr.key_file /nonexistent-folder/key: ")
        );
    }
}
