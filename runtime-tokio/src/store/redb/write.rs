//! What changes the durable store: a batch, and pruning.

use super::{
    super::{
        StoreError,
        rules::{self, State},
    },
    tables::{self, BLOCKS, BlockKey, COMMITS, COMMITTEES, LOOSE, META, VOTES, VoteKey, VoteValue, fault},
};
use redb::{Database, Durability, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use soma_sync_core::{
    command::Batch,
    committee::Committee,
    job::{CheckedBlock, CommitHeader},
    types::{BlockRef, CommitIndex},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Commits given up in one transaction: pruning a long history holds up a batch for no longer than this takes.
const PRUNE_STEP: u32 = 200;

/// A transaction that is durable when it is committed, and from whose crash the file opens at once.
fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(fault)?;
    transaction.set_durability(Durability::Immediate).map_err(fault)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Makes a store of an empty database.
pub(super) fn initialize(database: &Database, genesis: &Committee) -> Result<(), StoreError> {
    let transaction = begin(database)?;
    {
        let mut tables = Tables::open(&transaction)?;
        let (key, version) = tables::version_record();
        tables.meta.insert(key, version.as_slice()).map_err(fault)?;
        tables.put_committee(genesis)?;
        tables.put_state(&State::genesis(genesis))?;
    }
    transaction.commit().map_err(fault)
}

/// Stores a batch, durably.
pub(super) fn apply(database: &Database, batch: &Batch) -> Result<(), StoreError> {
    let transaction = begin(database)?;
    Tables::open(&transaction)?.apply(batch)?;
    transaction.commit().map_err(fault)
}

/// Gives up some commits below `lowest`; says whether there are more.
pub(super) fn prune_step(database: &Database, lowest: CommitIndex) -> Result<bool, StoreError> {
    let transaction = begin(database)?;
    let more = Tables::open(&transaction)?.prune_step(lowest)?;
    transaction.commit().map_err(fault)?;
    Ok(more)
}

/// All tables, open for writing.
struct Tables<'a> {
    meta: Table<'a, &'static str, &'static [u8]>,
    committees: Table<'a, u64, &'static [u8]>,
    commits: Table<'a, u32, &'static [u8]>,
    blocks: Table<'a, &'static BlockKey, &'static [u8]>,
    loose: Table<'a, &'static BlockKey, ()>,
    votes: Table<'a, &'static VoteKey, &'static VoteValue>,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(fault)?,
            committees: transaction.open_table(COMMITTEES).map_err(fault)?,
            commits: transaction.open_table(COMMITS).map_err(fault)?,
            blocks: transaction.open_table(BLOCKS).map_err(fault)?,
            loose: transaction.open_table(LOOSE).map_err(fault)?,
            votes: transaction.open_table(VOTES).map_err(fault)?,
        })
    }

    fn put_state(&mut self, state: &State) -> Result<(), StoreError> {
        let (key, record) = tables::state_record(state);
        self.meta.insert(key, record.as_slice()).map_err(fault)?;
        Ok(())
    }

    fn put_committee(&mut self, committee: &Committee) -> Result<(), StoreError> {
        let record = tables::committee_record(committee);
        self.committees.insert(committee.epoch().get(), record.as_slice()).map_err(fault)?;
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut state = tables::read_state(&self.meta)?;
        rules::check_links(state.tip, batch.commits.iter().map(|commit| &**commit))?;
        self.add_committees(&batch.committees)?;

        let named: HashSet<_> = batch.commits.iter().flat_map(|commit| commit.blocks.iter()).collect();
        let mut given = HashMap::with_capacity(batch.blocks.len());
        for block in &batch.blocks {
            self.add_block(block, named.contains(&block.reference))?;
            given.insert(block.reference, block.epoch_end.is_some());
        }
        for commit in &batch.commits {
            if self.committees.get(commit.epoch.get()).map_err(fault)?.is_none() {
                return Err(rules::missing_committee(&commit.reference, commit.epoch));
            }
            self.add_commit(commit, &given)?;
            state.tip = commit.reference;
        }
        self.put_state(&state)
    }

    fn add_committees(&mut self, committees: &[Arc<Committee>]) -> Result<(), StoreError> {
        for committee in committees {
            match tables::read_committee(&self.committees, committee.epoch())? {
                Some(known) if known != **committee => return Err(rules::other_committee(committee.epoch())),
                Some(_) => {}
                None => self.put_committee(committee)?,
            }
        }
        Ok(())
    }

    /// Stores a block with its votes. One that no commit of its batch names is loose, unless it is stored already.
    fn add_block(&mut self, block: &CheckedBlock, named: bool) -> Result<(), StoreError> {
        let key = tables::block_key(&block.reference);
        if !named {
            if self.blocks.get(&key).map_err(fault)?.is_some() {
                return Ok(());
            }
            self.loose.insert(&key, ()).map_err(fault)?;
        }
        self.blocks.insert(&key, block.payload.bytes().as_ref()).map_err(fault)?;
        let bytes = u32::try_from(block.payload.len()).unwrap_or(u32::MAX);
        for vote in &block.votes {
            let key = tables::vote_key(vote, &block.reference);
            self.votes.insert(&key, &tables::vote_value(&key, bytes)).map_err(fault)?;
        }
        Ok(())
    }

    /// Stores a commit, whose blocks are stored from now on because it names them. `given` are those of its batch,
    /// with whether they end the epoch.
    fn add_commit(
        &mut self,
        commit: &CommitHeader,
        given: &HashMap<BlockRef, bool>,
    ) -> Result<(), StoreError> {
        let any_loose = !self.loose.is_empty().map_err(fault)?;
        let mut ends_epoch = false;
        for block in commit.blocks.iter() {
            ends_epoch |= match given.get(block) {
                Some(ends_epoch) => *ends_epoch,
                None => {
                    let stored = tables::read_block(&self.blocks, block)?;
                    let stored = stored.ok_or_else(|| rules::missing_block(&commit.reference, block))?;
                    rules::ends_epoch(block, &stored)?
                }
            };
            if any_loose {
                self.loose.remove(&tables::block_key(block)).map_err(fault)?;
            }
        }
        let head = rules::head_of(commit, ends_epoch)?;
        let record = tables::commit_record(&head, commit.payload.bytes());
        self.commits.insert(commit.reference.index.get(), record.as_slice()).map_err(fault)?;
        Ok(())
    }

    fn prune_step(&mut self, lowest: CommitIndex) -> Result<bool, StoreError> {
        let mut state = tables::read_state(&self.meta)?;
        let Some((first, last)) = state.pruned_by(lowest) else { return Ok(false) };
        let stop = first.saturating_add(PRUNE_STEP - 1).min(last);
        for index in (first.get()..=stop.get()).map(CommitIndex::new) {
            let commit = tables::read_commit(&self.commits, index)?;
            let commit = commit.ok_or_else(|| rules::gone(index))?;
            commit.blocks.iter().try_for_each(|block| self.remove_block(block))?;
            self.commits.remove(index.get()).map_err(fault)?;
        }
        state.lowest = stop.saturating_add(1);
        self.put_state(&state)?;
        if stop == last {
            self.prune_loose(state.lowest)?;
        }
        let end = tables::first_vote_key(state.lowest);
        self.votes.retain_in::<&VoteKey, _>(..&end, |_, _| false).map_err(fault)?;
        Ok(stop < last)
    }

    /// Removes the blocks of rounds before those of the lowest commit that no commit names, unless they vote for a
    /// commit that remains.
    fn prune_loose(&mut self, lowest: CommitIndex) -> Result<(), StoreError> {
        let Some(commit) = tables::read_commit(&self.commits, lowest)? else { return Ok(()) };
        let end = tables::first_block_key(commit.epoch, commit.leader.round);
        let mut gone = Vec::new();
        for entry in self.loose.range::<&BlockKey>(..&end).map_err(fault)? {
            let block = tables::block_ref(entry.map_err(fault)?.0.value());
            let Some(payload) = tables::read_block(&self.blocks, &block)? else { continue };
            let votes = rules::votes_in(&block, &payload)?;
            if !rules::votes_count(&votes, block.epoch, |index| tables::read_head(&self.commits, index))? {
                gone.push(block);
            }
        }
        for block in gone {
            self.loose.remove(&tables::block_key(&block)).map_err(fault)?;
            self.remove_block(&block)?;
        }
        Ok(())
    }

    fn remove_block(&mut self, block: &BlockRef) -> Result<(), StoreError> {
        let Some(payload) = tables::read_block(&self.blocks, block)? else { return Ok(()) };
        for vote in rules::votes_in(block, &payload)? {
            self.votes.remove(&tables::vote_key(&vote, block)).map_err(fault)?;
        }
        self.blocks.remove(&tables::block_key(block)).map_err(fault)?;
        Ok(())
    }
}
