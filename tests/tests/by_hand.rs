//! One machine, told event by event: what no whole network shows, since nothing in it goes wrong by it at once.

use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    block::{Block, EndOfEpochData},
    command::{Batch, ServePlan},
    commit::Commit,
    committee::{Committee, ValidatorSet},
    config::Limits,
    event::{InboundId, JobId, RequestId},
    job::Job,
    payload::Payload,
    request::{FetchCommits, Request, RequestFailure, ResponsePart},
    start::{Start, Tip},
    types::{BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, PeerId},
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
        let commands = self.tell(Event::PeerConnected { peer: PEER });
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

/// The first commit of the chain with these blocks, as our own consensus tells of it.
fn first_commit(blocks: &[Block]) -> (CommitRef, Event) {
    let refs: Vec<BlockRef> = blocks.iter().map(|block| sign(block).0).collect();
    let commit = Commit {
        index: index(1),
        previous: CommitDigest::ZERO,
        timestamp_ms: 1,
        leader: refs[0],
        blocks: refs,
        epoch: EPOCH,
    };
    let (reference, encoding) = commit.encode();
    (reference, Event::CommitObserved { commit: Payload::new(encoding.into()), blocks: payloads(blocks) })
}

#[test]
fn votes_of_another_epoch_make_a_commit_certifiable() {
    for (epoch, counts) in [(EPOCH.get(), true), (EPOCH.get() + 1, false), (EPOCH.get() - 1, false)] {
        let mut hand = Hand::genesis(Config::default());
        let (commit, observed) = first_commit(&[block(0, 5)]);
        hand.store(observed);
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
    let ending = |author, set: ValidatorSet| Block {
        end_of_epoch: Some(EndOfEpochData {
            validator_set_signature: Some(sign_set(&set, &[author])),
            aggregate_signature: Some(sign_set(&set, &[0, 1, 2, 3])),
            next_validator_set: Some(set),
            ..EndOfEpochData::default()
        }),
        ..block(author, 5)
    };
    let other = ValidatorSet { authorities: vec![authority(0, 4_000), authority(1, 6_000)] };
    let mut hand = Hand::genesis(Config::default());
    let (_, observed) = first_commit(&[ending(0, validators()), ending(1, other)]);
    let batches = hand.store(observed);
    let committees: Vec<_> = batches.iter().flat_map(|batch| &batch.committees).collect();
    let next = Committee::new(Epoch::new(EPOCH.get() + 1), validators(), &Limits::default()).unwrap();
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
    let fetches = |commands: &[Command]| {
        let fetches = sent(commands).into_iter().filter(|(_, sent)| matches!(sent, Request::Commits(_)));
        fetches.map(|(id, _)| id).collect::<Vec<_>>()
    };
    let mut hand = Hand::genesis(Config::default());
    for id in fetches(&hand.connect(10)) {
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
