//! The bearer token that the HTTP API asks of whoever changes anything.
//!
//! Called at start and by the command line. What must stay true: the file is readable by its owner
//! only, and the token is never printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::secret_file::{self, SecretFileError};

/// Fewer characters than this could be guessed.
const SHORTEST: usize = 16;

/// The secret. Redacted in `Debug`, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token(String);

impl Token {
    /// The secret text, for a client's `Authorization` header only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `offered` is this token, in a time that does not tell how much of it is right.
    #[must_use]
    pub fn matches(&self, offered: &str) -> bool {
        let pairs = self.0.bytes().zip(offered.bytes());
        let difference = pairs.fold(0, |all, (a, b)| all | (a ^ b));
        self.0.len() == offered.len() && difference == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// A text that is too short for a token, or not printable ASCII without spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("at least {SHORTEST} printable ASCII characters without spaces expected")]
pub struct UnfitToken;

impl FromStr for Token {
    type Err = UnfitToken;

    /// Spaces around it are not part of it.
    fn from_str(text: &str) -> Result<Self, UnfitToken> {
        let text = text.trim();
        if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UnfitToken);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file can not be read or made, or others can read it.
    #[error("token file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SecretFileError,
    },
    /// Too short, or not printable ASCII in one line.
    #[error("token file {0}: one line of at least {SHORTEST} printable ASCII characters without spaces expected")]
    Unfit(PathBuf),
}

/// The token in `path`; a new random one is written there, with mode 0600, when there is no such file.
///
/// # Errors
/// [`TokenError`], when the file can not be used or made.
pub fn load_or_create_token(path: &Path) -> Result<Token, TokenError> {
    match load_token(path) {
        Err(TokenError::File { source, .. }) if source.is_missing() => {
            create(path).map_err(|source| failed(path, source))
        }
        other => other,
    }
}

/// The token in `path`, which must exist.
///
/// # Errors
/// [`TokenError`], when the file is not there or can not be used.
pub fn load_token(path: &Path) -> Result<Token, TokenError> {
    let text = secret_file::read(path).map_err(|source| failed(path, source))?;
    text.parse().map_err(|_: UnfitToken| TokenError::Unfit(path.to_owned()))
}

fn create(path: &Path) -> Result<Token, SecretFileError> {
    let token = Token(hex::encode(*secret_file::random()?));
    secret_file::create(path, &token.0)?;
    Ok(token)
}

fn failed(path: &Path, source: SecretFileError) -> TokenError {
    let path = path.to_owned();
    TokenError::File { path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_token_is_private_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let first = load_or_create_token(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = load_or_create_token(&path).unwrap();
        assert_eq!(first.expose(), second.expose());
        assert_eq!(first.expose().len(), 64);
        assert!(first.matches(second.expose()));
        assert!(!first.matches("") && !first.matches(&first.expose()[1..]) && !first.matches(&"0".repeat(64)));
        assert_eq!(format!("{first:?}"), "Token(redacted)");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_token_others_can_read_or_guess_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "0123456789abcdef0123").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load_or_create_token(&path).unwrap_err().to_string();
        assert!(error.contains("mode 644"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load_or_create_token(&path).is_ok());
        for bad in ["", "short", "two words are not one"] {
            fs::write(&path, bad).unwrap();
            assert!(
                matches!(load_or_create_token(&path), Err(TokenError::Unfit(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = load_or_create_token(Path::new("/nonexistent-folder/token")).unwrap_err();
        assert!(
            error.to_string().starts_with("token file /nonexistent-folder/token: "),
            "{error}"
        );
    }
}
