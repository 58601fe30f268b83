//! Cutting messages of answers up, and changing what is in them.

use bytes::Bytes;
use soma_sync_core::{payload::Payload, request::ResponsePart};

/// Bytes of these payloads.
pub(super) fn bytes_of(payloads: &[Payload]) -> u64 {
    payloads.iter().map(|payload| payload.len() as u64).sum()
}

/// A message of commits and certifiers.
pub(super) fn commits(commits: Vec<Payload>, certifiers: Vec<Payload>) -> ResponsePart {
    let buffer_bytes = bytes_of(&commits) + bytes_of(&certifiers);
    ResponsePart::Commits { commits, certifiers, blocks: Vec::new(), buffer_bytes }
}

/// A message of blocks.
pub(super) fn blocks(blocks: Vec<Payload>, missing: Vec<u32>) -> ResponsePart {
    let buffer_bytes = bytes_of(&blocks);
    ResponsePart::Blocks { blocks, missing, buffer_bytes }
}

/// The same answer with one item in each message.
pub(super) fn one_by_one(parts: Vec<ResponsePart>) -> Vec<ResponsePart> {
    let mut single = Vec::new();
    for part in parts {
        match part {
            ResponsePart::Commits { commits: headers, certifiers, blocks: bodies, buffer_bytes: _ } => {
                single.extend(headers.into_iter().map(|commit| commits(vec![commit], Vec::new())));
                single.extend(certifiers.into_iter().map(|block| commits(Vec::new(), vec![block])));
                single.extend(bodies.into_iter().map(|block| ResponsePart::Commits {
                    commits: Vec::new(),
                    certifiers: Vec::new(),
                    buffer_bytes: block.len() as u64,
                    blocks: vec![block],
                }));
            }
            ResponsePart::Blocks { blocks: bodies, missing, buffer_bytes: _ } if missing.is_empty() => {
                single.extend(bodies.into_iter().map(|block| blocks(vec![block], Vec::new())));
            }
            ResponsePart::Blocks { .. }
            | ResponsePart::CommitInfo { .. }
            | ResponsePart::Availability { .. }
            | ResponsePart::Push { .. } => single.push(part),
        }
    }
    single
}

/// Bytes that a message takes.
pub(super) fn size(part: &ResponsePart) -> u64 {
    match part {
        ResponsePart::Commits { buffer_bytes, .. } | ResponsePart::Blocks { buffer_bytes, .. } => {
            *buffer_bytes
        }
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => 0,
    }
}

/// The lists of payloads in a message: commits, certifiers, blocks.
pub(super) fn lists(part: &mut ResponsePart) -> Vec<&mut Vec<Payload>> {
    match part {
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: _ } => {
            vec![commits, certifiers, blocks]
        }
        ResponsePart::Blocks { blocks, missing: _, buffer_bytes: _ } => vec![blocks],
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => {
            Vec::new()
        }
    }
}

/// Flips the last bit.
pub(super) fn flip(payload: &mut Payload) {
    let mut bytes = payload.bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    *payload = Payload::new(Bytes::from(bytes));
}

/// Puts a byte behind what should be the end.
pub(super) fn trail(payload: &mut Payload) {
    let mut bytes = payload.bytes().to_vec();
    bytes.push(0);
    *payload = Payload::new(Bytes::from(bytes));
}

/// Writes the length of a signed block's signature, which is its last 64 bytes, in two bytes in place of one.
pub(super) fn lengthen(payload: &mut Payload) {
    let mut bytes = payload.bytes().to_vec();
    let length = bytes.len().checked_sub(65).filter(|at| bytes[*at] == 64);
    if let Some(at) = length {
        bytes.splice(at..=at, [64 | 0x80, 0]);
        *payload = Payload::new(Bytes::from(bytes));
    }
}
