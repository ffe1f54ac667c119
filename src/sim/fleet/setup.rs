//! The daemons' configuration files, and what is in the machines.
//!
//! Called by the stage. What must stay true: each file is an ordinary configuration that `tellerd run` reads; the
//! price has no fee and is a whole number of satoshi for each cent, so that the audit can read an amount off an
//! invoice's price; a server's deadlines fit its sites'.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use ::nostr::RelayUrl;

use super::fault::REPLY;
#[cfg(doc)]
use super::place::Home;
use super::place::Place;
use super::scenario::Scenario;
use crate::hardware::puloon::driver::Variant;
use crate::ids::{AtmId, ClientName, NostrKey};
use crate::money::{Currency, Minor, Rate};

/// Values of the notes in positions 1 to 4; zero: no cassette.
pub const DENOMINATIONS: [Minor; 4] = [Minor(2_000), Minor(5_000), Minor::ZERO, Minor::ZERO];
/// Cassettes in each machine.
pub const CASSETTES: [u8; 2] = [1, 2];
/// Minor units for one bitcoin: 10 satoshi a cent.
pub const MINOR_PER_BTC: u64 = 10_000_000;

/// The price in the configuration.
///
/// # Errors
/// Never: the code is a currency.
pub fn rate() -> Result<Rate, crate::money::BadCurrency> {
    let currency: Currency = "EUR".parse()?;
    Ok(Rate {
        minor_per_btc: MINOR_PER_BTC,
        currency,
    })
}

/// The name of machine `index`.
#[must_use]
pub fn atm_name(index: usize) -> String {
    format!("atm-{:03}", index + 1)
}

/// Every second machine speaks the dialect with the serial number.
#[must_use]
pub fn variant(atm: &AtmId) -> Variant {
    let is_odd = atm.as_str().ends_with(['1', '3', '5', '7', '9']);
    if is_odd { Variant::Standard } else { Variant::Serial }
}

/// A site, for the configurations of itself and of its server.
#[derive(Debug, Clone)]
pub struct SiteSetup {
    /// Its name at the server.
    pub name: ClientName,
    /// Its public key, when the server's configuration has it; otherwise it comes with an invitation.
    pub key: Option<NostrKey>,
}

/// The way to the server, in a site's configuration.
#[derive(Debug, Clone)]
pub struct WayToServer {
    /// The server's key, or an nprofile.
    pub service: String,
    /// The site has a token in [`Home::pairing`].
    pub invited: bool,
    /// Those that the configuration names.
    pub relays: Vec<RelayUrl>,
}

/// The configuration file of the only daemon, which has the machines and its own LND.
#[must_use]
pub fn fleet_text(place: &Place, scenario: &Scenario, atms: &[AtmId], http_port: u16, lnd_port: u16) -> String {
    let mut text = head(http_port);
    text += &lnd(lnd_port, "lnd");
    text += &policy(scenario);
    text += &machines(place, scenario, atms);
    text
}

/// The configuration file of a site.
#[must_use]
pub fn site_text(place: &Place, scenario: &Scenario, atms: &[AtmId], http_port: u16, way: &WayToServer) -> String {
    let mut text = format!("payments = \"nostr\"\n{}{}", head(http_port), nostr(&way.relays));
    let service = &way.service;
    // Writing to a string does not fail.
    _ = write!(
        text,
        "[site]\nservice = \"{service}\"\ndeadline = \"{}s\"\n",
        ASKS_AGAIN.as_secs()
    );
    if way.invited {
        text += "pairing_file = \"pairing.token\"\n";
    }
    text += &policy(scenario);
    text += &machines(place, scenario, atms);
    text
}

/// The configuration file of the sites' server.
#[must_use]
pub fn server_text(
    scenario: &Scenario,
    sites: &[SiteSetup],
    relays: &[RelayUrl],
    http_port: u16,
    lnd_port: u16,
) -> String {
    let terms = ServerTerms::of(scenario);
    let mut text = head(http_port);
    text += &lnd(lnd_port, "../lnd");
    _ = write!(
        text,
        "[policy]\nhold_deadline = \"{}s\"\n{RATE}",
        terms.hold_deadline.as_secs()
    );
    text += &nostr(relays);
    _ = write!(
        text,
        "[service]\ncommit_deadline = \"{}s\"\n\
         max_open = 10000\nmax_held_sats = 10000000000\nsats_per_day = 1000000000000\nrequests_per_minute = 30000\n",
        terms.commit_deadline.as_secs()
    );
    for site in sites {
        if let Some(key) = site.key {
            _ = write!(text, "[[service.client]]\nname = \"{}\"\nkey = \"{key}\"\n", site.name);
        }
    }
    text
}

/// The server's deadlines: late enough for its sites, which compare them with their own (`src/nostr/node/fit.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTerms {
    /// `policy.hold_deadline`
    pub hold_deadline: Duration,
    /// `service.commit_deadline`
    pub commit_deadline: Duration,
}

impl ServerTerms {
    /// For sites with the scenario's deadlines.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let whole = |duration: Duration| Duration::from_secs(duration.as_secs() + 1);
        let hold_deadline = whole(scenario.daemon.hold_deadline) + Duration::from_secs(10);
        let commit_deadline = whole(scenario.daemon.unknown_deadline) + Duration::from_secs(150);
        Self {
            hold_deadline,
            commit_deadline: commit_deadline.max(hold_deadline + Duration::from_secs(1)),
        }
    }
}

