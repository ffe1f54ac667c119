//! A client of the simulated LND: TLS with the pinned certificate of its directory, and a macaroon.
//!
//! Called by [`super::command`] and by tests. Must stay true: it accepts exactly the certificate in `tls.cert`, which
//! the usual verifier refuses (a CA used as end entity). Source: fact sheet on LND, section 2.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::log::LogError;
use super::{ADMIN_MACAROON, SimError, TLS_CERT};
use crate::proto::tellersim::control_client::ControlClient;

/// A control client as [`connect`] makes it.
pub type Control = ControlClient<InterceptedService<Channel, Macaroon>>;

/// Connects to the control interface of the simulated LND in `dir` that listens on `address`.
pub async fn connect(dir: &Path, address: SocketAddr) -> Result<Control, SimError> {
    let channel = channel(dir, address).await?;
    Ok(ControlClient::with_interceptor(
        channel,
        Macaroon::read(dir, ADMIN_MACAROON)?,
    ))
}

/// A connection that trusts `tls.cert` in `dir` and nothing else.
pub async fn channel(dir: &Path, address: SocketAddr) -> Result<Channel, SimError> {
    let path = dir.join(TLS_CERT);
    let pem = std::fs::read(&path).map_err(LogError::io(&path))?;
    let pinned = CertificateDer::from_pem_slice(&pem).map_err(|err| SimError::BadCertificate(err.to_string()))?;
    let verifier = Pinned {
        certificate: pinned,
        algorithms: ring::default_provider().signature_verification_algorithms,
    };
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?;
    let tls = ClientTlsConfig::new().domain_name("localhost");
    endpoint
        .tls_config_with_verifier(tls, Arc::new(verifier))?
        .connect()
        .await
        .map_err(|source| SimError::Connect { address, source })
}

/// Adds a macaroon to each call.
#[derive(Debug, Clone)]
pub struct Macaroon(MetadataValue<Ascii>);

impl Macaroon {
    /// Reads the macaroon file `name` in `dir`.
    pub fn read(dir: &Path, name: &str) -> Result<Self, SimError> {
        let path = dir.join(name);
        let bytes = std::fs::read(&path).map_err(LogError::io(&path))?;
        Ok(Self::from_bytes(&bytes))
    }

    /// A macaroon from its binary form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // Hex digits are always valid metadata.
        Self(
            hex::encode(bytes)
                .parse()
                .unwrap_or_else(|_| MetadataValue::from_static("")),
        )
    }
}

impl Interceptor for Macaroon {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("macaroon", self.0.clone());
        Ok(request)
    }
}

#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
