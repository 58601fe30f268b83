//! Answers from storage, made lazily: one message is read and encoded when the reader has taken the one before.
//!
//! Held at any time are one message of at most [`PART_BYTES`] (one larger item travels alone), one item that did not
//! fit it any more, and the list of certifiers or of references that remain. What an answer is made of is decided
//! before its first message, without reading a block.

use crate::store::{Certifier, CommitHead, Store, StoreError};
use bytes::Bytes;
use soma_sync_core::{
    command::ServePlan,
    request::{RefuseReason, ResponsePart},
    types::{BlockRef, CommitIndex, CommitRange, CommitRef},
};
use soma_sync_proto::message::{BlocksPart, CommitsPart, encode_response};
use std::{sync::Arc, vec::IntoIter};

#[cfg(test)]
mod tests;

/// Bytes after which a message is sent: a part is also the sign of progress (protocol: The messages).
pub const PART_BYTES: usize = 256 * 1024;

/// Most bytes that one more missing position adds to a message: its varint, and the field around all of them.
const MISSING_BYTES_MAX: usize = 12;

/// An answer on its way from a store to a peer. Its methods read the store, and so they block.
#[derive(Debug)]
pub struct Answer<S> {
    store: Arc<S>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    CommitInfo(CommitIndex),
    Choose { range: CommitRange, last: CommitIndex, max_bytes: u64, with_blocks: bool },
    Commits(CommitsAnswer),
    Blocks(BlocksAnswer),
    Done,
}

impl<S: Store> Answer<S> {
    /// An answer of which nothing has been read yet.
    pub fn new(store: Arc<S>, plan: ServePlan) -> Self {
        let stage = match plan {
            ServePlan::CommitInfo { index } => Stage::CommitInfo(index),
            ServePlan::Commits { range, last, max_bytes, with_blocks } => {
                Stage::Choose { range, last, max_bytes, with_blocks }
            }
            ServePlan::Blocks { refs, max_bytes } => Stage::Blocks(BlocksAnswer::new(refs, max_bytes)),
        };
        Self { store, stage }
    }

    /// The next message as it travels, behind its length; `None` after the last one.
    ///
    /// # Errors
    ///
    /// Why there is no answer, if this is the first call; later, why the answer breaks off: the store failed, or gave
    /// up what was to be sent. After an error there are no more messages.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, RefuseReason> {
        let message = self.advance();
        if !matches!(message, Ok(Some(_))) {
            self.stage = Stage::Done;
        }
        message
    }

    fn advance(&mut self) -> Result<Option<Bytes>, RefuseReason> {
        let store = &*self.store;
        if let Stage::Choose { range, last, max_bytes, with_blocks } = self.stage {
            let chosen = choose(store, range, last, max_bytes)?;
            self.stage = Stage::Commits(CommitsAnswer::new(chosen, with_blocks));
        }
        match &mut self.stage {
            Stage::CommitInfo(index) => {
                let message = commit_info(store, *index)?;
                self.stage = Stage::Done;
                Ok(Some(message))
            }
            Stage::Commits(answer) => answer.next_message(store),
            Stage::Blocks(answer) => answer.next_message(store),
            Stage::Choose { .. } | Stage::Done => Ok(None),
        }
    }
}

/// A failing store is ours to know about; the peer learns no more than that.
fn internal(error: StoreError) -> RefuseReason {
    tracing::warn!(%error, "cannot serve from the store");
    RefuseReason::Internal
}

fn commit_info(store: &impl Store, index: CommitIndex) -> Result<Bytes, RefuseReason> {
    let genesis = index == CommitIndex::GENESIS;
    let commit = if genesis {
        Some(CommitRef::GENESIS)
    } else {
        store.head(index).map_err(internal)?.map(|head| head.reference)
    };
    let chain_id = genesis.then(|| store.chain_id());
    Ok(encode_response(&ResponsePart::CommitInfo { commit, chain_id }))
}

/// A range that can be certified, and fits.
struct Chosen {
    range: CommitRange,
    certificate: Vec<Certifier>,
    /// What is left of the answer's bytes for blocks.
    bytes_left: u64,
}

/// The bytes that a commit takes in an answer.
fn commit_cost(head: &CommitHead) -> u64 {
    usize::try_from(head.bytes).map_or(u64::MAX, |len| CommitsPart::commit_cost(len) as u64)
}

/// The bytes that a certificate takes in an answer.
fn certificate_cost(certificate: &[Certifier]) -> u64 {
    let costs = certificate.iter().map(|certifier| {
        usize::try_from(certifier.bytes).map_or(u64::MAX, |len| CommitsPart::certifier_cost(len) as u64)
    });
    costs.fold(0, u64::saturating_add)
}

