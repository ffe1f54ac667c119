//! Who the service's clients are: invitations, enrolments and revocations, and the roster that everyone reads.
//!
//! The fleet's door for operators ([`Fleet::invite`], [`Fleet::revoke`]) and for the Nostr actor ([`enroll`]). What must
//! stay true: one change at a time, so that no two keys use one token; a change is durable before the roster shows it,
//! and shown although whoever asked for it has gone away; of a token only its hash is kept.

use std::sync::Arc;
use std::time::Duration;

use ::nostr::nips::nip19::{Nip19Profile, ToBech32};
use ::nostr::{PublicKey, RelayUrl};
use thiserror::Error;
use tokio::sync::watch;

use super::drive::{REWRITE, write};
use super::fleet::{Fleet, FleetError};
use super::journal::{JournalError, Load};
use super::shared::Shared;
use crate::api::{ClientView, Invitation};
use crate::clients::{Book, ClientEvent, ConfiguredClient, EnrollError, Limits, Operator, Roster, views};
use crate::entropy::NoEntropy;
use crate::ids::{ClientName, NostrKey, TokenHash};
use crate::nostr::method::PairingToken;
use crate::record::Body;
use crate::store::Folded;
use crate::time::UnixMs;

/// How long the answer to a change is waited for. The change itself goes on.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hold-invoice service that this daemon is for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceIdentity {
    /// Its public key, that of this daemon.
    pub key: NostrKey,
    /// Where it can be reached; at least one.
    pub relays: Vec<String>,
    /// `[[service.client]]`
    pub clients: Vec<ConfiguredClient>,
    /// Of clients that have none of their own.
    pub limits: Limits,
    /// How long an invitation can be used.
    pub invite_valid: Duration,
}

impl ServiceIdentity {
    /// Key and relays as nprofile (NIP-19): as many of the relays, from the first on, as fit into its 1023 characters.
    #[must_use]
    pub fn profile(&self) -> String {
        let relays = self.relays.iter().filter_map(|relay| RelayUrl::parse(relay).ok());
        let mut profile = Nip19Profile::new(PublicKey::from_byte_array(self.key.0), relays);
        loop {
            match profile.to_bech32() {
                Ok(text) => return text,
                Err(_) if profile.relays.pop().is_some() => {}
                // A key alone always fits.
                Err(_) => return self.key.to_string(),
            }
        }
    }

    /// The client's key stands in the configuration.
    fn fixes(&self, name: &ClientName) -> bool {
        self.clients.iter().any(|one| one.name == *name && one.key.is_some())
    }
}

/// What the journal says of the clients.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Who was invited, enrolled and revoked.
    pub book: Book,
    /// Whose invoices are not at their end.
    pub unfinished: Vec<NostrKey>,
}

impl Recorded {
    /// As it is in the state.
    #[must_use]
    pub fn of(folded: &Folded) -> Self {
        Self {
            book: folded.clients.clone(),
            unfinished: folded.unfinished_clients().into_iter().collect(),
        }
    }
}

/// Everyone who may do anything. Without a service nobody is a client, whatever the book says.
#[must_use]
pub fn roster(service: Option<&ServiceIdentity>, operators: &[Operator], recorded: &Recorded) -> Roster {
    let Recorded { book, unfinished } = recorded;
    match service {
        Some(service) => {
            Roster::new(&service.clients, service.limits, operators, book).with_unfinished(unfinished.iter().copied())
        }
        None => Roster::new(&[], Limits::NONE, operators, &Book::default()),
    }
}

