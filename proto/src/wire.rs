//! A walk over a protobuf message that allocates nothing.
//!
//! Four megabytes can say two million empty items, at two bytes each, and a decoder that believes them spends sixty
//! times that in memory. So every message is walked before it is decoded: the items of each known field are counted
//! against a cap, lengths and numbers are held against their bounds, and only what passes is handed to `prost`. The
//! walk is linear in the message and skips over payload bytes without reading them.

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is no protobuf message, or a known field has another type.
    #[error("malformed at byte {offset}")]
    Malformed {
        /// Where, from the start of the message.
        offset: usize,
    },
    /// More items than the caller allows for the field.
    #[error("field {field} has more than {limit} items")]
    TooMany {
        /// The field's number.
        field: u32,
        /// Most items allowed.
        limit: u32,
    },
    /// A number or a length outside the bounds of its field.
    #[error("field {field} is out of bounds: {value}")]
    OutOfBounds {
        /// The field's number.
        field: u32,
        /// The number, or the length in bytes.
        value: u64,
    },
}

/// What one known field may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    number: u32,
    kind: Kind,
    max_count: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A number up to `max`, given once or more often; the last one counts.
    Number { max: u64 },
    /// Byte strings with lengths in bounds.
    Bytes { min_len: u64, max_len: u64 },
    /// Repeated `uint32`, packed or not.
    Numbers,
}

impl Field {
    /// A `uint64`.
    pub(crate) const fn uint64(number: u32) -> Self {
        Self { number, kind: Kind::Number { max: u64::MAX }, max_count: u32::MAX }
    }
    /// A `uint32`.
    pub(crate) const fn uint32(number: u32) -> Self {
        Self { number, kind: Kind::Number { max: u32::MAX as u64 }, max_count: u32::MAX }
    }
    /// A `bool`.
    pub(crate) const fn boolean(number: u32) -> Self {
        Self { number, kind: Kind::Number { max: 1 }, max_count: u32::MAX }
    }
    /// One byte string of exactly `len` bytes, or none.
    pub(crate) const fn exactly(number: u32, len: u64) -> Self {
        Self { number, kind: Kind::Bytes { min_len: len, max_len: len }, max_count: u32::MAX }
    }
    /// At most `max_count` byte strings of exactly `len` bytes.
    pub(crate) const fn items_of(number: u32, max_count: u32, len: u64) -> Self {
        Self { number, kind: Kind::Bytes { min_len: len, max_len: len }, max_count }
    }
    /// At most `max_count` byte strings.
    pub(crate) const fn items(number: u32, max_count: u32) -> Self {
        Self { number, kind: Kind::Bytes { min_len: 0, max_len: u64::MAX }, max_count }
    }
    /// At most `max_count` repeated `uint32`.
    pub(crate) const fn numbers(number: u32, max_count: u32) -> Self {
        Self { number, kind: Kind::Numbers, max_count }
    }
}

/// Most fields that a message of this protocol has.
const FIELDS_MAX: usize = 8;

/// Walks `message` and holds each field that `known` lists against its bounds; skips all others.
pub(crate) fn scan(message: &[u8], known: &[Field]) -> Result<(), MessageError> {
    debug_assert!(known.len() <= FIELDS_MAX, "one counter for each field");
    let mut counts = [0u32; FIELDS_MAX];
    let mut cursor = Cursor { message, offset: 0 };
    while cursor.offset < message.len() {
        let start = cursor.offset;
        let malformed = MessageError::Malformed { offset: start };
        let key = u32::try_from(cursor.varint()?).map_err(|_| malformed)?;
        let (number, wire_type) = (key >> 3, WireType::new(key & 7).ok_or(malformed)?);
        if number == 0 {
            return Err(malformed);
        }
        match known.iter().zip(&mut counts).find(|(field, _)| field.number == number) {
            Some((field, count)) => scan_known(&mut cursor, *field, wire_type, count, malformed)?,
            None => cursor.skip(wire_type)?,
        }
    }
    Ok(())
}

