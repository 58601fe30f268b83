//! Ed25519 by ZIP 215 rules, singly and in batches; the only place that knows which library does it.
//!
//! Single and batch verification agree on every input, small-order and non-canonical points included: that is what
//! ZIP 215 is for, and why a faster library with other rules must not stand here.

use crate::block::SIGNING_MESSAGE_BYTES;
use alloc::vec::Vec;
use ed25519_consensus::{Signature, VerificationKey, VerificationKeyBytes, batch};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// Whether 32 bytes are a point of the curve.
pub(crate) fn is_key(bytes: &[u8; 32]) -> bool {
    VerificationKey::try_from(*bytes).is_ok()
}

/// A signature waiting to be verified.
#[derive(Clone, Debug)]
pub(crate) struct Claim(batch::Item);

impl Claim {
    /// That the owner of `key` signed `message`.
    pub(crate) fn new(key: &[u8; 32], message: &[u8; SIGNING_MESSAGE_BYTES], signature: &[u8; 64]) -> Self {
        Self((VerificationKeyBytes::from(*key), Signature::from(*signature), message).into())
    }

    /// Whether it is so.
    pub(crate) fn holds(self) -> bool {
        self.0.verify_single().is_ok()
    }
}

/// Whether each claim holds, in order. They are verified as one batch, and one by one only if that fails, since a
/// failed batch names no culprit.
///
/// `entropy` makes the batch's coefficients; whoever made the signatures must not be able to predict it. None at all
/// hold trivially: callers count what they verify.
pub(crate) fn verify_each(claims: Vec<Claim>, entropy: [u8; 32]) -> Vec<bool> {
    if claims.len() > 1 && verify_batch(&claims, entropy) {
        return claims.iter().map(|_| true).collect();
    }
    claims.into_iter().map(Claim::holds).collect()
}

fn verify_batch(claims: &[Claim], entropy: [u8; 32]) -> bool {
    let mut verifier = batch::Verifier::new();
    for claim in claims {
        verifier.queue(claim.0.clone());
    }
    verifier.verify(ChaCha20Rng::from_seed(entropy)).is_ok()
}
