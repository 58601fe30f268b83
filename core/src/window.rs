//! The commits ahead of the tip: what stage each is in, and what is missing.
//!
//! One interval map, no cursors. Each index above the tip is in exactly one stage:
//!
//! ```text
//!                 asked for            answer whole             quorum verified            every block held
//!   (missing) ──────────────▶ Requested ──────────▶ Certifying ────────────────▶ Certified ───────────────▶ to storage
//!       ▲                        │ failed, short        │ refused                  │ evicted, wrong epoch
//!       └────────────────────────┴──────────────────────┴──────────────────────────┘
//! ```
//!
//! An index that no span covers is missing. Within a certified commit each block has a stage of its own, [`Slot`].
//! What is missing is known here; whom to ask for it is [`schedule`](crate::schedule)'s business.

#[cfg(test)]
pub(crate) mod model;
mod normal;

use crate::{
    bug::{Bug, has},
    event::{JobId, RequestId},
    job::{CheckedBlock, CommitHeader, EpochEnd},
    ledger::BufferId,
    types::{BlockRef, CommitIndex, CommitRange, Epoch, PeerId},
    verified::Verified,
};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::mem;

/// The spans ahead of the tip, by first index. They never overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    spans: BTreeMap<CommitIndex, Span>,
    /// Slots of all certified commits that are [`Slot::Missing`].
    missing: usize,
}
saved! { struct Window { spans, missing } }

/// Consecutive commits in one stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Span {
    /// Asked for, up to `end`.
    Requested { request: RequestId, end: CommitIndex },
    /// Being verified, up to `end`.
    Certifying { job: JobId, end: CommitIndex },
    /// Certified; their blocks are being fetched. Never empty.
    Certified(Certified),
}
saved! { enum Span { 0 => Requested { request, end }, 1 => Certifying { job, end }, 2 => Certified(it) } }

/// Certified commits, and how far their blocks are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Certified {
    bodies: VecDeque<Body>,
    /// Slots of all bodies that are [`Slot::Missing`].
    missing: usize,
}
saved! { struct Certified { bodies, missing } }

/// A certified commit and its blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Body {
    pub(crate) header: Verified<CommitHeader>,
    /// Who sent it, if a peer did.
    pub(crate) from: Option<PeerId>,
    /// What keeps the header's bytes, one kept payload of it.
    pub(crate) buffer: BufferId,
    /// Blocks that vote for this commit or a later one, kept with the buffer of each.
    pub(crate) certifiers: Vec<(Verified<CheckedBlock>, BufferId)>,
    slots: Vec<Slot>,
    missing: usize,
    pending: usize,
    /// What the first block with complete end-of-epoch data says, of those that came: its position, and its word.
    epoch_end: Option<(usize, BlockRef, EpochEnd)>,
}
saved! { struct Body { header, from, buffer, certifiers, slots, missing, pending, epoch_end } }

/// What is known of the commits below an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Below {
    /// The epoch that should come next, by the nearest commit below that is known.
    pub(crate) epoch: Epoch,
    /// Whether every commit below is known and complete, so that there is no other possibility: a commit of which blocks
    /// are missing may end its epoch, whatever certified commits are said to come after it.
    pub(crate) proven: bool,
}

/// One block of a certified commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// Nobody is asked for it.
    Missing,
    /// A peer is asked for it.
    Requested(RequestId),
    /// It is being checked.
    Checking(JobId),
    /// It is here, and it is right.
    Held(Box<(Verified<CheckedBlock>, BufferId)>),
    /// It is on its way to storage or there already, because its commit is too large to be held in memory.
    Staged,
}
saved! { enum Slot { 0 => Missing, 1 => Requested(it), 2 => Checking(it), 3 => Held(it), 4 => Staged } }

impl Slot {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
    fn is_pending(&self) -> bool {
        match self {
            Self::Missing | Self::Requested(_) | Self::Checking(_) => true,
            Self::Held(_) | Self::Staged => false,
        }
    }
}

