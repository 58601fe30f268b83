//! What the machine says about itself: status, notices, and what must always hold.

use super::SyncMachine;
use crate::{
    bug::{Bug, has},
    command::{Command, Halt, Notice, Offence, Stall},
    defence::{Defence, stands},
    ledger::BufferId,
    peers::{Claim, Link, Peer},
    stable_hash::StableHasher,
    time::Timestamp,
    types::{ChainId, CommitIndex, CommitRef, Epoch, PeerId},
    window::Body,
};
use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::time::Duration;

/// For how long a synced node may lack what a peer has before it says that it is behind.
const BEHIND_PATIENCE: Duration = Duration::from_secs(5);

/// A snapshot for people and for metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// Which chain.
    pub chain_id: ChainId,
    /// The last commit handed to storage.
    pub queued: CommitRef,
    /// The last commit that is durable.
    pub durable: CommitIndex,
    /// The highest durable commit that we can certify to others.
    pub certifiable: CommitRef,
    /// The last commit that every subscriber has taken. Above `durable` where the store was opened again as an older copy
    /// of itself.
    pub delivered: CommitIndex,
    /// The lowest commit that is still stored.
    pub lowest_available: CommitIndex,
    /// Epoch of the next commit.
    pub epoch: Epoch,
    /// The highest commit that a peer claims to have.
    pub target: Option<CommitIndex>,
    /// Whether the chain has reached as far as any peer that answers can show, and has stayed near since.
    pub synced: bool,
    /// Why nothing can go on, if so.
    pub stall: Option<Stall>,
    /// Why nothing is applied any more, if so.
    pub halted: Option<Box<Halt>>,
    /// Bytes reserved for answers that were asked for, and held of what is not stored yet; at most
    /// [`Config::max_buffered_bytes`](crate::Config::max_buffered_bytes).
    pub buffered_bytes: u64,
    /// The most bytes that were ever reserved and held.
    pub buffered_bytes_peak: u64,
    /// Requests of ours in flight, of all kinds.
    pub requests_in_flight: usize,
    /// Jobs that workers have, at most [`Config::max_verify_jobs`](crate::Config::max_verify_jobs).
    pub jobs_running: u32,
    /// Inbound requests being served from storage.
    pub serving: usize,
    /// Inbound requests that wait to be served from storage.
    pub serve_queue: usize,
    /// Inbound requests that wait here for a commit.
    pub parked: usize,
    /// Every peer on record, by id.
    pub peers: Vec<PeerStatus>,
    /// What was counted since the start.
    pub counters: Counters,
}

/// What there is to say about one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerStatus {
    /// Who.
    pub id: PeerId,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it is on our chain, as far as its current connection has shown.
    pub checked: bool,
    /// Highest and lowest commit that it claims to have.
    pub claim: Option<(CommitIndex, CommitIndex)>,
    /// Requests for commits and blocks in flight to it.
    pub in_flight: u32,
    /// Smoothed time to the first part of an answer, in microseconds.
    pub latency_us: Option<u64>,
    /// Certified commits that came from it.
    pub served_commits: u64,
    /// Bytes of good blocks that came from it.
    pub served_bytes: u64,
    /// Requests to it whose time was up.
    pub timeouts: u64,
    /// Provable offences.
    pub offences: u32,
    /// The last of them.
    pub last_offence: Option<Offence>,
    /// Until when it is kept out for it, if that time has not passed.
    pub banned_until: Option<Timestamp>,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Commits that became durable.
    pub stored_commits: u64,
    /// Blocks that became durable, certifiers among them.
    pub stored_blocks: u64,
    /// Requests whose time was up.
    pub timeouts: u64,
    /// Requests of ours that waited at a peer and brought a commit.
    pub followed: u64,
    /// Requests for what another peer had been asked for and had not delivered.
    pub hedges: u64,
    /// Completions of what was not outstanding: late, twice, or never asked for.
    pub stale: u64,
    /// Provable offences of peers.
    pub offences: u64,
    /// Jobs whose worker died.
    pub worker_failures: u64,
    /// Certified commits given up to make room for the frontier.
    pub evicted: u64,
    /// Commits of which blocks were staged in storage.
    pub staged: u64,
    /// Commits and votes of our own consensus for which there was no room.
    pub dropped_local: u64,
    /// Bytes sent in answers from storage.
    pub sent_bytes: u64,
    /// Inbound requests that had to wait to be served.
    pub queued_requests: u64,
    /// Inbound requests refused because their peer asked more often, or for more bytes, than it may.
    pub refused_rate: u64,
    /// Inbound requests refused because their peer had been given the same dear answer twice a short while before.
    pub refused_repeats: u64,
    /// Inbound requests refused because their peer left answers unread a short while ago.
    pub refused_unread: u64,
    /// Inbound requests refused because as many were served and waited as may.
    pub refused_room: u64,
}
saved! { struct Counters {
    stored_commits, stored_blocks, timeouts, followed, hedges, stale, offences, worker_failures, evicted,
    staged, dropped_local, sent_bytes, queued_requests, refused_rate, refused_repeats, refused_unread,
    refused_room,
} }