/// The longest range that begins where `range` does, ends in it, is of one epoch, can be certified and fits
/// `max_bytes`. Where nothing in `range` can be certified, the shortest that goes on, up to `last`.
fn choose(
    store: &impl Store,
    range: CommitRange,
    last: CommitIndex,
    max_bytes: u64,
) -> Result<Chosen, RefuseReason> {
    let mut ends = Ends::new(store, range.start());
    let mut in_range = Vec::new();
    while ends.next.is_some_and(|next| next <= range.end()) {
        let Some(end) = ends.advance()? else { break };
        in_range.push(end);
    }
    let start = range.start();
    if in_range.is_empty() {
        return Err(RefuseReason::Unavailable);
    }
    let mut refusal = RefuseReason::Unavailable;
    for end in in_range.iter().rev() {
        match certified(store, start, end, max_bytes)? {
            Certified::Fits(chosen) => return Ok(chosen),
            Certified::TooLarge => refusal = RefuseReason::TooLarge,
            Certified::No => {}
        }
    }
    while refusal == RefuseReason::Unavailable && ends.next.is_some_and(|next| next <= last) {
        let Some(end) = ends.advance()? else { break };
        match certified(store, start, &end, max_bytes)? {
            Certified::Fits(chosen) => return Ok(chosen),
            Certified::TooLarge => refusal = RefuseReason::TooLarge,
            Certified::No => {}
        }
    }
    Err(refusal)
}

/// Where a range could end.
struct End {
    commit: CommitRef,
    /// Bytes of the commits up to this one.
    bytes: u64,
}

/// The commits of one epoch, one after the other, with their bytes summed up.
struct Ends<'a, S> {
    store: &'a S,
    next: Option<CommitIndex>,
    bytes: u64,
}

impl<'a, S: Store> Ends<'a, S> {
    fn new(store: &'a S, start: CommitIndex) -> Self {
        Self { store, next: Some(start), bytes: 0 }
    }

    /// The next commit; `None` after the epoch's last, and after the last that is stored.
    fn advance(&mut self) -> Result<Option<End>, RefuseReason> {
        let Some(index) = self.next else { return Ok(None) };
        let Some(head) = self.store.head(index).map_err(internal)? else {
            self.next = None;
            return Ok(None);
        };
        self.next = if head.ends_epoch { None } else { index.next() };
        self.bytes = self.bytes.saturating_add(commit_cost(&head));
        Ok(Some(End { commit: head.reference, bytes: self.bytes }))
    }
}

enum Certified {
    Fits(Chosen),
    TooLarge,
    No,
}

/// Whether the range from `start` to `end` can be certified, and fits.
fn certified(
    store: &impl Store,
    start: CommitIndex,
    end: &End,
    max_bytes: u64,
) -> Result<Certified, RefuseReason> {
    let Some(certificate) = store.certificate(&end.commit).map_err(internal)? else {
        return Ok(Certified::No);
    };
    let bytes = end.bytes.saturating_add(certificate_cost(&certificate));
    Ok(match (max_bytes.checked_sub(bytes), CommitRange::new(start, end.commit.index)) {
        (Some(bytes_left), Some(range)) => Certified::Fits(Chosen { range, certificate, bytes_left }),
        (None, _) => Certified::TooLarge,
        (_, None) => Certified::No,
    })
}

/// An item of an answer to `FetchCommits`.
#[derive(Debug)]
enum Item {
    Commit(Bytes),
    Certifier(Bytes),
    Block(Bytes),
}

impl Item {
    fn cost(&self) -> usize {
        match self {
            Self::Commit(bytes) => CommitsPart::commit_cost(bytes.len()),
            Self::Certifier(bytes) => CommitsPart::certifier_cost(bytes.len()),
            Self::Block(bytes) => CommitsPart::block_cost(bytes.len()),
        }
    }

    fn put(self, part: &mut CommitsPart) {
        match self {
            Self::Commit(bytes) => part.push_commit(bytes),
            Self::Certifier(bytes) => part.push_certifier(bytes),
            Self::Block(bytes) => part.push_block(bytes),
        }
    }
}

/// First the commits, then the certifiers, then the blocks.
#[derive(Debug)]
struct CommitsAnswer {
    end: CommitIndex,
    /// The next commit to send.
    commit: Option<CommitIndex>,
    certifiers: IntoIter<Certifier>,
    /// The next commit whose blocks are to be sent.
    blocks_of: Option<CommitIndex>,
    /// Blocks to be sent of the commit before it, and how many have been.
    blocks: (Arc<[BlockRef]>, usize),
    bytes_left: u64,
    /// An item that did not fit the message before.
    held: Option<Item>,
}

