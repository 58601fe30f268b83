//! What hostile and broken nodes do, by name (threats: the table).
//!
//! A [`Manner`] changes a node's answers; several can be had by one node, and each node of a network may have its own.
//! What nodes do unasked is in the functions beside it, which set actors to work.

mod actors;
mod lab;
mod parts;

pub use actors::{flood_pushes, flood_requests, keep_reconnecting};
pub use lab::Lab;

use crate::world::{NodeId, Reply, Tamper, World};
use soma_sync_core::{
    payload::Payload,
    request::{FetchCommits, RefuseReason, Request, RequestFailure, ResponsePart},
    types::{ChainId, CommitIndex, Epoch},
};
use std::{rc::Rc, time::Duration};

/// A way of answering that is not an honest server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Claims the highest index that there is (threats: 01).
    InflatedHeight,
    /// Claims what it has once, and only this from then on (threats: 02).
    LoweringHeight(CommitIndex),
    /// Says once that it has everything, and only its last commit from then on (threats: 02).
    RaisingLowest,
    /// Says that its lowest commit is above its highest (threats: 03).
    InvertedAvailability,
    /// Answers polls, and nothing that it is asked for (threats: 04).
    Silent,
    /// Sends an answer item by item, with a pause before each (threats: 05).
    Trickle(Duration),
    /// Sends answers item by item, at so many bytes a second (threats: 06).
    BytesPerSecond(u64),
    /// Gives answers with nothing in them (threats: 07).
    EmptyAnswers,
    /// Says that it lacks each block that it is asked for (threats: 07).
    LacksBlocks,
    /// Names another chain when asked which it is on (threats: 08).
    ForeignChain,
    /// Certifies forged commits with keys of another epoch (threats: 09).
    WrongEpochKeys,
    /// Certifies forged commits with votes that say that they are of the next epoch, signed with the right keys
    /// (threats: 09).
    WrongEpochVotes,
    /// Sends commits of an epoch far away, which nobody signed (threats: 10).
    FarEpoch,
    /// Certifies forged commits with one authority's vote, many times (threats: 11).
    DuplicateCertifiers,
    /// Certifies forged commits with many votes of one authority (threats: 11).
    ManyByOneAuthor,
    /// Certifies forged commits with the votes for the real one at the same index (threats: 11).
    WrongDigestVotes,
    /// Certifies forged commits with a quorum less one vote.
    ShortOfQuorum,
    /// Certifies forged commits with a quorum of votes, in blocks that stand on no block of the round before.
    ShortOfParents,
    /// Sends each answer's messages twice (threats: 13).
    Duplicates,
    /// Answers with an answer to something else (threats: 13).
    WrongKind,
    /// Sends every item twice (threats: 14).
    TooMany,
    /// Sends half of the items, as if they were all (threats: 14).
    TooFew,
    /// Sends items in the opposite order (threats: 14).
    Reordered,
    /// Leaves out the first commit of each answer, so that it begins where nobody asked (threats: 14).
    OtherStart,
    /// Sends items of another chain (threats: 14).
    ForeignItems,
    /// Sends blocks whose last bit is flipped (threats: 15).
    BadBlocks,
    /// Sends good commits with one certifier more, which is bad (threats: 15).
    BadCertifier,
    /// Flips a bit in the block in the middle of each answer (threats: 15).
    OneBadBlock,
    /// Sends commits whose last bit is flipped (threats: 15).
    BadCommits,
    /// Refuses what it says it has, as if it had pruned it (threats: 20).
    PrunedButAdvertised,
    /// Always says that it is busy.
    Busy,
    /// Loses every stream half-way.
    Resets,
    /// Puts a byte behind each item (threats: 28).
    TrailingByte,
    /// Writes the length of each block's and certifier's signature with a byte more than it needs: its author's signature
    /// holds, and its digest is another (threats: 28).
    LongLengths,
    /// Behaves until it is asked for this commit, and from then on so.
    TurnsAt(CommitIndex, Box<Self>),
}

impl Manner {
    /// One of each, with the values that hurt most.
    pub fn all() -> Vec<Self> {
        vec![
            Self::InflatedHeight,
            Self::LoweringHeight(CommitIndex::new(1)),
            Self::RaisingLowest,
            Self::InvertedAvailability,
            Self::Silent,
            Self::Trickle(Duration::from_secs(4)),
            Self::BytesPerSecond(70_000),
            Self::EmptyAnswers,
            Self::LacksBlocks,
            Self::ForeignChain,
            Self::WrongEpochKeys,
            Self::WrongEpochVotes,
            Self::FarEpoch,
            Self::DuplicateCertifiers,
            Self::ManyByOneAuthor,
            Self::WrongDigestVotes,
            Self::ShortOfQuorum,
            Self::ShortOfParents,
            Self::Duplicates,
            Self::WrongKind,
            Self::TooMany,
            Self::TooFew,
            Self::Reordered,
            Self::OtherStart,
            Self::ForeignItems,
            Self::BadBlocks,
            Self::BadCertifier,
            Self::OneBadBlock,
            Self::BadCommits,
            Self::PrunedButAdvertised,
            Self::Busy,
            Self::Resets,
            Self::TrailingByte,
            Self::LongLengths,
            Self::TurnsAt(CommitIndex::new(20), Box::new(Self::BadBlocks)),
        ]
    }

