//! What hostile nodes do of their own accord.

use crate::world::{NodeId, World};
use soma_sync_core::{request::Request, types::CommitIndex};
use std::time::Duration;

/// Pushes to another node, without end, one index higher each time.
pub fn flood_pushes(world: &mut World, from: NodeId, to: NodeId, every: Duration) {
    let mut index = CommitIndex::new(1_000_000);
    world.set_hostile(from);
    world.act(every, move |world| {
        index = index.saturating_add(1);
        world.ask(from, to, Request::Push { index });
        Some(every)
    });
}

/// Sends these requests to another node over and over, without end.
pub fn flood_requests(world: &mut World, from: NodeId, to: NodeId, every: Duration, requests: Vec<Request>) {
    world.set_hostile(from);
    let mut turns = requests.into_iter().cycle();
    world.act(every, move |world| {
        let request = turns.next()?;
        world.ask(from, to, request);
        Some(every)
    });
}

/// Connects again whenever it was disconnected, ban or no ban.
pub fn keep_reconnecting(world: &mut World, from: NodeId, to: NodeId, every: Duration) {
    world.set_hostile(from);
    world.act(every, move |world| {
        world.connect(from, to);
        Some(every)
    });
}
