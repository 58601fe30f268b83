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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const ENTROPY: [u8; 32] = [5; 32];

    fn array<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// From the original's vectors (`unequal_two_parents_quorum`).
    fn good() -> Claim {
        Claim::new(
            &array("fab307a0dab2fc6e9850e71b09df3963ff04eafecbdf25405ac47732a4b134d3"),
            &array("01000033599fdb8792334ed016f6eea6ee9b557190460256e38ac17e5beda49e8b8523"),
            &array(
                "8a40e0ec26e8306d24386e3f53da9c911395ce598bee8c3a3713067a0170bd4f\
                 a040d5b55d171540680f8fa7c69c119a093f96e73b2bd5748e1c078c725f4703",
            ),
        )
    }

    /// A key and an R of small order, S zero: valid by ZIP 215 over any message, and not by other rules.
    fn small_order() -> Claim {
        let mut signature = [0; 64];
        signature[0] = 1;
        Claim::new(&signature[..32].try_into().unwrap(), &[9; 35], &signature)
    }

    /// S zero and R the neutral point, under a key that is not of small order: valid for no message.
    fn bad() -> Claim {
        let mut signature = [0; 64];
        signature[0] = 1;
        Claim::new(
            &array("fab307a0dab2fc6e9850e71b09df3963ff04eafecbdf25405ac47732a4b134d3"),
            &[9; 35],
            &signature,
        )
    }

    #[test]
    fn single_and_batch_verification_agree() {
        assert!(good().holds());
        assert!(small_order().holds());
        assert!(!bad().holds());
        assert!(verify_batch(&[good(), small_order()], ENTROPY));
        assert!(!verify_batch(&[good(), bad(), small_order()], ENTROPY));
    }

    #[test]
    fn the_culprits_of_a_failed_batch_are_found() {
        let claims = vec![good(), bad(), small_order(), bad()];
        assert_eq!(verify_each(claims, ENTROPY), [true, false, true, false]);
        assert_eq!(verify_each(vec![good(), good()], ENTROPY), [true, true]);
        assert_eq!(verify_each(vec![bad()], ENTROPY), [false]);
        assert!(verify_each(Vec::new(), ENTROPY).is_empty());
    }

    #[test]
    fn bytes_that_are_no_point_are_no_key() {
        assert!(is_key(&array("fab307a0dab2fc6e9850e71b09df3963ff04eafecbdf25405ac47732a4b134d3")));
        let mut two = [0; 32];
        two[0] = 2;
        assert!(!is_key(&two));
    }
}
