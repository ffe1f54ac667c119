//! What the daemons say at the end: whether all is at rest, and their last words.
//!
//! Called by the runner. What must stay true: a daemon that is away is waited for; each speaks for its own machines only.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::sleep;

use super::client::ClientError;
use super::world::{Site, World};
use crate::api::{CashOutView, SiteView};
use crate::ids::AtmId;
use crate::money::Funds;
use crate::sim::audit::Statement;
use crate::sim::lnd::node::record::InvoiceState;

const LOOK: Duration = Duration::from_millis(300);

/// Until nothing happens any more without a human.
pub async fn at_rest(world: &World) {
    for site in &world.sites {
        while !is_at_rest(site).await {
            sleep(LOOK).await;
        }
    }
    if world.nostr.is_none() {
        return;
    }
    // Behind the sites there is the server, with invoices that no site may know of any more, and with a list of them.
    while !(node_is_at_rest(world) && sites_are_listed(world).await) {
        sleep(LOOK).await;
    }
}

async fn is_at_rest(site: &Site) -> bool {
    let cashouts = site.api.cashouts().await;
    let rests = |cashout: &CashOutView| cashout.at_rest() && cashout.funds != Some(Funds::Pending);
    cashouts.is_ok_and(|cashouts| cashouts.iter().all(rests))
}

fn node_is_at_rest(world: &World) -> bool {
    world.lnd.ledger().is_ok_and(|ledger| {
        let mut states = ledger.invoices.iter().map(|invoice| invoice.state);
        states.all(|state| matches!(state, InvoiceState::Settled | InvoiceState::Canceled))
    })
}

async fn sites_are_listed(world: &World) -> bool {
    let listed = server_sites(world).await;
    listed.is_ok_and(|listed| {
        let up = |site: &Site| {
            listed
                .iter()
                .any(|view| Some(&view.site) == site.name.as_ref() && !view.down)
        };
        world.sites.iter().all(up)
    })
}

async fn server_sites(world: &World) -> Result<Vec<SiteView>, ClientError> {
    match &world.nostr {
        Some(nostr) => nostr.server.sites().await,
        None => Ok(Vec::new()),
    }
}

/// What all of them say together.
pub async fn last_words(world: &World) -> Statement {
    loop {
        match statement(world).await {
            Ok(statement) => return statement,
            Err(error) => tracing::debug!(%error, "no last words yet"),
        }
        sleep(LOOK).await;
    }
}

async fn statement(world: &World) -> Result<Statement, ClientError> {
    let mut all = Statement::default();
    for site in &world.sites {
        let (cashouts, atms) = (site.api.cashouts().await?, site.api.atms().await?);
        let mut named = cashouts
            .iter()
            .map(|view| &view.atm)
            .chain(atms.iter().map(|view| &view.id));
        let own: HashSet<&AtmId> = site.atms.iter().collect();
        if let Some(foreign) = named.find(|atm| !own.contains(atm)) {
            world.trouble(
                "wrong_terms",
                format!("{:?} names {foreign}, a machine of another", site.name),
            );
        }
        all.cashouts.extend(cashouts);
        all.atms.extend(atms);
    }
    all.sites = server_sites(world).await?;
    Ok(all)
}
