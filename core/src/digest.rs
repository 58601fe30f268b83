//! BLAKE2b with 32 bytes of output, unkeyed: the one hash of the formats.

use blake2::{Blake2b256, Digest};

/// BLAKE2b-256 of some bytes.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    Blake2b256::digest(bytes).into()
}

/// The hashes of a prefix and of the whole (`prefix` and then `rest`), in one pass.
pub(crate) fn hash_prefix_and_whole(prefix: &[u8], rest: &[u8]) -> ([u8; 32], [u8; 32]) {
    let mut hasher = Blake2b256::new_with_prefix(prefix);
    let of_prefix = hasher.clone().finalize();
    hasher.update(rest);
    (of_prefix.into(), hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_unkeyed_blake2b_with_32_bytes_of_output() {
        assert_eq!(
            hex::encode(hash(b"")),
            "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
        );
        assert_eq!(
            hex::encode(hash(b"abc")),
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
        );
    }

    #[test]
    fn the_one_pass_gives_the_same_hashes_as_two() {
        let bytes = [7_u8; 300];
        for split in [0, 1, 127, 128, 129, 300] {
            let (prefix, rest) = bytes.split_at(split);
            assert_eq!(hash_prefix_and_whole(prefix, rest), (hash(prefix), hash(&bytes)));
        }
    }
}
