//! What we know of each peer: what it claims, how it has served, what it has done wrong. Integers only.
//!
//! Bounded: at most `max_peers` records. Records outlive connections, so that reconnecting launders nothing; the ones
//! longest disconnected make room for new ones.

#[cfg(test)]
mod model;
mod normal;
mod pace;

#[cfg(feature = "trace")]
use crate::saved::{RestoreError, Restorer, Saved, Saver};
use crate::{
    bug::{Bug, has},
    command::Offence,
    config::Config,
    defence::{Defence, stands},
    rng::Rng,
    time::{Timestamp, micros},
    types::{CommitIndex, PeerId},
};
use alloc::collections::BTreeMap;
use core::time::Duration;
pub(crate) use pace::Answer;
use pace::Pace;

/// Requests that a new peer may have in flight.
const FIRST_LIMIT: u32 = 2;
/// Shortest and longest pause after a peer failed.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long nothing may come of a request, at least: from who has delivered before, and from who has not. The first is
/// longer than the page has it: an honest server of a large answer under load is slow at times, and what it holds up
/// in the meantime is asked of another one.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MAX_UNPROVEN: Duration = Duration::from_secs(1);
/// Longest wait for the first part of an answer, and longest pause in one, however patient we are.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(20);
/// What an answer must bring to be making progress.
pub(crate) const PROGRESS_BYTES_PER_SECOND: u64 = 64 * 1024;
/// All of what a peer was asked for.
const DELIVERY_WHOLE: u32 = 256;
/// How many answers are looked back on, and their bits.
const ANSWERS_REMEMBERED: u32 = 100;
const ANSWERS_MASK: u128 = (1 << ANSWERS_REMEMBERED) - 1;
/// Most blocks that one request asks of a peer that has not delivered a good one yet: all of them may be bad.
const BLOCKS_UNPROVEN: usize = 32;
/// Most commits that are asked of one that has not delivered any.
const COMMITS_UNPROVEN: u32 = 16;
/// The fewest blocks that a peer is asked for, however often it cuts answers short.
const BLOCKS_MIN: usize = 16;
/// How often the time for which a peer is not asked for the same again is doubled at most.
const AVOID_DOUBLINGS: u32 = 6;
/// How often deadlines are doubled at most.
const PATIENCE_MAX: u32 = 6;
/// Shortest and longest time for which a claim is cut.
const CUT_MIN: Duration = Duration::from_millis(500);
const CUT_MAX: Duration = Duration::from_secs(120);
/// How long a peer is not followed after a request that waited at it came to nothing, and how often that is doubled.
const FOLLOW_REST: Duration = Duration::from_secs(1);
const FOLLOW_REST_DOUBLINGS: u32 = 10;
/// How many times as slow as it seemed a peer is taken to be once another had to be asked in its place.
const OVERTAKEN_FACTOR: u64 = 16;
/// And one that has not delivered anything yet.
const UNPROVEN_FACTOR: u64 = 4;
/// How long it takes until what a peer did badly counts half as much.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Failed ranges remembered for one peer.
const MAX_AVOIDED: usize = 64;

/// All peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PeerBook {
    peers: BTreeMap<PeerId, Peer>,
    max_peers: usize,
    first_limit: u32,
}

