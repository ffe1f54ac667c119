//! A running tellerd, as operators' commands know it: over HTTP, or over Nostr.
//!
//! What must stay true: commands do not know which of the two it is; each order names who gives it.

use crate::api::{AtmList, AtmView, CashOutView, Decision, LoadCassettes, LoadedCassette, Ordered, ResolveCashOut};
use crate::ids::{AtmId, CashOutId};

use super::client::Api;
use super::connect::By;
use super::via::Via;

/// One tellerd.
#[derive(Debug)]
pub(super) enum Tellerd {
    /// At an address.
    Http(Api),
    /// Behind relays.
    Nostr(Box<Via>),
}

impl Tellerd {
    pub async fn atms(&self) -> anyhow::Result<AtmList> {
        match self {
            Self::Http(api) => Ok(api.atms().await?),
            Self::Nostr(via) => via.atms().await,
        }
    }

    pub async fn cashout(&self, id: CashOutId) -> anyhow::Result<CashOutView> {
        match self {
            Self::Http(api) => Ok(api.cashout(id).await?),
            Self::Nostr(via) => via.cashout(id).await,
        }
    }

    /// The newest first.
    pub async fn cashouts(&self, atm: Option<&AtmId>, limit: u16) -> anyhow::Result<Vec<CashOutView>> {
        match self {
            Self::Http(api) => Ok(api.cashouts(atm, limit).await?.cashouts),
            Self::Nostr(via) => via.cashouts(atm, limit).await,
        }
    }

    pub async fn drain(&self, atm: &AtmId, by: &By) -> anyhow::Result<AtmView> {
        match self {
            Self::Http(api) => Ok(api.drain(atm, &Ordered { by: by.name()? }).await?),
            Self::Nostr(via) => via.drain(atm).await,
        }
    }

    pub async fn resume(&self, atm: &AtmId, by: &By) -> anyhow::Result<AtmView> {
        match self {
            Self::Http(api) => Ok(api.resume(atm, &Ordered { by: by.name()? }).await?),
            Self::Nostr(via) => via.resume(atm).await,
        }
    }

    pub async fn load(&self, atm: &AtmId, cassettes: Vec<LoadedCassette>, by: &By) -> anyhow::Result<AtmView> {
        match self {
            Self::Http(api) => {
                let by = by.name()?;
                Ok(api.load(atm, &LoadCassettes { by, cassettes }).await?)
            }
            Self::Nostr(via) => via.load(atm, cassettes).await,
        }
    }

    pub async fn resolve(
        &self,
        id: CashOutId,
        decision: Decision,
        note: String,
        by: &By,
    ) -> anyhow::Result<CashOutView> {
        match self {
            Self::Http(api) => {
                let by = by.name()?;
                Ok(api.resolve(id, &ResolveCashOut { by, decision, note }).await?)
            }
            Self::Nostr(via) => via.resolve(id, decision, note).await,
        }
    }
}
