//! What a seed stands for.

use super::episode::{self, Episode};
use crate::{
    chain::ChainSpec,
    draw::Draws,
    fault::{Fault, FaultSet},
    world::{Link, Pace, Trouble},
};
use soma_sync_core::{Config, config::Limits};
use std::time::Duration;

/// What all seeds of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Nodes in all, from 2 to [`Settings::MAX_NODES`].
    pub nodes: u32,
    /// Commits of the chain, from 1 to [`Settings::MAX_COMMITS`].
    pub commits: u32,
    /// Which faults there may be.
    pub faults: FaultSet,
}

/// Settings that cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Too few nodes for anything to be fetched, or too many.
    #[error("a network has from 2 to {most} nodes, not {0}", most = Settings::MAX_NODES)]
    Nodes(u32),
    /// Nothing to fetch, or too much.
    #[error("a chain has from 1 to {most} commits, not {0}", most = Settings::MAX_COMMITS)]
    Commits(u32),
}

impl Settings {
    /// Most nodes.
    pub const MAX_NODES: u32 = 2_000;
    /// Most commits.
    pub const MAX_COMMITS: u32 = 10_000;

    /// Whether they can be run.
    ///
    /// # Errors
    ///
    /// What is out of its bounds.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if !(2..=Self::MAX_NODES).contains(&self.nodes) {
            return Err(SettingsError::Nodes(self.nodes));
        }
        if !(1..=Self::MAX_COMMITS).contains(&self.commits) {
            return Err(SettingsError::Commits(self.commits));
        }
        Ok(())
    }
}

/// What a node is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The honest server of the core: its own consensus goes on with the chain to the end.
    Anchor {
        /// Commits that it holds at first.
        held: u32,
    },
    /// A node of the core that is behind.
    Victim {
        /// Commits that it holds at first.
        held: u32,
    },
    /// An honest node outside of the core: faults go on for it.
    Outsider {
        /// Commits that it holds at first.
        held: u32,
        /// Whether its own consensus goes on with the chain.
        produces: bool,
    },
    /// A node that lies in these manners, one after the other.
    Hostile {
        /// The manners.
        manners: Vec<Fault>,
        /// From which commit on it does so where it has [`Fault::Turns`].
        turns_at: u32,
    },
}

impl Role {
    /// Whether it belongs to the core, for which faults stop.
    pub const fn is_core(&self) -> bool {
        matches!(self, Self::Anchor { .. } | Self::Victim { .. })
    }

    /// Whether it lies.
    pub const fn is_hostile(&self) -> bool {
        matches!(self, Self::Hostile { .. })
    }
}

/// A network, and what befalls it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// What it was drawn for.
    pub settings: Settings,
    /// The faults that are on.
    pub on: FaultSet,
    /// The chain.
    pub spec: ChainSpec,
    /// The nodes, by position.
    pub roles: Vec<Role>,
    /// Who is connected to whom.
    pub edges: Vec<(usize, usize)>,
    /// When the core's own faults stop.
    pub calm: Duration,
    /// When the last commit has been made.
    pub produced: Duration,
    /// What befalls messages.
    pub trouble: Trouble,
    /// What befalls nodes and links, and when.
    pub episodes: Vec<Episode>,
    /// Whether every signature is verified where it comes, and no verdict remembered: one seed in 16.
    pub verifies_anew: bool,
    /// Invariants of machines are checked after one event of so many: each one in one seed of eight.
    pub checked_every: u64,
}

/// Something of one seed in so many.
const ON_IN: u64 = 4;

impl Plan {
    /// What `seed` stands for. Every draw is a hash of the seed and of what it is for: a fault that is left out of the
    /// settings leaves everything else as it was.
    pub fn draw(seed: u64, settings: Settings) -> Self {
        let draws = Draws::new(seed);
        let is_on = |fault: &Fault| draws.draw("on", [*fault as u64, 0], 0).is_multiple_of(ON_IN);
        let on: FaultSet = settings.faults.iter().filter(is_on).collect();
        let calm = draws.millis("calm", [0, 0], 0, 3_000, 12_000);
        let produced =
            draws.between("produced", [0, 0], 0, calm.as_micros() as u64 / 5, calm.as_micros() as u64);
        let roles = roles(draws, settings, on);
        let edges = edges(draws, &roles);
        let episodes = episode::draw(draws, on, &roles, &edges, calm);
        Self {
            seed,
            settings,
            on,
            spec: spec(draws, settings.commits),
            roles,
            edges,
            calm,
            produced: Duration::from_micros(produced),
            trouble: trouble(draws, on),
            episodes,
            verifies_anew: draws.draw("anew", [0, 0], 0).is_multiple_of(16),
            checked_every: if draws.draw("checked", [0, 0], 0).is_multiple_of(8) { 1 } else { 61 },
        }
    }

