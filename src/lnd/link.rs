//! The connection to LND: made when first needed, made anew from freshly read credentials when it failed.
//!
//! Called by the client around every call. What must stay true: at most one attempt to connect at a time and
//! none before the back-off allows it (calls meanwhile fail at once with the last error); a failure of an old
//! connection never tears down the new one; streams have a connection of their own, so that they can not
//! hold up unary calls.
//! Source: fact sheet section 2, connection conventions; crates sheet, tonic pitfalls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::backoff::Backoff;
use super::credentials;
use super::endpoint::LndEndpoint;
use super::tls::{PinVerifier, flatten};

/// LND closes a connection that is pinged more often than every 5 s, or at all without open calls.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What calls go through. Streams opened through it outlive it.
pub(super) struct Session {
    certificate: CertificateDer<'static>,
    /// Or why there is none: the State service answers without.
    pub macaroon: Result<AsciiMetadataValue, String>,
    pub unary: Channel,
    pub streams: Channel,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// The credentials have to be read again before the session is used again.
    reread: bool,
    /// Failures since LND last answered.
    failures: u32,
    retry_at: Option<Instant>,
    last_error: String,
    /// Counts attempts to connect that failed, so that those who waited for one share its error.
    failed_attempts: u64,
}

enum Next {
    Use(Arc<Session>),
    Refuse(String),
    /// Connect, or only read the credentials again when there is a session already.
    Open(Option<Arc<Session>>),
}

/// The connection and its history.
pub(super) struct Link {
    endpoint: LndEndpoint,
    deadline: Duration,
    backoff: Backoff,
    state: Mutex<State>,
    connecting: tokio::sync::Mutex<()>,
}

impl Link {
    pub fn new(endpoint: LndEndpoint, deadline: Duration, backoff: Backoff) -> Self {
        Self {
            endpoint,
            deadline,
            backoff,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::new(()),
        }
    }

    /// The current session, or a new one when there is none; else the reason why there is none.
    pub async fn session(&self, until: Instant) -> Result<Arc<Session>, String> {
        let seen = self.lock().failed_attempts;
        match self.next(seen) {
            Next::Use(session) => return Ok(session),
            Next::Refuse(reason) => return Err(reason),
            Next::Open(_) => {}
        }
        let Ok(_turn) = timeout_at(until, self.connecting.lock()).await else {
            return Err(self.too_late());
        };
        // Another call may have connected, or failed to, while this one waited for its turn.
        match self.next(seen) {
            Next::Use(session) => Ok(session),
            Next::Refuse(reason) => Err(reason),
            Next::Open(old) => {
                let opened = timeout_at(until, self.open(old)).await;
                self.adopt(opened.unwrap_or_else(|_| Err(self.too_late())))
            }
        }
    }

    /// LND answered through `session`.
    pub fn answered(&self, session: &Arc<Session>) {
        let mut state = self.lock();
        if is_current(&state, session) {
            state.failures = 0;
            state.retry_at = None;
        }
    }

    /// LND denied a call made through `session`: the macaroon may have been replaced.
    pub fn denied(&self, session: &Arc<Session>) {
        let mut state = self.lock();
        if is_current(&state, session) {
            state.reread = true;
        }
    }

    /// No answer came through `session` in time. Its peer may be gone without a word, so connect anew;
    /// that is no failure to connect, so it starts no back-off: each call has waited for its whole deadline.
    pub fn timed_out(&self, session: &Arc<Session>) {
        let mut state = self.lock();
        if is_current(&state, session) {
            state.session = None;
        }
    }

    /// `session` broke.
    pub fn lost(&self, session: &Arc<Session>, error: &str) {
        let mut state = self.lock();
        if is_current(&state, session) {
            self.record_failure(&mut state, error);
        }
    }

    fn next(&self, seen_failed_attempts: u64) -> Next {
        let state = self.lock();
        if let Some(session) = &state.session
            && !state.reread
        {
            return Next::Use(session.clone());
        }
        if state.failed_attempts != seen_failed_attempts && state.session.is_none() {
            return Next::Refuse(state.last_error.clone());
        }
        if state.retry_at.is_some_and(|at| Instant::now() < at) {
            return Next::Refuse(format!("not connected, trying again soon; last: {}", state.last_error));
        }
        Next::Open(state.session.clone())
    }

    fn adopt(&self, opened: Result<Session, String>) -> Result<Arc<Session>, String> {
        let mut state = self.lock();
        match opened {
            Ok(session) => {
                // Without a macaroon, look for it again at the next call.
                state.reread = session.macaroon.is_err();
                let session = Arc::new(session);
                state.session = Some(session.clone());
                Ok(session)
            }
            Err(error) => {
                state.failed_attempts = state.failed_attempts.wrapping_add(1);
                self.record_failure(&mut state, &error);
                Err(error)
            }
        }
    }

    /// The first failure in a row may be followed by an attempt at once; then the back-off counts.
    fn record_failure(&self, state: &mut State, error: &str) {
        state.session = None;
        state.failures = state.failures.saturating_add(1);
        state.retry_at = state.failures.checked_sub(2).map(|attempt| {
            let random = getrandom::u32().unwrap_or(u32::MAX);
            Instant::now() + self.backoff.delay(attempt, random)
        });
        error.clone_into(&mut state.last_error);
    }

    async fn open(&self, old: Option<Arc<Session>>) -> Result<Session, String> {
        let certificate = credentials::certificate(&self.endpoint).await;
        let certificate = certificate.map_err(|e| e.to_string())?;
        let macaroon = credentials::macaroon(&self.endpoint).await.map_err(|e| e.to_string());
        if let Some(old) = old
            && old.certificate == certificate.der
        {
            return Ok(Session {
                certificate: certificate.der,
                macaroon,
                unary: old.unary.clone(),
                streams: old.streams.clone(),
            });
        }
        let der = certificate.der.clone();
        let verifier = PinVerifier::new(certificate, self.endpoint.address.clone());
        let transport = self.transport(verifier).map_err(|e| flatten(&e))?;
        let unary = transport.connect().await.map_err(|e| {
            let address = &self.endpoint.address;
            format!("no connection to LND at {address}: {}", flatten(&e))
        })?;
        tracing::info!(address = %self.endpoint.address, "connected to LND");
        Ok(Session {
            certificate: der,
            macaroon,
            unary,
            streams: transport.connect_lazy(),
        })
    }

    fn transport(&self, verifier: PinVerifier) -> Result<Endpoint, tonic::transport::Error> {
        // The name is always in LND's own certificate. Under another one LND may present a
        // certificate from Let's Encrypt, which is not in `tls.cert`.
        let tls = ClientTlsConfig::new().domain_name("localhost").timeout(self.deadline);
        Endpoint::from_shared(format!("https://{}", self.endpoint.address))?
            .connect_timeout(self.deadline)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(false)
            .tls_config_with_verifier(tls, Arc::new(verifier))
    }

    fn too_late(&self) -> String {
        let (address, ms) = (&self.endpoint.address, self.deadline.as_millis());
        format!("no connection to LND at {address} within {ms} ms")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_current(state: &State, session: &Arc<Session>) -> bool {
    state
        .session
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(current, session))
}
