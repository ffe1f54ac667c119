//! `tellerd emulate`: the simulated LND, its customers, emulated dispensers and a relay, each on its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::hardware::device::Model;
use crate::hardware::emulate::{EmulatorOptions, run_emulator};
use crate::hardware::puloon::driver::Variant;
use crate::sim::lnd::{PayOptions, SimLndOptions, command};
use crate::sim::relay::command::run_relay;
use crate::sim::relay::{RelayFaults, RelayOptions};

#[derive(Debug, Subcommand)]
pub(super) enum Emulate {
    /// A simulated LND that any LND client can be pointed at. See docs/SIMULATED_LND.md.
    Lnd {
        /// Keys, certificate, macaroons and memory; made when missing.
        #[arg(long)]
        dir: PathBuf,
        /// Address of the TLS port.
        #[arg(long, default_value = "127.0.0.1:10009")]
        listen: SocketAddr,
        /// Blocks before an HTLC's expiry at which LND cancels a hold.
        #[arg(long, default_value_t = 18)]
        hold_expiry_delta: u32,
        /// All money in its channel, in satoshi; customers can pay as much. All the bitcoin there is by default.
        #[arg(long, default_value_t = SimLndOptions::default().capacity_sat)]
        capacity_sat: u64,
        /// Mine a block every so many milliseconds; 0 only on command.
        #[arg(long, default_value_t = 0)]
        block_interval_ms: u64,
        /// Do not store what finally becomes of HTLCs, as LND without --store-final-htlc-resolutions.
        #[arg(long)]
        no_final_resolutions: bool,
    },
    /// A cash dispenser on a pseudo-terminal. See docs/EMULATOR.md.
    Dispenser {
        /// The device family.
        #[arg(long, default_value = "puloon-lcdm4000")]
        model: Model,
        /// Its dialect: standard or serial.
        #[arg(long, default_value = "standard")]
        variant: Variant,
        /// Symlink to the pseudo-terminal, made here and removed at the end.
        #[arg(long)]
        link: PathBuf,
        /// Load and faults, TOML.
        #[arg(long)]
        script: Option<PathBuf>,
    },
    /// A Nostr relay, with the faults of real ones.
    Relay(Relay),
    /// The daemon, as `tellerd run`, with its journal on a disk that misbehaves on command. See docs/SIMULATION.md.
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How the disk is: good, full, read-only, slow-sync MS, failed-sync or failed-sync-and-cut. Read at each write.
        #[arg(long)]
        disk: PathBuf,
    },
    /// Pay an invoice of the simulated LND, as a customer.
    Pay(Pay),
    /// Give the simulated LND a command: blocks, faults, its ledger.
    #[command(after_help = format!("Commands:\n{}", command::CONTROL_HELP))]
    Control {
        #[command(flatten)]
        at: At,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct At {
    /// The folder of the simulated LND.
    #[arg(long)]
    dir: PathBuf,
    /// Its address.
    #[arg(long, default_value = "127.0.0.1:10009")]
    lnd: SocketAddr,
}

/// Periods are means; probabilities are from 0 to 1.
#[derive(Debug, Args)]
pub(super) struct Relay {
    /// Address of the port; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:7777")]
    listen: SocketAddr,
    /// Only clients that proved their key may read and write (NIP-42).
    #[arg(long)]
    nip42: bool,
    /// Of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cut each client's connection every so many milliseconds.
    #[arg(long)]
    cut_every_ms: Option<u64>,
    /// An outage every so many milliseconds.
    #[arg(long)]
    outage_every_ms: Option<u64>,
    /// An outage lasts so long.
    #[arg(long, default_value_t = 5_000)]
    outage_ms: u64,
    /// Send an event three times.
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    duplicate: f64,
    /// Send an event late.
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    delay: f64,
    /// At most so late.
    #[arg(long, default_value_t = 2_000)]
    delay_max_ms: u64,
    /// Answer a published event OK and drop it.
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    drop: f64,
    /// Do not send the OK of a published event.
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    lose_ok: f64,
    /// Refuse a published event as too many.
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    rate_limit: f64,
    /// Send no OK for ephemeral events, as nostr-rs-relay does.
    #[arg(long)]
    no_ok: bool,
    /// Answer a request for a subscription by CLOSED.
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    refuse_subscription: f64,
    /// Close each client's subscriptions every so many milliseconds.
    #[arg(long)]
    close_every_ms: Option<u64>,
    /// Send each client a NOTICE every so many milliseconds.
    #[arg(long)]
    notice_every_ms: Option<u64>,
}

fn probability(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (0.0..=1.0)
        .contains(&number)
        .then_some(number)
        .ok_or_else(|| "must be from 0 to 1".to_owned())
}

impl Relay {
    fn options(&self) -> RelayOptions {
        let period = |ms: Option<u64>| ms.map(Duration::from_millis);
        RelayOptions {
            listen: self.listen,
            seed: self.seed,
            nip42: self.nip42,
            faults: RelayFaults {
                cut_every: period(self.cut_every_ms),
                outage_every: period(self.outage_every_ms),
                outage: Duration::from_millis(self.outage_ms),
                duplicate: self.duplicate,
                delay: self.delay,
                delay_max: Duration::from_millis(self.delay_max_ms),
                drop: self.drop,
                lose_ok: self.lose_ok,
                rate_limit: self.rate_limit,
                no_ok: self.no_ok,
                refuse_subscription: self.refuse_subscription,
                close_every: period(self.close_every_ms),
                notice_every: period(self.notice_every_ms),
            },
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Pay {
    /// The invoice, BOLT11.
    invoice: String,
    #[command(flatten)]
    at: At,
    /// Send this many millisatoshi instead of the amount asked.
    #[arg(long)]
    msat: Option<u64>,
    /// Split the payment.
    #[arg(long, default_value_t = 1)]
    parts: u32,
    /// One part never arrives.
    #[arg(long)]
    incomplete: bool,
    /// Hesitate so many milliseconds.
    #[arg(long, default_value_t = 0)]
    after_ms: u64,
}

pub(super) async fn run(command: Emulate) -> anyhow::Result<ExitCode> {
    match command {
        Emulate::Lnd {
            dir,
            listen,
            hold_expiry_delta,
            capacity_sat,
            block_interval_ms,
            no_final_resolutions,
        } => {
            let options = SimLndOptions {
                hold_expiry_delta,
                capacity_sat,
                block_interval_ms,
                final_resolutions: !no_final_resolutions,
                ..SimLndOptions::default()
            };
            command::run_lnd(&dir, listen, &options).await?;
        }
        Emulate::Dispenser {
            model,
            variant,
            link,
            script,
        } => {
            run_emulator(EmulatorOptions {
                model,
                variant,
                link,
                script,
            })
            .await?;
        }
        Emulate::Relay(relay) => run_relay(relay.options()).await?,
        // It needs a runtime of its own; see `super::dispatch`.
        Emulate::Run { .. } => anyhow::bail!("a daemon does not run within another command"),
        Emulate::Pay(pay) => {
            let options = PayOptions {
                amount_msat: pay.msat,
                parts: if pay.incomplete { pay.parts.max(2) } else { pay.parts },
                missing_parts: u32::from(pay.incomplete),
                after: Duration::from_millis(pay.after_ms),
                ..PayOptions::default()
            };
            if !command::run_pay(&pay.at.dir, pay.at.lnd, &pay.invoice, &options).await? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Emulate::Control { at, words } => command::run_control(&at.dir, at.lnd, &words).await?,
    }
    Ok(ExitCode::SUCCESS)
}