impl Body {
    /// A commit of which no block is here yet.
    pub(crate) fn new(header: Verified<CommitHeader>, from: Option<PeerId>, buffer: BufferId) -> Self {
        let count = header.blocks.len();
        let slots = core::iter::repeat_n(Slot::Missing, count).collect();
        Self {
            header,
            from,
            buffer,
            certifiers: Vec::new(),
            slots,
            missing: count,
            pending: count,
            epoch_end: None,
        }
    }

    /// Whether every block is here or in storage.
    pub(crate) fn is_complete(&self) -> bool {
        self.pending == 0
    }
    /// How many blocks are neither here nor in storage.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }
    /// The blocks' stages, in commit order.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }
    /// What ends the epoch with this commit, if a block that came says so.
    pub(crate) fn epoch_end(&self) -> Option<(BlockRef, &EpochEnd)> {
        self.epoch_end.as_ref().map(|(_, block, end)| (*block, end))
    }
    /// The epoch of the commit after it, as far as its blocks are here.
    fn epoch_after(&self) -> Epoch {
        let ends = self.epoch_end.is_some() && !has(Bug::EpochEndUnseen);
        self.header.epoch.saturating_add(u64::from(ends))
    }
    /// Takes the held blocks out, for storage; their slots are staged from then on.
    pub(crate) fn take_held(&mut self) -> Vec<(Verified<CheckedBlock>, BufferId)> {
        let held = self.slots.iter_mut().filter(|slot| matches!(slot, Slot::Held(_)));
        held.filter_map(|slot| match mem::replace(slot, Slot::Staged) {
            Slot::Held(held) => Some(*held),
            Slot::Missing | Slot::Requested(_) | Slot::Checking(_) | Slot::Staged => None,
        })
        .collect()
    }
    /// The buffers that keeping this body keeps, one for each kept payload.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = BufferId> {
        let held = self.slots.iter().filter_map(|slot| match slot {
            Slot::Held(held) => Some(held.1),
            Slot::Missing | Slot::Requested(_) | Slot::Checking(_) | Slot::Staged => None,
        });
        core::iter::once(self.buffer).chain(self.certifiers.iter().map(|(_, buffer)| *buffer)).chain(held)
    }

    fn set(&mut self, slot: usize, to: Slot) -> Option<Slot> {
        if let Slot::Held(held) = &to
            && let Some(end) = &held.0.epoch_end
            && self.epoch_end.as_ref().is_none_or(|(first, _, _)| slot < *first || has(Bug::LastEpochEnd))
        {
            self.epoch_end = Some((slot, held.0.reference, end.clone()));
        }
        let place = self.slots.get_mut(slot)?;
        let from = mem::replace(place, to);
        let now = self.slots.get(slot)?;
        self.missing = self.missing.saturating_sub(usize::from(from.is_missing()));
        self.missing = self.missing.saturating_add(usize::from(now.is_missing()));
        self.pending = self.pending.saturating_sub(usize::from(from.is_pending()));
        self.pending = self.pending.saturating_add(usize::from(now.is_pending()));
        Some(from)
    }
}

impl Certified {
    fn new(bodies: VecDeque<Body>) -> Self {
        let missing = bodies.iter().fold(0usize, |sum, body| sum.saturating_add(body.missing));
        Self { bodies, missing }
    }
}

/// How far `index` lies above `start`, as a position.
fn offset(start: CommitIndex, index: CommitIndex) -> Option<usize> {
    index.get().checked_sub(start.get()).and_then(|distance| usize::try_from(distance).ok())
}

/// The index `count - 1` above `start`.
fn last_of(start: CommitIndex, count: usize) -> CommitIndex {
    start.saturating_add(u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX))
}

impl Window {
    /// The span that covers `index`, with its range.
    pub(crate) fn span_at(&self, index: CommitIndex) -> Option<(CommitRange, &Span)> {
        let (start, span) = self.spans.range(..=index).next_back()?;
        let range = CommitRange::new(*start, span.end(*start))?;
        range.contains(index).then_some((range, span))
    }

