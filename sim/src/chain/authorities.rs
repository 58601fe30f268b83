//! An epoch's authorities: their keys and stakes, drawn from the seed.

use super::{
    ChainSpec,
    bls_key::BlsKey,
    draw::{Draws, Site},
};
use ed25519_consensus::SigningKey;
use soma_sync_core::{
    committee::{
        Authority, AuthorityName, Committee, NetworkMetadata, QUORUM_STAKE, TOTAL_STAKE, ValidatorSet,
    },
    config::Limits,
    types::{AuthorityIndex, Epoch, Stake},
};
use std::sync::Arc;

/// A committee and the keys that its authorities sign blocks with.
#[derive(Debug)]
pub(crate) struct Authorities {
    pub(crate) committee: Arc<Committee>,
    /// By authority index.
    keys: Vec<(SigningKey, BlsKey)>,
    /// The fewest authorities of which any choice is a quorum.
    pub(crate) quorum_size: u32,
}

/// One member before it has an index.
struct Member {
    name: AuthorityName,
    identity: u64,
    key: SigningKey,
    bls_key: BlsKey,
}

impl Authorities {
    /// The authorities of an epoch. From one epoch to the next the longest-serving one leaves, a new one joins, and
    /// stakes are drawn anew; so indexes change too.
    pub(crate) fn draw(spec: &ChainSpec, epoch: u32) -> Self {
        let draws = Draws::new(spec.seed);
        let first = u64::from(epoch);
        let mut members: Vec<_> =
            (first..first + u64::from(spec.committee)).map(|identity| member(draws, identity)).collect();
        members.sort_by_key(|member| member.name);
        let stakes = stakes(draws, epoch, spec.committee);
        let set = ValidatorSet {
            authorities: members
                .iter()
                .zip(&stakes)
                .map(|(member, stake)| authority(draws, member, *stake))
                .collect(),
        };
        let committee = Committee::new(Epoch::new(first), set, &Limits::default())
            .expect("sizes are bounded by the spec, stakes sum up, and names and keys are drawn apart");
        Self {
            committee: Arc::new(committee),
            keys: members.into_iter().map(|member| (member.key, member.bls_key)).collect(),
            quorum_size: quorum_size(stakes),
        }
    }

    /// The number of authorities.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.keys.len()).expect("the spec's committee is a u32")
    }

    /// Signs a block's signing message.
    pub(crate) fn sign(&self, author: AuthorityIndex, message: &[u8]) -> [u8; 64] {
        self.keys[author.position()].0.sign(message).to_bytes()
    }

    /// The key that an authority signs the next validator set with.
    pub(crate) fn bls_key(&self, authority: AuthorityIndex) -> &BlsKey {
        &self.keys[authority.position()].1
    }
}

fn member(draws: Draws, identity: u64) -> Member {
    let bls_key = BlsKey::draw(draws, identity);
    Member {
        name: AuthorityName::new(bls_key.public()),
        identity,
        key: SigningKey::from(draws.bytes(Site::ProtocolKey, [identity, 0, 0])),
        bls_key,
    }
}

fn authority(draws: Draws, member: &Member, stake: u64) -> Authority {
    let identity = member.identity;
    let network_key = SigningKey::from(draws.bytes(Site::NetworkKey, [identity, 0, 0]));
    let [_, _, _, _, _, a, b, c] = identity.to_be_bytes();
    let address = |port: u16| format!("/ip4/10.{a}.{b}.{c}/udp/{port}");
    Authority {
        name: member.name,
        stake: Stake::new(stake),
        metadata: NetworkMetadata {
            consensus_address: address(8_000),
            network_address: address(8_001),
            primary_address: address(8_002),
            protocol_key: member.key.verification_key().to_bytes(),
            network_key: network_key.verification_key().to_bytes(),
            authority_key: *member.name.as_bytes(),
            hostname: format!("authority-{identity}"),
        },
    }
}

/// Nearly equal stakes: an equal share each, then each second authority gives a drawn part, below a twentieth, to the
/// one before it.
fn stakes(draws: Draws, epoch: u32, committee: u32) -> Vec<u64> {
    let (share, left_over) =
        (TOTAL_STAKE.get() / u64::from(committee), TOTAL_STAKE.get() % u64::from(committee));
    let mut stakes: Vec<_> =
        (0..u64::from(committee)).map(|index| share + u64::from(index < left_over)).collect();
    for (index, pair) in (0..).zip(stakes.chunks_exact_mut(2)) {
        let part = draws.below(Site::Stake, [u64::from(epoch), index, 0], share / 20 + 1);
        pair[0] += part;
        pair[1] -= part;
    }
    stakes
}

/// The fewest authorities of which any choice is a quorum: as many as it takes of those with the least stake.
fn quorum_size(mut stakes: Vec<u64>) -> u32 {
    stakes.sort_unstable();
    let mut sum = 0;
    let short = stakes.iter().take_while(|stake| {
        sum += **stake;
        sum < QUORUM_STAKE.get()
    });
    u32::try_from(short.count()).expect("fewer than the committee, a u32") + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_choice_of_the_quorum_size_is_a_quorum_and_one_fewer_is_not_always() {
        assert_eq!(quorum_size(vec![10_000]), 1);
        assert_eq!(quorum_size(vec![3_334, 3_333, 3_333]), 3);
        assert_eq!(quorum_size(vec![2_500; 4]), 3);
        assert_eq!(quorum_size(vec![100; 100]), 67);
        assert_eq!(quorum_size(vec![6_667, 3_333]), 2);
    }

    #[test]
    fn stakes_sum_up_and_differ_between_epochs_for_every_size() {
        for committee in 1..=1_000 {
            assert_eq!(stakes(Draws::new(3), 0, committee).iter().sum::<u64>(), TOTAL_STAKE.get());
        }
        assert_ne!(stakes(Draws::new(3), 0, 4), stakes(Draws::new(3), 1, 4));
    }

    #[test]
    fn one_authority_leaves_and_one_joins_at_an_epochs_end() {
        let spec = ChainSpec {
            commits: 2,
            blocks_per_commit: 1,
            payload_bytes: 0,
            committee: 4,
            epochs: 2,
            seed: 5,
        };
        let names = |epoch| {
            let authorities = Authorities::draw(&spec, epoch);
            let names: Vec<_> =
                authorities.committee.authorities().map(|(_, authority)| authority.name).collect();
            names
        };
        let (before, after) = (names(0), names(1));
        assert_eq!(before.iter().filter(|name| after.contains(name)).count(), 3);
    }
}
