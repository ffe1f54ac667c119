//! `tellerd simulate`: a fleet, its customers and its accidents around the real daemon, audited at the end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::seeded::Seeded;
use crate::sim::fleet::{self, Options, simulate};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Payments {
    /// One daemon, with an LND of its own.
    Lnd,
    /// Sites, which reach one server and its LND over relays.
    Nostr,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Transport {
    /// Pseudo-terminals; the daemon is a process of its own.
    Pty,
    /// Bytes in memory; the daemon is in this process. For more machines than the system has terminals.
    Memory,
}

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Machines.
    #[arg(long, default_value_t = 8)]
    atms: usize,
    /// What is between the daemon and the machines.
    #[arg(long, value_enum, default_value = "pty")]
    transport: Transport,
    /// Where the hold invoices are made.
    #[arg(long, value_enum, default_value = "lnd")]
    payments: Payments,
    /// With --payments nostr: so many sites. Without it: one for each 6 machines, at most 8.
    #[arg(long)]
    sites: Option<usize>,
    /// How long customers come: 30s, 2m.
    #[arg(long, default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// Kill the daemon so many times with SIGKILL, in one data directory, as fast as each start can be verified. Customers
    /// come until that is done.
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    kills: Option<u64>,
    /// Everything random comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What happens; see config/scenarios. Without it: an ordinary day with a few jams.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Write the report here, JSON.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Use this work directory, and keep it. Without it: a temporary one, kept when something is wrong.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    seeded: Seeded,
}

/// Whole seconds or minutes.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration such as 30s or 2m");
    let (number, seconds) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').ok_or_else(bad)?, 1),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    match number.checked_mul(seconds) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is out of range: 1s to 1440m")),
    }
}

pub(super) async fn run(command: Simulate) -> anyhow::Result<ExitCode> {
    if let Some(code) = command.seeded.run(command.seed)? {
        return Ok(code);
    }
    let options = Options {
        atms: command.atms,
        transport: match command.transport {
            Transport::Pty => fleet::Transport::Pty,
            Transport::Memory => fleet::Transport::Memory,
        },
        payments: match command.payments {
            Payments::Lnd => fleet::Payments::Lnd,
            Payments::Nostr => fleet::Payments::Nostr,
        },
        sites: command.sites,
        duration: command.duration,
        kills: command.kills,
        seed: command.seed,
        scenario: command.scenario,
        report: command.report,
        keep: command.keep,
        program: std::env::current_exe().context("where this program is")?,
    };
    Ok(match simulate(options).await? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
