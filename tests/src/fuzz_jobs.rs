//! The verification jobs against a plain judge: a small committee signs commits and blocks, bytes say what is wrong
//! with them, and both must say the same of the result.

use crate::{
    fixture,
    fuzz::rarely,
    mirror::judge::{self, Blame, Ruling},
};
use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use soma_sync_core::{
    block::{Block, EndOfEpochData},
    certify::CertifiedFault,
    commit::Commit,
    committee::{Committee, ValidatorSet},
    config::{BlockVerification, Limits},
    job::{BlockOutcome, CertifyJob, CertifyVerdict, CheckJob, Job, Verdict},
    payload::Payload,
    types::{AuthorityIndex, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, Round},
};
use std::sync::{Arc, OnceLock};

/// Stakes of four authorities, which sum to 10,000.
const STAKES: [[u64; 4]; 4] =
    [[2_500; 4], [6_667, 1_111, 1_111, 1_111], [6_666, 1, 1, 3_332], [3_333, 3_333, 3_333, 1]];

/// Bytes as an answer to a request for commits: what it holds, what is wrong with it, and who signed it. What is to be
/// said of it is returned. No bytes are a good answer.
///
/// # Errors
///
/// When the bytes are not enough.
pub fn certify(bytes: &[u8]) -> Result<Ruling> {
    let input = &mut Unstructured::new(bytes);
    let committee = draw_committee(input)?;
    let limits = draw_limits(input)?;
    let commits = draw_commits(input)?;
    let (start, last) = (draw_near(input, 5)?, draw_near(input, 7)?);
    let voted = commits.last().map_or(CommitRef::GENESIS, |commit| commit.encode().0);
    let mut certifiers = Vec::new();
    for author in 0..*input.choose(&[4, 3, 2, 5, 6, 7, 8, 9])? {
        certifiers.push(draw_certifier(input, author % 4, voted)?);
    }
    let mut commits: Vec<_> = commits.iter().map(|commit| commit.encode().1).collect();
    if rarely(input, 8)? {
        damage(input, &mut commits)?;
    }
    if rarely(input, 8)? {
        damage(input, &mut certifiers)?;
    }
    let expected = {
        let slices = |items: &[Vec<u8>]| -> Vec<Bytes> { items.iter().cloned().map(Bytes::from).collect() };
        let (commits, certifiers) = (slices(&commits), slices(&certifiers));
        let commits: Vec<&[u8]> = commits.iter().map(|bytes| &**bytes).collect();
        let certifiers: Vec<&[u8]> = certifiers.iter().map(|bytes| &**bytes).collect();
        judge::certify((start, last), &committee, &commits, &certifiers, &limits)
    };
    let job = CertifyJob {
        start: CommitIndex::new(start),
        last: CommitIndex::new(last),
        committee,
        commits: payloads(commits),
        certifiers: payloads(certifiers),
        limits,
    };
    let job = Job::Certify(Box::new(job));
    let verdict = job.clone().run(input.arbitrary().unwrap_or([7; 32]));
    assert_eq!(job.run([9; 32]), verdict, "the verdict depends on the entropy");
    let Verdict::Certify(verdict) = verdict else { panic!("a verdict of another kind: {verdict:?}") };
    assert_eq!(ruling(&verdict), expected, "{verdict:?}");
    Ok(expected)
}

fn ruling(verdict: &CertifyVerdict) -> Ruling {
    match verdict {
        CertifyVerdict::Certified(range) => Ruling::Certified {
            voters: range.certifiers.iter().map(|block| block.reference.author.get()).collect(),
            bad: range.bad_certifiers,
        },
        CertifyVerdict::OtherEpoch { found } => Ruling::OtherEpoch(found.get()),
        CertifyVerdict::Refused(_) => Ruling::Refused,
        CertifyVerdict::CertifiedInvalid(CertifiedFault::Commit { reference, .. }) => {
            Ruling::CommitteesFault(reference.index.get())
        }
        CertifyVerdict::CertifiedInvalid(CertifiedFault::Block { .. }) => {
            panic!("a fault of a block in a certifying verdict: {verdict:?}")
        }
    }
}

