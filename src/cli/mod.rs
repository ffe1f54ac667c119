//! The command line: words in, exit status out. Decisions are elsewhere.

mod atm;
mod cashout;
mod check;
mod client;
mod clients;
mod connect;
mod emulate;
mod follow;
mod items;
mod journal;
mod key;
mod qr;
mod run;
mod seeded;
mod show;
mod simulate;
mod sse;
mod tellerd;
mod via;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Supervisor daemon for fleets of cash-out ATMs that are paid over Lightning hold invoices.
#[derive(Debug, Parser)]
#[command(name = "tellerd", version, about)]
struct Cli {
    #[command(flatten)]
    remote: connect::Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT.
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration, every mistake with its line and key, and then the LND behind it. See docs/LND.md.
    Check(check::CheckArgs),
    /// Cash out at a machine, as a customer: shows the invoice and follows it to its end.
    Cashout(cashout::CashOutArgs),
    /// The newest cash-outs, or the open ones.
    List(items::ListArgs),
    /// Decide about a cash-out that waits for an operator.
    Resolve(items::ResolveArgs),
    /// The machines: list, drain, resume, load.
    #[command(subcommand)]
    Atm(atm::AtmCommand),
    /// Make a key for Nostr in --key-file when it is missing, and print its public part, for [[operator]]; with --relay
    /// also the nprofile, for --via.
    Key,
    /// The clients of the hold-invoice service: add, list, revoke.
    #[command(subcommand)]
    Client(clients::ClientCommand),
    /// Read the journal of a data directory.
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// The state store of a data directory.
    #[command(subcommand)]
    Store(journal::StoreCommand),
    /// Stand-ins for what tellerd talks to, for tests and trials.
    #[command(subcommand)]
    Emulate(emulate::Emulate),
    /// Simulate a whole fleet around the daemon, and audit it. See docs/SIMULATION.md.
    Simulate(simulate::Simulate),
}

/// Runs the command line of this process. Errors go to standard error as one chain of causes.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(quietest(&cli.command))),
        )
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        // It would tell of a log that can not be written by a panic, there being nowhere to write that to.
        .log_internal_errors(false)
        .init();
    match dispatch(cli.command, &cli.remote) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tellerd: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The chain of causes; without those that the sentence before already ends with.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            text if text.contains(&cause) => text.to_owned(),
            text => format!("{text}: {cause}"),
        }
    })
}

/// What is logged unless `RUST_LOG` says otherwise. The relay crates write whatever a relay or a client sends them
/// into their errors; what matters of it is logged here.
fn quietest(command: &Command) -> &'static str {
    match command {
        Command::Run { .. } | Command::Emulate(emulate::Emulate::Run { .. }) => {
            "tellerd=info,nostr_relay_pool=off,nostr_relay_builder=off,warn"
        }
        _ => "nostr_relay_pool=off,nostr_relay_builder=off,warn",
    }
}

fn dispatch(command: Command, remote: &connect::Remote) -> anyhow::Result<ExitCode> {
    if !matches!(command, Command::List(_) | Command::Resolve(_) | Command::Atm(_)) {
        remote.refuse(matches!(command, Command::Key))?;
    }
    match command {
        Command::Run { config } => run::run(&config),
        Command::Check(args) => wait(check::run(args)),
        Command::Cashout(args) => wait(cashout::run(args)),
        Command::List(args) => wait(items::list(args, remote)),
        Command::Resolve(args) => wait(items::resolve(args, remote)),
        Command::Atm(command) => wait(atm::run(command, remote)),
        Command::Key => key::run(remote.key_file.as_deref(), remote.relays()?),
        Command::Client(command) => wait(clients::run(command)),
        Command::Journal(command) => journal::journal(command),
        Command::Store(command) => journal::store(command),
        Command::Emulate(emulate::Emulate::Run { config, disk }) => run::on_a_disk(&config, &disk),
        Command::Emulate(command) => wait(emulate::run(command)),
        Command::Simulate(command) => wait(simulate::run(command)),
    }
}

/// Runs what is not the daemon.
fn wait(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime can not be started")?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let io = || std::io::Error::other("no such thing");
        let own = anyhow::Error::from(io())
            .context("file f: no such thing")
            .context("looking");
        assert_eq!(told(&own), "looking: file f: no such thing");
        assert_eq!(
            told(&anyhow::Error::from(io()).context("file f")),
            "file f: no such thing"
        );
    }
}
