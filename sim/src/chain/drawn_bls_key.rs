//! What stands for BLS keys and signatures where none are made: drawn bytes.

use super::draw::{Draws, Site};
use soma_sync_core::{
    committee::ValidatorSet,
    types::{AuthorityIndex, Epoch},
};

/// An authority's BLS key, as far as a chain shows it.
#[derive(Debug)]
pub(crate) struct BlsKey {
    public: [u8; 96],
}

impl BlsKey {
    pub(crate) fn draw(draws: Draws, identity: u64) -> Self {
        Self { public: draws.array(Site::AuthorityKey, [identity, 0, 0]) }
    }

    /// What the validator set shows.
    pub(crate) const fn public(&self) -> [u8; 96] {
        self.public
    }

    /// The signature of the author of a block on the next validator set, and the aggregate that goes with it.
    pub(crate) fn sign<'a>(
        draws: Draws,
        (epoch, author): (Epoch, AuthorityIndex),
        _next: &ValidatorSet,
        _key: impl Fn(AuthorityIndex) -> &'a Self,
        _others: impl Iterator<Item = AuthorityIndex>,
    ) -> ([u8; 48], [u8; 48]) {
        let entities = [epoch.get(), u64::from(author.get()), 0];
        (draws.array(Site::ValidatorSetSignature, entities), draws.array(Site::AggregateSignature, entities))
    }
}