impl SyncMachine {
    /// A snapshot of where the machine is.
    pub fn status(&self) -> Status {
        Status {
            chain_id: self.chain_id,
            queued: self.tip.reference,
            durable: self.durable,
            certifiable: self.certifiable(),
            delivered: self.delivered,
            lowest_available: self.lowest_available,
            epoch: self.next_epoch(),
            target: self.peers.highest_claim(),
            synced: self.synced,
            stall: self.stall,
            halted: self.halted.clone(),
            buffered_bytes: self.ledger.used(),
            buffered_bytes_peak: self.ledger.peak(),
            requests_in_flight: self.requests.len(),
            jobs_running: self.jobs.running(),
            serving: self.serve.serving(),
            serve_queue: self.serve.queued(),
            parked: self.parking.len(),
            peers: self.peer_statuses(),
            counters: self.counters,
        }
    }

    /// A hash of the whole state, by which two runs can be compared: machines that were made alike and told the same
    /// have the same one, whatever the platform, build profile or process. Commands that were not polled are part of
    /// the state. A payload counts by its length and fingerprint alone ([`Payload`](crate::payload::Payload)). Another
    /// version of this crate or of the compiler may give another hash. It walks everything: for tests and traces.
    pub fn state_hash(&self) -> [u8; 32] {
        StableHasher::hash_of(self)
    }

    fn peer_statuses(&self) -> Vec<PeerStatus> {
        let status = |(id, peer): (PeerId, &Peer)| PeerStatus {
            id,
            connected: peer.link != Link::Down,
            checked: peer.link == Link::Checked,
            claim: peer.claim.map(|claim| (claim.highest, claim.lowest)),
            in_flight: peer.in_flight,
            latency_us: peer.pace.known_latency_us(),
            served_commits: peer.served_commits,
            served_bytes: peer.served_bytes,
            timeouts: peer.timeouts,
            offences: peer.offences,
            last_offence: peer.last_offence,
            banned_until: Some(peer.banned_until()).filter(|until| *until > self.now),
        };
        self.peers.iter().map(status).collect()
    }

    /// Says what has become true with this event.
    pub(super) fn report(&mut self) {
        self.report_stall();
        let synced = self.is_synced() || self.synced && !self.has_fallen_behind();
        if synced && !self.synced {
            let tip = self.certifiable();
            self.push(Command::Notify(Notice::Synced { tip }));
        }
        if !synced
            && self.synced
            && self.halted.is_none()
            && let Some(target) = self.peers.highest_claim()
        {
            let tip = self.tip.reference.index;
            self.push(Command::Notify(Notice::Behind { tip, target }));
        }
        self.synced = synced;
    }

    /// Whether at least one peer on our chain has answered since the chain last grew, and nobody who answers has more.
    fn is_synced(&self) -> bool {
        let certifiable = self.certifiable().index;
        if self.halted.is_some() || certifiable < self.tip.reference.index && self.behind_own_votes() {
            return false;
        }
        let claims = || self.peers.checked().filter_map(|(_, peer)| peer.claim);
        let fresh = |claim: &Claim| claim.polled >= self.grown || has(Bug::SyncedByOldClaims);
        claims().any(|claim| fresh(&claim) && !claim.cut)
            && claims().all(|claim| claim.highest <= certifiable)
    }

    /// Whether a node that was synced is not any more. Following a chain that grows, it is behind by a little at most
    /// moments: it has fallen behind when it lacks more than a batch, or makes no progress with what it lacks.
    fn has_fallen_behind(&self) -> bool {
        let Some(highest) = self.peers.highest_claim() else { return true };
        let lacking = highest.get().saturating_sub(self.certifiable().index.get());
        let stuck = self.now.saturating_since(self.grown) >= BEHIND_PATIENCE;
        self.halted.is_some() || lacking > self.config.commit_sync_batch_size || lacking > 0 && stuck
    }

    /// Whether commits are on their way into storage.
    fn behind_own_votes(&self) -> bool {
        self.durable < self.tip.reference.index
    }

    fn report_stall(&mut self) {
        let stall = if self.halted.is_some() { None } else { self.blocked().or_else(|| self.no_provider()) };
        if stall == self.stall {
            return;
        }
        match (stall, self.stall) {
            (Some(Stall::Committee { epoch }), _) => {
                self.push(Command::Notify(Notice::CommitteeWanted { epoch }));
                self.push(Command::Notify(Notice::Stalled(Stall::Committee { epoch })));
            }
            // How far consumers are changes while the stall goes on.
            (Some(Stall::Consumers { .. }), Some(Stall::Consumers { .. })) => {}
            (Some(stall), _) => self.push(Command::Notify(Notice::Stalled(stall))),
            (None, _) if self.halted.is_some() => {}
            (None, _) => self.push(Command::Notify(Notice::Resumed)),
        }
        self.stall = stall;
    }

