//! Peers' words: what they answer, and what they ask.

use crate::{
    names::{Chain, Names},
    words::Words,
};
use bytes::Bytes;
use soma_sync_core::{
    commit::Commit,
    payload::Payload,
    request::{
        CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, RequestFailure, ResponsePart,
    },
    types::{ChainId, CommitDigest, CommitIndex, CommitRef, Epoch, Round},
};
use std::time::Duration;

/// What comes of a request of ours.
pub(crate) enum Reply {
    Part(ResponsePart),
    Failure(RequestFailure),
}

/// What a commit is to be like that a peer makes up.
#[derive(Clone, Copy)]
enum Forgery {
    LaterTime,
    EarlierTime,
    NoBlocks,
    OtherLink,
    Epoch(u64),
}

/// Who votes for what a peer answers.
enum Votes {
    /// Those that the chain has for it.
    Usual,
    /// Those that a chain has for another commit.
    Of(u32, Chain),
    None,
    /// Made up: by these, with the keys that they have in an epoch, saying that they are of an epoch.
    Made {
        authors: Vec<u32>,
        keys_of: Option<Epoch>,
        says: Option<Epoch>,
    },
}

struct Commits {
    indexes: Vec<u32>,
    chain: Chain,
    forgery: Option<Forgery>,
    votes: Votes,
    bad_vote: bool,
    with_blocks: bool,
}

/// Reads what a peer answers to this request.
pub(crate) fn reply(words: &mut Words<'_>, request: &Request, names: &Names) -> Result<Reply, String> {
    let part = match words.word()? {
        "chain" => chain_part(Some(names.lab.genesis().chain_id())),
        "another" => {
            words.expect("chain")?;
            chain_part(Some(ChainId::new([9; 32])))
        }
        "no" => {
            words.expect("chain")?;
            chain_part(None)
        }
        "has" => {
            let (lowest, highest) = words.span()?;
            ResponsePart::Availability { highest, lowest }
        }
        "noted" => ResponsePart::Push { timestamp_ms: 0 },
        "commits" => read_commits(words)?.part(names)?,
        "blocks" => blocks(words, request, names)?,
        "nothing" => nothing(request),
        "garbage" => return Ok(Reply::Failure(RequestFailure::Malformed)),
        "too" => {
            words.expect("much")?;
            return Ok(Reply::Failure(RequestFailure::Oversize));
        }
        other => return Err(format!("unknown word '{other}'")),
    };
    Ok(Reply::Part(part))
}

fn chain_part(chain_id: Option<ChainId>) -> ResponsePart {
    ResponsePart::CommitInfo { commit: Some(CommitRef::GENESIS), chain_id }
}

fn nothing(request: &Request) -> ResponsePart {
    match request {
        Request::Blocks(_) => blocks_part(Vec::new(), Vec::new()),
        Request::CommitInfo(_)
        | Request::Availability { .. }
        | Request::Commits(_)
        | Request::Push { .. } => commits_part(Vec::new(), Vec::new(), Vec::new()),
    }
}

fn bytes_of(payloads: &[Payload]) -> u64 {
    payloads.iter().map(|payload| payload.len() as u64).sum()
}

fn blocks_part(blocks: Vec<Payload>, missing: Vec<u32>) -> ResponsePart {
    let buffer_bytes = bytes_of(&blocks);
    ResponsePart::Blocks { blocks, missing, buffer_bytes }
}

fn commits_part(commits: Vec<Payload>, certifiers: Vec<Payload>, blocks: Vec<Payload>) -> ResponsePart {
    let buffer_bytes = bytes_of(&commits) + bytes_of(&certifiers) + bytes_of(&blocks);
    ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes }
}

/// The same bytes with the last bit flipped.
fn flipped(payload: &Payload) -> Payload {
    let mut bytes = payload.bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    Payload::new(Bytes::from(bytes))
}

