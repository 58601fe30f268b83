//! Bodies of the fuzz targets. The targets in `fuzz/` call these, and so do ordinary tests, over the committed corpora
//! and over random bytes.
//!
//! Those in this file compare our decoders with independent ones: both accept or neither does, and both read the same
//! value, whose one encoding is what was read. The others are in modules beside it.

use crate::{
    fuzz_config, fuzz_identity, fuzz_jobs, fuzz_machine, fuzz_message, fuzz_network, fuzz_store, fuzz_trace,
    fuzz_wire, mirror,
};
use bytes::Bytes;
use soma_sync_core::{
    block::{BlockView, DecodeError},
    committee::ValidatorSet,
    config::Limits,
    job::CommitHeader,
    payload::Payload,
};

/// The body of a fuzz target.
pub type Body = fn(&[u8]);

/// Runs the body of the target of this name.
///
/// # Panics
///
/// When there is none, and when the body finds something.
pub fn run(target: &str, bytes: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    body(bytes);
}

/// Every target by name, with its body.
pub const TARGETS: &[(&str, Body)] = &[
    ("certify", |bytes| drop(fuzz_jobs::certify(bytes))),
    ("check", |bytes| drop(fuzz_jobs::check(bytes))),
    ("configuration", |bytes| drop(fuzz_config::configuration(bytes))),
    ("decode_block", decode_block),
    ("decode_commit", decode_commit),
    ("decode_message", fuzz_message::decode_message),
    ("decode_validator_set", decode_validator_set),
    ("framing", fuzz_wire::framing),
    ("machine_inputs", |bytes| drop(fuzz_machine::machine_inputs(bytes))),
    ("machine_snapshot", |bytes| drop(fuzz_machine::machine_snapshot(bytes))),
    ("mini_network", |bytes| drop(fuzz_network::mini_network(bytes))),
    ("peer_key", fuzz_identity::peer_key),
    ("read_chain_file", fuzz_message::read_chain_file),
    ("read_trace", fuzz_trace::read_trace),
    ("server_requests", |bytes| drop(fuzz_machine::serve::server_requests(bytes))),
    ("store_model", |bytes| _ = fuzz_store::store_model(bytes)),
    ("store_open", |bytes| _ = fuzz_store::store_open(bytes)),
    ("wire_round_trip", fuzz_wire::wire_round_trip),
];

/// So many bytes, always the same for a seed.
pub fn seeded(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Whether something comes that comes once in `odds`: never where there is nothing left to draw from.
pub(crate) fn rarely(input: &mut arbitrary::Unstructured<'_>, odds: u8) -> arbitrary::Result<bool> {
    Ok(input.int_in_range(1..=odds)? == odds)
}

/// Bytes as a signed block.
pub fn decode_block(bytes: &[u8]) {
    let ours = BlockView::decode(bytes, &Limits::default());
    if let Some(theirs) = comparable(&ours, bcs::from_bytes::<mirror::SignedBlock>(bytes).ok()) {
        let view = ours.expect("compared only where both decode");
        assert_eq!(mirror::SignedBlock::from(&view), theirs);
        assert_eq!(mirror::owned(&view).encode(), view.signed_bytes());
        assert_eq!(bcs::to_bytes(&theirs).expect("it was decoded"), bytes);
    }
}

/// Bytes as a commit.
pub fn decode_commit(bytes: &[u8]) {
    let ours = CommitHeader::decode(Payload::new(Bytes::copy_from_slice(bytes)), &Limits::default());
    if let Some(theirs) = comparable(&ours, bcs::from_bytes::<mirror::Commit>(bytes).ok()) {
        let commit = ours.expect("compared only where both decode").to_commit();
        assert_eq!(mirror::Commit::from(&commit), theirs);
        assert_eq!(commit.encode().1, bytes);
    }
}

/// Bytes as a validator set.
pub fn decode_validator_set(bytes: &[u8]) {
    let ours = ValidatorSet::decode(bytes);
    if let Some(theirs) = comparable(&ours, bcs::from_bytes::<mirror::ValidatorSet>(bytes).ok()) {
        let set = ours.expect("compared only where both decode");
        assert_eq!(mirror::ValidatorSet::from(&set), theirs);
        assert_eq!(set.encode(), bytes);
    }
}

/// The other decoder's value where both accept. Ours may refuse what the other accepts for its limits only.
fn comparable<T, U>(ours: &Result<T, DecodeError>, theirs: Option<U>) -> Option<U> {
    match ours {
        Ok(_) => Some(theirs.expect("we accept what the independent decoder refuses")),
        Err(DecodeError::TooMany { .. } | DecodeError::TooLarge { .. }) => None,
        Err(error) => {
            assert!(theirs.is_none(), "we refuse what the independent decoder accepts: {error}");
            None
        }
    }
}