    /// The certified commit at `index`.
    pub(crate) fn body(&self, index: CommitIndex) -> Option<&Body> {
        match self.spans.range(..=index).next_back()? {
            (start, Span::Certified(certified)) => certified.bodies.get(offset(*start, index)?),
            (_, Span::Requested { .. } | Span::Certifying { .. }) => None,
        }
    }

    /// The certified commits, lowest first.
    pub(crate) fn bodies(&self) -> impl DoubleEndedIterator<Item = &Body> {
        self.spans.values().flat_map(|span| match span {
            Span::Certified(certified) => certified.bodies.iter(),
            Span::Requested { .. } | Span::Certifying { .. } => Default::default(),
        })
    }

    /// Where one block of a certified commit is.
    pub(crate) fn slot(&self, index: CommitIndex, slot: usize) -> Option<&Slot> {
        self.body(index)?.slots.get(slot)
    }

    /// The span that would hold the certified commit at `index`, and where: there may be none.
    fn certified_mut(&mut self, index: CommitIndex) -> Option<(&mut Certified, usize)> {
        match self.spans.range_mut(..=index).next_back()? {
            (start, Span::Certified(certified)) => Some((certified, offset(*start, index)?)),
            (_, Span::Requested { .. } | Span::Certifying { .. }) => None,
        }
    }

    /// Moves one block of a certified commit to another stage; says which stage it was in.
    pub(crate) fn set_slot(&mut self, index: CommitIndex, slot: usize, to: Slot) -> Option<Slot> {
        let (certified, position) = self.certified_mut(index)?;
        let body = certified.bodies.get_mut(position)?;
        let before = body.missing;
        let from = body.set(slot, to);
        let after = body.missing;
        certified.missing = certified.missing.saturating_sub(before).saturating_add(after);
        self.missing = self.missing.saturating_sub(before).saturating_add(after);
        from
    }

    /// Makes one block of a certified commit missing again, if it still is where `from` says.
    pub(crate) fn forget_slot(&mut self, index: CommitIndex, slot: usize, from: &Slot) {
        self.forget_slots(&[(index, slot)], from);
    }

    /// Does `change` to the blocks at `positions`, commit by commit, as far as they are known.
    fn change_slots(&mut self, positions: &[(CommitIndex, usize)], change: impl Fn(&mut Body, usize)) {
        for of_commit in positions.chunk_by(|(one, _), (other, _)| one == other) {
            let index = of_commit.first().map(|(index, _)| *index);
            let Some((certified, position)) = index.and_then(|index| self.certified_mut(index)) else {
                continue;
            };
            let Some(body) = certified.bodies.get_mut(position) else { continue };
            let before = body.missing;
            of_commit.iter().for_each(|(_, slot)| change(body, *slot));
            let after = body.missing;
            certified.missing = certified.missing.saturating_sub(before).saturating_add(after);
            self.missing = self.missing.saturating_sub(before).saturating_add(after);
        }
    }

    /// Moves blocks of certified commits to another stage.
    pub(crate) fn set_slots(&mut self, positions: &[(CommitIndex, usize)], to: &Slot) {
        self.change_slots(positions, |body, slot| {
            body.set(slot, to.clone());
        });
    }

    /// Makes blocks of certified commits missing again that still are where `from` says.
    pub(crate) fn forget_slots(&mut self, positions: &[(CommitIndex, usize)], from: &Slot) {
        self.change_slots(positions, |body, slot| {
            if body.slots.get(slot) == Some(from) {
                body.set(slot, Slot::Missing);
            }
        });
    }

    /// What names the blocks at `positions`; nothing of a commit that is not certified.
    pub(crate) fn references(&self, positions: &[(CommitIndex, usize)]) -> Vec<BlockRef> {
        let mut references = Vec::with_capacity(positions.len());
        for of_commit in positions.chunk_by(|(one, _), (other, _)| one == other) {
            let Some(body) = of_commit.first().and_then(|(index, _)| self.body(*index)) else { continue };
            references.extend(of_commit.iter().filter_map(|(_, slot)| body.header.blocks.get(*slot)));
        }
        references
    }

