//! Trust in exactly one certificate: the one in LND's `tls.cert`.
//!
//! Called by rustls during the handshake. What must stay true: the presented certificate equals the pinned one
//! byte for byte, and the handshake's signature proves that the peer has its key.
//! Source: fact sheet section 2: LND's certificate has the CA bit set and is used as the end-entity
//! certificate, which rustls' own verifier refuses (`CaUsedAsEndEntity`). Name and dates are not looked at:
//! who pins the certificate has said all of that.

use std::error::Error;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::credentials::PinnedCertificate;

/// LND presented another certificate.
#[derive(Debug, Error)]
#[error(
    "the certificate presented by LND at {address} is not the one in {origin} (sha256 {presented}, expected {expected})"
)]
struct WrongCertificate {
    address: String,
    origin: String,
    presented: String,
    expected: String,
}

/// Accepts one certificate.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pin: PinnedCertificate,
    /// LND's address, for messages.
    address: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinVerifier {
    pub fn new(pin: PinnedCertificate, address: String) -> Self {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Self {
            pin,
            address,
            algorithms,
        }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.pin.der {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = WrongCertificate {
            address: self.address.clone(),
            origin: self.pin.origin.clone(),
            presented: hex::encode(Sha256::digest(end_entity)),
            expected: hex::encode(Sha256::digest(&self.pin.der)),
        };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The words of an error and of everything below it, each said once: `transport error: tcp connect error: …`.
///
/// The layers between rustls and tonic wrap errors that print what they wrap.
pub(super) fn flatten(error: &(dyn Error + 'static)) -> String {
    // A certificate error prints as `Other(OtherError(WrongCertificate { … }))`: say it in words instead.
    if let Some(wrong) = find_wrong_certificate(error) {
        return wrong;
    }
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = error.source();
    }
    text
}

fn find_wrong_certificate(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An `io::Error` hides the error it was made of from `source()`.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|inner| inner as &(dyn Error + 'static))
            .unwrap_or(error);
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(wrong)))) =
            inner.downcast_ref()
        {
            return Some(wrong.to_string());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(der: &[u8]) -> PinVerifier {
        let pin = PinnedCertificate {
            der: CertificateDer::from(der.to_vec()),
            origin: "tls.cert".to_owned(),
        };
        PinVerifier::new(pin, "localhost:10009".to_owned())
    }

    fn verify(pinned: &[u8], presented: &[u8]) -> Result<ServerCertVerified, rustls::Error> {
        let name = ServerName::try_from("localhost").expect("name");
        let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
        verifier(pinned).verify_server_cert(&CertificateDer::from(presented), &[], &name, &[], now)
    }

    #[test]
    fn only_the_same_bytes_are_trusted() {
        assert!(verify(b"abc", b"abc").is_ok());
        for other in [b"abd".as_slice(), b"ab", b"abcd", b""] {
            assert!(verify(b"abc", other).is_err());
        }
    }

    #[test]
    fn the_refusal_is_in_words_however_deep_it_is_wrapped() {
        let refused = verify(b"abc", b"xyz").expect_err("another certificate");
        let io = std::io::Error::new(std::io::ErrorKind::InvalidData, refused);
        let wrapped = tonic::ConnectError(Box::new(tonic::ConnectError(Box::new(io))));
        let (presented, expected) = (Sha256::digest(b"xyz"), Sha256::digest(b"abc"));
        let words = format!(
            "the certificate presented by LND at localhost:10009 is not the one in tls.cert (sha256 {}, expected {})",
            hex::encode(presented),
            hex::encode(expected)
        );
        assert_eq!(flatten(&wrapped), words);
    }

    /// A handshake in memory with a server that presents `pinned` and signs with `signing_key`.
    fn handshake(
        pinned: &rcgen::Certificate,
        signing_key: &rcgen::KeyPair,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Result<(), rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(verifier(pinned.der()));
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("key");
        let key = ring::sign::any_supported_type(&key)?;
        let certified = rustls::sign::CertifiedKey::new(vec![pinned.der().clone()], key);
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        let mut client =
            rustls::ClientConnection::new(Arc::new(client), ServerName::try_from("localhost").expect("name"))?;
        let mut server = rustls::ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("memory");
            server.read_tls(&mut wire.as_slice()).expect("memory");
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("memory");
            client.read_tls(&mut wire.as_slice()).expect("memory");
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn who_has_the_certificate_but_not_its_key_is_refused() {
        let lnd = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
        let stranger = rcgen::KeyPair::generate().expect("key");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            assert_eq!(handshake(&lnd.cert, &lnd.signing_key, version), Ok(()));
            let refused = handshake(&lnd.cert, &stranger, version).expect_err("a stranger");
            assert_eq!(refused, CertificateError::BadSignature.into(), "{version:?}");
        }
    }

    #[test]
    fn nested_errors_are_said_once() {
        #[derive(Debug, Error)]
        #[error("transport error")]
        struct Transport(#[source] tonic::ConnectError);
        let io = std::io::Error::other("connection refused");
        let error = Transport(tonic::ConnectError(Box::new(tonic::ConnectError(Box::new(io)))));
        assert_eq!(flatten(&error), "transport error: connection refused");
    }
}
