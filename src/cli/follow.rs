//! Following a cash-out to its rest, through restarts of tellerd.
//!
//! Called by `tellerd cashout`. What must stay true: a cash-out outlives its connection, so only its rest or a
//! refusal that will not pass ends the following; each outage is told once.

use crate::api::CashOutView;
use crate::ids::CashOutId;
use crate::lnd::backoff::Backoff;

use super::client::{Api, ClientError, Events};

/// What there is to tell.
#[derive(Debug)]
pub(super) enum News {
    /// The cash-out as it is now.
    View(Box<CashOutView>),
    /// The connection is gone; it is being tried again. The next news is a view.
    Lost(String),
}

/// Follows one cash-out.
pub(super) struct Follower<'a> {
    api: &'a Api,
    id: CashOutId,
    backoff: Backoff,
    events: Option<Events>,
    failures: u32,
    at_rest: bool,
}

impl<'a> Follower<'a> {
    pub fn new(api: &'a Api, id: CashOutId, backoff: Backoff) -> Self {
        Self {
            api,
            id,
            backoff,
            events: None,
            failures: 0,
            at_rest: false,
        }
    }

    /// The next news; `None` when the cash-out is at rest. May be dropped and called again.
    ///
    /// # Errors
    /// A refusal that will not pass.
    pub async fn next(&mut self) -> Result<Option<News>, ClientError> {
        while !self.at_rest {
            let why = match self.connected().await {
                Ok(events) => match events.next().await {
                    Ok(Some(view)) => {
                        self.failures = 0;
                        self.at_rest = view.at_rest();
                        return Ok(Some(News::View(Box::new(view))));
                    }
                    Ok(None) => "tellerd ended it".to_owned(),
                    Err(error) if error.may_pass() => error.to_string(),
                    Err(error) => return Err(error),
                },
                Err(error) if error.may_pass() => error.to_string(),
                Err(error) => return Err(error),
            };
            self.events = None;
            self.failures = self.failures.saturating_add(1);
            if self.failures == 1 {
                return Ok(Some(News::Lost(why)));
            }
        }
        Ok(None)
    }

    async fn connected(&mut self) -> Result<&mut Events, ClientError> {
        let events = match self.events.take() {
            Some(events) => events,
            None => {
                if let Some(attempt) = self.failures.checked_sub(1) {
                    tokio::time::sleep(self.backoff.delay(attempt, getrandom::u32().unwrap_or(u32::MAX))).await;
                }
                self.api.events(self.id).await?
            }
        };
        Ok(self.events.insert(events))
    }
}
