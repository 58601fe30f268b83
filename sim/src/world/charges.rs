//! Who sent what nobody made, and whether it is charged to them.
//!
//! What hostile nodes send is compared with the chain's own bytes, and whatever job it ends in must refuse it. Then, and
//! where an answer is wrong on its face, the node must hold an offence against whoever sent it.

use super::{NodeId, World};
use crate::{
    oracle::place,
    violation::{Broken, Invariant, hold},
};
use soma_sync_core::{
    event::{JobId, RequestId},
    job::{BlockOutcome, CertifyVerdict, Job, Verdict},
    payload::Payload,
    request::{Request, ResponsePart},
};
use std::collections::{BTreeMap, BTreeSet};

/// Foreign payloads that are remembered of one node; beyond that, the oldest are forgotten all at once.
const MOST_FOREIGN: usize = 4_096;

/// What answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    CommitInfo,
    Availability,
    Commits,
    Blocks,
    Push,
}

impl Sort {
    pub(super) const fn of(request: &Request) -> Self {
        match request {
            Request::CommitInfo(_) => Self::CommitInfo,
            Request::Availability { .. } => Self::Availability,
            Request::Commits(_) => Self::Commits,
            Request::Blocks(_) => Self::Blocks,
            Request::Push { .. } => Self::Push,
        }
    }

    const fn of_part(part: &ResponsePart) -> Self {
        match part {
            ResponsePart::CommitInfo { .. } => Self::CommitInfo,
            ResponsePart::Availability { .. } => Self::Availability,
            ResponsePart::Commits { .. } => Self::Commits,
            ResponsePart::Blocks { .. } => Self::Blocks,
            ResponsePart::Push { .. } => Self::Push,
        }
    }
}

/// Where a foreign payload lies: at which node, and where in memory.
type Place = (NodeId, (usize, usize));

/// Who may have sent something.
pub(super) type Senders = BTreeSet<NodeId>;

/// What is remembered to that end.
#[derive(Debug, Default)]
pub(super) struct Charges {
    /// Who sent it: several, where they collude. The payload is kept, so that nothing else comes to lie there.
    foreign: BTreeMap<Place, (Senders, Payload)>,
    /// Whether committees sign nothing but the one chain: then nothing else may be found good.
    pub(super) sound_committees: bool,
    /// Whom a verdict on its way will show to be at fault: of each of these, one.
    due: BTreeMap<(NodeId, JobId), Vec<Senders>>,
}

impl Charges {
    /// A node has lost all that it knew.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.foreign.retain(|(at, _), _| *at != node);
        self.due.retain(|(at, _), _| *at != node);
    }

    /// Whom the verdict that a node is about to be handed shows to be at fault.
    pub(super) fn guilty(&mut self, node: NodeId, id: JobId) -> Vec<Senders> {
        self.due.remove(&(node, id)).unwrap_or_default()
    }

    fn remember(&mut self, node: NodeId, sender: NodeId, payload: &Payload) {
        let of_node = (node, (0, 0))..=(node, (usize::MAX, usize::MAX));
        if self.foreign.range(of_node).count() >= MOST_FOREIGN {
            self.foreign.retain(|(at, _), _| *at != node);
        }
        let at = (node, place(payload));
        let (senders, _) = self.foreign.entry(at).or_insert_with(|| (Senders::new(), payload.clone()));
        senders.insert(sender);
    }

    fn senders(&self, node: NodeId, payload: &Payload) -> Option<Senders> {
        self.foreign.get(&(node, place(payload))).map(|(senders, _)| senders.clone())
    }
}

