//! A tellerd reached over Nostr: no port is open on either side, and who orders is who holds the key.
//!
//! What must stay true: nothing secret is printed, not even one that was given in the wrong place; an error says what to
//! check; an order that got no answer is told as one that may have been carried out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::nostr::{Keys, PublicKey, RelayUrl, ToBech32};
use anyhow::{Context, anyhow, bail};
use tokio::sync::mpsc;

use crate::api::{AtmList, AtmView, CashOutView, Decision, LoadedCassette};
use crate::clients::Role;
use crate::ids::{AtmId, CashOutId};
use crate::nostr::caller::{CallError, Caller, CallerTimings};
use crate::nostr::field::{self, BadField, Object};
use crate::nostr::method::{Call, OperatorCall};
use crate::nostr::relays::{Relays, Settings, Timings, Unwatched};
use crate::nostr::wire::{Code, Version};
use crate::time::SystemClock;

/// So long a relay may take to be connected and listened to.
const CONNECT: Duration = Duration::from_secs(8);
/// Cash-outs asked for at once: several fit into one event.
const PAGE: u16 = 50;
/// Events that wait to be looked into.
const ARRIVED: usize = 64;

/// Who asks whom, and where.
pub(super) struct Target {
    /// The operator's.
    pub keys: Keys,
    /// The tellerd's.
    pub service: PublicKey,
    /// At least one.
    pub relays: Vec<RelayUrl>,
}

/// One tellerd, over its relays.
pub(super) struct Via {
    caller: Caller,
    /// The operator's key, to be shown.
    npub: String,
    relays: String,
    _line: Arc<Relays>,
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Via({:?} over {})", self.caller, self.relays)
    }
}

/// The public key of `keys` as people are shown it.
pub(super) fn npub(keys: &Keys) -> String {
    let key = keys.public_key();
    key.to_bech32().unwrap_or_else(|_| key.to_hex())
}

impl Via {
    /// Connects, and waits until answers can be heard.
    pub async fn connect(target: Target) -> anyhow::Result<Self> {
        let Target { keys, service, relays } = target;
        let clock = Arc::new(SystemClock);
        let named: Vec<&str> = relays.iter().map(RelayUrl::as_str).collect();
        let named = named.join(", ");
        let settings = Settings {
            urls: relays,
            keys: keys.clone(),
            clock: Arc::clone(&clock) as _,
            timings: Timings::default(),
        };
        let (sender, mut arrived) = mpsc::channel(ARRIVED);
        let line = Arc::new(Relays::start(settings, sender, Arc::new(Unwatched)).await?);
        let npub = npub(&keys);
        let outbox = Arc::clone(&line) as _;
        let caller = Caller::new(keys, service, Version::V2, clock, outbox, CallerTimings::default());
        let hearing = caller.clone();
        tokio::spawn(async move {
            while let Some(arrived) = arrived.recv().await {
                if let Err(reason) = hearing.incoming(arrived.event) {
                    tracing::debug!(?reason, "no message from the tellerd asked");
                }
            }
        });
        // An answer that comes before it is listened for is lost.
        let mut epoch = line.epoch();
        if tokio::time::timeout(CONNECT, epoch.wait_for(|times| *times > 0))
            .await
            .is_err()
        {
            match line.connected() {
                0 => bail!("no relay can be reached: {named}; is this machine online, and are they the right ones?"),
                _ => bail!("no relay lets this key listen: {named}"),
            }
        }
        Ok(Self {
            caller,
            npub,
            relays: named,
            _line: line,
        })
    }

    pub async fn atms(&self) -> anyhow::Result<AtmList> {
        let read = |fields: &Object| {
            Ok(AtmList {
                atms: field::typed(fields, "atms", "a list of machines")?,
                sites: field::typed(fields, "sites", "a list of sites")?,
            })
        };
        self.ask(OperatorCall::ListAtms, read).await
    }

    pub async fn cashout(&self, id: CashOutId) -> anyhow::Result<CashOutView> {
        self.ask(OperatorCall::GetCashOut(id), cashout).await
    }

    /// The newest first.
    pub async fn cashouts(&self, atm: Option<&AtmId>, limit: u16) -> anyhow::Result<Vec<CashOutView>> {
        let mut found: Vec<CashOutView> = Vec::new();
        let mut left = limit;
        while left > 0 {
            let call = OperatorCall::ListCashOuts {
                atm: atm.cloned(),
                before: found.last().map(|last| last.id),
                limit: left.min(PAGE),
            };
            let asked = usize::from(left.min(PAGE));
            let read = |fields: &Object| field::typed(fields, "cashouts", "a list of cash-outs");
            let page: Vec<CashOutView> = self.ask(call, read).await?;
            let last = page.len() < asked;
            left -= left.min(PAGE);
            found.extend(page);
            if last {
                break;
            }
        }
        Ok(found)
    }

