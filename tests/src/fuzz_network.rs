//! Bytes as what goes wrong in a small network: a node that is behind, one honest server whose link is bad, and one whose
//! answers are lost, held up, cut off and changed. The simulation's oracle judges all that the honest ones do; and once
//! the bytes are used up, the node must reach the tip.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use soma_sync_core::{
    Config, Status,
    committee::Committee,
    payload::Payload,
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
    types::{CommitIndex, CommitRef},
};
use soma_sync_sim::{
    chain::{ChainMaker, ChainSpec, MadeCommit},
    world::{ChainStore, Link, NodeId, Pace, Reply, World},
};
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Commits of the chain.
const COMMITS: u32 = 18;
/// Virtual time between two things that go wrong with the links.
const FAULT_EVERY: Duration = Duration::from_millis(40);
/// Virtual time in which the node must be at the tip once nothing goes wrong any more.
const RECOVERY: Duration = Duration::from_secs(600);

fn chain() -> &'static (Arc<Committee>, Vec<MadeCommit>) {
    static CHAIN: OnceLock<(Arc<Committee>, Vec<MadeCommit>)> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let spec = ChainSpec {
            commits: COMMITS,
            blocks_per_commit: 4,
            payload_bytes: 24,
            committee: 4,
            epochs: 3,
            seed: 2,
        };
        let mut maker = ChainMaker::new(spec).expect("a sound spec");
        let made = maker.by_ref().take(COMMITS as usize).collect();
        (maker.genesis().clone(), made)
    })
}

/// Runs the network through what the bytes say; the node that was behind, at the end. `None` where they do not even make
/// a network.
///
/// # Panics
///
/// When the oracle finds something wrong, or the node does not come to the tip.
pub fn mini_network(bytes: &[u8]) -> Option<Status> {
    let mut input = Unstructured::new(bytes);
    let config = config(&mut input).ok()?;
    let held = input.int_in_range(0..=COMMITS).ok()?;
    let mut rest: Vec<_> = input.take_rest().to_vec();
    let links = rest.split_off(rest.len() / 2);
    let (genesis, made) = chain();
    let store = |count: u32| ChainStore::of(genesis.clone(), &made[..count as usize]);
    let mut world = World::new(Pace::default());
    world.judged_by(made);
    let client = world.add(config, store(held));
    let (honest, bad) =
        (world.add(Config::default(), store(COMMITS)), world.add(Config::default(), store(COMMITS)));
    spoil(&mut world, bad, rest.into());
    world.connect(client, bad);
    world.connect(client, honest);
    let until = FAULT_EVERY.saturating_mul(u32::try_from(links.len()).unwrap_or(u32::MAX) + 1);
    trouble(&mut world, client, [honest, bad], links.into());
    world.run_until(until, |_| false);
    let tip = made.last().map_or(CommitRef::GENESIS, |made| made.header.reference);
    let at_tip = |world: &World| world.machine(client).status().certifiable == tip;
    let reached = world.run_until(RECOVERY, at_tip);
    assert!(reached, "not at {tip}: {:#?}", world.machine(client).status());
    assert_eq!(world.store(client).tip(), tip);
    Some(world.machine(client).status())
}

fn config(input: &mut Unstructured<'_>) -> Result<Config> {
    let batch = input.int_in_range(1..=9)?;
    Ok(Config {
        commit_sync_batch_size: batch,
        look_ahead_commits: input.int_in_range(batch..=30)?,
        max_blocks_per_fetch: input.int_in_range(1..=12)?,
        max_requests: input.int_in_range(1..=8)?,
        max_requests_per_peer: input.int_in_range(1..=4)?,
        max_verify_jobs: input.int_in_range(1..=3)?,
        max_store_batches: input.int_in_range(1..=3)?,
        follow_requests: input.int_in_range(0..=3)?,
        timeout: Duration::from_secs(input.int_in_range(1..=5)?),
        ..Config::default()
    })
}

