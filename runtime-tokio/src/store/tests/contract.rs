//! What every store must do, each test on both.

use super::*;
use soma_sync_core::{
    start::Start,
    types::{AuthorityIndex, Epoch, Round},
};

#[test]
fn a_fresh_store_does_not_start_at_genesis() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        let expected = Start::genesis(chain.genesis.chain_id(), Arc::clone(&chain.genesis));
        assert_eq!(store.start().expect("a read"), expected);
        assert_eq!(store.chain_id(), chain.genesis.chain_id());
        assert_eq!(store.committee(Epoch::ZERO).expect("a read").as_ref(), Some(&chain.genesis));
        assert_eq!(store.committee(Epoch::new(1)).expect("a read"), None);
        assert_eq!(store.head(CommitIndex::GENESIS).expect("a read"), None);
        assert_eq!(store.commit(index(1)).expect("a read"), None);
    });
}

#[test]
fn what_was_stored_is_not_what_is_read() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        for first in (1..=30).step_by(5) {
            store.apply(&chain.batch(first, first + 4)).expect("it follows");
        }
        chain.commits.iter().for_each(|made| assert_stored(store, made));
        for made in &chain.commits {
            let known = store.committee(made.header.epoch).expect("a read");
            assert_eq!(known.as_ref(), Some(&made.committee));
        }
        assert_eq!(store.head(index(31)).expect("a read"), None);
        let unknown = voting(chain.at(1).header.leader, &[]).reference;
        assert_eq!(store.block(&unknown).expect("a read"), None);
    });
}

#[test]
fn a_freshly_synced_store_cannot_certify_its_own_tip() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        for last in (5..=30).step_by(5) {
            store.apply(&chain.batch(last - 4, last)).expect("it follows");
            let (made, start) = (chain.at(last), store.start().expect("a read"));
            assert_eq!(start.tip.reference, made.header.reference);
            assert_eq!(start.tip.timestamp_ms, made.header.timestamp_ms);
            assert_eq!(start.tip.epoch, made.header.epoch);
            assert_eq!(start.tip.ends_epoch, made.next_committee.is_some());
            assert_eq!(start.committee, made.committee);
            assert_eq!(start.next_committee, made.next_committee);
            assert_eq!(start.certifiable, made.header.reference);
            assert_eq!((start.votes, start.lowest_available), (vec![], CommitIndex::GENESIS));
            let certifiers = store.certifiers(&made.header.reference).expect("a read").expect("a quorum");
            let expected: Vec<_> =
                made.certifiers.iter().map(|block| block.payload.bytes().clone()).collect();
            assert_eq!(certifiers.iter().map(|block| block.bytes().clone()).collect::<Vec<_>>(), expected);
        }
    });
}

#[test]
fn a_certificate_is_not_the_shortest_prefix_in_order_of_authors() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        store.apply(&chain.batch(1, 30)).expect("it follows");
        let mut stored: Vec<_> = chain.commits.iter().flat_map(|made| made.blocks.clone()).collect();
        stored.extend(chain.at(30).certifiers.iter().cloned());
        // A later vote of every author, and one more of the author who comes first, for every third commit.
        for made in chain.commits.iter().step_by(3) {
            let later: Vec<_> = (0..7)
                .chain([0])
                .zip(2_000..)
                .map(|(author, round)| BlockRef {
                    author: AuthorityIndex::new(author),
                    round: Round::new(round),
                    ..made.header.leader
                })
                .map(|like| voting(like, &[made.header.reference]))
                .collect();
            store.apply(&votes(&later)).expect("only blocks");
            stored.extend(later);
        }
        let mut uncertified = 0;
        for made in &chain.commits {
            let expected = quorum_by_hand(made, &stored);
            uncertified += u32::from(expected.is_none());
            assert_eq!(certificate(store, &made.header.reference), expected, "{}", made.header.reference);
        }
        assert!(uncertified > 0, "a chain in which every commit is certified tests less");
        let lengths = store.certificate(&chain.at(1).header.reference).expect("a read").expect("a quorum");
        for certifier in lengths {
            let block = store.block(&certifier.block).expect("a read").expect("a block");
            assert_eq!(block.len(), certifier.bytes as usize);
        }
    });
}

#[test]
fn votes_of_another_epoch_or_for_another_digest_or_of_strangers_count() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        store.apply(&chain.uncertified(1, 10)).expect("it follows");
        let (commit, leader) = (chain.at(10).header.reference, chain.at(10).header.leader);
        let other = CommitRef { digest: chain.at(9).header.reference.digest, ..commit };
        let by = |author, epoch, commit| {
            let author = AuthorityIndex::new(author);
            voting(BlockRef { author, epoch: Epoch::new(epoch), ..leader }, &[commit])
        };
        let mut useless: Vec<_> = (0..7).map(|author| by(author, 1, commit)).collect();
        useless.extend((0..7).map(|author| by(author, 0, other)));
        useless.extend((7..40).map(|author| by(author, 0, commit)));
        store.apply(&votes(&useless)).expect("only blocks");
        assert_eq!(certificate(store, &commit), None);
        assert_eq!(certificate(store, &other), None);
        assert_eq!(store.start().expect("a read").votes.last().expect("the tip").voters, []);
    });
}

