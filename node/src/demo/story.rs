//! What happens in a demo, in order.
//!
//! ```text
//!            lies and silence       all but a second's        the live time is over,
//!            are found out          commits are there         everybody is back
//!   meeting ──────────────▶ catching up ──────────▶ following ──────────▶ settling ─▶ the fresh node and all
//!                             │                                                       serving nodes are level
//!                             └ at half the chain, the first serving node goes away
//! ```

use super::{
    Arguments,
    manner::Manner,
    meter::Meter,
    outcome::{CatchUp, End, Outcome, PeerOutcome},
    server::Server,
    show::Screen,
    stage::{Peer, Prepared, Stage, draw},
    usage::Usage,
};
use crate::{
    chain::{Good, verify_store},
    interrupt::Interrupt,
};
use anyhow::{Context, Result};
use soma_sync_core::{
    Status,
    command::Notice,
    types::{CommitIndex, CommitRef},
};
use soma_sync_runtime_tokio::{
    node::{Node, NodeHandle},
    record::TraceConfig,
    store::RedbStore,
};
use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::broadcast::{Receiver, error::TryRecvError},
    task::JoinHandle,
};

/// How often is looked at the fresh node.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to find out the nodes that lie or are silent, before the others are met anyway.
const MEET_PATIENCE: Duration = Duration::from_secs(20);
/// A node that is this many commits behind, about a second's, has caught up.
const CLOSE_COMMITS: u32 = 20;
/// How long a serving node is away.
const AWAY: Duration = Duration::from_secs(1);
/// After so long without any progress the demo has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// The fresh node's number, beside those of the serving ones.
const FRESH: u8 = 0;

/// Runs the demo, with its stores in `home`.
pub(super) fn tell(
    arguments: &Arguments,
    home: &Path,
    interrupt: &Interrupt,
    screen: &mut Screen,
) -> Result<Outcome> {
    let prepared = Prepared::new(arguments, home, interrupt, screen)?;
    let fresh = home.join("fresh");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let mut outcome = runtime.block_on(play(arguments, prepared, &fresh, interrupt, screen))?;
    drop(runtime);
    if outcome.end != End::Interrupted {
        screen.say("verifying the fresh node's store from genesis on");
        screen.clear();
        let verified = verify(&fresh, outcome.tip, interrupt);
        if interrupt.came() {
            outcome.end = End::Interrupted;
        } else {
            outcome.verified = Some(verified.map_err(|error| error.to_string()));
        }
    }
    screen.clear();
    outcome.usage = Usage::now();
    Ok(outcome)
}

/// Verifies a store as `chain verify` does; its tip must be the one that the node had.
fn verify(directory: &Path, tip: CommitRef, interrupt: &Interrupt) -> Result<()> {
    let mut good = Good::NOTHING;
    verify_store(directory, interrupt, &mut good)?;
    anyhow::ensure!(good.tip == tip, "the store ends with {}, and the node had {tip}", good.tip);
    Ok(())
}

async fn play(
    arguments: &Arguments,
    prepared: Prepared,
    fresh: &Path,
    interrupt: &Interrupt,
    screen: &mut Screen,
) -> Result<Outcome> {
    let store = RedbStore::open(fresh, Some(prepared.genesis()))?;
    let stage = prepared.start().await?;
    let mut story = Story::begin(arguments, stage, store, interrupt, screen).await?;
    let end = story.run().await;
    story.close(end).await
}

/// What the fresh node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// It has met only those that lie or are silent.
    Meeting {
        until: Instant,
    },
    CatchingUp,
    Following {
        until: Instant,
    },
    Settling,
}

/// What becomes of the first serving node.
enum Outage {
    /// It goes away at half the chain, or never.
    Ahead { wanted: bool },
    /// It will be back.
    Away(JoinHandle<Result<Server>>),
    /// It is back.
    Over,
}

struct Story<'a> {
    arguments: &'a Arguments,
    interrupt: &'a Interrupt,
    screen: &'a mut Screen,
    stage: Stage,
    peers: Vec<Peer>,
    fresh: NodeHandle,
    notices: Receiver<Notice>,
    meter: Meter,
    began: Instant,
    act: Act,
    outage: Outage,
    catch_up: Option<CatchUp>,
    /// The last progress: of what, and when.
    progress: (CommitIndex, Act),
    progress_at: Instant,
}