/// But for its bounds, which the configuration says.
#[cfg(feature = "trace")]
impl Saved for PeerBook {
    fn save(&self, to: &mut Saver) {
        let Self { peers, max_peers: _, first_limit: _ } = self;
        peers.save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Result<Self, RestoreError> {
        Ok(Self { peers: Saved::restore(from)?, ..Self::new(from.config()) })
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// Since when, or until when, it was last connected.
    pub(crate) seen: Timestamp,
    pub(crate) link: Link,
    pub(crate) claim: Option<Claim>,
    /// Requests for commits and blocks in flight, and how many may be.
    pub(crate) in_flight: u32,
    pub(crate) limit: u32,
    pub(crate) pace: Pace,
    /// Whether another peer had to be asked for what it had been asked for, and nothing has come from it since.
    overtaken: bool,
    /// When that was last so.
    pub(crate) overtaken_at: Option<Timestamp>,
    /// How much of what it was asked for it delivered lately, in 256ths.
    delivery: u32,
    /// When it last failed, was overtaken, or was found to cut answers short: what speaks against it fades from then.
    worsened: Timestamp,
    /// Whether its last blocks answers were cut short, the latest in the lowest bit, and how many there were.
    truncated: u128,
    answers: u32,
    /// Failures since the last success.
    failures: u32,
    pub(crate) backoff_until: Timestamp,
    banned_until: Timestamp,
    /// Starts of ranges that it failed to deliver, and until when it is not asked for them again.
    pub(crate) avoided: BTreeMap<CommitIndex, Avoided>,
    /// What its claims are cut to, and until when, since it failed to deliver more.
    cut: Option<(CommitIndex, Timestamp)>,
    /// How often its deadlines were doubled, because requests to it timed out.
    patience: u32,
    /// Most blocks that one request to it may ask for.
    max_blocks: usize,
    pub(crate) next_poll: Timestamp,
    /// When it was last polled.
    pub(crate) last_poll: Timestamp,
    pub(crate) poll_in_flight: bool,
    pub(crate) push_in_flight: bool,
    /// The highest index that was pushed to it.
    pub(crate) pushed: CommitIndex,
    /// Highest commit that it delivered, certified.
    delivered: CommitIndex,
    /// Requests that wait at it for what is to come.
    pub(crate) following: u32,
    /// How often in a row such a request came to nothing, and until when there is none for that.
    follow_failures: u32,
    follow_rest_until: Timestamp,
    pub(crate) invalid_requests: u32,
    pub(crate) served_commits: u64,
    pub(crate) served_bytes: u64,
    /// Requests to it whose time was up.
    pub(crate) timeouts: u64,
    pub(crate) offences: u32,
    pub(crate) last_offence: Option<Offence>,
}
saved! { struct Peer {
    seen, link, claim, in_flight, limit, pace, overtaken, overtaken_at, delivery, worsened, truncated,
    answers, failures, backoff_until, banned_until, avoided, cut, patience, max_blocks, next_poll, last_poll,
    poll_in_flight, push_in_flight, pushed, delivered, following, follow_failures, follow_rest_until,
    invalid_requests, served_commits, served_bytes, timeouts, offences, last_offence,
} }

/// How far we are with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Link {
    /// Not connected.
    Down,
    /// Connected; it has not said which chain it is on.
    Unchecked,
    /// Connected, and on our chain.
    Checked,
}
saved! { enum Link { 0 => Down, 1 => Unchecked, 2 => Checked } }

/// Something that a peer failed to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Avoided {
    /// Until when it is not asked for it at all, and until when only if nobody else can be.
    pub(crate) at_least_until: Timestamp,
    pub(crate) until: Timestamp,
    /// How often in a row.
    times: u32,
}
saved! { struct Avoided { at_least_until, until, times } }

/// What a peer says it has. A hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) highest: CommitIndex,
    pub(crate) lowest: CommitIndex,
    /// When it answered our poll; a push does not change it.
    pub(crate) polled: Timestamp,
    /// Whether it says more, and has failed to deliver that.
    pub(crate) cut: bool,
}
saved! { struct Claim { highest, lowest, polled, cut } }

impl Peer {
    fn new(now: Timestamp, limit: u32) -> Self {
        Self {
            seen: now,
            link: Link::Down,
            claim: None,
            in_flight: 0,
            limit,
            pace: Pace::default(),
            overtaken: false,
            overtaken_at: None,
            delivery: DELIVERY_WHOLE,
            worsened: Timestamp::ZERO,
            truncated: 0,
            answers: 0,
            failures: 0,
            backoff_until: Timestamp::ZERO,
            banned_until: Timestamp::ZERO,
            avoided: BTreeMap::new(),
            cut: None,
            patience: 0,
            max_blocks: usize::MAX,
            next_poll: now,
            last_poll: Timestamp::ZERO,
            poll_in_flight: false,
            push_in_flight: false,
            pushed: CommitIndex::GENESIS,
            delivered: CommitIndex::GENESIS,
            following: 0,
            follow_failures: 0,
            follow_rest_until: Timestamp::ZERO,
            invalid_requests: 0,
            served_commits: 0,
            served_bytes: 0,
            timeouts: 0,
            offences: 0,
            last_offence: None,
        }
    }

