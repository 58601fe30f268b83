//! Events.

use super::{
    Converted, Malformed, payloads, pb, peer, read_payloads, read_peer,
    request::{self, read_finished, read_part, read_refusal, write_finished, write_part, write_refusal},
    start::{self, read_committee, write_committee},
    verdict,
};
use crate::trace::mark::micros;
use core::time::Duration;
use pb::{entry, received};
use soma_sync_core::{
    command::BatchId,
    event::{Event, InboundId, JobId, RequestId},
    types::CommitIndex,
};

/// An event; with the bytes of its payloads where `full`.
pub(in super::super) fn write(event: &Event, full: bool) -> entry::Event {
    match event {
        Event::Tick => entry::Event::Tick(true),
        Event::CommitObserved { commit, blocks } => entry::Event::CommitObserved(pb::Observed {
            commit: Some(payloads(std::iter::once(commit), full)),
            blocks: Some(payloads(blocks.iter(), full)),
        }),
        Event::VotesObserved { blocks } => entry::Event::VotesObserved(payloads(blocks.iter(), full)),
        Event::CommitteeKnown { committee } => entry::Event::CommitteeKnown(write_committee(committee)),
        Event::PeerConnected { peer: id } => entry::Event::PeerConnected(peer(id)),
        Event::PeerDisconnected { peer: id } => entry::Event::PeerDisconnected(peer(id)),
        Event::RequestReceived { id, peer: from, request } => {
            let request = match request {
                Ok(request) => received::Request::Asked(request::write(request)),
                Err(reason) => received::Request::Refused(write_refusal(*reason).into()),
            };
            entry::Event::RequestReceived(pb::Received {
                id: id.get(),
                peer: peer(from),
                request: Some(request),
            })
        }
        Event::ResponsePart { id, part } => entry::Event::ResponsePart(write_part(*id, part, full)),
        Event::RequestFinished { id, result } => entry::Event::RequestFinished(write_finished(*id, *result)),
        Event::Verified { id, verdict } => {
            entry::Event::Verified(pb::Verified { id: id.get(), verdict: Some(verdict::write(verdict)) })
        }
        Event::Stored { through } => entry::Event::Stored(through.get()),
        Event::StoreFailed { from } => entry::Event::StoreFailed(from.get()),
        Event::StoreReopened { start } => entry::Event::StoreReopened(start::write(start)),
        Event::Pruned { lowest } => entry::Event::Pruned(lowest.get()),
        Event::Broadcasted { through } => entry::Event::Broadcasted(through.get()),
        Event::Served { id, bytes, waited } => {
            entry::Event::Served(pb::Served { id: id.get(), bytes: *bytes, waited: micros(*waited) })
        }
    }
}

pub(in super::super) fn read(event: entry::Event) -> Converted<Event> {
    Ok(match event {
        entry::Event::Tick(_) => Event::Tick,
        entry::Event::CommitObserved(pb::Observed { commit, blocks }) => {
            let commit = read_payloads(commit)?;
            let [commit] = <[_; 1]>::try_from(commit).map_err(|_| Malformed("not one commit observed"))?;
            Event::CommitObserved { commit, blocks: read_payloads(blocks)? }
        }
        entry::Event::VotesObserved(blocks) => Event::VotesObserved { blocks: read_payloads(Some(blocks))? },
        entry::Event::CommitteeKnown(committee) => {
            Event::CommitteeKnown { committee: read_committee(&committee)? }
        }
        entry::Event::PeerConnected(peer) => Event::PeerConnected { peer: read_peer(&peer)? },
        entry::Event::PeerDisconnected(peer) => Event::PeerDisconnected { peer: read_peer(&peer)? },
        entry::Event::RequestReceived(pb::Received { id, peer, request }) => Event::RequestReceived {
            id: InboundId::new(id),
            peer: read_peer(&peer)?,
            request: match request.ok_or(Malformed("no request received"))? {
                received::Request::Asked(request) => Ok(request::read(&request)?),
                received::Request::Refused(reason) => Err(read_refusal(reason)?),
            },
        },
        entry::Event::ResponsePart(pb::Part { id, part }) => {
            Event::ResponsePart { id: RequestId::new(id), part: read_part(part)? }
        }
        entry::Event::RequestFinished(finished) => {
            Event::RequestFinished { id: RequestId::new(finished.id), result: read_finished(&finished)? }
        }
        entry::Event::Verified(pb::Verified { id, verdict }) => {
            Event::Verified { id: JobId::new(id), verdict: verdict::read(verdict)? }
        }
        entry::Event::Stored(through) => Event::Stored { through: BatchId::new(through) },
        entry::Event::StoreFailed(from) => Event::StoreFailed { from: BatchId::new(from) },
        entry::Event::StoreReopened(start) => Event::StoreReopened { start: Box::new(start::read(start)?) },
        entry::Event::Pruned(lowest) => Event::Pruned { lowest: CommitIndex::new(lowest) },
        entry::Event::Broadcasted(through) => Event::Broadcasted { through: CommitIndex::new(through) },
        entry::Event::Served(pb::Served { id, bytes, waited }) => {
            Event::Served { id: InboundId::new(id), bytes, waited: Duration::from_micros(waited) }
        }
    })
}
