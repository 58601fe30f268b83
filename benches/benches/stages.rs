//! What each stage of a sync costs by itself, on blocks of 512 B and a committee of 4: decoding, digests, signatures,
//! and the machine's own work for one event.
#![allow(missing_docs, reason = "the harness's macros make undocumented items")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use soma_sync_core::{
    Config, Event, SyncMachine, Timestamp,
    block::BlockView,
    config::{BlockVerification, Limits},
    job::{CheckJob, Job},
    types::CommitIndex,
};
use soma_sync_sim::{
    chain::{ChainMaker, ChainSpec, MadeCommit},
    world::{ChainStore, Pace, World},
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const SPEC: ChainSpec =
    ChainSpec { commits: 500, blocks_per_commit: 10, payload_bytes: 512, committee: 4, epochs: 1, seed: 1 };

fn chain() -> (ChainMaker, Vec<MadeCommit>) {
    let mut maker = ChainMaker::new(SPEC).expect("a valid spec");
    let commits = maker.by_ref().take(SPEC.commits as usize).collect();
    (maker, commits)
}

fn check_job(commits: &[MadeCommit], mode: BlockVerification) -> Job {
    let blocks: Vec<_> = commits.iter().flat_map(|made| &made.blocks).take(256).collect();
    Job::Check(Box::new(CheckJob {
        refs: blocks.iter().map(|block| block.reference).collect(),
        blocks: blocks.iter().map(|block| block.payload.clone()).collect(),
        committee: commits[0].committee.clone(),
        mode,
        limits: Limits::default(),
    }))
}

/// A machine at the start of a bulk sync, and the events that bring it to the tip.
fn bulk(maker: &ChainMaker, commits: &[MadeCommit]) -> (SyncMachine, Vec<(Timestamp, Event)>) {
    let mut world = World::new(Pace::default()).without_checks();
    let client = world.add(Config::default(), ChainStore::new(maker.genesis().clone()));
    let start = world.machine(client).clone();
    world.record(client);
    for _ in 0..3 {
        let server = world.add(Config::default(), ChainStore::of(maker.genesis().clone(), commits));
        world.connect(client, server);
    }
    let tip = CommitIndex::new(SPEC.commits);
    assert!(
        world.run_until(Duration::from_secs(60), |world| world.machine(client).status().certifiable.index
            == tip)
    );
    (start, world.recorded(client).to_vec())
}

fn stages(criterion: &mut Criterion) {
    let (maker, commits) = chain();
    let mut group = criterion.benchmark_group("per block");
    group.throughput(Throughput::Elements(256));
    for (name, mode) in
        [("check 256, full", BlockVerification::Full), ("check 256, digest", BlockVerification::Digest)]
    {
        let job = check_job(&commits, mode);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| job.clone(), |job| black_box(job.run([7; 32])), BatchSize::SmallInput);
        });
    }
    group.throughput(Throughput::Elements(1));
    let block = commits[0].blocks[0].payload.bytes().clone();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| black_box(BlockView::decode(black_box(&block), &Limits::default())));
    });
    group.finish();

    let (start, events) = bulk(&maker, &commits);
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("handle, per event of a bulk sync", |bencher| {
        bencher.iter_batched(
            || (start.clone(), events.clone()),
            |(mut machine, events)| {
                for (now, event) in events {
                    machine.handle(now, event);
                    while let Some(command) = machine.poll_command() {
                        black_box(command);
                    }
                }
                machine
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// How long the events of one sync take, each by itself: most of them are small, and a few carry a thousand blocks.
fn distribution(_: &mut Criterion) {
    const RUNS: usize = 20;
    let (maker, commits) = chain();
    let (start, events) = bulk(&maker, &commits);
    let mut nanoseconds = Vec::with_capacity(events.len() * RUNS);
    for _ in 0..RUNS {
        let (mut machine, events) = (start.clone(), events.clone());
        let mut commands = Vec::new();
        for (now, event) in events {
            let began = Instant::now();
            machine.handle(now, event);
            commands.extend(std::iter::from_fn(|| machine.poll_command()));
            nanoseconds.push(began.elapsed().as_nanos());
            commands.clear();
        }
    }
    nanoseconds.sort_unstable();
    let at = |part: usize| nanoseconds[(nanoseconds.len() - 1) * part / 100] as f64 / 1000.0;
    println!(
        "handle, {} events of a bulk sync, microseconds each: median {:.2}, p90 {:.2}, p99 {:.2}, most {:.2}\n",
        events.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

criterion_group!(benches, stages, distribution);
criterion_main!(benches);