    /// Takes the held blocks of a commit out, for storage.
    pub(crate) fn stage_held(&mut self, index: CommitIndex) -> Vec<(Verified<CheckedBlock>, BufferId)> {
        let body =
            self.certified_mut(index).and_then(|(certified, position)| certified.bodies.get_mut(position));
        body.map(Body::take_held).unwrap_or_default()
    }

    /// Adds a block that votes for a certified commit.
    pub(crate) fn add_certifier(
        &mut self,
        index: CommitIndex,
        block: Verified<CheckedBlock>,
        buffer: BufferId,
    ) -> bool {
        let body =
            self.certified_mut(index).and_then(|(certified, position)| certified.bodies.get_mut(position));
        match body {
            Some(body) => {
                body.certifiers.push((block, buffer));
                true
            }
            None => false,
        }
    }

    /// The lowest run of missing commits in `within`.
    pub(crate) fn first_gap(&self, within: CommitRange) -> Option<CommitRange> {
        let mut from = within.start();
        if let Some((covered, _)) = self.span_at(from) {
            from = covered.end().next()?;
        }
        let mut next = None;
        for (start, span) in self.spans.range(from..) {
            if *start > from || from > within.end() {
                next = Some(*start);
                break;
            }
            from = span.end(*start).next()?;
        }
        let below = |next: CommitIndex| if has(Bug::GapOneLonger) { Some(next) } else { next.previous() };
        let end = next.and_then(below).map_or(within.end(), |end| end.min(within.end()));
        CommitRange::new(from, end)
    }

    /// Marks missing commits as asked for. The caller has found them missing.
    pub(crate) fn request(&mut self, range: CommitRange, request: RequestId) {
        self.spans.insert(range.start(), Span::Requested { request, end: range.end() });
    }

    /// Whether what begins at `start` is asked for by `request`.
    pub(crate) fn is_requested(&self, start: CommitIndex, request: RequestId) -> bool {
        matches!(self.spans.get(&start), Some(Span::Requested { request: of, .. }) if *of == request)
    }

    /// What was asked for by `request` is missing again, but for what has been certified meanwhile.
    pub(crate) fn forget_request(&mut self, start: CommitIndex, request: RequestId) {
        if self.is_requested(start, request) {
            self.spans.remove(&start);
        }
    }

    /// The answer to `request` goes to verification: `end` is the last commit that it reaches.
    pub(crate) fn certifying(
        &mut self,
        start: CommitIndex,
        request: RequestId,
        job: JobId,
        end: CommitIndex,
    ) {
        if let Some(Span::Requested { request: of, end: asked }) = self.spans.get(&start)
            && *of == request
        {
            let end = end.min(*asked).max(start);
            self.spans.insert(start, Span::Certifying { job, end });
        }
    }

    /// What `job` was verifying is missing again, but for what has been certified meanwhile.
    pub(crate) fn forget_job(&mut self, start: CommitIndex, job: JobId) {
        if matches!(self.spans.get(&start), Some(Span::Certifying { job: of, .. }) if *of == job) {
            self.spans.remove(&start);
        }
    }

    /// Puts certified commits in place of missing ones. The caller has found them missing.
    pub(crate) fn certified(&mut self, start: CommitIndex, bodies: VecDeque<Body>) {
        if !bodies.is_empty() {
            let certified = Certified::new(bodies);
            self.missing = self.missing.saturating_add(certified.missing);
            self.spans.insert(start, Span::Certified(certified));
        }
    }

    /// Takes out the certified commit at `index`, if it is the lowest of all spans.
    pub(crate) fn pop_front(&mut self, index: CommitIndex) -> Option<Body> {
        let mut first = self.spans.first_entry()?;
        if *first.key() != index {
            return None;
        }
        let Span::Certified(certified) = first.get_mut() else { return None };
        let body = certified.bodies.pop_front()?;
        certified.missing = certified.missing.saturating_sub(body.missing);
        self.missing = self.missing.saturating_sub(body.missing);
        let rest = first.remove();
        if let (Some(next), Span::Certified(certified)) = (index.next(), rest)
            && !certified.bodies.is_empty()
        {
            self.spans.insert(next, Span::Certified(certified));
        }
        Some(body)
    }

