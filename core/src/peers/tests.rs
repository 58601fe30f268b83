//! What time alone does to what is known of a peer.

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::ZERO.saturating_add(Duration::from_secs(seconds))
}

/// A peer that has delivered, in 100 ms.
fn proven() -> Peer {
    let mut peer = Peer::new(Timestamp::ZERO, FIRST_LIMIT);
    peer.pace.answered(Duration::from_millis(100));
    peer.delivered(CommitIndex::new(1));
    peer.succeeded(&Config::default());
    peer.served_bytes = 1;
    peer
}

#[test]
fn who_failed_is_as_good_as_others_again_after_a_while() {
    let sound = proven().cost(at(0));
    let mut peer = proven();
    for _ in 0..8 {
        peer.failed(CommitIndex::new(2), at(10), &Config::default(), &mut Rng::new([7; 32]));
    }
    let costs = [10, 39, 40, 70, 100, 10 + 30 * 9].map(|seconds| peer.cost(at(seconds)));
    assert!(costs[0] > 2 * sound, "{costs:?} against {sound}");
    assert_eq!(costs[1], costs[0], "nothing fades before the half-life is over");
    assert!(costs.is_sorted_by(|before, after| before >= after), "{costs:?}");
    assert!(costs[2] < costs[1], "{costs:?}");
    assert_eq!(costs[5], sound);
}

#[test]
fn who_was_overtaken_once_is_not_dear_for_ever() {
    let sound = proven().cost(at(0));
    let mut peer = proven();
    peer.overtaken(at(5));
    let costs = [5, 35, 65, 95, 125].map(|seconds| peer.cost(at(seconds)));
    assert_eq!(costs, [16, 8, 4, 2, 1].map(|factor| factor * sound));
}

#[test]
fn who_cut_answers_short_is_asked_for_more_again_after_a_while() {
    let mut peer = proven();
    peer.set_max_blocks(100, at(1));
    let most = [1, 30, 31, 61, 1 + 30 * 200].map(|seconds| peer.max_blocks(at(seconds)));
    assert_eq!(most, [100, 100, 200, 400, usize::MAX]);
}

#[test]
fn the_pause_after_a_failure_is_short_again_or_passes_its_limit_after_many() {
    let mut peer = proven();
    let mut before = Duration::ZERO;
    for failures in 1..=70 {
        peer.failed(CommitIndex::new(2), at(10), &Config::default(), &mut Rng::new([7; 32]));
        let pause = peer.backoff_until.saturating_since(at(10));
        assert!(pause >= before, "{pause:?} after {failures} failures, {before:?} before that");
        assert!(pause <= BACKOFF_MAX.saturating_mul(5) / 4, "{pause:?} after {failures} failures");
        before = pause;
    }
    assert!(before >= BACKOFF_MAX);
}

#[test]
fn who_is_slow_at_sending_is_as_good_as_who_is_quick() {
    let sound = proven().cost(at(0));
    let mut quick = proven();
    quick.pace.brought(1_000_000, Duration::from_millis(100));
    let mut slow = proven();
    slow.pace.brought(70_000, Duration::from_secs(1));
    assert!(sound < quick.cost(at(0)), "what is not known costs nothing");
    assert!(slow.cost(at(0)) > 9 * quick.cost(at(0)), "{} and {}", slow.cost(at(0)), quick.cost(at(0)));
    // A small answer is a matter of the round trip.
    let before = slow.cost(at(0));
    slow.pace.brought(pace::RATE_BYTES_MIN - 1, Duration::from_secs(100));
    assert_eq!(slow.cost(at(0)), before);
    // Of no time at all, and of no rate.
    slow.pace.brought(u64::MAX, Duration::ZERO);
    assert!(slow.cost(at(0)) > 0);
}

