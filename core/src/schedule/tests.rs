//! Whom the choice falls on, and for what.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use super::*;
use crate::{
    event::RequestId,
    peers::{Claim, Link},
    rng::Rng,
    window::{
        Body,
        model::{buffer, header},
    },
};
use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;

/// What there is to choose from, with a peer for each number from 1 on.
struct Ground {
    config: Config,
    window: Window,
    peers: PeerBook,
    tip: u32,
    horizon: u32,
    following: usize,
    uncertified: Option<CommitIndex>,
    enlarged: Option<(CommitIndex, u64)>,
}

const NOW: Timestamp = Timestamp::from_micros(60_000_000);

fn commit(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

fn peer(number: u8) -> PeerId {
    PeerId::new([number; 32])
}

impl Ground {
    /// Proven peers, each with the latency in milliseconds and the highest commit that it claims.
    fn new(peers: &[(u64, u32)]) -> Self {
        let config =
            Config { commit_sync_batch_size: 4, max_requests: 8, follow_requests: 2, ..Config::default() };
        let mut book = PeerBook::new(&config);
        for (number, (latency, highest)) in (1..).zip(peers) {
            let known = book.connect(peer(number), NOW).expect("room for it");
            known.link = Link::Checked;
            known.pace.answered(Duration::from_millis(*latency));
            known.delivered(commit(1));
            known.served_bytes = 1;
            known.succeeded(&config);
            known.claimed(
                Claim { highest: commit(*highest), lowest: commit(0), polled: NOW, cut: false },
                NOW,
            );
        }
        Self {
            config,
            window: Window::default(),
            peers: book,
            tip: 0,
            horizon: 100,
            following: 0,
            uncertified: None,
            enlarged: None,
        }
    }

    fn known(&mut self, number: u8) -> &mut Peer {
        self.peers.get_mut(&peer(number)).expect("a peer of that number")
    }

    fn view(&self, draw: u64, follow: bool) -> View<'_> {
        View {
            config: &self.config,
            window: &self.window,
            peers: &self.peers,
            now: NOW,
            draw,
            tip: commit(self.tip),
            horizon: commit(self.horizon),
            following: self.following,
            follow,
            uncertified: self.uncertified,
            enlarged: self.enlarged,
        }
    }

    /// What is wanted next: of whom, from which commit to which, and what for; blocks have no purpose.
    fn next(&self, follow: bool) -> Option<(u8, u32, u32, Option<Purpose>)> {
        let of = |peer: PeerId| peer.as_bytes()[0];
        self.view(1, follow).next().map(|wanted| match wanted {
            Wanted::Commits(commits) => {
                let (start, end) = (commits.range.start().get(), commits.range.end().get());
                (of(commits.peer), start, end, Some(commits.purpose))
            }
            Wanted::Blocks(blocks) => {
                let at =
                    |position: Option<&(CommitIndex, usize)>| position.map_or(0, |(index, _)| index.get());
                (of(blocks.peer), at(blocks.positions.first()), at(blocks.positions.last()), None)
            }
        })
    }

    /// How often each peer is chosen for commit 1, of 20,000 draws.
    fn chosen(&self) -> BTreeMap<u8, u32> {
        let mut rng = Rng::new([7; 32]);
        let mut chosen = BTreeMap::new();
        for _ in 0..20_000 {
            let view = self.view(rng.next_u64(), false);
            let (id, _) = view.choose(commit(1)).expect("somebody can be asked");
            *chosen.entry(id.as_bytes()[0]).or_default() += 1;
        }
        chosen
    }
}

#[test]
fn the_choice_is_not_weighed_by_what_peers_cost() {
    let chosen = Ground::new(&[(10, 9), (20, 9), (40, 9)]).chosen();
    // One in ten is drawn evenly; the rest 4 to 2 to 1.
    let expected = [(1, 667 + 10_286), (2, 667 + 5_143), (3, 667 + 2_571)];
    for (number, expected) in expected {
        let found = chosen[&number];
        assert!(found.abs_diff(expected) < expected / 10, "{chosen:?}, expected {expected} for {number}");
    }
}