/// The fields of a message that hold bytes or messages, by number, as they come. Ends after the first error.
#[cfg(feature = "trace")]
pub(crate) fn nested(message: &[u8]) -> impl Iterator<Item = Result<(u32, &[u8]), MessageError>> {
    let mut cursor = Cursor { message, offset: 0 };
    std::iter::from_fn(move || {
        while cursor.offset < message.len() {
            match next_field(&mut cursor) {
                Ok(Some(field)) => return Some(Ok(field)),
                Ok(None) => {}
                Err(error) => {
                    cursor.offset = message.len();
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

/// Passes over a field, which is told where it holds bytes.
#[cfg(feature = "trace")]
fn next_field<'a>(cursor: &mut Cursor<'a>) -> Result<Option<(u32, &'a [u8])>, MessageError> {
    let malformed = cursor.malformed();
    let key = u32::try_from(cursor.varint()?).map_err(|_| malformed)?;
    match WireType::new(key & 7).ok_or(malformed)? {
        WireType::Bytes => Ok(Some((key >> 3, cursor.bytes()?))),
        wire_type @ (WireType::Varint | WireType::Fixed64 | WireType::Fixed32) => {
            cursor.skip(wire_type).map(|()| None)
        }
    }
}

/// Holds one occurrence of a known field against its bounds.
fn scan_known(
    cursor: &mut Cursor<'_>,
    field: Field,
    wire_type: WireType,
    count: &mut u32,
    malformed: MessageError,
) -> Result<(), MessageError> {
    let bounded = |value: u64, min: u64, max: u64| {
        let out_of_bounds = MessageError::OutOfBounds { field: field.number, value };
        if (min..=max).contains(&value) { Ok(()) } else { Err(out_of_bounds) }
    };
    let too_many = MessageError::TooMany { field: field.number, limit: field.max_count };
    let mut one_more = || {
        *count = count.saturating_add(1);
        if *count > field.max_count { Err(too_many) } else { Ok(()) }
    };
    match (field.kind, wire_type) {
        (Kind::Number { max }, WireType::Varint) => bounded(cursor.varint()?, 0, max),
        (Kind::Numbers, WireType::Varint) => {
            one_more()?;
            bounded(cursor.varint()?, 0, u64::from(u32::MAX))
        }
        (Kind::Numbers, WireType::Bytes) => {
            let packed = cursor.bytes()?;
            let end = cursor.offset;
            cursor.offset -= packed.len();
            while cursor.offset < end {
                one_more()?;
                bounded(cursor.varint()?, 0, u64::from(u32::MAX))?;
            }
            // A varint that began inside the list must not have ended outside it.
            if cursor.offset == end { Ok(()) } else { Err(malformed) }
        }
        (Kind::Bytes { min_len, max_len }, WireType::Bytes) => {
            one_more()?;
            bounded(cursor.bytes()?.len() as u64, min_len, max_len)
        }
        (Kind::Number { .. } | Kind::Numbers | Kind::Bytes { .. }, _) => Err(malformed),
    }
}

/// How the value of a field is laid out. Groups, long deprecated, are refused.
#[derive(Clone, Copy)]
enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

impl WireType {
    const fn new(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::Varint),
            1 => Some(Self::Fixed64),
            2 => Some(Self::Bytes),
            5 => Some(Self::Fixed32),
            _ => None,
        }
    }
}

/// A place in a message.
struct Cursor<'a> {
    message: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    const fn malformed(&self) -> MessageError {
        MessageError::Malformed { offset: self.offset }
    }

    /// A varint of at most ten bytes that fits 64 bits.
    fn varint(&mut self) -> Result<u64, MessageError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.message.get(self.offset).ok_or(self.malformed())?;
            // The tenth byte holds the one bit that is left of 64.
            if shift == 63 && byte > 1 {
                return Err(self.malformed());
            }
            self.offset += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    /// A length, and that many bytes.
    fn bytes(&mut self) -> Result<&'a [u8], MessageError> {
        let len = self.varint()?;
        let malformed = self.malformed();
        self.take(usize::try_from(len).map_err(|_| malformed)?)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let rest = self.message.get(self.offset..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(self.malformed())?;
        self.offset += len;
        Ok(taken)
    }

    fn skip(&mut self, wire_type: WireType) -> Result<(), MessageError> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.take(8).map(drop),
            WireType::Bytes => self.bytes().map(drop),
            WireType::Fixed32 => self.take(4).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MALFORMED: fn(usize) -> Result<(), MessageError> = |offset| Err(MessageError::Malformed { offset });

    #[test]
    fn a_flood_of_empty_items_is_refused() {
        let flood = [0x0a, 0x00].repeat(1_000);
        assert_eq!(scan(&flood, &[Field::items(1, 1_000)]), Ok(()));
        let refused = Err(MessageError::TooMany { field: 1, limit: 999 });
        assert_eq!(scan(&flood, &[Field::items(1, 999)]), refused);
    }

    #[test]
    fn packed_numbers_are_counted() {
        let known = [Field::numbers(16, 3)];
        let refused = Err(MessageError::TooMany { field: 16, limit: 3 });
        assert_eq!(scan(&[0x82, 0x01, 3, 1, 2, 3], &known), Ok(()));
        assert_eq!(scan(&[0x82, 0x01, 4, 1, 2, 3, 4], &known), refused);
        assert_eq!(scan(&[0x82, 0x01, 3, 1, 2, 3, 0x80, 0x01, 4], &known), refused);
        // The last number of the list goes on behind its end.
        assert_eq!(scan(&[0x82, 0x01, 1, 0x80, 0x01], &known), MALFORMED(0));
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let five_bytes = [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(scan(&five_bytes, &[Field::uint32(1)]), Ok(()));
        let above = [0x08, 0x80, 0x80, 0x80, 0x80, 0x10];
        let refused = Err(MessageError::OutOfBounds { field: 1, value: 1 << 32 });
        assert_eq!(scan(&above, &[Field::uint32(1)]), refused);
        assert_eq!(scan(&above, &[Field::uint64(1)]), Ok(()));
        let two = Err(MessageError::OutOfBounds { field: 18, value: 2 });
        assert_eq!(scan(&[0x90, 0x01, 2], &[Field::boolean(18)]), two);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let known = [Field::items(1, 10), Field::uint64(2)];
        for (bytes, offset) in [
            (&[0x0a][..], 1),                // a length is missing
            (&[0x0a, 5, 1, 2][..], 2),       // bytes are missing
            (&[0x08, 1][..], 0),             // a number where bytes are known
            (&[0x12, 0][..], 0),             // bytes where a number is known
            (&[0x00, 1][..], 0),             // field 0
            (&[0x1b][..], 0),                // a group
            (&[0x1d, 1, 2, 3][..], 1),       // four bytes are missing one
            (&[0x19, 1, 2, 3, 4, 5][..], 1), // eight are missing three
            (&[0x10, 0x80][..], 2),          // a number that does not end
        ] {
            assert_eq!(scan(bytes, &known), MALFORMED(offset), "{bytes:?}");
        }
        let eleven = [&[0x10][..], &[0x80; 10], &[0]].concat();
        assert_eq!(scan(&eleven, &known), MALFORMED(10));
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let unknown = [0x18, 0x80, 0x01, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, 0xff, 0xff, 0x1d, 0, 0, 0, 0];
        assert_eq!(scan(&unknown, &[Field::items(1, 0)]), Ok(()));
    }
}
