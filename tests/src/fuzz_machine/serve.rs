//! Bytes as what peers ask of a node, and when: its half as a server. What it answers is held against a ledger that is
//! kept apart from the machine.

use super::{
    chain::{BLOCKS_PER_COMMIT, Durable, checked, committees, header, payload, voter},
    draw::{config, draw_request, peer},
};
use crate::fuzz::rarely;
use arbitrary::{Result, Unstructured};
use soma_sync_core::{
    Command, Config, Event, Status, SyncMachine, Timestamp,
    command::ServePlan,
    event::InboundId,
    job::{Job, ObserveVerdict, Verdict},
    request::{COMMITS_BEYOND_MAX, CommitInfoQuery, RefuseReason, Request, ResponsePart},
    types::{CommitIndex, PeerId, Round},
    verified::Verified,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Commits that the server begins with, of which it can certify all but the last.
const HELD: u32 = 30;

/// A request that has had no answer yet.
struct Waiting {
    peer: PeerId,
    request: std::result::Result<Request, RefuseReason>,
    /// The lowest commit there was when it came.
    lowest: CommitIndex,
}

impl Waiting {
    /// Whether it may wait for a commit that is not there yet.
    fn may_park(&self) -> bool {
        matches!(&self.request, Ok(Request::Commits(fetch)) if !fetch.wait.is_zero())
    }
}

/// An answer that is being sent.
struct Sending {
    peer: PeerId,
    max_bytes: u64,
}

/// What one peer was given since it connected.
struct Given {
    since: Timestamp,
    data: u64,
    small: u64,
    bytes: u64,
}

struct Server {
    machine: SyncMachine,
    config: Config,
    now: Timestamp,
    durable: Durable,
    connected: BTreeSet<PeerId>,
    waiting: BTreeMap<InboundId, Waiting>,
    sending: BTreeMap<InboundId, Sending>,
    given: BTreeMap<PeerId, Given>,
    next_inbound: u64,
    /// What was asked last, and by whom.
    last: Option<(PeerId, Request)>,
}

/// Runs a server through what the bytes say. `None` where they do not even make a configuration.
///
/// # Panics
///
/// When a request is answered twice, or never, or with what it did not ask for; when more is served at once than may be,
/// or somebody waits for whom there is a place; when a peer is given more than its rates allow.
pub fn server_requests(bytes: &[u8]) -> Option<Status> {
    let mut input = Unstructured::new(bytes);
    let mut server = Server::new(&mut input).ok()?;
    while !input.is_empty() {
        if server.step(&mut input).is_err() {
            break;
        }
        server.check();
    }
    server.finish();
    Some(server.machine.status())
}

/// As of [`config`], with little room for peers' requests.
fn tight(input: &mut Unstructured<'_>) -> Result<Config> {
    Ok(Config {
        max_peers: 8,
        max_serving: input.int_in_range(1..=5)?,
        max_serving_per_peer: input.int_in_range(1..=4)?,
        max_queued: input.int_in_range(0..=6)?,
        max_queued_per_peer: input.int_in_range(0..=3)?,
        max_parked: input.int_in_range(0..=4)?,
        max_parked_per_peer: input.int_in_range(0..=2)?,
        max_park: Duration::from_millis(input.int_in_range(1..=2_000)?),
        max_data_requests_per_second: *input.choose(&[1_000, 20, 1])?,
        max_small_requests_per_second: *input.choose(&[1_000, 20, 1])?,
        max_served_bytes_per_second: *input.choose(&[1 << 30, 1 << 20, 64 * 1024])?,
        ..config(input)?
    })
}

impl Server {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let config = tight(input)?;
        let mut durable = Durable::default();
        durable.commits.extend((1..=HELD).map(|index| header(index, 0)));
        let start = durable.start(committees());
        let machine = SyncMachine::new(config.clone(), start, Timestamp::ZERO, [1; 32]);
        Ok(Self {
            machine: machine.expect("a configuration that can work"),
            config,
            now: Timestamp::ZERO,
            durable,
            connected: BTreeSet::new(),
            waiting: BTreeMap::new(),
            sending: BTreeMap::new(),
            given: BTreeMap::new(),
            next_inbound: 0,
            last: None,
        })
    }

    fn certifiable(&self) -> CommitIndex {
        self.machine.status().certifiable.index
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let step = *input.choose(&[0, 0, 1, 100, 1_000, 30_000, 1_000_000])?;
        self.now = self.now.saturating_add(Duration::from_micros(step));
        match input.int_in_range(0..=15u8)? {
            0 => self.handle(Event::Tick),
            1 | 2 => self.connect(peer(input)?),
            3 if rarely(input, 4)? => self.disconnect(peer(input)?),
            4 => self.grow(input.int_in_range(0..=4)?),
            5 if rarely(input, 4)? => {
                let lowest = CommitIndex::new(input.int_in_range(0..=20)?);
                self.handle(Event::Pruned { lowest: lowest.max(self.machine.status().lowest_available) });
            }
            6 => self.withdraw(input)?,
            7..=9 => self.sent(input)?,
            10 | 11 if self.last.is_some() => {
                let (peer, request) = self.last.clone().expect("it was just looked at");
                self.ask(peer, Ok(request));
            }
            _ => {
                let peer = peer(input)?;
                if !rarely(input, 16)? {
                    self.connect(peer);
                }
                let request = draw_request(input)?;
                self.last = request.clone().ok().map(|request| (peer, request));
                self.ask(peer, request);
            }
        }
        Ok(())
    }

    fn connect(&mut self, peer: PeerId) {
        if self.connected.insert(peer) {
            self.given.insert(peer, Given { since: self.now, data: 0, small: 0, bytes: 0 });
            self.handle(Event::PeerConnected { peer });
        }
    }

    fn disconnect(&mut self, peer: PeerId) {
        if self.connected.remove(&peer) {
            self.handle(Event::PeerDisconnected { peer });
            let left = self.waiting.values().any(|waiting| waiting.peer == peer);
            assert!(!left, "a request of a peer that is gone waits");
        }
    }

    fn ask(&mut self, peer: PeerId, request: std::result::Result<Request, RefuseReason>) {
        let id = InboundId::new(self.next_inbound);
        self.next_inbound += 1;
        let lowest = self.machine.status().lowest_available;
        self.waiting.insert(id, Waiting { peer, request: request.clone(), lowest });
        self.handle(Event::RequestReceived { id, peer, request });
    }

    /// A peer does not want an answer any more that it waits for.
    fn withdraw(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if !self.waiting.is_empty() {
            let at = input.choose_index(self.waiting.len())?;
            let id = *self.waiting.keys().nth(at).expect("an index below the count");
            self.waiting.remove(&id);
            self.handle(Event::Served { id, bytes: 0, waited: Duration::ZERO });
        }
        Ok(())
    }

    /// An answer was sent, as far as it was read.
    fn sent(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if !self.sending.is_empty() {
            let at = input.choose_index(self.sending.len())?;
            let id = *self.sending.keys().nth(at).expect("an index below the count");
            let most = self.sending[&id].max_bytes.min(1 << 32);
            let bytes = input.int_in_range(0..=most)?;
            let waited = Duration::from_millis(input.int_in_range(0..=20_000)?);
            self.complete(id, bytes, waited);
        }
        Ok(())
    }

    fn complete(&mut self, id: InboundId, bytes: u64, waited: Duration) {
        let sending = self.sending.remove(&id).expect("it is being sent");
        if let Some(given) = self.given.get_mut(&sending.peer) {
            given.bytes += bytes;
        }
        self.handle(Event::Served { id, bytes, waited });
    }

    /// Our own consensus makes so many commits, and votes for the last.
    fn grow(&mut self, count: u32) {
        for _ in 0..count {
            self.handle(Event::CommitObserved {
                commit: payload(250),
                blocks: vec![payload(100); BLOCKS_PER_COMMIT as usize],
            });
        }
        self.handle(Event::VotesObserved { blocks: vec![payload(100); 3] });
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(self.now, event);
        self.machine.check_invariants().unwrap_or_else(|broken| panic!("{broken}: {:#?}", self.machine));
        while let Some(command) = self.machine.poll_command() {
            self.carry_out(command);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Respond { id, response } => self.responded(id, &response),
            Command::Refuse { id, reason } => self.refused(id, reason),
            Command::Serve { id, plan, deadline } => {
                assert_eq!(deadline, self.now.saturating_add(self.config.serve_timeout));
                self.served(id, &plan);
            }
            Command::Verify { id, job } => {
                let verdict = self.verdict(job);
                self.handle(Event::Verified { id, verdict });
            }
            Command::StoreBatch { batch } => {
                self.durable.append(&batch);
                self.handle(Event::Stored { through: batch.id });
            }
            Command::Broadcast { range } => self.handle(Event::Broadcasted { through: range.end() }),
            Command::Disconnect { peer, .. } => self.disconnect(peer),
            Command::SendRequest { .. } | Command::CancelRequest { .. } | Command::Notify(_) => {}
        }
    }

    fn verdict(&self, job: Job) -> Verdict {
        match job {
            Job::Observe(_) => {
                let commit = header(self.machine.status().queued.index.get() + 1, 0);
                let blocks = commit.blocks.iter();
                let blocks =
                    blocks.map(|block| Verified::from_trace(checked(*block, committees()))).collect();
                Verdict::Observe(ObserveVerdict::Observed { commit: Verified::from_trace(commit), blocks })
            }
            Job::Votes(job) => {
                let index = self.machine.status().durable.get();
                let votes = (0..).zip(job.blocks).map(|(author, block)| voter(index, author, block));
                Verdict::Votes(votes.map(Verified::from_trace).collect())
            }
            Job::Certify(_) | Job::Check(_) => panic!("a server that was sent nothing has {job:?} verified"),
        }
    }

    /// Takes a request out of those that wait: each is there once.
    fn answered(&mut self, id: InboundId) -> Waiting {
        self.waiting.remove(&id).unwrap_or_else(|| panic!("{id:?} was answered before, or never came"))
    }

    /// Counts what a peer is given that was not turned away for its rate.
    fn count(&mut self, waiting: &Waiting) {
        let data = matches!(waiting.request, Ok(Request::Commits(_) | Request::Blocks(_)));
        let given = self.given.get_mut(&waiting.peer).expect("who was never here is given something");
        *if data { &mut given.data } else { &mut given.small } += 1;
        let seconds = self.now.saturating_since(given.since).as_secs() + 2;
        let most = |rate: u32| u64::from(rate).saturating_mul(seconds);
        assert!(given.data <= most(self.config.max_data_requests_per_second), "too many data requests");
        assert!(given.small <= most(self.config.max_small_requests_per_second), "too many small requests");
        let bytes = self.config.max_served_bytes_per_second.saturating_mul(seconds);
        let last = self.config.certified_answer_bytes();
        assert!(given.bytes <= bytes.saturating_add(last), "too many bytes");
    }

    fn responded(&mut self, id: InboundId, response: &ResponsePart) {
        let waiting = self.answered(id);
        self.count(&waiting);
        let status = self.machine.status();
        let certifiable = status.certifiable;
        match (&waiting.request, response) {
            (Ok(Request::Availability { .. }), ResponsePart::Availability { highest, lowest }) => {
                assert!(*highest == certifiable.index && lowest <= highest, "{response:?} at {certifiable}");
            }
            (Ok(Request::Push { .. }), ResponsePart::Push { .. }) => {}
            (Ok(Request::CommitInfo(query)), ResponsePart::CommitInfo { commit, chain_id }) => match query {
                CommitInfoQuery::Latest => assert_eq!((*commit, *chain_id), (Some(certifiable), None)),
                CommitInfoQuery::ByIndex(CommitIndex::GENESIS) => {
                    assert_eq!(*chain_id, Some(status.chain_id));
                }
                CommitInfoQuery::ByIndex(index) => {
                    let held = status.lowest_available..=status.durable;
                    assert!(commit.is_none() && !held.contains(index), "{index} is denied");
                }
            },
            (request, _) => panic!("{response:?} for {request:?}"),
        }
    }

    fn refused(&mut self, id: InboundId, reason: RefuseReason) {
        let waiting = self.answered(id);
        if reason != RefuseReason::Busy && self.connected.contains(&waiting.peer) {
            self.count(&waiting);
        }
    }

    fn served(&mut self, id: InboundId, plan: &ServePlan) {
        let waiting = self.answered(id);
        self.count(&waiting);
        let most = self.plan_is_right(&waiting, plan);
        assert!(self.connected.contains(&waiting.peer), "who is gone is served");
        let held = |server: &Self| {
            let of_peer = server.sending.values().filter(|sending| sending.peer == waiting.peer);
            (of_peer.count(), server.config.max_serving as usize - server.sending.len())
        };
        let (before, free) = held(self);
        assert!(before < free.min(self.config.max_serving_per_peer as usize), "a place that nobody may have");
        self.sending.insert(id, Sending { peer: waiting.peer, max_bytes: most });
    }

    /// That the plan is for what was asked; the most bytes that it may send.
    fn plan_is_right(&self, waiting: &Waiting, plan: &ServePlan) -> u64 {
        let (status, config) = (self.machine.status(), &self.config);
        match (&waiting.request, plan) {
            (Ok(Request::CommitInfo(CommitInfoQuery::ByIndex(asked))), ServePlan::CommitInfo { index }) => {
                assert!(asked == index && (waiting.lowest..=status.durable).contains(index), "{plan:?}");
                0
            }
            (Ok(Request::Commits(fetch)), ServePlan::Commits { range, last, max_bytes, with_blocks }) => {
                let certifiable = self.certifiable();
                let count = range.end().get() - range.start().get() + 1;
                let most = range.end().saturating_add(COMMITS_BEYOND_MAX).min(certifiable);
                let fits = range.start() == fetch.start
                    && range.start() >= waiting.lowest.max(CommitIndex::new(1))
                    && range.end() <= fetch.end.min(certifiable)
                    && count <= config.commit_sync_batch_size
                    && (range.end()..=most).contains(last)
                    && *max_bytes <= fetch.max_bytes.min(config.certified_answer_bytes())
                    && *with_blocks == fetch.with_blocks;
                assert!(fits, "{plan:?} for {fetch:?} at {certifiable}");
                *max_bytes
            }
            (Ok(Request::Blocks(fetch)), ServePlan::Blocks { refs, max_bytes }) => {
                let possible =
                    refs.iter().all(|block| block.round > Round::ZERO && block.epoch <= status.epoch);
                let fits = *refs == fetch.refs
                    && (1..=config.max_blocks_per_fetch as usize).contains(&refs.len())
                    && *max_bytes <= fetch.max_bytes.min(config.answer_bytes());
                assert!(possible && fits, "{plan:?} for {fetch:?}");
                *max_bytes
            }
            (request, _) => panic!("{plan:?} for {request:?}"),
        }
    }

    /// What must hold between any two events.
    fn check(&self) {
        let (status, config) = (self.machine.status(), &self.config);
        assert_eq!(status.serving, self.sending.len(), "served otherwise than told");
        assert_eq!(status.serve_queue + status.parked, self.waiting.len(), "what waits is lost");
        let queue = config.max_queued as usize;
        assert!(status.serve_queue <= queue && status.parked <= config.max_parked as usize, "too much waits");
        for peer in &self.connected {
            let waits = self.waiting.values().filter(|waiting| waiting.peer == *peer);
            let (park, queue): (Vec<_>, Vec<_>) = waits.partition(|waiting| waiting.may_park());
            let most = config.max_queued_per_peer as usize;
            assert!(queue.len() <= most, "a peer has too much waiting");
            assert!(park.len() <= most + config.max_parked_per_peer as usize, "a peer has too much waiting");
            let held = self.sending.values().filter(|sending| sending.peer == *peer).count();
            let free = config.max_serving as usize - self.sending.len();
            let may_begin = held < free.min(config.max_serving_per_peer as usize);
            assert!(queue.is_empty() || !may_begin, "a request waits although there is a place for it");
        }
    }

    /// All answers are sent, and time passes: nothing may be left.
    fn finish(&mut self) {
        while let Some(id) = self.sending.keys().next().copied() {
            self.complete(id, 0, Duration::ZERO);
            self.check();
        }
        self.now = self.now.saturating_add(self.config.max_park);
        self.handle(Event::Tick);
        while let Some(id) = self.sending.keys().next().copied() {
            self.complete(id, 0, Duration::ZERO);
        }
        self.check();
        assert!(self.waiting.is_empty(), "a request was never answered");
    }
}
