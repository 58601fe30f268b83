//! Core's values as messages and back. Both directions name every field and every variant, so that a new one does not
//! compile before it is kept.

pub(super) mod config;
pub(super) mod event;
mod fault;
mod request;
pub(super) mod start;
mod verdict;

use super::pb;
use bytes::Bytes;
use soma_sync_core::{
    payload::Payload,
    types::{BlockRef, CommitRef, PeerId},
};

/// A message that decodes, and that no writer of ours made: what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) type Converted<T> = Result<T, Malformed>;

/// Bytes whose number is fixed.
pub(super) fn array<const N: usize>(bytes: &[u8]) -> Converted<[u8; N]> {
    bytes.try_into().map_err(|_| Malformed("a field of fixed length has another one"))
}

/// Items of fixed length, one after the other.
pub(super) fn rows<const N: usize>(bytes: &[u8]) -> Converted<&[[u8; N]]> {
    match bytes.as_chunks() {
        (rows, []) => Ok(rows),
        (_, _) => Err(Malformed("a column ends within an item")),
    }
}

/// That a column has as many items as the others.
fn column(found: usize, expected: usize) -> Converted<()> {
    if found == expected { Ok(()) } else { Err(Malformed("columns differ in length")) }
}

fn block_refs<'a>(refs: impl IntoIterator<Item = &'a BlockRef>) -> Bytes {
    refs.into_iter().flat_map(BlockRef::to_bytes).collect::<Vec<_>>().into()
}

fn commit_ref(reference: &CommitRef) -> Bytes {
    Bytes::copy_from_slice(&reference.to_bytes())
}

fn read_commit_ref(bytes: &[u8]) -> Converted<CommitRef> {
    Ok(CommitRef::from_bytes(&array(bytes)?))
}

fn peer(peer: &PeerId) -> Bytes {
    Bytes::copy_from_slice(peer.as_bytes())
}

fn read_peer(bytes: &[u8]) -> Converted<PeerId> {
    array(bytes).map(PeerId::new)
}

/// Payloads, with their bytes where `full` and where they have them.
fn payloads<'a>(payloads: impl Iterator<Item = &'a Payload> + Clone, full: bool) -> pb::Payloads {
    let mut columns = pb::Payloads {
        lengths: payloads.clone().map(|payload| payload.len() as u64).collect(),
        ..pb::Payloads::default()
    };
    if payloads.clone().any(|payload| payload.fingerprint() != 0) {
        columns.fingerprints = payloads.clone().map(Payload::fingerprint).collect();
    }
    if full && payloads.clone().all(|payload| payload.bytes().len() == payload.len()) {
        columns.data = payloads.map(|payload| payload.bytes().clone()).collect();
    }
    columns
}

fn read_payloads(columns: Option<pb::Payloads>) -> Converted<Vec<Payload>> {
    let pb::Payloads { lengths, fingerprints, data } = columns.unwrap_or_default();
    let count = lengths.len();
    let mut payloads = Vec::with_capacity(count);
    for length in lengths {
        let len = usize::try_from(length).map_err(|_| Malformed("a payload is too long"))?;
        payloads.push(Payload::absent(len, 0));
    }
    if !data.is_empty() {
        column(data.len(), count)?;
        for (payload, bytes) in payloads.iter_mut().zip(data) {
            column(bytes.len(), payload.len())?;
            *payload = Payload::new(bytes);
        }
    }
    if !fingerprints.is_empty() {
        column(fingerprints.len(), count)?;
        payloads.iter_mut().zip(fingerprints).for_each(|(payload, value)| payload.set_fingerprint(value));
    }
    Ok(payloads)
}
