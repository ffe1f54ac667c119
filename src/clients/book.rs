//! What was invited, enrolled and revoked: the fold of the journal's client records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ConfiguredClient;
use crate::ids::{ClientName, NostrKey, TokenHash};
use crate::time::UnixMs;

/// What happened to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ClientEvent {
    /// It was invited; an earlier invitation of the same name is void.
    Invited {
        /// Of the token that it was given.
        token: TokenHash,
        /// From then on the token is void.
        until: UnixMs,
        /// Who invited it.
        by: String,
    },
    /// It has used its token: from now on this key is the client.
    Enrolled {
        /// Its key.
        key: NostrKey,
        /// When.
        at: UnixMs,
    },
    /// Its key and its invitation are void.
    Revoked {
        /// Who ordered it.
        by: String,
    },
}

impl ClientEvent {
    /// The event's name, as it stands in the journal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Invited { .. } => "invited",
            Self::Enrolled { .. } => "enrolled",
            Self::Revoked { .. } => "revoked",
        }
    }
}

/// An invitation that was not used yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Of its token.
    pub token: TokenHash,
    /// From then on it is void.
    pub until: UnixMs,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Client {
    /// Its key, once it enrolled; `None` again when it was revoked.
    pub key: Option<NostrKey>,
    /// Its invitation, while there is one.
    pub invite: Option<Invite>,
    /// It was revoked, and not invited again since.
    pub revoked: bool,
}

/// Why a token does not enroll its bearer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnrollError {
    /// No invitation has this token: never had, was used, or was replaced.
    #[error("the token is not valid: ask the operator for a new one")]
    Unknown,
    /// It is too old.
    #[error("the token has expired: ask the operator for a new one")]
    Expired,
    /// One key is one client: its limits could be had twice otherwise, and a revocation would not end it.
    #[error("this key is the client {0} already: use another key, or ask the operator to revoke {0} first")]
    KeyTaken(ClientName),
    /// Meanwhile the configuration gives the invited name a key.
    #[error("the client {0} has its key in the service's configuration: ask the operator")]
    Configured(ClientName),
}

/// All clients that were ever invited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Book {
    /// By name.
    pub clients: BTreeMap<ClientName, Client>,
}

impl Book {
    /// The book after `event`.
    pub fn apply(&mut self, name: &ClientName, event: &ClientEvent) {
        let client = self.clients.entry(name.clone()).or_default();
        match event {
            ClientEvent::Invited { token, until, .. } => {
                let (token, until) = (*token, *until);
                client.invite = Some(Invite { token, until });
                client.revoked = false;
            }
            ClientEvent::Enrolled { key, .. } => {
                client.key = Some(*key);
                client.invite = None;
            }
            ClientEvent::Revoked { .. } => {
                *client = Client {
                    revoked: true,
                    ..Client::default()
                };
            }
        }
    }

    /// Who the bearer of this token and `key` becomes at `now`: the name whose [`ClientEvent::Enrolled`] is to be
    /// written. Nothing is changed here.
    ///
    /// # Errors
    /// When the token is void, or the key can not be that client's.
    pub fn enrolls(
        &self,
        token: TokenHash,
        key: NostrKey,
        now: UnixMs,
        configured: &[ConfiguredClient],
    ) -> Result<&ClientName, EnrollError> {
        let name = self.invited(token, now)?;
        if configured.iter().any(|one| one.name == *name && one.key.is_some()) {
            return Err(EnrollError::Configured(name.clone()));
        }
        let enrolled = self.clients.iter().filter(|(_, client)| client.key == Some(key));
        let fixed = configured.iter().filter(|one| one.key == Some(key));
        let mut holders = enrolled.map(|(name, _)| name).chain(fixed.map(|one| &one.name));
        match holders.find(|holder| *holder != name) {
            Some(holder) => Err(EnrollError::KeyTaken(holder.clone())),
            None => Ok(name),
        }
    }

    /// Whose invitation has this token at `now`.
    fn invited(&self, token: TokenHash, now: UnixMs) -> Result<&ClientName, EnrollError> {
        let has = |client: &Client| client.invite.filter(|invite| invite.token == token);
        let mut invites = self.clients.iter();
        match invites.find_map(|(name, client)| Some((name, has(client)?))) {
            Some((_, invite)) if now >= invite.until => Err(EnrollError::Expired),
            Some((name, _)) => Ok(name),
            None => Err(EnrollError::Unknown),
        }
    }
}
