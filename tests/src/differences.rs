//! Where our verdict on a vector differs from the original's, vector by vector, with the reason.
//!
//! The conformance tests read this table: a difference that is not listed fails them, and so does one that is listed
//! and does not occur. Some depend on the feature `bls`.

/// One difference.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The vectors' file.
    pub file: &'static str,
    /// The vector.
    pub vector: &'static str,
    /// What the original says.
    pub original: &'static str,
    /// What we say.
    pub ours: &'static str,
    /// Why.
    pub why: &'static str,
}

const BLOCKS: &str = "negative_blocks.json";
const COMMITS: &str = "negative_commits.json";
const FETCHED: &str = "negative_fetch_blocks.json";

#[cfg(feature = "bls")]
const ANCESTORS: &str = "check_ancestors.json";

const DECODED_THERE: &str = "made by changing bytes after signing, so the author's signature fails; the original cannot even decode it, since it \
     checks BLS points, keys and addresses while decoding, which we do not";
const COUNT_FIRST: &str = "refused by both; we count the commits before we decode them";

const fn difference(
    file: &'static str,
    vector: &'static str,
    original: &'static str,
    ours: &'static str,
    why: &'static str,
) -> Difference {
    Difference { file, vector, original, ours, why }
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    // Stricter.
    difference(
        BLOCKS,
        "ancestor_of_other_epoch",
        "ok",
        "AncestorEpoch",
        "a block builds on blocks of its own epoch only; what the original accepts here its consensus never makes",
    ),
    difference(
        BLOCKS,
        "ACCEPTED_eoe_multiaddr_not_canonical",
        "ok",
        "SignatureVerificationFailure",
        "we verify the bytes received, never a re-encoding, so a block has one spelling and one reference",
    ),
    #[cfg(feature = "bls")]
    difference(
        BLOCKS,
        "eoe_bogus_aggregate",
        "ok",
        "InvalidEndOfEpoch",
        "the original checks an aggregate only beside the block's ancestors; we do, as far as the block alone shows it",
    ),
    difference(
        COMMITS,
        "ACCEPTED_certifiers_of_another_epoch",
        "ok",
        "WrongEpoch",
        "a certifier votes as a member of the committee of the commit's own epoch",
    ),
    difference(
        COMMITS,
        "ACCEPTED_old_committee_continues",
        "ok",
        "NoCommitteeForEpoch",
        "the job is run under the committee of the epoch that our chain expects, and tells that the answer is of another",
    ),
    difference(
        COMMITS,
        "ACCEPTED_epoch_and_timestamp_go_back",
        "ok",
        "EpochChange",
        "a server ends an answer at the last commit of an epoch",
    ),
    difference(
        COMMITS,
        "more_than_asked",
        "ok",
        "TooManyCommits",
        "an answer is bounded by what was asked for; nothing is dropped in silence",
    ),
    // More lenient.
    difference(
        COMMITS,
        "fourth_certifier_bad_signature",
        "SignatureVerificationFailure",
        "ok without 1 bad certifiers",
        "three good certifiers are a quorum; the bad one is dropped and costs its sender",
    ),
    difference(
        FETCHED,
        "one_missing",
        "UnexpectedNumberOfBlocksFetched",
        "10 of 11 are good",
        "what is good in an answer is kept, and only what is missing is asked for again",
    ),
    difference(
        FETCHED,
        "one_extra",
        "UnexpectedNumberOfBlocksFetched",
        "11 of 11 are good, and 1 too many",
        "the job is given as many blocks as references; the machine refuses what is more than was asked for",
    ),
    difference(
        FETCHED,
        "none",
        "UnexpectedNumberOfBlocksFetched",
        "0 of 11 are good",
        "there is nothing to check; the machine sees that the answer brought nothing",
    ),
    #[cfg(feature = "bls")]
    difference(
        ANCESTORS,
        "aggregate_wrong_signers",
        "InvalidEndOfEpoch",
        "ok",
        "a quorum signed; that these are the ones whose ancestors carry their signatures, the ancestors alone can tell, \
         and a block is checked before they are there",
    ),
    // What needs more than we have.
    #[cfg(feature = "bls")]
    difference(
        ANCESTORS,
        "timestamp_below_max",
        "InvalidBlockTimestamp",
        "ok",
        "a block is checked alone, without the timestamps of its ancestors",
    ),
    #[cfg(not(feature = "bls"))]
    difference(
        BLOCKS,
        "eoe_signature_by_other_authority",
        "SignatureVerificationFailure",
        "ok",
        "only BLS arithmetic can refuse it; the block's digest is in a certified commit, and honest authorities check \
         BLS signatures before they vote",
    ),
    difference(
        BLOCKS,
        "eoe_state_hash_mismatch_known_root",
        "InvalidEndOfEpoch",
        "ok",
        "needs the local state's root, which only an executing node has",
    ),
    difference(
        BLOCKS,
        "invalid_transaction",
        "InvalidTransaction",
        "ok",
        "transactions are opaque unless the embedder gives a check, and none is given here",
    ),
    // Refused by both, for another reason.
    difference(
        BLOCKS,
        "eoe_signature_not_a_point",
        "MalformedBlock",
        "SignatureVerificationFailure",
        DECODED_THERE,
    ),
    difference(
        BLOCKS,
        "eoe_aggregate_not_a_point",
        "MalformedBlock",
        "SignatureVerificationFailure",
        DECODED_THERE,
    ),
    difference(
        BLOCKS,
        "eoe_authority_key_not_a_point",
        "MalformedBlock",
        "SignatureVerificationFailure",
        DECODED_THERE,
    ),
    difference(
        BLOCKS,
        "eoe_protocol_key_not_a_point",
        "MalformedBlock",
        "SignatureVerificationFailure",
        DECODED_THERE,
    ),
    difference(
        BLOCKS,
        "eoe_multiaddr_invalid",
        "MalformedBlock",
        "SignatureVerificationFailure",
        DECODED_THERE,
    ),
    difference(COMMITS, "wrong_start_index", "UnexpectedStartCommit", "TooManyCommits", COUNT_FIRST),
    difference(COMMITS, "commit_repeated", "UnexpectedCommitSequence", "TooManyCommits", COUNT_FIRST),
    difference(
        COMMITS,
        "more_than_asked_votes_for_last",
        "NotEnoughCommitVotes",
        "TooManyCommits",
        COUNT_FIRST,
    ),
    difference(
        FETCHED,
        "bad_signature",
        "SignatureVerificationFailure",
        "UnexpectedBlockForCommit",
        "the digest covers the signature, so a block with another signature is another block; the digest is cheaper",
    ),
];

