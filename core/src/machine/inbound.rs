//! What peers ask of us: admission, before storage is touched; and what waits here for the next commit.

use super::SyncMachine;
use crate::{
    bug::{Bug, has},
    command::{Command, Offence, ServePlan},
    defence::{Defence, stands},
    event::InboundId,
    peers::{Claim, Link},
    request::{
        COMMITS_BEYOND_MAX, CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, ResponsePart,
    },
    serve::{Begun, Finished, Kind, Refused},
    types::{BlockRef, CommitIndex, CommitRange, CommitRef, PeerId, Round},
};
use alloc::vec::Vec;
use core::time::Duration;

/// How a request is answered.
enum Answer {
    /// With this, at once.
    Now(ResponsePart),
    /// From storage.
    FromStorage(ServePlan),
    /// When there is what it asks for, within its own time.
    Later(FetchCommits),
}

impl SyncMachine {
    /// A peer asks us something.
    pub(super) fn request_received(
        &mut self,
        id: InboundId,
        peer: PeerId,
        request: Result<Request, RefuseReason>,
    ) {
        let kind = request.as_ref().map_or(Kind::Small, Kind::of);
        if let Err(reason) = self.count_request(peer, kind) {
            return self.push(Command::Refuse { id, reason });
        }
        let answer = request.and_then(|request| self.answer(peer, request));
        let result = match answer {
            Ok(Answer::Now(response)) => {
                self.push(Command::Respond { id, response });
                Ok(())
            }
            Ok(Answer::FromStorage(plan)) => self.admit_request(id, peer, plan),
            Ok(Answer::Later(fetch)) => self.park(id, peer, fetch),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.push(Command::Refuse { id, reason });
            self.count_refusal(peer, reason);
        }
    }

