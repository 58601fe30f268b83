//! The whole chain: its identity, its epochs with their committees, and how far it goes.

use super::{commit::decode, header, open_file, refused};
use crate::output::commit_json;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use soma_sync_core::{
    committee::Committee,
    config::Limits,
    types::{ChainId, CommitIndex, CommitRef, Epoch},
};
use soma_sync_proto::chain_file::ChainRecord;
use soma_sync_runtime_tokio::store::{RedbStore, Store};
use std::{fmt::Write, path::Path, sync::Arc};

/// The committees of a chain file, as far as it was read.
pub(super) struct Committees {
    known: Vec<Arc<Committee>>,
    /// What the last committee's epoch names as the next.
    next: Option<Arc<Committee>>,
}

impl Committees {
    pub(super) fn of_genesis(validators: &[u8]) -> Result<Self> {
        let genesis = Committee::decode(Epoch::ZERO, validators, &Limits::default())
            .context("the genesis committee cannot be decoded")?;
        Ok(Self { known: vec![Arc::new(genesis)], next: None })
    }

    /// The committee of the last epoch that was entered.
    pub(super) fn last(&self) -> Option<&Arc<Committee>> {
        self.known.last()
    }

    /// A commit of this epoch follows.
    pub(super) fn enter(&mut self, epoch: Epoch) -> Result<()> {
        if self.last().is_some_and(|committee| committee.epoch() != epoch) {
            let next = self.next.take().filter(|committee| committee.epoch() == epoch);
            self.known.push(next.with_context(|| format!("nothing names the committee of epoch {epoch}"))?);
        }
        Ok(())
    }

    /// Takes the next committee from the first block that has one.
    pub(super) fn look_at(&mut self, record: &ChainRecord) -> Result<()> {
        for payload in &record.blocks {
            let block = decode(payload)?;
            let Some(set) = block.end_of_epoch().and_then(|end| end.complete()) else { continue };
            if self.next.is_none() {
                let epoch = block.epoch().next().context("there is no epoch after the last")?;
                let committee = Committee::new(epoch, set.clone(), &Limits::default())
                    .with_context(|| format!("the committee of epoch {epoch} is none"))?;
                self.next = Some(Arc::new(committee));
            }
        }
        Ok(())
    }
}

/// An epoch with its commits, if there are any.
struct Span {
    committee: Arc<Committee>,
    commits: Option<(CommitIndex, CommitIndex)>,
}

/// The summary of a chain file.
pub(super) fn of_file(path: &Path) -> Result<(String, Value)> {
    let mut reader = open_file(path)?;
    let mut committees = Committees::of_genesis(reader.genesis())?;
    let chain_id =
        committees.last().map(|committee| committee.chain_id()).context("a chain has a genesis")?;
    let (mut ends, mut tip, mut certified, mut blocks) =
        (Vec::new(), CommitRef::GENESIS, CommitRef::GENESIS, 0);
    while let Some(record) = reader.next_record().map_err(|error| refused(path, error))? {
        let header = header(path, &record)?;
        committees.enter(header.epoch)?;
        committees.look_at(&record)?;
        ends.resize(committees.known.len(), header.reference.index);
        if let Some(end) = ends.last_mut() {
            *end = header.reference.index;
        }
        tip = header.reference;
        blocks += record.blocks.len() as u64;
        if !record.certifiers.is_empty() {
            certified = tip;
        }
    }
    let mut first = CommitIndex::new(1);
    let mut spans: Vec<Span> = Vec::new();
    for (committee, end) in
        committees.known.into_iter().zip(ends.into_iter().map(Some).chain(std::iter::repeat(None)))
    {
        spans.push(Span { committee, commits: end.map(|end| (first, end)) });
        first = end.map_or(first, |end| end.saturating_add(1));
    }
    spans.extend(committees.next.map(|committee| Span { committee, commits: None }));
    let text = format!("{}, not verified\n", path.display());
    let marks = [("tip", tip), ("certified through", certified)];
    let (text, mut object) = show(text, chain_id, &marks, &spans);
    object["blocks"] = blocks.into();
    object["bytes"] = reader.offset().into();
    Ok((format!("{text}{blocks} blocks, {} bytes\n", reader.offset()), object))
}

/// The summary of a store.
pub(super) fn of_store(store: &RedbStore) -> Result<(String, Value)> {
    let start = store.start()?;
    let tip = start.tip.reference;
    let lowest = start.lowest_available.max(CommitIndex::new(1));
    let (mut spans, mut epoch, mut first) = (Vec::new(), Epoch::ZERO, lowest);
    while let Some(committee) = store.committee(epoch)? {
        let end = last_of(store, epoch, first, tip.index)?;
        spans.push(Span { committee, commits: end.map(|end| (first, end)) });
        first = end.map_or(first, |end| end.saturating_add(1));
        let Some(next) = epoch.next() else { break };
        epoch = next;
    }
    let marks = [("tip", tip), ("certifiable", start.certifiable)];
    let heading = format!("{}\n", store.path().display());
    let (mut text, mut object) = show(heading, start.chain_id, &marks, &spans);
    object["lowest_available"] = lowest.get().into();
    let _ = writeln!(text, "lowest available: {lowest}");
    Ok((text, object))
}

/// The last commit of an epoch, from `first` on; `None` where there is none.
fn last_of(
    store: &RedbStore,
    epoch: Epoch,
    first: CommitIndex,
    tip: CommitIndex,
) -> Result<Option<CommitIndex>> {
    let within = |index: CommitIndex| -> Result<bool> {
        Ok(store.head(index)?.is_some_and(|head| head.epoch <= epoch))
    };
    if first > tip || !within(first)? {
        return Ok(None);
    }
    // Epochs never fall along the chain.
    let (mut low, mut high) = (first.get(), tip.get());
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if within(CommitIndex::new(middle))? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(Some(CommitIndex::new(low)))
}

fn show(mut text: String, chain_id: ChainId, marks: &[(&str, CommitRef)], spans: &[Span]) -> (String, Value) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "chain {chain_id}");
    let mut object = json!({ "chain_id": chain_id.to_string() });
    for (name, commit) in marks {
        let _ = writeln!(text, "{name}: {} {}", commit.index, commit.digest);
        object[name.replace(' ', "_")] = commit_json(commit);
    }
    for Span { committee, commits } in spans {
        let range = match commits {
            Some((first, last)) => format!("commits {first} to {last}"),
            None => "no commits here".to_owned(),
        };
        let _ = writeln!(
            text,
            "\nepoch {}: {range}, {} authorities, quorum {}",
            committee.epoch(),
            committee.size(),
            committee.quorum()
        );
        for (index, authority) in committee.authorities() {
            let _ = writeln!(
                text,
                "  {index:>4}  stake {:>6}  {}  {}",
                authority.stake,
                hex::encode(&authority.name.as_bytes()[..8]),
                authority.metadata.network_address
            );
        }
    }
    text.push('\n');
    object["epochs"] = spans.iter().map(span_json).collect();
    (text, object)
}

fn span_json(span: &Span) -> Value {
    let authorities = span.committee.authorities().map(|(index, authority)| {
        json!({
            "index": index.get(),
            "stake": authority.stake.get(),
            "name": hex::encode(authority.name.as_bytes()),
            "network_address": authority.metadata.network_address,
        })
    });
    json!({
        "epoch": span.committee.epoch().get(),
        "first": span.commits.map(|(first, _)| first.get()),
        "last": span.commits.map(|(_, last)| last.get()),
        "quorum": span.committee.quorum().get(),
        "authorities": authorities.collect::<Vec<_>>(),
    })
}
