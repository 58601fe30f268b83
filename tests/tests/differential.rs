//! Our formats against serde and the `bcs` crate, on arbitrary values, on damaged encodings and on random bytes.

use proptest::{prelude::*, sample::Index};
use soma_sync_core::{block::BlockView, config::Limits, job::CommitHeader, payload::Payload};
use soma_sync_tests::{fuzz, mirror};

/// What may happen to an encoding on its way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, u8),
    Remove(Index),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), 1..=u8::MAX).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
    ]
}

fn damage(bytes: &mut Vec<u8>, damage: &Damage) {
    let length = bytes.len();
    match damage {
        _ if length == 0 => {}
        Damage::Flip(at, mask) => bytes[at.index(length)] ^= mask,
        Damage::Cut(at) => bytes.truncate(at.index(length)),
        Damage::Insert(at, byte) => bytes.insert(at.index(length), *byte),
        Damage::Remove(at) => drop(bytes.remove(at.index(length))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_block_is_written_as_the_independent_encoder_writes_it(block in mirror::any_block()) {
        let (reference, bytes) = block.sign(|_| [3; 64]);
        let theirs = mirror::SignedBlock { block: mirror::Block::from(&block), signature: vec![3; 64] };
        prop_assert_eq!(bcs::to_bytes(&theirs).expect("it encodes"), &bytes[..]);
        let view = BlockView::decode(&bytes, &Limits::default()).expect("it was just written");
        prop_assert_eq!(mirror::owned(&view), block);
        prop_assert_eq!(view.reference(), reference);
    }

    #[test]
    fn a_commit_is_written_as_the_independent_encoder_writes_it(commit in mirror::any_commit()) {
        let (reference, bytes) = commit.encode();
        prop_assert_eq!(&bcs::to_bytes(&mirror::Commit::from(&commit)).expect("it encodes"), &bytes);
        let header = CommitHeader::decode(Payload::new(bytes.into()), &Limits::default()).expect("it was just written");
        prop_assert_eq!(header.to_commit(), commit);
        prop_assert_eq!(header.reference, reference);
    }

    #[test]
    fn a_validator_set_is_written_as_the_independent_encoder_writes_it(set in mirror::any_validator_set()) {
        let bytes = set.encode();
        prop_assert_eq!(&bcs::to_bytes(&mirror::ValidatorSet::from(&set)).expect("it encodes"), &bytes);
        fuzz::decode_validator_set(&bytes);
    }

    #[test]
    fn no_proper_prefix_of_a_block_or_commit_decodes(
        block in mirror::any_block(),
        commit in mirror::any_commit(),
        at in any::<Index>(),
    ) {
        let (_, bytes) = block.sign(|_| [3; 64]);
        prop_assert!(BlockView::decode(&bytes[..at.index(bytes.len())], &Limits::default()).is_err());
        let bytes = bytes::Bytes::from(commit.encode().1);
        let prefix = Payload::new(bytes.slice(..at.index(bytes.len())));
        prop_assert!(CommitHeader::decode(prefix, &Limits::default()).is_err());
    }

    #[test]
    fn both_decoders_agree_on_damaged_blocks(
        block in mirror::any_block(),
        damages in proptest::collection::vec(any_damage(), 1..4),
    ) {
        let mut bytes = block.sign(|_| [3; 64]).1.to_vec();
        damages.iter().for_each(|each| damage(&mut bytes, each));
        fuzz::decode_block(&bytes);
    }

    #[test]
    fn both_decoders_agree_on_damaged_commits(
        commit in mirror::any_commit(),
        damages in proptest::collection::vec(any_damage(), 1..4),
    ) {
        let mut bytes = commit.encode().1;
        damages.iter().for_each(|each| damage(&mut bytes, each));
        fuzz::decode_commit(&bytes);
    }

    #[test]
    fn both_decoders_agree_on_damaged_validator_sets(
        set in mirror::any_validator_set(),
        damages in proptest::collection::vec(any_damage(), 1..4),
    ) {
        let mut bytes = set.encode();
        damages.iter().for_each(|each| damage(&mut bytes, each));
        fuzz::decode_validator_set(&bytes);
    }

    #[test]
    fn both_decoders_agree_on_random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz::decode_block(&bytes);
        fuzz::decode_commit(&bytes);
        fuzz::decode_validator_set(&bytes);
    }
}
