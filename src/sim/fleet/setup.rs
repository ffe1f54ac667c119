//! The fleet of a simulation: its work directory, its configuration file, its notes.
//!
//! Called by the runner. What must stay true: the file is an ordinary configuration that `tellerd run` reads; the
//! price has no fee and is a whole number of satoshi for each cent, so that the audit can read an amount off an
//! invoice's price.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::scenario::{REPLY, Scenario};
use crate::hardware::puloon::driver::Variant;
use crate::ids::AtmId;
use crate::money::{Currency, Minor, Rate};

/// Values of the notes in positions 1 to 4; zero: no cassette.
pub const DENOMINATIONS: [Minor; 4] = [Minor(2_000), Minor(5_000), Minor::ZERO, Minor::ZERO];
/// Cassettes in each machine.
pub const CASSETTES: [u8; 2] = [1, 2];
/// Minor units for one bitcoin: 10 satoshi a cent.
pub const MINOR_PER_BTC: u64 = 10_000_000;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The work directory.
    pub dir: PathBuf,
}

impl Place {
    /// The daemon's configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("fleet.toml")
    }

    /// The API's token.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.dir.join("tellerd.token")
    }

    /// What the daemon wrote to standard error, all lives together.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// The journal and the state.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The simulated LND.
    #[must_use]
    pub fn lnd(&self) -> PathBuf {
        self.dir.join("lnd")
    }

    /// The serial line of a machine.
    #[must_use]
    pub fn line(&self, atm: &AtmId) -> PathBuf {
        self.dir.join("lines").join(atm.as_str())
    }

    /// What physically happened in a machine, one JSON object a line.
    #[must_use]
    pub fn ledger(&self, atm: &AtmId) -> PathBuf {
        self.dir.join("machines").join(format!("{atm}.jsonl"))
    }

    /// The daemon's last words: its list of cash-outs and machines.
    #[must_use]
    pub fn last_words(&self) -> PathBuf {
        self.dir.join("last_words.json")
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// When one can not be made, or the directory is not empty.
    pub fn make(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(dir.join("lines"))?;
        std::fs::create_dir_all(dir.join("machines"))?;
        let place = Self { dir };
        if place.data().exists() || place.lnd().exists() {
            let what = format!("{} holds an earlier simulation: choose another", place.dir.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        std::fs::create_dir_all(place.lnd())?;
        Ok(place)
    }
}

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
pub fn variant(index: usize) -> Variant {
    if index.is_multiple_of(2) {
        Variant::Standard
    } else {
        Variant::Serial
    }
}

/// The daemon's configuration file.
#[must_use]
pub fn config_text(place: &Place, scenario: &Scenario, atms: &[AtmId], http_port: u16, lnd_port: u16) -> String {
    let daemon = &scenario.daemon;
    let mut text = format!(
        "# Written by `tellerd simulate`.\n\
         data_dir = \"data\"\n\
         [http]\nlisten = \"127.0.0.1:{http_port}\"\ntoken_file = \"tellerd.token\"\n\
         [lnd]\naddress = \"127.0.0.1:{lnd_port}\"\ntls_cert = \"lnd/tls.cert\"\nmacaroon = \"lnd/admin.macaroon\"\n\
         deadline = \"5s\"\n\
         [policy]\npayment_timeout = \"{}ms\"\nhold_deadline = \"{}ms\"\nunknown_deadline = \"{}ms\"\n\
         [rate]\ncurrency = \"EUR\"\nper_btc = \"{}\"\n",
        daemon.payment_timeout.as_millis(),
        daemon.hold_deadline.as_millis(),
        daemon.unknown_deadline.as_millis(),
        Minor(MINOR_PER_BTC),
    );
    for (index, atm) in atms.iter().enumerate() {
        let variant = match variant(index) {
            Variant::Standard => "standard",
            Variant::Serial => "serial",
        };
        let line = toml_string(&place.line(atm));
        let reply_ms = REPLY.as_millis();
        // Writing to a string does not fail.
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
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_daemon_can_read_its_configuration() {
        let place = Place {
            dir: PathBuf::from("/a \"strange\" folder"),
        };
        let scenario = Scenario::built_in().expect("valid");
        let atms: Vec<AtmId> = (0..300).map(|i| atm_name(i).parse().expect("id")).collect();
        let text = config_text(&place, &scenario, &atms, 1234, 5678);
        let config = Config::parse(&text, &place.config()).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.atms.len(), 300);
        assert_eq!(config.atms[7].path, place.line(&atms[7]));
        assert_eq!(config.rate, rate().expect("rate"));
        assert_eq!(config.data_dir, place.data());
        // One cent is ten satoshi, exactly.
        assert_eq!(config.rate.price(Minor(1)).expect("price").0, 10_000);
    }
}
