//! The state synchronization of the Soma blockchain as a pure state machine.
//!
//! A node that is behind learns how far its peers are, fetches the commits that it lacks with the votes that certify
//! them, fetches the blocks that those commits name, verifies everything, stores it, hands it on in order and tells its
//! peers. All of the protocol is in this crate; no clock, socket, disk, thread or randomness is.
//!
//! ```text
//!                  events                                  commands
//!   network  ─────────────────┐                     ┌──────────────▶ network   (send, cancel, respond, disconnect)
//!   storage  ─────────────────┤   ┌─────────────┐   ├──────────────▶ storage   (store a batch, serve from it)
//!   verifier ─────────────────┼──▶│ SyncMachine │───┼──────────────▶ verifier  (certify commits, check blocks)
//!   consensus ────────────────┤   └─────────────┘   ├──────────────▶ consumers (broadcast)
//!   clock (tick) ─────────────┘                     └──────────────▶ operator  (notices)
//! ```
//!
//! # The contract
//!
//! Whoever drives a [`SyncMachine`] keeps to five rules:
//!
//! 1. Time never goes back, and [`Event::Tick`] is sent when [`SyncMachine::poll_timeout`] is due.
//! 2. After each event, [`SyncMachine::poll_command`] is called until it says `None`, and no command is dropped.
//! 3. Batches are stored in the order in which they were given, each atomically.
//! 4. Each [`Command::Verify`] and each [`Command::Serve`] is completed exactly once, whatever happens.
//! 5. Each [`Command::SendRequest`] is finished at most once, its parts in order before that.
//!
//! In return the machine never panics, keeps every buffer within its configured bound, and gives the same commands for
//! the same configuration, start, seed and events, on every platform.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`event`], [`command`], [`request`] | what the machine is told, what it wants done, what peers say to one another |
//! | [`start`], [`config`] | what a machine is made of: the state of storage, and every setting with its bounds |
//! | [`job`], [`certify`], [`verified`] | verification: jobs, their verdicts, and what only they can make |
//! | [`block`], [`commit`], [`committee`], [`types`] | the formats, and the field's quantities and names |
//! | [`explain`], [`stable_hash`] | why a commit is where it is; whether two runs are the same |
//! | [`time`], [`payload`] | time as an argument, and bytes that the machine carries and never reads |
//!
//! A whole embedding, with sockets, verification threads and a store, is the example `threads` of `soma-sync-proto`. The
//! guide in the repository's `docs/` says what a transport, a store and a verifier have to do.
//!
//! # A loop that runs
//!
//! ```
//! use soma_sync_core::{
//!     Command, Config, Event, SyncMachine, Timestamp,
//!     command::Notice,
//!     committee::{Authority, AuthorityName, Committee, NetworkMetadata, ValidatorSet},
//!     config::Limits,
//!     request::{Request, ResponsePart},
//!     start::Start,
//!     types::{CommitIndex, Epoch, PeerId, Stake},
//! };
//! use std::{collections::VecDeque, sync::Arc};
//!
//! # let point = { let mut key = [0x66; 32]; key[0] = 0x58; key };
//! # // Generates the group that BLS keys are in.
//! # let bls_key = hex::decode(concat!(
//! #     "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e",
//! #     "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8",
//! # ))?;
//! # let authority = Authority {
//! #     name: AuthorityName::new([1; 96]),
//! #     stake: Stake::new(10_000),
//! #     metadata: NetworkMetadata {
//! #         consensus_address: "/ip4/127.0.0.1/udp/1".into(),
//! #         network_address: "/ip4/127.0.0.1/udp/2".into(),
//! #         primary_address: "/ip4/127.0.0.1/udp/3".into(),
//! #         protocol_key: point,
//! #         network_key: point,
//! #         authority_key: bls_key[..].try_into()?,
//! #         hostname: "localhost".into(),
//! #     },
//! # };
//! # let validators = ValidatorSet { authorities: vec![authority] };
//! let committee = Arc::new(Committee::new(Epoch::ZERO, validators, &Limits::default())?);
//! let chain_id = committee.chain_id();
//! let start = Start::genesis(chain_id, committee);
//! let mut machine = SyncMachine::new(Config::default(), start, Timestamp::ZERO, [7; 32])?;
//!
//! // Events would come from sockets, workers and storage. Here a peer connects that has no commits either.
//! let mut events = VecDeque::from([Event::PeerConnected { peer: PeerId::new([1; 32]) }]);
//! let mut synced = false;
//! while let Some(event) = events.pop_front() {
//!     machine.handle(Timestamp::from_micros(1), event);
//!     while let Some(command) = machine.poll_command() {
//!         match command {
//!             Command::SendRequest { id, request, .. } => {
//!                 let part = match request {
//!                     Request::CommitInfo(_) => {
//!                         ResponsePart::CommitInfo { commit: None, chain_id: Some(chain_id) }
//!                     }
//!                     Request::Availability { .. } => {
//!                         ResponsePart::Availability { highest: CommitIndex::ZERO, lowest: CommitIndex::ZERO }
//!                     }
//!                     // Commits to come are asked for, too: the peer answers when there are any.
//!                     Request::Commits(_) => continue,
//!                     other => unreachable!("there is nothing to fetch: {other:?}"),
//!                 };
//!                 events.push_back(Event::ResponsePart { id, part });
//!                 events.push_back(Event::RequestFinished { id, result: Ok(()) });
//!             }
//!             Command::Notify(Notice::Synced { .. }) => synced = true,
//!             other => unreachable!("{other:?}"),
//!         }
//!     }
//! }
//! assert!(synced);
//! assert!(machine.poll_timeout().is_some(), "it will ask the peer again");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `verify` (default) builds the verification jobs, [`job::Job::run`], which need the standard library. Without it the
//! crate needs only an allocator: the machine hands jobs out as data, and verdicts may be made elsewhere.
//!
//! `bls` adds to them what a block says about the end of its epoch: the BLS keys of the next validators are points of
//! the group, the author's signature on them holds, and so does the aggregate, as far as a block alone can show it
//! (`block::BlockView::verify_bls`). It builds the C and assembly of `blst`; no other feature builds any.
//!
//! `trace` adds `verified::Verified::from_trace`, by which a recorded verdict is told to a machine again without its job
//! being run: for whoever replays traces, and for nobody else.
//!
//! `defence-switches` is for tests only and belongs in no release: with it, the environment takes a defence away or puts
//! a bug in, to see that a test notices.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "defence-switches")]
extern crate std;

