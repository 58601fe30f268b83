//! The formats' encoding (BCS): a strict cursor that borrows its input, and a writer.
//!
//! Everything read is bounded twice: by the bytes that are there, since an item is never allocated before its bytes
//! are seen, and by the caller's limit on how many items there may be. One value has one encoding: a length that is
//! not in its shortest form, an option tag other than 0 and 1, and bytes left over are errors.

use crate::bug::{Bug, has};
use alloc::vec::Vec;

/// The longest sequence that the encoding knows: 2³¹ − 1 items or bytes.
pub const MAX_LENGTH: u32 = 0x7fff_ffff;

/// Why bytes are not the encoding of what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end within the value.
    #[error("the bytes end too early")]
    UnexpectedEnd,
    /// There are bytes after the value.
    #[error("{left} bytes are left over")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A length is not written in its shortest form.
    #[error("a length is not in its shortest form")]
    LengthNotCanonical,
    /// A length does not fit 32 bits.
    #[error("a length does not fit 32 bits")]
    LengthOverflow,
    /// A length is above [`MAX_LENGTH`].
    #[error("a length of {length} is above 2^31 - 1")]
    LengthTooLarge {
        /// The length.
        length: u32,
    },
    /// The tag of an optional value is neither 0 nor 1.
    #[error("an option has tag {tag}")]
    OptionTag {
        /// The tag.
        tag: u8,
    },
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A byte string whose length is fixed has another one.
    #[error("{found} bytes where {expected} belong")]
    FixedLength {
        /// The length that it must have.
        expected: u32,
        /// The length that it has.
        found: u32,
    },
    /// More items than the configured limits allow.
    #[error("{count} {items}, and at most {max} are allowed")]
    TooMany {
        /// Of what.
        items: Items,
        /// How many.
        count: u32,
        /// The limit.
        max: u32,
    },
    /// The whole value is larger than the configured limits allow.
    #[error("{bytes} bytes, and at most {max} are allowed")]
    TooLarge {
        /// How large.
        bytes: u64,
        /// The limit.
        max: u64,
    },
}
saved! { enum DecodeError {
    0 => UnexpectedEnd, 1 => Trailing { left }, 2 => LengthNotCanonical, 3 => LengthOverflow,
    4 => LengthTooLarge { length }, 5 => OptionTag { tag }, 6 => Utf8, 7 => FixedLength { expected, found },
    8 => TooMany { items, count, max }, 9 => TooLarge { bytes, max },
} }

/// What the configured limits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Items {
    /// Ancestors of a block.
    Ancestors,
    /// Transactions of a block.
    Transactions,
    /// Commit votes in a block.
    Votes,
    /// Blocks that a commit names.
    Blocks,
}
saved! { enum Items { 0 => Ancestors, 1 => Transactions, 2 => Votes, 3 => Blocks } }

impl core::fmt::Display for Items {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Ancestors => "ancestors",
            Self::Transactions => "transactions",
            Self::Votes => "commit votes",
            Self::Blocks => "blocks",
        })
    }
}

/// Reads values from the front of a slice.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A ULEB128 number in its shortest form, at most [`MAX_LENGTH`].
    pub(crate) fn length(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u64;
        for shift in [0_u32, 7, 14, 21, 28] {
            let byte = self.byte()?;
            let digit = byte & 0x7f;
            value |= u64::from(digit).wrapping_shl(shift);
            if digit != byte {
                continue;
            }
            if digit == 0 && shift > 0 && !has(Bug::LongLengths) {
                return Err(DecodeError::LengthNotCanonical);
            }
            let length = u32::try_from(value).map_err(|_| DecodeError::LengthOverflow)?;
            return if length <= MAX_LENGTH {
                Ok(length)
            } else {
                Err(DecodeError::LengthTooLarge { length })
            };
        }
        Err(DecodeError::LengthOverflow)
    }

    /// The length of a sequence that holds at most `max` items.
    pub(crate) fn count(&mut self, items: Items, max: u32) -> Result<u32, DecodeError> {
        let count = self.length()?;
        if count <= max { Ok(count) } else { Err(DecodeError::TooMany { items, count, max }) }
    }

    /// The bytes of a sequence of at most `max` items, of `size` bytes each.
    pub(crate) fn fixed_items(
        &mut self,
        items: Items,
        max: u32,
        size: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let count = self.count(items, max)?;
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        self.take(bytes.ok_or(DecodeError::UnexpectedEnd)?)
    }

    pub(crate) fn byte_string(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        self.take(usize::try_from(length).map_err(|_| DecodeError::UnexpectedEnd)?)
    }

    /// A byte string, its length written out, that is always `N` bytes long.
    pub(crate) fn fixed_byte_string<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let found = self.byte_string()?;
        found.try_into().map_err(|_| DecodeError::FixedLength {
            expected: u32::try_from(N).unwrap_or(u32::MAX),
            found: u32::try_from(found.len()).unwrap_or(u32::MAX),
        })
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        core::str::from_utf8(self.byte_string()?).map_err(|_| DecodeError::Utf8)
    }

    /// An optional value, read by `read` where it is present.
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            tag => Err(DecodeError::OptionTag { tag }),
        }
    }

    /// That nothing is left over.
    pub(crate) const fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { left }),
        }
    }
}