impl World {
    /// Looks at a message that an honest node is about to be handed; whether it is wrong on its face.
    pub(super) fn inspect(&mut self, node: NodeId, id: RequestId, part: &ResponsePart) -> Option<Senders> {
        let (oracle, asked) = (self.oracle.as_ref()?, self.nodes[node.0].asked.get(&id)?);
        if self.nodes[node.0].hostile || !self.nodes[asked.to.0].hostile {
            return None;
        }
        let (from, truth) = (asked.to, oracle.truth());
        let wrong = match part {
            _ if Sort::of_part(part) != asked.sort => true,
            ResponsePart::CommitInfo { chain_id, .. } => *chain_id != truth.chain_id(),
            ResponsePart::Availability { highest, lowest } => lowest > highest,
            ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: _ } => {
                let all = commits.iter().chain(certifiers).chain(blocks);
                all.filter(|payload| !truth.is_made(payload))
                    .for_each(|payload| self.charges.remember(node, from, payload));
                false
            }
            ResponsePart::Blocks { blocks, .. } => {
                let foreign = blocks.iter().filter(|payload| !truth.is_made(payload));
                foreign.for_each(|payload| self.charges.remember(node, from, payload));
                false
            }
            ResponsePart::Push { .. } => false,
        };
        wrong.then(|| Senders::from([from]))
    }

    /// Looks at what a job of a node found: nothing that nobody made may be good, and who sent it is at fault.
    pub(super) fn inspect_verdict(&mut self, node: NodeId, id: JobId, job: &Job, verdict: &Verdict) {
        if self.nodes[node.0].hostile || self.charges.foreign.is_empty() || self.oracle.is_none() {
            return;
        }
        let mut taken = Vec::new();
        let mut guilty = Vec::new();
        match (job, verdict) {
            (Job::Check(job), Verdict::Check(outcomes)) => {
                for (payload, outcome) in job.blocks.iter().zip(outcomes) {
                    let Some(sender) = self.charges.senders(node, payload) else { continue };
                    match outcome {
                        BlockOutcome::Bad(_) => guilty.push(sender),
                        BlockOutcome::Good(_) | BlockOutcome::CertifiedInvalid(_) => taken.push(sender),
                    }
                }
            }
            (Job::Certify(job), Verdict::Certify(found)) => {
                let senders = |payload| self.charges.senders(node, payload);
                let commits = job.commits.iter().find_map(senders);
                let any = commits.clone().or_else(|| job.certifiers.iter().find_map(senders));
                match found {
                    CertifyVerdict::Refused(_) => guilty.extend(any),
                    CertifyVerdict::Certified(range) if range.bad_certifiers > 0 => {
                        guilty.extend(any);
                        taken.extend(commits);
                    }
                    CertifyVerdict::Certified(_) | CertifyVerdict::CertifiedInvalid(_) => {
                        taken.extend(commits);
                    }
                    // Whether that is an offence depends on what the machine knows of epochs.
                    CertifyVerdict::OtherEpoch { .. } => {}
                }
            }
            (Job::Check(_) | Job::Certify(_) | Job::Observe(_) | Job::Votes(_), _) => {}
        }
        if let Some(sender) = taken.first().filter(|_| self.charges.sound_committees) {
            let detail = format!("{node:?} takes something of {sender:?} for good, which nobody made");
            self.note(Err(Broken::new(Invariant::MadeOnly, detail)));
        }
        if !guilty.is_empty() {
            self.charges.due.insert((node, id), guilty);
        }
    }

    /// A node has been shown what one of these did: it must hold it against that one.
    pub(super) fn must_charge(&mut self, node: NodeId, senders: &Senders) {
        // A machine that was started again since has no record of it.
        if self.nodes[node.0].plight.down {
            return;
        }
        let status = self.nodes[node.0].machine.status();
        let charged = senders.iter().any(|sender| {
            let peer = self.nodes[sender.0].peer;
            let known = status.peers.iter().find(|known| known.id == peer);
            known.is_none_or(|known| known.offences > 0)
        });
        let judged = hold(charged, Invariant::Uncharged, || {
            format!("{node:?} does not charge {senders:?} with what it provably did")
        });
        self.note(judged);
    }
}
