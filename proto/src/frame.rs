//! Messages on a byte stream: each behind its length, with the length held against a limit before anything is
//! allocated for it.
//!
//! ```text
//! request:   method    length  message
//! answer:    status   (length  message)*        status 0: answered; else the code of a refusal, and nothing follows
//! ```
//!
//! `method`, `status` and `length` are varints in their shortest form, `length` of at most 32 bits. What the numbers
//! mean is in [`message`](crate::message).
//!
//! Without input or output: [`FrameDecoder`] is fed chunks of any size. A message that lies wholly within one chunk is
//! a slice of it; any other is copied once, into a buffer that grows with what has arrived, since a length costs a
//! silent peer nothing. Held are the chunk given last and one message of at most its limit.

use bytes::{Buf, Bytes};

/// The first piece of a buffer for a message that spans chunks, in bytes; doubled when it is full, up to the
/// message's length. Servers send parts of at most this, so that theirs are allocated once.
const BUFFER_BYTES_FIRST: usize = 256 * 1024;

/// Most bytes that a varint of 32 bits takes.
const VARINT32_BYTES_MAX: usize = 5;

/// Why a byte stream holds no further message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message is longer than its kind may be.
    #[error("a message of {len} bytes, where at most {limit} are allowed")]
    Oversize {
        /// Its length in bytes.
        len: u64,
        /// The most bytes allowed.
        limit: u64,
    },
    /// A varint is longer than its value needs, or has more than 32 bits.
    #[error("a length is malformed")]
    BadLength,
    /// The stream ended within a message.
    #[error("the stream ended within a message")]
    Truncated,
}

/// Cuts a byte stream into its varints and messages.
///
/// Feed it with [`push`](Self::push), drain it with [`varint`](Self::varint) and [`message`](Self::message) until they
/// return `None`, and ask [`finish`](Self::finish) at the end of the stream. After an error it is of no further use.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    chunk: Bytes,
    varint: PartialVarint,
    message: Option<Message>,
}

/// A message whose length is known.
#[derive(Debug)]
struct Message {
    len: usize,
    /// What has arrived of it in earlier chunks.
    buffer: Vec<u8>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream. The chunk before should have been drained: what is left of it is joined to
    /// this one by copying.
    pub fn push(&mut self, chunk: Bytes) {
        self.chunk = if self.chunk.is_empty() { chunk } else { [&self.chunk[..], &chunk].concat().into() };
    }

