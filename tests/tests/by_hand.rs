//! One machine, told event by event: what no whole network shows, since nothing in it goes wrong by it at once.

use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    block::{Block, EndOfEpochData},
    command::{Batch, Halt, ServePlan},
    commit::Commit,
    committee::{Committee, ValidatorSet},
    config::Limits,
    event::{InboundId, JobId, RequestId},
    job::Job,
    payload::Payload,
    request::{COMMITS_BEYOND_MAX, FetchCommits, Request, RequestFailure, ResponsePart},
    start::{Start, StoredVotes, Tip},
    types::{AuthorityIndex, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, PeerId},
};
use soma_sync_tests::fixture::{EPOCH, authority, block, committee, sign, sign_set, validators, vote};
use std::{sync::Arc, time::Duration};

const PEER: PeerId = PeerId::new([9; 32]);

fn index(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

/// The state of a store in which this commit is the tip, and certifiable.
fn start_at(tip: u32) -> Start {
    let genesis = Start::genesis(committee().chain_id(), committee());
    let reference = CommitRef { index: index(tip), digest: CommitDigest::new([1; 32]) };
    Start { tip: Tip { reference, ..genesis.tip }, certifiable: reference, ..genesis }
}

struct Hand {
    machine: SyncMachine,
    now: Timestamp,
}

impl Hand {
    fn new(config: Config, start: Start) -> Self {
        let machine = SyncMachine::new(config, start, Timestamp::ZERO, [7; 32]).unwrap();
        Self { machine, now: Timestamp::ZERO }
    }

    fn genesis(config: Config) -> Self {
        Self::new(config, Start::genesis(committee().chain_id(), committee()))
    }

    fn tell(&mut self, event: Event) -> Vec<Command> {
        self.machine.handle(self.now, event);
        self.machine.check_invariants().unwrap();
        std::iter::from_fn(|| self.machine.poll_command()).collect()
    }

    /// Tells the machine, and does at once what it asks of workers; the batches that it hands to storage.
    fn store(&mut self, event: Event) -> Vec<Arc<Batch>> {
        let mut batches = Vec::new();
        let mut commands = self.tell(event);
        while let Some(command) = commands.pop() {
            match command {
                Command::Verify { id, job } => {
                    commands.extend(self.tell(Event::Verified { id, verdict: job.run([0; 32]) }));
                }
                Command::StoreBatch { batch } => {
                    commands.extend(self.tell(Event::Stored { through: batch.id }));
                    batches.push(batch);
                }
                _ => {}
            }
        }
        batches
    }

    fn answer(&mut self, id: RequestId, part: ResponsePart) -> Vec<Command> {
        let mut commands = self.tell(Event::ResponsePart { id, part });
        commands.extend(self.tell(Event::RequestFinished { id, result: Ok(()) }));
        commands
    }

    /// Connects a peer that is on our chain and says that it has commits up to `highest`; what it is sent then.
    fn connect(&mut self, highest: u32) -> Vec<Command> {
        self.connect_other(PEER, highest)
    }

    fn connect_other(&mut self, peer: PeerId, highest: u32) -> Vec<Command> {
        let commands = self.tell(Event::PeerConnected { peer });
        let chain_id = Some(committee().chain_id());
        let commands = self.answer(sent(&commands)[0].0, ResponsePart::CommitInfo { commit: None, chain_id });
        let availability = sent(&commands).into_iter();
        let (id, _) =
            availability.last().filter(|(_, sent)| matches!(sent, Request::Availability { .. })).unwrap();
        self.answer(id, ResponsePart::Availability { highest: index(highest), lowest: CommitIndex::GENESIS })
    }
}

fn sent(commands: &[Command]) -> Vec<(RequestId, Request)> {
    let sent = commands.iter().filter_map(|command| match command {
        Command::SendRequest { id, request, .. } => Some((*id, request.clone())),
        _ => None,
    });
    sent.collect()
}

fn jobs(commands: Vec<Command>) -> Vec<(JobId, Job)> {
    let jobs = commands.into_iter().filter_map(|command| match command {
        Command::Verify { id, job } => Some((id, job)),
        _ => None,
    });
    jobs.collect()
}

fn payloads(blocks: &[Block]) -> Vec<Payload> {
    blocks.iter().map(|block| Payload::new(sign(block).1)).collect()
}

/// A commit, and its blocks.
struct Made {
    reference: CommitRef,
    payload: Payload,
    blocks: Vec<Block>,
}

impl Made {
    fn new(at: u32, previous: CommitDigest, epoch: Epoch, blocks: Vec<Block>) -> Self {
        let refs: Vec<BlockRef> = blocks.iter().map(|block| sign(block).0).collect();
        let (index, leader) = (index(at), refs[0]);
        let commit = Commit { index, previous, timestamp_ms: u64::from(at), leader, blocks: refs, epoch };
        let (reference, encoding) = commit.encode();
        Self { reference, payload: Payload::new(encoding.into()), blocks }
    }

    /// The first of the chain.
    fn first(blocks: Vec<Block>) -> Self {
        Self::new(1, CommitDigest::ZERO, EPOCH, blocks)
    }

    /// As our own consensus tells of it.
    fn observed(&self) -> Event {
        Event::CommitObserved { commit: self.payload.clone(), blocks: payloads(&self.blocks) }
    }

    /// Blocks that vote for it.
    fn votes(&self, authors: std::ops::Range<u32>) -> Vec<Payload> {
        payloads(&authors.map(|author| vote(author, self.reference)).collect::<Vec<_>>())
    }

    /// As a peer sends it with its votes, and its blocks where these are to come in one answer.
    fn answer(&self, with_blocks: bool) -> ResponsePart {
        let blocks = if with_blocks { payloads(&self.blocks) } else { Vec::new() };
        ResponsePart::Commits {
            commits: vec![self.payload.clone()],
            certifiers: self.votes(0..3),
            blocks,
            buffer_bytes: 10_000,
        }
    }
}

/// A block that ends its epoch, after which these are the validators.
fn ending(author: u32, set: ValidatorSet) -> Block {
    Block {
        end_of_epoch: Some(EndOfEpochData {
            validator_set_signature: Some(sign_set(&set, &[author])),
            aggregate_signature: Some(sign_set(&set, &[0, 1, 2, 3])),
            next_validator_set: Some(set),
            ..EndOfEpochData::default()
        }),
        ..block(author, 5)
    }
}

/// The requests for commits among these.
fn fetches(commands: &[Command]) -> Vec<(RequestId, FetchCommits)> {
    let fetches = sent(commands).into_iter().filter_map(|(id, sent)| match sent {
        Request::Commits(fetch) => Some((id, fetch)),
        _ => None,
    });
    fetches.collect()
}

fn next_epoch() -> Epoch {
    Epoch::new(EPOCH.get() + 1)
}

#[test]
fn votes_of_another_epoch_make_a_commit_certifiable() {
    for (epoch, counts) in [(EPOCH.get(), true), (EPOCH.get() + 1, false), (EPOCH.get() - 1, false)] {
        let mut hand = Hand::genesis(Config::default());
        let made = Made::first(vec![block(0, 5)]);
        let commit = made.reference;
        hand.store(made.observed());
        let votes: Vec<_> =
            (0..3).map(|author| Block { epoch: Epoch::new(epoch), ..vote(author, commit) }).collect();
        hand.store(Event::VotesObserved { blocks: payloads(&votes) });
        let certifiable = hand.machine.status().certifiable;
        assert_eq!(certifiable == commit, counts, "votes of epoch {epoch}: {certifiable}");
    }
}

/// Two blocks of the commit say how the epoch ends, and differ. The first in commit order counts, in whatever order
/// they came.
#[test]
fn what_ends_an_epoch_depends_on_the_order_in_which_blocks_come() {
    let other = ValidatorSet { authorities: vec![authority(0, 4_000), authority(1, 6_000)] };
    let mut hand = Hand::genesis(Config::default());
    let made = Made::first(vec![ending(0, validators()), ending(1, other)]);
    let batches = hand.store(made.observed());
    let committees: Vec<_> = batches.iter().flat_map(|batch| &batch.committees).collect();
    let next = Committee::new(next_epoch(), validators(), &Limits::default()).unwrap();
    assert_eq!(committees, [&Arc::new(next)]);
}

#[test]
fn a_worker_that_is_done_is_given_more_than_one_job() {
    let mut hand = Hand::genesis(Config { max_verify_jobs: 2, ..Config::default() });
    let mut handed_out = Vec::new();
    for _ in 0..6 {
        handed_out.extend(jobs(hand.tell(Event::VotesObserved { blocks: payloads(&[block(0, 5)]) })));
    }
    assert_eq!(handed_out.len(), 2);
    for done in 1..=6 {
        let (id, job) = handed_out.remove(0);
        handed_out.extend(jobs(hand.tell(Event::Verified { id, verdict: job.run([0; 32]) })));
        assert_eq!(handed_out.len(), 2.min(6 - done), "after {done}");
    }
}

/// What was pushed over a connection that is gone may never have come.
#[test]
fn a_peer_that_connects_again_is_not_told_how_far_we_are() {
    let mut hand = Hand::new(Config::default(), start_at(5));
    for times in 1..=2 {
        let commands = hand.connect(3);
        let pushes: Vec<_> =
            sent(&commands).into_iter().filter(|(_, sent)| matches!(sent, Request::Push { .. })).collect();
        let [(id, Request::Push { index: told })] = pushes[..] else { panic!("{times}: {commands:?}") };
        assert_eq!(told, index(5));
        hand.answer(id, ResponsePart::Push { timestamp_ms: 0 });
        hand.tell(Event::PeerDisconnected { peer: PEER });
    }
}

/// What failed on our side is asked for again after a short rest, though nothing else happens.
#[test]
fn a_rest_after_a_failure_of_our_own_does_not_end() {
    let mut hand = Hand::genesis(Config::default());
    for (id, _) in fetches(&hand.connect(10)) {
        let commands = hand.tell(Event::RequestFinished { id, result: Err(RequestFailure::Local) });
        assert!(fetches(&commands).is_empty(), "{commands:?}");
    }
    hand.now = hand.machine.poll_timeout().unwrap();
    assert!(hand.now <= Timestamp::from_micros(100_000), "{:?}", hand.now);
    let commands = hand.tell(Event::Tick);
    assert!(!fetches(&commands).is_empty(), "{commands:?}");
}

/// What is served of these commits, asked of a server that has 500 and answers with ten at a time.
fn served(hand: &mut Hand, start: u32, end: u32) -> Option<(CommitIndex, CommitIndex)> {
    let fetch = FetchCommits {
        start: index(start),
        end: index(end),
        max_bytes: u64::MAX,
        wait: Duration::ZERO,
        with_blocks: false,
    };
    let request = Ok(Request::Commits(fetch));
    let id = InboundId::new(u64::from(start));
    let commands = hand.tell(Event::RequestReceived { id, peer: PEER, request });
    commands.iter().find_map(|command| match command {
        Command::Serve { plan: ServePlan::Commits { range, .. }, .. } => Some((range.start(), range.end())),
        _ => None,
    })
}

#[test]
fn more_commits_than_a_batch_or_pruned_ones_are_served() {
    let config = Config { commit_sync_batch_size: 10, ..Config::default() };
    let mut hand = Hand::new(config, start_at(500));
    hand.connect(500);
    assert_eq!(served(&mut hand, 7, 400), Some((index(7), index(16))));
    hand.tell(Event::Pruned { lowest: index(100) });
    assert_eq!(served(&mut hand, 99, 99), None);
    assert_eq!(served(&mut hand, 100, 100), Some((index(100), index(100))));
}

/// The votes of an epoch's last commit come when the next epoch has begun.
#[test]
fn an_epochs_last_commit_can_never_be_certified() {
    let mut hand = Hand::genesis(Config::default());
    let last = Made::first(vec![ending(0, validators())]);
    let first = Block { epoch: next_epoch(), ..block(0, 6) };
    let next = Made::new(2, last.reference.digest, next_epoch(), vec![first]);
    let mut batches = Vec::new();
    for made in [&last, &next] {
        let (id, job) = jobs(hand.tell(made.observed())).remove(0);
        let commands = hand.tell(Event::Verified { id, verdict: job.run([0; 32]) });
        batches.extend(commands.into_iter().filter_map(|command| match command {
            Command::StoreBatch { batch } => Some(batch),
            _ => None,
        }));
    }
    assert_eq!(hand.machine.status().queued, next.reference);
    for batch in batches {
        hand.tell(Event::Stored { through: batch.id });
    }
    hand.store(Event::VotesObserved { blocks: last.votes(0..3) });
    assert_eq!(hand.machine.status().certifiable, last.reference);
}

/// Workers are done in any order: with the votes of an epoch's last commit only after the next epoch's first can be
/// certified. Nobody else's votes certify the last one to others.
#[test]
fn votes_of_an_epochs_last_commit_are_thrown_away_once_the_next_is_certifiable() {
    let mut hand = Hand::genesis(Config::default());
    let last = Made::first(vec![ending(0, validators())]);
    hand.store(last.observed());
    let (slow, job) = jobs(hand.tell(Event::VotesObserved { blocks: last.votes(0..3) })).remove(0);
    let next =
        Made::new(2, last.reference.digest, next_epoch(), vec![Block { epoch: next_epoch(), ..block(0, 6) }]);
    hand.store(next.observed());
    let vote = |author| Block { votes: vec![next.reference], epoch: next_epoch(), ..block(author, 7) };
    hand.store(Event::VotesObserved { blocks: payloads(&(0..3).map(vote).collect::<Vec<_>>()) });
    assert_eq!(hand.machine.status().certifiable, next.reference);
    let batches = hand.store(Event::Verified { id: slow, verdict: job.run([0; 32]) });
    assert_eq!(batches.iter().map(|batch| batch.blocks.len()).sum::<usize>(), 3);
}

#[test]
fn votes_that_storage_holds_are_lost_with_a_restart() {
    let made = Made::first(vec![block(0, 5)]);
    let votes = StoredVotes {
        commit: made.reference,
        epoch: EPOCH,
        voters: vec![AuthorityIndex::new(0), AuthorityIndex::new(1)],
    };
    let genesis = Start::genesis(committee().chain_id(), committee());
    let tip = Tip { reference: made.reference, ..genesis.tip };
    let mut hand = Hand::new(Config::default(), Start { tip, votes: vec![votes], ..genesis });
    hand.store(Event::VotesObserved { blocks: made.votes(2..3) });
    assert_eq!(hand.machine.status().certifiable, made.reference);
}

/// What a peer said before the last commit came says nothing of whether there are more.
#[test]
fn a_node_is_synced_by_an_old_claim() {
    let mut hand = Hand::genesis(Config::default());
    hand.connect(1);
    hand.now = Timestamp::from_micros(1_000);
    let made = Made::first(vec![block(0, 5)]);
    hand.store(made.observed());
    hand.store(Event::VotesObserved { blocks: made.votes(0..3) });
    let status = hand.machine.status();
    assert_eq!((status.certifiable, status.synced), (made.reference, false));
}

/// A peer certifies another commit than the stored tip, at its index.
#[test]
fn another_commit_at_the_tip_is_no_fork() {
    let start = Start { certifiable: CommitRef::GENESIS, ..start_at(1) };
    let mut hand = Hand::new(Config::default(), start);
    let commands = hand.connect(1);
    let (id, fetch) = fetches(&commands).remove(0);
    assert_eq!((fetch.start, fetch.end), (index(1), index(1)), "the votes for the tip");
    let commands = hand.answer(id, Made::first(vec![block(0, 5)]).answer(false));
    let (id, job) = jobs(commands).remove(0);
    hand.tell(Event::Verified { id, verdict: job.run([0; 32]) });
    let halted = hand.machine.status().halted;
    assert!(matches!(halted.as_deref(), Some(Halt::Fork { .. })), "{halted:?}");
}

/// The server lacks the first of the blocks.
#[test]
fn blocks_behind_a_missing_one_are_taken_for_others() {
    let mut hand = Hand::genesis(Config::default());
    let made = Made::first((0..4).map(|author| block(author, 5)).collect());
    let commands = hand.connect(1);
    let (id, _) = fetches(&commands).remove(0);
    let (id, job) = jobs(hand.answer(id, made.answer(false))).remove(0);
    let commands = hand.tell(Event::Verified { id, verdict: job.run([0; 32]) });
    let blocks = sent(&commands).into_iter().find(|(_, sent)| matches!(sent, Request::Blocks(_)));
    let (id, _) = blocks.unwrap_or_else(|| panic!("{commands:?}"));
    let blocks = payloads(&made.blocks[1..]);
    let part = ResponsePart::Blocks { blocks, missing: vec![0], buffer_bytes: 1_000 };
    let (_, job) = jobs(hand.answer(id, part)).remove(0);
    let Job::Check(job) = job else { panic!("{job:?}") };
    let refs: Vec<_> = made.blocks[1..].iter().map(|block| sign(block).0).collect();
    assert_eq!(job.refs, refs);
}

/// A peer that does not answer, and is overtaken, has done nothing wrong.
#[test]
fn who_is_overtaken_is_banned() {
    let mut hand = Hand::genesis(Config::default());
    let made = Made::first(vec![block(0, 5)]);
    let mut commands = hand.connect(1);
    commands.extend(hand.connect_other(PeerId::new([8; 32]), 1));
    let (first, _) = fetches(&commands).remove(0);
    let second = loop {
        hand.now = hand.machine.poll_timeout().unwrap();
        assert!(hand.now < Timestamp::from_micros(10_000_000), "no second peer is asked");
        let asked = fetches(&hand.tell(Event::Tick));
        if let Some((id, _)) = asked.into_iter().find(|(_, fetch)| fetch.wait.is_zero()) {
            break id;
        }
    };
    let (id, job) = jobs(hand.answer(second, made.answer(true))).remove(0);
    let commands = hand.tell(Event::Verified { id, verdict: job.run([0; 32]) });
    let gives_up = |command: &Command| matches!(command, Command::CancelRequest { id } if *id == first);
    assert!(commands.iter().any(gives_up), "{commands:?}");
    assert_eq!(hand.machine.status().counters.offences, 0);
}

/// Two requests wait at a peer; what the first brings ends the epoch.
#[test]
fn what_waited_at_a_peer_is_held_against_the_committee_of_before() {
    let mut hand = Hand::genesis(Config::default());
    let waiting = fetches(&hand.connect(0));
    let request = |start| waiting.iter().find(|(_, fetch)| fetch.start == index(start)).unwrap().0;
    let last = Made::first(vec![ending(0, validators())]);
    let commands = hand.answer(request(1), last.answer(true));
    for (id, job) in jobs(commands) {
        for (id, job) in jobs(hand.tell(Event::Verified { id, verdict: job.run([0; 32]) })) {
            hand.tell(Event::Verified { id, verdict: job.run([0; 32]) });
        }
    }
    assert_eq!(hand.machine.status().queued, last.reference);
    let next = Made::new(2, last.reference.digest, next_epoch(), vec![block(0, 6)]);
    let (_, job) = jobs(hand.answer(request(2), next.answer(true))).remove(0);
    let Job::Certify(job) = job else { panic!("{job:?}") };
    assert_eq!(job.committee.epoch(), next_epoch());
}

/// A commit that ends its epoch waits for storage, and the embedder has supplied the next committee.
#[test]
fn what_follows_an_epochs_end_that_is_not_stored_yet_is_held_against_the_committee_of_before() {
    let mut hand = Hand::genesis(Config { max_store_batches: 1, ..Config::default() });
    let first = Made::first(vec![block(0, 4)]);
    let last = Made::new(2, first.reference.digest, EPOCH, vec![ending(0, validators())]);
    let committee = Arc::new(Committee::new(next_epoch(), validators(), &Limits::default()).unwrap());
    hand.tell(Event::CommitteeKnown { committee });
    for made in [&first, &last] {
        let (id, job) = jobs(hand.tell(made.observed())).remove(0);
        hand.tell(Event::Verified { id, verdict: job.run([0; 32]) });
    }
    assert_eq!(hand.machine.status().queued, first.reference, "the second waits");
    let (id, fetch) = fetches(&hand.connect(3)).remove(0);
    assert_eq!(fetch.start, index(3));
    let next = Made::new(3, last.reference.digest, next_epoch(), vec![block(0, 6)]);
    let (_, job) = jobs(hand.answer(id, next.answer(false))).remove(0);
    let Job::Certify(job) = job else { panic!("{job:?}") };
    assert_eq!(job.committee.epoch(), next_epoch());
}

/// A store in which an epoch has ended, and nobody knows the next committee yet: then the embedder supplies it.
#[test]
fn a_committee_that_is_supplied_after_the_epochs_end_is_not_stored() {
    let start = start_at(4);
    let tip = Tip { ends_epoch: true, ..start.tip };
    let mut hand = Hand::new(Config::default(), Start { tip, ..start });
    let committee = Arc::new(Committee::new(next_epoch(), validators(), &Limits::default()).unwrap());
    let batches = hand.store(Event::CommitteeKnown { committee: committee.clone() });
    let committees: Vec<_> = batches.iter().flat_map(|batch| &batch.committees).collect();
    assert_eq!(committees, [&committee]);
    assert!(hand.store(Event::CommitteeKnown { committee }).is_empty(), "it is stored again");
}

#[test]
fn a_store_that_contradicts_itself_is_started_from() {
    type Change<'a> = &'a dyn Fn(&mut Start);
    let refused = |change: Change| {
        let mut start = start_at(4);
        change(&mut start);
        SyncMachine::new(Config::default(), start, Timestamp::ZERO, [7; 32])
            .err()
            .map(|error| error.to_string())
    };
    let committee_of =
        |epoch: Epoch| Arc::new(Committee::new(epoch, validators(), &Limits::default()).unwrap());
    let other = |at: u32| CommitRef { index: index(at), digest: CommitDigest::new([2; 32]) };
    let genesis = |start: &mut Start| {
        (start.tip.reference, start.certifiable, start.lowest_available) =
            (CommitRef::GENESIS, CommitRef::GENESIS, index(0));
    };
    let votes = |commit: CommitRef| StoredVotes { commit, epoch: EPOCH, voters: Vec::new() };

    assert_eq!(refused(&|_| {}), None);
    assert_eq!(refused(&genesis), None);
    assert_eq!(refused(&|start| start.next_committee = Some(committee_of(next_epoch()))), None);
    assert_eq!(refused(&|start| start.certifiable = other(3)), None);
    assert_eq!(refused(&|start| start.lowest_available = index(4)), None);
    assert_eq!(refused(&|start| start.votes = vec![votes(other(4))]), None);

    let cases: [(&str, Change); 8] = [
        ("committee is not that of the tip", &|start| start.committee = committee_of(next_epoch())),
        ("next committee is not", &|start| start.next_committee = Some(committee_of(EPOCH))),
        ("above the tip is said to be certifiable", &|start| start.certifiable = other(5)),
        ("is not the tip, and has its index", &|start| start.certifiable = other(4)),
        ("lowest commit is above", &|start| start.lowest_available = index(5)),
        ("is not the genesis commit", &|start| {
            genesis(start);
            (start.tip.reference, start.certifiable) = (other(0), other(0));
        }),
        ("ends no epoch", &|start| {
            genesis(start);
            start.tip.ends_epoch = true;
        }),
        ("votes for a commit that is not stored", &|start| start.votes = vec![votes(other(5))]),
    ];
    for (says, change) in cases {
        let error = refused(change).unwrap_or_default();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}

#[test]
fn peers_are_told_another_time_than_ours() {
    let mut hand = Hand::genesis(Config::default());
    hand.now = Timestamp::from_micros(1_234_999);
    let commands = hand.tell(Event::PeerConnected { peer: PEER });
    let chain_id = Some(committee().chain_id());
    let commands = hand.answer(sent(&commands)[0].0, ResponsePart::CommitInfo { commit: None, chain_id });
    let told: Vec<_> = sent(&commands).into_iter().map(|(_, request)| request).collect();
    assert_eq!(told, [Request::Availability { timestamp_ms: 1_234 }]);
}

/// What comes next, our own consensus will tell us; where it has not told us anything for ten seconds, peers are asked.
#[test]
fn who_has_its_own_consensus_waits_at_peers_or_never_does_again() {
    let mut hand = Hand::genesis(Config::default());
    let made = Made::first(vec![block(0, 5)]);
    hand.store(made.observed());
    hand.store(Event::VotesObserved { blocks: made.votes(0..3) });
    assert_eq!(hand.machine.status().certifiable, made.reference);
    assert!(fetches(&hand.connect(1)).is_empty());
    hand.now = Timestamp::from_micros(9_999_999);
    assert!(fetches(&hand.tell(Event::Tick)).is_empty());
    hand.now = Timestamp::from_micros(10_000_000);
    let waiting = fetches(&hand.tell(Event::Tick));
    assert!(
        !waiting.is_empty() && waiting.iter().all(|(_, fetch)| fetch.wait > Duration::ZERO),
        "{waiting:?}"
    );
}

/// Keys of an epoch that is over prove nothing about the next: whoever has them may have certified what breaks a rule.
#[test]
fn keys_of_an_epoch_that_is_over_halt_a_node() {
    for over in [false, true] {
        let mut hand = Hand::genesis(Config { commit_sync_batch_size: 1, ..Config::default() });
        let asked = fetches(&hand.connect(2));
        let (id, _) = *asked.iter().find(|(_, fetch)| fetch.start == index(2)).unwrap();
        let last = Made::first(vec![ending(0, validators())]);
        let blocks = vec![block(0, 6), Block { epoch: next_epoch(), ..block(1, 6) }];
        let broken = Made::new(2, last.reference.digest, EPOCH, blocks);
        let (job, certify) = jobs(hand.answer(id, broken.answer(false))).remove(0);
        if over {
            hand.store(last.observed());
            assert_eq!(hand.machine.status().epoch, next_epoch());
        }
        hand.tell(Event::Verified { id: job, verdict: certify.run([0; 32]) });
        let halted = hand.machine.status().halted;
        let fault = matches!(halted.as_deref(), Some(Halt::CertifiedInvalid(_)));
        assert_eq!((fault, halted.is_none()), (!over, over), "{halted:?}");
    }
}

#[test]
fn votes_that_our_own_consensus_brought_meanwhile_are_stored_again() {
    let mut hand = Hand::genesis(Config::default());
    let made = Made::first(vec![block(0, 5)]);
    hand.store(made.observed());
    let (id, _) = fetches(&hand.connect(1)).remove(0);
    let (job, certify) = jobs(hand.answer(id, made.answer(false))).remove(0);
    assert!(!hand.store(Event::VotesObserved { blocks: made.votes(0..3) }).is_empty());
    assert_eq!(hand.machine.status().certifiable, made.reference);
    let batches = hand.store(Event::Verified { id: job, verdict: certify.run([0; 32]) });
    assert!(batches.is_empty(), "{batches:?}");
}

/// What a peer that is asked for one commit may send, and what is more than that, in items and bytes.
#[test]
fn an_answer_at_its_limits_is_too_much_or_one_over_them_is_not() {
    let limits = Limits { max_ancestors: 4, ..Limits::default() };
    let most_commits = 1 + usize::try_from(COMMITS_BEYOND_MAX).unwrap();
    let cases = [
        (most_commits, 0, 0, true),
        (most_commits + 1, 0, 0, false),
        (1, 8, 0, true),
        (1, 9, 0, false),
        (1, 0, 0, true),
        (1, 0, 1, false),
    ];
    for (commits, certifiers, more_bytes, fits) in cases {
        let mut hand = Hand::genesis(Config { limits, ..Config::default() });
        let (id, fetch) = fetches(&hand.connect(1)).remove(0);
        let item = Payload::new(bytes::Bytes::from_static(b"of whatever it is"));
        let part = ResponsePart::Commits {
            commits: vec![item.clone(); commits],
            certifiers: vec![item.clone(); certifiers],
            blocks: Vec::new(),
            buffer_bytes: if commits + certifiers == 1 { fetch.max_bytes + more_bytes } else { 1_000 },
        };
        let commands = hand.tell(Event::ResponsePart { id, part });
        let refused = commands.iter().any(|command| matches!(command, Command::Disconnect { .. }));
        assert_eq!(refused, !fits, "{commits} commits, {certifiers} certifiers, {more_bytes} bytes more");
    }
}

#[test]
fn an_answer_of_blocks_has_more_bytes_than_were_set_aside_or_not_as_many() {
    for (more_bytes, fits) in [(0, true), (1, false)] {
        let mut hand = Hand::genesis(Config::default());
        let made = Made::first(vec![block(0, 5)]);
        let (id, _) = fetches(&hand.connect(1)).remove(0);
        let (job, certify) = jobs(hand.answer(id, made.answer(false))).remove(0);
        let commands = hand.tell(Event::Verified { id: job, verdict: certify.run([0; 32]) });
        let blocks = sent(&commands).into_iter().find_map(|(id, request)| match request {
            Request::Blocks(fetch) => Some((id, fetch.max_bytes)),
            _ => None,
        });
        let (id, max_bytes) = blocks.unwrap();
        let (blocks, buffer_bytes) = (payloads(&made.blocks), max_bytes + more_bytes);
        let commands = hand.answer(id, ResponsePart::Blocks { blocks, missing: Vec::new(), buffer_bytes });
        let refused = commands.iter().any(|command| matches!(command, Command::Disconnect { .. }));
        assert_eq!(refused, !fits, "{commands:?}");
    }
}

#[test]
fn our_own_consensus_runs_further_ahead_of_storage_than_we_look() {
    let config = Config {
        commit_sync_batch_size: 2,
        look_ahead_commits: 2,
        max_store_batches: 1,
        ..Config::default()
    };
    let mut hand = Hand::genesis(config);
    let (mut previous, mut batches) = (CommitDigest::ZERO, Vec::new());
    for at in 1..=4 {
        let made = Made::new(at, previous, EPOCH, vec![block(0, 4 + at)]);
        previous = made.reference.digest;
        let (id, job) = jobs(hand.tell(made.observed())).remove(0);
        let commands = hand.tell(Event::Verified { id, verdict: job.run([0; 32]) });
        batches.extend(commands.into_iter().filter_map(|command| match command {
            Command::StoreBatch { batch } => Some(batch.id),
            _ => None,
        }));
    }
    assert_eq!(
        (batches.len(), hand.machine.status().queued.index),
        (1, index(1)),
        "storage takes one at a time"
    );
    // Two more wait for it, and the fourth is to be told again.
    hand.tell(Event::Stored { through: batches[0] });
    assert_eq!(hand.machine.status().queued.index, index(3));
}