/// Bytes as an answer to a request for blocks: what was asked for, what came, and what is wrong with it. Whose fault
/// each block is, is returned. No bytes are a good answer.
///
/// # Errors
///
/// When the bytes are not enough.
pub fn check(bytes: &[u8]) -> Result<Vec<Blame>> {
    let input = &mut Unstructured::new(bytes);
    let committee = draw_committee(input)?;
    let limits = draw_limits(input)?;
    let full = !rarely(input, 6)?;
    let (mut refs, mut blocks) = (Vec::new(), Vec::new());
    for author in 0..input.int_in_range(1..=6u32)? {
        let (mut reference, mut bytes) = draw_signed(input, fixture::block(author % 4, 7))?;
        if rarely(input, 12)? {
            damage(input, std::slice::from_mut(&mut bytes))?;
            if input.arbitrary()? {
                // Asked for by the digest of what came, as only a quorum can make us do.
                reference = named(reference, &bytes);
            }
        }
        if rarely(input, 16)? {
            change_reference(input, &mut reference)?;
        }
        refs.push(reference);
        blocks.push(bytes);
    }
    if blocks.len() > 1 && rarely(input, 12)? {
        blocks.swap(0, 1);
    }
    let expected: Vec<_> = refs
        .iter()
        .zip(&blocks)
        .map(|(reference, bytes)| judge::check(reference, bytes, &committee, full, &limits))
        .collect();
    let mode = if full { BlockVerification::Full } else { BlockVerification::Digest };
    let blocks = payloads(blocks);
    let job = CheckJob { refs: refs.clone(), blocks: blocks.clone(), committee, mode, limits };
    let job = Job::Check(Box::new(job));
    let verdict = job.clone().run(input.arbitrary().unwrap_or([7; 32]));
    assert_eq!(job.run([9; 32]), verdict, "the verdict depends on the entropy");
    let Verdict::Check(outcomes) = verdict else { panic!("a verdict of another kind: {verdict:?}") };
    let blames: Vec<_> = outcomes.iter().map(blame).collect();
    assert_eq!(blames, expected, "{outcomes:?}");
    for ((outcome, reference), payload) in outcomes.iter().zip(&refs).zip(&blocks) {
        if let BlockOutcome::Good(good) = outcome {
            assert_eq!((&good.reference, &good.payload), (reference, payload), "another block is good");
        }
    }
    Ok(expected)
}

fn blame(outcome: &BlockOutcome) -> Blame {
    match outcome {
        BlockOutcome::Good(_) => Blame::Nobody,
        BlockOutcome::Bad(_) => Blame::Sender,
        BlockOutcome::CertifiedInvalid(_) => Blame::Committee,
    }
}

fn payloads(items: Vec<Vec<u8>>) -> Vec<Payload> {
    items.into_iter().map(|bytes| Payload::new(bytes.into())).collect()
}

fn draw_committee(input: &mut Unstructured<'_>) -> Result<Arc<Committee>> {
    static COMMITTEES: OnceLock<[Arc<Committee>; STAKES.len()]> = OnceLock::new();
    let of = |stakes: [u64; 4]| {
        let authority = |(author, stake)| fixture::authority(author, stake);
        let authorities = (0..).zip(stakes).map(authority).collect();
        let committee = Committee::new(fixture::EPOCH, ValidatorSet { authorities }, &Limits::default());
        Arc::new(committee.expect("a valid committee"))
    };
    Ok(input.choose(COMMITTEES.get_or_init(|| STAKES.map(of)))?.clone())
}

/// Mostly the usual ones; else such that what is drawn is about as large as they allow.
fn draw_limits(input: &mut Unstructured<'_>) -> Result<Limits> {
    if !rarely(input, 8)? {
        return Ok(Limits::default());
    }
    Ok(Limits {
        max_block_bytes: input.int_in_range(250..=500)?,
        max_blocks_per_commit: input.int_in_range(1..=3)?,
        max_ancestors: input.int_in_range(3..=5)?,
        max_votes_per_block: input.int_in_range(0..=2)?,
        max_transactions_per_block: input.int_in_range(0..=2)?,
    })
}

/// A number, now and then another one beside it.
fn draw_near(input: &mut Unstructured<'_>, number: u32) -> Result<u32> {
    Ok(match input.int_in_range(0..=31u8)? {
        0 => number.wrapping_sub(1),
        1 => number.wrapping_add(1),
        2 => u32::MAX,
        3 => 0,
        _ => number,
    })
}

/// Up to three commits that were changed before they were linked, or after.
fn draw_commits(input: &mut Unstructured<'_>) -> Result<Vec<Commit>> {
    let mut commits = fixture::commits();
    commits.truncate(*input.choose(&[3, 2, 1, 0])?);
    for commit in &mut commits {
        if rarely(input, 6)? {
            change_commit(input, commit)?;
        }
    }
    if rarely(input, 16)? {
        let epoch = draw_epoch(input)?;
        commits.iter_mut().for_each(|commit| commit.epoch = epoch);
    }
    if !rarely(input, 16)? {
        fixture::relink(&mut commits);
    }
    if let Some(at) = commits.len().checked_sub(2).filter(|_| rarely(input, 24).unwrap_or(false)) {
        commits.swap(at, at + 1);
    }
    Ok(commits)
}

fn change_commit(input: &mut Unstructured<'_>, commit: &mut Commit) -> Result<()> {
    match input.int_in_range(0..=8u8)? {
        0 => commit.index = CommitIndex::new(draw_near(input, commit.index.get())?),
        1 => commit.timestamp_ms = input.int_in_range(4_000..=8_000)?,
        2 => commit.epoch = draw_epoch(input)?,
        3 => commit.previous = CommitDigest::new([input.arbitrary()?; 32]),
        4 => change_reference(input, &mut commit.leader)?,
        5 => commit.blocks.clear(),
        6 => commit.blocks.push(commit.leader),
        7 => {
            let (author, round) = (input.int_in_range(0..=5)?, input.int_in_range(0..=9)?);
            commit.blocks.push(fixture::reference(author, round));
        }
        _ => {
            let at = input.choose_index(commit.blocks.len().max(1))?;
            if let Some(block) = commit.blocks.get_mut(at) {
                change_reference(input, block)?;
            }
        }
    }
    Ok(())
}

