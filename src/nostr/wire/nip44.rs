//! NIP-44, versions 1 and 2: payload text to plaintext and back, under the key of one conversation.
//!
//! Version 2 is the `nostr` crate's; version 1 is here, because that crate has none. Called by `endpoint.rs`.
//! What must stay true: version 1 has no MAC, so a flipped bit decrypts to something else without an error. Decrypt
//! nothing whose event signature was not checked before.
//! Source: NIP-44; for version 1 Lightning.Pub's code, and its vectors in `tests/vectors/nip44_v1.json`.

use std::fmt;

use ::nostr::hashes::Hash;
use ::nostr::nips::nip44::v2;
use ::nostr::util::{generate_shared_key, hkdf};
use ::nostr::{PublicKey, SecretKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20::XChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

const V1_NONCE: usize = 24;
/// The longest plaintext that the crate's version 2 encrypts.
const V2_PLAINTEXT_MAX: usize = 65_536 - 128;
/// Version byte, nonce and MAC around the padded text of version 2, and the length inside it.
const V2_FRAME: usize = 1 + 32 + 32 + 2;

/// Which of the two an event uses. An answer uses the version of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// What Lightning.Pub speaks: XChaCha20, no padding, no MAC.
    V1,
    /// What everybody else speaks.
    V2,
}

/// A payload that can not be decrypted, or a plaintext that can not be encrypted.
#[derive(Debug, Error, PartialEq)]
pub enum Nip44Error {
    /// The peer's key is not a point of the curve.
    #[error("the peer's public key is not valid: {0}")]
    Key(#[from] ::nostr::key::Error),
    /// Not padded standard base64.
    #[error("the payload is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Begins with `{` but is not version 1 in its JSON form.
    #[error("the payload is not version 1 in its JSON form")]
    Json,
    /// Neither version, or shorter than its nonce.
    #[error("the payload is of no known version, or too short")]
    Version,
    /// Version 2 refuses it: MAC, padding or length.
    #[error("version 2: {0}")]
    V2(#[from] ::nostr::nips::nip44::Error),
    /// Decrypts to bytes that are not text.
    #[error("the plaintext is not UTF-8")]
    Text,
    /// No random numbers from the system.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// The keys of the conversation between two parties, the same on both sides. Costs one point multiplication: keep it.
pub struct ConversationKeys {
    v1: Zeroizing<[u8; 32]>,
    v2: v2::ConversationKey,
}

impl fmt::Debug for ConversationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConversationKeys(redacted)")
    }
}

/// Version 1 as a JSON object, which old clients send.
#[derive(Deserialize)]
struct V1Json {
    v: u8,
    nonce: String,
    ciphertext: String,
}

impl ConversationKeys {
    /// The keys between the holder of `secret` and `peer`.
    pub fn derive(secret: &SecretKey, peer: &PublicKey) -> Result<Self, Nip44Error> {
        let shared = Zeroizing::new(generate_shared_key(secret, peer)?);
        Ok(Self {
            v1: Zeroizing::new(Sha256::digest(*shared).into()),
            v2: v2::ConversationKey::new(hkdf::extract(b"nip44-v2", shared.as_slice()).to_byte_array()),
        })
    }

    /// The plaintext of an event's content, and the version it came in.
    pub fn decrypt(&self, content: &str) -> Result<(Version, String), Nip44Error> {
        if content.starts_with('{') {
            let json: V1Json = serde_json::from_str(content).map_err(|_| Nip44Error::Json)?;
            if json.v != 1 {
                return Err(Nip44Error::Version);
            }
            let plaintext = self.decrypt_v1(&STANDARD.decode(json.nonce)?, STANDARD.decode(json.ciphertext)?)?;
            return Ok((Version::V1, plaintext));
        }
        let payload = STANDARD.decode(content)?;
        match payload.split_first() {
            Some((1, rest)) => {
                let (nonce, ciphertext) = rest.split_at_checked(V1_NONCE).ok_or(Nip44Error::Version)?;
                Ok((Version::V1, self.decrypt_v1(nonce, ciphertext.to_vec())?))
            }
            Some((2, _)) => {
                let bytes = v2::decrypt_to_bytes(&self.v2, &payload)?;
                Ok((Version::V2, String::from_utf8(bytes).map_err(|_| Nip44Error::Text)?))
            }
            _ => Err(Nip44Error::Version),
        }
    }

    /// An event's content for `plaintext`.
    pub fn encrypt(&self, version: Version, plaintext: &str) -> Result<String, Nip44Error> {
        match version {
            Version::V1 => {
                let mut nonce = [0; V1_NONCE];
                getrandom::fill(&mut nonce)?;
                Ok(self.encrypt_v1(&nonce, plaintext))
            }
            Version::V2 => Ok(STANDARD.encode(v2::encrypt_to_bytes(&self.v2, plaintext.as_bytes())?)),
        }
    }

    fn decrypt_v1(&self, nonce: &[u8], mut bytes: Vec<u8>) -> Result<String, Nip44Error> {
        let nonce: &[u8; V1_NONCE] = nonce.try_into().map_err(|_| Nip44Error::Version)?;
        self.keystream_v1(nonce, &mut bytes);
        String::from_utf8(bytes).map_err(|_| Nip44Error::Text)
    }

    pub(super) fn encrypt_v1(&self, nonce: &[u8; V1_NONCE], plaintext: &str) -> String {
        let mut payload = Vec::with_capacity(1 + V1_NONCE + plaintext.len());
        payload.push(1);
        payload.extend_from_slice(nonce);
        let mut bytes = plaintext.as_bytes().to_vec();
        self.keystream_v1(nonce, &mut bytes);
        payload.extend_from_slice(&bytes);
        STANDARD.encode(payload)
    }

    fn keystream_v1(&self, nonce: &[u8; V1_NONCE], bytes: &mut [u8]) {
        XChaCha20::new((&*self.v1).into(), nonce.into()).apply_keystream(bytes);
    }

    #[cfg(test)]
    pub(super) fn v1_key(&self) -> &[u8; 32] {
        &self.v1
    }
}

/// The exact length of the content that `plaintext_len` bytes encrypt to; `None` when that version does not take them.
#[must_use]
pub fn content_len(version: Version, plaintext_len: usize) -> Option<usize> {
    let payload = match version {
        Version::V1 => plaintext_len.checked_add(1 + V1_NONCE)?,
        Version::V2 if (1..=V2_PLAINTEXT_MAX).contains(&plaintext_len) => V2_FRAME + padded(plaintext_len),
        Version::V2 => return None,
    };
    payload.div_ceil(3).checked_mul(4)
}

/// NIP-44's padding: to 32 bytes, or to an eighth of the next power of two.
fn padded(len: usize) -> usize {
    let chunk = (len.next_power_of_two() / 8).max(32);
    len.next_multiple_of(chunk)
}

/// The longest plaintext whose content has at most `limit` bytes.
#[must_use]
pub fn longest_plaintext(version: Version, limit: usize) -> usize {
    let (mut fits, mut too_long) = (0, limit.saturating_add(1));
    while too_long - fits > 1 {
        let middle = fits + (too_long - fits) / 2;
        match content_len(version, middle) {
            Some(len) if len <= limit => fits = middle,
            _ => too_long = middle,
        }
    }
    fits
}
