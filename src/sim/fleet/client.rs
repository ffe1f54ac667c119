//! The daemon's HTTP API as customers and operators use it.
//!
//! Called by customers, the operator and the runner. What must stay true: requests are bounded in time; that the
//! daemon is not there is an ordinary answer.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::api::{
    AtmList, AtmView, CashOutList, CashOutView, Decision, Invitation, InviteClient, LoadCassettes, LoadedCassette,
    Ordered, Problem, ReadyView, ResolveCashOut, SiteView, StartCashOut,
};
use crate::ids::{AtmId, CashOutId, ClientName};
use crate::money::Minor;

/// Starting a cash-out waits for LND.
const PATIENCE: Duration = Duration::from_secs(35);
/// Most of a list in one answer.
const PAGE: usize = 500;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The daemon refuses.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Problem),
    /// Nobody knows whether it took effect.
    #[error("no answer: {0}")]
    Gone(#[from] reqwest::Error),
}

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    /// For a daemon on `port` of this machine.
    ///
    /// # Errors
    /// When the system has nothing left for a client.
    pub fn new(port: u16, token: &str) -> Result<Self, ClientError> {
        Ok(Self {
            client: Client::builder().no_proxy().timeout(PATIENCE).build()?,
            base: format!("http://127.0.0.1:{port}"),
            token: token.to_owned(),
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        request.bearer_auth(&self.token)
    }

    async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ClientError> {
        let answer = request.send().await?;
        if answer.status().is_success() {
            return Ok(answer.json().await?);
        }
        Err(ClientError::Refused(answer.json().await?))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Self::read(self.request(Method::GET, path)).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        Self::read(self.request(Method::POST, path).json(body)).await
    }

    /// Whether the process answers.
    pub async fn lives(&self) -> bool {
        let asked = self.request(Method::GET, "/healthz").timeout(Duration::from_secs(2));
        asked.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Whether customers can be served, and how many machines are in service.
    pub async fn ready(&self) -> Result<ReadyView, ClientError> {
        // A body comes with either status.
        let asked = self.request(Method::GET, "/readyz").timeout(PATIENCE);
        Ok(asked.send().await?.json().await?)
    }

    /// A customer wants notes.
    pub async fn start(&self, atm: &AtmId, amount_minor: Minor) -> Result<CashOutView, ClientError> {
        let atm = atm.clone();
        self.post("/v1/cashouts", &StartCashOut { atm, amount_minor }).await
    }

    /// One cash-out.
    pub async fn cashout(&self, id: CashOutId) -> Result<CashOutView, ClientError> {
        self.get(&format!("/v1/cashouts/{id}")).await
    }

    /// The customer does not want it any more.
    pub async fn cancel(&self, id: CashOutId) -> Result<CashOutView, ClientError> {
        self.post(&format!("/v1/cashouts/{id}/cancel"), &serde_json::json!({}))
            .await
    }

    /// An operator decides.
    pub async fn resolve(&self, id: CashOutId, by: &str, decision: Decision) -> Result<CashOutView, ClientError> {
        let (by, note) = (by.to_owned(), "counted at the machine".to_owned());
        self.post(
            &format!("/v1/cashouts/{id}/resolve"),
            &ResolveCashOut { by, decision, note },
        )
        .await
    }

    /// All cash-outs.
    pub async fn cashouts(&self) -> Result<Vec<CashOutView>, ClientError> {
        let mut all: Vec<CashOutView> = Vec::new();
        loop {
            let before = all.last().map_or(String::new(), |last| format!("&before={}", last.id));
            let page: CashOutList = self.get(&format!("/v1/cashouts?limit={PAGE}{before}")).await?;
            let more = page.cashouts.len() == PAGE;
            all.extend(page.cashouts);
            if !more {
                return Ok(all);
            }
        }
    }

    /// All machines.
    pub async fn atms(&self) -> Result<Vec<AtmView>, ClientError> {
        Ok(self.get::<AtmList>("/v1/atms").await?.atms)
    }

    /// All sites of a server.
    pub async fn sites(&self) -> Result<Vec<SiteView>, ClientError> {
        Ok(self.get::<AtmList>("/v1/atms").await?.sites)
    }

    /// Invites a site.
    pub async fn invite(&self, name: &ClientName, by: &str) -> Result<Invitation, ClientError> {
        let (name, by) = (name.clone(), by.to_owned());
        self.post("/v1/clients", &InviteClient { name, by }).await
    }

    /// `drain` or `resume`.
    pub async fn order(&self, atm: &AtmId, what: &str, by: &str) -> Result<AtmView, ClientError> {
        self.post(&format!("/v1/atms/{atm}/{what}"), &Ordered { by: by.to_owned() })
            .await
    }

    /// The cassettes were loaded and counted.
    pub async fn load(&self, atm: &AtmId, by: &str, cassettes: Vec<LoadedCassette>) -> Result<AtmView, ClientError> {
        let by = by.to_owned();
        self.post(&format!("/v1/atms/{atm}/load"), &LoadCassettes { by, cassettes })
            .await
    }
}