    /// Takes out the highest certified commit above `above`.
    pub(crate) fn pop_back(&mut self, above: CommitIndex) -> Option<Body> {
        let spans = self.spans.iter_mut().rev();
        let (start, certified) = spans.into_iter().find_map(|(start, span)| match span {
            Span::Certified(certified) => Some((*start, certified)),
            Span::Requested { .. } | Span::Certifying { .. } => None,
        })?;
        if last_of(start, certified.bodies.len()) <= above && !has(Bug::EvictedFrontier) {
            return None;
        }
        let body = certified.bodies.pop_back()?;
        certified.missing = certified.missing.saturating_sub(body.missing);
        self.missing = self.missing.saturating_sub(body.missing);
        if certified.bodies.is_empty() {
            self.spans.remove(&start);
        }
        Some(body)
    }

    /// Makes a span that is asked for or being verified, and covers `index`, end below it.
    pub(crate) fn cut_unverified(&mut self, index: CommitIndex) {
        let Some((start, span)) = self.spans.range_mut(..=index).next_back() else { return };
        let start = *start;
        let end = match span {
            Span::Requested { end, .. } | Span::Certifying { end, .. } => end,
            Span::Certified(_) => return,
        };
        if *end < index {
            return;
        }
        match index.previous() {
            Some(previous) if previous >= start => *end = previous,
            Some(_) | None => {
                self.spans.remove(&start);
            }
        }
    }

    /// The last of the complete commits that follow `tip` without a gap, or `tip` itself.
    pub(crate) fn complete_through(&self, tip: CommitIndex) -> CommitIndex {
        let mut through = tip;
        for body in self.bodies() {
            let follows = through.next() == Some(body.header.reference.index);
            if !follows || !body.is_complete() {
                break;
            }
            through = body.header.reference.index;
        }
        through
    }

    /// The epoch that the commit at `start` should have ([`Below::epoch`]), where `next_epoch` is that of the commit after
    /// the tip.
    pub(crate) fn epoch_below(&self, start: CommitIndex, next_epoch: Epoch) -> Epoch {
        let nearest = self.spans.range(..start).rev().find_map(|(first, span)| match span {
            Span::Certified(certified) => {
                let last = last_of(*first, certified.bodies.len());
                let below = start.previous().map_or(last, |below| below.min(last));
                certified.bodies.get(offset(*first, below)?)
            }
            Span::Requested { .. } | Span::Certifying { .. } => None,
        });
        nearest.map_or(next_epoch, Body::epoch_after)
    }

    /// What is known of the commits below `start`, where `next_epoch` is the epoch of the commit after `tip`.
    pub(crate) fn below(&self, start: CommitIndex, tip: CommitIndex, next_epoch: Epoch) -> Below {
        let mut nearest = tip;
        let mut proven = true;
        for (first, span) in self.spans.range(..start) {
            let Span::Certified(certified) = span else { continue };
            let last = last_of(*first, certified.bodies.len());
            let below = start.previous().map_or(last, |below| below.min(last));
            let Some(at) = offset(*first, below) else { continue };
            let mut bodies = certified.bodies.iter().take(at.saturating_add(1));
            proven = proven && nearest.next() == Some(*first) && bodies.all(Body::is_complete);
            nearest = below;
        }
        let epoch = self.epoch_below(start, next_epoch);
        Below { epoch, proven: proven && nearest.next() == Some(start) }
    }

    /// Commits with blocks that nobody is asked for, lowest first.
    pub(crate) fn open_commits(&self) -> impl Iterator<Item = CommitIndex> {
        self.open_bodies().map(|body| body.header.reference.index)
    }

    /// Whether there is a block that nobody is asked for.
    pub(crate) fn has_missing_blocks(&self) -> bool {
        self.missing > 0
    }

    /// Whether nobody is to be asked for anything of the commit at `index`: for itself, or for one of its blocks.
    pub(crate) fn is_under_way(&self, index: CommitIndex) -> bool {
        match self.span_at(index) {
            Some((_, Span::Requested { .. } | Span::Certifying { .. })) => true,
            Some((_, Span::Certified(_))) => self.body(index).is_some_and(|body| body.missing == 0),
            None => false,
        }
    }

