//! Which tellerd a command talks to, and the words of its operator: options that many commands share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::config::Config;

use super::client::{Api, TokenSource};

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

impl At {
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
    /// Who orders it; kept in the journal. [default: the user of this shell]
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
