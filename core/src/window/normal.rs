//! The normal form of the window.

use super::{Body, Slot, Span, Window};
use crate::normal::Frame;

impl Window {
    /// With the normal form's ids.
    pub(crate) fn normalise(&mut self, frame: &Frame) {
        for span in self.spans.values_mut() {
            match span {
                Span::Requested { request, end: _ } => frame.request(request),
                Span::Certifying { job, end: _ } => frame.job(job),
                Span::Certified(certified) => {
                    certified.bodies.iter_mut().for_each(|body| body.normalise(frame));
                }
            }
        }
    }
}

impl Body {
    fn normalise(&mut self, frame: &Frame) {
        frame.buffer(&mut self.buffer);
        self.certifiers.iter_mut().for_each(|(_, buffer)| frame.buffer(buffer));
        for slot in &mut self.slots {
            match slot {
                Slot::Requested(request) => frame.request(request),
                Slot::Checking(job) => frame.job(job),
                Slot::Held(held) => frame.buffer(&mut held.1),
                Slot::Missing | Slot::Staged => {}
            }
        }
    }
}
