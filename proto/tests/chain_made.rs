//! Chains of one authority, made here, for what the original's chain does not have.

#![cfg(feature = "verify")]

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use soma_sync_core::{
    block::{Block, EndOfEpochData},
    certify::{CertifiedDigestsError, CertifiedFault, CommitRule, NotCertified},
    commit::Commit,
    committee::{Authority, AuthorityName, Committee, InvalidNextCommittee, NetworkMetadata, ValidatorSet},
    config::Limits,
    types::{AuthorityIndex, BlockRef, CommitDigest, CommitRef, Epoch, Round, Stake},
};
use soma_sync_proto::{
    chain_check::{ChainCheckError, ChainCheckReason, ChainChecker, CheckOptions},
    chain_file::{ChainWriter, Place},
};

/// The one authority: it alone is a quorum.
struct Maker {
    key: SigningKey,
    committee: Committee,
    tip: CommitRef,
    /// Its last block.
    block: BlockRef,
    records: Vec<(Vec<u8>, Bytes, Vec<Bytes>)>,
}

fn validators(key: &SigningKey, stake: u64) -> ValidatorSet {
    let key = key.verification_key().to_bytes();
    let metadata = NetworkMetadata {
        consensus_address: String::new(),
        network_address: String::new(),
        primary_address: String::new(),
        protocol_key: key,
        network_key: key,
        authority_key: [0; 96],
        hostname: String::new(),
    };
    let authority = Authority { name: AuthorityName::new([1; 96]), stake: Stake::new(stake), metadata };
    ValidatorSet { authorities: vec![authority] }
}

/// What makes a block the last of its epoch.
fn end_of_epoch(next: ValidatorSet) -> EndOfEpochData {
    EndOfEpochData {
        next_validator_set: Some(next),
        validator_set_signature: Some([0; 48]),
        aggregate_signature: Some([0; 48]),
        ..EndOfEpochData::default()
    }
}

impl Maker {
    fn new() -> Self {
        let key = SigningKey::from([5; 32]);
        let committee = Committee::new(Epoch::ZERO, validators(&key, 10_000), &Limits::default());
        let committee = committee.expect("a committee");
        let block = committee.genesis(AuthorityIndex::ZERO).expect("one authority");
        Self { key, committee, tip: CommitRef::GENESIS, block, records: Vec::new() }
    }

    /// Goes on in the next epoch, with the same authority.
    fn next_epoch(&mut self) {
        let epoch = self.committee.epoch().next().expect("a few epochs");
        let committee = Committee::new(epoch, validators(&self.key, 10_000), &Limits::default());
        self.committee = committee.expect("a committee");
        self.block = self.committee.genesis(AuthorityIndex::ZERO).expect("one authority");
    }

    fn block(&self, votes: Vec<CommitRef>, end_of_epoch: Option<EndOfEpochData>) -> (BlockRef, Bytes) {
        let block = Block {
            epoch: self.committee.epoch(),
            round: self.block.round.next().expect("a few rounds"),
            author: AuthorityIndex::ZERO,
            timestamp_ms: 1,
            ancestors: vec![self.block],
            transactions: Vec::new(),
            votes,
            end_of_epoch,
        };
        block.sign(|message| self.key.sign(message).to_bytes())
    }

    /// A commit of one block, certified by the block after it, if at all.
    fn commit(&mut self, timestamp_ms: u64, certified: bool, end: Option<EndOfEpochData>) {
        let (reference, block) = self.block(Vec::new(), end);
        self.block = reference;
        let (tip, commit) = Commit {
            index: self.tip.index.next().expect("a few commits"),
            previous: self.tip.digest,
            timestamp_ms,
            leader: reference,
            blocks: vec![reference],
            epoch: self.committee.epoch(),
        }
        .encode();
        self.tip = tip;
        let certifiers = if certified { vec![self.block(vec![tip], None).1] } else { Vec::new() };
        self.records.push((commit, block, certifiers));
    }

    fn file(&self) -> Vec<u8> {
        let genesis = validators(&self.key, 10_000).encode();
        let mut writer = ChainWriter::new(Vec::new(), &genesis, self.records.len() as u32).expect("a header");
        for (commit, block, certifiers) in &self.records {
            writer.write(commit, &[block], certifiers).expect("a record");
        }
        writer.finish().expect("whole")
    }