#[test]
fn who_is_not_among_the_cheapest_five_is_chosen_often_or_never() {
    let chosen = Ground::new(&[(10, 9), (10, 9), (10, 9), (10, 9), (10, 9), (11, 9), (11, 9)]).chosen();
    // One in ten, of seven.
    for number in [6, 7] {
        assert!(chosen[&number].abs_diff(20_000 / 70) < 60, "{chosen:?}");
    }
}

#[test]
fn who_failed_again_and_again_is_asked_where_others_can_be_or_nobody_is() {
    let failed_twice = |peer: &mut Peer, start: u32, config: &Config| {
        for seconds in [30, 40] {
            peer.avoid(commit(start), Timestamp::from_micros(seconds * 1_000_000), config);
        }
        // The first rest of five seconds is over, that of twice as much is not.
        peer.avoid(commit(start), Timestamp::from_micros(50_000_000), config);
    };
    let mut ground = Ground::new(&[(10, 9), (10, 9)]);
    let config = ground.config.clone();
    for start in [1, 2] {
        failed_twice(ground.known(1), start, &config);
    }
    assert!(!ground.chosen().contains_key(&1), "another one can be asked");
    failed_twice(ground.known(2), 2, &config);
    assert!(ground.view(1, false).choose(commit(2)).is_none(), "what is not needed next can wait");
    failed_twice(ground.known(2), 1, &config);
    assert_eq!(ground.chosen().len(), 2);
}

#[test]
fn one_peer_takes_all_places_beside_others_or_leaves_them_empty() {
    let one_busy = |peers: &[(u64, u32)], in_flight: u32| {
        let mut ground = Ground::new(peers);
        ground.known(1).in_flight = in_flight;
        ground.known(1).limit = 100;
        ground.chosen().contains_key(&1)
    };
    let four = [(10, 9); 4];
    assert!(one_busy(&four, 1) && !one_busy(&four, 2), "a quarter of eight where there are four");
    assert!(one_busy(&four[..3], 7) && !one_busy(&four[..3], 8), "all places where there are fewer");
}

#[test]
fn a_gap_is_asked_for_in_other_pieces() {
    let mut ground = Ground::new(&[(10, 9)]);
    assert_eq!(ground.next(false), Some((1, 1, 4, Some(Purpose::Fetch))), "as large as a batch");
    ground.window.request(CommitRange::new(commit(1), commit(4)).unwrap(), RequestId::new(0));
    ground.window.request(CommitRange::new(commit(7), commit(7)).unwrap(), RequestId::new(1));
    assert_eq!(ground.next(false), Some((1, 5, 6, Some(Purpose::Fetch))), "as large as the gap");
    ground.window.request(CommitRange::new(commit(5), commit(6)).unwrap(), RequestId::new(2));
    assert_eq!(ground.next(false), Some((1, 8, 9, Some(Purpose::Fetch))), "as far as is claimed");
    ground.horizon = 8;
    assert_eq!(ground.next(false), Some((1, 8, 8, Some(Purpose::Fetch))), "as far as may be asked");
    ground.horizon = 7;
    assert_eq!(ground.next(false), None);
}

#[test]
fn what_lies_behind_a_gap_that_nobody_can_fill_is_not_asked_for() {
    let mut ground = Ground::new(&[(10, 9), (10, 20)]);
    let claim = Claim { highest: commit(20), lowest: commit(7), polled: NOW, cut: false };
    ground.known(2).claimed(claim, NOW);
    assert_eq!(ground.next(false).map(|(of, start, ..)| (of, start)), Some((1, 1)));
    ground.known(1).in_flight = 100;
    // Commits are looked for in steps of a batch: 1, 5, 9.
    assert_eq!(ground.next(false), Some((2, 9, 12, Some(Purpose::Fetch))));
    ground.known(2).in_flight = 100;
    assert_eq!(ground.next(false), None);
}

