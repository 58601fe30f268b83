//! What the verification jobs must say, worked out again: from the formats' mirrors, one signature at a time, with sets
//! and sums in the open. Slow, and nothing of it is shared with the jobs but the numbers of the limits.

use super::{Block, BlockRef, Commit, CommitRef, SignedBlock};
use blake2::{Blake2b256, Digest};
use ed25519_consensus::{Signature, VerificationKey};
use soma_sync_core::{committee::Committee, config::Limits};
use std::collections::{BTreeMap, BTreeSet};

/// Stake that certifies: more than two thirds of 10,000.
const QUORUM: u64 = 6_667;

/// What a certifying job must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Certified, by these authors, with so many bad certifiers beside them.
    Certified {
        /// The authors of good votes, ascending.
        voters: Vec<u32>,
        /// Certifiers that are bad.
        bad: u32,
    },
    /// The answer is of another epoch.
    OtherEpoch(u64),
    /// The sender's fault.
    Refused,
    /// A quorum voted for a chain that breaks a rule at this index.
    CommitteesFault(u32),
}

/// Whose fault a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It is what was asked for, and right.
    Nobody,
    /// It is something else.
    Sender,
    /// A quorum named it, and it is wrong.
    Committee,
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Blake2b256::digest(bytes).into()
}

/// A block as it travels, within the limits.
fn block(bytes: &[u8], limits: &Limits) -> Option<(BlockRef, SignedBlock)> {
    let signed: SignedBlock = bcs::from_bytes(bytes).ok()?;
    let block = &signed.block;
    let within = bytes.len() as u64 <= limits.max_block_bytes
        && block.ancestors.len() as u64 <= limits.max_ancestors.into()
        && block.transactions.len() as u64 <= limits.max_transactions_per_block.into()
        && block.commit_votes.len() as u64 <= limits.max_votes_per_block.into();
    let (round, author, epoch) = (block.round, block.author, block.epoch);
    within.then_some((BlockRef { round, author, digest: super::Raw(hash(bytes)), epoch }, signed))
}

/// A commit as it travels, within the limits.
fn commit(bytes: &[u8], limits: &Limits) -> Option<(CommitRef, Commit)> {
    let commit: Commit = bcs::from_bytes(bytes).ok()?;
    let within = commit.blocks.len() as u64 <= limits.max_blocks_per_commit.into()
        && bytes.len() as u64 <= 105 + 48 * u64::from(limits.max_blocks_per_commit);
    let reference = CommitRef { index: commit.index, digest: super::Raw(hash(bytes)) };
    within.then_some((reference, commit))
}

/// Everything that a block must satisfy by itself but its signature (formats: What a block must satisfy).
fn obeys_rules(block: &Block, committee: &Committee) -> bool {
    let stakes = stakes(committee);
    let authors: Vec<u32> = block.ancestors.iter().map(|ancestor| ancestor.author).collect();
    let parents =
        block.ancestors.iter().filter(|ancestor| Some(ancestor.round) == block.round.checked_sub(1));
    let genesis = |ancestor: &BlockRef| {
        let real = committee.authorities().find(|(author, _)| author.get() == ancestor.author);
        let real = real.and_then(|(author, _)| committee.genesis(author));
        real.map(BlockRef::from).as_ref() == Some(ancestor)
    };
    let end_of_epoch = block.end_of_epoch_data.as_ref().is_none_or(|data| {
        let set = data.next_validator_set.is_some();
        let signature = data.validator_set_signature.is_some();
        let aggregate = data.aggregate_signature.is_some();
        (set || !signature) && (signature || !aggregate)
    });
    block.epoch == committee.epoch().get()
        && block.round > 0
        && stakes.contains_key(&block.author)
        && authors.first() == Some(&block.author)
        && authors.iter().collect::<BTreeSet<_>>().len() == authors.len()
        && authors.iter().all(|author| stakes.contains_key(author))
        && block.ancestors.iter().all(|ancestor| {
            ancestor.round < block.round
                && ancestor.epoch == block.epoch
                && (ancestor.round > 0 || genesis(ancestor))
        })
        && parents.map(|ancestor| stakes[&ancestor.author]).sum::<u64>() >= QUORUM
        && end_of_epoch
}

fn stakes(committee: &Committee) -> BTreeMap<u32, u64> {
    committee.authorities().map(|(author, authority)| (author.get(), authority.stake.get())).collect()
}

