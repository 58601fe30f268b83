//! Bodies of the fuzz targets. The targets in `fuzz/` call these, and so do ordinary tests, over the committed corpus
//! and over random bytes. Each compares our decoder with an independent one: both accept or neither does, and both
//! read the same value, whose one encoding is what was read.

use crate::mirror;
use bytes::Bytes;
use soma_sync_core::{
    block::{BlockView, DecodeError},
    committee::ValidatorSet,
    config::Limits,
    job::CommitHeader,
    payload::Payload,
};

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
        let commit = mirror::owned_commit(&ours.expect("compared only where both decode"));
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
