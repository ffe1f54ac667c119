//! `tellerd key`, and where an operator's key is: who he is over Nostr.
//!
//! What must stay true: only the public key is printed; a key is made only when it was asked for.

use std::path::Path;
use std::process::ExitCode;

use ::nostr::nips::nip19::{Nip19Profile, ToBech32};
use ::nostr::{Keys, RelayUrl};
use anyhow::{Context, anyhow};

use crate::config::key::{EXPECTED, KeyError, VARIABLE, existing, from_file, key_in_variable};

use super::via::npub;

/// Prints the public key, and with relays the name under which a tellerd with this key is found there; makes the file
/// when it is not there.
pub(super) fn run(file: Option<&Path>, relays: Vec<RelayUrl>) -> anyhow::Result<ExitCode> {
    let keys = match file {
        Some(file) => from_file(file).map_err(told)?,
        None => given()?.ok_or_else(|| anyhow!("which key? Give --key-file FILE; it is made when it is missing"))?,
    };
    println!("{}", npub(&keys));
    if !relays.is_empty() {
        let profile = Nip19Profile::new(keys.public_key(), relays);
        println!("nostr:{}", profile.to_bech32().context("--relay: too many")?);
    }
    Ok(ExitCode::SUCCESS)
}

/// The key in `file`, else the one in the variable.
pub(super) fn operator(file: Option<&Path>) -> anyhow::Result<Keys> {
    let keys = match file {
        Some(file) => Some(existing(file).map_err(told)?),
        None => given()?,
    };
    keys.ok_or_else(|| {
        anyhow!(
            "--via needs the operator's key: give --key-file FILE, or set {VARIABLE}; `tellerd key --key-file FILE` makes one"
        )
    })
}

fn given() -> anyhow::Result<Option<Keys>> {
    Ok(key_in_variable()?)
}

/// The error in the words of the command line.
fn told(error: KeyError) -> anyhow::Error {
    match error {
        KeyError::File { path, source } if source.is_missing() => {
            let path = path.display();
            anyhow!("--key-file {path}: {source}; `tellerd key --key-file {path}` makes it")
        }
        KeyError::File { path, source } => anyhow!("--key-file {}: {source}", path.display()),
        KeyError::Unfit(path) => anyhow!("--key-file {}: {EXPECTED}", path.display()),
        KeyError::Variable => error.into(),
    }
}