    /// How long after the calm (or after the last commit was made, if that is later) the core may take to reach the tip:
    /// 30 s up to 8 nodes and 64 commits; 15 s more for every 56 nodes, and 15 s more for every 192 commits, so 60 s at
    /// 64 nodes and 256 commits.
    pub fn bound(&self) -> Duration {
        let more =
            |is: u32, from: u32, per: u32| 15_000 * u64::from(is.saturating_sub(from)) / u64::from(per);
        let Settings { nodes, commits, .. } = self.settings;
        Duration::from_millis(30_000 + more(nodes, 8, 56) + more(commits, 64, 192))
    }

    /// How many of the chain's commits there are at a moment, of which the first producer held `held` at first.
    pub(super) fn made_at(&self, held: u32, at: Duration) -> u32 {
        let left = u64::from(self.settings.commits.saturating_sub(held));
        let span = self.produced.as_micros().max(1) as u64;
        held + (left * (at.as_micros() as u64).min(span) / span) as u32
    }

    /// The configuration of a node.
    pub fn config(&self, node: usize) -> Config {
        let draws = Draws::new(self.seed);
        let draw =
            |what: &str, low: u64, high: u64| draws.between(what, [node as u64, 0], 0, low, high) as u32;
        let mut config = Config {
            commit_sync_batch_size: draw("batch", 5, 40),
            // What servers refuse as too much must be the same for all, or they blame one another for it.
            max_blocks_per_fetch: draws.between("fetch", [0, 0], 0, 5, 200) as u32,
            max_verify_jobs: draw("jobs", 2, 8),
            ..Config::default()
        };
        let has = |fault: Fault| {
            self.on.contains(fault) && draws.draw(fault.name(), [node as u64, 0], 0).is_multiple_of(2)
        };
        if has(Fault::SmallWindows) {
            config.commit_sync_batch_size = draw("small batch", 1, 4);
            config.look_ahead_commits = config.commit_sync_batch_size * draw("small window", 2, 4);
            // As many as there are peers at least: who trickles holds a place for seconds.
            config.max_requests = self.settings.nodes + draw("small requests", 0, 4);
            config.max_requests_per_peer = 1;
            config.max_store_batches = 1;
            config.max_serving_per_peer = 2;
            config.max_serving = 4;
        }
        if has(Fault::SaturatedVerifier) {
            config.max_verify_jobs = 1;
        }
        if has(Fault::TinyBudget) {
            config.limits = Limits {
                max_block_bytes: 4 * 1024,
                max_blocks_per_commit: 100,
                max_ancestors: 10,
                max_votes_per_block: 1_000,
                max_transactions_per_block: 100,
            };
            config.max_fetch_response_bytes = 64 * 1024;
            config.max_store_batch_bytes = 64 * 1024;
            config.max_buffered_bytes = config.frontier_bytes() * 2;
        } else {
            config.max_buffered_bytes = 64 * 1024 * 1024;
        }
        config
    }

    /// How fast a node works.
    pub(super) fn pace(&self, node: usize) -> Pace {
        let draws = Draws::new(self.seed);
        let draw = |what: &str, low, high| {
            Duration::from_micros(draws.between(what, [node as u64, 0], 0, low, high))
        };
        Pace { job: draw("job", 100, 4_000), store: draw("store", 500, 8_000), ..Pace::default() }
    }

    /// What a direction goes through while there are faults.
    pub(super) fn link(&self, from: usize, to: usize) -> Link {
        let draws = Draws::new(self.seed);
        let about = [from as u64, to as u64];
        let usual = self.calm_link(from, to);
        let has =
            |fault: Fault| self.on.contains(fault) && draws.draw(fault.name(), about, 0).is_multiple_of(2);
        let (latency, jitter) = if has(Fault::Delay) {
            (draws.millis("long delay", about, 0, 50, 300), draws.millis("jitter", about, 0, 10, 300))
        } else {
            (usual.latency, usual.jitter)
        };
        let bandwidth = if has(Fault::Bandwidth) {
            1_024 * draws.between("narrow", about, 0, 16, 96)
        } else {
            usual.bandwidth
        };
        Link { latency, jitter, bandwidth, loss_per_million: 0 }
    }

