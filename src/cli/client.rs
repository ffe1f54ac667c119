//! The command line's client of the API in docs/API.md.
//!
//! Called by the commands that talk to a running tellerd. What must stay true: nothing that changes something is
//! sent twice, and an error says what to do.

use std::collections::VecDeque;
use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::api::{
    AtmList, AtmView, CancelCashOut, CashOutList, CashOutView, ClientList, ClientView, Invitation, InviteClient,
    LoadCassettes, Ordered, Problem, ResolveCashOut, StartCashOut,
};
use crate::config::token::{Token, TokenError, load_token};
use crate::ids::{AtmId, CashOutId, ClientName};

use super::sse;

const CONNECT: Duration = Duration::from_secs(5);
/// Longer than LND takes to give up, and than a stream of events is ever silent.
const SILENCE: Duration = Duration::from_secs(40);

/// Why a request came to nothing.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("nothing answers at {base} ({}); is tellerd running there?", innermost(cause))]
    Unreachable { base: String, cause: reqwest::Error },
    /// What was asked may have been done or not.
    #[error("the connection to {base} broke ({})", innermost(cause))]
    Broken { base: String, cause: reqwest::Error },
    #[error("{}; {TOKEN_ADVICE}", problem.message)]
    Unauthorized { problem: Problem },
    #[error("{} [{}]", problem.message, problem.code)]
    Refused { status: StatusCode, problem: Problem },
    #[error("{base} answers with status {status}, and not as tellerd does; does something else run there?")]
    NotTellerd { base: String, status: StatusCode },
    #[error(transparent)]
    Token(#[from] TokenError),
}

const TOKEN_ADVICE: &str = "give --config FILE or --token-file FILE, or set TELLERD_TOKEN";

impl ClientError {
    /// It may be another matter in a moment: tellerd is being started again.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } | Self::NotTellerd { status, .. } => status.is_server_error(),
            Self::Unauthorized { .. } | Self::Token(_) => false,
        }
    }
}