/// Collects verdicts on the vectors of one file and compares them with the table.
#[derive(Debug)]
pub struct Comparison {
    file: &'static str,
    unexpected: Vec<String>,
    occurred: Vec<&'static str>,
    compared: usize,
}

impl Comparison {
    /// For the vectors of `file`.
    pub const fn new(file: &'static str) -> Self {
        Self { file, unexpected: Vec::new(), occurred: Vec::new(), compared: 0 }
    }

    fn listed(&self) -> impl Iterator<Item = &'static Difference> + use<> {
        let file = self.file;
        DIFFERENCES.iter().filter(move |difference| difference.file == file)
    }

    /// Records both verdicts on one vector.
    pub fn record(&mut self, vector: &str, original: &str, ours: &str) {
        self.compared += 1;
        match self.listed().find(|difference| difference.vector == vector) {
            Some(listed) => {
                self.occurred.push(listed.vector);
                if (listed.original, listed.ours) != (original, ours) {
                    self.unexpected
                        .push(format!("{vector}: listed differently; {original} there, {ours} here"));
                }
            }
            None if original != ours => {
                self.unexpected.push(format!("{vector}: not listed; {original} there, {ours} here"));
            }
            None => {}
        }
    }

    /// Compares, once every vector of the file has been recorded.
    ///
    /// # Panics
    ///
    /// When there are fewer vectors than `expected`, a difference is not as listed, or one that is listed is missing.
    pub fn finish(self, expected: usize) {
        assert_eq!(self.compared, expected, "{}: not every vector was compared", self.file);
        assert!(self.unexpected.is_empty(), "{}:\n{}", self.file, self.unexpected.join("\n"));
        let missing = self.listed().filter(|difference| !self.occurred.contains(&difference.vector));
        let missing: Vec<_> = missing.map(|difference| difference.vector).collect();
        assert!(missing.is_empty(), "{}: listed, and there is no such vector: {missing:?}", self.file);
    }
}
