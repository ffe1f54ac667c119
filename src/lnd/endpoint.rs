//! Where LND is and where its credentials come from: the settings, checked as far as text can be.
//!
//! Called by the configuration and by [`super::LndClient`]. What must stay true: nothing here opens a file or a
//! connection (LND may come up later than tellerd), and no message or `Debug` text holds the macaroon.
//! Source: fact sheet section 2, connection conventions.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;
use tonic::transport::Uri;

use super::backoff::Backoff;

/// How to reach LND. Filled by the configuration.
#[derive(Debug, Clone)]
pub struct LndConfig {
    /// Where it is and how to be let in.
    pub location: LndLocation,
    /// The longest time one call may take, connecting included.
    pub deadline: Duration,
    /// The waits between attempts to connect.
    pub reconnect: Backoff,
}

impl LndConfig {
    /// The default of [`LndConfig::deadline`].
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

    /// A configuration with the default deadline and waits.
    #[must_use]
    pub fn new(location: LndLocation) -> Self {
        Self {
            location,
            deadline: Self::DEFAULT_DEADLINE,
            reconnect: Backoff::NODE,
        }
    }

    /// Checks the location as far as its text goes; opens nothing.
    ///
    /// # Errors
    /// What is wrong with the address or the URI.
    pub fn check(&self) -> Result<(), EndpointError> {
        LndEndpoint::parse(&self.location).map(drop)
    }
}

/// The two ways to say where LND is.
#[derive(Clone)]
pub enum LndLocation {
    /// An address and two files.
    Files {
        /// `host:port`.
        address: String,
        /// LND's `tls.cert`.
        tls_cert: PathBuf,
        /// A binary macaroon file.
        macaroon: PathBuf,
    },
    /// One `lndconnect://host:port?cert=…&macaroon=…` URI. A secret: it holds the macaroon.
    Uri {
        /// The URI.
        uri: String,
        /// LND's `tls.cert`; goes before the URI's own certificate, and is needed when that has none.
        tls_cert: Option<PathBuf>,
    },
}

impl fmt::Debug for LndLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files {
                address,
                tls_cert,
                macaroon,
            } => f
                .debug_struct("Files")
                .field("address", address)
                .field("tls_cert", tls_cert)
                .field("macaroon", macaroon)
                .finish(),
            Self::Uri { tls_cert, .. } => f
                .debug_struct("Uri")
                .field("uri", &"lndconnect://(secret)")
                .field("tls_cert", tls_cert)
                .finish(),
        }
    }
}

/// A setting that can not be right, whatever the files hold.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Nothing before the port.
    #[error("LND's address `{0}` has no host part: host:port expected")]
    HostMissing(String),
    /// Nothing, zero or no number after the host.
    #[error("LND's address `{0}` has no valid port: host:port expected; LND's gRPC port is usually 10009")]
    PortMissing(String),
    /// Something else.
    #[error("LND's address `{0}` is not host:port")]
    BadAddress(String),
    /// Another scheme.
    #[error("the LND URI does not start with lndconnect://")]
    NotLndconnect,
    /// The URI lacks the macaroon.
    #[error("the lndconnect URI for {0} holds no macaroon")]
    NoMacaroon(String),
    /// The URI lacks the certificate and no file is configured.
    #[error(
        "the lndconnect URI for {0} holds no certificate: give LND's tls.cert file too, \
         since LND's certificate is pinned and the system's trust is not used"
    )]
    NoCertificate(String),
    /// A value that is not base64url.
    #[error("the {part} of the lndconnect URI for {address} is not base64url: {source}")]
    NotBase64 {
        /// `cert` or `macaroon`.
        part: &'static str,
        /// The URI's address.
        address: String,
        /// What is wrong.
        source: base64::DecodeError,
    },
}

/// Where a credential is read from, each time it is needed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file, which may change.
    File(PathBuf),
    /// Bytes from the URI.
    Uri(Vec<u8>),
}

/// [`LndLocation`], taken apart.
#[derive(Clone)]
pub(super) struct LndEndpoint {
    /// `host:port`.
    pub address: String,
    pub certificate: Source,
    pub macaroon: Source,
}

impl LndEndpoint {
    /// Checks `location`.
    pub fn parse(location: &LndLocation) -> Result<Self, EndpointError> {
        match location {
            LndLocation::Files {
                address,
                tls_cert,
                macaroon,
            } => Ok(Self {
                address: check_address(address)?,
                certificate: Source::File(tls_cert.clone()),
                macaroon: Source::File(macaroon.clone()),
            }),
            LndLocation::Uri { uri, tls_cert } => parse_uri(uri, tls_cert.clone()),
        }
    }
}

fn check_address(address: &str) -> Result<String, EndpointError> {
    let bad = || EndpointError::BadAddress(address.to_owned());
    if address.contains("://") {
        return Err(bad());
    }
    let (host, port) = match address.rsplit_once(':') {
        Some(parts) if !address.ends_with(']') => parts,
        _ if address.is_empty() => return Err(EndpointError::HostMissing(address.to_owned())),
        _ => return Err(EndpointError::PortMissing(address.to_owned())),
    };
    if host.is_empty() {
        return Err(EndpointError::HostMissing(address.to_owned()));
    }
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(EndpointError::PortMissing(address.to_owned()));
    }
    let uri: Uri = format!("https://{address}").parse().map_err(|_| bad())?;
    let whole = uri.host() == Some(host) && uri.path() == "/" && uri.query().is_none();
    if whole { Ok(address.to_owned()) } else { Err(bad()) }
}

