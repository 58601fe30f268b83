//! The hash of a machine's state.

mod common;

use common::Chain;
use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    request::{Request, ResponsePart},
    types::{CommitIndex, PeerId},
};

/// What a machine is told: two peers connect, and the first one says which chain it is on, and that it has 20 commits.
fn events(chain: &Chain) -> [Event; 6] {
    let (first, second) = (PeerId::new([1; 32]), PeerId::new([2; 32]));
    let chain_id = Some(chain.genesis.chain_id());
    let claim = ResponsePart::Availability { highest: CommitIndex::new(20), lowest: CommitIndex::ZERO };
    let id = soma_sync_core::event::RequestId::new;
    [
        Event::PeerConnected { peer: first },
        Event::ResponsePart { id: id(0), part: ResponsePart::CommitInfo { commit: None, chain_id } },
        Event::RequestFinished { id: id(0), result: Ok(()) },
        Event::ResponsePart { id: id(1), part: claim },
        Event::RequestFinished { id: id(1), result: Ok(()) },
        Event::PeerConnected { peer: second },
    ]
}

/// A machine that was told the first so many, a millisecond apart, and what it asked peers for.
fn driven(chain: &Chain, count: usize) -> (SyncMachine, Vec<Request>) {
    let start = chain.first(0).start();
    let mut machine = SyncMachine::new(Config::default(), start, Timestamp::ZERO, [7; 32]).unwrap();
    let mut asked = Vec::new();
    for (at, event) in (1..).zip(events(chain).into_iter().take(count)) {
        machine.handle(Timestamp::from_micros(at * 1_000), event);
        while let Some(command) = machine.poll_command() {
            if let Command::SendRequest { request, .. } = command {
                asked.push(request);
            }
        }
    }
    (machine, asked)
}

#[test]
fn equal_states_have_different_hashes() {
    let chain = Chain::of(20, 1);
    let (machine, _) = driven(&chain, 6);
    assert_eq!(machine.state_hash(), driven(&chain, 6).0.state_hash());
    assert_eq!(machine.state_hash(), machine.clone().state_hash());
}

#[test]
fn an_event_more_or_a_command_not_taken_leaves_the_hash_as_it_was() {
    let chain = Chain::of(20, 1);
    let mut hashes: Vec<_> = (0..=6).map(|count| driven(&chain, count).0.state_hash()).collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 7);
    let (mut machine, _) = driven(&chain, 0);
    machine.handle(Timestamp::from_micros(1_000), Event::PeerConnected { peer: PeerId::new([1; 32]) });
    assert_ne!(machine.state_hash(), driven(&chain, 1).0.state_hash());
}

/// Changes whenever the machine's state has other fields or the scenario goes another way; then, and only then, a new
/// value belongs here. It must be the same on every platform and in every profile. Chains with real BLS keys are others.
#[cfg(not(feature = "bls"))]
#[test]
fn the_hash_of_a_fixed_scenario_depends_on_where_it_is_computed() {
    let (machine, asked) = driven(&Chain::of(20, 1), 6);
    assert!(asked.iter().any(|request| matches!(request, Request::Commits(_))), "{asked:?}");
    let hex: String = machine.state_hash().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "752b0025920879d4d2280b9463bd9a68ffed1b20ce07230f21734908e08e6789");
}