#[test]
fn votes_above_the_highest_certifiable_commit_are_lost_at_a_restart() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        store.apply(&chain.batch(1, 4)).expect("it follows");
        store.apply(&chain.uncertified(5, 8)).expect("it follows");
        let two = &chain.at(8).certifiers[..2];
        store.apply(&votes(two)).expect("only blocks");
        let start = store.start().expect("a read");
        let waiting: Vec<_> = start.votes.iter().map(|votes| votes.commit).collect();
        let above: Vec<_> = chain.commits[..8]
            .iter()
            .map(|made| made.header.reference)
            .filter(|commit| *commit > start.certifiable)
            .collect();
        assert_eq!(waiting, above);
        assert!(start.certifiable.index >= index(4) && start.certifiable.index < index(8));
        let voters: Vec<_> = two.iter().map(|block| block.reference.author).collect();
        assert_eq!(start.votes.last().expect("the tip").voters, voters);
    });
}

#[test]
fn a_store_without_any_votes_does_not_start() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        let mut batch = chain.uncertified(1, 30);
        batch.blocks = batch
            .blocks
            .into_iter()
            .map(|block| Verified::from_trace(CheckedBlock { votes: vec![], ..block.into_inner() }))
            .collect();
        store.apply(&batch).expect("it follows");
        let start = store.start().expect("a read");
        assert_eq!((start.certifiable, start.votes.len()), (CommitRef::GENESIS, 30));
    });
}

#[test]
fn commits_that_do_not_follow_are_stored() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        store.apply(&chain.batch(1, 5)).expect("it follows");
        let mut fork = chain.batch(6, 6);
        let mut header = fork.commits.remove(0).into_inner();
        header.previous = chain.at(4).header.reference.digest;
        fork.commits = vec![Verified::from_trace(header)];
        let mut gap = chain.batch(6, 9);
        gap.commits.remove(1);
        for batch in [chain.batch(7, 8), chain.batch(5, 6), chain.batch(1, 5), fork, gap] {
            let before = store.start().expect("a read");
            let result = store.apply(&batch);
            assert!(matches!(result, Err(StoreError::NotNext { .. })), "{result:?}");
            assert_failed(store.apply(&chain.batch(6, 6)));
            assert_eq!(store.reopen().expect("it opens"), before);
            assert_eq!(store.head(index(6)).expect("a read"), None);
        }
        store.apply(&chain.batch(6, 6)).expect("it follows, and the store was reopened");
    });
}

#[test]
fn a_batch_that_is_not_whole_is_stored_in_part() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        store.apply(&chain.batch(1, 9)).expect("it follows");
        let mut without_block = chain.batch(10, 11);
        let lacking = chain.at(11).blocks[3].reference;
        without_block.blocks.retain(|block| block.reference != lacking);
        let mut without_committee = chain.batch(10, 11);
        without_committee.committees.clear();
        let mut other_committee = chain.batch(10, 10);
        other_committee.committees =
            vec![Arc::clone(&chain.at(11).committee), other_of(&chain.at(11).committee)];
        for batch in [without_block, without_committee, other_committee] {
            let result = store.apply(&batch);
            assert!(matches!(result, Err(StoreError::Inconsistent { .. })), "{result:?}");
            let start = store.reopen().expect("it opens");
            assert_eq!(start.tip.reference.index, index(9));
            assert_eq!(store.committee(Epoch::new(1)).expect("a read"), None);
            assert_eq!(store.block(&chain.at(10).header.leader).expect("a read"), None);
        }
        store.apply(&chain.batch(10, 11)).expect("it is whole");
        let other = Batch { committees: vec![other_of(&chain.at(11).committee)], ..empty() };
        assert!(matches!(store.apply(&other), Err(StoreError::Inconsistent { .. })));
    });
}

/// A committee of the same epoch that is another one.
fn other_of(committee: &Committee) -> Arc<Committee> {
    let spec =
        ChainSpec { commits: 2, blocks_per_commit: 4, payload_bytes: 0, committee: 4, epochs: 1, seed: 99 };
    let other = ChainMaker::new(spec).expect("the spec is sound");
    let other =
        Committee::decode(committee.epoch(), other.genesis().encoding(), &crate::store::rules::UNLIMITED);
    Arc::new(other.expect("it was one"))
}

#[test]
fn a_commit_cannot_be_made_of_blocks_stored_ahead() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        store.apply(&chain.batch(1, 9)).expect("it follows");
        let last = chain.at(10);
        for blocks in last.blocks.chunks(3) {
            store.apply(&votes(blocks)).expect("only blocks");
            assert_eq!(store.start().expect("a read").tip.reference.index, index(9));
        }
        let mut batch = chain.batch(10, 10);
        batch.blocks.clear();
        store.apply(&batch).expect("the blocks are there");
        assert_stored(store, last);
        let start = store.start().expect("a read");
        assert_eq!((start.tip.ends_epoch, start.next_committee), (true, last.next_committee.clone()));
    });
}