#[test]
fn a_peer_is_not_faster_than_one_that_crawls_or_is_faster_at_once() {
    let answer = |received| Answer { sent: at(10), began: at(11), received };
    let after = |start: Timestamp, ms| Some(start.saturating_add(Duration::from_millis(ms)));
    let mut peer = proven();
    assert_eq!(peer.outpaces_from(&answer(70_000)), None, "nothing is known of it");
    peer.pace.brought(1_000_000, Duration::from_secs(1));
    assert_eq!(peer.outpaces_from(&answer(125_000)), after(at(11), 500), "four times as fast, and no less");
    let sent = Answer { began: at(10), ..answer(1) };
    assert_eq!(peer.outpaces_from(&sent), after(at(10), 400), "it would not have answered sooner itself");
    assert!(peer.outpaces_from(&answer(u64::MAX)).is_some());
    (peer.delivered, peer.served_bytes) = (CommitIndex::GENESIS, 0);
    assert_eq!(peer.outpaces_from(&answer(70_000)), None, "it has not delivered anything good");
}

#[test]
fn nothing_happens_when_a_peer_may_be_asked_again() {
    let mut peer = proven();
    (peer.link, peer.poll_in_flight) = (Link::Checked, true);
    peer.failed(CommitIndex::new(2), at(10), &Config::default(), &mut Rng::new([7; 32]));
    let mut now = at(10);
    let woken = core::iter::from_fn(|| {
        now = peer.wake(now).inspect(|next| assert!(*next > now))?;
        Some(now)
    });
    let woken: alloc::vec::Vec<_> = woken.collect();
    assert_eq!(woken, [peer.backoff_until, peer.avoided[&CommitIndex::new(2)].until]);
}

#[test]
fn a_claim_that_was_cut_is_never_believed_again() {
    let claim =
        Claim { highest: CommitIndex::new(9), lowest: CommitIndex::GENESIS, polled: at(10), cut: false };
    let mut peer = proven();
    peer.claimed(claim, at(10));
    peer.failed(CommitIndex::new(5), at(10), &Config::default(), &mut Rng::new([7; 32]));
    peer.claimed(claim, at(10));
    assert_eq!(peer.claim, Some(Claim { highest: CommitIndex::new(4), cut: true, ..claim }));
    peer.claimed(claim, at(11));
    assert_eq!(peer.claim, Some(claim));
}

#[test]
fn who_is_believed_no_further_than_it_has_shown_is_never_asked_beside_others() {
    let claim = |highest, lowest| Claim {
        highest: CommitIndex::new(highest),
        lowest: CommitIndex::new(lowest),
        polled: at(10),
        cut: false,
    };
    let mut peer = proven();
    peer.link = Link::Checked;
    peer.claimed(claim(9, 0), at(10));
    assert!(peer.can_serve(CommitIndex::new(7), at(10)) && peer.can_second(CommitIndex::new(7), at(10)));
    peer.failed(CommitIndex::new(5), at(10), &Config::default(), &mut Rng::new([7; 32]));
    let rested = peer.backoff_until;
    assert!(!peer.can_second(CommitIndex::new(7), at(10)), "it rests");
    assert!(!peer.can_serve(CommitIndex::new(7), rested) && peer.can_second(CommitIndex::new(7), rested));
    assert!(!peer.can_second(CommitIndex::new(5), rested), "it has just failed to deliver that");
    // Nor is it asked for what it gave up, or where it never said more.
    peer.claimed(claim(9, 8), rested);
    assert!(!peer.can_second(CommitIndex::new(7), rested));
    let mut modest = proven();
    modest.link = Link::Checked;
    modest.claimed(claim(4, 0), at(10));
    assert!(!modest.can_second(CommitIndex::new(7), at(10)));
}

#[test]
fn a_ban_ends_too_early_or_never() {
    let config = Config::default();
    let mut peer = proven();
    peer.link = Link::Checked;
    for times in [1, 2, 4] {
        let ban = peer.offended(Offence::BadBlock, at(10), &config);
        assert_eq!(ban, config.ban * times);
        let end = at(10).saturating_add(ban);
        assert!(!peer.is_available(at(10)) && peer.is_available(end), "{ban:?}");
        assert_eq!(peer.wake(at(10)), Some(end));
    }
}