    fn is_connected(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|known| known.link != Link::Down)
    }

    /// Counts a request towards what its peer may ask in a second.
    fn count_request(&mut self, peer: PeerId, kind: Kind) -> Result<(), RefuseReason> {
        if !self.is_connected(peer) {
            return Err(RefuseReason::Busy);
        }
        let asked = self.serve.asked(peer, kind, self.now);
        asked.map_err(|refused| self.busy(refused))
    }

    /// Lets a request be served from storage, now or when it is its turn.
    fn admit_request(&mut self, id: InboundId, peer: PeerId, plan: ServePlan) -> Result<(), RefuseReason> {
        if self.parking.contains(id) || !self.is_connected(peer) {
            return Err(RefuseReason::Busy);
        }
        let admitted = self.serve.admit(id, peer, plan, self.now);
        admitted.map_err(|refused| self.busy(refused))?;
        let queued = self.serve.queued();
        self.serve_next();
        let waits = u64::from(self.serve.queued() >= queued);
        self.counters.queued_requests = self.counters.queued_requests.saturating_add(waits);
        Ok(())
    }

    /// Counts why a request is not admitted. The peer learns no more than that it may ask another.
    fn busy(&mut self, refused: Refused) -> RefuseReason {
        let count = match refused {
            Refused::Rate => &mut self.counters.refused_rate,
            Refused::Repeated => &mut self.counters.refused_repeats,
            Refused::Room => &mut self.counters.refused_room,
            Refused::Unread => &mut self.counters.refused_unread,
        };
        *count = count.saturating_add(1);
        RefuseReason::Busy
    }

    /// Serves whom it is the turn of, as far as there are slots.
    fn serve_next(&mut self) {
        while let Some(Begun { id, plan, deadline }) = self.serve.begin(self.now) {
            self.push(Command::Serve { id, plan, deadline });
        }
    }

    /// Lets a request wait for what it asks for, unless as many wait as may.
    fn park(&mut self, id: InboundId, peer: PeerId, fetch: FetchCommits) -> Result<(), RefuseReason> {
        let fits = |count: usize, max: u32| u32::try_from(count).is_ok_and(|count| count < max);
        let known = self.serve.contains(id) || self.parking.contains(id);
        let room = fits(self.parking.len(), self.config.max_parked)
            && fits(self.parking.count_of(peer), self.config.max_parked_per_peer);
        if known || !room {
            return Err(self.busy(Refused::Room));
        }
        let until = self.now.saturating_add(fetch.wait.min(self.config.max_park));
        self.parking.park(id, peer, fetch, until);
        Ok(())
    }

    /// Answers requests that have waited: with what they wait for, if it has come and they are admitted now, and else
    /// when their time is up.
    pub(super) fn serve_parked(&mut self) {
        let ready: Vec<_> = self.parking.ready(self.certifiable().index).collect();
        for (start, id) in ready {
            let Some(parked) = self.parking.take(start, id) else { continue };
            let plan = self.plan_commits(&parked.fetch);
            match plan.and_then(|plan| self.admit_request(id, parked.peer, plan)) {
                Ok(()) => self.told(parked.peer, start),
                Err(reason) => self.push(Command::Refuse { id, reason }),
            }
        }
        while let Some(id) = self.parking.pop_expired(self.now) {
            self.push(Command::Refuse { id, reason: RefuseReason::Unavailable });
        }
    }

    /// A peer is being sent a commit, and so need not be told of it.
    fn told(&mut self, peer: PeerId, index: CommitIndex) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.pushed = known.pushed.max(index);
        }
    }

    /// Forgets requests of a peer that is gone.
    pub(super) fn refuse_waiting(&mut self, peer: PeerId) {
        for id in self.parking.take_all_of(peer).into_iter().chain(self.serve.gone(peer)) {
            self.push(Command::Refuse { id, reason: RefuseReason::Unavailable });
        }
    }

    /// Who keeps breaking the rules is disconnected.
    fn count_refusal(&mut self, peer: PeerId, reason: RefuseReason) {
        let invalid = match reason {
            RefuseReason::InvalidRange
            | RefuseReason::TooMany
            | RefuseReason::InvalidReference
            | RefuseReason::Malformed => true,
            RefuseReason::Busy
            | RefuseReason::Unavailable
            | RefuseReason::TooLarge
            | RefuseReason::Internal => false,
        };
        let max = self.config.max_invalid_requests;
        let Some(known) = self.peers.get_mut(&peer).filter(|known| invalid && known.link != Link::Down)
        else {
            return;
        };
        known.invalid_requests = known.invalid_requests.saturating_add(1);
        if known.invalid_requests > max && stands(Defence::InvalidRequests) {
            known.invalid_requests = 0;
            self.offence(peer, Offence::InvalidRequests);
        }
    }

    fn answer(&mut self, peer: PeerId, request: Request) -> Result<Answer, RefuseReason> {
        match request {
            Request::CommitInfo(query) => Ok(self.answer_commit_info(query)),
            Request::Availability { timestamp_ms: _ } => Ok(Answer::Now(ResponsePart::Availability {
                highest: if has(Bug::AnnouncedBeforeCertifiable) {
                    self.durable
                } else {
                    self.certifiable().index
                },
                lowest: self.lowest_available.min(self.certifiable().index),
            })),
            Request::Push { index } => {
                self.pushed(peer, index);
                Ok(Answer::Now(ResponsePart::Push { timestamp_ms: self.wall_ms() }))
            }
            Request::Commits(fetch) => self.answer_commits(fetch),
            Request::Blocks(fetch) => self.answer_blocks(fetch),
        }
    }

    fn answer_commit_info(&self, query: CommitInfoQuery) -> Answer {
        let now = |commit, chain_id| Answer::Now(ResponsePart::CommitInfo { commit, chain_id });
        match query {
            CommitInfoQuery::Latest => now(Some(self.certifiable()), None),
            CommitInfoQuery::ByIndex(CommitIndex::GENESIS) => {
                now(Some(CommitRef::GENESIS), Some(self.chain_id))
            }
            CommitInfoQuery::ByIndex(index) if index > self.durable || index < self.lowest_available => {
                now(None, None)
            }
            CommitInfoQuery::ByIndex(index) => Answer::FromStorage(ServePlan::CommitInfo { index }),
        }
    }

    /// A peer says that it is further than it said before.
    fn pushed(&mut self, peer: PeerId, index: CommitIndex) {
        let now = self.now;
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if !stands(Defence::IdlePushes) {
            known.next_poll = now;
        }
        if let Some(claim) = known.claim.filter(|claim| known.link == Link::Checked && claim.highest < index)
        {
            known.claimed(Claim { highest: index, ..claim }, now);
        }
    }

    fn answer_commits(&self, fetch: FetchCommits) -> Result<Answer, RefuseReason> {
        // What is far ahead of us is not worth waiting for.
        let soon = self.certifiable().index.saturating_add(self.config.commit_sync_batch_size);
        let later = fetch.start > self.certifiable().index && fetch.start <= soon && fetch.start <= fetch.end;
        if later && !fetch.wait.is_zero() {
            return Ok(Answer::Later(fetch));
        }
        self.plan_commits(&fetch).map(Answer::FromStorage)
    }

    /// How commits are sent that can be certified.
    fn plan_commits(&self, fetch: &FetchCommits) -> Result<ServePlan, RefuseReason> {
        let range = CommitRange::new(fetch.start, fetch.end).ok_or(RefuseReason::InvalidRange)?;
        if range.start() == CommitIndex::GENESIS && stands(Defence::GenesisRange) {
            return Err(RefuseReason::InvalidRange);
        }
        let certifiable = self.certifiable().index;
        if range.start() > certifiable || range.start() < self.lowest_available && !has(Bug::PrunedServed) {
            return Err(RefuseReason::Unavailable);
        }
        if range.end() > certifiable && !stands(Defence::ServedPrefix) {
            return Err(RefuseReason::Unavailable);
        }
        let batch = self.config.commit_sync_batch_size;
        let most = range.start().saturating_add(batch.saturating_sub(u32::from(!has(Bug::BatchOneLonger))));
        let end = range.end().min(most).min(certifiable);
        let range = CommitRange::new(range.start(), end).ok_or(RefuseReason::InvalidRange)?;
        Ok(ServePlan::Commits {
            range,
            last: end.saturating_add(COMMITS_BEYOND_MAX).min(certifiable),
            max_bytes: fetch.max_bytes.min(self.config.certified_answer_bytes()),
            with_blocks: fetch.with_blocks,
        })
    }

    fn answer_blocks(&self, fetch: FetchBlocks) -> Result<Answer, RefuseReason> {
        let count = u32::try_from(fetch.refs.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Err(RefuseReason::InvalidRange);
        }
        if count > self.config.max_blocks_per_fetch && stands(Defence::ReferenceCount) {
            return Err(RefuseReason::TooMany);
        }
        let possible = fetch.refs.iter().all(|reference| self.can_exist(reference));
        if !possible && stands(Defence::PossibleReferences) {
            return Err(RefuseReason::InvalidReference);
        }
        let most = if stands(Defence::ServedBytes) { self.config.answer_bytes() } else { u64::MAX };
        let max_bytes = fetch.max_bytes.min(most);
        Ok(Answer::FromStorage(ServePlan::Blocks { refs: fetch.refs, max_bytes }))
    }

    /// Whether a served block can have this reference.
    fn can_exist(&self, reference: &BlockRef) -> bool {
        let author = match self.committees.get(&reference.epoch) {
            Some(committee) => reference.author.position() < committee.size(),
            None => reference.author.get() < self.config.limits.max_ancestors,
        };
        author && reference.round > Round::ZERO && reference.epoch <= self.tip.epoch
    }

    /// An inbound request is finished with, or withdrawn before it was answered.
    pub(super) fn served(&mut self, id: InboundId, bytes: u64, waited: Duration) {
        if self.parking.withdraw(id).is_some() {
            return;
        }
        match self.serve.finished(id, bytes, waited, self.now) {
            Finished::Served => {
                self.counters.sent_bytes = self.counters.sent_bytes.saturating_add(bytes);
                self.serve_next();
            }
            Finished::Waited => {}
            Finished::Unknown => self.counters.stale = self.counters.stale.saturating_add(1),
        }
    }
}
