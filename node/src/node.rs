//! `soma-sync node`: a long-running node, or one that fetches and ends.

mod arguments;
mod metrics;
mod report;
mod settings;
mod store_health;

use crate::{
    chain::read_genesis,
    cli::WrongUsage,
    interrupt::{Asked, signalled},
    output::print_result,
};
use anyhow::{Context, Result, bail};
use arguments::Until;
pub(crate) use arguments::{Arguments, Verification};
use report::Report;
use settings::Settings;
use soma_sync_runtime_tokio::{
    node::{Node, NodeHandle, NodeStatus},
    record::{Keep, TraceConfig},
    store::{RedbStore, Store},
    transport::Transport,
};
use soma_sync_transport_quic::{Identity, QuicTransport};
use std::{
    convert::Infallible,
    fmt::Display,
    io::Write,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use store_health::StoreHealth;
use tokio::sync::watch;
use tracing::{debug, info};

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
    /// The store fails whatever is tried.
    StoreFailed,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let settings = Settings::resolve(self.config.as_deref(), &self.settings)?;
        if self.print_config {
            say(settings.print().trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(self.run_node(settings))
    }

    async fn run_node(&self, settings: Settings) -> Result<ExitCode> {
        let signal = signalled().context("cannot wait for signals")?;
        let directory = settings
            .store
            .as_deref()
            .ok_or_else(|| WrongUsage("say where the store is: --store DIR".into()))?;
        let genesis = settings.genesis.as_deref().map(read_genesis).transpose()?;
        let store = RedbStore::open_with(directory, genesis.as_deref(), settings.store_file)?;
        let start = store.start()?;
        let metrics = match settings.metrics {
            Some(address) => Some(metrics::bind(address).await?),
            None => None,
        };
        let transport = bind(&settings, directory)?;
        if settings.listen.is_some() {
            say(format_args!("listening {}@{}", transport.local_id(), transport.local_addr()))?;
        }
        let report = Report::new(Instant::now(), start.tip.reference.index);
        let mut node = Node::builder(Arc::new(store), transport)
            .config(settings.sync.clone())
            .runtime_config(settings.runtime)
            .peers(settings.peers.iter().map(|peer| (peer.id, peer.address)));
        if let Some(trace) = self.trace_config() {
            node = node.trace(trace);
        }
        let node = node.spawn().await?;
        let (publish, published) = watch::channel(node.status().await?);
        let (ask, questions) = metrics::questions();
        if let Some(listener) = metrics {
            let ready = metrics::Ready {
                look_ahead: settings.sync.look_ahead_commits,
                alone: settings.peers.is_empty(),
            };
            info!("metrics at http://{}", listener.local_addr()?);
            metrics::serve(listener, published, ask, report, ready);
        }

        let end = tokio::select! {
            () = signal => Ok(End::Signal),
            end = self.watch(&node, &report, &publish) => end,
            never = metrics::answer(&node, questions) => match never {},
            failed = write_trace_when_asked(&node) => failed.map(|never| match never {}),
        };
        let status = node.status().await;
        node.shutdown().await.context("the store may not be closed")?;
        self.conclude(end?, &report, &status?)
    }

    /// What is recorded, if anything.
    fn trace_config(&self) -> Option<TraceConfig> {
        let keep = self
            .trace_last
            .map_or(Keep::All, |bytes| Keep::Last { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) });
        self.trace.as_ref().map(|file| TraceConfig {
            build: concat!("soma-sync ", env!("CARGO_PKG_VERSION")).to_owned(),
            full: self.trace_full,
            keep,
            ..TraceConfig::new(file)
        })
    }

    /// Looks at the node until it is where it is wanted or can go no further.
    async fn watch(
        &self,
        node: &NodeHandle,
        report: &Report,
        publish: &watch::Sender<NodeStatus>,
    ) -> Result<End> {
        let mut look = tokio::time::interval(LOOK);
        let mut said = Instant::now();
        let mut store = StoreHealth::new(node.notices());
        let mut durable = None;
        let bar = report.bar();
        loop {
            look.tick().await;
            let status = node.status().await?;
            report.show(&bar, &status);
            if said.elapsed() >= SAY {
                said = Instant::now();
                info!("{}", report.line(&status));
            }
            if durable.replace(status.machine.durable) != Some(status.machine.durable) {
                debug!("stored through commit {}", status.machine.durable);
            }
            let end =
                self.end(&status, store.look(Instant::now(), status.machine.durable, status.machine.stall));
            publish.send_replace(status);
            if let Some(end) = end {
                bar.finish_and_clear();
                return Ok(end);
            }
        }
    }

    /// Whether the node is to end now.
    fn end(&self, status: &NodeStatus, store_works: bool) -> Option<End> {
        let machine = &status.machine;
        if let Some(halt) = &machine.halted {
            return Some(End::Halted(halt.to_string()));
        }
        let until = self.until?;
        if !store_works {
            return Some(End::StoreFailed);
        }
        let there = match until {
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
            End::StoreFailed => {
                bail!(
                    "the store failed again and again, as the log says: make room, and start again to go on"
                )
            }
        }
    }
}

/// Has what a recording holds in memory written whenever SIGUSR1 comes.
async fn write_trace_when_asked(node: &NodeHandle) -> Result<Infallible> {
    let mut asked = Asked::new().context("cannot wait for signals")?;
    loop {
        asked.next().await;
        // What became of it the log says.
        if node.write_trace().await?.is_none() {
            info!("nothing is recorded in memory");
        }
    }
}

/// The transport, under the identity that is to be used.
fn bind(settings: &Settings, directory: &Path) -> Result<QuicTransport> {
    let path = settings.identity.clone().unwrap_or_else(|| directory.join("identity"));
    let identity = Identity::load_or_create(path)?;
    Ok(QuicTransport::bind(&identity, settings.listen, settings.quic.clone())?)
}

/// Prints what somebody waits for.
fn say(text: impl Display) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).context("cannot write to stdout")
}