    /// Whether all peers that have more than we do have pruned what we need next.
    pub(super) fn no_provider(&self) -> Option<Stall> {
        let next = self.tip.reference.index.next()?;
        let ahead =
            || self.peers.checked().filter_map(|(_, peer)| peer.claim).filter(|claim| claim.highest >= next);
        let lowest_seen = ahead().map(|claim| claim.lowest).min()?;
        let nothing_here = || self.window.body(next).is_none() && self.observing.is_idle();
        (lowest_seen > next && nothing_here() && stands(Defence::NoProvider))
            .then_some(Stall::NoProvider { next, lowest_seen })
    }

    /// What must hold between any two events; `Err` names what does not. For tests and fuzzing: it walks everything.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let tip = self.tip.reference.index;
        self.window.check_invariants(tip, self.config.look_ahead_commits)?;
        let reserved =
            self.requests.values().fold(0u64, |sum, in_flight| sum.saturating_add(in_flight.reserved));
        let kept = u64::try_from(self.kept_buffers().count()).unwrap_or(u64::MAX);
        self.ledger.check_invariants(reserved, kept)?;
        self.peers.check_invariants(&self.config)?;
        self.votes.check_invariants()?;
        self.parking.check_invariants()?;
        self.requests.check_invariants()?;
        self.check_requests()?;
        self.recent.check_invariants(self.tip.reference)?;
        self.serve.check_invariants()?;
        self.check_watermarks()?;
        self.check_liveness()
    }

    /// Every buffer that is kept, once for each kept payload.
    fn kept_buffers(&self) -> impl Iterator<Item = BufferId> {
        let bodies = self.window.bodies().flat_map(Body::buffers);
        let outstanding = self.outstanding.iter().flat_map(super::Outstanding::buffers);
        let votes = self.pending_votes.iter().map(|(_, buffer)| *buffer);
        bodies.chain(votes).chain(outstanding).chain(self.jobs.buffers()).chain(self.observing.buffers())
    }

    /// What is counted of each peer is what is in flight to it.
    fn check_requests(&self) -> Result<(), &'static str> {
        let mut counts: BTreeMap<PeerId, (u32, u32)> = BTreeMap::new();
        for in_flight in self.requests.values() {
            let (for_data, following) = counts.entry(in_flight.peer).or_default();
            *for_data = for_data.saturating_add(u32::from(in_flight.is_for_data()));
            *following = following.saturating_add(u32::from(in_flight.is_follow()));
        }
        let counted = |(id, peer): (PeerId, &Peer)| {
            (peer.in_flight, peer.following) == counts.get(&id).copied().unwrap_or_default()
        };
        let follow_requests = usize::try_from(self.config.follow_requests).unwrap_or(usize::MAX);
        match () {
            () if !self.peers.iter().all(counted) => Err("requests in flight to a peer are miscounted"),
            () if self.requests.following() > follow_requests => Err("too many requests wait at peers"),
            () if !self.head.is_known(&self.requests) => {
                Err("the second request for the head of line is none")
            }
            () => Ok(()),
        }
    }

    fn check_watermarks(&self) -> Result<(), &'static str> {
        let max_batches = usize::try_from(self.config.max_store_batches).unwrap_or(usize::MAX);
        let records = self.config.max_peers.saturating_add(self.config.max_serving);
        let max_clients = usize::try_from(records).unwrap_or(usize::MAX);
        let max_parked = usize::try_from(self.config.max_parked).unwrap_or(usize::MAX);
        match () {
            () if self.certifiable().index > self.durable => Err("certifiable is above durable"),
            () if self.delivered > self.broadcast => Err("delivered is above what was handed out"),
            () if self.durable > self.broadcast => Err("durable is above what was handed out"),
            () if self.durable > self.tip.reference.index => Err("durable is above queued"),
            () if self.serve.clients() > max_clients => Err("too many peers are remembered for serving"),
            () if self.parking.len() > max_parked => Err("too many requests wait"),
            () if self.committees.iter().any(|(epoch, committee)| committee.epoch() != *epoch) => {
                Err("a committee is taken for that of another epoch")
            }
            // That of the tip's epoch, of the one before and of the one after.
            () if self.committees.len() > 3 => Err("too many committees are remembered"),
            () if self.jobs.running() > self.config.max_verify_jobs => Err("too many jobs run"),
            () if self.committing() > max_batches => Err("too many batches of commits are outstanding"),
            () => Ok(()),
        }
    }

    pub(super) fn committing(&self) -> usize {
        self.outstanding.iter().filter(|outstanding| !outstanding.batch.commits.is_empty()).count()
    }

    /// Not at the target implies a request in flight, a timer, a local command outstanding, or a reported stall.
    fn check_liveness(&self) -> Result<(), &'static str> {
        let behind = self.peers.highest_claim().is_some_and(|highest| highest > self.certifiable().index);
        let local = !self.outstanding.is_empty() || !self.jobs.is_idle() || self.delivered < self.durable;
        let goes_on = self.poll_timeout().is_some() || local || self.stall.is_some() || self.halted.is_some();
        if behind && !goes_on { Err("behind, and nothing will ever happen") } else { Ok(()) }
    }
}
