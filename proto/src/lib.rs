//! The bytes of soma-sync: what peers send one another, what chains are kept in outside a store, and what is kept of all
//! that happened to a node.
//!
//! Between core's types and bytes from strangers stands one rule: **a limit is applied before anything is allocated**.
//! Lengths are held against limits before buffers exist, items are counted before they are decoded, and buffers grow
//! with what has arrived, not with what was announced. Payloads are slices of the message that they came in.
//!
//! | module | between | and |
//! | --- | --- | --- |
//! | [`frame`] | chunks of a byte stream | whole messages |
//! | [`message`] | messages (protobuf) | [`Request`](soma_sync_core::request::Request), [`ResponsePart`](soma_sync_core::request::ResponsePart) |
//! | [`stream`] | chunks of a byte stream | the request on it, or the answer: both of the above, with all limits |
//! | [`chain_file`] | a chain file | commits, blocks and certifiers, unverified |
//! | [`chain_check`] | a chain file | the same, verified from its genesis on |
//! | [`trace`] | a trace file | what happened to a machine, and what came of it |
//!
//! No sockets and no runtime here: [`stream`] and [`frame`] are fed by whoever reads the stream, chain files are any
//! [`Read`](std::io::Read) and [`Write`](std::io::Write).
//!
//! ```
//! use soma_sync_core::{request::{CommitInfoQuery, Request}, types::CommitIndex};
//! use soma_sync_proto::{frame::FrameDecoder, message::{Method, RequestLimits, decode_request, encode_request}};
//!
//! let request = Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::GENESIS));
//! let stream = encode_request(&request);
//!
//! // At the other end it comes in pieces.
//! let limits = RequestLimits { max_refs: 1000 };
//! let mut decoder = FrameDecoder::new();
//! decoder.push(stream.slice(..2));
//! let method = decoder.varint()?.and_then(Method::from_number).expect("a method that we know");
//! assert_eq!(decoder.message(method.request_bytes_max(&limits))?, None);
//! decoder.push(stream.slice(2..));
//! let message = decoder.message(method.request_bytes_max(&limits))?.expect("the rest has come");
//! assert_eq!(decode_request(method, message, &limits), Ok(request));
//! # Ok::<(), soma_sync_proto::frame::FrameError>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "verify")]
pub mod chain_check;
pub mod chain_file;
pub mod frame;
#[allow(unreachable_pub, reason = "generated as for a public module")]
#[rustfmt::skip]
mod generated;
pub mod message;
pub mod stream;
#[cfg(feature = "trace")]
pub mod trace;
mod wire;
