//! TLS 1.3 in which a peer is a raw ed25519 public key, both ways (RFC 7250), and nothing else is spoken.

use crate::identity::Identity;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use soma_sync_core::types::PeerId;
use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

/// The protocol's name in the handshake (formats: Messages). Peers of another version do not connect at all.
pub const ALPN: &[u8] = b"soma-sync/1";

/// What stands before the 32 bytes of an ed25519 key in its SubjectPublicKeyInfo (RFC 8410). The encoding is the only
/// one, so a key has one form.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The peer whose public key this is, as it is shown in a handshake: a SubjectPublicKeyInfo that holds an ed25519 key
/// (RFC 8410). `None` of anything else.
pub fn peer_of_public_key(info: &[u8]) -> Option<PeerId> {
    let key = info.strip_prefix(SPKI_PREFIX.as_slice())?;
    Some(PeerId::new(key.try_into().ok()?))
}

/// The cryptography, handed over explicitly: another library in the process may have installed another default.
/// AES only, since every machine that this runs well on has it in hardware.
fn provider() -> Arc<CryptoProvider> {
    use ring::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![kx_group::X25519],
        ..ring::default_provider()
    })
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, Error> {
    let key = identity.signing_key();
    let info = key.public_key().ok_or(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown))?;
    let certificate = CertificateDer::from(info.to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}

fn no_suite(error: NoInitialCipherSuite) -> Error {
    Error::General(error.to_string())
}

/// The accepting side: whoever connects must prove a key, one of `allow` where there is such a list.
pub(crate) fn server(
    identity: &Identity,
    allow: Option<BTreeSet<PeerId>>,
) -> Result<QuicServerConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(ClientKeys { allow, provider: Arc::clone(&provider) });
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(identity)?)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.try_into().map_err(no_suite)
}

/// What every dial has in common.
pub(crate) struct Dialler {
    provider: Arc<CryptoProvider>,
    resolver: Arc<AlwaysResolvesClientRawPublicKeys>,
}

impl Dialler {
    pub(crate) fn new(identity: &Identity) -> Result<Self, Error> {
        let resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(identity)?));
        Ok(Self { provider: provider(), resolver })
    }

    /// The dialling side, which goes on with `expected` only. Where somebody else proves to be there, the handshake
    /// fails before we say who we are, and the second value tells who.
    pub(crate) fn dial(&self, expected: PeerId) -> Result<(QuicClientConfig, Arc<OnceLock<PeerId>>), Error> {
        let found = Arc::new(OnceLock::new());
        let provider = Arc::clone(&self.provider);
        let verifier = ServerKey { expected, wrong: Arc::clone(&found), provider };
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.resolver) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok((config.try_into().map_err(no_suite)?, found))
    }
}

/// The one key that stands where a chain of certificates might.
fn only_key(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
    match peer_of_public_key(end_entity) {
        Some(peer) if others.is_empty() => Ok(peer),
        Some(_) | None => Err(CertificateError::BadEncoding.into()),
    }
}

/// Checks that the handshake is signed by the key that was presented, with ed25519, and says whose it is.
fn signer(
    provider: &CryptoProvider,
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<(PeerId, HandshakeSignatureValid), Error> {
    let peer = only_key(key, &[])?;
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let info = SubjectPublicKeyInfoDer::from(key.as_ref());
    let algorithms = &provider.signature_verification_algorithms;
    Ok((peer, verify_tls13_signature_with_raw_key(message, &info, signature, algorithms)?))
}

fn no_tls12() -> Error {
    rustls::PeerIncompatible::Tls12NotOffered.into()
}

/// Decides about the key of whoever answers a dial.
#[derive(Debug)]
struct ServerKey {
    expected: PeerId,
    /// Set to who is there, once that is proven and is not who was expected.
    wrong: Arc<OnceLock<PeerId>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerKey {
    /// Only the form is looked at here; whose key it is counts once the signature proves it.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        only_key(end_entity, intermediates).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (found, valid) = signer(&self.provider, message, cert, dss)?;
        if found == self.expected {
            return Ok(valid);
        }
        self.wrong.get_or_init(|| found);
        Err(CertificateError::NotValidForName.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Decides about the keys of those who connect to us.
#[derive(Debug)]
struct ClientKeys {
    allow: Option<BTreeSet<PeerId>>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let peer = only_key(end_entity, intermediates)?;
        if self.allow.as_ref().is_some_and(|allow| !allow.contains(&peer)) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signer(&self.provider, message, cert, dss).map(|(_, valid)| valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_id_is_the_ed25519_public_key_of_rfc_8032() {
        // RFC 8032, 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let mut bytes = [0; 32];
        hex::decode_to_slice(seed, &mut bytes).expect("a literal");
        assert_eq!(Identity::from_seed(bytes).peer_id().to_string(), key);
    }

    #[test]
    fn a_key_has_one_encoding_and_other_keys_have_none() {
        let mut info = [SPKI_PREFIX.as_slice(), &[7; 32]].concat();
        assert_eq!(peer_of_public_key(&info), Some(PeerId::new([7; 32])));
        assert_eq!(peer_of_public_key(&info[..43]), None, "a key cut short");
        info.push(0);
        assert_eq!(peer_of_public_key(&info), None, "a key with something after it");
        info.pop();
        info[8] = 0x71; // the identifier of ed448
        assert_eq!(peer_of_public_key(&info), None, "a key of another kind");
        assert_eq!(peer_of_public_key(&[]), None);
    }

    #[test]
    fn a_key_beside_others_is_no_key() {
        let info = CertificateDer::from([SPKI_PREFIX.as_slice(), &[7; 32]].concat());
        assert!(only_key(&info, &[]).is_ok());
        assert!(only_key(&info, std::slice::from_ref(&info)).is_err());
    }
}
