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