impl<'a> Story<'a> {
    /// Starts the fresh node.
    async fn begin(
        arguments: &'a Arguments,
        stage: Stage,
        store: RedbStore,
        interrupt: &'a Interrupt,
        screen: &'a mut Screen,
    ) -> Result<Self> {
        let identity = Identity::from_seed(draw(arguments.seed, FRESH));
        let transport = QuicTransport::bind(&identity, None, QuicConfig::default())?;
        let peers = stage.peers.clone();
        let all_honest = peers.iter().all(|peer| peer.manner.is_honest());
        let first = peers.iter().filter(|peer| peer.manner.is_honest() == all_honest).map(Peer::contact);
        let mut fresh = Node::builder(Arc::new(store), transport)
            .config(arguments.config())
            .seed(draw(arguments.seed, FRESH))
            .peers(first);
        if let Some(file) = &arguments.trace {
            fresh = fresh.trace(TraceConfig::new(file));
        }
        let fresh = fresh.spawn().await?;
        screen.say("a fresh node starts with nothing but the genesis committee");
        let now = Instant::now();
        let act = if all_honest { Act::CatchingUp } else { Act::Meeting { until: now + MEET_PATIENCE } };
        Ok(Self {
            arguments,
            interrupt,
            screen,
            meter: Meter::new(peers.clone()),
            peers,
            notices: fresh.notices(),
            fresh,
            began: now,
            act,
            outage: Outage::Ahead { wanted: arguments.with_chaos() },
            catch_up: None,
            progress: (CommitIndex::GENESIS, act),
            progress_at: now,
            stage,
        })
    }