    /// Whether it may be asked for data at all now.
    pub(crate) fn is_available(&self, now: Timestamp) -> bool {
        self.link == Link::Checked && now >= self.backoff_until && now >= self.banned_until()
    }

    /// Whether it says that it has `start`, and has not failed to deliver it lately.
    pub(crate) fn can_serve(&self, start: CommitIndex, now: Timestamp) -> bool {
        let ready = |avoided: &Avoided| now >= avoided.until;
        self.can_serve_at_need(start, now) && self.avoided.get(&start).is_none_or(ready)
    }

    /// The same where nobody else can, for who has failed again and again.
    pub(crate) fn can_serve_at_need(&self, start: CommitIndex, now: Timestamp) -> bool {
        let lowest = |claim: Claim| claim.lowest <= start || !stands(Defence::LowestClaimed);
        let claims = self.claim.is_some_and(|claim| lowest(claim) && start <= claim.highest);
        let rested = |avoided: &Avoided| now >= avoided.at_least_until;
        claims && self.is_available(now) && self.avoided.get(&start).is_none_or(rested)
    }

    /// Whether it may be asked for `start` beside another peer, from which nothing comes: also where it says that it has
    /// more than is believed.
    pub(crate) fn can_second(&self, start: CommitIndex, now: Timestamp) -> bool {
        let says_more = self.claim.is_some_and(|claim| claim.cut && claim.lowest <= start);
        let ready = |avoided: &Avoided| now >= avoided.until;
        let doubted = says_more && self.is_available(now) && self.avoided.get(&start).is_none_or(ready);
        doubted || self.can_serve(start, now)
    }