#[test]
fn what_share_it_delivers_moves_too_fast_or_never_is_whole_again() {
    let mut peer = proven();
    let shares = [0, 128, 128, 256].map(|sample| {
        peer.shown(sample);
        peer.delivery
    });
    // Seven eighths of what it was and an eighth of what is new, down, and rounded up where that is better.
    assert_eq!(shares, [224, 212, 201, 208]);
    peer.delivery = 128;
    peer.shown(128);
    assert_eq!(peer.delivery, 128, "the same again");
    for _ in 0..100 {
        peer.shown(DELIVERY_WHOLE);
    }
    assert_eq!(peer.delivery, DELIVERY_WHOLE);
}

/// After so many answers to requests for 100 blocks, of which the first were cut short: for how many blocks it is asked.
fn asked_after(cut: u32, whole: u32) -> usize {
    let mut peer = proven();
    peer.set_max_blocks(80, at(10));
    for _ in 0..cut {
        peer.answered_blocks(100, true, at(10));
    }
    for _ in 0..whole {
        peer.answered_blocks(100, false, at(10));
    }
    peer.max_blocks(at(10))
}

#[test]
fn one_cut_answer_in_ten_changes_what_is_asked_or_more_do_not() {
    assert_eq!(asked_after(10, 89), 80, "one in ten is nothing");
    assert_eq!(asked_after(11, 0), 50, "half of what was asked for");
    assert_eq!([99, 100, 199, 200].map(|whole| asked_after(0, whole)), [80, 100, 100, 125]);
    // Ten are forgotten after a hundred more, and the hundred after the first that are remembered count.
    assert_eq!([99, 100, 200].map(|whole| asked_after(10, whole)), [80, 100, 125]);
    // Counted anew from where less is asked for.
    assert_eq!([99, 100].map(|whole| asked_after(11, whole)), [50, 62]);
    let mut peer = proven();
    for _ in 0..11 {
        peer.answered_blocks(20, true, at(10));
    }
    assert_eq!(peer.max_blocks(at(10)), BLOCKS_MIN);
}

#[test]
fn who_has_shown_nothing_is_asked_for_much_or_waited_for_long() {
    let mut stranger = Peer::new(at(1), FIRST_LIMIT);
    let asked = |peer: &Peer| (peer.max_blocks(at(2)), peer.max_commits(100), peer.max_commits(4));
    assert_eq!(asked(&stranger), (BLOCKS_UNPROVEN, COMMITS_UNPROVEN, 4));
    assert_eq!(asked(&proven()), (usize::MAX, 100, 4));
    stranger.served_bytes = 1;
    assert_eq!(asked(&stranger), (usize::MAX, COMMITS_UNPROVEN, 4), "blocks are not commits");
    stranger.set_max_blocks(0, at(1));
    assert_eq!(stranger.max_blocks(at(2)), 1);

    let seconds = Duration::from_secs;
    let waits = |peer: &Peer| (peer.first_byte_deadline(), peer.progress_deadline(0));
    assert_eq!(waits(&Peer::new(at(1), FIRST_LIMIT)), (seconds(1), seconds(1)));
    let mut peer = proven();
    assert_eq!(waits(&peer), (seconds(5), seconds(5)));
    assert_eq!(peer.progress_deadline(64 * 1024 * 3), seconds(8), "as long as it takes at the slowest");
    // Twice as long after each that timed out, until it has succeeded as often.
    let patience = [2, 4, 8].map(|_| {
        peer.timed_out(seconds(30));
        (peer.progress_deadline(64 * 1024), peer.timeouts)
    });
    assert_eq!(patience, [(seconds(2 + 10), 1), (seconds(4 + 20), 2), (seconds(8 + 20), 3)]);
    for _ in 0..9 {
        peer.timed_out(seconds(30));
    }
    assert_eq!(waits(&peer), (FIRST_BYTE_MAX, FIRST_BYTE_MAX));
    assert_eq!(peer.progress_deadline(64 * 1024), seconds(64 + 20), "doubled six times at most");
    for _ in 0..6 {
        peer.succeeded(&Config::default());
    }
    assert_eq!(peer.progress_deadline(64 * 1024), seconds(1 + 5));
}

