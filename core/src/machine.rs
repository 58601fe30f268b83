//! The machine: a value that turns events into commands.
//!
//! This file has its state, its construction and the one match over events. What each event leads to lives in the files
//! below `machine/`: what to send next in `dispatch`, and when to ask a second peer in `head`, outbound requests in
//! `requests`, those in flight in `in_flight` and their answers in `answers`, verdicts in `verdicts`, storage and
//! broadcast in `apply`, our own consensus in `local`, peers' requests to us in `inbound`, and what is reported in
//! `status` and `explain`.

mod answers;
mod apply;
mod dispatch;
mod explain;
mod head;
mod in_flight;
mod inbound;
mod local;
mod normal;
mod requests;
#[cfg(feature = "trace")]
mod saved;
mod status;
mod verdicts;

pub use status::{Counters, PeerStatus, Status};

use crate::{
    bug::{Bug, has},
    command::{BatchId, Command, Halt, Notice, Offence, Stall},
    committee::{Committee, InvalidNextCommittee},
    config::{Config, ConfigError},
    event::{Event, JobId, RequestId},
    job::CheckedBlock,
    ledger::{BufferId, Ledger},
    parking::Parking,
    peers::{Link, PeerBook},
    recent::Recent,
    rng::Rng,
    serve::Serve,
    start::{Start, Tip},
    time::Timestamp,
    types::{BlockRef, ChainId, CommitIndex, CommitRef, Epoch, PeerId},
    verified::Verified,
    votes::VoteBook,
    window::Window,
};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use apply::Outstanding;
use head::Head;
use in_flight::InFlights;
use local::Observing;
use verdicts::{JobRecord, Jobs};

/// The state synchronization of one node.
///
/// Fed by [`handle`](Self::handle); drained by [`poll_command`](Self::poll_command), which is called until it says
/// `None` before the next event; [`poll_timeout`](Self::poll_timeout) says when to send [`Event::Tick`] if nothing else
/// happens. The crate's documentation has the contract and a loop that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyncMachine {
    config: Config,
    chain_id: ChainId,
    now: Timestamp,
    rng: Rng,

    /// The last commit handed to storage: the watermark `queued`.
    tip: Tip,
    recent: Recent,
    /// The last commit of which storage has said that it is durable.
    durable: CommitIndex,
    /// The last commit that was handed to subscribers. A store that is opened again as an older copy of itself does not
    /// take it back.
    broadcast: CommitIndex,
    /// The last commit that every subscriber has taken.
    delivered: CommitIndex,
    lowest_available: CommitIndex,
    votes: VoteBook,
    committees: BTreeMap<Epoch, Arc<Committee>>,
    /// The block that ended the last epoch, where no committee can be made of what it names.
    invalid_committee: Option<(BlockRef, InvalidNextCommittee)>,

    window: Window,
    /// Commits from here on are said to be of an epoch that is not known to have begun: they are not asked for.
    later_epoch_from: Option<CommitIndex>,
    /// A commit whose votes did not fit the usual answer, and the bytes to allow for it.
    enlarged: Option<(CommitIndex, u64)>,
    /// When anything last came from any peer.
    heard: Timestamp,
    /// Until when nothing is fetched, because requests failed on our side.
    local_rest_until: Timestamp,
    head: Head,
    ledger: Ledger,
    peers: PeerBook,
    requests: InFlights,
    jobs: Jobs,
    observing: Observing,
    outstanding: VecDeque<Outstanding>,
    /// Blocks with votes that wait for the next batch.
    pending_votes: Vec<(Verified<CheckedBlock>, BufferId)>,
    /// When our own consensus last told us of a commit.
    observed_at: Option<Timestamp>,
    serve: Serve,
    parking: Parking,

    commands: VecDeque<Command>,
    next_request: u64,
    next_job: u64,
    next_batch: u64,

    store_failed: bool,
    stall: Option<Stall>,
    synced: bool,
    /// When the chain last grew; a peer's word is news only if it is younger.
    grown: Timestamp,
    halted: Option<Box<Halt>>,
    counters: Counters,
}
saved! { struct SyncMachine {
    config, chain_id, now, rng, tip, recent, durable, broadcast, delivered, lowest_available, votes, committees,
    invalid_committee, window, later_epoch_from, enlarged, heard, local_rest_until, head, ledger, peers, requests,
    jobs, observing, outstanding, pending_votes, observed_at, serve, parking, next_request, next_job, next_batch,
    store_failed, stall, synced, grown, halted, counters; no commands
} }

/// Why a machine cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NewError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What storage says does not hang together.
    #[error("the state of storage does not hang together: {0}")]
    Start(&'static str),
}