fn draw_epoch(input: &mut Unstructured<'_>) -> Result<Epoch> {
    Ok(Epoch::new(fixture::EPOCH.get() - 1 + input.int_in_range(0..=2)?))
}

fn change_reference(input: &mut Unstructured<'_>, reference: &mut BlockRef) -> Result<()> {
    match input.int_in_range(0..=3u8)? {
        0 => reference.round = Round::new(draw_near(input, reference.round.get())?),
        1 => reference.author = AuthorityIndex::new(input.int_in_range(0..=5)?),
        2 => reference.epoch = draw_epoch(input)?,
        _ => reference.digest = fixture::reference(input.int_in_range(0..=5)?, 1).digest,
    }
    Ok(())
}

/// A block that votes for a commit, or nearly.
fn draw_certifier(input: &mut Unstructured<'_>, author: u32, commit: CommitRef) -> Result<Vec<u8>> {
    let mut vote = fixture::vote(author, commit);
    if rarely(input, 8)? {
        let other = CommitRef { digest: CommitDigest::new([input.arbitrary()?; 32]), ..commit };
        match input.int_in_range(0..=2u8)? {
            0 => vote.votes.clear(),
            1 => vote.votes = vec![other],
            _ => vote.votes.insert(0, other),
        }
    }
    Ok(draw_signed(input, vote)?.1)
}

/// The block, perhaps changed, signed by its author, or by another one, or not quite.
fn draw_signed(input: &mut Unstructured<'_>, mut block: Block) -> Result<(BlockRef, Vec<u8>)> {
    if rarely(input, 6)? {
        change_block(input, &mut block)?;
    }
    let author = if block.author.get() < 4 { block.author.get() } else { 0 };
    let signer = if rarely(input, 16)? { input.int_in_range(0..=3)? } else { author };
    let flipped = if rarely(input, 16)? { Some(input.int_in_range(0..=63usize)?) } else { None };
    let (reference, bytes) = block.sign(|message| {
        let mut signature = fixture::key(signer).sign(message).to_bytes();
        if let Some(byte) = flipped {
            signature[byte] ^= 1;
        }
        signature
    });
    Ok((reference, bytes.to_vec()))
}

fn change_block(input: &mut Unstructured<'_>, block: &mut Block) -> Result<()> {
    match input.int_in_range(0..=8u8)? {
        0 => block.epoch = draw_epoch(input)?,
        1 => block.round = Round::new(draw_near(input, block.round.get())?),
        2 => block.author = AuthorityIndex::new(input.int_in_range(0..=5)?),
        3 => block.ancestors.truncate(input.int_in_range(0..=3)?),
        4 => block.ancestors.extend(block.ancestors.first().copied()),
        5 => {
            let at = input.choose_index(block.ancestors.len().max(1))?;
            if let Some(ancestor) = block.ancestors.get_mut(at) {
                change_reference(input, ancestor)?;
            }
        }
        6 => {
            let count = input.int_in_range(0..=3)?;
            block.transactions = vec![Bytes::from_static(b"transaction"); count];
        }
        7 => {
            // The first round, on genesis blocks.
            let committee = fixture::committee();
            let real = |ancestor: &BlockRef| committee.genesis(ancestor.author);
            block.round = Round::new(1);
            block.ancestors = block.ancestors.iter().filter_map(real).collect();
        }
        _ => {
            let set = fixture::validators();
            block.end_of_epoch = Some(EndOfEpochData {
                next_epoch_start_timestamp_ms: 0,
                next_validator_set: input.arbitrary::<bool>()?.then(|| set.clone()),
                state_hash: input.arbitrary()?,
                validator_set_signature: input.arbitrary::<bool>()?.then(|| fixture::sign_set(&set, &[0])),
                aggregate_signature: input.arbitrary::<bool>()?.then(|| fixture::sign_set(&set, &[0])),
            });
        }
    }
    Ok(())
}

/// Changes one item's bytes: one of them, or its length.
fn damage(input: &mut Unstructured<'_>, items: &mut [Vec<u8>]) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let item = &mut items[input.choose_index(items.len())?];
    let at = input.choose_index(item.len().max(1))?;
    match input.int_in_range(0..=2u8)? {
        0 => item.truncate(at),
        1 => item.push(input.arbitrary()?),
        _ => {
            let mask: u8 = input.arbitrary()?;
            item.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
        }
    }
    Ok(())
}

/// What names these bytes, if what it says beside their digest is to stay.
fn named(reference: BlockRef, bytes: &[u8]) -> BlockRef {
    use blake2::{Blake2b256, Digest};
    BlockRef {
        digest: soma_sync_core::types::BlockDigest::new(Blake2b256::digest(bytes).into()),
        ..reference
    }
}