#[test]
fn a_distant_peer_has_less_time_than_its_answers_take() {
    let mut peer = proven();
    for _ in 0..100 {
        peer.pace.answered(Duration::from_secs(2));
    }
    assert!(peer.first_byte_deadline() > Duration::from_secs(7), "{:?}", peer.first_byte_deadline());
}

#[test]
fn more_failures_are_remembered_than_there_is_room_for_or_the_latest_is_not() {
    let (config, mut peer) = (Config::default(), proven());
    let most = u32::try_from(MAX_AVOIDED).unwrap();
    // The first fails twice, and is avoided for the longest.
    for (seconds, start) in
        [(1, 1), (7, 1)].into_iter().chain((2..=most + 1).map(|start| (u64::from(start) + 6, start)))
    {
        peer.avoid(CommitIndex::new(start), at(seconds), &config);
    }
    let avoided: alloc::vec::Vec<_> = peer.avoided.keys().map(|start| start.get()).collect();
    assert_eq!(avoided.len(), MAX_AVOIDED);
    assert_eq!(avoided[..3], [1, 3, 4], "the second is avoided for the least");
    assert_eq!(peer.avoided[&CommitIndex::new(most + 1)].until, at(u64::from(most) + 7 + 5));
}

#[test]
fn time_is_not_waited_for_where_something_changes_by_it() {
    let mut peer = proven();
    assert_eq!(peer.wake(at(1)), None, "it is not connected");
    (peer.link, peer.next_poll) = (Link::Checked, at(20));
    assert_eq!(peer.wake(at(1)), Some(at(20)));
    peer.follow_failed(at(1));
    assert_eq!(peer.wake(at(1)), Some(at(2)));
    assert_eq!(peer.wake(at(2)), Some(at(20)));
    peer.poll_in_flight = true;
    assert_eq!(peer.wake(at(2)), None);
}

#[test]
fn a_round_trip_is_known_before_an_answer_or_moves_too_fast() {
    let mut pace = Pace::default();
    let (assumed, ms) = (micros(pace::PRIOR_LATENCY), Duration::from_millis);
    assert_eq!((pace.known_latency_us(), pace.latency_us(), pace.round_trip_us()), (None, assumed, assumed));
    pace.answered(ms(80));
    assert_eq!((pace.known_latency_us(), pace.latency_us()), (Some(80_000), 80_000));
    pace.answered(ms(160));
    assert_eq!((pace.latency_us(), pace.round_trip_us()), (90_000, 90_000), "an eighth is the newest");
    // What a time-out costs is no round trip.
    pace.took(ms(890));
    assert_eq!((pace.latency_us(), pace.round_trip_us()), (190_000, 90_000));
    assert_eq!(pace.answer_us(), 190_000);
    pace.brought(pace::RATE_BYTES_MIN, ms(125));
    // 128 KiB in a second, and 64 KiB to compare by.
    assert_eq!(pace.answer_us(), 190_000 + 500_000);
    pace.answered(Duration::ZERO);
    assert!(pace.round_trip_us() > 0);
}

#[test]
fn who_is_banned_makes_room_before_others_or_is_kept_for_ever() {
    let config = Config { max_peers: 2, ..Config::default() };
    let id = |number| PeerId::new([number; 32]);
    // The first has been gone for longer, and was banned; the ban ends at the very moment, or a little later.
    for (early, evicted) in [(0, 1), (1, 2)] {
        let mut book = PeerBook::new(&config);
        for (number, seconds) in [(1, 1), (2, 2)] {
            book.connect(id(number), at(seconds)).unwrap().link = Link::Down;
        }
        let ban = book.get_mut(&id(1)).unwrap().offended(Offence::BadBlock, at(3), &config);
        let now = at(3).saturating_add(ban - Duration::from_micros(early));
        assert!(book.connect(id(3), now).is_some());
        assert!(book.get(&id(evicted)).is_none() && book.get(&id(3 - evicted)).is_some());
    }
}
