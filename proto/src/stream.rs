//! A whole exchange on its stream: the one request that comes in, and the answer to the one that went out.
//!
//! Both readers are fed the stream's bytes in chunks of any size, as they arrive, and give out what is whole. They hold
//! every limit that the bytes of a stranger must keep, so that a transport has nothing to decide: it moves bytes.
//!
//! ```
//! use soma_sync_core::{config::Config, request::{Request, ResponsePart}, types::CommitIndex};
//! use soma_sync_proto::{
//!     message::{RequestLimits, answered_status, encode_request, encode_response},
//!     stream::{AnswerReader, RequestReader},
//! };
//!
//! let config = Config::default();
//! let request = Request::Availability { timestamp_ms: 0 };
//!
//! // Whoever is asked reads the request, and writes a status and the messages of the answer.
//! let mut asked = RequestReader::new(RequestLimits::new(&config));
//! asked.push(encode_request(&request));
//! assert_eq!(asked.next_request(), Ok(Some(request.clone())));
//! let part = ResponsePart::Availability { highest: CommitIndex::new(7), lowest: CommitIndex::GENESIS };
//! let answer = [answered_status(), encode_response(&part)];
//!
//! // Whoever asked reads them, and knows at the end of the stream whether that was all.
//! let mut reader = AnswerReader::new(&config, &request);
//! let mut parts = Vec::new();
//! for chunk in answer {
//!     reader.push(chunk);
//!     while let Some(part) = reader.next_part()? {
//!         parts.push(part);
//!     }
//! }
//! assert_eq!((parts, reader.finish()), (vec![part], Ok(())));
//! # Ok::<(), soma_sync_proto::stream::AnswerError>(())
//! ```

use crate::{
    frame::{FrameDecoder, FrameError},
    message::{
        MessageError, Method, RequestLimits, ResponseLimits, decode_request, decode_response, read_status,
    },
};
use bytes::Bytes;
use soma_sync_core::{
    config::Config,
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
};

/// Reads the one request that a peer sends on a stream. Holds at most the largest request and one chunk.
#[derive(Debug)]
pub struct RequestReader {
    decoder: FrameDecoder,
    method: Option<Method>,
    limits: RequestLimits,
}

impl RequestReader {
    /// A reader at the start of a stream.
    pub fn new(limits: RequestLimits) -> Self {
        Self { decoder: FrameDecoder::new(), method: None, limits }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        self.decoder.push(chunk);
    }

    /// The request, once it has arrived; `None` where more bytes are needed.
    ///
    /// # Errors
    ///
    /// What is to be said to the machine in the request's place: [`TooMany`](RefuseReason::TooMany) of one that asks
    /// for more than the limits allow, [`Malformed`](RefuseReason::Malformed) of what is no request. A stream that ends
    /// before its request is [`Malformed`](RefuseReason::Malformed), too; who reads the stream sees that.
    pub fn next_request(&mut self) -> Result<Option<Request>, RefuseReason> {
        let method = match self.method {
            Some(method) => method,
            None => {
                let Some(number) = self.decoder.varint().map_err(refused)? else { return Ok(None) };
                *self.method.insert(Method::from_number(number).ok_or(RefuseReason::Malformed)?)
            }
        };
        let message = self.decoder.message(method.request_bytes_max(&self.limits)).map_err(refused)?;
        message.map(|message| decode_request(method, message, &self.limits)).transpose()
    }
}

fn refused(error: FrameError) -> RefuseReason {
    match error {
        FrameError::Oversize { .. } => RefuseReason::TooMany,
        FrameError::BadLength | FrameError::Truncated => RefuseReason::Malformed,
    }
}

/// Why there is no whole answer on a stream. What the machine is to be told of it is its [`RequestFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The peer says no.
    #[error("refused: {0}")]
    Refused(RefuseReason),
    /// The stream is not a sequence of messages, or has one that is too long, or ends within one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message is no part of an answer to what was asked.
    #[error("a message of the answer does not decode: {0}")]
    Message(#[from] MessageError),
    /// All messages together are longer than the request allows.
    #[error("the answer is longer than the request allows")]
    TooLong,
    /// The stream ends without the message, or the status, that this answer consists of.
    #[error("the answer is empty")]
    Empty,
}

impl From<AnswerError> for RequestFailure {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Refused(reason) => Self::Refused(reason),
            AnswerError::Frame(FrameError::Oversize { .. }) | AnswerError::TooLong => Self::Oversize,
            AnswerError::Frame(FrameError::BadLength | FrameError::Truncated)
            | AnswerError::Message(_)
            | AnswerError::Empty => Self::Malformed,
        }
    }
}

/// Reads the answer to one request of ours. Holds at most one message and one chunk.
///
/// Feed it with [`push`](Self::push), drain it with [`next_part`](Self::next_part) until that says `None`, and ask
/// [`finish`](Self::finish) at the end of the stream. After an error it is of no further use.
#[derive(Debug)]
pub struct AnswerReader {
    decoder: FrameDecoder,
    method: Method,
    limits: ResponseLimits,
    /// Whether the status was read, and is that of an answer.
    answered: bool,
    /// Whether any message was read.
    begun: bool,
    bytes_left: u64,
}

impl AnswerReader {
    /// A reader at the start of the stream on which `request` is answered. It gives out messages of at most the
    /// request's `max_bytes` together; of an answer that has no such bound, one message.
    pub fn new(config: &Config, request: &Request) -> Self {
        let (method, limits) = (Method::of(request), ResponseLimits::new(config, request));
        let bytes_left = match request {
            Request::Commits(fetch) => fetch.max_bytes,
            Request::Blocks(fetch) => fetch.max_bytes,
            Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => {
                method.response_bytes_max(&limits)
            }
        };
        Self { decoder: FrameDecoder::new(), method, limits, answered: false, begun: false, bytes_left }
    }

    /// Takes the next bytes of the stream. The chunk before should have been drained.
    pub fn push(&mut self, chunk: Bytes) {
        self.decoder.push(chunk);
    }

    /// The next message of the answer; `None` where more bytes are needed.
    ///
    /// # Errors
    ///
    /// Why nothing more of this answer is of use, a refusal among it.
    pub fn next_part(&mut self) -> Result<Option<ResponsePart>, AnswerError> {
        if !self.answered {
            let Some(status) = self.decoder.varint()? else { return Ok(None) };
            read_status(status).map_err(AnswerError::Refused)?;
            self.answered = true;
        }
        let limit = self.method.response_bytes_max(&self.limits).min(self.bytes_left);
        let Some(message) = self.decoder.message(limit)? else { return Ok(None) };
        // Also an empty message costs something, so that nobody can send them for ever.
        let cost = (message.len() as u64).max(1);
        self.bytes_left = self.bytes_left.checked_sub(cost).ok_or(AnswerError::TooLong)?;
        self.begun = true;
        Ok(Some(decode_response(self.method, message, &self.limits)?))
    }

    /// Whether the answer may end here. To be asked at the end of the stream, when everything is drained.
    ///
    /// # Errors
    ///
    /// Where the answer broke off, or never began.
    pub fn finish(&self) -> Result<(), AnswerError> {
        self.decoder.finish()?;
        let whole = self.begun || (self.answered && self.method.is_streaming());
        if whole { Ok(()) } else { Err(AnswerError::Empty) }
    }
}