    /// What a direction of the core goes through once there are none.
    pub(super) fn calm_link(&self, from: usize, to: usize) -> Link {
        let draws = Draws::new(self.seed);
        let about = [from as u64, to as u64];
        Link {
            latency: draws.millis("delay", about, 0, 1, 20),
            jitter: draws.millis("small jitter", about, 0, 0, 2),
            bandwidth: draws.between("bandwidth", about, 0, 1_000_000, 100_000_000),
            loss_per_million: 0,
        }
    }
}

/// One of few chains, so that they can be kept. In those of small commits several are made in a round: some have one
/// time, and blocks vote for several.
fn spec(draws: Draws, commits: u32) -> ChainSpec {
    let seed = draws.between("chain", [0, 0], 0, 1, 2);
    let epochs = [1, 2, 4][draws.between("epochs", [0, 0], 0, 0, 2) as usize];
    ChainSpec {
        commits,
        blocks_per_commit: if seed == 1 { 5 } else { 2 },
        payload_bytes: 64,
        committee: 4,
        epochs: epochs.min(commits),
        seed,
    }
}

/// The first node is the anchor and the second a victim; of the others, the last ones are hostile.
fn roles(draws: Draws, settings: Settings, on: FaultSet) -> Vec<Role> {
    let Settings { nodes, commits, .. } = settings;
    let manners: Vec<_> = on.iter().filter(|fault| fault.is_hostile()).collect();
    let most = u64::from(nodes - 2);
    let hostile = match draws.draw("how hostile", [0, 0], 0) % 3 {
        0 => most,
        _ => draws.between("hostile", [0, 0], 0, 0, most),
    };
    let hostile = if manners.is_empty() { 0 } else { hostile };
    let role = |node: u64| {
        let about = [node, 0];
        let held = draws.between("held", about, 0, 0, u64::from(commits)) as u32;
        match node {
            0 => Role::Anchor {
                held: draws.between("begun", about, 0, u64::from(commits) / 4, u64::from(commits)) as u32,
            },
            1 => Role::Victim { held: held / 2 },
            _ if node >= u64::from(nodes) - hostile => liar(draws, node, commits, &manners),
            _ if draws.draw("victim", about, 0) % 10 < 6 => Role::Victim { held: held / 2 },
            _ => Role::Outsider { held, produces: draws.draw("produces", about, 0).is_multiple_of(2) },
        }
    };
    (0..u64::from(nodes)).map(role).collect()
}

/// A hostile node. Those of one gang have the same manners; there are up to four gangs.
fn liar(draws: Draws, node: u64, commits: u32, manners: &[Fault]) -> Role {
    let gangs = draws.between("gangs", [0, 0], 0, 1, 4);
    let gang = [draws.draw("gang", [node, 0], 0) % gangs, 0];
    let mut ranked = manners.to_vec();
    // Whoever has the lowest numbers is taken, so that one who is left out changes nothing for those who had others.
    ranked.sort_by_key(|manner| draws.draw("manner", [gang[0], *manner as u64], 0));
    ranked.truncate(draws.between("manners", gang, 0, 1, 3) as usize);
    let turns_at = draws.between("turns at", gang, 0, 1, u64::from(commits)) as u32;
    Role::Hostile { manners: ranked, turns_at }
}

/// Everybody is connected to the anchor, and to others with a chance that falls with their number. Hostile nodes leave
/// one another alone.
fn edges(draws: Draws, roles: &[Role]) -> Vec<(usize, usize)> {
    let nodes = roles.len();
    let percent = (800 / nodes as u64).clamp(8, 100);
    let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
    let linked = |(a, b): &(usize, usize)| {
        let hostile = roles[*a].is_hostile() && roles[*b].is_hostile();
        let anchored = *a == 0 && (roles[*b].is_core() || nodes <= 32);
        let drawn = draws.draw("edge", [*a as u64, *b as u64], 0) % 100 < percent;
        !hostile && (anchored || drawn)
    };
    pairs.filter(linked).collect()
}

/// What befalls messages, each at a rate from 0.1 to 5 percent.
fn trouble(draws: Draws, on: FaultSet) -> Trouble {
    let mut trouble = Trouble::default();
    let kinds = [
        Fault::Loss,
        Fault::Duplicate,
        Fault::Replay,
        Fault::Reorder,
        Fault::Reset,
        Fault::Truncate,
        Fault::WorkerDeath,
    ];
    for fault in kinds.into_iter().filter(|fault| on.contains(*fault)) {
        trouble.set(fault, draws.between("rate", [fault as u64, 0], 0, 1_000, 50_000) as u32);
    }
    trouble
}
