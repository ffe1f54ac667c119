//! Invitations: the first call with a token binds the caller's key.
//!
//! What must stay true: the record is durable before the key may do anything; a repeated call by the same key, whose
//! answer was lost, is answered like the first; a token that was answered with OK is void.

use super::{Caller, Desk};
use crate::actors::clients::{self, ClientError};
use crate::nostr::method::{Enrolled, PairingToken};
use crate::nostr::wire::{Code, Failure};

impl Desk {
    pub(super) async fn enroll(&self, caller: &Caller, token: &PairingToken) -> Result<Enrolled, Failure> {
        let known = caller.who.client.as_ref().map(|(name, _)| name.clone());
        let client = clients::enroll(&self.shared, token.hash(), caller.key, known).await;
        let client = client.map_err(|error| {
            let code = match error {
                ClientError::Journal(_) => Code::Unavailable,
                _ => Code::NotAllowed,
            };
            Failure::new(code, error.to_string())
        })?;
        Ok(Enrolled {
            client: client.to_string(),
        })
    }
}
