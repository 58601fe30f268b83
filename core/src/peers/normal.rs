//! The normal form of what is known of peers.

use super::{Peer, PeerBook};
use crate::{normal::Frame, time::Timestamp};
use core::time::Duration;

/// For how long it matters when a peer was last polled: the shortest pause between two polls.
const POLLS_MATTER: Duration = Duration::from_millis(100);

impl PeerBook {
    /// As far as what can still happen depends on it, while there are fewer peers than records and fewer answers of
    /// blocks than are looked back on. `grown` is when the chain last grew.
    pub(crate) fn normalise(&mut self, frame: &Frame, grown: Timestamp) {
        for peer in self.peers.values_mut() {
            peer.normalise(frame, grown);
        }
    }
}

impl Peer {
    fn normalise(&mut self, frame: &Frame, grown: Timestamp) {
        if let Some(claim) = &mut self.claim {
            // All that is asked is whether the chain has grown since.
            match () {
                () if claim.polled >= frame.now => frame.moment(&mut claim.polled),
                () if claim.polled >= grown => {
                    claim.polled = grown;
                    frame.moment(&mut claim.polled);
                }
                () => claim.polled = Timestamp::ZERO,
            }
        }
        if let Some(at) = &mut self.overtaken_at {
            frame.moment(at);
        }
        if self.poll_in_flight {
            // Set when the poll is over.
            self.next_poll = frame.now;
        }
        self.next_poll = self.next_poll.max(frame.now);
        frame.moment(&mut self.next_poll);
        if frame.now.saturating_since(self.last_poll) > POLLS_MATTER {
            self.last_poll = Timestamp::ZERO;
        } else {
            frame.moment(&mut self.last_poll);
        }
        frame.end(&mut self.backoff_until);
        frame.end(&mut self.banned_until);
        frame.end(&mut self.follow_rest_until);
        for avoided in self.avoided.values_mut() {
            frame.end(&mut avoided.at_least_until);
            frame.end(&mut avoided.until);
        }
        self.cut = self.cut.filter(|(_, until)| *until > frame.now);
        if let Some((_, until)) = &mut self.cut {
            frame.moment(until);
        }
        self.seen = Timestamp::ZERO;
        (self.truncated, self.answers) = (0, 0);
        (self.served_commits, self.served_bytes) = (0, self.served_bytes.min(1));
        (self.timeouts, self.last_offence) = (0, None);
    }
}