/// Each answer of a node has a byte that says what becomes of it, and as many more as that takes. After the last of them
/// it answers as it should.
fn spoil(world: &mut World, node: NodeId, mut plan: VecDeque<u8>) {
    world.tamper(node, move |request, reply| {
        let Some(what) = plan.pop_front() else { return reply };
        let mut next = || plan.pop_front().unwrap_or(0);
        let Reply::Parts(mut parts) = reply else { return reply };
        match what % 16 {
            0 => Reply::Stuck(Vec::new()),
            1 => Reply::Stuck(parts),
            2 => Reply::Broken(parts, RequestFailure::Reset),
            3 => {
                parts.truncate(usize::from(next()) % (parts.len() + 1));
                Reply::Broken(parts, RequestFailure::Disconnected)
            }
            4 => Reply::Broken(Vec::new(), RequestFailure::Refused(RefuseReason::Unavailable)),
            5 => Reply::Broken(Vec::new(), RequestFailure::Refused(RefuseReason::Busy)),
            6 => {
                let pause = Duration::from_millis(u64::from(next()) * 40);
                Reply::Paced(parts.into_iter().map(|part| (pause, part)).collect())
            }
            7 => {
                parts.truncate(usize::from(next()) % (parts.len() + 1));
                Reply::Parts(parts)
            }
            8 => {
                parts.extend_from_within(..);
                Reply::Parts(parts)
            }
            9 => {
                parts.reverse();
                Reply::Parts(parts)
            }
            10 if matches!(request, Request::Availability { .. }) => {
                Reply::Parts(vec![claim(next(), next())])
            }
            11..=13 => {
                parts.iter_mut().for_each(|part| change(part, [next(), next(), next()]));
                Reply::Parts(parts)
            }
            _ => Reply::Parts(parts),
        }
    });
}

/// A claim about what a server has.
fn claim(highest: u8, lowest: u8) -> ResponsePart {
    let highest = if highest == u8::MAX { u32::MAX } else { u32::from(highest) };
    ResponsePart::Availability {
        highest: CommitIndex::new(highest),
        lowest: CommitIndex::new(u32::from(lowest)),
    }
}

/// Takes an item out of a message, puts one in twice, or changes a byte of one.
fn change(part: &mut ResponsePart, [list, at, how]: [u8; 3]) {
    let lists = match part {
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: _ } => {
            vec![commits, certifiers, blocks]
        }
        ResponsePart::Blocks { blocks, missing: _, buffer_bytes: _ } => vec![blocks],
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => {
            return;
        }
    };
    let count = lists.len();
    let Some(items) = lists.into_iter().nth(usize::from(list) % count).filter(|items| !items.is_empty())
    else {
        return;
    };
    let at = usize::from(at) % items.len();
    match how % 4 {
        0 => drop(items.remove(at)),
        1 => items.insert(at, items[at].clone()),
        2 => items.rotate_left(1),
        _ => {
            let mut bytes = items[at].bytes().to_vec();
            let position = (usize::from(how) * 37) % bytes.len().max(1);
            bytes.iter_mut().skip(position).take(1).for_each(|byte| *byte ^= 1 << (how % 8));
            items[at] = Payload::new(Bytes::from(bytes));
        }
    }
}

/// At each turn a byte says what happens to the links, the node or its store. At the end all is well again.
fn trouble(world: &mut World, client: NodeId, servers: [NodeId; 2], mut plan: VecDeque<u8>) {
    let usual = Link::from(Pace::default());
    world.act(FAULT_EVERY, move |world| {
        let Some(what) = plan.pop_front() else {
            world.isolate(client, false);
            world.fail_store(client, false);
            for server in servers {
                world.set_link(server, client, usual);
                world.connect(client, server);
            }
            return None;
        };
        let server = servers[usize::from(what >> 4) % 2];
        match what % 16 {
            0 => world.disconnect(client, server),
            1 | 2 => world.connect(client, server),
            3 => world.block(server, client, true),
            4 => world.block(client, server, true),
            5 => world.isolate(client, false),
            6 => world.set_link(server, client, Link { loss_per_million: 400_000, ..usual }),
            7 => world.set_link(server, client, Link { bandwidth: 20_000, ..usual }),
            8 => world.set_link(server, client, Link { latency: Duration::from_millis(700), ..usual }),
            9 => world.set_link(server, client, usual),
            10 => {
                world.restart(client, usize::from(what >> 5));
                servers.iter().for_each(|server| world.connect(client, *server));
            }
            11 => world.fail_store(client, true),
            12 => world.fail_store(client, false),
            _ => {}
        }
        Some(FAULT_EVERY)
    });
}