impl SyncMachine {
    /// A machine that goes on from `start`. Everything that it draws at random comes from `seed`.
    ///
    /// # Errors
    /// Where a field of `config` cannot work, or `start` does not hang together.
    pub fn new(config: Config, start: Start, now: Timestamp, seed: [u8; 32]) -> Result<Self, NewError> {
        config.validate()?;
        check_start(&start).map_err(NewError::Start)?;
        let ledger = Ledger::new(config.max_buffered_bytes, config.frontier_bytes());
        let mut machine = Self {
            chain_id: start.chain_id,
            now,
            rng: Rng::new(seed),
            tip: start.tip,
            recent: Recent::new(start.tip.reference, start.tip.epoch),
            durable: start.tip.reference.index,
            broadcast: start.tip.reference.index.saturating_add(u32::from(has(Bug::RestartSkipsOne))),
            delivered: start.tip.reference.index,
            lowest_available: start.lowest_available,
            votes: VoteBook::new(start.certifiable, config.look_ahead_commits),
            committees: BTreeMap::new(),
            invalid_committee: None,
            window: Window::default(),
            later_epoch_from: None,
            enlarged: None,
            heard: now,
            local_rest_until: Timestamp::ZERO,
            head: Head::default(),
            ledger,
            peers: PeerBook::new(&config),
            requests: InFlights::default(),
            jobs: Jobs::default(),
            observing: Observing::default(),
            outstanding: VecDeque::new(),
            pending_votes: Vec::new(),
            observed_at: None,
            serve: Serve::new(&config),
            parking: Parking::default(),
            commands: VecDeque::new(),
            next_request: 0,
            next_job: 0,
            next_batch: 0,
            store_failed: false,
            stall: None,
            synced: false,
            grown: now,
            halted: None,
            counters: Counters::default(),
            config,
        };
        machine.adopt(&start);
        if machine.check_pinned(start.tip.reference).is_err() {
            return Err(NewError::Start("the stored tip contradicts a pinned commit"));
        }
        Ok(machine)
    }

