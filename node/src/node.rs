//! `soma-sync node`: a long-running node, or one that fetches and ends.

mod arguments;
mod report;

use crate::{chain::read_genesis, interrupt::signalled, output::print_result};
use anyhow::{Context, Result, bail};
pub(crate) use arguments::Arguments;
use arguments::Until;
use report::Report;
use soma_sync_core::{Config, command::Notice};
use soma_sync_runtime_tokio::{
    node::{Node, NodeHandle, NodeStatus},
    store::{RedbStore, Store},
    transport::Transport,
};
use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
use std::{
    io::Write,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::{error, info, warn};

/// How often a node that is to end looks whether it is there.
const LOOK: Duration = Duration::from_millis(20);
/// How often progress is said.
const SAY: Duration = Duration::from_secs(5);
/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Why a node ends.
enum End {
    /// It is where `--until` wanted it.
    There,
    /// Somebody ended it.
    Signal,
    /// The machine halted.
    Halted(String),
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(self.run_node())
    }

    async fn run_node(&self) -> Result<ExitCode> {
        let signal = signalled().context("cannot wait for signals")?;
        let genesis = self.genesis.as_deref().map(read_genesis).transpose()?;
        let store = RedbStore::open(&self.store, genesis.as_deref())?;
        let start = store.start()?;
        let transport = self.bind()?;
        if self.listen.is_some() {
            let mut stdout = std::io::stdout();
            let line = writeln!(stdout, "listening {}@{}", transport.local_id(), transport.local_addr());
            line.and_then(|()| stdout.flush()).context("cannot write to stdout")?;
        }
        let config = Config { block_verification: self.verification.into(), ..Config::default() };
        let peers = self.peers.iter().map(|peer| (peer.id, peer.address));
        let began = Instant::now();
        let node = Node::builder(Arc::new(store), transport).config(config).peers(peers).spawn().await?;
        let report = Report::new(began, start.tip.reference.index);

        let end = tokio::select! {
            () = signal => Ok(End::Signal),
            end = self.watch(&node, &report) => end,
        };
        let status = node.status().await;
        node.shutdown().await.context("the store may not be closed")?;
        self.conclude(end?, &report, &status?)
    }

    /// The transport, under the identity that is to be used.
    fn bind(&self) -> Result<QuicTransport> {
        let path = self.identity.clone().unwrap_or_else(|| self.store.join("identity"));
        let identity = Identity::load_or_create(path)?;
        let allow = (!self.allow.is_empty()).then(|| self.allow.iter().copied().collect());
        let config = QuicConfig { allow, ..QuicConfig::default() };
        Ok(QuicTransport::bind(&identity, self.listen, config)?)
    }

    /// Says what happens, until the node is where it is wanted or can go no further.
    async fn watch(&self, node: &NodeHandle, report: &Report) -> Result<End> {
        let mut notices = node.notices();
        let mut look = tokio::time::interval(LOOK);
        let mut said = Instant::now();
        let bar = report.bar();
        loop {
            tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(notice) => say(&notice),
                    Err(RecvError::Lagged(missed)) => warn!(missed, "notices were missed"),
                    Err(RecvError::Closed) => bail!("the node has stopped"),
                },
                _ = look.tick() => {
                    let status = node.status().await?;
                    report.show(&bar, &status);
                    if said.elapsed() >= SAY {
                        said = Instant::now();
                        info!("{}", report.line(&status));
                    }
                    if let Some(end) = self.end(&status) {
                        bar.finish_and_clear();
                        drain(&mut notices);
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Whether the node is to end now.
    fn end(&self, status: &NodeStatus) -> Option<End> {
        let machine = &status.machine;
        if let Some(halt) = &machine.halted {
            return Some(End::Halted(halt.to_string()));
        }
        let there = match self.until? {
            Until::Synced => machine.synced,
            Until::Index(index) => machine.certifiable.index >= index,
        };
        there.then_some(End::There)
    }

    fn conclude(&self, end: End, report: &Report, status: &NodeStatus) -> Result<ExitCode> {
        let json = self.json;
        print_result(json, &report.json(status), &report.line(status))?;
        match end {
            End::There => Ok(ExitCode::SUCCESS),
            // A node without an end in view is ended by a signal, and that is no failure.
            End::Signal if self.until.is_none() => Ok(ExitCode::SUCCESS),
            End::Signal => Ok(ExitCode::from(INTERRUPTED)),
            End::Halted(reason) => bail!("halted: {reason}"),
        }
    }
}

fn drain(notices: &mut Receiver<Notice>) {
    while let Ok(notice) = notices.try_recv() {
        say(&notice);
    }
}

fn say(notice: &Notice) {
    match notice {
        Notice::Synced { tip } => info!("synced: {tip}"),
        Notice::Behind { tip, target } => info!("behind: at {tip}, and a peer has {target}"),
        Notice::Stalled(stall) => warn!("stalled: {stall}"),
        Notice::Resumed => info!("going on"),
        Notice::CommitteeWanted { epoch } => warn!("the committee of epoch {epoch} is wanted"),
        Notice::ObservedRefused(error) => warn!("{error}"),
        Notice::Halted(halt) => error!("halted: {halt}"),
    }
}
