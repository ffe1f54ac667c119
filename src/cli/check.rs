//! `tellerd check`: the configuration, key by key, then the live node behind it.
//!
//! What is asked of the node is in `lnd/survey.rs`, what the answers mean in `lnd/verdict`. Must stay true: the node is asked
//! only for a file without mistakes, and nothing is changed there.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cashout::quote::price;
use crate::config::{Config, Payments};
use crate::lnd::permissions::bake_command;
use crate::lnd::verdict::{Expected, Level, judge};
use crate::lnd::{LndClient, LndConfig};
use crate::money::Msat;
use crate::time::SystemClock;

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The configuration file.
    #[arg(long, required_unless_present = "bake")]
    config: Option<PathBuf>,
    /// Check the file only: ask no LND.
    #[arg(long)]
    offline: bool,
    /// Print the command that bakes the macaroon for tellerd, and nothing else.
    #[arg(long, conflicts_with_all = ["config", "offline"])]
    bake: bool,
}

pub(super) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let Some(file) = args.config else {
        println!("{}", bake_command());
        return Ok(ExitCode::SUCCESS);
    };
    let config = Config::load(&file)?;
    let atms: Vec<&str> = config.atms.iter().map(|atm| atm.id.as_str()).collect();
    let atms = if atms.is_empty() {
        "none".to_owned()
    } else {
        atms.join(", ")
    };
    println!("{}: valid; ATMs: {atms}", file.display());
    match &config.payments {
        _ if args.offline => Ok(ExitCode::SUCCESS),
        Payments::Lnd(lnd) => node(lnd, &expected(&config)?).await,
        Payments::Nostr(_) => {
            println!("payments = \"nostr\": the LND is the service's, and `tellerd check` beside it looks at it");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Asks the node and prints a line for each finding.
async fn node(lnd: &LndConfig, expected: &Expected) -> anyhow::Result<ExitCode> {
    let facts = LndClient::new(lnd)?.survey(&SystemClock).await;
    let findings = judge(&facts, expected);
    for finding in &findings {
        println!("{:<8} {}: {}", finding.level, finding.item, finding.text);
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    println!("problems: {problems}, warnings: {warnings}");
    Ok(match problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What the node has to be able to do for this fleet, and for the service's clients.
fn expected(config: &Config) -> anyhow::Result<Expected> {
    let mut payments = Vec::new();
    for atm in &config.atms {
        let (_, price) = price(atm.max_amount, &config.fee, &config.rate)?;
        payments.push(price);
    }
    if let Some(service) = config.nostr.as_ref().and_then(|nostr| nostr.service.as_ref()) {
        let clients = service.clients.iter().map(|client| &client.limits);
        let largest = clients
            .chain([&service.limits])
            .map(|limits| limits.max_amount_sats)
            .max();
        payments.extend(largest.map(|sats| Msat(sats.saturating_mul(1000))));
    }
    Ok(Expected {
        hold_expiry_delta: config.policy.hold_expiry_delta,
        cltv_expiry: config.policy.cltv_expiry,
        min_blocks_left: config.policy.min_blocks_left,
        private_route_hints: config.private_route_hints,
        payments,
    })
}
