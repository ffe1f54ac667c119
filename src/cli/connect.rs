//! Which tellerd a command talks to, and the words of its operator: options that many commands share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;

use ::nostr::RelayUrl;

use crate::config::{self, Config};

use super::client::{Api, TokenSource};
use super::key;
use super::tellerd::Tellerd;
use super::via::{Target, Via, target};

const DEFAULT: &str = "http://127.0.0.1:9377";

/// Where a running tellerd is.
#[derive(Debug, Args)]
pub(super) struct At {
    /// Its address. [default: the configuration's, else http://127.0.0.1:9377]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Holds the token that changes need. [default: the configuration's, else the variable TELLERD_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Its configuration: gives address and token file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Which tellerd is asked over Nostr.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Over Nostr (list, resolve, atm)")]
pub(super) struct Remote {
    /// Ask this tellerd over Nostr: nostr:nprofile1…, or npub1… or 64 hexadecimal digits with --relay.
    #[arg(long, global = true, value_name = "KEY")]
    via: Option<String>,
    /// A relay of that tellerd, ws:// or wss://, beside those of the nprofile; may be given again.
    #[arg(long = "relay", global = true, value_name = "URL")]
    relays: Vec<String>,
    /// Holds the operator's secret key. [default: the variable TELLERD_NOSTR_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

impl Remote {
    /// An error for commands that these options mean nothing to; `tellerd key` takes key and relays.
    pub fn refuse(&self, key: bool) -> anyhow::Result<()> {
        let given = [
            ("--via", self.via.is_some()),
            ("--relay", !key && !self.relays.is_empty()),
            ("--key-file", !key && self.key_file.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => bail!("{option}: of tellerd's commands only list, resolve and atm go over Nostr"),
            None => Ok(()),
        }
    }

    /// The relays given.
    pub fn relays(&self) -> anyhow::Result<Vec<RelayUrl>> {
        let relays = self.relays.iter().map(|relay| {
            let relay = config::nostr::relay(relay).map_err(|why| anyhow!("--relay {relay}: {why}"))?;
            RelayUrl::parse(&relay).with_context(|| format!("--relay {relay}"))
        });
        relays.collect()
    }

    /// Whom to ask over Nostr, if anybody is.
    fn target(&self) -> anyhow::Result<Option<Target>> {
        let Some(via) = &self.via else {
            return match (self.relays.is_empty(), &self.key_file) {
                (true, None) => Ok(None),
                (false, _) => bail!("--relay has no effect without --via"),
                (true, Some(_)) => bail!("--key-file has no effect without --via"),
            };
        };
        let (service, named) = target(via)?;
        let url = |relay: &String| RelayUrl::parse(relay).with_context(|| format!("--via: its relay {relay}"));
        let mut relays: Vec<RelayUrl> = named.iter().map(url).collect::<Result<_, _>>()?;
        relays.extend(self.relays()?);
        if relays.is_empty() {
            bail!("--via names no relay: give --relay URL, or the nprofile of that tellerd");
        }
        let keys = key::operator(self.key_file.as_deref())?;
        Ok(Some(Target { keys, service, relays }))
    }
}

impl At {
    /// The tellerd that an operator's command talks to; `by` is his word, if the command takes one.
    pub async fn tellerd(&self, remote: &Remote, by: Option<&By>) -> anyhow::Result<Tellerd> {
        let Some(target) = remote.target()? else {
            return Ok(Tellerd::Http(self.api()?));
        };
        let given = [
            ("--api", self.api.is_some()),
            ("--token-file", self.token_file.is_some()),
            ("--config", self.config.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            bail!("{option} can not be used together with --via: over Nostr no address and no token is needed");
        }
        if by.is_some_and(|by| by.by.is_some()) {
            bail!("--by can not be used together with --via: over Nostr the key says who orders it");
        }
        Ok(Tellerd::Nostr(Box::new(Via::connect(target).await?)))
    }

    /// The client for it.
    pub fn api(&self) -> anyhow::Result<Api> {
        let config = self.config.as_deref().map(Config::load).transpose()?;
        let http = config.map(|config| config.http);
        let configured = http.as_ref().map(|http| format!("http://{}", reachable(http.listen)));
        let base = self.api.clone().or(configured).unwrap_or_else(|| DEFAULT.to_owned());
        let file = self
            .token_file
            .clone()
            .or_else(|| http.and_then(|http| http.token_file));
        let token = match (file, std::env::var("TELLERD_TOKEN")) {
            (Some(file), _) => TokenSource::File(file),
            (None, Ok(text)) => TokenSource::Given(text.parse().context("TELLERD_TOKEN")?),
            (None, Err(_)) => TokenSource::None,
        };
        Api::new(&base, token)
    }
}

/// All addresses of a machine include the one that reaches it from itself.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whose word it is.
#[derive(Debug, Args)]
pub(super) struct By {
    /// Who orders it; kept in the journal. Over Nostr the key says it. [default: the user of this shell]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl By {
    /// The name.
    pub fn name(&self) -> anyhow::Result<String> {
        let name = self.by.clone().or_else(|| std::env::var("USER").ok());
        let name = name.filter(|name| !name.trim().is_empty());
        name.context("who orders this? Give --by NAME")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(api: Option<&str>, config: Option<PathBuf>) -> At {
        let api = api.map(str::to_owned);
        At {
            api,
            token_file: None,
            config,
        }
    }

    #[test]
    fn the_address_comes_from_the_option_or_the_configuration() {
        let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/fleet.example.toml");
        let shown = |at: At| format!("{:?}", at.api().unwrap());
        assert!(shown(at(None, Some(example.clone()))).contains("\"http://127.0.0.1:9377\""));
        assert!(shown(at(None, Some(example.clone()))).contains("tellerd.token"));
        assert!(shown(at(Some("http://10.0.0.7:80/"), Some(example))).contains("\"http://10.0.0.7:80\""));
        for bad in ["127.0.0.1:9377", "https://teller.example", "http://", "ftp://x"] {
            assert!(at(Some(bad), None).api().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_for_everyone_is_reached_from_here() {
        for (listen, from_here) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.7:1", "10.0.0.7:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), from_here.parse().unwrap());
        }
    }
}
