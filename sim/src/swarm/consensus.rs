//! Consensus of the honest servers: commits come about, and each server is told of those that it lacks, with their votes.

use super::plan::Plan;
use crate::{
    hostile::Lab,
    world::{NodeId, World},
};
use soma_sync_core::{
    Event, Timestamp,
    types::{CommitIndex, CommitRef},
};
use std::{rc::Rc, time::Duration};

/// How often consensus has something to say.
const TURN: Duration = Duration::from_millis(40);
/// Commits that a server is told of at a time.
const AT_A_TIME: u32 = 8;
/// Turns after which a server is told again of what it has not stored: it keeps nothing that is above its look-ahead.
const PATIENCE: u32 = 10;

/// Has a node's consensus go on with the chain, of which it holds `held` commits at first. A server that lost some is told
/// of them again, as by a consensus that recovers what it decided. With an epoch's last commit come blocks of the next
/// epoch that vote for it, too late to count, and before those that do.
pub(super) fn produce(world: &mut World, node: NodeId, plan: &Rc<Plan>, lab: &Rc<Lab>, begun: u32) {
    let (plan, lab) = (Rc::clone(plan), Rc::clone(lab));
    let (mut told, mut last, mut quiet) = (0, CommitRef::GENESIS, 0);
    let mut held_back = Vec::new();
    world.act(TURN, move |world| {
        if world.is_down(node) {
            told = 0;
            held_back.clear();
            return Some(TURN);
        }
        if !held_back.is_empty() {
            world.inject(node, Event::VotesObserved { blocks: std::mem::take(&mut held_back) });
        }
        let certifiable = world.machine(node).status().certifiable;
        quiet = if certifiable == last { quiet + 1 } else { 0 };
        last = certifiable;
        if told == 0 || quiet >= PATIENCE || told < certifiable.index.get() {
            (told, quiet) = (certifiable.index.get(), 0);
        }
        let made = plan.made_at(begun, world.now().saturating_since(Timestamp::ZERO));
        let ends = (0..plan.spec.epochs).filter_map(|epoch| plan.spec.last_commit_of(epoch));
        // The next epoch begins once the last commit of the one before it is certified here.
        let end_of_epoch = ends.filter(|end| *end > certifiable.index.get()).min();
        let end = made.min(told + AT_A_TIME).min(end_of_epoch.unwrap_or(u32::MAX));
        for index in told + 1..=end {
            if let Some(made) = lab.made(CommitIndex::new(index)) {
                let blocks = made.blocks.iter().map(|block| block.payload.clone()).collect();
                world.inject(node, Event::CommitObserved { commit: made.header.payload.clone(), blocks });
                let votes = made.certifiers.iter().map(|block| block.payload.clone()).collect();
                let late = lab.late_votes(CommitIndex::new(index));
                if late.is_empty() {
                    world.inject(node, Event::VotesObserved { blocks: votes });
                } else {
                    world.inject(node, Event::VotesObserved { blocks: late });
                    held_back = votes;
                }
            }
        }
        told = end.max(told);
        Some(TURN)
    });
}