    /// Whether one more request may be sent to it.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight < self.limit
    }

    /// Whether a request may wait at it for `start`, which does not exist yet.
    pub(crate) fn can_be_followed(&self, start: CommitIndex, now: Timestamp) -> bool {
        let avoided = self.avoided.get(&start).is_some_and(|avoided| now < avoided.until);
        self.is_available(now) && now >= self.follow_rest_until && !avoided
    }

    /// A request that waited at it brought what it was to bring.
    pub(crate) fn follow_succeeded(&mut self) {
        self.follow_failures = 0;
    }

    /// A request that waited at it came to nothing: there is none for a while, and for longer each time.
    pub(crate) fn follow_failed(&mut self, now: Timestamp) {
        let doublings = self.follow_failures.min(FOLLOW_REST_DOUBLINGS);
        self.follow_failures = self.follow_failures.saturating_add(1);
        let factor = 1u32.checked_shl(doublings).unwrap_or(1);
        self.follow_rest_until = now.saturating_add(FOLLOW_REST.saturating_mul(factor));
    }

    /// From when on it is so much faster than another peer that it is better asked itself.
    pub(crate) fn outpaces_from(&self, answer: &Answer) -> Option<Timestamp> {
        self.pace.outpaces_from(answer).filter(|_| self.is_proven())
    }

    /// Whether it has ever delivered what it was asked for.
    pub(crate) fn is_proven(&self) -> bool {
        self.delivered > CommitIndex::GENESIS || self.served_bytes > 0
    }

    /// What a request to it may be expected to cost, relative to others: the time that it takes, the more the less of
    /// what it is asked for it delivers. What it did badly fades with time, so that it is asked again (scheduling:
    /// Choice).
    pub(crate) fn cost(&self, now: Timestamp) -> u64 {
        let halvings = self.halvings(now);
        let lacking = DELIVERY_WHOLE.saturating_sub(self.delivery).checked_shr(halvings).unwrap_or(0);
        let delivery = DELIVERY_WHOLE.saturating_sub(lacking).max(1);
        let shortfall = u64::from(DELIVERY_WHOLE.checked_div(delivery).unwrap_or(DELIVERY_WHOLE));
        let overtaken = if self.overtaken && stands(Defence::Overtaken) { OVERTAKEN_FACTOR } else { 1 };
        let overtaken = overtaken.checked_shr(halvings).unwrap_or(0).max(1);
        let unproven = if self.is_proven() { 1 } else { UNPROVEN_FACTOR };
        let factors = overtaken.saturating_mul(unproven);
        let each = self.pace.answer_us().saturating_mul(shortfall).saturating_mul(factors);
        each.saturating_mul(u64::from(self.in_flight).saturating_add(1))
    }

    /// How often what speaks against it has been halved by time.
    fn halvings(&self, now: Timestamp) -> u32 {
        let halvings = micros(now.saturating_since(self.worsened)).checked_div(micros(HALF_LIFE));
        halvings.and_then(|halvings| u32::try_from(halvings).ok()).unwrap_or(u32::MAX)
    }

    /// Most blocks that one request to it may ask for: few before it has delivered any, and twice as many after each
    /// while in which it cut nothing short.
    pub(crate) fn max_blocks(&self, now: Timestamp) -> usize {
        let doublings = self.halvings(now).min(usize::BITS);
        let most = self.max_blocks.saturating_mul(1usize.checked_shl(doublings).unwrap_or(usize::MAX));
        let unproven = self.served_bytes == 0 && stands(Defence::SmallFirstRequests);
        if unproven { most.min(BLOCKS_UNPROVEN) } else { most }
    }

    /// Most commits that one request to it may ask for, where so many are asked of those that have delivered some.
    pub(crate) fn max_commits(&self, batch: u32) -> u32 {
        let unproven = self.delivered == CommitIndex::GENESIS && stands(Defence::SmallFirstRequests);
        if unproven { batch.min(COMMITS_UNPROVEN) } else { batch }
    }

    /// It is to be asked for this many blocks at a time, at most, for a while.
    pub(crate) fn set_max_blocks(&mut self, count: usize, now: Timestamp) {
        (self.max_blocks, self.worsened) = (count.max(1), now);
    }

    /// Another peer had to be asked for what it had been asked for.
    pub(crate) fn overtaken(&mut self, now: Timestamp) {
        (self.overtaken, self.overtaken_at, self.worsened) = (true, Some(now), now);
    }

    /// How long the first part of an answer may take.
    pub(crate) fn first_byte_deadline(&self) -> Duration {
        let expected = Duration::from_micros(self.pace.round_trip_us().saturating_mul(4));
        let patient = expected.max(self.pause_max()).saturating_mul(self.patience_factor());
        patient.min(FIRST_BYTE_MAX)
    }

    /// How long after its first part an answer may go on of which `received` bytes have come: as long as those take at
    /// the slowest rate that is progress, and a pause.
    pub(crate) fn progress_deadline(&self, received: u64) -> Duration {
        let at_slowest =
            Duration::from_micros(received.saturating_mul(1_000_000) / PROGRESS_BYTES_PER_SECOND);
        let pause = self.pause_max().saturating_mul(self.patience_factor()).min(FIRST_BYTE_MAX);
        at_slowest.saturating_mul(self.patience_factor()).saturating_add(pause)
    }

    /// How long nothing may come of a request: who has delivered before may be busy.
    fn pause_max(&self) -> Duration {
        if self.is_proven() { PAUSE_MAX } else { PAUSE_MAX_UNPROVEN }
    }

    fn patience_factor(&self) -> u32 {
        1u32.checked_shl(self.patience).unwrap_or(u32::MAX)
    }

    /// A request to it timed out: it counts as having taken as long as an answer may take at most. Whether the peer is
    /// slow or gone, the next one may take twice as long.
    pub(crate) fn timed_out(&mut self, timeout: Duration) {
        self.timeouts = self.timeouts.saturating_add(1);
        self.patience = self.patience.saturating_add(1).min(PATIENCE_MAX);
        self.pace.took(timeout);
    }

    /// It delivered what it was asked for.
    pub(crate) fn succeeded(&mut self, config: &Config) {
        self.failures = 0;
        self.overtaken = false;
        self.patience = self.patience.saturating_sub(1);
        self.limit = self.limit.saturating_add(1).min(config.max_requests_per_peer);
        self.shown(DELIVERY_WHOLE);
    }

    /// It delivered so many 256ths of what it was asked for.
    fn shown(&mut self, sample: u32) {
        let smoothed = self.delivery.saturating_mul(7).saturating_add(sample) / 8;
        // Rounded up, so that good service makes whole again.
        let up = u32::from(sample > self.delivery);
        self.delivery = smoothed.saturating_add(up).min(DELIVERY_WHOLE);
    }

    /// Its answer to a request for `asked` blocks was whole, or was cut short. Who cuts answers short is asked for
    /// less, and for more again when that has stopped (scheduling: Partial answers).
    pub(crate) fn answered_blocks(&mut self, asked: usize, cut: bool, now: Timestamp) {
        self.truncated = (self.truncated << 1) | u128::from(cut);
        self.answers = self.answers.saturating_add(1).min(ANSWERS_REMEMBERED);
        let cut = self.truncated & ANSWERS_MASK;
        if cut.count_ones() > ANSWERS_REMEMBERED / 10 {
            self.set_max_blocks((asked / 2).max(BLOCKS_MIN), now);
            (self.truncated, self.answers) = (0, 0);
        } else if cut == 0 && self.answers == ANSWERS_REMEMBERED {
            self.max_blocks = self.max_blocks.saturating_add(self.max_blocks / 4);
            self.answers = 0;
        }
    }

    /// It delivered certified commits up to `index`, and so has them.
    pub(crate) fn delivered(&mut self, index: CommitIndex) {
        self.delivered = self.delivered.max(index);
        if let Some(claim) = &mut self.claim {
            claim.highest = claim.highest.max(index);
        }
    }

    /// It did not deliver `start`, through what may be nobody's fault: it rests for a while, is not asked for this
    /// again for longer, and its claim is cut to what it has shown.
    pub(crate) fn failed(&mut self, start: CommitIndex, now: Timestamp, config: &Config, rng: &mut Rng) {
        if stands(Defence::AvoidFailed) {
            self.avoid(start, now, config);
        }
        self.fell_short(start, now, rng);
    }

    /// The same where it is known already that it is not to be asked for this again.
    pub(crate) fn fell_short(&mut self, start: CommitIndex, now: Timestamp, rng: &mut Rng) {
        self.limit = (self.limit / 2).max(1);
        self.worsened = now;
        self.shown(0);
        let doublings = if has(Bug::BackoffStartsAgain) { self.failures % 8 } else { self.failures.min(16) };
        let doubled = BACKOFF_MIN.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let backoff = doubled.min(BACKOFF_MAX);
        let jitter = Duration::from_micros(rng.below(micros(backoff) / 4));
        self.backoff_until = now.saturating_add(backoff).saturating_add(jitter);
        let Some(below) = start.previous() else { return };
        // Of several ranges that it did not deliver, the lowest counts.
        let cut = self.cut.filter(|(_, until)| now < *until).map_or(below, |(most, _)| most.min(below));
        let shown = cut.max(self.delivered);
        let believed_again =
            CUT_MIN.saturating_mul(1u32.checked_shl(self.failures.min(8)).unwrap_or(u32::MAX));
        if stands(Defence::CutClaims) {
            let until = now.saturating_add(believed_again.min(CUT_MAX));
            self.cut = Some((shown, until));
            // By then it may be asked again, for what it says then.
            self.next_poll = self.next_poll.min(until);
        }
        if let Some(claim) = self.claim {
            self.claimed(claim, now);
        }
    }

    /// It says what it has. More than it has shown is not believed for a while after it failed to deliver.
    pub(crate) fn claimed(&mut self, claim: Claim, now: Timestamp) {
        let most = self
            .cut
            .filter(|(_, until)| now < *until || has(Bug::CutForEver))
            .map(|(shown, _)| shown.max(self.delivered));
        let highest = most.map_or(claim.highest, |most| claim.highest.min(most.max(claim.lowest)));
        self.claim = Some(Claim { highest, cut: claim.cut || highest < claim.highest, ..claim });
    }

    /// Its word was not to be doubted.
    pub(crate) fn believe(&mut self, claim: Option<Claim>) {
        self.cut = None;
        self.claim = claim;
    }

    /// It is not asked for `start` for a while, and for longer each time in a row; of requests that fail together, one
    /// counts.
    pub(crate) fn avoid(&mut self, start: CommitIndex, now: Timestamp, config: &Config) {
        let before = self.avoided.get(&start);
        let together = before.is_some_and(|avoided| now < avoided.at_least_until);
        let times = before.map_or(0, |avoided| avoided.times.saturating_sub(u32::from(together)));
        if before.is_none() && self.avoided.len() >= MAX_AVOIDED {
            let soonest = self.avoided.iter().min_by_key(|(_, avoided)| avoided.until);
            if let Some(soonest) = soonest.map(|(start, _)| *start) {
                self.avoided.remove(&soonest);
            }
        }
        let doubled = 1u32.checked_shl(times.min(AVOID_DOUBLINGS)).unwrap_or(1);
        let at_least_until = now.saturating_add(config.retry_same_peer_after);
        let until = now.saturating_add(config.retry_same_peer_after.saturating_mul(doubled));
        self.avoided.insert(start, Avoided { at_least_until, until, times: times.saturating_add(1) });
    }

    /// It did what is provably wrong. For how long it is kept out.
    pub(crate) fn offended(&mut self, offence: Offence, now: Timestamp, config: &Config) -> Duration {
        self.last_offence = Some(offence);
        let doublings = self.offences.min(6);
        self.offences = self.offences.saturating_add(1);
        let ban = config.ban.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
        self.banned_until = now.saturating_add(if has(Bug::BanForEver) { Duration::MAX } else { ban });
        ban
    }

    /// Until when it is kept out.
    pub(crate) fn banned_until(&self) -> Timestamp {
        if stands(Defence::Bans) { self.banned_until } else { Timestamp::ZERO }
    }

    /// When something may change about it by time alone.
    pub(crate) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        if self.link == Link::Down {
            return None;
        }
        if now < self.banned_until {
            return Some(self.banned_until);
        }
        let poll = (!self.poll_in_flight).then_some(self.next_poll);
        let rest = Some(self.backoff_until).filter(|at| *at > now);
        let follow = Some(self.follow_rest_until).filter(|at| *at > now);
        let avoided = self.avoided.values().flat_map(|avoided| [avoided.at_least_until, avoided.until]);
        let avoided = avoided.filter(|at| *at > now && !has(Bug::AvoidedWithoutTimer));
        rest.into_iter().chain(follow).chain(avoided).chain(poll).min()
    }
}