    /// The manner as what a world takes.
    pub fn tamper(self, lab: &Rc<Lab>) -> Tamper {
        let lab = Rc::clone(lab);
        match self {
            Self::LoweringHeight(to) => claims(move |_, lowest| (to.max(lowest), lowest)),
            Self::RaisingLowest => claims(|highest, _| (highest, highest)),
            Self::TurnsAt(at, then) => {
                let (mut turned, mut then) = (false, then.tamper(&lab));
                Box::new(move |request, reply| {
                    turned |= matches!(request, Request::Commits(fetch) if fetch.end >= at);
                    if turned { then(request, reply) } else { reply }
                })
            }
            other => Box::new(move |request, reply| other.answer(&lab, request, reply)),
        }
    }

    /// An answer in a manner that remembers nothing.
    fn answer(&self, lab: &Lab, request: &Request, reply: Reply) -> Reply {
        let data = matches!(request, Request::Commits(_) | Request::Blocks(_));
        match (self, request) {
            (Self::InflatedHeight, Request::Availability { .. }) => {
                available(CommitIndex::MAX, CommitIndex::GENESIS)
            }
            (Self::InvertedAvailability, Request::Availability { .. }) => {
                available(CommitIndex::new(1), CommitIndex::new(2))
            }
            (Self::ForeignChain, Request::CommitInfo(_)) => {
                let chain_id = Some(ChainId::new([0xee; 32]));
                Reply::Parts(vec![ResponsePart::CommitInfo { commit: None, chain_id }])
            }
            (Self::LacksBlocks, Request::Blocks(fetch)) => {
                let missing = (0..).take(fetch.refs.len()).collect();
                Reply::Parts(vec![parts::blocks(Vec::new(), missing)])
            }
            (Self::Silent, _) if data => Reply::Stuck(Vec::new()),
            (Self::EmptyAnswers, _) if data => Reply::Parts(Vec::new()),
            (Self::PrunedButAdvertised, _) if data => refused(RefuseReason::Unavailable),
            (Self::Busy, _) if data => refused(RefuseReason::Busy),
            (Self::WrongKind, _) if data => Reply::Parts(vec![ResponsePart::Push { timestamp_ms: 0 }]),
            (_, Request::Commits(fetch)) => match self.forge(lab, fetch) {
                Some(forged) => forged,
                None => self.change(lab, reply),
            },
            (_, Request::Blocks(_)) => self.change(lab, reply),
            (_, Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. }) => reply,
        }
    }

    /// Commits that are not the chain's, with whatever this manner certifies them with.
    fn forge(&self, lab: &Lab, fetch: &FetchCommits) -> Option<Reply> {
        let epoch = lab.made(fetch.start)?.header.epoch;
        let other_time = |commit: &mut soma_sync_core::commit::Commit| commit.timestamp_ms += 1;
        if *self == Self::FarEpoch {
            let far = |commit: &mut soma_sync_core::commit::Commit| commit.epoch = Epoch::new(1_000_000);
            let (_, commits) = lab.forged(fetch.start, fetch.start, far)?;
            return Some(Reply::Parts(vec![parts::commits(commits, Vec::new())]));
        }
        let (last, commits) = lab.forged(fetch.start, fetch.end, other_time)?;
        let everyone: Vec<_> = (0..lab.committee()).collect();
        let certifiers = match self {
            // So far ahead that no authority of the one is in the other.
            Self::WrongEpochKeys => {
                let other = epoch.saturating_add(u64::from(lab.committee()));
                lab.votes(last, other, epoch, &everyone)
            }
            Self::WrongEpochVotes => lab.votes(last, epoch, epoch.saturating_add(1), &everyone),
            Self::DuplicateCertifiers => {
                let vote = lab.votes(last, epoch, epoch, &[0]);
                vote.into_iter().cycle().take(2 * everyone.len()).collect()
            }
            Self::ManyByOneAuthor => lab.votes(last, epoch, epoch, &vec![0; 2 * everyone.len()]),
            Self::WrongDigestVotes => {
                let real = lab.made(last.index)?;
                real.certifiers.iter().map(|block| block.payload.clone()).collect()
            }
            Self::ShortOfQuorum => {
                let committee = &lab.made(last.index)?.committee;
                let mut stake = 0;
                let short = everyone.iter().copied().take_while(|author| {
                    let author = soma_sync_core::types::AuthorityIndex::new(*author);
                    stake += committee.stake(author).map_or(0, soma_sync_core::types::Stake::get);
                    stake < committee.quorum().get()
                });
                lab.votes(last, epoch, epoch, &short.collect::<Vec<_>>())
            }
            Self::ShortOfParents => lab.votes_without_parents(last, epoch, &everyone),
            _ => return None,
        };
        Some(Reply::Parts(vec![parts::commits(commits, Vec::new()), parts::commits(Vec::new(), certifiers)]))
    }

    /// The honest answer, changed.
    fn change(&self, lab: &Lab, reply: Reply) -> Reply {
        let Reply::Parts(mut parts) = reply else { return reply };
        match self {
            Self::Trickle(pause) => return paced(parts, |_| *pause),
            Self::BytesPerSecond(rate) => {
                let takes = |part: &ResponsePart| {
                    Duration::from_micros(parts::size(part).saturating_mul(1_000_000) / rate.max(&1))
                };
                return paced(parts, takes);
            }
            Self::Resets => {
                parts.truncate(parts.len() / 2);
                return Reply::Broken(parts, RequestFailure::Reset);
            }
            Self::Duplicates => parts = parts.into_iter().flat_map(|part| [part.clone(), part]).collect(),
            _ => parts.iter_mut().for_each(|part| self.change_part(lab, part)),
        }
        Reply::Parts(parts)
    }

    fn change_part(&self, lab: &Lab, part: &mut ResponsePart) {
        let of_blocks = matches!(part, ResponsePart::Blocks { .. });
        if let (Self::BadCertifier, ResponsePart::Commits { certifiers, .. }) = (self, &mut *part) {
            certifiers.extend(lab.bad_certifier(certifiers));
        }
        if let (Self::OtherStart, ResponsePart::Commits { commits, .. }) = (self, &mut *part)
            && commits.len() > 1
        {
            commits.remove(0);
        }
        if let (Self::ForeignItems, ResponsePart::Commits { commits, .. }) = (self, &mut *part) {
            let foreign = lab.foreign().iter().map(|made| made.header.payload.clone());
            *commits = foreign.take(commits.len()).collect();
        }
        if let (Self::ForeignItems, ResponsePart::Blocks { blocks, .. }) = (self, &mut *part) {
            let foreign = lab.foreign().iter().flat_map(|made| &made.blocks);
            *blocks = foreign.map(|block| block.payload.clone()).take(blocks.len()).collect();
        }
        if let (
            Self::LongLengths,
            ResponsePart::Commits { certifiers: signed, .. } | ResponsePart::Blocks { blocks: signed, .. },
        ) = (self, &mut *part)
        {
            signed.iter_mut().for_each(parts::lengthen);
        }
        for items in parts::lists(part) {
            self.change_items(of_blocks, items);
        }
    }

    fn change_items(&self, of_blocks: bool, items: &mut Vec<Payload>) {
        let middle = items.len() / 2;
        match self {
            Self::TooMany => items.extend_from_within(..),
            Self::TooFew => items.truncate(items.len().div_ceil(2)),
            Self::Reordered => items.reverse(),
            Self::BadBlocks if of_blocks => items.iter_mut().for_each(parts::flip),
            Self::OneBadBlock if of_blocks => items.get_mut(middle).into_iter().for_each(parts::flip),
            Self::BadCommits if !of_blocks => items.iter_mut().for_each(parts::flip),
            Self::TrailingByte => items.iter_mut().for_each(parts::trail),
            _ => {}
        }
    }
}