    /// How many commits of the file are good, and where it is not, and why.
    fn check(&self) -> (usize, Option<(Place, ChainCheckReason)>) {
        let file = self.file();
        let mut checker = ChainChecker::open(|| Ok(&file[..]), CheckOptions::default(), || [7; 32])
            .expect("a good genesis");
        let mut good = 0;
        loop {
            match checker.next_record() {
                Ok(Some(_)) => good += 1,
                Ok(None) => return (good, None),
                Err(ChainCheckError::Chain { place, reason, .. }) => return (good, Some((place, *reason))),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The same, of a file that is refused.
    fn refusal(&self) -> (usize, Place, ChainCheckReason) {
        let (good, refusal) = self.check();
        let (place, reason) = refusal.expect("it is refused");
        (good, place, reason)
    }
}

#[test]
fn a_chain_with_certificates_far_apart_is_good() {
    let mut maker = Maker::new();
    for epoch in 0..3 {
        for _ in 0..700 {
            maker.commit(epoch, false, None);
        }
        maker.commit(epoch, true, Some(end_of_epoch(validators(&maker.key, 10_000))));
        maker.next_epoch();
    }
    let (good, refusal) = maker.check();
    assert!(refusal.is_none(), "{refusal:?}");
    assert_eq!(good, 3 * 701);
}

#[test]
fn an_epoch_that_goes_on_after_its_last_commit_is_refused() {
    let mut maker = Maker::new();
    maker.commit(1, true, None);
    maker.commit(1, false, Some(end_of_epoch(validators(&maker.key, 10_000))));
    maker.commit(1, true, None);
    let (good, place, reason) = maker.refusal();
    assert!(matches!(reason, ChainCheckReason::EpochGoesOn { epoch: Epoch::ZERO }), "{reason}");
    assert_eq!((good, place), (1, Place::Commit { commit: 2 }));
}

#[test]
fn a_commit_after_an_invalid_validator_set_is_refused() {
    let mut maker = Maker::new();
    maker.commit(1, true, Some(end_of_epoch(validators(&maker.key, 9_999))));
    assert!(maker.check().1.is_none(), "what ends with it is good");
    maker.next_epoch();
    maker.commit(1, true, None);
    let (good, place, reason) = maker.refusal();
    let ChainCheckReason::NextCommittee(InvalidNextCommittee::Stake { sum }) = reason else {
        panic!("{reason}")
    };
    assert_eq!((sum, good, place), (Stake::new(9_999), 1, Place::Commit { commit: 2 }));
}

#[test]
fn a_certified_commit_that_breaks_a_rule_is_refused() {
    let mut maker = Maker::new();
    maker.commit(2, true, None);
    maker.commit(1, true, None);
    let (good, place, reason) = maker.refusal();
    let ChainCheckReason::Commit(CertifiedDigestsError::Fault(fault)) = reason else { panic!("{reason}") };
    let rule = CommitRule::Timestamp { previous_ms: 2 };
    assert!(matches!(*fault, CertifiedFault::Commit { rule: found, .. } if found == rule), "{fault}");
    assert_eq!((good, place), (1, Place::Commit { commit: 2 }));

    // The rule is seen with the certificate where it is about that commit alone.
    let mut maker = Maker::new();
    let (reference, block) = maker.block(Vec::new(), None);
    let leader = BlockRef { round: Round::new(9), ..reference };
    let (tip, commit) = Commit {
        index: maker.tip.index.next().expect("a few commits"),
        previous: CommitDigest::ZERO,
        timestamp_ms: 1,
        leader,
        blocks: vec![reference],
        epoch: Epoch::ZERO,
    }
    .encode();
    maker.block = reference;
    let certifier = maker.block(vec![tip], None).1;
    maker.records.push((commit, block, vec![certifier]));
    let (good, place, reason) = maker.refusal();
    let ChainCheckReason::NotCertified(NotCertified::Fault(fault)) = reason else { panic!("{reason}") };
    assert!(matches!(*fault, CertifiedFault::Commit { rule: CommitRule::Leader, .. }), "{fault}");
    assert_eq!((good, place), (0, Place::Commit { commit: 1 }));
}
