//! Who is let in, and who is believed.

use crate::{Pair, any_port, connect, dialling, hostile, hostile::Shows, identity, listening, ping};
use soma_sync_core::types::PeerId;
use soma_sync_runtime_tokio::transport::{Connection, Transport, TransportError};
use soma_sync_transport_quic::{BindError, Identity, QuicConfig, QuicTransport};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

#[tokio::test]
async fn both_ends_know_who_the_other_is() {
    let pair = Pair::new(QuicConfig::default()).await;
    assert_eq!(pair.dialled.peer(), identity(2).peer_id());
    assert_eq!(pair.accepted.peer(), identity(1).peer_id());
    assert_eq!(
        (pair.client.local_id(), pair.server.local_id()),
        (identity(1).peer_id(), identity(2).peer_id())
    );
    assert_ne!(pair.server.local_addr().port(), 0);
    ping(&pair.dialled, &pair.accepted).await;
    ping(&pair.accepted, &pair.dialled).await;
}

#[tokio::test]
async fn no_default_of_the_process_is_needed_or_set() {
    let _pair = Pair::new(QuicConfig::default()).await;
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}

#[tokio::test]
async fn whom_one_meets_is_whom_one_dialled() {
    let (client, server) = (dialling(1), listening(2, QuicConfig::default()));
    let (expected, found) = (identity(3).peer_id(), identity(2).peer_id());
    let error = client.dial(expected, server.local_addr()).await.expect_err("somebody else is there");
    assert_eq!(error, TransportError::WrongPeer { expected, found });

    // The one that was met by mistake has seen nothing of us: the first that it accepts is a dial meant for it.
    let (_dialled, accepted) = connect(&dialling(4), &server).await;
    assert_eq!(accepted.peer(), identity(4).peer_id());
}

#[tokio::test]
async fn only_those_on_the_list_are_let_in() {
    let allow = Some(BTreeSet::from([identity(4).peer_id()]));
    let server = listening(2, QuicConfig { allow, ..QuicConfig::default() });
    let stranger = dialling(1);
    match stranger.dial(server.local_id(), server.local_addr()).await {
        Ok(connection) => {
            tokio::select! {
                () = connection.closed() => {}
                _ = server.accept() => panic!("a stranger was let in"),
            }
            let error = connection.open().await.expect_err("it is closed");
            assert!(matches!(error, TransportError::Closed(_)), "{error}");
        }
        Err(error) => assert!(matches!(error, TransportError::Unreachable { .. }), "{error}"),
    }
    let friend = dialling(4);
    let (dialled, accepted) = connect(&friend, &server).await;
    assert_eq!(accepted.peer(), identity(4).peer_id());
    ping(&dialled, &accepted).await;

    // It is about who comes in: the server itself may go anywhere.
    let elsewhere = listening(5, QuicConfig::default());
    connect(&server, &elsewhere).await;
}

/// Has `config` refused with `alert` by a server that goes on serving others.
async fn is_refused(name: &str, config: rustls::ClientConfig, alert: u64) {
    let server = listening(2, QuicConfig::default());
    let error = tokio::select! {
        error = hostile::refused(config, server.local_addr()) => error,
        _ = server.accept() => panic!("{name}: it was let in"),
    };
    assert_eq!(hostile::alert(&error), Some(alert), "{name}: {error}");
    let (_dialled, accepted) = connect(&dialling(4), &server).await;
    assert_eq!(accepted.peer(), identity(4).peer_id(), "{name}: it was let in");
}

/// TLS alerts (RFC 8446, 6.2; RFC 7301, 3.2).
const HANDSHAKE_FAILURE: u64 = 40;
const BAD_CERTIFICATE: u64 = 42;
const DECRYPT_ERROR: u64 = 51;
const CERTIFICATE_REQUIRED: u64 = 116;
const NO_APPLICATION_PROTOCOL: u64 = 120;

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    is_refused("no key", hostile::client(None, true), HANDSHAKE_FAILURE).await;
}

