//! `tellerd client`: who may use the hold-invoice service.
//!
//! What must stay true: a pairing string goes to standard output alone, so that it can be piped to where it belongs.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::api::{ClientView, InviteClient, Ordered};
use crate::ids::ClientName;
use crate::time::{Clock, SystemClock, UnixMs};

use super::connect::{At, By};

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Invite a client: prints its pairing string, once. Used again for a client, it gets a new one.
    Add(OfClient),
    /// All clients.
    List {
        #[command(flatten)]
        at: At,
    },
    /// A client's key and its invitation are void from now on.
    Revoke(OfClient),
}

#[derive(Debug, Args)]
pub(super) struct OfClient {
    /// The client: 1 to 32 characters a-z, 0-9 and -.
    name: ClientName,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    at: At,
}

pub(super) async fn run(command: ClientCommand) -> anyhow::Result<ExitCode> {
    let now = SystemClock.now();
    match command {
        ClientCommand::Add(OfClient { name, by, at }) => {
            let by = by.name()?;
            let wanted = InviteClient { name, by };
            let invitation = at.api()?.invite(&wanted).await?;
            let until = wait(invitation.until_unix_ms, now);
            eprintln!(
                "Give this to {}. It works once, within {until}, and is not shown again:",
                wanted.name
            );
            println!("{}", invitation.pairing);
        }
        ClientCommand::List { at } => {
            for client in &at.api()?.clients().await?.clients {
                println!("{}", row(client, now));
            }
        }
        ClientCommand::Revoke(OfClient { name, by, at }) => {
            let by = by.name()?;
            let client = at.api()?.revoke(&name, &Ordered { by }).await?;
            println!("{}", row(&client, now));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line of a list.
fn row(client: &ClientView, now: UnixMs) -> String {
    let mut row = format!("{:<32} {:<11}", client.name.as_str(), client.state);
    if let Some(key) = client.key {
        row += &format!(" {key}");
    }
    if client.configured {
        row += " (in the configuration)";
    }
    if let Some(until) = client.invited_until_unix_ms
        && until > now
    {
        row += &format!(" (invited, for {})", wait(until, now));
    }
    row.trim_end().to_owned()
}

/// How long it is until then, for people.
fn wait(until: UnixMs, now: UnixMs) -> String {
    match until.since(now).as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_one_line() {
        let mut client = ClientView {
            name: "kiosk".parse().unwrap(),
            state: "invited".into(),
            key: None,
            configured: false,
            invited_until_unix_ms: Some(UnixMs(3_600_500)),
        };
        let now = UnixMs(500);
        assert_eq!(
            row(&client, now),
            format!("{:<32} invited     (invited, for 60 min)", "kiosk")
        );
        client.key = Some(crate::ids::NostrKey([0xab; 32]));
        client.state = "active".into();
        client.configured = true;
        client.invited_until_unix_ms = None;
        let shown = row(&client, now);
        assert!(
            shown.ends_with(&format!("{} (in the configuration)", "ab".repeat(32))),
            "{shown}"
        );
    }

    #[test]
    fn waits_are_told_in_the_unit_that_fits() {
        for (ms, told) in [
            (0, "0 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_199_000, "119 min"),
            (86_400_000, "24 h"),
        ] {
            assert_eq!(wait(UnixMs(ms), UnixMs(0)), told);
        }
    }
}