/// `blocks`, with `but 1,2` of them missing, `with 1 bad`, `up to 3`, `from 3`, or `and one more`.
fn blocks(words: &mut Words<'_>, request: &Request, names: &Names) -> Result<ResponsePart, String> {
    let Request::Blocks(fetch) = request else { return Err("no blocks were asked for".into()) };
    let (mut missing, mut bad, mut first, mut last, mut more) = (Vec::new(), Vec::new(), 0, u32::MAX, false);
    while let Some(word) = words.next() {
        match word {
            "but" => missing = words.list()?,
            "with" => {
                bad = words.list()?;
                words.expect("bad")?;
            }
            "up" => {
                words.expect("to")?;
                last = words.number()?;
            }
            "from" => first = words.number()?,
            "and" => {
                words.expect("one more")?;
                more = true;
            }
            other => return Err(format!("unknown word '{other}'")),
        }
    }
    let mut blocks = Vec::new();
    for (at, reference) in (0u32..).zip(&fetch.refs).filter(|(at, _)| (first..=last).contains(at)) {
        let payload = names.payload(reference).ok_or("nobody has that block")?;
        match (missing.contains(&at), bad.contains(&at)) {
            (true, _) => {}
            (false, true) => blocks.push(flipped(payload)),
            (false, false) => blocks.push(payload.clone()),
        }
    }
    if more {
        blocks.extend(blocks.first().cloned());
    }
    Ok(blocks_part(blocks, missing))
}

/// The options behind `commits`.
fn read_commits(words: &mut Words<'_>) -> Result<Commits, String> {
    let indexes = words.list()?;
    let mut read = Commits {
        indexes,
        chain: Chain::Ours,
        forgery: None,
        votes: Votes::Usual,
        bad_vote: false,
        with_blocks: false,
    };
    loop {
        if words.take("of the fork") {
            read.chain = Chain::Fork;
        } else if words.take("of a foreign chain") {
            read.chain = Chain::Foreign;
        } else if words.take("forged with") {
            read.forgery = Some(read_forgery(words)?);
        } else if words.take("with blocks") {
            read.with_blocks = true;
        } else if words.take("without votes") {
            read.votes = Votes::None;
        } else if words.take("with the votes for") {
            let index = words.number()?;
            let chain = if words.take("of the fork") { Chain::Fork } else { Chain::Ours };
            read.votes = Votes::Of(index, chain);
        } else if words.take("and a bad vote") {
            read.bad_vote = true;
        } else if words.take("voted by") {
            let authors = words.list()?;
            let keys_of = words.take("with keys of epoch").then(|| words.number()).transpose()?;
            let says = words.take("saying epoch").then(|| words.number()).transpose()?;
            let [keys_of, says] = [keys_of, says].map(|epoch| epoch.map(Epoch::new));
            read.votes = Votes::Made { authors, keys_of, says };
        } else {
            words.end()?;
            return Ok(read);
        }
    }
}

fn read_forgery(words: &mut Words<'_>) -> Result<Forgery, String> {
    let all = [
        ("a later time", Forgery::LaterTime),
        ("an earlier time", Forgery::EarlierTime),
        ("no blocks", Forgery::NoBlocks),
        ("another link", Forgery::OtherLink),
    ];
    if words.take("epoch") {
        return Ok(Forgery::Epoch(words.number()?));
    }
    let named = all.into_iter().find(|(name, _)| words.take(name));
    named.map(|(_, forgery)| forgery).ok_or_else(|| words.unknown())
}

impl Forgery {
    fn apply(self, commit: &mut Commit) {
        match self {
            Self::LaterTime => commit.timestamp_ms += 1,
            Self::EarlierTime => commit.timestamp_ms = 1,
            Self::NoBlocks => commit.blocks.clear(),
            Self::OtherLink => commit.previous = CommitDigest::new([7; 32]),
            Self::Epoch(epoch) => commit.epoch = Epoch::new(epoch),
        }
    }
}