/// Why the clients stay as they are.
#[derive(Debug, Clone, Error)]
pub enum ClientError {
    /// Nobody is served here.
    #[error("this tellerd has no service for others: there is no [service] in its configuration")]
    NoService,
    /// The client's key stands in the configuration.
    #[error("{0} has its key in the configuration: change it there")]
    Configured(ClientName),
    /// There is none of this name.
    #[error("no client is called {0}")]
    NoSuchClient(ClientName),
    /// The token does not enroll this key.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// There are no random bytes for a token.
    #[error(transparent)]
    Random(#[from] NoEntropy),
    /// The change is not in the journal, or it is not known whether it is.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<ClientError> for FleetError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoSuchClient(name) => Self::NoSuchClient(name),
            ClientError::Journal(JournalError::Unknown(why)) => Self::Unavailable(why),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// What `change` writes, of whom; `None` when all is as it should be already.
type Wanted = Option<(ClientName, ClientEvent)>;

/// Who has this key, and a token with this hash, becomes a client. `known` is the client whose key it is already: its
/// token may be the one that made it so, and which is void since.
///
/// # Errors
/// When the token is void, the key another client's, or the change can not be made durable.
pub async fn enroll(
    shared: &Arc<Shared>,
    token: TokenHash,
    key: NostrKey,
    known: Option<ClientName>,
) -> Result<ClientName, ClientError> {
    let enrolled = change(shared, move |service, book, now| {
        match (book.enrolls(token, key, now, &service.clients), known) {
            // An OK must leave no token behind that still works.
            (Ok(name), _) => {
                let event = ClientEvent::Enrolled { key, at: now };
                Ok((Some((name.clone(), event)), name.clone()))
            }
            (Err(EnrollError::Unknown), Some(known)) => Ok((None, known)),
            (Err(error), _) => Err(error.into()),
        }
    });
    let (_, name) = enrolled.await?;
    Ok(name)
}

impl Fleet {
    /// Who may do anything over Nostr, now and after each change.
    #[must_use]
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.shared.roster.subscribe()
    }

    /// As [`enroll`].
    ///
    /// # Errors
    /// As there.
    pub async fn enroll(&self, token: TokenHash, key: NostrKey) -> Result<ClientName, ClientError> {
        enroll(&self.shared, token, key, None).await
    }

    /// All clients of the service, by name.
    ///
    /// # Errors
    /// When there is no service, or the state can not be read.
    pub async fn clients(&self) -> Result<Vec<ClientView>, FleetError> {
        let service = service(&self.shared)?;
        let Recorded { book, .. } = recorded(&self.shared).await.map_err(ClientError::from)?;
        Ok(views(&book, &service.clients, self.shared.clock.now()))
    }

    /// Invites a client. A former invitation of this name is void; its key, if it has one, stays until the new
    /// invitation is used.
    ///
    /// # Errors
    /// When there is no service, or the client's key stands in the configuration.
    pub async fn invite(&self, name: ClientName, by: String) -> Result<Invitation, FleetError> {
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        self.shared.entropy.fill(&mut *bytes).map_err(ClientError::from)?;
        let token = PairingToken::from_bytes(*bytes);
        let hash = token.hash();
        let (_, until) = change(&self.shared, move |service, _, now| {
            if service.fixes(&name) {
                return Err(ClientError::Configured(name));
            }
            let until = now.plus(service.invite_valid);
            let token = hash;
            Ok((Some((name, ClientEvent::Invited { token, until, by })), until))
        })
        .await?;
        let profile = service(&self.shared)?.profile();
        Ok(Invitation {
            pairing: format!("{profile}:{}", token.expose()),
            until_unix_ms: until,
        })
    }

    /// A client's key and its invitation are void from now on. For a client that is revoked already nothing is done.
    ///
    /// # Errors
    /// When there is no service or no such client, or its key stands in the configuration.
    pub async fn revoke(&self, name: ClientName, by: String) -> Result<ClientView, FleetError> {
        let of = name.clone();
        let (book, ()) = change(&self.shared, move |service, book, _| {
            if service.fixes(&name) {
                return Err(ClientError::Configured(name));
            }
            let Some(client) = book.clients.get(&name) else {
                return Err(ClientError::NoSuchClient(name));
            };
            let out = client.revoked && client.key.is_none() && client.invite.is_none();
            let wanted = (!out).then_some((name, ClientEvent::Revoked { by }));
            Ok((wanted, ()))
        })
        .await?;
        let views = views(&book, &service(&self.shared)?.clients, self.shared.clock.now());
        let view = views.into_iter().find(|view| view.name == of);
        view.ok_or(FleetError::NoSuchClient(of))
    }
}

fn service(shared: &Shared) -> Result<&Arc<ServiceIdentity>, ClientError> {
    shared.service.as_ref().ok_or(ClientError::NoService)
}

async fn recorded(shared: &Shared) -> Result<Recorded, JournalError> {
    let journal = shared.journal.get().ok_or(JournalError::Down)?;
    let question: Load<Recorded> = Load(Box::new(|folded, _| Ok(Recorded::of(folded))));
    let died = |_| JournalError::Unknown("the journal actor died over a question".into());
    journal.send(question).await.map_err(died)?
}

/// As [`recorded`], when the journal can be asked again. Should it never be, the daemon ends.
async fn recorded_at_last(shared: &Shared) -> Recorded {
    loop {
        match recorded(shared).await {
            Ok(recorded) => return recorded,
            Err(_) => tokio::time::sleep(REWRITE).await,
        }
    }
}

/// Makes what `decide` wants durable and shows it to everyone; answers the book after it. Goes on to its end when the
/// caller goes away.
async fn change<T: 'static>(
    shared: &Arc<Shared>,
    decide: impl FnOnce(&ServiceIdentity, &Book, UnixMs) -> Result<(Wanted, T), ClientError> + 'static,
) -> Result<(Book, T), ClientError> {
    let service = Arc::clone(service(shared)?);
    let shared = Arc::clone(shared);
    let work = actix::spawn(async move {
        let _one = shared.client_changes.lock().await;
        let Recorded { mut book, .. } = recorded(&shared).await?;
        let (wanted, answer) = decide(&service, &book, shared.clock.now())?;
        if let Some((name, event)) = wanted {
            book = make(&shared, name, event).await?;
        }
        Ok((book, answer))
    });
    let unknown = |why: String| ClientError::Journal(JournalError::Unknown(why));
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => done,
        Ok(Err(died)) => Err(unknown(died.to_string())),
        Err(_) => Err(unknown(format!(
            "the journal did not answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

/// Writes the event and shows everyone the roster after it; answers the book.
async fn make(shared: &Shared, name: ClientName, event: ClientEvent) -> Result<Book, JournalError> {
    let body = Body::Client {
        name: name.clone(),
        event: event.clone(),
    };
    let written = write(shared.journal.clone(), body).await;
    match &written {
        Ok(()) => tracing::info!(client = %name, event = event.name(), "the clients changed"),
        // It may be durable or not: the journal's next life knows. Nothing else is changed before.
        Err(JournalError::Unknown(_)) => {}
        Err(error) => return Err(error.clone()),
    }
    // Read anew, after the record: who is a client no more may have asked for an invoice meanwhile.
    let recorded = recorded_at_last(shared).await;
    let roster = roster(shared.service.as_deref(), &shared.operators, &recorded);
    shared.roster.send_replace(Arc::new(roster));
    written.map(|()| recorded.book)
}