#[macro_use]
mod saved;

mod bcs;
pub mod block;
#[cfg(feature = "bls")]
mod bls;
#[cfg(feature = "defence-switches")]
pub mod bug;
#[cfg(not(feature = "defence-switches"))]
mod bug;
pub mod certify;
#[cfg(feature = "verify")]
mod check;
pub mod command;
pub mod commit;
pub mod committee;
pub mod config;
#[cfg(feature = "defence-switches")]
pub mod defence;
#[cfg(not(feature = "defence-switches"))]
mod defence;
mod digest;
mod environment;
pub mod event;
pub mod explain;
mod id;
pub mod job;
mod ledger;
mod machine;
mod normal;
#[cfg(feature = "verify")]
mod observe;
mod parking;
pub mod payload;
mod peers;
mod recent;
pub mod request;
mod rng;
#[cfg(feature = "verify")]
mod rules;
mod schedule;
mod serve;
#[cfg(feature = "verify")]
mod signature;
pub mod stable_hash;
pub mod start;
mod switch;
pub mod time;
pub mod types;
pub mod verified;
mod votes;
mod window;

pub use command::Command;
pub use config::Config;
pub use event::Event;
pub use machine::{Counters, NewError, PeerStatus, Status, SyncMachine};
pub use normal::{NORMAL_NOW, Renamed};
#[cfg(feature = "trace")]
pub use saved::RestoreError;
pub use time::Timestamp;
