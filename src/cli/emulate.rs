//! `tellerd emulate`: the simulated LND, its customers, and emulated dispensers, each on its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::hardware::device::Model;
use crate::hardware::emulate::{EmulatorOptions, run_emulator};
use crate::hardware::puloon::driver::Variant;
use crate::sim::lnd::{PayOptions, SimLndOptions, command};

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
        /// Mine a block every so many milliseconds; 0 only on command.
        #[arg(long, default_value_t = 0)]
        block_interval_ms: u64,
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
            block_interval_ms,
        } => {
            let options = SimLndOptions {
                hold_expiry_delta,
                block_interval_ms,
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