/// Makes a node answer in these manners, one after the other: what the first makes of an answer goes to the second.
pub fn misbehave(world: &mut World, node: NodeId, manners: Vec<Manner>, lab: &Rc<Lab>) {
    let mut tampers: Vec<_> = manners.into_iter().map(|manner| manner.tamper(lab)).collect();
    world.tamper(node, move |request, reply| {
        tampers.iter_mut().fold(reply, |reply, tamper| tamper(request, reply))
    });
}

/// Honest about what it has once; then `then` of what it has.
fn claims(then: impl Fn(CommitIndex, CommitIndex) -> (CommitIndex, CommitIndex) + 'static) -> Tamper {
    let mut polled = false;
    Box::new(move |request, reply| match (request, reply) {
        (Request::Availability { .. }, Reply::Parts(parts)) if std::mem::replace(&mut polled, true) => {
            let parts = parts.into_iter().map(|part| match part {
                ResponsePart::Availability { highest, lowest } => {
                    let (highest, lowest) = then(highest, lowest);
                    ResponsePart::Availability { highest, lowest }
                }
                other => other,
            });
            Reply::Parts(parts.collect())
        }
        (_, reply) => reply,
    })
}

fn available(highest: CommitIndex, lowest: CommitIndex) -> Reply {
    Reply::Parts(vec![ResponsePart::Availability { highest, lowest }])
}

fn refused(reason: RefuseReason) -> Reply {
    Reply::Broken(Vec::new(), RequestFailure::Refused(reason))
}

fn paced(parts: Vec<ResponsePart>, pause: impl Fn(&ResponsePart) -> Duration) -> Reply {
    let single = parts::one_by_one(parts).into_iter();
    Reply::Paced(single.map(|part| (pause(&part), part)).collect())
}
