//! The test vectors: what the original implementation's own encoder and verifier produced.
//!
//! They are not part of the repository. `SOMA_SYNC_VECTORS` names their folder; without it they are looked for beside
//! the repository, in `../shared/vectors`. Where they are missing, tests that need them say so and pass, but under
//! `CI` they fail.

use bytes::Bytes;
use serde_json::Value;
use soma_sync_core::{
    committee::Committee,
    config::Limits,
    types::{AuthorityIndex, BlockDigest, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, Round},
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The folder of the vectors.
#[derive(Clone, Debug)]
pub struct Vectors {
    folder: PathBuf,
}

impl Vectors {
    /// The vectors, or `None` where there are none.
    ///
    /// # Panics
    ///
    /// Under `CI`, where they must be present.
    pub fn find() -> Option<Self> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
        let folder = env::var_os("SOMA_SYNC_VECTORS").map_or_else(beside, PathBuf::from);
        if folder.is_dir() {
            return Some(Self { folder });
        }
        assert!(env::var_os("CI").is_none(), "the test vectors are not at {}", folder.display());
        eprintln!("not run: the test vectors are not at {}", folder.display());
        None
    }

    /// A binary file.
    pub fn bytes(&self, name: &str) -> Bytes {
        let path = self.folder.join(name);
        Bytes::from(fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// A JSON file.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The committees by name.
    pub fn committees(&self) -> BTreeMap<String, Arc<Committee>> {
        let committee = |vector: &Value| {
            let set = unhex(&vector["validator_set_bcs"]);
            let epoch = Epoch::new(number(&vector["epoch"]));
            let committee = Committee::decode(epoch, &set, &Limits::default()).expect("a valid committee");
            (text(&vector["name"]).to_owned(), Arc::new(committee))
        };
        list(&self.json("committees.json")).iter().map(committee).collect()
    }
}

/// The items of a list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("a list: {value}"))
}

/// A string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string: {value}"))
}

/// A number, also one that is written as a string.
pub fn number(value: &Value) -> u64 {
    let parsed = value.as_str().map(|digits| digits.parse().expect("digits"));
    parsed.or_else(|| value.as_u64()).unwrap_or_else(|| panic!("a number: {value}"))
}

/// A number of 32 bits.
pub fn number_u32(value: &Value) -> u32 {
    u32::try_from(number(value)).expect("32 bits")
}

/// Bytes in hex.
pub fn unhex(value: &Value) -> Bytes {
    Bytes::from(hex::decode(text(value)).expect("hex"))
}

/// A fixed number of bytes in hex.
pub fn unhex_array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value)[..].try_into().expect("its length")
}

/// A block reference's fields.
pub fn block_ref(value: &Value) -> BlockRef {
    BlockRef {
        round: Round::new(number_u32(&value["round"])),
        author: AuthorityIndex::new(number_u32(&value["author"])),
        digest: BlockDigest::new(unhex_array(&value["digest"])),
        epoch: Epoch::new(number(&value["epoch"])),
    }
}

/// A commit reference's fields.
pub fn commit_ref(value: &Value) -> CommitRef {
    CommitRef {
        index: CommitIndex::new(number_u32(&value["index"])),
        digest: CommitDigest::new(unhex_array(&value["digest"])),
    }
}

/// What the original says: `ok`, or the name of its error.
pub fn outcome(expect: &Value) -> String {
    if expect["ok"] == Value::Bool(true) { "ok".to_owned() } else { text(&expect["error"]).to_owned() }
}

/// A chain file's contents, sliced out of it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The genesis committee's validator set.
    pub validator_set: Bytes,
    /// The commits in index order.
    pub commits: Vec<ChainCommit>,
}

/// One commit of a chain file.
#[derive(Clone, Debug)]
pub struct ChainCommit {
    /// The commit.
    pub commit: Bytes,
    /// Its blocks, in commit order.
    pub blocks: Vec<Bytes>,
    /// Blocks that vote for it.
    pub certifiers: Vec<Bytes>,
}

impl Chain {
    /// Reads a chain file that is known to be good.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn read(file: &Bytes) -> Self {
        let mut reader = Reader { rest: file.clone() };
        assert_eq!(reader.take(8), "SOMACHN1");
        let validator_set = reader.bytes();
        let commits = (0..reader.u32()).map(|_| ChainCommit {
            commit: reader.bytes(),
            blocks: reader.list(),
            certifiers: reader.list(),
        });
        let chain = Self { validator_set, commits: commits.collect() };
        assert!(reader.rest.is_empty(), "bytes left over");
        chain
    }
}

/// Reads a file of all blocks.
///
/// # Panics
///
/// When it is not one.
pub fn read_blocks(file: &Bytes) -> Vec<Bytes> {
    let mut reader = Reader { rest: file.clone() };
    assert_eq!(reader.take(8), "SOMABLK1");
    let blocks = reader.list();
    assert!(reader.rest.is_empty(), "bytes left over");
    blocks
}

struct Reader {
    rest: Bytes,
}

impl Reader {
    fn take(&mut self, count: usize) -> Bytes {
        self.rest.split_to(count)
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4)[..].try_into().expect("four bytes"))
    }
    fn bytes(&mut self) -> Bytes {
        let length = self.u32();
        self.take(length as usize)
    }
    fn list(&mut self) -> Vec<Bytes> {
        (0..self.u32()).map(|_| self.bytes()).collect()
    }
}