impl PeerBook {
    pub(crate) fn new(config: &Config) -> Self {
        let max_peers = usize::try_from(config.max_peers).unwrap_or(usize::MAX);
        Self { peers: BTreeMap::new(), max_peers, first_limit: FIRST_LIMIT.min(config.max_requests_per_peer) }
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<&Peer> {
        self.peers.get(peer)
    }
    pub(crate) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer)
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerId, &mut Peer)> {
        self.peers.iter_mut().map(|(id, peer)| (*id, peer))
    }
    /// Peers that are connected and on our chain.
    pub(crate) fn checked(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.iter().filter(|(_, peer)| peer.link == Link::Checked)
    }

    /// The record of a peer that has just connected; `None` where every record is that of a connected peer.
    pub(crate) fn connect(&mut self, id: PeerId, now: Timestamp) -> Option<&mut Peer> {
        if !self.peers.contains_key(&id) && self.peers.len() >= self.max_peers {
            let down = self.peers.iter().filter(|(_, peer)| peer.link == Link::Down);
            let oldest =
                down.min_by_key(|(_, peer)| (peer.banned_until > now, peer.seen)).map(|(id, _)| *id)?;
            self.peers.remove(&oldest);
        }
        if !stands(Defence::KeptRecords) {
            self.peers.remove(&id);
        }
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(now, self.first_limit));
        peer.seen = now;
        peer.link = Link::Unchecked;
        peer.claim = None;
        peer.next_poll = now;
        peer.poll_in_flight = false;
        peer.push_in_flight = false;
        if !has(Bug::PushedOverReconnect) {
            peer.pushed = CommitIndex::GENESIS;
        }
        Some(peer)
    }

    /// The highest commit that any peer on our chain claims.
    pub(crate) fn highest_claim(&self) -> Option<CommitIndex> {
        self.checked().filter_map(|(_, peer)| peer.claim.map(|claim| claim.highest)).max()
    }

    /// When something may change by time alone.
    pub(crate) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.peers.values().filter_map(|peer| peer.wake(now)).min()
    }

    /// What must always hold: the caps.
    pub(crate) fn check_invariants(&self, config: &Config) -> Result<(), &'static str> {
        let mut peers = self.peers.values();
        match () {
            () if self.peers.len() > self.max_peers => Err("peers: too many records"),
            () if peers.clone().any(|peer| peer.in_flight > config.max_requests_per_peer) => {
                Err("peers: too many requests in flight to one peer")
            }
            () if peers.any(|peer| peer.avoided.len() > MAX_AVOIDED) => Err("peers: too many avoided ranges"),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