    pub async fn drain(&self, id: &AtmId) -> anyhow::Result<AtmView> {
        self.ask(OperatorCall::DrainAtm(id.clone()), atm).await
    }

    pub async fn resume(&self, id: &AtmId) -> anyhow::Result<AtmView> {
        self.ask(OperatorCall::ResumeAtm(id.clone()), atm).await
    }

    pub async fn load(&self, id: &AtmId, cassettes: Vec<LoadedCassette>) -> anyhow::Result<AtmView> {
        let id = id.clone();
        self.ask(OperatorCall::LoadAtm { atm: id, cassettes }, atm).await
    }

    pub async fn resolve(&self, id: CashOutId, decision: Decision, note: String) -> anyhow::Result<CashOutView> {
        let call = OperatorCall::ResolveCashOut {
            cashout: id,
            decision,
            note,
        };
        self.ask(call, cashout).await
    }

    async fn ask<T>(&self, call: OperatorCall, read: fn(&Object) -> Result<T, BadField>) -> anyhow::Result<T> {
        let least = call.least();
        let asked = self.caller.ask(&Call::Operator(call), read).await;
        asked.map_err(|error| self.told(error, least))
    }

    /// The error, with what to do about it.
    fn told(&self, error: CallError, least: Role) -> anyhow::Error {
        let (npub, relays) = (&self.npub, &self.relays);
        let maybe = match is_known(&error) || least == Role::Viewer {
            true => "",
            false => "; THE ORDER MAY HAVE BEEN CARRIED OUT ALL THE SAME: look before you order it again",
        };
        match error {
            CallError::NoAnswer { waited, trouble } => {
                let why = match trouble {
                    Some(words) => format!("the relays took no request: {words}"),
                    None => {
                        "check that it runs with these relays in [nostr], that the key after --via is its own, and \
                             that the clocks of both machines are right"
                            .to_owned()
                    }
                };
                anyhow!(
                    "no answer from that tellerd within {} s over {relays}: {why}{maybe}",
                    waited.as_secs()
                )
            }
            CallError::Failed(failure) if failure.code == Code::NotAllowed => anyhow!(
                "{}; it takes the role {least} or more: an [[operator]] in the configuration of that tellerd with \
                 key = \"{npub}\" and this role",
                failure.reason
            ),
            CallError::Failed(failure) => anyhow!("{} [{}]{maybe}", failure.reason, failure.code.as_str()),
            other => anyhow!("{other}{maybe}"),
        }
    }
}

/// Whether an order that came to this was certainly not carried out. A part of the daemon that ended over an order says
/// "unavailable", an answer that can not be read may be to one that was carried out, and "rate limited" to its repetition.
fn is_known(error: &CallError) -> bool {
    match error {
        CallError::NoAnswer { .. } | CallError::Bad(_) => false,
        CallError::Failed(failure) => !matches!(failure.code, Code::Unavailable | Code::RateLimited | Code::Other),
        CallError::Seal(_) | CallError::Busy => true,
    }
}

fn atm(fields: &Object) -> Result<AtmView, BadField> {
    field::typed(fields, "atm", "a machine")
}

fn cashout(fields: &Object) -> Result<CashOutView, BadField> {
    field::typed(fields, "cashout", "a cash-out")
}

/// The tellerd named by `--via`, with the relays that come with the name.
pub(super) fn target(text: &str) -> anyhow::Result<(PublicKey, Vec<String>)> {
    let name = text.strip_prefix("nostr:").unwrap_or(text);
    if name.contains(':') {
        bail!(
            "--via: a pairing string of a client: what is before its colon names the tellerd, the rest is not needed"
        );
    }
    let (key, relays) = crate::config::nostr::read_profile(name).map_err(|why| anyhow!("--via: {why}"))?;
    let key = PublicKey::from_slice(&key.0).context("--via")?;
    Ok((key, relays))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nostr::wire::Failure;

    #[test]
    fn only_what_says_that_nothing_was_done_lets_an_order_be_given_again() {
        let failed = |code| CallError::Failed(Failure::new(code, "no"));
        for code in [Code::Refused, Code::NotAllowed, Code::NotFound] {
            assert!(is_known(&failed(code)), "{code:?}");
        }
        for code in [Code::Unavailable, Code::RateLimited, Code::Other] {
            assert!(!is_known(&failed(code)), "{code:?}");
        }
        assert!(!is_known(&CallError::Bad(BadField::new("atm", "is missing"))));
        assert!(is_known(&CallError::Busy));
    }
}