    fn open_bodies(&self) -> impl Iterator<Item = &Body> {
        let spans = self.has_missing_blocks().then_some(&self.spans);
        let open = spans.into_iter().flat_map(BTreeMap::values).filter_map(|span| match span {
            Span::Certified(certified) if certified.missing > 0 => Some(certified.bodies.iter()),
            Span::Certified(_) | Span::Requested { .. } | Span::Certifying { .. } => None,
        });
        open.flatten().filter(|body| body.missing > 0)
    }

    /// Blocks that nobody is asked for, lowest commit first, all of one epoch: at most `max` positions.
    pub(crate) fn missing_blocks(&self, from: CommitIndex, max: usize) -> Vec<(CommitIndex, usize)> {
        let mut bodies = self.open_bodies().filter(|body| body.header.reference.index >= from);
        let Some(first) = bodies.next() else { return Vec::new() };
        let epoch = first.header.epoch;
        let same_epoch = core::iter::once(first)
            .chain(bodies.take_while(|body| body.header.epoch == epoch || has(Bug::BlocksOfTwoEpochs)));
        let positions = same_epoch.flat_map(|body| {
            let slots = body.slots.iter().enumerate().filter(|(_, slot)| slot.is_missing());
            slots.map(|(slot, _)| (body.header.reference.index, slot))
        });
        positions.take(max).collect()
    }

    /// Drops everything; gives back the certified commits.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Body> {
        self.missing = 0;
        let spans = mem::take(&mut self.spans).into_values();
        spans.flat_map(|span| match span {
            Span::Certified(certified) => certified.bodies,
            Span::Requested { .. } | Span::Certifying { .. } => VecDeque::new(),
        })
    }

    /// What must always hold: spans lie above the tip and within the look-ahead, do not overlap, and count right.
    pub(crate) fn check_invariants(&self, tip: CommitIndex, look_ahead: u32) -> Result<(), &'static str> {
        let mut below = tip;
        let mut missing = 0usize;
        for (start, span) in &self.spans {
            if *start <= below {
                return Err("window: spans overlap or lie below the tip");
            }
            below = span.end(*start);
            if below < *start || below > tip.saturating_add(look_ahead) {
                return Err("window: a span ends before it starts or beyond the look-ahead");
            }
            if let Span::Certified(certified) = span {
                certified.check_invariants(*start)?;
                missing = missing.saturating_add(certified.missing);
            }
        }
        if missing == self.missing { Ok(()) } else { Err("window: missing blocks are miscounted") }
    }
}

impl Span {
    fn end(&self, start: CommitIndex) -> CommitIndex {
        match self {
            Self::Requested { end, .. } | Self::Certifying { end, .. } => *end,
            Self::Certified(certified) => last_of(start, certified.bodies.len()),
        }
    }
}

impl Certified {
    fn check_invariants(&self, start: CommitIndex) -> Result<(), &'static str> {
        let indexes = CommitRange::new(start, last_of(start, self.bodies.len()));
        let indexes = indexes.into_iter().flat_map(CommitRange::iter);
        let mut missing = 0usize;
        for (body, index) in self.bodies.iter().zip(indexes) {
            if body.header.reference.index != index {
                return Err("window: a certified commit is at the wrong index");
            }
            if body.slots.len() != body.header.blocks.len() {
                return Err("window: a commit has more or fewer stages than blocks");
            }
            let count = |of: fn(&Slot) -> bool| body.slots.iter().filter(|slot| of(slot)).count();
            if body.missing != count(Slot::is_missing) || body.pending != count(Slot::is_pending) {
                return Err("window: a commit's blocks are miscounted");
            }
            missing = missing.saturating_add(body.missing);
        }
        match () {
            () if self.bodies.is_empty() => Err("window: an empty certified span"),
            () if missing != self.missing => Err("window: a span's missing blocks are miscounted"),
            () => Ok(()),
        }
    }
}