/// The words of the system below those of the libraries.
fn innermost(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

/// Where the token is.
#[derive(Debug)]
pub(super) enum TokenSource {
    None,
    /// Read only when it is needed: reading the API needs no token.
    File(PathBuf),
    Given(Token),
}

/// One tellerd.
#[derive(Debug)]
pub(super) struct Api {
    base: String,
    http: reqwest::Client,
    token: TokenSource,
}

impl Api {
    /// For the tellerd at `base`, as in `http://127.0.0.1:9377`.
    pub fn new(base: &str, token: TokenSource) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/');
        let url = reqwest::Url::parse(base).ok().filter(|url| url.has_host());
        anyhow::ensure!(
            url.is_some_and(|url| url.scheme() == "http"),
            "`{base}` is not the address of a tellerd: http://HOST:PORT expected (it has no TLS)"
        );
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()?;
        Ok(Self {
            base: base.to_owned(),
            http,
            token,
        })
    }

    pub async fn start(&self, wanted: &StartCashOut) -> Result<CashOutView, ClientError> {
        self.post("/v1/cashouts", wanted).await
    }

    pub async fn cancel(&self, id: CashOutId, order: &CancelCashOut) -> Result<CashOutView, ClientError> {
        self.post(&format!("/v1/cashouts/{id}/cancel"), order).await
    }

    pub async fn resolve(&self, id: CashOutId, word: &ResolveCashOut) -> Result<CashOutView, ClientError> {
        self.post(&format!("/v1/cashouts/{id}/resolve"), word).await
    }

    pub async fn cashout(&self, id: CashOutId) -> Result<CashOutView, ClientError> {
        self.get(&format!("/v1/cashouts/{id}")).await
    }

    pub async fn cashouts(&self, atm: Option<&AtmId>, limit: u16) -> Result<CashOutList, ClientError> {
        let atm = atm.map(|atm| format!("&atm={atm}")).unwrap_or_default();
        self.get(&format!("/v1/cashouts?limit={limit}{atm}")).await
    }

    pub async fn atms(&self) -> Result<AtmList, ClientError> {
        self.get("/v1/atms").await
    }

    pub async fn drain(&self, atm: &AtmId, word: &Ordered) -> Result<AtmView, ClientError> {
        self.post(&format!("/v1/atms/{atm}/drain"), word).await
    }

    pub async fn resume(&self, atm: &AtmId, word: &Ordered) -> Result<AtmView, ClientError> {
        self.post(&format!("/v1/atms/{atm}/resume"), word).await
    }

    pub async fn load(&self, atm: &AtmId, word: &LoadCassettes) -> Result<AtmView, ClientError> {
        self.post(&format!("/v1/atms/{atm}/load"), word).await
    }

    pub async fn clients(&self) -> Result<ClientList, ClientError> {
        self.get("/v1/clients").await
    }

    pub async fn invite(&self, wanted: &InviteClient) -> Result<Invitation, ClientError> {
        self.post("/v1/clients", wanted).await
    }

    pub async fn revoke(&self, client: &ClientName, word: &Ordered) -> Result<ClientView, ClientError> {
        self.post(&format!("/v1/clients/{client}/revoke"), word).await
    }

    pub async fn events(&self, id: CashOutId) -> Result<Events, ClientError> {
        let request = self.request(Method::GET, &format!("/v1/cashouts/{id}/events"));
        Ok(Events {
            base: self.base.clone(),
            response: self.send(request).await?,
            parser: sse::Parser::default(),
            arrived: VecDeque::new(),
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        self.read(response).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let request = self.request(Method::POST, path).json(body);
        let request = match &self.token {
            TokenSource::None => request,
            TokenSource::File(path) => request.bearer_auth(load_token(path)?.expose()),
            TokenSource::Given(token) => request.bearer_auth(token.expose()),
        };
        let response = self.send(request).await?;
        self.read(response).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|cause| failed(&self.base, cause))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        match response.json::<Problem>().await {
            Ok(problem) if status == StatusCode::UNAUTHORIZED => Err(ClientError::Unauthorized { problem }),
            Ok(problem) => Err(ClientError::Refused { status, problem }),
            Err(_) => Err(self.not_tellerd(status)),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let status = response.status();
        let bytes = response.bytes().await.map_err(|cause| failed(&self.base, cause))?;
        serde_json::from_slice(&bytes).map_err(|_| self.not_tellerd(status))
    }

    fn not_tellerd(&self, status: StatusCode) -> ClientError {
        let base = self.base.clone();
        ClientError::NotTellerd { base, status }
    }
}

fn failed(base: &str, cause: reqwest::Error) -> ClientError {
    let base = base.to_owned();
    if cause.is_connect() {
        ClientError::Unreachable { base, cause }
    } else {
        ClientError::Broken { base, cause }
    }
}

/// The changes of one cash-out, as they come.
#[derive(Debug)]
pub(super) struct Events {
    base: String,
    response: Response,
    parser: sse::Parser,
    arrived: VecDeque<CashOutView>,
}

impl Events {
    /// The next view; `None` when tellerd ended the stream. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Result<Option<CashOutView>, ClientError> {
        loop {
            if let Some(view) = self.arrived.pop_front() {
                return Ok(Some(view));
            }
            let chunk = self.response.chunk().await;
            let Some(chunk) = chunk.map_err(|cause| failed(&self.base, cause))? else {
                return Ok(None);
            };
            let garbled = || ClientError::NotTellerd {
                base: self.base.clone(),
                status: self.response.status(),
            };
            for event in self.parser.push(&chunk).map_err(|_| garbled())? {
                if event.name == "cashout" {
                    let view = serde_json::from_str(&event.data).map_err(|_| garbled())?;
                    self.arrived.push_back(view);
                }
            }
        }
    }
}
