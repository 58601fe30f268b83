//! Hostile nodes, as their faults' names say.

use super::plan::{Plan, Role};
use crate::{
    fault::{Fault, Hits},
    hostile::{Lab, Manner},
    oracle::place,
    world::{NodeId, Reply, World},
};
use soma_sync_core::{
    payload::Payload,
    request::{FetchCommits, Request, ResponsePart},
    types::CommitIndex,
};
use std::{rc::Rc, time::Duration};

/// Has a node lie as its role says.
pub(super) fn cast(world: &mut World, plan: &Plan, node: NodeId, position: usize, lab: &Rc<Lab>) {
    let Role::Hostile { manners, turns_at } = &plan.roles[position] else { return };
    world.set_hostile(node);
    let turns_at = CommitIndex::new(*turns_at);
    let answers = manners.iter().filter_map(|fault| Some((*fault, manner(*fault, turns_at)?.tamper(lab))));
    let mut answers: Vec<_> = answers.collect();
    if !answers.is_empty() {
        let hits = Rc::clone(world.hits());
        world.tamper(node, move |request, reply| {
            answers.iter_mut().fold(reply, |reply, (fault, tamper)| {
                let before = reply.clone();
                let after = tamper(request, reply);
                count_change(&hits, *fault, &before, &after);
                after
            })
        });
    }
    for fault in manners {
        let others = plan.edges.iter().filter_map(|(a, b)| match position {
            _ if *a == position => Some(*b),
            _ if *b == position => Some(*a),
            _ => None,
        });
        let others: Vec<_> = others.filter_map(|other| world.nodes().nth(other)).collect();
        acts(world, *fault, node, &others, plan.settings.commits);
    }
}

/// What hostile nodes of a fault do unasked, to each of these.
fn acts(world: &mut World, fault: Fault, node: NodeId, others: &[NodeId], commits: u32) {
    // Few in all, however many there are to be told.
    let every = Duration::from_millis(20 * others.len().max(1) as u64);
    for (other, nth) in others.iter().copied().zip(1..) {
        let hits = Rc::clone(world.hits());
        let mut index = CommitIndex::new(1_000_000);
        let first = every.mul_f64(f64::from(nth) / others.len() as f64);
        match fault {
            Fault::FloodPushes => world.act(first, move |world| {
                index = index.saturating_add(1);
                if world.is_connected(node, other) {
                    hits.count(fault);
                    world.ask(node, other, Request::Push { index });
                }
                Some(every)
            }),
            Fault::FloodRequests => world.act(first, move |world| {
                if world.is_connected(node, other) {
                    hits.count(fault);
                    world.ask(node, other, dearest(commits));
                }
                Some(every)
            }),
            Fault::KeepReconnecting => world.act(first, move |world| {
                if !world.is_connected(node, other) && !world.is_down(node) && !world.is_down(other) {
                    hits.count(fault);
                    world.connect(node, other);
                }
                Some(every * 5)
            }),
            _ => {}
        }
    }
}

/// The dearest request there is.
fn dearest(commits: u32) -> Request {
    Request::Commits(FetchCommits {
        start: CommitIndex::new(1),
        end: CommitIndex::new(commits.min(100)),
        max_bytes: u64::MAX,
        wait: Duration::ZERO,
        with_blocks: true,
    })
}

/// The manner of answering that a fault is, if it is one.
fn manner(fault: Fault, turns_at: CommitIndex) -> Option<Manner> {
    Some(match fault {
        Fault::InflatedHeight => Manner::InflatedHeight,
        Fault::LoweringHeight => Manner::LoweringHeight(CommitIndex::new(1)),
        Fault::RaisingLowest => Manner::RaisingLowest,
        Fault::InvertedAvailability => Manner::InvertedAvailability,
        Fault::Silent => Manner::Silent,
        Fault::Trickle => Manner::Trickle(Duration::from_secs(4)),
        Fault::BytesPerSecond => Manner::BytesPerSecond(70_000),
        Fault::EmptyAnswers => Manner::EmptyAnswers,
        Fault::LacksBlocks => Manner::LacksBlocks,
        Fault::ForeignChain => Manner::ForeignChain,
        Fault::WrongEpochKeys => Manner::WrongEpochKeys,
        Fault::WrongEpochVotes => Manner::WrongEpochVotes,
        Fault::FarEpoch => Manner::FarEpoch,
        Fault::DuplicateCertifiers => Manner::DuplicateCertifiers,
        Fault::ManyByOneAuthor => Manner::ManyByOneAuthor,
        Fault::WrongDigestVotes => Manner::WrongDigestVotes,
        Fault::ShortOfQuorum => Manner::ShortOfQuorum,
        Fault::Duplicates => Manner::Duplicates,
        Fault::WrongKind => Manner::WrongKind,
        Fault::TooMany => Manner::TooMany,
        Fault::TooFew => Manner::TooFew,
        Fault::Reordered => Manner::Reordered,
        Fault::OtherStart => Manner::OtherStart,
        Fault::ForeignItems => Manner::ForeignItems,
        Fault::BadBlocks => Manner::BadBlocks,
        Fault::BadCertifier => Manner::BadCertifier,
        Fault::OneBadBlock => Manner::OneBadBlock,
        Fault::BadCommits => Manner::BadCommits,
        Fault::PrunedButAdvertised => Manner::PrunedButAdvertised,
        Fault::Busy => Manner::Busy,
        Fault::Resets => Manner::Resets,
        Fault::TrailingByte => Manner::TrailingByte,
        Fault::ShortOfParents => Manner::ShortOfParents,
        Fault::LongLengths => Manner::LongLengths,
        Fault::Turns => Manner::TurnsAt(turns_at, Box::new(Manner::BadBlocks)),
        _ => return None,
    })
}

/// Counts a fault where it made another answer.
fn count_change(hits: &Hits, fault: Fault, before: &Reply, after: &Reply) {
    if before != after || places(before) != places(after) {
        hits.count(fault);
    }
}

/// Where the payloads of an answer lie: two may have the same length and be others.
fn places(reply: &Reply) -> Vec<(usize, usize)> {
    let Reply::Parts(parts) = reply else { return Vec::new() };
    let payloads = parts.iter().flat_map(|part| match part {
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: _ } => {
            commits.iter().chain(certifiers).chain(blocks).collect::<Vec<&Payload>>()
        }
        ResponsePart::Blocks { blocks, .. } => blocks.iter().collect(),
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => {
            Vec::new()
        }
    });
    payloads.map(place).collect()
}
