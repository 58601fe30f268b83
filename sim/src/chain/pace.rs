//! How many authorities propose in a round, so that commits come out with the number of blocks asked for.

/// The rule of one epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Authorities in the committee.
    pub(crate) committee: u32,
    /// The fewest authorities of which *any* choice is a quorum of stake, at most `committee`.
    pub(crate) quorum: u32,
    /// Blocks wanted in a commit, at least 1.
    pub(crate) blocks_per_commit: u32,
}

impl Pace {
    /// Proposers of the next round when `open` blocks of earlier rounds are in no commit yet.
    ///
    /// At least a quorum, at most the committee; chosen so that a leader's uncommitted history has exactly the number
    /// of blocks that a commit needs, where whole rounds of such sizes can add up to that.
    pub(crate) fn proposers(self, open: u32) -> u32 {
        let missing = (self.blocks_per_commit - 1).saturating_sub(open);
        if missing > 0 {
            return if self.adds_up(missing) {
                missing.div_ceil(missing.div_ceil(self.committee))
            } else {
                self.committee
            };
        }
        // A leader's round: its siblings are open afterwards, so the next commit lacks that many fewer.
        (self.quorum..=self.committee.min(self.blocks_per_commit))
            .rev()
            .find(|proposers| self.adds_up(self.blocks_per_commit - proposers))
            .unwrap_or(self.committee)
    }

    /// Leaders among the `proposers` of a round before which `open` blocks are in no commit: each commits itself and
    /// the oldest of those blocks.
    pub(crate) fn leaders(self, proposers: u32, open: u32) -> u32 {
        match self.blocks_per_commit - 1 {
            0 => proposers,
            others => proposers.min(open / others),
        }
    }

    /// Whether some number of rounds can have exactly this many blocks.
    fn adds_up(self, blocks: u32) -> bool {
        blocks.div_ceil(self.committee) * self.quorum <= blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the pace for some rounds: the numbers of proposers, and the blocks left open after each.
    fn run(committee: u32, quorum: u32, blocks_per_commit: u32, rounds: usize) -> (Vec<u32>, u32, u32) {
        let pace = Pace { committee, quorum, blocks_per_commit };
        let (mut open, mut commits) = (0, 0);
        let mut sizes = Vec::new();
        for _ in 0..rounds {
            let proposers = pace.proposers(open);
            let leaders = pace.leaders(proposers, open);
            assert!((quorum..=committee).contains(&proposers));
            open = open + proposers - leaders * blocks_per_commit;
            commits += leaders;
            sizes.push(proposers);
        }
        (sizes, commits, open)
    }

    #[test]
    fn rounds_add_up_to_the_commits_of_the_usual_chains() {
        assert_eq!(run(4, 3, 10, 9).0, [3, 3, 3, 4, 3, 3, 4, 3, 3]);
        assert_eq!(run(4, 3, 40, 31).0[..12], [4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 4, 4]);
        assert_eq!(run(100, 67, 100, 3).0, [99, 100, 100]);
        assert_eq!(run(20, 14, 10, 4).0, [20, 20, 20, 20]);
        assert_eq!(run(1, 1, 3, 4).0, [1, 1, 1, 1]);
    }

    #[test]
    fn the_blocks_left_open_stay_within_a_commit_and_a_round() {
        for committee in [1, 2, 3, 4, 7, 20, 100] {
            let quorum = committee - committee / 3;
            for blocks_per_commit in (1..=60).chain([100, 150, 1_000]) {
                let (_, commits, open) = run(committee, quorum, blocks_per_commit, 4_000);
                assert!(
                    commits > 0 && open < blocks_per_commit + 2 * committee,
                    "{committee} {blocks_per_commit} {open}"
                );
            }
        }
    }
}