/// The price of every daemon.
const RATE: &str = "[rate]\ncurrency = \"EUR\"\nper_btc = \"100000.00\"\n";
/// A site repeats a request without an answer. Shorter than usual: customers are short of time here.
const ASKS_AGAIN: Duration = Duration::from_secs(3);

fn head(http_port: u16) -> String {
    format!(
        "# Written by `tellerd simulate`.\n\
         data_dir = \"data\"\n\
         [http]\nlisten = \"127.0.0.1:{http_port}\"\ntoken_file = \"tellerd.token\"\n"
    )
}

fn lnd(port: u16, folder: &str) -> String {
    format!(
        "[lnd]\naddress = \"127.0.0.1:{port}\"\ntls_cert = \"{folder}/tls.cert\"\n\
         macaroon = \"{folder}/admin.macaroon\"\ndeadline = \"5s\"\n"
    )
}

fn nostr(relays: &[RelayUrl]) -> String {
    let relays: Vec<String> = relays.iter().map(|url| format!("\"{url}\"")).collect();
    format!("[nostr]\nkey_file = \"nostr.key\"\nrelays = [{}]\n", relays.join(", "))
}

fn policy(scenario: &Scenario) -> String {
    let daemon = &scenario.daemon;
    format!(
        "[policy]\npayment_timeout = \"{}ms\"\nhold_deadline = \"{}ms\"\nunknown_deadline = \"{}ms\"\n{RATE}",
        daemon.payment_timeout.as_millis(),
        daemon.hold_deadline.as_millis(),
        daemon.unknown_deadline.as_millis(),
    )
}

fn machines(place: &Place, scenario: &Scenario, atms: &[AtmId]) -> String {
    let mut text = String::new();
    for atm in atms {
        let variant = match variant(atm) {
            Variant::Standard => "standard",
            Variant::Serial => "serial",
        };
        let line = toml_string(&place.line(atm));
        let reply_ms = REPLY.as_millis();
        _ = write!(
            text,
            "[[atm]]\nid = \"{atm}\"\nmodel = \"puloon-lcdm4000\"\nvariant = \"{variant}\"\npath = {line}\n\
             min_amount = \"20.00\"\nmax_amount = \"500.00\"\n\
             [atm.timings]\nack_ms = 500\nreply_ms = {reply_ms}\nreset_ms = 500\n"
        );
        for (position, denomination) in (1..).zip(DENOMINATIONS) {
            if denomination > Minor::ZERO {
                let notes = scenario.machines.notes;
                _ = write!(
                    text,
                    "[[atm.cassette]]\nposition = {position}\ndenomination = \"{denomination}\"\nnotes = {notes}\n"
                );
            }
        }
    }
    text
}

fn toml_string(path: &Path) -> String {
    let text = path.to_string_lossy();
    toml::Value::String(text.into_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Config, Payments};

    fn place() -> Place {
        Place {
            dir: PathBuf::from("/a \"strange\" folder"),
        }
    }

    fn atms() -> Vec<AtmId> {
        (0..300).map(|i| atm_name(i).parse().expect("id")).collect()
    }

    fn read(text: &str, home: &Path) -> Config {
        Config::parse(text, &home.join("fleet.toml")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn the_daemon_can_read_its_configuration() {
        let (place, atms) = (place(), atms());
        let scenario = Scenario::built_in().expect("valid");
        let config = read(&fleet_text(&place, &scenario, &atms, 1234, 5678), &place.dir);
        assert_eq!(config.atms.len(), 300);
        assert_eq!(config.atms[7].path, place.line(&atms[7]));
        assert_eq!(config.rate, rate().expect("rate"));
        assert_eq!(config.data_dir, place.dir.join("data"));
        // One cent is ten satoshi, exactly.
        assert_eq!(config.rate.price(Minor(1)).expect("price").0, 10_000);
    }

    #[test]
    fn sites_and_their_server_can_read_theirs_and_fit_together() {
        let scenarios = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/scenarios"));
        let relays = ["ws://127.0.0.1:1", "ws://127.0.0.1:2"].map(|url| RelayUrl::parse(url).expect("url"));
        let key = ::nostr::Keys::generate().public_key();
        for scenario in scenarios.expect("folder") {
            let scenario = Scenario::load(&scenario.expect("entry").path()).expect("valid");
            let known = SiteSetup {
                name: "site-2".parse().expect("name"),
                key: Some(NostrKey(key.to_bytes())),
            };
            let server = read(
                &server_text(&scenario, &[known], &relays, 1, 2),
                &place().dir.join("server"),
            );
            let service = server.nostr.expect("on Nostr").service.expect("serves");
            assert_eq!((service.clients.len(), server.atms.len()), (1, 0));
            let way = WayToServer {
                service: key.to_hex(),
                invited: true,
                relays: relays.to_vec(),
            };
            let site = read(
                &site_text(&place(), &scenario, &atms(), 3, &way),
                &place().dir.join("site-1"),
            );
            assert!(matches!(&site.payments, Payments::Nostr(to) if to.pairing_file.is_some()));
            assert_eq!((site.atms.len(), site.rate), (300, server.rate));
            // As in src/nostr/node/fit.rs.
            let unknown = Duration::from_millis(site.policy.unknown_ms) + Duration::from_secs(120);
            assert!(unknown < service.commit_deadline, "{}", scenario.about);
            assert!(site.policy.hold_ms <= server.policy.hold_ms, "{}", scenario.about);
            assert_eq!(site.policy.hold_expiry_delta, server.policy.hold_expiry_delta);
        }
    }
}
