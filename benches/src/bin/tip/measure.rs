//! One run: the validator is told the chain at its rate, and everything is timed.

use crate::{
    Arguments,
    chain::Chain,
    network::{Network, PATIENCE},
    report::Distribution,
    round_trip::RoundTrips,
    usage,
};
use anyhow::{Context, Result};
use soma_sync_core::types::{CommitIndex, CommitRef};
use soma_sync_runtime_tokio::broadcast::Subscription;
use std::time::{Duration, Instant};
use tokio::{sync::watch, task::JoinHandle};

/// How often the validator is looked at while it has a commit that it cannot certify yet.
const LOOK: Duration = Duration::from_millis(1);

/// What came of a run.
pub(crate) struct Measured {
    /// Commits that the validator was told.
    pub(crate) commits: u32,
    /// The highest commit that the validator could certify in the end.
    pub(crate) tip: CommitRef,
    pub(crate) followers: Vec<Followed>,
    /// Of all followers together.
    pub(crate) latency: Distribution,
    /// From telling the validator a commit to its being seen to be able to certify it.
    pub(crate) certifying: Distribution,
    /// On QUIC streams of their own, beside all the rest.
    pub(crate) round_trip: Distribution,
    /// From the first commit to the end.
    pub(crate) time: Duration,
    /// Processor time of the process in that time; `None` where the system does not say.
    pub(crate) cpu_seconds: Option<f64>,
    /// Bytes of answers that the validator sent.
    pub(crate) sent_bytes: u64,
}

/// What came of one follower.
pub(crate) struct Followed {
    /// The highest commit that it could certify in the end.
    pub(crate) tip: CommitRef,
    /// Commits that it delivered.
    pub(crate) delivered: usize,
    pub(crate) latency: Distribution,
    /// The most commits that it was seen behind.
    pub(crate) lag_max: u32,
}

impl Measured {
    /// Whether the validator can certify all that it was told, and every follower ended there.
    pub(crate) fn is_level(&self) -> bool {
        let has_all =
            |follower: &Followed| follower.tip == self.tip && follower.delivered == self.commits as usize;
        self.tip.index.get() == self.commits && self.followers.iter().all(has_all)
    }
}

/// Starts the network, runs the chain through it, and stops it.
pub(crate) async fn measure(arguments: &Arguments, chain: Chain) -> Result<Measured> {
    let network = Network::start(arguments, &chain.genesis).await?;
    let deliveries: Vec<_> = network.subscribe().into_iter().map(note_deliveries).collect();
    let round_trips = RoundTrips::start().await?;
    let (cpu_before, began) = (usage::cpu_seconds(), Instant::now());
    let (fed, feed) = watch::channel(CommitIndex::GENESIS);
    let period = Duration::from_secs(1) / arguments.commits_per_second;
    let (told, watched) =
        tokio::join!(tell(&network, &chain, period, fed), watch(&network, chain.last(), feed));
    let (told, watched) = (told?, watched?);
    let looks = || watched.looks.iter().zip(&told);
    let certified: Vec<_> = looks().map(|(looks, told)| looks.not_yet.max(*told)).collect();
    let certifying = looks().map(|(looks, told)| looks.seen.duration_since(*told)).collect();
    let (validator, followers) = network.settle().await?;
    let (time, cpu_after) = (began.elapsed(), usage::cpu_seconds());
    let round_trips = round_trips.stop().await?;
    network.shutdown().await?;

    let mut followed = Vec::with_capacity(followers.len());
    let mut all = Vec::new();
    for ((status, lag_max), delivered) in followers.iter().zip(watched.lags_max).zip(deliveries) {
        let delivered = delivered.await.context("a subscriber failed")??;
        let times = certified.iter().zip(&delivered);
        let times: Vec<_> =
            times.map(|(certified, delivered)| delivered.duration_since(*certified)).collect();
        all.extend_from_slice(&times);
        let latency = Distribution::of(times);
        followed.push(Followed { tip: status.certifiable, delivered: delivered.len(), latency, lag_max });
    }
    Ok(Measured {
        commits: chain.last().get(),
        tip: validator.certifiable,
        followers: followed,
        latency: Distribution::of(all),
        certifying: Distribution::of(certifying),
        round_trip: Distribution::of(round_trips),
        time,
        cpu_seconds: cpu_before.zip(cpu_after).map(|(before, after)| after - before),
        sent_bytes: validator.counters.sent_bytes,
    })
}

/// Notes when each commit comes, until the node stops.
fn note_deliveries(mut subscription: Subscription) -> JoinHandle<Result<Vec<Instant>>> {
    tokio::spawn(async move {
        let mut times = Vec::new();
        while let Some(sub_dag) = subscription.next().await {
            sub_dag?;
            times.push(Instant::now());
        }
        Ok(times)
    })
}

/// Tells the validator a commit each `period`, and says so before: in `fed`, and by the time of each commit.
async fn tell(
    network: &Network,
    chain: &Chain,
    period: Duration,
    fed: watch::Sender<CommitIndex>,
) -> Result<Vec<Instant>> {
    let mut due = tokio::time::interval(period);
    let mut times = Vec::with_capacity(chain.commits.len());
    for commit in &chain.commits {
        due.tick().await;
        times.push(Instant::now());
        fed.send_replace(commit.reference.index);
        network.tell(commit).await?;
    }
    Ok(times)
}

/// When the validator was looked at and could not certify a commit for the last time, and when it first could.
#[derive(Clone, Copy)]
struct Looks {
    not_yet: Instant,
    seen: Instant,
}

/// What was seen of the validator and its followers.
struct Watched {
    /// For each commit from the first on.
    looks: Vec<Looks>,
    /// The most commits that each follower was seen behind.
    lags_max: Vec<u32>,
}

/// Looks at the validator until it can certify the commit `last`, or nothing goes on.
async fn watch(
    network: &Network,
    last: CommitIndex,
    mut fed: watch::Receiver<CommitIndex>,
) -> Result<Watched> {
    let mut watched = Watched { looks: Vec::new(), lags_max: vec![0; network.followers().await?.len()] };
    let mut tip = CommitIndex::GENESIS;
    let (mut not_yet, mut progress_at) = (Instant::now(), Instant::now());
    while tip < last && progress_at.elapsed() < PATIENCE {
        if tip == *fed.borrow_and_update() {
            // There is nothing to be seen until it is told more.
            if fed.changed().await.is_err() {
                break;
            }
            progress_at = Instant::now();
        }
        let looked_at = Instant::now();
        let seen = network.validator().await?.certifiable.index;
        if seen > tip {
            watched.looks.resize(seen.get() as usize, Looks { not_yet, seen: Instant::now() });
            (tip, progress_at) = (seen, looked_at);
            watched.note_lags(network, tip).await?;
        }
        not_yet = looked_at;
        tokio::time::sleep(LOOK).await;
    }
    Ok(watched)
}

impl Watched {
    async fn note_lags(&mut self, network: &Network, tip: CommitIndex) -> Result<()> {
        let followers = network.followers().await?;
        for (most, status) in self.lags_max.iter_mut().zip(&followers) {
            *most = tip.get().saturating_sub(status.certifiable.index.get()).max(*most);
        }
        Ok(())
    }
}
