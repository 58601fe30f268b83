//! What a demo takes place on: serving nodes that have a chain, and consensus that goes on with it.

use super::{
    Arguments,
    chain::{self, Consensus},
    manner::Manner,
    server::{ANY_PORT, Server, Setup},
    show::Screen,
};
use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use soma_sync_core::{
    committee::Committee,
    types::{CommitIndex, CommitRef, PeerId},
};
use soma_sync_runtime_tokio::store::RedbStore;
use soma_sync_sim::chain::ChainMaker;
use soma_sync_transport_quic::{Identity, QuicTransport};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Thirty-two bytes for the node `number` of the demo with this seed.
pub(super) fn draw(seed: u64, number: u8) -> [u8; 32] {
    let mut bytes = *b"soma-sync demo, node and seed: \0";
    let [.., place, a, b, c, d, e, f, g, h] = &mut bytes;
    *place = number;
    for (byte, value) in [a, b, c, d, e, f, g, h].into_iter().zip(seed.to_le_bytes()) {
        *byte = value;
    }
    bytes
}

/// Stores with a chain, and what goes on with it: everything before anything runs.
pub(super) struct Prepared {
    setups: Vec<Setup>,
    stores: Vec<Arc<RedbStore>>,
    maker: ChainMaker,
    tip: CommitRef,
}

impl Prepared {
    /// Makes the chain, and the serving nodes' stores in `home`.
    pub(super) fn new(
        arguments: &Arguments,
        home: &Path,
        interrupt: &Interrupt,
        screen: &mut Screen,
    ) -> Result<Self> {
        let setups = setups(arguments, home);
        let mut maker = ChainMaker::new(arguments.spec())?;
        let genesis = Arc::clone(maker.genesis());
        let stores = setups.iter().map(|setup| setup.open_store(Some(&genesis)).map(Arc::new));
        let stores = stores.collect::<Result<Vec<_>>>()?;
        let commits = arguments.commits;
        screen.say(&format!(
            "making a chain of {commits} commits of {} blocks, for {} serving nodes",
            arguments.shape.blocks_per_commit,
            setups.len()
        ));
        let mut made = 0;
        let tip = chain::fill(&stores, &mut maker, commits, || {
            made += 1;
            screen.making(made, commits);
            interrupt.check()
        })?;
        Ok(Self { setups, stores, maker, tip })
    }

    /// The committee of the first epoch.
    pub(super) const fn genesis(&self) -> &Arc<Committee> {
        self.maker.genesis()
    }

    /// Starts the serving nodes and their consensus.
    pub(super) async fn start(self) -> Result<Stage> {
        let Self { setups, stores, maker, tip } = self;
        let transports = setups.iter().map(|setup| setup.bind(ANY_PORT)).collect::<Result<Vec<_>>>()?;
        let peer = |(setup, address)| Peer::new(setup, address);
        let peers: Vec<_> =
            setups.iter().zip(transports.iter().map(QuicTransport::local_addr)).map(peer).collect();
        let consensus = Arc::new(Consensus::new(tip, setups.len()));
        let mut servers = Vec::with_capacity(setups.len());
        for ((setup, store), transport) in setups.into_iter().zip(stores).zip(transports) {
            // Nobody but the fresh node is to be bothered with lies and silence.
            let others = peers.iter().filter(|peer| peer.manner.is_honest() && peer.number != setup.number);
            let others = others.map(Peer::contact).collect();
            servers.push(Server::start(setup, transport, store, others, Arc::clone(&consensus)).await?);
        }
        let making = Arc::clone(&consensus);
        let maker = tokio::spawn(async move { making.run(maker).await });
        let tip = consensus.tip();
        Ok(Stage { peers, servers, consensus, maker, tip })
    }
}

fn setups(arguments: &Arguments, home: &Path) -> Vec<Setup> {
    let setup = |((number, manner), drawn)| Setup {
        number,
        identity: Identity::from_seed(draw(arguments.seed, drawn)),
        manner,
        directory: home.join(format!("peer-{}", number + 1)),
        config: arguments.config(),
        seed: draw(arguments.seed, drawn),
    };
    manners(arguments).into_iter().enumerate().zip(1..).map(setup).collect()
}

