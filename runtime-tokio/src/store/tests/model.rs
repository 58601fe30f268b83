//! The durable store against the one in memory: the same orders, the same answers.

use super::*;
use crate::store::{Certifier, CommitHead, StoredCommit};
use proptest::{collection::vec, prelude::*};
use soma_sync_core::{
    start::Start,
    types::{ChainId, Epoch},
};
use std::sync::LazyLock;

static CHAIN: LazyLock<Chain> = LazyLock::new(Chain::small);

#[derive(Clone, Debug)]
enum Order {
    /// The next commits, with or without the certifiers of the last.
    Apply {
        count: u32,
        certified: bool,
    },
    /// Commits that need not follow.
    ApplyAt {
        first: u32,
    },
    /// Some of a commit's own blocks, ahead of it or again.
    Stage {
        commit: u32,
        blocks: usize,
    },
    /// The next commit, with only these of its blocks.
    ApplyWithout {
        blocks: usize,
    },
    /// Some certifiers of a commit.
    Votes {
        commit: u32,
        blocks: usize,
    },
    Prune {
        lowest: u32,
    },
    Reopen,
}

fn order() -> impl Strategy<Value = Order> {
    let commit = 1..=30_u32;
    prop_oneof![
        6 => (1..6_u32, any::<bool>()).prop_map(|(count, certified)| Order::Apply { count, certified }),
        1 => commit.clone().prop_map(|first| Order::ApplyAt { first }),
        2 => (commit.clone(), 0..8_usize).prop_map(|(commit, blocks)| Order::Stage { commit, blocks }),
        1 => (0..8_usize).prop_map(|blocks| Order::ApplyWithout { blocks }),
        3 => (commit, 0..8_usize).prop_map(|(commit, blocks)| Order::Votes { commit, blocks }),
        2 => (0..32_u32).prop_map(|lowest| Order::Prune { lowest }),
        2 => Just(Order::Reopen),
    ]
}

/// What an order gives: success, or the kind of failure.
fn carry_out(store: &dyn Store, order: &Order) -> Result<(), String> {
    let tip = store.start().expect("a read").tip.reference.index.get();
    let result = match order {
        Order::Apply { count, certified } => {
            let last = (tip + count).min(30);
            match (last > tip, certified) {
                (true, true) => store.apply(&CHAIN.batch(tip + 1, last)),
                (true, false) => store.apply(&CHAIN.uncertified(tip + 1, last)),
                (false, _) => Ok(()),
            }
        }
        Order::ApplyAt { first } => store.apply(&CHAIN.batch(*first, *first)),
        Order::Stage { commit, blocks } => {
            let all = &CHAIN.at(*commit).blocks;
            store.apply(&votes(&all[..all.len().min(*blocks)]))
        }
        Order::ApplyWithout { blocks } => {
            let mut batch = CHAIN.batch((tip + 1).min(30), (tip + 1).min(30));
            batch.blocks.truncate(*blocks);
            store.apply(&batch)
        }
        Order::Votes { commit, blocks } => {
            let all = &CHAIN.at(*commit).certifiers;
            store.apply(&votes(&all[..all.len().min(*blocks)]))
        }
        Order::Prune { lowest } => store.prune(index(*lowest)),
        Order::Reopen => store.reopen().map(drop),
    };
    result.map_err(|error| error.to_string())
}

/// All that can be read.
#[derive(Debug, PartialEq)]
struct Everything {
    chain_id: ChainId,
    start: Start,
    committees: Vec<Option<Arc<Committee>>>,
    heads: Vec<Option<CommitHead>>,
    commits: Vec<Option<StoredCommit>>,
    certificates: Vec<Option<Vec<Certifier>>>,
    blocks: Vec<Option<bytes::Bytes>>,
}

fn read_everything(store: &dyn Store) -> Everything {
    let block = |block: &CheckedBlock| {
        let block = store.block(&block.reference).expect("a read");
        block.map(|block| block.bytes().clone())
    };
    let made = || CHAIN.commits.iter();
    Everything {
        chain_id: store.chain_id(),
        start: store.start().expect("a read"),
        committees: (0..4).map(|epoch| store.committee(Epoch::new(epoch)).expect("a read")).collect(),
        heads: (0..32).map(|at| store.head(index(at)).expect("a read")).collect(),
        commits: (0..32).map(|at| store.commit(index(at)).expect("a read")).collect(),
        certificates: made().map(|made| store.certificate(&made.header.reference).expect("a read")).collect(),
        blocks: made().flat_map(|made| made.blocks.iter().chain(made.certifiers.iter())).map(block).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_stores_differ(orders in vec(order(), 1..25)) {
        let directory = TempDir::new().expect("a directory");
        let durable = RedbStore::open(directory.path(), Some(&CHAIN.genesis)).expect("a new store");
        let memory = MemoryStore::new(Arc::clone(&CHAIN.genesis));
        for order in &orders {
            prop_assert_eq!(carry_out(&durable, order), carry_out(&memory, order), "{:?}", order);
            prop_assert_eq!(read_everything(&durable), read_everything(&memory), "after {:?}", order);
        }
        drop(durable);
        let durable = RedbStore::open(directory.path(), None).expect("a store");
        prop_assert_eq!(read_everything(&durable), read_everything(&memory), "after the end");
    }
}