#[tokio::test]
async fn a_client_with_a_certificate_is_refused() {
    for key in [hostile::ecdsa(), hostile::ed25519(9)] {
        let config = hostile::client(Some(Shows::certificate(key)), true);
        is_refused("certificate", config, HANDSHAKE_FAILURE).await;
    }
}

#[tokio::test]
async fn a_client_that_wants_a_certificate_of_us_is_refused() {
    let config = hostile::client(Some(Shows::raw(hostile::ed25519(9))), false);
    is_refused("wants a certificate", config, HANDSHAKE_FAILURE).await;
}

#[tokio::test]
async fn a_client_with_another_kind_of_key_is_refused() {
    // It announced a raw key, and then has none that signs as the server wants: it shows none.
    let config = hostile::client(Some(Shows::raw(hostile::ecdsa())), true);
    is_refused("ECDSA key", config, CERTIFICATE_REQUIRED).await;
}

#[tokio::test]
async fn a_client_that_shows_the_key_of_somebody_else_is_refused() {
    let config = hostile::client(Some(Shows::stolen(identity(4).peer_id(), hostile::ed25519(9))), true);
    is_refused("stolen key", config, DECRYPT_ERROR).await;
}

#[tokio::test]
async fn a_client_that_shows_what_is_no_ed25519_key_is_refused() {
    let config = hostile::client(Some(Shows::mislabelled(hostile::ecdsa(), hostile::ed25519(9))), true);
    is_refused("ECDSA key, ed25519 signature", config, BAD_CERTIFICATE).await;
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused() {
    for protocols in [vec![b"soma-sync/2".to_vec()], vec![b"h3".to_vec()], vec![]] {
        let mut config = hostile::client(Some(Shows::raw(hostile::ed25519(9))), true);
        config.alpn_protocols = protocols;
        is_refused("other ALPN", config, NO_APPLICATION_PROTOCOL).await;
    }
}

/// The client above is refused for what is wrong with it, and not because it can never get in.
#[tokio::test]
async fn a_client_of_other_making_is_let_in_when_it_keeps_to_the_rules() {
    let server = listening(2, QuicConfig::default());
    let endpoint = hostile::endpoint();
    let config = hostile::quic(hostile::client(Some(Shows::raw(hostile::ed25519(9))), true));
    let connecting = endpoint.connect_with(config, server.local_addr(), "soma-sync").expect("a valid dial");
    let (connected, accepted) = tokio::join!(connecting, server.accept());
    connected.expect("it is let in");
    assert_eq!(accepted.expect("the server is open").peer(), identity(9).peer_id());
}

#[tokio::test]
async fn nothing_is_taken_before_the_handshake() {
    let server = listening(2, QuicConfig::default());
    let mut config = hostile::client(Some(Shows::raw(hostile::ed25519(9))), true);
    config.enable_early_data = true;
    let (config, endpoint) = (hostile::quic(config), hostile::endpoint());
    for _ in 0..2 {
        let connecting =
            endpoint.connect_with(config.clone(), server.local_addr(), "soma-sync").expect("a valid dial");
        let connecting = match connecting.into_0rtt() {
            Ok(_) => panic!("the client has what it needs to send early"),
            Err(connecting) => connecting,
        };
        let (connected, accepted) = tokio::join!(connecting, server.accept());
        let (connected, accepted) = (connected.expect("it is let in"), accepted.expect("the server is open"));
        // Anything that the server sends after the handshake, such as tickets, has arrived with an answer.
        let (mut sender, mut receiver) = connected.open_bi().await.expect("it is open");
        sender.write_all(b"?").await.expect("it is open");
        let (mut answer, _question) = accepted.accept().await.expect("it is open");
        use soma_sync_runtime_tokio::transport::StreamSender;
        answer.send(bytes::Bytes::from_static(b"!")).await.expect("it is open");
        receiver.read_exact(&mut [0]).await.expect("it answers");
        connected.close(0_u32.into(), b"");
        accepted.closed().await;
    }
}

/// Has a dial to a server of `config` fail as unreachable.
async fn is_not_believed(name: &str, expected: PeerId, config: rustls::ServerConfig) {
    let (_server, address) = hostile::listen(config);
    let error = dialling(1).dial(expected, address).await.expect_err(name);
    match error {
        TransportError::Unreachable { address: at, reason } => {
            assert!(at == address && reason.contains("cryptographic"), "{name}: {at}: {reason}");
        }
        TransportError::WrongPeer { .. } | TransportError::Closed(_) | TransportError::Reset => {
            panic!("{name}: {error}")
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_an_ed25519_key_of_this_protocol_is_not_believed() {
    let victim = identity(4).peer_id();
    let key = || hostile::ed25519(9);
    is_not_believed("stolen key", victim, hostile::server(Shows::stolen(victim, key()))).await;
    is_not_believed("ECDSA key", victim, hostile::server(Shows::raw(hostile::ecdsa()))).await;
    is_not_believed("mislabelled", victim, hostile::server(Shows::mislabelled(hostile::ecdsa(), key())))
        .await;
    is_not_believed("certificate", victim, hostile::server(Shows::certificate(key()))).await;
    let mut other = hostile::server(Shows::raw(key()));
    other.alpn_protocols = vec![b"soma-sync/2".to_vec()];
    is_not_believed("other ALPN", identity(9).peer_id(), other).await;
}

#[tokio::test]
async fn a_server_of_other_making_is_believed_when_it_keeps_to_the_rules() {
    let (_server, address) = hostile::listen(hostile::server(Shows::raw(hostile::ed25519(9))));
    let client = dialling(1);
    let connection = client.dial(identity(9).peer_id(), address).await.expect("it is who it should be");
    assert_eq!(connection.peer(), identity(9).peer_id());
}

#[tokio::test]
async fn a_dial_that_nobody_answers_ends() {
    let silent = UdpSocket::bind(any_port()).expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let config = QuicConfig { handshake_timeout: Duration::from_millis(50), ..QuicConfig::default() };
    let client = QuicTransport::bind(&identity(1), None, config).expect("a free port");
    let error = client.dial(identity(2).peer_id(), address).await.expect_err("nobody is there");
    let reason = "no answer within 50ms".to_owned();
    assert_eq!(error, TransportError::Unreachable { address, reason });
}

#[tokio::test]
async fn an_address_that_cannot_be_dialled_is_an_error() {
    let client = dialling(1);
    for address in [SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from(([0, 0, 0, 0], 0))] {
        let error = client.dial(identity(2).peer_id(), address).await.expect_err("nobody can be there");
        assert!(matches!(error, TransportError::Unreachable { address: at, .. } if at == address), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_bound_says_why() {
    let taken = listening(1, QuicConfig::default());
    let error = QuicTransport::bind(&identity(2), Some(taken.local_addr()), QuicConfig::default());
    assert!(
        matches!(error, Err(BindError::Socket { address, .. }) if address == taken.local_addr()),
        "{error:?}"
    );

    let config = QuicConfig { max_streams: 0, ..QuicConfig::default() };
    let error = QuicTransport::bind(&identity(2), Some(any_port()), config);
    assert!(matches!(error, Err(BindError::Config(error)) if error.field == "max_streams"), "{error:?}");
}

#[test]
fn outside_of_a_runtime_there_is_an_error_and_no_panic() {
    let error = QuicTransport::bind(&identity(1), Some(any_port()), QuicConfig::default());
    assert!(matches!(error, Err(BindError::NoRuntime)), "{error:?}");
}

#[test]
fn new_identities_differ() {
    let [a, b] = [(), ()].map(|()| Identity::generate().expect("the system has randomness").peer_id());
    assert_ne!(a, b);
}