    /// Takes in one event. Total: it never fails and never panics, and its work is bounded by the configuration.
    /// What to do about it is drained with [`poll_command`](Self::poll_command). A `now` before the last one counts
    /// as the last one.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.now = self.now.max(now);
        self.expire_requests();
        match event {
            Event::Tick => {}
            Event::CommitObserved { commit, blocks } => self.commit_observed(commit, blocks),
            Event::VotesObserved { blocks } => self.votes_observed(blocks),
            Event::CommitteeKnown { committee } => self.committee_known(committee),
            Event::PeerConnected { peer } => self.peer_connected(peer),
            Event::PeerDisconnected { peer } => self.peer_disconnected(peer),
            Event::RequestReceived { id, peer, request } => self.request_received(id, peer, request),
            Event::ResponsePart { id, part } => self.response_part(id, part),
            Event::RequestFinished { id, result } => self.request_finished(id, result),
            Event::Verified { id, verdict } => self.verified(id, verdict),
            Event::Stored { through } => self.stored(through),
            Event::StoreFailed { from: _ } => self.store_failed = true,
            Event::StoreReopened { start } => self.store_reopened(&start),
            Event::Pruned { lowest } => self.lowest_available = self.lowest_available.max(lowest),
            Event::Broadcasted { through } => {
                self.delivered = self.delivered.max(through.min(self.broadcast));
            }
            Event::Served { id, bytes, waited } => self.served(id, bytes, waited),
        }
        self.advance();
        self.serve_parked();
        self.dispatch();
        self.report();
    }

    /// The next thing to do, or `None` when all is said until the next event.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to send [`Event::Tick`] if nothing happens before: later than the last `now`, or `None` where time alone
    /// changes nothing.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let requests = self.requests.expires().into_iter();
        let rest =
            Some(self.local_rest_until).filter(|until| *until > self.now && !has(Bug::RestWithoutTimer));
        let timers = self
            .peers
            .wake(self.now)
            .into_iter()
            .chain(rest)
            .chain(self.parking.wake())
            .chain(self.head.wake());
        let earliest = requests.chain(timers).min()?;
        Some(earliest.max(Timestamp::from_micros(self.now.as_micros().saturating_add(1))))
    }

    fn push(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    fn new_request_id(&mut self) -> RequestId {
        let id = RequestId::new(self.next_request);
        self.next_request = self.next_request.saturating_add(1);
        id
    }

    fn new_job_id(&mut self) -> JobId {
        let id = JobId::new(self.next_job);
        self.next_job = self.next_job.saturating_add(1);
        id
    }

    fn new_batch_id(&mut self) -> BatchId {
        let id = BatchId::new(self.next_batch);
        self.next_batch = self.next_batch.saturating_add(1);
        id
    }

    /// Our highest certifiable commit.
    fn certifiable(&self) -> CommitRef {
        self.votes.certifiable()
    }

    /// Takes the committees and votes of a store that has just been opened.
    fn adopt(&mut self, start: &Start) {
        self.committees.insert(start.committee.epoch(), start.committee.clone());
        if let Some(next) = &start.next_committee {
            self.committees.insert(next.epoch(), next.clone());
        }
        for stored in start.votes.iter().filter(|_| !has(Bug::StoredVotesIgnored)) {
            if let Some(committee) = self.committees.get(&stored.epoch).cloned() {
                self.votes.restore(stored, &committee);
            }
        }
    }

    /// The embedder supplies a committee: of use for the epoch after the tip's. What is in use is not replaced.
    fn committee_known(&mut self, committee: Arc<Committee>) {
        let epoch = committee.epoch();
        if self.tip.epoch.next() != Some(epoch) || self.committees.contains_key(&epoch) {
            return;
        }
        self.committees.insert(epoch, committee.clone());
        self.invalid_committee = None;
        // Otherwise it is stored in the batch that ends the epoch.
        if self.tip.ends_epoch {
            self.store_committee(committee);
        }
    }

    /// The epoch of the commit after the tip.
    fn next_epoch(&self) -> Epoch {
        self.tip.epoch.saturating_add(u64::from(self.tip.ends_epoch))
    }

    /// A peer did what is provably wrong: it is banned, and disconnected.
    fn offence(&mut self, peer: PeerId, offence: Offence) {
        self.counters.offences = self.counters.offences.saturating_add(1);
        let (now, config) = (self.now, &self.config);
        // What comes to light of a peer while it is banned is of the time before: one ban is for all of that.
        let known = self.peers.get_mut(&peer).filter(|known| known.banned_until() <= now);
        let Some(ban) = known.map(|known| known.offended(offence, now, config)) else { return };
        // Nothing is sent to it any more, though its connection may live for a moment.
        self.abandon_requests_to(peer, true);
        self.gone(peer);
        self.push(Command::Disconnect { peer, offence, ban });
    }

    /// Stops applying commits, for good.
    fn halt(&mut self, halt: Halt) {
        if self.halted.is_some() {
            return;
        }
        let halt = Box::new(halt);
        self.halted = Some(halt.clone());
        self.abandon_data_requests();
        self.drop_window();
        self.push(Command::Notify(Notice::Halted(halt)));
    }

    fn peer_connected(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get(&peer)
            && known.link != Link::Down
        {
            return;
        }
        let now = self.now;
        self.peers.connect(peer, now);
    }

    fn peer_disconnected(&mut self, peer: PeerId) {
        self.abandon_requests_to(peer, false);
        self.gone(peer);
    }

    /// Keeps of a peer only what is remembered of those who are not connected.
    fn gone(&mut self, peer: PeerId) {
        let now = self.now;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.link = Link::Down;
            known.claim = None;
            known.seen = now;
        }
        self.refuse_waiting(peer);
    }

    fn release(&mut self, buffers: impl IntoIterator<Item = BufferId>) {
        for buffer in buffers {
            self.ledger.release(buffer);
        }
    }

    /// Forgets everything that is ahead of the tip.
    fn drop_window(&mut self) {
        let dropped: Vec<_> = self.window.clear().collect();
        for body in &dropped {
            self.release(body.buffers());
        }
        self.later_epoch_from = None;
    }
}

/// Whether what storage says hangs together.
fn check_start(start: &Start) -> Result<(), &'static str> {
    let Start { tip, certifiable, committee, next_committee, .. } = start;
    let index = tip.reference.index;
    match () {
        () if committee.epoch() != tip.epoch => Err("the committee is not that of the tip's epoch"),
        () if next_committee.as_ref().is_some_and(|next| Some(next.epoch()) != tip.epoch.next()) => {
            Err("the next committee is not that of the epoch after the tip's")
        }
        () if certifiable.index > index => Err("a commit above the tip is said to be certifiable"),
        () if certifiable.index == index && *certifiable != tip.reference => {
            Err("the certifiable commit is not the tip, and has its index")
        }
        () if start.lowest_available > index => Err("the lowest commit is above the tip"),
        () if index == CommitIndex::GENESIS && tip.reference != CommitRef::GENESIS => {
            Err("commit 0 is not the genesis commit")
        }
        () if index == CommitIndex::GENESIS && tip.ends_epoch => Err("the genesis commit ends no epoch"),
        () if start.votes.iter().any(|votes| votes.commit.index > index) => {
            Err("there are votes for a commit that is not stored")
        }
        () => Ok(()),
    }
}

impl JobRecord {
    /// Payloads that the job keeps, by buffer.
    fn buffers(&self) -> impl Iterator<Item = BufferId> {
        let (one, many) = match self {
            Self::Certify(record) => (Some(record.buffer), None),
            Self::Observe(record) => (Some(record.buffer), None),
            Self::Votes { buffer } => (Some(*buffer), None),
            Self::Check(record) => (None, Some(core::iter::repeat_n(record.buffer, record.slots.len()))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