impl Commits {
    fn part(&self, names: &Names) -> Result<ResponsePart, String> {
        let made = self.indexes.iter().map(|index| names.made(self.chain, *index));
        let made = made.collect::<Result<Vec<_>, _>>()?;
        let (first, last) = made.first().zip(made.last()).ok_or("no commits are named")?;
        let (reference, commits) = match self.forgery {
            None => (last.header.reference, made.iter().map(|made| made.header.payload.clone()).collect()),
            Some(forgery) => {
                let [start, end] = [first, last].map(|made| made.header.reference.index);
                let forged = names.lab.forged(start, end, |commit| forgery.apply(commit));
                forged.ok_or("these commits cannot be forged")?
            }
        };
        let epoch = last.header.epoch;
        let of = |index: u32, chain: Chain| -> Result<Vec<Payload>, String> {
            let made = names.made(chain, index)?;
            Ok(made.certifiers.iter().map(|block| block.payload.clone()).collect())
        };
        let everybody: Vec<u32> = (0..names.lab.committee()).collect();
        let mut certifiers = match (&self.votes, self.forgery) {
            (Votes::None, _) => Vec::new(),
            (Votes::Usual, None) => of(last.header.reference.index.get(), self.chain)?,
            (Votes::Usual, Some(_)) => names.lab.votes(reference, epoch, epoch, &everybody),
            (Votes::Of(index, chain), _) => of(*index, *chain)?,
            (Votes::Made { authors, keys_of, says }, _) => {
                let [keys, says] = [keys_of, says].map(|other| other.unwrap_or(epoch));
                names.lab.votes(reference, keys, says, authors)
            }
        };
        if self.bad_vote {
            certifiers.extend(self.bad_vote(names, reference, epoch, &certifiers)?);
        }
        let blocks = made.iter().filter(|_| self.with_blocks).flat_map(|made| &made.blocks);
        let blocks = blocks.map(|block| block.payload.clone()).collect();
        Ok(commits_part(commits, certifiers, blocks))
    }

    /// A vote whose signature does not hold, by an authority that has not voted.
    fn bad_vote(
        &self,
        names: &Names,
        reference: CommitRef,
        epoch: Epoch,
        certifiers: &[Payload],
    ) -> Result<Vec<Payload>, String> {
        let made = names.made(self.chain, reference.index.get())?;
        let voted = |author: &u32| made.certifiers.iter().any(|vote| vote.reference.author.get() == *author);
        let other = (0..names.lab.committee()).find(|author| !voted(author) || certifiers.is_empty());
        let other = other.ok_or("everybody has voted")?;
        Ok(names.lab.votes(reference, epoch, epoch, &[other]).iter().map(flipped).collect())
    }
}

/// Reads what a peer asks us; it allows for so many bytes where it does not say otherwise.
pub(crate) fn question(
    words: &mut Words<'_>,
    names: &Names,
    max_bytes: u64,
) -> Result<Result<Request, RefuseReason>, String> {
    let request = match words.word()? {
        "which" => {
            words.expect("chain")?;
            Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::GENESIS))
        }
        "latest" => Request::CommitInfo(CommitInfoQuery::Latest),
        "commit" => Request::CommitInfo(CommitInfoQuery::ByIndex(words.index()?)),
        "how" => {
            words.expect("far")?;
            Request::Availability { timestamp_ms: 0 }
        }
        "push" => Request::Push { index: words.index()? },
        "commits" => Request::Commits(ask_commits(words, max_bytes)?),
        "blocks" => Request::Blocks(ask_blocks(words, names, max_bytes)?),
        "garbage" => return Ok(Err(RefuseReason::Malformed)),
        other => return Err(format!("unknown word '{other}'")),
    };
    Ok(Ok(request))
}

fn ask_commits(words: &mut Words<'_>, max_bytes: u64) -> Result<FetchCommits, String> {
    let (start, end) = words.span()?;
    let mut fetch = FetchCommits { start, end, max_bytes, wait: Duration::ZERO, with_blocks: false };
    loop {
        if words.take("with blocks") {
            fetch.with_blocks = true;
        } else if words.take("waiting up to") {
            fetch.wait = words.time()?;
        } else if words.take("at most") {
            fetch.max_bytes = words.number()?;
            words.expect("bytes")?;
        } else {
            return Ok(fetch);
        }
    }
}

/// `blocks of 1..=2`, or `blocks of round 0`, which no server can have.
fn ask_blocks(words: &mut Words<'_>, names: &Names, max_bytes: u64) -> Result<FetchBlocks, String> {
    words.expect("of")?;
    let genesis = words.take("round 0 in");
    let mut refs = Vec::new();
    for index in words.list()? {
        refs.extend(names.made(Chain::Ours, index)?.header.blocks.iter().copied());
    }
    if genesis {
        refs.iter_mut().for_each(|reference| reference.round = Round::ZERO);
    }
    Ok(FetchBlocks { refs, max_bytes })
}
