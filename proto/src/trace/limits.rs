//! How many messages an item may hold.
//!
//! Two bytes can say an empty message, and a decoder that believes them spends a hundred in memory. The columns of our
//! lists cannot be abused so; the few lists of messages can, and are counted before anything is decoded.

use super::convert::{Converted, Malformed};
use crate::wire::nested;

/// Most messages that an item may hold in lists. The largest job has 100,000 blocks.
const MESSAGES_MAX: u32 = 250_000;

/// The fields of a message that hold lists of messages or of byte strings, at whatever depth.
struct Shape {
    number: u32,
    counted: bool,
    fields: &'static [Self],
}

const fn list(number: u32, fields: &'static [Shape]) -> Shape {
    Shape { number, counted: true, fields }
}
const fn one(number: u32, fields: &'static [Shape]) -> Shape {
    Shape { number, counted: false, fields }
}

const PAYLOADS: &[Shape] = &[list(3, &[])];
const BLOCKS: &[Shape] = &[list(4, &[]), one(5, PAYLOADS)];
const COMMITS: &[Shape] = &[one(8, PAYLOADS)];
const START: &[Shape] = &[list(10, &[])];
const OBSERVED: &[Shape] = &[one(1, PAYLOADS), one(2, PAYLOADS)];
const COMMITS_PART: &[Shape] = &[one(1, PAYLOADS), one(2, PAYLOADS), one(3, PAYLOADS)];
const BLOCKS_PART: &[Shape] = &[one(1, PAYLOADS)];
const PART: &[Shape] = &[one(4, COMMITS_PART), one(5, BLOCKS_PART)];
const CERTIFIED: &[Shape] = &[one(1, COMMITS), one(2, BLOCKS)];
const CHECKED: &[Shape] = &[one(1, BLOCKS), list(2, &[])];
const OBSERVED_COMMIT: &[Shape] = &[one(1, COMMITS), one(2, BLOCKS)];
const VERIFIED: &[Shape] = &[one(2, CERTIFIED), one(6, CHECKED), one(7, OBSERVED_COMMIT), one(9, BLOCKS)];
const ENTRY: &[Shape] =
    &[one(3, OBSERVED), one(4, PAYLOADS), one(9, PART), one(11, VERIFIED), one(14, START)];
const HEADER: &[Shape] = &[one(5, START)];
const ITEM: &[Shape] = &[one(1, HEADER), one(2, ENTRY)];

/// Refuses an item that holds too many messages. One whose fields do not end where they should is refused here or by
/// the decoder.
pub(super) fn check(item: &[u8]) -> Converted<()> {
    // A message takes two bytes at least.
    if u32::try_from(item.len() / 2).is_ok_and(|most| most <= MESSAGES_MAX) {
        return Ok(());
    }
    let mut left = MESSAGES_MAX;
    count(item, ITEM, &mut left)
}

fn count(message: &[u8], shapes: &[Shape], left: &mut u32) -> Converted<()> {
    for field in nested(message) {
        let (number, bytes) = field.map_err(|_| Malformed("an item does not decode"))?;
        let Some(shape) = shapes.iter().find(|shape| shape.number == number) else { continue };
        if shape.counted {
            *left = left.checked_sub(1).ok_or(Malformed("an item holds too many messages"))?;
        }
        if !shape.fields.is_empty() {
            count(bytes, shape.fields, left)?;
        }
    }
    Ok(())
}