/// Whether the author signed it.
fn is_signed(signed: &SignedBlock, committee: &Committee) -> bool {
    let author = committee.authorities().find(|(author, _)| author.get() == signed.block.author);
    let Some((_, authority)) = author else { return false };
    let Ok(signature) = <[u8; 64]>::try_from(signed.signature.as_slice()) else { return false };
    let block = bcs::to_bytes(&signed.block).expect("it was decoded");
    let message = [[1, 0, 0].as_slice(), &hash(&block)].concat();
    VerificationKey::try_from(authority.metadata.protocol_key)
        .is_ok_and(|key| key.verify(&Signature::from(signature), &message).is_ok())
}

/// What is to be said of an answer to a request for the commits `start..=last`.
pub fn certify(
    (start, last): (u32, u32),
    committee: &Committee,
    commits: &[&[u8]],
    certifiers: &[&[u8]],
    limits: &Limits,
) -> Ruling {
    let size = committee.authorities().count();
    let most = u64::from(last) + 1 - u64::from(start).min(u64::from(last) + 1);
    if commits.is_empty() || commits.len() as u64 > most || certifiers.len() > 2 * size {
        return Ruling::Refused;
    }
    let Some(chain) = commits.iter().map(|bytes| commit(bytes, limits)).collect::<Option<Vec<_>>>() else {
        return Ruling::Refused;
    };
    let linked = chain.windows(2).all(|pair| {
        pair[0].1.index.checked_add(1) == Some(pair[1].1.index)
            && pair[1].1.previous_digest == pair[0].0.digest
    });
    let epoch = chain[0].1.epoch;
    if chain[0].1.index != start || !linked || chain.iter().any(|(_, commit)| commit.epoch != epoch) {
        return Ruling::Refused;
    }
    if epoch != committee.epoch().get() {
        return Ruling::OtherEpoch(epoch);
    }
    let (voters, bad) = votes(&chain[chain.len() - 1].0, committee, certifiers, limits);
    let stakes = stakes(committee);
    if voters.iter().map(|author| stakes[author]).sum::<u64>() < QUORUM {
        return Ruling::Refused;
    }
    let mut time = 0;
    for (_, commit) in &chain {
        let blocks = &commit.blocks;
        let sound = commit.timestamp_ms >= time
            && blocks.contains(&commit.leader)
            && (1..blocks.len()).all(|at| !blocks[..at].contains(&blocks[at]))
            && blocks
                .iter()
                .all(|block| block.epoch == epoch && block.round > 0 && stakes.contains_key(&block.author));
        if !sound {
            return Ruling::CommitteesFault(commit.index);
        }
        time = commit.timestamp_ms;
    }
    Ruling::Certified { voters, bad }
}

/// The authors of good votes, and how many certifiers are bad. Of an author only the first that looks right counts:
/// what comes after it is neither good nor bad.
fn votes(
    commit: &CommitRef,
    committee: &Committee,
    certifiers: &[&[u8]],
    limits: &Limits,
) -> (Vec<u32>, u32) {
    let mut looked_at = BTreeMap::new();
    let mut bad = 0;
    for certifier in certifiers {
        let Some((_, signed)) = block(certifier, limits) else {
            bad += 1;
            continue;
        };
        if looked_at.contains_key(&signed.block.author) {
            continue;
        }
        let right = signed.block.commit_votes.contains(commit)
            && obeys_rules(&signed.block, committee)
            && signed.signature.len() == 64;
        if right {
            looked_at.insert(signed.block.author, is_signed(&signed, committee));
        } else {
            bad += 1;
        }
    }
    let (good, unsigned): (Vec<_>, Vec<_>) = looked_at.into_iter().partition(|(_, signed)| *signed);
    (good.into_iter().map(|(author, _)| author).collect(), bad + unsigned.len() as u32)
}

/// Whose fault the bytes are that came for this reference, which a certified commit names. Without `full`, what is in
/// them is taken from the quorum.
pub fn check(
    expected: &soma_sync_core::types::BlockRef,
    bytes: &[u8],
    committee: &Committee,
    full: bool,
    limits: &Limits,
) -> Blame {
    let expected = BlockRef::from(*expected);
    if hash(bytes) != expected.digest.0 {
        return Blame::Sender;
    }
    let sound = block(bytes, limits).is_some_and(|(found, signed)| {
        let right = || obeys_rules(&signed.block, committee) && is_signed(&signed, committee);
        found == expected && (!full || right())
    });
    if sound { Blame::Nobody } else { Blame::Committee }
}
