//! Real BLS keys and signatures.

use super::draw::{Draws, Site};
use blst::min_sig::{AggregateSignature, SecretKey, Signature};
use soma_sync_core::{
    committee::ValidatorSet,
    types::{AuthorityIndex, Epoch},
};

/// The suite that the chain signs with.
const SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// An authority's BLS key.
#[derive(Debug)]
pub(crate) struct BlsKey {
    secret: SecretKey,
}

impl BlsKey {
    pub(crate) fn draw(draws: Draws, identity: u64) -> Self {
        let material = draws.bytes(Site::AuthorityKey, [identity, 0, 0]);
        Self { secret: SecretKey::key_gen(&material, &[]).expect("32 bytes are enough") }
    }

    /// What the validator set shows.
    pub(crate) fn public(&self) -> [u8; 96] {
        self.secret.sk_to_pk().to_bytes()
    }

    /// The signature of the author of a block on the next validator set, and the aggregate of it with those of
    /// `others`.
    pub(crate) fn sign<'a>(
        _draws: Draws,
        (_epoch, author): (Epoch, AuthorityIndex),
        next: &ValidatorSet,
        key: impl Fn(AuthorityIndex) -> &'a Self,
        others: impl Iterator<Item = AuthorityIndex>,
    ) -> ([u8; 48], [u8; 48]) {
        let message = next.signing_message();
        let sign = |signer| -> Signature { key(signer).secret.sign(&message, SUITE, &[]) };
        let own = sign(author);
        let mut aggregate = AggregateSignature::from_signature(&own);
        for other in others {
            aggregate.add_aggregate(&AggregateSignature::from_signature(&sign(other)));
        }
        (own.to_bytes(), aggregate.to_signature().to_bytes())
    }
}