    /// The next varint of at most 32 bits: a method or a status. `None` where more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError::BadLength`] of a varint that is longer than its value needs, or has more than 32 bits.
    pub fn varint(&mut self) -> Result<Option<u32>, FrameError> {
        while let Some(&byte) = self.chunk.first() {
            self.chunk.advance(1);
            if let Some(value) = self.varint.push(byte)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The next message, of at most `limit` bytes. `None` where more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError::Oversize`] as soon as the length is here, and [`FrameError::BadLength`].
    pub fn message(&mut self, limit: u64) -> Result<Option<Bytes>, FrameError> {
        let mut message = match self.message.take() {
            Some(message) => message,
            None => {
                let Some(len) = self.varint()? else { return Ok(None) };
                if u64::from(len) > limit {
                    return Err(FrameError::Oversize { len: len.into(), limit });
                }
                let len = usize::try_from(len).map_err(|_| FrameError::BadLength)?;
                Message { len, buffer: Vec::new() }
            }
        };
        if message.buffer.is_empty() && self.chunk.len() >= message.len {
            return Ok(Some(self.chunk.split_to(message.len)));
        }
        let wanted = message.len - message.buffer.len();
        message.append(&self.chunk.split_to(wanted.min(self.chunk.len())));
        if message.buffer.len() == message.len {
            return Ok(Some(message.buffer.into()));
        }
        self.message = Some(message);
        Ok(None)
    }

    /// Whether the stream may end here: between messages, with everything read.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] where it may not.
    pub fn finish(&self) -> Result<(), FrameError> {
        let between = self.message.is_none() && self.varint.is_empty() && self.chunk.is_empty();
        if between { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

impl Message {
    /// Takes `bytes`, which do not go beyond the message.
    fn append(&mut self, bytes: &[u8]) {
        let needed = self.buffer.len() + bytes.len();
        if needed > self.buffer.capacity() {
            let grown =
                needed.max(self.buffer.capacity().saturating_mul(2)).max(BUFFER_BYTES_FIRST).min(self.len);
            self.buffer.reserve_exact(grown - self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
    }
}

/// A varint of which some bytes have arrived.
#[derive(Debug, Default)]
struct PartialVarint {
    value: u64,
    bytes: usize,
}

impl PartialVarint {
    const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes the next byte; the value once it is whole.
    fn push(&mut self, byte: u8) -> Result<Option<u32>, FrameError> {
        self.value |= u64::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        let ends = byte & 0x80 == 0;
        if !ends && self.bytes < VARINT32_BYTES_MAX {
            return Ok(None);
        }
        let padded = byte == 0 && self.bytes > 1;
        let Self { value, .. } = std::mem::take(self);
        if !ends || padded {
            return Err(FrameError::BadLength);
        }
        u32::try_from(value).map(Some).map_err(|_| FrameError::BadLength)
    }
}

/// Appends `value` as a varint in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, value: u32) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How many bytes [`put_varint`] appends.
pub const fn varint_len(value: u64) -> usize {
    // Seven bits a byte, and one byte for zero.
    ((63 - (value | 1).leading_zeros()) / 7 + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 1 << 20;

    fn stream(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            put_varint(&mut out, message.len() as u32);
            out.extend_from_slice(message);
        }
        out
    }

    /// Feeds the chunks and collects the messages.
    fn decode(decoder: &mut FrameDecoder, chunks: &[&[u8]]) -> Result<Vec<Bytes>, FrameError> {
        let mut messages = Vec::new();
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(message) = decoder.message(LIMIT)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn every_split_of_the_stream_reads_the_same() {
        let messages = vec![b"a".to_vec(), Vec::new(), vec![7; 300], b"last".to_vec()];
        let bytes = stream(&messages);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut decoder = FrameDecoder::new();
                let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(
                    decode(&mut decoder, &chunks).as_deref(),
                    Ok(&messages.clone().into_iter().map(Bytes::from).collect::<Vec<_>>()[..])
                );
                assert_eq!(decoder.finish(), Ok(()));
            }
        }
    }

    #[test]
    fn a_stream_cut_within_a_message_is_truncated() {
        let messages = vec![b"one".to_vec(), vec![1; 200]];
        let bytes = stream(&messages);
        let whole = [0, 4, bytes.len()];
        for cut in 0..=bytes.len() {
            let mut decoder = FrameDecoder::new();
            decode(&mut decoder, &[&bytes[..cut]]).expect("a prefix of a good stream");
            let expected = if whole.contains(&cut) { Ok(()) } else { Err(FrameError::Truncated) };
            assert_eq!(decoder.finish(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_message_within_a_chunk_is_a_slice_of_it() {
        let chunk = Bytes::from(stream(&[b"hello".to_vec(), b"world".to_vec()]));
        let range = chunk.as_ptr_range();
        let mut decoder = FrameDecoder::new();
        decoder.push(chunk.clone());
        for _ in 0..2 {
            let message = decoder.message(LIMIT).expect("good").expect("whole");
            assert!(range.contains(&message.as_ptr()));
        }
    }

    #[test]
    fn a_length_alone_allocates_nothing() {
        let mut decoder = FrameDecoder::new();
        let mut prefix = Vec::new();
        put_varint(&mut prefix, 1 << 30);
        decoder.push(prefix.into());
        assert_eq!(decoder.message(u64::MAX), Ok(None));
        let capacity = |decoder: &FrameDecoder| decoder.message.as_ref().map_or(0, |m| m.buffer.capacity());
        assert_eq!(capacity(&decoder), 0);
        decoder.push(Bytes::from_static(b"x"));
        assert_eq!(decoder.message(u64::MAX), Ok(None));
        assert_eq!(capacity(&decoder), BUFFER_BYTES_FIRST);
        decoder.push(vec![0; BUFFER_BYTES_FIRST].into());
        assert_eq!(decoder.message(u64::MAX), Ok(None));
        assert_eq!(capacity(&decoder), 2 * BUFFER_BYTES_FIRST);
    }

    #[test]
    fn the_buffer_of_a_message_is_never_larger_than_the_message() {
        let message = vec![3; BUFFER_BYTES_FIRST + 1_000];
        let bytes = stream(std::slice::from_ref(&message));
        let mut decoder = FrameDecoder::new();
        let mut got = Vec::new();
        for chunk in bytes.chunks(1_400) {
            decoder.push(Bytes::copy_from_slice(chunk));
            got.extend(decoder.message(LIMIT).expect("good"));
            let capacity = decoder.message.as_ref().map_or(0, |m| m.buffer.capacity());
            assert!(capacity <= message.len());
        }
        assert_eq!(got, [message]);
    }

    #[test]
    fn a_message_over_its_limit_is_refused() {
        let mut decoder = FrameDecoder::new();
        decoder.push(Bytes::from_static(&[0x81, 0x01]));
        assert_eq!(decoder.message(128), Err(FrameError::Oversize { len: 129, limit: 128 }));
    }

    #[test]
    fn a_length_in_another_than_its_shortest_form_is_refused() {
        for bytes in [&[0x80, 0x00][..], &[0x81, 0x80, 0x00], &[0xff; 5], &[0x80, 0x80, 0x80, 0x80, 0x10]] {
            let mut decoder = FrameDecoder::new();
            decoder.push(Bytes::copy_from_slice(bytes));
            assert_eq!(decoder.varint(), Err(FrameError::BadLength), "{bytes:?}");
        }
    }

    #[test]
    fn an_undrained_chunk_is_kept() {
        let bytes = stream(&[b"ab".to_vec(), b"cd".to_vec()]);
        let mut decoder = FrameDecoder::new();
        decoder.push(Bytes::copy_from_slice(&bytes[..4]));
        decoder.push(Bytes::copy_from_slice(&bytes[4..]));
        assert_eq!(decoder.message(LIMIT), Ok(Some(Bytes::from_static(b"ab"))));
        assert_eq!(decoder.message(LIMIT), Ok(Some(Bytes::from_static(b"cd"))));
    }

    proptest! {
        #[test]
        fn a_varint_is_read_as_it_was_written(value: u32) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value.into()));
            let mut decoder = FrameDecoder::new();
            decoder.push(bytes.into());
            prop_assert_eq!(decoder.varint(), Ok(Some(value)));
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn bytes_at_random_give_no_message_over_the_limit(bytes: Vec<u8>, size in 1usize..20) {
            let mut decoder = FrameDecoder::new();
            for chunk in bytes.chunks(size) {
                decoder.push(Bytes::copy_from_slice(chunk));
                while let Ok(Some(message)) = decoder.message(64) {
                    prop_assert!(message.len() <= 64);
                }
            }
        }
    }
}
