//! How fast a thin trace is replayed, and how large it is.

use crate::Chain;
use anyhow::{Context, Result, bail, ensure};
use soma_sync_core::{Config, Event, SyncMachine, Timestamp, payload::Payload, request::ResponsePart};
use soma_sync_proto::trace::{Replay, Step, TraceHeader, TraceReader, fingerprint, record};
use soma_sync_sim::world::{ChainStore, Pace, World};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// For how long each thing is measured.
const TIME: Duration = Duration::from_secs(2);

/// Prints a line for each way to sync.
pub(crate) fn measure(chain: &Chain) -> Result<()> {
    let small = Config { commit_sync_batch_size: 1, max_blocks_per_fetch: 10, ..Config::default() };
    println!("replaying a thin trace of a sync of {} commits:", chain.commits.len());
    println!(
        "  {:<16} {:>8} {:>9} {:>9} {:>9} {:>13} {:>13} {:>13}",
        "requests", "events", "commands", "bytes", "B/event", "replay, ev/s", "reading only", "machine only"
    );
    for (name, config) in [("large (default)", Config::default()), ("small", small)] {
        line(name, chain, config)?;
    }
    Ok(())
}

fn line(name: &str, chain: &Chain, config: Config) -> Result<()> {
    let (header, events) = recorded(chain, config)?;
    let trace = record(Vec::new(), &header, events.iter().cloned())?;
    let mut commands = 0;
    let replay = per_second(events.len(), || {
        let mut replay = Replay::new(TraceReader::open(&trace[..])?)?;
        loop {
            match replay.step()? {
                Step::Same => {}
                Step::Different(difference) => bail!("it does not replay: {difference:?}"),
                Step::Survived | Step::End => break,
            }
        }
        commands = replay.reader().commands();
        Ok(())
    })?;
    let reading = per_second(events.len(), || {
        let mut reader = TraceReader::open(&trace[..])?;
        while let Some(entry) = reader.next_entry()? {
            black_box(entry);
        }
        Ok(())
    })?;
    let machine = per_second(events.len(), || {
        let (config, start) = (header.config.clone(), header.start.clone());
        let mut machine = SyncMachine::new(config, start, header.started, header.seed)?;
        for (at, event) in &events {
            machine.handle(*at, event.clone());
            while let Some(command) = machine.poll_command() {
                black_box(command);
            }
        }
        Ok(())
    })?;
    println!(
        "  {name:<16} {:>8} {commands:>9} {:>9} {:>9.1} {replay:>13.0} {reading:>13.0} {machine:>13.0}",
        events.len(),
        trace.len(),
        trace.len() as f64 / events.len() as f64,
    );
    states(&header, &events)
}

/// How large the machine's state is on the way, and how long it takes to save and restore it.
fn states(header: &TraceHeader, events: &[(Timestamp, Event)]) -> Result<()> {
    let mut machine = header.machine()?;
    let (mut count, mut bytes, mut most) = (0_u32, 0, 0);
    let (mut saving, mut restoring) = (Duration::ZERO, Duration::ZERO);
    for (position, (at, event)) in events.iter().enumerate() {
        machine.handle(*at, event.clone());
        while let Some(command) = machine.poll_command() {
            black_box(command);
        }
        if position % 16 == 0 {
            let began = Instant::now();
            let state = machine.save().context("commands wait")?;
            saving += began.elapsed();
            let began = Instant::now();
            black_box(SyncMachine::restore(&state)?);
            restoring += began.elapsed();
            count += 1;
            bytes += state.len();
            most = most.max(state.len());
        }
    }
    let each = |all: Duration| all.as_secs_f64() * 1e6 / f64::from(count);
    println!(
        "    its state: {:.0} bytes, at most {most}; saved in {:.0} us, restored in {:.0} us",
        bytes as f64 / f64::from(count),
        each(saving),
        each(restoring),
    );
    Ok(())
}

/// What a simulated node is told that syncs the chain from three others, its payloads as a driver that records has them.
fn recorded(chain: &Chain, config: Config) -> Result<(TraceHeader, Vec<(Timestamp, Event)>)> {
    let genesis = chain.maker.genesis().clone();
    let mut world = World::new(Pace::default()).without_checks();
    let store = ChainStore::of(genesis.clone(), &[]);
    let start = store.start();
    let client = world.add(config.clone(), store);
    world.record(client);
    for _ in 0..3 {
        let server = world.add(Config::default(), ChainStore::of(genesis.clone(), &chain.commits));
        world.connect(client, server);
    }
    let tip = chain.commits.last().map(|commit| commit.header.reference);
    let done = |world: &World| Some(world.machine(client).status().certifiable) == tip;
    ensure!(world.run_until(Duration::from_secs(3_600), done), "the simulated node does not sync");
    let header = TraceHeader {
        build: "benches".to_owned(),
        full: false,
        config,
        start,
        seed: *world.peer(client).as_bytes(),
        started: Timestamp::ZERO,
        started_unix_ms: 0,
        skipped_events: 0,
        state: None,
    };
    // The verdicts of the recorded run have payloads without fingerprints, which the machine does not compare.
    let with_fingerprints = world.recorded(client).iter().cloned().map(|(at, mut event)| {
        if let Event::ResponsePart { part, .. } = &mut event {
            payloads(part).for_each(|payload| payload.set_fingerprint(fingerprint(payload.bytes())));
        }
        (at, event)
    });
    Ok((header, with_fingerprints.collect()))
}

fn payloads(part: &mut ResponsePart) -> impl Iterator<Item = &mut Payload> {
    let [first, second, third] = match part {
        ResponsePart::Commits { commits, certifiers, blocks, .. } => {
            [Some(commits), Some(certifiers), Some(blocks)]
        }
        ResponsePart::Blocks { blocks, .. } => [Some(blocks), None, None],
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => {
            [None, None, None]
        }
    };
    [first, second, third].into_iter().flatten().flatten()
}

/// Items of `run` in a second, each run being of so many.
fn per_second(items: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let (began, mut runs) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        run()?;
        runs += 1;
    }
    Ok(f64::from(runs) * items as f64 / began.elapsed().as_secs_f64())
}