impl CommitsAnswer {
    fn new(chosen: Chosen, with_blocks: bool) -> Self {
        let start = chosen.range.start();
        Self {
            end: chosen.range.end(),
            commit: Some(start),
            certifiers: chosen.certificate.into_iter(),
            blocks_of: with_blocks.then_some(start),
            blocks: (Arc::default(), 0),
            bytes_left: chosen.bytes_left,
            held: None,
        }
    }

    fn next_message(&mut self, store: &impl Store) -> Result<Option<Bytes>, RefuseReason> {
        let mut part = CommitsPart::default();
        while let Some(item) =
            self.held.take().map_or_else(|| self.next_item(store), |item| Ok(Some(item)))?
        {
            if !part.is_empty() && part.encoded_len().saturating_add(item.cost()) > PART_BYTES {
                self.held = Some(item);
                break;
            }
            item.put(&mut part);
        }
        Ok((!part.is_empty()).then(|| part.encode()))
    }

    fn after(&self, index: CommitIndex) -> Option<CommitIndex> {
        index.next().filter(|next| *next <= self.end)
    }

    fn next_item(&mut self, store: &impl Store) -> Result<Option<Item>, RefuseReason> {
        if let Some(index) = self.commit {
            self.commit = self.after(index);
            let commit = store.commit(index).map_err(internal)?.ok_or(RefuseReason::Unavailable)?;
            return Ok(Some(Item::Commit(commit.payload.bytes().clone())));
        }
        if let Some(certifier) = self.certifiers.next() {
            let block = store.block(&certifier.block).map_err(internal)?.ok_or(RefuseReason::Unavailable)?;
            return Ok(Some(Item::Certifier(block.bytes().clone())));
        }
        let Some(reference) = self.next_block(store)? else { return Ok(None) };
        let block = store.block(&reference).map_err(internal)?.ok_or(RefuseReason::Unavailable)?;
        let item = Item::Block(block.bytes().clone());
        let Some(bytes_left) = self.bytes_left.checked_sub(item.cost() as u64) else {
            (self.blocks_of, self.blocks) = (None, (Arc::default(), 0));
            return Ok(None);
        };
        self.bytes_left = bytes_left;
        Ok(Some(item))
    }

    fn next_block(&mut self, store: &impl Store) -> Result<Option<BlockRef>, RefuseReason> {
        loop {
            let (blocks, sent) = &mut self.blocks;
            if let Some(block) = blocks.get(*sent) {
                *sent += 1;
                return Ok(Some(*block));
            }
            let Some(index) = self.blocks_of else { return Ok(None) };
            self.blocks_of = self.after(index);
            let commit = store.commit(index).map_err(internal)?.ok_or(RefuseReason::Unavailable)?;
            self.blocks = (commit.blocks, 0);
        }
    }
}

/// Blocks in the order asked for, with the positions of those that are missing.
#[derive(Debug)]
struct BlocksAnswer {
    refs: Vec<BlockRef>,
    /// Position of the next one.
    next: usize,
    bytes_left: u64,
    /// Whether what follows does not fit any more.
    cut: bool,
    /// A block that did not fit the message before.
    held: Option<Bytes>,
}

impl BlocksAnswer {
    fn new(refs: Vec<BlockRef>, max_bytes: u64) -> Self {
        Self { refs, next: 0, bytes_left: max_bytes, cut: false, held: None }
    }

    fn next_message(&mut self, store: &impl Store) -> Result<Option<Bytes>, RefuseReason> {
        let mut part = BlocksPart::default();
        while let (Some(reference), false) = (self.refs.get(self.next), self.cut) {
            let block = match self.held.take() {
                Some(held) => Some(held),
                None => store.block(reference).map_err(internal)?.map(|block| block.bytes().clone()),
            };
            let cost = block.as_ref().map_or(MISSING_BYTES_MAX, |block| BlocksPart::block_cost(block.len()));
            let len = part.encoded_len().saturating_add(cost);
            if len as u64 > self.bytes_left {
                // What is left is not sent, and not said to be missing: the asker sees that the answer is cut short.
                self.cut = true;
                break;
            }
            if !part.is_empty() && len > PART_BYTES {
                self.held = block;
                break;
            }
            match (block, u32::try_from(self.next)) {
                (Some(block), _) => part.push_block(block),
                (None, Ok(position)) => part.push_missing(position),
                (None, Err(_)) => return Err(RefuseReason::TooMany),
            }
            self.next += 1;
        }
        if part.is_empty() {
            let nothing_fits = self.cut && self.next == 0;
            return if nothing_fits { Err(RefuseReason::TooLarge) } else { Ok(None) };
        }
        self.bytes_left = self.bytes_left.saturating_sub(part.encoded_len() as u64);
        Ok(Some(part.encode()))
    }
}
