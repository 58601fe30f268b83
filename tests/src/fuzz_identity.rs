//! Bytes as who a peer is: the public key that it shows, and the file that an identity is kept in.

use soma_sync_transport_quic::{Identity, IdentityError, peer_of_public_key};
use std::{fs, path::Path};
use tempfile::TempDir;

/// The object identifier of ed25519, 1.3.101.112.
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Bytes as a public key as it is shown in a handshake, and as an identity file.
///
/// # Panics
///
/// When either is read otherwise than by a plain reader, or written otherwise than it was read.
pub fn peer_key(bytes: &[u8]) {
    let peer = peer_of_public_key(bytes);
    assert_eq!(peer.map(|peer| peer.as_bytes().to_vec()), key_in(bytes).map(<[u8]>::to_vec));
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("identity");
    write_for_us(&path, bytes);
    match (Identity::load(&path), seed_in(bytes)) {
        (Ok(identity), Some(seed)) => assert_eq!(identity.peer_id(), Identity::from_seed(seed).peer_id()),
        (Err(IdentityError::WrongLength { found, .. }), None) => assert_eq!(found, bytes.len() as u64),
        (Err(IdentityError::NotHex { .. }), None) => assert_eq!(bytes.len(), 65),
        (read, seed) => panic!("{read:?} where the file holds {seed:?}"),
    }
    assert_eq!(fs::read(&path).expect("the file"), bytes, "reading an identity changed its file");
}

/// The ed25519 key in a SubjectPublicKeyInfo (RFC 8410), read field by field as DER says.
fn key_in(info: &[u8]) -> Option<&[u8]> {
    let (fields, []) = tagged(info, 0x30)? else { return None };
    let (algorithm, key) = tagged(fields, 0x30)?;
    let (identifier, []) = tagged(algorithm, 0x06)? else { return None };
    let ([0, key @ ..], []) = tagged(key, 0x03)? else { return None };
    (identifier == ED25519 && key.len() == 32).then_some(key)
}

/// What is in the first element, which must have this tag, and what is behind it. All that a key has is short.
fn tagged(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    match bytes {
        [found, length @ ..=0x7f, rest @ ..] if *found == tag => rest.split_at_checked(usize::from(*length)),
        _ => None,
    }
}

/// The seed in an identity file: 64 hex digits and a newline.
fn seed_in(file: &[u8]) -> Option<[u8; 32]> {
    let [digits @ .., b'\n'] = file else { return None };
    let text = std::str::from_utf8(digits).ok().filter(|text| text.len() == 64)?;
    let bytes = (0..32).map(|at| {
        let pair = text.get(2 * at..2 * at + 2)?;
        pair.chars().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(pair, 16).ok())?
    });
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// Writes a file that others cannot read.
fn write_for_us(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file");
    #[cfg(unix)]
    {
        let only_us = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path, only_us).expect("our own file");
    }
}