    async fn run(&mut self) -> Result<End> {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            if self.interrupt.came() {
                return Ok(End::Interrupted);
            }
            if let Some(end) = self.step().await? {
                return Ok(end);
            }
        }
    }

    /// Looks, and does what is to be done now.
    async fn step(&mut self) -> Result<Option<End>> {
        let status = self.fresh.status().await?.machine;
        self.show(&status);
        if let Some(halt) = &status.halted {
            return Ok(Some(End::Failed(format!("the fresh node has halted: {halt}"))));
        }
        self.let_fail(&status).await?;
        match self.act {
            Act::Meeting { until } => self.meet(&status, until).await?,
            Act::CatchingUp => self.look_whether_caught_up(&status),
            Act::Following { until } => {
                let everybody_is_here =
                    !matches!(self.outage, Outage::Ahead { wanted: true } | Outage::Away(_));
                if Instant::now() >= until && everybody_is_here {
                    self.stage.end_chain();
                    self.act = Act::Settling;
                }
            }
            Act::Settling => {
                if self.is_level(&status).await? {
                    return Ok(Some(End::Done));
                }
            }
        }
        Ok(self.is_stuck(&status).then(|| {
            let seconds = PATIENCE.as_secs();
            End::Failed(format!(
                "nothing went on for {seconds} s, at {} of {}",
                status.certifiable,
                self.stage.tip()
            ))
        }))
    }

    fn show(&mut self, status: &Status) {
        let target = self.stage.tip().index.get();
        let (view, news) = self.meter.look(Instant::now(), status, target);
        for text in news {
            self.screen.say(&text);
        }
        loop {
            match self.notices.try_recv() {
                Ok(Notice::Stalled(stall)) => self.screen.say(&format!("stalled: {stall}")),
                Ok(Notice::Resumed) => self.screen.say("going on"),
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.screen.show(&view);
    }

    /// Takes the first serving node away at half the chain, and back.
    async fn let_fail(&mut self, status: &Status) -> Result<()> {
        match &mut self.outage {
            Outage::Ahead { wanted: true }
                if status.certifiable.index.get() >= self.arguments.commits.div_ceil(2) =>
            {
                self.screen.say("half-way: peer 1 is stopped");
                self.outage = self.stage.send_away(AWAY).map_or(Outage::Over, Outage::Away);
            }
            Outage::Away(server) if server.is_finished() => {
                let server = server.await.context("starting a serving node again failed").flatten()?;
                self.stage.take_back(server);
                self.screen.say("peer 1 is started again");
                self.outage = Outage::Over;
            }
            Outage::Ahead { .. } | Outage::Away(_) | Outage::Over => {}
        }
        Ok(())
    }

    /// Once each of the first peers has shown its manner, the others are met.
    async fn meet(&mut self, status: &Status, until: Instant) -> Result<()> {
        let found_out = |peer: &Peer| {
            let record = status.peers.iter().find(|record| record.id == peer.id);
            record.is_some_and(|record| match peer.manner {
                Manner::Honest | Manner::Slow => true,
                Manner::Silent => record.timeouts > 0,
                Manner::Lying => record.offences > 0,
            })
        };
        let mut first = self.peers.iter().filter(|peer| !peer.manner.is_honest());
        if first.all(found_out) || Instant::now() >= until {
            let others = self.peers.iter().filter(|peer| peer.manner.is_honest());
            for (peer, address) in others.map(Peer::contact) {
                self.fresh.add_peer(peer, address).await?;
            }
            self.act = Act::CatchingUp;
        }
        Ok(())
    }

    fn look_whether_caught_up(&mut self, status: &Status) {
        let height = status.certifiable.index;
        let close = height.saturating_add(CLOSE_COMMITS) >= self.stage.tip().index;
        if close && height.get() >= self.arguments.commits {
            let time = self.began.elapsed();
            self.catch_up = Some(self.caught_up(status, time));
            self.screen.say(&format!("caught up in {:.2} s; following the tip", time.as_secs_f64()));
            let live = Duration::from_secs(self.arguments.live_seconds.into());
            self.act = Act::Following { until: Instant::now() + live };
        }
    }

    /// How far the fresh node has come since it started.
    fn caught_up(&self, status: &Status, time: Duration) -> CatchUp {
        let commits = u64::from(status.certifiable.index.get());
        CatchUp {
            commits,
            blocks: commits * u64::from(self.arguments.shape.blocks_per_commit),
            bytes: status.peers.iter().map(|peer| peer.served_bytes).sum(),
            time,
        }
    }

    /// Whether the chain has ended, and every node that is honest can certify its tip.
    async fn is_level(&self, status: &Status) -> Result<bool> {
        if !self.stage.chain_ended() {
            return Ok(false);
        }
        let tip = self.stage.tip();
        let (lowest, highest) = self.stage.certifiable().await?;
        Ok(lowest == tip.index && highest == tip && status.certifiable == tip)
    }

    /// Whether nothing has gone on for long.
    fn is_stuck(&mut self, status: &Status) -> bool {
        let progress = (status.certifiable.index, self.act);
        if progress != self.progress {
            self.progress = progress;
            self.progress_at = Instant::now();
        }
        self.progress_at.elapsed() >= PATIENCE
    }

    /// Stops everything, all stores closed, and says what came of it.
    async fn close(self, end: Result<End>) -> Result<Outcome> {
        let time = self.began.elapsed();
        let status = self.fresh.status().await;
        let certifiable = self.stage.certifiable().await;
        let outcome = status.map(|status| self.outcome(&status.machine, time));
        let Self { mut stage, fresh, outage, .. } = self;
        let mut closed = fresh.shutdown().await.context("the fresh node did not stop");
        if let Outage::Away(server) = outage {
            let back = server.await.context("starting a serving node again failed").flatten();
            closed = closed.and(back.map(|server| stage.take_back(server)));
        }
        closed = closed.and(stage.close().await);
        let (end, (_, server_tip)) = (end?, certifiable?);
        let outcome = outcome?;
        closed.map(|()| Outcome { end, server_tip, ..outcome })
    }

    /// What is to be said while everything runs still.
    fn outcome(&self, status: &Status, time: Duration) -> Outcome {
        let was_away = !matches!(self.outage, Outage::Ahead { .. });
        let peer = |peer: &Peer| {
            let record = status.peers.iter().find(|record| record.id == peer.id);
            PeerOutcome {
                number: peer.number,
                id: peer.id,
                manner: peer.manner,
                was_away: was_away && peer.number == 0,
                served_commits: record.map_or(0, |record| record.served_commits),
                served_bytes: record.map_or(0, |record| record.served_bytes),
                timeouts: record.map_or(0, |record| record.timeouts),
                offences: record.map_or(0, |record| record.offences),
                last_offence: record.and_then(|record| record.last_offence),
            }
        };
        Outcome {
            end: End::Interrupted,
            tip: status.certifiable,
            server_tip: self.stage.tip(),
            catch_up: self.catch_up.unwrap_or_else(|| self.caught_up(status, time)),
            max_buffered_bytes: status.buffered_bytes_peak,
            peers: self.peers.iter().map(peer).collect(),
            verified: None,
            usage: Usage::now(),
        }
    }
}
