//! A small committee with its keys, and blocks and commits that it signs: for tests of the jobs. Everything is valid
//! until a test changes it.

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use soma_sync_core::{
    block::Block,
    commit::Commit,
    committee::{Authority, AuthorityName, Committee, NetworkMetadata, ValidatorSet},
    config::Limits,
    job::CertifyJob,
    payload::Payload,
    types::{
        AuthorityIndex, BlockDigest, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, Round, Stake,
    },
};
use std::sync::Arc;

/// The epoch of everything here.
pub const EPOCH: Epoch = Epoch::new(3);
/// The round of the blocks that [`vote`] makes.
pub const VOTE_ROUND: Round = Round::new(20);

/// The key that an authority signs blocks with.
pub fn key(author: u32) -> SigningKey {
    SigningKey::from([u8::try_from(author).expect("few authorities") + 1; 32])
}

/// The BLS key that a validator set shows: real where it is checked.
#[cfg(feature = "bls")]
fn bls_key(author: u32) -> [u8; 96] {
    bls_secret(author).sk_to_pk().to_bytes()
}

#[cfg(not(feature = "bls"))]
fn bls_key(author: u32) -> [u8; 96] {
    [u8::try_from(author).expect("few authorities"); 96]
}

/// The key that an authority signs the next validator set with.
#[cfg(feature = "bls")]
fn bls_secret(author: u32) -> blst::min_sig::SecretKey {
    let material = [u8::try_from(author).expect("few authorities") + 1; 32];
    blst::min_sig::SecretKey::key_gen(&material, &[]).expect("32 bytes are enough")
}

/// The aggregate of these authorities' signatures on a next validator set, of one alone its signature: real where it is
/// checked.
///
/// # Panics
///
/// When there are no signers.
#[cfg(feature = "bls")]
pub fn sign_set(set: &ValidatorSet, signers: &[u32]) -> [u8; 48] {
    let suite = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
    let message = set.signing_message();
    let signatures: Vec<_> =
        signers.iter().map(|signer| bls_secret(*signer).sign(&message, suite, &[])).collect();
    let signatures: Vec<_> = signatures.iter().collect();
    let aggregate = blst::min_sig::AggregateSignature::aggregate(&signatures, false);
    aggregate.expect("there are signers").to_signature().to_bytes()
}

/// What stands for signatures on a next validator set where none are checked.
#[cfg(not(feature = "bls"))]
pub const fn sign_set(_set: &ValidatorSet, _signers: &[u32]) -> [u8; 48] {
    [5; 48]
}

/// One authority, whose name sorts it to its index.
pub fn authority(index: u32, stake: u64) -> Authority {
    let byte = u8::try_from(index).expect("few authorities");
    Authority {
        name: AuthorityName::new([byte; 96]),
        stake: Stake::new(stake),
        metadata: NetworkMetadata {
            consensus_address: "/ip4/127.0.0.1/udp/8000".to_owned(),
            network_address: "/ip4/127.0.0.1/tcp/8000/http".to_owned(),
            primary_address: "/dns/test_host/udp/8000".to_owned(),
            protocol_key: key(index).verification_key().to_bytes(),
            network_key: key(index).verification_key().to_bytes(),
            authority_key: bls_key(index),
            hostname: format!("test_host_{index}"),
        },
    }
}

/// Four validators of equal stake.
pub fn validators() -> ValidatorSet {
    ValidatorSet { authorities: (0..4).map(|index| authority(index, 2_500)).collect() }
}

/// Their committee.
pub fn committee() -> Arc<Committee> {
    Arc::new(Committee::new(EPOCH, validators(), &Limits::default()).expect("a valid committee"))
}

/// A reference to a block that need not exist.
pub fn reference(author: u32, round: u32) -> BlockRef {
    BlockRef {
        round: Round::new(round),
        author: AuthorityIndex::new(author),
        digest: BlockDigest::new([u8::try_from(author).expect("few authorities"); 32]),
        epoch: EPOCH,
    }
}

/// A block on a quorum of the round before, the author's own first.
pub fn block(author: u32, round: u32) -> Block {
    let others = (0..4).filter(|other| *other != author);
    Block {
        epoch: EPOCH,
        round: Round::new(round),
        author: AuthorityIndex::new(author),
        timestamp_ms: 1_000 * u64::from(round),
        ancestors: std::iter::once(author).chain(others).map(|author| reference(author, round - 1)).collect(),
        ..Block::default()
    }
}

/// Signs a block by its author, or by the first authority where there is no such author.
pub fn sign(block: &Block) -> (BlockRef, Bytes) {
    let author = if block.author.get() < 4 { block.author.get() } else { 0 };
    block.sign(|message| key(author).sign(message).to_bytes())
}

/// A block that votes for a commit.
pub fn vote(author: u32, commit: CommitRef) -> Block {
    Block { votes: vec![commit], ..block(author, VOTE_ROUND.get()) }
}

/// Commits 5, 6 and 7.
pub fn commits() -> Vec<Commit> {
    let mut previous = CommitDigest::new([4; 32]);
    let commits = (5..8).map(|index| {
        let blocks = vec![reference(0, index), reference(1, index)];
        let commit = Commit {
            index: CommitIndex::new(index),
            previous,
            timestamp_ms: 1_000 * u64::from(index),
            leader: reference(1, index),
            blocks,
            epoch: EPOCH,
        };
        previous = commit.encode().0.digest;
        commit
    });
    commits.collect()
}

/// Links commits again after one was changed.
pub fn relink(commits: &mut [Commit]) {
    for at in 1..commits.len() {
        commits[at].previous = commits[at - 1].encode().0.digest;
    }
}

/// A job for these commits, with the votes of three authorities for the last one.
pub fn certify_job(commits: &[Commit]) -> CertifyJob {
    let last = commits.last().map_or(CommitRef::GENESIS, |commit| commit.encode().0);
    CertifyJob {
        start: CommitIndex::new(5),
        last: CommitIndex::new(7),
        committee: committee(),
        commits: commits.iter().map(|commit| Payload::new(commit.encode().1.into())).collect(),
        certifiers: (0..3).map(|author| Payload::new(sign(&vote(author, last)).1)).collect(),
        limits: Limits::default(),
    }
}
