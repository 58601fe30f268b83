//! Commits and votes that are not the chain's.

use crate::scene::{MINUTE, Scene, all, first, honest_time, index, lab, small};
use soma_sync_core::{
    Config,
    certify::{CertifiedFault, CommitRule},
    command::{Halt, Offence},
    request::{Request, ResponsePart},
    types::CommitRef,
};
use soma_sync_sim::{
    hostile::Manner,
    world::{ChainStore, Pace, Reply, World},
};
use std::rc::Rc;

#[test]
fn threat_08_a_peer_on_another_chain_is_listened_to() {
    let lab = lab(40, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::ForeignChain; 2]);
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::OtherChain; 2]);
    let foreign: Vec<_> = scene.hostile.iter().map(|node| scene.world.peer(*node)).collect();
    let asked = scene.status().peers.into_iter().filter(|peer| foreign.contains(&peer.id));
    assert!(asked.map(|peer| (peer.claim, peer.served_commits)).all(|of| of == (None, 0)));
}

#[test]
fn threat_08_a_fork_is_followed_or_passes_unseen() {
    let lab = lab(40, 1);
    // The client has commits of the chain; the other side has signed others in their place.
    let mut world = World::new(Pace::default());
    world.judged_by(lab.chain());
    let client = world.add(small(), first(&lab, 15));
    let fork = world.add(Config::default(), ChainStore::of(lab.genesis().clone(), lab.fork()));
    world.set_hostile(fork);
    world.connect(client, fork);
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().halted.is_some()));
    let halted = *world.machine(client).status().halted.unwrap();
    let Halt::Fork { index: at, ours, theirs, evidence } = halted else { panic!("{halted:?}") };
    let made = |chain: &[soma_sync_sim::chain::MadeCommit], at: usize| chain[at].header.reference;
    assert_eq!((at, ours, theirs), (index(15), made(lab.chain(), 14), made(lab.fork(), 14)));
    assert_eq!(evidence.reference, made(lab.fork(), 15));
    // It goes on serving what it has, and applies nothing more, from anybody.
    let honest = world.add(Config::default(), all(&lab));
    world.connect(client, honest);
    world.run_until(MINUTE, |_| false);
    assert_eq!(world.store(client).tip(), made(lab.chain(), 14));
    assert!(world.disconnected(client).is_empty(), "a fork is the committee's fault");
}

/// A manner of forging: nothing of it is stored, its sender is charged, and the tip is reached in good time.
fn forged(manner: &Manner, epochs: u32, offences: &[Offence]) {
    let lab = lab(60, epochs);
    let mut scene = Scene::new(&lab, small(), 1, vec![manner.clone()]);
    let took = scene.reach(MINUTE);
    let charged = scene.offences();
    assert!(!charged.is_empty() && charged.iter().all(|of| offences.contains(of)), "{manner:?}: {charged:?}");
    let honest = honest_time(&lab, small(), 1);
    assert!(took <= 5 * honest, "{manner:?}: {took:?}, and {honest:?} without it");
}

#[test]
fn threat_09_keys_of_another_epoch_certify() {
    for manner in [Manner::WrongEpochKeys, Manner::WrongEpochVotes] {
        forged(&manner, 1, &[Offence::BadCommits]);
        forged(&manner, 4, &[Offence::BadCommits]);
    }
}

#[test]
fn threat_10_an_epoch_far_away_makes_a_node_wait() {
    forged(&Manner::FarEpoch, 1, &[Offence::WrongEpoch]);
    // Alone it gets nowhere, without a loop and without waiting on its word: an honest one is used at once.
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 0, vec![Manner::FarEpoch]);
    scene.pass(MINUTE);
    let asked = scene.world.traffic(scene.client).data_requests;
    assert!(asked <= 40, "{asked} requests");
    scene.add_honest();
    let took = scene.reach(MINUTE);
    assert!(took <= 5 * honest_time(&lab, small(), 1), "{took:?}");
}