fn parse_uri(uri: &str, tls_cert: Option<PathBuf>) -> Result<LndEndpoint, EndpointError> {
    let rest = uri
        .trim()
        .strip_prefix("lndconnect://")
        .ok_or(EndpointError::NotLndconnect)?;
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let address = check_address(authority.trim_end_matches('/'))?;
    let value = |part: &'static str| -> Result<Option<Vec<u8>>, EndpointError> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.into_iter().find(|(key, value)| *key == part && !value.is_empty());
        let decoded = found.map(|(_, value)| base64url().decode(value)).transpose();
        decoded.map_err(|source| EndpointError::NotBase64 {
            part,
            address: address.clone(),
            source,
        })
    };
    let certificate = match (tls_cert, value("cert")?) {
        (Some(file), _) => Source::File(file),
        (None, Some(der)) => Source::Uri(der),
        (None, None) => return Err(EndpointError::NoCertificate(address)),
    };
    let Some(macaroon) = value("macaroon")? else {
        return Err(EndpointError::NoMacaroon(address));
    };
    Ok(LndEndpoint {
        address,
        certificate,
        macaroon: Source::Uri(macaroon),
    })
}

/// The URI's encoding has no padding; some wallets add it.
fn base64url() -> GeneralPurpose {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&URL_SAFE, lenient)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(uri: &str, tls_cert: Option<&str>) -> Result<LndEndpoint, EndpointError> {
        LndEndpoint::parse(&LndLocation::Uri {
            uri: uri.to_owned(),
            tls_cert: tls_cert.map(PathBuf::from),
        })
    }

    #[test]
    fn addresses() {
        for good in [
            "localhost:10009",
            "127.0.0.1:1",
            "[::1]:10009",
            "lnd.example.org:65535",
            "umbrel:10009",
        ] {
            assert_eq!(check_address(good), Ok(good.to_owned()));
        }
        for bad in ["", ":10009"] {
            assert_eq!(check_address(bad), Err(EndpointError::HostMissing(bad.to_owned())));
        }
        for bad in [
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:70000",
            "[::1]",
            "h:x",
        ] {
            assert_eq!(check_address(bad), Err(EndpointError::PortMissing(bad.to_owned())));
        }
        for bad in [
            "https://h:10009",
            "h/x:10009",
            "me@h:10009",
            "a b:10009",
            "::1:10009",
            "h?x:1",
        ] {
            assert_eq!(
                check_address(bad),
                Err(EndpointError::BadAddress(bad.to_owned())),
                "{bad}"
            );
        }
    }

    #[test]
    fn uri_holds_everything() {
        let endpoint = uri("lndconnect://[::1]:10009?cert=MIIB-_8&macaroon=AgEDbG5k", None).expect("valid");
        assert_eq!(endpoint.address, "[::1]:10009");
        assert!(endpoint.certificate == Source::Uri(vec![0x30, 0x82, 0x01, 0xfb, 0xff]));
        assert!(endpoint.macaroon == Source::Uri(b"\x02\x01\x03lnd".to_vec()));
    }

    #[test]
    fn uri_tolerates_padding_a_slash_and_a_line_end() {
        let endpoint = uri("lndconnect://h:1/?macaroon=AgE=&cert=MIIB\n", None).expect("valid");
        assert!(endpoint.macaroon == Source::Uri(vec![2, 1]));
    }

    #[test]
    fn a_certificate_file_goes_first() {
        for text in [
            "lndconnect://h:1?macaroon=AgE",
            "lndconnect://h:1?cert=MIIB&macaroon=AgE",
        ] {
            let endpoint = uri(text, Some("tls.cert")).expect("valid");
            assert!(endpoint.certificate == Source::File(PathBuf::from("tls.cert")));
        }
    }

    #[test]
    fn uri_errors_name_the_part() {
        let error = |text: &str| uri(text, None).err().expect("refused").to_string();
        assert!(error("https://h:1?macaroon=AgE").contains("lndconnect://"));
        assert!(error("lndconnect://?cert=MIIB&macaroon=AgE").contains("no host part"));
        assert!(error("lndconnect://:10009?cert=MIIB&macaroon=AgE").contains("no host part"));
        assert!(error("lndconnect://h?cert=MIIB&macaroon=AgE").contains("no valid port"));
        assert!(error("lndconnect://h:1?macaroon=AgE").contains("no certificate"));
        assert!(error("lndconnect://h:1?cert=MIIB").contains("no macaroon"));
        assert!(error("lndconnect://h:1?cert=MIIB&macaroon=").contains("no macaroon"));
        assert!(error("lndconnect://h:1?cert=MI*B&macaroon=AgE").contains("the cert of the lndconnect URI for h:1"));
        assert!(error("lndconnect://h:1?cert=MIIB&macaroon=A+E/").contains("the macaroon of the lndconnect URI"));
    }

    #[test]
    fn debug_text_holds_no_macaroon() {
        let config = LndConfig::new(LndLocation::Uri {
            uri: "lndconnect://h:1?cert=MIIB&macaroon=AgEDbG5k".to_owned(),
            tls_cert: None,
        });
        let text = format!("{config:?}");
        assert!(text.contains("(secret)") && !text.contains("AgEDbG5k"), "{text}");
    }
}