#[test]
fn blocks_are_asked_for_after_commits_that_lie_above_them() {
    let mut ground = Ground::new(&[(10, 9)]);
    let body = |index| Body::new(header(index), None, buffer());
    ground.window.certified(commit(2), VecDeque::from([body(2), body(3)]));
    assert_eq!(ground.next(false), Some((1, 1, 1, Some(Purpose::Fetch))), "what lies lowest is first");
    ground.window.request(CommitRange::single(commit(1)), RequestId::new(0));
    assert_eq!(ground.next(false), Some((1, 2, 3, None)));
    let claim = Claim { highest: commit(2), lowest: commit(0), polled: NOW, cut: false };
    ground.known(1).claimed(claim, NOW);
    assert_eq!(ground.next(false), Some((1, 2, 2, None)), "no further than it claims");
    ground.known(1).set_max_blocks(1, NOW);
    let Some(Wanted::Blocks(blocks)) = ground.view(1, false).next() else { panic!("no blocks are wanted") };
    assert_eq!((blocks.positions, blocks.hedge), (alloc::vec![(commit(2), 0)], false));
}

#[test]
fn what_is_to_come_is_waited_for_where_it_should_not_be_or_at_others() {
    let mut ground = Ground::new(&[(30, 20), (10, 20), (20, 19), (5, 9)]);
    (ground.tip, ground.horizon) = (20, 24);
    let wanted = |ground: &Ground| ground.next(true);
    // Of those who are near the two quickest, and of these who is waited at for less.
    assert_eq!(wanted(&ground), Some((2, 21, 21, Some(Purpose::Follow))));
    ground.known(2).following = 1;
    ground.following = 1;
    assert_eq!(wanted(&ground), Some((3, 21, 21, Some(Purpose::Follow))));
    ground.window.request(CommitRange::single(commit(21)), RequestId::new(0));
    assert_eq!(wanted(&ground), Some((3, 22, 22, Some(Purpose::Follow))));
    ground.window.request(CommitRange::single(commit(22)), RequestId::new(1));
    assert_eq!(wanted(&ground), None, "as far ahead as requests may wait");
    ground.horizon = 20;
    ground.window = Window::default();
    assert_eq!(wanted(&ground), None, "no further than may be asked");
    ground.horizon = 100;
    assert!(wanted(&ground).is_some());
    ground.following = 2;
    assert_eq!(wanted(&ground), None, "enough wait");
    ground.following = 0;
    assert_eq!(ground.next(false), None, "none is to wait");
    // As long as no more than a batch is lacking, and somebody could be asked for that.
    for (tip, waits) in [(20, true), (16, true), (15, false)] {
        ground.tip = tip;
        ground.window = Window::default();
        if tip < 20 {
            let lacking = CommitRange::new(commit(tip + 1), commit(20)).unwrap();
            ground.window.request(lacking, RequestId::new(2));
        }
        assert_eq!(wanted(&ground).is_some(), waits, "at {tip}");
    }
}

#[test]
fn votes_of_the_tip_are_asked_for_before_what_is_lacking_or_not_at_all() {
    let mut ground = Ground::new(&[(10, 5)]);
    (ground.tip, ground.uncertified, ground.enlarged) = (4, Some(commit(4)), Some((commit(4), 77)));
    assert_eq!(ground.next(true), Some((1, 5, 5, Some(Purpose::Fetch))));
    ground.window.request(CommitRange::single(commit(5)), RequestId::new(0));
    assert_eq!(ground.next(true), Some((1, 4, 4, Some(Purpose::Votes))));
    let Some(Wanted::Commits(commits)) = ground.view(1, false).next() else { panic!("no votes are wanted") };
    assert_eq!(commits.max_bytes, 77, "what did not fit before");
    ground.enlarged = Some((commit(5), 77));
    let Some(Wanted::Commits(commits)) = ground.view(1, false).next() else { panic!("no votes are wanted") };
    assert_eq!(commits.max_bytes, ground.config.answer_bytes());
    ground.uncertified = None;
    assert_eq!(ground.next(false), None);
}

#[test]
fn what_nobody_has_yet_takes_the_place_of_what_is_lacking() {
    let exists = |purpose| {
        let range = CommitRange::single(commit(1));
        Wanted::Commits(CommitsWanted { peer: peer(1), range, max_bytes: 1, purpose }).exists()
    };
    assert!(
        exists(Purpose::Fetch)
            && exists(Purpose::Votes)
            && exists(Purpose::Hedge)
            && !exists(Purpose::Follow)
    );
}