#[test]
fn threat_11_stake_is_counted_more_than_once_or_for_another_digest() {
    for manner in [
        Manner::DuplicateCertifiers,
        Manner::ManyByOneAuthor,
        Manner::WrongDigestVotes,
        Manner::ShortOfQuorum,
    ] {
        forged(&manner, 2, &[Offence::BadCommits]);
    }
}

/// More certifiers than any committee has are refused before anything is made of them.
#[test]
fn threat_11_certifiers_without_number_are_looked_at() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    scene.world.tamper(hostile, |request, reply| match (request, reply) {
        (Request::Commits(_), Reply::Parts(mut parts)) => {
            for part in &mut parts {
                if let ResponsePart::Commits { certifiers, .. } = part {
                    *certifiers = certifiers.iter().cloned().cycle().take(certifiers.len() * 1_000).collect();
                }
            }
            Reply::Parts(parts)
        }
        (_, other) => other,
    });
    scene.world.connect(scene.client, hostile);
    scene.reach(MINUTE);
    let charged = scene.offences();
    assert!(matches!(charged[..], [Offence::TooMuch | Offence::BadCommits]), "{charged:?}");
}

/// Timestamps that fall under a quorum are the committee's fault; nobody's clock decides when anything happens here.
#[test]
fn threat_26_time_falls_along_the_chain_or_is_taken_from_a_peer() {
    let lab = lab(40, 1);
    let mut world = World::new(Pace::default());
    world.judged_by(lab.chain());
    let client = world.add(small(), first(&lab, 10));
    let server = world.add(Config::default(), all(&lab));
    let forger = Rc::clone(&lab);
    world.tamper(server, move |request, reply| {
        let Request::Commits(fetch) = request else { return reply };
        let Some((last, commits)) = forger.forged(fetch.start, fetch.start, |commit| commit.timestamp_ms = 1)
        else {
            return reply;
        };
        let epoch = forger.chain()[0].header.epoch;
        let certifiers = forger.votes(last, epoch, epoch, &[0, 1, 2, 3]);
        let buffer_bytes = certifiers.iter().chain(&commits).map(|payload| payload.len() as u64).sum();
        Reply::Parts(vec![ResponsePart::Commits { commits, certifiers, blocks: Vec::new(), buffer_bytes }])
    });
    world.connect(client, server);
    // It says what is wrong only where the commit before is ours: at the front.
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().halted.is_some()));
    let halted = *world.machine(client).status().halted.unwrap();
    let Halt::CertifiedInvalid(fault) = &halted else { panic!("{halted:?}") };
    assert!(
        matches!(**fault, CertifiedFault::Commit { rule: CommitRule::Timestamp { .. }, .. }),
        "{fault:?}"
    );
    assert_eq!(world.store(client).tip(), lab.chain()[9].header.reference);
    assert!(world.disconnected(client).is_empty(), "the committee's fault");
}

#[test]
fn threat_26_a_peers_clock_decides_when_something_happens() {
    let lab = lab(60, 1);
    let run = |clock: Option<u64>| {
        let mut scene = Scene::new(&lab, small(), 1, Vec::new());
        if let Some(clock) = clock {
            let server = scene.honest[0];
            scene.world.tamper(server, move |_, reply| match reply {
                Reply::Parts(mut parts) => {
                    for part in &mut parts {
                        if let ResponsePart::Push { timestamp_ms } = part {
                            *timestamp_ms = clock;
                        }
                    }
                    Reply::Parts(parts)
                }
                other => other,
            });
            scene.world.ask(server, scene.client, Request::Availability { timestamp_ms: clock });
        }
        let took = scene.reach(MINUTE);
        (took, scene.status().certifiable != CommitRef::GENESIS)
    };
    let usual = run(None);
    assert!([0, 1, u64::MAX].into_iter().all(|clock| run(Some(clock)) == usual));
}
