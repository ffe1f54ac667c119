//! Reads LND's certificate and the macaroon, anew each time it is asked.
//!
//! Called by the link before it connects and after a denied call. What must stay true: an error names the file
//! and what is wrong with it, and never quotes its contents; the macaroon is marked sensitive, so that no
//! header dump shows it.
//! Source: fact sheet section 2, connection conventions.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tonic::metadata::AsciiMetadataValue;

use super::endpoint::{LndEndpoint, Source};

/// A file larger than this is neither a certificate nor a macaroon.
const MAX_BYTES: u64 = 64 * 1024;

/// A credential that can not be used. `origin` is the file, or the URI.
#[derive(Debug, Error)]
pub(super) enum CredentialError {
    #[error("LND's {what} file {} can not be read: {source}", path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("LND's {what} file {} is larger than {MAX_BYTES} bytes", path.display())]
    TooLarge { what: &'static str, path: PathBuf },
    #[error("LND's certificate {origin} is not PEM: `-----BEGIN CERTIFICATE-----` expected")]
    NotPem { origin: String },
    #[error("LND's certificate {origin} is PEM but holds no whole certificate: {source}")]
    NoCertificate {
        origin: String,
        source: rustls::pki_types::pem::Error,
    },
    #[error("LND's certificate {origin} is not a valid X.509 certificate: {source}")]
    BadCertificate { origin: String, source: rustls::Error },
    #[error("the macaroon {origin} is empty")]
    EmptyMacaroon { origin: String },
    #[error("the macaroon {origin} is hexadecimal text: the binary file is expected, as LND writes it")]
    HexMacaroon { origin: String },
}

/// The certificate that LND must present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinnedCertificate {
    pub der: CertificateDer<'static>,
    /// Where it was read, for messages.
    pub origin: String,
}

/// The first certificate at the endpoint's source.
pub(super) async fn certificate(endpoint: &LndEndpoint) -> Result<PinnedCertificate, CredentialError> {
    let (bytes, origin) = read("certificate", &endpoint.certificate).await?;
    let der = match &endpoint.certificate {
        Source::File(_) => first_pem_certificate(&bytes, &origin)?,
        Source::Uri(_) => CertificateDer::from(bytes),
    };
    match ParsedCertificate::try_from(&der) {
        Ok(_) => Ok(PinnedCertificate { der, origin }),
        Err(source) => Err(CredentialError::BadCertificate { origin, source }),
    }
}

/// The macaroon as the metadata value LND expects: lower-case hex.
pub(super) async fn macaroon(endpoint: &LndEndpoint) -> Result<AsciiMetadataValue, CredentialError> {
    let (bytes, origin) = read("macaroon", &endpoint.macaroon).await?;
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return Err(CredentialError::EmptyMacaroon { origin });
    }
    if text.iter().all(u8::is_ascii_hexdigit) {
        return Err(CredentialError::HexMacaroon { origin });
    }
    // Hex digits are always a valid header value.
    let mut value =
        AsciiMetadataValue::try_from(hex::encode(&bytes)).map_err(|_| CredentialError::EmptyMacaroon { origin })?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(what: &'static str, source: &Source) -> Result<(Vec<u8>, String), CredentialError> {
    let path = match source {
        Source::Uri(bytes) => return Ok((bytes.clone(), "in the lndconnect URI".to_owned())),
        Source::File(path) => path,
    };
    let mut bytes = Vec::new();
    let read = async {
        let kind = tokio::fs::metadata(path).await?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            // Opening a pipe lasts until somebody writes to it, and nothing could end that.
            return Err(std::io::Error::other("it is no file"));
        }
        let file = tokio::fs::File::open(path).await?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).await
    };
    match read.await {
        Ok(length) if length as u64 > MAX_BYTES => Err(CredentialError::TooLarge {
            what,
            path: path.clone(),
        }),
        Ok(_) => Ok((bytes, path.display().to_string())),
        Err(source) => Err(CredentialError::Read {
            what,
            path: path.clone(),
            source,
        }),
    }
}

