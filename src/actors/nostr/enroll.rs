//! Invitations: the first call with a token binds the caller's key.
//!
//! What must stay true: the record is durable before the key may do anything; a repeated call by the same key, whose
//! answer was lost, is answered like the first.

use sha2::{Digest, Sha256};

use super::{Caller, Desk};
use crate::ids::TokenHash;
use crate::nostr::method::{Enrolled, PairingToken};
use crate::nostr::wire::{Code, Failure};

impl Desk {
    pub(super) async fn enroll(&self, caller: &Caller, token: &PairingToken) -> Result<Enrolled, Failure> {
        if let Some((client, _)) = &caller.who.client {
            return Ok(Enrolled {
                client: client.to_string(),
            });
        }
        let token = TokenHash(Sha256::digest(token.expose()).into());
        let enrolled = self.fleet.enroll(caller.key, token).await;
        let client = enrolled.map_err(|error| Failure::new(Code::NotAllowed, error.to_string()))?;
        tracing::info!(client = %client, key = %caller.key, "a client has enrolled");
        Ok(Enrolled {
            client: client.to_string(),
        })
    }
}
