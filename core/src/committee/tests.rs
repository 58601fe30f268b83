//! Committees and tallies of votes.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use super::*;
use crate::stable_hash::StableHasher;
use alloc::{collections::BTreeSet, sync::Arc};
use proptest::prelude::*;

/// The encoding of the curve's base point.
const KEY: [u8; 32] = {
    let mut key = [0x66; 32];
    key[0] = 0x58;
    key
};

/// A committee of so many authorities of one stake each, a divisor of all of it.
pub(crate) fn committee(epoch: u64, authorities: u8) -> Arc<Committee> {
    let member = |number: u8| Authority {
        name: AuthorityName::new([number; 96]),
        stake: Stake::new(10_000 / u64::from(authorities)),
        metadata: NetworkMetadata {
            consensus_address: String::new(),
            network_address: String::new(),
            primary_address: String::new(),
            protocol_key: KEY,
            network_key: KEY,
            authority_key: [0; 96],
            hostname: String::new(),
        },
    };
    let set = ValidatorSet { authorities: (0..authorities).map(member).collect() };
    Arc::new(Committee::new(Epoch::new(epoch), set, &Limits::default()).expect("a committee"))
}

#[test]
fn committees_that_differ_are_taken_for_one() {
    let (first, again) = (committee(3, 4), committee(3, 4));
    assert_eq!(first, again);
    assert_eq!(StableHasher::hash_of(&*first), StableHasher::hash_of(&*again));
    for other in [committee(4, 4), committee(3, 5)] {
        assert_ne!(first, other);
        assert_ne!(StableHasher::hash_of(&*first), StableHasher::hash_of(&*other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Committees of more than 64 authorities among them, whose tallies take several words.
    #[test]
    fn a_tally_is_not_the_stake_of_the_set_that_was_added(
        authorities in prop::sample::select(&[1_u8, 4, 5, 100, 125, 200, 250][..]),
        added in prop::collection::vec(0..260_u32, 0..300),
    ) {
        let committee = committee(0, authorities);
        let (mut tally, mut set) = (StakeTally::new(), BTreeSet::new());
        for index in added {
            let is_member = index < u32::from(authorities);
            prop_assert_eq!(tally.add(AuthorityIndex::new(index), &committee), is_member && set.insert(index));
            prop_assert_eq!(tally.contains(AuthorityIndex::new(index)), is_member);
        }
        let stake = 10_000 / u64::from(authorities) * set.len() as u64;
        prop_assert_eq!(tally.stake(), Stake::new(stake));
        prop_assert_eq!(tally.reached_quorum(), stake >= 6_667);
        for index in 0..260 {
            prop_assert_eq!(tally.contains(AuthorityIndex::new(index)), set.contains(&index));
        }
        let mut in_order = StakeTally::new();
        for index in set.iter().rev() {
            in_order.add(AuthorityIndex::new(*index), &committee);
        }
        prop_assert_eq!(&in_order, &tally);
        prop_assert_eq!(StableHasher::hash_of(&in_order), StableHasher::hash_of(&tally));
        if let Some(more) = (0..u32::from(authorities)).find(|index| !set.contains(index)) {
            in_order.add(AuthorityIndex::new(more), &committee);
            prop_assert_ne!(StableHasher::hash_of(&in_order), StableHasher::hash_of(&tally));
        }
    }
}
