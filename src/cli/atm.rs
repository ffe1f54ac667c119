//! `tellerd atm`: an operator's orders to machines.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::api::LoadedCassette;
use crate::ids::AtmId;
use crate::money::BadAmount;
use crate::time::{Clock, SystemClock};

use super::connect::{At, By, Remote};
use super::show;
use super::tellerd::Tellerd;

#[derive(Debug, Subcommand)]
pub(super) enum AtmCommand {
    /// All machines, with their notes and open cash-outs; also those of sites.
    List {
        #[command(flatten)]
        at: At,
    },
    /// Take no new customers; the one being served is served.
    Drain(Order),
    /// Take customers again; a device fault is reset.
    Resume(Order),
    /// Cassettes were filled and counted: their books start anew.
    Load {
        /// One counted cassette as POSITION:NOTE:COUNT, such as 1:20.00:500; may be given again.
        #[arg(long = "cassette", required = true, value_name = "POSITION:NOTE:COUNT", value_parser = cassette)]
        cassettes: Vec<LoadedCassette>,
        #[command(flatten)]
        order: Order,
    },
}

#[derive(Debug, Args)]
pub(super) struct Order {
    /// The machine.
    atm: AtmId,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    at: At,
}

fn cassette(text: &str) -> Result<LoadedCassette, String> {
    let [position, denomination, notes] = text.split(':').collect::<Vec<_>>()[..] else {
        return Err("POSITION:NOTE:COUNT expected, such as 1:20.00:500".to_owned());
    };
    let number = |what: &str| format!("{what}: a whole number expected");
    Ok(LoadedCassette {
        position: position.parse().map_err(|_| number("the position"))?,
        denomination_minor: denomination.parse().map_err(|error: BadAmount| error.to_string())?,
        notes: notes.parse().map_err(|_| number("the count"))?,
    })
}

impl Order {
    async fn tellerd(&self, remote: &Remote) -> anyhow::Result<Tellerd> {
        self.at.tellerd(remote, Some(&self.by)).await
    }
}

pub(super) async fn run(command: AtmCommand, remote: &Remote) -> anyhow::Result<ExitCode> {
    let done = match command {
        AtmCommand::List { at } => {
            let list = at.tellerd(remote, None).await?.atms().await?;
            for atm in &list.atms {
                println!("{}", show::atm(atm));
            }
            for site in &list.sites {
                println!("{}", show::site(site, SystemClock.now()));
            }
            return Ok(ExitCode::SUCCESS);
        }
        AtmCommand::Drain(order) => order.tellerd(remote).await?.drain(&order.atm, &order.by).await?,
        AtmCommand::Resume(order) => order.tellerd(remote).await?.resume(&order.atm, &order.by).await?,
        AtmCommand::Load { cassettes, order } => {
            let tellerd = order.tellerd(remote).await?;
            tellerd.load(&order.atm, cassettes, &order.by).await?
        }
    };
    println!("{}", show::atm(&done));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Minor;

    #[test]
    fn a_counted_cassette_is_position_note_and_count() {
        let counted = LoadedCassette {
            position: 1,
            denomination_minor: Minor(2_000),
            notes: 500,
        };
        assert_eq!(cassette("1:20.00:500"), Ok(counted));
        assert_eq!(cassette("1:20:500"), Ok(counted));
        for bad in ["", "1:20", "1:20:500:1", "256:20:1", "1:2O:1", "1:20:-1"] {
            assert!(cassette(bad).is_err(), "{bad}");
        }
    }
}
