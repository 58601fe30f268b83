//! Answers whose items are not what was asked for.

use crate::scene::{MINUTE, Scene, all, honest_time, index, lab, small};
use bytes::Bytes;
use soma_sync_core::{
    Config, Event,
    command::Offence,
    event::RequestId,
    payload::Payload,
    request::{Request, RequestFailure, ResponsePart},
    types::Epoch,
};
use soma_sync_sim::{
    hostile::{Lab, Manner, misbehave},
    world::Reply,
};
use std::{cell::Cell, rc::Rc, time::Duration};

#[test]
fn threat_12_an_answer_over_its_limits_is_taken() {
    let lab = lab(60, 1);
    for failure in [RequestFailure::Oversize, RequestFailure::Malformed] {
        let mut scene = Scene::new(&lab, small(), 1, Vec::new());
        let hostile = scene.world.add(Config::default(), all(&lab));
        scene.world.tamper(hostile, move |request, reply| match request {
            Request::Commits(_) | Request::Blocks(_) => Reply::Broken(Vec::new(), failure),
            Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => reply,
        });
        scene.world.connect(scene.client, hostile);
        scene.reach(MINUTE);
        assert_eq!(scene.offences(), [Offence::Malformed]);
    }
    // Items of no bytes, without number: the limit is in items too.
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    scene.world.tamper(hostile, |request, reply| match request {
        Request::Commits(_) => {
            let commits = vec![Payload::new(Bytes::new()); 100_000];
            let (certifiers, blocks) = (Vec::new(), Vec::new());
            Reply::Parts(vec![ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: 200_000 }])
        }
        _ => reply,
    });
    scene.world.connect(scene.client, hostile);
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::TooMuch]);
}

#[test]
fn threat_13_answers_nobody_waits_for_change_something() {
    let lab = lab(200, 1);
    let mut scene = Scene::new(&lab, small(), 2, Vec::new());
    let (client, chain) = (scene.client, lab.chain().to_vec());
    let run_alone = honest_time(&lab, small(), 2);
    // Every millisecond: parts and ends of requests that are over, and of ones that never were.
    scene.world.act(Duration::from_millis(1), move |world| {
        let over = world.requests_over(client);
        let never = [RequestId::new(u64::MAX), RequestId::new(1 << 40)];
        for id in over.iter().rev().take(3).copied().chain(never) {
            let part = ResponsePart::Commits {
                commits: vec![chain[0].header.payload.clone()],
                certifiers: Vec::new(),
                blocks: Vec::new(),
                buffer_bytes: 1 << 30,
            };
            world.inject(client, Event::ResponsePart { id, part });
            world.inject(client, Event::RequestFinished { id, result: Ok(()) });
        }
        Some(Duration::from_millis(1))
    });
    let took = scene.reach(MINUTE);
    let status = scene.status();
    assert!(status.counters.stale > 100, "they are counted");
    assert!(scene.offences().is_empty(), "late answers are nobody's fault");
    assert!(took <= 2 * run_alone, "{took:?}, and {run_alone:?} without them");
}

#[test]
fn threat_13_an_answer_sent_twice_is_taken_twice() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::Duplicates]);
    scene.reach(MINUTE);
    let charged = scene.offences();
    assert!(
        matches!(charged[..], [Offence::TooMuch | Offence::Malformed | Offence::BadCommits]),
        "{charged:?}"
    );
}

#[test]
fn threat_13_an_answer_of_another_kind_is_taken() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::WrongKind]);
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::WrongKind]);
}

/// What changes an answer of blocks only, so that its commits are taken and its blocks are looked at.
fn on_blocks(manner: Manner) -> Vec<Offence> {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    let mut changed = manner.clone().tamper(&lab);
    scene.world.tamper(hostile, move |request, reply| match request {
        Request::Blocks(_) => changed(request, reply),
        _ => reply,
    });
    scene.world.connect(scene.client, hostile);
    let took = scene.reach(MINUTE);
    assert!(took <= 5 * honest_time(&lab, small(), 1), "{manner:?}: {took:?}");
    scene.offences()
}

/// The same for an answer of commits.
fn on_commits(manner: Manner) -> Vec<Offence> {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    let mut changed = manner.clone().tamper(&lab);
    scene.world.tamper(hostile, move |request, reply| match request {
        Request::Commits(_) => changed(request, reply),
        _ => reply,
    });
    scene.world.connect(scene.client, hostile);
    let took = scene.reach(MINUTE);
    assert!(took <= 5 * honest_time(&lab, small(), 1), "{manner:?}: {took:?}");
    scene.offences()
}

#[test]
fn threat_14_too_few_items_are_an_offence_or_the_rest_is_never_fetched() {
    assert_eq!(on_blocks(Manner::TooFew), []);
}

#[test]
fn threat_14_too_many_reordered_or_foreign_items_are_taken() {
    assert_eq!(on_blocks(Manner::TooMany), [Offence::TooMuch]);
    assert_eq!(on_blocks(Manner::Reordered), [Offence::BadBlock]);
    assert_eq!(on_blocks(Manner::ForeignItems), [Offence::BadBlock]);
    assert_eq!(on_commits(Manner::TooMany), [Offence::BadCommits]);
    assert_eq!(on_commits(Manner::Reordered), [Offence::BadCommits]);
    assert_eq!(on_commits(Manner::ForeignItems), [Offence::BadCommits]);
    assert_eq!(on_commits(Manner::OtherStart), [Offence::BadCommits]);
}

