//! A site's side: enrolls with its invitation, then tells its service how its machines fare.
//!
//! Runs beside the actors for as long as they do. What must stay true: a report that is lost is followed by the next
//! one; an invitation is deleted only after the service has said that it was used.

use std::path::Path;
use std::time::Duration;

use super::sites::{ATMS, WAITING};
use crate::actors::fleet::Fleet;
use crate::actors::views;
use crate::api::{SiteReport, WaitingItem};
use crate::nostr::caller::{CallError, Caller};
use crate::nostr::method::{Call, PairingToken};
use crate::nostr::wire::Code;
use crate::time::SharedClock;

/// Four of them fit into the time after which a site counts as down.
pub const EVERY: Duration = Duration::from_secs(30);

/// Reports for ever.
pub async fn report(fleet: Fleet, caller: Caller, clock: SharedClock) {
    loop {
        let report = collect(&fleet, &clock).await;
        match caller.call(&Call::ReportSite(Box::new(report))).await {
            Ok(_) => {}
            Err(error @ CallError::NoAnswer { .. }) => tracing::debug!(%error, "the report was not heard"),
            Err(error) => tracing::warn!(%error, "the service does not take this site's report"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn collect(fleet: &Fleet, clock: &SharedClock) -> SiteReport {
    let atms = fleet.atms().await;
    let open = atms.iter().flat_map(|atm| &atm.open).map(views::cashout);
    let waiting = open.filter(|view| view.operator_action.is_some());
    let waiting = waiting.map(|view| WaitingItem {
        id: view.id,
        atm: view.atm,
        state: view.state,
        reason: view.reason,
        operator_action: view.operator_action,
    });
    let (waiting, all) = (waiting.collect::<Vec<_>>(), atms.iter().map(views::atm).collect());
    SiteReport {
        version: concat!("tellerd ", env!("CARGO_PKG_VERSION")).to_owned(),
        now_unix_ms: clock.now(),
        waiting: at_most(WAITING, "cash-outs wait for an operator", waiting),
        atms: at_most(ATMS, "machines", all),
    }
}

/// What a report has room for. One with more would be refused as a whole, and the site shown as down.
fn at_most<T>(most: usize, what: &str, mut all: Vec<T>) -> Vec<T> {
    if all.len() > most {
        tracing::warn!("{} {what}: the service is told of {most}", all.len());
        all.truncate(most);
    }
    all
}

/// Uses the invitation in `file`, if there is one, until the service has taken it; then deletes it.
pub async fn enroll(caller: &Caller, file: &Path) {
    let token = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return tracing::error!(file = %file.display(), %error, "site.pairing_file can not be read"),
        Ok(text) => text.trim().rsplit(':').next().and_then(PairingToken::read_text),
    };
    let Some(token) = token else {
        return tracing::error!(file = %file.display(), "site.pairing_file holds no pairing string");
    };
    loop {
        match caller.call(&Call::EnrollClient(token.clone())).await {
            Ok(_) => break,
            Err(CallError::Failed(failure)) if failure.code == Code::NotAllowed => {
                return tracing::error!(%failure, file = %file.display(), "the service does not take the invitation");
            }
            Err(error) => tracing::warn!(%error, "not enrolled yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tracing::info!("this site is enrolled at its service");
    if let Err(error) = std::fs::remove_file(file) {
        tracing::warn!(%error, file = %file.display(), "the used invitation can not be deleted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_never_has_more_than_a_service_takes() {
        assert_eq!(at_most(3, "machines", vec![1, 2, 3]), [1, 2, 3]);
        assert_eq!(at_most(3, "machines", vec![1, 2, 3, 4]), [1, 2, 3]);
    }
}
