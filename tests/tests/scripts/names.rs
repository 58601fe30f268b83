//! Names for what is printed: commits and blocks by their place in a chain instead of by digest.

use soma_sync_core::{
    payload::Payload,
    types::{BlockRef, CommitIndex, CommitRef},
};
use soma_sync_sim::{
    chain::{ChainSpec, MadeCommit},
    hostile::Lab,
};
use std::collections::BTreeMap;

/// The chain, those that are not it, and where everything in them stands.
pub(crate) struct Names {
    pub(crate) lab: Lab,
    commits: BTreeMap<CommitRef, Chain>,
    blocks: BTreeMap<BlockRef, (Chain, CommitIndex, usize)>,
    payloads: BTreeMap<BlockRef, Payload>,
}

/// Blocks of one commit, where it is known, by their positions in it.
type Run = (Option<(Chain, u32)>, Vec<usize>);

/// Which chain something is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chain {
    /// The one that everybody should be on.
    Ours,
    /// Another one by the same committees.
    Fork,
    /// One by other committees.
    Foreign,
}

impl Chain {
    const ALL: [Self; 3] = [Self::Ours, Self::Fork, Self::Foreign];

    fn suffix(self) -> &'static str {
        match self {
            Self::Ours => "",
            Self::Fork => " of the fork",
            Self::Foreign => " of a foreign chain",
        }
    }
}

impl Names {
    pub(crate) fn new(spec: ChainSpec) -> Result<Self, String> {
        let lab = Lab::new(spec).map_err(|error| error.to_string())?;
        let (mut commits, mut blocks, mut payloads) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for chain in Chain::ALL {
            for made in chain_of(&lab, chain) {
                commits.insert(made.header.reference, chain);
                for (slot, block) in made.blocks.iter().enumerate() {
                    blocks.insert(block.reference, (chain, made.header.reference.index, slot));
                    payloads.insert(block.reference, block.payload.clone());
                }
            }
        }
        Ok(Self { lab, commits, blocks, payloads })
    }

    /// A commit that was made.
    pub(crate) fn made(&self, chain: Chain, index: u32) -> Result<&MadeCommit, String> {
        let at = (index as usize).checked_sub(1);
        let made = at.and_then(|at| chain_of(&self.lab, chain).get(at));
        made.ok_or_else(|| format!("the chain has no commit {index}"))
    }

    /// The bytes of a block that was made.
    pub(crate) fn payload(&self, block: &BlockRef) -> Option<&Payload> {
        self.payloads.get(block)
    }

    /// `4`, or `4 of the fork`.
    pub(crate) fn commit(&self, commit: CommitRef) -> String {
        let index = commit.index;
        match self.commits.get(&commit) {
            Some(chain) => format!("{index}{}", chain.suffix()),
            None if commit == CommitRef::GENESIS => index.to_string(),
            None => format!("{index} (forged)"),
        }
    }

    /// Blocks by the commits that they are in: `1..=3 5[0,2]`, with positions where a commit is not whole.
    pub(crate) fn blocks(&self, refs: &[BlockRef]) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut run: Option<(Chain, u32, u32)> = None;
        let flush = |run: &mut Option<(Chain, u32, u32)>, parts: &mut Vec<String>| {
            if let Some((chain, start, end)) = run.take() {
                let suffix = chain.suffix();
                let range = if start == end { start.to_string() } else { format!("{start}..={end}") };
                parts.push(format!("{range}{suffix}"));
            }
        };
        for (place, slots) in self.grouped(refs) {
            let Some((chain, index)) = place else {
                flush(&mut run, &mut parts);
                parts.push(format!("{} unknown", slots.len()));
                continue;
            };
            let whole =
                self.made(chain, index).is_ok_and(|made| slots.iter().copied().eq(0..made.blocks.len()));
            match &mut run {
                Some((of, _, end)) if whole && *of == chain && *end + 1 == index => *end = index,
                Some(_) | None => {
                    flush(&mut run, &mut parts);
                    if whole {
                        run = Some((chain, index, index));
                    } else {
                        parts.push(format!("{index}[{}]{}", positions(&slots), chain.suffix()));
                    }
                }
            }
        }
        flush(&mut run, &mut parts);
        parts.join(" ")
    }

    /// Runs of blocks of one commit each, with their positions in it.
    fn grouped(&self, refs: &[BlockRef]) -> Vec<Run> {
        let mut groups: Vec<Run> = Vec::new();
        for block in refs {
            let place = self.blocks.get(block).copied();
            let (key, slot) = match place {
                Some((chain, index, slot)) => (Some((chain, index.get())), slot),
                None => (None, 0),
            };
            match groups.last_mut() {
                Some((last, slots)) if *last == key => slots.push(slot),
                Some(_) | None => groups.push((key, vec![slot])),
            }
        }
        groups
    }
}

/// `0,2..=5`.
fn positions(slots: &[usize]) -> String {
    let runs = slots.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}..={last}"),
        [one] => one.to_string(),
        [] => String::new(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

fn chain_of(lab: &Lab, chain: Chain) -> &[MadeCommit] {
    match chain {
        Chain::Ours => lab.chain(),
        Chain::Fork => lab.fork(),
        Chain::Foreign => lab.foreign(),
    }
}