/// The manners that were chosen. Otherwise the honest nodes, the last of them slow where there is chaos and another one,
/// and then the lying one.
fn manners(arguments: &Arguments) -> Vec<Manner> {
    if !arguments.servers.is_empty() {
        return arguments.servers.clone();
    }
    let mut manners = vec![Manner::Honest; arguments.peers.into()];
    if arguments.with_chaos() {
        if let [_, .., last] = &mut *manners {
            *last = Manner::Slow;
        }
        manners.push(Manner::Lying);
    }
    manners
}

/// A serving node, as the fresh one knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) number: usize,
    pub(super) id: PeerId,
    pub(super) manner: Manner,
    address: SocketAddr,
}

impl Peer {
    fn new(setup: &Setup, address: SocketAddr) -> Self {
        Self { number: setup.number, id: setup.identity.peer_id(), manner: setup.manner, address }
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        format!("peer {}", self.number + 1)
    }

    /// Who it is, and where.
    pub(super) const fn contact(&self) -> (PeerId, SocketAddr) {
        (self.id, self.address)
    }
}

/// Serving nodes that run, and their consensus.
pub(super) struct Stage {
    pub(super) peers: Vec<Peer>,
    servers: Vec<Server>,
    consensus: Arc<Consensus>,
    maker: JoinHandle<Result<()>>,
    tip: watch::Receiver<CommitRef>,
}

impl Stage {
    /// The last commit that was made.
    pub(super) fn tip(&self) -> CommitRef {
        *self.tip.borrow()
    }

    /// Lets the chain end.
    pub(super) fn end_chain(&self) {
        self.consensus.stop();
    }

    /// Whether no further commit will be made.
    pub(super) fn chain_ended(&self) -> bool {
        self.maker.is_finished()
    }

    /// Takes the first serving node away for so long.
    pub(super) fn send_away(&mut self, pause: Duration) -> Option<JoinHandle<Result<Server>>> {
        let position = self.servers.iter().position(|server| server.number() == 0)?;
        Some(tokio::spawn(self.servers.swap_remove(position).be_away(pause)))
    }

    /// Takes it back.
    pub(super) fn take_back(&mut self, server: Server) {
        self.servers.push(server);
    }

    /// The lowest and the highest of the commits that honest serving nodes can certify.
    pub(super) async fn certifiable(&self) -> Result<(CommitIndex, CommitRef)> {
        let (mut lowest, mut highest) = (CommitIndex::MAX, CommitRef::GENESIS);
        for server in self.servers.iter().filter(|server| server.manner().is_honest()) {
            let certifiable = server.certifiable().await?;
            lowest = lowest.min(certifiable.index);
            highest = highest.max(certifiable);
        }
        Ok((lowest.min(highest.index), highest))
    }

    /// Stops everything, all stores closed.
    pub(super) async fn close(self) -> Result<()> {
        self.consensus.stop();
        let mut stopping: JoinSet<_> = self.servers.into_iter().map(Server::stop).collect();
        let mut stopped = self.maker.await.context("making the chain failed").flatten();
        while let Some(result) = stopping.join_next().await {
            stopped = stopped.and(result.context("stopping a serving node failed").flatten());
        }
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn there_is_no_node_that_is_prompt_and_honest() {
        use Manner::{Honest, Lying, Slow};
        let manners = |peers, no_chaos| manners(&Arguments { peers, no_chaos, ..Arguments::default() });
        assert_eq!(manners(3, true), [Honest; 3]);
        assert_eq!(manners(3, false), [Honest, Honest, Slow, Lying]);
        assert_eq!(manners(2, false), [Honest, Slow, Lying]);
        assert_eq!(manners(1, false), [Honest, Lying]);
    }

    #[test]
    fn others_serve_than_were_chosen() {
        let servers = Manner::value_variants().to_vec();
        let arguments = Arguments { servers: servers.clone(), ..Arguments::default() };
        let setups = setups(&arguments, Path::new("home"));
        assert_eq!(setups.iter().map(|setup| setup.manner).collect::<Vec<_>>(), servers);
    }

    #[test]
    fn nodes_or_demos_share_an_identity() {
        let drawn = [draw(0, 1), draw(0, 2), draw(1, 1), draw(1 << 56, 1)];
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), drawn.len());
        assert!(drawn[0].starts_with(b"soma-sync demo"));
    }
}