#[test]
fn the_same_blocks_twice_are_an_error() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        let mut batch = chain.batch(1, 5);
        batch.blocks.extend(chain.batch(1, 5).blocks);
        store.apply(&batch).expect("it follows");
        store.apply(&votes(&chain.at(2).blocks)).expect("only blocks");
        store.prune(index(5)).expect("it can be pruned");
        assert_eq!(store.block(&chain.at(2).header.leader).expect("a read"), None);
    });
}

#[test]
fn pruning_takes_too_much_or_leaves_what_is_useless() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        for first in (1..=30).step_by(5) {
            store.apply(&chain.batch(first, first + 4)).expect("it follows");
        }
        let stray = BlockRef { round: Round::new(2), ..chain.at(14).header.leader };
        let useless = voting(stray, &[chain.at(3).header.reference]);
        let useful = voting(stray, &[chain.at(20).header.reference]);
        store.apply(&votes(&[useless.clone(), useful.clone()])).expect("only blocks");
        let certified = |index| certificate(store, &chain.at(index).header.reference);
        let before: Vec<_> = (14..=30).map(certified).collect();
        let start = store.start().expect("a read");

        store.prune(index(14)).expect("it can be pruned");
        assert_eq!(store.start().expect("a read"), Start { lowest_available: index(14), ..start });
        for made in &chain.commits[..13] {
            assert_eq!(store.head(made.header.reference.index).expect("a read"), None);
            assert_eq!(store.commit(made.header.reference.index).expect("a read"), None);
            assert_eq!(certificate(store, &made.header.reference), None);
            for block in &made.blocks {
                assert_eq!(store.block(&block.reference).expect("a read"), None);
            }
        }
        chain.commits[13..].iter().for_each(|made| assert_stored(store, made));
        assert_eq!((14..=30).map(certified).collect::<Vec<_>>(), before);
        for last in [15, 20, 25, 30] {
            let certifiers = store.certifiers(&chain.at(last).header.reference).expect("a read");
            assert!(certifiers.is_some(), "the certifiers of commit {last} are gone");
        }
        // What certified the end of the first epoch is in no commit.
        for certifier in chain.at(10).certifiers.iter() {
            assert_eq!(store.block(&certifier.reference).expect("a read"), None);
        }
        assert_eq!(store.block(&useless.reference).expect("a read"), None);
        assert!(store.block(&useful.reference).expect("a read").is_some());
        for epoch in 0..3 {
            assert!(store.committee(Epoch::new(epoch)).expect("a read").is_some());
        }
    });
}

#[test]
fn pruning_everything_takes_the_tip() {
    let chain = Chain::small();
    with_each_store(&chain.genesis, |store| {
        store.prune(index(7)).expect("there is nothing to prune");
        store.apply(&chain.batch(1, 12)).expect("it follows");
        store.prune(index(1)).expect("there is nothing below");
        assert_eq!(store.start().expect("a read").lowest_available, CommitIndex::GENESIS);
        store.prune(CommitIndex::MAX).expect("it can be pruned");
        let start = store.start().expect("a read");
        assert_eq!((start.lowest_available, start.tip.reference.index), (index(12), index(12)));
        assert_eq!(start.certifiable.index, index(12));
        assert_stored(store, chain.at(12));
        store.prune(index(3)).expect("that is gone already");
        store.apply(&chain.batch(13, 20)).expect("it follows");
        assert_eq!(store.start().expect("a read").lowest_available, index(12));
        store.prune(index(20)).expect("it can be pruned");
        assert_eq!(store.start().expect("a read").lowest_available, index(20));
    });
}

#[test]
fn a_long_history_is_pruned_in_part() {
    let spec =
        ChainSpec { commits: 450, blocks_per_commit: 4, payload_bytes: 0, committee: 4, epochs: 1, seed: 5 };
    let chain = Chain::new(spec);
    with_each_store(&chain.genesis, |store| {
        store.apply(&chain.batch(1, 450)).expect("it follows");
        store.prune(index(440)).expect("it can be pruned");
        assert_eq!(store.start().expect("a read").lowest_available, index(440));
        for made in &chain.commits[..439] {
            assert_eq!(store.head(made.header.reference.index).expect("a read"), None);
            for block in &made.blocks {
                assert_eq!(store.block(&block.reference).expect("a read"), None);
            }
        }
        chain.commits[439..].iter().for_each(|made| assert_stored(store, made));
    });
}

#[test]
fn a_store_that_is_told_to_fail_stores() {
    let chain = Chain::small();
    let store = MemoryStore::new(Arc::clone(&chain.genesis));
    store.fail_next();
    assert!(matches!(store.apply(&chain.batch(1, 2)), Err(StoreError::Io { .. })));
    assert_failed(store.apply(&chain.batch(1, 2)));
    assert_failed(store.prune(index(1)));
    assert_eq!(store.reopen().expect("it opens").tip.reference, CommitRef::GENESIS);
    store.apply(&chain.batch(1, 2)).expect("it was reopened");
}