fn first_pem_certificate(bytes: &[u8], origin: &str) -> Result<CertificateDer<'static>, CredentialError> {
    if !bytes.windows(10).any(|window| window == b"-----BEGIN") {
        return Err(CredentialError::NotPem {
            origin: origin.to_owned(),
        });
    }
    CertificateDer::from_pem_slice(bytes).map_err(|source| CredentialError::NoCertificate {
        origin: origin.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn endpoint(folder: &Path) -> LndEndpoint {
        LndEndpoint {
            address: "localhost:10009".to_owned(),
            certificate: Source::File(folder.join("tls.cert")),
            macaroon: Source::File(folder.join("admin.macaroon")),
        }
    }

    fn new_certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate")
    }

    #[tokio::test]
    async fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("admin.macaroon");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo").success());
        let error = macaroon(&endpoint(folder.path())).await.expect_err("refused");
        assert!(error.to_string().ends_with("can not be read: it is no file"), "{error}");
    }

    async fn certificate_error(contents: &[u8]) -> String {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("tls.cert"), contents).expect("write");
        let error = certificate(&endpoint(folder.path()))
            .await
            .expect_err("refused")
            .to_string();
        assert!(error.contains("tls.cert"), "{error}");
        error
    }

    async fn read_macaroon(contents: &[u8]) -> Result<AsciiMetadataValue, String> {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("admin.macaroon"), contents).expect("write");
        macaroon(&endpoint(folder.path())).await.map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn the_first_of_several_certificates_counts() {
        let folder = tempfile::tempdir().expect("folder");
        let (first, second) = (new_certificate().cert, new_certificate().cert);
        let pem = first.pem() + &second.pem();
        std::fs::write(folder.path().join("tls.cert"), pem).expect("write");
        let read = certificate(&endpoint(folder.path())).await.expect("valid");
        assert_eq!(&read.der, first.der());
    }

    #[tokio::test]
    async fn certificate_errors_say_what_is_wrong() {
        let good = new_certificate();
        let pem = good.cert.pem();
        assert!(certificate_error(b"").await.contains("is not PEM"));
        assert!(certificate_error(good.cert.der()).await.contains("is not PEM"));
        let key = certificate_error(good.signing_key.serialize_pem().as_bytes()).await;
        assert!(key.contains("holds no whole certificate"), "{key}");
        let cut = certificate_error(&pem.as_bytes()[..pem.len() / 2]).await;
        assert!(cut.contains("holds no whole certificate"), "{cut}");
        let garbage = certificate_error(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").await;
        assert!(garbage.contains("is not a valid X.509"), "{garbage}");
        let large = certificate_error(&vec![b'x'; 100_000]).await;
        assert!(large.contains("is larger than"), "{large}");
    }

    #[tokio::test]
    async fn missing_files_are_named() {
        let folder = tempfile::tempdir().expect("folder");
        let endpoint = endpoint(folder.path());
        let error = certificate(&endpoint).await.expect_err("missing").to_string();
        assert!(error.contains("tls.cert can not be read: No such file"), "{error}");
        let error = macaroon(&endpoint).await.expect_err("missing").to_string();
        assert!(
            error.contains("admin.macaroon can not be read: No such file"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn macaroon_becomes_lower_case_hex_and_is_sensitive() {
        let value = read_macaroon(b"\x02\x01\x03lnd\xFF\n").await.expect("valid");
        assert_eq!(value.to_str().expect("text"), "0201036c6e64ff0a");
        assert!(value.is_sensitive());
        assert!(!format!("{value:?}").contains("0201"), "{value:?}");
    }

    #[tokio::test]
    async fn macaroon_errors_say_what_is_wrong() {
        for empty in [b"".as_slice(), b" \n"] {
            let error = read_macaroon(empty).await.expect_err("refused");
            assert!(error.contains("admin.macaroon is empty"), "{error}");
        }
        for text in [b"0201036c6e64".as_slice(), b"0201036C6E64\n"] {
            let error = read_macaroon(text).await.expect_err("refused");
            assert!(error.contains("admin.macaroon is hexadecimal text"), "{error}");
            assert!(!error.contains("0201"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_bad_certificate_in_the_uri_is_named_too() {
        let endpoint = LndEndpoint {
            address: "localhost:10009".to_owned(),
            certificate: Source::Uri(vec![1, 2, 3]),
            macaroon: Source::Uri(b"\x02\x01".to_vec()),
        };
        let error = certificate(&endpoint).await.expect_err("refused").to_string();
        assert!(error.contains("in the lndconnect URI is not a valid X.509"), "{error}");
        assert_eq!(
            macaroon(&endpoint).await.expect("valid").to_str().expect("text"),
            "0201"
        );
    }
}