/// Writes values one after the other.
///
/// A sequence of more than [`MAX_LENGTH`] items has no encoding; what is written for one does not decode.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn length(&mut self, length: usize) {
        let mut rest = length;
        while let high @ 1.. = rest >> 7 {
            let [low, ..] = rest.to_le_bytes();
            self.0.push(low | 0x80);
            rest = high;
        }
        let [low, ..] = rest.to_le_bytes();
        self.0.push(low);
    }

    pub(crate) fn byte_string(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    /// A sequence, its items written by `write`.
    pub(crate) fn items<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        for item in items {
            write(self, item);
        }
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.raw(&[0]),
            Some(value) => {
                self.raw(&[1]);
                write(self, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn length_of(bytes: &[u8]) -> Result<u32, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let length = cursor.length()?;
        cursor.finish()?;
        Ok(length)
    }

    #[test]
    fn lengths_are_written_in_their_shortest_form_and_read_back() {
        let cases: [(u32, &[u8]); 8] = [
            (0, &[0]),
            (1, &[1]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 1]),
            (1 << 28, &[0x80, 0x80, 0x80, 0x80, 1]),
            (MAX_LENGTH, &[0xff, 0xff, 0xff, 0xff, 7]),
        ];
        for (value, bytes) in cases {
            let mut writer = Writer::default();
            writer.length(value as usize);
            assert_eq!(writer.into_bytes(), bytes);
            assert_eq!(length_of(bytes), Ok(value));
        }
    }

    #[test]
    fn lengths_that_have_another_spelling_or_do_not_fit_are_refused() {
        assert_eq!(length_of(&[0x84, 0]), Err(DecodeError::LengthNotCanonical));
        assert_eq!(length_of(&[0x80, 0x80, 0x80, 0x80, 0]), Err(DecodeError::LengthNotCanonical));
        assert_eq!(
            length_of(&[0x80, 0x80, 0x80, 0x80, 8]),
            Err(DecodeError::LengthTooLarge { length: 1 << 31 })
        );
        assert_eq!(length_of(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(DecodeError::LengthOverflow));
        assert_eq!(length_of(&[0x80, 0x80, 0x80, 0x80, 0x80, 1]), Err(DecodeError::LengthOverflow));
        assert_eq!(length_of(&[0x80]), Err(DecodeError::UnexpectedEnd));
        assert_eq!(length_of(&[1, 2]), Err(DecodeError::Trailing { left: 1 }));
    }

    #[test]
    fn a_refusal_does_not_say_what_there_is_too_much_of() {
        let refused = [Items::Ancestors, Items::Transactions, Items::Votes, Items::Blocks]
            .map(|items| DecodeError::TooMany { items, count: 3, max: 2 }.to_string());
        let named = ["ancestors", "transactions", "commit votes", "blocks"];
        for (refused, named) in refused.iter().zip(named) {
            assert!(refused.contains(&alloc::format!("3 {named}")), "{refused}");
        }
    }

    #[test]
    fn an_option_tag_other_than_zero_and_one_is_refused() {
        let read = |bytes: &[u8]| Cursor::new(bytes).option(Cursor::byte);
        assert_eq!(read(&[0]), Ok(None));
        assert_eq!(read(&[1, 9]), Ok(Some(9)));
        assert_eq!(read(&[2, 9]), Err(DecodeError::OptionTag { tag: 2 }));
    }

    #[test]
    fn a_count_is_refused_before_its_items_are_read() {
        let refused = Err(DecodeError::TooMany { items: Items::Votes, count: 3, max: 2 });
        assert_eq!(Cursor::new(&[3]).fixed_items(Items::Votes, 2, 36), refused);
        assert_eq!(Cursor::new(&[2]).fixed_items(Items::Votes, 2, 36), Err(DecodeError::UnexpectedEnd));
    }
}
