//! Peers that do not keep to the rules, made of the libraries below the transport.

use quinn::{
    ClientConfig, ConnectionError, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SigningKey},
};
use soma_sync_core::types::PeerId;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// A P-256 key, in PKCS#8.
const ECDSA: &str = "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b020101042033cc165c9f26272ec1e4\
    7c5056075cdd63b611f279f823ba3f594019f75f970ba14403420004b232329f70f698e531ebf5169861e0a4472d8a78fc74bde1f40a51f5d4\
    110728718a233eea89d1cac3fb0b9ad57c7df3f6e27e98fa987d174cfdc427b8e4846d";

pub(crate) fn ecdsa() -> Arc<dyn SigningKey> {
    let der = hex::decode(ECDSA).expect("a literal");
    ring::sign::any_ecdsa_type(&PrivatePkcs8KeyDer::from(der).into()).expect("a literal")
}

pub(crate) fn ed25519(seed: u8) -> Arc<dyn SigningKey> {
    let der = [hex::decode("302e020100300506032b657004220420").expect("a literal"), vec![seed; 32]].concat();
    ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).expect("any seed will do")
}

/// What a peer shows, and whether it calls it a raw key or a certificate.
#[derive(Debug)]
pub(crate) struct Shows {
    key: Arc<CertifiedKey>,
    raw: bool,
}

impl Shows {
    /// The public half of `key`.
    pub(crate) fn raw(key: Arc<dyn SigningKey>) -> Self {
        let info = key.public_key().expect("it has one").to_vec();
        Self { key: Arc::new(CertifiedKey::new(vec![CertificateDer::from(info)], key)), raw: true }
    }

    /// The public key of `victim`, while signing with `key`.
    pub(crate) fn stolen(victim: PeerId, key: Arc<dyn SigningKey>) -> Self {
        let mut info = hex::decode("302a300506032b6570032100").expect("a literal");
        info.extend_from_slice(victim.as_bytes());
        Self { key: Arc::new(CertifiedKey::new(vec![CertificateDer::from(info)], key)), raw: true }
    }

    /// The public half of one key, while signing with another.
    pub(crate) fn mislabelled(shown: Arc<dyn SigningKey>, key: Arc<dyn SigningKey>) -> Self {
        Self { key: Arc::new(CertifiedKey::new(Self::raw(shown).key.cert.clone(), key)), raw: true }
    }

    /// A certificate, as on the web.
    pub(crate) fn certificate(key: Arc<dyn SigningKey>) -> Self {
        Self { raw: false, ..Self::raw(key) }
    }
}

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }
    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }
    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Credulous {
    raw: bool,
}

const SCHEMES: [SignatureScheme; 2] = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl ClientCertVerifier for Credulous {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A client that believes any server and shows what it is given; `raw_server` says what it wants to be shown.
pub(crate) fn client(shows: Option<Shows>, raw_server: bool) -> rustls::ClientConfig {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous { raw: raw_server }));
    let mut config = match shows {
        Some(shows) => config.with_client_cert_resolver(Arc::new(shows)),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"soma-sync/1".to_vec()];
    config
}

/// A server that believes any client and shows what it is given.
pub(crate) fn server(shows: Shows) -> rustls::ServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(Arc::new(Credulous { raw: true }))
        .with_cert_resolver(Arc::new(shows));
    config.alpn_protocols = vec![b"soma-sync/1".to_vec()];
    config
}

/// For an endpoint to dial with.
pub(crate) fn quic(config: rustls::ClientConfig) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("ring has the initial suite")))
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port")
}

/// An endpoint that accepts whoever comes, as long as it lives.
pub(crate) fn listen(config: rustls::ServerConfig) -> (Endpoint, SocketAddr) {
    let crypto = QuicServerConfig::try_from(config).expect("ring has the initial suite");
    let endpoint = Endpoint::server(
        ServerConfig::with_crypto(Arc::new(crypto)),
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    )
    .expect("a free port");
    let address = endpoint.local_addr().expect("it is bound");
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            if let Ok(connection) = incoming.await {
                tokio::spawn(async move { connection.closed().await });
            }
        }
    });
    (endpoint, address)
}

/// How a connection ends that `config` makes to `address`: while it opens, or after. Does not return if it stays.
pub(crate) async fn refused(config: rustls::ClientConfig, address: SocketAddr) -> ConnectionError {
    let endpoint = endpoint();
    let connecting = endpoint.connect_with(quic(config), address, "soma-sync").expect("a valid dial");
    match connecting.await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    }
}

/// The TLS alert (RFC 8446, 6.2) that the *peer* sent.
pub(crate) fn alert(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code).checked_sub(0x100),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => None,
    }
}