#[test]
fn threat_15_one_bad_block_spoils_the_good_ones_or_is_charged_to_another() {
    let lab = lab(60, 1);
    // The headers come from the honest one or from the other; the bad blocks from the other only.
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::OneBadBlock]);
    scene.reach(MINUTE);
    let liar = scene.world.peer(scene.hostile[0]);
    assert_eq!(scene.world.disconnected(scene.client), [(liar, Offence::BadBlock)]);
    let served = scene.status().peers.iter().find(|peer| peer.id == liar).map(|peer| peer.served_bytes);
    assert!(served > Some(0), "what was good of it was not kept");
}

/// Of one answer with one bad block every other block is kept, those after the bad one too.
#[test]
fn threat_15_what_comes_after_a_bad_block_is_fetched_again() {
    let lab = lab(60, 1);
    let config = Config { max_requests_per_peer: 1, ..small() };
    let mut scene = Scene::new(&lab, config, 0, vec![Manner::OneBadBlock]);
    scene.pass(Duration::from_secs(5));
    assert_eq!(scene.offences(), [Offence::BadBlock]);
    let honest = scene.world.add(Config::default(), all(&lab));
    let asked = Rc::new(Cell::new(0));
    let counted = Rc::clone(&asked);
    scene.world.tamper(honest, move |request, reply| {
        if let Request::Blocks(fetch) = request {
            counted.set(counted.get() + fetch.refs.len());
        }
        reply
    });
    scene.world.connect(scene.client, honest);
    scene.reach(MINUTE);
    // One request was for twenty, and nineteen of them were good.
    assert_eq!(asked.get(), 60 * 5 - 19);
}

/// All that a stranger sends may have to be thrown away.
#[test]
fn threat_15_a_stranger_is_asked_for_all_blocks_at_once() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, Config::default(), 0, vec![Manner::BadBlocks]);
    scene.pass(Duration::from_secs(5));
    assert_eq!(scene.offences(), [Offence::BadBlock]);
    scene.add_honest();
    scene.reach(MINUTE);
    let traffic = scene.world.traffic(scene.client);
    // Three requests for 32 of the 600, before the first answer is looked through.
    assert!(traffic.fetched_bytes * 10 <= traffic.needed_bytes * 13, "{traffic:?}");
}

#[test]
fn threat_15_good_headers_with_bad_payloads_are_stored() {
    assert_eq!(on_blocks(Manner::BadBlocks), [Offence::BadBlock]);
    assert_eq!(on_commits(Manner::BadCommits), [Offence::BadCommits]);
}

/// One bad certifier beside a quorum of good ones costs its sender, and the answer is kept.
#[test]
fn threat_15_one_bad_certifier_spoils_the_quorum() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    let hostile = scene.add_hostile(Manner::BadCertifier);
    scene.pass(Duration::from_secs(5));
    assert_eq!(scene.offences(), [Offence::BadCertifier]);
    let peer = scene.world.peer(hostile);
    let served = scene.status().peers.iter().find(|of| of.id == peer).map(|of| of.served_commits);
    assert!(served > Some(0), "the answer was thrown away");
}

#[test]
fn threat_28_a_second_encoding_of_an_object_is_taken() {
    assert_eq!(on_blocks(Manner::TrailingByte), [Offence::BadBlock]);
    assert_eq!(on_commits(Manner::TrailingByte), [Offence::BadCommits]);
}

/// A digest that the votes name covers whatever follows a commit, and a vote's own is named by nobody: it is the
/// decoding that must refuse what follows.
#[test]
fn threat_28_a_second_encoding_counts_where_no_digest_gives_it_away() {
    for of_certifiers in [true, false] {
        let lab = lab(60, 1);
        let mut scene = Scene::new(&lab, small(), 0, Vec::new());
        let hostile = scene.world.add(Config::default(), all(&lab));
        let forger = Rc::clone(&lab);
        let trailing = |payload: &Payload| {
            let mut bytes = payload.bytes().to_vec();
            bytes.push(0);
            Payload::new(Bytes::from(bytes))
        };
        scene.world.tamper(hostile, move |request, reply| {
            let Request::Commits(fetch) = request else { return reply };
            let Some((mut last, mut commits)) = forger.forged(fetch.start, fetch.start, |_| {}) else {
                return reply;
            };
            if !of_certifiers {
                commits = commits.iter().map(trailing).collect();
                last = Lab::name(fetch.start, &commits[0]);
            }
            let mut certifiers = forger.votes(last, Epoch::ZERO, Epoch::ZERO, &[0, 1, 2, 3]);
            if of_certifiers {
                certifiers = certifiers.iter().map(trailing).collect();
            }
            let buffer_bytes = commits.iter().chain(&certifiers).map(|payload| payload.len() as u64).sum();
            Reply::Parts(vec![ResponsePart::Commits {
                commits,
                certifiers,
                blocks: Vec::new(),
                buffer_bytes,
            }])
        });
        scene.world.connect(scene.client, hostile);
        scene.pass(Duration::from_secs(5));
        assert_eq!(scene.offences(), [Offence::BadCommits], "of certifiers: {of_certifiers}");
    }
}

/// Who behaves up to some commit and then turns is found out then, and what it gave before is kept.
#[test]
fn threat_15_who_turns_later_is_trusted_for_ever() {
    let lab = lab(200, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let turn = Manner::TurnsAt(index(100), Box::new(Manner::BadBlocks));
    let hostile = scene.world.add(Config::default(), all(&lab));
    misbehave(&mut scene.world, hostile, vec![turn, Manner::TooFew], &lab);
    scene.world.connect(scene.client, hostile);
    scene.reach(MINUTE);
    let charged = scene.offences();
    assert!(!charged.is_empty() && charged.len() <= 2, "{charged:?}");
}
